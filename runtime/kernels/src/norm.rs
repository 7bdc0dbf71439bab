//! Normalised rows: RMSNorm and LayerNorm, plain or fused with quantisation.

use crate::aligned::with_f32_scratch;
use crate::compute::Compute;
use crate::lanes::{Lanes, map_lanes, sum_lanes, tiered};
use crate::quantize::{Int8RowsMut, for_each_row_range, quantize_row, quantize_row_on};
use crate::threads::SyncPtr;

/// Quantises RMS-normalised rows: `y = x · (1 / sqrt(mean(x²) + eps)) · weight`, then as
/// [`crate::quantize::quantize_rows`]. `x` `[m, k]`, `weight` `[k]`, or none where it is folded into
/// the next matrix.
///
/// Gives the bits of [`rms_norm_rows`] followed by `quantize_rows`.
///
/// # Panics
///
/// Panics if a length does not fit `out`.
pub fn rms_norm_quantize_rows(
    compute: &Compute,
    x: &[f32],
    weight: Option<&[f32]>,
    eps: f32,
    out: Int8RowsMut<'_>,
) {
    let (k, group) = (out.k(), out.group());
    assert_eq!(x.len(), out.m() * k, "x must be [m, k]");
    check_affine(k, weight, None);
    let tier = compute.float_tier();
    out.for_each_row(compute, &|row, values, scales| {
        let (x, values) = (&x[row * k..][..k], values.as_mut_ptr());
        match weight {
            // SAFETY: x and values hold k values, scales one scale per group.
            None => unsafe { rms_norm_quantize_row(tier, x, eps, group, values, scales) },
            Some(_) => with_f32_scratch(k, |normal| {
                // SAFETY: the slices hold k values each, scales one scale per group.
                unsafe {
                    rms_norm_row(tier, x, eps, weight, normal);
                    quantize_row(tier, normal.as_ptr(), k, group, 1.0, values, scales);
                }
            }),
        }
    });
}

/// `out = x · (1 / sqrt(mean(x²) + eps)) · weight`. `x`, `out` `[m, k]`, `weight` `[k]` or none.
///
/// # Panics
///
/// Panics if a length does not fit `k`.
pub fn rms_norm_rows(
    compute: &Compute,
    x: &[f32],
    k: usize,
    eps: f32,
    weight: Option<&[f32]>,
    out: &mut [f32],
) {
    let m = check_rows(x, k, out);
    check_affine(k, weight, None);
    let tier = compute.float_tier();
    let out = SyncPtr::new(out.as_mut_ptr());
    for_each_row_range(compute, m, k, &|rows| {
        for row in rows {
            // SAFETY: each row comes once and holds k values.
            let out = unsafe { out.slice_mut(row * k, k) };
            // SAFETY: the slices hold k values each.
            unsafe { rms_norm_row(tier, &x[row * k..][..k], eps, weight, out) };
        }
    });
}

/// `out = (x - mean(x)) / sqrt(var(x) + eps) · weight + bias`, `var` over `k` (not `k - 1`).
/// `x`, `out` `[m, k]`, `weight` and `bias` `[k]` or none.
///
/// # Panics
///
/// Panics if a length does not fit `k`.
pub fn layer_norm_rows(
    compute: &Compute,
    x: &[f32],
    k: usize,
    weight: Option<&[f32]>,
    bias: Option<&[f32]>,
    eps: f32,
    out: &mut [f32],
) {
    let m = check_rows(x, k, out);
    check_affine(k, weight, bias);
    let tier = compute.float_tier();
    let out = SyncPtr::new(out.as_mut_ptr());
    for_each_row_range(compute, m, k, &|rows| {
        for row in rows {
            // SAFETY: each row comes once and holds k values.
            let out = unsafe { out.slice_mut(row * k, k) };
            // SAFETY: the slices hold k values each.
            unsafe { layer_norm_row(tier, &x[row * k..][..k], eps, weight, bias, out) };
        }
    });
}

/// [`layer_norm_rows`] followed by [`crate::quantize::quantize_rows`], bit for bit.
///
/// # Panics
///
/// Panics if a length does not fit `out`.
pub fn layer_norm_quantize_rows(
    compute: &Compute,
    x: &[f32],
    weight: Option<&[f32]>,
    bias: Option<&[f32]>,
    eps: f32,
    out: Int8RowsMut<'_>,
) {
    let (k, group) = (out.k(), out.group());
    assert_eq!(x.len(), out.m() * k, "x must be [m, k]");
    check_affine(k, weight, bias);
    let tier = compute.float_tier();
    out.for_each_row(compute, &|row, values, scales| {
        with_f32_scratch(k, |normalised| {
            // SAFETY: the slices hold k values each, scales one scale per group.
            unsafe {
                layer_norm_row(tier, &x[row * k..][..k], eps, weight, bias, normalised);
                quantize_row(
                    tier,
                    normalised.as_ptr(),
                    k,
                    group,
                    1.0,
                    values.as_mut_ptr(),
                    scales,
                );
            }
        });
    });
}

fn check_rows(x: &[f32], k: usize, out: &[f32]) -> usize {
    assert!(
        k > 0 && x.len().is_multiple_of(k),
        "x must be [m, k] with k > 0"
    );
    assert_eq!(out.len(), x.len(), "out must be [m, k]");
    x.len() / k
}

fn check_affine(k: usize, weight: Option<&[f32]>, bias: Option<&[f32]>) {
    assert!(weight.is_none_or(|w| w.len() == k), "weight must be [k]");
    assert!(bias.is_none_or(|b| b.len() == k), "bias must be [k]");
}

tiered! {
    unsafe fn rms_norm_quantize_row(
        x: &[f32], eps: f32, group: usize, out: *mut i8, scales: &mut [f32],
    ) = rms_norm_quantize_row_on
}

/// # Safety
///
/// * The CPU has the instructions of `L`; `x.len()` values are writable at `out`.
/// * `group` and the length of `scales` are those of checked rows.
#[inline(always)]
unsafe fn rms_norm_quantize_row_on<L: Lanes>(
    x: &[f32],
    eps: f32,
    group: usize,
    out: *mut i8,
    scales: &mut [f32],
) {
    // SAFETY: by the caller's promises.
    unsafe {
        let factor = inverse_rms::<L>(x, eps);
        quantize_row_on::<L>(x.as_ptr(), x.len(), group, factor, out, scales);
    }
}

tiered! {
    unsafe fn rms_norm_row(x: &[f32], eps: f32, weight: Option<&[f32]>, out: &mut [f32]) = rms_norm_row_on
}

/// # Safety
///
/// * The CPU has the instructions of `L`; `weight` and `out` are as long as `x`.
#[inline(always)]
unsafe fn rms_norm_row_on<L: Lanes>(x: &[f32], eps: f32, weight: Option<&[f32]>, out: &mut [f32]) {
    // SAFETY: all slices have the length of `x`.
    unsafe {
        let factor = L::splat(inverse_rms::<L>(x, eps));
        match weight {
            Some(w) => map_lanes!(L, [x = x, w = w] => out, x.mul(factor).mul(w)),
            None => map_lanes!(L, [x = x] => out, x.mul(factor)),
        }
    }
}

tiered! {
    unsafe fn layer_norm_row(
        x: &[f32], eps: f32, weight: Option<&[f32]>, bias: Option<&[f32]>, out: &mut [f32],
    ) = layer_norm_row_on
}

/// # Safety
///
/// * The CPU has the instructions of `L`; `weight`, `bias` and `out` are as long as `x`.
#[inline(always)]
unsafe fn layer_norm_row_on<L: Lanes>(
    x: &[f32],
    eps: f32,
    weight: Option<&[f32]>,
    bias: Option<&[f32]>,
    out: &mut [f32],
) {
    // SAFETY: all slices have the length of `x`.
    unsafe {
        let k = x.len() as f32;
        let mean = sum_lanes!(L, v = x, 0.0, v) / k;
        let centre = L::splat(mean);
        let variance = sum_lanes!(L, v = x, mean, v.sub(centre).mul(v.sub(centre))) / k;
        let factor = L::splat(1.0 / (variance + eps).sqrt());
        match (weight, bias) {
            (Some(w), Some(b)) => {
                map_lanes!(L, [x = x, w = w, b = b] => out, x.sub(centre).mul(factor).mul_add(w, b));
            }
            (Some(w), None) => {
                map_lanes!(L, [x = x, w = w] => out, x.sub(centre).mul(factor).mul(w))
            }
            (None, Some(b)) => {
                map_lanes!(L, [x = x, b = b] => out, x.sub(centre).mul(factor).add(b))
            }
            (None, None) => map_lanes!(L, [x = x] => out, x.sub(centre).mul(factor)),
        }
    }
}

/// `1 / sqrt(mean(x²) + eps)`.
///
/// # Safety
///
/// * The CPU has the instructions of `L`.
#[inline(always)]
unsafe fn inverse_rms<L: Lanes>(x: &[f32], eps: f32) -> f32 {
    // SAFETY: by the caller's promise.
    let squares = unsafe { sum_lanes!(L, v = x, 0.0, v.mul(v)) };
    1.0 / (squares / x.len() as f32 + eps).sqrt()
}

#[cfg(test)]
mod tests;
