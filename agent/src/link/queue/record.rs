//! Records of the queue file.
//!
//! ```text
//! 0   4  magic "OQR1"
//! 4   4  length of the body in bytes, u32 little endian
//! 8   4  CRC-32 of the body, u32
//! 12  .  body: one byte of kind, then
//!        0 header: queue id u64, next sequence number u64, dropped u64
//!        1 event:  sequence number u64, priority u8, payload
//!        2 gone:   sequence number u64, reason u8 (0 acknowledged, 1 dropped)
//! ```

use super::Priority;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const MAGIC: [u8; 4] = *b"OQR1";
const FRAME_BYTES: usize = 12;
/// Longest payload of an event, in bytes.
pub(super) const MAX_PAYLOAD_BYTES: usize = 64 << 10;
const MAX_BODY_BYTES: usize = MAX_PAYLOAD_BYTES + 10;
/// How much is searched at once for the next record behind damage.
const WINDOW: usize = 64 << 10;

/// Why an event no longer waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    Acknowledged,
    Dropped,
}

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body<'a> {
    Header {
        queue: u64,
        next_seq: u64,
        dropped: u64,
    },
    Event {
        seq: u64,
        priority: Priority,
        payload: &'a [u8],
    },
    Gone {
        seq: u64,
        why: Gone,
    },
}

/// The whole record of `body`.
pub(super) fn encode(body: &Body<'_>) -> Vec<u8> {
    let mut record = vec![0; FRAME_BYTES];
    match body {
        Body::Header {
            queue,
            next_seq,
            dropped,
        } => {
            record.push(0);
            for number in [queue, next_seq, dropped] {
                record.extend_from_slice(&number.to_le_bytes());
            }
        }
        Body::Event {
            seq,
            priority,
            payload,
        } => {
            record.push(1);
            record.extend_from_slice(&seq.to_le_bytes());
            record.push(*priority as u8);
            record.extend_from_slice(payload);
        }
        Body::Gone { seq, why } => {
            record.push(2);
            record.extend_from_slice(&seq.to_le_bytes());
            record.push(*why as u8);
        }
    }
    let len = (record.len() - FRAME_BYTES) as u32;
    let crc = crc32fast::hash(&record[FRAME_BYTES..]);
    record[..4].copy_from_slice(&MAGIC);
    record[4..8].copy_from_slice(&len.to_le_bytes());
    record[8..12].copy_from_slice(&crc.to_le_bytes());
    record
}

/// What a whole record says; `None` if a checksum or a field is wrong.
pub(super) fn decode(record: &[u8]) -> Option<Body<'_>> {
    let (frame, body) = record.split_at_checked(FRAME_BYTES)?;
    if body_len(frame)? != body.len() || word(frame, 8)? != crc32fast::hash(body) {
        return None;
    }
    let number = |at: usize| Some(u64::from_le_bytes(body.get(at..at + 8)?.try_into().ok()?));
    match (body.first()?, body.len()) {
        (0, 25) => Some(Body::Header {
            queue: number(1)?,
            next_seq: number(9)?,
            dropped: number(17)?,
        }),
        (1, _) => Some(Body::Event {
            seq: number(1)?,
            priority: match body.get(9)? {
                0 => Priority::Low,
                1 => Priority::Normal,
                2 => Priority::High,
                _ => return None,
            },
            payload: body.get(10..)?,
        }),
        (2, 10) => Some(Body::Gone {
            seq: number(1)?,
            why: match body.get(9)? {
                0 => Gone::Acknowledged,
                1 => Gone::Dropped,
                _ => return None,
            },
        }),
        _ => None,
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Length of the body that `frame` announces, if it is a frame.
fn body_len(frame: &[u8]) -> Option<usize> {
    let len = word(frame, 4)? as usize;
    (frame.starts_with(&MAGIC) && len <= MAX_BODY_BYTES).then_some(len)
}

/// `len` bytes at `offset`.
pub(super) fn read(file: &File, offset: u64, len: u64) -> io::Result<Vec<u8>> {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let mut bytes = vec![0; len.min(FRAME_BYTES + MAX_BODY_BYTES)];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

/// Bytes that are no records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Damage {
    /// At the end of the file.
    pub(super) torn: u64,
    /// Before the last sound record.
    pub(super) inside: u64,
}

/// Reads a file record by record and steps over damage.
pub(super) struct Scan<'a> {
    file: &'a File,
    len: u64,
    offset: u64,
    sound_end: u64,
    damaged: u64,
}

impl Scan<'_> {
    pub(super) fn new(file: &File) -> io::Result<Scan<'_>> {
        Ok(Scan {
            file,
            len: file.metadata()?.len(),
            offset: 0,
            sound_end: 0,
            damaged: 0,
        })
    }

    /// The next sound record and where it begins.
    pub(super) fn next(&mut self) -> io::Result<Option<(u64, Vec<u8>)>> {
        while self.offset < self.len {
            if let Some(record) = self.record_here()? {
                let at = self.offset;
                self.damaged += at - self.sound_end;
                self.offset += record.len() as u64;
                self.sound_end = self.offset;
                return Ok(Some((at, record)));
            }
            self.skip_to_magic()?;
        }
        Ok(None)
    }

    /// Where the last sound record ends.
    pub(super) fn sound_end(&self) -> u64 {
        self.sound_end
    }

    pub(super) fn damage(&self) -> Damage {
        Damage {
            torn: self.len - self.sound_end,
            inside: self.damaged,
        }
    }

    fn record_here(&self) -> io::Result<Option<Vec<u8>>> {
        let left = self.len - self.offset;
        if left < FRAME_BYTES as u64 {
            return Ok(None);
        }
        let frame = read(self.file, self.offset, FRAME_BYTES as u64)?;
        let Some(body) = body_len(&frame) else {
            return Ok(None);
        };
        let len = (FRAME_BYTES + body) as u64;
        if left < len {
            return Ok(None);
        }
        let record = read(self.file, self.offset, len)?;
        Ok(decode(&record).is_some().then_some(record))
    }

    fn skip_to_magic(&mut self) -> io::Result<()> {
        self.offset += 1;
        while self.offset < self.len {
            let window = read(
                self.file,
                self.offset,
                (self.len - self.offset).min(WINDOW as u64),
            )?;
            let found = window.windows(MAGIC.len()).position(|bytes| bytes == MAGIC);
            match found {
                Some(at) => {
                    self.offset += at as u64;
                    return Ok(());
                }
                // A magic may begin in the last three bytes of a window.
                None if window.len() < WINDOW => self.offset = self.len,
                None => self.offset += (WINDOW - MAGIC.len() + 1) as u64,
            }
        }
        Ok(())
    }
}
