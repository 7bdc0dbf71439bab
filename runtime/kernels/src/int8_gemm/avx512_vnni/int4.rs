//! The tile of int4 weights, taken as they are stored: up to 12 tokens × 2 panels at a time.
//!
//! ```text
//!                          zmm: panel 0 │ panel 1
//!   one step of a block    r0 r1 … r7   │ r0 … r7      low halves: k = 4s …, high halves: k = 16 + 4s …
//!   token i, low halves    acc[i] += (w + 8) · x[4s..4s+4]
//!   token i, high halves   acc[i] += (w + 8) · x[16+4s..16+4s+4]
//!   after 4 steps          u[i] = fma(f32(acc[i]), scales, u[i])
//!
//!   12 accumulators + 12 sums of blocks + weights and broadcasts in 32 registers
//! ```
//!
//! Four panels side by side as with int8 weights would keep 24 sums of blocks in memory, which every
//! block loads and stores. Each accumulator starts at `-8 · Σ x`, which takes the excess away again.

use std::arch::x86_64::*;

use super::{PAIR, load_pair};
use crate::int4_panels::{BLOCK, BLOCK_BYTES, BLOCK_WEIGHTS, int4_panel_stride};
use crate::int8_gemm::Tile;
use crate::int8_gemm::epilogue::load_pair_ps;
use crate::linear::Store;
use crate::panels::{K_GROUP, PANEL_ROWS, STEP_BYTES};

/// Steps of a block, each with weights for two steps of the tokens.
const STEPS: usize = BLOCK_WEIGHTS / STEP_BYTES;

/// # Safety
///
/// * The CPU has AVX-512 F, BW, VL and VNNI; the tile has `R` tokens.
/// * The rest as in [`crate::int8_gemm::Microkernel::int4_tile`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) unsafe fn tile<const R: usize>(
    tile: &Tile<'_>,
    out: *mut f32,
    out_stride: usize,
    store: Store,
) {
    let stride = int4_panel_stride(tile.k_padded);
    let biases = tile.k_padded / BLOCK * BLOCK_BYTES;
    for first in (0..tile.n_panels).step_by(PAIR) {
        // A missing panel repeats the last one; its columns are not stored.
        let second = (first + 1).min(tile.n_panels - 1);
        let columns: __mmask16 = if second == first { 0x00ff } else { 0xffff };
        let pair = [first, second].map(|p| tile.panels.as_ptr().wrapping_add(p * stride));
        // SAFETY: both panels are whole; row i of `out` holds the columns of the mask, for `Add`
        // initialised.
        unsafe {
            let totals = totals::<R>(tile, pair);
            let [low, high] = pair.map(|panel| panel.wrapping_add(biases).cast());
            let bias = load_pair_ps(low, high);
            for (i, total) in totals.into_iter().enumerate() {
                let out = out.add(i * out_stride + first * PANEL_ROWS);
                let mut value = _mm512_add_ps(total, bias);
                if store == Store::Add {
                    value = _mm512_add_ps(_mm512_maskz_loadu_ps(columns, out), value);
                }
                _mm512_mask_storeu_ps(out, columns, value);
            }
        }
    }
}

/// `R` tokens times two panels, without bias.
///
/// # Safety
///
/// As [`tile`]; both panels are whole.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn totals<const R: usize>(tile: &Tile<'_>, panels: [*const u8; PAIR]) -> [__m512; R] {
    let blocks_per_group = tile.group_len / BLOCK;
    let sums = tile.lhs_sums.as_chunks::<R>().0;
    let mut totals = [_mm512_setzero_ps(); R];
    for (g, sx) in tile.lhs_scales.as_chunks::<R>().0.iter().enumerate() {
        let mut group = [_mm512_setzero_ps(); R];
        let first = g * blocks_per_group;
        for (b, sums) in (first..).zip(&sums[first..][..blocks_per_group]) {
            let [low, high] = panels.map(|panel| panel.wrapping_add(b * BLOCK_BYTES));
            // SAFETY: the block is inside the panels and the packed tokens; eight scales follow its
            // weights.
            let (acc, scales) = unsafe {
                let x = tile.lhs.as_ptr().add(b * BLOCK * R);
                let scales = _mm256_inserti128_si256::<1>(
                    _mm256_castsi128_si256(_mm_loadu_si128(low.add(BLOCK_WEIGHTS).cast())),
                    _mm_loadu_si128(high.add(BLOCK_WEIGHTS).cast()),
                );
                (products::<R>([low, high], x, sums), _mm512_cvtph_ps(scales))
            };
            for (group, acc) in group.iter_mut().zip(acc) {
                *group = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc), scales, *group);
            }
        }
        for ((total, group), sx) in totals.iter_mut().zip(group).zip(sx) {
            *total = _mm512_fmadd_ps(group, _mm512_set1_ps(*sx), *total);
        }
    }
    totals
}

/// `R` tokens, whose values sum to `sums`, times one block of two panels.
///
/// # Safety
///
/// * The CPU has AVX-512 F and VNNI.
/// * The weights of a block are readable at `panels`, and at `x` those of `R` tokens.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn products<const R: usize>(
    panels: [*const u8; PAIR],
    x: *const i8,
    sums: &[i32; R],
) -> [__m512i; R] {
    let (flip, mask) = (_mm512_set1_epi8(0x08), _mm512_set1_epi8(0x0f));
    let mut acc = [_mm512_setzero_si512(); R];
    for (acc, sum) in acc.iter_mut().zip(sums) {
        *acc = _mm512_set1_epi32(sum.wrapping_mul(-8));
    }
    for step in 0..STEPS {
        // SAFETY: 32 bytes of each panel are a step.
        let weights = unsafe {
            let at = step * STEP_BYTES;
            load_pair(panels[0].add(at), panels[1].add(at))
        };
        // Each half of two's complement plus 8; the top bits are flipped already.
        let weights = _mm512_xor_si512(weights, flip);
        let halves = [
            _mm512_and_si512(weights, mask),
            _mm512_and_si512(_mm512_srli_epi16::<4>(weights), mask),
        ];
        for (half, weights) in halves.into_iter().enumerate() {
            for (i, acc) in acc.iter_mut().enumerate() {
                // SAFETY: a step of the tokens holds R groups of 4 bytes.
                let x = unsafe {
                    let x = x.add((half * STEPS + step) * R * K_GROUP + i * K_GROUP);
                    x.cast::<i32>().read_unaligned()
                };
                *acc = _mm512_dpbusd_epi32(*acc, weights, _mm512_set1_epi32(x));
            }
        }
    }
    acc
}
