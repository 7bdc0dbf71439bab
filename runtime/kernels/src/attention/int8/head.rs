//! [`HeadLayout`]: keys and values of one vision head as int8 panels in scratch.

use super::super::{Part, VisionQkv};
use super::{GROUP, PANEL_ROWS, k_padded, panel_stride, words};
use crate::aligned::{Line, lines_for, take_words, with_scratch};
use crate::lanes::{FloatTier, INTEGER_SHIFT, Lanes, tiered};
use crate::panels::{K_GROUP, PanelMut};
use crate::quantize::{ABSMAX_MIN, QUANTIZED_MAX, quantize_row_on};

/// Where the parts of one head lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadLayout {
    n: usize,
    head_dim: usize,
}

/// One head: keys as panels `[n padded, head_dim]`, values as panels `[head_dim, n padded]`, mean
/// value `[head_dim]`.
#[derive(Clone, Copy)]
pub(super) struct PackedHead<'a> {
    pub(super) keys: &'a [u8],
    pub(super) values: &'a [u8],
    pub(super) mean_value: &'a [f32],
}

impl HeadLayout {
    pub(super) fn new(n: usize, head_dim: usize) -> HeadLayout {
        HeadLayout { n, head_dim }
    }

    /// Keys.
    pub(super) fn n(&self) -> usize {
        self.n
    }

    /// Keys in whole groups.
    pub(super) fn n_padded(&self) -> usize {
        self.n.next_multiple_of(GROUP)
    }

    pub(super) fn n_groups(&self) -> usize {
        self.n_padded() / GROUP
    }

    pub(super) fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Values of one packed key.
    pub(super) fn key_width(&self) -> usize {
        k_padded(self.head_dim)
    }

    fn key_bytes(&self) -> usize {
        self.n_padded() / PANEL_ROWS * panel_stride(self.key_width())
    }

    fn value_bytes(&self) -> usize {
        self.head_dim / PANEL_ROWS * panel_stride(self.n_padded())
    }

    /// Scratch lines of one head.
    pub(super) fn lines(&self) -> usize {
        lines_for::<u8>(self.key_bytes())
            + lines_for::<u8>(self.value_bytes())
            + lines_for::<f32>(self.head_dim)
    }

    /// The parts of a head that [`HeadLayout::pack`] wrote.
    pub(super) fn view<'a>(&self, lines: &'a [Line]) -> PackedHead<'a> {
        let (keys, rest) = lines.split_at(lines_for::<u8>(self.key_bytes()));
        let (values, mean_value) = rest.split_at(lines_for::<u8>(self.value_bytes()));
        PackedHead {
            keys: words(keys),
            values: words(values),
            mean_value: &words(mean_value)[..self.head_dim],
        }
    }

    /// Quantises and packs the keys and values of one head into `lines`, [`HeadLayout::lines`] long.
    pub(super) fn pack(
        &self,
        tier: FloatTier,
        qkv: &VisionQkv<'_>,
        head: usize,
        lines: &mut [Line],
    ) {
        let mut rest = lines;
        let keys = take_words(&mut rest, self.key_bytes());
        let values = take_words(&mut rest, self.value_bytes());
        let mean_value = take_words(&mut rest, self.head_dim);
        let scratch = 3 * lines_for::<f32>(self.head_dim) + lines_for::<i8>(4 * self.key_width());
        with_scratch(scratch, |lines| {
            let mut rest = lines;
            let floats = [(); 3].map(|()| take_words(&mut rest, self.head_dim));
            let rows = take_words(&mut rest, K_GROUP * self.key_width());
            let [mean_key, row, factors] = floats;
            // SAFETY: nothing beyond the instructions, which having the tier proves.
            unsafe {
                pack_keys(tier, self, qkv, head, mean_key, row, rows, keys);
                pack_values(tier, self, qkv, head, mean_value, factors, rows, values);
            }
        });
    }
}

tiered! {
    unsafe fn pack_keys(
        layout: &HeadLayout, qkv: &VisionQkv<'_>, head: usize, mean: &mut [f32], row: &mut [f32],
        quantized: &mut [i8], packed: &mut [u8],
    ) = pack_keys_on
}

/// Packs the keys less their mean, each with its own scale.
///
/// # Safety
///
/// * The CPU has the instructions of `L`.
#[inline(always)]
unsafe fn pack_keys_on<L: Lanes>(
    layout: &HeadLayout,
    qkv: &VisionQkv<'_>,
    head: usize,
    mean: &mut [f32],
    row: &mut [f32],
    quantized: &mut [i8],
    packed: &mut [u8],
) {
    let width = layout.key_width();
    let quantized = &mut quantized[..width];
    mean_rows(qkv, Part::Key, head, mean);
    let panels = packed.chunks_exact_mut(panel_stride(width)).enumerate();
    for (p, panel) in panels {
        let mut panel = PanelMut::new(panel, width);
        for r in 0..PANEL_ROWS {
            quantized.fill(0);
            let position = p * PANEL_ROWS + r;
            let mut scale = [0.0];
            if position < layout.n {
                let key = qkv.part(Part::Key, head, position);
                for ((row, key), mean) in row.iter_mut().zip(key).zip(&*mean) {
                    *row = key - mean;
                }
                // SAFETY: row holds head_dim values, quantized at least as many, one scale for
                // the whole row.
                unsafe {
                    let (from, to) = (row.as_ptr(), quantized.as_mut_ptr());
                    quantize_row_on::<L>(from, layout.head_dim, 0, 1.0, to, &mut scale);
                }
            }
            panel.set_row(r, quantized);
            panel.set_scale(r, scale[0]);
        }
    }
}

tiered! {
    unsafe fn pack_values(
        layout: &HeadLayout, qkv: &VisionQkv<'_>, head: usize, mean: &mut [f32],
        factors: &mut [f32], quantized: &mut [i8], packed: &mut [u8],
    ) = pack_values_on
}

/// Packs the values less their mean, transposed, each dimension with its own scale.
///
/// # Safety
///
/// * The CPU has the instructions of `L`.
#[inline(always)]
unsafe fn pack_values_on<L: Lanes>(
    layout: &HeadLayout,
    qkv: &VisionQkv<'_>,
    head: usize,
    mean: &mut [f32],
    factors: &mut [f32],
    quantized: &mut [i8],
    packed: &mut [u8],
) {
    let n_padded = layout.n_padded();
    let stride = panel_stride(n_padded);
    mean_rows(qkv, Part::Value, head, mean);
    factors.fill(0.0);
    for position in 0..layout.n {
        let value = qkv.part(Part::Value, head, position);
        for ((max, value), mean) in factors.iter_mut().zip(value).zip(&*mean) {
            *max = max.max((value - mean).abs());
        }
    }
    for (p, panel) in packed.chunks_exact_mut(stride).enumerate() {
        let mut panel = PanelMut::new(panel, n_padded);
        for r in 0..PANEL_ROWS {
            let factor = &mut factors[p * PANEL_ROWS + r];
            let absmax = factor.min(f32::MAX);
            let zero = absmax < ABSMAX_MIN;
            panel.set_scale(r, if zero { 0.0 } else { absmax / QUANTIZED_MAX });
            *factor = if zero { 0.0 } else { QUANTIZED_MAX / absmax };
        }
    }
    let rows = &mut quantized[..K_GROUP * layout.head_dim];
    for step in 0..n_padded / K_GROUP {
        for (j, row) in rows.chunks_exact_mut(layout.head_dim).enumerate() {
            let position = step * K_GROUP + j;
            if position >= layout.n {
                row.fill(0);
                continue;
            }
            let value = qkv.part(Part::Value, head, position);
            let affine = mean.iter().zip(&*factors);
            for ((q, value), (mean, factor)) in row.iter_mut().zip(value).zip(affine) {
                // The low byte of the shifted number: at most 127 in magnitude, 0 for NaN.
                *q = ((value - mean) * factor + INTEGER_SHIFT).to_bits() as i8;
            }
        }
        for (p, panel) in packed.chunks_exact_mut(stride).enumerate() {
            let out = &mut panel[step * PANEL_ROWS * K_GROUP..][..PANEL_ROWS * K_GROUP];
            let rows: [&[i8]; K_GROUP] = std::array::from_fn(|j| {
                &rows[j * layout.head_dim + p * PANEL_ROWS..][..PANEL_ROWS]
            });
            for (d, out) in out.as_chunks_mut::<K_GROUP>().0.iter_mut().enumerate() {
                *out = rows.map(|row| row[d] as u8);
            }
        }
    }
}

/// Mean over the rows, `mean` `[head_dim]`.
#[inline(always)]
fn mean_rows(qkv: &VisionQkv<'_>, part: Part, head: usize, mean: &mut [f32]) {
    mean.fill(0.0);
    for position in 0..qkv.n {
        for (sum, value) in mean.iter_mut().zip(qkv.part(part, head, position)) {
            *sum += value;
        }
    }
    let n = qkv.n as f32;
    for sum in mean {
        *sum /= n;
    }
}
