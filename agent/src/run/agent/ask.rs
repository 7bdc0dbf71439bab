//! Questions: of rules and of persons, to the model of this device or a remote one.

use super::{Agent, MAX_TAKEN};
use crate::entry::{AnswerForm, Answered, Answerer, Entry};
use crate::link::mqtt::message::{Outgoing, State as BrokerState};
use crate::mind::{Conclusion, Failure, Job, Thought, picture_sha256};
use crate::remote::exchange::Finding as RemoteFinding;
use crate::remote::{self, Heard, RemoteQuestion};
use crate::run::desk::Errand;
use ocelli_reflex::observation::{Answer, Fault, Stage, Value};
use ocelli_reflex::output::{Ask, Finding, Model};
use ocelli_reflex::question::Form;
use ocelli_reflex::{EventId, Observation, Probability, QuestionId, RuleIndex, Text};
use ocelli_runtime::image::Rgb8;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Ids of persons' questions and looks begin here, far above those of the step.
pub(super) const FIRST_ERRAND: u64 = 1 << 62;
/// Most questions under way.
const MAX_ASKED: usize = 64;
/// Tokens of a choice or a number from a remote model.
const CLOSED_TOKENS: u16 = 16;
/// Most pictures kept ready as evidence, and most whole texts.
const MAX_KEPT: usize = 16;

/// A question under way.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) who: Who,
    pub(super) frame: u64,
    pub(super) began: Instant,
    /// The question as asked.
    pub(super) prompt: String,
    pub(super) form: AnswerForm,
}

#[derive(Debug)]
pub(super) enum Who {
    Rule(RuleIndex, EventId),
    Person(Errand),
}

impl Agent {
    /// Puts a rule's question to a model.
    pub(super) fn ask(&mut self, ask: &Ask) {
        let Some((prompt, form, priority)) = self.question(ask) else {
            return self.no_answer(ask.id, ask.frame, "the rule or its schema is not there");
        };
        let Some((picture, _)) = self.shown(ask.frame) else {
            return self.no_answer(ask.id, ask.frame, "the picture is no longer there");
        };
        self.remember(
            ask.id,
            Asked {
                who: Who::Rule(ask.rule, ask.event),
                frame: ask.frame,
                began: Instant::now(),
                prompt: prompt.clone(),
                form: form.clone(),
            },
        );
        let job = Job {
            question: ask.id,
            rule: self.rule_name(ask.rule),
            frame: ask.frame,
            picture,
            prompt,
            form,
            max_tiles: self.max_tiles(),
            early: ask.early,
            priority,
            deadline: Instant::now() + Duration::from_millis(ask.within),
        };
        match ask.model {
            Model::Local => self.think(job),
            Model::Remote => self.ask_remote(job),
        }
    }

    pub(super) fn max_tiles(&self) -> Option<usize> {
        self.parts.settings.model.max_tiles.map(usize::from)
    }

    /// What a rule asks: prompt, form and priority.
    fn question(&self, ask: &Ask) -> Option<(String, AnswerForm, u8)> {
        let policy = &self.parts.rules.policy;
        let (rule, question) = (policy.rule(ask.rule)?, policy.question(ask.rule)?);
        let form = match &question.form {
            Form::Choices { .. } | Form::Pick { .. } => {
                let choices = policy.choices(ask.rule);
                AnswerForm::Choices(choices.into_iter().map(str::to_owned).collect())
            }
            Form::Count { range, .. } => AnswerForm::Count(range.0, range.1),
            Form::Caption => AnswerForm::Caption(ask.max_tokens),
            Form::Schema { schema } => {
                let text = self.parts.rules.schemas.get(schema)?;
                AnswerForm::Schema(text.clone(), ask.max_tokens)
            }
        };
        Some((question.prompt.clone(), form, rule.priority))
    }

    /// A picture as the model is shown it, and the name it is kept under. With `keep_evidence` it
    /// is the kept file, read back, so that the same answer can be had again.
    pub(super) fn shown(&mut self, frame: u64) -> Option<(Arc<Rgb8>, Option<String>)> {
        if let Some((_, name, picture)) = self.evidence.iter().find(|(kept, ..)| *kept == frame) {
            return Some((Arc::clone(picture), Some(name.clone())));
        }
        let picture = self.parts.lookout.as_ref()?.picture(frame)?;
        if !self.parts.settings.privacy.keep_evidence {
            return Some((picture, None));
        }
        let kept = self.parts.recorder.keep(0, frame, &picture);
        let kept = kept
            .map_err(|error| error.to_string())
            .and_then(|(name, jpeg)| {
                let picture = Rgb8::decode(&jpeg).map_err(|error| error.to_string())?;
                Ok((name, Arc::new(picture)))
            });
        match kept {
            Ok((name, shown)) => {
                if self.evidence.len() >= MAX_KEPT {
                    self.evidence.pop_front();
                }
                self.evidence
                    .push_back((frame, name.clone(), Arc::clone(&shown)));
                Some((shown, Some(name)))
            }
            Err(error) => {
                self.remark("snapshots", &error);
                Some((picture, None))
            }
        }
    }

    pub(super) fn remember(&mut self, question: QuestionId, asked: Asked) {
        if self.asked.len() >= MAX_ASKED {
            self.asked.pop_first();
        }
        self.asked.insert(question.0, asked);
    }

    pub(super) fn think(&mut self, job: Job) {
        // Energy is counted from here; with several questions under way they share it.
        let now = self.parts.clock.monotonic();
        if self.asked.len() == 1 {
            self.parts.vitals.meter(now);
            self.parts.vitals.take_joules();
        }
        match &self.parts.thinker {
            Some((thinker, _)) => thinker.submit(job),
            None => self.failed(
                job.question,
                &Failure::Engine("there is no model".to_owned()),
            ),
        }
    }

    fn ask_remote(&mut self, job: Job) {
        let question = job.question;
        let Some(remote) = &self.parts.remote else {
            return self.failed(
                question,
                &Failure::Question("there is no [remote]".to_owned()),
            );
        };
        let Some(form) = remote_form(&job.form) else {
            let failure = "a remote model is not asked to fill in a schema";
            return self.failed(question, &Failure::Question(failure.to_owned()));
        };
        let allowed = self.parts.settings.privacy.remote_images;
        let day = self.parts.clock.wall_ms().map_or(0, |ms| ms / 86_400_000);
        let max_tokens = match job.form {
            AnswerForm::Caption(tokens) => tokens,
            _ => CLOSED_TOKENS,
        };
        let sent = self
            .parts
            .recorder
            .jpeg(&job.picture)
            .map_err(|error| error.to_string())
            .and_then(|jpeg| {
                let within = job.deadline.saturating_duration_since(Instant::now());
                let question = RemoteQuestion {
                    id: question,
                    jpeg,
                    prompt: job.prompt,
                    form,
                    max_tokens,
                    within,
                };
                let asked = remote.ask(question, allowed, day);
                asked.map_err(|error| error.to_string())
            });
        self.parts.recorder.spent(remote.spent());
        if let Err(error) = sent {
            self.remark("remote", &error);
            self.failed(question, &Failure::Question(error));
        }
    }

    pub(super) fn cancel_question(&mut self, question: QuestionId) {
        self.asked.remove(&question.0);
        if let Some((thinker, _)) = &self.parts.thinker {
            thinker.cancel(question);
        }
        if let Some(remote) = &self.parts.remote {
            remote.cancel(question);
        }
    }

    pub(super) fn take_thoughts(&mut self) {
        for _ in 0..MAX_TAKEN {
            let thought = self
                .parts
                .thinker
                .as_ref()
                .and_then(|(thinker, _)| thinker.try_next());
            let Some(thought) = thought else { return };
            self.thought(thought);
        }
    }

    fn thought(&mut self, thought: Thought) {
        match thought.result {
            Ok(conclusion) => {
                self.fault(Fault::ModelRefused, false);
                self.concluded(thought.question, *conclusion);
            }
            Err(failure) => {
                if let Failure::Engine(reason) = &failure {
                    self.remark("model", reason);
                    self.fault(Fault::ModelRefused, true);
                }
                self.failed(thought.question, &failure);
            }
        }
    }

    fn concluded(&mut self, question: QuestionId, conclusion: Conclusion) {
        let now = self.parts.clock.monotonic();
        let Conclusion {
            mut answered,
            value,
            ..
        } = conclusion;
        let is_last = answered.stage == Stage::Refined;
        answered.picture = self
            .evidence
            .iter()
            .find(|(frame, ..)| *frame == answered.frame)
            .map(|(_, name, _)| name.clone());
        if is_last {
            self.parts.vitals.meter(now);
            answered.joules = self.parts.vitals.take_joules();
            self.last_joules = answered.joules.or(self.last_joules);
            self.counts.answers += 1;
        }
        let probability = Probability::from_f64(f64::from(answered.probability).clamp(0.0, 1.0));
        let probability = probability.unwrap_or_default();
        self.parts
            .recorder
            .write(&Entry::Answered(Box::new(answered.clone())));
        let asked = match is_last {
            true => self.asked.remove(&question.0),
            false => None,
        };
        let Some(asked) = asked.as_ref().or_else(|| self.asked.get(&question.0)) else {
            // It was cancelled while the answer was on its way.
            return;
        };
        if is_last {
            self.last_latency = Some(asked.began.elapsed().as_secs_f32());
        }
        match &asked.who {
            Who::Person(errand) => {
                let errand = errand.clone();
                if is_last {
                    self.errand_answered(&errand, &answered, probability);
                }
            }
            Who::Rule(rule, event) => {
                let (rule, event) = (*rule, *event);
                let taken_ms = self.frame_fact(answered.frame).map(|fact| fact.taken_ms);
                self.keep_whole(event, &answered.text);
                if is_last {
                    self.tell_answer(rule, event, &answered, &value, probability);
                }
                self.observe(&Observation::Answer(Answer {
                    question,
                    value,
                    probability,
                    unsure: answered.unsure,
                    frame_time: taken_ms.unwrap_or(0),
                    stage: answered.stage,
                }));
            }
        }
    }

    /// Keeps a text that is longer than the step carries.
    fn keep_whole(&mut self, event: EventId, text: &str) {
        if text.len() <= ocelli_reflex::limit::MAX_TEXT {
            return;
        }
        self.whole.retain(|(known, _)| *known != event);
        if self.whole.len() >= MAX_KEPT {
            self.whole.pop_front();
        }
        self.whole.push_back((event, text.to_owned()));
    }

    fn tell_answer(
        &mut self,
        rule: RuleIndex,
        event: EventId,
        answered: &Answered,
        value: &Value,
        probability: Probability,
    ) {
        let finding = Finding {
            value: value.clone(),
            probability,
        };
        let mut sight = self.sight(&event.0.to_string(), rule, None, &finding);
        if let Some(fact) = self.frame_fact(answered.frame) {
            sight.time_ms = fact.wall_ms;
            sight.zones.clone_from(&fact.zones);
        }
        sight.unsure = answered.unsure;
        match answered.unsure {
            true => sight.answer = None,
            // Whole, where the step carries only the begin.
            false if sight.text.is_some() => sight.text = Some(answered.text.clone()),
            false => {}
        }
        self.tell_broker(Outgoing::State(BrokerState::Answer(sight)));
        self.show_answer(answered);
    }

    fn no_answer(&mut self, question: QuestionId, frame: u64, why: &str) {
        self.remark("model", why);
        self.queue_unsure(question, frame);
    }

    /// A question without answer is `unsure`.
    fn failed(&mut self, question: QuestionId, failure: &Failure) {
        let Some(asked) = self.asked.remove(&question.0) else {
            return;
        };
        match asked.who {
            Who::Person(errand) => self.errand_failed(&errand, &failure.to_string()),
            Who::Rule(..) => {
                if !matches!(failure, Failure::Cancelled | Failure::Engine(_)) {
                    self.remark("model", &failure.to_string());
                }
                self.queue_unsure(question, asked.frame);
            }
        }
    }

    fn queue_unsure(&mut self, question: QuestionId, frame: u64) {
        let taken_ms = self.frame_fact(frame).map(|fact| fact.taken_ms);
        self.queue(Observation::Answer(Answer {
            question,
            value: Value::Nothing,
            probability: Probability::ZERO,
            unsure: true,
            frame_time: taken_ms.unwrap_or(0),
            stage: Stage::Refined,
        }));
    }

    pub(super) fn take_remote(&mut self) {
        for _ in 0..MAX_TAKEN {
            let answer = self
                .parts
                .remote
                .as_ref()
                .and_then(|remote| remote.try_next());
            let Some(answer) = answer else { return };
            match answer.result {
                Ok(heard) => self.remote_answered(answer.id, heard),
                Err(error) => {
                    self.remark("remote", &error.to_string());
                    self.failed(answer.id, &Failure::Question(error.to_string()));
                }
            }
        }
    }

    fn remote_answered(&mut self, question: QuestionId, heard: Heard) {
        let Some(asked) = self.asked.get(&question.0) else {
            return;
        };
        let Who::Rule(rule, _) = &asked.who else {
            return;
        };
        let Some(settings) = &self.parts.settings.remote else {
            return;
        };
        let shown = self
            .parts
            .lookout
            .as_ref()
            .and_then(|lookout| lookout.picture(asked.frame));
        let value = match &heard.finding {
            None => Value::Nothing,
            // At most eight choices.
            Some(RemoteFinding::Choice(choice)) => Value::Choice(*choice as u8),
            Some(RemoteFinding::Count(count)) => Value::Count(*count),
            Some(RemoteFinding::Text) => Value::Text(Text::new(&heard.text)),
        };
        let answered = Answered {
            question,
            rule: self.rule_name(*rule),
            stage: Stage::Refined,
            frame: asked.frame,
            frame_sha256: shown.map_or([0; 32], |picture| picture_sha256(&picture)),
            picture: None,
            by: Answerer::Remote {
                url: settings.url.clone(),
                model: settings.model.clone(),
            },
            prompt: asked.prompt.clone(),
            form: asked.form.clone(),
            max_tiles: None,
            prompt_tokens: 0,
            tokens: Vec::new(),
            token_probabilities: Vec::new(),
            choice_scores: Vec::new(),
            choice_probabilities: Vec::new(),
            unsure: heard.finding.is_none(),
            text: heard.text,
            // One that gives no probability is taken at its word.
            probability: heard.probability.unwrap_or(1.0) as f32,
            time_ms: [0.0, 0.0, asked.began.elapsed().as_secs_f32() * 1e3],
            joules: None,
            system: None,
        };
        self.concluded(
            question,
            Conclusion {
                answered,
                value,
                fields: Vec::new(),
            },
        );
    }
}

/// The form as the remote model is asked for it; `None` for what it is not asked.
fn remote_form(form: &AnswerForm) -> Option<remote::Form> {
    Some(match form {
        AnswerForm::Choices(choices) => remote::Form::Choices(choices.clone()),
        AnswerForm::Count(least, most) => remote::Form::Count(*least, *most),
        AnswerForm::Caption(_) => remote::Form::Text,
        AnswerForm::Schema(..) => return None,
    })
}
