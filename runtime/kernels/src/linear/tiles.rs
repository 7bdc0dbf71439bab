//! [`many_tokens`]: tiles of tokens times panels, split over the threads.
//!
//! ```text
//!   lhs ─ pack ─▶ strips of ≤ mr tokens          out
//!                                          ┌────────────┐
//!   chunk = block of strips                │  │  │▒▒│  │ ▒ one chunk: for each unit of columns,
//!         × block of units                 │  │  │▒▒│  │   for each panel group, for each strip,
//!                                          ├──┼──┼──┼──┤   one tile
//!                                          │  │  │  │  │
//!                                          └────────────┘
//! ```
//!
//! A panel group stays in the first cache level while the strips of the block come from the
//! second; a block of strips is no larger than the kernel wants it. While a group is multiplied, the
//! next one is asked for.

use std::marker::PhantomData;
use std::ops::Range;

use super::strips::StripLayout;
use super::weights::{TilePanels, Weights};
use super::{CHUNKS_PER_THREAD, Store, store_edge};
use crate::aligned::{Line, with_scratch};
use crate::compute::Compute;
use crate::int8_gemm::{MAX_TILE, Microkernel, Tile};
use crate::panels::{PANEL_ROWS, k_padded};
use crate::prefetch::{Ahead, prefetch, prefetch_rows_to_write};
use crate::quantize::Int8Rows;
use crate::threads::SyncPtr;

/// Where the tiles of some tokens and a unit of columns go.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Column 0 of the unit for the first token.
    pub(super) out: *mut f32,
    /// Values from one token to the next.
    pub(super) stride: usize,
    pub(super) store: Store,
}

/// What takes the products of [`many_tokens`]: units of neighbouring columns, each whole.
///
/// # Safety
///
/// The place that `with_unit` lends is writable for all rows and columns asked for, for
/// [`Store::Add`] initialised, and nobody else's while it is lent.
pub(super) unsafe trait Target: Sync {
    /// Columns of a unit, a multiple of 8; the last one may have fewer.
    fn width(&self) -> usize;
    /// Has `fill` write the columns of one unit for some tokens. Called once for each, by any thread.
    fn with_unit(&self, rows: Range<usize>, unit: usize, fill: &mut dyn FnMut(Place));
}

/// Rows of `n` values.
pub(super) struct Plain<'a> {
    out: SyncPtr<f32>,
    n: usize,
    width: usize,
    store: Store,
    _out: PhantomData<&'a mut [f32]>,
}

impl<'a> Plain<'a> {
    /// `out` holds whole rows.
    pub(super) fn new(compute: &Compute, n: usize, out: &'a mut [f32], store: Store) -> Plain<'a> {
        Plain {
            out: SyncPtr::new(out.as_mut_ptr()),
            n,
            width: compute.gemm().nr(),
            store,
            _out: PhantomData,
        }
    }
}

// SAFETY: a unit of some rows is a part of `out` that no other unit or row has.
unsafe impl Target for Plain<'_> {
    fn width(&self) -> usize {
        self.width
    }
    fn with_unit(&self, rows: Range<usize>, unit: usize, fill: &mut dyn FnMut(Place)) {
        fill(Place {
            // SAFETY: the first column of the unit is inside the row.
            out: unsafe { self.out.at(rows.start * self.n + unit * self.width) },
            stride: self.n,
            store: self.store,
        });
    }
}

/// Multiplies at least two tokens with all panels.
pub(super) fn many_tokens(
    compute: &Compute,
    lhs: Int8Rows<'_>,
    rhs: &dyn Weights,
    target: &dyn Target,
) {
    let kernel = compute.gemm_for(lhs.m());
    let n_panels = rhs.n().div_ceil(PANEL_ROWS);
    let layout = StripLayout::new(kernel, lhs, rhs);
    let n_strips = layout.n_strips;
    with_scratch(n_strips * layout.lines(), |packed| {
        compute
            .pool()
            .for_each_chunk_mut(packed, layout.lines(), &|strip, lines| {
                layout.pack(strip, lines);
            });

        let strip_bytes = size_of::<Line>() * layout.lines();
        let strips_per_block = (kernel.lhs_block_bytes() / strip_bytes).clamp(1, n_strips);
        let n_row_blocks = n_strips.div_ceil(strips_per_block);
        let strips_per_block = n_strips.div_ceil(n_row_blocks);
        let panels_per_unit = target.width() / PANEL_ROWS;
        let n_units = n_panels.div_ceil(panels_per_unit);
        let wanted = if compute.n_threads() == 1 {
            1
        } else {
            compute.n_threads() * CHUNKS_PER_THREAD
        };
        let units_per_block = n_units.div_ceil(wanted.div_ceil(n_row_blocks).min(n_units));
        let n_col_blocks = n_units.div_ceil(units_per_block);

        let block = |row_block: usize| {
            let first = row_block * strips_per_block;
            Block {
                kernel,
                layout: &layout,
                packed,
                strips: first..(first + strips_per_block).min(n_strips),
            }
        };
        compute.pool().run(n_row_blocks * n_col_blocks, &|chunk| {
            let (row_block, col_block) = (chunk / n_col_blocks, chunk % n_col_blocks);
            let block = block(row_block);
            let first_unit = col_block * units_per_block;
            for unit in first_unit..(first_unit + units_per_block).min(n_units) {
                let first = unit * panels_per_unit;
                let panels = first..(first + panels_per_unit).min(n_panels);
                target.with_unit(block.rows(), unit, &mut |place| {
                    block.multiply(rhs, panels.clone(), &place);
                });
            }
            kernel.finish();
        });
    });
}

/// Strips of tokens that are multiplied with the same panels one after the other.
struct Block<'a> {
    kernel: &'static dyn Microkernel,
    layout: &'a StripLayout<'a>,
    packed: &'a [Line],
    strips: Range<usize>,
}

impl Block<'_> {
    /// Tokens of all strips.
    fn rows(&self) -> Range<usize> {
        let last = self.layout.rows(self.strips.end - 1);
        self.layout.rows(self.strips.start).start..last.end
    }

    /// Multiplies the tokens with the panels of a unit.
    fn multiply(&self, rhs: &dyn Weights, unit: Range<usize>, place: &Place) {
        let all_panels = rhs.n().div_ceil(PANEL_ROWS);
        let at_once = self.kernel.panels_at_once(k_padded(rhs.k()));
        for first in unit.clone().step_by(at_once) {
            let end = (first + at_once).min(unit.end);
            let next = end..(end + at_once).min(all_panels);
            let ahead = Ahead::new(rhs.panel_bytes(next), self.strips.len());
            let column = (first - unit.start) * PANEL_ROWS;
            let place = Place {
                out: place.out.wrapping_add(column),
                ..*place
            };
            rhs.with_panels(self.kernel, first..end, &mut |panels| {
                self.multiply_panels(panels, &ahead, place);
            });
        }
    }

    /// Multiplies the tokens with some panels, whose first column is that of the place.
    fn multiply_panels(&self, panels: TilePanels<'_>, ahead: &Ahead<'_>, place: Place) {
        let (kernel, layout) = (self.kernel, self.layout);
        let asks_ahead = kernel.asks_ahead();
        let lines = layout.lines();
        let packed = self.packed[self.strips.start * lines..].chunks_exact(lines);
        let mut out = place.out;
        for (i, (strip, packed)) in self.strips.clone().zip(packed).enumerate() {
            let ahead = ahead.share(i);
            if !asks_ahead {
                prefetch(ahead);
            }
            let tile = layout.tile(strip, packed, panels, ahead);
            // SAFETY: by the promise of the target, the place holds the rows of the block with the
            // columns of the unit.
            unsafe {
                prefetch_rows_to_write(tile.rows, panels.n, out, place.stride);
                one_tile(kernel, &tile, panels, out, place.stride, place.store);
            }
            out = out.wrapping_add(tile.rows * place.stride);
        }
    }
}

/// Computes one tile of some panels.
///
/// # Safety
///
/// * `tile` is consistent in the sense of [`Microkernel::tile`], or of [`Microkernel::int4_tile`]
///   for int4 panels.
/// * `tile.rows` rows of `panels.n` values, `out_stride` apart, are writable at `out`, initialised,
///   and nobody else's.
#[inline]
unsafe fn one_tile(
    kernel: &dyn Microkernel,
    tile: &Tile<'_>,
    panels: TilePanels<'_>,
    out: *mut f32,
    out_stride: usize,
    store: Store,
) {
    // SAFETY: by the caller's promises.
    unsafe {
        if panels.n == tile.n_panels * PANEL_ROWS {
            whole_tile(kernel, tile, panels.is_int4, out, out_stride, store);
        } else {
            edge_tile(kernel, tile, panels, out, out_stride, store);
        }
    }
}

/// # Safety
///
/// As [`one_tile`], for all rows of the panels.
#[inline]
unsafe fn whole_tile(
    kernel: &dyn Microkernel,
    tile: &Tile<'_>,
    is_int4: bool,
    out: *mut f32,
    out_stride: usize,
    store: Store,
) {
    // SAFETY: by the caller's promises.
    unsafe {
        match is_int4 {
            true => kernel.int4_tile(tile, out, out_stride, store),
            false => kernel.tile(tile, out, out_stride, store),
        }
    }
}

/// [`one_tile`] where the last panel has fewer output rows than eight.
///
/// # Safety
///
/// As [`one_tile`].
#[inline(never)]
unsafe fn edge_tile(
    kernel: &dyn Microkernel,
    tile: &Tile<'_>,
    panels: TilePanels<'_>,
    out: *mut f32,
    out_stride: usize,
    store: Store,
) {
    let (width, n_cols) = (tile.n_panels * PANEL_ROWS, panels.n);
    let mut edge = [0.0; MAX_TILE];
    // SAFETY: consistent by the caller's promise; MAX_TILE holds the tile of any kernel.
    unsafe {
        let edge = edge.as_mut_ptr();
        whole_tile(kernel, tile, panels.is_int4, edge, width, Store::Overwrite);
    }
    for (i, values) in edge.chunks_exact(width).take(tile.rows).enumerate() {
        // SAFETY: row i has n_cols values, by the caller's promise.
        let out = unsafe { std::slice::from_raw_parts_mut(out.add(i * out_stride), n_cols) };
        store_edge(values, out, store);
    }
}
