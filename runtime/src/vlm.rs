//! A loaded model: where it came from, what it is, and how conversations start on it.

use crate::config::{GenerationConfig, ModelConfig, ModelFiles, PreprocessConfig};
use crate::constrain::TokenTrie;
use crate::engine::int8::Int8Model;
use crate::error::LoadError;
use crate::import::safetensors::Checkpoint;
use crate::pack::Pack;
use crate::packer;
use crate::prompt::ChatTemplate;
use crate::reference::ReferenceModel;
use crate::session::Session;
use crate::tokenizer::Tokenizer;
use crate::weights::Region;
use ocelli_kernels::Compute;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// Where a model is.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelSource {
    /// A pack compiled into the program, and its name.
    Embedded(&'static str, &'static [u8]),
    /// A pack file or a Hugging Face style directory.
    Path(PathBuf),
}

/// Which arithmetic runs the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// int8 weights and activations, the product.
    #[default]
    Int8,
    /// Plain f32, slow: the checking path. Needs a model directory.
    F32,
}

impl Precision {
    /// The name used on the command line and in JSON output.
    pub fn name(self) -> &'static str {
        match self {
            Precision::Int8 => "int8",
            Precision::F32 => "f32",
        }
    }
}

/// How a model is loaded.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadOptions {
    /// Threads of the matrix kernels, at least 1.
    pub threads: usize,
    /// Which arithmetic.
    pub precision: Precision,
    /// Whether every tensor's checksum is compared, which reads the whole pack.
    pub verify: bool,
}

/// The parts of a model that every conversation reads.
#[derive(Debug)]
pub struct Model {
    pub(crate) config: ModelConfig,
    pub(crate) preprocess: PreprocessConfig,
    pub(crate) generation: GenerationConfig,
    pub(crate) template: ChatTemplate,
    pub(crate) tokenizer: Tokenizer,
    /// Made when the first constrained answer wants it.
    pub(crate) trie: OnceLock<TokenTrie>,
}

impl Model {
    /// The tokens of ordinary text by their bytes.
    pub(crate) fn trie(&self) -> &TokenTrie {
        self.trie
            .get_or_init(|| TokenTrie::new(self.tokenizer.text_tokens()))
    }
}

#[derive(Debug)]
enum Weights {
    Int8 { model: Int8Model, pack: Arc<Pack> },
    F32(Arc<ReferenceModel>),
}

/// A loaded model.
#[derive(Debug)]
pub struct Vlm {
    name: String,
    model: Arc<Model>,
    weights: Weights,
    compute: Arc<Compute>,
}

impl Vlm {
    /// Loads a model. A directory is packed in memory first, and `progress` hears
    /// how many of its tensors are done.
    ///
    /// # Errors
    ///
    /// See [`LoadError`]; nothing is written.
    pub fn load(
        source: &ModelSource,
        options: &LoadOptions,
        progress: packer::Progress<'_>,
    ) -> Result<Vlm, LoadError> {
        let compute = Arc::new(Compute::new(options.threads)?);
        if let (ModelSource::Path(path), Precision::F32) = (source, options.precision)
            && path.is_dir()
        {
            return Vlm::load_f32(path, compute);
        }
        let pack = match source {
            ModelSource::Embedded(name, bytes) => Pack::from_region(
                Region::from_static(bytes),
                &format!("the embedded model {name}"),
            )?,
            ModelSource::Path(path) if path.is_dir() => {
                let bytes =
                    packer::pack_directory(path, Cursor::new(Vec::new()), progress)?.into_inner();
                Pack::from_region(Region::from_vec(bytes), &path.display().to_string())?
            }
            ModelSource::Path(path) if path.is_file() => Pack::open(path)?,
            ModelSource::Path(path) => {
                return Err(LoadError::NotAModel {
                    path: path.clone(),
                    what: "no such file or directory".to_owned(),
                });
            }
        };
        if options.precision == Precision::F32 {
            return Err(LoadError::NoFloatWeights {
                origin: pack.origin().to_owned(),
            });
        }
        if options.verify {
            pack.verify()?;
        }
        Vlm::from_pack(Arc::new(pack), compute)
    }

    /// Uses an opened pack.
    ///
    /// # Errors
    ///
    /// A tokenizer or template that does not fit, a tensor that is missing.
    pub fn from_pack(pack: Arc<Pack>, compute: Arc<Compute>) -> Result<Vlm, LoadError> {
        let header = pack.header();
        let model = Model {
            tokenizer: Tokenizer::from_bytes(
                pack.blob("tokenizer.json")?,
                &header.config,
                &header.generation,
            )?,
            template: ChatTemplate::new(header.chat_template.clone())?,
            config: header.config.clone(),
            preprocess: header.preprocess.clone(),
            generation: header.generation.clone(),
            trie: OnceLock::new(),
        };
        Ok(Vlm {
            name: header.name.clone(),
            model: Arc::new(model),
            weights: Weights::Int8 {
                model: Int8Model::new(pack.clone(), compute.clone())?,
                pack,
            },
            compute,
        })
    }

    fn load_f32(dir: &Path, compute: Arc<Compute>) -> Result<Vlm, LoadError> {
        let files = ModelFiles::read(dir)?;
        let checkpoint = Checkpoint::open(dir)?;
        let weights = ReferenceModel::load(&files, &checkpoint, compute.clone())?;
        let tokenizer =
            Tokenizer::from_bytes(&files.tokenizer_json, &files.config, &files.generation)?;
        Ok(Vlm {
            name: dir.display().to_string(),
            model: Arc::new(Model {
                tokenizer,
                template: ChatTemplate::new(files.chat_template)?,
                config: files.config,
                preprocess: files.preprocess,
                generation: files.generation,
                trie: OnceLock::new(),
            }),
            weights: Weights::F32(Arc::new(weights)),
            compute,
        })
    }

    /// Starts a conversation.
    ///
    /// # Errors
    ///
    /// An engine that cannot start.
    pub fn session(&self) -> Result<Session, LoadError> {
        Ok(match &self.weights {
            Weights::Int8 { model, .. } => {
                Session::new(self.model.clone(), Box::new(model.start()?))
            }
            Weights::F32(model) => Session::new(self.model.clone(), Box::new(model.start())),
        })
    }

    /// Name of the model.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Shapes of the model.
    pub fn config(&self) -> &ModelConfig {
        &self.model.config
    }

    /// Picture preprocessing of the model.
    pub fn preprocess(&self) -> &PreprocessConfig {
        &self.model.preprocess
    }

    /// Stop tokens and sampling defaults of the model.
    pub fn generation(&self) -> &GenerationConfig {
        &self.model.generation
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.model.tokenizer
    }

    /// The pack behind an int8 model.
    pub fn pack(&self) -> Option<&Pack> {
        match &self.weights {
            Weights::Int8 { pack, .. } => Some(pack),
            Weights::F32(_) => None,
        }
    }

    /// SHA-256 that names the model: of the pack's header, in which every weight has its checksum.
    /// `None` for the f32 path, which has no pack.
    pub fn sha256(&self) -> Option<[u8; 32]> {
        self.pack().map(Pack::header_sha256)
    }

    /// Name of the matrix kernel in use.
    pub fn kernel_name(&self) -> &'static str {
        match &self.weights {
            Weights::Int8 { .. } => self.compute.kernel_name(),
            Weights::F32(_) => "f32",
        }
    }

    /// Threads in use.
    pub fn n_threads(&self) -> usize {
        self.compute.n_threads()
    }
}
