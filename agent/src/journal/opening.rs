//! Where a journal on the disk ends, and what was found there.

use super::record::{Hash, Moment};
use super::segment::{self, HEADER_BYTES, Header, MAX_SEGMENT_BYTES, Stretch, Stretches, Tail};
use super::settings::{JournalError, fault};
use super::storage::Storage;
use std::collections::VecDeque;

/// The end of the journal that was not whole at opening, and was cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// File name of the segment.
    pub segment: String,
    /// Where it was cut.
    pub offset: u64,
    /// Bytes cut off; none of them was acknowledged.
    pub bytes: u64,
}

/// What was found at opening.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Number of the last record.
    pub last: u64,
    /// What was cut off.
    pub torn: Option<TornTail>,
    /// The last segment has damage to acknowledged records; it is kept, and `verify` shows it.
    pub is_damaged: bool,
}

/// A segment on the disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub(super) first: u64,
    pub(super) n_bytes: u64,
    /// 0 if the clock had not been set.
    pub(super) created_ms: u64,
}

/// The segment that is written.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) name: String,
    pub(super) created: Moment,
    pub(super) n_bytes: u64,
    pub(super) n_durable_bytes: u64,
    /// Number and hash of the last record written.
    pub(super) last: (u64, Hash),
}

/// Where a journal on the disk ends.
#[derive(Debug, Default)]
pub(super) struct End {
    pub(super) last: (u64, Hash),
    pub(super) active: Option<Active>,
}

impl End {
    /// Looks for the end in the last segment, and cuts off what was never acknowledged. `None`: the
    /// segment held nothing and is gone.
    pub(super) fn find(
        storage: &mut impl Storage,
        segment: &mut Kept,
        opened: &mut Opened,
    ) -> Result<Option<End>, JournalError> {
        let name = segment::name(segment.first);
        let bytes = storage
            .read(&name, MAX_SEGMENT_BYTES)
            .map_err(|e| fault("read", &name, e))?;
        let header = Header::read(&bytes).filter(|header| header.first == segment.first);
        let Some(header) = header else {
            return End::without_header(storage, &name, &bytes, opened);
        };
        let tail = Tail::find(&bytes, &header);
        opened.is_damaged = tail.is_damaged;
        if tail.end < bytes.len() {
            storage
                .truncate(&name, tail.end as u64)
                .map_err(|e| fault("cut", &name, e))?;
            opened.torn = Some(torn(&name, tail.end, bytes.len()));
        }
        // Records read back may still be on their way to the disk.
        storage.sync(&name).map_err(|e| fault("sync", &name, e))?;
        segment.n_bytes = tail.end as u64;
        let active = Active {
            created: Moment {
                boot_ms: 0,
                wall_ms: Some(header.created_ms).filter(|ms| *ms > 0),
            },
            n_bytes: tail.end as u64,
            n_durable_bytes: tail.end as u64,
            last: tail.last,
            name,
        };
        Ok(Some(End {
            last: tail.last,
            active: Some(active).filter(|_| !tail.is_damaged),
        }))
    }

    /// The header is on the disk before any record, so records behind a broken one are damage, and
    /// a broken one alone is a segment that was just begun.
    fn without_header(
        storage: &mut impl Storage,
        name: &str,
        bytes: &[u8],
        opened: &mut Opened,
    ) -> Result<Option<End>, JournalError> {
        let last = Stretches::new(bytes)
            .filter_map(|stretch| match stretch {
                Stretch::Record(_, sound) => Some((sound.sequence, sound.hash)),
                Stretch::Broken(..) => None,
            })
            .last();
        if let Some(last) = last {
            opened.is_damaged = true;
            return Ok(Some(End { last, active: None }));
        }
        opened.torn = Some(torn(name, 0, bytes.len()));
        storage
            .remove(name)
            .and_then(|()| storage.sync_folder())
            .map_err(|e| fault("remove", name, e))?;
        Ok(None)
    }
}

fn torn(segment: &str, from: usize, to: usize) -> TornTail {
    TornTail {
        segment: segment.to_owned(),
        offset: from as u64,
        bytes: (to - from) as u64,
    }
}

/// Every segment, oldest first.
pub(super) fn list(storage: &impl Storage) -> Result<VecDeque<Kept>, JournalError> {
    let names = storage.list().map_err(|e| fault("list", "folder", e))?;
    let mut firsts: Vec<u64> = names
        .iter()
        .filter_map(|name| segment::first_of(name))
        .collect();
    firsts.sort_unstable();
    let kept = firsts.into_iter().map(|first| {
        let name = segment::name(first);
        let unreadable = |e| fault("read", &name, e);
        let n_bytes = storage.size(&name).map_err(unreadable)?;
        let begin = storage
            .read(&name, HEADER_BYTES as u64)
            .map_err(unreadable)?;
        Ok(Kept {
            first,
            n_bytes,
            created_ms: Header::read(&begin).map_or(0, |header| header.created_ms),
        })
    });
    kept.collect()
}
