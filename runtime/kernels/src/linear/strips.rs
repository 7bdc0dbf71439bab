//! [`StripLayout`]: the tokens of a product packed for the tiles of a kernel.

use std::ops::Range;

use super::sum;
use super::tiles::{TilePanels, Weights};
use crate::aligned::{Line, lines_for, words, words_mut};
use crate::int8_gemm::{Microkernel, Tile};
use crate::panels::k_padded;
use crate::quantize::Int8Rows;

/// The tokens of a product in strips of nearly equal length, and where the parts of a packed strip
/// lie.
#[derive(Clone, Copy)]
pub(super) struct StripLayout<'a> {
    kernel: &'static dyn Microkernel,
    lhs: Int8Rows<'a>,
    pub(super) n_strips: usize,
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
    pub(super) fn new(
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
    pub(super) fn lines(&self) -> usize {
        self.data_lines + self.scale_lines + self.sum_lines
    }

    /// Tokens of one strip.
    pub(super) fn rows(&self, strip: usize) -> Range<usize> {
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
    pub(super) fn tile<'t>(
        &self,
        rows: usize,
        strip: &'t [Line],
        panels: TilePanels<'t>,
        ahead: &'t [u8],
    ) -> Tile<'t> {
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
            ahead,
        }
    }

    /// Packs one strip into its lines.
    pub(super) fn pack(&self, strip: usize, lines: &mut [Line]) {
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
