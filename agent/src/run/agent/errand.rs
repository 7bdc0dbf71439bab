//! Questions of persons: they move nothing.

use super::Agent;
use super::ask::{Asked, FIRST_ERRAND, Who};
use crate::entry::{AnswerForm, Answered};
use crate::link::mqtt::payload::{Code, Reply, Sight};
use crate::mind::Job;
use crate::run::desk::{Errand, ErrandAnswer, ErrandVerdict, Receipt};
use ocelli_reflex::observation::Frame;
use ocelli_reflex::question::Form;
use ocelli_reflex::{LookId, Probability, QuestionId, RuleIndex};
use std::time::{Duration, Instant};

/// How long a person's question may take.
const ERRAND_TIME: Duration = Duration::from_secs(50);
/// Priority of a person's question; rules go from 0 to 9.
const ERRAND_PRIORITY: u8 = 6;
/// Tokens of an answer to a person unless they say otherwise.
const ERRAND_TOKENS: u16 = 64;
/// What is asked when a person asks nothing in particular.
const DESCRIBE: &str = "Can you describe this image?";

impl Agent {
    /// A person asks: a picture first.
    pub(super) fn errand(&mut self, errand: Errand) {
        let Some(lookout) = &self.parts.lookout else {
            return self.errand_failed(&errand, "there is no camera");
        };
        let id = self.next_errand;
        self.next_errand += 1;
        lookout.look(LookId(id), ERRAND_TIME / 5);
        let asked = Asked {
            who: Who::Person(errand),
            frame: 0,
            began: Instant::now(),
            prompt: String::new(),
            form: AnswerForm::Caption(0),
        };
        self.remember(QuestionId(id), asked);
    }

    /// The picture for a person's question; false if the look was not one.
    pub(super) fn errand_looked(&mut self, look: LookId, frame: Option<Frame>) -> bool {
        if look.0 < FIRST_ERRAND {
            return false;
        }
        let question = QuestionId(look.0);
        let Some(Asked {
            who: Who::Person(errand),
            began,
            ..
        }) = self.asked.remove(&look.0)
        else {
            return true;
        };
        let shown = frame.and_then(|frame| Some((frame.id, self.shown(frame.id)?.0)));
        let Some((frame, picture)) = shown else {
            self.errand_failed(&errand, "the camera gave no picture");
            return true;
        };
        let (prompt, form) = self.errand_question(&errand);
        let asked = Asked {
            who: Who::Person(errand),
            frame,
            began,
            prompt: prompt.clone(),
            form: form.clone(),
        };
        self.remember(question, asked);
        self.think(Job {
            question,
            rule: String::new(),
            frame,
            picture,
            prompt,
            form,
            max_tiles: self.max_tiles(),
            early: false,
            priority: ERRAND_PRIORITY,
            deadline: began + ERRAND_TIME,
        });
        true
    }

    /// What a person wants to know: a rule's question, their own, or a description.
    fn errand_question(&self, errand: &Errand) -> (String, AnswerForm) {
        let policy = &self.parts.rules.policy;
        let tokens = errand.max_tokens.unwrap_or(ERRAND_TOKENS);
        let of_rule = errand.rule.as_ref().and_then(|name| {
            let at = policy
                .rules
                .iter()
                .position(|rule| rule.id.as_str() == name)?;
            let rule = RuleIndex(u16::try_from(at).ok()?);
            let question = policy.question(rule)?;
            let choices = policy
                .choices(rule)
                .into_iter()
                .map(str::to_owned)
                .collect();
            let form = match &question.form {
                Form::Choices { .. } => AnswerForm::Choices(choices),
                Form::Count { range, .. } => AnswerForm::Count(range.0, range.1),
                _ => AnswerForm::Caption(tokens),
            };
            Some((question.prompt.clone(), form))
        });
        of_rule.unwrap_or_else(|| {
            let question = errand.question.as_deref().unwrap_or(DESCRIBE).to_owned();
            let form = match errand.choices.is_empty() {
                true => AnswerForm::Caption(tokens),
                false => AnswerForm::Choices(errand.choices.clone()),
            };
            (question, form)
        })
    }

    pub(super) fn errand_answered(
        &mut self,
        errand: &Errand,
        answered: &Answered,
        probability: Probability,
    ) {
        let verdict = match answered.unsure {
            true => ErrandVerdict::Unsure,
            false => ErrandVerdict::Answered,
        };
        let is_closed = !matches!(answered.form, AnswerForm::Caption(_));
        let wall_ms = self.frame_fact(answered.frame).map(|fact| fact.wall_ms);
        let sight = Sight {
            id: answered.question.0.to_string(),
            rule: errand.rule.clone().unwrap_or_default(),
            camera: Some(self.parts.settings.device.name.clone()),
            time_ms: wall_ms.unwrap_or(0),
            question: Some(answered.prompt.clone()),
            answer: (is_closed && !answered.unsure).then(|| answered.text.clone()),
            probability: Some(answered.probability),
            unsure: answered.unsure,
            text: (!is_closed).then(|| answered.text.clone()),
            zones: Vec::new(),
            has_snapshot: false,
        };
        let reply = Reply {
            sight: Some(sight),
            ..Reply::plain(Code::Done)
        };
        let answer = ErrandAnswer {
            text: answered.text.clone(),
            verdict,
            probability,
        };
        self.tell_errand(&errand.receipt, reply, &answer);
    }

    pub(super) fn errand_failed(&mut self, errand: &Errand, why: &str) {
        let answer = ErrandAnswer {
            text: why.to_owned(),
            verdict: ErrandVerdict::Failed,
            probability: Probability::ZERO,
        };
        self.tell_errand(&errand.receipt, Reply::because(Code::Failed, why), &answer);
    }

    fn tell_errand(&mut self, receipt: &Receipt, reply: Reply, answer: &ErrandAnswer) {
        let now = self.parts.clock.monotonic();
        if let Some(broker) = &mut self.parts.broker {
            broker.reply(receipt, reply, now);
        }
        if let Some(line) = &mut self.parts.line {
            line.answer(receipt, answer, now);
        }
    }
}
