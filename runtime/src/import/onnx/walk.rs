//! Walking a graph against its flow, from an output to what it is made of.
//!
//! Structure is told by what depends on what, never by names. A value is *carried* if it is made
//! from the stream (embeddings, pixel values); masks, positions and shapes are not, even where they
//! are computed from the stream's dimensions. Ops that only move or convert values are looked
//! through; every op that computes is either understood or an error.

mod attention;
mod elementwise;
mod linear;
mod norm;
mod rotary;

pub(super) use attention::Heads;
pub(super) use linear::Projection;
pub(super) use norm::Norm;

use super::error::OnnxError;
use super::graph::{Graph, Node, NodeId, ValueId};
use super::stored::{Stored, rounded};

/// Ops that move, reshape or convert their first input.
const MOVES: [&str; 10] = [
    "Cast",
    "CastLike",
    "Dropout",
    "Expand",
    "Flatten",
    "Identity",
    "Reshape",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
];

/// Ops whose output says something about a tensor without carrying its values.
const ABOUT: [&str; 15] = [
    "And",
    "ArgMax",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "IsInf",
    "IsNaN",
    "Less",
    "LessOrEqual",
    "NonZero",
    "Not",
    "Or",
    "Shape",
    "Size",
    "Xor",
];

/// Ops that pick rows of their first input.
const PICKS: [&str; 5] = ["Compress", "Gather", "GatherElements", "GatherND", "Slice"];

/// Most nodes that compute on one way, and deepest expression that is evaluated.
const MAX_DEPTH: usize = 64;
/// Most values that are looked at to find out one number.
const MAX_VISITS: usize = 256;

/// The residual stream at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    /// A value.
    Value(ValueId),
    /// The sum inside a node that adds and normalises in one.
    Sum(NodeId),
}

/// A graph, what its values carry, and the head size its shapes stand for.
#[derive(Debug)]
pub(super) struct Walk<'g> {
    pub(super) graph: &'g Graph,
    carried: Vec<bool>,
    /// For each value, the one behind everything that only moves or converts.
    stripped: Vec<ValueId>,
    /// The same, looking through picked rows too.
    unpicked: Vec<ValueId>,
    /// Entries of the last axis wherever a scale is computed from a shape.
    pub(super) head_dim: usize,
}

impl<'g> Walk<'g> {
    /// Prepares to walk towards the stream's inputs.
    pub(super) fn new(graph: &'g Graph, inputs: &[ValueId], head_dim: usize) -> Walk<'g> {
        let mut carried = vec![false; graph.n_values()];
        for input in inputs {
            carried[*input] = true;
        }
        let mut stripped: Vec<ValueId> = (0..graph.n_values()).collect();
        let mut unpicked = stripped.clone();
        for id in graph.order() {
            let node = &graph.nodes()[*id];
            let first = node.outputs.first().copied().flatten();
            let open = first.filter(|output| graph.constant(*output).is_none());
            if let (Some(output), Some(input)) = (open, node.input(0)) {
                // A traced cache is what was in front of it, put together alone.
                let alone = node.op == "Concat" && node.inputs.len() == 1;
                let moves = alone || MOVES.contains(&node.op.as_str());
                if moves {
                    stripped[output] = stripped[input];
                } else if let Some(rounded) = rounded(graph, node) {
                    stripped[output] = stripped[rounded];
                    unpicked[output] = unpicked[rounded];
                }
                if moves || PICKS.contains(&node.op.as_str()) {
                    unpicked[output] = unpicked[input];
                }
            }
            let inputs = node.inputs.iter().flatten();
            if !ABOUT.contains(&node.op.as_str()) && inputs.copied().any(|v| carried[v]) {
                for output in node.outputs.iter().flatten() {
                    carried[*output] = true;
                }
            }
        }
        Walk {
            graph,
            carried,
            stripped,
            unpicked,
            head_dim,
        }
    }

    pub(super) fn is_carried(&self, value: ValueId) -> bool {
        self.carried[value]
    }

    /// The node that makes a value, and which of its outputs the value is.
    pub(super) fn node(&self, value: ValueId) -> Option<(&'g Node, usize)> {
        let (node, slot) = self.graph.producer(value)?;
        Some((&self.graph.nodes()[node], slot))
    }

    /// The value's node if it is one of these ops.
    fn node_of(&self, value: ValueId, ops: &[&str]) -> Option<&'g Node> {
        let (node, slot) = self.node(value)?;
        (slot == 0 && ops.contains(&node.op.as_str())).then_some(node)
    }

    /// Looks through what only moves or converts.
    pub(super) fn strip(&self, value: ValueId) -> ValueId {
        self.stripped[value]
    }

    /// Looks through that and through what picks rows.
    pub(super) fn strip_picks(&self, value: ValueId) -> ValueId {
        self.unpicked[value]
    }

    /// The two inputs of a node of two inputs.
    fn pair(node: &Node) -> Option<[ValueId; 2]> {
        Some([node.input(0)?, node.input(1)?])
    }

    /// A constant list of more than one number.
    ///
    /// # Errors
    ///
    /// A quantised constant whose scales do not fit.
    fn vector(&self, value: ValueId) -> Result<Option<Stored>, OnnxError> {
        if self.is_carried(value) {
            return Ok(None);
        }
        let list = |stored: &Stored| stored.n_elements() > 1 && stored.is_list();
        Ok(Stored::of(self.graph, value)?.filter(list))
    }

    /// The constant list among two values, and the other value; `None` if none or both are lists.
    ///
    /// # Errors
    ///
    /// As [`Walk::vector`].
    fn list_beside(&self, [a, b]: [ValueId; 2]) -> Result<Option<(Stored, ValueId)>, OnnxError> {
        Ok(match (self.vector(a)?, self.vector(b)?) {
            (Some(list), None) => Some((list, b)),
            (None, Some(list)) => Some((list, a)),
            _ => None,
        })
    }

    /// The number a value always has: a constant, or computed from constants and from the length of
    /// the last axis of a stream by head.
    fn scalar(&self, value: ValueId) -> Option<f64> {
        self.scalar_within(value, &mut { MAX_VISITS })
    }

    /// `visits` bounds the whole expression, in which one value may be used many times.
    fn scalar_within(&self, value: ValueId, visits: &mut usize) -> Option<f64> {
        if let Some(tensor) = self.graph.constant(value) {
            let one = tensor.n_elements() == 1 && tensor.data_type.bits() > 0;
            return one.then(|| tensor.data_type.element(self.graph.bytes(tensor), 0));
        }
        *visits = visits.checked_sub(1)?;
        let (node, 0) = self.node(value)? else {
            return None;
        };
        let mut input = |slot: usize| self.scalar_within(node.input(slot)?, visits);
        match node.op.as_str() {
            op if MOVES.contains(&op) => input(0),
            // A number that is rounded is what it was before.
            "DequantizeLinear" => match rounded(self.graph, node) {
                Some(before) => self.scalar_within(before, visits),
                None if node.input(2).is_some() => Some((input(0)? - input(2)?) * input(1)?),
                None => Some(input(0)? * input(1)?),
            },
            "Floor" => Some(input(0)?.floor()),
            "Neg" => Some(-input(0)?),
            "Sqrt" => Some(input(0)?.sqrt()),
            "Reciprocal" => Some(1.0 / input(0)?),
            "Add" => Some(input(0)? + input(1)?),
            "Sub" => Some(input(0)? - input(1)?),
            "Mul" => Some(input(0)? * input(1)?),
            "Div" => Some(input(0)? / input(1)?),
            "Pow" => Some(input(0)?.powf(input(1)?)),
            "Gather" | "Slice" => {
                self.node_of(self.strip(node.input(0)?), &["Shape"])?;
                let axis = input(1)?;
                (axis == -1.0 || axis == 3.0).then_some(self.head_dim as f64)
            }
            _ => None,
        }
    }

    /// The stream that a value is.
    pub(super) fn stream(&self, value: ValueId) -> Stream {
        let value = self.strip(value);
        match self.graph.producer(value) {
            Some((id, 3)) if self.graph.nodes()[id].op.starts_with("Skip") => Stream::Sum(id),
            _ => Stream::Value(value),
        }
    }

    /// A value to name in a message about a stream.
    pub(super) fn value_of(&self, stream: Stream) -> ValueId {
        match stream {
            Stream::Value(value) => value,
            Stream::Sum(node) => {
                let node = &self.graph.nodes()[node];
                node.outputs
                    .iter()
                    .flatten()
                    .next()
                    .copied()
                    .unwrap_or_default()
            }
        }
    }

    /// The two summands of a stream, and a bias that is added beside them.
    ///
    /// # Errors
    ///
    /// A value that is no sum.
    pub(super) fn summands(
        &self,
        stream: Stream,
        expected: &str,
    ) -> Result<([ValueId; 2], Option<Stored>), OnnxError> {
        let refused = |value| Err(self.graph.unrecognised(value, expected));
        let mut bias = None;
        match stream {
            Stream::Sum(id) => {
                let node = &self.graph.nodes()[id];
                let slot = if node.op == "SkipLayerNormalization" {
                    4
                } else {
                    3
                };
                if let Some(value) = node.input(slot) {
                    bias = self.vector(value)?;
                }
                match Walk::pair(node) {
                    Some(pair) => Ok((pair, bias)),
                    None => refused(self.value_of(stream)),
                }
            }
            Stream::Value(mut value) => loop {
                let Some([a, b]) = self.node_of(value, &["Add"]).and_then(Walk::pair) else {
                    return refused(value);
                };
                let Some((vector, rest)) = self.list_beside([a, b])? else {
                    return Ok(([a, b], bias));
                };
                if bias.replace(vector).is_some() {
                    return refused(value);
                }
                value = self.strip(rest);
            },
        }
    }

    /// Takes a stream apart: the projection that was added last, and the stream before.
    ///
    /// # Errors
    ///
    /// A value that is no such sum, a projection of an unknown form.
    pub(super) fn residual(
        &self,
        stream: Stream,
        expected: &str,
    ) -> Result<(Projection, Stream), OnnxError> {
        let ([a, b], bias) = self.summands(stream, expected)?;
        let (mut projection, rest) = match (self.linear(a)?, self.linear(b)?) {
            (Some(projection), None) => (projection, b),
            (None, Some(projection)) => (projection, a),
            (None, None) => {
                let value = self.strip(if self.is_input(b) { a } else { b });
                return Err(self.graph.unrecognised(value, expected));
            }
            (Some(_), Some(_)) => {
                return Err(self.graph.unrecognised(self.value_of(stream), expected));
            }
        };
        if let Some(bias) = bias {
            projection.add_bias(self, bias)?;
        }
        Ok((projection, self.stream(rest)))
    }

    fn is_input(&self, value: ValueId) -> bool {
        self.graph.is_input(self.strip(value))
    }
}
