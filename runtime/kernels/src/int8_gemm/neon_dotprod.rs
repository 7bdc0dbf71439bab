//! FEAT_DotProd (Cortex-A55, A76, A78: SDOT): 12 tokens × 1 panel.
//!
//! ```text
//!                        w0: rows 0..4, k 4s..4s+4      w1: rows 4..8
//!   x0: tokens 0..4      acc[0][0] += w0 · x0[0]        acc[0][1] += w1 · x0[0]
//!   x1: tokens 4..8       ⋮          (SDOT by element: one token's four bytes of x)
//!   x2: tokens 8..12     acc[11][0] += w0 · x2[3]       acc[11][1] += w1 · x2[3]
//!
//!   24 accumulators + 2 weights + 3 tokens = 29 of 32 registers
//! ```

use std::arch::aarch64::*;

use super::{Microkernel, Tile, epilogue};
use crate::isa::Isa;
use crate::linear::Store;
use crate::panels::{K_GROUP, PANEL_ROWS, PanelTail, STEP_BYTES};

const MR: usize = 12;
const NR: usize = PANEL_ROWS;

struct NeonDotprod {
    // Not constructible outside `probe`, which is what proves the instruction exists.
    _proof: (),
}

pub(super) fn probe() -> Option<&'static dyn Microkernel> {
    static KERNEL: NeonDotprod = NeonDotprod { _proof: () };
    Isa::probe().has("dotprod").then_some(&KERNEL)
}

// SAFETY: `probe` is the only constructor and checks the feature.
unsafe impl Microkernel for NeonDotprod {
    fn name(&self) -> &'static str {
        "aarch64-qd8qc8w-dotprod-12x8"
    }
    fn mr(&self) -> usize {
        MR
    }
    fn nr(&self) -> usize {
        NR
    }
    unsafe fn tile(&self, tile: &Tile<'_>, out: *mut f32, out_stride: usize, store: Store) {
        tile.debug_check(self);
        // SAFETY: having `self` proves the instruction; the rest is the caller's contract.
        unsafe { tile_dotprod(tile, out, out_stride, store) }
    }
}

/// `acc += w · x[lane]`, four rows and four k. Inline assembly because the dot product intrinsics
/// are not stable in Rust 1.95.
macro_rules! sdot {
    ($acc:expr, $w:expr, $x:expr, $lane:literal) => {
        // SAFETY: touches registers only; the enclosing function enables the instruction.
        unsafe {
            std::arch::asm!(
                concat!("sdot {acc:v}.4s, {w:v}.16b, {x:v}.4b[", $lane, "]"),
                acc = inout(vreg) $acc, w = in(vreg) $w, x = in(vreg) $x,
                options(pure, nomem, nostack, preserves_flags),
            )
        }
    };
}
pub(crate) use sdot;

/// # Safety
///
/// * The CPU has FEAT_DotProd.
/// * The rest as in [`Microkernel::tile`].
#[target_feature(enable = "neon,dotprod")]
unsafe fn tile_dotprod(tile: &Tile<'_>, out: *mut f32, out_stride: usize, store: Store) {
    let panel = tile.panels.as_ptr();
    let lhs = tile.lhs.as_ptr();
    let group_steps = tile.group_len / K_GROUP;

    let mut totals = [[vdupq_n_f32(0.0); 2]; MR];
    for (g, scales) in tile.lhs_scales.chunks_exact(MR).enumerate() {
        let mut acc = [[vdupq_n_s32(0); 2]; MR];
        for step in g * group_steps..(g + 1) * group_steps {
            // SAFETY: a step is 32 bytes of the panel and 48 of the packed tokens.
            let (w, x) = unsafe {
                let (w, x) = (
                    panel.add(step * STEP_BYTES).cast::<i8>(),
                    lhs.add(step * MR * K_GROUP),
                );
                (
                    [vld1q_s8(w), vld1q_s8(w.add(16))],
                    [vld1q_s8(x), vld1q_s8(x.add(16)), vld1q_s8(x.add(32))],
                )
            };
            macro_rules! token {
                ($i:literal, $x:literal, $lane:literal) => {
                    sdot!(acc[$i][0], w[0], x[$x], $lane);
                    sdot!(acc[$i][1], w[1], x[$x], $lane);
                };
            }
            token!(0, 0, 0);
            token!(1, 0, 1);
            token!(2, 0, 2);
            token!(3, 0, 3);
            token!(4, 1, 0);
            token!(5, 1, 1);
            token!(6, 1, 2);
            token!(7, 1, 3);
            token!(8, 2, 0);
            token!(9, 2, 1);
            token!(10, 2, 2);
            token!(11, 2, 3);
        }
        for (i, (totals, acc)) in totals.iter_mut().zip(acc).enumerate() {
            let scale = vdupq_n_f32(scales[i]);
            totals[0] = vfmaq_f32(totals[0], vcvtq_f32_s32(acc[0]), scale);
            totals[1] = vfmaq_f32(totals[1], vcvtq_f32_s32(acc[1]), scale);
        }
    }
    for (i, total) in totals.into_iter().enumerate() {
        // SAFETY: the panel is whole, row i of `out` holds eight values.
        unsafe {
            let tail = PanelTail::of(panel, tile.k_padded);
            epilogue::store_q(total, tail, out.add(i * out_stride), store);
        }
    }
}
