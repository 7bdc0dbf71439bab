//! [`Entry`]: what the agent writes into its journal.
//!
//! Enough is written to do everything again: the rules, the state at the begin, every observation
//! with its time, and for every answer the picture's hash, the prompt and the tokens. The order of
//! variants and fields is the format: new ones go to the end.

use crate::journal::record::Hash;
use ocelli_reflex::observation::Stage;
use ocelli_reflex::{Now, Observation, Outputs, QuestionId};
use serde::{Deserialize, Serialize};

/// Longest piece of a rule file in one entry, in bytes.
pub const MAX_RULES_PART_BYTES: usize = 64 << 10;

/// One entry of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Entry {
    /// The agent began; written again now and then, so that a replay can begin there.
    Began(Box<Began>),
    /// A piece of the rule file that the next [`Entry::Began`] or [`Entry::Step`] is under.
    Rules(RulesPart),
    /// One call of the step function.
    Step(Box<Step>),
    /// How an answer came about; the [`Entry::Step`] with the answer follows.
    Answered(Box<Answered>),
    /// A picture was kept.
    Kept(Kept),
    /// Something that a reader of the journal should know and no step has seen.
    Remark(Remark),
    /// The agent ended in order.
    Ended,
}

impl Entry {
    /// Number of the kind, for readers that do not know the type.
    pub fn kind(&self) -> u8 {
        match self {
            Entry::Began(_) => 1,
            Entry::Rules(_) => 2,
            Entry::Step(_) => 3,
            Entry::Answered(_) => 4,
            Entry::Kept(_) => 5,
            Entry::Remark(_) => 6,
            Entry::Ended => 7,
        }
    }
}

/// Begin of a run of the agent, or a later point of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Began {
    /// Version of the program.
    pub version: String,
    /// Name of the device.
    pub device: String,
    /// Name of the board.
    pub board: String,
    /// SHA-256 of the configuration file.
    pub configuration: Hash,
    /// The model; `None` if it could not be used.
    pub model: Option<ModelIdentity>,
    /// Fingerprint of the rule file in force.
    pub rules: u64,
    /// Postcard bytes of the [`ocelli_reflex::State`] the first step starts from.
    pub state: Vec<u8>,
    /// What the opening of the journal had to cut off or found damaged; empty if nothing.
    pub recovered: String,
    /// Nothing is carried out, whatever the rule file says.
    pub dry_run: bool,
}

/// Which weights, on which kernels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelIdentity {
    /// Name of the model.
    pub name: String,
    /// SHA-256 that names its weights and settings.
    pub sha256: Hash,
    /// Name of the kernel.
    pub kernel: String,
}

/// A piece of a rule file; pieces follow each other without gap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesPart {
    /// Fingerprint of the whole file.
    pub fingerprint: u64,
    /// Number of the piece, from 0.
    pub part: u8,
    /// How many pieces there are.
    pub parts: u8,
    /// The piece.
    pub text: String,
}

/// One call of the step function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// When.
    pub now: Now,
    /// Fingerprint of the rules it was called with.
    pub rules: u64,
    /// What happened.
    pub observation: Observation,
    /// What the step wanted done.
    pub outputs: Outputs,
}

/// How an answer came about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answered {
    /// The question.
    pub question: QuestionId,
    /// Name of the rule that asked; empty if a person did.
    pub rule: String,
    /// First or last word.
    pub stage: Stage,
    /// The camera's number of the picture.
    pub frame: u64,
    /// SHA-256 of width, height (u32, little endian) and the RGB bytes shown to the model.
    pub frame_sha256: Hash,
    /// Name of the kept picture that decodes to these bytes, if one is kept.
    pub picture: Option<String>,
    /// Who answered.
    pub by: Answerer,
    /// The question as asked.
    pub prompt: String,
    /// What it was to be answered with.
    pub form: AnswerForm,
    /// Most image tiles of the picture; `None` as the model asks, 0 global view only.
    pub max_tiles: Option<u32>,
    /// Tokens of the prompt, image tokens included.
    pub prompt_tokens: u32,
    /// Tokens of the answer; empty where choices were scored.
    pub tokens: Vec<u32>,
    /// Probability of each of them when it was chosen.
    pub token_probabilities: Vec<f32>,
    /// Log probability of each choice, before any calibration.
    pub choice_scores: Vec<f64>,
    /// Probability of each choice, after calibration.
    pub choice_probabilities: Vec<f32>,
    /// The answer in words.
    pub text: String,
    /// Its probability.
    pub probability: f32,
    /// The model abstained.
    pub unsure: bool,
    /// Milliseconds of encoder, prefill and decode.
    pub time_ms: [f32; 3],
    /// Joules it cost, and whether they were measured rather than estimated.
    pub joules: Option<(f32, bool)>,
    /// Instructions before the picture.
    pub system: Option<String>,
}

/// Who answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answerer {
    /// The model of this device.
    Local(ModelIdentity),
    /// A remote model: its address and name.
    Remote {
        /// Address.
        url: String,
        /// Model.
        model: String,
    },
}

/// Form of an answer, with everything needed to ask for it again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AnswerForm {
    /// One of these.
    Choices(Vec<String>),
    /// A number from the first to the second.
    Count(u32, u32),
    /// Free text of at most so many tokens.
    Caption(u16),
    /// JSON after this schema, of at most so many tokens.
    Schema(String, u16),
}

/// A picture was kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Name of its file.
    pub name: String,
    /// The camera's number of the picture.
    pub frame: u64,
    /// The event it belongs to; 0 if none.
    pub event: u64,
    /// Size of the file in bytes.
    pub n_bytes: u64,
}

/// Something that no step has seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remark {
    /// What it is about, e.g. `mqtt`, `serial`, `camera`, `journal`, `hook`.
    pub about: String,
    /// What happened.
    pub text: String,
}
