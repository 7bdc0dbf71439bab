//! Baseline NEON (Cortex-A53, A57, A72: no SDOT): up to 5 tokens × 1 panel, 4 tokens where they
//! have several scales, SMULL, SMLAL2, SADALP.
//!
//! Two steps of weights, A and B, are regrouped so that both halves of a register meet their own k:
//!
//! ```text
//!   step A: rows 0 1 │ 2 3   rows 4 5 │ 6 7        TRN1/TRN2 (64 bit):   t0 = rows 0 1 of A │ of B
//!   step B: rows 0 1 │ 2 3   rows 4 5 │ 6 7   ──▶                        t1 = rows 2 3 of A │ of B
//!                                                                        t2, t3: rows 4..8
//!   packed token            x  =  A A │ B B      (A: four values of step A)
//!
//!   SMULL   p  = t.low · x.low        8 × i16:  one row │ next row, k of A
//!   SMLAL2  p += t.high · x.high                                    + k of B
//!   SADALP  acc += pairs of p         4 × i32:  two partial sums per row
//!
//!   20 accumulators + 4 weights + 4 tokens + 4 products in 32 registers, or
//!   16 accumulators + 2 weights + 4 tokens + 4 products + 6 of 8 totals
//! ```
//!
//! Two products fit 16 bits because weights exclude -128: 2 · 128 · 127 = 32512.
//!
//! Four and five tokens are in assembly, because the in-order cores run it as written. With int4
//! weights the eight products of a block that meet in a place fit 16 bits, and are added up there.

mod five;
mod four;

use std::arch::aarch64::*;

use super::epilogue::TailQ;
use super::{Microkernel, Tile, with_rows};
use crate::int4_panels::BLOCK;
use crate::linear::Store;
use crate::panels::{K_GROUP, PANEL_ROWS, PanelTail, STEP_BYTES, panel_stride};

/// `join!("trn1", "2d", a, b)`: the low (`trn1`) or high (`trn2`) halves of two registers side by
/// side, and other instructions of that kind. Inline assembly because the optimiser would see
/// through the intrinsic: it extracts the halves again for each token, and stores doubled words by
/// ST2, which small cores do slowly.
macro_rules! join {
    ($instruction:literal, $parts:literal, $a:expr, $b:expr) => {{
        let joined: int8x16_t;
        std::arch::asm!(
            concat!($instruction, " {joined:v}.", $parts, ", {a:v}.", $parts, ", {b:v}.", $parts),
            joined = lateout(vreg) joined, a = in(vreg) $a, b = in(vreg) $b,
            options(pure, nomem, nostack, preserves_flags),
        );
        joined
    }};
}

const MR: usize = five::TOKENS;
/// Most tokens that have several scales each.
const GROUPED_MR: usize = four::TOKENS;
/// Three panels a call, for the way there.
const NR: usize = 3 * PANEL_ROWS;
/// Bytes of the panels of a call, of a first cache of 32 kB.
const CALL_BYTES: usize = 20 * 1024;
/// Values of k per inner step: A and B.
const K_STEP: usize = 2 * K_GROUP;
/// Bytes of one packed token per inner step.
const TOKEN_BYTES: usize = 16;

struct Neon;

pub(super) fn probe() -> Option<&'static dyn Microkernel> {
    Some(&Neon)
}

// SAFETY: NEON is part of the baseline of every aarch64 target this crate is built for.
unsafe impl Microkernel for Neon {
    fn name(&self) -> &'static str {
        "aarch64-qd8qc8w-neon-5x24"
    }
    fn mr(&self) -> usize {
        MR
    }
    fn grouped_mr(&self) -> usize {
        GROUPED_MR
    }
    fn nr(&self) -> usize {
        NR
    }
    fn panels_at_once(&self, k_padded: usize) -> usize {
        (CALL_BYTES / panel_stride(k_padded)).clamp(1, NR / PANEL_ROWS)
    }
    fn lhs_bytes(&self, rows: usize, k_padded: usize) -> usize {
        rows * TOKEN_BYTES * (k_padded / K_STEP)
    }
    fn pack_lhs(&self, rows: &[i8], k_padded: usize, out: &mut [i8]) {
        let n_rows = rows.len() / k_padded;
        assert!(k_padded.is_multiple_of(2 * K_STEP) && rows.len() == n_rows * k_padded);
        assert_eq!(out.len(), self.lhs_bytes(n_rows, k_padded));
        let stride = n_rows * TOKEN_BYTES;
        for (i, row) in rows.chunks_exact(k_padded).enumerate() {
            let mut to = out[i * TOKEN_BYTES..].as_mut_ptr();
            for values in row.as_chunks::<{ 2 * K_STEP }>().0 {
                // SAFETY: NEON is baseline; `out` holds 16 bytes of each token for every step.
                unsafe {
                    let x = vld1q_s8(values.as_ptr());
                    vst1q_s8(to, join!("zip1", "4s", x, x));
                    vst1q_s8(to.add(stride), join!("zip2", "4s", x, x));
                }
                to = to.wrapping_add(2 * stride);
            }
        }
    }
    fn run_in_registers(&self, turns: u64) -> u64 {
        const PRODUCTS: u64 = 8 * 16;
        if turns > 0 {
            // SAFETY: touches registers only; NEON is baseline.
            unsafe {
                std::arch::asm!(
                    "2:",
                    "smull v0.8h, v30.8b, v31.8b",
                    "smull v1.8h, v30.8b, v31.8b",
                    "smull v2.8h, v30.8b, v31.8b",
                    "smull v3.8h, v30.8b, v31.8b",
                    "smull v4.8h, v30.8b, v31.8b",
                    "smull v5.8h, v30.8b, v31.8b",
                    "smull v6.8h, v30.8b, v31.8b",
                    "smull v7.8h, v30.8b, v31.8b",
                    "smlal2 v0.8h, v30.16b, v31.16b",
                    "smlal2 v1.8h, v30.16b, v31.16b",
                    "smlal2 v2.8h, v30.16b, v31.16b",
                    "smlal2 v3.8h, v30.16b, v31.16b",
                    "smlal2 v4.8h, v30.16b, v31.16b",
                    "smlal2 v5.8h, v30.16b, v31.16b",
                    "smlal2 v6.8h, v30.16b, v31.16b",
                    "smlal2 v7.8h, v30.16b, v31.16b",
                    "sadalp v8.4s, v0.8h",
                    "sadalp v9.4s, v1.8h",
                    "sadalp v10.4s, v2.8h",
                    "sadalp v11.4s, v3.8h",
                    "sadalp v12.4s, v4.8h",
                    "sadalp v13.4s, v5.8h",
                    "sadalp v14.4s, v6.8h",
                    "sadalp v15.4s, v7.8h",
                    "subs {turns}, {turns}, #1",
                    "b.ne 2b",
                    turns = inout(reg) turns => _,
                    out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _, out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v12") _, out("v13") _, out("v14") _, out("v15") _,
                    options(nomem, nostack),
                );
            }
        }
        turns * PRODUCTS
    }
    unsafe fn tiles(&self, tile: &Tile<'_>, out: *mut f32, out_stride: usize, store: Store) {
        // SAFETY: NEON is baseline; the rest is the caller's contract.
        unsafe {
            match tile.rows {
                five::TOKENS if tile.block_scales.is_empty() => {
                    five::tile(tile, out, out_stride, store);
                }
                four::TOKENS if tile.block_scales.is_empty() => {
                    four::tile(tile, out, out_stride, store);
                }
                _ => with_rows!(
                    tile.rows,
                    R in [1, 2, 3, 4, 5] => tile_neon::<R>(tile, out, out_stride, store)
                ),
            }
        }
    }
    unsafe fn tile(&self, tile: &Tile<'_>, out: *mut f32, out_stride: usize, store: Store) {
        tile.debug_check(self);
        // SAFETY: by the caller's promise.
        unsafe { self.tiles(tile, out, out_stride, store) };
    }
}

/// Fewer than four tokens, or block scales.
///
/// # Safety
///
/// * The tile has `R` tokens; the rest as in [`Microkernel::tiles`].
#[inline(never)]
#[target_feature(enable = "neon")]
unsafe fn tile_neon<const R: usize>(
    tile: &Tile<'_>,
    out: *mut f32,
    out_stride: usize,
    store: Store,
) {
    let stride = tile.panel_stride();
    for p in 0..tile.n_panels {
        // SAFETY: the panel is whole, row i of `out` holds eight values for it.
        unsafe {
            let panel = tile.panels.as_ptr().add(p * stride);
            let mut totals = [[vdupq_n_f32(0.0); 2]; R];
            if tile.block_scales.is_empty() {
                totals = few::<R>(tile, panel);
            } else {
                add_blocks(tile, p, &mut totals, |b| {
                    let weights = panel.add(b * BLOCK * PANEL_ROWS);
                    let x = tile.lhs.as_ptr().add(b * BLOCK / K_STEP * R * TOKEN_BYTES);
                    int4_products::<R>(weights, x)
                });
            }
            let tail = TailQ::load(PanelTail::of(panel, tile.k_padded));
            let out = out.add(p * PANEL_ROWS);
            for (i, total) in totals.into_iter().enumerate() {
                tail.store(total, out.add(i * out_stride), store);
            }
        }
    }
}

/// The totals of fewer than four tokens and one panel.
///
/// # Safety
///
/// * The tile has `R` tokens and no block scales, and is consistent.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn few<const R: usize>(tile: &Tile<'_>, panel: *const u8) -> [[float32x4_t; 2]; R] {
    let group_steps = tile.group_len / K_STEP;
    let mut totals = [[vdupq_n_f32(0.0); 2]; R];
    for (g, scales) in tile.lhs_scales.as_chunks::<R>().0.iter().enumerate() {
        let first = g * group_steps;
        let mut acc = [[vdupq_n_s32(0); 4]; R];
        for step in first..first + group_steps {
            // SAFETY: the step is inside the panel and the packed tokens, 64 bytes of weights and
            // 16 of each token.
            unsafe {
                let weights = load_weights(panel.add(step * 2 * STEP_BYTES));
                for (i, acc) in acc.iter_mut().enumerate() {
                    let x = vld1q_s8(tile.lhs.as_ptr().add((step * R + i) * TOKEN_BYTES));
                    for (acc, w) in acc.iter_mut().zip(weights) {
                        *acc = add_products(*acc, w, x);
                    }
                }
            }
        }
        for ((total, acc), scale) in totals.iter_mut().zip(acc).zip(scales) {
            *total = add_scaled(*total, sum_rows(acc), *scale);
        }
    }
    totals
}

/// The sums of `R` tokens times a block of one panel, whose weights are those of 4 bits: the eight
/// products that meet in a place stay within 8 · 128 · 8 = 8192, two places within 16 bits.
///
/// # Safety
///
/// * `weights` and `x` point at the block, of `x` with `R` tokens.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn int4_products<const R: usize>(weights: *const u8, x: *const i8) -> [[int32x4_t; 2]; R] {
    let mut acc = [[vdupq_n_s16(0); 4]; R];
    for step in 0..BLOCK / K_STEP {
        // SAFETY: the step is inside the block, 64 bytes of weights and 16 of each token.
        unsafe {
            let weights = load_weights(weights.add(step * 2 * STEP_BYTES));
            for (i, acc) in acc.iter_mut().enumerate() {
                let x = vld1q_s8(x.add((step * R + i) * TOKEN_BYTES));
                for (acc, w) in acc.iter_mut().zip(weights) {
                    *acc = vmlal_s8(*acc, vget_low_s8(w), vget_low_s8(x));
                    *acc = vmlal_high_s8(*acc, w, x);
                }
            }
        }
    }
    acc.map(|acc| {
        [
            vpaddlq_s16(vpaddq_s16(acc[0], acc[1])),
            vpaddlq_s16(vpaddq_s16(acc[2], acc[3])),
        ]
    })
}

/// The totals of `R` tokens and a panel with block scales; `products` gives the sums of a block.
#[inline(always)]
pub(crate) fn add_blocks<const R: usize, const P: usize>(
    tile: &Tile<'_>,
    panel: usize,
    totals: &mut [[float32x4_t; 2]; R],
    products: impl Fn(usize) -> [[int32x4_t; 2]; P],
) {
    let blocks_per_group = tile.group_len / BLOCK;
    for (g, sx) in tile.lhs_scales.as_chunks::<R>().0.iter().enumerate() {
        let first = g * blocks_per_group;
        // SAFETY: NEON is baseline; a block has eight scales.
        unsafe {
            let mut sums = [[vdupq_n_f32(0.0); 2]; R];
            let scales = &tile.scales_of_panel(panel)[first..][..blocks_per_group];
            for (b, sw) in (first..).zip(scales) {
                let sw = [vld1q_f32(sw.as_ptr()), vld1q_f32(sw.as_ptr().add(4))];
                for (sum, acc) in sums.iter_mut().zip(products(b)) {
                    for half in 0..2 {
                        sum[half] = vfmaq_f32(sum[half], vcvtq_f32_s32(acc[half]), sw[half]);
                    }
                }
            }
            for ((total, sum), sx) in totals.iter_mut().zip(sums).zip(sx) {
                for half in 0..2 {
                    total[half] = vfmaq_f32(total[half], sum[half], vdupq_n_f32(*sx));
                }
            }
        }
    }
}

/// `total + acc · scale`, rounded once.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn add_scaled(
    total: [float32x4_t; 2],
    acc: [int32x4_t; 2],
    scale: f32,
) -> [float32x4_t; 2] {
    let scale = vdupq_n_f32(scale);
    [
        vfmaq_f32(total[0], vcvtq_f32_s32(acc[0]), scale),
        vfmaq_f32(total[1], vcvtq_f32_s32(acc[1]), scale),
    ]
}

/// Loads two steps of a panel and regroups them by pairs of rows.
///
/// # Safety
///
/// * 64 bytes are readable.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) unsafe fn load_weights(from: *const u8) -> [int8x16_t; 4] {
    // SAFETY: by the caller's promise.
    let [a0, a1, b0, b1] = unsafe {
        let from = from.cast::<i8>();
        [
            vld1q_s8(from),
            vld1q_s8(from.add(16)),
            vld1q_s8(from.add(32)),
            vld1q_s8(from.add(48)),
        ]
    };
    // SAFETY: registers only.
    unsafe {
        [
            join!("trn1", "2d", a0, b0),
            join!("trn2", "2d", a0, b0),
            join!("trn1", "2d", a1, b1),
            join!("trn2", "2d", a1, b1),
        ]
    }
}

/// Adds the products of two rows and eight k.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn add_products(acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    let products = vmull_s8(vget_low_s8(w), vget_low_s8(x));
    vpadalq_s16(acc, vmlal_high_s8(products, w, x))
}

/// Adds the two partial sums of each row: rows 0..4, rows 4..8.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn sum_rows(acc: [int32x4_t; 4]) -> [int32x4_t; 2] {
    [vpaddq_s32(acc[0], acc[1]), vpaddq_s32(acc[2], acc[3])]
}
