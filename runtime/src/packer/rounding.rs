//! Float linears become packed panels.

use super::feedback::Feedback;
use super::fold::Linear;
use ocelli_kernels::int4_groups::quantize_int4_groups;
use ocelli_kernels::int4_panels::{int4_byte_len, pack_int4_rows_into};
use ocelli_kernels::nibble_panels::split_panels;
use ocelli_kernels::{AlignedBytes, Panels, panels};

/// Output rows that are rounded at a time; bounds the memory beside the packed bytes.
const ROWS: usize = 256;

/// Rows of a linear that are rounded together.
struct Strip<'a> {
    first: usize,
    rows: &'a [f32],
    biases: Option<&'a [f32]>,
}

fn strips(linear: &Linear) -> impl Iterator<Item = Strip<'_>> {
    let strips = linear.weight.chunks(ROWS * linear.k).enumerate();
    strips.map(|(index, rows)| {
        let first = index * ROWS;
        let biases = linear.bias.as_deref();
        Strip {
            first,
            rows,
            biases: biases.map(|biases| &biases[first..][..rows.len() / linear.k]),
        }
    })
}

/// Rounds every output row to int8 with one scale, to nearest without a feedback.
pub(super) fn int8_panels(linear: &Linear, feedback: Option<&Feedback<'_>>) -> AlignedBytes {
    let k = linear.k;
    let mut packed = AlignedBytes::zeroed(panels::byte_len(linear.n, k));
    for strip in strips(linear) {
        let (rows, biases, first) = (strip.rows, strip.biases, strip.first);
        match feedback {
            Some(feedback) => {
                let (values, scales) = feedback.int8_rows(rows, k);
                panels::pack_int8_rows_into(&values, &scales, biases, first, k, &mut packed);
            }
            None => panels::pack_rows_into(rows, biases, first, k, &mut packed),
        }
    }
    packed
}

/// [`int8_panels`] as two planes: gives the high one, appends the low one to `low`.
pub(super) fn nibble_panels(
    linear: &Linear,
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
/// without a feedback.
pub(super) fn int4_panels(linear: &Linear, feedback: Option<&Feedback<'_>>) -> AlignedBytes {
    let k = linear.k;
    let mut packed = AlignedBytes::zeroed(int4_byte_len(linear.n, k));
    for strip in strips(linear) {
        let groups = match feedback {
            Some(feedback) => feedback.int4_rows(strip.rows, k),
            None => quantize_int4_groups(strip.rows, None, k),
        };
        pack_int4_rows_into(&groups, strip.biases, strip.first, &mut packed);
    }
    packed
}
