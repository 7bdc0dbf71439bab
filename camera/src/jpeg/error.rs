//! Why a JPEG cannot be used.

use crate::frame::{MAX_PIXELS, MAX_SIDE};

/// Why a JPEG cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JpegError {
    /// No start of a picture in the bytes.
    #[error("there is no start of a JPEG in {bytes} bytes; drop them")]
    NoStart {
        /// Bytes searched.
        bytes: usize,
    },
    /// The bytes end before the picture data begins.
    #[error("the JPEG ends in its header, after {bytes} bytes; drop it")]
    CutHeader {
        /// Bytes there are.
        bytes: usize,
    },
    /// A segment of the header breaks the rules.
    #[error("the JPEG's segment FF{marker:02X} at byte {offset} is damaged; drop the picture")]
    Segment {
        /// Second byte of the marker.
        marker: u8,
        /// Where the segment begins.
        offset: usize,
    },
    /// A scan uses a table that the picture does not define.
    #[error("the JPEG uses {kind} table {slot} and does not define it; drop the picture")]
    NoTable {
        /// Kind of table.
        kind: &'static str,
        /// Its number.
        slot: u8,
    },
    /// A kind of JPEG that cameras do not send.
    #[error("the JPEG is {kind}; set the camera to baseline JPEG of 8 bits")]
    Unsupported {
        /// What it is.
        kind: &'static str,
    },
    /// The size is out of bounds.
    #[error(
        "the JPEG is {width}x{height}; 1 to {} pixels a side and {} in all are allowed",
        MAX_SIDE,
        MAX_PIXELS
    )]
    Size {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// The picture data ends too early.
    #[error("the JPEG is cut: {mcus} of {of} units of a scan arrived; drop it")]
    Truncated {
        /// Whole units before the end.
        mcus: usize,
        /// Units of the scan.
        of: usize,
    },
    /// There is no end marker, and nothing else says that all of the picture arrived.
    #[error("the JPEG has no end, its rest is lost; drop it")]
    NoEnd,
    /// The picture data contradicts itself.
    #[error("the JPEG is damaged: {problem} in unit {mcu} of {of}; drop it")]
    Damaged {
        /// What is wrong.
        problem: &'static str,
        /// The unit.
        mcu: usize,
        /// Units of the scan.
        of: usize,
    },
    /// More scans than a sensible picture has.
    #[error("the JPEG has more than {limit} scans; drop it")]
    TooManyScans {
        /// The limit.
        limit: usize,
    },
    /// The decoder refused what the walk found whole.
    #[error("the JPEG cannot be decoded; drop it")]
    Decoder {
        /// What the decoder said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The decoder gave another number of bytes than the size asks for.
    #[error("the JPEG decodes to {bytes} bytes where {need} were due; drop it")]
    WrongOutput {
        /// Bytes given.
        bytes: usize,
        /// Bytes due.
        need: usize,
    },
}
