//! A model's bytes as nodes, values and tensors.

use super::branches::Branch;
use super::{Attribute, MAX_NODES, MAX_PARTS, Node, Port, Value, ValueId};
use crate::import::onnx::tensor::{DataType, Tensor, text};
use crate::import::onnx::wire::{Fields, Wire, fixed_bytes, varints};
use std::collections::HashMap;
use std::ops::Range;

/// What is read from the bytes, before data files are looked up.
#[derive(Default)]
pub(super) struct Parts {
    pub(super) nodes: Vec<Node>,
    pub(super) values: Vec<Value>,
    pub(super) tensors: Vec<Tensor>,
    pub(super) inputs: Vec<Port>,
    pub(super) outputs: Vec<Port>,
    /// How many of [`MAX_PARTS`] have been read.
    n_parts: usize,
    /// Which branch stands in the place of an `If`.
    pub(super) branch: Branch,
    /// The input that decides, once there was an `If`.
    pub(super) condition: Option<ValueId>,
    /// How many `If` nodes are around what is being read.
    pub(super) depth: usize,
}

/// Values by name while a graph is read.
pub(super) struct Names<'a> {
    pub(super) bytes: &'a [u8],
    known: HashMap<&'a [u8], ValueId>,
}

impl Names<'_> {
    /// The value of the name in `range`, which is checked to be text.
    fn value(&mut self, values: &mut Vec<Value>, range: &Range<usize>) -> Result<ValueId, String> {
        let name = &self.bytes[range.clone()];
        if let Some(value) = self.known.get(name) {
            return Ok(*value);
        }
        text(self.bytes, range)?;
        values.push(Value {
            name: range.clone(),
            producer: None,
            constant: None,
            is_input: false,
        });
        self.known.insert(name, values.len() - 1);
        Ok(values.len() - 1)
    }
}

impl Parts {
    /// Reads a model's bytes, one branch of each `If`. The error is the broken rule.
    pub(super) fn read(bytes: &[u8], branch: Branch) -> Result<Parts, String> {
        let mut graph = None;
        for field in Fields::new(bytes, 0..bytes.len()) {
            if let (7, Wire::Bytes(range)) = field? {
                graph = Some(range);
            }
        }
        let graph = graph.ok_or("it holds no graph")?;
        let mut parts = Parts {
            branch,
            ..Parts::default()
        };
        let mut names = Names {
            bytes,
            known: HashMap::new(),
        };
        // Constants before nodes, so that a name both define is found; inputs, so that an If knows
        // whether one decides it.
        for field in Fields::new(bytes, graph.clone()) {
            match field? {
                (5, Wire::Bytes(range)) => parts.initialiser(&mut names, range)?,
                (11, Wire::Bytes(range)) => {
                    let port = parts.port(&mut names, range)?;
                    parts.values[port.value].is_input = true;
                    parts.inputs.push(port);
                }
                (15, _) => return Err("it holds a sparse initialiser".to_owned()),
                _ => {}
            }
        }
        for field in Fields::new(bytes, graph) {
            match field? {
                (1, Wire::Bytes(range)) => parts.node(&mut names, range)?,
                (12, Wire::Bytes(range)) => {
                    let port = parts.port(&mut names, range)?;
                    parts.outputs.push(port);
                }
                _ => {}
            }
        }
        let lost = parts
            .values
            .iter()
            .find(|value| value.producer.is_none() && value.constant.is_none() && !value.is_input);
        match lost {
            Some(value) => Err(format!(
                "value {:?} is read, but it is neither an input nor an initialiser, and no node makes it",
                text(bytes, &value.name)?
            )),
            None => Ok(parts),
        }
    }

    /// Counts one more part of the graph.
    pub(super) fn count(&mut self) -> Result<(), String> {
        self.n_parts += 1;
        match self.n_parts > MAX_PARTS {
            true => Err(format!("it is made of more than {MAX_PARTS} parts")),
            false => Ok(()),
        }
    }

    pub(super) fn initialiser(
        &mut self,
        names: &mut Names<'_>,
        range: Range<usize>,
    ) -> Result<(), String> {
        self.count()?;
        let bytes = names.bytes;
        let tensor = Tensor::read(bytes, range.clone())?;
        let mut name = None;
        for field in Fields::new(bytes, range) {
            if let (8, Wire::Bytes(range)) = field? {
                name = Some(range);
            }
        }
        let name = name.ok_or("an initialiser has no name")?;
        let value = names.value(&mut self.values, &name)?;
        if self.values[value].constant.is_some() {
            return Err(format!("initialiser {} is there twice", tensor.name));
        }
        self.values[value].constant = Some(self.tensors.len());
        self.tensors.push(tensor);
        Ok(())
    }

    pub(super) fn node(
        &mut self,
        names: &mut Names<'_>,
        range: Range<usize>,
    ) -> Result<(), String> {
        let bytes = names.bytes;
        if self.nodes.len() == MAX_NODES {
            return Err(format!("it has more than {MAX_NODES} nodes"));
        }
        self.count()?;
        let id = self.nodes.len();
        let mut node = Node {
            name: String::new(),
            op: String::new(),
            domain: String::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            attributes: Vec::new(),
        };
        for field in Fields::new(bytes, range) {
            let (field, value) = field?;
            if matches!(field, 1 | 2 | 5) {
                self.count()?;
            }
            match (field, value) {
                (1, Wire::Bytes(range)) if range.is_empty() => node.inputs.push(None),
                (1, Wire::Bytes(range)) => {
                    node.inputs
                        .push(Some(names.value(&mut self.values, &range)?));
                }
                (2, Wire::Bytes(range)) if range.is_empty() => node.outputs.push(None),
                (2, Wire::Bytes(range)) => {
                    let value = names.value(&mut self.values, &range)?;
                    if self.values[value].producer.is_some()
                        || self.values[value].constant.is_some()
                    {
                        let name = text(bytes, &range)?;
                        return Err(format!("value {name:?} is made twice"));
                    }
                    self.values[value].producer = Some((id, node.outputs.len()));
                    node.outputs.push(Some(value));
                }
                (3, Wire::Bytes(range)) => node.name = text(bytes, &range)?,
                (4, Wire::Bytes(range)) => node.op = text(bytes, &range)?,
                (7, Wire::Bytes(range)) => node.domain = text(bytes, &range)?,
                (5, Wire::Bytes(range)) => {
                    let attribute = self.attribute(bytes, range)?;
                    node.attributes.push(attribute);
                }
                _ => {}
            }
        }
        if node.op.is_empty() {
            return Err(format!("node {:?} has no operator", node.name));
        }
        if node.name.is_empty() {
            let first = node.outputs.iter().flatten().next();
            node.name = match first {
                Some(value) => text(bytes, &self.values[*value].name)?,
                None => String::new(),
            };
        }
        if self.is_choice(&node) {
            return self.choose(names, &node);
        }
        if node.op == "Constant" {
            self.constant_of(&node)?;
        }
        self.nodes.push(node);
        Ok(())
    }

    /// Makes the output of a `Constant` node a constant.
    fn constant_of(&mut self, node: &Node) -> Result<(), String> {
        let Some(Some(value)) = node.outputs.first() else {
            return Ok(());
        };
        let tensor = match node.attributes.first() {
            Some((key, Attribute::Tensor(tensor))) if key == "value" => *tensor,
            Some((key, Attribute::Float(value))) if key == "value_float" => {
                let data = value.to_le_bytes().to_vec();
                self.push(Tensor::of_constants(DataType::F32, Vec::new(), data))
            }
            Some((key, Attribute::Int(value))) if key == "value_int" => {
                let data = value.to_le_bytes().to_vec();
                self.push(Tensor::of_constants(DataType::I64, Vec::new(), data))
            }
            Some((key, Attribute::Ints(values))) if key == "value_ints" => {
                let data = values
                    .iter()
                    .flat_map(|value| value.to_le_bytes())
                    .collect();
                self.push(Tensor::of_constants(
                    DataType::I64,
                    vec![values.len()],
                    data,
                ))
            }
            // Lists of floats and texts mean nothing to the models this program knows.
            _ => return Ok(()),
        };
        self.values[*value].constant = Some(tensor);
        Ok(())
    }

    fn push(&mut self, tensor: Tensor) -> usize {
        self.tensors.push(tensor);
        self.tensors.len() - 1
    }

    fn attribute(
        &mut self,
        bytes: &[u8],
        range: Range<usize>,
    ) -> Result<(String, Attribute), String> {
        let (mut name, mut found) = (String::new(), Attribute::Other);
        let mut ints = Vec::new();
        for field in Fields::new(bytes, range) {
            let (field, value) = field?;
            match (field, &value) {
                (1, Wire::Bytes(range)) => name = text(bytes, range)?,
                (2, Wire::Fixed32(value)) => found = Attribute::Float(f32::from_le_bytes(*value)),
                (3, Wire::Varint(value)) => found = Attribute::Int(*value as i64),
                (4, Wire::Bytes(range)) => {
                    // Not every text of a foreign operator is UTF-8.
                    found = text(bytes, range).map_or(Attribute::Other, Attribute::Text);
                }
                (5, Wire::Bytes(range)) => {
                    self.count()?;
                    let tensor = Tensor::read(bytes, range.clone())?;
                    found = Attribute::Tensor(self.push(tensor));
                }
                (6, Wire::Bytes(range)) => found = Attribute::Graph(range.clone()),
                (7, _) => {
                    fixed_bytes(bytes, &value)?;
                }
                (8, _) => {
                    for int in varints(bytes, &value) {
                        self.count()?;
                        ints.push(int?);
                    }
                }
                _ => {}
            }
        }
        if !ints.is_empty() {
            found = Attribute::Ints(ints);
        }
        if name.is_empty() {
            return Err("an attribute has no name".to_owned());
        }
        Ok((name, found))
    }

    /// Reads a `ValueInfoProto`.
    pub(super) fn port(
        &mut self,
        names: &mut Names<'_>,
        range: Range<usize>,
    ) -> Result<Port, String> {
        self.count()?;
        let bytes = names.bytes;
        let (mut name, mut dims) = (None, Vec::new());
        for field in Fields::new(bytes, range) {
            match field? {
                (1, Wire::Bytes(range)) => name = Some(range),
                (2, Wire::Bytes(range)) => dims = self.declared_dims(bytes, range)?,
                _ => {}
            }
        }
        let name = name.ok_or("an input or output has no name")?;
        let value = names.value(&mut self.values, &name)?;
        Ok(Port { value, dims })
    }

    /// The dimensions in a `TypeProto`.
    fn declared_dims(
        &mut self,
        bytes: &[u8],
        range: Range<usize>,
    ) -> Result<Vec<Option<usize>>, String> {
        let mut dims = Vec::new();
        for tensor in messages(bytes, range, 1) {
            for shape in messages(bytes, tensor?, 2) {
                for dim in messages(bytes, shape?, 1) {
                    self.count()?;
                    let mut size = None;
                    for field in Fields::new(bytes, dim?) {
                        if let (1, Wire::Varint(value)) = field? {
                            size = usize::try_from(value as i64).ok();
                        }
                    }
                    dims.push(size);
                }
            }
        }
        Ok(dims)
    }
}

/// The messages of one field of a message.
pub(super) fn messages(
    bytes: &[u8],
    range: Range<usize>,
    wanted: u64,
) -> impl Iterator<Item = Result<Range<usize>, String>> + use<'_> {
    Fields::new(bytes, range).filter_map(move |field| match field {
        Ok((field, Wire::Bytes(range))) if field == wanted => Some(Ok(range)),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    })
}
