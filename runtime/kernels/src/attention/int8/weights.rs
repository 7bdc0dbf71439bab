//! Softmax weights as int8 values: powers of two of the scores, rounded group by group.

use super::GROUP;
use crate::lanes::{INTEGER_SHIFT, Lanes, load_first, store_first, tiered};

/// Largest error of [`exp2_lanes`] relative to `2^x`, for `x` from -100 to 0: some 1300 units in
/// the last place, of which a rounding to 7 bits keeps nothing.
#[cfg(test)]
pub(super) const EXP2_MAX_RELATIVE_ERROR: f64 = 7.6e-5;
/// Scores this far below a maximum weigh nothing.
const LOWEST: f32 = -100.0;
/// Weight of the largest score of a group.
const WEIGHT_MAX: f32 = 127.0;
/// `2^r` on ±1/2, the largest relative error made smallest; highest power first.
const EXP2: [f32; 4] = [0.055_171_67, 0.242_611_13, 0.693_260_97, 0.999_928_06];

tiered! {
    /// Turns scores into weights: `round(127 · 2^(score - maximum of the group))`. Of group `g`,
    /// `maxima[g * stride]` becomes the maximum and `sums[g * stride]` the sum of the weights.
    ///
    /// # Safety
    ///
    /// * `weights` is as long as `scores`, a multiple of [`GROUP`], and `maxima` and `sums` reach
    ///   to their last group.
    pub(super) unsafe fn weigh_groups(
        scores: &[f32], weights: &mut [i8], stride: usize, maxima: &mut [f32], sums: &mut [i32],
    ) = weigh_groups_on
}

/// # Safety
///
/// * The CPU has the instructions of `L`; the rest as in [`weigh_groups`].
#[inline(always)]
unsafe fn weigh_groups_on<L: Lanes>(
    scores: &[f32],
    weights: &mut [i8],
    stride: usize,
    maxima: &mut [f32],
    sums: &mut [i32],
) {
    // SAFETY: register-only.
    let coefficients = unsafe { coefficients::<L>(WEIGHT_MAX) };
    let groups = scores.as_chunks::<GROUP>().0;
    let weights = weights.as_chunks_mut::<GROUP>().0;
    for (g, (scores, weights)) in groups.iter().zip(weights).enumerate() {
        let from = scores.as_ptr();
        // SAFETY: every access is inside the group, GROUP is a multiple of 4 · N in every tier.
        unsafe {
            let mut maximum = [L::load(from); 4];
            for i in (0..GROUP).step_by(4 * L::N) {
                for (j, maximum) in maximum.iter_mut().enumerate() {
                    *maximum = L::load(from.add(i + j * L::N)).max(*maximum);
                }
            }
            let [a, b, c, d] = maximum;
            let maximum = a.max(b).max(c.max(d)).reduce_max();
            maxima[g * stride] = maximum;
            let maximum = L::splat(maximum);
            for i in (0..GROUP).step_by(4 * L::N) {
                let mut four = [maximum; 4];
                for (j, weight) in four.iter_mut().enumerate() {
                    let score = L::load(from.add(i + j * L::N));
                    *weight =
                        exp2_lanes(score.sub(maximum), coefficients).add(L::splat(INTEGER_SHIFT));
                }
                L::store_low_bytes(four, weights.as_mut_ptr().add(i));
            }
        }
        sums[g * stride] = weights.iter().map(|&v| i32::from(v)).sum();
    }
}

tiered! {
    /// Turns the maxima of `n` rows, `[groups, n]`, into scales, `2^(maximum - maximum of the row)`,
    /// and writes what the weights of each row sum to.
    ///
    /// # Safety
    ///
    /// * `scales` and `sums` are of one length, a multiple of `n`; `totals` holds `n` values.
    pub(super) unsafe fn add_groups(
        n: usize, scales: &mut [f32], sums: &[i32], totals: &mut [f32],
    ) = add_groups_on
}

/// # Safety
///
/// * The CPU has the instructions of `L`; the rest as in [`add_groups`].
#[inline(always)]
unsafe fn add_groups_on<L: Lanes>(n: usize, scales: &mut [f32], sums: &[i32], totals: &mut [f32]) {
    let n_groups = sums.len() / n;
    // SAFETY: register-only.
    let coefficients = unsafe { coefficients::<L>(1.0) };
    for first in (0..n).step_by(L::N) {
        let width = L::N.min(n - first);
        // SAFETY: `width` values from `first` are inside each row of `scales` and inside `totals`.
        unsafe {
            let mut maximum = L::splat(LOWEST);
            for g in 0..n_groups {
                let group = load_first::<L>(scales.as_ptr().add(g * n + first), width, 0.0);
                maximum = if g == 0 { group } else { group.max(maximum) };
            }
            let mut total = L::splat(0.0);
            for g in 0..n_groups {
                let at = g * n + first;
                let group = load_first::<L>(scales.as_ptr().add(at), width, 0.0);
                let scale = exp2_lanes(group.sub(maximum), coefficients);
                let mut sum = [0.0; crate::lanes::MAX_LANES];
                for (sum, value) in sum.iter_mut().zip(&sums[at..at + width]) {
                    *sum = *value as f32;
                }
                total = L::load(sum.as_ptr()).fused_mul_add(scale, total);
                store_first(scale, scales.as_mut_ptr().add(at), width);
            }
            store_first(total, totals.as_mut_ptr().add(first), width);
        }
    }
}

/// [`EXP2`] times `factor`. Without a closure, which would be compiled without the instructions of
/// the tier.
///
/// # Safety
///
/// * The CPU has the instructions of `L`.
#[inline(always)]
pub(super) unsafe fn coefficients<L: Lanes>(factor: f32) -> [L; 4] {
    let [c3, c2, c1, c0] = EXP2;
    // SAFETY: register-only.
    unsafe {
        [
            L::splat(c3 * factor),
            L::splat(c2 * factor),
            L::splat(c1 * factor),
            L::splat(c0 * factor),
        ]
    }
}

/// `2^x` times what `coefficients` were multiplied with, for `x` up to 0; below [`LOWEST`], and for
/// NaN, as at [`LOWEST`].
///
/// # Safety
///
/// * The CPU has the instructions of `L`.
#[inline(always)]
pub(super) unsafe fn exp2_lanes<L: Lanes>(x: L, coefficients: [L; 4]) -> L {
    // SAFETY: register-only.
    unsafe {
        let x = x.max(L::splat(LOWEST));
        let shifted = x.add(L::splat(INTEGER_SHIFT));
        let r = x.sub(shifted.sub(L::splat(INTEGER_SHIFT)));
        let [c3, c2, c1, c0] = coefficients;
        let p = c3.fused_mul_add(r, c2).fused_mul_add(r, c1);
        p.fused_mul_add(r, c0).shift_exponent(shifted)
    }
}
