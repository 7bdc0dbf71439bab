//! AVX2, one token: weights and token widened to 16 bits, VPMADDWD.
//!
//! ```text
//!   16 values of the token     ymm: k0..4 │ k4..8 │ k8..12 │ k12..16   (16 bits each)
//!   step s of the panel        ymm: rows 0..4 │ ymm: rows 4..8, times quarter s of the token
//!   acc[s % 2]                 two 32-bit sums per row
//! ```

use std::arch::x86_64::*;

use super::{Gemv, GemvKernel};
use crate::int8_gemm::avx2::{sum_rows, widen};
use crate::int8_gemm::epilogue::TailYmm;
use crate::isa::Isa;
use crate::linear::Store;
use crate::panels::{K_ALIGN, PANEL_ROWS, PanelTail, STEP_BYTES};
use crate::prefetch::prefetch_stream;

struct Avx2 {
    // Not constructible outside `probe`, which is what proves the instructions exist.
    _proof: (),
}

pub(crate) fn probe() -> Option<&'static dyn GemvKernel> {
    static KERNEL: Avx2 = Avx2 { _proof: () };
    Isa::probe().has_avx2().then_some(&KERNEL)
}

// SAFETY: `probe` is the only constructor and checks the features.
unsafe impl GemvKernel for Avx2 {
    fn name(&self) -> &'static str {
        "x86_64-qd8qc8w-avx2-1x8"
    }
    unsafe fn panels(&self, gemv: &Gemv<'_>, out: *mut f32, store: Store) {
        gemv.debug_check(self);
        // SAFETY: having `self` proves the instructions; the rest is the caller's contract.
        unsafe { panels_avx2(gemv, out, store) }
    }
}

/// # Safety
///
/// * The CPU has AVX2 and FMA.
/// * The rest as in [`GemvKernel::panels`].
#[target_feature(enable = "avx2,fma")]
unsafe fn panels_avx2(gemv: &Gemv<'_>, out: *mut f32, store: Store) {
    let lhs = gemv.lhs.as_ptr();
    for (p, panel) in gemv.panels.chunks_exact(gemv.panel_stride()).enumerate() {
        let panel = panel.as_ptr();
        let mut total = _mm256_setzero_ps();
        for (g, scale) in gemv.lhs_scales.iter().enumerate() {
            let mut acc = [[_mm256_setzero_si256(); 2]; 2];
            for k in (g * gemv.group_len..(g + 1) * gemv.group_len).step_by(K_ALIGN) {
                // SAFETY: k_padded is a multiple of 16, so 16 values of the token and four steps of
                // the panel are in the group.
                let (x, w) = unsafe { (widen(lhs.add(k).cast()), panel.add(PANEL_ROWS * k)) };
                prefetch_stream(w);
                macro_rules! step {
                    ($s:literal) => {
                        let x = _mm256_permute4x64_epi64::<{ $s * 0b01_01_01_01 }>(x);
                        // SAFETY: step s of the four is inside the panel, 32 bytes long.
                        let [low, high] = unsafe {
                            [
                                widen(w.add($s * STEP_BYTES)),
                                widen(w.add($s * STEP_BYTES + STEP_BYTES / 2)),
                            ]
                        };
                        let acc = &mut acc[$s % 2];
                        acc[0] = _mm256_add_epi32(acc[0], _mm256_madd_epi16(low, x));
                        acc[1] = _mm256_add_epi32(acc[1], _mm256_madd_epi16(high, x));
                    };
                }
                step!(0);
                step!(1);
                step!(2);
                step!(3);
            }
            let low = _mm256_add_epi32(acc[0][0], acc[1][0]);
            let high = _mm256_add_epi32(acc[0][1], acc[1][1]);
            let sum = _mm256_cvtepi32_ps(sum_rows([low, high]));
            total = _mm256_fmadd_ps(sum, _mm256_set1_ps(*scale), total);
        }
        // SAFETY: the panel is whole, `out` holds eight values per panel.
        unsafe {
            let tail = PanelTail::of(panel, gemv.k_padded());
            TailYmm::load(tail).store(total, out.add(p * PANEL_ROWS), store);
        }
    }
}
