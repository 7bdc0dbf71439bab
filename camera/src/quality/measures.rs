//! What is measured on a picture.

use std::fmt;

use crate::rgb::Rgb;

use super::edges::{Edges, measure_edges};

/// Longest side of the picture that is measured.
const LONGEST: usize = 512;
/// Value of every channel from which a pixel is blown.
const BLOWN: u8 = 250;

/// A ninth of the picture, or all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// 0 left, 1 middle, 2 right.
    pub column: u8,
    /// 0 above, 1 middle, 2 below.
    pub row: u8,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.row, self.column) {
            (0, 0) => "at the upper left",
            (0, 1) => "at the top",
            (0, _) => "at the upper right",
            (1, 0) => "at the left",
            (1, 1) => "in the middle",
            (1, _) => "at the right",
            (_, 0) => "at the lower left",
            (_, 1) => "at the bottom",
            (_, _) => "at the lower right",
        })
    }
}

/// Figures of one picture.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measures {
    /// Pixels measured, after shrinking to 512 a side.
    pub pixels: usize,
    /// Mean luma.
    pub mean: u8,
    /// Luma that half of the pixels are not above.
    pub median: u8,
    /// Luma that a twentieth of the pixels are not above.
    pub dark: u8,
    /// Luma that a twentieth of the pixels are above.
    pub bright: u8,
    /// Blown pixels of a thousand: all channels 250 or more.
    pub blown: u32,
    /// Where most blown pixels are.
    pub blown_at: Place,
    /// Deviation of the noise in 1/16 levels of luma.
    pub noise: u32,
    /// How sharp edges are; `None` if there are none that stand out of the noise.
    pub edges: Option<Edges>,
}

/// A luma picture of small size.
pub(super) struct Small {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) luma: Vec<u8>,
    blown: [u32; 9],
}

impl Measures {
    /// Measures a picture. One whose pixels do not fill its size measures as empty.
    pub fn of(picture: &Rgb) -> Measures {
        let small = Small::of(picture);
        let pixels = small.luma.len();
        if pixels == 0 {
            return Measures::default();
        }
        let mut counts = [0usize; 256];
        for value in &small.luma {
            counts[usize::from(*value)] += 1;
        }
        let sum: usize = counts
            .iter()
            .enumerate()
            .map(|(value, count)| value * count)
            .sum();
        let (noise, edges) = measure_edges(&small);
        let blown: u32 = small.blown.iter().sum();
        let most = (0..9u8)
            .rev()
            .max_by_key(|ninth| small.blown[usize::from(*ninth)])
            .unwrap_or(4);
        Measures {
            pixels,
            mean: (sum / pixels) as u8,
            median: quantile(&counts, pixels / 2),
            dark: quantile(&counts, pixels / 20),
            bright: quantile(&counts, pixels - 1 - pixels / 20),
            blown: (u64::from(blown) * 1000 / pixels as u64) as u32,
            blown_at: Place {
                column: most % 3,
                row: most / 3,
            },
            noise,
            edges,
        }
    }

    /// Range of luma without the darkest and the brightest twentieth.
    pub fn contrast(&self) -> u8 {
        self.bright - self.dark
    }
}

/// The value of the `nth` smallest of counted values.
fn quantile(counts: &[usize; 256], nth: usize) -> u8 {
    let mut left = nth;
    for (value, count) in counts.iter().enumerate() {
        if left < *count {
            return value as u8;
        }
        left -= count;
    }
    255
}

impl Small {
    /// Means of squares of whole pixels; what is left at the right and below is not measured.
    fn of(picture: &Rgb) -> Small {
        let (wide, high) = (picture.width as usize, picture.height as usize);
        let side = wide.max(high).div_ceil(LONGEST).max(1);
        let filled = wide
            .checked_mul(high)
            .and_then(|count| count.checked_mul(3))
            == Some(picture.pixels.len());
        let (width, height) = if filled {
            (wide / side, high / side)
        } else {
            (0, 0)
        };
        let mut small = Small {
            width,
            height,
            luma: Vec::with_capacity(width * height),
            blown: [0; 9],
        };
        for y in 0..height {
            for x in 0..width {
                let [red, green, blue] = mean_of(picture, wide, (x * side, y * side), side);
                // Luma of BT.601 in 1/256.
                let luma = 77 * u32::from(red) + 150 * u32::from(green) + 29 * u32::from(blue);
                small.luma.push((luma >> 8) as u8);
                let blown = red.min(green).min(blue) >= BLOWN;
                small.blown[y * 3 / height * 3 + x * 3 / width] += u32::from(blown);
            }
        }
        small
    }
}

/// Mean colour of a square of `side` pixels.
fn mean_of(picture: &Rgb, wide: usize, (left, top): (usize, usize), side: usize) -> [u8; 3] {
    let mut sums = [0usize; 3];
    for y in top..top + side {
        let line = &picture.pixels[(y * wide + left) * 3..][..side * 3];
        for pixel in line.as_chunks::<3>().0 {
            for (sum, value) in sums.iter_mut().zip(pixel) {
                *sum += usize::from(*value);
            }
        }
    }
    sums.map(|sum| (sum / (side * side)) as u8)
}
