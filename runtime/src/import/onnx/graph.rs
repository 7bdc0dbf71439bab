//! The graph of an ONNX file: nodes, the values between them, and constants, checked once.
//!
//! After [`Graph::open`] every name a node reads is known, no value is made twice, nothing goes in
//! a circle, and the bytes of every tensor are there and as many as its dimensions say.
//!
//! An `If` node that an input of the graph decides is replaced by the nodes of one of its branches;
//! [`Graph::other_branch`] is the graph with those of the other.

mod branches;
mod parts;

use super::error::OnnxError;
use super::tensor::{Data, DataType, Elsewhere, Tensor};
use crate::weights::Region;
use branches::Branch;
use parts::Parts;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// Most nodes of a graph. The largest published one of the family has under ten thousand.
pub const MAX_NODES: usize = 1 << 17;
/// Most nodes, inputs, outputs and attributes of nodes, numbers in attributes, constants, and
/// dimensions of the graph's own inputs and outputs, all together: in memory each takes many times
/// its bytes in the file.
pub const MAX_PARTS: usize = 1 << 19;
/// Most data files of one model.
const MAX_DATA_FILES: usize = 64;
/// Name of the standard operators' domain.
const STANDARD: &str = "ai.onnx";

/// Number of a value in its graph.
pub(super) type ValueId = usize;
/// Number of a node in its graph.
pub(super) type NodeId = usize;

/// The value of an attribute.
#[derive(Clone, Debug)]
pub(super) enum Attribute {
    Int(i64),
    Float(f32),
    Text(String),
    Ints(Vec<i64>),
    /// Number of a tensor.
    Tensor(usize),
    /// Where a graph lies in the file.
    Graph(Range<usize>),
    /// Something this program never looks at.
    Other,
}

/// A node.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) op: String,
    pub(super) domain: String,
    pub(super) inputs: Vec<Option<ValueId>>,
    pub(super) outputs: Vec<Option<ValueId>>,
    attributes: Vec<(String, Attribute)>,
}

impl Node {
    /// The value at an input; `None` where it is left out.
    pub(super) fn input(&self, slot: usize) -> Option<ValueId> {
        self.inputs.get(slot).copied().flatten()
    }

    fn attribute(&self, name: &str) -> Option<&Attribute> {
        let found = self.attributes.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value)
    }

    /// A whole number, if the node has it.
    pub(super) fn int(&self, name: &str) -> Option<i64> {
        match self.attribute(name) {
            Some(Attribute::Int(value)) => Some(*value),
            _ => None,
        }
    }

    /// A float, if the node has it.
    pub(super) fn float(&self, name: &str) -> Option<f32> {
        match self.attribute(name) {
            Some(Attribute::Float(value)) => Some(*value),
            _ => None,
        }
    }

    /// A text, if the node has it.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.attribute(name) {
            Some(Attribute::Text(value)) => Some(value),
            _ => None,
        }
    }

    /// A list of whole numbers, if the node has it.
    pub(super) fn ints(&self, name: &str) -> Option<&[i64]> {
        match self.attribute(name) {
            Some(Attribute::Ints(values)) => Some(values),
            _ => None,
        }
    }
}

/// A value between nodes.
#[derive(Clone, Debug)]
struct Value {
    /// Where its name lies in the file.
    name: Range<usize>,
    producer: Option<(NodeId, usize)>,
    constant: Option<usize>,
    is_input: bool,
}

/// An input or output, with the dimensions it is declared to have; `None` where one is open.
#[derive(Clone, Debug)]
pub(super) struct Port {
    pub(super) value: ValueId,
    pub(super) dims: Vec<Option<usize>>,
}

/// An opened file.
#[derive(Debug)]
pub struct Graph {
    /// The model file, then its data files.
    files: Vec<(PathBuf, Arc<Region>)>,
    /// The folder data files may lie in.
    folder: Option<PathBuf>,
    /// Where an `If` was replaced: the input that decides, and the branch that is not here.
    other: Option<(ValueId, Branch)>,
    nodes: Vec<Node>,
    values: Vec<Value>,
    tensors: Vec<Tensor>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    /// Node numbers so that every node comes after those it reads from.
    order: Vec<NodeId>,
}

impl Graph {
    /// Maps a file and the data files it names, and checks both.
    ///
    /// # Errors
    ///
    /// [`OnnxError::Io`], [`OnnxError::Malformed`].
    pub fn open(path: &Path) -> Result<Graph, OnnxError> {
        let region = map(path)?;
        Graph::new(
            vec![(path.to_owned(), Arc::new(region))],
            path.parent(),
            Branch::Then,
        )
    }

    /// Checks a file that lies in memory; `path` names it in errors. It may have no data files.
    ///
    /// # Errors
    ///
    /// [`OnnxError::Malformed`].
    pub fn from_region(region: Region, path: &Path) -> Result<Graph, OnnxError> {
        Graph::new(
            vec![(path.to_owned(), Arc::new(region))],
            None,
            Branch::Then,
        )
    }

    /// The same file with the other branch of its `If` nodes; `None` if it has none that an input
    /// decides.
    ///
    /// # Errors
    ///
    /// [`OnnxError::Malformed`].
    pub(super) fn other_branch(&self) -> Result<Option<Graph>, OnnxError> {
        let again = |branch| Graph::new(self.files.clone(), self.folder.as_deref(), branch);
        self.other.map(|(_, branch)| again(branch)).transpose()
    }

    /// Name of the input that decides between the branches; empty without one.
    pub(super) fn condition(&self) -> &str {
        self.other.map_or("", |(value, _)| self.name(value))
    }

    /// Reads the first of `files`; the others are data files that are mapped already.
    fn new(
        files: Vec<(PathBuf, Arc<Region>)>,
        folder: Option<&Path>,
        branch: Branch,
    ) -> Result<Graph, OnnxError> {
        let (path, region) = files[0].clone();
        let malformed = |what| OnnxError::Malformed {
            path: path.clone(),
            what,
        };
        let parts = Parts::read(&region, branch).map_err(malformed)?;
        let order = in_order(&parts.nodes, &parts.values)
            .map_err(|node| malformed(format!("node {node:?} depends on its own output")))?;
        let mut graph = Graph {
            files,
            folder: folder.map(Path::to_owned),
            other: parts.condition.map(|input| (input, branch.other())),
            nodes: parts.nodes,
            values: parts.values,
            tensors: parts.tensors,
            inputs: parts.inputs,
            outputs: parts.outputs,
            order,
        };
        for index in 0..graph.tensors.len() {
            if let Data::Elsewhere(place) = &graph.tensors[index].data {
                let place = place.clone();
                graph.tensors[index].data = graph.find_data(index, &place, folder)?;
            }
            graph.check_tensor(index).map_err(malformed)?;
        }
        graph.carry_constants();
        Ok(graph)
    }

    /// Makes what `Identity` gives of a constant, and `Cast` of a float constant to a float, the
    /// constant itself.
    fn carry_constants(&mut self) {
        for id in &self.order {
            let node = &self.nodes[*id];
            let same = match node.op.as_str() {
                "Identity" => true,
                "Cast" => node.int("to").is_some_and(DataType::is_float_number),
                _ => false,
            };
            let (Some(input), [Some(output)]) = (node.input(0), &node.outputs[..]) else {
                continue;
            };
            let constant = self.values[input].constant.filter(|tensor| {
                same && (node.op == "Identity" || self.tensors[*tensor].data_type.is_float())
            });
            if let Some(tensor) = constant {
                self.values[*output].constant = Some(tensor);
            }
        }
    }

    /// Maps the file a tensor's data is in. It must lie in the folder of the model file, by name.
    fn find_data(
        &mut self,
        tensor: usize,
        place: &Elsewhere,
        folder: Option<&Path>,
    ) -> Result<Data, OnnxError> {
        let name = self.tensors[tensor].name.clone();
        let n_bytes = self.tensors[tensor].n_bytes();
        let malformed = |graph: &Graph, what: String| OnnxError::Malformed {
            path: graph.path().to_owned(),
            what: format!("tensor {name}: {what}"),
        };
        let location = Path::new(&place.location);
        let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        let inside = location.components().all(plain) && location.file_name().is_some();
        let Some(path) = folder
            .filter(|_| inside)
            .map(|folder| folder.join(location))
        else {
            let what = format!("its data is in {location:?}, not inside the model's folder");
            return Err(malformed(self, what));
        };
        let file = match self.files[1..].iter().position(|(known, _)| *known == path) {
            Some(position) => position + 1,
            None if self.files.len() > MAX_DATA_FILES => {
                let what = format!("the data is in more than {MAX_DATA_FILES} files");
                return Err(malformed(self, what));
            }
            None => {
                self.files.push((path.clone(), Arc::new(map(&path)?)));
                self.files.len() - 1
            }
        };
        let len = self.files[file].1.len() as u64;
        let wanted = place.length.or(n_bytes.map(|n| n as u64));
        let end = wanted.and_then(|wanted| place.offset.checked_add(wanted));
        match end {
            Some(end) if end <= len => Ok(Data::At(file, place.offset as usize..end as usize)),
            _ => {
                let (wanted, path) = (wanted.unwrap_or(u64::MAX), path.display());
                let offset = place.offset;
                let what =
                    format!("it claims {wanted} bytes from {offset} of {path}, which has {len}");
                Err(malformed(self, what))
            }
        }
    }

    fn check_tensor(&self, index: usize) -> Result<(), String> {
        let tensor = &self.tensors[index];
        let found = self.bytes(tensor).len();
        match tensor.n_bytes() {
            Some(n) if n == found || tensor.data_type == DataType::Text => return Ok(()),
            _ => {}
        }
        Err(format!(
            "tensor {} of {} and shape {:?} does not fill its {found} bytes",
            tensor.name,
            tensor.data_type.name(),
            tensor.dims
        ))
    }

    /// The file's name, for messages.
    pub fn path(&self) -> &Path {
        &self.files[0].0
    }

    /// The model file and its data files, with their bytes.
    pub fn files(&self) -> impl Iterator<Item = (&Path, &[u8])> {
        self.files
            .iter()
            .map(|(path, region)| (path.as_path(), &region[..]))
    }

    /// The bytes of a tensor.
    pub(super) fn bytes<'a>(&'a self, tensor: &'a Tensor) -> &'a [u8] {
        match &tensor.data {
            Data::At(file, range) => &self.files[*file].1[range.clone()],
            Data::Owned(bytes) => bytes,
            Data::Elsewhere(_) => &[],
        }
    }

    /// The nodes; their numbers are the positions.
    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Node numbers so that every node comes after those it reads from.
    pub(super) fn order(&self) -> &[NodeId] {
        &self.order
    }

    /// Number of values.
    pub(super) fn n_values(&self) -> usize {
        self.values.len()
    }

    /// The inputs.
    pub(super) fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// The outputs.
    pub(super) fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// The input of a name.
    pub(super) fn input(&self, name: &str) -> Option<&Port> {
        self.inputs
            .iter()
            .find(|port| self.name(port.value) == name)
    }

    /// A value's name.
    pub(super) fn name(&self, value: ValueId) -> &str {
        let range = self.values[value].name.clone();
        std::str::from_utf8(&self.files[0].1[range]).unwrap_or_default()
    }

    /// The node that makes a value, and which of its outputs the value is.
    pub(super) fn producer(&self, value: ValueId) -> Option<(NodeId, usize)> {
        self.values[value].producer
    }

    /// The tensor of a constant value, and its number.
    pub(super) fn constant(&self, value: ValueId) -> Option<&Tensor> {
        self.values[value]
            .constant
            .map(|tensor| &self.tensors[tensor])
    }

    /// Whether the value is an input of the graph.
    pub(super) fn is_input(&self, value: ValueId) -> bool {
        self.values[value].is_input
    }

    /// Name of the node that makes a value; without one, the value's own.
    pub(super) fn node_name(&self, value: ValueId) -> String {
        match self.producer(value) {
            Some((node, _)) if !self.nodes[node].name.is_empty() => self.nodes[node].name.clone(),
            _ => self.name(value).to_owned(),
        }
    }

    /// The error for a value that is not what the recogniser wants.
    pub(super) fn unrecognised(&self, value: ValueId, expected: impl Into<String>) -> OnnxError {
        let (op, domain) = match self.producer(value) {
            Some((node, _)) => (
                self.nodes[node].op.as_str(),
                self.nodes[node].domain.as_str(),
            ),
            None if self.is_input(value) => ("an input of the graph", ""),
            None => ("an initialiser", ""),
        };
        OnnxError::Unrecognised {
            path: self.path().to_owned(),
            node: self.node_name(value).into(),
            op: op.into(),
            domain: if domain.is_empty() { STANDARD } else { domain }.into(),
            expected: expected.into().into(),
        }
    }

    /// The error for a graph that computes something else than the configuration says.
    pub(super) fn differs(
        &self,
        value: ValueId,
        what: &'static str,
        found: impl ToString,
        expected: impl ToString,
    ) -> OnnxError {
        OnnxError::Config {
            path: self.path().to_owned(),
            node: self.node_name(value),
            what,
            found: found.to_string(),
            expected: expected.to_string(),
        }
    }
}

fn map(path: &Path) -> Result<Region, OnnxError> {
    Region::map(path).map_err(|source| OnnxError::Io {
        path: path.to_owned(),
        source,
    })
}

/// The nodes so that each comes after those it reads from. The error is a node in a circle.
fn in_order(nodes: &[Node], values: &[Value]) -> Result<Vec<NodeId>, String> {
    let sources = |node: &Node| {
        let inputs = node.inputs.iter().flatten();
        let producers = inputs.filter_map(|value| values[*value].producer);
        producers.map(|(node, _)| node).collect::<Vec<_>>()
    };
    let mut waiting: Vec<usize> = Vec::with_capacity(nodes.len());
    let mut readers: Vec<Vec<NodeId>> = vec![Vec::new(); nodes.len()];
    for (id, node) in nodes.iter().enumerate() {
        let sources = sources(node);
        waiting.push(sources.len());
        for source in sources {
            readers[source].push(id);
        }
    }
    let mut order: Vec<NodeId> = (0..nodes.len()).filter(|id| waiting[*id] == 0).collect();
    let mut next = 0;
    while let Some(id) = order.get(next).copied() {
        next += 1;
        for reader in &readers[id] {
            waiting[*reader] -= 1;
            if waiting[*reader] == 0 {
                order.push(*reader);
            }
        }
    }
    match waiting.iter().position(|left| *left > 0) {
        Some(id) => Err(nodes[id].name.clone()),
        None => Ok(order),
    }
}
