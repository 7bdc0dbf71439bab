//! Three bytes a pixel.

use crate::convert::{LumaRows, RgbRows};
use crate::frame::Plane;
use crate::rgb::Rgb;

/// Offset of red in a pixel of RGB3.
pub(super) const RED_FIRST: usize = 0;
/// Offset of red in a pixel of BGR3.
pub(super) const RED_LAST: usize = 2;

/// Weights of red, green and blue in luma (ITU-R BT.601), in 1/65536.
pub(super) const LUMA_WEIGHTS: [u32; 3] = [19_595, 38_470, 7_471];

/// Luma of one pixel, full range.
pub(super) fn luma([red, green, blue]: [u8; 3]) -> u8 {
    let [r, g, b] = LUMA_WEIGHTS;
    ((r * u32::from(red) + g * u32::from(green) + b * u32::from(blue) + (1 << 15)) >> 16) as u8
}

/// Rows of pixels whose red stands at `RED` and whose blue at `2 - RED`.
pub(super) struct PackedRgbRows<'a, const RED: usize> {
    bytes: &'a [u8],
    plane: Plane,
}

impl<'a, const RED: usize> PackedRgbRows<'a, RED> {
    pub(super) fn new(bytes: &'a [u8], plane: Plane) -> Self {
        PackedRgbRows { bytes, plane }
    }

    fn pixels(&self, y: usize) -> &'a [[u8; 3]] {
        self.plane.row(self.bytes, y).as_chunks().0
    }
}

impl<'a> PackedRgbRows<'a, RED_FIRST> {
    pub(super) fn decoded(picture: &'a Rgb) -> Self {
        let stride = picture.width as usize * 3;
        let rows = picture.height as usize;
        Self::new(
            &picture.pixels,
            Plane {
                offset: 0,
                stride,
                row_bytes: stride,
                rows,
            },
        )
    }
}

impl<const RED: usize> RgbRows for PackedRgbRows<'_, RED> {
    fn rgb_row(&mut self, y: usize, out: &mut [u8]) {
        let (out, _) = out.as_chunks_mut::<3>();
        for (to, from) in out.iter_mut().zip(self.pixels(y)) {
            *to = [from[RED], from[1], from[2 - RED]];
        }
    }
}

impl<const RED: usize> LumaRows for PackedRgbRows<'_, RED> {
    fn add_luma_row(&mut self, y: usize, sums: &mut [u16]) {
        for (sum, from) in sums.iter_mut().zip(self.pixels(y)) {
            *sum += u16::from(luma([from[RED], from[1], from[2 - RED]]));
        }
    }
}
