//! Fused ops of the decoder, for the tokens of a prompt; one token alone goes through
//! [`crate::engine::decoder::step`]. The head stands there too.
//!
//! ```text
//! ids i64 [S] → Embed → x f32 [S, hidden];  x, ids, image rows → Merge → x
//!   per layer:  x → QkvRope → q, k, v (k and v go to the cache) → Attention → ctx
//!               x, ctx → OutProject → x
//!               x → GateUp → rows (int8 + group scales)
//!               x, rows → Down → x
//! ```
//!
//! Keys and values live with the host: it installs a [`SharedKv`] in the turn's
//! shared map, and the ops of layer `i` read and write layer `i` of it.

use super::{f32s, fill, fill_int8, fused_op, i8s, inputs, int8_facts, update};
use crate::engine::decoder::{DecoderModel, SharedKv, lock};
use crate::kv_cache::KvCache;
use ocelli_kernels::{Int8Rows, Int8RowsBuf};
use std::sync::{Arc, MutexGuard};
use tract_core::internal::*;
use tract_core::{as_op, not_out_of_plan, op_as_typed_op};

impl DecoderModel {
    /// Wires the decoder: ids `[S]` and image rows `[R, hidden]` → hidden states `[S, hidden]`.
    pub(in crate::engine) fn typed_model(self: &Arc<Self>) -> TractResult<TypedModel> {
        let mut graph = TypedModel::default();
        let hidden = self.config().hidden_size.to_dim();
        let s = graph.symbols.sym("S").to_dim();
        let r = graph.symbols.sym("R").to_dim();
        let ids = graph.add_source("ids", i64::fact([s]))?;
        let image_rows = graph.add_source("image_rows", f32::fact([r, hidden]))?;
        let model = || self.clone();
        let x = graph.wire_node(
            "embed",
            Embed {
                model: model(),
                layer: 0,
            },
            &[ids],
        )?[0];
        let op = Merge {
            model: model(),
            layer: 0,
        };
        let mut x = graph.wire_node("merge", op, &[x, ids, image_rows])?[0];
        for layer in 0..self.config().n_layers {
            let op = QkvRope {
                model: model(),
                layer,
            };
            let qkv = graph.wire_node(format!("{layer}.qkv"), op, &[x])?;
            let op = Attention {
                model: model(),
                layer,
            };
            let ctx = graph.wire_node(format!("{layer}.attention"), op, &qkv)?[0];
            let op = OutProject {
                model: model(),
                layer,
            };
            x = graph.wire_node(format!("{layer}.out"), op, &[x, ctx])?[0];
            let op = GateUp {
                model: model(),
                layer,
            };
            let rows = graph.wire_node(format!("{layer}.gate_up"), op, &[x])?;
            let op = Down {
                model: model(),
                layer,
            };
            x = graph.wire_node(format!("{layer}.down"), op, &[x, rows[0], rows[1]])?[0];
        }
        graph.select_output_outlets(&[x])?;
        Ok(graph)
    }
}

/// The turn's cache, locked.
fn cache<'a>(ctx: &'a EvalContext<'_>) -> TractResult<MutexGuard<'a, KvCache>> {
    let kv = ctx
        .shared
        .and_then(|shared| shared.get::<SharedKv>())
        .context("the host installs the KV cache before a turn")?;
    Ok(lock(kv))
}

/// Token ids → rows of the embedding table: `[S] → [S, hidden]`.
#[derive(Clone)]
struct Embed {
    model: Arc<DecoderModel>,
    layer: usize,
}

impl Embed {
    fn run(&self, _: &EvalContext, values: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let [ids] = inputs(values)?;
        let ids = ids.try_as_plain_ram()?.as_slice::<i64>()?;
        let hidden = self.model.config().hidden_size;
        let mut bits = vec![0u16; hidden];
        fill(&[ids.len(), hidden], |x| {
            for (row, id) in x.chunks_exact_mut(hidden).zip(ids) {
                self.model.embed(*id, &mut bits, row)?;
            }
            Ok(())
        })
    }
}

fused_op!(Embed, |op, inputs| tvec!(f32::fact([
    inputs[0].shape[0].clone(),
    op.model.config().hidden_size.to_dim()
])));

/// Image rows replace the embeddings at the image tokens, in order.
#[derive(Clone)]
struct Merge {
    model: Arc<DecoderModel>,
    layer: usize,
}

impl Merge {
    fn run(&self, _: &EvalContext, values: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let [x, ids, image_rows] = inputs(values)?;
        let ids = ids.try_as_plain_ram()?.as_slice::<i64>()?;
        let hidden = self.model.config().hidden_size;
        let mut source = f32s(&image_rows)?.chunks_exact(hidden);
        let merged = update(x, |x| {
            let rows = x.chunks_exact_mut(hidden).zip(ids);
            for (row, _) in rows.filter(|(_, id)| self.model.is_image_token(**id)) {
                row.copy_from_slice(source.next().context("more image tokens than image rows")?);
            }
            Ok(())
        })?;
        ensure!(source.next().is_none(), "more image rows than image tokens");
        Ok(merged)
    }
}

fused_op!(Merge, |_, inputs| tvec!(inputs[0].without_value()));

/// Norm, q, k, v projections, rotary positions; k and v go to the cache.
#[derive(Clone)]
struct QkvRope {
    model: Arc<DecoderModel>,
    layer: usize,
}

impl QkvRope {
    fn run(&self, ctx: &EvalContext, values: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let [x] = inputs(values)?;
        let model = &self.model;
        let width = model.qkv_width();
        let m = x.len() / model.config().hidden_size;
        let mut cache = cache(ctx)?;
        let first = cache.len();
        fill(&[m, width], |out| {
            model.qkv(self.layer, f32s(&x)?, &mut Int8RowsBuf::new(), out);
            let heads = model.rotated_heads();
            let row = model.row_width(self.layer);
            model.rope().apply(&mut out[..m * row], row, heads, first);
            model.keep(self.layer, first, out, &mut cache);
            Ok(())
        })
    }
}

fused_op!(QkvRope, |op, inputs| tvec!(f32::fact([
    inputs[0].shape[0].clone(),
    op.model.qkv_width().to_dim()
])));

/// Causal grouped-query attention over the cache: what `QkvRope` gives `→ [S, heads·head_dim]`.
#[derive(Clone)]
struct Attention {
    model: Arc<DecoderModel>,
    layer: usize,
}

impl Attention {
    fn run(&self, ctx: &EvalContext, values: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let [qkv] = inputs(values)?;
        let model = &self.model;
        let m = qkv.len() / model.qkv_width();
        let cache = cache(ctx)?;
        fill(&[m, model.ctx_width()], |out| {
            model.attend(self.layer, &cache, f32s(&qkv)?, out);
            Ok(())
        })
    }
}

fused_op!(Attention, |op, inputs| tvec!(f32::fact([
    inputs[0].shape[0].clone(),
    op.model.ctx_width().to_dim()
])));

/// Output projection added to the residual stream: `x, ctx → x`.
#[derive(Clone)]
struct OutProject {
    model: Arc<DecoderModel>,
    layer: usize,
}

impl OutProject {
    fn run(&self, _: &EvalContext, values: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let [x, ctx] = inputs(values)?;
        let ctx = f32s(&ctx)?;
        update(x, |x| {
            let rows = &mut Int8RowsBuf::new();
            self.model.out_project(self.layer, ctx, rows, x);
            Ok(())
        })
    }
}

fused_op!(OutProject, |_, inputs| tvec!(inputs[0].without_value()));

/// Norm, gate and up projections, `silu(gate)·up`, re-quantised by groups.
#[derive(Clone)]
struct GateUp {
    model: Arc<DecoderModel>,
    layer: usize,
}

impl GateUp {
    fn run(&self, _: &EvalContext, values: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let [x] = inputs(values)?;
        let (model, t) = (&self.model, self.model.config());
        let (m, inter) = (x.len() / t.hidden_size, t.intermediate_size);
        fill_int8(m, inter, model.down_group(self.layer), |out| {
            let rows = &mut Int8RowsBuf::new();
            model.gate_up(self.layer, f32s(&x)?, rows, out);
            Ok(())
        })
    }
}

fused_op!(GateUp, |op, inputs| int8_facts(
    inputs[0].shape[0].clone(),
    op.model.config().intermediate_size,
    op.model.down_group(op.layer)
));

/// Down projection added to the residual stream: `x, rows → x`.
#[derive(Clone)]
struct Down {
    model: Arc<DecoderModel>,
    layer: usize,
}

impl Down {
    fn run(&self, _: &EvalContext, values: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let [x, data, scales] = inputs(values)?;
        let (model, t) = (&self.model, self.model.config());
        let (m, group) = (x.len() / t.hidden_size, model.down_group(self.layer));
        let rows = Int8Rows::new(i8s(&data)?, f32s(&scales)?, m, t.intermediate_size, group)?;
        update(x, |x| {
            model.down(self.layer, rows, x);
            Ok(())
        })
    }
}

fused_op!(Down, |_, inputs| tvec!(inputs[0].without_value()));
