//! The packer: published weights become a pack.
//!
//! Float weights are rewritten so that int8 loses little, without changing the
//! float result, then quantised, int8 per output channel or int4 per 32 values of one:
//!
//! 1. Every norm weight is folded into the linears that read it, every LayerNorm
//!    bias into their bias; both towers then use the same weightless RMSNorm. For
//!    the vision tower the subtraction of the mean is folded into what writes the
//!    residual stream.
//! 2. The residual streams are rotated ([`Rotation`]): what writes a stream is
//!    multiplied by `Q` on its output side, what reads it on its input side.
//! 3. The image normalisation `(p·rescale − mean)/std` is folded into the patch
//!    embedding, which then takes the bytes `p − 128` as they are.
//! 4. `gate` and `up` alternate by panels of eight rows, `q`, `k` and `v` are stacked; beside int4
//!    weights `v` stays a matrix of its own, in int8.
//! 5. The decoder's rounding errors are fed back along each row, weighed by what a short text
//!    shows about the inputs.
//!
//! Layers that lie on a symmetric 4-bit grid in their file keep it: neither folded nor rotated nor
//! rounded ([`crate::pack::StreamBasis::Published`]).

mod arithmetic;
mod calibration;
mod feedback;
mod fold;
mod layer;
mod plan;
mod rounding;
mod storage;

use crate::config::{ModelFiles, PreprocessConfig, VisionConfig};
use crate::import::{FloatWeights, ImportError, Published};
use crate::pack::{
    HEAD, Header, Layout, PackError, PackWriter, PlannedTensor, SourceFile, StreamBasis,
    WeightScheme,
};
use crate::probe;
use crate::rotation::Rotation;
use crate::tokenizer::{self, Refusal, TokenizerError};
use arithmetic::Arithmetic;
use calibration::Calibration;
use feedback::Feedback;
use fold::Linear;
use layer::{Input, LayerMatrix};
use ocelli_kernels::{half, int4_panels, panels};
use plan::check_shapes;
use sha2::{Digest, Sha256};
use std::io::{Seek, Write};
use std::path::Path;
use storage::Storage;

pub use calibration::CalibrationText;
pub use plan::{GROUP, pack_bytes, plan, working_bytes};

/// Rows of the embedding table and the head that are packed at a time: whole panels, and few
/// enough that the largest tables of a model take less memory than one of its layers.
const STRIP_ROWS: usize = 1024;
/// Seed of the decoder's rotation.
const TEXT_SEED: u64 = 0x0CE1_1100;
/// Seed of the vision tower's rotation.
const VISION_SEED: u64 = 0x0CE1_1101;

/// Why a model could not be packed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackModelError {
    /// The published files are missing, damaged or of another model.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// A shape that the int8 path cannot run.
    #[error(
        "{field} is {value}, the int8 path needs a multiple of {multiple}; use --precision f32"
    )]
    Shape {
        /// Name of the field.
        field: &'static str,
        /// Its value.
        value: usize,
        /// What it must be a multiple of.
        multiple: usize,
    },
    /// A shape that int4 weights cannot hold.
    #[error("{field} is {value}, int4 weights need a multiple of {multiple}; use --weights int8")]
    Int4Shape {
        /// Name of the field.
        field: &'static str,
        /// Its value.
        value: usize,
        /// What it must be a multiple of.
        multiple: usize,
    },
    /// An exception that names no decoder matrix.
    #[error(
        "{name} is no decoder matrix of this model; matrices are named as in text.0.down and text.head"
    )]
    UnknownException {
        /// The name given.
        name: String,
    },
    /// Spare bytes for layers whose numbers are not chosen here.
    #[error(
        "--spare {percent}: the layers keep the 4-bit grid of their file, which int8 would not improve; leave --spare out"
    )]
    SpareOnGrid {
        /// The percentage given.
        percent: u8,
    },
    /// Spare bytes that are too few for one matrix.
    #[error(
        "--spare {percent} leaves all matrices in int4, one of them in int8 takes {least} % more; \
         give --spare {least} or more, or leave it out"
    )]
    SpareTooLittle {
        /// The percentage given.
        percent: u8,
        /// The percentage that the first matrix takes.
        least: u64,
    },
    /// The tokenizer cannot cut the calibration text.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The pack could not be written.
    #[error(transparent)]
    Write(#[from] PackError),
}

/// What a caller may choose about a pack.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PackOptions {
    /// How the decoder's matrices are stored. `None`: as the file has them where that is 4 bit, else
    /// in int8.
    pub weights: Option<WeightScheme>,
    /// Whether weights that lie on a 4-bit grid are rotated and rounded again all the same: for
    /// measuring what that costs.
    pub rounds_again: bool,
    /// Decoder matrices stored in the other of the two ways, e.g. `text.0.down` or `text.head`:
    /// for measuring what each of them costs.
    pub exceptions: Vec<String>,
    /// With int4 weights: by how many percent the decoder's layers may be larger, so that `down`,
    /// which loses the most, is int8 in as many of them as that allows.
    pub spare_percent: u8,
    /// What the errors of rounding are weighed by.
    pub calibration: CalibrationText,
}

impl From<WeightScheme> for PackOptions {
    fn from(weights: WeightScheme) -> PackOptions {
        PackOptions {
            weights: Some(weights),
            ..PackOptions::default()
        }
    }
}

/// Tells a caller how far the packer is: tensors done, tensors in all.
pub type Progress<'a> = &'a mut dyn FnMut(usize, usize);

/// Packs the model in `dir` into `out`.
///
/// # Errors
///
/// See [`PackModelError`].
pub fn pack_directory<W: Write + Seek>(
    dir: &Path,
    options: &PackOptions,
    out: W,
    progress: Progress<'_>,
) -> Result<W, PackModelError> {
    let model = Published::open(dir, None, None)?;
    let (files, weights) = (&model.files, &*model.weights);
    let packed = pack_model(&model.name, files, weights, options, out, progress)?;
    Ok(packed.out)
}

/// A pack that is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed<W> {
    /// What it was written into.
    pub out: W,
    /// Why it holds no tables of the tokenizer, if it holds none.
    pub refusal: Option<Refusal>,
    /// How the decoder's matrices are stored, most of them.
    pub weights: WeightScheme,
    /// Which of the layers' matrices keep the 4-bit grid of their file, if most do.
    pub on_grid: Option<OnGrid>,
    /// Threads it was computed on: one for each processor, unless the system refused some.
    pub threads: usize,
}

/// How many matrices of the decoder's layers keep the 4-bit grid of their file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnGrid {
    /// Those that do.
    pub kept: usize,
    /// All.
    pub matrices: usize,
}

/// Packs opened weights under a name.
///
/// # Errors
///
/// See [`PackModelError`].
pub fn pack_model<W: Write + Seek>(
    name: &str,
    files: &ModelFiles,
    weights: &dyn FloatWeights,
    options: &PackOptions,
    out: W,
    progress: Progress<'_>,
) -> Result<Packed<W>, PackModelError> {
    let config = &files.config;
    let storage = Storage::of(&config.text, weights, options)?;
    check_shapes(config, &storage, options)?;
    plan::check_spare(&config.text, &storage, options)?;
    let tokenizer = TokenizerBlobs::new(&files.tokenizer_json);
    let mut plan = plan::plan_stored(config, &tokenizer, options, &storage);
    plan::check_exceptions(&plan, options)?;
    plan.push(probe::planned());
    let header = Header {
        name: name.to_owned(),
        packer: concat!("ocelli ", env!("CARGO_PKG_VERSION")).to_owned(),
        panel_layout: panels::LAYOUT_ID.to_owned(),
        int4_panel_layout: int4_panels::LAYOUT_ID.to_owned(),
        config: config.clone(),
        preprocess: files.preprocess.clone(),
        generation: files.generation.clone(),
        image_seq_len: files.image_seq_len,
        chat_template: files.chat_template.clone(),
        text_rotation: Rotation::new(config.text.hidden_size, TEXT_SEED),
        sources: sources(files, weights),
        tensors: Vec::new(),
        basis: storage.basis(),
    };
    let text = header.text_rotation.clone();
    let writer = PackWriter::new(out, header, &plan)?;
    let mut packer = Packer {
        files,
        weights,
        writer,
        text,
        storage,
        plan,
        done: 0,
        threads: 1,
        progress,
    };
    for (name, bytes) in tokenizer.iter() {
        packer.blob(name, bytes)?;
    }
    if let (Some(vision), Some(preprocess)) = (&config.vision, &files.preprocess) {
        packer.vision(vision, preprocess)?;
    }
    packer.text(options)?;
    // Room for the probes, which are made on the whole pack.
    packer.blob(probe::BLOB, &[0; probe::BLOB_BYTES])?;
    Ok(Packed {
        weights: packer.storage.scheme(),
        on_grid: packer.on_grid(),
        out: packer.writer.finish()?,
        refusal: tokenizer.tables.err(),
        threads: packer.threads,
    })
}

/// The tokenizer as a pack holds it: the published file, and the tables that are used instead
/// where they can be made.
#[derive(Clone, Debug)]
pub struct TokenizerBlobs<'a> {
    json: &'a [u8],
    tables: Result<Vec<u8>, Refusal>,
}

impl<'a> TokenizerBlobs<'a> {
    /// Prepares the tables of a `tokenizer.json`.
    pub fn new(json: &'a [u8]) -> TokenizerBlobs<'a> {
        TokenizerBlobs {
            json,
            tables: tokenizer::build_tables(json),
        }
    }

    /// Names and bytes, in file order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        let tables = self.tables.as_deref().ok();
        let tables = tables.map(|tables| (tokenizer::TABLES_BLOB, tables));
        std::iter::once((tokenizer::JSON_BLOB, self.json)).chain(tables)
    }
}

/// Provenance: every file the pack is made from.
fn sources(files: &ModelFiles, weights: &dyn FloatWeights) -> Vec<SourceFile> {
    let source = |name: String, bytes: &[u8]| SourceFile {
        name,
        len: bytes.len() as u64,
        sha256: Sha256::digest(bytes).into(),
    };
    let tokenizer = (!weights.hold_tokenizer())
        .then(|| source("tokenizer.json".to_owned(), &files.tokenizer_json));
    let weights = weights.files().into_iter().map(|(path, bytes)| {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        source(name, bytes)
    });
    tokenizer.into_iter().chain(weights).collect()
}

struct Packer<'a, W> {
    files: &'a ModelFiles,
    weights: &'a dyn FloatWeights,
    writer: PackWriter<W>,
    text: Rotation,
    storage: Storage,
    plan: Vec<PlannedTensor>,
    /// Tensors of the plan that are written.
    done: usize,
    /// Threads that compute.
    threads: usize,
    progress: Progress<'a>,
}

impl<W: Write + Seek> Packer<'_, W> {
    fn blob(&mut self, name: &str, bytes: &[u8]) -> Result<(), PackModelError> {
        self.writer.append(name, bytes)?;
        self.end(name)
    }

    /// Ends a tensor that was written.
    fn end(&mut self, name: &str) -> Result<(), PackModelError> {
        self.writer.end(name)?;
        self.done += 1;
        (self.progress)(self.done, self.plan.len());
        Ok(())
    }

    fn matrix(&mut self, name: &str, linear: &mut Linear) -> Result<(), PackModelError> {
        self.fed_matrix(name, linear, None)
    }

    /// A matrix whose rounding errors are fed back; leaves it as it is stored.
    fn fed_matrix(
        &mut self,
        name: &str,
        linear: &mut Linear,
        feedback: Option<&Feedback<'_>>,
    ) -> Result<(), PackModelError> {
        self.append_rows(name, linear, feedback)?;
        self.end(name)
    }

    /// Layout of the tensor whose turn it is.
    fn layout(&self) -> Option<Layout> {
        self.plan.get(self.done).map(|tensor| tensor.layout)
    }

    /// Rounds some rows of the matrix whose turn it is, whole panels of it, and writes them.
    fn append_rows(
        &mut self,
        name: &str,
        rows: &mut Linear,
        feedback: Option<&Feedback<'_>>,
    ) -> Result<(), PackModelError> {
        let bytes = match self.layout() {
            Some(Layout::Int4Panels) => rounding::int4_panels(rows, feedback),
            _ => rounding::int8_panels(rows, feedback),
        };
        Ok(self.writer.append(name, &bytes)?)
    }

    /// What lies on a grid and stays on it.
    fn on_grid(&self) -> Option<OnGrid> {
        let t = &self.files.config.text;
        let matrices = (0..t.n_layers).flat_map(|layer| self.storage.matrices(t, layer));
        let names: Vec<String> = matrices.map(|matrix| matrix.name).collect();
        let is_kept = |tensor: &&PlannedTensor| self.storage.keeps(&tensor.name, tensor.layout);
        (self.storage.basis() == StreamBasis::Published).then(|| OnGrid {
            kept: self.plan.iter().filter(is_kept).count(),
            matrices: names.len(),
        })
    }

    /// A list of floats, as they are.
    fn floats(&mut self, name: &str, values: &[f32]) -> Result<(), PackModelError> {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.blob(name, &bytes)
    }

    /// A `[n, k]` linear without bias.
    fn linear(&self, name: &str, n: usize, k: usize) -> Result<Linear, PackModelError> {
        let weight = self.weights.read(&format!("{name}.weight"), &[n, k])?;
        Ok(Linear {
            weight,
            bias: None,
            n,
            k,
        })
    }

    fn linear_with_bias(&self, name: &str, n: usize, k: usize) -> Result<Linear, PackModelError> {
        let bias = self.weights.read(&format!("{name}.bias"), &[n])?;
        Ok(Linear {
            bias: Some(bias),
            ..self.linear(name, n, k)?
        })
    }

    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, PackModelError> {
        Ok(self.weights.read(name, &[len])?)
    }

    fn vision(
        &mut self,
        v: &VisionConfig,
        preprocess: &PreprocessConfig,
    ) -> Result<(), PackModelError> {
        let hidden = v.hidden_size;
        let rotation = Rotation::new(hidden, VISION_SEED);
        let embeddings = "model.vision_model.embeddings";

        let shape = [hidden, 3, v.patch_size, v.patch_size];
        let k = 3 * v.patch_size * v.patch_size;
        let mut patch = Linear {
            weight: self
                .weights
                .read(&format!("{embeddings}.patch_embedding.weight"), &shape)?,
            bias: Some(self.vector(&format!("{embeddings}.patch_embedding.bias"), hidden)?),
            n: hidden,
            k,
        };
        patch.fold_image_normalisation(preprocess);
        patch.centre_output();
        patch.rotate_output(&rotation);
        self.matrix("vision.patch_embed", &mut patch)?;

        let mut positions = self.weights.read(
            &format!("{embeddings}.position_embedding.weight"),
            &[v.n_patches(), hidden],
        )?;
        for row in positions.chunks_exact_mut(hidden) {
            fold::centre(row);
            rotation.rotate(row);
        }
        self.floats("vision.positions", &positions)?;

        for i in 0..v.n_layers {
            let layer = format!("model.vision_model.encoder.layers.{i}");
            let attention = format!("{layer}.self_attn");
            let parts = [
                self.linear_with_bias(&format!("{attention}.q_proj"), hidden, hidden)?,
                self.linear_with_bias(&format!("{attention}.k_proj"), hidden, hidden)?,
                self.linear_with_bias(&format!("{attention}.v_proj"), hidden, hidden)?,
            ];
            let mut qkv = Linear::stack(&parts);
            self.fold_layer_norm(&mut qkv, &format!("{layer}.layer_norm1"), hidden)?;
            qkv.rotate_input(&rotation);
            self.matrix(&format!("vision.{i}.qkv"), &mut qkv)?;

            let mut out =
                self.linear_with_bias(&format!("{attention}.out_proj"), hidden, hidden)?;
            out.centre_output();
            out.rotate_output(&rotation);
            self.matrix(&format!("vision.{i}.out"), &mut out)?;

            let mut fc1 =
                self.linear_with_bias(&format!("{layer}.mlp.fc1"), v.intermediate_size, hidden)?;
            self.fold_layer_norm(&mut fc1, &format!("{layer}.layer_norm2"), hidden)?;
            fc1.rotate_input(&rotation);
            self.matrix(&format!("vision.{i}.fc1"), &mut fc1)?;

            let mut fc2 =
                self.linear_with_bias(&format!("{layer}.mlp.fc2"), hidden, v.intermediate_size)?;
            fc2.centre_output();
            fc2.rotate_output(&rotation);
            self.matrix(&format!("vision.{i}.fc2"), &mut fc2)?;
        }
        let shuffled = hidden * v.scale_factor * v.scale_factor;
        let mut connector = self.linear(
            "model.connector.modality_projection.proj",
            self.text.width(),
            shuffled,
        )?;
        self.fold_layer_norm(&mut connector, "model.vision_model.post_layernorm", hidden)?;
        connector.rotate_input(&rotation);
        if self.storage.basis() == StreamBasis::Rotated {
            connector.rotate_output(&self.text);
        }
        self.matrix("connector", &mut connector)
    }

    /// Folds weight and bias of a LayerNorm into the linear that reads it; a linear
    /// wider than the norm reads several normalised rows side by side.
    fn fold_layer_norm(
        &self,
        linear: &mut Linear,
        norm: &str,
        hidden: usize,
    ) -> Result<(), PackModelError> {
        let weight = self.vector(&format!("{norm}.weight"), hidden)?;
        let bias = self.vector(&format!("{norm}.bias"), hidden)?;
        linear.fold_input_bias(&bias);
        linear.fold_input_scale(&weight);
        Ok(())
    }

    fn text(&mut self, options: &PackOptions) -> Result<(), PackModelError> {
        let config = self.files.config.clone();
        let t = &config.text;
        let rotation = self.text.clone();

        let embed_name = "model.text_model.embed_tokens.weight";
        let windows = calibration::windows(t, &self.storage);
        let ids = calibration::tokens(self.files, &options.calibration, windows)?;
        let x = self.embedding(embed_name, t.vocab_size, &ids)?;
        let basis = self.storage.basis();
        let arithmetic = Arithmetic::new();
        self.threads = arithmetic.pool.size();
        let mut text = (!ids.is_empty()).then(|| Calibration::new(t, self.weights, basis, x));
        for i in 0..t.n_layers {
            let rounded = self.rounded_inputs(i);
            for (input, is_rounded) in Input::ALL.into_iter().zip(rounded) {
                if let Some(text) = &mut text {
                    text.reach(&arithmetic, i, input)?;
                }
                self.reading(
                    &arithmetic,
                    i,
                    input,
                    text.as_mut().map(|text| (text, is_rounded)),
                )?;
            }
        }
        let head = if config.tie_word_embeddings {
            embed_name
        } else {
            "lm_head.weight"
        };
        let moments = text.map(|text| text.head(&arithmetic, &rotation));
        let feedback = moments.map(|moments| Feedback::new(&arithmetic, moments));
        self.head(head, t.vocab_size, feedback)
    }

    /// Which inputs of a layer are read by a matrix that is rounded.
    fn rounded_inputs(&self, layer: usize) -> [bool; 4] {
        let matrices = self.storage.matrices(&self.files.config.text, layer);
        let is_rounded = |matrix: &&LayerMatrix| {
            let planned = self.plan.iter().find(|tensor| tensor.name == matrix.name);
            planned.is_none_or(|tensor| !self.storage.keeps(&tensor.name, tensor.layout))
        };
        let mut rounded = matrices.iter().filter(is_rounded);
        let rounded: Vec<Input> = rounded.by_ref().map(|matrix| matrix.input).collect();
        Input::ALL.map(|input| rounded.contains(&input))
    }

    /// The matrices of a layer that read one input, and the norm in front of them. The text, if
    /// there is one, goes through each as it is stored; with it stands whether one is rounded.
    fn reading(
        &mut self,
        arithmetic: &Arithmetic,
        layer: usize,
        input: Input,
        mut text: Option<(&mut Calibration<'_>, bool)>,
    ) -> Result<(), PackModelError> {
        let hidden = self.text.width();
        let norm = match input.norm(layer) {
            Some((name, published)) => Some((name, self.vector(&published, hidden)?)),
            None => None,
        };
        let is_rotated = self.storage.basis() == StreamBasis::Rotated;
        if let (Some((name, weight)), false) = (&norm, is_rotated) {
            self.floats(name, weight)?;
        }
        let matrices = self.storage.matrices(&self.files.config.text, layer);
        let matrices: Vec<&LayerMatrix> = matrices.iter().filter(|m| m.input == input).collect();
        let feedback = match (&text, matrices.first()) {
            (Some((text, true)), Some(first)) => {
                let moments = text.moments(arithmetic, first.k);
                Some(Feedback::new(arithmetic, moments))
            }
            _ => None,
        };
        for matrix in matrices {
            let kept = |layout| self.storage.keeps(&matrix.name, layout);
            let is_kept = self.layout().is_some_and(kept);
            if is_kept {
                self.kept_matrix(matrix)?;
                if text.is_none() {
                    continue;
                }
            }
            let mut linear = matrix.floats(self.weights)?;
            if !is_kept {
                if let (Some((_, weight)), true) = (&norm, is_rotated) {
                    linear.fold_input_scale(weight);
                    linear.rotate_input(&self.text);
                }
                if matrix.writes_stream() && is_rotated {
                    linear.rotate_output(&self.text);
                }
                self.fed_matrix(&matrix.name, &mut linear, feedback.as_ref())?;
            }
            if let Some((text, _)) = &mut text {
                text.multiply(arithmetic, matrix, &linear.weight);
            }
        }
        Ok(())
    }

    /// A matrix that keeps the numbers of its file.
    fn kept_matrix(&mut self, matrix: &LayerMatrix) -> Result<(), PackModelError> {
        let groups = matrix.int4_groups(self.weights)?;
        let groups = groups.expect("the storage keeps what was found on a grid");
        let mut packed = vec![0; int4_panels::int4_byte_len(matrix.n(), matrix.k)];
        int4_panels::pack_int4_rows_into(&groups, None, 0, &mut packed);
        self.blob(&matrix.name, &packed)
    }

    /// The embedding table, strip by strip, in the basis of the stream, as f16. Gives the rows of `ids` in that
    /// basis. `[ids, hidden]`
    fn embedding(
        &mut self,
        name: &str,
        vocab: usize,
        ids: &[u32],
    ) -> Result<Vec<f32>, PackModelError> {
        let hidden = self.text.width();
        let mut found = vec![0f32; ids.len() * hidden];
        let mut first = 0;
        for strip in self.weights.strips(name, [vocab, hidden], STRIP_ROWS) {
            let mut rows = strip?;
            if self.storage.basis() == StreamBasis::Rotated {
                for row in rows.chunks_exact_mut(hidden) {
                    self.text.rotate(row);
                }
            }
            for (id, row) in ids.iter().zip(found.chunks_exact_mut(hidden)) {
                let at = (*id as usize).checked_sub(first);
                if let Some(of_id) = at.and_then(|at| rows.chunks_exact(hidden).nth(at)) {
                    row.copy_from_slice(of_id);
                }
            }
            first += rows.len() / hidden;
            let mut bits = vec![0u16; rows.len()];
            half::f32_to_f16(&rows, &mut bits);
            let bytes: Vec<u8> = bits.iter().flat_map(|b| b.to_le_bytes()).collect();
            self.writer.append("text.embed", &bytes)?;
        }
        self.end("text.embed")?;
        Ok(found)
    }

    /// The head, strip by strip: the last norm folded in, rotated, quantised.
    fn head(
        &mut self,
        name: &str,
        vocab: usize,
        feedback: Option<Feedback<'_>>,
    ) -> Result<(), PackModelError> {
        let hidden = self.text.width();
        let norm = self.vector("model.text_model.norm.weight", hidden)?;
        // The low plane lies behind all of the high one.
        let mut low = Vec::new();
        for strip in self.weights.strips(name, [vocab, hidden], STRIP_ROWS) {
            let weight = strip?;
            let mut rows = Linear {
                n: weight.len() / hidden,
                weight,
                bias: None,
                k: hidden,
            };
            rows.fold_input_scale(&norm);
            rows.rotate_input(&self.text);
            match self.layout() {
                Some(Layout::NibblePanels) => {
                    let high = rounding::nibble_panels(&mut rows, feedback.as_ref(), &mut low);
                    self.writer.append(HEAD, &high)?;
                }
                _ => self.append_rows(HEAD, &mut rows, feedback.as_ref())?,
            }
        }
        self.writer.append(HEAD, &low)?;
        self.end(HEAD)
    }
}
