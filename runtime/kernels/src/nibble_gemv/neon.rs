//! Baseline NEON: SMULL and SMLAL, summed in 16 bits over a block, as in [`crate::int4_gemv`].

use std::arch::aarch64::*;

use super::{NibbleGemv, NibbleGemvKernel};
use crate::int4_gemv::neon::products;
use crate::panels::PANEL_ROWS;
use crate::prefetch::prefetch_stream;

struct Neon;

pub(crate) fn probe() -> Option<&'static dyn NibbleGemvKernel> {
    Some(&Neon)
}

// SAFETY: NEON is part of the baseline of every aarch64 target this crate is built for.
unsafe impl NibbleGemvKernel for Neon {
    fn name(&self) -> &'static str {
        "aarch64-nibbles-neon-1x8"
    }
    fn sums(&self, gemv: &NibbleGemv<'_>, out: &mut [[i32; PANEL_ROWS]]) {
        // SAFETY: NEON is there.
        unsafe { sums_neon(gemv, out) }
    }
}

/// # Safety
///
/// * The CPU has NEON.
#[target_feature(enable = "neon")]
unsafe fn sums_neon(gemv: &NibbleGemv<'_>, out: &mut [[i32; PANEL_ROWS]]) {
    for (blocks, sums) in gemv.each_panel(out) {
        let mut acc = [vdupq_n_s32(0); 4];
        for (block, x) in blocks.iter().zip(gemv.token.as_chunks().0) {
            prefetch_stream(block.as_ptr());
            for (acc, products) in acc.iter_mut().zip(products(block, x)) {
                *acc = vpadalq_s16(*acc, products);
            }
        }
        for half in 0..2 {
            let sum = vpaddq_s32(acc[2 * half], acc[2 * half + 1]);
            // SAFETY: eight sums are two registers.
            unsafe { vst1q_s32(sums.as_mut_ptr().add(4 * half), sum) };
        }
    }
}
