//! [`linear`], [`linear_int4`]: int8 activation rows times packed weights, split over the threads.
//!
//! ```text
//!   one token      runs of panels ─ one GEMV call each
//!
//!   more tokens    lhs ─ pack ─▶ strips of ≤ mr tokens     out
//!                                                    ┌────────────┐
//!                  chunk = block of strips            │  │  │▒▒│  │ ▒ one chunk: for each panel
//!                        × block of panel groups      │  │  │▒▒│  │   group, for each strip,
//!                                                    ├──┼──┼──┼──┤   one tile
//!                                                    │  │  │  │  │
//!                                                    └────────────┘
//! ```
//!
//! A panel group stays in the first cache level while the strips of the block come from the
//! second; a block of strips is no larger than `LHS_BLOCK_BYTES`.

use std::ops::Range;

use crate::aligned::{Line, lines_for, take_words, with_scratch, words, words_mut};
use crate::compute::Compute;
use crate::int4_gemv::Int4Gemv;
use crate::int4_panels::{BLOCK, Int4Panels, int4_panel_stride};
use crate::int8_gemm::{MAX_TILE, Microkernel, Tile};
use crate::int8_gemv::Gemv;
use crate::panels::{PANEL_ROWS, Panels, k_padded, panel_stride};
use crate::quantize::Int8Rows;
use crate::threads::SyncPtr;

/// Packed tokens of one block: a share of the second cache level of a small core.
const LHS_BLOCK_BYTES: usize = 160 * 1024;
/// Weights of one GEMV chunk: enough to pay for handing it out.
const GEMV_CHUNK_BYTES: usize = 16 * 1024;
/// Chunks per thread, so that a late thread leaves the others something to take.
const CHUNKS_PER_THREAD: usize = 4;

/// What happens to the former contents of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// They are overwritten.
    Overwrite,
    /// The product is added to them: `out = out + value`, rounded once.
    Add,
}

/// `out[i][r] = (Σ_g f32(Σ_k lhs[i][k] · rhs[r][k]) · sx[i][g]) · sw[r] + bias[r]`.
///
/// `lhs` `[m, k]`, `rhs` `[n, k]`, `out` `[m, n]`. The result does not depend on the kernel or the
/// number of threads, down to the last bit; see [`crate::int8_gemm`] for the order of the float
/// steps. Exact for activations in -128..=127 and weights in -127..=127.
///
/// # Panics
///
/// Panics if the shapes do not fit.
pub fn linear(
    compute: &Compute,
    lhs: Int8Rows<'_>,
    rhs: Panels<'_>,
    out: &mut [f32],
    store: Store,
) {
    let (m, n, k) = (lhs.m(), rhs.n(), rhs.k());
    assert_eq!(lhs.k(), k, "lhs and rhs must agree on k");
    assert_eq!(out.len(), m * n, "out must be [m, n]");
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        for row in out.chunks_exact_mut(n) {
            for (r, value) in row.iter_mut().enumerate() {
                // What the kernels would compute for an empty sum.
                let bias = 0.0_f32.mul_add(rhs.scale(r), rhs.bias(r));
                *value = if store == Store::Add {
                    *value + bias
                } else {
                    bias
                };
            }
        }
    } else if m == 1 {
        one_token(compute, lhs, rhs, out, store);
    } else {
        many_tokens(compute, lhs, &rhs, out, store);
    }
}

/// [`linear`] with int4 weights: `out[i][r] = Σ_g (Σ_b f32(Σ_k lhs[i][k] · rhs[r][k]) · sw[r][b]) ·
/// sx[i][g] + bias[r]`, in the order of the float steps of [`crate::int4_gemv`].
///
/// # Panics
///
/// Panics if the shapes do not fit, or a group of activations is not a multiple of 32 values.
pub fn linear_int4(
    compute: &Compute,
    lhs: Int8Rows<'_>,
    rhs: Int4Panels<'_>,
    out: &mut [f32],
    store: Store,
) {
    let (m, n, k) = (lhs.m(), rhs.n(), rhs.k());
    assert_eq!(lhs.k(), k, "lhs and rhs must agree on k");
    assert_eq!(out.len(), m * n, "out must be [m, n]");
    assert!(
        lhs.group().is_multiple_of(BLOCK),
        "groups of activations must be whole blocks of {BLOCK}"
    );
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        for row in out.chunks_exact_mut(n) {
            for (r, value) in row.iter_mut().enumerate() {
                store_edge(&[rhs.bias(r)], std::slice::from_mut(value), store);
            }
        }
    } else if m == 1 {
        one_token_int4(compute, lhs, rhs, out, store);
    } else {
        many_tokens(compute, lhs, &rhs, out, store);
    }
}

fn one_token(compute: &Compute, lhs: Int8Rows<'_>, rhs: Panels<'_>, out: &mut [f32], store: Store) {
    let kernel = compute.gemv();
    let group_len = lhs.group_len();
    let stride = panel_stride(rhs.k());
    with_sums(lhs, kernel.uses_lhs_sums().then_some(group_len), |sums| {
        run_panels(compute, stride, out, store, &|panels, out, store| {
            let gemv = Gemv {
                lhs: lhs.data(),
                lhs_scales: lhs.scales(),
                lhs_sums: sums,
                panels: &rhs.bytes()[panels.start * stride..panels.end * stride],
                n_panels: panels.len(),
                group_len,
            };
            debug_assert_eq!(out.len(), panels.len() * PANEL_ROWS);
            // SAFETY: `Int8Rows` and `Panels` checked their lengths and alignment, `out` holds
            // eight values per panel.
            unsafe { kernel.panels(&gemv, out.as_mut_ptr(), store) };
        });
    });
}

fn one_token_int4(
    compute: &Compute,
    lhs: Int8Rows<'_>,
    rhs: Int4Panels<'_>,
    out: &mut [f32],
    store: Store,
) {
    let kernel = compute.int4_gemv();
    let stride = int4_panel_stride(rhs.k());
    with_sums(lhs, kernel.uses_lhs_sums().then_some(BLOCK), |sums| {
        run_panels(compute, stride, out, store, &|panels, out, store| {
            let gemv = Int4Gemv {
                lhs: lhs.data(),
                lhs_scales: lhs.scales(),
                lhs_sums: sums,
                panels: &rhs.bytes()[panels.start * stride..panels.end * stride],
                group_len: lhs.group_len(),
            };
            debug_assert_eq!(out.len(), panels.len() * PANEL_ROWS);
            // SAFETY: `Int8Rows` and `Int4Panels` checked their lengths and alignment, `out`
            // holds eight values per panel.
            unsafe { kernel.panels(&gemv, out.as_mut_ptr(), store) };
        });
    });
}

/// Lends the sums of every `len` values of one token to `f`; no sums without `len`.
fn with_sums(lhs: Int8Rows<'_>, len: Option<usize>, f: impl FnOnce(&[i32])) {
    let Some(len) = len else {
        return f(&[]);
    };
    let n_sums = lhs.data().len() / len;
    with_scratch(lines_for::<i32>(n_sums), |lines| {
        let sums = &mut words_mut(lines)[..n_sums];
        for (total, values) in sums.iter_mut().zip(lhs.data().chunks_exact(len)) {
            *total = sum(values);
        }
        f(sums);
    });
}

fn sum(values: &[i8]) -> i32 {
    values.iter().map(|&v| i32::from(v)).sum()
}

/// What [`run_panels`] calls: panels, their eight outputs each, and how to store them.
type PanelsFn<'a> = dyn Fn(Range<usize>, &mut [f32], Store) + Sync + 'a;

/// Hands the panels that make `out`, `stride` bytes each, to `run` in chunks worth a thread.
fn run_panels(compute: &Compute, stride: usize, out: &mut [f32], store: Store, run: &PanelsFn<'_>) {
    let n_panels = out.len().div_ceil(PANEL_ROWS);
    let n_chunks =
        (n_panels * stride / GEMV_CHUNK_BYTES).min(compute.n_threads() * CHUNKS_PER_THREAD);
    let panels_per_chunk = n_panels.div_ceil(n_chunks.max(1));
    compute
        .pool()
        .for_each_chunk_mut(out, panels_per_chunk * PANEL_ROWS, &|chunk, out| {
            let first = chunk * panels_per_chunk;
            let last = first + out.len() / PANEL_ROWS;
            let (whole, rest) = out.split_at_mut((last - first) * PANEL_ROWS);
            if !whole.is_empty() {
                run(first..last, whole, store);
            }
            if !rest.is_empty() {
                let mut edge = [0.0; PANEL_ROWS];
                run(last..last + 1, &mut edge, Store::Overwrite);
                store_edge(&edge, rest, store);
            }
        });
}

fn store_edge(values: &[f32], out: &mut [f32], store: Store) {
    for (out, value) in out.iter_mut().zip(values) {
        match store {
            Store::Overwrite => *out = *value,
            Store::Add => *out += value,
        }
    }
}

/// Some panels as a tile takes them.
#[derive(Clone, Copy)]
struct TilePanels<'a> {
    bytes: &'a [u8],
    /// Whether they are int4 panels as stored.
    is_int4: bool,
    block_scales: &'a [f32],
    /// Panels, and output rows that exist.
    n_panels: usize,
    n: usize,
}

/// Weights that [`many_tokens`] can walk through.
trait Weights: Sync {
    fn n(&self) -> usize;
    /// Values whose sum a kernel needs that corrects its tokens.
    fn sum_len(&self, lhs: &Int8Rows<'_>) -> usize;
    /// Lends some panels to `f`, as the kernel takes them.
    fn with_panels(
        &self,
        kernel: &dyn Microkernel,
        panels: Range<usize>,
        f: &mut dyn FnMut(TilePanels<'_>),
    );
}

impl Weights for Panels<'_> {
    fn n(&self) -> usize {
        Panels::n(self)
    }
    fn sum_len(&self, lhs: &Int8Rows<'_>) -> usize {
        lhs.group_len()
    }
    fn with_panels(
        &self,
        _: &dyn Microkernel,
        panels: Range<usize>,
        f: &mut dyn FnMut(TilePanels<'_>),
    ) {
        let range = self.panel_range(panels.start, panels.len());
        f(TilePanels {
            bytes: range.bytes(),
            is_int4: false,
            block_scales: &[],
            n_panels: panels.len(),
            n: range.n(),
        });
    }
}

impl Weights for Int4Panels<'_> {
    fn n(&self) -> usize {
        Int4Panels::n(self)
    }
    fn sum_len(&self, _: &Int8Rows<'_>) -> usize {
        BLOCK
    }
    /// For a kernel that does not take them as they are, widens the panels into scratch, once for
    /// all tokens of a block.
    fn with_panels(
        &self,
        kernel: &dyn Microkernel,
        panels: Range<usize>,
        f: &mut dyn FnMut(TilePanels<'_>),
    ) {
        if kernel.takes_int4() {
            let range = self.panel_range(panels.start, panels.len());
            return f(TilePanels {
                bytes: range.bytes(),
                is_int4: true,
                block_scales: &[],
                n_panels: panels.len(),
                n: range.n(),
            });
        }
        let bytes = panels.len() * panel_stride(self.k());
        let n_scales = panels.len() * self.k() / BLOCK * PANEL_ROWS;
        with_scratch(
            lines_for::<u8>(bytes) + lines_for::<f32>(n_scales),
            |lines| {
                let mut rest = lines;
                let bytes = take_words(&mut rest, bytes);
                let block_scales = take_words(&mut rest, n_scales);
                self.widen_into(panels.start, bytes, block_scales);
                f(TilePanels {
                    bytes,
                    is_int4: false,
                    block_scales,
                    n_panels: panels.len(),
                    n: (panels.len() * PANEL_ROWS).min(self.n() - panels.start * PANEL_ROWS),
                });
            },
        );
    }
}

/// The tokens of a product in strips of nearly equal length, and where the parts of a packed strip
/// lie.
#[derive(Clone, Copy)]
struct StripLayout<'a> {
    kernel: &'static dyn Microkernel,
    lhs: Int8Rows<'a>,
    n_strips: usize,
    /// Tokens of every strip, and strips that have one more.
    least_rows: usize,
    longer_strips: usize,
    /// Values per sum; 0 if the kernel needs no sums.
    sum_len: usize,
    data_lines: usize,
    scale_lines: usize,
    sum_lines: usize,
}

impl<'a> StripLayout<'a> {
    fn new(
        kernel: &'static dyn Microkernel,
        lhs: Int8Rows<'a>,
        weights: &dyn Weights,
    ) -> StripLayout<'a> {
        let n_strips = lhs.m().div_ceil(kernel.mr());
        let most_rows = lhs.m().div_ceil(n_strips);
        let data_len = kernel.lhs_bytes(most_rows, k_padded(lhs.k()));
        let sum_len = if kernel.uses_lhs_sums() {
            weights.sum_len(&lhs)
        } else {
            0
        };
        let n_sums = k_padded(lhs.k()).checked_div(sum_len).unwrap_or(0);
        StripLayout {
            kernel,
            lhs,
            sum_len,
            n_strips,
            least_rows: lhs.m() / n_strips,
            longer_strips: lhs.m() % n_strips,
            data_lines: lines_for::<i8>(data_len),
            scale_lines: lines_for::<f32>(most_rows * lhs.n_groups()),
            sum_lines: lines_for::<i32>(most_rows * n_sums),
        }
    }

    /// Lines of every strip.
    fn lines(&self) -> usize {
        self.data_lines + self.scale_lines + self.sum_lines
    }

    /// Tokens of one strip.
    fn rows(&self, strip: usize) -> Range<usize> {
        let first = |strip: usize| strip * self.least_rows + strip.min(self.longer_strips);
        first(strip)..first(strip + 1)
    }

    fn data_len(&self, rows: usize) -> usize {
        self.kernel.lhs_bytes(rows, k_padded(self.lhs.k()))
    }

    /// Sums of `rows` tokens.
    fn n_sums(&self, rows: usize) -> usize {
        rows * k_padded(self.lhs.k())
            .checked_div(self.sum_len)
            .unwrap_or(0)
    }

    /// The operands of a tile: one packed strip and some panels.
    fn tile<'t>(&self, rows: usize, strip: &'t [Line], panels: TilePanels<'t>) -> Tile<'t> {
        let (data, rest) = strip.split_at(self.data_lines);
        let (scales, sums) = rest.split_at(self.scale_lines);
        Tile {
            rows,
            lhs: &words(data)[..self.data_len(rows)],
            lhs_scales: &words(scales)[..rows * self.lhs.n_groups()],
            lhs_sums: &words(sums)[..self.n_sums(rows)],
            panels: panels.bytes,
            block_scales: panels.block_scales,
            n_panels: panels.n_panels,
            k_padded: k_padded(self.lhs.k()),
            group_len: self.lhs.group_len(),
        }
    }

    /// Packs one strip into its lines.
    fn pack(&self, strip: usize, lines: &mut [Line]) {
        let range = self.rows(strip);
        let rows = self.lhs.row_range(range.start, range.len());
        let (data, rest) = lines.split_at_mut(self.data_lines);
        let (scales, sums) = rest.split_at_mut(self.scale_lines);
        let (m, n_groups, width) = (rows.m(), rows.n_groups(), k_padded(rows.k()));
        let data = &mut words_mut(data)[..self.data_len(m)];
        self.kernel.pack_lhs(rows.data(), width, data);
        let scales = &mut words_mut(scales)[..m * n_groups];
        for (i, row_scales) in rows.scales().chunks_exact(n_groups).enumerate() {
            for (g, scale) in row_scales.iter().enumerate() {
                scales[g * m + i] = *scale;
            }
        }
        let sums: &mut [i32] = &mut words_mut(sums)[..self.n_sums(m)];
        if sums.is_empty() {
            return;
        }
        for (i, row) in rows.data().chunks_exact(width).enumerate() {
            for (b, values) in row.chunks_exact(self.sum_len).enumerate() {
                sums[b * m + i] = sum(values);
            }
        }
    }
}

fn many_tokens(
    compute: &Compute,
    lhs: Int8Rows<'_>,
    rhs: &dyn Weights,
    out: &mut [f32],
    store: Store,
) {
    let kernel = compute.gemm();
    let (n, n_panels) = (rhs.n(), rhs.n().div_ceil(PANEL_ROWS));
    let layout = StripLayout::new(kernel, lhs, rhs);
    let n_strips = layout.n_strips;
    with_scratch(n_strips * layout.lines(), |packed| {
        compute
            .pool()
            .for_each_chunk_mut(packed, layout.lines(), &|strip, lines| {
                layout.pack(strip, lines);
            });

        let strip_bytes = size_of::<Line>() * layout.lines();
        let strips_per_block = (LHS_BLOCK_BYTES / strip_bytes).clamp(1, n_strips);
        let n_row_blocks = n_strips.div_ceil(strips_per_block);
        let strips_per_block = n_strips.div_ceil(n_row_blocks);
        let panels_per_group = kernel.nr() / PANEL_ROWS;
        let n_groups = n_panels.div_ceil(panels_per_group);
        let wanted = if compute.n_threads() == 1 {
            1
        } else {
            compute.n_threads() * CHUNKS_PER_THREAD
        };
        let groups_per_block = n_groups.div_ceil(wanted.div_ceil(n_row_blocks).min(n_groups));
        let n_col_blocks = n_groups.div_ceil(groups_per_block);

        let packed = &*packed;
        let out = SyncPtr::new(out.as_mut_ptr());
        compute.pool().run(n_row_blocks * n_col_blocks, &|chunk| {
            let (row_block, col_block) = (chunk / n_col_blocks, chunk % n_col_blocks);
            let first_strip = row_block * strips_per_block;
            let first_group = col_block * groups_per_block;
            for group in first_group..(first_group + groups_per_block).min(n_groups) {
                let first_panel = group * panels_per_group;
                let last_panel = (first_panel + panels_per_group).min(n_panels);
                rhs.with_panels(kernel, first_panel..last_panel, &mut |panels| {
                    for strip in first_strip..(first_strip + strips_per_block).min(n_strips) {
                        let rows = layout.rows(strip);
                        let lines = &packed[strip * layout.lines()..][..layout.lines()];
                        let tile = layout.tile(rows.len(), lines, panels);
                        // SAFETY: the tile is inside `out` and no other chunk has these rows and
                        // columns.
                        unsafe {
                            let out = out.at(rows.start * n + first_panel * PANEL_ROWS);
                            one_tile(kernel, &tile, panels, out, n, store);
                        }
                    }
                });
            }
        });
    });
}

/// Computes one tile of some panels.
///
/// # Safety
///
/// * `tile` is consistent in the sense of [`Microkernel::tile`], or of [`Microkernel::int4_tile`]
///   for int4 panels.
/// * `tile.rows` rows of `panels.n` values, `out_stride` apart, are writable at `out`, initialised,
///   and nobody else's.
unsafe fn one_tile(
    kernel: &dyn Microkernel,
    tile: &Tile<'_>,
    panels: TilePanels<'_>,
    out: *mut f32,
    out_stride: usize,
    store: Store,
) {
    let (width, n_cols) = (tile.n_panels * PANEL_ROWS, panels.n);
    let run = |out: *mut f32, stride: usize, store: Store| {
        // SAFETY: consistent by the caller's promise; both places below hold the tile.
        unsafe {
            match panels.is_int4 {
                true => kernel.int4_tile(tile, out, stride, store),
                false => kernel.tile(tile, out, stride, store),
            }
        }
    };
    if n_cols == width {
        return run(out, out_stride, store);
    }
    // MAX_TILE holds the tile of any kernel.
    let mut edge = [0.0; MAX_TILE];
    run(edge.as_mut_ptr(), width, Store::Overwrite);
    for (i, values) in edge.chunks_exact(width).take(tile.rows).enumerate() {
        // SAFETY: row i has n_cols values, by the caller's promise.
        let out = unsafe { std::slice::from_raw_parts_mut(out.add(i * out_stride), n_cols) };
        store_edge(values, out, store);
    }
}
