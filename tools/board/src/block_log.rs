//! Every write a disk saw, in order, and the disks a power cut could have left.
//!
//! Log format: Linux `Documentation/admin-guide/device-mapper/log-writes.rst`.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::{Disk, Error};

const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const DISCARD: u64 = 4;

/// The writes of one run.
pub struct BlockLog {
    before: Disk,
    bytes: Vec<u8>,
    sector: usize,
    entries: Vec<Entry>,
}

/// One write, flush or discard.
#[derive(Clone, Copy, Debug)]
struct Entry {
    sector: u64,
    n_sectors: usize,
    flags: u64,
    /// Where its data starts in the log.
    data: usize,
}

/// Which of the writes since the last flush a cut keeps.
#[derive(Clone, Copy, Debug)]
pub enum Kept {
    /// All of them.
    All,
    /// None of them.
    None,
    /// About half, chosen and reordered by a seed.
    Some(u64),
}

impl BlockLog {
    /// Reads the log of a run that started with the disk `before`.
    ///
    /// # Errors
    ///
    /// When the log cannot be read or has no valid head.
    pub fn read(path: &Path, before: Disk) -> Result<BlockLog, Error> {
        let bytes = fs::read(path).map_err(Error::io("reading", path))?;
        let word = |at: usize| {
            let bytes = bytes.get(at..at + 8)?;
            Some(u64::from_le_bytes(bytes.try_into().ok()?))
        };
        let sector = word(24).unwrap_or(0) & 0xffff_ffff;
        if word(0) != Some(MAGIC) || !matches!(sector, 512..=4096) {
            return Err(Error::Unexpected {
                what: format!("the head of {}", path.display()),
                found: format!("{:?}", &bytes[..bytes.len().min(32)]),
            });
        }
        let sector = usize::try_from(sector).expect("at most 4096");
        let mut entries = Vec::new();
        let mut at = sector;
        while let (Some(first), Some(n), Some(flags)) = (word(at), word(at + 8), word(at + 16)) {
            if (first, n, flags) == (0, 0, 0) {
                break;
            }
            let n_sectors = usize::try_from(n).unwrap_or(usize::MAX);
            let entry = Entry {
                sector: first,
                n_sectors,
                flags,
                data: at + sector,
            };
            let len = entry.len(sector);
            if len
                .checked_add(entry.data)
                .is_none_or(|end| end > bytes.len())
            {
                break;
            }
            entries.push(entry);
            at = entry.data + len;
        }
        Ok(BlockLog {
            before,
            bytes,
            sector,
            entries,
        })
    }

    /// Number of writes, flushes and discards; a cut may come after any of them.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The disk after a power cut behind `n` entries: all that was flushed, and of the rest what
    /// `kept` says.
    ///
    /// # Errors
    ///
    /// When the disk cannot be copied.
    pub fn cut(&self, n: usize, kept: Kept) -> Result<Disk, Error> {
        let disk = self.before.copy()?;
        let path = disk.path();
        let file = OpenOptions::new().write(true).open(&path);
        let file = file.map_err(Error::io("opening", &path))?;
        let entries = &self.entries[..n.min(self.entries.len())];
        let flushed = entries.iter().rposition(|entry| entry.flags & FLUSH != 0);
        let (safe, at_risk) = entries.split_at(flushed.map_or(0, |at| at + 1));
        for entry in safe.iter().chain(&survivors(at_risk, kept)) {
            self.apply(entry, &file)
                .map_err(Error::io("writing", &path))?;
        }
        Ok(disk)
    }

    fn apply(&self, entry: &Entry, file: &File) -> std::io::Result<()> {
        let data = &self.bytes[entry.data..entry.data + entry.len(self.sector)];
        file.write_all_at(data, entry.sector * self.sector as u64)
    }
}

impl Entry {
    /// Bytes of data in the log.
    fn len(&self, sector: usize) -> usize {
        if self.flags & DISCARD == 0 {
            self.n_sectors.saturating_mul(sector)
        } else {
            0
        }
    }
}

fn survivors(at_risk: &[Entry], kept: Kept) -> Vec<Entry> {
    match kept {
        Kept::All => at_risk.to_vec(),
        Kept::None => Vec::new(),
        Kept::Some(seed) => {
            let mut random = Random(seed);
            let mut left: Vec<Entry> = at_risk
                .iter()
                .filter(|_| random.next().is_multiple_of(2))
                .copied()
                .collect();
            for i in (1..left.len()).rev() {
                let j = usize::try_from(random.next()).unwrap_or(0) % (i + 1);
                left.swap(i, j);
            }
            left
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood, 2014), cut to 32 bits.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) >> 32
    }
}
