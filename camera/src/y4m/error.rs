//! Why a YUV4MPEG2 stream cannot be read.

use crate::frame::FrameError;
use crate::y4m::MAX_LINE_BYTES;

/// Why a YUV4MPEG2 stream cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Y4mError {
    /// Reading failed.
    #[error("the Y4M stream cannot be read")]
    Io(#[from] std::io::Error),
    /// The stream has no bytes.
    #[error("the Y4M stream is empty")]
    Empty,
    /// The stream is something else.
    #[error("the stream does not begin with YUV4MPEG2; write it with `ffmpeg ... -f yuv4mpegpipe`")]
    NotY4m,
    /// A line does not end.
    #[error(
        "a line of the Y4M stream is longer than {} bytes; the stream is damaged",
        MAX_LINE_BYTES
    )]
    LongLine,
    /// The stream ends within a line.
    #[error("the Y4M stream ends within a line; it was cut")]
    CutLine,
    /// A parameter of the header makes no sense.
    #[error("the Y4M header's parameter {parameter:?} is damaged; write the stream again")]
    Parameter {
        /// The parameter as it stands there.
        parameter: String,
    },
    /// Width or height is missing.
    #[error("the Y4M header lacks {parameter}; write the stream again")]
    Missing {
        /// First letter of the parameter.
        parameter: char,
    },
    /// A layout of samples that is not read.
    #[error(
        "the Y4M stream has colour space {name:?}; use 8 bits of 420, 422, 444 or mono (`-pix_fmt yuv420p`)"
    )]
    ColorSpace {
        /// Name in the header.
        name: String,
    },
    /// The size is out of bounds.
    #[error("the Y4M stream's frames cannot be used")]
    Frame(#[from] FrameError),
    /// Something else stands where a frame should begin.
    #[error("frame {frame} of the Y4M stream does not begin with FRAME; the stream is damaged")]
    NoFrameLine {
        /// Number of the frame, from 0.
        frame: u64,
    },
    /// The stream ends within a frame.
    #[error("the Y4M stream ends within frame {frame}: {have} of {need} bytes")]
    CutFrame {
        /// Number of the frame, from 0.
        frame: u64,
        /// Bytes there are.
        have: usize,
        /// Bytes due.
        need: usize,
    },
}
