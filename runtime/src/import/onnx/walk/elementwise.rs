//! Activation functions, told by their values: an expression of single elements is evaluated at
//! some points and compared, whatever ops it is spelled with.

use super::{MAX_DEPTH, Projection, Walk};
use crate::import::onnx::error::OnnxError;
use crate::import::onnx::graph::{Node, ValueId};
use std::collections::HashMap;

/// Where functions are compared.
const POINTS: [f64; 9] = [-5.0, -2.6, -1.3, -0.6, -0.1, 0.35, 0.9, 2.1, 4.0];
/// Largest difference of one and the same function: its constants may be rounded to f16. GELU with
/// `erf` differs from the one with `tanh` by up to 5e-4.
const TOLERANCE: f64 = 1.5e-4;

/// `x/(1 + e^(−x))`
fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

/// `0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))`
fn gelu_tanh(x: f64) -> f64 {
    let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
    0.5 * x * (1.0 + inner.tanh())
}

/// The error function, to 1.5e-7 (Abramowitz and Stegun 7.1.26).
fn erf(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.327_591_1 * x.abs());
    let series = [
        1.061_405_429,
        -1.453_152_027,
        1.421_413_741,
        -0.284_496_736,
        0.254_829_592,
    ];
    let sum = series.iter().fold(0.0, |sum, factor| (sum + factor) * t);
    (1.0 - sum * (-x * x).exp()).copysign(x)
}

fn gelu_erf(x: f64) -> f64 {
    0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2))
}

impl<'g> Walk<'g> {
    /// The layer under a tanh GELU.
    ///
    /// # Errors
    ///
    /// Another function, or an op that is not known.
    pub(crate) fn gelu(&self, value: ValueId) -> Result<Projection, OnnxError> {
        let wanted = "GELU with tanh of one linear layer";
        let mut leaves = self.leaves(value, wanted)?;
        let (Some((leaf, projection)), true) = (leaves.pop(), leaves.is_empty()) else {
            return Err(self.graph.unrecognised(self.strip(value), wanted));
        };
        let matches = |function: fn(f64) -> f64| {
            POINTS.iter().all(|x| {
                let found = self.element(value, &[(leaf, *x)]);
                found.is_some_and(|found| (found - function(*x)).abs() < TOLERANCE)
            })
        };
        if matches(gelu_tanh) {
            return Ok(projection);
        }
        let found = if matches(gelu_erf) {
            "GELU with erf"
        } else {
            "another function"
        };
        Err(self.graph.differs(
            self.strip(value),
            "the activation",
            found,
            "gelu_pytorch_tanh",
        ))
    }

    /// The layers `gate` and `up` under `silu(gate)·up`.
    ///
    /// # Errors
    ///
    /// Another function, or an op that is not known.
    pub(crate) fn gated(&self, value: ValueId) -> Result<[Projection; 2], OnnxError> {
        let wanted = "silu(gate)·up of two linear layers";
        let leaves = self.leaves(value, wanted)?;
        let Ok([(a, first), (b, second)]) = <[_; 2]>::try_from(leaves) else {
            return Err(self.graph.unrecognised(self.strip(value), wanted));
        };
        let matches = |gate: ValueId, up: ValueId| {
            POINTS.iter().zip(POINTS.iter().rev()).all(|(x, y)| {
                let found = self.element(value, &[(gate, *x), (up, *y)]);
                found.is_some_and(|found| (found - silu(*x) * y).abs() < TOLERANCE * 5.0)
            })
        };
        if matches(a, b) {
            Ok([first, second])
        } else if matches(b, a) {
            Ok([second, first])
        } else {
            Err(self.graph.differs(
                self.strip(value),
                "the activation",
                "another function",
                "silu",
            ))
        }
    }

    /// The linear layers that an expression of single elements is made of.
    fn leaves(
        &self,
        value: ValueId,
        expected: &str,
    ) -> Result<Vec<(ValueId, Projection)>, OnnxError> {
        let mut leaves: Vec<(ValueId, Projection)> = Vec::new();
        let mut seen = Vec::new();
        let mut waiting = vec![value];
        while let Some(value) = waiting.pop() {
            let value = self.strip(value);
            if !self.is_carried(value) || seen.contains(&value) {
                continue;
            }
            seen.push(value);
            if let Some(projection) = self.linear(value)? {
                leaves.push((value, projection));
                continue;
            }
            let node = self.node(value).filter(|(node, _)| is_elementwise(node));
            let (Some((node, 0)), true) = (node, seen.len() <= MAX_DEPTH) else {
                return Err(self.graph.unrecognised(value, expected));
            };
            let biased = ["FastGelu", "BiasGelu"].contains(&node.op.as_str());
            if let (true, Some(input), Some(bias)) = (biased, node.input(0), node.input(1)) {
                let input = self.strip(input);
                let layer = self.linear(input)?.zip(self.vector(bias)?);
                let Some((mut projection, bias)) = layer else {
                    return Err(self.graph.unrecognised(value, expected));
                };
                projection.add_bias(self, bias)?;
                seen.push(input);
                leaves.push((input, projection));
                continue;
            }
            waiting.extend(node.inputs.iter().flatten());
        }
        Ok(leaves)
    }

    /// The value of an expression of single elements where the leaves have the given values.
    fn element(&self, value: ValueId, leaves: &[(ValueId, f64)]) -> Option<f64> {
        let mut known = leaves.iter().copied().collect::<HashMap<_, _>>();
        self.element_within(value, &mut known, MAX_DEPTH)
    }

    fn element_within(
        &self,
        value: ValueId,
        known: &mut HashMap<ValueId, f64>,
        depth: usize,
    ) -> Option<f64> {
        let value = self.strip(value);
        if let Some(found) = known.get(&value) {
            return Some(*found);
        }
        if !self.is_carried(value) {
            return self.scalar(value);
        }
        let depth = depth.checked_sub(1)?;
        let (node, 0) = self.node(value)? else {
            return None;
        };
        let x = self.element_within(node.input(0)?, known, depth)?;
        let mut second = || self.element_within(node.input(1)?, known, depth);
        let result = match node.op.as_str() {
            "Add" => x + second()?,
            "Sub" => x - second()?,
            "Mul" => x * second()?,
            "Div" => x / second()?,
            "Pow" => x.powf(second()?),
            "Neg" => -x,
            "Exp" => x.exp(),
            "Sqrt" => x.sqrt(),
            "Reciprocal" => 1.0 / x,
            "Sigmoid" => 1.0 / (1.0 + (-x).exp()),
            "Tanh" => x.tanh(),
            "Erf" => erf(x),
            "Swish" | "Silu" => {
                x / (1.0 + (-x * f64::from(node.float("alpha").unwrap_or(1.0))).exp())
            }
            "QuickGelu" => x / (1.0 + (-x * f64::from(node.float("alpha").unwrap_or(1.702))).exp()),
            "FastGelu" => gelu_tanh(x),
            "BiasGelu" => gelu_erf(x),
            "Gelu" if node.text("approximate") == Some("tanh") => gelu_tanh(x),
            "Gelu" => gelu_erf(x),
            _ => return None,
        };
        known.insert(value, result);
        Some(result)
    }
}

fn is_elementwise(node: &Node) -> bool {
    const OPS: [&str; 18] = [
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Pow",
        "Neg",
        "Exp",
        "Sqrt",
        "Reciprocal",
        "Sigmoid",
        "Tanh",
        "Erf",
        "Swish",
        "Silu",
        "QuickGelu",
        "FastGelu",
        "BiasGelu",
        "Gelu",
    ];
    OPS.contains(&node.op.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_gelus_are_told_apart_by_the_points() {
        let apart = POINTS.iter().map(|x| (gelu_tanh(*x) - gelu_erf(*x)).abs());
        assert!(apart.fold(0.0, f64::max) > 2.0 * TOLERANCE);
        assert!(
            (erf(0.5) - 0.520_499_878).abs() < 2e-7 && (erf(-2.0) + 0.995_322_265).abs() < 2e-7
        );
    }
}
