//! [`Queue`]: events on disk until the other side has acknowledged them.
//!
//! One file of records, appended to; what is acknowledged or dropped gets a record
//! that says so, and the file is written anew when more of it is dead than alive. An event that
//! [`Queue::push`] called durable is in the file and synced: a power cut does not lose it. A torn
//! record at the end is cut; damage further inside costs the records it touches and no others.
//! Acknowledgements are not synced: after a power cut an event may be sent twice, under the same
//! [`Stamp`].
//!
//! **What is dropped.** When an event would not fit, the oldest event of the lowest priority goes
//! first, and the newcomer counts among them. Every drop is counted for ever
//! ([`Stamp::dropped`]) and leaves a gap in the sequence numbers.

mod record;
#[cfg(test)]
mod tests;

use record::{Body, Damage, Gone, MAX_PAYLOAD_BYTES, Scan};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Longest event, in bytes.
pub const MAX_EVENT_BYTES: usize = MAX_PAYLOAD_BYTES;

/// Most bytes of events that are kept in memory while the disk refuses them.
const MAX_VOLATILE_BYTES: u64 = 1 << 20;

/// Dead bytes below which the file is not written anew.
const SMALLEST_COMPACTION: u64 = 64 << 10;

/// What a queue may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most events.
    pub events: usize,
    /// Most bytes, records' frames included. The file may grow to twice that and 64 KiB.
    pub bytes: u64,
}

/// What is dropped first when there is no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Goes first.
    Low,
    /// Ordinary events.
    #[default]
    Normal,
    /// Goes last.
    High,
}

/// What marks an event for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Identity of the queue; another one when its file was lost.
    pub queue: u64,
    /// Sequence number: 1, 2, 3… in this queue.
    pub seq: u64,
    /// Events dropped in this queue before this one.
    pub dropped: u64,
}

/// What became of an event that was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Pushed {
    /// Its mark.
    pub stamp: Stamp,
    /// Whether it survives a power cut; `false` when the disk refused it and it waits in memory.
    pub durable: bool,
    /// Events dropped to make room; the pushed one itself may be among them.
    pub dropped: usize,
}

/// What opening found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Events that wait.
    pub events: usize,
    /// Bytes of a torn record cut from the end.
    pub torn_bytes: u64,
    /// Bytes skipped inside the file because their checksum was wrong.
    pub damaged_bytes: u64,
    /// Events dropped because the limits are lower than before.
    pub dropped: usize,
}

/// Why a queue cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The file cannot be read or written.
    #[error("{}: the event queue cannot be {doing}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has it.
    #[error("{}: the event queue is in use; stop the other ocelli first", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The event is longer than any may be.
    #[error("an event of {bytes} bytes is longer than {MAX_EVENT_BYTES}; shorten its texts")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// Neither the disk nor memory takes it.
    #[error(
        "the disk refuses events and {MAX_VOLATILE_BYTES} bytes of them wait in memory; make room on \
         the disk: {source}"
    )]
    Full {
        /// What the system said to the last write.
        source: io::Error,
    },
    /// The stored bytes of an event are no longer what was written.
    #[error("{}: event {seq} is damaged on the disk", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The event.
        seq: u64,
    },
}

#[derive(Debug)]
enum Place {
    Disk { offset: u64 },
    Memory(Vec<u8>),
}

#[derive(Debug)]
struct Entry {
    priority: Priority,
    /// Length of the whole record in bytes.
    len: u64,
    place: Place,
}

/// A bounded queue of events in a file.
#[derive(Debug)]
pub struct Queue {
    path: PathBuf,
    file: File,
    /// Where the next record is written.
    end: u64,
    id: u64,
    limits: Limits,
    entries: BTreeMap<u64, Entry>,
    /// Sum of the entries' lengths.
    live: u64,
    /// The part of `live` that is only in memory.
    volatile: u64,
    next_seq: u64,
    dropped: u64,
}

impl Queue {
    /// Opens the queue at `path`, or makes an empty one that is called `id`; its folder must exist.
    ///
    /// # Errors
    ///
    /// [`QueueError::Io`], and [`QueueError::InUse`] when another process has it open.
    pub fn open(path: &Path, limits: Limits, id: u64) -> Result<(Queue, Recovered), QueueError> {
        let failed = |doing| io_error(path, doing);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed("opened"))?;
        lock(&file, path)?;
        let mut queue = Queue {
            path: path.to_owned(),
            file,
            end: 0,
            id,
            limits,
            entries: BTreeMap::new(),
            live: 0,
            volatile: 0,
            next_seq: 1,
            dropped: 0,
        };
        let damage = queue.load().map_err(failed("read"))?;
        let dropped = queue.make_room(0, 0, None);
        queue.compact().map_err(failed("written"))?;
        let recovered = Recovered {
            events: queue.entries.len(),
            torn_bytes: damage.torn,
            damaged_bytes: damage.inside,
            dropped,
        };
        Ok((queue, recovered))
    }

    /// Adds an event; `payload` makes its bytes once the mark is known.
    ///
    /// # Errors
    ///
    /// [`QueueError::TooLarge`]; [`QueueError::Full`] when the disk refuses and memory is used up.
    /// Neither event nor number is taken then.
    pub fn push(
        &mut self,
        priority: Priority,
        payload: impl FnOnce(Stamp) -> Vec<u8>,
    ) -> Result<Pushed, QueueError> {
        let stamp = Stamp {
            queue: self.id,
            seq: self.next_seq,
            dropped: self.dropped,
        };
        let payload = payload(stamp);
        if payload.len() > MAX_EVENT_BYTES {
            return Err(QueueError::TooLarge {
                bytes: payload.len(),
            });
        }
        let record = record::encode(&Body::Event {
            seq: stamp.seq,
            priority,
            payload: &payload,
        });
        let len = record.len() as u64;
        let before = self.entries.len();
        let dropped = self.make_room(1, len, Some(priority));
        if before.saturating_sub(self.entries.len()) < dropped {
            // The newcomer itself is the one to go.
            self.next_seq += 1;
            self.forget(stamp.seq, Gone::Dropped);
            return Ok(Pushed {
                stamp,
                durable: false,
                dropped,
            });
        }
        let place = match self.append(&record, true) {
            Ok(offset) => Place::Disk { offset },
            Err(source) if self.volatile + len > MAX_VOLATILE_BYTES => {
                return Err(QueueError::Full { source });
            }
            Err(_) => {
                self.volatile += len;
                Place::Memory(payload)
            }
        };
        let durable = matches!(place, Place::Disk { .. });
        self.next_seq += 1;
        self.live += len;
        self.entries.insert(
            stamp.seq,
            Entry {
                priority,
                len,
                place,
            },
        );
        if durable {
            self.tidy();
        }
        Ok(Pushed {
            stamp,
            durable,
            dropped,
        })
    }

    /// The oldest waiting event whose number is at least `seq`.
    pub fn first_from(&self, seq: u64) -> Option<u64> {
        self.entries.range(seq..).next().map(|(seq, _)| *seq)
    }

    /// The bytes of a waiting event, `None` if it no longer waits.
    ///
    /// # Errors
    ///
    /// [`QueueError::Io`] and [`QueueError::Damaged`].
    pub fn payload(&self, seq: u64) -> Result<Option<Vec<u8>>, QueueError> {
        let Some(entry) = self.entries.get(&seq) else {
            return Ok(None);
        };
        let offset = match &entry.place {
            Place::Memory(payload) => return Ok(Some(payload.clone())),
            Place::Disk { offset } => *offset,
        };
        let record =
            record::read(&self.file, offset, entry.len).map_err(io_error(&self.path, "read"))?;
        match record::decode(&record) {
            Some(Body::Event {
                seq: found,
                payload,
                ..
            }) if found == seq => Ok(Some(payload.to_vec())),
            _ => Err(QueueError::Damaged {
                path: self.path.clone(),
                seq,
            }),
        }
    }

    /// The other side has this event; whether it still waited.
    pub fn acknowledge(&mut self, seq: u64) -> bool {
        let waited = self.remove(seq, Gone::Acknowledged);
        self.tidy();
        waited
    }

    /// Gives an event up, as when it is damaged or the other side will never take it.
    pub fn give_up(&mut self, seq: u64) -> bool {
        let waited = self.remove(seq, Gone::Dropped);
        self.tidy();
        waited
    }

    /// Other limits; events that no longer fit are dropped, and counted in the result.
    pub fn set_limits(&mut self, limits: Limits) -> usize {
        self.limits = limits;
        let dropped = self.make_room(0, 0, None);
        self.tidy();
        dropped
    }

    /// Events that wait.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no event waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes that the waiting events take.
    pub fn bytes(&self) -> u64 {
        self.live
    }

    /// Bytes of events that wait in memory only, because the disk refused them.
    pub fn volatile_bytes(&self) -> u64 {
        self.volatile
    }

    /// Events dropped since the queue was made.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn load(&mut self) -> io::Result<Damage> {
        let file = self.file.try_clone()?;
        let mut scan = Scan::new(&file)?;
        while let Some((offset, record)) = scan.next()? {
            match record::decode(&record) {
                Some(Body::Header {
                    queue,
                    next_seq,
                    dropped,
                }) => {
                    self.id = queue;
                    self.next_seq = self.next_seq.max(next_seq);
                    self.dropped = self.dropped.max(dropped);
                }
                Some(Body::Event { seq, priority, .. }) => {
                    self.next_seq = self.next_seq.max(seq.saturating_add(1));
                    let len = record.len() as u64;
                    let place = Place::Disk { offset };
                    self.live += len;
                    let entry = Entry {
                        priority,
                        len,
                        place,
                    };
                    if let Some(twice) = self.entries.insert(seq, entry) {
                        self.live -= twice.len;
                    }
                }
                Some(Body::Gone { seq, why }) => {
                    self.next_seq = self.next_seq.max(seq.saturating_add(1));
                    self.discount(seq, why);
                }
                None => {}
            }
        }
        self.end = scan.sound_end();
        Ok(scan.damage())
    }

    /// Drops until `events` more of `bytes` fit; returns how many went. With a `newcomer` of lower
    /// priority than all that wait, the last of them is the newcomer, which is not removed here.
    fn make_room(&mut self, events: usize, bytes: u64, newcomer: Option<Priority>) -> usize {
        let mut dropped = 0;
        while self.entries.len() + events > self.limits.events
            || self.live + bytes > self.limits.bytes
        {
            let victim = self
                .entries
                .iter()
                .min_by_key(|(seq, entry)| (entry.priority, **seq))
                .map(|(seq, entry)| (*seq, entry.priority));
            dropped += 1;
            match victim {
                Some((seq, priority)) if newcomer.is_none_or(|new| priority <= new) => {
                    self.remove(seq, Gone::Dropped);
                }
                _ => break,
            }
        }
        dropped
    }

    fn remove(&mut self, seq: u64, why: Gone) -> bool {
        let waits = self.entries.contains_key(&seq);
        if waits {
            self.forget(seq, why);
        }
        waits
    }

    /// Notes that `seq` is gone. A note that the disk refuses is lost: the event is sent again
    /// after a restart, under its old mark.
    fn forget(&mut self, seq: u64, why: Gone) {
        self.discount(seq, why);
        let _ = self.append(&record::encode(&Body::Gone { seq, why }), false);
    }

    fn discount(&mut self, seq: u64, why: Gone) {
        if let Some(entry) = self.entries.remove(&seq) {
            self.live -= entry.len;
            if matches!(entry.place, Place::Memory(_)) {
                self.volatile -= entry.len;
            }
        }
        if why == Gone::Dropped {
            self.dropped += 1;
        }
    }

    /// Writes a record at the end; a part of one that stays behind after a fault is written over.
    fn append(&mut self, record: &[u8], sync: bool) -> io::Result<u64> {
        let offset = self.end;
        self.file.write_all_at(record, offset)?;
        if sync {
            self.file.sync_data()?;
        }
        self.end += record.len() as u64;
        Ok(offset)
    }

    /// Writes the file anew when that halves it, or when memory holds what a disk with room again
    /// can take. A fault leaves the old file in use.
    fn tidy(&mut self) {
        let dead = self.end.saturating_sub(self.live);
        if dead > self.live.max(SMALLEST_COMPACTION) || self.volatile > 0 {
            let _ = self.compact();
        }
    }

    fn compact(&mut self) -> io::Result<()> {
        let path = with_suffix(&self.path, ".new");
        self.write_anew(&path).inspect_err(|_| {
            // A full disk needs the room of the half-written file.
            let _ = std::fs::remove_file(&path);
        })
    }

    fn write_anew(&mut self, path: &Path) -> io::Result<()> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        file.lock()?;
        let header = record::encode(&Body::Header {
            queue: self.id,
            next_seq: self.next_seq,
            dropped: self.dropped,
        });
        file.write_all_at(&header, 0)?;
        let mut end = header.len() as u64;
        let mut offsets = Vec::with_capacity(self.entries.len());
        for (seq, entry) in &self.entries {
            let record = match &entry.place {
                Place::Disk { offset } => record::read(&self.file, *offset, entry.len)?,
                Place::Memory(payload) => record::encode(&Body::Event {
                    seq: *seq,
                    priority: entry.priority,
                    payload,
                }),
            };
            file.write_all_at(&record, end)?;
            offsets.push(end);
            end += record.len() as u64;
        }
        file.sync_all()?;
        std::fs::rename(path, &self.path)?;
        self.file = file;
        self.end = end;
        self.volatile = 0;
        for (entry, offset) in self.entries.values_mut().zip(offsets) {
            entry.place = Place::Disk { offset };
        }
        sync_folder(&self.path)
    }
}

fn io_error<'a>(
    path: &'a Path,
    doing: &'static str,
) -> impl FnOnce(io::Error) -> QueueError + use<'a> {
    move |source| QueueError::Io {
        path: path.to_owned(),
        doing,
        source,
    }
}

fn lock(file: &File, path: &Path) -> Result<(), QueueError> {
    file.try_lock().map_err(|fault| match fault {
        TryLockError::WouldBlock => QueueError::InUse {
            path: path.to_owned(),
        },
        TryLockError::Error(source) => io_error(path, "locked")(source),
    })
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// A rename survives a power cut only once its folder is synced.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
