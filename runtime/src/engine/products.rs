//! What a layer of either tower is made of, on plain slices: the tract ops and the decode step
//! call the same functions.

use crate::pack::WeightPanels;
use ocelli_kernels::{
    Compute, Int8Rows, Int8RowsBuf, Store, linear as linear_int8, linear_int4, norm, quantize,
};

/// Weightless RMSNorm of `x` (`[m, hidden]`), as int8 rows with one scale each in `rows`.
pub(super) fn normed<'b>(
    compute: &Compute,
    x: &[f32],
    hidden: usize,
    eps: f32,
    rows: &'b mut Int8RowsBuf,
) -> Int8Rows<'b> {
    norm::rms_norm_quantize_rows(compute, x, eps, rows.reshape(x.len() / hidden, hidden, 0));
    rows.rows()
}

/// `rows·Wᵀ` with the kernel of the weights' layout. `rows`: `[m, k]`, `out`: `[m, n]`
pub(crate) fn linear(
    compute: &Compute,
    rows: Int8Rows<'_>,
    weights: WeightPanels<'_>,
    out: &mut [f32],
    store: Store,
) {
    match weights {
        WeightPanels::Int8(panels) => linear_int8(compute, rows, panels, out, store),
        WeightPanels::Int4(panels) => linear_int4(compute, rows, panels, out, store),
    }
}

/// `x ← x + quantised(ctx)·Wᵀ`, quantised in `rows` by groups of `group` values: the output
/// projection of both towers. `ctx`: `[m, k]`, `x`: `[m, n]`
pub(super) fn project_add(
    compute: &Compute,
    (weights, group): (WeightPanels<'_>, usize),
    ctx: &[f32],
    rows: &mut Int8RowsBuf,
    x: &mut [f32],
) {
    let k = weights.k();
    quantize::quantize_rows(compute, ctx, rows.reshape(ctx.len() / k, k, group));
    linear(compute, rows.rows(), weights, x, Store::Add);
}
