//! Products with quantised constants: the constant becomes f32 when the graph is typed.

use crate::engine::plain::floats;
use tract_onnx::model::{OnnxOpRegister, ParsingContext, optional_inputs};
use tract_onnx::pb::{GraphProto, NodeProto};
use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::cast::cast;
use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::ops::logic::wire_with_rank_broadcast;

/// Numbers of the 4-bit types in `onnx.proto`, and of the 8-bit ones that hold their values.
const NARROW: [(i32, i32); 2] = [(21, 2), (22, 3)];

pub(super) fn register(ops: &mut OnnxOpRegister) {
    ops.insert("MatMulNBits", mat_mul_n_bits);
    ops.insert("MatMulBnb4", mat_mul_bnb4);
    ops.insert("DequantizeLinear", dequantize_linear);
    ops.insert("GatherBlockQuantized", gather_blocks);
}

/// Gives 4-bit initialisers a byte for each value, which is what tract has a type for.
pub(super) fn widen(graph: &mut GraphProto) {
    for tensor in &mut graph.initializer {
        let Some((narrow, wide)) = NARROW.iter().find(|(n, _)| *n == tensor.data_type) else {
            continue;
        };
        let n = tensor.dims.iter().product::<i64>().max(0) as usize;
        let is_signed = *narrow == 22;
        let halves = tensor
            .raw_data
            .iter()
            .flat_map(|byte| [byte & 15, byte >> 4]);
        let widened = halves.map(|half| match is_signed && half > 7 {
            true => half | 0xF0,
            false => half,
        });
        tensor.raw_data = widened.take(n).collect();
        tensor.data_type = *wide;
    }
}

/// A constant matrix and how it is quantised.
#[derive(Clone, Debug)]
enum Scheme {
    /// Blocks of a row, `bits` a value.
    Blocks { bits: usize, block: usize },
    /// Blocks of the rows read as one list, half a byte each, through a table.
    Table { block: usize, nf4: bool },
}

/// `y = x·Wᵀ (+ bias)` with `W` `[n, k]`.
#[derive(Clone, Debug)]
struct QuantisedMatMul {
    n: usize,
    k: usize,
    scheme: Scheme,
    zeros: Option<usize>,
    bias: Option<usize>,
}

fn mat_mul_n_bits(
    _: &ParsingContext,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let inputs: Vec<Option<usize>> = optional_inputs(node).take(6).collect();
    ensure!(inputs[4].is_none(), "MatMulNBits with g_idx");
    let op = QuantisedMatMul {
        n: node.get_attr("N")?,
        k: node.get_attr("K")?,
        scheme: Scheme::Blocks {
            bits: node.get_attr_opt("bits")?.unwrap_or(4),
            block: node.get_attr("block_size")?,
        },
        zeros: inputs[3],
        bias: inputs[5],
    };
    Ok((expand(op), vec![]))
}

fn mat_mul_bnb4(
    _: &ParsingContext,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let op = QuantisedMatMul {
        n: node.get_attr("N")?,
        k: node.get_attr("K")?,
        scheme: Scheme::Table {
            block: node.get_attr("block_size")?,
            nf4: node.get_attr::<i64>("quant_type")? == 1,
        },
        zeros: None,
        bias: None,
    };
    Ok((expand(op), vec![]))
}

/// The constant at an input, as f32.
fn constant(model: &TypedModel, input: OutletId) -> TractResult<Vec<f32>> {
    let tensor = model.outlet_fact(input)?.konst.clone();
    floats(&*tensor.context("a weight that is no constant")?)
}

/// Values 0 to 15 of bitsandbytes' tables.
fn table(nf4: bool) -> [f32; 16] {
    if nf4 {
        [
            -1.0,
            -0.696_192_8,
            -0.525_073_05,
            -0.394_917_5,
            -0.284_441_38,
            -0.184_773_43,
            -0.091_050_036,
            0.0,
            0.079_580_3,
            0.160_930_2,
            0.246_112_3,
            0.337_915_24,
            0.440_709_83,
            0.562_617,
            0.722_956_84,
            1.0,
        ]
    } else {
        let positive = [
            0.0,
            0.0625 / 12.0,
            8.0 / 12.0,
            1.0,
            4.0 / 12.0,
            0.5,
            2.0 / 12.0,
            0.25,
        ];
        std::array::from_fn(|i| if i < 8 { positive[i] } else { -positive[i - 8] })
    }
}

impl QuantisedMatMul {
    fn weight(&self, model: &TypedModel, inputs: &[OutletId]) -> TractResult<Vec<f32>> {
        let (n, k) = (self.n, self.k);
        let bytes = constant(model, inputs[1])?;
        let bytes: Vec<u8> = bytes.iter().map(|byte| *byte as u8).collect();
        let scales = constant(model, inputs[2])?;
        match self.scheme {
            Scheme::Table { block, nf4 } => {
                ensure!(bytes.len() * 2 >= n * k && scales.len() >= (n * k).div_ceil(block));
                let table = table(nf4);
                let value = |i: usize| {
                    let byte = bytes[i / 2];
                    let index = if i.is_multiple_of(2) {
                        byte >> 4
                    } else {
                        byte & 15
                    };
                    table[usize::from(index)] * scales[i / block]
                };
                Ok((0..n * k).map(value).collect())
            }
            Scheme::Blocks { bits, block } => {
                ensure!(
                    matches!(bits, 2 | 4 | 8) && block > 0,
                    "MatMulNBits of {bits} bits"
                );
                let blocks = k.div_ceil(block);
                let per_byte = 8 / bits;
                let row_bytes = blocks * block / per_byte;
                ensure!(bytes.len() >= n * row_bytes && scales.len() >= n * blocks);
                let mask = 0xFFu8 >> (8 - bits);
                let part = |bytes: &[u8], i: usize| {
                    f32::from(bytes[i / per_byte] >> (bits * (i % per_byte)) & mask)
                };
                let (zeros, are_floats) = match self.zeros {
                    None => (Vec::new(), false),
                    Some(slot) => {
                        let fact = model.outlet_fact(inputs[slot])?;
                        (constant(model, inputs[slot])?, fact.datum_type.is_float())
                    }
                };
                let packed: Vec<u8> = zeros.iter().map(|zero| *zero as u8).collect();
                let zero_bytes = blocks.div_ceil(per_byte);
                let zero = |row: usize, b: usize| match (self.zeros, are_floats) {
                    (None, _) => (1u32 << (bits - 1)) as f32,
                    (Some(_), true) => zeros[row * blocks + b],
                    (Some(_), false) => part(&packed[row * zero_bytes..], b),
                };
                let mut weight = Vec::with_capacity(n * k);
                for row in 0..n {
                    for column in 0..k {
                        let b = column / block;
                        let q = part(&bytes[row * row_bytes..], column);
                        weight.push((q - zero(row, b)) * scales[row * blocks + b]);
                    }
                }
                Ok(weight)
            }
        }
    }
}

impl Expansion for QuantisedMatMul {
    fn name(&self) -> StaticName {
        "QuantisedMatMul".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_output_arity(outputs, 1)?;
        s.equals(&outputs[0].datum_type, &inputs[0].datum_type)?;
        let n = self.n.to_dim();
        s.given(&inputs[0].rank, move |s, rank| {
            let last = rank as usize - 1;
            s.equals(&outputs[0].rank, rank)?;
            for axis in 0..last {
                s.equals(&outputs[0].shape[axis], &inputs[0].shape[axis])?;
            }
            s.equals(&outputs[0].shape[last], n.clone())
        })
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let weight = Tensor::from_shape(&[self.n, self.k], &self.weight(model, inputs)?)?;
        let fact = model.outlet_fact(inputs[0])?.clone();
        let weight = model.add_const(format!("{prefix}.weight"), weight)?;
        let to_f32 = cast(f32::datum_type());
        let x = model.wire_node(format!("{prefix}.x"), to_f32, &[inputs[0]])?[0];
        let lead: String = "abcdefgh".chars().take(fact.rank() - 1).collect();
        let axes = AxesMapping::from_strs(
            &[format!("{lead}k"), "nk".to_string()],
            &[format!("{lead}n")],
        )?;
        let product = EinSum::new(axes, f32::datum_type());
        let mut y = model.wire_node(format!("{prefix}.product"), product, &[x, weight])?[0];
        y = model.wire_node(format!("{prefix}.y"), cast(fact.datum_type), &[y])?[0];
        if let Some(bias) = self.bias {
            let name = format!("{prefix}.bias");
            let add = tract_onnx::tract_core::ops::math::add();
            y = wire_with_rank_broadcast(name, model, add, &[y, inputs[bias]])?[0];
        }
        Ok(tvec!(y))
    }
}

/// `DequantizeLinear` of a constant with a scale for each block along an axis.
#[derive(Clone, Debug)]
struct BlockDequantize {
    axis: i64,
    block: usize,
    has_zeros: bool,
}

fn dequantize_linear(
    ctx: &ParsingContext,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let block = node.get_attr_opt::<i64>("block_size")?.unwrap_or(0);
    if block <= 0 {
        let whole = tract_onnx::onnx().op_register.0["DequantizeLinear"];
        return whole(ctx, node);
    }
    let op = BlockDequantize {
        axis: node.get_attr_opt("axis")?.unwrap_or(1),
        block: block as usize,
        has_zeros: optional_inputs(node).nth(2).flatten().is_some(),
    };
    Ok((expand(op), vec![]))
}

impl Expansion for BlockDequantize {
    fn name(&self) -> StaticName {
        "BlockDequantize".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_output_arity(outputs, 1)?;
        s.equals(&outputs[0].datum_type, &inputs[1].datum_type)?;
        s.equals(&outputs[0].shape, &inputs[0].shape)
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let shape = model
            .outlet_fact(inputs[0])?
            .shape
            .as_concrete()
            .map(<[usize]>::to_vec);
        let shape = shape.context("a weight of open shape")?;
        let datum = model.outlet_fact(inputs[1])?.datum_type;
        let rank = shape.len() as i64;
        let axis = if self.axis < 0 {
            self.axis + rank
        } else {
            self.axis
        };
        ensure!(
            (0..rank).contains(&axis),
            "axis {axis} of a tensor of rank {rank}"
        );
        let len = shape[axis as usize];
        let inner: usize = shape[axis as usize + 1..].iter().product();
        let (values, scales) = (constant(model, inputs[0])?, constant(model, inputs[1])?);
        let zeros = match self.has_zeros {
            true => constant(model, inputs[2])?,
            false => vec![0.0; scales.len()],
        };
        let blocks: usize = len.div_ceil(self.block);
        let mut out = Vec::with_capacity(values.len());
        for (i, value) in values.iter().enumerate() {
            let (outer, along, rest) = (i / inner / len, i / inner % len, i % inner);
            let at = (outer * blocks + along / self.block) * inner + rest;
            ensure!(at < scales.len() && at < zeros.len(), "too few scales");
            out.push((value - zeros[at]) * scales[at]);
        }
        let tensor = Tensor::from_shape(&shape, &out)?
            .cast_to_dt(datum)?
            .into_owned();
        Ok(tvec!(model.add_const(prefix, tensor)?))
    }
}

/// Rows of a constant table quantised in blocks along them.
#[derive(Clone, Debug)]
struct GatherBlocks {
    block: usize,
    has_zeros: bool,
}

fn gather_blocks(
    _: &ParsingContext,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let block: usize = node.get_attr_opt("block_size")?.unwrap_or(128);
    let bits: usize = node.get_attr_opt("bits")?.unwrap_or(4);
    let first = node.get_attr_opt::<i64>("gather_axis")?.unwrap_or(0) == 0;
    let last = matches!(
        node.get_attr_opt::<i64>("quantize_axis")?.unwrap_or(1),
        1 | -1
    );
    ensure!(
        bits == 4 && first && last && block > 0,
        "GatherBlockQuantized of another form"
    );
    let has_zeros = optional_inputs(node).nth(3).flatten().is_some();
    Ok((expand(GatherBlocks { block, has_zeros }), vec![]))
}

impl GatherBlocks {
    /// Columns of the table, and whether two of them share a byte of its `stored` ones: a type of
    /// four bits has a byte for each by now, which the number of scales tells.
    fn columns(&self, stored: usize, scales: usize) -> (usize, bool) {
        match stored.div_ceil(self.block) == scales {
            true => (stored, false),
            false => (2 * stored, true),
        }
    }
}

impl Expansion for GatherBlocks {
    fn name(&self) -> StaticName {
        "GatherBlocks".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_output_arity(outputs, 1)?;
        s.equals(&outputs[0].datum_type, &inputs[2].datum_type)?;
        let shapes = [0, 1, 2].map(|slot| &inputs[slot].shape);
        s.given_all(shapes, move |s, dims: Vec<TVec<TDim>>| {
            let (stored, scales) = (dims[0][1].to_usize()?, dims[2][1].to_usize()?);
            let mut shape = dims[1].clone();
            shape.push(self.columns(stored, scales).0.to_dim());
            s.equals(&outputs[0].shape, shape)
        })
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let shape = |slot: usize| -> TractResult<Vec<usize>> {
            let fact = model.outlet_fact(inputs[slot])?;
            Ok(fact
                .shape
                .as_concrete()
                .context("a table of open shape")?
                .to_vec())
        };
        let ([rows, stored], [_, blocks]) = (shape(0)?[..].try_into()?, shape(2)?[..].try_into()?);
        let (columns, is_packed) = self.columns(stored, blocks);
        let datum = model.outlet_fact(inputs[2])?.datum_type;
        let is_signed = model.outlet_fact(inputs[0])?.datum_type == DatumType::I8;
        let (values, scales) = (constant(model, inputs[0])?, constant(model, inputs[2])?);
        let half = |list: &[f32], width: usize, row: usize, i: usize| match is_packed {
            true => f32::from((list[row * width + i / 2] as u8) >> (4 * (i % 2)) & 15),
            false => list[row * width + i],
        };
        let zeros = match self.has_zeros {
            true => Some(constant(model, inputs[3])?),
            false => None,
        };
        let zero_width = if is_packed {
            blocks.div_ceil(2)
        } else {
            blocks
        };
        let mut table = Vec::with_capacity(rows * columns);
        for row in 0..rows {
            for column in 0..columns {
                let block = column / self.block;
                let zero = match &zeros {
                    Some(zeros) => half(zeros, zero_width, row, block),
                    None if is_signed || !is_packed => 0.0,
                    None => 8.0,
                };
                let q = half(&values, stored, row, column);
                table.push((q - zero) * scales[row * blocks + block]);
            }
        }
        let table = Tensor::from_shape(&[rows, columns], &table)?
            .cast_to_dt(datum)?
            .into_owned();
        let table = model.add_const(format!("{prefix}.table"), table)?;
        // Places that are computed from shapes have a type of their own.
        let places = cast(i64::datum_type());
        let places = model.wire_node(format!("{prefix}.places"), places, &[inputs[1]])?[0];
        let gather = tract_onnx::tract_core::ops::array::Gather::new(0);
        model.wire_node(prefix, gather, &[table, places])
    }
}
