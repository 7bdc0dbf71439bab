//! Products whose additions have one order: equal bits on every CPU.
//!
//! Each value of a result is a chain of its own, and products are rounded before they are added,
//! so neither the width of a vector, nor the tile it is computed in, nor the number of threads
//! changes a bit. It is for results that are kept and compared, such as a pack.

use crate::lanes::{FloatTier, Lanes, tiered};
use std::mem::MaybeUninit;

/// Rows of the result that are summed at a time.
const ROWS: usize = 4;
/// Vectors of each, and of a row that is alone.
const VECTORS: usize = 2;
const VECTORS_ALONE: usize = 4;
/// Terms that are added before the next columns are: so many vectors stay in the first cache.
const TERMS: usize = 256;
/// Rows of the result from which on copying a strip of columns together pays.
const ROWS_TO_COPY: usize = 8;
/// Values of a vector at most.
const MAX_LANES: usize = 16;

/// Rows of a matrix, `stride` values from one to the next.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    values: &'a [f32],
    stride: usize,
}

impl<'a> Rows<'a> {
    /// `values`: from the first row on.
    pub fn new(values: &'a [f32], stride: usize) -> Rows<'a> {
        Rows { values, stride }
    }
}

/// The same, to be written.
#[derive(Debug)]
pub struct RowsMut<'a> {
    values: &'a mut [f32],
    stride: usize,
}

impl<'a> RowsMut<'a> {
    /// `values`: from the first row on.
    pub fn new(values: &'a mut [f32], stride: usize) -> RowsMut<'a> {
        RowsMut { values, stride }
    }
}

/// `y[i] += Σ_b factors[b] · x[b · stride + i]`, `b` ascending.
///
/// # Panics
///
/// Panics if `x` ends before its last row does.
pub fn add_scaled_rows(tier: FloatTier, factors: &[f32], x: &[f32], stride: usize, y: &mut [f32]) {
    let [terms, width] = [factors.len(), y.len()];
    let (factors, y) = (Rows::new(factors, terms), RowsMut::new(y, width));
    add_products(tier, [1, terms, width], factors, Rows::new(x, stride), y);
}

/// `y[r][i] += Σ_b factors[r][b] · x[b][i]`, `b` ascending. `factors`: `[m, terms]`, `x`:
/// `[terms, width]`, `y`: `[m, width]`
///
/// # Panics
///
/// Panics if one of the three ends before its last row does, or if rows of `y` overlap.
pub fn add_products(
    tier: FloatTier,
    [m, terms, width]: [usize; 3],
    factors: Rows<'_>,
    x: Rows<'_>,
    y: RowsMut<'_>,
) {
    if m == 0 || terms == 0 || width == 0 {
        return;
    }
    let holds = |what: &str, len: usize, stride: usize, rows: usize, width: usize| {
        assert!(
            (rows - 1) * stride + width <= len,
            "{what} must have {rows} rows of {width} values, {stride} apart"
        );
    };
    holds("factors", factors.values.len(), factors.stride, m, terms);
    holds("x", x.values.len(), x.stride, terms, width);
    holds("y", y.values.len(), y.stride, m, width);
    assert!(m == 1 || width <= y.stride, "rows of y overlap");
    let at = Places {
        f: factors.values.as_ptr(),
        f_stride: factors.stride,
        x: x.values.as_ptr(),
        x_stride: x.stride,
        y: y.values.as_mut_ptr(),
        y_stride: y.stride,
    };
    // SAFETY: all rows are as long as was asserted.
    unsafe { add_all(tier, [m, terms, width], at) }
}

/// Where the first row of each begins, and how far apart rows are.
#[derive(Clone, Copy)]
struct Places {
    f: *const f32,
    f_stride: usize,
    x: *const f32,
    x_stride: usize,
    y: *mut f32,
    y_stride: usize,
}

tiered! {
    unsafe fn add_all(shape: [usize; 3], at: Places) = add_all_on
}

/// # Safety
///
/// * The CPU has the instructions of `L`.
/// * There are `m` rows of `terms` factors, `terms` of `width` and `m` of `width` values.
#[inline(always)]
unsafe fn add_all_on<L: Lanes>([m, terms, width]: [usize; 3], at: Places) {
    for first in (0..terms).step_by(TERMS) {
        let count = TERMS.min(terms - first);
        // SAFETY: the terms stay below `terms`.
        unsafe {
            let at = Places {
                f: at.f.add(first),
                x: at.x.add(first * at.x_stride),
                ..at
            };
            let mut i = 0;
            if m == 1 {
                i = strips::<L, VECTORS_ALONE>([m, count, width], i, at);
            }
            i = strips::<L, VECTORS>([m, count, width], i, at);
            i = strips::<L, 1>([m, count, width], i, at);
            for r in 0..m {
                for i in i..width {
                    let to = at.y.add(r * at.y_stride + i);
                    let mut sum = *to;
                    for b in 0..count {
                        sum += *at.f.add(r * at.f_stride + b) * *at.x.add(b * at.x_stride + i);
                    }
                    *to = sum;
                }
            }
        }
    }
}

/// Strips of `V` vectors of all rows, as many as there are from column `i` on. Returns the first column
/// that is left.
///
/// # Safety
///
/// That of [`add_all_on`], for at most [`TERMS`] terms; one row for more than [`VECTORS`] vectors.
#[inline(always)]
unsafe fn strips<L: Lanes, const V: usize>(
    [m, terms, width]: [usize; 3],
    mut i: usize,
    at: Places,
) -> usize {
    while i + V * L::N <= width {
        // SAFETY: the columns stay within the width.
        unsafe {
            let (x, y) = (at.x.add(i), at.y.add(i));
            strip::<L, V>(m, terms, Places { x, y, ..at });
        }
        i += V * L::N;
    }
    i
}

/// A strip of `V` vectors of all rows.
///
/// # Safety
///
/// That of [`strips`].
#[inline(always)]
unsafe fn strip<L: Lanes, const V: usize>(m: usize, terms: usize, mut at: Places) {
    const { assert!(L::N <= MAX_LANES) };
    let mut together = [MaybeUninit::<f32>::uninit(); TERMS * VECTORS * MAX_LANES];
    // SAFETY: `together` has room for all terms of a strip of many rows; rows stay below m.
    unsafe {
        if m >= ROWS_TO_COPY {
            let to: *mut f32 = together.as_mut_ptr().cast();
            for b in 0..terms {
                for v in 0..V {
                    let from = at.x.add(b * at.x_stride + v * L::N);
                    L::load(from).store(to.add((b * V + v) * L::N));
                }
            }
            (at.x, at.x_stride) = (to, V * L::N);
        }
        for r in (0..m).step_by(ROWS) {
            let (f, y) = (at.f.add(r * at.f_stride), at.y.add(r * at.y_stride));
            let at = Places { f, y, ..at };
            match m - r {
                1 => tile::<L, 1, V>(terms, at),
                2 => tile::<L, 2, V>(terms, at),
                3 => tile::<L, 3, V>(terms, at),
                _ => tile::<L, ROWS, V>(terms, at),
            }
        }
    }
}

/// `R` rows of `V` vectors.
///
/// # Safety
///
/// That of [`strips`], for so many rows and vectors.
#[inline(always)]
unsafe fn tile<L: Lanes, const R: usize, const V: usize>(terms: usize, at: Places) {
    // SAFETY: rows stay below R, vectors below V, terms below `terms`.
    unsafe {
        let mut sums = [[L::splat(0.0); V]; R];
        for (r, row) in sums.iter_mut().enumerate() {
            for (v, sum) in row.iter_mut().enumerate() {
                *sum = L::load(at.y.add(r * at.y_stride + v * L::N));
            }
        }
        for b in 0..terms {
            let mut vectors = [L::splat(0.0); V];
            for (v, vector) in vectors.iter_mut().enumerate() {
                *vector = L::load(at.x.add(b * at.x_stride + v * L::N));
            }
            for (r, row) in sums.iter_mut().enumerate() {
                let factor = L::splat(*at.f.add(r * at.f_stride + b));
                for (sum, vector) in row.iter_mut().zip(vectors) {
                    *sum = sum.add(factor.mul(vector));
                }
            }
        }
        for (r, row) in sums.into_iter().enumerate() {
            for (v, sum) in row.into_iter().enumerate() {
                sum.store(at.y.add(r * at.y_stride + v * L::N));
            }
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
    fn many_rows_have_the_bits_of_the_plain_sums() {
        for (m, terms, width) in [
            (1, 3, 200),
            (2, 9, 33),
            (3, 300, 40),
            (7, 5, 64),
            (13, 520, 75),
        ] {
            let [fs, xs, ys] = [terms + 3, width + 5, width + 2];
            let (f, x) = (values(m * fs, 4), values(terms * xs, 5));
            let start = values(m * ys, 6);
            let mut plain = start.clone();
            for (r, row) in plain.chunks_exact_mut(ys).enumerate() {
                for (i, value) in row[..width].iter_mut().enumerate() {
                    *value = (0..terms).fold(*value, |sum, b| sum + f[r * fs + b] * x[b * xs + i]);
                }
            }
            for tier in FloatTier::available() {
                let mut y = start.clone();
                let to = RowsMut::new(&mut y, ys);
                let (f, x) = (Rows::new(&f, fs), Rows::new(&x, xs));
                add_products(tier, [m, terms, width], f, x, to);
                assert_eq!(y, plain, "{tier:?} {m} x {terms} x {width}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "y must have 2 rows of 3 values, 4 apart")]
    fn a_result_that_ends_early_is_refused() {
        let (f, x) = (Rows::new(&[1.0; 4], 3), Rows::new(&[0.0; 3], 3));
        let y = &mut [0.0; 6];
        add_products(FloatTier::SCALAR, [2, 1, 3], f, x, RowsMut::new(y, 4));
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
