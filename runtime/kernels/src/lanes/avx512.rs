//! AVX-512 tier: sixteen lanes, fused multiply-add, hardware f16 conversion and scaling.

use std::arch::x86_64::*;

use super::{Lanes, powers};

/// Sixteen f32 in a zmm register.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(__m512);

// SAFETY: pointers are touched only through unaligned accesses of N values.
unsafe impl Lanes for Avx512 {
    const N: usize = 16;
    const TILE_ROWS: usize = 8;
    const TILE_VECTORS: usize = 2;
    type Four = *const f32;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the trait's contract: AVX-512 F, BW and VL are there.
        Avx512(unsafe { _mm512_set1_ps(value) })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the trait's contract.
        Avx512(unsafe { _mm512_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the trait's contract.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self {
        // SAFETY: the trait's contract.
        Avx512(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) })
    }
    #[inline(always)]
    unsafe fn load_f16_pair(from: *const u16) -> [Self; 2] {
        // SAFETY: the trait's contract.
        unsafe { [Self::load_f16(from), Self::load_f16(from.add(Self::N))] }
    }
    #[inline(always)]
    unsafe fn store_f16(self, to: *mut u16) {
        // SAFETY: the trait's contract.
        unsafe {
            _mm256_storeu_si256(
                to.cast(),
                _mm512_cvtps_ph(self.0, _MM_FROUND_TO_NEAREST_INT),
            )
        }
    }
    #[inline(always)]
    unsafe fn store_i8(self, to: *mut i8) {
        // SAFETY: the trait's contract.
        unsafe {
            // NaN converts to 0x8000_0000, whose low byte is 0.
            let words = _mm512_cvtps_epi32(self.0);
            _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(words));
        }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the trait's contract.
        Avx512(unsafe { _mm512_add_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: the trait's contract.
        Avx512(unsafe { _mm512_sub_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: the trait's contract.
        Avx512(unsafe { _mm512_mul_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        // SAFETY: the trait's contract.
        Avx512(unsafe { _mm512_div_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: the trait's contract.
        Avx512(unsafe { _mm512_fmadd_ps(self.0, factor.0, addend.0) })
    }
    #[inline(always)]
    unsafe fn fused_mul_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { self.mul_add(factor, addend) }
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
        // SAFETY: the trait's contract.
        unsafe { super::avx2::transpose_f16(rows, first, factor, to, stride) }
    }
    #[inline(always)]
    unsafe fn shift_exponent(self, n_shifted: Self) -> Self {
        // SAFETY: the trait's contract.
        Avx512(unsafe {
            let n = _mm512_slli_epi32::<23>(_mm512_castps_si512(n_shifted.0));
            _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(self.0), n))
        })
    }
    #[inline(always)]
    unsafe fn store_low_bytes(four: [Self; 4], to: *mut i8) {
        for (i, lanes) in four.into_iter().enumerate() {
            // SAFETY: the trait's contract; the conversion keeps the low byte.
            unsafe {
                let bytes = _mm512_cvtepi32_epi8(_mm512_castps_si512(lanes.0));
                _mm_storeu_si128(to.add(16 * i).cast(), bytes);
            }
        }
    }
    #[inline(always)]
    unsafe fn store_powers(four: [Self; 4], to: *mut i8) {
        // SAFETY: the trait's contract; tables of 16 bytes.
        unsafe {
            let bits = _mm512_set1_epi32(0xffff);
            let mut words = [bits; 4];
            for (word, lanes) in words.iter_mut().zip(four) {
                *word = _mm512_and_si512(_mm512_castps_si512(lanes.0), bits);
            }
            let [a, b, c, d] = words;
            let (ab, cd) = (_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
            let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
            let some = _mm512_permutexvar_epi32(order, _mm512_packus_epi16(ab, cd));
            let octave = _mm512_set1_epi16(powers::STEPS as i16);
            let (ab, cd) = (_mm512_subs_epu16(ab, octave), _mm512_subs_epu16(cd, octave));
            let codes = _mm512_permutexvar_epi32(order, _mm512_packus_epi16(ab, cd));

            let table = |table: *const u8| _mm512_broadcast_i32x4(_mm_loadu_si128(table.cast()));
            let low = _mm512_and_si512(codes, _mm512_set1_epi8(15));
            let octave = powers::OCTAVE.as_ptr();
            let upper = _mm512_test_epi8_mask(codes, _mm512_set1_epi8(16));
            let steps = _mm512_mask_shuffle_epi8(
                _mm512_shuffle_epi8(table(octave), low),
                upper,
                table(octave.add(16)),
                low,
            );
            let octaves = _mm512_and_si512(_mm512_srli_epi16::<5>(codes), _mm512_set1_epi8(7));
            let halves = _mm512_shuffle_epi8(table(powers::HALVES.as_ptr()), octaves);
            let factors = _mm512_shuffle_epi8(table(powers::FACTORS.as_ptr()), octaves);
            let product =
                |steps, factors| _mm512_srli_epi16::<7>(_mm512_maddubs_epi16(steps, factors));
            let shifted = _mm512_packus_epi16(
                product(
                    _mm512_unpacklo_epi8(steps, halves),
                    _mm512_unpacklo_epi8(factors, factors),
                ),
                product(
                    _mm512_unpackhi_epi8(steps, halves),
                    _mm512_unpackhi_epi8(factors, factors),
                ),
            );
            let highest = _mm512_cmpge_epu8_mask(codes, _mm512_set1_epi8(224_u8 as i8));
            let powers = _mm512_mask_mov_epi8(shifted, highest, steps);
            let powers = _mm512_maskz_mov_epi8(_mm512_test_epi8_mask(some, some), powers);
            let offset = _mm512_set1_epi8(powers::POWER_OFFSET as i8);
            _mm512_storeu_si512(to.cast(), _mm512_sub_epi8(powers, offset));
        }
    }
    #[inline(always)]
    unsafe fn sum_bytes(from: *const i8) -> i32 {
        // SAFETY: the trait's contract.
        unsafe {
            let bytes = _mm512_loadu_si512(from.cast());
            let unsigned = _mm512_xor_si512(bytes, _mm512_set1_epi8(-128));
            let sums = _mm512_sad_epu8(unsigned, _mm512_setzero_si512());
            _mm512_reduce_add_epi64(sums) as i32 - 64 * 128
        }
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: the trait's contract.
        Avx512(unsafe { _mm512_min_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: the trait's contract.
        Avx512(unsafe { _mm512_max_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn clamp(self, low: f32, high: f32) -> Self {
        // SAFETY: the trait's contract. The second operand comes back where one is NaN.
        Avx512(unsafe {
            _mm512_max_ps(
                _mm512_set1_ps(low),
                _mm512_min_ps(_mm512_set1_ps(high), self.0),
            )
        })
    }
    #[inline(always)]
    unsafe fn abs(self) -> Self {
        // SAFETY: the trait's contract.
        Avx512(unsafe { _mm512_abs_ps(self.0) })
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        // SAFETY: the trait's contract.
        Avx512(unsafe {
            _mm512_roundscale_ps(self.0, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
        })
    }
    #[inline(always)]
    unsafe fn scale_by_power_of_two(self, n: Self) -> Self {
        // SAFETY: the trait's contract.
        Avx512(unsafe { _mm512_scalef_ps(self.0, n.0) })
    }
    #[inline(always)]
    unsafe fn div_roughly(self, divisor: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { self.div(divisor) }
    }
    #[inline(always)]
    unsafe fn max_magnitude(self, magnitude: Self) -> Self {
        // SAFETY: the trait's contract. Bits of numbers without sign are ordered as the numbers.
        Avx512(unsafe {
            let own = _mm512_castps_si512(_mm512_abs_ps(self.0));
            _mm512_castsi512_ps(_mm512_max_epi32(own, _mm512_castps_si512(magnitude.0)))
        })
    }
    #[inline(always)]
    unsafe fn reduce_magnitude(self) -> f32 {
        // SAFETY: the trait's contract.
        f32::from_bits(unsafe { _mm512_reduce_max_epi32(_mm512_castps_si512(self.0)) } as u32)
    }
    #[inline(always)]
    unsafe fn reduce_add(self) -> f32 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_reduce_add_ps(self.0) }
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
        // SAFETY: the trait's contract.
        unsafe { _mm512_reduce_max_ps(self.0) }
    }
}
