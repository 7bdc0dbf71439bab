//! What a layer of either tower is made of, on plain slices: the tract ops and the decode step
//! call the same functions.

use crate::pack::WeightPanels;
use ocelli_kernels::{
    Activation, Compute, Int8Rows, Int8RowsBuf, Int8RowsMut, Store, linear as linear_int8,
    linear_activated as linear_int8_activated, linear_blocks as linear_int8_blocks, linear_int4,
    linear_int4_activated, linear_int4_blocks, linear_nibbles, norm, quantize,
};

/// What opening a pack checks.
const ONLY_THE_HEAD: &str = "only the head is in two planes";

/// An RMSNorm and how what it gives is quantised.
#[derive(Clone, Copy, Debug)]
pub(super) struct Norm<'w> {
    pub(super) hidden: usize,
    pub(super) eps: f32,
    /// `[hidden]`; none where it is folded into the matrix behind.
    pub(super) weight: Option<&'w [f32]>,
    /// Values that share a scale; 0 = all of a token.
    pub(super) group: usize,
}

impl Norm<'_> {
    /// The norm of `x` (`[m, hidden]`), as int8 rows in `rows`.
    pub(super) fn rows<'b>(
        &self,
        compute: &Compute,
        x: &[f32],
        rows: &'b mut Int8RowsBuf,
    ) -> Int8Rows<'b> {
        let room = rows.reshape(x.len() / self.hidden, self.hidden, self.group);
        norm::rms_norm_quantize_rows(compute, x, self.weight, self.eps, room);
        rows.rows()
    }
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
        WeightPanels::Nibbles(panels) => linear_nibbles(compute, rows, panels, out, store),
    }
}

/// `rows·Wᵀ` with the columns in blocks. `rows`: `[m, k]`, `out`: `[n / block, m, block]`
pub(super) fn linear_blocks(
    compute: &Compute,
    rows: Int8Rows<'_>,
    weights: WeightPanels<'_>,
    block: usize,
    out: &mut [f32],
) {
    match weights {
        WeightPanels::Int8(panels) => linear_int8_blocks(compute, rows, panels, block, out),
        WeightPanels::Int4(panels) => linear_int4_blocks(compute, rows, panels, block, out),
        WeightPanels::Nibbles(_) => unreachable!("{ONLY_THE_HEAD}"),
    }
}

/// `activation(rows·Wᵀ)`, quantised as `out` says. `rows`: `[m, k]`
pub(super) fn linear_activated(
    compute: &Compute,
    rows: Int8Rows<'_>,
    weights: WeightPanels<'_>,
    activation: Activation,
    out: Int8RowsMut<'_>,
) {
    match weights {
        WeightPanels::Int8(panels) => linear_int8_activated(compute, rows, panels, activation, out),
        WeightPanels::Int4(panels) => linear_int4_activated(compute, rows, panels, activation, out),
        WeightPanels::Nibbles(_) => unreachable!("{ONLY_THE_HEAD}"),
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
