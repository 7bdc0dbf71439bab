//! Why a frame cannot be used.

use crate::frame::{FrameFormat, MAX_PIXELS, MAX_SIDE};
use crate::jpeg::JpegError;

/// Why a frame cannot be used. The usual answer is to drop it and take the next one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A side is zero.
    #[error("the frame is {width}x{height}, it must have at least 1 pixel a side")]
    NoPixels {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// One side is too long.
    #[error(
        "the frame is {width}x{height}, over the limit of {} pixels a side; ask the camera for less",
        MAX_SIDE
    )]
    TooLongSide {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// The frame has too many pixels.
    #[error(
        "the frame is {width}x{height}, over the limit of {} pixels; ask the camera for less",
        MAX_PIXELS
    )]
    TooManyPixels {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// Not every colour occurs in a Bayer picture this small.
    #[error("the frame is {width}x{height}, a Bayer picture needs at least 2 pixels a side")]
    TooSmallForBayer {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// Rows would overlap.
    #[error("the stride is {stride} bytes, a row of {} pixels {} needs {row_bytes}; correct the stride or the width", format.width, format.pixel)]
    Stride {
        /// The format.
        format: FrameFormat,
        /// Stride in bytes.
        stride: u32,
        /// Bytes of a row.
        row_bytes: usize,
    },
    /// The stride makes the frame larger than any sensible one.
    #[error(
        "the stride is {stride} bytes, over the limit of {limit} for a row of {row_bytes}; correct the stride"
    )]
    StrideTooLong {
        /// Stride in bytes.
        stride: u32,
        /// Longest stride allowed.
        limit: usize,
        /// Bytes of a row.
        row_bytes: usize,
    },
    /// The buffer ends before the picture does.
    #[error("a frame of {}x{} {} needs {need} bytes, got {have}; drop it", format.width, format.height, format.pixel)]
    Short {
        /// The format.
        format: FrameFormat,
        /// Bytes given.
        have: usize,
        /// Bytes needed.
        need: usize,
    },
    /// JPEG frames have no fixed size.
    #[error("frames of format {} differ in size; find their ends with jpeg::Splitter", format.pixel)]
    NoFixedSize {
        /// The format.
        format: FrameFormat,
    },
    /// The JPEG is of another size than the source said.
    #[error("the JPEG is {width}x{height}, the source said {}x{}; drop it or open the source again", negotiated.0, negotiated.1)]
    OtherSize {
        /// Width in the JPEG, in pixels.
        width: u32,
        /// Height in the JPEG, in pixels.
        height: u32,
        /// Width and height of the [`FrameFormat`].
        negotiated: (u32, u32),
    },
    /// The JPEG cannot be decoded.
    #[error("the JPEG frame cannot be used")]
    Jpeg(#[from] JpegError),
    /// The grid has no cells or is finer than the picture.
    #[error(
        "a luma grid of {columns}x{rows} does not fit a picture of {width}x{height}; ask for 1 cell to 1 cell a pixel"
    )]
    Grid {
        /// Columns asked for.
        columns: u32,
        /// Rows asked for.
        rows: u32,
        /// Width of the upright picture in pixels.
        width: u32,
        /// Height of the upright picture in pixels.
        height: u32,
    },
}
