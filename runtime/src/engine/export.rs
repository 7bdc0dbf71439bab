//! One graph of an ONNX export in plain tract, as it was published: slow, and independent of
//! everything the importer makes of it, so that the two can be held against each other.
//!
//! Operators that tract lacks, or has in part, are registered here: `MatMulNBits` of any width with
//! exact scales, `MatMulBnb4`, `DequantizeLinear` in blocks, 4-bit tensors, and
//! `GroupQueryAttention` and `MultiHeadAttention` with past and new positions of any number.

mod attention;
mod rotary;
mod weights;

use super::plain::{Array, array, guarded};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::{Symbol, TDim, ToDim};
use tract_onnx::tract_hir::infer::Factoid;

/// Why a graph cannot be run in tract.
#[derive(Debug, thiserror::Error)]
#[error("{}: tract cannot {step} it: {message}", path.display())]
pub struct ExportError {
    /// The file.
    path: PathBuf,
    /// What was to be done.
    step: &'static str,
    /// What tract said.
    message: String,
}

/// The length of an axis of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// Always this.
    Fixed(usize),
    /// The positions of a step.
    New,
    /// The positions before it.
    Past,
    /// Both together.
    Total,
}

/// The values of an input.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Floats, given to the graph in its own width.
    Floats(Vec<f32>),
    /// 64-bit numbers.
    Integers(Vec<i64>),
    /// Flags.
    Flags(Vec<bool>),
}

/// A graph ready to run.
#[derive(Debug)]
pub struct ExportedGraph {
    path: PathBuf,
    plan: Arc<TypedRunnableModel>,
    inputs: Vec<(String, DatumType)>,
    outputs: Vec<String>,
}

impl ExportedGraph {
    /// Loads a graph. `lengths` names the axes of an input; inputs it says nothing about keep
    /// the axes the file declares.
    ///
    /// # Errors
    ///
    /// What tract cannot read, type or plan.
    pub fn load(
        path: &Path,
        lengths: impl Fn(&str) -> Option<Vec<Length>>,
    ) -> Result<ExportedGraph, ExportError> {
        let fault = |step| {
            move |message| ExportError {
                path: path.to_owned(),
                step,
                message,
            }
        };
        let mut model = guarded(|| parse(path)).map_err(fault("read"))?;
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        for outlet in model.outputs.clone() {
            outputs.push(model.outlet_label(outlet).unwrap_or_default().to_owned());
        }
        let plan = guarded(|| {
            let (new, past) = (model.symbols.sym("new"), model.symbols.sym("past"));
            for (slot, outlet) in model.inputs.clone().into_iter().enumerate() {
                let name = model.node(outlet.node).name.clone();
                let mut fact = model.outlet_fact(outlet)?.clone();
                if let Some(lengths) = lengths(&name) {
                    let dims = lengths.iter().map(|length| dim(*length, &new, &past));
                    fact = fact.with_shape(dims.collect::<TVec<TDim>>());
                    model.set_input_fact(slot, fact.clone())?;
                }
                inputs.push((name, fact.datum_type.concretize().unwrap_or(DatumType::F32)));
            }
            model.into_typed()?.into_decluttered()?.into_runnable()
        })
        .map_err(fault("plan"))?;
        Ok(ExportedGraph {
            path: path.to_owned(),
            plan,
            inputs,
            outputs,
        })
    }

    /// Names of the inputs, in order.
    pub fn inputs(&self) -> impl Iterator<Item = &str> {
        self.inputs.iter().map(|(name, _)| name.as_str())
    }

    /// Runs the graph. `give` says the shape and values of an input; outputs are by name.
    ///
    /// # Errors
    ///
    /// An input of another type or shape than the graph takes, or what tract says.
    pub fn run(
        &self,
        give: impl Fn(&str) -> (Vec<usize>, Values),
    ) -> Result<BTreeMap<String, Array>, ExportError> {
        let outputs = guarded(|| {
            let mut tensors = TVec::new();
            for (name, datum) in &self.inputs {
                let (shape, values) = give(name);
                let tensor = match values {
                    Values::Floats(values) => Tensor::from_shape(&shape, &values)?,
                    Values::Integers(values) => Tensor::from_shape(&shape, &values)?,
                    Values::Flags(values) => Tensor::from_shape(&shape, &values)?,
                };
                tensors.push(tensor.cast_to_dt(*datum)?.into_owned().into_tvalue());
            }
            let outputs = self.plan.run(tensors)?;
            outputs
                .iter()
                .map(|output| array(output))
                .collect::<TractResult<Vec<_>>>()
        });
        let outputs = outputs.map_err(|message| ExportError {
            path: self.path.clone(),
            step: "run",
            message,
        })?;
        Ok(self.outputs.iter().cloned().zip(outputs).collect())
    }
}

fn dim(length: Length, new: &Symbol, past: &Symbol) -> TDim {
    match length {
        Length::Fixed(n) => n.to_dim(),
        Length::New => new.to_dim(),
        Length::Past => past.to_dim(),
        Length::Total => past.to_dim() + new.to_dim(),
    }
}

/// Reads a file with the operators of this module.
fn parse(path: &Path) -> TractResult<InferenceModel> {
    let mut onnx = tract_onnx::onnx().with_ignore_value_info(true);
    weights::register(&mut onnx.op_register);
    attention::register(&mut onnx.op_register);
    rotary::register(&mut onnx.op_register);
    let mut proto = onnx.proto_model_for_path(path)?;
    if let Some(graph) = &mut proto.graph {
        weights::widen(graph);
    }
    let folder = path.parent().and_then(Path::to_str);
    let parsed = onnx.parse(&proto, folder)?;
    Ok(parsed.model)
}
