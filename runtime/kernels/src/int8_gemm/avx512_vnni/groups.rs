//! The tile of tokens with scales by groups: up to 6 tokens × 4 panels at a time.
//!
//! ```text
//!   12 accumulators   acc[i]   = products of one group
//!   12 totals         total[i] = fma(f32(acc[i]), scale of the group, total[i])
//!   2 weights, broadcasts
//! ```
//!
//! Accumulators and totals of all twelve tokens would be more than there are registers, and go to
//! memory and back for each group. The halves of the tokens take turns of [`VALUES`] values, so that
//! the second finds the weights where the first left them.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;
use std::ops::Range;

use super::{MR, PAIR, Requests, TailZmm, WORDS, moved, products, without_excess};
use crate::int8_gemm::{Tile, with_rows};
use crate::linear::Store;
use crate::panels::{K_GROUP, STEP_BYTES};

/// Most tokens of a turn.
const TOKENS: usize = 6;
/// Values of each row in a turn, unless a group is longer.
const VALUES: usize = 1024;
/// Most groups of a turn: none is shorter than 16 values.
const GROUPS: usize = VALUES / 16;

/// # Safety
///
/// * The CPU has AVX-512 F, BW, VL and VNNI; four panels are whole.
/// * The rest as in [`crate::int8_gemm::Microkernel::tile`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) unsafe fn tile(
    tile: &Tile<'_>,
    panels: [*const u8; 2 * PAIR],
    out: *mut f32,
    out_stride: usize,
    store: Store,
) {
    let turns = tile.rows.div_ceil(TOKENS);
    let tokens = tile.rows.div_ceil(turns);
    let groups = (VALUES / tile.group_len).max(1);
    let mut requests = Requests::new(tile, turns);
    let mut totals = [[_mm512_setzero_ps(); PAIR]; MR];
    for first in (0..tile.n_groups()).step_by(groups) {
        let groups = first..(first + groups).min(tile.n_groups());
        let mut starts = [MaybeUninit::uninit(); GROUPS * MR];
        let starts = starts_of(tile, groups.clone(), &mut starts);
        for token in (0..tile.rows).step_by(tokens) {
            let turn = Turn {
                panels,
                token,
                groups: groups.clone(),
                starts,
            };
            let totals = &mut totals[token..];
            // SAFETY: the panels are whole; the tokens are some of the tile's.
            unsafe {
                with_rows!(
                    tokens.min(tile.rows - token),
                    R in [1, 2, 3, 4, 5, 6] => turn.add::<R>(tile, totals, &mut requests)
                );
            }
        }
    }
    for j in 0..tile.n_panels.div_ceil(PAIR) {
        // SAFETY: the panels are whole; row i of `out` holds their columns, for `Add` initialised.
        unsafe {
            let tail = TailZmm::load(tile, panels, j);
            for (i, total) in totals.iter().enumerate().take(tile.rows) {
                tail.store(total[j], out.add(i * out_stride + j * WORDS), store);
            }
        }
    }
}

/// What the accumulators of some groups start at, `[groups, rows]`.
#[inline]
#[target_feature(enable = "avx512f")]
fn starts_of<'a>(
    tile: &Tile<'_>,
    groups: Range<usize>,
    starts: &'a mut [MaybeUninit<i32>; GROUPS * MR],
) -> &'a [i32] {
    let sums = &tile.lhs_sums[groups.start * tile.rows..groups.end * tile.rows];
    assert!(sums.len() <= starts.len());
    for (sums, starts) in sums.chunks(WORDS).zip(starts.as_chunks_mut::<WORDS>().0) {
        let mask = ((1_u32 << sums.len()) - 1) as __mmask16;
        // SAFETY: as many sums as the mask says are readable, a whole chunk of starts is writable.
        unsafe {
            let sums = _mm512_maskz_loadu_epi32(mask, sums.as_ptr());
            _mm512_storeu_epi32(starts.as_mut_ptr().cast(), without_excess(sums));
        }
    }
    // SAFETY: a start was written for each sum.
    unsafe { starts[..sums.len()].assume_init_ref() }
}

/// Some groups of some tokens.
struct Turn<'a> {
    panels: [*const u8; 2 * PAIR],
    /// The first token.
    token: usize,
    groups: Range<usize>,
    /// `[groups, rows]`.
    starts: &'a [i32],
}

impl Turn<'_> {
    /// Adds the products of the groups to the totals of `R` tokens.
    ///
    /// # Safety
    ///
    /// * The CPU has AVX-512 F, BW, VL and VNNI; the panels are whole.
    /// * The tile has `R` tokens from the first of this turn.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn add<const R: usize>(
        &self,
        tile: &Tile<'_>,
        all: &mut [[__m512; PAIR]],
        requests: &mut Requests,
    ) {
        let (rows, steps) = (tile.rows, tile.group_len / K_GROUP);
        let all = &mut all.as_chunks_mut::<R>().0[0];
        let mut totals = *all;
        for (i, group) in self.groups.clone().enumerate() {
            let starts = &self.starts[i * rows + self.token..].as_chunks::<R>().0[0];
            let scales = &tile.lhs_scales[group * rows + self.token..]
                .as_chunks::<R>()
                .0[0];
            // SAFETY: the steps of the group are inside the panels and the packed tokens.
            let acc = unsafe {
                let weights = moved(self.panels, group * steps * STEP_BYTES);
                let x = tile.lhs.as_ptr();
                let x = x.add((group * steps * rows + self.token) * K_GROUP);
                products::<R>(weights, x, rows, starts, steps, requests)
            };
            for ((totals, acc), scale) in totals.iter_mut().zip(acc).zip(scales) {
                let scale = _mm512_set1_ps(*scale);
                totals[0] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[0]), scale, totals[0]);
                totals[1] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[1]), scale, totals[1]);
            }
        }
        *all = totals;
    }
}
