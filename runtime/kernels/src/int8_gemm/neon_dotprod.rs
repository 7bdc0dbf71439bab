//! FEAT_DotProd (Cortex-A55, A76, A78: SDOT): up to 12 tokens × 1 panel.
//!
//! ```text
//!                        w0: rows 0..4, k 4s..4s+4      w1: rows 4..8
//!   x0: tokens 0..4      acc[0][0] += w0 · x0[0]        acc[0][1] += w1 · x0[0]
//!   x1: tokens 4..8       ⋮          (SDOT by element: one token's four bytes of x)
//!   x2: tokens 8..12     acc[11][0] += w0 · x2[3]       acc[11][1] += w1 · x2[3]
//!
//!   24 accumulators + 2 weights + 3 tokens = 29 of 32 registers
//! ```
//!
//! Packed tokens fill whole registers: `[k / 4][rows rounded up to 4][4]`.

use std::arch::aarch64::*;

use super::epilogue::TailQ;
use super::neon::{add_blocks, add_scaled};
use super::{Microkernel, Tile, pack_interleaved, with_rows};
use crate::int4_panels::BLOCK;
use crate::isa::Isa;
use crate::linear::Store;
use crate::panels::{K_GROUP, PANEL_ROWS, PanelTail, STEP_BYTES};

const MR: usize = 12;
const NR: usize = PANEL_ROWS;
/// Tokens of one register: one for each element of SDOT.
const X_TOKENS: usize = 4;

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
    fn lhs_bytes(&self, rows: usize, k_padded: usize) -> usize {
        rows.next_multiple_of(X_TOKENS) * k_padded
    }
    fn pack_lhs(&self, rows: &[i8], k_padded: usize, out: &mut [i8]) {
        let places = (rows.len() / k_padded).next_multiple_of(X_TOKENS);
        pack_interleaved(rows, k_padded, places, out);
    }
    fn run_in_registers(&self, turns: u64) -> u64 {
        const PRODUCTS: u64 = 24 * 16;
        if turns > 0 {
            // SAFETY: touches registers only; having `self` proves the instruction.
            unsafe {
                std::arch::asm!(
                    ".arch_extension dotprod",
                    "2:",
                    "sdot v0.4s, v30.16b, v31.4b[0]",
                    "sdot v1.4s, v30.16b, v31.4b[0]",
                    "sdot v2.4s, v30.16b, v31.4b[0]",
                    "sdot v3.4s, v30.16b, v31.4b[0]",
                    "sdot v4.4s, v30.16b, v31.4b[0]",
                    "sdot v5.4s, v30.16b, v31.4b[0]",
                    "sdot v6.4s, v30.16b, v31.4b[0]",
                    "sdot v7.4s, v30.16b, v31.4b[0]",
                    "sdot v8.4s, v30.16b, v31.4b[0]",
                    "sdot v9.4s, v30.16b, v31.4b[0]",
                    "sdot v10.4s, v30.16b, v31.4b[0]",
                    "sdot v11.4s, v30.16b, v31.4b[0]",
                    "sdot v12.4s, v30.16b, v31.4b[0]",
                    "sdot v13.4s, v30.16b, v31.4b[0]",
                    "sdot v14.4s, v30.16b, v31.4b[0]",
                    "sdot v15.4s, v30.16b, v31.4b[0]",
                    "sdot v16.4s, v30.16b, v31.4b[0]",
                    "sdot v17.4s, v30.16b, v31.4b[0]",
                    "sdot v18.4s, v30.16b, v31.4b[0]",
                    "sdot v19.4s, v30.16b, v31.4b[0]",
                    "sdot v20.4s, v30.16b, v31.4b[0]",
                    "sdot v21.4s, v30.16b, v31.4b[0]",
                    "sdot v22.4s, v30.16b, v31.4b[0]",
                    "sdot v23.4s, v30.16b, v31.4b[0]",
                    "subs {turns}, {turns}, #1",
                    "b.ne 2b",
                    turns = inout(reg) turns => _,
                    out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _, out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v12") _, out("v13") _, out("v14") _, out("v15") _, out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _, out("v21") _, out("v22") _, out("v23") _,
                    options(nomem, nostack),
                );
            }
        }
        turns * PRODUCTS
    }
    unsafe fn tile(&self, tile: &Tile<'_>, out: *mut f32, out_stride: usize, store: Store) {
        tile.debug_check(self);
        // SAFETY: having `self` proves the instruction; the rest is the caller's contract.
        unsafe {
            with_rows!(
                tile.rows,
                R in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12] => tile_dotprod::<R>(tile, out, out_stride, store)
            );
        }
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
/// * The CPU has FEAT_DotProd; the tile has `R` tokens.
/// * The rest as in [`Microkernel::tile`].
#[target_feature(enable = "neon,dotprod")]
unsafe fn tile_dotprod<const R: usize>(
    tile: &Tile<'_>,
    out: *mut f32,
    out_stride: usize,
    store: Store,
) {
    let panel = tile.panels.as_ptr();
    let group_steps = tile.group_len / K_GROUP;
    let range = |first: usize, n_steps: usize| {
        // SAFETY: the steps are inside the panel and the packed tokens.
        unsafe {
            let places = R.next_multiple_of(X_TOKENS);
            let x = tile.lhs.as_ptr().add(first * places * K_GROUP);
            products::<R>(panel.add(first * STEP_BYTES).cast(), x, n_steps)
        }
    };
    let group = |g: usize| range(g * group_steps, group_steps);
    // SAFETY: the panel is whole.
    let tail = unsafe { TailQ::load(PanelTail::of(panel, tile.k_padded)) };
    let mut scales = tile.lhs_scales.as_chunks::<R>().0;
    let mut totals = [[vdupq_n_f32(0.0); 2]; R];
    if !tile.block_scales.is_empty() {
        const STEPS: usize = BLOCK / K_GROUP;
        add_blocks(tile, &mut totals, |b| range(b * STEPS, STEPS));
        scales = &[];
    }
    if let [scales] = scales {
        // Accumulators and totals together exceed the registers; here they need not meet.
        for (i, (acc, scale)) in group(0).into_iter().zip(scales).enumerate() {
            let total = add_scaled([vdupq_n_f32(0.0); 2], acc, *scale);
            // SAFETY: row i of `out` holds eight values.
            unsafe { tail.store(total, out.add(i * out_stride), store) };
        }
        return;
    }
    for (g, scales) in scales.iter().enumerate() {
        for ((total, acc), scale) in totals.iter_mut().zip(group(g)).zip(scales) {
            *total = add_scaled(*total, acc, *scale);
        }
    }
    for (i, total) in totals.into_iter().enumerate() {
        // SAFETY: row i of `out` holds eight values.
        unsafe { tail.store(total, out.add(i * out_stride), store) };
    }
}

/// `R` tokens times one panel over `steps` steps; sums after the first `R` are 0.
///
/// # Safety
///
/// * The CPU has FEAT_DotProd.
/// * `weights` and `x` point at `steps` steps, of `x` with `R` tokens, rounded up to four, each.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn products<const R: usize>(
    weights: *const i8,
    x: *const i8,
    steps: usize,
) -> [[int32x4_t; 2]; MR] {
    let registers = R.div_ceil(X_TOKENS);
    let mut acc = [[vdupq_n_s32(0); 2]; MR];
    for step in 0..steps {
        let mut tokens = [vdupq_n_s8(0); MR / X_TOKENS];
        // SAFETY: the step is one of `steps`.
        let w = unsafe {
            let x = x.add(step * registers * X_TOKENS * K_GROUP);
            for (i, tokens) in tokens.iter_mut().enumerate().take(registers) {
                *tokens = vld1q_s8(x.add(i * X_TOKENS * K_GROUP));
            }
            let w = weights.add(step * STEP_BYTES);
            [vld1q_s8(w), vld1q_s8(w.add(STEP_BYTES / 2))]
        };
        // Written out: a loop that the compiler leaves in place keeps its sums in memory.
        macro_rules! four_tokens {
            ($x:literal: $($lane:literal)*) => {$(
                if R > $x * X_TOKENS + $lane {
                    sdot!(acc[$x * X_TOKENS + $lane][0], w[0], tokens[$x], $lane);
                    sdot!(acc[$x * X_TOKENS + $lane][1], w[1], tokens[$x], $lane);
                }
            )*};
        }
        four_tokens!(0: 0 1 2 3);
        four_tokens!(1: 0 1 2 3);
        four_tokens!(2: 0 1 2 3);
    }
    acc
}
