//! Panels in pairs, as rows of 16 output rows:
//!
//! ```text
//!   step s = 64 bytes:   32 bytes of the first panel │ 32 bytes of the second
//!   k_padded / 4 steps, then 16 × f32 scale, 16 × f32 bias
//! ```

use std::arch::x86_64::*;

use super::{COLUMNS, NR, TailZmm};
use crate::aligned::{lines_for, with_scratch, words_mut};
use crate::int4_panels::{BLOCK, BLOCK_BYTES, BLOCK_WEIGHTS, int4_panel_stride};
use crate::int8_gemm::epilogue::load_pair_ps;
use crate::int8_gemm::{Microkernel, Tile, pair_bytes};
use crate::linear::Store;
use crate::panels::{K_GROUP, PANEL_ROWS, PanelTail, STEP_BYTES, panel_stride};
use crate::prefetch::LINE;

/// Panels of a tile.
const PANELS: usize = NR / PANEL_ROWS;

/// Bytes from one pair to the next.
#[inline(always)]
pub(super) fn stride(k_padded: usize) -> usize {
    pair_bytes(k_padded)
}

/// Scales and biases of a pair of a tile; a missing second panel has no columns.
///
/// # Safety
///
/// * The CPU has AVX-512 F; the tile has the pair.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn tail(tile: &Tile<'_>, pair: usize) -> TailZmm {
    let at = pair * stride(tile.k_padded) + tile.k_padded * COLUMNS;
    let at = tile.panels.as_ptr().wrapping_add(at).cast::<f32>();
    // SAFETY: the tail follows the steps of the pair.
    unsafe { TailZmm::of_pair(at, at.add(COLUMNS), tile.n_panels > 2 * pair + 1) }
}

/// Lays out two int8 panels.
///
/// # Safety
///
/// * The CPU has AVX-512 F.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn pair(panels: [&[u8]; 2], k_padded: usize, out: &mut [u8]) {
    let [low, high] = panels;
    assert!(low.len() == panel_stride(k_padded) && high.len() == low.len());
    assert_eq!(out.len(), stride(k_padded));
    let (low, high, out) = (low.as_ptr(), high.as_ptr(), out.as_mut_ptr());
    // SAFETY: both panels have all steps and a tail, `out` room for them.
    unsafe {
        for step in 0..k_padded / K_GROUP {
            let both = load_pair_ps(
                low.add(step * STEP_BYTES).cast(),
                high.add(step * STEP_BYTES).cast(),
            );
            _mm512_storeu_ps(out.add(step * LINE).cast(), both);
        }
        let tails = [PanelTail::of(low, k_padded), PanelTail::of(high, k_padded)];
        let scales = load_pair_ps(tails[0].scales(), tails[1].scales());
        let biases = load_pair_ps(tails[0].biases(), tails[1].biases());
        store_tail(out.add(k_padded * COLUMNS).cast(), scales, biases);
    }
}

/// Widens two int4 panels, with scales of 1, and the scales of their blocks `[k / 32, 16]`.
///
/// # Safety
///
/// * The CPU has AVX-512 F and BW.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn pair_int4(panels: [&[u8]; 2], k: usize, out: &mut [u8], scales: &mut [f32]) {
    let [low, high] = panels;
    assert!(low.len() == int4_panel_stride(k) && high.len() == low.len());
    assert!(out.len() == stride(k) && scales.len() == k / BLOCK * COLUMNS);
    let (low, high) = (low.as_ptr(), high.as_ptr());
    let out = out.as_mut_ptr();
    // A weight of 4 bits, two's complement, as a byte.
    let widened = _mm512_broadcast_i32x4(_mm_setr_epi8(
        0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1,
    ));
    let mask = _mm512_set1_epi8(0x0f);
    // SAFETY: both panels have all blocks and biases; `out` and `scales` have room for them.
    unsafe {
        for (block, scales) in scales.chunks_exact_mut(COLUMNS).enumerate() {
            let [low, high] = [low, high].map(|panel| panel.add(block * BLOCK_BYTES));
            let out = out.add(block * BLOCK * COLUMNS);
            for step in 0..BLOCK_WEIGHTS / STEP_BYTES {
                let at = step * STEP_BYTES;
                let both = load_pair_ps(low.add(at).cast(), high.add(at).cast());
                let both = _mm512_castps_si512(both);
                let halves = [both, _mm512_srli_epi16::<4>(both)];
                for (half, weights) in halves.into_iter().enumerate() {
                    let weights = _mm512_shuffle_epi8(widened, _mm512_and_si512(weights, mask));
                    let row = half * BLOCK_WEIGHTS / STEP_BYTES + step;
                    _mm512_storeu_si512(out.add(row * LINE).cast(), weights);
                }
            }
            let halves = _mm256_inserti128_si256::<1>(
                _mm256_castsi128_si256(_mm_loadu_si128(low.add(BLOCK_WEIGHTS).cast())),
                _mm_loadu_si128(high.add(BLOCK_WEIGHTS).cast()),
            );
            _mm512_storeu_ps(scales.as_mut_ptr(), _mm512_cvtph_ps(halves));
        }
        let biases = k / BLOCK * BLOCK_BYTES;
        let biases = load_pair_ps(low.add(biases).cast(), high.add(biases).cast());
        store_tail(out.add(k * COLUMNS).cast(), _mm512_set1_ps(1.0), biases);
    }
}

/// # Safety
///
/// * The CPU has AVX-512 F; 32 values are writable at `at`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn store_tail(at: *mut f32, scales: __m512, biases: __m512) {
    // SAFETY: by the caller's promise.
    unsafe {
        _mm512_storeu_ps(at, scales);
        _mm512_storeu_ps(at.add(COLUMNS), biases);
    }
}

/// [`Microkernel::tiles`]: the panels of a tile are laid out in pairs just before it.
///
/// # Safety
///
/// * As for [`Microkernel::tiles`].
pub(super) unsafe fn tiles(
    kernel: &dyn Microkernel,
    tile: &Tile<'_>,
    out: *mut f32,
    out_stride: usize,
    store: Store,
) {
    let (panel, pair) = (panel_stride(tile.k_padded), stride(tile.k_padded));
    with_scratch(lines_for::<u8>(pair * PANELS / 2), |lines| {
        let room = words_mut::<u8>(lines);
        for first in (0..tile.n_panels).step_by(PANELS) {
            let n_panels = PANELS.min(tile.n_panels - first);
            let pairs = &mut room[..n_panels.div_ceil(2) * pair];
            let panels = &tile.panels[first * panel..][..n_panels * panel];
            for (two, out) in panels.chunks(2 * panel).zip(pairs.chunks_exact_mut(pair)) {
                let last = two.len() - panel;
                kernel.pair([&two[..panel], &two[last..]], tile.k_padded, out);
            }
            let part = Tile {
                panels: pairs,
                n_panels,
                ..*tile
            };
            // SAFETY: by the caller's promise; scratch starts on a line.
            unsafe { kernel.tile(&part, out.add(first * PANEL_ROWS), out_stride, store) };
        }
    });
}
