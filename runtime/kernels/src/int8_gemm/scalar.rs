//! The definition: what every other GEMM kernel must compute, bit for bit, in plain Rust.

use super::{Microkernel, Tile};
use crate::int4_panels::BLOCK;
use crate::linear::Store;
use crate::panels::{K_GROUP, PANEL_ROWS, PanelTail, STEP_BYTES};

struct Scalar;

pub(super) fn probe() -> Option<&'static dyn Microkernel> {
    Some(&Scalar)
}

// SAFETY: plain Rust, no instruction beyond the baseline of the target.
unsafe impl Microkernel for Scalar {
    fn name(&self) -> &'static str {
        "scalar-qd8qc8w-1x8"
    }
    fn mr(&self) -> usize {
        1
    }
    fn nr(&self) -> usize {
        PANEL_ROWS
    }
    fn run_in_registers(&self, turns: u64) -> u64 {
        let mut acc = 0_i32;
        for turn in 0..turns {
            let (x, w) = std::hint::black_box((turn as i8, 3_i8));
            acc = acc.wrapping_add(i32::from(x) * i32::from(w));
        }
        std::hint::black_box(acc);
        turns
    }
    unsafe fn tile(&self, tile: &Tile<'_>, out: *mut f32, _out_stride: usize, store: Store) {
        tile.debug_check(self);
        // SAFETY: the panel is whole and aligned, and the row of `out` is writable and for `Add`
        // initialised, by the caller's contract.
        unsafe {
            let tail = PanelTail::of(tile.panels.as_ptr(), tile.k_padded);
            for r in 0..PANEL_ROWS {
                let total = if tile.block_scales.is_empty() {
                    dot(tile.lhs, tile.lhs_scales, tile.panels, r, tile.group_len)
                } else {
                    dot_blocks(tile, r)
                };
                let value = total.mul_add(*tail.scales().add(r), *tail.biases().add(r));
                match store {
                    Store::Overwrite => *out.add(r) = value,
                    Store::Add => *out.add(r) += value,
                }
            }
        }
    }
}

/// `Σ_g f32(Σ_k x[k] · w[r][k]) · sx[g]`: one token times row `r` of one panel.
pub(crate) fn dot(x: &[i8], scales: &[f32], panel: &[u8], r: usize, group_len: usize) -> f32 {
    let mut total = 0.0;
    for (g, (x, scale)) in x.chunks_exact(group_len.max(1)).zip(scales).enumerate() {
        let mut acc = 0_i32;
        for (step, x) in x.chunks_exact(K_GROUP).enumerate() {
            let step = g * group_len / K_GROUP + step;
            let w = &panel[step * STEP_BYTES + r * K_GROUP..][..K_GROUP];
            for (x, w) in x.iter().zip(w) {
                acc += i32::from(*x) * i32::from(*w as i8);
            }
        }
        total = (acc as f32).mul_add(*scale, total);
    }
    total
}

/// [`dot`] with block scales: `Σ_g (Σ_b f32(Σ_k x[k] · w[r][k]) · sw[b][r]) · sx[g]`.
fn dot_blocks(tile: &Tile<'_>, r: usize) -> f32 {
    let mut total = 0.0;
    let blocks_per_group = tile.group_len / BLOCK;
    let scales = tile.scales_of_panel(0).chunks_exact(blocks_per_group);
    for (g, (sx, scales)) in tile.lhs_scales.iter().zip(scales).enumerate() {
        let mut sum = 0.0;
        for (b, sw) in scales.iter().enumerate() {
            let block = g * blocks_per_group + b;
            let x = &tile.lhs[block * BLOCK..][..BLOCK];
            let w = &tile.panels[block * BLOCK * PANEL_ROWS..];
            sum = dot(x, &[1.0], w, r, BLOCK).mul_add(sw[r], sum);
        }
        total = sum.mul_add(*sx, total);
    }
    total
}
