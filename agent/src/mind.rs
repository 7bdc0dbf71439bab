//! The model as part of the agent: a picture and a question in, an answer out.
//!
//! | file | defines |
//! |---|---|
//! | this one | [`Mind`]: answers jobs one by one |
//! | [`job`] | [`Job`], and [`Thought`], what became of it |
//! | [`judgement`] | [`Judgement`]: from scores of choices to probabilities, or no answer |
//! | [`spelling`] | how a choice or a number may be written |
//! | `queue` | which job is next |
//! | [`thinker`] | [`Thinker`]: a mind on a thread of its own |
//!
//! Questions about one picture share the work on it. An answer does not depend on what was asked
//! before: the same job gives the same tokens and the same probabilities on the same kernel.

pub mod job;
pub mod judgement;
mod queue;
pub mod spelling;
pub mod thinker;

pub use job::{Conclusion, Failure, FieldFinding, Job, Thought};
pub use judgement::Judgement;
pub use thinker::{Brain, Thinker};

use crate::entry::{AnswerForm, Answered, Answerer, ModelIdentity};
use crate::fault::with_causes;
use crate::journal::record::Hash;
use judgement::Judged;
use ocelli_reflex::Text;
use ocelli_reflex::observation::{Stage, Value};
use ocelli_runtime::constrain::Field;
use ocelli_runtime::image::{Rgb8, TileLayout};
use ocelli_runtime::{
    CancelFlag, GenerateOptions, Grammar, LoadError, PictureRequest, PromptStats, RunError,
    Session, Vlm,
};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Counts of at most so many numbers are scored number by number; wider ranges are written digit
/// by digit.
pub const MOST_SCORED_NUMBERS: u32 = 32;
/// Tokens kept free for a choice or a number.
const CLOSED_TOKENS: usize = 32;
/// Grammars and priors that are kept; rules have few.
const MOST_KEPT: usize = 256;

/// How a [`Mind`] answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MindSettings {
    /// Instructions before every picture.
    pub system: Option<String>,
    /// How scores become probabilities.
    pub judgement: Judgement,
}

/// Answers jobs with a model.
#[derive(Debug)]
pub struct Mind {
    vlm: Arc<Vlm>,
    session: Session,
    settings: MindSettings,
    identity: ModelIdentity,
    /// What the session looks at.
    seen: Option<(Hash, TileLayout)>,
    /// The picture of the last job and its hash.
    hashed: Option<(Arc<Rgb8>, Hash)>,
    grammars: HashMap<String, Arc<Grammar>>,
    /// Scores of choices on a picture without content, and the session that looks at it.
    priors: HashMap<(String, AnswerForm, Option<usize>), Vec<f64>>,
    blank: Option<Session>,
}

/// What an answer says, whatever its form.
#[derive(Debug, Default)]
struct Said {
    value: Value,
    text: String,
    tokens: Vec<u32>,
    token_probabilities: Vec<f32>,
    choice_scores: Vec<f64>,
    choice_probabilities: Vec<f32>,
    probability: f64,
    unsure: bool,
    fields: Vec<FieldFinding>,
}

impl Mind {
    /// Starts on a loaded model.
    ///
    /// # Errors
    ///
    /// An engine that cannot start.
    pub fn new(vlm: Arc<Vlm>, settings: MindSettings) -> Result<Mind, LoadError> {
        Ok(Mind {
            session: vlm.session()?,
            identity: identity(&vlm),
            vlm,
            settings,
            seen: None,
            hashed: None,
            grammars: HashMap::new(),
            priors: HashMap::new(),
            blank: None,
        })
    }

    /// Which model answers.
    pub fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    /// Answers a job: the early answer, if one is wanted and sees less than the refined one, then
    /// the refined one; or a failure, after which nothing comes.
    pub fn answer(&mut self, job: &Job, tell: &mut dyn FnMut(Thought)) {
        let cancel = CancelFlag::until(job.deadline);
        let stages = match job.early {
            true => &[Stage::Early, Stage::Refined][..],
            false => &[Stage::Refined],
        };
        for stage in stages {
            let Some(thought) = self.think(job, *stage, &cancel) else {
                continue;
            };
            let failed = thought.result.is_err();
            tell(thought);
            if failed {
                return;
            }
        }
    }

    fn layout(&self, picture: &Rgb8, max_tiles: Option<usize>) -> Result<TileLayout, RunError> {
        let (width, height) = (picture.width(), picture.height());
        let preprocess = self.vlm.preprocess().ok_or(RunError::NoVision)?;
        Ok(TileLayout::of(width, height, preprocess, max_tiles))
    }

    fn conclude(
        &mut self,
        job: &Job,
        stage: Stage,
        max_tiles: Option<usize>,
    ) -> Result<Conclusion, RunError> {
        let frame_sha256 = self.hash(&job.picture);
        let seeing = self.look(job, max_tiles, frame_sha256)?;
        let asked = self
            .session
            .question(&job.prompt, answer_tokens(&job.form), &mut |_| {})?;
        let start = Instant::now();
        let said = self.say(job, max_tiles)?;
        let decode = start.elapsed();
        let ms = |duration: Duration| duration.as_secs_f32() * 1e3;
        let answered = Answered {
            question: job.question,
            rule: job.rule.clone(),
            stage,
            frame: job.frame,
            frame_sha256,
            picture: None,
            by: Answerer::Local(self.identity.clone()),
            prompt: job.prompt.clone(),
            form: job.form.clone(),
            max_tiles: max_tiles.map(|tiles| u32::try_from(tiles).unwrap_or(u32::MAX)),
            prompt_tokens: u32::try_from(asked.prompt_tokens).unwrap_or(u32::MAX),
            tokens: said.tokens,
            token_probabilities: said.token_probabilities,
            choice_scores: said.choice_scores,
            choice_probabilities: said.choice_probabilities,
            text: said.text,
            probability: said.probability as f32,
            unsure: said.unsure,
            time_ms: [
                ms(seeing.preprocess + seeing.encode),
                ms(seeing.prefill + asked.prefill),
                ms(decode),
            ],
            joules: None,
            system: self.settings.system.clone(),
        };
        Ok(Conclusion {
            answered,
            value: said.value,
            fields: said.fields,
        })
    }

    /// Looks at the job's picture, unless the session does.
    fn look(
        &mut self,
        job: &Job,
        max_tiles: Option<usize>,
        hash: Hash,
    ) -> Result<PromptStats, RunError> {
        let view = (hash, self.layout(&job.picture, max_tiles)?);
        if self.seen == Some(view) {
            return Ok(PromptStats::default());
        }
        self.seen = None;
        let request = PictureRequest {
            system: self.settings.system.as_deref(),
            image: &job.picture,
            max_tiles,
        };
        let stats = self.session.see(&request, &mut |_| {})?;
        self.seen = Some(view);
        Ok(stats)
    }

    /// Hash of a picture: width, height and bytes.
    fn hash(&mut self, picture: &Arc<Rgb8>) -> Hash {
        if let Some((known, hash)) = &self.hashed
            && Arc::ptr_eq(known, picture)
        {
            return *hash;
        }
        let hash = picture_sha256(picture);
        self.hashed = Some((picture.clone(), hash));
        hash
    }

    fn say(&mut self, job: &Job, max_tiles: Option<usize>) -> Result<Said, RunError> {
        match &job.form {
            AnswerForm::Choices(choices) => self.choose(job, choices, max_tiles),
            AnswerForm::Count(low, high) => match high.checked_sub(*low) {
                Some(0..MOST_SCORED_NUMBERS) => self.count(*low, *high),
                _ => self.number(*low, *high),
            },
            AnswerForm::Caption(max_tokens) => self.caption(usize::from(*max_tokens)),
            AnswerForm::Schema(schema, max_tokens) => self.fields(schema, usize::from(*max_tokens)),
        }
    }

    fn choose(
        &mut self,
        job: &Job,
        choices: &[String],
        max_tiles: Option<usize>,
    ) -> Result<Said, RunError> {
        let answers: Vec<Vec<String>> = choices.iter().map(|c| spelling::of_text(c)).collect();
        let scores = self.session.weigh(&answers)?;
        let prior = match self.settings.judgement.prior_weight > 0.0 {
            true => Some(self.prior(job, &answers, max_tiles)?),
            false => None,
        };
        let judged = self.settings.judgement.judge(&scores, prior.as_deref());
        let text = choices.get(judged.best).cloned().unwrap_or_default();
        // The rules know at most 8 choices.
        let value = u8::try_from(judged.best).map_or(Value::Nothing, Value::Choice);
        Ok(closed(scores, judged, value, text))
    }

    /// Scores of choices on a picture without content, once for each question.
    fn prior(
        &mut self,
        job: &Job,
        answers: &[Vec<String>],
        max_tiles: Option<usize>,
    ) -> Result<Vec<f64>, RunError> {
        let key = (job.prompt.clone(), job.form.clone(), max_tiles);
        if let Some(known) = self.priors.get(&key) {
            return Ok(known.clone());
        }
        let blank = match &mut self.blank {
            Some(blank) => blank,
            empty => empty.insert(self.vlm.session().map_err(|error| RunError::Engine {
                stage: "start",
                message: error.to_string(),
            })?),
        };
        let picture = judgement::blank_picture()?;
        let request = PictureRequest {
            system: self.settings.system.as_deref(),
            image: &picture,
            max_tiles,
        };
        blank.see(&request, &mut |_| {})?;
        blank.question(&job.prompt, CLOSED_TOKENS, &mut |_| {})?;
        let prior = blank.weigh(answers)?;
        keep(&mut self.priors, key, prior.clone());
        Ok(prior)
    }

    /// A count by scoring every number of the range.
    fn count(&mut self, low: u32, high: u32) -> Result<Said, RunError> {
        let answers: Vec<Vec<String>> = (low..=high).map(spelling::of_number).collect();
        let scores = self.session.weigh(&answers)?;
        let judged = self.settings.judgement.judge(&scores, None);
        let number = low + u32::try_from(judged.best).unwrap_or_default();
        Ok(closed(
            scores,
            judged,
            Value::Count(number),
            number.to_string(),
        ))
    }

    /// A count of a wide range, digit by digit.
    fn number(&mut self, low: u32, high: u32) -> Result<Said, RunError> {
        let grammar = Grammar::integer(i64::from(low), i64::from(high))?;
        let written = self.session.write(&grammar, CLOSED_TOKENS)?;
        let number = written.text.parse();
        Ok(Said {
            value: number.map_or(Value::Nothing, Value::Count),
            probability: written.probability(),
            unsure: self.settings.judgement.is_unsure(written.probability()),
            text: written.text,
            tokens: written.tokens,
            token_probabilities: written.probabilities,
            ..Said::default()
        })
    }

    /// Free text. Its probability is the geometric mean of its tokens'.
    fn caption(&mut self, max_tokens: usize) -> Result<Said, RunError> {
        let options = GenerateOptions {
            max_tokens,
            ..GenerateOptions::default()
        };
        let mut generation = self.session.generate(options)?.with_probabilities();
        let text = generation.rest()?;
        let probabilities = generation.probabilities().to_vec();
        let logs = probabilities.iter().map(|p| f64::from(*p).max(1e-30).ln());
        let mean = logs.sum::<f64>() / probabilities.len().max(1) as f64;
        let text = text.trim().to_owned();
        Ok(Said {
            value: match text.is_empty() {
                true => Value::Nothing,
                false => Value::Text(Text::new(&text)),
            },
            unsure: text.is_empty(),
            text,
            tokens: generation.tokens().to_vec(),
            token_probabilities: probabilities,
            probability: mean.exp().min(1.0),
            ..Said::default()
        })
    }

    /// A document after a schema.
    fn fields(&mut self, schema: &str, max_tokens: usize) -> Result<Said, RunError> {
        let grammar = match self.grammars.get(schema) {
            Some(known) => known.clone(),
            None => {
                let made = Arc::new(Grammar::json(schema)?);
                keep(&mut self.grammars, schema.to_owned(), made.clone());
                made
            }
        };
        let written = self.session.write(&grammar, max_tokens)?;
        let missing = written.fields.iter().filter(|f| is_missing(f)).count();
        let text = Text::new(&written.text);
        Ok(Said {
            value: Value::Fields {
                // A part of a document is of no use: the whole is kept under the question's id.
                json: if text.is_cut() {
                    Text::left_out()
                } else {
                    text
                },
                missing: u8::try_from(missing).unwrap_or(u8::MAX),
            },
            probability: written.probability(),
            unsure: self.settings.judgement.is_unsure(written.probability()),
            fields: written.fields.iter().map(finding).collect(),
            text: written.text,
            tokens: written.tokens,
            token_probabilities: written.probabilities,
            ..Said::default()
        })
    }
}

impl Brain for Mind {
    fn think(&mut self, job: &Job, stage: Stage, cancel: &CancelFlag) -> Option<Thought> {
        let max_tiles = match stage {
            Stage::Early => Some(0),
            Stage::Refined => job.max_tiles,
        };
        let refined = self.layout(&job.picture, job.max_tiles);
        if stage == Stage::Early && refined.is_ok_and(|refined| refined == TileLayout::GLOBAL_ONLY)
        {
            return None;
        }
        self.session.set_cancel_flag(cancel.clone());
        if let Some(blank) = &mut self.blank {
            blank.set_cancel_flag(cancel.clone());
        }
        let result = self.conclude(job, stage, max_tiles);
        Some(Thought {
            question: job.question,
            result: result.map(Box::new).map_err(failure),
        })
    }
}

/// SHA-256 of width, height (u32, little endian) and the RGB bytes.
pub fn picture_sha256(picture: &Rgb8) -> Hash {
    let mut hash = Sha256::new();
    for side in [picture.width(), picture.height()] {
        // Pictures are far smaller.
        hash.update(u32::try_from(side).unwrap_or(u32::MAX).to_le_bytes());
    }
    hash.update(picture.pixels());
    hash.finalize().into()
}

/// Name, hash and kernel of a model. The checking path of plain f32 weights has no hash: zeros.
pub fn identity(vlm: &Vlm) -> ModelIdentity {
    ModelIdentity {
        name: vlm.name().to_owned(),
        sha256: vlm.sha256().unwrap_or_default(),
        kernel: vlm.kernel_name().to_owned(),
    }
}

/// Tokens an answer may take.
fn answer_tokens(form: &AnswerForm) -> usize {
    match form {
        AnswerForm::Choices(_) | AnswerForm::Count(..) => CLOSED_TOKENS,
        AnswerForm::Caption(tokens) | AnswerForm::Schema(_, tokens) => usize::from(*tokens),
    }
}

fn closed(scores: Vec<f64>, judged: Judged, value: Value, text: String) -> Said {
    Said {
        value,
        text,
        choice_scores: scores,
        probability: judged
            .probabilities
            .get(judged.best)
            .copied()
            .unwrap_or(0.0),
        choice_probabilities: judged.probabilities.iter().map(|p| *p as f32).collect(),
        unsure: judged.unsure,
        ..Said::default()
    }
}

/// Whether a field has no content.
fn is_missing(field: &Field) -> bool {
    matches!(field.text.as_str(), "null" | "\"\"")
}

fn finding(field: &Field) -> FieldFinding {
    FieldFinding {
        path: field.path.clone(),
        json: field.text.clone(),
        probability: field.probability,
    }
}

fn failure(error: RunError) -> Failure {
    match error {
        RunError::Cancelled => Failure::Cancelled,
        RunError::DeadlinePassed => Failure::Deadline,
        RunError::Engine { .. } | RunError::NotFinite | RunError::NothingAppended => {
            Failure::Engine(with_causes(&error))
        }
        _ => Failure::Question(with_causes(&error)),
    }
}

/// Keeps a value; when there are too many, the others go.
fn keep<K: std::hash::Hash + Eq, V>(kept: &mut HashMap<K, V>, key: K, value: V) {
    if kept.len() >= MOST_KEPT {
        kept.clear();
    }
    kept.insert(key, value);
}
