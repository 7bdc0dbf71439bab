//! Float linears become packed panels.

use super::fold::Linear;
use ocelli_kernels::int4_groups::quantize_int4_groups;
use ocelli_kernels::int4_panels::{int4_byte_len, pack_int4_rows_into};
use ocelli_kernels::panels;

/// Output rows that are rounded at a time; bounds the memory beside the packed bytes.
const ROWS: usize = 256;

/// Rounds every output row to int8 with one scale.
pub(super) fn int8_panels(linear: &Linear) -> Vec<u8> {
    panels::pack(&linear.weight, linear.bias.as_deref(), linear.n, linear.k)
}

/// Rounds every 32 values of an output row to int4 with one scale, searched for. `mean_squares`
/// `[k]` are those of the input's values: what an error of their weights costs.
///
/// Rows are rounded on their own, [`ROWS`] at a time, so error feedback along a row takes the
/// place of [`quantize_int4_groups`] and changes nothing else.
pub(super) fn int4_panels(linear: &Linear, mean_squares: Option<&[f32]>) -> Vec<u8> {
    let (n, k) = (linear.n, linear.k);
    let mut packed = vec![0; int4_byte_len(n, k)];
    for (index, rows) in linear.weight.chunks(ROWS * k).enumerate() {
        let first = index * ROWS;
        let bias = linear
            .bias
            .as_deref()
            .map(|bias| &bias[first..][..rows.len() / k]);
        let groups = quantize_int4_groups(rows, mean_squares, k);
        pack_int4_rows_into(&groups, bias, first, &mut packed);
    }
    packed
}
