//! Readers of published model files, and what they have in common.

pub mod gguf;
mod grid;
pub mod onnx;
pub mod safetensors;

use crate::config::{ConfigError, ModelFiles};
use gguf::{GgufError, GgufModel};
use ocelli_kernels::int4_groups::Int4Groups;
use onnx::{OnnxError, OnnxModel, Variant};
use safetensors::{Checkpoint, CheckpointError};
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Why a published model cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// A configuration file is missing or breaks a rule.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The safetensors files are missing, damaged or of another model.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A GGUF file is damaged or of a model that cannot be run.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The ONNX files are missing, damaged or of a model that cannot be run.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// A variant of ONNX files was asked of something that is no directory.
    #[error(
        "--variant {variant} chooses among the ONNX files of a model directory, but {} is none; \
         leave it out", model.display()
    )]
    LoneVariant {
        /// The variant.
        variant: Variant,
        /// What was named as the model.
        model: PathBuf,
    },
    /// A projector file was given beside something that is no GGUF file.
    #[error(
        "{} is a projector for a GGUF model, but {} is none; \
         leave --mmproj out or name the GGUF file of the text model", mmproj.display(), model.display()
    )]
    LoneProjector {
        /// The projector file.
        mmproj: PathBuf,
        /// What was named as the model.
        model: PathBuf,
    },
}

/// Float weights by the tensor names of the family's published checkpoints (`docs/model.md`),
/// whatever the file that holds them calls them.
pub trait FloatWeights: fmt::Debug {
    /// Reads one tensor as f32, row-major, after checking its shape.
    ///
    /// # Errors
    ///
    /// Missing tensor, other shape, a type that is no float, a value that is not finite.
    fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ImportError>;

    /// Reads a matrix strip by strip, each of `rows` rows but the last, from the first row on: large
    /// tables are packed in strips.
    ///
    /// # Errors
    ///
    /// As for the whole tensor, in the strip they are met in.
    fn strips<'s>(&'s self, name: &'s str, shape: [usize; 2], rows: usize) -> Strips<'s>;

    /// The numbers of a matrix `[n, k]` that lies on a symmetric 4-bit grid in its file: integers
    /// from -8 to 7 and a scale for every 32 of a row. `None` for any other.
    ///
    /// # Errors
    ///
    /// Missing tensor, other shape.
    fn int4_groups(
        &self,
        _name: &str,
        _shape: [usize; 2],
    ) -> Result<Option<Int4Groups>, ImportError> {
        Ok(None)
    }

    /// The files, with their bytes.
    fn files(&self) -> Vec<(&Path, &[u8])>;

    /// Whether the tokenizer lies in these files too.
    fn hold_tokenizer(&self) -> bool {
        false
    }

    /// Which files were taken, where there was a choice.
    fn description(&self) -> Option<String> {
        None
    }
}

/// Strips of a matrix as f32, row-major ([`FloatWeights::strips`]).
pub type Strips<'s> = Box<dyn Iterator<Item = Result<Vec<f32>, ImportError>> + 's>;

/// Rows `0..n` by strips of `rows`.
fn row_ranges(n: usize, rows: usize) -> impl Iterator<Item = Range<usize>> {
    (0..n)
        .step_by(rows.max(1))
        .map(move |first| first..n.min(first + rows.max(1)))
}

/// The name of a tensor in a checkpoint: text models have no `text_model` in theirs, and what was saved
/// without its head has no `model` in front.
fn name_in<'n>(checkpoint: &Checkpoint, name: &'n str) -> Cow<'n, str> {
    let text = name.strip_prefix("model.text_model.");
    let text = text.map(|rest| format!("model.{rest}"));
    let headless = name.strip_prefix("model.").map(str::to_owned);
    let mut others = text.into_iter().chain(headless);
    if checkpoint.contains(name) {
        return Cow::Borrowed(name);
    }
    match others.find(|other| checkpoint.contains(other)) {
        Some(other) => Cow::Owned(other),
        None => Cow::Borrowed(name),
    }
}

impl FloatWeights for Checkpoint {
    fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ImportError> {
        Ok(Checkpoint::read(self, &name_in(self, name), shape)?)
    }

    fn strips<'s>(&'s self, name: &'s str, shape: [usize; 2], rows: usize) -> Strips<'s> {
        let (name, rows) = (name_in(self, name), row_ranges(shape[0], rows));
        Box::new(rows.map(move |rows| Ok(self.read_rows(&name, &shape, rows)?)))
    }

    fn files(&self) -> Vec<(&Path, &[u8])> {
        Checkpoint::files(self).collect()
    }
}

/// A published model: what it says about itself, and its weights, read on request.
#[derive(Debug)]
pub struct Published {
    /// Last component of the directory, links resolved, or the GGUF file's name without extension.
    pub name: String,
    /// Configuration, tokenizer and chat template.
    pub files: ModelFiles,
    /// The weights.
    pub weights: Box<dyn FloatWeights>,
}

impl Published {
    /// Whether a published model is there: a directory, or a file that begins like a GGUF file.
    pub fn is_at(path: &Path) -> bool {
        path.is_dir() || gguf::is_gguf(path)
    }

    /// Opens a Hugging Face style directory, or a GGUF file with or without its projector file.
    ///
    /// A directory's weights are its safetensors files; without these, or if a variant is named,
    /// its ONNX files.
    ///
    /// # Errors
    ///
    /// See [`ImportError`].
    pub fn open(
        model: &Path,
        mmproj: Option<&Path>,
        variant: Option<Variant>,
    ) -> Result<Published, ImportError> {
        if model.is_dir() {
            if let Some(mmproj) = mmproj {
                return Err(ImportError::LoneProjector {
                    mmproj: mmproj.to_owned(),
                    model: model.to_owned(),
                });
            }
            let files = ModelFiles::read(model)?;
            return Ok(Published {
                name: name(model, Path::file_name),
                weights: weights(model, &files, variant)?,
                files,
            });
        }
        if let Some(variant) = variant {
            return Err(ImportError::LoneVariant {
                variant,
                model: model.to_owned(),
            });
        }
        let weights = GgufModel::open(model, mmproj)?;
        Ok(Published {
            name: name(model, Path::file_stem),
            files: weights.model_files()?,
            weights: Box::new(weights),
        })
    }
}

/// The weights of a model directory.
fn weights(
    dir: &Path,
    files: &ModelFiles,
    variant: Option<Variant>,
) -> Result<Box<dyn FloatWeights>, ImportError> {
    let takes_onnx = variant.is_some() || (!Checkpoint::is_in(dir) && onnx::is_export(dir));
    if takes_onnx {
        return Ok(Box::new(OnnxModel::open(dir, &files.config, variant)?));
    }
    let checkpoint = Checkpoint::open(dir)?;
    let config = &files.config;
    let n_vision = config.vision.as_ref().map_or(0, |vision| vision.n_layers);
    checkpoint.check_layers(config.text.n_layers, n_vision)?;
    Ok(Box::new(checkpoint))
}

/// The bytes of some rows of a tensor of this shape that lies in `bytes`.
///
/// # Panics
///
/// When the rows go beyond the first dimension.
fn row_bytes<'a>(bytes: &'a [u8], shape: &[usize], rows: Range<usize>) -> &'a [u8] {
    let n_rows = shape.first().copied().unwrap_or(1);
    assert!(rows.end <= n_rows, "rows {rows:?} of {n_rows}");
    let row = bytes.len().checked_div(n_rows).unwrap_or(0);
    &bytes[rows.start * row..rows.end * row]
}

/// A part of the path's last component, links resolved.
fn name(path: &Path, part: fn(&Path) -> Option<&std::ffi::OsStr>) -> String {
    let full = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    part(&full).map_or_else(
        || "model".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}
