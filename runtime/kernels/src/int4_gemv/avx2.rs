//! AVX2, one token times int4 panels: VPMADDUBSW takes the weights as they are stored, plus 8.
//!
//! ```text
//!   32 bytes of a block   step s: r0 … r7, low halves and high halves
//!   token                 x[4s..4s+4] eight times, and the same 16 values further
//!   VPMADDUBSW            two 16-bit sums a row; all eight steps of a block fit: 16 · 15 · 128 = 30720
//!   VPMADDWD with ones    one 32-bit sum a row
//! ```
//!
//! `-8 · Σ x` of the block takes the excess away again.

use std::arch::x86_64::*;

use super::{Int4Gemv, Int4GemvKernel};
use crate::int4_panels::{BLOCK, BLOCK_WEIGHTS, weights};
use crate::isa::Isa;
use crate::linear::Store;
use crate::panels::{PANEL_ROWS, STEP_BYTES};
use crate::prefetch::prefetch_stream;

struct Avx2 {
    // Not constructible outside `probe`, which is what proves the instructions exist.
    _proof: (),
}

pub(crate) fn probe() -> Option<&'static dyn Int4GemvKernel> {
    static KERNEL: Avx2 = Avx2 { _proof: () };
    Isa::probe().has_avx2().then_some(&KERNEL)
}

// SAFETY: `probe` is the only constructor and checks the features.
unsafe impl Int4GemvKernel for Avx2 {
    fn name(&self) -> &'static str {
        "x86_64-qd8qc4w-avx2-1x8"
    }
    fn uses_lhs_sums(&self) -> bool {
        true
    }
    unsafe fn panels(&self, gemv: &Int4Gemv<'_>, out: *mut f32, store: Store) {
        gemv.debug_check(self);
        // SAFETY: having `self` proves the instructions; the rest is the caller's contract.
        unsafe { panels_avx2(gemv, out, store) }
    }
}

/// # Safety
///
/// * The CPU has AVX2, FMA and F16C.
/// * The rest as in [`Int4GemvKernel::panels`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn panels_avx2(gemv: &Int4Gemv<'_>, out: *mut f32, store: Store) {
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
                let acc = _mm256_add_epi32(
                    dot(weights(block), x),
                    _mm256_set1_epi32(x_sum.wrapping_mul(-8)),
                );
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
#[target_feature(enable = "avx2")]
pub(crate) fn dot(block: &[u8; BLOCK_WEIGHTS], x: &[i8; BLOCK]) -> __m256i {
    let (flip, mask) = (_mm256_set1_epi8(0x88_u8 as i8), _mm256_set1_epi8(0x0f));
    let x = x.as_ptr().cast::<i32>();
    let mut acc = _mm256_setzero_si256();
    for (step, w) in block.as_chunks::<STEP_BYTES>().0.iter().enumerate() {
        // SAFETY: a step is one register; the token has eight groups of four values.
        let (w, x_low, x_high) = unsafe {
            (
                _mm256_loadu_si256(w.as_ptr().cast()),
                _mm256_set1_epi32(x.add(step).read_unaligned()),
                _mm256_set1_epi32(x.add(step + 4).read_unaligned()),
            )
        };
        let w = _mm256_xor_si256(w, flip);
        let low = _mm256_and_si256(w, mask);
        let high = _mm256_and_si256(_mm256_srli_epi16::<4>(w), mask);
        acc = _mm256_add_epi16(acc, _mm256_maddubs_epi16(low, x_low));
        acc = _mm256_add_epi16(acc, _mm256_maddubs_epi16(high, x_high));
    }
    _mm256_madd_epi16(acc, _mm256_set1_epi16(1))
}
