//! Linear layers in whatever form: a matrix product with a constant, its quantised forms, its bias,
//! and parts of a layer that several share.

use super::{MAX_DEPTH, Walk};
use crate::import::onnx::error::OnnxError;
use crate::import::onnx::graph::{Node, NodeId, ValueId};
use crate::import::onnx::stored::Stored;

/// A linear layer, or rows of one: `y = x·Wᵀ + b`.
#[derive(Clone, Debug)]
pub(crate) struct Projection {
    /// The value it reads.
    pub(crate) input: ValueId,
    /// The value it gives, for messages.
    pub(crate) output: ValueId,
    /// `[n, k]`
    pub(crate) weight: Stored,
    /// The first row that belongs to it, and how many.
    pub(crate) rows: (usize, usize),
    /// A list, and which of its entries belongs to the first row.
    pub(crate) bias: Option<(Stored, usize)>,
}

impl Projection {
    /// Adds a bias whose first entry belongs to the first row.
    pub(crate) fn add_bias(&mut self, walk: &Walk<'_>, bias: Stored) -> Result<(), OnnxError> {
        let value = bias.value();
        match self.bias.replace((bias, 0)) {
            None => Ok(()),
            Some(_) => Err(walk
                .graph
                .unrecognised(value, "one bias for a linear layer")),
        }
    }

    /// The part of `len` rows from `start` of this layer's rows; `None` beyond its end.
    pub(crate) fn part(&self, start: usize, len: usize) -> Option<Projection> {
        let end = start.checked_add(len)?;
        (end <= self.rows.1).then(|| Projection {
            rows: (self.rows.0 + start, len),
            bias: self.bias.clone().map(|(bias, first)| (bias, first + start)),
            ..self.clone()
        })
    }
}

/// What a product of factors is made of: `q·(scales)` of an integer product.
struct IntegerProduct<'g> {
    node: &'g Node,
    /// The constant among the scales.
    scale: Option<ValueId>,
    /// The nodes that quantised activations and gave the other scales.
    quantised: Vec<NodeId>,
}

impl<'g> Walk<'g> {
    /// The linear layer that a value is the output of; `None` if it is none.
    ///
    /// # Errors
    ///
    /// A linear layer in a form that is not known.
    pub(crate) fn linear(&self, value: ValueId) -> Result<Option<Projection>, OnnxError> {
        self.linear_behind(value, 1)
    }

    /// `splits` is how many times in a row a layer may be cut into parts whose size it tells.
    fn linear_behind(
        &self,
        value: ValueId,
        splits: usize,
    ) -> Result<Option<Projection>, OnnxError> {
        let output = self.strip(value);
        let mut value = output;
        // Rows of the value in question that are wanted, and the biases seen on the way.
        let mut rows: Option<(usize, usize)> = None;
        let mut bias = None;
        for _ in 0..MAX_DEPTH {
            value = self.strip(value);
            let Some((node, slot)) = self.node(value) else {
                return Ok(None);
            };
            if let Some((input, weight, own_bias)) = self.product(node, slot, value)? {
                let [n, _] = weight.dims()[..] else {
                    return Ok(None);
                };
                let (start, len) = rows.unwrap_or((0, n));
                let bias = match (bias, own_bias) {
                    (None, Some(own)) => Some((own, start)),
                    (bias, None) => bias,
                    (Some(_), Some(_)) => {
                        let wanted = "one bias for a linear layer";
                        return Err(self.graph.unrecognised(value, wanted));
                    }
                };
                if start.checked_add(len).is_none_or(|end| end > n) {
                    let wanted = format!("rows {start} and {len} more of a layer of {n}");
                    return Err(self.graph.unrecognised(output, wanted));
                }
                return Ok(Some(Projection {
                    input: self.strip(input),
                    output,
                    weight,
                    rows: (start, len),
                    bias,
                }));
            }
            match node.op.as_str() {
                "Add" if bias.is_none() => {
                    let Some(pair) = Walk::pair(node) else {
                        return Ok(None);
                    };
                    let Some((vector, rest)) = self.list_beside(pair)? else {
                        return Ok(None);
                    };
                    bias = Some((vector, rows.map_or(0, |(start, _)| start)));
                    value = rest;
                }
                op @ ("Split" | "Slice") => {
                    let part = match op {
                        "Split" => self.split_part(node, slot, splits)?,
                        _ => self.slice_part(node),
                    };
                    let (Some(part), Some(input)) = (part, node.input(0)) else {
                        return Ok(None);
                    };
                    rows = Some(within(part, rows));
                    value = input;
                }
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    /// The entries of the last axis that an output of `Split` has, where they are constant and the
    /// parts are those of a linear layer.
    fn split_part(
        &self,
        node: &Node,
        slot: usize,
        splits: usize,
    ) -> Result<Option<(usize, usize)>, OnnxError> {
        if !matches!(node.int("axis").unwrap_or(0), -1 | 2) {
            return Ok(None);
        }
        // This part's size and those in front of it; a list may claim any length behind.
        let wanted = slot.saturating_add(1);
        let sizes: Option<Vec<usize>> = match (node.ints("split"), node.input(1)) {
            (Some(sizes), _) => {
                let sizes = sizes.iter().take(wanted);
                Some(sizes.map(|s| usize::try_from(*s).unwrap_or(0)).collect())
            }
            (None, Some(sizes)) => self.graph.constant(sizes).map(|tensor| {
                let bytes = self.graph.bytes(tensor);
                let size = |i| tensor.data_type.element(bytes, i) as usize;
                (0..tensor.n_elements().min(wanted)).map(size).collect()
            }),
            // Parts of one size, which the layer in front tells.
            (None, None) => {
                let Some(input) = node.input(0) else {
                    return Ok(None);
                };
                let Some(splits) = splits.checked_sub(1) else {
                    return Ok(None);
                };
                let whole = self.linear_behind(input, splits)?.map(|layer| layer.rows.1);
                whole.map(|n| vec![n / node.outputs.len().max(1); wanted])
            }
        };
        Ok(sizes.and_then(|sizes| {
            let len = *sizes.get(slot)?;
            let before = sizes[..slot]
                .iter()
                .try_fold(0usize, |n, size| n.checked_add(*size))?;
            Some((before, len))
        }))
    }

    /// The same for a `Slice` with constant bounds.
    fn slice_part(&self, node: &Node) -> Option<(usize, usize)> {
        let number = |slot: usize| self.scalar(node.input(slot)?);
        let (start, end, axis) = (number(1)?, number(2)?, number(3)?);
        let step = node.input(4).map_or(Some(1.0), |step| self.scalar(step))?;
        let last = axis == -1.0 || axis == 2.0;
        // An end far beyond every layer means "to the end", which only the layer could tell.
        (last && step == 1.0 && start >= 0.0 && end > start && end < 1e9)
            .then_some((start as usize, (end - start) as usize))
    }

    /// Input, weight `[n, k]` and bias of a node that multiplies by a constant matrix.
    fn product(
        &self,
        node: &'g Node,
        slot: usize,
        out: ValueId,
    ) -> Result<Option<(ValueId, Stored, Option<Stored>)>, OnnxError> {
        let (Some(input), 0) = (node.input(0), slot) else {
            return Ok(None);
        };
        let matrix = |slot: usize| -> Result<Option<Stored>, OnnxError> {
            let Some(value) = node.input(slot).filter(|value| !self.is_carried(*value)) else {
                return Ok(None);
            };
            let kind = self.graph.constant(value).map(|tensor| tensor.data_type);
            if let Some(kind) = kind.filter(|kind| !kind.is_float()) {
                let wanted = format!("a matrix of floats, not of {}", kind.name());
                return Err(self.graph.unrecognised(value, wanted));
            }
            Ok(Stored::of(self.graph, value)?.filter(|stored| stored.dims().len() == 2))
        };
        let vector = |slot: usize| match node.input(slot) {
            Some(value) => match self.vector(value)? {
                Some(vector) => Ok(Some(vector)),
                None => Err(self.graph.unrecognised(value, "a constant bias")),
            },
            None => Ok(None),
        };
        let flag = |name: &str| node.int(name).unwrap_or(0) != 0;
        let unit = |name: &str| node.float(name).unwrap_or(1.0) == 1.0;
        Ok(match node.op.as_str() {
            "MatMul" => matrix(1)?.map(|weight| (input, weight.transposed(), None)),
            "FusedMatMul" | "TransposeMatMul" if unit("alpha") && !flag("transA") => {
                let oriented = |weight: Stored| match flag("transB") {
                    true => weight,
                    false => weight.transposed(),
                };
                matrix(1)?.map(|weight| (input, oriented(weight), None))
            }
            "Gemm" if unit("alpha") && unit("beta") && !flag("transA") => match matrix(1)? {
                Some(weight) if flag("transB") => Some((input, weight, vector(2)?)),
                Some(weight) => Some((input, weight.transposed(), vector(2)?)),
                None => None,
            },
            "MatMulNBits" => {
                let weight = Stored::n_bits(self.graph, node, out)?;
                Some((input, weight, vector(5)?))
            }
            "MatMulBnb4" => Some((input, Stored::bnb4(self.graph, node, out)?, None)),
            "DynamicQuantizeMatMul" => {
                let weight =
                    self.integer_matrix(out, node.input(1), node.input(2), node.input(3))?;
                Some((input, weight.transposed(), vector(4)?))
            }
            "MatMulIntegerToFloat" => {
                let weight =
                    self.integer_matrix(out, node.input(1), node.input(3), node.input(5))?;
                let input = self.before_quantising(input, out)?;
                Some((input, weight.transposed(), vector(6)?))
            }
            "Mul" => match self.integer_layer(out, "MatMulInteger") {
                Some(product) => {
                    let (node, scale) = (product.node, product.scale);
                    let weight = self.integer_matrix(out, node.input(1), scale, node.input(3))?;
                    let input = self.before_quantising(input_of(node), out)?;
                    Some((input, weight.transposed(), None))
                }
                None => None,
            },
            _ => None,
        })
    }

    /// The convolution that makes patches: its input, weight `[n, channels, height, width]`, bias.
    ///
    /// # Errors
    ///
    /// A quantised form that is not known.
    pub(crate) fn convolution(
        &self,
        value: ValueId,
    ) -> Result<Option<(ValueId, Stored, Option<Stored>)>, OnnxError> {
        let mut value = self.strip(value);
        let mut bias = None;
        for _ in 0..MAX_DEPTH {
            let Some((node, 0)) = self.node(value) else {
                return Ok(None);
            };
            let wide = |stored: &Stored| stored.dims().len() == 4;
            match node.op.as_str() {
                "Conv" => {
                    let (Some(input), Some(weight)) = (node.input(0), node.input(1)) else {
                        return Ok(None);
                    };
                    let own = match node.input(2) {
                        Some(own) => self.vector(own)?,
                        None => None,
                    };
                    self.check_patches(node, value)?;
                    let weight = Stored::of(self.graph, weight)?.filter(wide);
                    return Ok(weight.map(|weight| (input, weight, own.or(bias))));
                }
                "Mul" => {
                    let Some(product) = self.integer_layer(value, "ConvInteger") else {
                        return Ok(None);
                    };
                    let (node, scale) = (product.node, product.scale);
                    self.check_patches(node, value)?;
                    let scale = scale.or_else(|| node.input(1));
                    let (Some(values), Some(scale)) = (node.input(1), scale) else {
                        return Ok(None);
                    };
                    let zeros = node.input(3);
                    let weight = Stored::integers(self.graph, [values, scale], zeros, 0, 0)?;
                    let input = self.before_quantising(input_of(node), value)?;
                    return Ok(weight.filter(wide).map(|weight| (input, weight, bias)));
                }
                "Add" if bias.is_none() => {
                    let Some(pair) = Walk::pair(node) else {
                        return Ok(None);
                    };
                    let Some((vector, rest)) = self.list_beside(pair)? else {
                        return Ok(None);
                    };
                    bias = Some(vector);
                    value = self.strip(rest);
                }
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Patches lie side by side: no padding, one group.
    fn check_patches(&self, node: &Node, value: ValueId) -> Result<(), OnnxError> {
        let padded = node
            .ints("pads")
            .is_some_and(|pads| pads.iter().any(|pad| *pad != 0));
        let padding = node
            .text("auto_pad")
            .is_some_and(|pad| pad.starts_with("SAME"));
        let apart = node
            .ints("dilations")
            .is_some_and(|d| d.iter().any(|d| *d != 1));
        let strided = match (node.ints("strides"), node.ints("kernel_shape")) {
            (Some(strides), Some(kernel)) => strides == kernel,
            _ => true,
        };
        if padded || padding || apart || !strided || node.int("group").unwrap_or(1) != 1 {
            let wanted = "patches side by side: strides like the kernel, no padding, one group";
            return Err(self.graph.unrecognised(value, wanted));
        }
        Ok(())
    }

    /// The factors of a product that dequantises what an integer op gives.
    fn integer_product(&self, value: ValueId, op: &str) -> Option<IntegerProduct<'g>> {
        let (mut found, mut scale, mut quantised) = (None, None, Vec::new());
        let mut waiting = vec![value];
        for _ in 0..16 {
            let Some(value) = waiting.pop() else { break };
            let value = self.strip(value);
            if self.graph.constant(value).is_some() {
                if scale.replace(value).is_some() {
                    return None;
                }
                continue;
            }
            let (id, slot) = self.graph.producer(value)?;
            let node = &self.graph.nodes()[id];
            match (node.op.as_str(), slot) {
                ("Mul", 0) => waiting.extend(Walk::pair(node)?),
                ("DynamicQuantizeLinear", 1) => quantised.push(id),
                (name, 0) if name == op && found.is_none() => found = Some(node),
                _ => return None,
            }
        }
        let node = found.filter(|_| waiting.is_empty())?;
        Some(IntegerProduct {
            node,
            scale,
            quantised,
        })
    }

    /// The same of an activation and a constant.
    fn integer_layer(&self, value: ValueId, op: &str) -> Option<IntegerProduct<'g>> {
        self.integer_product(value, op)
            .filter(|product| product.quantised.len() == 1)
    }

    /// The activations of a product of two, each quantised by the scale that it is multiplied by.
    pub(super) fn integer_activations(&self, value: ValueId) -> Option<[ValueId; 2]> {
        let product = self.integer_product(value, "MatMulInteger")?;
        let [a, b] = Walk::pair(product.node)?;
        if product.scale.is_some() {
            return None;
        }
        let mut quantised = product.quantised;
        let mut before = |factor| {
            let (id, 0) = self.graph.producer(self.strip(factor))? else {
                return None;
            };
            let at = quantised.iter().position(|quantised| *quantised == id)?;
            quantised.swap_remove(at);
            self.graph.nodes()[id].input(0)
        };
        let activations = [before(a)?, before(b)?];
        quantised.is_empty().then_some(activations)
    }

    /// A constant matrix `[k, n]` of integers with one scale, or one for each column.
    fn integer_matrix(
        &self,
        out: ValueId,
        values: Option<ValueId>,
        scales: Option<ValueId>,
        zeros: Option<ValueId>,
    ) -> Result<Stored, OnnxError> {
        let found = match (values, scales) {
            (Some(values), Some(scales)) => {
                Stored::integers(self.graph, [values, scales], zeros, 1, 0)?
            }
            _ => None,
        };
        let found = found.filter(|stored| stored.dims().len() == 2);
        let wanted = "a constant matrix of 8-bit integers and its scales";
        found.ok_or_else(|| self.graph.unrecognised(out, wanted))
    }

    /// What was quantised to give the integers of an activation.
    fn before_quantising(&self, value: ValueId, out: ValueId) -> Result<ValueId, OnnxError> {
        let value = self.strip(value);
        let node = self.node_of(value, &["DynamicQuantizeLinear"]);
        let input = node.and_then(|node| node.input(0));
        let wanted = "an activation that DynamicQuantizeLinear quantised";
        input.ok_or_else(|| self.graph.unrecognised(out, wanted))
    }
}

fn input_of(node: &Node) -> ValueId {
    node.input(0).unwrap_or_default()
}

/// A part of a part.
fn within((start, len): (usize, usize), rows: Option<(usize, usize)>) -> (usize, usize) {
    match rows {
        Some((inner, len)) => (start.saturating_add(inner), len),
        None => (start, len),
    }
}
