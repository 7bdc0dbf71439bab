//! NEON tier: four lanes, fused multiply-add, hardware f16 conversion; baseline of aarch64.

use std::arch::aarch64::*;

use super::{Lanes, powers};

/// Four f32 in a q register.
#[derive(Clone, Copy)]
pub(crate) struct Neon(float32x4_t);

// SAFETY: pointers are touched only through unaligned accesses of N values.
unsafe impl Lanes for Neon {
    const N: usize = 4;
    const TILE_ROWS: usize = 4;
    const TILE_VECTORS: usize = 4;
    type Four = float32x4_t;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the trait's contract: NEON is there.
        Neon(unsafe { vdupq_n_f32(value) })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the trait's contract.
        Neon(unsafe { vld1q_f32(from) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the trait's contract.
        unsafe { vst1q_f32(to, self.0) }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self {
        // SAFETY: the trait's contract.
        Neon(unsafe { vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from))) })
    }
    #[inline(always)]
    unsafe fn load_f16_pair(from: *const u16) -> [Self; 2] {
        // SAFETY: the trait's contract.
        unsafe {
            let both = vreinterpretq_f16_u16(vld1q_u16(from));
            [
                Neon(vcvt_f32_f16(vget_low_f16(both))),
                Neon(vcvt_high_f32_f16(both)),
            ]
        }
    }
    #[inline(always)]
    unsafe fn store_f16(self, to: *mut u16) {
        // SAFETY: the trait's contract.
        unsafe { vst1_u16(to, vreinterpret_u16_f16(vcvt_f16_f32(self.0))) }
    }
    #[inline(always)]
    unsafe fn store_i8(self, to: *mut i8) {
        // SAFETY: the trait's contract. The conversion turns NaN into 0 by itself.
        unsafe {
            let half = vqmovn_s32(vcvtnq_s32_f32(self.0));
            let bytes = vqmovn_s16(vcombine_s16(half, half));
            to.cast::<i32>()
                .write_unaligned(vget_lane_s32::<0>(vreinterpret_s32_s8(bytes)));
        }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the trait's contract.
        Neon(unsafe { vaddq_f32(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: the trait's contract.
        Neon(unsafe { vsubq_f32(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: the trait's contract.
        Neon(unsafe { vmulq_f32(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        // SAFETY: the trait's contract.
        Neon(unsafe { vdivq_f32(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: the trait's contract.
        Neon(unsafe { vfmaq_f32(addend.0, self.0, factor.0) })
    }
    #[inline(always)]
    unsafe fn fused_mul_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { self.mul_add(factor, addend) }
    }
    #[inline(always)]
    unsafe fn load_four(from: *const f32) -> Self::Four {
        // SAFETY: the trait's contract.
        unsafe { vld1q_f32(from) }
    }
    #[inline(always)]
    unsafe fn mul_add_of_four<const I: i32>(self, four: Self::Four, addend: Self) -> Self {
        // SAFETY: the trait's contract.
        Neon(unsafe { vfmaq_laneq_f32::<I>(addend.0, self.0, four) })
    }
    #[inline(always)]
    unsafe fn transpose_f16(
        rows: [*const u16; 8],
        first: usize,
        factor: f32,
        to: *mut f32,
        stride: usize,
    ) {
        // SAFETY: the trait's contract. Rows 0 and 4, 1 and 5 and so on meet first, so that three
        // rounds of zipping put the eight rows side by side.
        unsafe {
            let mut x = [vdupq_n_u16(0); 8];
            for (x, row) in x.iter_mut().zip(rows) {
                *x = vld1q_u16(row.add(first));
            }
            for _ in 0..3 {
                let [a, b, c, d, e, f, g, h] = x;
                x = [
                    vzip1q_u16(a, e),
                    vzip2q_u16(a, e),
                    vzip1q_u16(b, f),
                    vzip2q_u16(b, f),
                    vzip1q_u16(c, g),
                    vzip2q_u16(c, g),
                    vzip1q_u16(d, h),
                    vzip2q_u16(d, h),
                ];
            }
            for (j, x) in x.into_iter().enumerate() {
                let x = vreinterpretq_f16_u16(x);
                let low = vmulq_n_f32(vcvt_f32_f16(vget_low_f16(x)), factor);
                let high = vmulq_n_f32(vcvt_high_f32_f16(x), factor);
                vst1q_f32(to.add(j * stride), low);
                vst1q_f32(to.add(j * stride + 4), high);
            }
        }
    }
    #[inline(always)]
    unsafe fn shift_exponent(self, n_shifted: Self) -> Self {
        // SAFETY: the trait's contract.
        Neon(unsafe {
            let n = vshlq_n_s32::<23>(vreinterpretq_s32_f32(n_shifted.0));
            vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(self.0), n))
        })
    }
    #[inline(always)]
    unsafe fn store_low_bytes(four: [Self; 4], to: *mut i8) {
        // SAFETY: the trait's contract.
        unsafe {
            let [a, b, c, d] = four.map(|lanes| vreinterpretq_s16_f32(lanes.0));
            let (ab, cd) = (vuzp1q_s16(a, b), vuzp1q_s16(c, d));
            let bytes = vuzp1q_s8(vreinterpretq_s8_s16(ab), vreinterpretq_s8_s16(cd));
            store_bytes(vreinterpretq_u8_s8(bytes), to);
        }
    }
    #[inline(always)]
    unsafe fn store_powers(four: [Self; 4], to: *mut i8) {
        // SAFETY: the trait's contract; the table holds two registers.
        unsafe {
            let [a, b, c, d] = four.map(|lanes| vreinterpretq_u16_f32(lanes.0));
            let (ab, cd) = (vuzp1q_u16(a, b), vuzp1q_u16(c, d));
            let low_bytes = vuzp1q_u8(vreinterpretq_u8_u16(ab), vreinterpretq_u8_u16(cd));
            let octave = vdupq_n_u16(powers::STEPS as u16);
            let (ab, cd) = (vqsubq_u16(ab, octave), vqsubq_u16(cd, octave));
            let codes = vuzp1q_u8(vreinterpretq_u8_u16(ab), vreinterpretq_u8_u16(cd));
            let octave = uint8x16x2_t(
                vld1q_u8(powers::OCTAVE.as_ptr()),
                vld1q_u8(powers::OCTAVE.as_ptr().add(16)),
            );
            let steps = vqtbl2q_u8(octave, vandq_u8(codes, vdupq_n_u8(31)));
            // A shift to the left by a negative number, which rounds.
            let octaves = vsubq_s8(vreinterpretq_s8_u8(vshrq_n_u8::<5>(codes)), vdupq_n_s8(7));
            // The code 0 is nothing. No other is smaller than its power, nor, of the highest octave,
            // what is left of it after an octave was taken.
            let most = vmaxq_u8(low_bytes, codes);
            let powers = vminq_u8(vrshlq_u8(steps, octaves), most);
            let offset = vdupq_n_u8(powers::POWER_OFFSET as u8);
            store_bytes(vsubq_u8(powers, offset), to);
        }
    }
    #[inline(always)]
    unsafe fn sum_bytes_four(from: [*const i8; 4]) -> [i32; 4] {
        // SAFETY: the trait's contract. 64 bytes sum to no more than 16 bits hold.
        unsafe {
            let mut sums = [vdupq_n_s16(0); 4];
            for (sum, from) in sums.iter_mut().zip(from) {
                *sum = vpaddlq_s8(vld1q_s8(from));
                for i in [16, 32, 48] {
                    *sum = vpadalq_s8(*sum, vld1q_s8(from.add(i)));
                }
            }
            let [a, b, c, d] = sums;
            let sums = vpaddlq_s16(vpaddq_s16(vpaddq_s16(a, b), vpaddq_s16(c, d)));
            std::mem::transmute::<int32x4_t, [i32; 4]>(sums)
        }
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: the trait's contract.
        Neon(unsafe { vminnmq_f32(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: the trait's contract.
        Neon(unsafe { vmaxnmq_f32(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn clamp(self, low: f32, high: f32) -> Self {
        // SAFETY: the trait's contract. These two propagate NaN, unlike the `nm` forms.
        Neon(unsafe { vmaxq_f32(vdupq_n_f32(low), vminq_f32(vdupq_n_f32(high), self.0)) })
    }
    #[inline(always)]
    unsafe fn abs(self) -> Self {
        // SAFETY: the trait's contract.
        Neon(unsafe { vabsq_f32(self.0) })
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        // SAFETY: the trait's contract.
        Neon(unsafe { vrndnq_f32(self.0) })
    }
    #[inline(always)]
    unsafe fn scale_by_power_of_two(self, n: Self) -> Self {
        // SAFETY: the trait's contract.
        Neon(unsafe {
            let n = vcvtnq_s32_f32(n.0);
            let half = vshrq_n_s32::<1>(n);
            let bias = vdupq_n_s32(127);
            let first = vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(half, bias)));
            let rest = vsubq_s32(n, half);
            let second = vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(rest, bias)));
            vmulq_f32(vmulq_f32(self.0, first), second)
        })
    }
    #[inline(always)]
    unsafe fn div_roughly(self, divisor: Self) -> Self {
        // SAFETY: the trait's contract. The estimate has 8 bits, each step doubles them.
        Neon(unsafe {
            let mut inverse = vrecpeq_f32(divisor.0);
            inverse = vmulq_f32(inverse, vrecpsq_f32(divisor.0, inverse));
            inverse = vmulq_f32(inverse, vrecpsq_f32(divisor.0, inverse));
            vmulq_f32(self.0, inverse)
        })
    }
    #[inline(always)]
    unsafe fn max_magnitude(self, magnitude: Self) -> Self {
        // SAFETY: the trait's contract. Bits of numbers without sign are ordered as the numbers.
        Neon(unsafe {
            let own = vreinterpretq_s32_f32(vabsq_f32(self.0));
            vreinterpretq_f32_s32(vmaxq_s32(own, vreinterpretq_s32_f32(magnitude.0)))
        })
    }
    #[inline(always)]
    unsafe fn reduce_magnitude(self) -> f32 {
        // SAFETY: the trait's contract.
        f32::from_bits(unsafe { vmaxvq_s32(vreinterpretq_s32_f32(self.0)) } as u32)
    }
    #[inline(always)]
    unsafe fn reduce_add(self) -> f32 {
        // SAFETY: the trait's contract.
        unsafe { vaddvq_f32(self.0) }
    }
    #[inline(always)]
    unsafe fn reduce_add_four(four: [Self; 4]) -> [f32; 4] {
        let [a, b, c, d] = four;
        // SAFETY: the trait's contract. The pairs are those of `vaddvq_f32`.
        unsafe {
            let sums = vpaddq_f32(vpaddq_f32(a.0, b.0), vpaddq_f32(c.0, d.0));
            std::mem::transmute::<float32x4_t, [f32; 4]>(sums)
        }
    }
    #[inline(always)]
    unsafe fn reduce_max(self) -> f32 {
        // SAFETY: the trait's contract.
        unsafe { vmaxvq_f32(self.0) }
    }
    #[inline(always)]
    unsafe fn reduce_max_four(four: [Self; 4]) -> [f32; 4] {
        let [a, b, c, d] = four;
        // SAFETY: the trait's contract.
        unsafe {
            let maxima = vpmaxq_f32(vpmaxq_f32(a.0, b.0), vpmaxq_f32(c.0, d.0));
            std::mem::transmute::<float32x4_t, [f32; 4]>(maxima)
        }
    }
}

/// Stores by ST1: STR of a whole register takes the pipelines of a Cortex-A76 twice as long.
///
/// # Safety
///
/// * 16 bytes are writable at `to`.
#[inline(always)]
unsafe fn store_bytes(bytes: uint8x16_t, to: *mut i8) {
    // SAFETY: by the caller's promise.
    unsafe {
        std::arch::asm!(
            "st1 {{{bytes:v}.16b}}, [{to}]",
            bytes = in(vreg) bytes, to = in(reg) to,
            options(nostack, preserves_flags),
        );
    }
}
