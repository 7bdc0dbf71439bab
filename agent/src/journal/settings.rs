//! [`JournalSettings`] and [`JournalError`].

use super::record::MAX_PAYLOAD_BYTES;
use std::io;
use std::time::Duration;

/// When records are synced. The time between is what a power cut may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Before [`Journal::append`](super::Journal::append) returns.
    EveryRecord,
    /// Within this time, and at once with [`Journal::append_now`](super::Journal::append_now), which
    /// actions use.
    Within(Duration),
}

/// How the journal is kept. Segments are removed whole, never the one that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalSettings {
    /// When records are synced.
    pub sync: Sync,
    /// A segment that has more bytes is not added to; at most 256 MiB.
    pub segment_bytes: u64,
    /// A segment that is older is not added to.
    pub segment_age: Duration,
    /// Most bytes of all segments.
    pub keep_bytes: u64,
    /// Most records.
    pub keep_records: u64,
    /// Days records are kept; needs a wall clock that is set.
    pub keep_days: u64,
    /// Most bytes of records held in memory while the disk does not take them; then new ones are
    /// refused.
    pub memory_bytes: usize,
}

impl Default for JournalSettings {
    fn default() -> JournalSettings {
        JournalSettings {
            sync: Sync::Within(Duration::from_secs(1)),
            segment_bytes: 4 << 20,
            segment_age: Duration::from_secs(86_400),
            keep_bytes: 256 << 20,
            keep_records: 10_000_000,
            keep_days: 90,
            memory_bytes: 1 << 20,
        }
    }
}

/// Why the journal failed.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A file operation failed. Records accepted stay in memory and are tried again.
    #[error(
        "cannot {what} journal segment {segment}: {source}; free space on its disk or replace it"
    )]
    Disk {
        /// What was tried.
        what: &'static str,
        /// The file.
        segment: String,
        /// What the system reported.
        source: io::Error,
    },
    /// The disk takes nothing and memory is full. The record is lost.
    #[error(
        "the journal holds {waiting} bytes in memory, the limit is {limit}, because its disk takes none; the record is lost"
    )]
    Full {
        /// Bytes waiting.
        waiting: usize,
        /// The limit.
        limit: usize,
    },
    /// The record is too long or cannot be encoded.
    #[error(
        "journal record of {bytes} bytes, the limit is {MAX_PAYLOAD_BYTES}; store large data as a snapshot"
    )]
    TooLong {
        /// Its length; 0 if it cannot be encoded.
        bytes: usize,
    },
}

pub(super) fn fault(what: &'static str, segment: &str, source: io::Error) -> JournalError {
    JournalError::Disk {
        what,
        segment: segment.to_owned(),
        source,
    }
}
