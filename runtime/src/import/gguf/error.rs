//! Why a GGUF file cannot be used.

use crate::config::ConfigError;
use std::io;
use std::path::PathBuf;

/// Why a GGUF file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// The file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system reported.
        source: io::Error,
    },
    /// The bytes do not keep to the format.
    #[error("{} is not a valid GGUF file: {what}; download it again", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The broken rule, with place, offending value and limit.
        what: String,
    },
    /// A tensor is stored in a format that is not read.
    #[error(
        "{}: tensor {name} is stored as {found}, supported are {supported}; \
         take the same model in one of these, such as its Q8_0 file", path.display()
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
        /// Name or number of its format.
        found: String,
        /// Names of the formats that are read.
        supported: String,
    },
    /// A key the model cannot do without is absent.
    #[error("{}: key {key} is missing; convert the model again with a recent llama.cpp", path.display())]
    MissingKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// A key has a value that cannot be used.
    #[error("{}: key {key} is {value}: {rule}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The value found, or its type.
        value: String,
        /// What is supported, or the broken rule with its limit.
        rule: String,
    },
    /// The shapes together break a rule.
    #[error(transparent)]
    Shapes(#[from] ConfigError),
    /// A tensor the model needs is not in the file.
    #[error("{}: tensor {name} is missing; the file is incomplete or of another model", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
    },
    /// A tensor that no part of the model reads: leaving it out would change the answers.
    #[error(
        "{}: tensor {name} belongs to no model this program can run; \
         supported are text models of the Llama family and idefics3 projectors", path.display()
    )]
    UnknownTensor {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
    },
    /// A tensor has another shape than the keys say.
    #[error("{}: tensor {name} has shape {found:?}, the keys ask for {expected:?}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
        /// Shape in the file, outermost first.
        found: Vec<usize>,
        /// Shape the configuration implies.
        expected: Vec<usize>,
    },
    /// A weight is NaN or infinite.
    #[error(
        "{}: tensor {name} holds {value} at index {index}; the weights are damaged, download them again", path.display()
    )]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
        /// Flat index of the first such value.
        index: usize,
        /// The value.
        value: f32,
    },
}
