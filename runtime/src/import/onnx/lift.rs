//! The three graphs taken apart: every weight under its published name.

mod decoder;
mod vision;

pub(super) use decoder::{decoder, text};
pub(super) use vision::vision;

use super::error::OnnxError;
use super::graph::{Graph, Node, ValueId};
use super::stored::Stored;
use super::walk::{Norm, Projection, Stream, Walk};
use crate::config::TextConfig;
use std::collections::BTreeMap;
use std::ops::Range;

/// Largest relative difference between an epsilon of the graph and of the configuration: small
/// ones are coarse in f16.
const EPSILON_TOLERANCE: f64 = 0.1;

/// A weight in one of the graphs.
#[derive(Clone, Debug)]
pub(super) struct Lifted {
    stored: Stored,
    /// The first row, or entry of a list, that belongs to it.
    start: usize,
    /// Its published shape.
    shape: Vec<usize>,
    /// Number of heads whose rows have rotary pairs side by side and have to be put in order.
    paired_heads: Option<usize>,
}

impl Lifted {
    /// Its published shape.
    pub(super) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Name of the value in the file, for messages.
    pub(super) fn tensor<'g>(&self, graph: &'g Graph) -> &'g str {
        graph.name(self.stored.value())
    }

    /// Whether another weight, of another graph, is the same.
    pub(super) fn is_same(&self, graph: &Graph, other: &Lifted, others: &Graph) -> bool {
        let place = |lifted: &Lifted| (lifted.start, lifted.shape.clone(), lifted.paired_heads);
        place(self) == place(other) && self.stored.is_same(graph, &other.stored, others)
    }

    /// Some of its rows as f32, row-major.
    pub(super) fn read(&self, graph: &Graph, rows: Range<usize>) -> Vec<f32> {
        self.stored.read(graph, self.rows_in_file(rows))
    }

    /// All of its rows as int4 values and a scale for every 32 of a row; `None` if its numbers are
    /// no such.
    pub(super) fn int4_rows(&self, graph: &Graph) -> Option<(Vec<i8>, Vec<f32>)> {
        let rows = 0..*self.shape.first().unwrap_or(&1);
        self.stored.int4_rows(graph, self.rows_in_file(rows))
    }

    fn rows_in_file(&self, rows: Range<usize>) -> impl Iterator<Item = usize> {
        let n_rows = *self.shape.first().unwrap_or(&1);
        rows.map(move |row| self.start + self.row_in_file(row, n_rows))
    }

    /// Where row `row` of `rows` is: undoes neighbours that are turned against each other.
    fn row_in_file(&self, row: usize, rows: usize) -> usize {
        let Some(heads) = self.paired_heads else {
            return row;
        };
        let head = rows / heads;
        let (first, within) = (row / head * head, row % head);
        first + 2 * (within % (head / 2)) + within / (head / 2)
    }
}

/// Weights of one graph by published name.
pub(super) type Weights = BTreeMap<String, Lifted>;

/// A graph while it is taken apart.
#[derive(Debug)]
struct Lift<'g> {
    graph: &'g Graph,
    weights: Weights,
}

impl<'g> Lift<'g> {
    fn new(graph: &'g Graph) -> Lift<'g> {
        Lift {
            graph,
            weights: BTreeMap::new(),
        }
    }

    fn shape_error(
        &self,
        name: &str,
        stored: &Stored,
        found: &[usize],
        shape: &[usize],
    ) -> OnnxError {
        OnnxError::Shape {
            path: self.graph.path().to_owned(),
            tensor: self.graph.name(stored.value()).into(),
            name: name.into(),
            found: found.into(),
            expected: shape.into(),
        }
    }

    /// A whole tensor, which may have further axes of one entry in front, a list anywhere.
    fn whole(&mut self, name: String, stored: Stored, shape: &[usize]) -> Result<(), OnnxError> {
        let fits = match shape {
            [n] => stored.n_elements() == *n,
            _ => {
                let more = stored.dims().len().saturating_sub(shape.len());
                stored.dims()[..more].iter().all(|dim| *dim == 1) && stored.dims()[more..] == *shape
            }
        };
        if !fits {
            return Err(self.shape_error(&name, &stored, stored.dims(), shape));
        }
        self.insert(name, stored, 0, shape.to_vec(), None);
        Ok(())
    }

    fn insert(
        &mut self,
        name: String,
        stored: Stored,
        start: usize,
        shape: Vec<usize>,
        paired_heads: Option<usize>,
    ) {
        let stored = stored.shaped(&shape);
        let lifted = Lifted {
            stored,
            start,
            shape,
            paired_heads,
        };
        self.weights.insert(name, lifted);
    }

    /// A linear layer `[n, k]`.
    fn linear(
        &mut self,
        name: &str,
        layer: Projection,
        [n, k]: [usize; 2],
        has_bias: bool,
    ) -> Result<(), OnnxError> {
        self.rotary(name, layer, [n, k], has_bias, None)
    }

    /// A linear layer whose rows may have rotary pairs side by side in so many heads.
    fn rotary(
        &mut self,
        name: &str,
        layer: Projection,
        [n, k]: [usize; 2],
        has_bias: bool,
        paired_heads: Option<usize>,
    ) -> Result<(), OnnxError> {
        let weight = format!("{name}.weight");
        let found = [layer.rows.1, layer.weight.dims()[1]];
        if found != [n, k] {
            return Err(self.shape_error(&weight, &layer.weight, &found, &[n, k]));
        }
        match (layer.bias, has_bias) {
            (Some((bias, start)), true) => {
                let name = format!("{name}.bias");
                if start + n > bias.n_elements() {
                    return Err(self.shape_error(&name, &bias, bias.dims(), &[n]));
                }
                self.insert(name, bias, start, vec![n], paired_heads);
            }
            (None, false) => {}
            (found, _) => {
                let said = |has: bool| if has { "there" } else { "absent" };
                let (found, expected) = (said(found.is_some()), said(has_bias));
                return Err(self
                    .graph
                    .differs(layer.output, "the bias", found, expected));
            }
        }
        self.insert(weight, layer.weight, layer.rows.0, vec![n, k], paired_heads);
        Ok(())
    }

    /// Weight, and for a LayerNorm bias, of a normalisation. Gives what it reads.
    fn norm(
        &mut self,
        name: &str,
        norm: Norm,
        width: usize,
        eps: f32,
        is_centred: bool,
    ) -> Result<Stream, OnnxError> {
        let kind = |centred: bool| if centred { "LayerNorm" } else { "RMSNorm" };
        if norm.is_centred != is_centred {
            let (found, expected) = (kind(norm.is_centred), kind(is_centred));
            return Err(self.graph.differs(norm.output, "the norm", found, expected));
        }
        if (norm.eps / f64::from(eps) - 1.0).abs() > EPSILON_TOLERANCE {
            return Err(self
                .graph
                .differs(norm.output, "the norm's epsilon", norm.eps, eps));
        }
        self.whole(format!("{name}.weight"), norm.weight, &[width])?;
        match (norm.bias, is_centred) {
            (Some(bias), true) => self.whole(format!("{name}.bias"), bias, &[width])?,
            (None, false) => {}
            _ => {
                let wanted = format!(
                    "{} {} bias",
                    kind(is_centred),
                    if is_centred { "with" } else { "without" }
                );
                return Err(self.graph.unrecognised(norm.output, wanted));
            }
        }
        Ok(norm.input)
    }

    /// Layers that must read one and the same value.
    fn one_input(&self, layers: &[&Projection]) -> Result<ValueId, OnnxError> {
        let first = layers[0].input;
        match layers.iter().find(|layer| layer.input != first) {
            None => Ok(first),
            Some(layer) => {
                let wanted = format!("a layer that reads {:?}", self.graph.name(first));
                Err(self.graph.unrecognised(layer.output, wanted))
            }
        }
    }

    fn same(&self, walk: &Walk<'_>, found: Stream, expected: Stream) -> Result<(), OnnxError> {
        if found == expected {
            return Ok(());
        }
        let wanted = format!(
            "the stream at {:?}",
            self.graph.name(walk.value_of(expected))
        );
        Err(self.graph.unrecognised(walk.value_of(found), wanted))
    }
}

/// The output of a graph: the one of this name, or the first.
fn output(graph: &Graph, name: &str) -> Result<ValueId, OnnxError> {
    let named = graph
        .outputs()
        .iter()
        .find(|port| graph.name(port.value) == name);
    match named.or(graph.outputs().first()) {
        Some(port) => Ok(port.value),
        None => Err(OnnxError::Malformed {
            path: graph.path().to_owned(),
            what: "it has no output".to_owned(),
        }),
    }
}

/// The input of a graph that carries the stream.
fn input(graph: &Graph, name: &str) -> Result<ValueId, OnnxError> {
    match graph.input(name) {
        Some(port) => Ok(port.value),
        None => {
            let inputs: Vec<&str> = graph
                .inputs()
                .iter()
                .map(|port| graph.name(port.value))
                .collect();
            Err(OnnxError::Malformed {
                path: graph.path().to_owned(),
                what: format!("it has no input {name}, only {}", inputs.join(", ")),
            })
        }
    }
}

/// What a table of embeddings must be.
const TABLE: &str = "the rows of a constant table, picked by input_ids";

/// Every weight of the embedding graph: `input_ids` → `inputs_embeds`.
pub(super) fn embedding(graph: &Graph, text: &TextConfig) -> Result<Weights, OnnxError> {
    let walk = Walk::new(graph, &[], text.head_dim);
    let value = walk.strip(output(graph, "inputs_embeds")?);
    table(&walk, value, text)
}

/// The rows of the embedding table in a graph that takes `input_ids`.
fn picked_rows(graph: &Graph, text: &TextConfig) -> Result<ValueId, OnnxError> {
    let ids = input(graph, "input_ids")?;
    let walk = Walk::new(graph, &[], text.head_dim);
    let first_output = |node: &Node| node.outputs.first().copied().flatten();
    let nodes = || graph.order().iter().map(|id| &graph.nodes()[*id]);
    let picks = |node: &&Node| {
        let picked = node.input(1).map(|value| walk.strip(value));
        node.op.starts_with("Gather") && picked == Some(ids)
    };
    let picked = nodes().find(picks).and_then(first_output);
    let picked = picked.ok_or_else(|| graph.unrecognised(ids, TABLE))?;
    let dequantises = |node: &&Node| {
        let input = node.input(0).map(|value| walk.strip(value));
        node.op == "DequantizeLinear" && input == Some(picked)
    };
    let behind = nodes().find(dequantises).and_then(first_output);
    Ok(behind.unwrap_or(picked))
}

/// The table whose rows a value is.
fn table(walk: &Walk<'_>, rows: ValueId, text: &TextConfig) -> Result<Weights, OnnxError> {
    let (graph, mut value) = (walk.graph, rows);
    let ids = input(graph, "input_ids")?;
    let refused = |value| graph.unrecognised(value, TABLE);
    // Dequantising may stand before or behind the picking.
    let mut behind = None;
    let mut node = walk.node(value).ok_or_else(|| refused(value))?.0;
    if node.op == "DequantizeLinear" && node.input(0).is_some_and(|v| graph.constant(v).is_none()) {
        behind = Some(node);
        value = walk.strip(node.input(0).unwrap_or(value));
        node = walk.node(value).ok_or_else(|| refused(value))?.0;
    }
    let (Some(data), Some(picked)) = (node.input(0), node.input(1)) else {
        return Err(refused(value));
    };
    let table = match (node.op.as_str(), behind) {
        ("GatherBlockQuantized", None) => Some(Stored::gather_blocks(graph, node, value)?),
        ("Gather", None) if node.int("axis").unwrap_or(0) == 0 => Stored::of(graph, data)?,
        ("Gather", Some(behind)) if node.int("axis").unwrap_or(0) == 0 => match behind.input(1) {
            Some(scale) => Stored::integers(graph, [data, scale], behind.input(2), 1, 0)?,
            None => None,
        },
        _ => None,
    };
    let table = table
        .filter(|_| walk.strip(picked) == ids)
        .ok_or_else(|| refused(value))?;
    let mut lift = Lift::new(graph);
    let shape = [text.vocab_size, text.hidden_size];
    lift.whole(
        "model.text_model.embed_tokens.weight".to_owned(),
        table,
        &shape,
    )?;
    Ok(lift.weights)
}
