//! Attention in one node or spelled out: which layers give queries, keys and values.

use super::rotary::Rotated;
use super::{MAX_DEPTH, Projection, Walk};
use crate::import::onnx::error::OnnxError;
use crate::import::onnx::graph::{Node, ValueId};
use crate::import::onnx::stored::Stored;

/// Largest relative difference between a scale of the graph and the one expected: it may be f16.
const SCALE_TOLERANCE: f64 = 2e-3;

/// What the configuration says about attention.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heads {
    /// Query heads.
    pub(crate) n_heads: usize,
    /// Key and value heads.
    pub(crate) n_kv_heads: usize,
    /// Width of one head.
    pub(crate) head_dim: usize,
    /// Base of the rotary positions of a decoder, which also looks back only.
    pub(crate) rope_theta: Option<f32>,
}

/// The layers in front of attention.
#[derive(Clone, Debug)]
pub(crate) struct Attention {
    /// Queries.
    pub(crate) q: Projection,
    /// Keys.
    pub(crate) k: Projection,
    /// Values.
    pub(crate) v: Projection,
    /// Whether rotary positions turn neighbours against each other instead of halves.
    pub(crate) is_interleaved: bool,
}

/// A layer and what happens to it on the way into attention.
struct Operand {
    layer: Projection,
    factor: f64,
    rotated: Option<Rotated>,
}

impl<'g> Walk<'g> {
    /// The layers whose attention gives a value.
    ///
    /// # Errors
    ///
    /// A form of attention that is not known, or other heads, scales or positions than expected.
    pub(crate) fn attention(&self, value: ValueId, heads: &Heads) -> Result<Attention, OnnxError> {
        let value = self.strip(value);
        let wanted = "attention: GroupQueryAttention, MultiHeadAttention, Attention, or products around a Softmax";
        let Some((node, 0)) = self.node(value) else {
            return Err(self.graph.unrecognised(value, wanted));
        };
        match (node.op.as_str(), node.domain.as_str()) {
            ("GroupQueryAttention", _) => self.grouped(node, value, heads),
            ("MultiHeadAttention", _) => self.multi_head(node, value, heads),
            ("Attention", "com.microsoft") => self.packed(node, value, heads),
            ("Attention", _) => self.standard(node, value, heads),
            _ => match self.activations(value) {
                Some((factors, 1.0)) => self.spelled_attention(factors, value, heads),
                _ => Err(self.graph.unrecognised(value, wanted)),
            },
        }
    }

    /// `com.microsoft.GroupQueryAttention`
    fn grouped(&self, node: &'g Node, out: ValueId, heads: &Heads) -> Result<Attention, OnnxError> {
        self.check_count(node, out, "num_heads", heads.n_heads)?;
        self.check_count(node, out, "kv_num_heads", heads.n_kv_heads)?;
        self.check_plain(node, out)?;
        let d = heads.head_dim;
        let wanted = "GroupQueryAttention of queries, keys and values, apart or packed";
        let operands = match (node.input(0), node.input(1), node.input(2)) {
            (Some(packed), None, None) => {
                let Operand { layer, .. } = self.operand(packed, heads)?;
                let kv = heads.n_kv_heads * d;
                self.parts(&layer, [heads.n_heads * d, kv, kv])?
            }
            _ => self.operands(node, out, heads, wanted)?,
        };
        let mut inside = None;
        if node.int("do_rotary").unwrap_or(0) != 0 {
            let (Some(cos), Some(sin)) = (node.input(7), node.input(8)) else {
                let wanted = "tables of cosines and sines beside do_rotary";
                return Err(self.graph.unrecognised(out, wanted));
            };
            let is_interleaved = node.int("rotary_interleaved").unwrap_or(0) != 0;
            inside = Some(Rotated {
                cos,
                sin,
                is_interleaved,
            });
        }
        self.assemble(out, operands, inside, heads)
    }

    /// `com.microsoft.MultiHeadAttention`
    fn multi_head(
        &self,
        node: &'g Node,
        out: ValueId,
        heads: &Heads,
    ) -> Result<Attention, OnnxError> {
        self.check_count(node, out, "num_heads", heads.n_heads)?;
        self.check_plain(node, out)?;
        let wanted = "MultiHeadAttention of queries, keys and values apart";
        let mut operands = self.operands(node, out, heads, wanted)?;
        if let Some(value) = node.input(3) {
            let wanted = "a constant bias for queries, keys and values together";
            let bias = self.vector(value)?;
            let bias = bias.ok_or_else(|| self.graph.unrecognised(value, wanted))?;
            let mut start = 0;
            for Operand { layer, .. } in &mut operands {
                if layer.bias.is_some() || start + layer.rows.1 > bias.n_elements() {
                    return Err(self.graph.unrecognised(value, wanted));
                }
                layer.bias = Some((bias.clone(), start));
                start += layer.rows.1;
            }
        }
        let is_causal = node.int("unidirectional").unwrap_or(0) != 0;
        self.check_causal(is_causal || node.input(5).is_some(), out, heads)?;
        self.assemble(out, operands, None, heads)
    }

    /// `com.microsoft.Attention`: the layer in front is inside.
    fn packed(&self, node: &'g Node, out: ValueId, heads: &Heads) -> Result<Attention, OnnxError> {
        self.check_count(node, out, "num_heads", heads.n_heads)?;
        self.check_plain(node, out)?;
        let wanted = "Attention with constant weights for queries, keys and values together";
        let (Some(input), Some(weight)) = (node.input(0), node.input(1)) else {
            return Err(self.graph.unrecognised(out, wanted));
        };
        let matrix = Stored::of(self.graph, weight)?.filter(|stored| stored.dims().len() == 2);
        let Some(weight) = matrix.map(Stored::transposed) else {
            return Err(self.graph.unrecognised(weight, wanted));
        };
        let bias = match node.input(2) {
            Some(bias) => self.vector(bias)?.map(|bias| (bias, 0)),
            None => None,
        };
        let layer = Projection {
            input: self.strip(input),
            output: out,
            rows: (0, weight.dims()[0]),
            weight,
            bias,
        };
        let width = heads.n_heads * heads.head_dim;
        let operands = self.parts(&layer, [width; 3])?;
        let is_causal = node.int("unidirectional").unwrap_or(0) != 0;
        self.check_causal(is_causal || node.input(5).is_some(), out, heads)?;
        self.assemble(out, operands, None, heads)
    }

    /// `ai.onnx.Attention`
    fn standard(
        &self,
        node: &'g Node,
        out: ValueId,
        heads: &Heads,
    ) -> Result<Attention, OnnxError> {
        for (name, expected) in [
            ("q_num_heads", heads.n_heads),
            ("kv_num_heads", heads.n_kv_heads),
        ] {
            if node.int(name).is_some() {
                self.check_count(node, out, name, expected)?;
            }
        }
        self.check_plain(node, out)?;
        let wanted = "Attention of queries, keys and values";
        let operands = self.operands(node, out, heads, wanted)?;
        let is_causal = node.int("is_causal").unwrap_or(0) != 0;
        self.check_causal(is_causal || node.input(3).is_some(), out, heads)?;
        self.assemble(out, operands, None, heads)
    }

    /// `softmax(q·kᵀ·scale + mask)·v`, op by op.
    fn spelled_attention(
        &self,
        [probabilities, v]: [ValueId; 2],
        out: ValueId,
        heads: &Heads,
    ) -> Result<Attention, OnnxError> {
        let wanted = "the Softmax of attention";
        let mut value = self.strip(probabilities);
        // Rows that see nothing are set to 0 by some exporters.
        if let Some(choice) = self.node_of(value, &["Where"]) {
            let carried = choice.inputs.iter().skip(1).flatten();
            let carried: Vec<_> = carried.filter(|value| self.is_carried(**value)).collect();
            let [one] = carried[..] else {
                return Err(self.graph.unrecognised(value, wanted));
            };
            value = self.strip(*one);
        }
        let softmax = self.node_of(value, &["Softmax"]);
        let softmax = softmax.filter(|node| matches!(node.int("axis").unwrap_or(-1), -1 | 3));
        let scores = softmax.and_then(|node| node.input(0));
        let Some(mut value) = scores.or_else(|| self.spelled_softmax(value)) else {
            return Err(self.graph.unrecognised(value, wanted));
        };
        let (mut factor, mut is_masked) = (1.0, false);
        for _ in 0..MAX_DEPTH {
            value = self.strip(value);
            let wanted = "scores of attention: a product of queries and keys, scaled and masked";
            let refused = || self.graph.unrecognised(value, wanted);
            let (node, 0) = self.node(value).ok_or_else(refused)? else {
                return Err(refused());
            };
            if let Some(([q, k], own)) = self.activations(value) {
                let (mut q, k) = (self.operand(q, heads)?, self.operand(k, heads)?);
                q.factor *= factor * own;
                let scale = q.factor * k.factor * (heads.head_dim as f64).sqrt();
                if (scale - 1.0).abs() > SCALE_TOLERANCE {
                    let found = format!("{} times 1/√head size", scale);
                    return Err(self
                        .graph
                        .differs(out, "the scale of attention", found, "1"));
                }
                self.check_causal(is_masked, out, heads)?;
                let v = self.operand(v, heads)?;
                return self.assemble(out, [q, k, v], None, heads);
            }
            match node.op.as_str() {
                "Add" | "Where" => {
                    let carried = |value: &&ValueId| self.is_carried(**value);
                    let all: Vec<&ValueId> = node.inputs.iter().flatten().filter(carried).collect();
                    let [one] = all[..] else {
                        return Err(refused());
                    };
                    is_masked = true;
                    value = *one;
                }
                _ => {
                    let (number, rest) = self.scaled(node).ok_or_else(refused)?;
                    factor *= number;
                    value = rest;
                }
            }
        }
        Err(self.graph.unrecognised(value, wanted))
    }

    /// `x` of `exp(x − max x)/Σ exp(x − max x)` along the last axis: what becomes of a Softmax in f16
    /// where a processor has none.
    fn spelled_softmax(&self, value: ValueId) -> Option<ValueId> {
        let [powers, sum] = Walk::pair(self.node_of(value, &["Div"])?)?.map(|v| self.strip(v));
        let last = |node: &Node| {
            let inside = || match node.input(1) {
                Some(axes) => self.scalar(axes),
                None => None,
            };
            let axis = match node.ints("axes") {
                Some([axis]) => Some(*axis as f64),
                Some(_) => None,
                None => inside(),
            };
            matches!(axis, Some(-1.0 | 3.0))
        };
        let of = |value: ValueId, op: &str| {
            let node = self.node_of(value, &[op]).filter(|node| last(node))?;
            Some(self.strip(node.input(0)?))
        };
        if of(sum, "ReduceSum") != Some(powers) {
            return None;
        }
        let exponents = self.node_of(powers, &["Exp"])?.input(0)?;
        let [x, largest] = Walk::pair(self.node_of(self.strip(exponents), &["Sub"])?)?;
        let x = self.strip(x);
        (of(self.strip(largest), "ReduceMax") == Some(x)).then_some(x)
    }

    /// The two activations whose matrix product a value is, and what that is multiplied by.
    fn activations(&self, value: ValueId) -> Option<([ValueId; 2], f64)> {
        let node = self.node_of(value, &["MatMul", "FusedMatMul", "Mul"])?;
        match node.op.as_str() {
            "MatMul" => Some((Walk::pair(node)?, 1.0)),
            "FusedMatMul" => Some((Walk::pair(node)?, fused_scale(node)?)),
            _ => Some((self.integer_activations(value)?, 1.0)),
        }
    }

    /// The factor and the rest of a value times, or divided by, a number.
    fn scaled(&self, node: &Node) -> Option<(f64, ValueId)> {
        let [a, b] = Walk::pair(node)?;
        match node.op.as_str() {
            "Mul" if self.is_carried(a) => Some((self.scalar(b)?, a)),
            "Mul" => Some((self.scalar(a)?, b)),
            "Div" => Some((1.0 / self.scalar(b)?, a)),
            _ => None,
        }
    }

    /// The layers behind a node's first three inputs.
    ///
    /// # Errors
    ///
    /// One is left out, so that the node is not what was `wanted`; or as [`Walk::operand`].
    fn operands(
        &self,
        node: &Node,
        out: ValueId,
        heads: &Heads,
        wanted: &str,
    ) -> Result<[Operand; 3], OnnxError> {
        let (Some(q), Some(k), Some(v)) = (node.input(0), node.input(1), node.input(2)) else {
            return Err(self.graph.unrecognised(out, wanted));
        };
        Ok([
            self.operand(q, heads)?,
            self.operand(k, heads)?,
            self.operand(v, heads)?,
        ])
    }

    /// The layer behind queries, keys or values.
    fn operand(&self, value: ValueId, heads: &Heads) -> Result<Operand, OnnxError> {
        let (mut value, mut factor, mut rotated) = (self.strip(value), 1.0, None);
        for _ in 0..MAX_DEPTH {
            if let Some(layer) = self.linear(value)? {
                return Ok(Operand {
                    layer,
                    factor,
                    rotated,
                });
            }
            let wanted = "queries, keys or values: a linear layer, rotary positions, a cache in front, a scale";
            let refused = || self.graph.unrecognised(value, wanted);
            let (node, _) = self.node(value).ok_or_else(refused)?;
            if let Some((number, rest)) = self.scaled(node) {
                factor *= number;
                value = self.strip(rest);
            } else if let Some((rotation, rest)) = self.rotation(value, heads.head_dim) {
                if rotated.replace(rotation).is_some() {
                    return Err(refused());
                }
                value = self.strip(rest);
            } else {
                let rest = self.behind_cache(node).ok_or_else(refused)?;
                value = self.strip(rest);
            }
        }
        Err(self.graph.unrecognised(value, "a linear layer"))
    }

    /// What is appended to a cache that is an input of the graph.
    fn behind_cache(&self, node: &Node) -> Option<ValueId> {
        let [cache, new] = Walk::pair(node)?;
        let appends = node.op == "Concat" && node.inputs.len() == 2;
        (appends && self.graph.is_input(self.strip(cache))).then_some(new)
    }

    /// Queries, keys and values of a layer that gives all three.
    fn parts(&self, layer: &Projection, sizes: [usize; 3]) -> Result<[Operand; 3], OnnxError> {
        let [q, k, v] = sizes;
        let found = match layer.rows.1 == q + k + v {
            true => (layer.part(0, q), layer.part(q, k), layer.part(q + k, v)),
            false => (None, None, None),
        };
        let (Some(q), Some(k), Some(v)) = found else {
            let wanted = format!("{} rows, has {}", q + k + v, layer.rows.1);
            return Err(self
                .graph
                .differs(layer.output, "the packed layer", wanted, q + k + v));
        };
        Ok([q, k, v].map(|layer| Operand {
            layer,
            factor: 1.0,
            rotated: None,
        }))
    }

    fn check_count(
        &self,
        node: &Node,
        out: ValueId,
        name: &'static str,
        expected: usize,
    ) -> Result<(), OnnxError> {
        match node.int(name) {
            Some(found) if usize::try_from(found) == Ok(expected) => Ok(()),
            Some(found) => Err(self.graph.differs(out, name, found, expected)),
            None => Err(self.graph.differs(out, name, "absent", expected)),
        }
    }

    /// Refuses attention with a window, a cap on its scores or another scale.
    fn check_plain(&self, node: &Node, out: ValueId) -> Result<(), OnnxError> {
        if let Some(window @ 0..) = node.int("local_window_size") {
            return Err(self.graph.differs(out, "local_window_size", window, "-1"));
        }
        for name in ["softcap", "smooth_softmax"] {
            let int = node.int(name).map_or(0.0, |value| value as f32);
            let value = node.float(name).unwrap_or(int);
            if value > 0.0 {
                return Err(self
                    .graph
                    .differs(out, "a change of the scores", value, "0"));
            }
        }
        Ok(())
    }

    fn check_causal(&self, is_causal: bool, out: ValueId, heads: &Heads) -> Result<(), OnnxError> {
        match (heads.rope_theta, is_causal) {
            (Some(_), false) => Err(self.graph.differs(out, "the mask", "absent", "causal")),
            _ => Ok(()),
        }
    }

    /// Checks the operands against each other and against the configuration.
    fn assemble(
        &self,
        out: ValueId,
        [q, k, v]: [Operand; 3],
        inside: Option<Rotated>,
        heads: &Heads,
    ) -> Result<Attention, OnnxError> {
        if let Some((node, _)) = self.node(out)
            && let Some(scale) = node.float("scale").filter(|scale| *scale != 0.0)
        {
            let ratio = f64::from(scale) * (heads.head_dim as f64).sqrt();
            if (ratio - 1.0).abs() > SCALE_TOLERANCE {
                return Err(self
                    .graph
                    .differs(out, "the scale of attention", ratio, "1"));
            }
        }
        if v.factor != 1.0 || v.rotated.is_some() {
            let wanted = "values as their layer gives them";
            return Err(self.graph.unrecognised(v.layer.output, wanted));
        }
        let is_interleaved = match (heads.rope_theta, q.rotated, k.rotated, inside) {
            (None, None, None, None) => false,
            (Some(theta), Some(q), Some(k), None) if q.is_interleaved == k.is_interleaved => {
                self.check_rotation(&q, theta, heads.head_dim)?;
                self.check_rotation(&k, theta, heads.head_dim)?;
                q.is_interleaved
            }
            (Some(theta), None, None, Some(inside)) => {
                self.check_rotation(&inside, theta, heads.head_dim)?;
                inside.is_interleaved
            }
            (theta, ..) => {
                let expected = if theta.is_some() {
                    "once for both"
                } else {
                    "none"
                };
                let what = "rotary positions of queries and keys";
                return Err(self.graph.differs(out, what, "something else", expected));
            }
        };
        Ok(Attention {
            q: q.layer,
            k: k.layer,
            v: v.layer,
            is_interleaved,
        })
    }
}

/// What a `FusedMatMul` multiplies its product by; `None` if it transposes what a plain product does
/// not. Keys may be transposed here or in front.
fn fused_scale(node: &Node) -> Option<f64> {
    let is_set = |name: &&str| node.int(name).unwrap_or(0) != 0;
    let odd = ["transA", "transBatchA", "transBatchB"].iter().any(is_set);
    (!odd).then(|| f64::from(node.float("alpha").unwrap_or(1.0)))
}
