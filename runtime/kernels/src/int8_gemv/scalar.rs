//! The definition: what every other GEMV kernel must compute, bit for bit, in plain Rust.

use super::{Gemv, GemvKernel};
use crate::int8_gemm::scalar_dot;
use crate::linear::Store;
use crate::panels::{PANEL_ROWS, PanelTail};

struct Scalar;

pub(crate) fn probe() -> Option<&'static dyn GemvKernel> {
    Some(&Scalar)
}

// SAFETY: plain Rust, no instruction beyond the baseline of the target.
unsafe impl GemvKernel for Scalar {
    fn name(&self) -> &'static str {
        "scalar-qd8qc8w-1x8"
    }
    unsafe fn panels(&self, gemv: &Gemv<'_>, out: *mut f32, store: Store) {
        gemv.debug_check(self);
        for (p, panel) in gemv.panels.chunks_exact(gemv.panel_stride()).enumerate() {
            // SAFETY: the panel is whole and aligned, its eight values of `out` are writable and
            // for `Add` initialised, by the caller's contract.
            unsafe {
                let tail = PanelTail::of(panel.as_ptr(), gemv.k_padded());
                for r in 0..PANEL_ROWS {
                    let value = scalar_dot(gemv.lhs, gemv.lhs_scales, panel, r, gemv.group_len)
                        .mul_add(*tail.scales().add(r), *tail.biases().add(r));
                    let out = out.add(p * PANEL_ROWS + r);
                    match store {
                        Store::Overwrite => *out = value,
                        Store::Add => *out += value,
                    }
                }
            }
        }
    }
}
