//! FEAT_DotProd, one token: SDOT by element, sixteen k at a time.
//!
//! ```text
//!   x: 16 values of the token = four groups
//!   step s of four            w0: rows 0..4           w1: rows 4..8
//!                             acc[s][0] += w0 · x[s]  acc[s][1] += w1 · x[s]
//!
//!   8 independent accumulators, summed once per group of scales
//! ```

use std::arch::aarch64::*;

use super::{Gemv, GemvKernel};
use crate::int8_gemm::epilogue::TailQ;
use crate::int8_gemm::neon_dotprod::sdot;
use crate::isa::Isa;
use crate::linear::Store;
use crate::panels::{K_ALIGN, PANEL_ROWS, PanelTail, STEP_BYTES};
use crate::prefetch::prefetch_stream;

struct NeonDotprod {
    // Not constructible outside `probe`, which is what proves the instruction exists.
    _proof: (),
}

pub(crate) fn probe() -> Option<&'static dyn GemvKernel> {
    static KERNEL: NeonDotprod = NeonDotprod { _proof: () };
    Isa::probe().has("dotprod").then_some(&KERNEL)
}

// SAFETY: `probe` is the only constructor and checks the feature.
unsafe impl GemvKernel for NeonDotprod {
    fn name(&self) -> &'static str {
        "aarch64-qd8qc8w-dotprod-1x8"
    }
    unsafe fn panels(&self, gemv: &Gemv<'_>, out: *mut f32, store: Store) {
        gemv.debug_check(self);
        // SAFETY: having `self` proves the instruction; the rest is the caller's contract.
        unsafe { panels_dotprod(gemv, out, store) }
    }
}

/// # Safety
///
/// * The CPU has FEAT_DotProd.
/// * The rest as in [`GemvKernel::panels`].
#[target_feature(enable = "neon,dotprod")]
unsafe fn panels_dotprod(gemv: &Gemv<'_>, out: *mut f32, store: Store) {
    let lhs = gemv.lhs.as_ptr();
    for (p, panel) in gemv.panels.chunks_exact(gemv.panel_stride()).enumerate() {
        let panel = panel.as_ptr();
        let mut total = [vdupq_n_f32(0.0); 2];
        for (g, scale) in gemv.lhs_scales.iter().enumerate() {
            let mut acc = [[vdupq_n_s32(0); 2]; 4];
            for k in (g * gemv.group_len..(g + 1) * gemv.group_len).step_by(K_ALIGN) {
                // SAFETY: k_padded is a multiple of 16, so 16 values of the token and four steps of
                // the panel are in the group.
                let (x, w) = unsafe { (vld1q_s8(lhs.add(k)), panel.add(PANEL_ROWS * k)) };
                prefetch_stream(w);
                macro_rules! step {
                    ($s:literal) => {
                        // SAFETY: step s of the four is inside the panel, 32 bytes long.
                        let (w0, w1) = unsafe {
                            let w = w.add($s * STEP_BYTES).cast::<i8>();
                            (vld1q_s8(w), vld1q_s8(w.add(16)))
                        };
                        sdot!(acc[$s][0], w0, x, $s);
                        sdot!(acc[$s][1], w1, x, $s);
                    };
                }
                step!(0);
                step!(1);
                step!(2);
                step!(3);
            }
            let scale = vdupq_n_f32(*scale);
            for (half, total) in total.iter_mut().enumerate() {
                let sum = vaddq_s32(
                    vaddq_s32(acc[0][half], acc[1][half]),
                    vaddq_s32(acc[2][half], acc[3][half]),
                );
                *total = vfmaq_f32(*total, vcvtq_f32_s32(sum), scale);
            }
        }
        // SAFETY: the panel is whole, `out` holds eight values per panel.
        unsafe {
            let tail = PanelTail::of(panel, gemv.k_padded());
            TailQ::load(tail).store(total, out.add(p * PANEL_ROWS), store);
        }
    }
}
