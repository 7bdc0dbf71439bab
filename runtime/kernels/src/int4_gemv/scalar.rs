//! The definition: what every other int4 GEMV kernel must compute, bit for bit, in plain Rust.

use super::{Int4Gemv, Int4GemvKernel};
use crate::half::f16_bits_to_f32;
use crate::int4_panels::{BLOCK, BLOCK_WEIGHTS, weights};
use crate::linear::Store;
use crate::nibble_gemv::scalar::dot;
use crate::panels::PANEL_ROWS;

struct Scalar;

pub(crate) fn probe() -> Option<&'static dyn Int4GemvKernel> {
    Some(&Scalar)
}

// SAFETY: plain Rust, no instruction beyond the baseline of the target.
unsafe impl Int4GemvKernel for Scalar {
    fn name(&self) -> &'static str {
        "scalar-qd8qc4w-1x8"
    }
    unsafe fn panels(&self, gemv: &Int4Gemv<'_>, out: *mut f32, store: Store) {
        gemv.debug_check(self);
        let blocks_per_group = gemv.group_len / BLOCK;
        for (p, (blocks, biases)) in gemv.each_panel().enumerate() {
            for r in 0..PANEL_ROWS {
                let mut total = 0.0_f32;
                let groups = blocks
                    .chunks_exact(blocks_per_group)
                    .zip(gemv.token_blocks().chunks_exact(blocks_per_group));
                for ((blocks, x), scale) in groups.zip(gemv.lhs_scales) {
                    let mut sum = 0.0_f32;
                    for (block, x) in blocks.iter().zip(x) {
                        let half = &block[BLOCK_WEIGHTS + 2 * r..];
                        let scale = f16_bits_to_f32(u16::from_le_bytes([half[0], half[1]]));
                        sum = (dot(weights(block), x, r) as f32).mul_add(scale, sum);
                    }
                    total = sum.mul_add(*scale, total);
                }
                let bias = biases[4 * r..].as_chunks::<4>().0[0];
                let value = total + f32::from_le_bytes(bias);
                // SAFETY: eight values of `out` for each panel are writable and for `Add`
                // initialised, by the caller's contract.
                unsafe {
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
