//! Rotary positions: a node, or two products and a turned copy; and the base of their angles.

use super::{MAX_DEPTH, Walk};
use crate::import::onnx::error::OnnxError;
use crate::import::onnx::graph::ValueId;
use crate::import::onnx::stored::Stored;

/// Largest difference of a cosine or sine from the expected one: tables may be f16.
const TABLE_TOLERANCE: f64 = 4e-3;
/// Coarsest step of tables of integers: 7 bits from -1 to 1.
const COARSEST_STEP: f64 = 1.0 / 63.0;
/// Largest relative difference of a frequency.
const FREQUENCY_TOLERANCE: f64 = 2e-3;

/// Rotary positions that are applied to queries or keys.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rotated {
    /// The value the cosines come from.
    pub(super) cos: ValueId,
    /// The value the sines come from.
    pub(super) sin: ValueId,
    /// Whether neighbours are turned against each other instead of halves.
    pub(super) is_interleaved: bool,
}

/// One of the two parts of a head that are turned against each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Half {
    of: ValueId,
    is_second: bool,
    is_interleaved: bool,
}

impl Walk<'_> {
    /// The rotary positions that give a value, and what they are applied to.
    pub(super) fn rotation(&self, value: ValueId, head_dim: usize) -> Option<(Rotated, ValueId)> {
        let (node, 0) = self.node(value)? else {
            return None;
        };
        match node.op.as_str() {
            "RotaryEmbedding" => {
                // The standard operator has the positions last, the older one second.
                let [cos, sin] = match node.domain.as_str() {
                    "com.microsoft" => [node.input(2)?, node.input(3)?],
                    _ => [node.input(1)?, node.input(2)?],
                };
                let width = node.int("rotary_embedding_dim").unwrap_or(0);
                let whole = width == 0 || usize::try_from(width) == Ok(head_dim);
                let plain = node.float("scale").unwrap_or(1.0) == 1.0;
                let is_interleaved = node.int("interleaved").unwrap_or(0) != 0;
                let rotated = Rotated {
                    cos,
                    sin,
                    is_interleaved,
                };
                (whole && plain).then_some((rotated, node.input(0)?))
            }
            // x·cos + turned(x)·sin
            "Add" => {
                let [a, b] = Walk::pair(node)?;
                let (first, second) = (self.turned_by(a)?, self.turned_by(b)?);
                [(first, second), (second, first)].into_iter().find_map(
                    |((x, cos), (turned, sin))| {
                        let is_interleaved = self.is_turned(turned, x, head_dim)?;
                        let rotated = Rotated {
                            cos,
                            sin,
                            is_interleaved,
                        };
                        Some((rotated, x))
                    },
                )
            }
            // [x₁·cos − x₂·sin, x₂·cos + x₁·sin]
            "Concat" if node.inputs.len() == 2 => {
                let [first, second] = Walk::pair(node)?.map(|value| self.strip(value));
                let [a, b] = Walk::pair(self.node_of(first, &["Sub"])?)?;
                let (x1, cos) = self.turned_by(a)?;
                let (x2, sin) = self.turned_by(b)?;
                let [a, b] = Walk::pair(self.node_of(second, &["Add"])?)?;
                let other = [self.turned_by(a)?, self.turned_by(b)?];
                let crossed = other == [(x2, cos), (x1, sin)] || other == [(x1, sin), (x2, cos)];
                let (low, high) = (self.half(x1, head_dim)?, self.half(x2, head_dim)?);
                let fits = low.of == high.of
                    && !low.is_second
                    && high.is_second
                    && low.is_interleaved == high.is_interleaved;
                let rotated = Rotated {
                    cos,
                    sin,
                    is_interleaved: low.is_interleaved,
                };
                (crossed && fits).then_some((rotated, low.of))
            }
            _ => None,
        }
    }

    /// The carried and the other factor of a product.
    fn turned_by(&self, value: ValueId) -> Option<(ValueId, ValueId)> {
        let [a, b] = Walk::pair(self.node_of(self.strip(value), &["Mul"])?)?;
        match (self.is_carried(a), self.is_carried(b)) {
            (true, false) => Some((self.strip(a), self.strip(b))),
            (false, true) => Some((self.strip(b), self.strip(a))),
            _ => None,
        }
    }

    /// Whether `turned` is `[−x₂, x₁]`: `Some(true)` if its parts are neighbours.
    fn is_turned(&self, turned: ValueId, x: ValueId, head_dim: usize) -> Option<bool> {
        let node = self.node_of(turned, &["Concat"])?;
        let [negated, low] = Walk::pair(node)?.map(|value| self.strip(value));
        let high = self.node_of(negated, &["Neg"])?.input(0)?;
        let (high, low) = (self.half(high, head_dim)?, self.half(low, head_dim)?);
        let fits = high.of == x
            && low.of == x
            && high.is_second
            && !low.is_second
            && high.is_interleaved == low.is_interleaved;
        fits.then_some(low.is_interleaved)
    }

    fn half(&self, value: ValueId, head_dim: usize) -> Option<Half> {
        let value = self.strip(value);
        let (node, slot) = self.node(value)?;
        let of = self.strip(node.input(0)?);
        match node.op.as_str() {
            "Split" if node.outputs.len() == 2 => Some(Half {
                of,
                is_second: slot == 1,
                is_interleaved: false,
            }),
            "Slice" => {
                let start = self.scalar(node.input(1)?)?;
                let step = node.input(4).map_or(Some(1.0), |step| self.scalar(step))?;
                let second = if step == 2.0 {
                    1.0
                } else {
                    head_dim as f64 / 2.0
                };
                let known = (start == 0.0 || start == second) && (step == 1.0 || step == 2.0);
                known.then_some(Half {
                    of,
                    is_second: start == second,
                    is_interleaved: step == 2.0,
                })
            }
            _ => None,
        }
    }

    /// Compares the angles with those of base `theta`.
    ///
    /// # Errors
    ///
    /// Other angles, or none that could be found.
    pub(super) fn check_rotation(
        &self,
        rotated: &Rotated,
        theta: f32,
        head_dim: usize,
    ) -> Result<(), OnnxError> {
        for (value, function, name) in [
            (rotated.cos, f64::cos as fn(f64) -> f64, "Cos"),
            (rotated.sin, f64::sin, "Sin"),
        ] {
            let half = head_dim / 2;
            let frequency =
                |j: usize| f64::from(theta).powf(-((2 * (j % half)) as f64) / head_dim as f64);
            let Some((found, op)) = self.angles(value, half)? else {
                let wanted = format!("{name} of constant frequencies, or a constant table");
                return Err(self.graph.unrecognised(value, wanted));
            };
            let step = found.coarsest_step(self.graph);
            let what = "the angles of the rotary positions";
            let fits = match op {
                Some(op) if op != name => {
                    return Err(self.graph.differs(value, what, op, name));
                }
                Some(_) => {
                    let n = found.n_elements();
                    let list = found.shaped(&[n]).read(self.graph, 0..half);
                    list.iter().enumerate().all(|(j, entry)| {
                        (f64::from(*entry) / frequency(j) - 1.0).abs() < FREQUENCY_TOLERANCE
                    })
                }
                None => {
                    let width = *found.dims().last().unwrap_or(&half);
                    let rows = found.n_elements() / width;
                    let found = found.shaped(&[rows, width]);
                    let near = |row: usize| {
                        let entries = found.read(self.graph, row..row + 1);
                        entries.iter().enumerate().all(|(j, entry)| {
                            // Interleaved tables of full width repeat every entry.
                            let pair = if width > half && rotated.is_interleaved {
                                j / 2
                            } else {
                                j
                            };
                            let expected = function(row as f64 * frequency(pair));
                            (f64::from(*entry) - expected).abs() < TABLE_TOLERANCE + step
                        })
                    };
                    let mut known = [1, 2, 37].into_iter().filter(|row| *row < rows);
                    step <= COARSEST_STEP && known.all(near)
                }
            };
            if !fits {
                let expected = format!("rope_theta {theta}");
                return Err(self.graph.differs(value, what, "of another base", expected));
            }
        }
        Ok(())
    }

    /// The constant behind cosines or sines: frequencies and the op that is applied to their
    /// angles, or a table of results and no op.
    ///
    /// # Errors
    ///
    /// Integers whose scales do not fit.
    fn angles(
        &self,
        value: ValueId,
        half: usize,
    ) -> Result<Option<(Stored, Option<&str>)>, OnnxError> {
        let mut waiting = vec![(value, None)];
        let mut seen = Vec::new();
        let mut looks = 64 * MAX_DEPTH;
        while let Some((value, op)) = waiting.pop() {
            looks -= 1;
            if looks == 0 || seen.len() > 4 * MAX_DEPTH || self.is_carried(value) {
                return Ok(None);
            }
            if seen.contains(&value) {
                continue;
            }
            seen.push(value);
            if let Some(found) = self.angles_of(value)? {
                let n = found.n_elements();
                let width = *found.dims().last().unwrap_or(&0);
                let is_table = found.dims().len() >= 2 && (width == half || width == 2 * half);
                let is_list = n == half || (n == 2 * half && half > 0);
                let fits = if op.is_some() {
                    is_list
                } else {
                    is_table && n > 2 * half
                };
                if fits {
                    return Ok(Some((found, op)));
                }
            }
            let Some((node, _)) = self.node(value) else {
                continue;
            };
            let op = match node.op.as_str() {
                "Cos" | "Sin" => Some(node.op.as_str()),
                _ => op,
            };
            waiting.extend(node.inputs.iter().flatten().map(|input| (*input, op)));
        }
        Ok(None)
    }

    /// A constant of floats, or of integers with scales whose rows may have been picked before.
    fn angles_of(&self, value: ValueId) -> Result<Option<Stored>, OnnxError> {
        if self.graph.constant(value).is_some() {
            return Stored::of(self.graph, value);
        }
        let Some(node) = self.node_of(value, &["DequantizeLinear"]) else {
            return Ok(None);
        };
        let (Some(integers), Some(scale)) = (node.input(0), node.input(1)) else {
            return Ok(None);
        };
        let picked = self.node_of(self.strip(integers), &["Gather"]);
        let integers = picked.and_then(|node| node.input(0)).unwrap_or(integers);
        Stored::integers(self.graph, [integers, scale], node.input(2), 1, 0)
    }
}
