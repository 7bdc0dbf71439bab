//! [`Journal`]: appends, syncs, rotates, removes the oldest.

use super::opening::{Active, End, Kept, Opened, list};
use super::record::{self, Hash, MAX_PAYLOAD_BYTES, Moment, Record};
use super::segment::{self, HEADER_BYTES, Header, MAX_SEGMENT_BYTES};
use super::settings::{JournalError, JournalSettings, Sync, fault};
use super::storage::Storage;
use serde::Serialize;
use std::collections::VecDeque;
use std::time::Duration;

/// After a fault of the disk it is tried again after so long.
const RETRY: Duration = Duration::from_secs(5);
const MS_PER_DAY: u64 = 86_400_000;

/// A record that the disk may not have.
#[derive(Debug)]
struct Waiting {
    sequence: u64,
    payload: Vec<u8>,
}

/// The journal's writing end. It owns its folder.
#[derive(Debug)]
pub struct Journal<S> {
    storage: S,
    settings: JournalSettings,
    boot: u128,
    active: Option<Active>,
    /// Oldest first; the active one is last.
    segments: VecDeque<Kept>,
    waiting: VecDeque<Waiting>,
    n_waiting_bytes: usize,
    next: u64,
    durable: (u64, Hash),
    sync_at: Option<Duration>,
    retry_at: Option<Duration>,
    n_lost: u64,
}

impl<S: Storage> Journal<S> {
    /// Opens a journal, or begins one. `boot` goes into the records.
    ///
    /// Only the last segment is read; [`super::verify`] reads all.
    ///
    /// # Errors
    ///
    /// [`JournalError::Disk`].
    pub fn open(
        mut storage: S,
        settings: JournalSettings,
        boot: u128,
    ) -> Result<(Journal<S>, Opened), JournalError> {
        let settings = JournalSettings {
            segment_bytes: settings.segment_bytes.min(MAX_SEGMENT_BYTES / 2),
            ..settings
        };
        let mut segments = list(&storage)?;
        let mut opened = Opened::default();
        let mut end = End::default();
        while let Some(last) = segments.back_mut() {
            let found = End::find(&mut storage, last, &mut opened)?;
            match found {
                Some(found) => {
                    end = found;
                    break;
                }
                None => segments.pop_back(),
            };
        }
        opened.last = end.last.0;
        let journal = Journal {
            storage,
            settings,
            boot,
            active: end.active,
            segments,
            waiting: VecDeque::new(),
            n_waiting_bytes: 0,
            next: end.last.0 + 1,
            durable: end.last,
            sync_at: None,
            retry_at: None,
            n_lost: 0,
        };
        Ok((journal, opened))
    }

    /// Number of the last acknowledged record; 0 if there is none.
    pub fn durable(&self) -> u64 {
        self.durable.0
    }

    /// Hash of the last acknowledged record. Written down elsewhere, it proves what came before.
    pub fn head(&self) -> Hash {
        self.durable.1
    }

    /// Records accepted that the disk may not have.
    pub fn n_waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Records lost because the disk took nothing and memory was full.
    pub fn n_lost(&self) -> u64 {
        self.n_lost
    }

    /// Whether the disk refused what was last given to it.
    pub fn is_stuck(&self) -> bool {
        self.retry_at.is_some()
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn next_tick_at(&self) -> Option<Duration> {
        self.retry_at.or(self.sync_at)
    }

    /// Accepts a record and returns its number. It is acknowledged by the settings' [`Sync`].
    ///
    /// # Errors
    ///
    /// The record was not accepted. Faults of the disk are reported by [`tick`](Self::tick).
    pub fn append<T: Serialize>(
        &mut self,
        kind: u8,
        body: &T,
        at: Moment,
    ) -> Result<u64, JournalError> {
        let sequence = self.accept(kind, body, at)?;
        let now = Duration::from_millis(at.boot_ms);
        let delay = match self.settings.sync {
            Sync::EveryRecord => Duration::ZERO,
            Sync::Within(time) => time,
        };
        self.sync_at.get_or_insert(now + delay);
        if delay.is_zero() && self.retry_at.is_none() {
            // A fault shows in `is_stuck`, and the next tick tries again.
            let _ = self.flush(at);
        }
        Ok(sequence)
    }

    /// [`append`](Self::append) that returns when the record is on the disk.
    ///
    /// # Errors
    ///
    /// The record was not accepted, or ([`JournalError::Disk`]) accepted and not yet acknowledged.
    pub fn append_now<T: Serialize>(
        &mut self,
        kind: u8,
        body: &T,
        at: Moment,
    ) -> Result<u64, JournalError> {
        let sequence = self.accept(kind, body, at)?;
        self.flush(at)?;
        Ok(sequence)
    }

    /// Lets time pass: syncs what is due, tries again after a fault, removes what is too old.
    ///
    /// # Errors
    ///
    /// [`JournalError::Disk`]: nothing accepted is lost; it is tried again.
    pub fn tick(&mut self, at: Moment) -> Result<(), JournalError> {
        let now = Duration::from_millis(at.boot_ms);
        if self.next_tick_at().is_none_or(|due| now < due) {
            return Ok(());
        }
        self.flush(at)
    }

    /// Writes and syncs everything accepted.
    ///
    /// # Errors
    ///
    /// [`JournalError::Disk`].
    pub fn flush(&mut self, at: Moment) -> Result<(), JournalError> {
        if let Err(error) = self.write_waiting(at) {
            self.retry_at = Some(Duration::from_millis(at.boot_ms) + RETRY);
            return Err(error);
        }
        self.retry_at = None;
        self.sync_at = None;
        self.remove_old(at)
    }

    fn accept<T: Serialize>(
        &mut self,
        kind: u8,
        body: &T,
        at: Moment,
    ) -> Result<u64, JournalError> {
        let record = Record {
            sequence: self.next,
            at,
            boot: self.boot,
            kind,
            body,
        };
        let payload =
            postcard::to_stdvec(&record).map_err(|_| JournalError::TooLong { bytes: 0 })?;
        if payload.len() > MAX_PAYLOAD_BYTES {
            return Err(JournalError::TooLong {
                bytes: payload.len(),
            });
        }
        let waiting = self.n_waiting_bytes + payload.len();
        if waiting > self.settings.memory_bytes {
            // The disk may be slow rather than stuck.
            if self.is_stuck() || self.flush(at).is_err() {
                self.n_lost += 1;
                return Err(JournalError::Full {
                    waiting: self.n_waiting_bytes,
                    limit: self.settings.memory_bytes,
                });
            }
        }
        self.n_waiting_bytes += payload.len();
        self.waiting.push_back(Waiting {
            sequence: self.next,
            payload,
        });
        self.next += 1;
        Ok(self.next - 1)
    }

    fn write_waiting(&mut self, at: Moment) -> Result<(), JournalError> {
        while !self.waiting.is_empty() {
            // What a failed write or sync leaves behind is not known: the segment is not taken up
            // again, and the next begins after the last acknowledged record.
            let mut active = match self.active.take() {
                Some(active) if !self.is_full(&active, at) => active,
                _ => self.begin_segment(at)?,
            };
            self.fill(&mut active)?;
            self.storage
                .sync(&active.name)
                .map_err(|e| fault("sync", &active.name, e))?;
            self.acknowledge(&mut active);
            self.active = Some(active);
        }
        Ok(())
    }

    fn is_full(&self, active: &Active, at: Moment) -> bool {
        let age_ms = match (at.wall_ms, active.created.wall_ms) {
            (Some(now), Some(then)) => now.saturating_sub(then),
            _ => at.boot_ms.saturating_sub(active.created.boot_ms),
        };
        let has_records = active.n_bytes > HEADER_BYTES as u64;
        has_records
            && (active.n_bytes >= self.settings.segment_bytes
                || u128::from(age_ms) >= self.settings.segment_age.as_millis())
    }

    fn begin_segment(&mut self, at: Moment) -> Result<Active, JournalError> {
        let (last, before) = self.durable;
        let first = last + 1;
        let name = segment::name(first);
        let failed = |e| fault("begin", &name, e);
        let header = Header {
            first,
            before,
            created_ms: at.wall_ms.unwrap_or(0),
        };
        if self.segments.back().is_some_and(|kept| kept.first == first) {
            // Begun and broken; nothing in it was acknowledged.
            self.storage.remove(&name).map_err(failed)?;
            self.segments.pop_back();
        }
        self.storage.create(&name).map_err(failed)?;
        self.segments.push_back(Kept {
            first,
            n_bytes: HEADER_BYTES as u64,
            created_ms: header.created_ms,
        });
        self.storage
            .append(&name, &header.bytes())
            .map_err(failed)?;
        self.storage.sync(&name).map_err(failed)?;
        self.storage.sync_folder().map_err(failed)?;
        Ok(Active {
            name: name.clone(),
            created: at,
            n_bytes: HEADER_BYTES as u64,
            n_durable_bytes: HEADER_BYTES as u64,
            last: self.durable,
        })
    }

    /// Writes what waits and fits.
    fn fill(&mut self, active: &mut Active) -> Result<(), JournalError> {
        let mut bytes = Vec::new();
        for entry in &self.waiting {
            let n_bytes = active.n_bytes + bytes.len() as u64;
            if n_bytes > HEADER_BYTES as u64 && n_bytes >= self.settings.segment_bytes {
                break;
            }
            let hash = record::chained(&active.last.1, &entry.payload);
            // Segments are smaller than 4 GiB.
            record::write(
                &mut bytes,
                &entry.payload,
                active.n_durable_bytes as u32,
                &hash,
            );
            active.last = (entry.sequence, hash);
        }
        self.storage
            .append(&active.name, &bytes)
            .map_err(|e| fault("write to", &active.name, e))?;
        active.n_bytes += bytes.len() as u64;
        Ok(())
    }

    fn acknowledge(&mut self, active: &mut Active) {
        active.n_durable_bytes = active.n_bytes;
        self.durable = active.last;
        if let Some(entry) = self.segments.back_mut() {
            entry.n_bytes = active.n_bytes;
        }
        while let Some(entry) = self
            .waiting
            .pop_front_if(|entry| entry.sequence <= active.last.0)
        {
            self.n_waiting_bytes -= entry.payload.len();
        }
    }

    fn remove_old(&mut self, at: Moment) -> Result<(), JournalError> {
        while let (Some(oldest), Some(second)) = (self.segments.front(), self.segments.get(1))
            && self.is_too_much(second, at)
        {
            let name = segment::name(oldest.first);
            self.storage
                .remove(&name)
                .map_err(|e| fault("remove", &name, e))?;
            self.segments.pop_front();
        }
        Ok(())
    }

    /// Whether the limits allow, or ask, that the journal begins with the second segment.
    fn is_too_much(&self, second: &Kept, at: Moment) -> bool {
        let n_bytes: u64 = self.segments.iter().map(|kept| kept.n_bytes).sum();
        let keep_ms = self.settings.keep_days.saturating_mul(MS_PER_DAY);
        // The newest record of the oldest segment is no younger than the second segment.
        let is_old = at.wall_ms.is_some_and(|now| {
            second.created_ms > 0 && now.saturating_sub(second.created_ms) > keep_ms
        });
        let n_left = self.next - second.first;
        is_old || n_bytes > self.settings.keep_bytes || n_left >= self.settings.keep_records
    }
}
