//! Activations: GELU (tanh form), SiLU and SwiGLU, over one vectorised exponential.
//!
//! The scalar functions are the definition. The `_slice` functions and the fused ones use a
//! polynomial whose error against the definition in f64 is bounded by the constants here.

use crate::aligned::with_f32_scratch;
use crate::compute::Compute;
use crate::lanes::{FloatTier, INTEGER_SHIFT, Lanes, map_lanes, tiered};
use crate::panels::PANEL_ROWS;
use crate::quantize::{Int8RowsMut, quantize_row_on, quantize_strided};

/// Largest error of [`exp_slice`] in units in the last place, where the result is a normal number.
pub const EXP_MAX_ULP: u32 = 2;
/// Largest error of [`silu_slice`] in units in the last place, for |x| up to 80. Below -87 the result
/// is less than |x| · 2e-38 in magnitude, not 0.
pub const SILU_MAX_ULP: u32 = 4;
/// Largest error of [`gelu_tanh_slice`], relative to the larger of |gelu(x)| and |x| · 2⁻⁷.
pub const GELU_MAX_RELATIVE_ERROR: f64 = 1e-6;

/// An activation between two products of a feed-forward block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// [`gelu_tanh`] of every column.
    GeluTanh,
    /// `silu(gate) · up`, of alternating panels: 8 gate columns, 8 up columns.
    SwiGlu,
}

impl Activation {
    /// Columns of the input for one of the output.
    pub fn columns(self) -> usize {
        match self {
            Activation::GeluTanh => 1,
            Activation::SwiGlu => 2,
        }
    }

    /// [`gelu_tanh_quantize_rows`] or [`swiglu_quantize_rows`].
    ///
    /// # Panics
    ///
    /// Panics as they do.
    pub fn quantize_rows(self, compute: &Compute, x: &[f32], out: Int8RowsMut<'_>) {
        match self {
            Activation::GeluTanh => gelu_tanh_quantize_rows(compute, x, out),
            Activation::SwiGlu => {
                let inter = out.k();
                swiglu_quantize_rows(compute, x, inter, out);
            }
        }
    }

    /// Quantises the activated columns of some rows, each with one scale. `x` `[m, columns]`,
    /// `activated` as many values as come of them; row `i` goes to `i * stride` values after `out`,
    /// its scale to `i * scale_stride` after `scales`.
    ///
    /// # Safety
    ///
    /// * `x` holds [`Activation::columns`] times as many values as `activated`; gate and up columns
    ///   come in whole panels.
    /// * The rows and scales are writable where the strides put them.
    pub(crate) unsafe fn quantize_strided(
        self,
        tier: FloatTier,
        m: usize,
        x: &[f32],
        activated: &mut [f32],
        (out, stride): (*mut i8, usize),
        (scales, scale_stride): (*mut f32, usize),
    ) {
        let len = activated.len() / m;
        // SAFETY: by the caller's promises.
        unsafe {
            match self {
                Activation::GeluTanh => gelu_all(tier, x, activated),
                Activation::SwiGlu => swiglu_row(tier, x, activated),
            }
            quantize_strided(tier, activated, len, out, stride, scales, scale_stride);
        }
    }
}

/// √(2/π).
const GELU_SCALE: f32 = 0.797_884_6;
const GELU_CUBIC: f32 = 0.044_715;
/// ln 2 in two parts, the first short enough that its product with `n` is exact.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// `e^x`.
pub fn exp(x: f32) -> f32 {
    f64::from(x).exp() as f32
}

/// `x / (1 + e^-x)`.
pub fn silu(x: f32) -> f32 {
    let x = f64::from(x);
    (x / (1.0 + (-x).exp())) as f32
}

/// `x / 2 · (1 + tanh(√(2/π) · (x + 0.044715 x³)))`, the form transformers calls `gelu_pytorch_tanh`.
pub fn gelu_tanh(x: f32) -> f32 {
    let x = f64::from(x);
    let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
    // x/2 · (1 + tanh u) = x / (1 + e^-2u), without the cancellation at the left end.
    (x / (1.0 + (-2.0 * inner).exp())) as f32
}

/// `out = e^x`; infinite above 88.73, NaN stays NaN.
///
/// # Panics
///
/// Panics if the lengths differ.
pub fn exp_slice(tier: FloatTier, x: &[f32], out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "x and out must be of one length");
    // SAFETY: the lengths agree.
    unsafe { exp_all(tier, x, out) }
}

/// `out = x / (1 + e^-x)`.
///
/// # Panics
///
/// Panics if the lengths differ.
pub fn silu_slice(tier: FloatTier, x: &[f32], out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "x and out must be of one length");
    // SAFETY: the lengths agree.
    unsafe { silu_all(tier, x, out) }
}

/// `out = gelu(x)` as [`gelu_tanh`] defines it.
///
/// # Panics
///
/// Panics if the lengths differ.
pub fn gelu_tanh_slice(tier: FloatTier, x: &[f32], out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "x and out must be of one length");
    // SAFETY: the lengths agree.
    unsafe { gelu_all(tier, x, out) }
}

/// Quantises `gelu(x)`, `x` `[m, k]`, as [`crate::quantize::quantize_rows`] does.
///
/// # Panics
///
/// Panics if `x` has another length than `out`.
pub fn gelu_tanh_quantize_rows(compute: &Compute, x: &[f32], out: Int8RowsMut<'_>) {
    let (k, group) = (out.k(), out.group());
    assert_eq!(x.len(), out.m() * k, "x must be [m, k]");
    let tier = compute.float_tier();
    out.for_each_row(compute, &|row, values, scales| {
        with_f32_scratch(k, |activated| {
            // SAFETY: x, activated and values hold k values, scales one scale per group.
            unsafe {
                gelu_quantize_row(
                    tier,
                    &x[row * k..][..k],
                    activated,
                    group,
                    values.as_mut_ptr(),
                    scales,
                )
            };
        });
    });
}

/// Quantises `silu(gate) · up`. `gate_up` `[m, 2 * inter]` holds alternating panels: 8 gate values,
/// 8 up values, 8 gate values, …; `out` is `[m, inter]`, in the order of the gate values.
///
/// # Panics
///
/// Panics if `inter` is not a multiple of 8 and the `k` of `out`, or `gate_up` has another length.
pub fn swiglu_quantize_rows(
    compute: &Compute,
    gate_up: &[f32],
    inter: usize,
    out: Int8RowsMut<'_>,
) {
    assert!(
        inter.is_multiple_of(PANEL_ROWS),
        "inter must be a multiple of {PANEL_ROWS}"
    );
    assert_eq!(out.k(), inter, "out must be [m, inter]");
    assert_eq!(
        gate_up.len(),
        out.m() * 2 * inter,
        "gate_up must be [m, 2 * inter]"
    );
    let (tier, group) = (compute.float_tier(), out.group());
    out.for_each_row(compute, &|row, values, scales| {
        with_f32_scratch(inter, |activated| {
            let gate_up = &gate_up[row * 2 * inter..][..2 * inter];
            // SAFETY: gate_up holds 2 * inter values, activated and values inter, scales one
            // scale per group.
            unsafe {
                swiglu_quantize_row(tier, gate_up, activated, group, values.as_mut_ptr(), scales)
            };
        });
    });
}

/// `out = silu(gate) · up` in f32, shapes as in [`swiglu_quantize_rows`]: for the checking path.
///
/// # Panics
///
/// As [`swiglu_quantize_rows`].
pub fn swiglu_rows(compute: &Compute, gate_up: &[f32], inter: usize, out: &mut [f32]) {
    assert!(
        inter > 0 && inter.is_multiple_of(PANEL_ROWS),
        "inter must be a multiple of {PANEL_ROWS}"
    );
    assert_eq!(
        gate_up.len(),
        out.len() * 2,
        "gate_up must be [m, 2 * inter]"
    );
    assert!(out.len().is_multiple_of(inter), "out must be [m, inter]");
    let tier = compute.float_tier();
    compute.pool().for_each_chunk_mut(out, inter, &|row, out| {
        // SAFETY: the row of gate_up is twice as long as that of out, a multiple of 8.
        unsafe { swiglu_row(tier, &gate_up[row * 2 * inter..][..2 * inter], out) };
    });
}

tiered! {
    unsafe fn exp_all(x: &[f32], out: &mut [f32]) = exp_all_on
}
tiered! {
    unsafe fn silu_all(x: &[f32], out: &mut [f32]) = silu_all_on
}
tiered! {
    unsafe fn gelu_all(x: &[f32], out: &mut [f32]) = gelu_all_on
}
tiered! {
    unsafe fn gelu_quantize_row(
        x: &[f32], activated: &mut [f32], group: usize, out: *mut i8, scales: &mut [f32],
    ) = gelu_quantize_row_on
}
tiered! {
    unsafe fn swiglu_quantize_row(
        gate_up: &[f32], activated: &mut [f32], group: usize, out: *mut i8, scales: &mut [f32],
    ) = swiglu_quantize_row_on
}
tiered! {
    unsafe fn swiglu_row(gate_up: &[f32], out: &mut [f32]) = swiglu_row_on
}

/// # Safety
///
/// * The CPU has the instructions of `L`; the lengths agree.
#[inline(always)]
unsafe fn exp_all_on<L: Lanes>(x: &[f32], out: &mut [f32]) {
    // SAFETY: by the caller's promises.
    unsafe { map_lanes!(L, [x = x] => out, exp_lanes(x)) }
}

/// # Safety
///
/// * The CPU has the instructions of `L`; the lengths agree.
#[inline(always)]
unsafe fn silu_all_on<L: Lanes>(x: &[f32], out: &mut [f32]) {
    // SAFETY: by the caller's promises.
    unsafe { map_lanes!(L, [x = x] => out, silu_lanes(x)) }
}

/// # Safety
///
/// * The CPU has the instructions of `L`; the lengths agree.
#[inline(always)]
unsafe fn gelu_all_on<L: Lanes>(x: &[f32], out: &mut [f32]) {
    // SAFETY: by the caller's promises.
    unsafe { map_lanes!(L, [x = x] => out, gelu_lanes(x)) }
}

/// # Safety
///
/// * The CPU has the instructions of `L`; `activated` is as long as `x`, which many values are
///   writable at `out`; `group` and `scales` are those of checked rows.
#[inline(always)]
unsafe fn gelu_quantize_row_on<L: Lanes>(
    x: &[f32],
    activated: &mut [f32],
    group: usize,
    out: *mut i8,
    scales: &mut [f32],
) {
    // SAFETY: by the caller's promises.
    unsafe {
        gelu_all_on::<L>(x, activated);
        quantize_row_on::<L>(activated.as_ptr(), activated.len(), group, 1.0, out, scales);
    }
}

/// # Safety
///
/// * The CPU has the instructions of `L`; `activated` is half as long as `gate_up`, a multiple of
///   8, which many values are writable at `out`; `group` and `scales` are those of checked rows.
#[inline(always)]
unsafe fn swiglu_quantize_row_on<L: Lanes>(
    gate_up: &[f32],
    activated: &mut [f32],
    group: usize,
    out: *mut i8,
    scales: &mut [f32],
) {
    // SAFETY: by the caller's promises.
    unsafe {
        swiglu_row_on::<L>(gate_up, activated);
        quantize_row_on::<L>(activated.as_ptr(), activated.len(), group, 1.0, out, scales);
    }
}

/// # Safety
///
/// * The CPU has the instructions of `L`; `out` is half as long as `gate_up`, a multiple of 8.
#[inline(always)]
unsafe fn swiglu_row_on<L: Lanes>(gate_up: &[f32], out: &mut [f32]) {
    /// Panels sorted apart before the arithmetic, so that no vector is loaded right after its
    /// halves were stored.
    const PANELS: usize = 16;
    if L::N <= PANEL_ROWS {
        let (from, to) = (gate_up.as_ptr(), out.as_mut_ptr());
        for panel in 0..out.len() / PANEL_ROWS {
            for i in (0..PANEL_ROWS).step_by(L::N) {
                // SAFETY: each pair of panels and each panel of `out` is whole.
                unsafe {
                    let gate = from.add(2 * panel * PANEL_ROWS + i);
                    let (gate, up) = (L::load(gate), L::load(gate.add(PANEL_ROWS)));
                    silu_lanes(gate)
                        .mul(up)
                        .store(to.add(panel * PANEL_ROWS + i));
                }
            }
        }
        return;
    }
    let mut gates = [0.0_f32; PANELS * PANEL_ROWS];
    let mut ups = [0.0_f32; PANELS * PANEL_ROWS];
    let sorted = out
        .chunks_mut(PANELS * PANEL_ROWS)
        .zip(gate_up.chunks(2 * PANELS * PANEL_ROWS));
    for (out, gate_up) in sorted {
        for (p, pair) in gate_up.chunks_exact(2 * PANEL_ROWS).enumerate() {
            let (gate, up) = pair.split_at(PANEL_ROWS);
            gates[p * PANEL_ROWS..][..PANEL_ROWS].copy_from_slice(gate);
            ups[p * PANEL_ROWS..][..PANEL_ROWS].copy_from_slice(up);
        }
        let len = out.len();
        // SAFETY: all three have `len` values.
        unsafe { map_lanes!(L, [g = &gates[..len], u = &ups[..len]] => out, silu_lanes(g).mul(u)) };
    }
}

/// `x / (1 + e^-x)`.
///
/// # Safety
///
/// * The CPU has the instructions of `L`.
#[inline(always)]
unsafe fn silu_lanes<L: Lanes>(x: L) -> L {
    // SAFETY: register-only.
    unsafe { x.div_roughly(L::splat(1.0).add(bounded_exp_lanes(L::splat(0.0).sub(x)))) }
}

/// `x / (1 + e^(-2 √(2/π) (x + 0.044715 x³)))`, the exponential as a power of two.
///
/// # Safety
///
/// * The CPU has the instructions of `L`.
#[inline(always)]
unsafe fn gelu_lanes<L: Lanes>(x: L) -> L {
    // SAFETY: register-only.
    unsafe {
        let linear = L::splat(-2.0 * GELU_SCALE * std::f32::consts::LOG2_E);
        let cubic = L::splat(-2.0 * GELU_SCALE * GELU_CUBIC * std::f32::consts::LOG2_E);
        let exponent = x.mul(x.mul(x).mul_add(cubic, linear));
        x.div_roughly(L::splat(1.0).add(bounded_exp2_lanes(exponent)))
    }
}

/// `e^x` within two units in the last place for `x` within ±87, where a power of two needs one step;
/// beyond, as at the ends.
///
/// # Safety
///
/// * The CPU has the instructions of `L`.
#[inline(always)]
pub(crate) unsafe fn bounded_exp_lanes<L: Lanes>(x: L) -> L {
    const END: f32 = 87.0;
    // SAFETY: register-only; the result is a normal number.
    unsafe {
        let x = x.clamp(-END, END);
        let shift = L::splat(INTEGER_SHIFT);
        let shifted = x.mul_add(L::splat(std::f32::consts::LOG2_E), shift);
        let n = shifted.sub(shift);
        let r = n.mul_add(L::splat(-LN2_HIGH), x);
        let r = n.mul_add(L::splat(-LN2_LOW), r);
        // In pairs, so that few steps wait for each other.
        let square = r.mul(r);
        let high = r.mul_add(L::splat(8.374_82e-3), L::splat(4.166_823e-2));
        let low = r.mul_add(L::splat(0.166_664_2), L::splat(0.499_999_9));
        let high = square.mul_add(L::splat(1.383_68e-3), high);
        let p = square.mul_add(square.mul_add(high, low), L::splat(1.0).add(r));
        p.shift_exponent(shifted)
    }
}

/// `2^x` with a relative error below 2e-7 for `x` within ±125; beyond, as at the ends.
///
/// # Safety
///
/// * The CPU has the instructions of `L`.
#[inline(always)]
pub(crate) unsafe fn bounded_exp2_lanes<L: Lanes>(x: L) -> L {
    const END: f32 = 125.0;
    // SAFETY: register-only; the result is a normal number.
    unsafe {
        let x = x.clamp(-END, END);
        let shift = L::splat(INTEGER_SHIFT);
        let shifted = x.add(shift);
        let r = x.sub(shifted.sub(shift));
        // In pairs, so that few steps wait for each other.
        let square = r.mul(r);
        let high = r.mul_add(L::splat(1.327_65e-3), L::splat(9.675_54e-3));
        let low = r.mul_add(L::splat(5.550_713e-2), L::splat(0.240_221_2));
        let first = r.mul_add(L::splat(std::f32::consts::LN_2), L::splat(1.0));
        let p = square.mul_add(square.mul_add(high, low), first);
        p.shift_exponent(shifted)
    }
}

/// `e^x = 2^n · e^r` with `n = round(x / ln 2)` and a polynomial in `r` on ±ln(2)/2.
///
/// # Safety
///
/// * The CPU has the instructions of `L`.
#[inline(always)]
pub(crate) unsafe fn exp_lanes<L: Lanes>(x: L) -> L {
    /// Beyond these the result is 0 or infinite, and the scaling below makes it so.
    const LOW: f32 = -150.0;
    const HIGH: f32 = 88.8;
    // SAFETY: register-only.
    unsafe {
        let x = x.clamp(LOW, HIGH);
        let n = x.mul(L::splat(std::f32::consts::LOG2_E)).round();
        let r = n.mul_add(L::splat(-LN2_HIGH), x);
        let r = n.mul_add(L::splat(-LN2_LOW), r);
        let mut p = L::splat(1.987_569_1e-4);
        for c in [
            1.398_199_9e-3,
            8.333_452e-3,
            4.166_579_5e-2,
            1.666_666_5e-1,
            0.5,
            1.0,
            1.0,
        ] {
            p = p.mul_add(r, L::splat(c));
        }
        p.scale_by_power_of_two(n)
    }
}

#[cfg(test)]
mod tests;
