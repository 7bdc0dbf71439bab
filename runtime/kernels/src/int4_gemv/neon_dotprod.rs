//! FEAT_DotProd, one token times int4 panels: SDOT by element on sixteen times the weight.
//!
//! ```text
//!   16 bytes of a block   rows 0..4 of step s
//!   low halves  << 4      16 · w for k = 4s..4s+4          acc += · x0[s]
//!   high halves & 0xf0    16 · w for k = 16+4s..16+4s+4    acc += · x1[s]
//! ```
//!
//! One instruction unpacks sixteen weights; the conversion to f32 divides by 16 for nothing.

use std::arch::aarch64::*;

use super::neon::scales;
use super::{Int4Gemv, Int4GemvKernel};
use crate::int4_panels::{BLOCK, BLOCK_WEIGHTS, weights};
use crate::int8_gemm::neon_dotprod::sdot;
use crate::isa::Isa;
use crate::linear::Store;
use crate::panels::{PANEL_ROWS, STEP_BYTES};
use crate::prefetch::prefetch_stream;

struct NeonDotprod {
    // Not constructible outside `probe`, which is what proves the instruction exists.
    _proof: (),
}

pub(crate) fn probe() -> Option<&'static dyn Int4GemvKernel> {
    static KERNEL: NeonDotprod = NeonDotprod { _proof: () };
    Isa::probe().has("dotprod").then_some(&KERNEL)
}

// SAFETY: `probe` is the only constructor and checks the feature.
unsafe impl Int4GemvKernel for NeonDotprod {
    fn name(&self) -> &'static str {
        "aarch64-qd8qc4w-dotprod-1x8"
    }
    unsafe fn panels(&self, gemv: &Int4Gemv<'_>, out: *mut f32, store: Store) {
        gemv.debug_check(self);
        // SAFETY: having `self` proves the instructions; the rest is the caller's contract.
        unsafe { panels_dotprod(gemv, out, store) }
    }
}

/// # Safety
///
/// * The CPU has FEAT_DotProd.
/// * The rest as in [`Int4GemvKernel::panels`].
#[target_feature(enable = "neon,dotprod")]
unsafe fn panels_dotprod(gemv: &Int4Gemv<'_>, out: *mut f32, store: Store) {
    let blocks_per_group = gemv.group_len / BLOCK;
    for (p, (blocks, biases)) in gemv.each_panel().enumerate() {
        let mut total = [vdupq_n_f32(0.0); 2];
        let groups = blocks
            .chunks_exact(blocks_per_group)
            .zip(gemv.token_blocks().chunks_exact(blocks_per_group));
        for ((blocks, x), scale) in groups.zip(gemv.lhs_scales) {
            let mut sum = [vdupq_n_f32(0.0); 2];
            for (block, x) in blocks.iter().zip(x) {
                prefetch_stream(block.as_ptr());
                // Two chains for each half of the rows, to hide the latency of the product.
                let mut acc = [[vdupq_n_s32(0); 2]; 2];
                dot(weights(block), x, &mut acc);
                let acc = acc.map(|[low, high]| vcvtq_n_f32_s32::<4>(vaddq_s32(low, high)));
                let scales = scales(block);
                for half in 0..2 {
                    sum[half] = vfmaq_f32(sum[half], acc[half], scales[half]);
                }
            }
            let scale = vdupq_n_f32(*scale);
            for half in 0..2 {
                total[half] = vfmaq_f32(total[half], sum[half], scale);
            }
        }
        for (half, total) in total.into_iter().enumerate() {
            // SAFETY: eight biases are readable, eight values of `out` writable and for `Add`
            // initialised, by the caller's contract; each half is four of them.
            unsafe {
                let biases = vld1q_f32(biases.as_ptr().cast::<f32>().add(4 * half));
                let out = out.add(p * PANEL_ROWS + 4 * half);
                let value = vaddq_f32(total, biases);
                let value = match store {
                    Store::Overwrite => value,
                    Store::Add => vaddq_f32(vld1q_f32(out), value),
                };
                vst1q_f32(out, value);
            }
        }
    }
}

/// Adds the eight rows of a block times 32 values of the token, sixteen times: rows 0 to 4 and 4 to 8,
/// of each the low and the high halves.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(crate) fn dot(block: &[u8; BLOCK_WEIGHTS], x: &[i8; BLOCK], acc: &mut [[int32x4_t; 2]; 2]) {
    // SAFETY: the token has 32 values.
    let x = unsafe { [vld1q_s8(x.as_ptr()), vld1q_s8(x.as_ptr().add(16))] };
    let mask = vdupq_n_s8(0xf0_u8 as i8);
    macro_rules! step {
        ($s:literal) => {
            for (half, acc) in acc.iter_mut().enumerate() {
                // SAFETY: step s of the four is inside the block, 32 bytes long.
                let w = unsafe { vld1q_s8(block.as_ptr().add($s * STEP_BYTES + 16 * half).cast()) };
                sdot!(acc[0], vshlq_n_s8::<4>(w), x[0], $s);
                sdot!(acc[1], vandq_s8(w, mask), x[1], $s);
            }
        };
    }
    step!(0);
    step!(1);
    step!(2);
    step!(3);
}
