//! Fused ops of the decoder.
//!
//! ```text
//! ids i64 [S] → Embed → x f32 [S, hidden];  x, ids, image rows → Merge → x
//!   per layer:  x → QkvRope → q|k|v (k and v go to the cache) → Attention → ctx
//!               x, ctx → OutProject → x
//!               x → GateUp → rows (int8 + group scales)
//!               x, rows → Down → x
//! last row of x → Head → logits f32 [vocab]
//! ```
//!
//! Keys and values live with the host: it installs a [`SharedKv`] in the turn's
//! shared map, and the ops of layer `i` read and write layer `i` of it.

use super::{
    f32s, fill, fill_int8, fused_op, i8s, inputs, int8_facts, linear, product_add, project_add,
    to_tract, update,
};
use crate::config::TextConfig;
use crate::kv_cache::KvCache;
use crate::pack::{Layout, Matrix, OpenError, Pack};
use ocelli_kernels::rope::RopeTable;
use ocelli_kernels::{Compute, Int8Rows, Int8RowsBuf, Store, activation, attention, half};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tract_core::internal::*;
use tract_core::{as_op, not_out_of_plan, op_as_typed_op};

/// The cache of the conversation whose turn is being evaluated.
pub(in crate::engine) type SharedKv = Arc<Mutex<KvCache>>;

/// Locks a cache. A panic elsewhere leaves the filled length as it was, so a
/// poisoned lock is still usable.
pub(in crate::engine) fn lock(kv: &SharedKv) -> MutexGuard<'_, KvCache> {
    kv.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Places of one decoder layer's matrices.
#[derive(Debug)]
struct Layer {
    qkv: Matrix,
    out: Matrix,
    gate_up: Matrix,
    down: Matrix,
}

/// The decoder inside a pack.
#[derive(Debug)]
pub(in crate::engine) struct DecoderModel {
    pack: Arc<Pack>,
    compute: Arc<Compute>,
    config: TextConfig,
    /// -1, which no id is, without a vision side.
    image_token_id: i64,
    rope: RopeTable,
    layers: Vec<Layer>,
    head: Matrix,
}

impl DecoderModel {
    pub(in crate::engine) fn new(
        pack: Arc<Pack>,
        compute: Arc<Compute>,
    ) -> Result<DecoderModel, OpenError> {
        let config = pack.header().config.text.clone();
        let image_token = pack.header().config.image_token_id();
        let image_token_id = image_token.map_or(-1, i64::from);
        let t = &config;
        let (hidden, inter) = (t.hidden_size, t.intermediate_size);
        let (heads, kv) = (t.n_heads * t.head_dim, t.n_kv_heads * t.head_dim);
        pack.tensor("text.embed", Layout::F16, [t.vocab_size, hidden])?;
        let layers = (0..t.n_layers)
            .map(|i| {
                Ok(Layer {
                    qkv: pack.matrix(&format!("text.{i}.qkv"), heads + 2 * kv, hidden)?,
                    out: pack.matrix(&format!("text.{i}.out"), hidden, heads)?,
                    gate_up: pack.matrix(&format!("text.{i}.gate_up"), 2 * inter, hidden)?,
                    down: pack.matrix(&format!("text.{i}.down"), hidden, inter)?,
                })
            })
            .collect::<Result<Vec<Layer>, OpenError>>()?;
        let head = pack.matrix("text.head", t.vocab_size, hidden)?;
        let rope = RopeTable::new(t.head_dim, f64::from(t.rope_theta), t.max_positions);
        Ok(DecoderModel {
            pack,
            compute,
            config,
            image_token_id,
            rope,
            layers,
            head,
        })
    }

    /// Wires the decoder: ids `[S]` and image rows `[R, hidden]` → hidden states `[S, hidden]`.
    pub(in crate::engine) fn typed_model(self: &Arc<Self>) -> TractResult<TypedModel> {
        let mut graph = TypedModel::default();
        let hidden = self.config.hidden_size.to_dim();
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
        for layer in 0..self.layers.len() {
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

    /// Wires the head: one hidden state `[1, hidden]` → logits `[vocab]`.
    pub(in crate::engine) fn typed_head(self: &Arc<Self>) -> TractResult<TypedModel> {
        let mut graph = TypedModel::default();
        let x = graph.add_source("x", f32::fact([1, self.config.hidden_size]))?;
        let logits = graph.wire_node(
            "head",
            Head {
                model: self.clone(),
                layer: 0,
            },
            &[x],
        )?;
        graph.select_output_outlets(&logits)?;
        Ok(graph)
    }

    /// Maps the weights that every token reads.
    pub(in crate::engine) fn populate(&self) {
        if let Some(first) = self.layers.first() {
            self.pack.populate(&first.qkv, &self.head);
        }
    }

    /// Shape of the decoder.
    pub(in crate::engine) fn config(&self) -> &TextConfig {
        &self.config
    }

    fn qkv_width(&self) -> usize {
        (self.config.n_heads + 2 * self.config.n_kv_heads) * self.config.head_dim
    }

    /// Weightless norm of `x` (`[m, hidden]`), as int8 rows.
    fn normed(&self, x: &[f32]) -> Int8RowsBuf {
        super::normed(
            &self.compute,
            x,
            self.config.hidden_size,
            self.config.rms_norm_eps,
        )
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
        let model = &self.model;
        let (vocab, hidden) = (model.config.vocab_size, model.config.hidden_size);
        let table = model
            .pack
            .tensor("text.embed", Layout::F16, [vocab, hidden])
            .map_err(to_tract)?;
        let mut bits = vec![0u16; hidden];
        fill(&[ids.len(), hidden], |x| {
            for (row, id) in x.chunks_exact_mut(hidden).zip(ids) {
                let at = usize::try_from(*id)
                    .ok()
                    .filter(|id| *id < vocab)
                    .with_context(|| format!("token id {id}, the vocabulary has {vocab}"))?;
                let bytes = &table[at * hidden * 2..][..hidden * 2];
                for (bits, bytes) in bits.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *bits = u16::from_le_bytes(*bytes);
                }
                half::f16_to_f32(&bits, row);
            }
            Ok(())
        })
    }
}

fused_op!(Embed, |op, inputs| tvec!(f32::fact([
    inputs[0].shape[0].clone(),
    op.model.config.hidden_size.to_dim()
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
        let hidden = self.model.config.hidden_size;
        let mut source = f32s(&image_rows)?.chunks_exact(hidden);
        let image_token_id = self.model.image_token_id;
        let merged = update(x, |x| {
            let rows = x.chunks_exact_mut(hidden).zip(ids);
            for (row, _) in rows.filter(|(_, id)| **id == image_token_id) {
                row.copy_from_slice(source.next().context("more image tokens than image rows")?);
            }
            Ok(())
        })?;
        ensure!(source.next().is_none(), "more image rows than image tokens");
        Ok(merged)
    }
}

fused_op!(Merge, |_, inputs| tvec!(inputs[0].without_value()));

/// Norm, stacked q, k, v projection, rotary positions; k and v go to the cache.
#[derive(Clone)]
struct QkvRope {
    model: Arc<DecoderModel>,
    layer: usize,
}

impl QkvRope {
    fn run(&self, ctx: &EvalContext, values: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let [x] = inputs(values)?;
        let model = &self.model;
        let t = &model.config;
        let (width, q, kv) = (
            model.qkv_width(),
            t.n_heads * t.head_dim,
            t.n_kv_heads * t.head_dim,
        );
        let rows = model.normed(f32s(&x)?);
        let m = x.len() / t.hidden_size;
        let mut cache = cache(ctx)?;
        let first = cache.len();
        fill(&[m, width], |out| {
            let weights = model.pack.panels(&model.layers[self.layer].qkv);
            linear(&model.compute, rows.rows(), weights, out, Store::Overwrite);
            // The q and k heads lie side by side and turn by the same angles.
            model
                .rope
                .apply(out, width, t.n_heads + t.n_kv_heads, first);
            for (i, row) in out.chunks_exact(width).enumerate() {
                let (k, v) = row[q..].split_at(kv);
                cache.write(self.layer, first + i, k, v);
            }
            Ok(())
        })
    }
}

fused_op!(QkvRope, |op, inputs| tvec!(f32::fact([
    inputs[0].shape[0].clone(),
    op.model.qkv_width().to_dim()
])));

/// Causal grouped-query attention over the cache: `q|k|v → [S, heads·head_dim]`.
#[derive(Clone)]
struct Attention {
    model: Arc<DecoderModel>,
    layer: usize,
}

impl Attention {
    fn run(&self, ctx: &EvalContext, values: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let [qkv] = inputs(values)?;
        let model = &self.model;
        let t = &model.config;
        let width = model.qkv_width();
        let m = qkv.len() / width;
        let cache = cache(ctx)?;
        let first = cache.len();
        fill(&[m, t.n_heads * t.head_dim], |out| {
            let q = f32s(&qkv)?;
            cache.with_layer(self.layer, first + m, |kv| {
                let compute = &model.compute;
                attention::decoder_attention(compute, q, width, m, t.n_heads, kv, first, out);
            });
            Ok(())
        })
    }
}

fused_op!(Attention, |op, inputs| tvec!(f32::fact([
    inputs[0].shape[0].clone(),
    (op.model.config.n_heads * op.model.config.head_dim).to_dim()
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
        let model = &self.model;
        let matrix = &model.layers[self.layer].out;
        let weights = (model.pack.panels(matrix), matrix.group);
        project_add(&model.compute, weights, x, f32s(&ctx)?)
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
        let model = &self.model;
        let layer = &model.layers[self.layer];
        let inter = model.config.intermediate_size;
        let m = x.len() / model.config.hidden_size;
        let rows = model.normed(f32s(&x)?);
        let mut gate_up = vec![0f32; m * 2 * inter];
        let weights = model.pack.panels(&layer.gate_up);
        linear(
            &model.compute,
            rows.rows(),
            weights,
            &mut gate_up,
            Store::Overwrite,
        );
        fill_int8(m, inter, layer.down.group, |out| {
            activation::swiglu_quantize_rows(&model.compute, &gate_up, inter, out);
            Ok(())
        })
    }
}

fused_op!(GateUp, |op, inputs| int8_facts(
    inputs[0].shape[0].clone(),
    op.model.config.intermediate_size,
    op.model.layers[op.layer].down.group
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
        let model = &self.model;
        let matrix = &model.layers[self.layer].down;
        let m = x.len() / matrix.n;
        let rows = Int8Rows::new(i8s(&data)?, f32s(&scales)?, m, matrix.k, matrix.group)?;
        product_add(&model.compute, model.pack.panels(matrix), x, rows)
    }
}

fused_op!(Down, |_, inputs| tvec!(inputs[0].without_value()));

/// Final norm and vocabulary projection of one hidden state.
#[derive(Clone)]
struct Head {
    model: Arc<DecoderModel>,
    layer: usize,
}

impl Head {
    fn run(&self, _: &EvalContext, values: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let [x] = inputs(values)?;
        let model = &self.model;
        let rows = model.normed(f32s(&x)?);
        fill(&[model.config.vocab_size], |out| {
            let weights = model.pack.panels(&model.head);
            linear(&model.compute, rows.rows(), weights, out, Store::Overwrite);
            Ok(())
        })
    }
}

fused_op!(Head, |op, _| tvec!(f32::fact([op.model.config.vocab_size])));
