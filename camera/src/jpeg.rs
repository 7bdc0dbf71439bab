//! JPEG frames as cameras send them (ITU-T T.81): often without Huffman tables, with rubbish around and inside,
//! and cut short.
//!
//! Baseline pictures are walked through once, block by block, before anything else is done with them. The walk
//! drops what does not belong there, writes what a decoder needs and no more, and finds out whether every
//! block arrived: a picture with a missing or impossible block is an error, never half a picture. The means of
//! the luma blocks fall out of the walk for next to nothing.
//!
//! Bytes lost in the middle are noticed where the number of blocks or their brightness no longer adds up, which is
//! most of the time but not always. Progressive pictures, which cameras do not send, are only checked for their end
//! marker and by the decoder.

mod bits;
mod error;
mod header;
mod huffman;
mod scan;
mod segment;
mod splitter;
#[cfg(test)]
mod tests;
mod walk;

pub use error::JpegError;
pub use splitter::Splitter;

use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use crate::frame::{MAX_PIXELS, MAX_SIDE};
use crate::rgb::Rgb;
use header::Header;
pub(crate) use walk::LumaBlocks;

/// Width and height of a JPEG, from its header.
///
/// # Errors
///
/// No picture in the bytes, a damaged header, a kind that is not supported, a side of no pixels.
pub fn size(bytes: &[u8]) -> Result<(u32, u32), JpegError> {
    let header = Header::find(bytes)?;
    Ok((header.width, header.height))
}

/// The picture in RGB, if all of it arrived.
pub(crate) fn decode(bytes: &[u8]) -> Result<Rgb, JpegError> {
    let walked = walk::walk(bytes)?;
    let options = DecoderOptions::default()
        .set_max_width(MAX_SIDE as usize)
        .set_max_height(MAX_SIDE as usize)
        .set_strict_mode(true)
        .jpeg_set_max_scans(walk::MAX_SCANS)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(&walked.repaired), options);
    let refused = |error| JpegError::Decoder {
        source: Box::new(error),
    };
    let pixels = decoder.decode().map_err(refused)?;
    let (width, height) = (walked.header.width, walked.header.height);
    let need = width as usize * height as usize * 3;
    if pixels.len() != need {
        return Err(JpegError::WrongOutput {
            bytes: pixels.len(),
            need,
        });
    }
    Ok(Rgb {
        width,
        height,
        pixels,
    })
}

/// Means of the luma blocks, without decoding the rest. `None` if the picture must be decoded to know them:
/// progressive, RGB or CMYK ones, and those whose luma has fewer samples than pixels.
pub(crate) fn luma_blocks(bytes: &[u8]) -> Result<Option<LumaBlocks>, JpegError> {
    Ok(walk::walk(bytes)?.luma)
}

/// Whether a picture of this size is within the limits of frames.
fn is_allowed(width: u32, height: u32) -> bool {
    let pixels = u64::from(width) * u64::from(height);
    width.max(height) <= MAX_SIDE && pixels <= MAX_PIXELS && pixels > 0
}
