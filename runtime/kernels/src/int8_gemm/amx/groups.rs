//! The tile of tokens with scales by groups, or of weights with scales by blocks: up to 16 tokens ×
//! 2 panels at a time.
//!
//! ```text
//!   16 sums of a group or block   leave the tile register through memory
//!   16 totals                     total[i] = fma(f32(sum[i]), scale, total[i])
//! ```
//!
//! What one group leaves is taken up while the next one is multiplied.

use std::arch::asm;
use std::arch::x86_64::*;

use super::shape::{Shape, TOKENS};
use super::{COLUMNS, Requests, Sums, load, multiply, packed_at, pairs, store, zero};
use crate::int4_panels::BLOCK;
use crate::int8_gemm::{Tile, with_rows};
use crate::linear::Store;
use crate::prefetch::LINE;

/// # Safety
///
/// * The CPU has AMX for int8 and AVX-512 F, BW and VL; `shape` is set.
/// * The rest as in [`crate::int8_gemm::Microkernel::tile`], with panels in pairs.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn tile(
    tile: &Tile<'_>,
    shape: Shape,
    out: *mut f32,
    out_stride: usize,
    store: Store,
) {
    let (n_pairs, registers) = (tile.n_panels.div_ceil(2), shape.registers(tile));
    let len = match tile.block_scales {
        [] => tile.group_len,
        _ => BLOCK,
    };
    let mut requests = Requests::new(tile, n_pairs * registers * (tile.k_padded / len));
    for pair in 0..n_pairs {
        for register in 0..registers {
            let part = Part {
                tile,
                pair,
                first: shape.first(tile, register),
                // Tokens that two registers have are written once.
                new: register * shape.rows,
                depth: shape.depth,
            };
            // SAFETY: the tile has the pair and the tokens; the shape is set.
            unsafe {
                let out = out.add(pair * COLUMNS);
                with_rows!(
                    shape.rows,
                    R in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16] =>
                        part.compute::<R>(&mut requests, out, out_stride, store)
                );
            }
        }
    }
}

/// Some tokens times a pair of panels.
struct Part<'a> {
    tile: &'a Tile<'a>,
    pair: usize,
    /// The first token, and the first one to be written.
    first: usize,
    new: usize,
    depth: usize,
}

impl Part<'_> {
    /// # Safety
    ///
    /// * As [`tile`]; a register of tokens has `R` rows, `out` is where the first token of the tile
    ///   has the first column of the pair.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn compute<const R: usize>(
        &self,
        requests: &mut Requests,
        out: *mut f32,
        out_stride: usize,
        store: Store,
    ) {
        // SAFETY: by the caller's promises.
        unsafe {
            let totals = match self.tile.block_scales {
                [] => self.by_groups::<R>(requests),
                scales => {
                    let n_blocks = self.tile.k_padded / BLOCK;
                    let scales = &scales.as_chunks().0[self.pair * n_blocks..][..n_blocks];
                    self.by_blocks::<R>(scales, requests)
                }
            };
            let tail = pairs::tail(self.tile, self.pair);
            for (i, total) in totals.into_iter().enumerate().skip(self.new - self.first) {
                tail.store(total, out.add((self.first + i) * out_stride), store);
            }
        }
    }

    /// Scales of these tokens for a group.
    #[inline(always)]
    fn scales<const R: usize>(&self, group: usize) -> &[f32; R] {
        let scales = &self.tile.lhs_scales[group * self.tile.rows + self.first..];
        &scales.as_chunks().0[0]
    }

    /// # Safety
    ///
    /// As [`Part::compute`], without scales of blocks.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn by_groups<const R: usize>(&self, requests: &mut Requests) -> [__m512; R] {
        let len = self.tile.group_len;
        let mut room = Sums::<{ 2 * TOKENS }>::new();
        let mut totals = [_mm512_setzero_ps(); R];
        // SAFETY: by the caller's promise; a group was multiplied before its sums are read.
        unsafe {
            self.multiply(0..len, room.register(0), requests);
            for group in 0..self.tile.n_groups() {
                let next = group + 1;
                if next < self.tile.n_groups() {
                    let at = room.register(next % 2);
                    self.multiply(next * len..(next + 1) * len, at, requests);
                }
                let sums = room.register(group % 2);
                let scales = self.scales::<R>(group);
                for (i, (total, scale)) in totals.iter_mut().zip(scales).enumerate() {
                    let sum = _mm512_cvtepi32_ps(_mm512_load_si512(sums.add(i)));
                    *total = _mm512_fmadd_ps(sum, _mm512_set1_ps(*scale), *total);
                }
            }
        }
        totals
    }

    /// # Safety
    ///
    /// As [`Part::compute`]; `scales` are those of all blocks.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn by_blocks<const R: usize>(
        &self,
        scales: &[[f32; COLUMNS]],
        requests: &mut Requests,
    ) -> [__m512; R] {
        let blocks_per_group = self.tile.group_len / BLOCK;
        let mut room = Sums::<{ 2 * TOKENS }>::new();
        let mut totals = [_mm512_setzero_ps(); R];
        let mut of_group = [_mm512_setzero_ps(); R];
        // SAFETY: as in `by_groups`.
        unsafe {
            self.multiply(0..BLOCK, room.register(0), requests);
            for (block, weights) in scales.iter().enumerate() {
                let next = block + 1;
                if next < scales.len() {
                    let at = room.register(next % 2);
                    self.multiply(next * BLOCK..(next + 1) * BLOCK, at, requests);
                }
                let sums = room.register(block % 2);
                let weights = _mm512_loadu_ps(weights.as_ptr());
                for (i, total) in of_group.iter_mut().enumerate() {
                    let sum = _mm512_cvtepi32_ps(_mm512_load_si512(sums.add(i)));
                    *total = _mm512_fmadd_ps(sum, weights, *total);
                }
                if next % blocks_per_group == 0 {
                    let scales = self.scales::<R>(block / blocks_per_group);
                    for ((total, of_group), scale) in
                        totals.iter_mut().zip(&mut of_group).zip(scales)
                    {
                        *total = _mm512_fmadd_ps(*of_group, _mm512_set1_ps(*scale), *total);
                        *of_group = _mm512_setzero_ps();
                    }
                }
            }
        }
        totals
    }

    /// Writes the sums over some values, whole multiples of the depth.
    ///
    /// # Safety
    ///
    /// As [`Part::compute`]; there is room for a register at `sums`.
    #[inline(always)]
    unsafe fn multiply(
        &self,
        values: std::ops::Range<usize>,
        sums: *mut __m512i,
        requests: &mut Requests,
    ) {
        let pair = self.pair * pairs::stride(self.tile.k_padded);
        let weights = self.tile.panels.as_ptr().wrapping_add(pair);
        requests.ask();
        // SAFETY: by the caller's promise the values are inside the packed tokens and the pair.
        unsafe {
            zero!(0);
            for k in values.step_by(self.depth) {
                let (x, stride) = packed_at(self.tile, k);
                load!(4, x.add(self.first * stride), stride);
                load!(6, weights.add(k * COLUMNS), LINE);
                multiply!(0, 4, 6);
            }
            store!(0, sums);
        }
    }
}
