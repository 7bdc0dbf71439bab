//! One picture as a source delivered it: bytes in the source's own format, and when they were taken.

mod buffers;
mod error;
mod layout;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use buffers::Buffers;
pub use error::FrameError;
pub(crate) use layout::{Layout, Plane};

use crate::convert;
use crate::jpeg;
use crate::luma::Luma;
use crate::pixel_format::PixelFormat;
use crate::rgb::Rgb;
use crate::view::View;

/// Longest side of a frame, in pixels.
pub const MAX_SIDE: u32 = 16_384;
/// Most pixels of a frame.
pub const MAX_PIXELS: u64 = 1 << 26;

/// Which numbers stand for which colours in YUV formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Matrix {
    /// ITU-R BT.601, the default of webcams and JPEG.
    Bt601,
    /// ITU-R BT.709, HDMI and high definition.
    Bt709,
    /// ITU-R BT.2020, constant luminance not supported.
    Bt2020,
}

/// Which part of 0..=255 is in use in YUV formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Range {
    /// Luma 16..=235, chroma 16..=240.
    Limited,
    /// 0..=255.
    Full,
}

/// Colour encoding of a YUV frame; RGB, grey and Bayer frames ignore it, and so do JPEG frames, which carry
/// their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Color {
    /// The matrix.
    pub matrix: Matrix,
    /// The range.
    pub range: Range,
}

/// What a source delivers until it says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FrameFormat {
    /// Layout of the pixels.
    pub pixel: PixelFormat,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Bytes from one row to the next in the first plane; 0 = rows follow without a gap. Other planes follow
    /// V4L2's rule: pairs of chroma have the same stride, single planes at half width have half of it, rounded
    /// up. Ignored by JPEG frames.
    pub stride: u32,
    /// Colour encoding.
    pub color: Color,
}

impl FrameFormat {
    /// Bytes of one frame, gaps between rows included.
    ///
    /// # Errors
    ///
    /// A size out of bounds, a stride shorter than a row, or a JPEG format, whose frames differ in size.
    pub fn frame_bytes(&self) -> Result<usize, FrameError> {
        Ok(Layout::of(self)?.bytes())
    }

    fn check_size(&self) -> Result<(), FrameError> {
        let (width, height) = (self.width, self.height);
        if width == 0 || height == 0 {
            return Err(FrameError::NoPixels { width, height });
        }
        if width > MAX_SIDE || height > MAX_SIDE {
            return Err(FrameError::TooLongSide { width, height });
        }
        if u64::from(width) * u64::from(height) > MAX_PIXELS {
            return Err(FrameError::TooManyPixels { width, height });
        }
        if matches!(self.pixel, PixelFormat::Bayer { .. }) && (width < 2 || height < 2) {
            return Err(FrameError::TooSmallForBayer { width, height });
        }
        Ok(())
    }
}

/// One picture. The bytes are reachable only through conversions that apply the view: orientation and privacy
/// mask. A clone shares them.
#[derive(Clone)]
pub struct Frame {
    format: FrameFormat,
    bytes: Arc<buffers::Bytes>,
    view: Arc<View>,
    sequence: u64,
    timestamp: Duration,
}

impl Frame {
    /// Takes the bytes of one frame. Bytes behind the picture are ignored, so a buffer may be larger than needed.
    ///
    /// `sequence` is the source's counter, `timestamp` the time since the source's epoch.
    ///
    /// # Errors
    ///
    /// A size out of bounds ([`MAX_SIDE`], [`MAX_PIXELS`]), a stride shorter than a row, too few bytes, or a JPEG
    /// whose header is missing, damaged or of another size. Whether a JPEG is whole shows when it is decoded.
    pub fn new(
        format: FrameFormat,
        bytes: Vec<u8>,
        sequence: u64,
        timestamp: Duration,
    ) -> Result<Frame, FrameError> {
        check_bytes(&format, &bytes)?;
        Ok(Frame {
            format,
            bytes: Arc::new(buffers::Bytes::new(bytes)),
            view: Arc::default(),
            sequence,
            timestamp,
        })
    }

    /// The same picture as its owner wants it seen.
    pub fn with_view(self, view: Arc<View>) -> Frame {
        Frame { view, ..self }
    }

    /// The same picture with another number and time.
    pub(crate) fn stamped(self, sequence: u64, timestamp: Duration) -> Frame {
        Frame {
            sequence,
            timestamp,
            ..self
        }
    }

    /// [`Frame::new`] over a buffer of `buffers`, which gets it back when the frame's last clone goes.
    pub(crate) fn pooled(
        buffers: &Buffers,
        format: FrameFormat,
        bytes: Vec<u8>,
        sequence: u64,
        timestamp: Duration,
    ) -> Result<Frame, FrameError> {
        if let Err(error) = check_bytes(&format, &bytes) {
            buffers.put(bytes);
            return Err(error);
        }
        let bytes = Arc::new(buffers.lend(bytes));
        Ok(Frame {
            format,
            bytes,
            view: Arc::default(),
            sequence,
            timestamp,
        })
    }

    /// Format and size as the source delivered them.
    pub fn format(&self) -> FrameFormat {
        self.format
    }

    /// Width and height in pixels after [`View::orientation`].
    pub fn upright_size(&self) -> (u32, u32) {
        self.view
            .orientation
            .turned_size(self.format.width, self.format.height)
    }

    /// The source's counter.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Time since the source's epoch.
    pub fn timestamp(&self) -> Duration {
        self.timestamp
    }

    /// The view that every conversion applies.
    pub fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// CRC-32 of the bytes as delivered: equal for frames that a stuck source repeats, and for little else.
    pub fn fingerprint(&self) -> u32 {
        crc32fast::hash(self.picture_bytes())
    }

    /// The picture in RGB, upright, black where the mask covers it.
    ///
    /// Chroma is taken from the nearest sample in raw formats; JPEG frames are smoothed as JPEG decoders do, and
    /// equal libjpeg-turbo's within 2 levels without subsampling, 3 in 4:2:2, 5 in 4:2:0.
    ///
    /// # Errors
    ///
    /// A JPEG that is cut, damaged or of an unsupported kind. Raw formats always convert.
    pub fn to_rgb(&self) -> Result<Rgb, FrameError> {
        convert::to_rgb(&self.format, self.picture_bytes(), &self.view)
    }

    /// Mean luma of the cells of a `columns` × `rows` grid over the upright picture, full range, 0 where the mask
    /// touches a cell. Cell `i` of `n` spans pixels `i * side / n` to `(i + 1) * side / n`.
    ///
    /// In raw formats exact to rounding. In JPEG frames each 8 × 8 block counts with its mean, so cells that cut
    /// blocks differ a little from the means of the decoded picture.
    ///
    /// # Errors
    ///
    /// A grid without cells or finer than the picture; a JPEG that is cut, damaged or of an unsupported kind.
    pub fn luma(&self, columns: u32, rows: u32) -> Result<Luma, FrameError> {
        let (width, height) = self.upright_size();
        if columns == 0 || rows == 0 || columns > width || rows > height {
            return Err(FrameError::Grid {
                columns,
                rows,
                width,
                height,
            });
        }
        convert::luma(
            &self.format,
            self.picture_bytes(),
            &self.view,
            (columns, rows),
        )
    }

    /// The bytes of the picture, without what lies behind it in the buffer.
    pub(crate) fn picture_bytes(&self) -> &[u8] {
        match Layout::of(&self.format) {
            Ok(layout) => &self.bytes.get()[..layout.bytes()],
            Err(_) => self.bytes.get(),
        }
    }
}

impl fmt::Debug for Frame {
    /// Everything but the picture.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("format", &self.format)
            .field("view", &self.view)
            .field("sequence", &self.sequence)
            .field("timestamp", &self.timestamp)
            .finish_non_exhaustive()
    }
}

fn check_bytes(format: &FrameFormat, bytes: &[u8]) -> Result<(), FrameError> {
    format.check_size()?;
    if format.pixel == PixelFormat::Mjpg {
        let (width, height) = jpeg::size(bytes)?;
        if (width, height) != (format.width, format.height) {
            let negotiated = (format.width, format.height);
            return Err(FrameError::OtherSize {
                width,
                height,
                negotiated,
            });
        }
        return Ok(());
    }
    let need = format.frame_bytes()?;
    if bytes.len() < need {
        return Err(FrameError::Short {
            format: *format,
            have: bytes.len(),
            need,
        });
    }
    Ok(())
}
