//! [`Node`]: a kind of value, and what it takes byte by byte.

use super::number::{Digits, Range};
use super::{GrammarError, MAX_ALTERNATIVES, MAX_TEXT};

/// A kind of value.
#[derive(Clone, Debug)]
pub(super) enum Node {
    /// One of these texts.
    Texts(Vec<Box<[u8]>>),
    /// A number.
    Number(Range),
    /// A JSON string of at most so many characters.
    Text(u16),
    /// A JSON array of at most `most` values of one kind.
    Array { item: u16, most: u16 },
    /// A JSON object with properties in this order.
    Object {
        /// Their names as JSON, with the colon.
        keys: Vec<Box<[u8]>>,
        values: Vec<u16>,
        /// A bit for each that must be there.
        required: u64,
    },
    /// `null` or the other.
    Optional { null: u16, other: u16 },
}

/// How far an open value is. What `at` and `set` mean is its node's business:
///
/// | node | `at` | `set` |
/// |---|---|---|
/// | texts | bytes matched | texts that match, a bit each |
/// | number | see [`Digits::packed`] | digits |
/// | text | characters | 0 before the quote, else [`Inside`] |
/// | array | [`BEFORE`] to [`AFTER`] | values begun |
/// | object | [`BEFORE`] to [`BETWEEN`], or [`IN_KEY`] + bytes of the name | properties that may still come; in a name those that match |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Frame {
    pub(super) node: u16,
    at: u16,
    set: u64,
}

/// Before the opening bracket.
const BEFORE: u16 = 0;
/// After the opening bracket.
const OPENED: u16 = 1;
/// After a value.
const AFTER: u16 = 2;
/// After a comma.
const BETWEEN: u16 = 3;
/// In the name of a property.
const IN_KEY: u16 = 4;

/// What a byte does to the innermost open value.
pub(super) enum Advance {
    /// It belongs to the value.
    Stay(Frame),
    /// It is the value's last one.
    Done,
    /// The value was whole before it, and the byte belongs to what is around.
    Over,
    /// The value is of this kind; the byte is its first one.
    Become(u16),
    /// It belongs to the value, and a new one inside begins after it.
    Into(Frame, u16),
    /// It is the first byte of a new value inside.
    Through(Frame, u16),
    /// It may not come.
    Refuse,
}

impl Frame {
    pub(super) fn of(node: u16) -> Frame {
        Frame {
            node,
            at: 0,
            set: 0,
        }
    }

    fn with(self, at: u16, set: u64) -> Frame {
        Frame { at, set, ..self }
    }
}

/// A choice of texts, checked; `at` names it in errors.
pub(super) fn texts(texts: &[&str], at: &str) -> Result<Node, GrammarError> {
    let too_much = |found: String, limit| GrammarError::TooMuch {
        at: at.to_owned(),
        found,
        limit,
    };
    if texts.len() > MAX_ALTERNATIVES {
        return Err(too_much(
            format!("{} alternatives", texts.len()),
            MAX_ALTERNATIVES,
        ));
    }
    if let Some(long) = texts.iter().find(|text| text.len() > MAX_TEXT) {
        return Err(too_much(
            format!("a text of {} bytes", long.len()),
            MAX_TEXT,
        ));
    }
    Ok(Node::Texts(
        texts.iter().map(|text| text.as_bytes().into()).collect(),
    ))
}

/// A bit for each of the texts (at most [`MAX_ALTERNATIVES`]).
fn all(count: usize) -> u64 {
    match count {
        64.. => u64::MAX,
        count => (1 << count) - 1,
    }
}

/// Numbers of the bits that are set.
fn bits(set: u64) -> impl Iterator<Item = usize> {
    (0..64usize).filter(move |bit| set >> bit & 1 == 1)
}

/// Those of `set` whose byte at `at` is `byte`.
fn matching(texts: &[Box<[u8]>], set: u64, at: u16, byte: u8) -> u64 {
    bits(set)
        .filter(|text| texts[*text].get(usize::from(at)) == Some(&byte))
        .fold(0, |found, text| found | 1 << text)
}

/// The first of the shortest texts in `set`.
fn shortest(texts: &[Box<[u8]>], set: u64) -> Option<&[u8]> {
    bits(set)
        .min_by_key(|text| texts[*text].len())
        .map(|text| &*texts[text])
}

impl Node {
    /// Whether this is a value without values inside.
    pub(super) fn is_field(&self) -> bool {
        !matches!(self, Node::Array { .. } | Node::Object { .. })
    }

    pub(super) fn advance(&self, frame: Frame, byte: u8) -> Advance {
        match self {
            Node::Texts(texts) => advance_texts(texts, frame, byte),
            Node::Number(range) => {
                let digits = Digits::unpacked(frame.at, frame.set);
                match range.push(digits, byte) {
                    Some(digits) => {
                        let (at, set) = digits.packed();
                        Advance::Stay(frame.with(at, set))
                    }
                    None if range.is_complete(digits) => Advance::Over,
                    None => Advance::Refuse,
                }
            }
            Node::Text(most) => advance_text(*most, frame, byte),
            Node::Array { item, most } => {
                let room = frame.set < u64::from(*most);
                let next = frame.with(AFTER, frame.set + 1);
                match (frame.at, byte) {
                    (BEFORE, b'[') => Advance::Stay(frame.with(OPENED, 0)),
                    (OPENED | AFTER, b']') => Advance::Done,
                    (AFTER, b',') if room => Advance::Into(next, *item),
                    (OPENED, _) if room => Advance::Through(next, *item),
                    _ => Advance::Refuse,
                }
            }
            Node::Object {
                keys,
                values,
                required,
            } => advance_object(keys, values, *required, frame, byte),
            Node::Optional { null, other } => match byte {
                b'n' => Advance::Become(*null),
                _ => Advance::Become(*other),
            },
        }
    }

    /// Whether the value may end here.
    pub(super) fn is_complete(&self, frame: Frame) -> bool {
        match self {
            Node::Texts(texts) => bits(frame.set)
                .any(|text| frame.at > 0 && texts[text].len() == usize::from(frame.at)),
            Node::Number(range) => range.is_complete(Digits::unpacked(frame.at, frame.set)),
            _ => false,
        }
    }

    /// The next byte of the shortest way to the end of the value; `None` if it may end here.
    pub(super) fn way_out(&self, frame: Frame) -> Option<u8> {
        match self {
            Node::Texts(texts) => {
                let set = match frame.at {
                    0 => all(texts.len()),
                    _ => frame.set,
                };
                shortest(texts, set)?.get(usize::from(frame.at)).copied()
            }
            Node::Number(range) => range.way_out(Digits::unpacked(frame.at, frame.set)),
            Node::Text(_) => Some(Inside::of(frame.set).map_or(b'"', Inside::way_out)),
            Node::Array { .. } => Some(match frame.at {
                BEFORE => b'[',
                _ => b']',
            }),
            Node::Object { keys, required, .. } => {
                let due = bits(frame.set & required).next();
                Some(match (frame.at, due) {
                    (BEFORE, _) => b'{',
                    (OPENED | AFTER, None) => b'}',
                    (OPENED, Some(_)) => b'"',
                    (AFTER, Some(_)) => b',',
                    (BETWEEN, _) => b'"',
                    (at, Some(due)) => keys[due][usize::from(at - IN_KEY)],
                    (at, None) => shortest(keys, frame.set)?[usize::from(at - IN_KEY)],
                })
            }
            Node::Optional { .. } => Some(b'n'),
        }
    }

    /// The frame with what cannot matter within `longest` bytes left out.
    pub(super) fn key(&self, frame: Frame, longest: usize) -> Frame {
        let far = |used: u64, most: u16| u64::from(most).saturating_sub(used) > longest as u64;
        match self {
            Node::Text(most) if far(u64::from(frame.at), *most) => Frame { at: 0, ..frame },
            Node::Array { most, .. } if far(frame.set, *most) => Frame { set: 0, ..frame },
            _ => frame,
        }
    }
}

fn advance_texts(texts: &[Box<[u8]>], frame: Frame, byte: u8) -> Advance {
    let before = match frame.at {
        0 => all(texts.len()),
        _ => frame.set,
    };
    let set = matching(texts, before, frame.at, byte);
    let at = frame.at + 1;
    if set != 0 {
        let goes_on = bits(set).any(|text| texts[text].len() > usize::from(at));
        return match goes_on {
            true => Advance::Stay(frame.with(at, set)),
            false => Advance::Done,
        };
    }
    let whole = bits(before).any(|text| texts[text].len() == usize::from(frame.at));
    match whole {
        true => Advance::Over,
        false => Advance::Refuse,
    }
}

fn advance_object(
    keys: &[Box<[u8]>],
    values: &[u16],
    required: u64,
    frame: Frame,
    byte: u8,
) -> Advance {
    // Properties come in order, so none may come before the first one that must.
    let open = frame.set;
    let must = open & required;
    let reachable = match must {
        0 => open,
        must => open & (must ^ (must - 1)),
    };
    let name = |set: u64, at: u16| {
        let found = matching(keys, set, at, byte);
        let whole = bits(found).find(|key| keys[*key].len() == usize::from(at) + 1);
        match (found, whole) {
            (0, _) => Advance::Refuse,
            // The rest after this one: no name is the begin of another.
            (_, Some(key)) => {
                let rest = all(keys.len()) & !((2u64 << key).wrapping_sub(1));
                Advance::Into(frame.with(AFTER, rest), values[key])
            }
            _ => Advance::Stay(frame.with(IN_KEY + at + 1, found)),
        }
    };
    match (frame.at, byte) {
        (BEFORE, b'{') => Advance::Stay(frame.with(OPENED, all(keys.len()))),
        (OPENED | AFTER, b'}') if must == 0 => Advance::Done,
        (AFTER, b',') if open != 0 => Advance::Stay(frame.with(BETWEEN, open)),
        (OPENED | BETWEEN, _) => name(reachable, 0),
        (at @ IN_KEY.., _) => name(open, at - IN_KEY),
        _ => Advance::Refuse,
    }
}

/// Where in a JSON string an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Inside {
    /// After a backslash.
    escape: bool,
    /// Bytes of a character that still have to come, and the bounds of the next one (Unicode
    /// standard, table 3-7).
    more: u8,
    low: u8,
    high: u8,
}

impl Inside {
    const CLEAN: Inside = Inside {
        escape: false,
        more: 0,
        low: 0,
        high: 0,
    };

    /// From [`Frame::set`]; `None` before the opening quote.
    fn of(set: u64) -> Option<Inside> {
        let [inside, escape, more, low, high, ..] = set.to_le_bytes();
        (inside == 1).then_some(Inside {
            escape: escape == 1,
            more,
            low,
            high,
        })
    }

    fn packed(self) -> u64 {
        let escape = u8::from(self.escape);
        u64::from_le_bytes([1, escape, self.more, self.low, self.high, 0, 0, 0])
    }

    fn way_out(self) -> u8 {
        match self {
            Inside { escape: true, .. } => b'n',
            Inside { more: 0, .. } => b'"',
            Inside { low, .. } => low,
        }
    }

    /// After the first byte of a character of several.
    fn begun(first: u8) -> Option<Inside> {
        let (more, low, high) = match first {
            0xc2..=0xdf => (1, 0x80, 0xbf),
            0xe0 => (2, 0xa0, 0xbf),
            0xed => (2, 0x80, 0x9f),
            0xe1..=0xef => (2, 0x80, 0xbf),
            0xf0 => (3, 0x90, 0xbf),
            0xf1..=0xf3 => (3, 0x80, 0xbf),
            0xf4 => (3, 0x80, 0x8f),
            _ => return None,
        };
        Some(Inside {
            escape: false,
            more,
            low,
            high,
        })
    }
}

fn advance_text(most: u16, frame: Frame, byte: u8) -> Advance {
    let Some(inside) = Inside::of(frame.set) else {
        return match byte {
            b'"' => Advance::Stay(frame.with(0, Inside::CLEAN.packed())),
            _ => Advance::Refuse,
        };
    };
    let stay = |at: u16, inside: Inside| Advance::Stay(frame.with(at, inside.packed()));
    if inside.more > 0 {
        let rest = Inside {
            more: inside.more - 1,
            low: 0x80,
            high: 0xbf,
            ..inside
        };
        return match (inside.low..=inside.high).contains(&byte) {
            true if rest.more == 0 => stay(frame.at, Inside::CLEAN),
            true => stay(frame.at, rest),
            false => Advance::Refuse,
        };
    }
    if inside.escape {
        return match byte {
            b'"' | b'\\' | b'n' | b't' => stay(frame.at, Inside::CLEAN),
            _ => Advance::Refuse,
        };
    }
    if byte == b'"' {
        return Advance::Done;
    }
    if frame.at >= most {
        return Advance::Refuse;
    }
    let next = match byte {
        b'\\' => Some(Inside {
            escape: true,
            ..Inside::CLEAN
        }),
        0x20..=0x7e => Some(Inside::CLEAN),
        _ => Inside::begun(byte),
    };
    next.map_or(Advance::Refuse, |inside| stay(frame.at + 1, inside))
}
