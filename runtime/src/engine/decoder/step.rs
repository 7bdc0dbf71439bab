//! [`DecodeStep`]: one token through the decoder, without allocating.

use super::{DecoderModel, NoToken};
use crate::kv_cache::KvCache;
use crate::sampler::Filter;
use ocelli_kernels::{Int8RowsBuf, rope};

/// What a decode step writes to, sized when the conversation starts. Holds the hidden state of the
/// last token, wherever it was computed.
#[derive(Debug)]
pub(in crate::engine) struct DecodeStep {
    /// `[hidden]` each: embedding as stored, hidden state.
    bits: Vec<u16>,
    x: Vec<f32>,
    /// `x` in the basis of the head.
    last: Vec<f32>,
    /// Cosines and sines of the position. `[head_dim]`
    angles: Vec<f32>,
    qkv: Vec<f32>,
    ctx: Vec<f32>,
    /// The inputs of products, quantised: `x` after its norm, `ctx`, `silu(gate)·up`.
    rows: Int8RowsBuf,
    ctx_rows: Int8RowsBuf,
    inner_rows: Int8RowsBuf,
}

impl DecodeStep {
    pub(in crate::engine) fn new(model: &DecoderModel) -> DecodeStep {
        let t = &model.config;
        let one_row = |k, group| {
            let mut rows = Int8RowsBuf::new();
            rows.reshape(1, k, group);
            rows
        };
        let first = model.layers.first();
        DecodeStep {
            bits: vec![0; t.hidden_size],
            x: vec![0.0; t.hidden_size],
            last: vec![0.0; t.hidden_size],
            angles: vec![0.0; t.head_dim],
            qkv: vec![0.0; model.qkv_width()],
            ctx: vec![0.0; model.ctx_width()],
            rows: one_row(t.hidden_size, first.map_or(0, |layer| layer.qkv.group)),
            ctx_rows: one_row(model.ctx_width(), first.map_or(0, |layer| layer.out.group)),
            inner_rows: one_row(
                t.intermediate_size,
                first.map_or(0, |layer| layer.down.group),
            ),
        }
    }

    /// Runs one token at the next position, which is reserved, and keeps its keys and values there;
    /// the cache does not count them as filled yet.
    pub(in crate::engine) fn run(
        &mut self,
        model: &DecoderModel,
        id: u32,
        cache: &mut KvCache,
    ) -> Result<(), NoToken> {
        let position = cache.len();
        model.embed(i64::from(id), &mut self.bits, &mut self.x)?;
        model.rope.write_cos_sin(position, &mut self.angles);
        let rotated = model.rotated_heads() * model.config.head_dim;
        let inter = model.config.intermediate_size;
        for layer in 0..model.layers.len() {
            model.qkv(layer, &self.x, &mut self.rows, &mut self.qkv);
            let angles = self.angles.split_at(model.config.head_dim / 2);
            rope::rotate(&mut self.qkv[..rotated], angles);
            model.keep(layer, position, &self.qkv, cache);
            model.attend(layer, cache, &self.qkv, &mut self.ctx);
            model.out_project(layer, &self.ctx, &mut self.ctx_rows, &mut self.x);
            let inner = self.inner_rows.reshape(1, inter, model.down_group(layer));
            model.gate_up(layer, &self.x, &mut self.rows, inner);
            model.down(layer, self.inner_rows.rows(), &mut self.x);
        }
        Ok(())
    }

    /// Takes the hidden state of a token that was computed elsewhere. `x`: `[hidden]`
    pub(in crate::engine) fn set_hidden(&mut self, x: &[f32]) {
        self.x.copy_from_slice(x);
    }

    /// Brings the hidden state into the basis of the head.
    fn turn(&mut self, model: &DecoderModel) {
        self.last.copy_from_slice(&self.x);
        model.to_head_basis(&mut self.last);
    }

    /// Logits after the last token. `out`: `[vocab]`
    pub(in crate::engine) fn logits(&mut self, model: &DecoderModel, out: &mut [f32]) {
        self.turn(model);
        model.head(&self.last, &mut self.rows, out);
    }

    /// Logits of some tokens of the vocabulary after the last token, at their places. `out`: `[vocab]`
    pub(in crate::engine) fn logits_of(
        &mut self,
        model: &DecoderModel,
        ids: &[u32],
        out: &mut [f32],
    ) {
        self.turn(model);
        model.logits_of(&self.last, &mut self.rows, ids, out);
    }

    /// The token whose logit is largest behind the filters. `room`: `[vocab]`, overwritten
    pub(in crate::engine) fn likeliest(
        &mut self,
        model: &DecoderModel,
        room: &mut [f32],
        filter: &mut Filter<'_>,
    ) -> Option<u32> {
        self.turn(model);
        model.likeliest(&self.last, &mut self.rows, room, filter)
    }

    /// Bytes of all that is written to.
    pub(in crate::engine) fn byte_len(&self) -> usize {
        let floats = [&self.x, &self.last, &self.angles, &self.qkv, &self.ctx];
        let rows = [&self.rows, &self.ctx_rows, &self.inner_rows].map(|rows| {
            let rows = rows.rows();
            size_of_val(rows.data()) + size_of_val(rows.scales())
        });
        size_of_val(&self.bits[..])
            + floats
                .map(|values| size_of_val(&values[..]))
                .iter()
                .sum::<usize>()
            + rows.iter().sum::<usize>()
    }
}
