//! The journal: what was seen, decided and done, append-only and hash-chained.
//!
//! | file | defines |
//! |---|---|
//! | [`record`] | [`Record`]: what is written down, and its bytes |
//! | [`segment`] | one file of records, read in whatever state it is |
//! | [`storage`] | the few file operations the journal stands on |
//! | [`settings`] | how a journal is kept, and why it fails |
//! | [`writer`] | [`Journal`]: appends, syncs, rotates, removes the oldest |
//! | [`opening`] | where a journal on the disk ends |
//! | [`reader`] | [`Reader`]: records in order, damage where there is some; verify, export |
//! | [`snapshots`] | pictures beside the journal |
//!
//! # Files
//!
//! A segment is named after its first record, `00000000000000000001.journal`, and is a header and
//! records one after the other; numbers are little endian:
//!
//! ```text
//! header   0   8  magic "OCELLIJN"
//!          8   4  format version, u32
//!         12   8  number of the first record, u64
//!         20  32  hash of the record before it, zeros before the first
//!         52   8  wall clock at creation in ms since 1970, u64
//!         60   4  CRC-32 of the 60 bytes before
//! record   0   4  marker "OJR1"
//!          4   4  length of the payload, u32
//!          8   4  bytes of this segment known to be on the disk when the record was written, u32
//!         12   4  CRC-32 of length, known bytes, payload and hash
//!         16   .  payload: postcard of the record
//!          .  32  SHA-256 of the hash before and the payload
//! ```
//!
//! # What is promised
//!
//! A record is *acknowledged* when its number is at most [`Journal::durable`]: it was written and
//! the disk said that it has it. Power may go at any moment and unsynced writes may reach the disk
//! in any order: acknowledged records are all there afterwards, and the chain verifies. What lies
//! behind the last acknowledged record and is not whole is cut off, and the opening says so. Damage
//! to acknowledged records is reported with segment, offset and what is still good, and is never
//! written over.

pub mod opening;
pub mod reader;
pub mod record;
pub mod segment;
pub mod settings;
pub mod snapshots;
pub mod storage;
#[cfg(test)]
mod tests;
pub mod writer;

pub use opening::{Opened, TornTail};
pub use reader::{Reader, Summary, export, verify};
pub use record::{Moment, Record};
pub use segment::{Damage, Flaw};
pub use settings::{JournalError, JournalSettings, Sync};
pub use snapshots::{SnapshotError, SnapshotLimits, Snapshots};
pub use storage::{Disk, Storage};
pub use writer::Journal;
