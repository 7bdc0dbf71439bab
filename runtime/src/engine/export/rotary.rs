//! `RotaryEmbedding` whose number of heads follows from its tables, which tract's own wants told.

use crate::engine::plain::floats;
use tract_onnx::model::{OnnxOpRegister, ParsingContext, optional_inputs};
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::*;

pub(super) fn register(ops: &mut OnnxOpRegister) {
    ops.insert("RotaryEmbedding", rotary_embedding);
}

/// Turns heads by the angles of their positions.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rotary {
    is_interleaved: bool,
    /// Where positions, cosines and sines are among the inputs.
    slots: [usize; 3],
}

fn rotary_embedding(
    ctx: &ParsingContext,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let at: Vec<Option<usize>> = optional_inputs(node).take(4).collect();
    let order = if node.domain == "com.microsoft" {
        [at[1], at[2], at[3]]
    } else {
        [at[3], at[1], at[2]]
    };
    let whole = node
        .get_attr_opt::<i64>("rotary_embedding_dim")?
        .unwrap_or(0)
        == 0;
    let scaled = node.get_attr_opt::<f32>("scale")?.unwrap_or(1.0) != 1.0;
    let (true, false, [Some(positions), Some(cos), Some(sin)]) = (whole, scaled, order) else {
        let own = tract_onnx::onnx().op_register.0["RotaryEmbedding"];
        return own(ctx, node);
    };
    let op = Rotary {
        is_interleaved: node.get_attr_opt::<i64>("interleaved")?.unwrap_or(0) != 0,
        slots: [positions, cos, sin],
    };
    Ok((expand(op), vec![]))
}

impl Expansion for Rotary {
    fn name(&self) -> StaticName {
        "Rotary".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_output_arity(outputs, 1)?;
        s.equals(&inputs[0].datum_type, &outputs[0].datum_type)?;
        s.equals(&inputs[0].shape, &outputs[0].shape)
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

impl Op for Rotary {
    fn name(&self) -> StaticName {
        "Rotary".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Rotary {
    not_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let [positions, cos, sin] = self.slots;
        let half = *inputs[cos].shape().last().context("a table of angles")?;
        let (cos, sin) = (floats(&inputs[cos])?, floats(&inputs[sin])?);
        let positions = inputs[positions].cast_to::<i64>()?;
        let positions = positions.try_as_plain_ram()?.as_slice::<i64>()?.to_vec();
        let shape = inputs[0].shape();
        let (by_head, length) = match *shape {
            [_, _, length, _] => (true, length),
            [_, length, _] => (false, length),
            _ => bail!("rotary positions of a tensor of rank {}", shape.len()),
        };
        let mut values = floats(&inputs[0])?;
        let width = 2 * half;
        let heads = shape[shape.len() - 1] / width.max(1);
        let per_batch = values.len() / shape[0].max(1);
        for (i, head) in values.chunks_exact_mut(width.max(1)).enumerate() {
            let batch = i * width / per_batch;
            let row = if by_head {
                i % length
            } else {
                i / heads % length
            };
            // One number is where the rows begin.
            let position = match positions.len() {
                1 => positions[0] + row as i64,
                _ => positions[batch * length % positions.len() + row],
            };
            let at = usize::try_from(position)? * half;
            ensure!(
                at + half <= cos.len() && at + half <= sin.len(),
                "position {position} is beyond the tables"
            );
            super::attention::turn(
                head,
                &cos[at..][..half],
                &sin[at..][..half],
                self.is_interleaved,
            );
        }
        let tensor = Tensor::from_shape(shape, &values)?;
        Ok(tvec!(
            tensor
                .cast_to_dt(inputs[0].datum_type())?
                .into_owned()
                .into_tvalue()
        ))
    }
}

impl TypedOp for Rotary {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(inputs[0].datum_type.fact(inputs[0].shape.to_tvec())))
    }

    as_op!();
}
