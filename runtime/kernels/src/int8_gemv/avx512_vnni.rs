//! AVX-512 VNNI, one token: two steps of a panel per register, VPDPBUSD.
//!
//! ```text
//!   64 bytes of a panel      step s: r0 … r7        │ step s+1: r0 … r7
//!   token, permuted          x[4s..4s+4] eight times │ x[4s+4..4s+8] eight times
//!   acc                      sums over even steps    │ sums over odd steps
//! ```
//!
//! The token stays in one register for 16 steps; VPERMD picks two of its groups at a time. The
//! unsigned operand is `w + 128`, as in the GEMM kernel, and `-128 · Σ x` corrects it.

use std::arch::x86_64::*;

use super::{Gemv, GemvKernel};
use crate::int8_gemm::epilogue::TailYmm;
use crate::isa::Isa;
use crate::linear::Store;
use crate::panels::{PANEL_ROWS, PanelTail};
use crate::prefetch::prefetch_stream;

/// Values of k in one register of the token.
const K_BLOCK: usize = 64;
/// Registers of weights per register of the token.
const REGISTERS: usize = 8;
/// Independent accumulators, to hide the latency of the product.
const CHAINS: usize = 4;

struct Avx512Vnni {
    // Not constructible outside `probe`, which is what proves the instructions exist.
    _proof: (),
}

pub(crate) fn probe() -> Option<&'static dyn GemvKernel> {
    static KERNEL: Avx512Vnni = Avx512Vnni { _proof: () };
    let isa = Isa::probe();
    (isa.has_avx512() && isa.has("avx512vnni")).then_some(&KERNEL)
}

// SAFETY: `probe` is the only constructor and checks the features.
unsafe impl GemvKernel for Avx512Vnni {
    fn name(&self) -> &'static str {
        "x86_64-qd8qc8w-avx512vnni-1x8"
    }
    fn uses_lhs_sums(&self) -> bool {
        true
    }
    unsafe fn panels(&self, gemv: &Gemv<'_>, out: *mut f32, store: Store) {
        gemv.debug_check(self);
        // SAFETY: having `self` proves the instructions; the rest is the caller's contract.
        unsafe { panels_vnni(gemv, out, store) }
    }
}

/// # Safety
///
/// * The CPU has AVX-512 F, BW, VL, VNNI, AVX2 and FMA.
/// * The rest as in [`GemvKernel::panels`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
unsafe fn panels_vnni(gemv: &Gemv<'_>, out: *mut f32, store: Store) {
    let first = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    let mut picks = [first; REGISTERS];
    for (j, pick) in picks.iter_mut().enumerate() {
        *pick = _mm512_add_epi32(first, _mm512_set1_epi32(2 * j as i32));
    }
    let flip = _mm512_set1_epi32(0x8080_8080_u32 as i32);
    let lhs = gemv.lhs.as_ptr();

    for (p, panel) in gemv.panels.chunks_exact(gemv.panel_stride()).enumerate() {
        let panel = panel.as_ptr();
        let mut total = _mm256_setzero_ps();
        for (g, scale) in gemv.lhs_scales.iter().enumerate() {
            let mut acc = [_mm512_setzero_si512(); CHAINS];
            let end = (g + 1) * gemv.group_len;
            let mut k = g * gemv.group_len;
            while k + K_BLOCK <= end {
                // SAFETY: 64 values of the token and 16 steps of the panel are in the group.
                unsafe {
                    let x = _mm512_loadu_si512(lhs.add(k).cast());
                    for (j, pick) in picks.iter().enumerate() {
                        if j % 2 == 0 {
                            prefetch_stream(panel.add(PANEL_ROWS * k + 64 * j));
                        }
                        let w = _mm512_loadu_si512(panel.add(PANEL_ROWS * k + 64 * j).cast());
                        let x = _mm512_permutexvar_epi32(*pick, x);
                        acc[j % CHAINS] =
                            _mm512_dpbusd_epi32(acc[j % CHAINS], _mm512_xor_si512(w, flip), x);
                    }
                }
                k += K_BLOCK;
            }
            while k < end {
                // SAFETY: k_padded is a multiple of 16, so 16 values of the token and 4 steps of
                // the panel are left.
                unsafe {
                    let x = _mm512_castsi128_si512(_mm_loadu_si128(lhs.add(k).cast()));
                    for (j, pick) in picks.iter().enumerate().take(2) {
                        let w = _mm512_loadu_si512(panel.add(PANEL_ROWS * k + 64 * j).cast());
                        let x = _mm512_permutexvar_epi32(*pick, x);
                        acc[j] = _mm512_dpbusd_epi32(acc[j], _mm512_xor_si512(w, flip), x);
                    }
                }
                k += 16;
            }
            let sum = _mm512_add_epi32(
                _mm512_add_epi32(acc[0], acc[1]),
                _mm512_add_epi32(acc[2], acc[3]),
            );
            let sum = _mm256_add_epi32(
                _mm512_castsi512_si256(sum),
                _mm512_extracti64x4_epi64::<1>(sum),
            );
            let excess = _mm256_set1_epi32(gemv.lhs_sums[g].wrapping_mul(-128));
            let sum = _mm256_cvtepi32_ps(_mm256_add_epi32(sum, excess));
            total = _mm256_fmadd_ps(sum, _mm256_set1_ps(*scale), total);
        }
        // SAFETY: the panel is whole, `out` holds eight values per panel.
        unsafe {
            let tail = PanelTail::of(panel, gemv.k_padded());
            TailYmm::load(tail).store(total, out.add(p * PANEL_ROWS), store);
        }
    }
}
