//! Why an ONNX export cannot be used.

use std::io;
use std::path::PathBuf;

/// Why an ONNX export cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnnxError {
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system reported.
        source: io::Error,
    },
    /// A file of the three is not there.
    #[error(
        "{} has no {wanted}; present are: {present}. Download it, or choose a variant with --variant",
        dir.display()
    )]
    NoFile {
        /// The model directory.
        dir: PathBuf,
        /// The file or files that would do.
        wanted: String,
        /// The ONNX files that are there.
        present: String,
    },
    /// The bytes do not keep to the format.
    #[error("{} is not a valid ONNX file: {what}; download it again", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The broken rule, with place, offending value and limit.
        what: String,
    },
    /// The graph leaves what is understood.
    #[error(
        "{}: node {node:?} is {op} of domain {domain}, expected was {expected}; \
         use another --variant, the safetensors files or a GGUF file of this model", path.display()
    )]
    Unrecognised {
        /// The file.
        path: PathBuf,
        /// Name of the node, or of its first output.
        node: Box<str>,
        /// The operator.
        op: Box<str>,
        /// Its domain; `ai.onnx` for the standard one.
        domain: Box<str>,
        /// What would have been understood there.
        expected: Box<str>,
    },
    /// The graph computes something else than the configuration says.
    #[error(
        "{}: node {node:?}: {what} is {found}, config.json says {expected}; take all files from the same model",
        path.display()
    )]
    Config {
        /// The file.
        path: PathBuf,
        /// Name of the node, or of its first output.
        node: String,
        /// What differs.
        what: &'static str,
        /// What the graph has.
        found: String,
        /// What the configuration says.
        expected: String,
    },
    /// The two branches of a graph are not the same model.
    #[error(
        "{}: weight {name} is {then} where {condition} holds, and {otherwise} where it does not, which is not the \
         same; use another --variant, the safetensors files or a GGUF file of this model", path.display()
    )]
    Branches {
        /// The file.
        path: PathBuf,
        /// Published name of the weight.
        name: Box<str>,
        /// The initialiser or value in the first branch.
        then: Box<str>,
        /// The one in the second.
        otherwise: Box<str>,
        /// The input that decides between them.
        condition: Box<str>,
    },
    /// A weight is not the same in the two files of a decoder.
    #[error(
        "weight {name} is {first} in {} and {second} in {}, which is not the same; take both files from one export",
        path.display(), other.display()
    )]
    Pair {
        /// The file of the decoder without a cache.
        path: PathBuf,
        /// Published name of the weight.
        name: Box<str>,
        /// The initialiser or value in that file.
        first: Box<str>,
        /// The file of the decoder behind a cache.
        other: PathBuf,
        /// The initialiser or value in this one.
        second: Box<str>,
    },
    /// A weight has another shape than the configuration says.
    #[error(
        "{}: {tensor} ({name}) has shape {found:?}, config.json asks for {expected:?}; \
         take all files from the same model", path.display()
    )]
    Shape {
        /// The file.
        path: PathBuf,
        /// The initialiser or value in the file.
        tensor: Box<str>,
        /// Published name of the weight.
        name: Box<str>,
        /// Shape in the file.
        found: Box<[usize]>,
        /// Shape the configuration implies.
        expected: Box<[usize]>,
    },
    /// No part of the graphs is this weight.
    #[error("{}: weight {name} is in none of the ONNX files; they are incomplete or of another model", dir.display())]
    Missing {
        /// The model directory.
        dir: PathBuf,
        /// Published name of the weight.
        name: String,
    },
    /// A weight is NaN or infinite.
    #[error(
        "{}: {tensor} ({name}) holds {value} at index {index}; the weights are damaged, download them again",
        path.display()
    )]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The initialiser or value in the file.
        tensor: String,
        /// Published name of the weight.
        name: String,
        /// Flat index of the first such value.
        index: usize,
        /// The value.
        value: f32,
    },
}
