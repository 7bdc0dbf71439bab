//! Models in GGUF files, as llama.cpp writes and runs them.
//!
//! | file | defines |
//! |---|---|
//! | [`file`] | the container: header, metadata, tensor table |
//! | [`value`] | metadata values and their typed access |
//! | [`blocks`] | block formats and their values as f32 |
//! | [`names`] | which tensor holds which weight, and what its rows went through |
//! | [`shapes`] | the keys of text model and projector as a checked configuration |
//! | [`vocabulary`] | `tokenizer.ggml.*` as a `tokenizer.json` |
//! | [`error`] | what can be wrong with a file |
//!
//! A model is one file for the decoder, and beside it, if it sees, a projector file (`mmproj`)
//! with the vision side. Both are mapped; a tensor is turned to f32 when it is read.

pub mod blocks;
pub mod error;
pub mod file;
pub mod names;
mod shapes;
pub mod value;
mod vocabulary;

pub use error::GgufError;
pub use file::GgufFile;

use super::{FloatWeights, ImportError, Strips, row_ranges};
use crate::config::{ModelConfig, ModelFiles};
use crate::file::open_regular;
use blocks::Format;
use names::{Holder, Place};
use ocelli_kernels::half::f16_bits_to_f32;
use ocelli_kernels::int4_groups::Int4Groups;
use ocelli_kernels::int4_panels::BLOCK;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

/// First bytes of a GGUF file.
pub const MAGIC: [u8; 4] = *b"GGUF";

/// Whether the file begins like a GGUF file.
pub fn is_gguf(path: &Path) -> bool {
    let mut magic = [0; 4];
    open_regular(path).is_ok_and(|mut file| file.read_exact(&mut magic).is_ok() && magic == MAGIC)
}

/// A model in one or two GGUF files, its tensors known by the names of `docs/model.md`.
#[derive(Debug)]
pub struct GgufModel {
    text: GgufFile,
    projector: Option<GgufFile>,
    config: ModelConfig,
    /// Whether the projector file has the names of the two feed-forward layers exchanged.
    swapped: bool,
}

impl GgufModel {
    /// Opens the file of the text model and, if given, the projector file.
    ///
    /// # Errors
    ///
    /// See [`GgufError`].
    pub fn open(text: &Path, projector: Option<&Path>) -> Result<GgufModel, GgufError> {
        let projector = projector.map(GgufFile::open).transpose()?;
        GgufModel::new(GgufFile::open(text)?, projector)
    }

    /// Takes opened files.
    ///
    /// # Errors
    ///
    /// An architecture, shape or tensor that this program cannot run, named.
    pub fn new(text: GgufFile, projector: Option<GgufFile>) -> Result<GgufModel, GgufError> {
        let config = shapes::model(&text, projector.as_ref())?;
        let swapped = match (&projector, &config.vision) {
            (Some(file), Some(vision)) => names::feed_forward_is_swapped(file, vision),
            _ => false,
        };
        let model = GgufModel {
            text,
            projector,
            config,
            swapped,
        };
        names::refuse_unknown(&model.text, Holder::Text, model.config.text.n_layers)?;
        if let (Some(projector), Some(vision)) = (&model.projector, &model.config.vision) {
            names::refuse_unknown(projector, Holder::Projector, vision.n_layers)?;
        }
        Ok(model)
    }

    /// The shapes of the model.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// What the metadata says beside the shapes: preprocessing, stop tokens, chat template, and the
    /// vocabulary as the bytes of a `tokenizer.json`.
    ///
    /// # Errors
    ///
    /// A key that is missing, of another type, or has a value this program cannot use.
    pub fn model_files(&self) -> Result<ModelFiles, GgufError> {
        let preprocess = match (&self.projector, &self.config.vision) {
            (Some(file), Some(vision)) => Some(shapes::preprocess(file, vision)?),
            _ => None,
        };
        let (generation, chat_template) = shapes::conversation(&self.text, &self.config)?;
        let model_type = if preprocess.is_some() {
            "idefics3"
        } else {
            "llama"
        };
        Ok(ModelFiles {
            image_seq_len: self.config.image_tokens_per_tile(),
            preprocess,
            generation,
            chat_template,
            tokenizer_json: vocabulary::tokenizer_json(&self.text, self.config.text.vocab_size)?,
            model_type: model_type.to_owned(),
            dtype: None,
            config: self.config.clone(),
        })
    }

    fn read_rows(
        &self,
        name: &str,
        shape: &[usize],
        rows: Range<usize>,
    ) -> Result<Vec<f32>, ImportError> {
        let (place, file) = self.place(name)?;
        Ok(self.read_place(&place, file, shape, rows)?)
    }

    /// Where a weight is.
    fn place(&self, name: &str) -> Result<(Place, &GgufFile), GgufError> {
        let place = Place::of(name, self.swapped).ok_or_else(|| self.text.missing(name))?;
        match (place.holder, &self.projector) {
            (Holder::Text, _) => Ok((place, &self.text)),
            (Holder::Projector, Some(projector)) => Ok((place, projector)),
            (Holder::Projector, None) => Err(self.text.missing(&place.name)),
        }
    }

    fn read_place(
        &self,
        place: &Place,
        file: &GgufFile,
        shape: &[usize],
        rows: Range<usize>,
    ) -> Result<Vec<f32>, GgufError> {
        let Some(heads) = place.heads(&self.config.text) else {
            return file.read_rows(&place.name, shape, rows);
        };
        let values = names::rotary_halves(&file.read(&place.name, shape)?, shape, heads);
        let row: usize = shape.iter().skip(1).product();
        Ok(match rows.len() == values.len() / row.max(1) {
            true => values,
            false => values[rows.start * row..rows.end * row].to_vec(),
        })
    }
}

impl FloatWeights for GgufModel {
    fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ImportError> {
        let rows = shape.first().copied().unwrap_or(1);
        self.read_rows(name, shape, 0..rows)
    }

    fn strips<'s>(&'s self, name: &'s str, shape: [usize; 2], rows: usize) -> Strips<'s> {
        let rows = row_ranges(shape[0], rows);
        Box::new(rows.map(move |rows| self.read_rows(name, &shape, rows)))
    }

    fn int4_groups(
        &self,
        name: &str,
        shape: [usize; 2],
    ) -> Result<Option<Int4Groups>, ImportError> {
        let (place, file) = self.place(name)?;
        let (format, bytes) = file.stored(&place.name, &shape)?;
        if format != Format::Q4_0 || !shape[1].is_multiple_of(BLOCK) {
            return Ok(None);
        }
        let (mut values, mut scales) = blocks::q4_0_grid(bytes);
        if let Some(heads) = place.heads(&self.config.text) {
            values = names::rotary_halves(&values, &shape, heads);
            scales = names::rotary_halves(&scales, &[shape[0], shape[1] / BLOCK], heads);
        }
        let is_finite = |bits: &u16| f16_bits_to_f32(*bits).is_finite();
        let sound = scales.iter().all(is_finite);
        Ok(sound.then(|| Int4Groups::new(values, scales, shape[1])))
    }

    fn files(&self) -> Vec<(&Path, &[u8])> {
        let files = std::iter::once(&self.text).chain(&self.projector);
        files.map(|file| (file.path(), file.bytes())).collect()
    }

    fn hold_tokenizer(&self) -> bool {
        true
    }
}
