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

mod halves;

use std::arch::aarch64::*;
use std::mem::MaybeUninit;

use super::epilogue::TailQ;
use super::neon::{add_blocks, add_scaled};
use super::{Microkernel, Tile, with_rows};
use crate::int4_panels::BLOCK;
use crate::isa::Isa;
use crate::linear::Store;
use crate::panels::{K_GROUP, PANEL_ROWS, PanelTail, STEP_BYTES, panel_stride};

const MR: usize = 12;
/// Three panels a call, for the way there.
const NR: usize = 3 * PANEL_ROWS;
/// Bytes of the panels of a call, of a first cache of 64 kB.
const CALL_BYTES: usize = 40 * 1024;
/// Tokens of one register: one for each element of SDOT.
const X_TOKENS: usize = 4;
/// Most groups whose scales are padded to whole registers.
const GROUPS: usize = 64;

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
        "aarch64-qd8qc8w-dotprod-12x24"
    }
    fn mr(&self) -> usize {
        MR
    }
    fn tokens_together(&self) -> usize {
        X_TOKENS
    }
    fn nr(&self) -> usize {
        NR
    }
    fn panels_at_once(&self, k_padded: usize) -> usize {
        (CALL_BYTES / panel_stride(k_padded)).clamp(1, NR / PANEL_ROWS)
    }
    fn lhs_bytes(&self, rows: usize, k_padded: usize) -> usize {
        rows.next_multiple_of(X_TOKENS) * k_padded
    }
    fn pack_lhs(&self, rows: &[i8], k_padded: usize, out: &mut [i8]) {
        let n_rows = rows.len() / k_padded;
        assert!(k_padded.is_multiple_of(4 * K_GROUP) && rows.len() == n_rows * k_padded);
        assert_eq!(out.len(), self.lhs_bytes(n_rows, k_padded));
        for first in (0..n_rows).step_by(X_TOKENS) {
            // Places behind the last token repeat it; nobody reads what they give.
            let mut four = [rows.as_ptr(); X_TOKENS];
            for (i, row) in four.iter_mut().enumerate() {
                *row = rows[(first + i).min(n_rows - 1) * k_padded..].as_ptr();
            }
            // SAFETY: each row has k_padded values, a multiple of 16; `out` holds 16 bytes of these
            // tokens in each of its steps. NEON is part of the baseline.
            unsafe {
                let to = out.as_mut_ptr().add(first * K_GROUP);
                pack_four(
                    four,
                    k_padded,
                    to,
                    n_rows.next_multiple_of(X_TOKENS) * K_GROUP,
                );
            }
        }
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
    unsafe fn tiles(&self, tile: &Tile<'_>, out: *mut f32, out_stride: usize, store: Store) {
        // SAFETY: having `self` proves the instruction; the rest is the caller's contract.
        unsafe {
            if tile.rows == MR && tile.block_scales.is_empty() && halves::fit::<MR>(tile) {
                let scales = tile.lhs_scales.as_ptr();
                halves::tiles::<MR>(tile, scales, out, out_stride, store);
            } else {
                with_rows!(
                    tile.rows,
                    R in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12] => tile_dotprod::<R>(tile, out, out_stride, store)
                );
            }
        }
    }
    unsafe fn tile(&self, tile: &Tile<'_>, out: *mut f32, out_stride: usize, store: Store) {
        tile.debug_check(self);
        // SAFETY: by the caller's promise.
        unsafe { self.tiles(tile, out, out_stride, store) };
    }
}

/// Packs four tokens: the four bytes of each at every step side by side, `stride` bytes from step to
/// step.
///
/// # Safety
///
/// * `len` bytes, a multiple of 16, are readable at each row; 16 are writable at `to` and at every
///   `stride` bytes from there, `len / 4` times.
#[target_feature(enable = "neon")]
unsafe fn pack_four(rows: [*const i8; X_TOKENS], len: usize, to: *mut i8, stride: usize) {
    for k in (0..len).step_by(4 * K_GROUP) {
        // SAFETY: by the caller's promises.
        unsafe {
            let mut x = [vdupq_n_s32(0); X_TOKENS];
            for (x, row) in x.iter_mut().zip(rows) {
                *x = vreinterpretq_s32_s8(vld1q_s8(row.add(k)));
            }
            let (even, odd) = (vzip1q_s32(x[0], x[2]), vzip1q_s32(x[1], x[3]));
            let (even_2, odd_2) = (vzip2q_s32(x[0], x[2]), vzip2q_s32(x[1], x[3]));
            let steps = [
                vzip1q_s32(even, odd),
                vzip2q_s32(even, odd),
                vzip1q_s32(even_2, odd_2),
                vzip2q_s32(even_2, odd_2),
            ];
            for (i, step) in steps.into_iter().enumerate() {
                vst1q_s8(
                    to.add((k / K_GROUP + i) * stride),
                    vreinterpretq_s8_s32(step),
                );
            }
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

/// `products!(R, weights, x, steps)`: `R` tokens times one panel over `steps` steps; sums after the
/// first `R` are 0. A macro because a function that the
/// compiler leaves in place hands its sums over in memory.
///
/// To be used where the CPU has FEAT_DotProd, and `weights` and `x` point at `steps` steps, of `x`
/// with `R` tokens, rounded up to four, each.
macro_rules! products {
    ($r:ident, $weights:expr, $x:expr, $steps:expr) => {{
        let (weights, x) = ($weights, $x);
        let registers = $r.div_ceil(X_TOKENS);
        let mut acc = [[vdupq_n_s32(0); 2]; MR];
        for step in 0..$steps {
            let mut tokens = [vdupq_n_s8(0); MR / X_TOKENS];
            // SAFETY: the step is one of those that the user of the macro promises.
            let w = unsafe {
                let x = x.add(step * registers * X_TOKENS * K_GROUP);
                for (i, tokens) in tokens.iter_mut().enumerate().take(registers) {
                    *tokens = vld1q_s8(x.add(i * X_TOKENS * K_GROUP));
                }
                let w = weights.add(step * STEP_BYTES);
                [vld1q_s8(w), vld1q_s8(w.add(STEP_BYTES / 2))]
            };
            if $r > 0 {
                sdot!(acc[0][0], w[0], tokens[0], 0);
                sdot!(acc[0][1], w[1], tokens[0], 0);
            }
            if $r > 1 {
                sdot!(acc[1][0], w[0], tokens[0], 1);
                sdot!(acc[1][1], w[1], tokens[0], 1);
            }
            if $r > 2 {
                sdot!(acc[2][0], w[0], tokens[0], 2);
                sdot!(acc[2][1], w[1], tokens[0], 2);
            }
            if $r > 3 {
                sdot!(acc[3][0], w[0], tokens[0], 3);
                sdot!(acc[3][1], w[1], tokens[0], 3);
            }
            if $r > 4 {
                sdot!(acc[4][0], w[0], tokens[1], 0);
                sdot!(acc[4][1], w[1], tokens[1], 0);
            }
            if $r > 5 {
                sdot!(acc[5][0], w[0], tokens[1], 1);
                sdot!(acc[5][1], w[1], tokens[1], 1);
            }
            if $r > 6 {
                sdot!(acc[6][0], w[0], tokens[1], 2);
                sdot!(acc[6][1], w[1], tokens[1], 2);
            }
            if $r > 7 {
                sdot!(acc[7][0], w[0], tokens[1], 3);
                sdot!(acc[7][1], w[1], tokens[1], 3);
            }
            if $r > 8 {
                sdot!(acc[8][0], w[0], tokens[2], 0);
                sdot!(acc[8][1], w[1], tokens[2], 0);
            }
            if $r > 9 {
                sdot!(acc[9][0], w[0], tokens[2], 1);
                sdot!(acc[9][1], w[1], tokens[2], 1);
            }
            if $r > 10 {
                sdot!(acc[10][0], w[0], tokens[2], 2);
                sdot!(acc[10][1], w[1], tokens[2], 2);
            }
            if $r > 11 {
                sdot!(acc[11][0], w[0], tokens[2], 3);
                sdot!(acc[11][1], w[1], tokens[2], 3);
            }
        }
        acc
    }};
}

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
    // SAFETY: by the caller's promises.
    unsafe {
        match tile.lhs_scales.as_chunks::<R>().0 {
            _ if !tile.block_scales.is_empty() => by_blocks::<R>(tile, out, out_stride, store),
            scales if halves::fit::<R>(tile) => {
                let mut padded = [MaybeUninit::<[f32; MR]>::uninit(); GROUPS];
                let mut start = tile.lhs_scales.as_ptr();
                if R < MR {
                    for (padded, scales) in padded.iter_mut().zip(scales) {
                        padded.write([0.0; MR])[..R].copy_from_slice(scales);
                    }
                    start = padded.as_ptr().cast();
                }
                halves::tiles::<R>(tile, start, out, out_stride, store);
            }
            [scales] => in_one_go::<R>(tile, scales, out, out_stride, store),
            _ => by_groups::<R>(tile, out, out_stride, store),
        }
    }
}

/// A tile with one scale for each token: sums go from registers to `out`, and never meet totals.
///
/// # Safety
///
/// * As in [`tile_dotprod`].
#[target_feature(enable = "neon,dotprod")]
unsafe fn in_one_go<const R: usize>(
    tile: &Tile<'_>,
    scales: &[f32; R],
    out: *mut f32,
    out_stride: usize,
    store: Store,
) {
    let (x, steps) = (tile.lhs.as_ptr(), tile.k_padded / K_GROUP);
    for p in 0..tile.n_panels {
        let panel = panel_of(tile, p);
        // The panel is whole, the packed tokens have as many steps.
        let acc = products!(R, panel.cast::<i8>(), x, steps);
        // SAFETY: the panel is whole, row i of `out` holds eight values for it.
        unsafe {
            let out = out.add(p * PANEL_ROWS);
            let tail = TailQ::load(PanelTail::of(panel, tile.k_padded));
            for (i, (acc, scale)) in acc.into_iter().zip(scales).enumerate() {
                let total = add_scaled([vdupq_n_f32(0.0); 2], acc, *scale);
                tail.store(total, out.add(i * out_stride), store);
            }
        }
    }
}

/// A tile with several scales for each token that [`halves`] does not take.
///
/// # Safety
///
/// * As in [`tile_dotprod`].
#[target_feature(enable = "neon,dotprod")]
unsafe fn by_groups<const R: usize>(
    tile: &Tile<'_>,
    out: *mut f32,
    out_stride: usize,
    store: Store,
) {
    let group_steps = tile.group_len / K_GROUP;
    for p in 0..tile.n_panels {
        let mut totals = [[vdupq_n_f32(0.0); 2]; R];
        for (g, scales) in tile.lhs_scales.as_chunks::<R>().0.iter().enumerate() {
            // SAFETY: the steps of the group are inside the panel and the packed tokens.
            let acc = unsafe { range::<R>(tile, p, g * group_steps, group_steps) };
            for ((total, acc), scale) in totals.iter_mut().zip(acc).zip(scales) {
                *total = add_scaled(*total, acc, *scale);
            }
        }
        // SAFETY: by the caller's promises.
        unsafe { finish(tile, p, totals, out, out_stride, store) };
    }
}

/// A tile with block scales.
///
/// # Safety
///
/// * As in [`tile_dotprod`].
#[target_feature(enable = "neon,dotprod")]
unsafe fn by_blocks<const R: usize>(
    tile: &Tile<'_>,
    out: *mut f32,
    out_stride: usize,
    store: Store,
) {
    const STEPS: usize = BLOCK / K_GROUP;
    for p in 0..tile.n_panels {
        let mut totals = [[vdupq_n_f32(0.0); 2]; R];
        // SAFETY: the steps of the block are inside the panel and the packed tokens.
        add_blocks(tile, p, &mut totals, |b| unsafe {
            range::<R>(tile, p, b * STEPS, STEPS)
        });
        // SAFETY: by the caller's promises.
        unsafe { finish(tile, p, totals, out, out_stride, store) };
    }
}

/// Panel `p` of a tile.
#[inline(always)]
fn panel_of(tile: &Tile<'_>, p: usize) -> *const u8 {
    tile.panels.as_ptr().wrapping_add(p * tile.panel_stride())
}

/// Writes the totals of panel `p` of a tile.
///
/// # Safety
///
/// * As in [`Microkernel::tile`].
#[inline]
#[target_feature(enable = "neon")]
unsafe fn finish<const R: usize>(
    tile: &Tile<'_>,
    p: usize,
    totals: [[float32x4_t; 2]; R],
    out: *mut f32,
    out_stride: usize,
    store: Store,
) {
    // SAFETY: the panel is whole, row i of `out` holds eight values for it.
    unsafe {
        let out = out.add(p * PANEL_ROWS);
        let tail = TailQ::load(PanelTail::of(panel_of(tile, p), tile.k_padded));
        for (i, total) in totals.into_iter().enumerate() {
            tail.store(total, out.add(i * out_stride), store);
        }
    }
}

/// [`products!`] over the steps `first..first + n_steps` of panel `p` of a tile.
///
/// # Safety
///
/// * The CPU has FEAT_DotProd; the steps are inside the panel and the packed tokens.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn range<const R: usize>(
    tile: &Tile<'_>,
    p: usize,
    first: usize,
    n_steps: usize,
) -> [[int32x4_t; 2]; MR] {
    let places = R.next_multiple_of(X_TOKENS);
    // SAFETY: by the caller's promise.
    let (weights, x) = unsafe {
        (
            panel_of(tile, p).add(first * STEP_BYTES),
            tile.lhs.as_ptr().add(first * places * K_GROUP),
        )
    };
    products!(R, weights.cast::<i8>(), x, n_steps)
}
