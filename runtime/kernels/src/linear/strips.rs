//! [`StripLayout`]: the tokens of a product packed for the tiles of a kernel.

use std::ops::Range;

use super::weights::{TilePanels, Weights};
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
    /// The first strips are longer than the others, by as many tokens as a kernel takes together; the
    /// last may lack some.
    longer_strips: usize,
    longer: StripLengths,
    others: StripLengths,
    last: StripLengths,
    k_padded: usize,
    n_groups: usize,
    /// Values per sum; 0 if the kernel needs no sums.
    sum_len: usize,
    data_lines: usize,
    scale_lines: usize,
    sum_lines: usize,
}

/// Tokens of a strip, and the lengths of its parts. Known for all tiles at once, because a tile is
/// over in microseconds.
#[derive(Clone, Copy)]
struct StripLengths {
    rows: usize,
    data: usize,
    scales: usize,
    sums: usize,
}

impl<'a> StripLayout<'a> {
    pub(super) fn new(
        kernel: &'static dyn Microkernel,
        lhs: Int8Rows<'a>,
        weights: &dyn Weights,
    ) -> StripLayout<'a> {
        let (k_padded, n_groups) = (k_padded(lhs.k()), lhs.n_groups());
        let n_strips = lhs.m().div_ceil(match n_groups {
            1 => kernel.mr(),
            _ => kernel.grouped_mr(),
        });
        let sum_len = if kernel.uses_lhs_sums() {
            weights.sum_len(&lhs)
        } else {
            0
        };
        let n_sums = k_padded.checked_div(sum_len).unwrap_or(0);
        let lengths = |rows| StripLengths {
            rows,
            data: kernel.lhs_bytes(rows, k_padded),
            scales: rows * n_groups,
            sums: rows * n_sums,
        };
        let together = kernel.tokens_together();
        let parts = lhs.m().div_ceil(together);
        let (longer_strips, each) = (parts % n_strips, parts / n_strips * together);
        let before = (n_strips - 1) * each + longer_strips.min(n_strips - 1) * together;
        let most = lengths(lhs.m().min(parts.div_ceil(n_strips) * together));
        StripLayout {
            kernel,
            lhs,
            n_strips,
            longer_strips,
            longer: lengths(parts.div_ceil(n_strips) * together),
            others: lengths(each),
            last: lengths(lhs.m() - before),
            k_padded,
            n_groups,
            sum_len,
            data_lines: lines_for::<i8>(most.data),
            scale_lines: lines_for::<f32>(most.scales),
            sum_lines: lines_for::<i32>(most.sums),
        }
    }

    /// Lines of every strip.
    pub(super) fn lines(&self) -> usize {
        self.data_lines + self.scale_lines + self.sum_lines
    }

    /// Tokens of one strip.
    #[inline]
    pub(super) fn rows(&self, strip: usize) -> Range<usize> {
        let further = self.longer.rows - self.others.rows;
        let first = strip * self.others.rows + strip.min(self.longer_strips) * further;
        first..first + self.lengths(strip).rows
    }

    #[inline]
    fn lengths(&self, strip: usize) -> &StripLengths {
        if strip + 1 == self.n_strips {
            &self.last
        } else if strip < self.longer_strips {
            &self.longer
        } else {
            &self.others
        }
    }

    /// The operands of a tile: strip `strip`, packed in `lines`, and some panels.
    #[inline]
    pub(super) fn tile<'t>(
        &self,
        strip: usize,
        lines: &'t [Line],
        panels: TilePanels<'t>,
        ahead: &'t [u8],
    ) -> Tile<'t> {
        let lengths = self.lengths(strip);
        let (data, rest) = lines.split_at(self.data_lines);
        let (scales, sums) = rest.split_at(self.scale_lines);
        Tile {
            rows: lengths.rows,
            lhs: &words(data)[..lengths.data],
            lhs_scales: &words(scales)[..lengths.scales],
            lhs_sums: &words(sums)[..lengths.sums],
            panels: panels.bytes,
            block_scales: panels.block_scales,
            n_panels: panels.n_panels,
            k_padded: self.k_padded,
            group_len: self.lhs.group_len(),
            ahead,
        }
    }

    /// Packs one strip into its lines.
    pub(super) fn pack(&self, strip: usize, lines: &mut [Line]) {
        let (range, lengths) = (self.rows(strip), self.lengths(strip));
        let rows = self.lhs.row_range(range.start, range.len());
        let (data, rest) = lines.split_at_mut(self.data_lines);
        let (scales, sums) = rest.split_at_mut(self.scale_lines);
        let (m, n_groups, width) = (rows.m(), self.n_groups, self.k_padded);
        let data = &mut words_mut(data)[..lengths.data];
        self.kernel.pack_lhs(rows.data(), width, data);
        let scales = &mut words_mut(scales)[..lengths.scales];
        for (i, row_scales) in rows.scales().chunks_exact(n_groups).enumerate() {
            for (g, scale) in row_scales.iter().enumerate() {
                scales[g * m + i] = *scale;
            }
        }
        if self.sum_len > 0 {
            let sums = &mut words_mut(sums)[..lengths.sums];
            self.kernel.sum_lhs(data, m, self.sum_len, sums);
        }
    }
}
