//! Rotation of the residual stream: a fixed orthogonal matrix `Q` that spreads
//! outlier channels so that one int8 scale per token is enough.
//!
//! `Q = diag(signs) · (R ⊗ H)`, with `H` the normalised Hadamard matrix of the
//! largest power of two that divides the width and `R` a random orthogonal matrix
//! of the odd rest. Every entry is non-zero, and a row is rotated in
//! `O(width · (log width + rest))`. RMSNorm without weights commutes with any
//! orthogonal matrix, so folding `Q` into the neighbouring linears leaves the
//! float result unchanged (QuaRot, arXiv 2404.00456; SpinQuant, arXiv 2405.16406).

use crate::random::SplitMix;
use serde::{Deserialize, Serialize};

/// An orthogonal matrix over row vectors of one width.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rotation {
    /// +1 or -1 for each channel, applied first. `[width]`
    signs: Vec<f32>,
    /// Random orthogonal matrix of the odd part, row-major. `[rest, rest]`
    mix: Vec<f32>,
    /// Odd part of the width.
    rest: usize,
}

impl Rotation {
    /// Builds the rotation of a width from a seed; equal arguments give equal bits.
    pub fn new(width: usize, seed: u64) -> Rotation {
        let hadamard = 1usize << width.trailing_zeros();
        let rest = width / hadamard;
        let mut random = SplitMix(seed);
        let signs = (0..width)
            .map(|_| if random.next() >> 63 == 0 { 1.0 } else { -1.0 })
            .collect();
        Rotation {
            signs,
            mix: random_orthogonal(rest, &mut random),
            rest,
        }
    }

    /// Channels of a row.
    pub fn width(&self) -> usize {
        self.signs.len()
    }

    /// Whether the parts fit each other; false for a damaged pack header.
    pub fn is_consistent(&self) -> bool {
        self.rest > 0
            && self.rest.checked_mul(self.rest) == Some(self.mix.len())
            && self.signs.len().is_multiple_of(self.rest)
            && (self.signs.len() / self.rest).is_power_of_two()
    }

    /// `row ← row · Q`, in place. `row`: `[width]`
    pub fn rotate(&self, row: &mut [f32]) {
        assert_eq!(row.len(), self.width(), "a row has the rotation's width");
        for (value, sign) in row.iter_mut().zip(&self.signs) {
            *value *= sign;
        }
        self.mix_blocks(row, false);
        hadamard_rows(row, self.width() / self.rest);
    }

    /// `row ← row · Qᵀ`, in place: undoes [`Rotation::rotate`]. `row`: `[width]`
    pub fn unrotate(&self, row: &mut [f32]) {
        assert_eq!(row.len(), self.width(), "a row has the rotation's width");
        hadamard_rows(row, self.width() / self.rest);
        self.mix_blocks(row, true);
        for (value, sign) in row.iter_mut().zip(&self.signs) {
            *value *= sign;
        }
    }

    /// Applies `mix` (or its transpose) across the `rest` blocks of the row.
    fn mix_blocks(&self, row: &mut [f32], transpose: bool) {
        if self.rest == 1 {
            for value in row.iter_mut() {
                *value *= self.mix[0];
            }
            return;
        }
        let block = row.len() / self.rest;
        // The widths of the family have odd parts of at most 15, which take no allocation.
        let (mut few, mut many) = ([0f32; 16], Vec::new());
        let column = match self.rest <= few.len() {
            true => &mut few[..self.rest],
            false => {
                many.resize(self.rest, 0f32);
                &mut many[..]
            }
        };
        for lane in 0..block {
            for (r, value) in column.iter_mut().enumerate() {
                *value = row[r * block + lane];
            }
            for c in 0..self.rest {
                let mut sum = 0f64;
                for (r, value) in column.iter().enumerate() {
                    let at = if transpose {
                        c * self.rest + r
                    } else {
                        r * self.rest + c
                    };
                    sum += f64::from(*value) * f64::from(self.mix[at]);
                }
                row[c * block + lane] = sum as f32;
            }
        }
    }
}

/// Fast normalised Walsh-Hadamard transform of each run of `size` values.
fn hadamard_rows(row: &mut [f32], size: usize) {
    let scale = 1.0 / (size as f32).sqrt();
    for run in row.chunks_exact_mut(size) {
        let mut half = 1;
        while half < size {
            for pair in run.chunks_exact_mut(2 * half) {
                let (low, high) = pair.split_at_mut(half);
                for (a, b) in low.iter_mut().zip(high) {
                    (*a, *b) = (*a + *b, *a - *b);
                }
            }
            half *= 2;
        }
        for value in run {
            *value *= scale;
        }
    }
}

/// Gram-Schmidt on Gaussian rows. `[n, n]` row-major
fn random_orthogonal(n: usize, random: &mut SplitMix) -> Vec<f32> {
    let mut rows: Vec<Vec<f64>> = Vec::with_capacity(n);
    while rows.len() < n {
        let mut row: Vec<f64> = (0..n).map(|_| random.gaussian()).collect();
        // Twice, because one pass loses orthogonality to rounding.
        for _ in 0..2 {
            for other in &rows {
                let dot: f64 = row.iter().zip(other).map(|(a, b)| a * b).sum();
                for (a, b) in row.iter_mut().zip(other) {
                    *a -= dot * b;
                }
            }
        }
        let norm = row.iter().map(|a| a * a).sum::<f64>().sqrt();
        if norm > 1e-6 {
            rows.push(row.into_iter().map(|a| a / norm).collect());
        }
    }
    rows.into_iter().flatten().map(|a| a as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(width: usize) -> Vec<f32> {
        let mut random = SplitMix(width as u64);
        (0..width).map(|_| random.gaussian() as f32).collect()
    }

    fn dot(a: &[f32], b: &[f32]) -> f64 {
        a.iter()
            .zip(b)
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum()
    }

    #[test]
    fn rotation_keeps_dot_products_and_is_undone() {
        for width in [1, 3, 64, 72, 192, 576, 768, 960, 1152, 2048] {
            let rotation = Rotation::new(width, 7);
            assert!(rotation.is_consistent());
            let (a, mut b) = (row(width), row(width));
            b.reverse();
            let (mut ra, mut rb) = (a.clone(), b.clone());
            rotation.rotate(&mut ra);
            rotation.rotate(&mut rb);
            assert!(
                (dot(&a, &b) - dot(&ra, &rb)).abs() < 1e-4 * width as f64,
                "width {width}"
            );
            rotation.unrotate(&mut ra);
            let worst = a
                .iter()
                .zip(&ra)
                .map(|(x, y)| (x - y).abs())
                .fold(0f32, f32::max);
            assert!(worst < 1e-5, "width {width}: off by {worst}");
        }
    }

    #[test]
    fn a_rest_whose_square_overflows_is_inconsistent() {
        for rest in [1 << 32, usize::MAX, 3] {
            let damaged = Rotation {
                rest,
                mix: Vec::new(),
                ..Rotation::new(64, 1)
            };
            assert!(!damaged.is_consistent(), "{rest}");
        }
    }

    #[test]
    fn one_outlier_channel_is_spread_over_all() {
        for width in [576, 768, 1152] {
            let mut spike = vec![0f32; width];
            spike[5] = 100.0;
            Rotation::new(width, 1).rotate(&mut spike);
            let worst = spike.iter().fold(0f32, |m, v| m.max(v.abs()));
            assert!(worst < 30.0, "width {width}: {worst}");
        }
    }
}
