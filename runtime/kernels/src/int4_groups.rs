//! [`Int4Groups`]: weights as int4 values with one f16 scale per 32, and how f32 weights become
//! them.

use crate::half::{f16_bits_to_f32, f32_to_f16_bits};
use crate::int4_panels::BLOCK;

/// Least and greatest int4 value.
const LEAST: f32 = -8.0;
const GREATEST: f32 = 7.0;
/// Scales tried for each sign: the largest magnitude falls on 5.5 to 9 steps.
const CANDIDATES: usize = 15;
const FIRST_STEPS: f32 = 5.5;
const STEP: f32 = 0.25;

/// Rows `[r, k]` of int4 values with their scales.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Int4Groups {
    values: Vec<i8>,
    scales: Vec<u16>,
    k: usize,
}

impl Int4Groups {
    /// Takes values `[r, k]` and f16 scales `[r, k / 32]`.
    ///
    /// # Panics
    ///
    /// Panics if `k` is not a multiple of 32, a length does not fit, or a value is outside -8..=7.
    pub fn new(values: Vec<i8>, scales: Vec<u16>, k: usize) -> Int4Groups {
        assert!(
            k.is_multiple_of(BLOCK),
            "k = {k} is not a multiple of {BLOCK}"
        );
        assert!(
            k == 0 || values.len().is_multiple_of(k),
            "values must be [r, k]"
        );
        assert_eq!(
            scales.len(),
            values.len() / BLOCK,
            "scales must be [r, k / 32]"
        );
        assert!(
            values.iter().all(|v| (-8..=7).contains(v)),
            "values must be in -8..=7"
        );
        Int4Groups { values, scales, k }
    }

    /// Stacks rows of equal width.
    ///
    /// # Panics
    ///
    /// Panics without parts, or if their widths differ.
    pub fn stack(parts: &[Int4Groups]) -> Int4Groups {
        let k = parts[0].k;
        assert!(
            parts.iter().all(|part| part.k == k),
            "all rows have k = {k}"
        );
        Int4Groups {
            values: parts
                .iter()
                .flat_map(|part| &part.values)
                .copied()
                .collect(),
            scales: parts
                .iter()
                .flat_map(|part| &part.scales)
                .copied()
                .collect(),
            k,
        }
    }

    /// Alternates the rows of two of equal shape by runs of `run`.
    ///
    /// # Panics
    ///
    /// Panics if the shapes differ.
    pub fn alternate(first: &Int4Groups, second: &Int4Groups, run: usize) -> Int4Groups {
        let shape = |groups: &Int4Groups| (groups.values.len(), groups.k);
        assert_eq!(shape(first), shape(second), "both have one shape");
        Int4Groups {
            values: alternated(&first.values, &second.values, run * first.k),
            scales: alternated(&first.scales, &second.scales, run * first.k / BLOCK),
            k: first.k,
        }
    }

    /// Values per row.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The values, `[r, k]`.
    pub fn values(&self) -> &[i8] {
        &self.values
    }

    /// The scales as f16 bits, `[r, k / 32]`.
    pub fn scales(&self) -> &[u16] {
        &self.scales
    }

    /// The groups of one row: 32 values and the f16 bits of their scale.
    pub fn row(&self, row: usize) -> impl Iterator<Item = (&[i8; BLOCK], u16)> {
        let values = &self.values[row * self.k..][..self.k];
        let scales = &self.scales[row * self.k / BLOCK..][..self.k / BLOCK];
        values
            .as_chunks::<BLOCK>()
            .0
            .iter()
            .zip(scales.iter().copied())
    }
}

fn alternated<T: Copy>(first: &[T], second: &[T], run: usize) -> Vec<T> {
    let runs = first.chunks(run).zip(second.chunks(run));
    runs.flat_map(|(a, b)| a.iter().chain(b).copied()).collect()
}

/// Quantises `weights` `[r, k]` to int4 with one f16 scale per 32 values of a row.
///
/// Each scale is searched for: of 15 scales of either sign, each refitted to the values it rounds
/// to by least squares, the one with the smallest squared error after rounding to f16. A negative
/// scale puts the value -8 on a positive weight. NaN counts as 0 and infinities as the
/// largest finite number; a group of zeros has scale 0.
///
/// # Panics
///
/// Panics if `k` is not a multiple of 32 or a length does not fit.
pub fn quantize_int4_groups(weights: &[f32], k: usize) -> Int4Groups {
    assert!(
        k.is_multiple_of(BLOCK),
        "k = {k} is not a multiple of {BLOCK}"
    );
    assert!(
        k == 0 || weights.len().is_multiple_of(k),
        "weights must be [r, k]"
    );
    let mut values = Vec::with_capacity(weights.len());
    let mut scales = Vec::with_capacity(weights.len() / BLOCK);
    for group in weights.as_chunks::<BLOCK>().0 {
        let (quantized, scale) = quantize_group(group);
        values.extend(quantized);
        scales.push(scale);
    }
    Int4Groups { values, scales, k }
}

fn quantize_group(weights: &[f32; BLOCK]) -> ([i8; BLOCK], u16) {
    let weights = weights.map(|w| {
        if w.is_nan() {
            0.0
        } else {
            w.clamp(-f32::MAX, f32::MAX)
        }
    });
    let absmax = weights.iter().fold(0.0_f32, |max, w| max.max(w.abs()));
    let mut best = ([0.0; BLOCK], 0_u16);
    let mut least_error = squared_error(&weights, &best.0, 0.0);
    for sign in [-1.0, 1.0] {
        for candidate in 0..CANDIDATES {
            let steps = FIRST_STEPS + STEP * candidate as f32;
            let rough = round_all(&weights, sign * absmax / steps);
            let bits = f32_to_f16_bits(fitted_scale(&weights, &rough));
            let scale = f16_bits_to_f32(bits);
            if scale == 0.0 || !scale.is_finite() {
                continue;
            }
            let fine = round_all(&weights, scale);
            let error = squared_error(&weights, &fine, scale);
            if error < least_error {
                (best, least_error) = ((fine, bits), error);
            }
        }
    }
    (best.0.map(|value| value as i8), best.1)
}

/// The nearest int4 values, ties to even.
fn round_all(weights: &[f32; BLOCK], scale: f32) -> [f32; BLOCK] {
    // Adding it leaves no bits for a fraction, whichever rounding instruction the CPU lacks.
    const WHOLE: f32 = 1.5 * (1 << 23) as f32;
    let inverse = scale.recip();
    weights.map(|w| (w * inverse).clamp(LEAST, GREATEST) + WHOLE - WHOLE)
}

/// Sum of 32 terms, in lanes so that it compiles to vector instructions.
fn sum(term: impl Fn(usize) -> f32) -> f32 {
    const LANES: usize = 8;
    let mut lanes = [0.0_f32; LANES];
    for first in (0..BLOCK).step_by(LANES) {
        for (lane, total) in lanes.iter_mut().enumerate() {
            *total += term(first + lane);
        }
    }
    lanes.iter().sum()
}

/// The scale with the least squared error for these values; NaN if all are 0.
fn fitted_scale(weights: &[f32; BLOCK], values: &[f32; BLOCK]) -> f32 {
    let products = sum(|i| weights[i] * values[i]);
    products / sum(|i| values[i] * values[i])
}

fn squared_error(weights: &[f32; BLOCK], values: &[f32; BLOCK], scale: f32) -> f32 {
    sum(|i| {
        let error = weights[i] - values[i] * scale;
        error * error
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Normally distributed noise, by the sum of twelve uniform numbers.
    fn normal(len: usize) -> Vec<f32> {
        let mut state = 1_u32;
        let mut unit = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32
        };
        (0..len)
            .map(|_| (0..12).map(|_| unit()).sum::<f32>() - 6.0)
            .collect()
    }

    fn mean_square_error(weights: &[f32], groups: &Int4Groups) -> f64 {
        let mut sum = 0.0;
        for (i, w) in weights.iter().enumerate() {
            let scale = f16_bits_to_f32(groups.scales()[i / BLOCK]);
            sum += f64::from(w - f32::from(groups.values()[i]) * scale).powi(2);
        }
        sum / weights.len() as f64
    }

    #[test]
    fn the_search_beats_the_largest_magnitude_as_scale() {
        let weights = normal(576 * 64);
        let plain = weights.as_chunks::<BLOCK>().0.iter().map(|group| {
            let absmax = group.iter().fold(0.0_f32, |max, w| max.max(w.abs()));
            let scale = absmax / 7.0;
            let error = |w: &f32| f64::from(w - (w / scale).round() * scale).powi(2);
            group.iter().map(error).sum::<f64>()
        });
        let plain = plain.sum::<f64>() / weights.len() as f64;
        let searched = mean_square_error(&weights, &quantize_int4_groups(&weights, 576));
        eprintln!("mean square error {searched:.5}, plain {plain:.5}");
        assert!(searched < 0.9 * plain, "{searched} {plain}");
    }

    #[test]
    fn weights_on_the_grid_are_kept_exactly() {
        let values: Vec<i8> = (0..64).map(|i| (i * 5 % 16) as i8 - 8).collect();
        for scale in [0.25_f32, -0.125, 3.0] {
            let weights: Vec<f32> = values.iter().map(|v| f32::from(*v) * scale).collect();
            let groups = quantize_int4_groups(&weights, 32);
            assert_eq!(mean_square_error(&weights, &groups), 0.0, "{scale}");
        }
    }

    #[test]
    fn zeros_and_values_that_are_not_numbers_do_no_harm() {
        let mut weights = vec![0.0; 96];
        weights[32] = f32::NAN;
        weights[33] = 1.0;
        weights[64] = f32::INFINITY;
        let groups = quantize_int4_groups(&weights, 96);
        assert_eq!(
            (groups.scales()[0], &groups.values()[..33]),
            (0, &[0; 33][..])
        );
        let one = f32::from(groups.values()[33]) * f16_bits_to_f32(groups.scales()[1]);
        assert!((one - 1.0).abs() < 1e-3, "{one}");
        assert!(
            groups
                .scales()
                .iter()
                .all(|s| f16_bits_to_f32(*s).is_finite())
        );
    }
}
