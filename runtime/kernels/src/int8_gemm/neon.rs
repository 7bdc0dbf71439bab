//! Baseline NEON (Cortex-A53, A57, A72: no SDOT): up to 4 tokens × 1 panel, SMULL, SMLAL2, SADALP.
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
//!   16 accumulators + 4 weights + 1 token + products in 32 registers
//! ```
//!
//! Two products fit 16 bits because weights exclude -128: 2 · 128 · 127 = 32512.
//!
//! Four tokens have their loop in assembly, because the in-order cores run it as written.

use std::arch::aarch64::*;

use super::epilogue::TailQ;
use super::{Microkernel, Tile, with_rows};
use crate::int4_panels::BLOCK;
use crate::linear::Store;
use crate::panels::{K_GROUP, PANEL_ROWS, PanelTail, STEP_BYTES};

const MR: usize = 4;
const NR: usize = PANEL_ROWS;
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
        "aarch64-qd8qc8w-neon-4x8"
    }
    fn mr(&self) -> usize {
        MR
    }
    fn nr(&self) -> usize {
        NR
    }
    fn lhs_bytes(&self, rows: usize, k_padded: usize) -> usize {
        rows * TOKEN_BYTES * (k_padded / K_STEP)
    }
    fn pack_lhs(&self, rows: &[i8], k_padded: usize, out: &mut [i8]) {
        let n_rows = rows.len() / k_padded;
        debug_assert_eq!(out.len(), self.lhs_bytes(n_rows, k_padded));
        for (i, row) in rows.chunks_exact(k_padded).enumerate() {
            let steps = row.as_chunks::<K_STEP>().0;
            for (values, out) in steps.iter().zip(out.chunks_exact_mut(n_rows * TOKEN_BYTES)) {
                let [a0, a1, a2, a3, b0, b1, b2, b3] = *values;
                let doubled = [
                    a0, a1, a2, a3, a0, a1, a2, a3, b0, b1, b2, b3, b0, b1, b2, b3,
                ];
                out[i * TOKEN_BYTES..][..TOKEN_BYTES].copy_from_slice(&doubled);
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
    unsafe fn tile(&self, tile: &Tile<'_>, out: *mut f32, out_stride: usize, store: Store) {
        tile.debug_check(self);
        // SAFETY: NEON is baseline; the rest is the caller's contract.
        unsafe {
            with_rows!(tile.rows, R in [1, 2, 3, 4] => tile_neon::<R>(tile, out, out_stride, store));
        }
    }
}

/// # Safety
///
/// * The tile has `R` tokens; the rest as in [`Microkernel::tile`].
#[target_feature(enable = "neon")]
unsafe fn tile_neon<const R: usize>(
    tile: &Tile<'_>,
    out: *mut f32,
    out_stride: usize,
    store: Store,
) {
    let panel = tile.panels.as_ptr();
    let group_steps = tile.group_len / K_STEP;

    let mut totals = [[vdupq_n_f32(0.0); 2]; R];
    let mut groups = tile.lhs_scales.as_chunks::<R>().0;
    if !tile.block_scales.is_empty() {
        // SAFETY: the steps of the block are inside the panel and the packed tokens.
        add_blocks(tile, &mut totals, |b| unsafe {
            let weights = panel.add(b * BLOCK * PANEL_ROWS);
            let x = tile.lhs.as_ptr().add(b * BLOCK / K_STEP * R * TOKEN_BYTES);
            products::<R>(weights, x, BLOCK / K_STEP).map(|acc| sum_rows(acc))
        });
        groups = &[];
    }
    for (g, scales) in groups.iter().enumerate() {
        let first = g * group_steps;
        // SAFETY: the steps of the group are inside the panel and the packed tokens; the tail of
        // the panel follows.
        let acc = unsafe {
            let weights = panel.add(first * 2 * STEP_BYTES);
            let x = tile.lhs.as_ptr().add(first * R * TOKEN_BYTES);
            products::<R>(weights, x, group_steps)
        };
        for ((total, acc), scale) in totals.iter_mut().zip(acc).zip(scales) {
            *total = add_scaled(*total, sum_rows(acc), *scale);
        }
    }
    // SAFETY: the panel is whole, row i of `out` holds eight values.
    unsafe {
        let tail = TailQ::load(PanelTail::of(panel, tile.k_padded));
        for (i, total) in totals.into_iter().enumerate() {
            tail.store(total, out.add(i * out_stride), store);
        }
    }
}

/// `R` tokens times one panel over `steps` inner steps, at least one.
///
/// # Safety
///
/// * `weights` and `x` point at `steps` inner steps, of `x` with `R` tokens each; 64 bytes after
///   the weights are readable.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn products<const R: usize>(
    weights: *const u8,
    x: *const i8,
    steps: usize,
) -> [[int32x4_t; 4]; R] {
    let mut acc = [[vdupq_n_s32(0); 4]; R];
    if R == MR {
        // SAFETY: by the caller's promises.
        let four = unsafe { products_4(weights, x, steps) };
        acc.copy_from_slice(&four);
        return acc;
    }
    for step in 0..steps {
        // SAFETY: the step is one of `steps`, 64 bytes of weights and 16 of each token.
        unsafe {
            let weights = load_weights(weights.add(step * 2 * STEP_BYTES));
            for (i, acc) in acc.iter_mut().enumerate() {
                let x = vld1q_s8(x.add((step * R + i) * TOKEN_BYTES));
                for (acc, w) in acc.iter_mut().zip(weights) {
                    *acc = add_products(*acc, w, x);
                }
            }
        }
    }
    acc
}

/// [`products`] for four tokens.
///
/// ```text
///   v0..v3 tokens   v4, v5 weights, in turns   v6..v9 products, in turns   v16..v31 accumulators
/// ```
///
/// Product i of the sixteen of a turn, token i % 4 and weights i / 4, has its SMULL at place 3i of
/// the 48 vector instructions, its SMLAL2 four and its SADALP eleven places later, those of the last
/// in the next turn. An A53 issues one of them a cycle. Its path from the first cache takes two cycles
/// for 128 bits and pairs with none of them, but LDR of a D register pairs with INS, and LDR of an X
/// register with the vector instruction before it: a register of weights or tokens costs one cycle.
///
/// # Safety
///
/// * As in [`products`], `steps` at least 1.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn products_4(weights: *const u8, x: *const i8, steps: usize) -> [[int32x4_t; 4]; 4] {
    debug_assert!(steps > 0);
    let mut acc = [[vdupq_n_s32(0); 4]; 4];
    // SAFETY: the loop runs `steps` times over 64 bytes of weights and of tokens each. Ahead of
    // itself it loads 40 bytes of weights, which the caller promises, and tokens of the next turn,
    // of which the last turn has none and loads its own again.
    unsafe {
        std::arch::asm!(
            "ldr d4, [{w}]",
            "ldr {a}, [{w}, #32]",
            "ldr q0, [{x}]",
            "ldr d1, [{x}, #16]",
            "ldr {b}, [{x}, #24]",
            // The end of a turn before the first, which adds nothing.
            "movi v3.4s, #0",
            "movi v7.4s, #0",
            "movi v8.4s, #0",
            "movi v9.4s, #0",
            "movi v16.4s, #0",
            "movi v17.4s, #0",
            "movi v18.4s, #0",
            "movi v19.4s, #0",
            "movi v20.4s, #0",
            "movi v21.4s, #0",
            "movi v22.4s, #0",
            "movi v23.4s, #0",
            "movi v24.4s, #0",
            "movi v25.4s, #0",
            "movi v26.4s, #0",
            "movi v27.4s, #0",
            "movi v28.4s, #0",
            "movi v29.4s, #0",
            "movi v30.4s, #0",
            "movi v31.4s, #0",
            "ins v4.d[1], {a}",
            "2:",
            "ldr d2, [{x}, #32]",
            "ins v1.d[1], {b}",
            "smull v6.8h, v4.8b, v0.8b",
            "ldr {a}, [{x}, #40]",
            "smlal2 v9.8h, v5.16b, v3.16b",
            "sadalp v23.4s, v7.8h",
            "ldr d3, [{x}, #48]",
            "ins v2.d[1], {a}",
            "smull v7.8h, v4.8b, v1.8b",
            "ldr {b}, [{x}, #56]",
            "smlal2 v6.8h, v4.16b, v0.16b",
            "sadalp v27.4s, v8.8h",
            "smull v8.8h, v4.8b, v2.8b",
            "ldr d5, [{w}, #8]",
            "ins v3.d[1], {b}",
            "smlal2 v7.8h, v4.16b, v1.16b",
            "ldr {a}, [{w}, #40]",
            "sadalp v31.4s, v9.8h",
            "smull v9.8h, v4.8b, v3.8b",
            "smlal2 v8.8h, v4.16b, v2.16b",
            "sadalp v16.4s, v6.8h",
            "smull v6.8h, v5.8b, v0.8b",
            "smlal2 v9.8h, v4.16b, v3.16b",
            "ldr d4, [{w}, #16]",
            "ins v5.d[1], {a}",
            "sadalp v20.4s, v7.8h",
            "ldr {b}, [{w}, #48]",
            "smull v7.8h, v5.8b, v1.8b",
            "smlal2 v6.8h, v5.16b, v0.16b",
            "sadalp v24.4s, v8.8h",
            "smull v8.8h, v5.8b, v2.8b",
            "smlal2 v7.8h, v5.16b, v1.16b",
            "sadalp v28.4s, v9.8h",
            "smull v9.8h, v5.8b, v3.8b",
            "smlal2 v8.8h, v5.16b, v2.16b",
            "sadalp v17.4s, v6.8h",
            "smull v6.8h, v4.8b, v0.8b",
            "smlal2 v9.8h, v5.16b, v3.16b",
            "ldr d5, [{w}, #24]",
            "ins v4.d[1], {b}",
            "sadalp v21.4s, v7.8h",
            "ldr {a}, [{w}, #56]",
            "smull v7.8h, v4.8b, v1.8b",
            "smlal2 v6.8h, v4.16b, v0.16b",
            "sadalp v25.4s, v8.8h",
            "smull v8.8h, v4.8b, v2.8b",
            "add {w}, {w}, #64",
            "smlal2 v7.8h, v4.16b, v1.16b",
            "subs {count}, {count}, #1",
            "sadalp v29.4s, v9.8h",
            "csel {advance}, {bytes}, xzr, ne",
            "smull v9.8h, v4.8b, v3.8b",
            "smlal2 v8.8h, v4.16b, v2.16b",
            "add {x}, {x}, {advance}",
            "sadalp v18.4s, v6.8h",
            "smull v6.8h, v5.8b, v0.8b",
            "smlal2 v9.8h, v4.16b, v3.16b",
            "ldr d4, [{w}]",
            "ins v5.d[1], {a}",
            "sadalp v22.4s, v7.8h",
            "ldr {b}, [{w}, #32]",
            "smull v7.8h, v5.8b, v1.8b",
            "smlal2 v6.8h, v5.16b, v0.16b",
            "sadalp v26.4s, v8.8h",
            "ldr d0, [{x}]",
            "ins v4.d[1], {b}",
            "smull v8.8h, v5.8b, v2.8b",
            "ldr {a}, [{x}, #8]",
            "smlal2 v7.8h, v5.16b, v1.16b",
            "sadalp v30.4s, v9.8h",
            "ldr d1, [{x}, #16]",
            "ins v0.d[1], {a}",
            "smull v9.8h, v5.8b, v3.8b",
            "ldr {b}, [{x}, #24]",
            "smlal2 v8.8h, v5.16b, v2.16b",
            "sadalp v19.4s, v6.8h",
            "b.ne 2b",
            "smlal2 v9.8h, v5.16b, v3.16b",
            "sadalp v23.4s, v7.8h",
            "sadalp v27.4s, v8.8h",
            "sadalp v31.4s, v9.8h",
            w = inout(reg) weights => _,
            x = inout(reg) x => _,
            count = inout(reg) steps => _,
            bytes = in(reg) 4 * TOKEN_BYTES,
            advance = out(reg) _,
            a = out(reg) _,
            b = out(reg) _,
            out("v16") acc[0][0],
            out("v17") acc[0][1],
            out("v18") acc[0][2],
            out("v19") acc[0][3],
            out("v20") acc[1][0],
            out("v21") acc[1][1],
            out("v22") acc[1][2],
            out("v23") acc[1][3],
            out("v24") acc[2][0],
            out("v25") acc[2][1],
            out("v26") acc[2][2],
            out("v27") acc[2][3],
            out("v28") acc[3][0],
            out("v29") acc[3][1],
            out("v30") acc[3][2],
            out("v31") acc[3][3],
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _, out("v8") _, out("v9") _,
            options(readonly, nostack),
        );
    }
    acc
}

/// The totals of `R` tokens and one panel with block scales; `products` gives the sums of a block.
#[inline(always)]
pub(crate) fn add_blocks<const R: usize, const P: usize>(
    tile: &Tile<'_>,
    totals: &mut [[float32x4_t; 2]; R],
    products: impl Fn(usize) -> [[int32x4_t; 2]; P],
) {
    let blocks_per_group = tile.group_len / BLOCK;
    for (g, sx) in tile.lhs_scales.as_chunks::<R>().0.iter().enumerate() {
        let first = g * blocks_per_group;
        // SAFETY: NEON is baseline; a block has eight scales.
        unsafe {
            let mut sums = [[vdupq_n_f32(0.0); 2]; R];
            let scales = &tile.scales_of_panel(0)[first..][..blocks_per_group];
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

/// The low (`trn1`) or high (`trn2`) halves of two registers side by side. Inline assembly because
/// the optimiser would see through the intrinsic and extract the halves again for each token.
macro_rules! trn {
    ($instruction:literal, $a:expr, $b:expr) => {{
        let joined: int8x16_t;
        // SAFETY: touches registers only; NEON is baseline.
        unsafe {
            std::arch::asm!(
                concat!($instruction, " {joined:v}.2d, {a:v}.2d, {b:v}.2d"),
                joined = lateout(vreg) joined, a = in(vreg) $a, b = in(vreg) $b,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        joined
    }};
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
    [
        trn!("trn1", a0, b0),
        trn!("trn2", a0, b0),
        trn!("trn1", a1, b1),
        trn!("trn2", a1, b1),
    ]
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
