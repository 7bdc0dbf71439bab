//! FEAT_DotProd: SDOT by element on sixteen times the weight, as in [`crate::int4_gemv`].

use std::arch::aarch64::*;

use super::{NibbleGemv, NibbleGemvKernel};
use crate::int4_gemv::neon_dotprod::dot;
use crate::isa::Isa;
use crate::panels::PANEL_ROWS;
use crate::prefetch::prefetch_stream;

struct NeonDotprod {
    // Not constructible outside `probe`, which is what proves the instruction exists.
    _proof: (),
}

pub(crate) fn probe() -> Option<&'static dyn NibbleGemvKernel> {
    static KERNEL: NeonDotprod = NeonDotprod { _proof: () };
    Isa::probe().has("dotprod").then_some(&KERNEL)
}

// SAFETY: `probe` is the only constructor and checks the feature.
unsafe impl NibbleGemvKernel for NeonDotprod {
    fn name(&self) -> &'static str {
        "aarch64-nibbles-dotprod-1x8"
    }
    fn sums(&self, gemv: &NibbleGemv<'_>, out: &mut [[i32; PANEL_ROWS]]) {
        // SAFETY: having `self` proves the instructions.
        unsafe { sums_dotprod(gemv, out) }
    }
}

/// # Safety
///
/// * The CPU has FEAT_DotProd.
#[target_feature(enable = "neon,dotprod")]
unsafe fn sums_dotprod(gemv: &NibbleGemv<'_>, out: &mut [[i32; PANEL_ROWS]]) {
    for (blocks, sums) in gemv.each_panel(out) {
        // Two chains for each half of the rows, to hide the latency of the product.
        let mut acc = [[vdupq_n_s32(0); 2]; 2];
        for (block, x) in blocks.iter().zip(gemv.token.as_chunks().0) {
            prefetch_stream(block.as_ptr());
            dot(block, x, &mut acc);
        }
        for (half, [low, high]) in acc.into_iter().enumerate() {
            let sum = vshrq_n_s32::<4>(vaddq_s32(low, high));
            // SAFETY: eight sums are two registers.
            unsafe { vst1q_s32(sums.as_mut_ptr().add(4 * half), sum) };
        }
    }
}
