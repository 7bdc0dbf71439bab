//! [`Job`]: a question about a picture, and [`Thought`], what became of it.

use crate::entry::{AnswerForm, Answered};
use ocelli_reflex::QuestionId;
use ocelli_reflex::observation::Value;
use ocelli_runtime::image::Rgb8;
use std::sync::Arc;
use std::time::Instant;

/// A question about a picture.
#[derive(Clone, Debug)]
pub struct Job {
    /// The question's id; answers carry it.
    pub question: QuestionId,
    /// Name of the rule that asks; empty if a person does.
    pub rule: String,
    /// The camera's number of the picture. Jobs about one picture share the work on it.
    pub frame: u64,
    /// The picture.
    pub picture: Arc<Rgb8>,
    /// What is asked.
    pub prompt: String,
    /// Form of the answer. A model that picks an action is asked for a choice.
    pub form: AnswerForm,
    /// Most image tiles of the picture; `None` as the model asks, 0 global view only.
    pub max_tiles: Option<usize>,
    /// Whether a first answer from the global view is wanted before the refined one. There is none
    /// if the refined one sees no more than the global view.
    pub early: bool,
    /// Higher goes first.
    pub priority: u8,
    /// When the answer is of no use any more.
    pub deadline: Instant,
}

/// What became of a job: one of these for each answer, or one that says why there is none.
#[derive(Clone, Debug, PartialEq)]
pub struct Thought {
    /// The question's id.
    pub question: QuestionId,
    /// The answer, or why there is none. After a failure nothing more comes.
    pub result: Result<Box<Conclusion>, Failure>,
}

/// An answer and how it came about.
#[derive(Clone, Debug, PartialEq)]
pub struct Conclusion {
    /// For the journal. Its `picture` and `joules` are empty: who keeps the picture and reads the
    /// meter fills them in. Its `text` is whole where that of `value` may be cut.
    pub answered: Answered,
    /// For the step.
    pub value: Value,
    /// Every field of a schema with its probability, in order; else empty.
    pub fields: Vec<FieldFinding>,
}

/// A field of a schema's document.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldFinding {
    /// Where it stands, e.g. `items[].name`.
    pub path: String,
    /// Its value as JSON.
    pub json: String,
    /// Probability of the value.
    pub probability: f64,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The model failed, which says nothing about the question. The loop should report
    /// [`ocelli_reflex::observation::Fault::ModelRefused`].
    #[error("the model failed: {0}")]
    Engine(String),
    /// The question cannot be asked this way; asking again will fail again.
    #[error("the question cannot be asked: {0}")]
    Question(String),
    /// The deadline passed.
    #[error("the deadline passed before there was an answer")]
    Deadline,
    /// It was cancelled.
    #[error("it was cancelled")]
    Cancelled,
    /// The queue was full, and this job the least important and oldest.
    #[error("{waiting} questions wait already, and this one was the least important")]
    Dropped {
        /// Capacity of the queue.
        waiting: usize,
    },
}

#[cfg(test)]
impl Job {
    /// The record of an answer that says nothing.
    pub(crate) fn answered(&self, stage: ocelli_reflex::observation::Stage) -> Answered {
        use crate::entry::{Answerer, ModelIdentity};
        Answered {
            question: self.question,
            rule: self.rule.clone(),
            stage,
            frame: self.frame,
            frame_sha256: [0; 32],
            picture: None,
            by: Answerer::Local(ModelIdentity::default()),
            prompt: self.prompt.clone(),
            form: self.form.clone(),
            max_tiles: None,
            prompt_tokens: 0,
            tokens: Vec::new(),
            token_probabilities: Vec::new(),
            choice_scores: Vec::new(),
            choice_probabilities: Vec::new(),
            text: String::new(),
            probability: 0.0,
            unsure: false,
            time_ms: [0.0; 3],
            joules: None,
            system: None,
        }
    }
}
