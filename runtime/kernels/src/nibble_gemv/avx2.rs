//! AVX2: VPMADDUBSW takes the weights as they are stored, plus 8, and sums a block in 16 bits, as in
//! [`crate::int4_gemv`].

use std::arch::x86_64::*;

use super::{NibbleGemv, NibbleGemvKernel};
use crate::int4_gemv::avx2::dot;
use crate::isa::Isa;
use crate::panels::PANEL_ROWS;
use crate::prefetch::prefetch_stream;

struct Avx2 {
    // Not constructible outside `probe`, which is what proves the instructions exist.
    _proof: (),
}

pub(crate) fn probe() -> Option<&'static dyn NibbleGemvKernel> {
    static KERNEL: Avx2 = Avx2 { _proof: () };
    Isa::probe().has_avx2().then_some(&KERNEL)
}

// SAFETY: `probe` is the only constructor and checks the features.
unsafe impl NibbleGemvKernel for Avx2 {
    fn name(&self) -> &'static str {
        "x86_64-nibbles-avx2-1x8"
    }
    fn sums(&self, gemv: &NibbleGemv<'_>, out: &mut [[i32; PANEL_ROWS]]) {
        // SAFETY: having `self` proves the instructions.
        unsafe { sums_avx2(gemv, out) }
    }
}

/// # Safety
///
/// * The CPU has AVX2.
#[target_feature(enable = "avx2")]
unsafe fn sums_avx2(gemv: &NibbleGemv<'_>, out: &mut [[i32; PANEL_ROWS]]) {
    let excess = _mm256_set1_epi32(gemv.token_sum.wrapping_mul(-8));
    for (blocks, sums) in gemv.each_panel(out) {
        let mut acc = excess;
        for (block, x) in blocks.iter().zip(gemv.token.as_chunks().0) {
            prefetch_stream(block.as_ptr());
            acc = _mm256_add_epi32(acc, dot(block, x));
        }
        // SAFETY: eight sums are one register.
        unsafe { _mm256_storeu_si256(sums.as_mut_ptr().cast(), acc) };
    }
}
