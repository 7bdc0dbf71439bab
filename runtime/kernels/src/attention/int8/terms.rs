//! Queries and keys of one or two int8 terms.
//!
//! `x ≈ scale · (high + low / 254)`, `high` the rounded value, `low` what it left. The product of
//! two such rows needs three of int8, the one of `low` with `low` being too small to matter. They
//! lie side by side along k, so that a tile with a scale for each third computes the score:
//!
//! ```text
//!   query   high │ low       │ high           key   high │ high │ low
//!   scale   s    │ s / 254   │ s / 254
//! ```

use crate::lanes::{Lanes, load_first, store_i8_first, tiered};
use crate::quantize::{ABSMAX_MIN, QUANTIZED_MAX, absmax, quantize_group};

/// Products of a score of two-term rows.
pub(super) const MAX_TERMS: usize = 3;
/// Steps of `low` in one of `high`.
const LOW_STEPS: f32 = 2.0 * QUANTIZED_MAX;
/// One term rounds scores by about reach(queries) · reach(keys) / 760 (root mean square, for rows
/// of normally distributed values): this keeps it below 1/64.
const ONE_TERM_REACH: f32 = 12.0;

/// How the terms of a row follow each other.
#[derive(Clone, Copy)]
pub(super) enum Order {
    /// High, low, high.
    Query,
    /// High, high, low.
    Key,
}

/// Products that the scores of a head need, from the mean squares of the largest magnitudes of its
/// queries and keys.
pub(super) fn terms_for([query, key]: [f32; 2]) -> usize {
    if query * key <= ONE_TERM_REACH * ONE_TERM_REACH {
        1
    } else {
        MAX_TERMS
    }
}

/// Scales of the `terms` products of a row whose high term has `scale`.
pub(super) fn term_scales(terms: usize, scale: f32) -> impl Iterator<Item = f32> {
    let low = scale / LOW_STEPS;
    [scale, low, low].into_iter().take(terms)
}

tiered! {
    /// Quantises `row`, each value first multiplied by `factor`, to one term or two, in parts of
    /// `width` values; values of `out` behind the row in each part stay. Returns the scale of the
    /// high term.
    ///
    /// # Safety
    ///
    /// * `out` holds one part or [`MAX_TERMS`], `row` is at most `width` long.
    pub(super) unsafe fn quantize_terms(
        row: &[f32], factor: f32, order: Order, width: usize, out: &mut [i8],
    ) -> f32 = quantize_terms_on
}

/// # Safety
///
/// * The CPU has the instructions of `L`; the rest as in [`quantize_terms`].
#[inline(always)]
pub(super) unsafe fn quantize_terms_on<L: Lanes>(
    row: &[f32],
    factor: f32,
    order: Order,
    width: usize,
    out: &mut [i8],
) -> f32 {
    let (x, len) = (row.as_ptr(), row.len());
    if out.len() <= width {
        // SAFETY: `len` values are readable and writable.
        return unsafe { quantize_group::<L>(x, len, factor, out.as_mut_ptr()) };
    }
    let (again, low) = match order {
        Order::Query => (2 * width, width),
        Order::Key => (width, 2 * width),
    };
    let out = out.as_mut_ptr();
    // SAFETY: `len` values are readable and writable in each part.
    unsafe {
        // Rounding is monotonic: the largest product is the product of the largest.
        let largest = (absmax::<L>(x, len) * factor).min(f32::MAX);
        let zero = largest < ABSMAX_MIN;
        let inverse = L::splat(if zero { 0.0 } else { QUANTIZED_MAX / largest });
        let (factor, steps) = (L::splat(factor), L::splat(LOW_STEPS));
        let mut i = 0;
        while i < len {
            let left = L::N.min(len - i);
            let value = if left == L::N {
                L::load(x.add(i))
            } else {
                load_first::<L>(x.add(i), left, 0.0)
            };
            let value = value.mul(factor).mul(inverse);
            let high = value.clamp(-QUANTIZED_MAX, QUANTIZED_MAX);
            store::<L>(high, out.add(i), left);
            store::<L>(high, out.add(again + i), left);
            // The difference is exact.
            let rest = high.sub(high.round());
            store::<L>(rest.mul(steps), out.add(low + i), left);
            i += L::N;
        }
        if zero { 0.0 } else { largest / QUANTIZED_MAX }
    }
}

/// Stores the first `len` lanes as int8.
///
/// # Safety
///
/// * The CPU has the instructions of `L`; `len <= N` values are writable at `to`.
#[inline(always)]
unsafe fn store<L: Lanes>(lanes: L, to: *mut i8, len: usize) {
    // SAFETY: by the caller's promise.
    unsafe {
        if len == L::N {
            lanes.store_i8(to);
        } else {
            store_i8_first(lanes, to, len);
        }
    }
}
