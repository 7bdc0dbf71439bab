//! The tokenizer as the packer prepares it: tables that are used where they are mapped.
//!
//! All numbers are u32, little endian. Eight come first:
//!
//! ```text
//! form, flags, tokens T, words W, merges M, added tokens A, ranges of characters C, bytes of text B
//! ```
//!
//! Then, one behind the other:
//!
//! | what | numbers | |
//! |---|---|---|
//! | ends | T + 1 | where the text of token `i` begins, and that of `i + 1` |
//! | kinds | T | 1 = special, 2 = added |
//! | words | W | the model's own tokens by their bytes, ascending |
//! | lefts | T + 1 | where the merges with token `i` on the left begin |
//! | merges | 3 · M | right token, rank, merged token; by left and right, ascending |
//! | added | A | longest first, equals by their text |
//! | classes | C | ranges of characters ([`Classes`]) |
//! | bytes | 256 | the token of each byte; all bits set where there is none and the byte is dropped |
//! | text | B bytes | the bytes of all tokens, by id |
//!
//! When the tables are opened, the lengths are checked, and that no two tokens share text and no two
//! added tokens are one, so that what is made of all tokens is no larger than the tables. Each
//! number is checked when it is used: one that points outside stands for nothing.

pub(crate) mod build;

use super::TokenizerError;
use super::classes::Classes;
use super::merging::Merging;
use crate::pack::Blob;
use std::cmp::Reverse;

/// The form above.
const FORM: u32 = 1;
/// Numbers before the first table.
const COUNTS: usize = 8;
/// Flag: every digit is a word of its own.
const SPLIT_DIGITS: u32 = 1;
/// Flag: a word that is a token is not taken apart.
const WHOLE_WORDS: u32 = 2;
/// Kind: no part of an answer's text.
const SPECIAL: u32 = 1;
/// Kind: matched as a whole wherever it is written.
const ADDED: u32 = 2;

/// In place of the token of a byte the vocabulary lacks, as SmolLM2's lacks 21 control characters
/// and bytes that UTF-8 has no or little use for. Such a byte is dropped, its neighbours may merge.
const NO_TOKEN: u32 = u32::MAX;

type Word = [u8; 4];

/// Opened tables.
#[derive(Clone, Debug)]
pub(super) struct Tables {
    bytes: Blob,
    counts: Counts,
}

/// Lengths of the tables, and the flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    flags: u32,
    tokens: usize,
    words: usize,
    merges: usize,
    added: usize,
    classes: usize,
    text: usize,
}

impl Counts {
    /// Numbers and bytes of the tables, in order; `None` on overflow.
    fn sections(&self) -> Option<[usize; 9]> {
        let more = self.tokens.checked_add(1)?;
        Some([
            more,
            self.tokens,
            self.words,
            more,
            self.merges.checked_mul(3)?,
            self.added,
            self.classes,
            256,
            self.text,
        ])
    }

    /// Bytes of all the tables; `None` on overflow.
    fn byte_len(&self) -> Option<usize> {
        let [words @ .., text] = self.sections()?;
        let numbers = words
            .into_iter()
            .try_fold(COUNTS, |sum, n| sum.checked_add(n))?;
        numbers.checked_mul(4)?.checked_add(text)
    }
}

/// The tables as slices.
#[derive(Clone, Copy, Debug)]
struct View<'t> {
    flags: u32,
    ends: &'t [Word],
    kinds: &'t [Word],
    words: &'t [Word],
    lefts: &'t [Word],
    merges: &'t [[Word; 3]],
    added: &'t [Word],
    classes: Classes<'t>,
    bytes: &'t [Word],
    text: &'t [u8],
}

impl Tables {
    /// Checks the tables as said above.
    ///
    /// # Errors
    ///
    /// [`TokenizerError::Tables`] if they are cut, of a form this program does not know, or larger
    /// in use than they are.
    pub(super) fn open(bytes: Blob) -> Result<Tables, TokenizerError> {
        let damaged = |what: String| TokenizerError::Tables { what };
        let (words, _) = bytes.as_chunks::<4>();
        let Some(first) = words.first_chunk::<COUNTS>() else {
            return Err(damaged(format!("{} bytes are too few", bytes.len())));
        };
        let [form, flags, lengths @ ..] = first.map(u32::from_le_bytes);
        if form != FORM {
            return Err(damaged(format!("form {form}, this program reads {FORM}")));
        }
        let [tokens, words, merges, added, classes, text] = lengths.map(|n| n as usize);
        let counts = Counts {
            flags,
            tokens,
            words,
            merges,
            added,
            classes,
            text,
        };
        match counts.byte_len() {
            Some(len) if len == bytes.len() => {}
            _ => {
                return Err(damaged(format!(
                    "{} bytes do not hold {tokens} tokens, {merges} merges and {text} bytes of text",
                    bytes.len()
                )));
            }
        }
        let tables = Tables { bytes, counts };
        match tables.view().excess() {
            Some(what) => Err(damaged(what.to_owned())),
            None => Ok(tables),
        }
    }

    fn view(&self) -> View<'_> {
        let mut rest = self.bytes.as_chunks::<4>().0.get(COUNTS..).unwrap_or(&[]);
        let mut take = |n: usize| {
            let (own, behind) = rest.split_at_checked(n).unwrap_or((&[], &[]));
            rest = behind;
            own
        };
        let counts = &self.counts;
        let ends = take(counts.tokens + 1);
        View {
            flags: counts.flags,
            ends,
            kinds: take(counts.tokens),
            words: take(counts.words),
            lefts: take(counts.tokens + 1),
            merges: take(3 * counts.merges).as_chunks::<3>().0,
            added: take(counts.added),
            classes: Classes(take(counts.classes)),
            bytes: take(256),
            // The lengths were compared when the tables were opened.
            text: &self.bytes[self.bytes.len() - counts.text..],
        }
    }

    /// One more than the highest token id.
    pub(super) fn n_tokens(&self) -> usize {
        self.counts.tokens
    }

    /// The bytes of a token; none if there is no such token.
    pub(super) fn token_bytes(&self, id: u32) -> &[u8] {
        self.view().token_bytes(id)
    }

    pub(super) fn is_special(&self, id: u32) -> bool {
        self.view().kind(id) & SPECIAL != 0
    }

    pub(super) fn is_added(&self, id: u32) -> bool {
        self.view().kind(id) & ADDED != 0
    }

    /// Id and text of the added tokens, longest first.
    pub(super) fn added(&self) -> impl Iterator<Item = (u32, &str)> {
        let view = self.view();
        view.added.iter().filter_map(move |id| {
            let id = u32::from_le_bytes(*id);
            let text = std::str::from_utf8(view.token_bytes(id)).ok()?;
            (!text.is_empty()).then_some((id, text))
        })
    }

    /// The model's own token with these bytes.
    pub(super) fn word(&self, bytes: &[u8]) -> Option<u32> {
        self.view().word(bytes)
    }

    /// Token ids of a text.
    pub(super) fn encode(&self, text: &str) -> Vec<u32> {
        let view = self.view();
        let added: Vec<(u32, &str)> = self.added().collect();
        let mut begins = [false; 256];
        (added.iter()).for_each(|(_, token)| begins[usize::from(token.as_bytes()[0])] = true);
        let mut merging = Merging::default();
        let mut ids = Vec::new();
        let mut plain_from = 0;
        let mut at = 0;
        while let Some(found) = text.get(at..).filter(|rest| !rest.is_empty()) {
            let may_begin = begins[usize::from(found.as_bytes()[0])];
            let token = may_begin.then(|| added.iter().find(|(_, token)| found.starts_with(token)));
            match token.flatten() {
                Some((id, token)) => {
                    view.encode_plain(&text[plain_from..at], &mut merging, &mut ids);
                    ids.push(*id);
                    at += token.len();
                    plain_from = at;
                }
                None => at += found.chars().next().map_or(1, char::len_utf8),
            }
        }
        view.encode_plain(&text[plain_from..], &mut merging, &mut ids);
        ids
    }
}

/// The number at `at`.
fn number(table: &[Word], at: usize) -> Option<usize> {
    Some(u32::from_le_bytes(*table.get(at)?) as usize)
}

impl<'t> View<'t> {
    /// What would make more of the tables than they hold.
    fn excess(&self) -> Option<&'static str> {
        let number = |word: &Word| u32::from_le_bytes(*word);
        if !self.ends.is_sorted_by_key(number) {
            return Some("two tokens share their text");
        }
        let place = |id: &Word| {
            let text = self.token_bytes(number(id));
            (Reverse(text.len()), text)
        };
        let ascend = self.added.is_sorted_by(|a, b| place(a) < place(b));
        (!ascend).then_some("the added tokens are not in order")
    }

    fn token_bytes(&self, id: u32) -> &'t [u8] {
        let bytes = || {
            let at = usize::try_from(id).ok()?;
            let (start, end) = (
                number(self.ends, at)?,
                number(self.ends, at.checked_add(1)?)?,
            );
            self.text.get(start..end)
        };
        bytes().unwrap_or_default()
    }

    fn kind(&self, id: u32) -> u32 {
        let kind = self.kinds.get(id as usize);
        kind.map_or(0, |kind| u32::from_le_bytes(*kind))
    }

    fn word(&self, bytes: &[u8]) -> Option<u32> {
        let id = |word: &Word| u32::from_le_bytes(*word);
        let found = self
            .words
            .binary_search_by(|word| self.token_bytes(id(word)).cmp(bytes));
        let found = id(self.words.get(found.ok()?)?);
        (!bytes.is_empty() && (found as usize) < self.kinds.len()).then_some(found)
    }

    /// Rank and token of a merge.
    fn merge(&self, left: u32, right: u32) -> Option<(u32, u32)> {
        let at = usize::try_from(left).ok()?;
        let (start, end) = (
            number(self.lefts, at)?,
            number(self.lefts, at.checked_add(1)?)?,
        );
        let merges = self.merges.get(start..end)?;
        let found = merges.binary_search_by_key(&right, |merge| u32::from_le_bytes(merge[0]));
        let [_, rank, merged] = merges.get(found.ok()?)?.map(u32::from_le_bytes);
        ((merged as usize) < self.kinds.len()).then_some((rank, merged))
    }

    /// Token ids of a text without added tokens.
    fn encode_plain(&self, text: &str, merging: &mut Merging, ids: &mut Vec<u32>) {
        let split_digits = self.flags & SPLIT_DIGITS != 0;
        self.classes.words(text, split_digits, |word| {
            let whole = (self.flags & WHOLE_WORDS != 0)
                .then(|| self.word(word.as_bytes()))
                .flatten();
            match whole {
                Some(id) => ids.push(id),
                None => {
                    let bytes = word.bytes().filter_map(|byte| {
                        let id = u32::from_le_bytes(*self.bytes.get(usize::from(byte))?);
                        ((id as usize) < self.kinds.len()).then_some(id)
                    });
                    merging.merge(bytes, |left, right| self.merge(left, right), ids);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests;
