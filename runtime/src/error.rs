//! Errors of loading a model and of running it.

use crate::constrain::GrammarError;
use crate::image::ImageError;
use crate::import::ImportError;
use crate::pack::OpenError;
use crate::packer::PackModelError;
use crate::prompt::PromptError;
use crate::tokenizer::TokenizerError;
use ocelli_kernels::ComputeError;
use std::path::PathBuf;

/// Why a model cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// Neither a pack, nor a model directory, nor a GGUF file.
    #[error("{path} is neither a pack, nor a model directory, nor a GGUF file: {what}")]
    NotAModel {
        /// What was named.
        path: PathBuf,
        /// What was found instead.
        what: String,
    },
    /// The f32 path was asked of a pack.
    #[error(
        "{origin} holds int8 weights only; --precision f32 needs the model directory or GGUF file it was packed from"
    )]
    NoFloatWeights {
        /// File or other origin of the pack.
        origin: String,
    },
    /// The pack's weights are stored in another way than asked for.
    #[error(
        "{origin} has {found} weights, not {wanted}; leave --weights out, or make another pack with \
         `ocelli pack --weights {wanted}` of the files it was packed from"
    )]
    OtherWeights {
        /// File or other origin of the pack.
        origin: String,
        /// How its weights are stored.
        found: &'static str,
        /// What was asked for.
        wanted: &'static str,
    },
    /// The pack is damaged or of another version.
    #[error(transparent)]
    Pack(#[from] OpenError),
    /// The published files are missing, damaged or of another model.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The model cannot be packed.
    #[error(transparent)]
    Packer(#[from] PackModelError),
    /// The tokenizer does not fit the model.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The chat template does not compile.
    #[error(transparent)]
    Template(#[from] PromptError),
    /// Threads or kernel cannot be had.
    #[error(transparent)]
    Compute(#[from] ComputeError),
    /// The engine refused the graph.
    #[error("cannot build the {stage} plan: {message}")]
    Plan {
        /// The stage.
        stage: &'static str,
        /// What the engine reported.
        message: String,
    },
}

/// Why a question could not be answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// A picture cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A picture was given to a model that reads text only.
    #[error(
        "this model reads text only and cannot look at a picture; use a model with a vision side \
         (for a GGUF model: give its projector file with --mmproj)"
    )]
    NoVision,
    /// The messages do not make a prompt.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// Text could not be encoded or decoded.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The prompt does not fit the context.
    #[error(
        "the prompt has {prompt} tokens ({image} of them for pictures) and {answer} are wanted for the answer, \
         together over the model's context of {limit}; use fewer or smaller pictures (--max-tiles), \
         a shorter text or a lower --max-tokens"
    )]
    PromptTooLong {
        /// Tokens of the prompt, with what the conversation holds already.
        prompt: usize,
        /// Image tokens among them.
        image: usize,
        /// Tokens wanted for the answer.
        answer: usize,
        /// Positions of the model.
        limit: usize,
    },
    /// More positions than the model has.
    #[error("{additional} more tokens after {position} do not fit the model's context of {limit}")]
    ContextFull {
        /// Positions filled.
        position: usize,
        /// Tokens that were to be added.
        additional: usize,
        /// Positions of the model.
        limit: usize,
    },
    /// Image tokens and image features do not pair up.
    #[error(
        "{rows} rows of image features for {tokens} image tokens; every image token takes one row"
    )]
    ImageRows {
        /// Rows of image features.
        rows: usize,
        /// Image tokens.
        tokens: usize,
    },
    /// Logits were asked for before any token.
    #[error("no token was appended since the start or the last truncation")]
    NothingAppended,
    /// No logit is a finite number.
    #[error(
        "the model gave no finite logit; its weights are damaged, check them with `ocelli models --verify`"
    )]
    NotFinite,
    /// The question has no choices, or one that is empty.
    #[error("choice {index} is empty; every choice needs text")]
    EmptyChoice {
        /// Which choice, from 1.
        index: usize,
    },
    /// A choice contains one of the model's own tokens.
    #[error(
        "choice {index} contains {token}, which is a token of the model; choices are plain text"
    )]
    TokenInChoice {
        /// Which choice, from 1.
        index: usize,
        /// The token.
        token: String,
    },
    /// A sampling setting is out of its range.
    #[error("{field} is {value}, allowed is {allowed}")]
    Sampling {
        /// Name of the setting.
        field: &'static str,
        /// Its value.
        value: f64,
        /// The allowed range in words.
        allowed: &'static str,
    },
    /// A question was asked before a picture was shown.
    #[error("no picture was shown to this session; see one before asking about it")]
    NoPicture,
    /// Two answers of a closed question are spelt the same.
    #[error(
        "choices {first} and {second} are the same to the model: {text:?}; every choice needs its own words"
    )]
    SameChoice {
        /// Which choice, from 1.
        first: usize,
        /// The other one, from 1.
        second: usize,
        /// What both say.
        text: String,
    },
    /// A constrained answer cannot be finished within the tokens allowed.
    #[error(
        "the shortest answer of this form takes {needed} tokens, {allowed} are allowed; \
         allow more tokens or ask for less"
    )]
    AnswerBudget {
        /// Tokens of the shortest answer.
        needed: usize,
        /// Tokens allowed.
        allowed: usize,
    },
    /// The vocabulary cannot write what a constrained answer must contain.
    #[error("the tokens of this model cannot write the shortest answer of this form, {text:?}")]
    NoTokens {
        /// The shortest answer.
        text: String,
    },
    /// The form of a constrained answer is wrong.
    #[error(transparent)]
    Grammar(#[from] GrammarError),
    /// The deadline of the work passed.
    #[error("the deadline passed")]
    DeadlinePassed,
    /// The caller cancelled.
    #[error("cancelled")]
    Cancelled,
    /// The engine failed.
    #[error("{stage} failed: {message}")]
    Engine {
        /// The stage.
        stage: &'static str,
        /// What the engine reported.
        message: String,
    },
}
