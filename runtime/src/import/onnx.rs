//! Models in ONNX files, as the family is published for transformers.js: three graphs that hold
//! embedding, vision side and decoder, in many ways to store the weights; or a text model in one.
//!
//! | file | defines |
//! |---|---|
//! | [`variant`] | which of the published files to take |
//! | `wire`, `tensor`, [`graph`] | the format: messages, tensors, the graph, read in place |
//! | `stored` | weights as a file stores them, and their values |
//! | `walk` | the structure: linear layers, norms, activations, attention, positions |
//! | `lift` | the graphs taken apart |
//! | [`error`] | what can be wrong |
//!
//! No name inside a graph is relied on, only those of its inputs and outputs: what is added,
//! normalised and multiplied on the way from an output to the input says which layer a constant
//! is. A graph that computes anything else than the model is refused. Files are mapped, and a
//! weight becomes f32 when it is read.

pub mod error;
pub mod graph;
mod lift;
mod stored;
mod tensor;
pub mod variant;
mod walk;
mod wire;

pub use error::OnnxError;
pub use graph::Graph;
pub use variant::{Variant, is_export};

use super::grid::on_grid;
use super::{FloatWeights, ImportError, Strips, row_ranges};
use crate::config::ModelConfig;
use lift::{Lifted, Weights};
use ocelli_kernels::int4_groups::Int4Groups;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use variant::choose;

/// One of the graphs of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `pixel_values` → `image_features`
    Vision,
    /// `input_ids` → `inputs_embeds`
    Embedding,
    /// `inputs_embeds` → `logits`
    Decoder,
    /// `input_ids` → `logits`: a text model whole
    Text,
}

impl Part {
    /// What the names of its files begin with; a decoder may also be two files ([`UNMERGED`]).
    pub fn stem(self) -> &'static str {
        match self {
            Part::Vision => "vision_encoder",
            Part::Embedding => "embed_tokens",
            Part::Decoder => "decoder_model_merged",
            Part::Text => "model",
        }
    }
}

/// Names of a decoder in two files, as exporters write it before they merge them: without a cache in
/// front, and behind one. Either holds every weight.
const UNMERGED: [&str; 2] = ["decoder_model", "decoder_with_past_model"];

/// A model in ONNX files, its weights known by the names of `docs/model.md`.
#[derive(Debug)]
pub struct OnnxModel {
    dir: PathBuf,
    graphs: Vec<Graph>,
    /// Number of the graph, and the weight in it.
    weights: BTreeMap<String, (usize, Lifted)>,
    /// What the names of the files begin with, and their variants.
    variants: Vec<(&'static str, Variant)>,
}

impl OnnxModel {
    /// Opens the files of a model directory that `config` describes, in one variant, or each in
    /// the most exact one that is there.
    ///
    /// # Errors
    ///
    /// See [`OnnxError`].
    pub fn open(
        dir: &Path,
        config: &ModelConfig,
        variant: Option<Variant>,
    ) -> Result<OnnxModel, OnnxError> {
        let mut parts = Vec::new();
        let stems: &[&'static str] = match config.vision {
            Some(_) => {
                parts.push(file(dir, Part::Vision, &[Part::Vision.stem()], variant)?);
                &[Part::Decoder.stem()]
            }
            None => &[Part::Decoder.stem(), Part::Text.stem()],
        };
        let mut decoder = match file(dir, Part::Decoder, stems, variant) {
            Err(none @ OnnxError::NoFile { .. }) => {
                // What is asked for is the usual one.
                let first = file(dir, Part::Decoder, &UNMERGED, variant);
                first.map_err(|error| match error {
                    OnnxError::NoFile { .. } => none,
                    other => other,
                })?
            }
            other => other?,
        };
        if config.vision.is_none() && decoder.graph.input("inputs_embeds").is_none() {
            decoder.part = Part::Text;
        } else {
            let stem = Part::Embedding.stem();
            parts.push(file(dir, Part::Embedding, &[stem], variant)?);
        }
        decoder.check_behind_cache(config)?;
        parts.push(decoder);
        let variants = parts.iter().map(|file| (file.stem, file.variant)).collect();
        let graphs = parts.into_iter().map(|file| (file.part, file.graph));
        let mut model = OnnxModel::of(graphs.collect(), config)?;
        model.dir = dir.to_owned();
        model.variants = variants;
        Ok(model)
    }

    /// Takes opened graphs; the weights of those that are left out are missing.
    ///
    /// # Errors
    ///
    /// A graph that is not that part of the model which the configuration describes.
    pub fn of(graphs: Vec<(Part, Graph)>, config: &ModelConfig) -> Result<OnnxModel, OnnxError> {
        let mut weights = BTreeMap::new();
        for (number, (part, graph)) in graphs.iter().enumerate() {
            let lifted = lifted(*part, graph, config)?;
            if let Some(others) = graph.other_branch()? {
                let same = same(graph, &lifted, &others, *part, config)?;
                same.map_err(|odd| OnnxError::Branches {
                    path: graph.path().to_owned(),
                    name: odd.name,
                    then: odd.first,
                    otherwise: odd.second,
                    condition: graph.condition().into(),
                })?;
            }
            let numbered = |(name, weight)| (name, (number, weight));
            weights.extend(lifted.into_iter().map(numbered));
        }
        Ok(OnnxModel {
            dir: PathBuf::new(),
            graphs: graphs.into_iter().map(|(_, graph)| graph).collect(),
            weights,
            variants: Vec::new(),
        })
    }

    /// Names and shapes of all weights, sorted by name.
    pub fn weights(&self) -> impl Iterator<Item = (&str, &[usize])> {
        let weights = self.weights.iter();
        weights.map(|(name, (_, lifted))| (name.as_str(), lifted.shape()))
    }
}

/// An opened file of a directory.
struct File {
    part: Part,
    stem: &'static str,
    graph: Graph,
    variant: Variant,
}

impl File {
    /// Where this is a decoder without a cache and the one behind a cache lies beside it: both hold
    /// the same weights, or are not of one model.
    fn check_behind_cache(&self, config: &ModelConfig) -> Result<(), OnnxError> {
        let path = self
            .graph
            .path()
            .with_file_name(self.variant.file_name(UNMERGED[1]));
        if self.stem != UNMERGED[0] || !path.is_file() {
            return Ok(());
        }
        let lifted = lifted(self.part, &self.graph, config)?;
        let same = same(
            &self.graph,
            &lifted,
            &Graph::open(&path)?,
            self.part,
            config,
        )?;
        same.map_err(|odd| OnnxError::Pair {
            path: self.graph.path().to_owned(),
            name: odd.name,
            first: odd.first,
            other: path,
            second: odd.second,
        })
    }
}

/// Opens a part under one of these names.
fn file(
    dir: &Path,
    part: Part,
    stems: &[&'static str],
    variant: Option<Variant>,
) -> Result<File, OnnxError> {
    let chosen = choose(dir, stems, variant)?;
    Ok(File {
        part,
        stem: chosen.stem,
        graph: Graph::open(&chosen.path)?,
        variant: chosen.variant,
    })
}

/// The weights of one graph.
fn lifted(part: Part, graph: &Graph, config: &ModelConfig) -> Result<Weights, OnnxError> {
    match (part, &config.vision) {
        (Part::Embedding, _) => lift::embedding(graph, &config.text),
        (Part::Decoder, _) => lift::decoder(graph, config),
        (Part::Text, _) => lift::text(graph, config),
        (Part::Vision, Some(vision)) => lift::vision(graph, vision, config.text.hidden_size),
        (Part::Vision, None) => Ok(Weights::new()),
    }
}

/// A weight that two graphs of one model have differently, and what it is in either.
struct Odd {
    name: Box<str>,
    first: Box<str>,
    second: Box<str>,
}

/// Compares the weights of a graph with those of another that is the same part of the model.
fn same(
    graph: &Graph,
    weights: &Weights,
    others: &Graph,
    part: Part,
    config: &ModelConfig,
) -> Result<Result<(), Odd>, OnnxError> {
    let again = lifted(part, others, config)?;
    for (name, weight) in weights {
        let other = again.get(name);
        if other.is_none_or(|other| !weight.is_same(graph, other, others)) {
            return Ok(Err(Odd {
                name: name.as_str().into(),
                first: weight.tensor(graph).into(),
                second: other.map_or("", |other| other.tensor(others)).into(),
            }));
        }
    }
    Ok(Ok(()))
}

impl OnnxModel {
    /// A weight of this shape, and the graph that holds it.
    fn lifted(&self, name: &str, shape: &[usize]) -> Result<(&Graph, &Lifted), OnnxError> {
        let (number, lifted) = self.weights.get(name).ok_or_else(|| OnnxError::Missing {
            dir: self.dir.clone(),
            name: name.to_owned(),
        })?;
        let graph = &self.graphs[*number];
        match lifted.shape() == shape {
            true => Ok((graph, lifted)),
            false => Err(OnnxError::Shape {
                path: graph.path().to_owned(),
                tensor: lifted.tensor(graph).into(),
                name: name.into(),
                found: lifted.shape().into(),
                expected: shape.into(),
            }),
        }
    }

    /// Some rows of a weight of this shape, as f32.
    fn read_rows(
        &self,
        name: &str,
        shape: &[usize],
        rows: Range<usize>,
    ) -> Result<Vec<f32>, OnnxError> {
        let (graph, lifted) = self.lifted(name, shape)?;
        let before = rows.start * shape.iter().skip(1).product::<usize>();
        let values = lifted.read(graph, rows);
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(index) => Err(OnnxError::NotFinite {
                path: graph.path().to_owned(),
                tensor: lifted.tensor(graph).to_owned(),
                name: name.to_owned(),
                index: before + index,
                value: values[index],
            }),
        }
    }
}

impl FloatWeights for OnnxModel {
    fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ImportError> {
        let rows = shape.first().copied().unwrap_or(1);
        Ok(self.read_rows(name, shape, 0..rows)?)
    }

    fn strips<'s>(&'s self, name: &'s str, shape: [usize; 2], rows: usize) -> Strips<'s> {
        let rows = row_ranges(shape[0], rows);
        Box::new(rows.map(move |rows| Ok(self.read_rows(name, &shape, rows)?)))
    }

    fn int4_groups(
        &self,
        name: &str,
        shape: [usize; 2],
    ) -> Result<Option<Int4Groups>, ImportError> {
        let (graph, lifted) = self.lifted(name, &shape)?;
        let rows = lifted.int4_rows(graph);
        Ok(rows.and_then(|(values, scales)| on_grid(values, &scales, shape[1])))
    }

    fn files(&self) -> Vec<(&Path, &[u8])> {
        self.graphs.iter().flat_map(Graph::files).collect()
    }

    fn description(&self) -> Option<String> {
        let first = self.variants.first().map(|(_, variant)| *variant);
        Some(match first {
            Some(one) if self.variants.iter().all(|(_, variant)| *variant == one) => {
                format!("ONNX files, variant {one}")
            }
            _ => {
                let files = self
                    .variants
                    .iter()
                    .map(|(stem, variant)| format!("{stem} {variant}"));
                format!("ONNX files: {}", files.collect::<Vec<_>>().join(", "))
            }
        })
    }
}
