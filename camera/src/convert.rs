//! From a frame's bytes to what the rest of the program sees: RGB and luma grids, upright and masked.

mod bayer;
mod blocks;
mod grey;
mod grid;
mod packed_rgb;
#[cfg(test)]
mod tests;
mod upright;
mod yuv;

use crate::frame::{FrameError, FrameFormat, Layout};
use crate::jpeg;
use crate::luma::Luma;
use crate::pixel_format::PixelFormat;
use crate::rgb::Rgb;
use crate::view::View;

use bayer::BayerRows;
use blocks::BlockRows;
use grey::{Grey16Rows, GreyRows};
use packed_rgb::{PackedRgbRows, RED_FIRST, RED_LAST};
use yuv::YuvRows;

/// A picture that gives its rows as RGB, in the sensor's orientation.
trait RgbRows {
    /// Writes row `y`: 3 bytes a pixel, red first.
    fn rgb_row(&mut self, y: usize, out: &mut [u8]);
}

/// A picture that adds up its luma, in the sensor's orientation.
trait LumaRows {
    /// Adds the luma of each pixel of row `y` to the sum of its column, in the format's own range.
    fn add_luma_row(&mut self, y: usize, sums: &mut [u16]);

    /// Luma of black, and of white minus that of black.
    fn black_and_span(&self) -> (i64, i64) {
        (0, 255)
    }
}

trait Rows: RgbRows + LumaRows {}
impl<T: RgbRows + LumaRows> Rows for T {}

/// The rows of a raw frame.
fn rows<'a>(format: &FrameFormat, bytes: &'a [u8]) -> Result<Box<dyn Rows + 'a>, FrameError> {
    let layout = Layout::of(format)?;
    let plane = layout.planes[0];
    Ok(match format.pixel {
        PixelFormat::Rgb3 => Box::new(PackedRgbRows::<RED_FIRST>::new(bytes, plane)),
        PixelFormat::Bgr3 => Box::new(PackedRgbRows::<RED_LAST>::new(bytes, plane)),
        PixelFormat::Grey => Box::new(GreyRows::new(bytes, plane)),
        PixelFormat::Grey16 { bits } => Box::new(Grey16Rows::new(bytes, plane, bits)),
        PixelFormat::Bayer { order, bits } => Box::new(BayerRows::new(bytes, plane, order, bits)),
        _ => Box::new(YuvRows::new(bytes, layout, format)),
    })
}

pub(crate) fn to_rgb(format: &FrameFormat, bytes: &[u8], view: &View) -> Result<Rgb, FrameError> {
    let mut rgb = if format.pixel == PixelFormat::Mjpg {
        upright::turn(jpeg::decode(bytes)?, view.orientation)
    } else {
        let mut rows = rows(format, bytes)?;
        upright::picture(&mut *rows, (format.width, format.height), view.orientation)
    };
    if let Some(mask) = &view.mask {
        upright::blacken(&mut rgb, mask);
    }
    Ok(rgb)
}

pub(crate) fn luma(
    format: &FrameFormat,
    bytes: &[u8],
    view: &View,
    grid: (u32, u32),
) -> Result<Luma, FrameError> {
    let size = (format.width, format.height);
    if format.pixel != PixelFormat::Mjpg {
        return Ok(grid::means(&mut *rows(format, bytes)?, size, view, grid));
    }
    if let Some(blocks) = jpeg::luma_blocks(bytes)? {
        return Ok(grid::means(&mut BlockRows::new(&blocks), size, view, grid));
    }
    let picture = jpeg::decode(bytes)?;
    let mut rows = PackedRgbRows::<RED_FIRST>::decoded(&picture);
    Ok(grid::means(&mut rows, size, view, grid))
}
