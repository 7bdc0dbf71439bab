//! The decoder inside a pack: its matrices, and what each part of a layer does on plain slices.
//!
//! The tract ops run these functions over the tokens of a prompt, [`step`] over one token.

pub(super) mod step;

use super::products::{Norm, linear, linear_activated, project_add};
use crate::config::TextConfig;
use crate::kv_cache::KvCache;
use crate::pack::{HEAD, Layout, Matrix, OpenError, Pack, StreamBasis, WeightPanels};
use crate::rotation::Rotation;
use crate::sampler::{Filter, arg_max};
use ocelli_kernels::rope::RopeTable;
use ocelli_kernels::{
    Activation, Compute, Int8Rows, Int8RowsBuf, Int8RowsMut, Store, attention, half,
    linear_arg_max, linear_nibbles_of, linear_upper_bounds,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The cache of the conversation whose turn is being evaluated.
pub(super) type SharedKv = Arc<Mutex<KvCache>>;

/// Locks a cache. A panic elsewhere leaves the filled length as it was, so a
/// poisoned lock is still usable.
pub(super) fn lock(kv: &SharedKv) -> MutexGuard<'_, KvCache> {
    kv.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A token id outside of the vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("token id {id}, the vocabulary has {vocab}")]
pub(super) struct NoToken {
    id: i64,
    vocab: usize,
}

/// Places of one decoder layer's matrices, and its norms.
#[derive(Debug)]
struct Layer {
    /// Weights of the norms in front of `qkv` and of `gate_up`, where they are not folded into
    /// these. `[hidden]` each
    norms: Option<[Vec<f32>; 2]>,
    /// q, k and v stacked; without v where that is a matrix of its own.
    qkv: Matrix,
    v: Option<Matrix>,
    out: Matrix,
    gate_up: Matrix,
    down: Matrix,
}

/// The decoder inside a pack. `m` are the tokens that go through together, `x` their hidden
/// states, `rows` room for int8 rows, whose contents do not matter.
#[derive(Debug)]
pub(super) struct DecoderModel {
    pack: Arc<Pack>,
    compute: Arc<Compute>,
    config: TextConfig,
    /// -1, which no id is, without a vision side.
    image_token_id: i64,
    rope: RopeTable,
    layers: Vec<Layer>,
    head: Matrix,
    /// Basis of the hidden states, and the rotation that leads to the head's.
    basis: StreamBasis,
    rotation: Rotation,
}

impl Layer {
    /// Finds the matrices of layer `i`.
    fn find(pack: &Pack, t: &TextConfig, i: usize) -> Result<Layer, OpenError> {
        let (hidden, inter) = (t.hidden_size, t.intermediate_size);
        let (heads, kv) = (t.n_heads * t.head_dim, t.n_kv_heads * t.head_dim);
        let apart = format!("text.{i}.v");
        let (qkv, v) = match pack.has(&apart) {
            true => ("qk", Some(pack.matrix(&apart, kv, hidden)?)),
            false => ("qkv", None),
        };
        let rows = heads + 2 * kv - v.map_or(0, |v| v.n);
        let qkv = pack.matrix(&format!("text.{i}.{qkv}"), rows, hidden)?;
        if let Some(v) = v.filter(|v| v.group != qkv.group) {
            return Err(pack.damaged(format!(
                "tensor {apart} has groups of {}, tensor text.{i}.qk, which reads the same, of {}",
                v.group, qkv.group
            )));
        }
        let norms = match pack.header().basis {
            StreamBasis::Rotated => None,
            StreamBasis::Published => Some([
                pack.floats(&format!("text.{i}.qkv_norm"), hidden)?,
                pack.floats(&format!("text.{i}.gate_up_norm"), hidden)?,
            ]),
        };
        Ok(Layer {
            norms,
            qkv,
            v,
            out: pack.matrix(&format!("text.{i}.out"), hidden, heads)?,
            gate_up: pack.matrix(&format!("text.{i}.gate_up"), 2 * inter, hidden)?,
            down: pack.matrix(&format!("text.{i}.down"), hidden, inter)?,
        })
    }

    /// The weight of the norm in front of `qkv`.
    fn qkv_norm(&self) -> Option<&[f32]> {
        self.norms.as_ref().map(|[norm, _]| &norm[..])
    }

    /// The weight of the norm in front of `gate_up`.
    fn gate_up_norm(&self) -> Option<&[f32]> {
        self.norms.as_ref().map(|[_, norm]| &norm[..])
    }
}

impl DecoderModel {
    pub(super) fn new(pack: Arc<Pack>, compute: Arc<Compute>) -> Result<DecoderModel, OpenError> {
        let config = pack.header().config.text.clone();
        let image_token = pack.header().config.image_token_id();
        let image_token_id = image_token.map_or(-1, i64::from);
        let t = &config;
        embeddings(&pack, t)?;
        let basis = pack.header().basis;
        let layers = (0..t.n_layers).map(|i| Layer::find(&pack, t, i));
        let layers = layers.collect::<Result<Vec<Layer>, OpenError>>()?;
        let head = pack.matrix(HEAD, t.vocab_size, t.hidden_size)?;
        let rope = RopeTable::new(t.head_dim, f64::from(t.rope_theta), t.max_positions);
        Ok(DecoderModel {
            basis,
            rotation: pack.header().text_rotation.clone(),
            pack,
            compute,
            config,
            image_token_id,
            rope,
            layers,
            head,
        })
    }

    /// Maps the weights that every token reads.
    pub(super) fn populate(&self) {
        if let Some(first) = self.layers.first() {
            self.pack.populate(&first.qkv, &self.head);
        }
    }

    /// Shape of the decoder.
    pub(super) fn config(&self) -> &TextConfig {
        &self.config
    }

    /// The rotary positions.
    pub(super) fn rope(&self) -> &RopeTable {
        &self.rope
    }

    /// Whether rows of image features stand where this id stands.
    pub(super) fn is_image_token(&self, id: i64) -> bool {
        id == self.image_token_id
    }

    /// Width of q, k and v of a token together.
    pub(super) fn qkv_width(&self) -> usize {
        (self.config.n_heads + 2 * self.config.n_kv_heads) * self.config.head_dim
    }

    /// Width of all query heads of a token, and of what attention gives.
    pub(super) fn ctx_width(&self) -> usize {
        self.config.n_heads * self.config.head_dim
    }

    /// How many inputs of a layer's down projection share a scale; 0 = all.
    pub(super) fn down_group(&self, layer: usize) -> usize {
        self.layers[layer].down.group
    }

    /// Writes a token's row of the embedding table to `x` (`[hidden]`). `bits`: as long, scratch
    pub(super) fn embed(&self, id: i64, bits: &mut [u16], x: &mut [f32]) -> Result<(), NoToken> {
        let (vocab, hidden) = (self.config.vocab_size, self.config.hidden_size);
        let at = usize::try_from(id).ok().filter(|id| *id < vocab);
        let at = at.ok_or(NoToken { id, vocab })?;
        let table = embeddings(&self.pack, &self.config)
            .expect("the table was found when the decoder was made");
        let bytes = &table[at * hidden * 2..][..hidden * 2];
        for (bits, bytes) in bits.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *bits = u16::from_le_bytes(*bytes);
        }
        half::f16_to_f32(bits, x);
        Ok(())
    }

    /// Width of a row of [`DecoderModel::qkv`]: of `q|k|v`, or of `q|k` where v is a matrix of its
    /// own.
    pub(super) fn row_width(&self, layer: usize) -> usize {
        self.layers[layer].qkv.n
    }

    /// Norm and q, k, v projections: `x → out` (`[m, qkv width]`). Those are `m` rows `q|k|v`, or `m`
    /// rows `q|k` and then `m` rows `v` where v is a matrix of its own.
    pub(super) fn qkv(&self, layer: usize, x: &[f32], rows: &mut Int8RowsBuf, out: &mut [f32]) {
        let layer = &self.layers[layer];
        let rows = self.normed(x, layer.qkv_norm(), layer.qkv.group, rows);
        let (stacked, of_v) = out.split_at_mut(rows.m() * layer.qkv.n);
        self.product(rows, &layer.qkv, stacked, Store::Overwrite);
        if let Some(v) = &layer.v {
            self.product(rows, v, of_v, Store::Overwrite);
        }
    }

    /// Heads at the begin of a row of [`DecoderModel::qkv`] that rotary positions turn: q and k lie
    /// side by side and turn by the same angles.
    pub(super) fn rotated_heads(&self) -> usize {
        self.config.n_heads + self.config.n_kv_heads
    }

    /// Writes keys and values of what [`DecoderModel::qkv`] gave to the cache, where the positions
    /// from `first` on are reserved.
    pub(super) fn keep(&self, layer: usize, first: usize, qkv: &[f32], cache: &mut KvCache) {
        let kv = self.config.n_kv_heads * self.config.head_dim;
        let (width, m) = (self.row_width(layer), qkv.len() / self.qkv_width());
        let (rows, of_v) = qkv.split_at(m * width);
        for (i, row) in rows.chunks_exact(width).enumerate() {
            let (k, v) = row[self.ctx_width()..].split_at(kv);
            let v = if v.is_empty() {
                &of_v[i * kv..][..kv]
            } else {
                v
            };
            cache.write(layer, first + i, k, v);
        }
    }

    /// Causal grouped-query attention of tokens whose keys and values were kept but do not count
    /// as filled yet: `qkv → out` (`[m, ctx width]`).
    pub(super) fn attend(&self, layer: usize, cache: &KvCache, qkv: &[f32], out: &mut [f32]) {
        let (width, first) = (self.row_width(layer), cache.len());
        let m = qkv.len() / self.qkv_width();
        let kv = cache.layer(layer, first + m);
        let heads = self.config.n_heads;
        let rows = &qkv[..m * width];
        attention::decoder_attention(&self.compute, rows, width, m, heads, kv, first, out);
    }

    /// Output projection added to the residual stream: `x, ctx → x`.
    pub(super) fn out_project(
        &self,
        layer: usize,
        ctx: &[f32],
        rows: &mut Int8RowsBuf,
        x: &mut [f32],
    ) {
        let matrix = &self.layers[layer].out;
        let weights = (self.pack.panels(matrix), matrix.group);
        project_add(&self.compute, weights, ctx, rows, x);
    }

    /// Norm, gate and up projections, `silu(gate)·up` quantised by groups: `x → out`.
    pub(super) fn gate_up(
        &self,
        layer: usize,
        x: &[f32],
        rows: &mut Int8RowsBuf,
        out: Int8RowsMut<'_>,
    ) {
        let layer = &self.layers[layer];
        let rows = self.normed(x, layer.gate_up_norm(), layer.gate_up.group, rows);
        let weights = self.pack.panels(&layer.gate_up);
        linear_activated(&self.compute, rows, weights, Activation::SwiGlu, out);
    }

    /// Down projection added to the residual stream: `x, inner → x`.
    pub(super) fn down(&self, layer: usize, inner: Int8Rows<'_>, x: &mut [f32]) {
        self.product(inner, &self.layers[layer].down, x, Store::Add);
    }

    /// Turns a hidden state into the basis of the head.
    fn to_head_basis(&self, x: &mut [f32]) {
        if self.basis == StreamBasis::Published {
            self.rotation.rotate(x);
        }
    }

    /// Final norm and vocabulary projection of one hidden state in the basis of the head: `x → out`
    /// (`[vocab]`).
    fn head(&self, x: &[f32], rows: &mut Int8RowsBuf, out: &mut [f32]) {
        let rows = self.head_rows(x, rows);
        self.product(rows, &self.head, out, Store::Overwrite);
    }

    /// [`DecoderModel::head`] for some tokens of the vocabulary: of a head in two planes, only their
    /// rows are read.
    fn logits_of(&self, x: &[f32], rows: &mut Int8RowsBuf, ids: &[u32], out: &mut [f32]) {
        let WeightPanels::Nibbles(head) = self.pack.panels(&self.head) else {
            return self.head(x, rows, out);
        };
        let rows = self.head_rows(x, rows);
        let ids = ids.iter().map(|id| *id as usize);
        linear_nibbles_of(&self.compute, rows, head, ids, out);
    }

    fn head_rows<'b>(&self, x: &[f32], rows: &'b mut Int8RowsBuf) -> Int8Rows<'b> {
        self.normed(x, None, 0, rows)
    }

    /// The token whose logit is largest behind the filters: of a head in two planes, one plane and a
    /// little of the other are read. `room`: `[vocab]`, overwritten
    fn likeliest(
        &self,
        x: &[f32],
        rows: &mut Int8RowsBuf,
        room: &mut [f32],
        filter: &mut Filter<'_>,
    ) -> Option<u32> {
        let WeightPanels::Nibbles(head) = self.pack.panels(&self.head) else {
            self.head(x, rows, room);
            filter.apply(room);
            return arg_max(room);
        };
        let rows = self.head_rows(x, rows);
        linear_upper_bounds(&self.compute, rows, head, room);
        filter.apply(room);
        let logit = |id, logit| filter.of_one(id, logit);
        let found = linear_arg_max(&self.compute, rows, head, room, &logit);
        let found = found.filter(|found| found.value.is_finite());
        found.map(|found| found.row as u32)
    }

    /// Turns hidden states into the basis of the published model.
    pub(super) fn to_model_basis(&self, x: &mut [f32]) {
        if self.basis == StreamBasis::Rotated {
            let rows = x.chunks_exact_mut(self.config.hidden_size);
            rows.for_each(|row| self.rotation.unrotate(row));
        }
    }

    fn normed<'b>(
        &self,
        x: &[f32],
        weight: Option<&[f32]>,
        group: usize,
        rows: &'b mut Int8RowsBuf,
    ) -> Int8Rows<'b> {
        let norm = Norm {
            hidden: self.config.hidden_size,
            eps: self.config.rms_norm_eps,
            weight,
            group,
        };
        norm.rows(&self.compute, x, rows)
    }

    fn product(&self, rows: Int8Rows<'_>, matrix: &Matrix, out: &mut [f32], store: Store) {
        linear(&self.compute, rows, self.pack.panels(matrix), out, store);
    }
}

/// The embedding table, f16 little endian. `[vocab, hidden]`
fn embeddings<'p>(pack: &'p Pack, t: &TextConfig) -> Result<&'p [u8], OpenError> {
    pack.tensor("text.embed", Layout::F16, [t.vocab_size, t.hidden_size])
}
