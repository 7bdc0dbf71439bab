//! [`Snapshots`]: pictures beside the journal, kept by count, days and bytes.

use super::record::Moment;
use super::storage::Storage;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io;

const SUFFIX: &str = ".jpg";
const UNFINISHED: &str = "unfinished.tmp";
const MS_PER_DAY: u64 = 86_400_000;

/// How many pictures are kept; the oldest go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotLimits {
    /// Most pictures.
    pub count: usize,
    /// Days they are kept; needs a wall clock that is set.
    pub days: u64,
    /// Most bytes of all of them; a single picture must be smaller.
    pub bytes: u64,
}

/// Why a picture was not kept.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It alone is more than may be kept.
    #[error(
        "picture of {bytes} bytes, the limit for all snapshots is {limit}; raise it or make pictures smaller"
    )]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A file operation failed.
    #[error("cannot {what} snapshot {name}: {source}; free space on its disk or replace it")]
    Disk {
        /// What was tried.
        what: &'static str,
        /// The file.
        name: String,
        /// What the system reported.
        source: io::Error,
    },
}

/// A folder of pictures. A name is the wall clock in ms since 1970, the event's id and the begin of
/// the SHA-256 of the content: `0001789000000000-17-5d41402abc4b2a76.jpg`.
#[derive(Debug)]
pub struct Snapshots<S> {
    storage: S,
    limits: SnapshotLimits,
    /// By name, so oldest first.
    sizes: BTreeMap<String, u64>,
    n_bytes: u64,
}

impl<S: Storage> Snapshots<S> {
    /// Opens a folder of pictures. Pictures half written are removed.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Disk`].
    pub fn open(mut storage: S, limits: SnapshotLimits) -> Result<Snapshots<S>, SnapshotError> {
        let names = storage.list().map_err(|e| fault("list", "folder", e))?;
        if names.iter().any(|name| name == UNFINISHED) {
            storage
                .remove(UNFINISHED)
                .map_err(|e| fault("remove", UNFINISHED, e))?;
        }
        let mut sizes = BTreeMap::new();
        for name in names.into_iter().filter(|name| taken_ms(name).is_some()) {
            let n_bytes = storage.size(&name).map_err(|e| fault("read", &name, e))?;
            sizes.insert(name, n_bytes);
        }
        Ok(Snapshots {
            storage,
            limits,
            n_bytes: sizes.values().sum(),
            sizes,
        })
    }

    /// Names of the pictures, oldest first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sizes.keys().map(String::as_str)
    }

    /// Keeps a picture and returns its name. It is on the disk, whole, or not there at all.
    ///
    /// # Errors
    ///
    /// See [`SnapshotError`]; pictures kept before are still there, but for those that had to make
    /// room.
    pub fn put(&mut self, event: u64, jpeg: &[u8], at: Moment) -> Result<String, SnapshotError> {
        let n_bytes = jpeg.len() as u64;
        if n_bytes > self.limits.bytes {
            return Err(SnapshotError::TooLarge {
                bytes: n_bytes,
                limit: self.limits.bytes,
            });
        }
        let name = name(event, jpeg, at);
        self.make_room(n_bytes, at)?;
        self.write(&name, jpeg)
            .map_err(|e| fault("write", &name, e))?;
        if self.sizes.insert(name.clone(), n_bytes).is_none() {
            self.n_bytes += n_bytes;
        }
        Ok(name)
    }

    fn write(&mut self, name: &str, jpeg: &[u8]) -> io::Result<()> {
        if let Err(error) = self.write_unfinished(jpeg) {
            // Space is what is wanted now; the next opening removes what this cannot.
            let _ = self.storage.remove(UNFINISHED);
            return Err(error);
        }
        self.storage.rename(UNFINISHED, name)?;
        self.storage.sync_folder()
    }

    fn write_unfinished(&mut self, jpeg: &[u8]) -> io::Result<()> {
        self.storage.create(UNFINISHED)?;
        self.storage.append(UNFINISHED, jpeg)?;
        self.storage.sync(UNFINISHED)
    }

    fn make_room(&mut self, n_bytes: u64, at: Moment) -> Result<(), SnapshotError> {
        while let Some((name, size)) = self.sizes.first_key_value() {
            let keep_ms = self.limits.days.saturating_mul(MS_PER_DAY);
            let age_ms = at.wall_ms.zip(taken_ms(name)).and_then(|(now, taken)| {
                // Taken while the clock was not set: age unknown.
                (taken > 0).then(|| now.saturating_sub(taken))
            });
            let is_full = self.sizes.len() >= self.limits.count.max(1)
                || self.n_bytes + n_bytes > self.limits.bytes;
            if !is_full && age_ms.is_none_or(|age| age <= keep_ms) {
                break;
            }
            let (name, size) = (name.clone(), *size);
            match self.storage.remove(&name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(fault("remove", &name, error));
                }
                _ => {}
            }
            self.sizes.remove(&name);
            self.n_bytes -= size;
        }
        Ok(())
    }
}

fn name(event: u64, jpeg: &[u8], at: Moment) -> String {
    let digest = Sha256::digest(jpeg);
    let begin: String = digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{:016}-{event}-{begin}{SUFFIX}", at.wall_ms.unwrap_or(0))
}

/// Wall clock in a picture's name; `None` for other files.
fn taken_ms(name: &str) -> Option<u64> {
    let (taken, rest) = name.strip_suffix(SUFFIX)?.split_once('-')?;
    let is_name = taken.len() == 16 && taken.bytes().all(|b| b.is_ascii_digit());
    (is_name && rest.contains('-'))
        .then(|| taken.parse().ok())
        .flatten()
}

fn fault(what: &'static str, name: &str, source: io::Error) -> SnapshotError {
    SnapshotError::Disk {
        what,
        name: name.to_owned(),
        source,
    }
}
