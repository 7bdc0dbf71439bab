//! Normalisation in one node, with the residual sum inside, or spelled out.

use super::{Stream, Walk};
use crate::import::onnx::error::OnnxError;
use crate::import::onnx::graph::{Node, ValueId};
use crate::import::onnx::stored::Stored;

/// A normalisation of rows.
#[derive(Clone, Debug)]
pub(crate) struct Norm {
    /// What it reads.
    pub(crate) input: Stream,
    /// What it gives, for messages.
    pub(crate) output: ValueId,
    /// `[width]`
    pub(crate) weight: Stored,
    /// `[width]`
    pub(crate) bias: Option<Stored>,
    /// Added under the root.
    pub(crate) eps: f64,
    /// Whether the mean is taken away first: a LayerNorm, otherwise an RMSNorm.
    pub(crate) is_centred: bool,
}

impl<'g> Walk<'g> {
    /// The normalisation that gives a value.
    ///
    /// # Errors
    ///
    /// A value that no normalisation gives.
    pub(crate) fn norm(&self, value: ValueId) -> Result<Norm, OnnxError> {
        let output = self.strip(value);
        let found = match self.node(output) {
            Some((node, 0)) => match self.norm_node(node, output)? {
                Some(norm) => Some(norm),
                None => self.spelled_norm(output)?,
            },
            _ => None,
        };
        let wanted = "a LayerNorm or RMSNorm, in one node or as mean, root and product";
        let mut norm = found.ok_or_else(|| self.graph.unrecognised(output, wanted))?;
        // An RMSNorm of what is left without its mean.
        if let Stream::Value(input) = norm.input
            && let Some(x) = self.centred(input).filter(|_| !norm.is_centred)
        {
            norm.input = self.stream(x);
            norm.is_centred = true;
        }
        Ok(norm)
    }

    /// `x` of `x − mean(x)`.
    fn centred(&self, value: ValueId) -> Option<ValueId> {
        let [x, mean] = Walk::pair(self.node_of(value, &["Sub"])?)?;
        let mean = self.node_of(self.strip(mean), &["ReduceMean"])?;
        (self.strip(mean.input(0)?) == self.strip(x)).then_some(x)
    }

    fn norm_node(&self, node: &'g Node, output: ValueId) -> Result<Option<Norm>, OnnxError> {
        // Inputs of weight and bias, and the default of epsilon.
        let (weight, bias, eps) = match node.op.as_str() {
            "SimplifiedLayerNormalization" | "RMSNormalization" => (1, None, 1e-5),
            "SkipSimplifiedLayerNormalization" => (2, None, 1e-12),
            "LayerNormalization" => (1, Some(2), 1e-5),
            "SkipLayerNormalization" => (2, Some(3), 1e-12),
            _ => return Ok(None),
        };
        let vector = |slot: usize| match node.input(slot) {
            Some(value) => self.vector(value),
            None => Ok(None),
        };
        let (Some(input), Some(weight)) = (node.input(0), vector(weight)?) else {
            return Ok(None);
        };
        let input = match self.graph.producer(output) {
            Some((id, _)) if node.op.starts_with("Skip") => Stream::Sum(id),
            _ => self.stream(input),
        };
        Ok(Some(Norm {
            input,
            output,
            weight,
            is_centred: bias.is_some(),
            bias: match bias {
                Some(slot) => vector(slot)?,
                None => None,
            },
            eps: node.float("epsilon").unwrap_or(eps).into(),
        }))
    }

    /// `x/√(mean(x²) + eps)·weight + bias`, op by op.
    fn spelled_norm(&self, output: ValueId) -> Result<Option<Norm>, OnnxError> {
        let mut value = output;
        let (bias, rest) = self.peel(value, "Add")?;
        value = rest;
        if let (Some(_), Some((node, 0))) = (&bias, self.node(value))
            && let Some(norm) = self.norm_node(node, value)?
            && norm.bias.is_none()
        {
            return Ok(Some(Norm {
                bias,
                output,
                ..norm
            }));
        }
        let (weight, rest) = self.peel(value, "Mul")?;
        let Some(weight) = weight else {
            return Ok(None);
        };
        let Some((centre, eps)) = self.divided_by_root(rest) else {
            return Ok(None);
        };
        Ok(Some(Norm {
            input: self.stream(centre),
            output,
            weight,
            bias,
            eps,
            is_centred: false,
        }))
    }

    /// Takes a constant list off a sum or product, if there is one.
    fn peel(&self, value: ValueId, op: &str) -> Result<(Option<Stored>, ValueId), OnnxError> {
        let value = self.strip(value);
        let Some(pair) = self.node_of(value, &[op]).and_then(Walk::pair) else {
            return Ok((None, value));
        };
        Ok(match self.list_beside(pair)? {
            Some((vector, rest)) => (Some(vector), self.strip(rest)),
            None => (None, value),
        })
    }

    /// `x` and `eps` of `x/√(mean(x²) + eps)`.
    fn divided_by_root(&self, value: ValueId) -> Option<(ValueId, f64)> {
        let node = self.node_of(value, &["Mul", "Div"])?;
        let [a, b] = Walk::pair(node)?.map(|value| self.strip(value));
        let ways = match node.op.as_str() {
            "Div" => [(a, self.root(b)), (b, None)],
            _ => [(a, self.inverse_root(b)), (b, self.inverse_root(a))],
        };
        ways.into_iter().find_map(|(x, root)| {
            let (of, eps) = root?;
            (of == x).then_some((x, eps))
        })
    }

    /// `x` and `eps` of `1/√(mean(x²) + eps)`.
    fn inverse_root(&self, value: ValueId) -> Option<(ValueId, f64)> {
        let node = self.node_of(value, &["Reciprocal", "Div", "Pow"])?;
        let first = node.input(0)?;
        match node.op.as_str() {
            "Reciprocal" => self.root(self.strip(first)),
            "Div" if self.scalar(first) == Some(1.0) => self.root(self.strip(node.input(1)?)),
            "Pow" if self.scalar(node.input(1)?) == Some(-0.5) => {
                self.mean_square(self.strip(first))
            }
            _ => None,
        }
    }

    /// `x` and `eps` of `√(mean(x²) + eps)`.
    fn root(&self, value: ValueId) -> Option<(ValueId, f64)> {
        let node = self.node_of(value, &["Sqrt", "Pow"])?;
        if node.op == "Pow" && self.scalar(node.input(1)?) != Some(0.5) {
            return None;
        }
        self.mean_square(self.strip(node.input(0)?))
    }

    /// `x` and `eps` of `mean(x²) + eps`.
    fn mean_square(&self, value: ValueId) -> Option<(ValueId, f64)> {
        let [a, b] = Walk::pair(self.node_of(value, &["Add"])?)?;
        let (mean, eps) = match (self.scalar(a), self.scalar(b)) {
            (None, Some(eps)) => (a, eps),
            (Some(eps), None) => (b, eps),
            _ => return None,
        };
        let mean = self.node_of(self.strip(mean), &["ReduceMean"])?;
        let square = self.node_of(self.strip(mean.input(0)?), &["Pow", "Mul"])?;
        let [x, other] = Walk::pair(square)?;
        let squares = match square.op.as_str() {
            "Pow" => self.scalar(other) == Some(2.0),
            _ => self.strip(x) == self.strip(other),
        };
        squares.then(|| (self.strip(x), eps))
    }
}
