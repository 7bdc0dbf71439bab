//! [`Reader`]: records in order, and damage where there is some.

use super::record::{Hash, Record, chained};
use super::segment::{
    self, Damage, Flaw, HEADER_BYTES, Header, MAX_SEGMENT_BYTES, Stretch, Stretches, Tail,
};
use super::storage::Storage;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::marker::PhantomData;

/// Damages a [`Summary`] lists; more are counted.
pub const MAX_DAMAGES: usize = 1000;

/// A record's number, its bytes and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw {
    /// Number.
    pub sequence: u64,
    /// File name of the segment.
    pub segment: String,
    /// Begin in the segment.
    pub offset: u64,
    /// Postcard bytes of the record.
    pub payload: Vec<u8>,
    /// Its link of the chain.
    pub hash: Hash,
}

/// Walks over all records of a journal without knowing their type. One segment at a time is in
/// memory.
#[derive(Debug)]
pub struct Walk<'a, S> {
    storage: &'a S,
    firsts: VecDeque<u64>,
    found: VecDeque<Result<Raw, Damage>>,
    /// What must come next: number, and hash before it unless damage lies between.
    expected: Option<(u64, Option<Hash>)>,
    n_unfinished: u64,
}

impl<'a, S: Storage> Walk<'a, S> {
    /// Begins at the oldest record.
    ///
    /// # Errors
    ///
    /// The folder cannot be listed.
    pub fn new(storage: &'a S) -> io::Result<Walk<'a, S>> {
        let names = storage.list()?;
        let mut firsts: Vec<u64> = names
            .iter()
            .filter_map(|name| segment::first_of(name))
            .collect();
        firsts.sort_unstable();
        Ok(Walk {
            storage,
            firsts: firsts.into(),
            found: VecDeque::new(),
            expected: None,
            n_unfinished: 0,
        })
    }

    /// Begins at the segment that holds a record, without a look at what came before.
    ///
    /// # Errors
    ///
    /// The folder cannot be listed.
    pub fn since(storage: &'a S, sequence: u64) -> io::Result<Walk<'a, S>> {
        let mut walk = Walk::new(storage)?;
        while walk.firsts.get(1).is_some_and(|second| *second <= sequence) {
            walk.firsts.pop_front();
        }
        Ok(walk)
    }

    fn read_segment(&mut self, first: u64) {
        let segment = segment::name(first);
        let bytes = match self.storage.read(&segment, MAX_SEGMENT_BYTES) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.expected = None;
                return self.damaged(&segment, 0, Flaw::Unreadable(error.to_string()), None);
            }
        };
        let header = Header::read(&bytes).filter(|header| header.first == first);
        let end = self.end_of(&bytes, header.as_ref());
        let limit = self.firsts.front().copied().unwrap_or(u64::MAX);
        match header {
            Some(header) => self.check_header(&segment, &header),
            // Only begun: no record was acknowledged in it.
            None if end == 0 => {
                self.n_unfinished += bytes.len() as u64;
                return;
            }
            None => {
                let good_again = next_good(&bytes[HEADER_BYTES.min(bytes.len())..]);
                self.damaged(&segment, 0, Flaw::Header, good_again);
                self.expected = Some((first, None));
            }
        }
        for stretch in Stretches::new(&bytes[..end]) {
            let (begin, sound) = match stretch {
                // A write or sync failed here, and the records went into the next segment.
                _ if self.expected.is_some_and(|(next, _)| next == limit) => break,
                Stretch::Record(begin, sound) => (begin, sound),
                Stretch::Broken(begin, to) => {
                    let good_again = next_good(&bytes[to..end]);
                    self.damaged(&segment, begin, Flaw::Bytes, good_again);
                    self.expected = self.expected.map(|(next, _)| (next, None));
                    continue;
                }
            };
            self.check_record(&segment, begin, &sound);
            self.found.push_back(Ok(Raw {
                sequence: sound.sequence,
                segment: segment.clone(),
                offset: begin as u64,
                payload: sound.payload.to_vec(),
                hash: sound.hash,
            }));
        }
        self.n_unfinished += (bytes.len() - end) as u64;
    }

    /// How far the bytes count: all of them, but for the unacknowledged end of the last segment.
    fn end_of(&self, bytes: &[u8], header: Option<&Header>) -> usize {
        match header {
            _ if !self.firsts.is_empty() => bytes.len(),
            Some(header) => Tail::find(bytes, header).end,
            None if next_good(&bytes[HEADER_BYTES.min(bytes.len())..]).is_none() => 0,
            None => bytes.len(),
        }
    }

    fn check_header(&mut self, segment: &str, header: &Header) {
        match self.expected {
            // After broken bytes the gap has been reported.
            Some((next, Some(_))) if next != header.first => {
                let flaw = Flaw::Missing {
                    expected: next,
                    found: header.first,
                };
                self.damaged(segment, 0, flaw, Some(header.first));
            }
            Some((_, Some(before))) if before != header.before => {
                self.damaged(segment, 0, Flaw::Chain, Some(header.first));
            }
            _ => {}
        }
        self.expected = Some((header.first, Some(header.before)));
    }

    fn check_record(&mut self, segment: &str, begin: usize, sound: &super::record::Sound<'_>) {
        let good_again = Some(sound.sequence);
        match self.expected {
            // After broken bytes the gap has been reported.
            Some((next, before))
                if next != sound.sequence && (before.is_some() || next > sound.sequence) =>
            {
                let flaw = Flaw::Missing {
                    expected: next,
                    found: sound.sequence,
                };
                self.damaged(segment, begin, flaw, good_again);
            }
            Some((_, Some(before))) if chained(&before, sound.payload) != sound.hash => {
                self.damaged(segment, begin, Flaw::Chain, good_again);
            }
            _ => {}
        }
        self.expected = Some((sound.sequence.saturating_add(1), Some(sound.hash)));
    }

    fn damaged(&mut self, segment: &str, offset: usize, flaw: Flaw, good_again: Option<u64>) {
        self.found.push_back(Err(Damage {
            segment: segment.to_owned(),
            offset: offset as u64,
            flaw,
            good_again,
        }));
    }
}

/// Number of the first sound record of some stretches.
fn next_good(bytes: &[u8]) -> Option<u64> {
    let at = super::record::find(bytes, 0)?;
    super::record::read(&bytes[at..]).map(|sound| sound.sequence)
}

impl<S: Storage> Iterator for Walk<'_, S> {
    type Item = Result<Raw, Damage>;

    fn next(&mut self) -> Option<Result<Raw, Damage>> {
        loop {
            if let Some(found) = self.found.pop_front() {
                return Some(found);
            }
            let first = self.firsts.pop_front()?;
            self.read_segment(first);
        }
    }
}

/// The records of a journal whose bodies are of type `T`.
#[derive(Debug)]
pub struct Reader<'a, S, T> {
    walk: Walk<'a, S>,
    body: PhantomData<fn() -> T>,
}

impl<'a, S: Storage, T: DeserializeOwned> Reader<'a, S, T> {
    /// Begins at the oldest record.
    ///
    /// # Errors
    ///
    /// The folder cannot be listed.
    pub fn new(storage: &'a S) -> io::Result<Reader<'a, S, T>> {
        Ok(Reader {
            walk: Walk::new(storage)?,
            body: PhantomData,
        })
    }

    /// Begins at the segment that holds a record.
    ///
    /// # Errors
    ///
    /// The folder cannot be listed.
    pub fn since(storage: &'a S, sequence: u64) -> io::Result<Reader<'a, S, T>> {
        Ok(Reader {
            walk: Walk::since(storage, sequence)?,
            body: PhantomData,
        })
    }
}

impl<S: Storage, T: DeserializeOwned> Iterator for Reader<'_, S, T> {
    type Item = Result<Record<T>, Damage>;

    fn next(&mut self) -> Option<Result<Record<T>, Damage>> {
        let decode = |raw: Raw| match postcard::take_from_bytes(&raw.payload) {
            Ok((record, [])) => Ok(record),
            _ => Err(Damage {
                segment: raw.segment,
                offset: raw.offset,
                flaw: Flaw::Body,
                good_again: raw.sequence.checked_add(1),
            }),
        };
        Some(self.walk.next()?.and_then(decode))
    }
}

/// What a journal holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Sound records.
    pub n_records: u64,
    /// Numbers of the oldest and the newest.
    pub range: Option<(u64, u64)>,
    /// Hash of the newest.
    pub head: Hash,
    /// Damage, at most [`MAX_DAMAGES`].
    pub damages: Vec<Damage>,
    /// All damage.
    pub n_damages: u64,
    /// Bytes at the end that were never acknowledged; the next opening cuts them off.
    pub n_unfinished_bytes: u64,
}

/// Reads the whole journal and checks every checksum and the chain.
///
/// # Errors
///
/// The folder cannot be listed. Files that cannot be read are damage.
pub fn verify(storage: &impl Storage) -> io::Result<Summary> {
    let mut summary = Summary::default();
    let mut walk = Walk::new(storage)?;
    for found in &mut walk {
        match found {
            Ok(raw) => {
                summary.n_records += 1;
                let oldest = summary.range.map_or(raw.sequence, |(oldest, _)| oldest);
                summary.range = Some((oldest, raw.sequence));
                summary.head = raw.hash;
            }
            Err(damage) => {
                summary.n_damages += 1;
                if summary.damages.len() < MAX_DAMAGES {
                    summary.damages.push(damage);
                }
            }
        }
    }
    summary.n_unfinished_bytes = walk.n_unfinished;
    Ok(summary)
}

/// A line of an export in place of records that are damaged.
#[derive(Serialize)]
struct DamageLine {
    damage: String,
    segment: String,
    offset: u64,
    good_again: Option<u64>,
}

/// Writes the journal as JSON, one object a line: records, and `{"damage": …}` where there is
/// damage. Returns how many of each.
///
/// # Errors
///
/// The folder cannot be listed, a body has no JSON form, or `out` fails.
pub fn export<T: Serialize + DeserializeOwned>(
    storage: &impl Storage,
    mut out: impl Write,
) -> io::Result<(u64, u64)> {
    let (mut n_records, mut n_damages) = (0, 0);
    for found in Reader::<_, T>::new(storage)? {
        match found {
            Ok(record) => {
                n_records += 1;
                serde_json::to_writer(&mut out, &record)?;
            }
            Err(damage) => {
                n_damages += 1;
                let line = DamageLine {
                    damage: damage.to_string(),
                    segment: damage.segment,
                    offset: damage.offset,
                    good_again: damage.good_again,
                };
                serde_json::to_writer(&mut out, &line)?;
            }
        }
        out.write_all(b"\n")?;
    }
    Ok((n_records, n_damages))
}
