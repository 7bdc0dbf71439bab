//! [`Int8Rows`]: int8 activation rows with their scales, and how f32 rows become them.
//!
//! Symmetric, dynamic (`qd8`): for each row, or each group of a row,
//! `scale = absmax / 127`, `q = round_to_nearest_even(x * (127 / absmax))`, `x ≈ q * scale`.

use crate::compute::Compute;
use crate::lanes::{INTEGER_SHIFT, Lanes, load_first, store_i8_first, tiered};

mod rows;

pub use self::rows::{Int8Rows, Int8RowsBuf, Int8RowsMut, RowsError, n_groups};
pub use crate::panels::k_padded;

/// Largest magnitude of a quantised activation.
pub const QUANTIZED_MAX: f32 = 127.0;
/// A row or group whose absolute maximum is below this counts as zero: scale 0, values 0.
pub const ABSMAX_MIN: f32 = 1e-30;
/// Values one chunk of a row-wise loop holds at least.
const CHUNK_VALUES: usize = 16 * 1024;

/// Calls `f` with ranges that together are `0..m`, in parallel, each worth a chunk of work.
pub(crate) fn for_each_row_range(
    compute: &Compute,
    m: usize,
    row_len: usize,
    f: &(dyn Fn(std::ops::Range<usize>) + Sync),
) {
    let rows_per_chunk = (CHUNK_VALUES / row_len.max(1)).max(1);
    compute.pool().run(m.div_ceil(rows_per_chunk), &|chunk| {
        let first = chunk * rows_per_chunk;
        f(first..(first + rows_per_chunk).min(m));
    });
}

/// Quantises `x` `[m, k]` into `out`.
///
/// Infinities count as ±`f32::MAX`, NaN as 0. All tiers give the same bits.
///
/// # Panics
///
/// Panics if `x` has another length than `out`.
pub fn quantize_rows(compute: &Compute, x: &[f32], out: Int8RowsMut<'_>) {
    let (k, group) = (out.k(), out.group());
    assert_eq!(x.len(), out.m() * k, "x must be [m, k]");
    let tier = compute.float_tier();
    out.for_each_row(compute, &|row, values, scales| {
        let x = &x[row * k..][..k];
        // SAFETY: x and values hold k values; scales holds one scale per group.
        unsafe { quantize_row(tier, x.as_ptr(), k, group, 1.0, values.as_mut_ptr(), scales) };
    });
}

tiered! {
    /// Quantises one row of `k` values, each first multiplied by `factor` (finite, not negative).
    ///
    /// # Safety
    ///
    /// * `k` values are readable at `x` and writable at `out`.
    /// * `group` and the length of `scales` are those of checked rows.
    pub(crate) unsafe fn quantize_row(
        x: *const f32, k: usize, group: usize, factor: f32, out: *mut i8, scales: &mut [f32],
    ) = quantize_row_on
}

/// # Safety
///
/// * The CPU has the instructions of `L`; pointers as in [`quantize_row`].
#[inline(always)]
pub(crate) unsafe fn quantize_row_on<L: Lanes>(
    x: *const f32,
    k: usize,
    group: usize,
    factor: f32,
    out: *mut i8,
    scales: &mut [f32],
) {
    let len = if group == 0 { k } else { group };
    for (g, scale) in scales.iter_mut().enumerate() {
        // SAFETY: group g is inside the row, by the caller's promise.
        *scale = unsafe { quantize_group::<L>(x.add(g * len), len, factor, out.add(g * len)) };
    }
}

tiered! {
    /// Quantises rows of `len` values with one scale each: row `i` to `i * stride` after `out`, its
    /// scale to `i * scale_stride` after `scales`.
    ///
    /// # Safety
    ///
    /// * `x` holds whole rows; rows and scales are writable where the strides put them.
    pub(crate) unsafe fn quantize_strided(
        x: &[f32], len: usize, out: *mut i8, stride: usize, scales: *mut f32, scale_stride: usize,
    ) = quantize_strided_on
}

/// # Safety
///
/// * The CPU has the instructions of `L`; the rest as in [`quantize_strided`].
#[inline(always)]
unsafe fn quantize_strided_on<L: Lanes>(
    x: &[f32],
    len: usize,
    out: *mut i8,
    stride: usize,
    scales: *mut f32,
    scale_stride: usize,
) {
    for (i, row) in x.chunks_exact(len).enumerate() {
        // SAFETY: by the caller's promise.
        unsafe {
            let scale = quantize_group::<L>(row.as_ptr(), len, 1.0, out.add(i * stride));
            scales.add(i * scale_stride).write(scale);
        }
    }
}

/// Largest magnitude of `len` values, NaN left out.
///
/// # Safety
///
/// * The CPU has the instructions of `L`; `len` values are readable at `x`.
#[inline(always)]
pub(crate) unsafe fn absmax<L: Lanes>(x: *const f32, len: usize) -> f32 {
    // SAFETY: every access is below `len`.
    unsafe {
        let mut maxima = [L::splat(0.0); 4];
        let mut i = 0;
        while i + 4 * L::N <= len {
            for (j, max) in maxima.iter_mut().enumerate() {
                *max = L::load(x.add(i + j * L::N)).abs().max(*max);
            }
            i += 4 * L::N;
        }
        while i < len {
            let last = if i + L::N <= len {
                L::load(x.add(i))
            } else {
                load_first::<L>(x.add(i), len - i, 0.0)
            };
            maxima[0] = last.abs().max(maxima[0]);
            i += L::N;
        }
        maxima[0]
            .max(maxima[1])
            .max(maxima[2].max(maxima[3]))
            .reduce_max()
    }
}

/// Largest magnitude of `len` values; NaN if one of them is.
///
/// # Safety
///
/// * The CPU has the instructions of `L`; `len` values are readable at `x`.
#[inline(always)]
unsafe fn absmax_or_nan<L: Lanes>(x: *const f32, len: usize) -> f32 {
    // SAFETY: every access is below `len`.
    unsafe {
        let mut maxima = [L::splat(0.0); 4];
        let mut i = 0;
        while i + 4 * L::N <= len {
            for (j, max) in maxima.iter_mut().enumerate() {
                *max = L::load(x.add(i + j * L::N)).max_magnitude(*max);
            }
            i += 4 * L::N;
        }
        while i < len {
            let last = load_first::<L>(x.add(i), L::N.min(len - i), 0.0);
            maxima[0] = last.max_magnitude(maxima[0]);
            i += L::N;
        }
        let [a, b, c, d] = maxima;
        a.max_magnitude(b)
            .max_magnitude(c.max_magnitude(d))
            .reduce_magnitude()
    }
}

/// Quantises `x * factor` with one scale and returns the scale.
///
/// # Safety
///
/// * The CPU has the instructions of `L`; `len` values are readable at `x` and writable at `out`.
#[inline(always)]
pub(crate) unsafe fn quantize_group<L: Lanes>(
    x: *const f32,
    len: usize,
    factor: f32,
    out: *mut i8,
) -> f32 {
    // SAFETY: every access is below `len`.
    unsafe {
        let largest = absmax_or_nan::<L>(x, len);
        // All products are numbers, none beyond the largest, so none needs to be kept in range.
        let numbers = largest * factor < f32::MAX;
        let largest = if numbers {
            largest
        } else {
            absmax::<L>(x, len)
        };
        // Rounding is monotonic: the largest product is the product of the largest.
        let largest = (largest * factor).min(f32::MAX);
        if largest < ABSMAX_MIN {
            std::ptr::write_bytes(out, 0, len);
            return 0.0;
        }
        let inverse = L::splat(QUANTIZED_MAX / largest);
        let factor = L::splat(factor);
        let mut i = 0;
        while numbers && i + 4 * L::N <= len {
            let mut four = [inverse; 4];
            for (j, value) in four.iter_mut().enumerate() {
                let product = L::load(x.add(i + j * L::N)).mul(factor).mul(inverse);
                *value = product.add(L::splat(INTEGER_SHIFT));
            }
            L::store_low_bytes(four, out.add(i));
            i += 4 * L::N;
        }
        while i + L::N <= len {
            scale_and_clamp(L::load(x.add(i)), factor, inverse).store_i8(out.add(i));
            i += L::N;
        }
        if i < len {
            let last = load_first::<L>(x.add(i), len - i, 0.0);
            store_i8_first(scale_and_clamp(last, factor, inverse), out.add(i), len - i);
        }
        largest / QUANTIZED_MAX
    }
}

/// `x · factor · inverse`, kept within ±127; NaN passes on to `store_i8`, which makes it 0.
///
/// # Safety
///
/// * The CPU has the instructions of `L`.
#[inline(always)]
unsafe fn scale_and_clamp<L: Lanes>(x: L, factor: L, inverse: L) -> L {
    // SAFETY: register-only.
    unsafe {
        x.mul(factor)
            .mul(inverse)
            .clamp(-QUANTIZED_MAX, QUANTIZED_MAX)
    }
}

#[cfg(test)]
mod tests;
