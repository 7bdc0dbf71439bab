//! One colour a pixel: plain bilinear debayer.
//!
//! Beyond the edges the picture is reflected about its outermost pixels, which keeps every filter in its place.

use crate::convert::packed_rgb::luma;
use crate::convert::{LumaRows, RgbRows, grey};
use crate::frame::Plane;
use crate::pixel_format::BayerOrder;

/// Rows of a Bayer frame of at least 2 × 2 pixels.
pub(super) struct BayerRows<'a> {
    bytes: &'a [u8],
    plane: Plane,
    bits: u8,
    /// Row and column parity of the red pixels.
    red: (usize, usize),
    /// Rows above, at and below the one asked for, as bytes, with one reflected pixel at each end.
    around: [Vec<u8>; 3],
    debayered: Vec<u8>,
}

impl<'a> BayerRows<'a> {
    pub(super) fn new(bytes: &'a [u8], plane: Plane, order: BayerOrder, bits: u8) -> Self {
        let red = match order {
            BayerOrder::Rggb => (0, 0),
            BayerOrder::Grbg => (0, 1),
            BayerOrder::Gbrg => (1, 0),
            BayerOrder::Bggr => (1, 1),
        };
        let width = if bits == 8 {
            plane.row_bytes
        } else {
            plane.row_bytes / 2
        };
        let around = std::array::from_fn(|_| vec![0; width + 2]);
        BayerRows {
            bytes,
            plane,
            bits,
            red,
            around,
            debayered: vec![0; 3 * width],
        }
    }

    fn load(&mut self, y: usize) {
        let last = self.plane.rows - 1;
        let rows = [y.abs_diff(1), y, if y == last { y - 1 } else { y + 1 }];
        for (samples, y) in self.around.iter_mut().zip(rows) {
            let row = self.plane.row(self.bytes, y);
            let width = samples.len() - 2;
            let inner = &mut samples[1..=width];
            if self.bits == 8 {
                inner.copy_from_slice(row);
            } else {
                for (to, from) in inner.iter_mut().zip(grey::eight_bits(row, self.bits)) {
                    *to = from;
                }
            }
            samples[0] = samples[2];
            samples[width + 1] = samples[width - 1];
        }
    }
}

fn mean2(a: u8, b: u8) -> u8 {
    (u16::from(a) + u16::from(b)).div_ceil(2) as u8
}

fn mean4(samples: [u8; 4]) -> u8 {
    ((samples.into_iter().map(u16::from).sum::<u16>() + 2) / 4) as u8
}

impl RgbRows for BayerRows<'_> {
    fn rgb_row(&mut self, y: usize, out: &mut [u8]) {
        self.load(y);
        let [above, at, below] = &self.around;
        let in_red_row = y % 2 == self.red.0;
        let (out, _) = out.as_chunks_mut::<3>();
        for (x, pixel) in out.iter_mut().enumerate() {
            // Column x stands at x + 1 of the reflected rows.
            let (left, right) = (x, x + 2);
            let here = at[x + 1];
            let vertical = mean2(above[x + 1], below[x + 1]);
            let horizontal = mean2(at[left], at[right]);
            let in_red_column = x % 2 == self.red.1;
            *pixel = if in_red_row == in_red_column {
                let green = mean4([at[left], at[right], above[x + 1], below[x + 1]]);
                let other = mean4([above[left], above[right], below[left], below[right]]);
                if in_red_row {
                    [here, green, other]
                } else {
                    [other, green, here]
                }
            } else if in_red_row {
                [horizontal, here, vertical]
            } else {
                [vertical, here, horizontal]
            };
        }
    }
}

impl LumaRows for BayerRows<'_> {
    fn add_luma_row(&mut self, y: usize, sums: &mut [u16]) {
        let mut debayered = std::mem::take(&mut self.debayered);
        self.rgb_row(y, &mut debayered);
        grey::add(
            sums,
            debayered
                .as_chunks::<3>()
                .0
                .iter()
                .map(|pixel| luma(*pixel)),
        );
        self.debayered = debayered;
    }
}
