//! Baseline NEON, one token times int4 panels: SMULL and SMLAL, summed in 16 bits over a block.
//!
//! ```text
//!   16 bytes of a block   rows 0..4 of step s, low halves and high halves widened to bytes
//!   token                 x[4s..4s+4] four times, and the same 16 values further
//!   p0 (rows 0, 1)        += w.low · x.low         8 × 16 bits, eight products in each lane:
//!   p1 (rows 2, 3)        += w.high · x.high       8 · 8 · 128 = 8192
//! ```

use std::arch::aarch64::*;

use super::{Int4Gemv, Int4GemvKernel};
use crate::int4_panels::{BLOCK, BLOCK_BYTES, BLOCK_WEIGHTS, weights};
use crate::linear::Store;
use crate::panels::{PANEL_ROWS, STEP_BYTES};
use crate::prefetch::prefetch_stream;

struct Neon;

pub(crate) fn probe() -> Option<&'static dyn Int4GemvKernel> {
    Some(&Neon)
}

// SAFETY: NEON is part of the baseline of every aarch64 target this crate is built for.
unsafe impl Int4GemvKernel for Neon {
    fn name(&self) -> &'static str {
        "aarch64-qd8qc4w-neon-1x8"
    }
    unsafe fn panels(&self, gemv: &Int4Gemv<'_>, out: *mut f32, store: Store) {
        gemv.debug_check(self);
        // SAFETY: having `self` proves the instructions; the rest is the caller's contract.
        unsafe { panels_neon(gemv, out, store) }
    }
}

/// # Safety
///
/// * As in [`Int4GemvKernel::panels`].
#[target_feature(enable = "neon")]
unsafe fn panels_neon(gemv: &Int4Gemv<'_>, out: *mut f32, store: Store) {
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
                let acc = dot(weights(block), x);
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

/// The eight rows of a block times 32 values of the token.
#[inline]
#[target_feature(enable = "neon")]
fn dot(block: &[u8; BLOCK_WEIGHTS], x: &[i8; BLOCK]) -> [float32x4_t; 2] {
    let sums = products(block, x).map(|products| vpaddlq_s16(products));
    [vpaddq_s32(sums[0], sums[1]), vpaddq_s32(sums[2], sums[3])].map(|sums| vcvtq_f32_s32(sums))
}

/// Rows 0 and 1, 2 and 3, 4 and 5, 6 and 7 of a block times 32 values of the token, four sums a row.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn products(block: &[u8; BLOCK_WEIGHTS], x: &[i8; BLOCK]) -> [int16x8_t; 4] {
    // SAFETY: the token has 32 values.
    let x = unsafe {
        [
            vld1q_s32(x.as_ptr().cast()),
            vld1q_s32(x.as_ptr().add(16).cast()),
        ]
    };
    let mut products = [vdupq_n_s16(0); 4];
    macro_rules! step {
        ($s:literal) => {
            let x = x.map(|x| vreinterpretq_s8_s32(vdupq_laneq_s32::<$s>(x)));
            for half in 0..2 {
                // SAFETY: step s of the four is inside the block, 32 bytes long.
                let w = unsafe { vld1q_s8(block.as_ptr().add($s * STEP_BYTES + 16 * half).cast()) };
                let halves = [vshrq_n_s8::<4>(vshlq_n_s8::<4>(w)), vshrq_n_s8::<4>(w)];
                let [first, second] = &mut products[2 * half..2 * half + 2] else {
                    unreachable!("two registers of each half");
                };
                for (w, x) in halves.into_iter().zip(x) {
                    *first = vmlal_s8(*first, vget_low_s8(w), vget_low_s8(x));
                    *second = vmlal_high_s8(*second, w, x);
                }
            }
        };
    }
    step!(0);
    step!(1);
    step!(2);
    step!(3);
    products
}

/// The eight scales of a block.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn scales(block: &[u8; BLOCK_BYTES]) -> [float32x4_t; 2] {
    // SAFETY: eight scales follow the weights of the block.
    let bits = unsafe { vld1q_u16(block.as_ptr().add(BLOCK_WEIGHTS).cast()) };
    [vget_low_u16(bits), vget_high_u16(bits)].map(|bits| vcvt_f32_f16(vreinterpret_f16_u16(bits)))
}
