//! Baseline NEON, one token: SMULL, SMLAL2, SADALP as in the GEMM kernel.
//!
//! ```text
//!   8 values of the token   A │ B  ──ZIP1 (32 bit)──▶  x = A A │ B B
//!   two steps of the panel  ──TRN1/TRN2──▶  t0..t3 = pairs of rows, A │ B
//!   acc[j] += t[j] · x      two partial sums per row
//! ```

use std::arch::aarch64::*;

use super::{Gemv, GemvKernel};
use crate::int8_gemm::epilogue::TailQ;
use crate::int8_gemm::neon::{add_products, load_weights, sum_rows};
use crate::linear::Store;
use crate::panels::{K_ALIGN, PANEL_ROWS, PanelTail};
use crate::prefetch::prefetch_stream;

struct Neon;

pub(crate) fn probe() -> Option<&'static dyn GemvKernel> {
    Some(&Neon)
}

// SAFETY: NEON is part of the baseline of every aarch64 target this crate is built for.
unsafe impl GemvKernel for Neon {
    fn name(&self) -> &'static str {
        "aarch64-qd8qc8w-neon-1x8"
    }
    unsafe fn panels(&self, gemv: &Gemv<'_>, out: *mut f32, store: Store) {
        gemv.debug_check(self);
        // SAFETY: NEON is baseline; the rest is the caller's contract.
        unsafe { panels_neon(gemv, out, store) }
    }
}

/// # Safety
///
/// * As in [`GemvKernel::panels`].
#[target_feature(enable = "neon")]
unsafe fn panels_neon(gemv: &Gemv<'_>, out: *mut f32, store: Store) {
    let lhs = gemv.lhs.as_ptr();
    for (p, panel) in gemv.panels.chunks_exact(gemv.panel_stride()).enumerate() {
        let panel = panel.as_ptr();
        let mut total = [vdupq_n_f32(0.0); 2];
        for (g, scale) in gemv.lhs_scales.iter().enumerate() {
            let mut even = [vdupq_n_s32(0); 4];
            let mut odd = even;
            for k in (g * gemv.group_len..(g + 1) * gemv.group_len).step_by(K_ALIGN) {
                // SAFETY: k_padded is a multiple of 16, so 16 values of the token and four steps of
                // the panel are in the group.
                unsafe {
                    let w = panel.add(PANEL_ROWS * k);
                    prefetch_stream(w);
                    let x = vreinterpretq_s32_s8(vld1q_s8(lhs.add(k)));
                    let [x_even, x_odd] =
                        [vzip1q_s32(x, x), vzip2q_s32(x, x)].map(|x| vreinterpretq_s8_s32(x));
                    for (acc, w) in even.iter_mut().zip(load_weights(w)) {
                        *acc = add_products(*acc, w, x_even);
                    }
                    for (acc, w) in odd.iter_mut().zip(load_weights(w.add(64))) {
                        *acc = add_products(*acc, w, x_odd);
                    }
                }
            }
            let scale = vdupq_n_f32(*scale);
            let (even, odd) = (sum_rows(even), sum_rows(odd));
            total[0] = vfmaq_f32(total[0], vcvtq_f32_s32(vaddq_s32(even[0], odd[0])), scale);
            total[1] = vfmaq_f32(total[1], vcvtq_f32_s32(vaddq_s32(even[1], odd[1])), scale);
        }
        // SAFETY: the panel is whole, `out` holds eight values per panel.
        unsafe {
            let tail = PanelTail::of(panel, gemv.k_padded());
            TailQ::load(tail).store(total, out.add(p * PANEL_ROWS), store);
        }
    }
}
