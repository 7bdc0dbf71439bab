//! YUV4MPEG2 files and pipes: a line of text, then frames, each behind a line of its own.
//!
//! The format is defined by the manual page `yuv4mpeg(5)` of mjpegtools; the `X` parameters are ffmpeg's.

mod error;
mod header;
#[cfg(test)]
mod tests;

use std::io::{BufRead, BufReader, Read};
use std::time::Duration;

pub use error::Y4mError;
use header::Header;

use crate::frame::{Frame, FrameFormat};

/// Longest line that is read, in bytes.
pub const MAX_LINE_BYTES: usize = 4096;

/// Bytes that a frame claims beyond those that have come in, at most.
const READ_AHEAD: usize = 1 << 20;

/// Frames of a YUV4MPEG2 stream: 8 bits, 4:2:0, 4:2:2, 4:4:4 or grey.
///
/// Interlaced frames come as they are stored, both fields in one picture. Without a word on range, luma is
/// 16 to 235; the matrix, of which the format says nothing, is ITU-R BT.601.
#[derive(Debug)]
pub struct Reader<R> {
    input: BufReader<R>,
    header: Header,
    frame_bytes: usize,
    frames: u64,
}

impl<R: Read> Reader<R> {
    /// Reads the stream's header.
    ///
    /// # Errors
    ///
    /// No such header, one that is cut or too long, a parameter that is damaged or not supported, or reading failed.
    pub fn new(input: R) -> Result<Reader<R>, Y4mError> {
        let mut input = BufReader::new(input);
        let line = line(&mut input)?.ok_or(Y4mError::Empty)?;
        let header = Header::parse(&line)?;
        let frame_bytes = header.format.frame_bytes()?;
        Ok(Reader {
            input,
            header,
            frame_bytes,
            frames: 0,
        })
    }

    /// What every frame is.
    pub fn format(&self) -> FrameFormat {
        self.header.format
    }

    /// When a frame is due after the first; 25 frames a second if the stream does not say.
    pub fn timestamp(&self, frame: u64) -> Duration {
        let (frames, seconds) = self.header.rate;
        let nanoseconds =
            u128::from(frame) * u128::from(seconds) * 1_000_000_000 / u128::from(frames);
        let whole = u64::try_from(nanoseconds / 1_000_000_000).unwrap_or(u64::MAX);
        Duration::new(whole, (nanoseconds % 1_000_000_000) as u32)
    }

    /// The next frame, or `None` at the end of the stream.
    ///
    /// # Errors
    ///
    /// A frame that is cut or has no `FRAME` line, or reading failed.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, Y4mError> {
        let Some(line) = line(&mut self.input)? else {
            return Ok(None);
        };
        if line != b"FRAME" && !line.starts_with(b"FRAME ") {
            return Err(Y4mError::NoFrameLine { frame: self.frames });
        }
        let mut bytes = Vec::with_capacity(self.frame_bytes.min(READ_AHEAD));
        let need = self.frame_bytes;
        self.input
            .by_ref()
            .take(need as u64)
            .read_to_end(&mut bytes)?;
        if bytes.len() < need {
            return Err(Y4mError::CutFrame {
                frame: self.frames,
                have: bytes.len(),
                need,
            });
        }
        if self.header.is_limited_grey {
            stretch(&mut bytes);
        }
        let timestamp = self.timestamp(self.frames);
        let frame = Frame::new(self.header.format, bytes, self.frames, timestamp)?;
        self.frames += 1;
        Ok(Some(frame))
    }
}

/// Grey frames are full range: 16..=235 becomes 0..=255.
fn stretch(bytes: &mut [u8]) {
    let stretched: [u8; 256] = std::array::from_fn(|level| {
        let above_black = (level as i32 - 16) * 255;
        ((above_black + 109).div_euclid(219)).clamp(0, 255) as u8
    });
    for byte in bytes {
        *byte = stretched[usize::from(*byte)];
    }
}

/// The next line without its end, or `None` at the end of the input.
fn line(input: &mut impl BufRead) -> Result<Option<Vec<u8>>, Y4mError> {
    let mut line = Vec::new();
    input
        .by_ref()
        .take(MAX_LINE_BYTES as u64 + 1)
        .read_until(b'\n', &mut line)?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        Some(_) if line.len() >= MAX_LINE_BYTES => Err(Y4mError::LongLine),
        Some(_) => Err(Y4mError::CutLine),
    }
}
