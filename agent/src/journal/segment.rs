//! Segments: files of records, read in whatever state they are.

use super::record::{self, Hash, MAX_SEQUENCE, Sound};
use std::fmt;

/// First bytes of a segment.
pub const MAGIC: [u8; 8] = *b"OCELLIJN";
/// The format this program writes and reads.
pub const FORMAT_VERSION: u32 = 1;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 64;
/// Longest segment that is read, in bytes.
pub const MAX_SEGMENT_BYTES: u64 = 256 << 20;
const SUFFIX: &str = ".journal";

/// Name of the segment that begins with a record.
pub fn name(first: u64) -> String {
    format!("{first:020}{SUFFIX}")
}

/// Number of the first record, if `name` is the name of a segment.
pub fn first_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    let is_name = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let first = is_name.then(|| digits.parse().ok()).flatten()?;
    (first <= MAX_SEQUENCE).then_some(first)
}

/// Begin of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Number of the first record.
    pub first: u64,
    /// Hash of the record before it; zeros before the first record of all.
    pub before: Hash,
    /// Wall clock at creation in ms since 1970; 0 if it had not been set.
    pub created_ms: u64,
}

impl Header {
    /// The bytes.
    pub fn bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.first.to_le_bytes());
        bytes[20..52].copy_from_slice(&self.before);
        bytes[52..60].copy_from_slice(&self.created_ms.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header; `None` if it is cut, damaged or of another version.
    pub fn read(bytes: &[u8]) -> Option<Header> {
        let header = bytes.first_chunk::<HEADER_BYTES>()?;
        let (body, crc) = header.split_last_chunk::<4>()?;
        let is_sound = crc32fast::hash(body) == u32::from_le_bytes(*crc)
            && body.starts_with(&MAGIC)
            && body[8..12] == FORMAT_VERSION.to_le_bytes();
        is_sound.then_some(Header {
            first: u64::from_le_bytes(*body[12..].first_chunk()?),
            before: *body[20..].first_chunk()?,
            created_ms: u64::from_le_bytes(*body[52..].first_chunk()?),
        })
    }
}

/// What is wrong with a stretch of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The file cannot be read.
    Unreadable(String),
    /// The header is cut, damaged or of another version.
    Header,
    /// The bytes are no sound record.
    Bytes,
    /// The record is sound but its hash does not follow from the one before.
    Chain,
    /// Records are missing before this one.
    Missing {
        /// Number that was to follow.
        expected: u64,
        /// Number found.
        found: u64,
    },
    /// The record is sound but its body is of no known type.
    Body,
}

/// Damage to the journal: where, what, and from where on it is good again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{segment}, offset {offset}: {flaw}; {}", Rest(*.good_again))]
pub struct Damage {
    /// File name of the segment.
    pub segment: String,
    /// Where the damage begins, in bytes.
    pub offset: u64,
    /// What is wrong.
    pub flaw: Flaw,
    /// Number of the next good record.
    pub good_again: Option<u64>,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Flaw::Unreadable(cause) => write!(f, "cannot be read: {cause}"),
            Flaw::Header => write!(f, "the header is damaged or not of format {FORMAT_VERSION}"),
            Flaw::Bytes => f.write_str("the bytes are no sound record"),
            Flaw::Chain => f.write_str("the hash does not follow from the record before"),
            Flaw::Missing { expected, found } => {
                write!(f, "record {found} follows where {expected} was expected")
            }
            Flaw::Body => f.write_str("the body is of no type this program knows"),
        }
    }
}

struct Rest(Option<u64>);

impl fmt::Display for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(sequence) => write!(f, "good again from record {sequence}"),
            None => f.write_str("nothing good follows in this segment"),
        }
    }
}

/// A stretch of a segment.
#[derive(Clone, Copy, Debug)]
pub enum Stretch<'a> {
    /// A sound record and where it begins.
    Record(usize, Sound<'a>),
    /// Bytes that are none, from an offset to another.
    Broken(usize, usize),
}

/// The stretches of a segment's bytes, behind its header.
#[derive(Clone, Debug)]
pub struct Stretches<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Stretches<'a> {
    /// Walks over these bytes of a whole segment file.
    pub fn new(bytes: &'a [u8]) -> Stretches<'a> {
        Stretches {
            bytes,
            at: HEADER_BYTES.min(bytes.len()),
        }
    }
}

impl<'a> Iterator for Stretches<'a> {
    type Item = Stretch<'a>;

    fn next(&mut self) -> Option<Stretch<'a>> {
        let begin = self.at;
        let rest = self.bytes.get(begin..).filter(|rest| !rest.is_empty())?;
        if let Some(sound) = record::read(rest) {
            self.at += sound.n_bytes;
            return Some(Stretch::Record(begin, sound));
        }
        self.at = record::find(self.bytes, begin + 1).unwrap_or(self.bytes.len());
        Some(Stretch::Broken(begin, self.at))
    }
}

/// The end of a segment that was being written when the program or the board stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// Number and hash of the last record that counts; those before the segment if it has none.
    pub last: (u64, Hash),
    /// Where the last record that counts ends.
    pub end: usize,
    /// Records up to `end` have gaps that were on the disk once.
    pub is_damaged: bool,
}

impl Tail {
    /// Finds the end of a segment.
    ///
    /// Broken bytes are damage if a record behind them says that they were on the disk; otherwise
    /// they, and whatever lies behind them, never were acknowledged.
    pub fn find(bytes: &[u8], header: &Header) -> Tail {
        let known = Stretches::new(bytes)
            .filter_map(|stretch| match stretch {
                Stretch::Record(_, sound) => Some(sound.known_bytes as usize),
                Stretch::Broken(..) => None,
            })
            .max()
            .unwrap_or(0);
        let mut tail = Tail {
            last: (header.first.saturating_sub(1), header.before),
            end: HEADER_BYTES,
            is_damaged: false,
        };
        for stretch in Stretches::new(bytes) {
            match stretch {
                Stretch::Record(begin, sound)
                    if tail.takes(&sound)
                        || begin < known
                        || (tail.is_damaged && begin == known) =>
                {
                    tail.is_damaged |= !tail.takes(&sound);
                    tail.last = (sound.sequence, sound.hash);
                    tail.end = begin + sound.n_bytes;
                }
                Stretch::Broken(begin, _) if begin < known => tail.is_damaged = true,
                Stretch::Record(..) | Stretch::Broken(..) => break,
            }
        }
        tail
    }

    fn takes(&self, sound: &Sound<'_>) -> bool {
        self.last.0.checked_add(1) == Some(sound.sequence)
            && sound.hash == record::chained(&self.last.1, sound.payload)
    }
}
