//! The definition: what every other kernel must compute, in plain Rust.

use super::{NibbleGemv, NibbleGemvKernel};
use crate::int4_panels::{BLOCK, BLOCK_WEIGHTS};
use crate::panels::{K_GROUP, PANEL_ROWS, STEP_BYTES};

struct Scalar;

pub(crate) fn probe() -> Option<&'static dyn NibbleGemvKernel> {
    Some(&Scalar)
}

// SAFETY: plain Rust, no instruction beyond the baseline of the target.
unsafe impl NibbleGemvKernel for Scalar {
    fn name(&self) -> &'static str {
        "scalar-nibbles-1x8"
    }
    fn sums(&self, gemv: &NibbleGemv<'_>, out: &mut [[i32; PANEL_ROWS]]) {
        for (blocks, sums) in gemv.each_panel(out) {
            for (r, sum) in sums.iter_mut().enumerate() {
                let blocks = blocks.iter().zip(gemv.token.as_chunks().0);
                *sum = blocks.map(|(block, x)| dot(block, x, r)).sum();
            }
        }
    }
}

/// One block of row `r` times 32 values of the token.
pub(crate) fn dot(block: &[u8; BLOCK_WEIGHTS], x: &[i8; BLOCK], r: usize) -> i32 {
    let mut acc = 0;
    for (i, pair) in x[..BLOCK / 2].iter().zip(&x[BLOCK / 2..]).enumerate() {
        let byte = block[i / K_GROUP * STEP_BYTES + r * K_GROUP + i % K_GROUP];
        let (low, high) = ((byte << 4) as i8 >> 4, byte as i8 >> 4);
        acc += i32::from(low) * i32::from(*pair.0) + i32::from(high) * i32::from(*pair.1);
    }
    acc
}
