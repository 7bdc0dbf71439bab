//! Attention with a cache, for past and new positions of any number: `GroupQueryAttention` and
//! `MultiHeadAttention` of `com.microsoft`, computed in f32.

use crate::engine::plain::floats;
use tract_onnx::model::{OnnxOpRegister, ParsingContext, optional_inputs, optional_outputs};
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::*;

pub(super) fn register(ops: &mut OnnxOpRegister) {
    ops.insert("GroupQueryAttention", grouped);
    ops.insert("MultiHeadAttention", multi_head);
}

/// Where the inputs of a node are among those it is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Slots {
    key: Option<usize>,
    value: Option<usize>,
    bias: Option<usize>,
    mask: Option<usize>,
    past_key: Option<usize>,
    past_value: Option<usize>,
    cos: Option<usize>,
    sin: Option<usize>,
}

/// Attention of new queries over past and new keys.
#[derive(Clone, Debug, PartialEq)]
struct CachedAttention {
    n_heads: usize,
    n_kv_heads: usize,
    /// 0: one over the root of the head size.
    scale: f32,
    is_causal: bool,
    is_interleaved: bool,
    n_outputs: usize,
    slots: Slots,
}

impl Eq for CachedAttention {}

fn grouped(
    _: &ParsingContext,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let window = node.get_attr_opt::<i64>("local_window_size")?.unwrap_or(-1);
    let softcap = node.get_attr_opt::<f32>("softcap")?.unwrap_or(0.0);
    ensure!(
        window < 0 && softcap == 0.0,
        "GroupQueryAttention with a window or a cap"
    );
    let at: Vec<Option<usize>> = optional_inputs(node).take(9).collect();
    let rotates = node.get_attr_opt::<i64>("do_rotary")?.unwrap_or(0) != 0;
    let op = CachedAttention {
        n_heads: node.get_attr("num_heads")?,
        n_kv_heads: node.get_attr("kv_num_heads")?,
        scale: node.get_attr_opt("scale")?.unwrap_or(0.0),
        is_causal: true,
        is_interleaved: node.get_attr_opt::<i64>("rotary_interleaved")?.unwrap_or(0) != 0,
        n_outputs: optional_outputs(node).take(3).flatten().count(),
        slots: Slots {
            key: at[1],
            value: at[2],
            past_key: at[3],
            past_value: at[4],
            cos: at[7].filter(|_| rotates),
            sin: at[8].filter(|_| rotates),
            ..Slots::default()
        },
    };
    Ok((expand(op), vec![]))
}

fn multi_head(
    _: &ParsingContext,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let n_heads = node.get_attr("num_heads")?;
    let at: Vec<Option<usize>> = optional_inputs(node).take(8).collect();
    ensure!(
        at[1].is_some() && at[2].is_some(),
        "MultiHeadAttention of packed inputs"
    );
    ensure!(at[4].is_none(), "MultiHeadAttention with key_padding_mask");
    let op = CachedAttention {
        n_heads,
        n_kv_heads: n_heads,
        scale: node.get_attr_opt("scale")?.unwrap_or(0.0),
        is_causal: node.get_attr_opt::<i64>("unidirectional")?.unwrap_or(0) != 0,
        is_interleaved: false,
        n_outputs: optional_outputs(node).take(3).flatten().count(),
        slots: Slots {
            key: at[1],
            value: at[2],
            bias: at[3],
            mask: at[5],
            past_key: at[6],
            past_value: at[7],
            ..Slots::default()
        },
    };
    Ok((expand(op), vec![]))
}

impl CachedAttention {
    /// Shapes of the outputs from those of the inputs.
    fn shapes(
        &self,
        query: &[TDim],
        key: Option<&[TDim]>,
        past: Option<&[TDim]>,
    ) -> TVec<TVec<TDim>> {
        let heads = match key {
            Some(_) => self.n_heads,
            None => self.n_heads + 2 * self.n_kv_heads,
        };
        let head = query[2].clone() / heads;
        let out = tvec!(
            query[0].clone(),
            query[1].clone(),
            head.clone() * self.n_heads
        );
        // Keys that come by head are all there are; else new ones follow the past.
        let length = match key {
            Some([_, _, length, _]) => length.clone(),
            Some([_, length, _]) => length.clone(),
            _ => query[1].clone(),
        };
        let total = past.map_or(length.clone(), |past| past[2].clone() + length);
        let present = tvec!(query[0].clone(), self.n_kv_heads.to_dim(), total, head);
        tvec!(out, present.clone(), present)
            .into_iter()
            .take(self.n_outputs)
            .collect()
    }
}

impl Expansion for CachedAttention {
    fn name(&self) -> StaticName {
        "CachedAttention".into()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(self.n_outputs)
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_output_arity(outputs, self.n_outputs)?;
        for output in outputs {
            s.equals(&output.datum_type, &inputs[0].datum_type)?;
        }
        let known = [Some(0), self.slots.key, self.slots.past_key];
        let shapes = known.into_iter().flatten().map(|slot| &inputs[slot].shape);
        s.given_all(shapes, move |s, dims: Vec<TVec<TDim>>| {
            let key = self.slots.key.map(|_| &dims[1][..]);
            let past = self.slots.past_key.map(|_| &dims[dims.len() - 1][..]);
            for (output, shape) in outputs.iter().zip(self.shapes(&dims[0], key, past)) {
                s.equals(&output.shape, shape)?;
            }
            Ok(())
        })
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        model.wire_node(prefix, self.clone(), inputs)
    }
}

impl Op for CachedAttention {
    fn name(&self) -> StaticName {
        "CachedAttention".into()
    }

    op_as_typed_op!();
}

impl EvalOp for CachedAttention {
    not_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        self.run(&inputs)
    }
}

impl TypedOp for CachedAttention {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let dims = |slot: Option<usize>| slot.map(|slot| inputs[slot].shape.to_tvec());
        let query = inputs[0].shape.to_tvec();
        let (key, past) = (dims(self.slots.key), dims(self.slots.past_key));
        let shapes = self.shapes(&query, key.as_deref(), past.as_deref());
        let fact = |shape: TVec<TDim>| inputs[0].datum_type.fact(shape);
        Ok(shapes.into_iter().map(fact).collect())
    }

    as_op!();
}

/// A tensor as f32 by head: `[heads, positions, head size]`.
struct ByHead {
    values: Vec<f32>,
    heads: usize,
    positions: usize,
    width: usize,
}

impl ByHead {
    fn row(&self, head: usize, position: usize) -> &[f32] {
        &self.values[(head * self.positions + position) * self.width..][..self.width]
    }

    /// From `[1, positions, heads · width]`, columns from `first` of rows of `stride`.
    fn of_rows(rows: &[f32], [first, stride]: [usize; 2], heads: usize, width: usize) -> ByHead {
        let positions = rows.len() / stride.max(1);
        let mut values = Vec::with_capacity(positions * heads * width);
        for head in 0..heads {
            for row in rows.chunks_exact(stride.max(1)) {
                values.extend_from_slice(&row[first + head * width..][..width]);
            }
        }
        ByHead {
            values,
            heads,
            positions,
            width,
        }
    }

    /// Past positions and then these.
    fn after(self, past: &[f32]) -> ByHead {
        let before = past.len() / (self.heads * self.width).max(1);
        let mut values = Vec::with_capacity(past.len() + self.values.len());
        for head in 0..self.heads {
            let width = self.width;
            values.extend_from_slice(&past[head * before * width..][..before * width]);
            let new = self.positions * width;
            values.extend_from_slice(&self.values[head * new..][..new]);
        }
        ByHead {
            values,
            positions: before + self.positions,
            ..self
        }
    }

    /// Turns every row by the angles of its position; tables are `[positions, width/2]`.
    fn rotate(&mut self, cos: &[f32], sin: &[f32], first: usize, is_interleaved: bool) {
        let half = self.width / 2;
        for (i, row) in self.values.chunks_exact_mut(self.width).enumerate() {
            let at = (first + i % self.positions) * half;
            turn(row, &cos[at..][..half], &sin[at..][..half], is_interleaved);
        }
    }
}

/// Turns the pairs of one head, halves or neighbours, by an angle each.
pub(super) fn turn(head: &mut [f32], cos: &[f32], sin: &[f32], is_interleaved: bool) {
    let half = head.len() / 2;
    for (j, (cos, sin)) in cos.iter().zip(sin).enumerate() {
        let (low, high) = if is_interleaved {
            (2 * j, 2 * j + 1)
        } else {
            (j, j + half)
        };
        let (a, b) = (head[low], head[high]);
        head[low] = a * cos - b * sin;
        head[high] = b * cos + a * sin;
    }
}

impl CachedAttention {
    /// Runs the batches one after the other.
    fn run(&self, inputs: &[TValue]) -> TractResult<TVec<TValue>> {
        let batches = inputs[0].shape()[0];
        let Slots {
            key,
            value,
            mask,
            past_key,
            past_value,
            ..
        } = self.slots;
        let by_batch = [Some(0), key, value, mask, past_key, past_value];
        let mut outputs: Vec<TVec<TValue>> = Vec::with_capacity(batches);
        for batch in 0..batches {
            let mut one = TVec::new();
            for (slot, input) in inputs.iter().enumerate() {
                let has = by_batch.contains(&Some(slot)) && input.shape()[0] == batches;
                one.push(match has {
                    true => input.slice(0, batch, batch + 1)?.into_tvalue(),
                    false => input.clone(),
                });
            }
            outputs.push(self.run_one(&one)?);
        }
        let join = |slot: usize| {
            let parts: Vec<&Tensor> = outputs.iter().map(|outputs| &*outputs[slot]).collect();
            Ok(Tensor::stack_tensors(0, &parts)?.into_tvalue())
        };
        (0..self.n_outputs).map(join).collect()
    }

    fn run_one(&self, inputs: &[TValue]) -> TractResult<TVec<TValue>> {
        let floats = |slot: usize| floats(&inputs[slot]);
        let optional = |slot: Option<usize>| slot.map(floats).transpose();
        let datum = inputs[0].datum_type();
        let (heads, kv) = (self.n_heads, self.n_kv_heads);
        let new = inputs[0].shape()[1];
        let columns = inputs[0].shape()[2];
        let is_packed = self.slots.key.is_none();
        let width = columns / if is_packed { heads + 2 * kv } else { heads };
        let bias = optional(self.slots.bias)?;
        let rows = |slot: usize, part: usize| -> TractResult<Vec<f32>> {
            let mut rows = floats(slot)?;
            if let Some(bias) = &bias {
                let n = bias.len() / 3;
                for row in rows.chunks_exact_mut(n) {
                    for (value, bias) in row.iter_mut().zip(&bias[part * n..]) {
                        *value += bias;
                    }
                }
            }
            Ok(rows)
        };
        let by_head = |slot: usize, part: usize| -> TractResult<ByHead> {
            if let [_, heads, positions, width] = *inputs[slot].shape() {
                let values = floats(slot)?;
                return Ok(ByHead {
                    values,
                    heads,
                    positions,
                    width,
                });
            }
            let stride = inputs[slot].shape()[2];
            Ok(ByHead::of_rows(&rows(slot, part)?, [0, stride], kv, width))
        };
        let (mut q, mut k, v) = match (self.slots.key, self.slots.value) {
            (Some(key), Some(value)) => {
                let q = ByHead::of_rows(&rows(0, 0)?, [0, columns], heads, width);
                (q, by_head(key, 1)?, by_head(value, 2)?)
            }
            _ => {
                let all = floats(0)?;
                let part = |first, n| ByHead::of_rows(&all, [first * width, columns], n, width);
                (part(0, heads), part(heads, kv), part(heads + kv, kv))
            }
        };
        let past = self
            .slots
            .past_key
            .map_or(0, |slot| inputs[slot].shape()[2]);
        if let (Some(cos), Some(sin)) = (optional(self.slots.cos)?, optional(self.slots.sin)?) {
            ensure!(
                cos.len() >= (past + new) * width / 2,
                "tables of too few positions"
            );
            q.rotate(&cos, &sin, past, self.is_interleaved);
            k.rotate(&cos, &sin, past, self.is_interleaved);
        }
        let k = match optional(self.slots.past_key)? {
            Some(past) => k.after(&past),
            None => k,
        };
        let v = match optional(self.slots.past_value)? {
            Some(past) => v.after(&past),
            None => v,
        };
        let mask = match self.slots.mask {
            Some(slot) => Some((floats(slot)?, inputs[slot].shape().to_vec())),
            None => None,
        };
        let scale = if self.scale == 0.0 {
            1.0 / (width as f32).sqrt()
        } else {
            self.scale
        };
        let total = k.positions;
        let mut out = vec![0f32; new * heads * width];
        for head in 0..heads {
            let kv_head = head * kv / heads;
            for i in 0..new {
                let seen = if self.is_causal {
                    total - new + i + 1
                } else {
                    total
                };
                let mut scores: Vec<f32> = (0..seen)
                    .map(|p| {
                        let products = q.row(head, i).iter().zip(k.row(kv_head, p));
                        let score: f32 = products.map(|(a, b)| a * b).sum();
                        score * scale
                    })
                    .collect();
                if let Some((mask, shape)) = &mask {
                    let [_, of_heads, of_rows, of_keys] = shape[..] else {
                        bail!("a mask of four axes");
                    };
                    let row = (head % of_heads) * of_rows + i % of_rows;
                    for (p, score) in scores.iter_mut().enumerate() {
                        *score += mask[row * of_keys + p % of_keys];
                    }
                }
                let most = scores.iter().fold(f32::NEG_INFINITY, |m, s| m.max(*s));
                scores
                    .iter_mut()
                    .for_each(|score| *score = (*score - most).exp());
                let sum: f32 = scores.iter().sum();
                let row = &mut out[(i * heads + head) * width..][..width];
                for (p, weight) in scores.iter().enumerate() {
                    for (out, value) in row.iter_mut().zip(v.row(kv_head, p)) {
                        *out += weight / sum * value;
                    }
                }
            }
        }
        let present = [1, kv, total, width];
        let outputs = [
            Tensor::from_shape(&[1, new, heads * width], &out)?,
            Tensor::from_shape(&present, &k.values)?,
            Tensor::from_shape(&present, &v.values)?,
        ];
        outputs
            .into_iter()
            .take(self.n_outputs)
            .map(|tensor| Ok(tensor.cast_to_dt(datum)?.into_owned().into_tvalue()))
            .collect()
    }
}
