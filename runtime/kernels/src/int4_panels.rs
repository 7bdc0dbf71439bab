//! [`Int4Panels`]: the packed layout of int4 weights, the same for every instruction set.
//!
//! Weights `[n, k]` in [-8, 7], `n` padded to 8, `k` a multiple of 32, one f16 scale for each row
//! and 32 values of k:
//!
//! ```text
//! panel p = output rows 8p .. 8p+8
//!
//!   block b = 144 bytes = 32 values of k:
//!     128 bytes as four steps of [`crate::panels`], 8 rows × 4 values of k, two weights a byte:
//!       byte 32s + 4r + j:   low half   row 8p+r, k = 32b + 4s + j
//!                            high half  row 8p+r, k = 32b + 16 + 4s + j
//!     8 × f16 scale
//!   k/32 blocks, then 8 × f32 bias, then zeros up to a multiple of 64
//! ```
//!
//! Halves are two's complement.

use std::fmt;

use crate::half::f16_bits_to_f32;
use crate::int4_groups::Int4Groups;
use crate::panels::{
    ALIGNMENT, K_GROUP, MAX_K, PANEL_ROWS, PanelMut, PanelsError, STEP_BYTES, check_bytes,
    check_width, panel_stride,
};

/// Names this layout in files. A different byte order gets a different name.
pub const LAYOUT_ID: &str = "qc4w-8x32";
/// Values of k that share a scale; `k` is a multiple of it.
pub const BLOCK: usize = 32;
/// Bytes of the weights of one block.
pub(crate) const BLOCK_WEIGHTS: usize = PANEL_ROWS * BLOCK / 2;
/// Bytes from one block to the next.
pub const BLOCK_BYTES: usize = BLOCK_WEIGHTS + 2 * PANEL_ROWS;

/// Bytes from one panel to the next.
pub const fn int4_panel_stride(k: usize) -> usize {
    (k / BLOCK * BLOCK_BYTES + 4 * PANEL_ROWS).next_multiple_of(ALIGNMENT)
}

/// Bytes of packed weights `[n, k]`.
pub const fn int4_byte_len(n: usize, k: usize) -> usize {
    n.div_ceil(PANEL_ROWS) * int4_panel_stride(k)
}

/// Packs `groups` (`[r, k]`) as rows `first_row..first_row + r` of `packed`, which holds
/// [`int4_byte_len`]`(n, k)` bytes and was zero before its first row.
///
/// # Panics
///
/// Panics if a length does not fit.
pub fn pack_int4_rows_into(
    groups: &Int4Groups,
    bias: Option<&[f32]>,
    first_row: usize,
    packed: &mut [u8],
) {
    let k = groups.k();
    let bias_len = bias.map(<[f32]>::len);
    let n_rows = groups.values().len().checked_div(k).or(bias_len);
    let n_rows = n_rows.unwrap_or(0);
    assert!(bias_len.is_none_or(|b| b == n_rows), "one bias per row");
    let stride = int4_panel_stride(k);
    for i in 0..n_rows {
        let (p, r) = ((first_row + i) / PANEL_ROWS, (first_row + i) % PANEL_ROWS);
        let panel = &mut packed[p * stride..][..stride];
        let blocks = panel.chunks_exact_mut(BLOCK_BYTES).zip(groups.row(i));
        for (block, (values, scale)) in blocks {
            for (col, value) in values.iter().enumerate() {
                let (place, shift) = place_in_block(r, col);
                block[place] |= (*value as u8 & 0x0f) << shift;
            }
            block[BLOCK_WEIGHTS + 2 * r..][..2].copy_from_slice(&scale.to_le_bytes());
        }
        let bias = bias.map_or(0.0, |b| b[i]);
        panel[k / BLOCK * BLOCK_BYTES + 4 * r..][..4].copy_from_slice(&bias.to_le_bytes());
    }
}

/// The weights of a block, without its scales.
#[inline(always)]
pub(crate) fn weights(block: &[u8; BLOCK_BYTES]) -> &[u8; BLOCK_WEIGHTS] {
    let weights = block.first_chunk();
    weights.expect("a block begins with its weights")
}

/// Byte of a block and shift of one weight.
pub(crate) fn place_in_block(row: usize, col: usize) -> (usize, u32) {
    let (half, col) = (col / (BLOCK / 2), col % (BLOCK / 2));
    let step = col / K_GROUP * STEP_BYTES;
    (step + row * K_GROUP + col % K_GROUP, 4 * half as u32)
}

/// A checked view of packed int4 weights `[n, k]`.
#[derive(Clone, Copy)]
pub struct Int4Panels<'a> {
    bytes: &'a [u8],
    n: usize,
    k: usize,
}

impl<'a> Int4Panels<'a> {
    /// Views `bytes` as packed weights `[n, k]`.
    ///
    /// # Errors
    ///
    /// Fails if the length, the alignment or `k` is not that of packed int4 weights. The contents
    /// are not read: any bytes give a product without undefined behaviour.
    pub fn new(bytes: &'a [u8], n: usize, k: usize) -> Result<Int4Panels<'a>, PanelsError> {
        check_width(k, BLOCK, MAX_K)?;
        let stride = int4_panel_stride(k);
        check_bytes(bytes, n.div_ceil(PANEL_ROWS).saturating_mul(stride))?;
        Ok(Int4Panels { bytes, n, k })
    }

    /// Output rows.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Input values per row.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Number of panels.
    pub fn n_panels(&self) -> usize {
        self.n.div_ceil(PANEL_ROWS)
    }

    /// Bytes of all panels.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Rows `8 * first_panel..8 * (first_panel + n_panels)`, at most `n`, as weights of their own.
    ///
    /// # Panics
    ///
    /// Panics if a panel is out of range.
    pub fn panel_range(&self, first_panel: usize, n_panels: usize) -> Int4Panels<'a> {
        let stride = int4_panel_stride(self.k);
        Int4Panels {
            bytes: &self.bytes[first_panel * stride..][..n_panels * stride],
            n: (n_panels * PANEL_ROWS).min(self.n.saturating_sub(first_panel * PANEL_ROWS)),
            k: self.k,
        }
    }

    /// One int4 weight.
    pub fn weight(&self, row: usize, col: usize) -> i8 {
        let (place, shift) = place_in_block(row % PANEL_ROWS, col % BLOCK);
        let byte = self.block(row, col / BLOCK)[place];
        (byte << (4 - shift)) as i8 >> 4
    }

    /// Scale of the weights `32 * block..32 * (block + 1)` of one row.
    pub fn scale(&self, row: usize, block: usize) -> f32 {
        let bytes = &self.block(row, block)[BLOCK_WEIGHTS + 2 * (row % PANEL_ROWS)..];
        f16_bits_to_f32(u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    /// Bias of one output row.
    pub fn bias(&self, row: usize) -> f32 {
        let start = self.panel_start(row) + self.k / BLOCK * BLOCK_BYTES + 4 * (row % PANEL_ROWS);
        let bytes = &self.bytes[start..][..4];
        f32::from_le_bytes(bytes.try_into().expect("four bytes were sliced"))
    }

    /// Writes `weight * scale` of one output row, `out` `[k]`. The bias is not added.
    ///
    /// # Panics
    ///
    /// Panics if `row` is out of range or `out` has another length.
    pub fn dequantize_row(&self, row: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.k, "out must be [k]");
        for (col, value) in out.iter_mut().enumerate() {
            *value = f32::from(self.weight(row, col)) * self.scale(row, col / BLOCK);
        }
    }

    /// Reads every scale and bias and checks that they are finite. Every weight is valid.
    ///
    /// # Errors
    ///
    /// Names the first row that breaks the promise.
    pub fn validate(&self) -> Result<(), PanelsError> {
        for row in 0..self.n {
            if (0..self.k / BLOCK).any(|block| !self.scale(row, block).is_finite()) {
                let what = "a scale is not finite";
                return Err(PanelsError::Contents { row, what });
            }
            if !self.bias(row).is_finite() {
                let what = "the bias is not finite";
                return Err(PanelsError::Contents { row, what });
            }
        }
        Ok(())
    }

    /// Rewrites `n_panels` panels as int8 panels with scale 1, `[n_panels, panel_stride(k)]`, and
    /// their block scales as f32, `[n_panels, k / 32, 8]`.
    pub(crate) fn widen_into(&self, first_panel: usize, steps: &mut [u8], scales: &mut [f32]) {
        let from = self.bytes[first_panel * int4_panel_stride(self.k)..]
            .chunks_exact(int4_panel_stride(self.k));
        let to = steps.chunks_exact_mut(panel_stride(self.k));
        let scales = scales.chunks_exact_mut(self.k / BLOCK * PANEL_ROWS);
        for ((from, to), scales) in from.zip(to).zip(scales) {
            let (blocks, bias) = from.split_at(self.k / BLOCK * BLOCK_BYTES);
            let mut panel = PanelMut::new(to, self.k);
            panel.set_unit_scales(bias);
            let blocks = blocks.as_chunks::<BLOCK_BYTES>().0;
            let steps = panel.bytes().as_chunks_mut::<{ 2 * BLOCK_WEIGHTS }>().0;
            let scales = scales.as_chunks_mut::<PANEL_ROWS>().0;
            for ((block, steps), scales) in blocks.iter().zip(steps).zip(scales) {
                let (weights, halves) = block.split_at(BLOCK_WEIGHTS);
                let (low, high) = steps.split_at_mut(BLOCK_WEIGHTS);
                for ((byte, low), high) in weights.iter().zip(low).zip(high) {
                    *low = ((byte << 4) as i8 >> 4) as u8;
                    *high = (*byte as i8 >> 4) as u8;
                }
                for (scale, half) in scales.iter_mut().zip(halves.as_chunks::<2>().0) {
                    *scale = f16_bits_to_f32(u16::from_le_bytes(*half));
                }
            }
        }
    }

    fn panel_start(&self, row: usize) -> usize {
        assert!(row < self.n, "row {row} of {}", self.n);
        row / PANEL_ROWS * int4_panel_stride(self.k)
    }

    fn block(&self, row: usize, block: usize) -> &'a [u8] {
        assert!(block < self.k / BLOCK, "block {block} of k = {}", self.k);
        &self.bytes[self.panel_start(row) + block * BLOCK_BYTES..][..BLOCK_BYTES]
    }
}

impl fmt::Debug for Int4Panels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Int4Panels[{}, {}]", self.n, self.k)
    }
}

#[cfg(test)]
mod tests;
