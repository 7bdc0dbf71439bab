//! [`linear`]: int8 activation rows times packed weights, split over the threads.
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

use crate::aligned::{Line, lines_for, with_scratch, words, words_mut};
use crate::compute::Compute;
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
        many_tokens(compute, lhs, rhs, out, store);
    }
}

fn one_token(compute: &Compute, lhs: Int8Rows<'_>, rhs: Panels<'_>, out: &mut [f32], store: Store) {
    let kernel = compute.gemv();
    let group_len = lhs.group_len();
    let n_sums = if kernel.uses_lhs_sums() {
        lhs.n_groups()
    } else {
        0
    };
    with_scratch(lines_for::<i32>(n_sums), |lines| {
        let sums: &mut [i32] = &mut words_mut(lines)[..n_sums];
        for (sum, values) in sums.iter_mut().zip(lhs.data().chunks_exact(group_len)) {
            *sum = values.iter().map(|&v| i32::from(v)).sum();
        }
        run_panels(compute, lhs, rhs, sums, out, store);
    });
}

/// One token times all panels; `sums` as in [`Gemv::lhs_sums`].
fn run_panels(
    compute: &Compute,
    lhs: Int8Rows<'_>,
    rhs: Panels<'_>,
    sums: &[i32],
    out: &mut [f32],
    store: Store,
) {
    let kernel = compute.gemv();
    let group_len = lhs.group_len();
    let stride = panel_stride(rhs.k());
    let n_panels = rhs.n_panels();
    let n_chunks =
        (rhs.bytes().len() / GEMV_CHUNK_BYTES).min(compute.n_threads() * CHUNKS_PER_THREAD);
    let panels_per_chunk = n_panels.div_ceil(n_chunks.max(1));
    compute
        .pool()
        .for_each_chunk_mut(out, panels_per_chunk * PANEL_ROWS, &|chunk, out| {
            let run = |first: usize, n_panels: usize, out: &mut [f32], store: Store| {
                let gemv = Gemv {
                    lhs: lhs.data(),
                    lhs_scales: lhs.scales(),
                    lhs_sums: sums,
                    panels: &rhs.bytes()[first * stride..][..n_panels * stride],
                    n_panels,
                    group_len,
                };
                debug_assert_eq!(out.len(), n_panels * PANEL_ROWS);
                // SAFETY: `Int8Rows` and `Panels` checked their lengths and alignment, `out` holds
                // eight values per panel.
                unsafe { kernel.panels(&gemv, out.as_mut_ptr(), store) };
            };
            let first = chunk * panels_per_chunk;
            let whole = out.len() / PANEL_ROWS;
            let (out_whole, out_rest) = out.split_at_mut(whole * PANEL_ROWS);
            if whole > 0 {
                run(first, whole, out_whole, store);
            }
            if !out_rest.is_empty() {
                let mut edge = [0.0; PANEL_ROWS];
                run(first + whole, 1, &mut edge, Store::Overwrite);
                store_edge(&edge, out_rest, store);
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
    data_lines: usize,
    word_lines: usize,
}

impl<'a> StripLayout<'a> {
    fn new(kernel: &'static dyn Microkernel, lhs: Int8Rows<'a>) -> StripLayout<'a> {
        let n_strips = lhs.m().div_ceil(kernel.mr());
        let most_rows = lhs.m().div_ceil(n_strips);
        let data_len = kernel.lhs_bytes(most_rows, k_padded(lhs.k()));
        StripLayout {
            kernel,
            lhs,
            n_strips,
            least_rows: lhs.m() / n_strips,
            longer_strips: lhs.m() % n_strips,
            data_lines: lines_for::<i8>(data_len),
            word_lines: lines_for::<f32>(most_rows * lhs.n_groups()),
        }
    }

    /// Lines of every strip.
    fn lines(&self) -> usize {
        self.data_lines + 2 * self.word_lines
    }

    /// Tokens of one strip.
    fn rows(&self, strip: usize) -> Range<usize> {
        let first = |strip: usize| strip * self.least_rows + strip.min(self.longer_strips);
        first(strip)..first(strip + 1)
    }

    fn data_len(&self, rows: usize) -> usize {
        self.kernel.lhs_bytes(rows, k_padded(self.lhs.k()))
    }

    fn n_sums(&self, n_words: usize) -> usize {
        if self.kernel.uses_lhs_sums() {
            n_words
        } else {
            0
        }
    }

    /// The operands of a tile: one packed strip and some panels.
    fn tile<'t>(&self, rows: usize, strip: &'t [Line], panels: Panels<'t>) -> Tile<'t> {
        let (data, rest) = strip.split_at(self.data_lines);
        let (scales, sums) = rest.split_at(self.word_lines);
        let n_words = rows * self.lhs.n_groups();
        Tile {
            rows,
            lhs: &words(data)[..self.data_len(rows)],
            lhs_scales: &words(scales)[..n_words],
            lhs_sums: &words(sums)[..self.n_sums(n_words)],
            panels: panels.bytes(),
            n_panels: panels.n_panels(),
            k_padded: panels.k_padded(),
            group_len: self.lhs.group_len(),
        }
    }

    /// Packs one strip into its lines.
    fn pack(&self, strip: usize, lines: &mut [Line]) {
        let range = self.rows(strip);
        let rows = self.lhs.row_range(range.start, range.len());
        let (data, rest) = lines.split_at_mut(self.data_lines);
        let (scales, sums) = rest.split_at_mut(self.word_lines);
        let (m, n_groups, width) = (rows.m(), rows.n_groups(), k_padded(rows.k()));
        let data = &mut words_mut(data)[..self.data_len(m)];
        self.kernel.pack_lhs(rows.data(), width, data);
        let scales = &mut words_mut(scales)[..m * n_groups];
        for (i, row_scales) in rows.scales().chunks_exact(n_groups).enumerate() {
            for (g, scale) in row_scales.iter().enumerate() {
                scales[g * m + i] = *scale;
            }
        }
        let sums: &mut [i32] = &mut words_mut(sums)[..self.n_sums(m * n_groups)];
        if sums.is_empty() {
            return;
        }
        for (i, row) in rows.data().chunks_exact(width).enumerate() {
            for (g, values) in row.chunks_exact(rows.group_len()).enumerate() {
                sums[g * m + i] = values.iter().map(|&v| i32::from(v)).sum();
            }
        }
    }
}

fn many_tokens(
    compute: &Compute,
    lhs: Int8Rows<'_>,
    rhs: Panels<'_>,
    out: &mut [f32],
    store: Store,
) {
    let kernel = compute.gemm();
    let n = rhs.n();
    let layout = StripLayout::new(kernel, lhs);
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
        let n_groups = rhs.n_panels().div_ceil(panels_per_group);
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
                let panels = rhs.panel_range(
                    first_panel,
                    panels_per_group.min(rhs.n_panels() - first_panel),
                );
                for strip in first_strip..(first_strip + strips_per_block).min(n_strips) {
                    let rows = layout.rows(strip);
                    let lines = &packed[strip * layout.lines()..][..layout.lines()];
                    let tile = layout.tile(rows.len(), lines, panels);
                    // SAFETY: the tile is inside `out` and no other chunk has these rows and
                    // columns.
                    unsafe {
                        let out = out.at(rows.start * n + first_panel * PANEL_ROWS);
                        one_tile(kernel, &tile, panels.n(), out, n, store);
                    }
                }
            }
        });
    });
}

/// Computes one tile of which `n_cols` output rows exist.
///
/// # Safety
///
/// * `tile` is consistent in the sense of [`Microkernel::tile`].
/// * `tile.rows` rows of `n_cols` values, `out_stride` apart, are writable at `out`, initialised,
///   and nobody else's.
unsafe fn one_tile(
    kernel: &dyn Microkernel,
    tile: &Tile<'_>,
    n_cols: usize,
    out: *mut f32,
    out_stride: usize,
    store: Store,
) {
    let width = tile.n_panels * PANEL_ROWS;
    if n_cols == width {
        // SAFETY: the whole tile is inside `out`, by the caller's promise.
        unsafe { kernel.tile(tile, out, out_stride, store) };
        return;
    }
    let mut edge = [0.0; MAX_TILE];
    // SAFETY: MAX_TILE holds the tile of any kernel.
    unsafe { kernel.tile(tile, edge.as_mut_ptr(), width, Store::Overwrite) };
    for (i, values) in edge.chunks_exact(width).take(tile.rows).enumerate() {
        // SAFETY: row i has n_cols values, by the caller's promise.
        let out = unsafe { std::slice::from_raw_parts_mut(out.add(i * out_stride), n_cols) };
        store_edge(values, out, store);
    }
}
