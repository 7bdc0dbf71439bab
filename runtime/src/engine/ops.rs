//! What the fused tract ops share: tensor access and the traits' boilerplate.

pub(super) mod decoder;
pub(super) mod vision;

use crate::pack::OpenError;
use ocelli_kernels::Int8RowsMut;
use ocelli_kernels::quantize::{k_padded, n_groups};
use tract_core::internal::*;

/// Implements tract's op traits for an op that is `{ model: Arc<_>, layer: usize }`:
/// equality by identity of the model, evaluation by the op's own `run`.
macro_rules! fused_op {
    ($op:ident, $facts:expr) => {
        impl std::fmt::Debug for $op {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}({})", stringify!($op), self.layer)
            }
        }

        impl PartialEq for $op {
            fn eq(&self, other: &Self) -> bool {
                Arc::ptr_eq(&self.model, &other.model) && self.layer == other.layer
            }
        }

        impl Eq for $op {}

        impl Op for $op {
            fn name(&self) -> StaticName {
                stringify!($op).into()
            }

            op_as_typed_op!();
        }

        impl EvalOp for $op {
            not_out_of_plan!();

            fn eval(&self, ctx: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
                self.run(ctx, inputs)
            }
        }

        impl TypedOp for $op {
            fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
                let facts: fn(&$op, &[&TypedFact]) -> TVec<TypedFact> = $facts;
                Ok(facts(self, inputs))
            }

            as_op!();
        }
    };
}
use fused_op;

/// The values of an f32 tensor.
fn f32s(value: &Tensor) -> TractResult<&[f32]> {
    value.try_as_plain_ram()?.as_slice::<f32>()
}

/// The values of an i8 tensor.
fn i8s(value: &Tensor) -> TractResult<&[i8]> {
    value.try_as_plain_ram()?.as_slice::<i8>()
}

/// Changes an f32 tensor through `f`, in place when this is its last use.
fn update(
    value: TValue,
    f: impl FnOnce(&mut [f32]) -> TractResult<()>,
) -> TractResult<TVec<TValue>> {
    let mut tensor = value.into_tensor();
    f(tensor.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?)?;
    Ok(tvec!(tensor.into_tvalue()))
}

/// A new f32 tensor filled by `f`.
fn fill(
    shape: &[usize],
    f: impl FnOnce(&mut [f32]) -> TractResult<()>,
) -> TractResult<TVec<TValue>> {
    let mut tensor = Tensor::zero::<f32>(shape)?;
    f(tensor.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?)?;
    Ok(tvec!(tensor.into_tvalue()))
}

/// Int8 rows as two new tensors, `[m, k_padded]` i8 and `[m, groups]` f32, filled by `f`.
fn fill_int8(
    m: usize,
    k: usize,
    group: usize,
    f: impl FnOnce(Int8RowsMut<'_>) -> TractResult<()>,
) -> TractResult<TVec<TValue>> {
    let mut data = Tensor::zero::<i8>(&[m, k_padded(k)])?;
    let mut scales = Tensor::zero::<f32>(&[m, n_groups(k, group)])?;
    f(Int8RowsMut::new(
        data.try_as_plain_ram_mut()?.as_slice_mut::<i8>()?,
        scales.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?,
        m,
        k,
        group,
    )?)?;
    Ok(tvec!(data.into_tvalue(), scales.into_tvalue()))
}

/// Facts of the two tensors that carry int8 rows.
fn int8_facts(m: TDim, k: usize, group: usize) -> TVec<TypedFact> {
    tvec!(
        i8::fact([m.clone(), k_padded(k).to_dim()]),
        f32::fact([m, n_groups(k, group).to_dim()])
    )
}

/// Takes exactly `N` inputs.
fn inputs<const N: usize>(values: TVec<TValue>) -> TractResult<[TValue; N]> {
    <[TValue; N]>::try_from(values.into_vec())
        .map_err(|values| format_err!("expected {N} inputs, got {}", values.len()))
}

/// `out += values` over f32 little-endian bytes.
fn add_f32_le(out: &mut [f32], bytes: &[u8]) {
    for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *out += f32::from_le_bytes(*bytes);
    }
}

/// A pack error as tract's error, with its whole message.
fn to_tract(error: OpenError) -> TractError {
    format_err!("{error}")
}
