//! Resizing of 8-bit RGB pictures, equal to Pillow's `LANCZOS` bit for bit.
//!
//! A resize is a pass over every row and a pass over every column. The rows go first, except when
//! the height shrinks by much more than the width ([`columns_first`]); a pass whose size does not
//! change is left out. The order matters, for the values between the passes are rounded to 8 bits.
//! It is that of Pillow 13; earlier releases always take the rows first, so that pictures of the
//! exceptional kind differ by a few levels.
//!
//! Each output value is a weighted sum of the input values under the filter window:
//!
//! ```text
//! scale  = n_in / n_out            stretch = max(scale, 1)       support = 3 · stretch
//! centre = (i + ½) · scale         window  = ⌊centre − support + ½⌋ .. ⌊centre + support + ½⌋
//! w[j]   = sinc(x) · sinc(x/3),    x = (j − centre + ½) / stretch,    normalised to Σ w = 1
//! out[i] = clamp((2²¹ + Σ in[j] · round(w[j] · 2²²)) >> 22)
//! ```
//!
//! Weights are computed in f64 and rounded to 22 fractional bits. Both roundings are part of the
//! definition.

use std::f64::consts::PI;
use std::ops::Range;

/// Half the width of the filter window, in input pixels of an unscaled picture.
const LOBES: f64 = 3.0;
/// Fractional bits of a weight: 32 less 8 of the pixel and 2 of headroom for negative lobes.
const WEIGHT_BITS: u32 = 32 - 8 - 2;
/// Half of the last kept bit.
const ROUND: i32 = 1 << (WEIGHT_BITS - 1);
const CHANNELS: usize = 3;
/// Rows that the pass over rows takes together.
const BLOCK_ROWS: usize = 8;
/// Values that one step of either pass accumulates side by side.
const LANES: usize = BLOCK_ROWS * CHANNELS;

/// Resizes `pixels`, `height` rows of `width` RGB pixels, to `new_width` × `new_height`.
///
/// Returns `new_height` rows of `new_width` pixels. All four sizes are at least 1.
///
/// # Panics
/// If `pixels` does not have `width * height * 3` values.
pub(super) fn resize(
    pixels: &[u8],
    (width, height): (usize, usize),
    (new_width, new_height): (usize, usize),
) -> Vec<u8> {
    assert_eq!(
        pixels.len(),
        width * height * CHANNELS,
        "a picture has 3 values a pixel"
    );
    match (new_width == width, new_height == height) {
        (true, true) => pixels.to_vec(),
        (false, true) => resize_rows(pixels, width, new_width),
        (true, false) => resize_columns(pixels, width, height, new_height),
        (false, false) if columns_first((width, height), (new_width, new_height)) => {
            let pixels = resize_columns(pixels, width, height, new_height);
            resize_rows(&pixels, width, new_width)
        }
        (false, false) => {
            let pixels = resize_rows(pixels, width, new_width);
            resize_columns(&pixels, new_width, height, new_height)
        }
    }
}

/// Whether the height goes first: if it shrinks, and loses more than twice the pixels the width
/// does. (A width that grows loses a negative number.)
fn columns_first((width, height): (usize, usize), (new_width, new_height): (usize, usize)) -> bool {
    new_height < height && height + 2 * new_width > new_height + 2 * width
}

/// The filter windows of one axis: where each output value looks, and how much it takes from there.
struct Windows {
    spans: Vec<Range<usize>>,
    /// The weights of all windows, one after the other.
    weights: Vec<i32>,
}

impl Windows {
    fn new(n_in: usize, n_out: usize) -> Windows {
        let scale = n_in as f64 / n_out as f64;
        let stretch = scale.max(1.0);
        let support = LOBES * stretch;
        let mut spans = Vec::with_capacity(n_out);
        let mut weights = Vec::new();
        let mut window = Vec::new();
        for i in 0..n_out {
            let centre = (i as f64 + 0.5) * scale;
            // `as` stops at zero, which is the left edge of the picture.
            let start = (centre - support + 0.5) as usize;
            let end = ((centre + support + 0.5) as usize).min(n_in);
            window.clear();
            window.extend((start..end).map(|j| {
                let offset = (j - start) as f64;
                lanczos((offset + start as f64 - centre + 0.5) * (1.0 / stretch))
            }));
            let total: f64 = window.iter().sum();
            weights.extend(window.iter().map(|w| fixed_point(w / total)));
            spans.push(start..end);
        }
        Windows { spans, weights }
    }

    /// Span and weights of each output value, in order.
    fn iter(&self) -> impl Iterator<Item = (Range<usize>, &[i32])> {
        let mut rest = self.weights.as_slice();
        self.spans.iter().map(move |span| {
            let (weights, tail) = rest.split_at(span.len());
            rest = tail;
            (span.clone(), weights)
        })
    }
}

fn lanczos(x: f64) -> f64 {
    if (-LOBES..LOBES).contains(&x) {
        sinc(x) * sinc(x / LOBES)
    } else {
        0.0
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let x = x * PI;
    x.sin() / x
}

/// `weight` with [`WEIGHT_BITS`] fractional bits, halves away from zero.
fn fixed_point(weight: f64) -> i32 {
    let scaled = weight * f64::from(1u32 << WEIGHT_BITS);
    (scaled + 0.5f64.copysign(weight)) as i32
}

/// The weighted sum as a pixel value.
fn to_pixel(sum: i32) -> u8 {
    (sum >> WEIGHT_BITS).clamp(0, 255) as u8
}

/// Adds `weight * values` to `sums`.
fn accumulate(sums: &mut [i32; LANES], values: &[u8; LANES], weight: i32) {
    for (sum, &value) in sums.iter_mut().zip(values) {
        *sum += i32::from(value) * weight;
    }
}

/// Resizes every row of `width` pixels to `new_width`.
///
/// Works on [`BLOCK_ROWS`] rows at a time, turned so that the values of one column lie together:
/// then a window step is the same operation on neighbouring values, which compilers vectorise.
fn resize_rows(pixels: &[u8], width: usize, new_width: usize) -> Vec<u8> {
    let windows = Windows::new(width, new_width);
    let (row_len, new_row_len) = (width * CHANNELS, new_width * CHANNELS);
    let mut out = vec![0; pixels.len() / row_len * new_row_len];
    let mut block = vec![[0u8; LANES]; width];
    let sources = pixels.chunks(BLOCK_ROWS * row_len);
    for (source, target) in sources.zip(out.chunks_mut(BLOCK_ROWS * new_row_len)) {
        for (r, row) in source.chunks_exact(row_len).enumerate() {
            for (column, pixel) in block.iter_mut().zip(row.chunks_exact(CHANNELS)) {
                column[r * CHANNELS..][..CHANNELS].copy_from_slice(pixel);
            }
        }
        for (x, (span, weights)) in windows.iter().enumerate() {
            let mut sums = [ROUND; LANES];
            for (column, &weight) in block[span].iter().zip(weights) {
                accumulate(&mut sums, column, weight);
            }
            for (row, sums) in target
                .chunks_exact_mut(new_row_len)
                .zip(sums.chunks_exact(CHANNELS))
            {
                for (value, &sum) in row[x * CHANNELS..][..CHANNELS].iter_mut().zip(sums) {
                    *value = to_pixel(sum);
                }
            }
        }
    }
    out
}

/// Resizes every column of `height` pixels to `new_height`.
fn resize_columns(pixels: &[u8], width: usize, height: usize, new_height: usize) -> Vec<u8> {
    let row_len = width * CHANNELS;
    let mut out = vec![0; new_height * row_len];
    let windows = Windows::new(height, new_height);
    for (target, (span, weights)) in out.chunks_exact_mut(row_len).zip(windows.iter()) {
        let (whole, tail) = target.as_chunks_mut::<LANES>();
        for (i, target) in whole.iter_mut().enumerate() {
            let mut sums = [ROUND; LANES];
            for (y, &weight) in span.clone().zip(weights) {
                let values = &pixels[y * row_len + i * LANES..];
                if let Some(values) = values.first_chunk() {
                    accumulate(&mut sums, values, weight);
                }
            }
            *target = sums.map(to_pixel);
        }
        let done = row_len - tail.len();
        for (i, target) in tail.iter_mut().enumerate() {
            let column = span
                .clone()
                .map(|y| i32::from(pixels[y * row_len + done + i]));
            *target = to_pixel(ROUND + column.zip(weights).map(|(v, w)| v * w).sum::<i32>());
        }
    }
    out
}

/// Sum of the weights of each window, in the last kept bit.
#[cfg(test)]
pub(super) fn window_sums(n_in: usize, n_out: usize) -> Vec<i32> {
    Windows::new(n_in, n_out)
        .iter()
        .map(|(_, weights)| weights.iter().sum())
        .collect()
}
