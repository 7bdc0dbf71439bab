//! AVX-512 VNNI, one token times int4 panels: VPDPBUSD takes the weights as they are stored, plus 8.
//!
//! ```text
//!   64 bytes of a block      step s: r0 … r7             │ step s+1: r0 … r7     (low and high halves)
//!   token for the low half   x[4s..4s+4] eight times     │ x[4s+4..4s+8] eight times
//!   token for the high half  the same, 16 values further
//! ```
//!
//! The sum starts at `-8 · Σ x` of the block, which takes the excess away again.

use std::arch::x86_64::*;

use super::{Int4Gemv, Int4GemvKernel};
use crate::int4_panels::{BLOCK, BLOCK_BYTES, BLOCK_WEIGHTS};
use crate::isa::Isa;
use crate::linear::Store;
use crate::panels::PANEL_ROWS;
use crate::prefetch::prefetch_stream;

struct Avx512Vnni {
    // Not constructible outside `probe`, which is what proves the instructions exist.
    _proof: (),
}

pub(crate) fn probe() -> Option<&'static dyn Int4GemvKernel> {
    static KERNEL: Avx512Vnni = Avx512Vnni { _proof: () };
    let isa = Isa::probe();
    (isa.has_avx512() && isa.has("avx512vnni")).then_some(&KERNEL)
}

// SAFETY: `probe` is the only constructor and checks the features.
unsafe impl Int4GemvKernel for Avx512Vnni {
    fn name(&self) -> &'static str {
        "x86_64-qd8qc4w-avx512vnni-1x8"
    }
    fn uses_lhs_sums(&self) -> bool {
        true
    }
    unsafe fn panels(&self, gemv: &Int4Gemv<'_>, out: *mut f32, store: Store) {
        gemv.debug_check(self);
        // SAFETY: having `self` proves the instructions; the rest is the caller's contract.
        unsafe { panels_vnni(gemv, out, store) }
    }
}

/// # Safety
///
/// * The CPU has AVX-512 F, BW, VL, VNNI, AVX2, FMA and F16C.
/// * The rest as in [`Int4GemvKernel::panels`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn panels_vnni(gemv: &Int4Gemv<'_>, out: *mut f32, store: Store) {
    let blocks_per_group = gemv.group_len / BLOCK;
    for (p, (blocks, biases)) in gemv.each_panel().enumerate() {
        let mut total = _mm256_setzero_ps();
        let groups = blocks
            .chunks_exact(blocks_per_group)
            .zip(gemv.token_blocks().chunks_exact(blocks_per_group))
            .zip(gemv.lhs_sums.chunks_exact(blocks_per_group));
        for (((blocks, x), sums), scale) in groups.zip(gemv.lhs_scales) {
            let mut sum = _mm256_setzero_ps();
            for ((block, x), x_sum) in blocks.iter().zip(x).zip(sums) {
                prefetch_stream(block.as_ptr());
                let acc =
                    _mm256_add_epi32(dot(block, x), _mm256_set1_epi32(x_sum.wrapping_mul(-8)));
                // SAFETY: eight scales follow the weights of the block.
                let scales = unsafe { _mm_loadu_si128(block.as_ptr().add(BLOCK_WEIGHTS).cast()) };
                sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(acc), _mm256_cvtph_ps(scales), sum);
            }
            total = _mm256_fmadd_ps(sum, _mm256_set1_ps(*scale), total);
        }
        // SAFETY: eight biases are readable, eight values of `out` writable and for `Add`
        // initialised, by the caller's contract.
        unsafe {
            let value = _mm256_add_ps(total, _mm256_loadu_ps(biases.as_ptr().cast()));
            let out = out.add(p * PANEL_ROWS);
            let value = match store {
                Store::Overwrite => value,
                Store::Add => _mm256_add_ps(_mm256_loadu_ps(out), value),
            };
            _mm256_storeu_ps(out, value);
        }
    }
}

/// The eight rows of a block, each weight plus 8, times 32 values of the token.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn dot(block: &[u8; BLOCK_BYTES], x: &[i8; BLOCK]) -> __m256i {
    let pick = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    let (flip, mask) = (_mm512_set1_epi8(0x88_u8 as i8), _mm512_set1_epi8(0x0f));
    // SAFETY: the token has 32 values.
    let x = _mm512_castsi256_si512(unsafe { _mm256_loadu_si256(x.as_ptr().cast()) });
    let mut acc = [_mm512_setzero_si512(); 2];
    for (half, acc) in acc.iter_mut().enumerate() {
        // SAFETY: 128 bytes of weights are two registers.
        let w = unsafe { _mm512_loadu_si512(block.as_ptr().add(64 * half).cast()) };
        let w = _mm512_xor_si512(w, flip);
        let (low, high) = (
            _mm512_and_si512(w, mask),
            _mm512_and_si512(_mm512_srli_epi16::<4>(w), mask),
        );
        let first = 2 * half as i32;
        let pick_low = _mm512_add_epi32(pick, _mm512_set1_epi32(first));
        let pick_high = _mm512_add_epi32(pick, _mm512_set1_epi32(first + 4));
        *acc = _mm512_dpbusd_epi32(*acc, low, _mm512_permutexvar_epi32(pick_low, x));
        *acc = _mm512_dpbusd_epi32(*acc, high, _mm512_permutexvar_epi32(pick_high, x));
    }
    let acc = _mm512_add_epi32(acc[0], acc[1]);
    _mm256_add_epi32(
        _mm512_castsi512_si256(acc),
        _mm512_extracti64x4_epi64::<1>(acc),
    )
}
