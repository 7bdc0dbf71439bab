//! Baseline NEON (Cortex-A53, A57, A72: no SDOT): 4 tokens × 1 panel, SMULL, SMLAL2, SADALP.
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

use std::arch::aarch64::*;

use super::{Microkernel, Tile, epilogue};
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
    fn lhs_bytes(&self, k_padded: usize) -> usize {
        MR * TOKEN_BYTES * (k_padded / K_STEP)
    }
    fn pack_lhs(&self, rows: &[i8], k_padded: usize, out: &mut [i8]) {
        debug_assert!(rows.len() <= MR * k_padded && rows.len().is_multiple_of(k_padded));
        debug_assert_eq!(out.len(), self.lhs_bytes(k_padded));
        for (i, row) in rows.chunks_exact(k_padded).enumerate() {
            let steps = row.as_chunks::<K_STEP>().0;
            for (values, out) in steps.iter().zip(out.chunks_exact_mut(MR * TOKEN_BYTES)) {
                let [a0, a1, a2, a3, b0, b1, b2, b3] = *values;
                let doubled = [
                    a0, a1, a2, a3, a0, a1, a2, a3, b0, b1, b2, b3, b0, b1, b2, b3,
                ];
                out[i * TOKEN_BYTES..][..TOKEN_BYTES].copy_from_slice(&doubled);
            }
        }
    }
    unsafe fn tile(&self, tile: &Tile<'_>, out: *mut f32, out_stride: usize, store: Store) {
        tile.debug_check(self);
        // SAFETY: NEON is baseline; the rest is the caller's contract.
        unsafe { tile_neon(tile, out, out_stride, store) }
    }
}

/// # Safety
///
/// * As in [`Microkernel::tile`].
#[target_feature(enable = "neon")]
unsafe fn tile_neon(tile: &Tile<'_>, out: *mut f32, out_stride: usize, store: Store) {
    let panel = tile.panels.as_ptr();
    let lhs = tile.lhs.as_ptr();
    let group_steps = tile.group_len / K_STEP;

    let mut totals = [[vdupq_n_f32(0.0); 2]; MR];
    for (g, scales) in tile.lhs_scales.chunks_exact(MR).enumerate() {
        let mut acc = [[vdupq_n_s32(0); 4]; MR];
        for step in g * group_steps..(g + 1) * group_steps {
            // SAFETY: two panel steps of 32 bytes are inside the panel.
            let weights = unsafe { load_weights(panel.add(step * 2 * STEP_BYTES)) };
            for (i, acc) in acc.iter_mut().enumerate() {
                // SAFETY: the packed tokens hold MR times 16 bytes per inner step.
                let x = unsafe { vld1q_s8(lhs.add((step * MR + i) * TOKEN_BYTES)) };
                for (acc, w) in acc.iter_mut().zip(weights) {
                    *acc = add_products(*acc, w, x);
                }
            }
        }
        for (i, (totals, acc)) in totals.iter_mut().zip(acc).enumerate() {
            let scale = vdupq_n_f32(scales[i]);
            let rows = sum_rows(acc);
            totals[0] = vfmaq_f32(totals[0], vcvtq_f32_s32(rows[0]), scale);
            totals[1] = vfmaq_f32(totals[1], vcvtq_f32_s32(rows[1]), scale);
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
