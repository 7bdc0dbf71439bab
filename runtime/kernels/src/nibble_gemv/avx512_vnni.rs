//! AVX-512 VNNI: VPDPBUSD takes the weights as they are stored, plus 8, as in
//! [`crate::int4_gemv`]; the sums of all blocks of a panel stay in four registers.

use std::arch::x86_64::*;

use super::{NibbleGemv, NibbleGemvKernel};
use crate::isa::Isa;
use crate::panels::PANEL_ROWS;
use crate::prefetch::prefetch_stream;

struct Avx512Vnni {
    // Not constructible outside `probe`, which is what proves the instructions exist.
    _proof: (),
}

pub(crate) fn probe() -> Option<&'static dyn NibbleGemvKernel> {
    static KERNEL: Avx512Vnni = Avx512Vnni { _proof: () };
    let isa = Isa::probe();
    (isa.has_avx512() && isa.has("avx512vnni")).then_some(&KERNEL)
}

// SAFETY: `probe` is the only constructor and checks the features.
unsafe impl NibbleGemvKernel for Avx512Vnni {
    fn name(&self) -> &'static str {
        "x86_64-nibbles-avx512vnni-1x8"
    }
    fn sums(&self, gemv: &NibbleGemv<'_>, out: &mut [[i32; PANEL_ROWS]]) {
        // SAFETY: having `self` proves the instructions.
        unsafe { sums_vnni(gemv, out) }
    }
}

/// # Safety
///
/// * The CPU has AVX-512 F, BW, VL, VNNI and AVX2.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2")]
unsafe fn sums_vnni(gemv: &NibbleGemv<'_>, out: &mut [[i32; PANEL_ROWS]]) {
    let first = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    let picks = [0, 4, 2, 6].map(|step| _mm512_add_epi32(first, _mm512_set1_epi32(step)));
    let (flip, mask) = (_mm512_set1_epi8(0x88_u8 as i8), _mm512_set1_epi8(0x0f));
    let excess = _mm256_set1_epi32(gemv.token_sum.wrapping_mul(-8));
    for (blocks, sums) in gemv.each_panel(out) {
        let mut acc = [_mm512_setzero_si512(); 4];
        for (block, x) in blocks.iter().zip(gemv.token.as_chunks::<32>().0) {
            prefetch_stream(block.as_ptr());
            // SAFETY: the token has 32 values for each block.
            let x = _mm512_castsi256_si512(unsafe { _mm256_loadu_si256(x.as_ptr().cast()) });
            for half in 0..2 {
                // SAFETY: 128 bytes of weights are two registers.
                let w = unsafe { _mm512_loadu_si512(block.as_ptr().add(64 * half).cast()) };
                let w = _mm512_xor_si512(w, flip);
                let halves = [
                    _mm512_and_si512(w, mask),
                    _mm512_and_si512(_mm512_srli_epi16::<4>(w), mask),
                ];
                for (i, w) in (2 * half..).zip(halves) {
                    acc[i] = _mm512_dpbusd_epi32(acc[i], w, _mm512_permutexvar_epi32(picks[i], x));
                }
            }
        }
        let acc = _mm512_add_epi32(
            _mm512_add_epi32(acc[0], acc[1]),
            _mm512_add_epi32(acc[2], acc[3]),
        );
        let acc = _mm256_add_epi32(
            _mm512_castsi512_si256(acc),
            _mm512_extracti64x4_epi64::<1>(acc),
        );
        // SAFETY: eight sums are one register.
        unsafe {
            _mm256_storeu_si256(sums.as_mut_ptr().cast(), _mm256_add_epi32(acc, excess));
        }
    }
}
