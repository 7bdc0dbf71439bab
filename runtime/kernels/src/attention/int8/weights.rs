//! Softmax weights as int8 values: powers of two of the scores, rounded group by group.

use super::GROUP;
use crate::lanes::powers::{CODE_MAX, POWER_OFFSET, STEPS};
use crate::lanes::{
    INTEGER_SHIFT, Lanes, MAX_LANES, load_first, load_vectors, store_first, tiered,
};

/// Largest error of [`exp2_lanes`] relative to `2^x`, for `x` from -100 to 0: some 1300 units in
/// the last place, of which a rounding to 7 bits keeps nothing.
#[cfg(test)]
pub(super) const EXP2_MAX_RELATIVE_ERROR: f64 = 7.6e-5;
/// Scores this far below a maximum weigh nothing.
const LOWEST: f32 = -100.0;
/// Rows whose groups are looked at together.
pub(super) const ROWS: usize = 4;
/// What is taken from a weight so that it fits a byte.
pub(super) const WEIGHT_OFFSET: i32 = POWER_OFFSET;
/// Steps of an octave, in which scores are counted.
pub(super) const SCORE_STEPS: f32 = STEPS as f32;
/// Scores this far below the maximum of their group have the code 0.
const LOWEST_CODED: f32 = -(CODE_MAX as f32);
/// `2^r` on ±1/2, the largest relative error made smallest; highest power first.
const EXP2: [f32; 4] = [0.055_171_67, 0.242_611_13, 0.693_260_97, 0.999_928_06];

tiered! {
    /// Turns scores in 32nds, `m` rows `stride` apart, into weights `[m, n_keys]` less
    /// [`WEIGHT_OFFSET`]: `254 · 2^(score - maximum of the group)`, the exponent rounded to 32nds, then the weight. The
    /// maxima of the groups go to `maxima`, the sums of their weights to `sums`, both `[groups, m]`.
    ///
    /// # Safety
    ///
    /// * `n_keys` is a multiple of [`GROUP`] and at most `stride`; `scores` and `weights` hold that
    ///   many rows, at least one; `maxima` and `sums` all groups and [`ROWS`] values more.
    pub(super) unsafe fn weigh_rows(
        scores: &[f32], stride: usize, weights: &mut [i8], n_keys: usize, maxima: &mut [f32],
        sums: &mut [i32],
    ) = weigh_rows_on
}

/// Maxima, then weights, then sums of all rows: each waits for the one before it, and a core has
/// enough to do with the other rows meanwhile.
///
/// # Safety
///
/// * The CPU has the instructions of `L`; the rest as in [`weigh_rows`].
#[inline(always)]
unsafe fn weigh_rows_on<L: Lanes>(
    scores: &[f32],
    stride: usize,
    weights: &mut [i8],
    n_keys: usize,
    maxima: &mut [f32],
    sums: &mut [i32],
) {
    let m = weights.len() / n_keys;
    let (scores, weights) = (scores.as_ptr(), weights.as_mut_ptr());
    let (maxima, sums) = (maxima.as_mut_ptr(), sums.as_mut_ptr());
    // Four rows at a time; places behind the last row repeat it, and what they give goes where the
    // next group, written later, or nothing stands.
    let row = |i: usize| i.min(m - 1);
    // SAFETY: GROUP is a multiple of 4 · N in every tier; all rows are below m, all keys below
    // n_keys; maxima and sums have room for ROWS values behind the last.
    unsafe {
        for g in 0..n_keys / GROUP {
            for first in (0..m).step_by(ROWS) {
                let mut four = [L::splat(0.0); ROWS];
                for (i, maximum) in four.iter_mut().enumerate() {
                    *maximum = largest_lanes(scores.add(row(first + i) * stride + g * GROUP));
                }
                let four = L::reduce_max_four(four);
                maxima.add(g * m + first).cast::<[f32; ROWS]>().write(four);
            }
        }
        let lowest = L::splat(LOWEST_CODED);
        let highest = L::splat(INTEGER_SHIFT + CODE_MAX as f32);
        for i in 0..m {
            for g in 0..n_keys / GROUP {
                let maximum = L::splat(*maxima.add(g * m + i));
                let from = scores.add(i * stride + g * GROUP);
                let to = weights.add(i * n_keys + g * GROUP);
                for k in (0..GROUP).step_by(4 * L::N) {
                    let mut four = [maximum; 4];
                    for (j, code) in four.iter_mut().enumerate() {
                        let below = L::load(from.add(k + j * L::N)).sub(maximum).max(lowest);
                        *code = below.add(highest);
                    }
                    L::store_powers(four, to.add(k));
                }
            }
        }
        for g in 0..n_keys / GROUP {
            for first in (0..m).step_by(ROWS) {
                let mut rows = [weights.cast_const(); ROWS];
                for (i, place) in rows.iter_mut().enumerate() {
                    *place = weights.add(row(first + i) * n_keys + g * GROUP);
                }
                let four = L::sum_bytes_four(rows);
                sums.add(g * m + first).cast::<[i32; ROWS]>().write(four);
            }
        }
    }
}

/// The largest of [`GROUP`] values, in some lane.
///
/// # Safety
///
/// * The CPU has the instructions of `L`; the values are readable.
#[inline(always)]
unsafe fn largest_lanes<L: Lanes>(from: *const f32) -> L {
    // SAFETY: GROUP is a multiple of 4 · N in every tier.
    unsafe {
        let mut maxima = load_vectors::<L, 4>(from);
        for k in (4 * L::N..GROUP).step_by(4 * L::N) {
            for (j, maximum) in maxima.iter_mut().enumerate() {
                *maximum = L::load(from.add(k + j * L::N)).max(*maximum);
            }
        }
        let [a, b, c, d] = maxima;
        a.max(b).max(c.max(d))
    }
}

tiered! {
    /// Turns the maxima of `n` rows in 32nds, `[groups, n]`, into `scales` of the same shape,
    /// `2^(maximum - maximum of the row)`, and writes what the weights of each row sum to, `totals`
    /// `[n]`; `sums` are those of [`weigh_rows`].
    ///
    /// # Safety
    ///
    /// * `maxima`, `scales` and `sums` hold whole groups, as many as `sums` has beyond
    ///   [`MAX_LANES`] values; all but `totals` have that many more than their groups need, `totals`
    ///   than `n`.
    pub(super) unsafe fn add_groups(
        n: usize, maxima: &[f32], sums: &[i32], scales: &mut [f32], totals: &mut [f32],
    ) = add_groups_on
}

/// # Safety
///
/// * The CPU has the instructions of `L`; the rest as in [`add_groups`].
#[inline(always)]
unsafe fn add_groups_on<L: Lanes>(
    n: usize,
    maxima: &[f32],
    sums: &[i32],
    scales: &mut [f32],
    totals: &mut [f32],
) {
    let n_groups = (sums.len() - MAX_LANES) / n;
    // SAFETY: register-only.
    let coefficients = unsafe { coefficients::<L>(1.0) };
    let (maxima, scales) = (maxima.as_ptr(), scales.as_mut_ptr());
    let (sums, totals) = (sums.as_ptr(), totals.as_mut_ptr());
    // The vector that passes the end of a row of scales spills into the next group, which is
    // written later, and at last into the room behind.
    // SAFETY: a vector from any place of a group ends in the room behind at the latest.
    unsafe {
        for first in (0..n).step_by(L::N) {
            let mut maximum = L::load(maxima.add(first));
            for g in 1..n_groups {
                maximum = L::load(maxima.add(g * n + first)).max(maximum);
            }
            maximum.store(totals.add(first));
        }
        for g in 0..n_groups {
            for first in (0..n).step_by(L::N) {
                let at = g * n + first;
                let below = L::load(maxima.add(at)).sub(L::load(totals.add(first)));
                let octaves = below.mul(L::splat(1.0 / SCORE_STEPS));
                exp2_lanes(octaves, coefficients).store(scales.add(at));
            }
        }
        for first in (0..n).step_by(L::N) {
            let mut total = L::splat(0.0);
            for g in 0..n_groups {
                let at = g * n + first;
                let mut sum = [0.0; MAX_LANES];
                for (i, sum) in sum.iter_mut().enumerate().take(L::N) {
                    // Behind the last group lies anything.
                    let all = (*sums.add(at + i)).wrapping_add(WEIGHT_OFFSET * GROUP as i32);
                    *sum = all as f32;
                }
                total = L::load(sum.as_ptr()).fused_mul_add(L::load(scales.add(at)), total);
            }
            total.store(totals.add(first));
        }
    }
}

tiered! {
    /// `out = (row + Σ_g scales[g * stride] · offsets[g]) · factor + mean`, all but the scales as
    /// long as `row`: the values that [`WEIGHT_OFFSET`] took away come back.
    ///
    /// # Safety
    ///
    /// * `mean` and `out` are as long as `row`, `offsets` a multiple of it, the multiple being the
    ///   number of groups to whose last `scales` reaches.
    pub(super) unsafe fn add_offsets(
        row: &[f32], scales: &[f32], stride: usize, offsets: &[f32], factor: f32, mean: &[f32],
        out: &mut [f32],
    ) = add_offsets_on
}

/// # Safety
///
/// * The CPU has the instructions of `L`; the rest as in [`add_offsets`].
#[inline(always)]
unsafe fn add_offsets_on<L: Lanes>(
    row: &[f32],
    scales: &[f32],
    stride: usize,
    offsets: &[f32],
    factor: f32,
    mean: &[f32],
    out: &mut [f32],
) {
    let len = row.len();
    let n_groups = offsets.len() / len;
    let sums = OffsetSums {
        row: row.as_ptr(),
        scales: scales.as_ptr(),
        stride,
        offsets: offsets.as_ptr(),
        len,
        n_groups,
        factor,
        mean: mean.as_ptr(),
        out: out.as_mut_ptr(),
    };
    let mut first = 0;
    // SAFETY: every access is below len, n_groups, or the scale of a group.
    unsafe {
        // As many sums side by side as hide what each waits for.
        while first + 16 * L::N <= len {
            sums.add::<L, 16>(first);
            first += 16 * L::N;
        }
        while first + 4 * L::N <= len {
            sums.add::<L, 4>(first);
            first += 4 * L::N;
        }
        let (row, offsets, mean) = (row.as_ptr(), offsets.as_ptr(), mean.as_ptr());
        let (scales, out) = (scales.as_ptr(), out.as_mut_ptr());
        let factor = L::splat(factor);
        while first < len {
            let width = L::N.min(len - first);
            let mut sum = load_first::<L>(row.add(first), width, 0.0);
            for g in 0..n_groups {
                let offset = load_first::<L>(offsets.add(g * len + first), width, 0.0);
                sum = offset.fused_mul_add(L::splat(*scales.add(g * stride)), sum);
            }
            let mean = load_first::<L>(mean.add(first), width, 0.0);
            store_first(sum.fused_mul_add(factor, mean), out.add(first), width);
            first += L::N;
        }
    }
}

/// The operands of [`add_offsets`], `len` values or groups of them.
struct OffsetSums {
    row: *const f32,
    scales: *const f32,
    stride: usize,
    offsets: *const f32,
    len: usize,
    n_groups: usize,
    factor: f32,
    mean: *const f32,
    out: *mut f32,
}

impl OffsetSums {
    /// Writes `VECTORS` vectors of the output.
    ///
    /// # Safety
    ///
    /// * The CPU has the instructions of `L`; so many vectors from `first` on are below `len`.
    #[inline(always)]
    unsafe fn add<L: Lanes, const VECTORS: usize>(&self, first: usize) {
        // SAFETY: by the caller's promise.
        unsafe {
            let factor = L::splat(self.factor);
            let mut sums = load_vectors::<L, VECTORS>(self.row.add(first));
            for g in 0..self.n_groups {
                let scale = L::splat(*self.scales.add(g * self.stride));
                let offsets = self.offsets.add(g * self.len + first);
                for (v, sum) in sums.iter_mut().enumerate() {
                    *sum = L::load(offsets.add(v * L::N)).fused_mul_add(scale, *sum);
                }
            }
            for (v, sum) in sums.into_iter().enumerate() {
                let at = first + v * L::N;
                let value = sum.fused_mul_add(factor, L::load(self.mean.add(at)));
                value.store(self.out.add(at));
            }
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
