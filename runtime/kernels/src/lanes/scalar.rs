//! Scalar tier: plain arrays, the definition of what the other tiers approximate.

use super::{Lanes, powers};
use crate::half;

const N: usize = 4;

/// Four f32 in an array.
#[derive(Clone, Copy)]
pub(crate) struct Scalar([f32; N]);

impl Scalar {
    #[inline(always)]
    fn zip(self, other: Scalar, f: impl Fn(f32, f32) -> f32) -> Scalar {
        Scalar(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }

    #[inline(always)]
    fn map(self, f: impl Fn(f32) -> f32) -> Scalar {
        Scalar(self.0.map(f))
    }
}

/// 2^n for n in -126..=127.
fn power_of_two(n: i32) -> f32 {
    f32::from_bits(((n + 127) << 23) as u32)
}

// SAFETY: plain Rust; pointers are read and written as `[f32; N]`, `[u16; N]` and `[i8; N]`.
unsafe impl Lanes for Scalar {
    const N: usize = N;
    const TILE_ROWS: usize = 4;
    const TILE_VECTORS: usize = 2;
    type Four = *const f32;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Scalar([value; N])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: N values are readable by the trait's contract.
        Scalar(unsafe { from.cast::<[f32; N]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: N values are writable by the trait's contract.
        unsafe { to.cast::<[f32; N]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self {
        // SAFETY: N values are readable by the trait's contract.
        Scalar(unsafe { from.cast::<[u16; N]>().read_unaligned() }.map(half::f16_bits_to_f32))
    }
    #[inline(always)]
    unsafe fn load_f16_pair(from: *const u16) -> [Self; 2] {
        // SAFETY: the trait's contract.
        unsafe { [Self::load_f16(from), Self::load_f16(from.add(Self::N))] }
    }
    #[inline(always)]
    unsafe fn store_f16(self, to: *mut u16) {
        // SAFETY: N values are writable by the trait's contract.
        unsafe {
            to.cast::<[u16; N]>()
                .write_unaligned(self.0.map(half::f32_to_f16_bits))
        }
    }
    #[inline(always)]
    unsafe fn store_i8(self, to: *mut i8) {
        // NaN becomes 0 in the cast.
        let bytes = self.0.map(|v| v.round_ties_even() as i8);
        // SAFETY: N values are writable by the trait's contract.
        unsafe { to.cast::<[i8; N]>().write_unaligned(bytes) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        // Not fused: without hardware each fused product is a library call.
        Scalar(std::array::from_fn(|i| {
            self.0[i] * factor.0[i] + addend.0[i]
        }))
    }
    #[inline(always)]
    unsafe fn fused_mul_add(self, factor: Self, addend: Self) -> Self {
        Scalar(std::array::from_fn(|i| {
            self.0[i].mul_add(factor.0[i], addend.0[i])
        }))
    }
    #[inline(always)]
    unsafe fn load_four(from: *const f32) -> Self::Four {
        from
    }
    #[inline(always)]
    unsafe fn mul_add_of_four<const I: i32>(self, four: Self::Four, addend: Self) -> Self {
        // SAFETY: the trait's contract: four values are readable.
        unsafe { self.mul_add(Self::splat(*four.add(I as usize)), addend) }
    }
    #[inline(always)]
    unsafe fn transpose_f16(
        rows: [*const u16; 8],
        first: usize,
        factor: f32,
        to: *mut f32,
        stride: usize,
    ) {
        for (i, row) in rows.into_iter().enumerate() {
            for j in 0..rows.len() {
                // SAFETY: the trait's contract.
                unsafe {
                    let value = half::f16_bits_to_f32(*row.add(first + j));
                    *to.add(j * stride + i) = value * factor;
                }
            }
        }
    }
    #[inline(always)]
    unsafe fn shift_exponent(self, n_shifted: Self) -> Self {
        self.zip(n_shifted, |value, n| {
            f32::from_bits(value.to_bits().wrapping_add(n.to_bits() << 23))
        })
    }
    #[inline(always)]
    unsafe fn store_low_bytes(four: [Self; 4], to: *mut i8) {
        let bytes = four.map(|lanes| lanes.0.map(|v| v.to_bits() as i8));
        // SAFETY: 4 * N values are writable by the trait's contract.
        unsafe { to.cast::<[[i8; N]; 4]>().write_unaligned(bytes) }
    }
    #[inline(always)]
    unsafe fn store_powers(four: [Self; 4], to: *mut i8) {
        let powers = four.map(|lanes| {
            lanes.0.map(|code| {
                (i32::from(powers::power(code.to_bits() as u16)) - powers::POWER_OFFSET) as i8
            })
        });
        // SAFETY: 4 * N values are writable by the trait's contract.
        unsafe { to.cast::<[[i8; N]; 4]>().write_unaligned(powers) }
    }
    #[inline(always)]
    unsafe fn sum_bytes_four(from: [*const i8; 4]) -> [i32; 4] {
        from.map(|from| {
            // SAFETY: 64 bytes are readable by the trait's contract.
            let bytes = unsafe { from.cast::<[i8; 64]>().read_unaligned() };
            bytes.iter().map(|&v| i32::from(v)).sum()
        })
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn clamp(self, low: f32, high: f32) -> Self {
        self.map(|v| v.clamp(low, high))
    }
    #[inline(always)]
    unsafe fn abs(self) -> Self {
        self.map(f32::abs)
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        // Adding 1.5 * 2^23 leaves no bits below one; the hardware rounds ties to even.
        self.map(|v| {
            const SHIFT: f32 = 12_582_912.0;
            (v + SHIFT) - SHIFT
        })
    }
    #[inline(always)]
    unsafe fn scale_by_power_of_two(self, n: Self) -> Self {
        self.zip(n, |value, n| {
            let n = n as i32;
            value * power_of_two(n >> 1) * power_of_two(n - (n >> 1))
        })
    }
    #[inline(always)]
    unsafe fn div_roughly(self, divisor: Self) -> Self {
        // SAFETY: plain arithmetic.
        unsafe { self.div(divisor) }
    }
    #[inline(always)]
    unsafe fn max_magnitude(self, magnitude: Self) -> Self {
        self.zip(magnitude, |own, other| {
            f32::from_bits(own.abs().to_bits().max(other.to_bits()))
        })
    }
    #[inline(always)]
    unsafe fn reduce_magnitude(self) -> f32 {
        let bits = self.0.iter().map(|v| v.to_bits()).max();
        f32::from_bits(bits.unwrap_or_default())
    }
    #[inline(always)]
    unsafe fn reduce_add(self) -> f32 {
        (self.0[0] + self.0[1]) + (self.0[2] + self.0[3])
    }
    #[inline(always)]
    unsafe fn reduce_add_four(four: [Self; 4]) -> [f32; 4] {
        let [a, b, c, d] = four;
        // SAFETY: the trait's contract.
        unsafe {
            [
                a.reduce_add(),
                b.reduce_add(),
                c.reduce_add(),
                d.reduce_add(),
            ]
        }
    }
    #[inline(always)]
    unsafe fn reduce_max(self) -> f32 {
        self.0.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
    #[inline(always)]
    unsafe fn reduce_max_four(four: [Self; 4]) -> [f32; 4] {
        // SAFETY: plain arithmetic.
        four.map(|lanes| unsafe { lanes.reduce_max() })
    }
}
