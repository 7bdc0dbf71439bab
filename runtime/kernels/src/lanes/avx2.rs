//! AVX2 tier: eight lanes, fused multiply-add, hardware f16 conversion.

use std::arch::x86_64::*;

use super::{Lanes, powers};

/// Eight f32 in a ymm register.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(__m256);

/// # Safety
///
/// * The CPU has AVX2.
#[inline(always)]
unsafe fn power_of_two(n: __m256i) -> __m256 {
    // SAFETY: register-only, AVX2 by the caller's promise.
    unsafe {
        _mm256_castsi256_ps(_mm256_slli_epi32(
            _mm256_add_epi32(n, _mm256_set1_epi32(127)),
            23,
        ))
    }
}

/// [`Lanes::transpose_f16`] by unpacking: rows 0 and 4, 1 and 5 and so on meet first, so that three
/// rounds put the eight rows side by side.
///
/// # Safety
///
/// * The CPU has AVX2 and F16C; the rest as in [`Lanes::transpose_f16`].
#[inline(always)]
pub(super) unsafe fn transpose_f16(
    rows: [*const u16; 8],
    first: usize,
    factor: f32,
    to: *mut f32,
    stride: usize,
) {
    // SAFETY: by the caller's promises.
    unsafe {
        let mut x = [_mm_setzero_si128(); 8];
        for (x, row) in x.iter_mut().zip(rows) {
            *x = _mm_loadu_si128(row.add(first).cast());
        }
        for _ in 0..3 {
            let [a, b, c, d, e, f, g, h] = x;
            x = [
                _mm_unpacklo_epi16(a, e),
                _mm_unpackhi_epi16(a, e),
                _mm_unpacklo_epi16(b, f),
                _mm_unpackhi_epi16(b, f),
                _mm_unpacklo_epi16(c, g),
                _mm_unpackhi_epi16(c, g),
                _mm_unpacklo_epi16(d, h),
                _mm_unpackhi_epi16(d, h),
            ];
        }
        for (j, x) in x.into_iter().enumerate() {
            let x = _mm256_mul_ps(_mm256_cvtph_ps(x), _mm256_set1_ps(factor));
            _mm256_storeu_ps(to.add(j * stride), x);
        }
    }
}

/// Finishes a reduction over the eight lanes with `$op`.
macro_rules! reduce {
    ($lanes:expr, $op:ident, $op_one:ident) => {{
        let four = $op(
            _mm256_castps256_ps128($lanes),
            _mm256_extractf128_ps($lanes, 1),
        );
        let two = $op(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32($op_one(two, _mm_movehdup_ps(two)))
    }};
}

// SAFETY: pointers are touched only through unaligned accesses of N values.
unsafe impl Lanes for Avx2 {
    const N: usize = 8;
    const TILE_ROWS: usize = 4;
    const TILE_VECTORS: usize = 2;
    type Four = *const f32;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the trait's contract: AVX2 is there.
        Avx2(unsafe { _mm256_set1_ps(value) })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the trait's contract.
        Avx2(unsafe { _mm256_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the trait's contract.
        unsafe { _mm256_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self {
        // SAFETY: the trait's contract; F16C is part of the tier.
        Avx2(unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) })
    }
    #[inline(always)]
    unsafe fn load_f16_pair(from: *const u16) -> [Self; 2] {
        // SAFETY: the trait's contract.
        unsafe { [Self::load_f16(from), Self::load_f16(from.add(Self::N))] }
    }
    #[inline(always)]
    unsafe fn store_f16(self, to: *mut u16) {
        // SAFETY: the trait's contract; F16C is part of the tier.
        unsafe {
            _mm_storeu_si128(
                to.cast(),
                _mm256_cvtps_ph(self.0, _MM_FROUND_TO_NEAREST_INT),
            )
        }
    }
    #[inline(always)]
    unsafe fn store_i8(self, to: *mut i8) {
        // SAFETY: the trait's contract.
        unsafe {
            let numbers = _mm256_and_ps(self.0, _mm256_cmp_ps(self.0, self.0, _CMP_ORD_Q));
            let words = _mm256_cvtps_epi32(numbers);
            let words = _mm_packs_epi32(
                _mm256_castsi256_si128(words),
                _mm256_extracti128_si256(words, 1),
            );
            _mm_storel_epi64(to.cast(), _mm_packs_epi16(words, words));
        }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the trait's contract.
        Avx2(unsafe { _mm256_add_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: the trait's contract.
        Avx2(unsafe { _mm256_sub_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: the trait's contract.
        Avx2(unsafe { _mm256_mul_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        // SAFETY: the trait's contract.
        Avx2(unsafe { _mm256_div_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: the trait's contract; FMA is part of the tier.
        Avx2(unsafe { _mm256_fmadd_ps(self.0, factor.0, addend.0) })
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
        unsafe { transpose_f16(rows, first, factor, to, stride) }
    }
    #[inline(always)]
    unsafe fn shift_exponent(self, n_shifted: Self) -> Self {
        // SAFETY: the trait's contract.
        Avx2(unsafe {
            let n = _mm256_slli_epi32(_mm256_castps_si256(n_shifted.0), 23);
            _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(self.0), n))
        })
    }
    #[inline(always)]
    unsafe fn store_low_bytes(four: [Self; 4], to: *mut i8) {
        // SAFETY: the trait's contract.
        unsafe {
            let low = _mm256_set1_epi32(0xff);
            let [a, b, c, d] = four;
            let (a, b) = (_mm256_castps_si256(a.0), _mm256_castps_si256(b.0));
            let (c, d) = (_mm256_castps_si256(c.0), _mm256_castps_si256(d.0));
            let (a, b) = (_mm256_and_si256(a, low), _mm256_and_si256(b, low));
            let (c, d) = (_mm256_and_si256(c, low), _mm256_and_si256(d, low));
            // Each 128-bit half packs by itself; the permutation puts the words in order.
            let bytes = _mm256_packus_epi16(_mm256_packus_epi32(a, b), _mm256_packus_epi32(c, d));
            let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
            _mm256_storeu_si256(to.cast(), _mm256_permutevar8x32_epi32(bytes, order));
        }
    }
    #[inline(always)]
    unsafe fn store_powers(four: [Self; 4], to: *mut i8) {
        // SAFETY: the trait's contract; tables of 16 bytes.
        unsafe {
            let bits = _mm256_set1_epi32(0xffff);
            let mut words = [bits; 4];
            for (word, lanes) in words.iter_mut().zip(four) {
                *word = _mm256_and_si256(_mm256_castps_si256(lanes.0), bits);
            }
            let [a, b, c, d] = words;
            let (ab, cd) = (_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
            let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
            let some = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(ab, cd), order);
            let octave = _mm256_set1_epi16(powers::STEPS as i16);
            let (ab, cd) = (_mm256_subs_epu16(ab, octave), _mm256_subs_epu16(cd, octave));
            let codes = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(ab, cd), order);

            let table =
                |table: *const u8| _mm256_broadcastsi128_si256(_mm_loadu_si128(table.cast()));
            let low = _mm256_and_si256(codes, _mm256_set1_epi8(15));
            let octave = powers::OCTAVE.as_ptr();
            // The bit of 16 moves to the top of its byte, which chooses.
            let upper = _mm256_slli_epi16::<3>(codes);
            let steps = _mm256_blendv_epi8(
                _mm256_shuffle_epi8(table(octave), low),
                _mm256_shuffle_epi8(table(octave.add(16)), low),
                upper,
            );
            let octaves = _mm256_and_si256(_mm256_srli_epi16::<5>(codes), _mm256_set1_epi8(7));
            let halves = _mm256_shuffle_epi8(table(powers::HALVES.as_ptr()), octaves);
            let factors = _mm256_shuffle_epi8(table(powers::FACTORS.as_ptr()), octaves);
            let product =
                |steps, factors| _mm256_srli_epi16::<7>(_mm256_maddubs_epi16(steps, factors));
            let shifted = _mm256_packus_epi16(
                product(
                    _mm256_unpacklo_epi8(steps, halves),
                    _mm256_unpacklo_epi8(factors, factors),
                ),
                product(
                    _mm256_unpackhi_epi8(steps, halves),
                    _mm256_unpackhi_epi8(factors, factors),
                ),
            );
            let highest = _mm256_cmpeq_epi8(octaves, _mm256_set1_epi8(7));
            let powers = _mm256_blendv_epi8(shifted, steps, highest);
            let nothing = _mm256_cmpeq_epi8(some, _mm256_setzero_si256());
            let powers = _mm256_andnot_si256(nothing, powers);
            let offset = _mm256_set1_epi8(powers::POWER_OFFSET as i8);
            _mm256_storeu_si256(to.cast(), _mm256_sub_epi8(powers, offset));
        }
    }
    #[inline(always)]
    unsafe fn sum_bytes_four(from: [*const i8; 4]) -> [i32; 4] {
        // SAFETY: the trait's contract.
        unsafe {
            let mut sums = [_mm256_setzero_si256(); 4];
            for (sum, from) in sums.iter_mut().zip(from) {
                for i in [0, 32] {
                    let bytes = _mm256_loadu_si256(from.add(i).cast());
                    let unsigned = _mm256_xor_si256(bytes, _mm256_set1_epi8(-128));
                    let part = _mm256_sad_epu8(unsigned, _mm256_setzero_si256());
                    *sum = _mm256_add_epi64(*sum, part);
                }
            }
            let [a, b, c, d] = sums;
            // Two sums share a quadword.
            let ab = _mm256_or_si256(a, _mm256_slli_epi64::<32>(b));
            let cd = _mm256_or_si256(c, _mm256_slli_epi64::<32>(d));
            let (low, high) = (_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
            let sums = _mm256_add_epi32(low, high);
            let (low, high) = (
                _mm256_castsi256_si128(sums),
                _mm256_extracti128_si256::<1>(sums),
            );
            let sums = _mm_sub_epi32(_mm_add_epi32(low, high), _mm_set1_epi32(64 * 128));
            std::mem::transmute::<__m128i, [i32; 4]>(sums)
        }
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: the trait's contract.
        Avx2(unsafe { _mm256_min_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: the trait's contract.
        Avx2(unsafe { _mm256_max_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn clamp(self, low: f32, high: f32) -> Self {
        // SAFETY: the trait's contract. The second operand comes back where one is NaN.
        Avx2(unsafe {
            _mm256_max_ps(
                _mm256_set1_ps(low),
                _mm256_min_ps(_mm256_set1_ps(high), self.0),
            )
        })
    }
    #[inline(always)]
    unsafe fn abs(self) -> Self {
        // SAFETY: the trait's contract.
        Avx2(unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), self.0) })
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        // SAFETY: the trait's contract.
        Avx2(unsafe { _mm256_round_ps(self.0, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC) })
    }
    #[inline(always)]
    unsafe fn scale_by_power_of_two(self, n: Self) -> Self {
        // SAFETY: the trait's contract.
        Avx2(unsafe {
            let n = _mm256_cvtps_epi32(n.0);
            let half = _mm256_srai_epi32(n, 1);
            let once = _mm256_mul_ps(self.0, power_of_two(half));
            _mm256_mul_ps(once, power_of_two(_mm256_sub_epi32(n, half)))
        })
    }
    #[inline(always)]
    unsafe fn div_roughly(self, divisor: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { self.div(divisor) }
    }
    #[inline(always)]
    unsafe fn max_magnitude(self, magnitude: Self) -> Self {
        // SAFETY: the trait's contract. Bits of numbers without sign are ordered as the numbers.
        Avx2(unsafe {
            let own = _mm256_castps_si256(self.abs().0);
            _mm256_castsi256_ps(_mm256_max_epi32(own, _mm256_castps_si256(magnitude.0)))
        })
    }
    #[inline(always)]
    unsafe fn reduce_magnitude(self) -> f32 {
        // SAFETY: the trait's contract.
        unsafe {
            let bits = _mm256_castps_si256(self.0);
            let low = _mm256_castsi256_si128(bits);
            let four = _mm_max_epi32(low, _mm256_extracti128_si256::<1>(bits));
            let two = _mm_max_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
            let one = _mm_max_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two));
            f32::from_bits(_mm_cvtsi128_si32(one) as u32)
        }
    }
    #[inline(always)]
    unsafe fn reduce_add(self) -> f32 {
        // SAFETY: the trait's contract.
        unsafe { reduce!(self.0, _mm_add_ps, _mm_add_ss) }
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
        unsafe { reduce!(self.0, _mm_max_ps, _mm_max_ss) }
    }
    #[inline(always)]
    unsafe fn reduce_max_four(four: [Self; 4]) -> [f32; 4] {
        let [a, b, c, d] = four;
        // SAFETY: the trait's contract.
        unsafe {
            let ab = _mm256_max_ps(_mm256_unpacklo_ps(a.0, b.0), _mm256_unpackhi_ps(a.0, b.0));
            let cd = _mm256_max_ps(_mm256_unpacklo_ps(c.0, d.0), _mm256_unpackhi_ps(c.0, d.0));
            let low = _mm256_shuffle_ps::<0b01_00_01_00>(ab, cd);
            let high = _mm256_shuffle_ps::<0b11_10_11_10>(ab, cd);
            let all = _mm256_max_ps(low, high);
            let all = _mm_max_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps::<1>(all));
            std::mem::transmute::<__m128, [f32; 4]>(all)
        }
    }
}
