//! One step of an online softmax: scores of a tile of keys become weights.

use super::KEY_TILE;
use crate::activation::bounded_exp2_lanes;
use crate::lanes::{Lanes, MAX_LANES};

/// Below any score, for keys that are not seen: their weight is nothing beside that of a score.
/// Also the maximum of a row that has seen no key.
pub(super) const LOWEST: f32 = -1e30;

/// What scores are multiplied with, so that powers of two make weights of them.
pub(super) fn scale(head_dim: usize) -> f32 {
    std::f32::consts::LOG2_E / (head_dim as f32).sqrt()
}

/// Turns scores, which are logarithms to base 2, into weights, takes them into maximum and sum of
/// each row, and gives what the former output of each row is to be multiplied with.
///
/// # Safety
///
/// * The CPU has the instructions of `L`; `scores` is `[R, KEY_TILE]`; `width` is a multiple of N.
/// * `maxima` and `sums` hold `R` values.
#[inline(always)]
pub(super) unsafe fn weigh<L: Lanes, const R: usize>(
    scores: *mut f32,
    width: usize,
    maxima: &mut [f32],
    sums: &mut [f32],
) -> [f32; MAX_LANES] {
    let (mut old, mut new) = ([0.0; MAX_LANES], [0.0; MAX_LANES]);
    // SAFETY: every access is inside the first `width` scores of a row or inside an array.
    unsafe {
        let mut most = [L::splat(LOWEST); R];
        for place in (0..width).step_by(L::N) {
            for (i, most) in most.iter_mut().enumerate() {
                *most = L::load(scores.add(i * KEY_TILE + place)).max(*most);
            }
        }
        for (i, most) in most.into_iter().enumerate() {
            old[i] = maxima[i];
            new[i] = most.reduce_max().max(old[i]);
            maxima[i] = new[i];
        }
        let mut correction = [0.0; MAX_LANES];
        for i in (0..R).step_by(L::N) {
            let change = L::load(old.as_ptr().add(i)).sub(L::load(new.as_ptr().add(i)));
            bounded_exp2_lanes(change).store(correction.as_mut_ptr().add(i));
        }
        let mut totals = [L::splat(0.0); R];
        for place in (0..width).step_by(L::N) {
            for (i, total) in totals.iter_mut().enumerate() {
                let at = scores.add(i * KEY_TILE + place);
                let weight = bounded_exp2_lanes(L::load(at).sub(L::splat(new[i])));
                *total = total.add(weight);
                weight.store(at);
            }
        }
        for (i, total) in totals.into_iter().enumerate() {
            sums[i] = sums[i] * correction[i] + total.reduce_add();
        }
        correction
    }
}
