//! Sums of scaled rows whose additions have one order: equal bits on every CPU.
//!
//! Each value of a result is a chain of its own, and products are rounded before they are added,
//! so neither the width of a vector nor the number of threads changes a bit. It is for results
//! that are kept and compared, such as a pack.

use crate::lanes::{FloatTier, Lanes, tiered};

/// Vectors of the result that are summed at a time.
const VECTORS: usize = 4;

/// `y[i] += Σ_b factors[b] · x[b · stride + i]`, `b` ascending.
///
/// # Panics
///
/// Panics if `x` ends before its last row does.
pub fn add_scaled_rows(tier: FloatTier, factors: &[f32], x: &[f32], stride: usize, y: &mut [f32]) {
    let Some(last) = factors.len().checked_sub(1) else {
        return;
    };
    assert!(
        last * stride + y.len() <= x.len(),
        "x must have {} rows of {} values, {stride} apart",
        factors.len(),
        y.len()
    );
    // SAFETY: every row has as many values as y.
    unsafe { add_all(tier, factors, x, stride, y) }
}

tiered! {
    unsafe fn add_all(factors: &[f32], x: &[f32], stride: usize, y: &mut [f32]) = add_all_on
}

/// # Safety
///
/// * The CPU has the instructions of `L`.
/// * `x` has a row of `y.len()` values at `b * stride` for every factor `b`.
#[inline(always)]
unsafe fn add_all_on<L: Lanes>(factors: &[f32], x: &[f32], stride: usize, y: &mut [f32]) {
    let len = y.len();
    let (x, y) = (x.as_ptr(), y.as_mut_ptr());
    let mut i = 0;
    // SAFETY: i + the vectors touched stays within y.len(), which every row of x has too.
    unsafe {
        while i + VECTORS * L::N <= len {
            let mut sums = [L::splat(0.0); VECTORS];
            for (v, sum) in sums.iter_mut().enumerate() {
                *sum = L::load(y.add(i + v * L::N));
            }
            for (b, factor) in factors.iter().enumerate() {
                let factor = L::splat(*factor);
                let row = x.add(b * stride + i);
                for (v, sum) in sums.iter_mut().enumerate() {
                    *sum = sum.add(factor.mul(L::load(row.add(v * L::N))));
                }
            }
            for (v, sum) in sums.into_iter().enumerate() {
                sum.store(y.add(i + v * L::N));
            }
            i += VECTORS * L::N;
        }
        while i + L::N <= len {
            let mut sum = L::load(y.add(i));
            for (b, factor) in factors.iter().enumerate() {
                sum = sum.add(L::splat(*factor).mul(L::load(x.add(b * stride + i))));
            }
            sum.store(y.add(i));
            i += L::N;
        }
        while i < len {
            let mut sum = *y.add(i);
            for (b, factor) in factors.iter().enumerate() {
                sum += factor * *x.add(b * stride + i);
            }
            *y.add(i) = sum;
            i += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(len: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..len).map(|_| next()).collect()
    }

    #[test]
    fn every_tier_gives_the_bits_of_the_plain_sum() {
        for (rows, len, stride) in [(1, 1, 1), (3, 7, 9), (33, 64, 64), (100, 203, 256)] {
            let (factors, x) = (values(rows, 1), values(rows * stride, 2));
            let start = values(len, 3);
            let plain: Vec<f32> = start
                .iter()
                .enumerate()
                .map(|(i, y)| {
                    let terms = factors.iter().enumerate();
                    terms.fold(*y, |sum, (b, f)| sum + f * x[b * stride + i])
                })
                .collect();
            for tier in FloatTier::available() {
                let mut y = start.clone();
                add_scaled_rows(tier, &factors, &x, stride, &mut y);
                assert_eq!(y, plain, "{tier:?} {rows} rows of {len}");
            }
        }
    }

    #[test]
    fn no_factors_change_nothing() {
        let mut y = [1.0, 2.0];
        add_scaled_rows(FloatTier::SCALAR, &[], &[], 5, &mut y);
        assert_eq!(y, [1.0, 2.0]);
    }

    #[test]
    #[should_panic(expected = "x must have 2 rows of 3 values")]
    fn a_row_that_ends_early_is_refused() {
        add_scaled_rows(FloatTier::SCALAR, &[1.0; 2], &[0.0; 6], 4, &mut [0.0; 3]);
    }
}
