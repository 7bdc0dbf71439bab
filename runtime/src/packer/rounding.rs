//! Float linears become packed panels.

use super::feedback::Feedback;
use super::fold::Linear;
use ocelli_kernels::half::f16_bits_to_f32;
use ocelli_kernels::int4_groups::quantize_int4_groups;
use ocelli_kernels::int4_panels::{BLOCK, int4_byte_len, pack_int4_rows_into};
use ocelli_kernels::nibble_panels::split_panels;
use ocelli_kernels::{AlignedBytes, Panels, panels};

/// Output rows that are rounded at a time; bounds the memory beside the packed bytes.
const ROWS: usize = 256;

/// Rounds every output row to int8 with one scale, to nearest without a feedback, and leaves the
/// rounded weights in the linear with one.
pub(super) fn int8_panels(linear: &mut Linear, feedback: Option<&Feedback<'_>>) -> AlignedBytes {
    let k = linear.k;
    let mut packed = AlignedBytes::zeroed(panels::byte_len(linear.n, k));
    each_strip(linear, |first, rows, biases| match feedback {
        Some(feedback) => {
            let (values, scales) = feedback.int8_rows(rows, k);
            panels::pack_int8_rows_into(&values, &scales, biases, first, k, &mut packed);
            put_back(rows, &values, k, |run| scales[run]);
        }
        None => panels::pack_rows_into(rows, biases, first, k, &mut packed),
    });
    packed
}

/// [`int8_panels`] as two planes: gives the high one, appends the low one to `low`.
pub(super) fn nibble_panels(
    linear: &mut Linear,
    feedback: Option<&Feedback<'_>>,
    low: &mut Vec<u8>,
) -> Vec<u8> {
    let bytes = int8_panels(linear, feedback);
    let panels = Panels::new(&bytes, linear.n, linear.k);
    let mut high = Vec::new();
    split_panels(panels.expect("made of this shape"), &mut high, low);
    high
}

/// Rounds every 32 values of an output row to int4 with one scale, searched for; to nearest
/// without a feedback. Leaves the rounded weights in the linear with one.
pub(super) fn int4_panels(linear: &mut Linear, feedback: Option<&Feedback<'_>>) -> AlignedBytes {
    let k = linear.k;
    let mut packed = AlignedBytes::zeroed(int4_byte_len(linear.n, k));
    each_strip(linear, |first, rows, biases| {
        let groups = match feedback {
            Some(feedback) => feedback.int4_rows(rows, k),
            None => quantize_int4_groups(rows, k),
        };
        pack_int4_rows_into(&groups, biases, first, &mut packed);
        if feedback.is_some() {
            let scale = |run: usize| f16_bits_to_f32(groups.scales()[run]);
            put_back(rows, groups.values(), BLOCK, scale);
        }
    });
    packed
}

/// Goes through the rows of a linear: number of the first one, rows, their biases.
fn each_strip(linear: &mut Linear, mut round: impl FnMut(usize, &mut [f32], Option<&[f32]>)) {
    let k = linear.k;
    for (index, rows) in linear.weight.chunks_mut(ROWS * k).enumerate() {
        let (first, n) = (index * ROWS, rows.len() / k);
        let biases = linear.bias.as_deref().map(|biases| &biases[first..][..n]);
        round(first, rows, biases);
    }
}

/// Overwrites weights by what they were rounded to: integers, and the scale of each run of them.
fn put_back(weights: &mut [f32], values: &[i8], run: usize, scale: impl Fn(usize) -> f32) {
    let runs = weights.chunks_mut(run).zip(values.chunks(run)).enumerate();
    for (index, (weights, values)) in runs {
        let scale = scale(index);
        for (weight, value) in weights.iter_mut().zip(values) {
            *weight = f32::from(*value) * scale;
        }
    }
}
