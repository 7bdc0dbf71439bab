//! [`Recorder`]: what must outlive the process: journal, pictures, the state of the step.

use super::clock::Clock;
use super::settings::Settings;
use crate::entry::{Entry, Kept, MAX_RULES_PART_BYTES, Remark, RulesPart};
use crate::journal::snapshots::{SnapshotError, Snapshots};
use crate::journal::storage::Disk;
use crate::journal::{Journal, JournalError, Opened};
use crate::remote::Spent;
use crate::watch::encode_jpeg;
use ocelli_reflex::State;
use ocelli_runtime::image::Rgb8;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Folder of the journal inside the state folder.
pub const JOURNAL: &str = "journal";
/// Folder of the pictures.
pub const SNAPSHOTS: &str = "snapshots";
/// The state of the step.
const STATE: &str = "state.bin";
/// What the remote model was asked today.
const SPENT: &str = "remote.bin";
/// Begin of the state's file; the last byte is the version.
const MAGIC: &[u8; 8] = b"OCELLIS1";
/// Longest state file, in bytes.
const MAX_STATE_BYTES: u64 = 256 << 10;
/// The state is not written more often than this.
const STATE_PAUSE: Duration = Duration::from_secs(1);

/// Why a picture was not kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// It is not among those kept.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// It has no JPEG form.
    #[error("the picture has no JPEG form: {0}")]
    Encode(#[from] image::ImageError),
}

/// Journal, pictures and state in one folder.
#[derive(Debug)]
pub struct Recorder {
    journal: Journal<Disk>,
    snapshots: Snapshots<Disk>,
    state_path: PathBuf,
    quality: u8,
    clock: Clock,
    n_lost: u64,
    was_stuck: bool,
    state_dirty: bool,
    state_saved: Duration,
}

impl Recorder {
    /// Opens or makes everything under the state folder of the settings.
    ///
    /// # Errors
    ///
    /// A folder that cannot be made or read.
    pub fn open(
        settings: &Settings,
        folder: &Path,
        clock: Clock,
    ) -> Result<(Recorder, Opened), RecorderError> {
        let failed = |source| RecorderError::Folder {
            path: folder.to_path_buf(),
            source,
        };
        let disk = |name: &str| Disk::open(&folder.join(name)).map_err(failed);
        let (journal, opened) = Journal::open(disk(JOURNAL)?, settings.journal(), boot_id())?;
        let snapshots = Snapshots::open(disk(SNAPSHOTS)?, settings.snapshots())?;
        let recorder = Recorder {
            journal,
            snapshots,
            state_path: folder.join(STATE),
            quality: settings.snapshots.quality,
            clock,
            n_lost: 0,
            was_stuck: false,
            state_dirty: false,
            state_saved: Duration::ZERO,
        };
        Ok((recorder, opened))
    }

    /// Writes an entry; it is on the disk within the time of the settings.
    pub fn write(&mut self, entry: &Entry) {
        // What is lost is counted and told by `trouble`.
        let _ = self
            .journal
            .append(entry.kind(), entry, self.clock.moment());
    }

    /// Writes an entry and returns once the disk has it, or has refused.
    pub fn write_now(&mut self, entry: &Entry) {
        // A refusal shows in `trouble`; the entry waits in memory.
        let _ = self
            .journal
            .append_now(entry.kind(), entry, self.clock.moment());
    }

    /// Writes a remark.
    pub fn remark(&mut self, about: &str, text: impl Into<String>) {
        let about = about.to_owned();
        let text = text.into();
        self.write(&Entry::Remark(Remark { about, text }));
    }

    /// Writes a rule file, in pieces.
    pub fn rules(&mut self, fingerprint: u64, text: &str) {
        let pieces = pieces(text, MAX_RULES_PART_BYTES);
        // A rule file has at most 256 KiB.
        let parts = pieces.len() as u8;
        for (part, text) in (0..).zip(pieces) {
            self.write(&Entry::Rules(RulesPart {
                fingerprint,
                part,
                parts,
                text: text.to_owned(),
            }));
        }
    }

    /// Keeps a picture and writes that down; returns its name and the JPEG.
    ///
    /// # Errors
    ///
    /// [`KeepError`].
    pub fn keep(
        &mut self,
        event: u64,
        frame: u64,
        picture: &Rgb8,
    ) -> Result<(String, Vec<u8>), KeepError> {
        let jpeg = self.jpeg(picture)?;
        let name = self.snapshots.put(event, &jpeg, self.clock.moment())?;
        self.write(&Entry::Kept(Kept {
            name: name.clone(),
            frame,
            event,
            n_bytes: jpeg.len() as u64,
        }));
        Ok((name, jpeg))
    }

    /// Where a kept picture is.
    pub fn picture_path(&self, name: &str) -> PathBuf {
        self.state_path.with_file_name(SNAPSHOTS).join(name)
    }

    /// A picture as it is kept.
    ///
    /// # Errors
    ///
    /// Sides over what JPEG allows.
    pub fn jpeg(&self, picture: &Rgb8) -> Result<Vec<u8>, image::ImageError> {
        let mut jpeg = Vec::new();
        encode_jpeg(picture, self.quality, &mut jpeg)?;
        Ok(jpeg)
    }

    /// The state of the last run; a new one if there is none that can be used, with the reason if
    /// there was one.
    pub fn read_state(&self) -> (State, Option<String>) {
        match read_state(&self.state_path) {
            Ok(state) => (state.unwrap_or_default(), None),
            Err(reason) => {
                let path = self.state_path.display();
                let text = format!("{path}: {reason}; rates and off-times begin anew");
                (State::new(), Some(text))
            }
        }
    }

    /// The state changed in a way that must outlive the process.
    pub fn state_changed(&mut self) {
        self.state_dirty = true;
    }

    /// Writes the state if it changed and the last writing is some time ago, or `at_once`.
    ///
    /// # Errors
    ///
    /// A disk that does not take it; the old file is still there.
    pub fn save_state(&mut self, state: &State, at_once: bool) -> io::Result<()> {
        let now = self.clock.monotonic();
        let is_due = at_once || now.saturating_sub(self.state_saved) >= STATE_PAUSE;
        if !self.state_dirty || !is_due {
            return Ok(());
        }
        self.state_saved = now;
        let mut bytes = MAGIC.to_vec();
        let body = postcard::to_stdvec(state).map_err(io::Error::other)?;
        bytes.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        let folder = self.state_path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&bytes)?;
        file.as_file().sync_data()?;
        file.persist(&self.state_path)?;
        std::fs::File::open(folder)?.sync_all()?;
        self.state_dirty = false;
        Ok(())
    }

    /// What the remote model was asked today, as last written down.
    pub fn read_spent(&self) -> Spent {
        let bytes = std::fs::read(self.state_path.with_file_name(SPENT)).unwrap_or_default();
        // A file that is gone or broken costs at most one more day's questions.
        postcard::from_bytes(&bytes).unwrap_or_default()
    }

    /// Writes down what the remote model was asked today.
    pub fn spent(&self, spent: Spent) {
        let path = self.state_path.with_file_name(SPENT);
        // A full disk is told by the journal.
        let _ = postcard::to_stdvec(&spent).map(|bytes| std::fs::write(path, bytes));
    }

    /// When [`Recorder::tick`] has something to do.
    pub fn next_tick_at(&self) -> Option<Duration> {
        self.journal.next_tick_at()
    }

    /// Lets time pass.
    pub fn tick(&mut self) {
        // A fault shows in `trouble`.
        let _ = self.journal.tick(self.clock.moment());
    }

    /// Whether the disk takes nothing.
    pub fn is_stuck(&self) -> bool {
        self.journal.is_stuck()
    }

    /// What went wrong with the journal since the last call, once.
    pub fn trouble(&mut self) -> Option<String> {
        let (lost, stuck) = (self.journal.n_lost(), self.journal.is_stuck());
        let n_waiting = self.journal.n_waiting();
        let text = if lost > self.n_lost {
            Some(format!(
                "{} records are lost: the disk takes none",
                lost - self.n_lost
            ))
        } else if stuck && !self.was_stuck {
            Some(format!(
                "the disk takes no records, {n_waiting} wait in memory"
            ))
        } else if !stuck && self.was_stuck {
            Some("the disk takes records again".to_owned())
        } else {
            None
        };
        self.n_lost = lost;
        self.was_stuck = stuck;
        text
    }

    /// Writes that the run ended in order, and everything that waits.
    pub fn end(&mut self, state: &State) {
        self.write_now(&Entry::Ended);
        self.state_dirty = true;
        // The process ends; the next one says what it finds.
        let _ = self.save_state(state, true);
    }
}

/// Why nothing can be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecorderError {
    /// The folder cannot be used.
    #[error("{}: cannot be used to keep things in: {source}; make it, or name another with `state` in the configuration", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system reported.
        source: io::Error,
    },
    /// The journal cannot be opened.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The pictures cannot be listed.
    #[error(transparent)]
    Snapshots(#[from] SnapshotError),
}

fn read_state(path: &Path) -> Result<Option<State>, String> {
    let n_bytes = match std::fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    if n_bytes > MAX_STATE_BYTES {
        return Err(format!("{n_bytes} bytes, the limit is {MAX_STATE_BYTES}"));
    }
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let rest = bytes
        .strip_prefix(MAGIC)
        .ok_or("no state of this version")?;
    let (crc, body) = rest.split_first_chunk::<4>().ok_or("it is cut short")?;
    if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
        return Err("its checksum is wrong".to_owned());
    }
    postcard::from_bytes(body)
        .map(Some)
        .map_err(|_| "it is of another version".to_owned())
}

/// `text` in pieces of at most `limit` bytes, cut between characters; at least one.
fn pieces(text: &str, limit: usize) -> Vec<&str> {
    let mut rest = text;
    let mut pieces = Vec::new();
    loop {
        let (piece, after) = rest.split_at(rest.floor_char_boundary(limit));
        pieces.push(piece);
        if after.is_empty() {
            return pieces;
        }
        rest = after;
    }
}

/// The number of this start of the board; 0 where it has none.
fn boot_id() -> u128 {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    u128::from_str_radix(&text.trim().replace('-', ""), 16).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ocelli_reflex::{Inventory, Now, Observation, load, step};

    fn recorder(folder: &Path) -> Recorder {
        let text = "format = 1\nrules = \"r\"\n[device]\nname = \"d\"\n";
        let settings = Settings::parse(text, Path::new("/c.toml")).unwrap();
        Recorder::open(&settings, folder, Clock::new(false))
            .unwrap()
            .0
    }

    #[test]
    fn the_state_outlives_the_process_and_a_broken_file_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let policy = load("format = 1\n", &Inventory::default()).unwrap().policy;
        let mut state = State::new();
        let start = Observation::Start { secret: [1, 2] };
        step(&policy, &mut state, &start, Now::at(5));
        let mut first = recorder(folder.path());
        assert_eq!(first.read_state(), (State::new(), None));
        first.state_changed();
        first.save_state(&state, true).unwrap();
        drop(first);
        let second = recorder(folder.path());
        assert_eq!(second.read_state(), (state, None));
        let path = folder.path().join(STATE);
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let (state, told) = second.read_state();
        assert_eq!(state, State::new());
        assert!(told.unwrap().contains("checksum"));
    }

    #[test]
    fn a_long_rule_file_is_kept_in_pieces_that_make_it_again() {
        let text = "ä".repeat(70_000);
        let cut = pieces(&text, MAX_RULES_PART_BYTES);
        assert_eq!(cut.len(), 3);
        assert_eq!(cut.concat(), text);
        assert_eq!(pieces("", 10), [""]);
    }

    #[test]
    fn a_kept_picture_is_on_the_disk_and_in_the_journal() {
        let folder = tempfile::tempdir().unwrap();
        let mut recorder = recorder(folder.path());
        let picture = Rgb8::new(16, 8, vec![90; 16 * 8 * 3]).unwrap();
        let (name, jpeg) = recorder.keep(3, 7, &picture).unwrap();
        let path = folder.path().join(SNAPSHOTS).join(&name);
        assert_eq!(std::fs::read(path).unwrap(), jpeg);
        recorder.end(&State::new());
        let disk = Disk::open(&folder.path().join(JOURNAL)).unwrap();
        let entries: Vec<Entry> = crate::journal::Reader::new(&disk)
            .unwrap()
            .map(|record| record.unwrap().body)
            .collect();
        let Entry::Kept(kept) = &entries[0] else {
            panic!("{entries:?}")
        };
        assert_eq!(
            (kept.name.as_str(), kept.frame, kept.event),
            (name.as_str(), 7, 3)
        );
        assert_eq!(entries[1], Entry::Ended);
    }
}
