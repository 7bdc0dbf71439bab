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
        // SAFETY: the trait's contract; the table holds 32 words.
        unsafe {
            let table = _mm512_loadu_si512(powers::DOUBLED.as_ptr().cast());
            let words = [
                power_words(table, four[0], four[1]),
                power_words(table, four[2], four[3]),
            ];
            let order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
            let powers = _mm512_packus_epi16(words[0], words[1]);
            let powers = _mm512_permutexvar_epi64(order, powers);
            let offset = _mm512_set1_epi8(powers::POWER_OFFSET as i8);
            _mm512_storeu_si512(to.cast(), _mm512_sub_epi8(powers, offset));
        }
    }
    #[inline(always)]
    unsafe fn sum_bytes_four(from: [*const i8; 4]) -> [i32; 4] {
        // SAFETY: the trait's contract.
        unsafe {
            let mut sums = [_mm512_setzero_si512(); 4];
            for (sum, from) in sums.iter_mut().zip(from) {
                let bytes = _mm512_loadu_si512(from.cast());
                let unsigned = _mm512_xor_si512(bytes, _mm512_set1_epi8(-128));
                *sum = _mm512_sad_epu8(unsigned, _mm512_setzero_si512());
            }
            let [a, b, c, d] = sums;
            // Two sums share a quadword.
            let ab = _mm512_or_si512(a, _mm512_slli_epi64::<32>(b));
            let cd = _mm512_or_si512(c, _mm512_slli_epi64::<32>(d));
            let sums =
                _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
            let sums = _mm256_add_epi32(
                _mm512_castsi512_si256(sums),
                _mm512_extracti64x4_epi64::<1>(sums),
            );
            let sums = _mm_add_epi32(
                _mm256_castsi256_si128(sums),
                _mm256_extracti128_si256::<1>(sums),
            );
            std::mem::transmute::<__m128i, [i32; 4]>(_mm_sub_epi32(sums, _mm_set1_epi32(64 * 128)))
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
    #[inline(always)]
    unsafe fn reduce_max_four(four: [Self; 4]) -> [f32; 4] {
        let [a, b, c, d] = four;
        // SAFETY: the trait's contract.
        unsafe {
            let ab = _mm512_max_ps(_mm512_unpacklo_ps(a.0, b.0), _mm512_unpackhi_ps(a.0, b.0));
            let cd = _mm512_max_ps(_mm512_unpacklo_ps(c.0, d.0), _mm512_unpackhi_ps(c.0, d.0));
            let (ab, cd) = (_mm512_castps_pd(ab), _mm512_castps_pd(cd));
            let (low, high) = (_mm512_unpacklo_pd(ab, cd), _mm512_unpackhi_pd(ab, cd));
            let all = _mm512_max_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
            let upper = _mm512_extractf64x4_pd::<1>(_mm512_castps_pd(all));
            let all = _mm256_max_ps(_mm512_castps512_ps256(all), _mm256_castpd_ps(upper));
            let all = _mm_max_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps::<1>(all));
            std::mem::transmute::<__m128, [f32; 4]>(all)
        }
    }
}

/// [`powers::power`] of 32 codes as words, those of `a` before those of `b`.
///
/// # Safety
///
/// * The CPU has AVX-512 F and BW.
#[inline(always)]
unsafe fn power_words(table: __m512i, a: Avx512, b: Avx512) -> __m512i {
    // SAFETY: register-only.
    unsafe {
        let even = _mm512_loadu_si512(powers::EVEN.as_ptr().cast());
        let (a, b) = (_mm512_castps_si512(a.0), _mm512_castps_si512(b.0));
        let codes = _mm512_permutex2var_epi16(a, even, b);
        // The step is in the low five bits of a code; a shift to the right by the octaves below the
        // largest, half of it as the rounding of an average with 0.
        let octaves = _mm512_sub_epi16(_mm512_set1_epi16(8), _mm512_srli_epi16::<5>(codes));
        let doubled = _mm512_srlv_epi16(_mm512_permutexvar_epi16(codes, table), octaves);
        let powers = _mm512_avg_epu16(doubled, _mm512_setzero_si512());
        // The code 0 is nothing; no other is smaller than its power.
        _mm512_min_epu16(powers, codes)
    }
}
