//! [`HeadLayout`]: keys and values of one vision head as int8 panels in scratch.

use super::super::{Part, VisionQkv};
use super::terms::{MAX_TERMS, Order, quantize_terms_on, terms_for};
use super::weights::WEIGHT_OFFSET;
use super::{GROUP, PANEL_ROWS, k_padded, panel_stride, words};
use crate::aligned::{Line, lines_for, take_words, with_scratch};
use crate::lanes::{FloatTier, INTEGER_SHIFT, Lanes, tiered};
use crate::panels::{K_GROUP, PanelMut};
use crate::quantize::{ABSMAX_MIN, QUANTIZED_MAX, absmax};

/// Where the parts of one head lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadLayout {
    n: usize,
    head_dim: usize,
}

/// One head: keys as panels `[n padded, terms * head_dim]`, values as panels `[head_dim, n padded]`,
/// mean value `[head_dim]`.
#[derive(Clone, Copy)]
pub(super) struct PackedHead<'a> {
    pub(super) keys: &'a [u8],
    pub(super) values: &'a [u8],
    pub(super) mean_value: &'a [f32],
    /// `[groups, head_dim]`: the sum of the group's rounded values, times [`WEIGHT_OFFSET`].
    pub(super) offsets: &'a [f32],
    /// Products of a score.
    pub(super) terms: usize,
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
    pub(super) fn key_width(&self, terms: usize) -> usize {
        terms * k_padded(self.head_dim)
    }

    fn key_bytes(&self, terms: usize) -> usize {
        self.n_padded() / PANEL_ROWS * panel_stride(self.key_width(terms))
    }

    fn value_bytes(&self) -> usize {
        self.head_dim / PANEL_ROWS * panel_stride(self.n_padded())
    }

    /// Scratch lines of one head.
    pub(super) fn lines(&self) -> usize {
        lines_for::<u8>(self.key_bytes(MAX_TERMS))
            + lines_for::<u8>(self.value_bytes())
            + lines_for::<f32>(self.head_dim)
            + lines_for::<f32>(self.n_groups() * self.head_dim)
            + lines_for::<i32>(1)
    }

    /// The parts of a head that [`HeadLayout::pack`] wrote.
    pub(super) fn view<'a>(&self, lines: &'a [Line]) -> PackedHead<'a> {
        let (keys, rest) = lines.split_at(lines_for::<u8>(self.key_bytes(MAX_TERMS)));
        let (values, rest) = rest.split_at(lines_for::<u8>(self.value_bytes()));
        let (mean_value, rest) = rest.split_at(lines_for::<f32>(self.head_dim));
        let n_offsets = self.n_groups() * self.head_dim;
        let (offsets, terms) = rest.split_at(lines_for::<f32>(n_offsets));
        let terms = words::<i32>(terms)[0] as usize;
        PackedHead {
            keys: &words(keys)[..self.key_bytes(terms)],
            values: words(values),
            mean_value: &words(mean_value)[..self.head_dim],
            offsets: &words(offsets)[..n_offsets],
            terms,
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
        let keys = take_words(&mut rest, self.key_bytes(MAX_TERMS));
        let values = take_words(&mut rest, self.value_bytes());
        let mean_value = take_words(&mut rest, self.head_dim);
        let offsets = take_words(&mut rest, self.n_groups() * self.head_dim);
        let terms = take_words::<i32>(&mut rest, 1);
        let scratch = 3 * lines_for::<f32>(self.head_dim)
            + lines_for::<i8>(K_GROUP * self.key_width(MAX_TERMS));
        with_scratch(scratch, |lines| {
            let mut rest = lines;
            let floats = [(); 3].map(|()| take_words(&mut rest, self.head_dim));
            let rows = take_words(&mut rest, K_GROUP * self.key_width(MAX_TERMS));
            let [mean_key, row, factors] = floats;
            mean_rows(qkv, Part::Key, head, mean_key);
            // SAFETY: nothing beyond the instructions, which having the tier proves.
            unsafe {
                let reach = reach_squared(tier, qkv, head, mean_key, row);
                let n = terms_for(reach);
                terms[0] = n as i32;
                let keys = &mut keys[..self.key_bytes(n)];
                let rows_of_key = &mut rows[..self.key_width(n)];
                pack_keys(tier, self, qkv, head, mean_key, row, rows_of_key, keys);
                let statistics = (&mut *mean_value, factors, offsets);
                pack_values(tier, self, qkv, head, statistics, rows, values);
            }
        });
    }
}

tiered! {
    /// Mean square of the largest magnitude of a query, and of a key less the mean.
    unsafe fn reach_squared(
        qkv: &VisionQkv<'_>, head: usize, mean_key: &[f32], row: &mut [f32],
    ) -> [f32; 2] = reach_squared_on
}

/// # Safety
///
/// * The CPU has the instructions of `L`.
#[inline(always)]
unsafe fn reach_squared_on<L: Lanes>(
    qkv: &VisionQkv<'_>,
    head: usize,
    mean_key: &[f32],
    row: &mut [f32],
) -> [f32; 2] {
    let mut sums = [0.0_f32; 2];
    for position in 0..qkv.n {
        let query = qkv.part(Part::Query, head, position);
        subtract(qkv.part(Part::Key, head, position), mean_key, row);
        // SAFETY: both hold head_dim values.
        let largest = unsafe {
            [
                absmax::<L>(query.as_ptr(), query.len()),
                absmax::<L>(row.as_ptr(), row.len()),
            ]
        };
        for (sum, largest) in sums.iter_mut().zip(largest) {
            *sum += largest * largest;
        }
    }
    sums.map(|sum| sum / qkv.n as f32)
}

/// `out = row - mean`.
#[inline(always)]
fn subtract(row: &[f32], mean: &[f32], out: &mut [f32]) {
    for ((out, value), mean) in out.iter_mut().zip(row).zip(mean) {
        *out = value - mean;
    }
}

tiered! {
    unsafe fn pack_keys(
        layout: &HeadLayout, qkv: &VisionQkv<'_>, head: usize, mean: &[f32], row: &mut [f32],
        quantized: &mut [i8], packed: &mut [u8],
    ) = pack_keys_on
}

/// Packs the keys less their mean, each with its own scale; `quantized` holds one of them.
///
/// # Safety
///
/// * The CPU has the instructions of `L`.
#[inline(always)]
unsafe fn pack_keys_on<L: Lanes>(
    layout: &HeadLayout,
    qkv: &VisionQkv<'_>,
    head: usize,
    mean: &[f32],
    row: &mut [f32],
    quantized: &mut [i8],
    packed: &mut [u8],
) {
    let (width, part) = (quantized.len(), layout.key_width(1));
    let panels = packed.chunks_exact_mut(panel_stride(width)).enumerate();
    for (p, panel) in panels {
        let mut panel = PanelMut::new(panel, width);
        for r in 0..PANEL_ROWS {
            quantized.fill(0);
            let position = p * PANEL_ROWS + r;
            let mut scale = 0.0;
            if position < layout.n {
                subtract(qkv.part(Part::Key, head, position), mean, row);
                // SAFETY: quantized holds whole parts, each at least as long as the row.
                scale = unsafe { quantize_terms_on::<L>(row, 1.0, Order::Key, part, quantized) };
            }
            panel.set_row(r, quantized);
            panel.set_scale(r, scale);
        }
    }
}

tiered! {
    unsafe fn pack_values(
        layout: &HeadLayout, qkv: &VisionQkv<'_>, head: usize,
        statistics: (&mut [f32], &mut [f32], &mut [f32]), quantized: &mut [i8], packed: &mut [u8],
    ) = pack_values_on
}

/// Packs the values less their mean, transposed, each dimension with its own scale. `statistics`:
/// mean, factors before the rounding, and offsets as in [`PackedHead`].
///
/// # Safety
///
/// * The CPU has the instructions of `L`.
#[inline(always)]
unsafe fn pack_values_on<L: Lanes>(
    layout: &HeadLayout,
    qkv: &VisionQkv<'_>,
    head: usize,
    (mean, factors, offsets): (&mut [f32], &mut [f32], &mut [f32]),
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
    offsets.fill(0.0);
    let rows = &mut quantized[..K_GROUP * layout.head_dim];
    for step in 0..n_padded / K_GROUP {
        for (j, row) in rows.chunks_exact_mut(layout.head_dim).enumerate() {
            let position = step * K_GROUP + j;
            if position >= layout.n {
                row.fill(0);
                continue;
            }
            let value = qkv.part(Part::Value, head, position);
            let sums = &mut offsets[position / GROUP * layout.head_dim..][..layout.head_dim];
            let affine = mean.iter().zip(&*factors).zip(sums);
            for ((q, value), ((mean, factor), sum)) in row.iter_mut().zip(value).zip(affine) {
                // The low byte of the shifted number: at most 127 in magnitude, 0 for NaN.
                let shifted = (value - mean) * factor + INTEGER_SHIFT;
                *q = shifted.to_bits() as i8;
                *sum += shifted - INTEGER_SHIFT;
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
    let offset = WEIGHT_OFFSET as f32;
    for sums in offsets.chunks_exact_mut(layout.head_dim) {
        for (sum, factor) in sums.iter_mut().zip(&*factors) {
            // The scale of the values, once more.
            let scale = if *factor == 0.0 { 0.0 } else { 1.0 / factor };
            *sum *= offset * scale;
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
