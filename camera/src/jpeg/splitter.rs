//! A stream of JPEGs, cut into frames.

use crate::jpeg::segment::{self, EOI, RST0, SOI, SOS};

/// Longest header that is believed: larger ones come from rubbish that looks like one.
const MAX_HEADER_BYTES: usize = 1 << 20;

/// Cuts a stream of JPEGs one behind the other into frames: bytes in, frames out.
///
/// Whatever stands between the pictures is dropped (so the parts of an HTTP `multipart/x-mixed-replace` body may
/// be pushed as they come). A picture ends with its end marker, or where the next one starts. Whether a frame is
/// whole shows when it is decoded.
#[derive(Debug)]
pub struct Splitter {
    max_frame_bytes: usize,
    buffer: Vec<u8>,
    place: Place,
    dropped_bytes: u64,
}

/// How far the buffer is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Before a picture: no start before this byte.
    Between(usize),
    /// The picture at byte 0: the next segment begins at this byte.
    Header(usize),
    /// The data of a scan: no marker that matters before this byte.
    Data(usize),
}

impl Splitter {
    /// A splitter that gives up on pictures longer than `max_frame_bytes` and never holds more than twice as much.
    pub fn new(max_frame_bytes: usize) -> Splitter {
        Splitter {
            max_frame_bytes,
            buffer: Vec::new(),
            place: Place::Between(0),
            dropped_bytes: 0,
        }
    }

    /// Takes in the next bytes of the stream. Take the frames out before more than one more picture comes in:
    /// beyond twice the longest picture the oldest bytes are dropped.
    pub fn push(&mut self, bytes: &[u8]) {
        let limit = self.max_frame_bytes.saturating_mul(2);
        let bytes = match bytes.len().checked_sub(limit) {
            Some(over) if over > 0 => {
                self.dropped_bytes += over as u64;
                &bytes[over..]
            }
            _ => bytes,
        };
        let over = (self.buffer.len() + bytes.len()).saturating_sub(limit);
        if over > 0 {
            self.resume_at(over);
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next picture of which both ends have come in. `None`: push more.
    pub fn next_frame(&mut self) -> Option<Vec<u8>> {
        loop {
            match self.place {
                Place::Between(from) => self.find_start(from)?,
                Place::Header(at) => self.pass_segment(at)?,
                Place::Data(from) => {
                    if let Some(frame) = self.find_end(from)? {
                        return Some(frame);
                    }
                }
            }
        }
    }

    /// Bytes that belonged to no picture, or to one that was too long or had no sound header.
    pub fn dropped_bytes(&self) -> u64 {
        self.dropped_bytes
    }

    /// Bytes that are waiting for the rest of their picture.
    pub fn held_bytes(&self) -> usize {
        self.buffer.len()
    }

    fn find_start(&mut self, from: usize) -> Option<()> {
        match segment::find_start(&self.buffer[from..]) {
            Some(start) => {
                self.drop_first(from + start);
                self.place = Place::Header(2);
                Some(())
            }
            None => {
                // The first two bytes of a start may be the last that came in.
                let known = self.buffer.len().saturating_sub(2).max(from);
                self.drop_first(known);
                self.place = Place::Between(0);
                None
            }
        }
    }

    /// Steps over one segment of the header.
    fn pass_segment(&mut self, at: usize) -> Option<()> {
        let rest = self.buffer.get(at..).unwrap_or_default();
        let (marker, length) = match *rest {
            [0xFF, 0xFF, ..] => {
                self.place = Place::Header(at + 1);
                return self.within(MAX_HEADER_BYTES);
            }
            [0xFF, marker, high, low, ..] => (marker, usize::from(u16::from_be_bytes([high, low]))),
            [0xFF, _, ..] | [0xFF] | [] => return self.within_or_wait(),
            _ => return self.give_up(),
        };
        if length < 2 || matches!(marker, 0x00 | 0x01 | RST0..=EOI) {
            return self.give_up();
        }
        let end = at + 2 + length;
        self.place = if marker == SOS {
            Place::Data(end)
        } else {
            Place::Header(end)
        };
        self.within(MAX_HEADER_BYTES)
    }

    /// `Some(None)`: go on from the new place.
    fn find_end(&mut self, from: usize) -> Option<Option<Vec<u8>>> {
        if from > self.buffer.len() {
            return self.within_or_wait().map(|()| None);
        }
        match segment::find_marker(&self.buffer, from, false) {
            Some((EOI, at)) => Some(self.cut(at + 2)),
            Some((SOI, at)) => Some(self.cut(at)),
            Some((0xC0..=0xFE, at)) => {
                // Between two scans.
                self.place = Place::Header(at);
                Some(None)
            }
            Some((_, at)) => {
                self.place = Place::Data(at + 2);
                Some(None)
            }
            None => {
                let known = self.buffer.len().saturating_sub(1).max(from);
                self.place = Place::Data(known);
                self.within_or_wait().map(|()| None)
            }
        }
    }

    /// The picture at the start of the buffer, unless it is too long.
    fn cut(&mut self, end: usize) -> Option<Vec<u8>> {
        let rest = self.buffer.split_off(end);
        let frame = std::mem::replace(&mut self.buffer, rest);
        self.place = Place::Between(0);
        if frame.len() > self.max_frame_bytes {
            self.dropped_bytes += frame.len() as u64;
            return None;
        }
        Some(frame)
    }

    /// Goes on if the place is within the limit, else looks for another start.
    fn within(&mut self, limit: usize) -> Option<()> {
        let (Place::Between(at) | Place::Header(at) | Place::Data(at)) = self.place;
        if at > limit.min(self.max_frame_bytes) {
            self.give_up()
        } else {
            Some(())
        }
    }

    /// `None` if more bytes are due; looks for another start if there are too many already.
    fn within_or_wait(&mut self) -> Option<()> {
        if self.buffer.len() <= self.max_frame_bytes {
            return None;
        }
        self.resume_at(self.buffer.len());
        Some(())
    }

    /// The start at byte 0 was none.
    fn give_up(&mut self) -> Option<()> {
        self.resume_at(2);
        Some(())
    }

    fn resume_at(&mut self, at: usize) {
        self.drop_first(at.min(self.buffer.len()));
        self.place = Place::Between(0);
    }

    fn drop_first(&mut self, count: usize) {
        self.dropped_bytes += count as u64;
        self.buffer.drain(..count);
    }
}
