//! `If` nodes that an input of the graph decides: one branch is read in the node's place.
//!
//! So did exporters join a decoder without a cache and one behind a cache into one file. Names of a
//! branch may be those of the other branch, but not of the graph around them, so that one branch at
//! a time has its place among the names of the whole.

use super::parts::{Names, Parts, messages};
use super::{Attribute, Node, STANDARD};
use crate::import::onnx::wire::{Fields, Wire};
use std::ops::Range;

/// Most `If` nodes inside each other.
const MAX_DEPTH: usize = 4;

/// One of the two graphs of an `If` node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Branch {
    /// Where the condition holds.
    #[default]
    Then,
    /// Where it does not.
    Else,
}

impl Branch {
    pub(super) fn other(self) -> Branch {
        match self {
            Branch::Then => Branch::Else,
            Branch::Else => Branch::Then,
        }
    }

    fn attribute(self) -> &'static str {
        match self {
            Branch::Then => "then_branch",
            Branch::Else => "else_branch",
        }
    }
}

impl Parts {
    /// Whether the node is an `If` that an input of the graph decides, the same as all before it.
    pub(super) fn is_choice(&mut self, node: &Node) -> bool {
        let condition = node.input(0).filter(|value| {
            let value = &self.values[*value];
            value.is_input && value.constant.is_none()
        });
        let Some(condition) =
            condition.filter(|_| node.op == "If" && matches!(&*node.domain, "" | STANDARD))
        else {
            return false;
        };
        *self.condition.get_or_insert(condition) == condition
    }

    /// Reads the nodes of the branch that is taken instead of the node, which gives what the branch
    /// gives. The error is the broken rule.
    pub(super) fn choose(&mut self, names: &mut Names<'_>, node: &Node) -> Result<(), String> {
        let wanted = self.branch.attribute();
        let Some(Attribute::Graph(range)) = node.attribute(wanted).cloned() else {
            return Err(format!("node {:?} has no graph {wanted}", node.name));
        };
        if self.depth == MAX_DEPTH {
            return Err(format!(
                "node {:?} is an If inside {MAX_DEPTH} others, which is the limit",
                node.name
            ));
        }
        // What the branch makes may have the name of what the node gives.
        for output in node.outputs.iter().flatten() {
            self.values[*output].producer = None;
        }
        self.depth += 1;
        let outputs = self.branch(names, range)?;
        self.depth -= 1;
        if outputs.len() != node.outputs.len() {
            return Err(format!(
                "node {:?} gives {} values, its {wanted} {}",
                node.name,
                node.outputs.len(),
                outputs.len()
            ));
        }
        for (inner, outer) in outputs.into_iter().zip(&node.outputs) {
            match outer {
                Some(outer) if *outer != inner => self.link(inner, *outer, wanted)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads a branch; gives its outputs.
    fn branch(&mut self, names: &mut Names<'_>, range: Range<usize>) -> Result<Vec<usize>, String> {
        for field in Fields::new(names.bytes, range.clone()) {
            match field? {
                (5, Wire::Bytes(range)) => self.initialiser(names, range)?,
                (11, _) => return Err("a branch of an If has inputs".to_owned()),
                (15, _) => return Err("it holds a sparse initialiser".to_owned()),
                _ => {}
            }
        }
        for node in messages(names.bytes, range.clone(), 1) {
            self.node(names, node?)?;
        }
        let bytes = names.bytes;
        let outputs = messages(bytes, range, 12);
        let outputs = outputs.map(|output| Ok(self.port(names, output?)?.value));
        outputs.collect()
    }

    /// Lets a value be another under its own name.
    fn link(&mut self, inner: usize, outer: usize, branch: &str) -> Result<(), String> {
        if self.values[outer].producer.is_some() || self.values[outer].constant.is_some() {
            return Err(format!("a value of an If is made inside its {branch} too"));
        }
        self.count()?;
        self.values[outer].producer = Some((self.nodes.len(), 0));
        self.nodes.push(Node {
            name: branch.to_owned(),
            op: "Identity".to_owned(),
            domain: String::new(),
            inputs: vec![Some(inner)],
            outputs: vec![Some(outer)],
            attributes: Vec::new(),
        });
        Ok(())
    }
}
