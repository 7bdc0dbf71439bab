//! Why a configuration cannot be used.

use std::path::PathBuf;

/// Why a model directory, or a configuration taken from a pack, cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The directory has none of the files that could hold something the model needs.
    #[error("{}: no {wanted} here; copy it from the model's repository", dir.display())]
    MissingFile {
        /// The model directory.
        dir: PathBuf,
        /// The file name, or the names that would do.
        wanted: String,
    },
    /// A file could not be read.
    #[error("{}: cannot be read", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file is larger than its kind ever is.
    #[error("{}: larger than the limit of {limit} bytes for this kind of file; \
             check that it is the right file", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
    /// A file is not JSON, or not UTF-8 text.
    #[error("{}: not valid {expected}; copy the file again from the model's repository", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// `"JSON"` or `"UTF-8 text"`.
        expected: &'static str,
        /// Where and why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A field without a default is absent.
    #[error("{file}: {field} is missing; copy the file again from the model's repository")]
    MissingField {
        /// The file, or `pack header`.
        file: String,
        /// Path of the field, as `text_config.hidden_size`.
        field: String,
    },
    /// A field has a value that no model can have.
    #[error("{file}: {field} is {value}: {rule}")]
    Invalid {
        /// The file, or `pack header`.
        file: String,
        /// Path of the field.
        field: String,
        /// The value found.
        value: String,
        /// The rule it breaks, with the limit.
        rule: String,
    },
    /// A field has a value that belongs to a model this runtime cannot run.
    #[error("{file}: {field} is {value}, which is not supported: {reason}")]
    Unsupported {
        /// The file.
        file: String,
        /// Path of the field.
        field: String,
        /// The value found.
        value: String,
        /// What is supported, or what to use instead.
        reason: String,
    },
}
