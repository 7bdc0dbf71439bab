//! A loaded model: where it came from, what it is, and how conversations start on it.

use crate::config::{GenerationConfig, ModelConfig, PreprocessConfig};
use crate::constrain::TokenTrie;
use crate::engine::int8::Int8Model;
use crate::engine::trial;
use crate::error::LoadError;
use crate::import::onnx::Variant;
use crate::import::{ImportError, Published};
use crate::memory::Shortage;
use crate::pack::{Pack, WeightScheme};
use crate::packer::{self, CalibrationText, PackOptions};
use crate::probe::{Depth, ProbeError, Probes};
use crate::prompt::ChatTemplate;
use crate::reference::ReferenceModel;
use crate::session::Session;
use crate::threads::{ThreadLimit, ThreadPlan, Trials};
use crate::tokenizer::Tokenizer;
use crate::weights::Region;
use ocelli_kernels::Compute;
use std::io::Cursor;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// Where a model is.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelSource {
    /// A pack compiled into the program, and its name.
    Embedded(&'static str, &'static [u8]),
    /// A pack file, a Hugging Face style directory, or a GGUF file.
    Path(PathBuf),
    /// A GGUF file and its projector file.
    WithProjector(PathBuf, PathBuf),
    /// A model directory and which of its ONNX files to take.
    WithVariant(PathBuf, Variant),
}

/// Which arithmetic runs the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// int8 weights and activations, the product.
    #[default]
    Int8,
    /// Plain f32, slow: the checking path. Needs a model directory or a GGUF file.
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
    /// How the decoder's matrices are stored: what a directory or GGUF file is packed to, if `None`
    /// on the 4-bit grid they have there, else int8; and what a pack must have.
    pub weights: Option<WeightScheme>,
    /// Whether every tensor's checksum is compared, which reads the whole pack.
    pub verify: bool,
}

impl Default for LoadOptions {
    /// One thread, int8 arithmetic, the weights a pack has, checksums not compared.
    fn default() -> LoadOptions {
        LoadOptions {
            threads: 1,
            precision: Precision::default(),
            weights: None,
            verify: false,
        }
    }
}

/// The parts of a model that every conversation reads.
#[derive(Debug)]
pub struct Model {
    pub(crate) config: ModelConfig,
    pub(crate) preprocess: Option<PreprocessConfig>,
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
    threads: ThreadPlan,
}

impl Vlm {
    /// Loads a model. A directory or a GGUF file is packed in memory first, and `progress` hears
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
        if let Some(model) = published(source)? {
            if options.precision == Precision::F32 {
                return Vlm::load_f32(model, compute);
            }
            let (files, weights) = (&model.files, &*model.weights);
            // Packing for one run alone is to be quick.
            let pack_options = PackOptions {
                calibration: CalibrationText::None,
                weights: options.weights,
                ..PackOptions::default()
            };
            let out = Cursor::new(Vec::new());
            let packed =
                packer::pack_model(&model.name, files, weights, &pack_options, out, progress)?;
            let region = Region::from_vec(packed.out.into_inner());
            return Vlm::from_pack(Arc::new(Pack::from_region(region, &model.name)?), compute);
        }
        let pack = match source {
            ModelSource::Embedded(name, bytes) => Pack::from_region(
                Region::from_static(bytes),
                &format!("the embedded model {name}"),
            )?,
            ModelSource::Path(path)
            | ModelSource::WithProjector(path, _)
            | ModelSource::WithVariant(path, _) => Pack::open(path)?,
        };
        if options.precision == Precision::F32 {
            return Err(LoadError::NoFloatWeights {
                origin: pack.origin().to_owned(),
            });
        }
        if let Some(wanted) = options.weights.filter(|wanted| *wanted != pack.weights()) {
            return Err(LoadError::OtherWeights {
                origin: pack.origin().to_owned(),
                found: pack.weights().name(),
                wanted: wanted.name(),
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
            tokenizer: Tokenizer::from_pack(&pack)?,
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
            threads: ThreadPlan::given(compute.n_threads()),
            compute,
        })
    }

    fn load_f32(model: Published, compute: Arc<Compute>) -> Result<Vlm, LoadError> {
        let files = model.files;
        let weights = ReferenceModel::load(&files, &*model.weights, compute.clone())?;
        let tokenizer =
            Tokenizer::from_bytes(&files.tokenizer_json, &files.config, &files.generation)?;
        Ok(Vlm {
            name: model.name,
            model: Arc::new(Model {
                tokenizer,
                template: ChatTemplate::new(files.chat_template)?,
                config: files.config,
                preprocess: files.preprocess,
                generation: files.generation,
                trie: OnceLock::new(),
            }),
            weights: Weights::F32(Arc::new(weights)),
            threads: ThreadPlan::given(compute.n_threads()),
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

    /// Picture preprocessing of the model; `None` if it reads text only.
    pub fn preprocess(&self) -> Option<&PreprocessConfig> {
        self.model.preprocess.as_ref()
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

    /// How the weights are stored: `int8`, `int4` or `f32`. Of `int4` only the decoder's are.
    pub fn weights_name(&self) -> &'static str {
        self.pack().map_or("f32", |pack| pack.weights().name())
    }

    /// Whether memory cannot hold the pack now. Work goes on, but its pages are read again and
    /// again.
    pub fn shortage(&self) -> Option<Shortage> {
        let pack = self.pack().filter(|pack| pack.is_file_backed())?;
        Shortage::of(pack.len())
    }

    /// SHA-256 that names the model: of the pack's header, in which every weight has its checksum.
    /// `None` for the f32 path, which has no pack.
    pub fn sha256(&self) -> Option<[u8; 32]> {
        self.pack().map(Pack::header_sha256)
    }

    /// Runs the probes of the pack on the kernels in use; false if there are none to run.
    ///
    /// # Errors
    ///
    /// [`ProbeError`] for the first that does not hold.
    pub fn check_probes(&self, depth: Depth) -> Result<bool, ProbeError> {
        let Weights::Int8 { pack, .. } = &self.weights else {
            return Ok(false);
        };
        match Probes::of(pack)? {
            Some(probes) => probes.check(pack, &self.compute, depth).map(|()| true),
            None => Ok(false),
        }
    }

    /// Name of the matrix kernel in use.
    pub fn kernel_name(&self) -> &'static str {
        match &self.weights {
            Weights::Int8 { .. } => self.compute.kernel_name(),
            Weights::F32(_) => "f32",
        }
    }

    /// Threads of the pool; a phase may use fewer.
    pub fn n_threads(&self) -> usize {
        self.compute.pool().size()
    }

    /// Measures a piece of each phase on these numbers of threads, each at most
    /// [`Vlm::n_threads`]: some tens of milliseconds. `None` for the f32 path, which nobody waits
    /// for.
    ///
    /// # Errors
    ///
    /// A tensor that is missing or of another shape.
    pub fn try_threads(&self, candidates: &[usize]) -> Result<Option<Trials>, LoadError> {
        match &self.weights {
            Weights::Int8 { pack, .. } => trial::trials(pack, &self.compute, candidates).map(Some),
            Weights::F32(_) => Ok(None),
        }
    }

    /// How many threads each phase uses.
    pub fn thread_plan(&self) -> &ThreadPlan {
        &self.threads
    }

    /// Gives each phase of conversations that start from now on its number of threads. The f32 path
    /// takes no notice.
    pub fn set_thread_plan(&mut self, plan: ThreadPlan) {
        if let Weights::Int8 { model, .. } = &mut self.weights {
            model.crew.threads = plan.threads;
            self.threads = plan;
        }
    }

    /// Sets what may lower the number of threads of conversations that start from now on. The f32
    /// path takes no notice.
    pub fn set_thread_limit(&mut self, limit: Option<ThreadLimit>) {
        if let Weights::Int8 { model, .. } = &mut self.weights {
            model.crew.limit = limit;
        }
    }
}

/// Opens what is no pack: a model directory, or a GGUF file with or without its projector.
fn published(source: &ModelSource) -> Result<Option<Published>, LoadError> {
    let (path, mmproj, variant) = match source {
        ModelSource::Embedded(..) => return Ok(None),
        ModelSource::Path(path) => (path, None, None),
        ModelSource::WithProjector(path, mmproj) => (path, Some(mmproj.as_path()), None),
        ModelSource::WithVariant(path, variant) => (path, None, Some(*variant)),
    };
    if !path.is_dir() && !path.is_file() {
        let what = match path.exists() {
            true => "it is a device or a pipe, which cannot be mapped; name a file",
            false => "no such file or directory",
        };
        return Err(LoadError::NotAModel {
            path: path.clone(),
            what: what.to_owned(),
        });
    }
    if Published::is_at(path) {
        return Ok(Some(Published::open(path, mmproj, variant)?));
    }
    match (mmproj, variant) {
        (Some(mmproj), _) => Err(LoadError::Import(ImportError::LoneProjector {
            mmproj: mmproj.to_owned(),
            model: path.clone(),
        })),
        (None, Some(variant)) => Err(LoadError::Import(ImportError::LoneVariant {
            variant,
            model: path.clone(),
        })),
        (None, None) => Ok(None),
    }
}
