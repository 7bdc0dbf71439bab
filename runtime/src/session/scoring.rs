//! Closed answers: how likely each of some texts is.

use super::Session;
use crate::error::RunError;
use crate::sampler::log_probability;
use std::collections::BTreeMap;

/// Branches whose log probability is this far below the best answer found are not followed.
const HOPELESS: f64 = 14.0;

/// Probability of one choice.
#[derive(Clone, Debug, PartialEq)]
pub struct ChoiceScore {
    /// The choice as given.
    pub choice: String,
    /// Log probability of its tokens and the stop token after the prompt.
    pub log_probability: f64,
    /// Its share among all choices. `[0, 1]`
    pub probability: f64,
}

impl Session {
    /// Scores closed answers: the probability of each choice's text, ended by the
    /// stop token, relative to the other choices. The prompt is run once, and stays as
    /// it is: it can be scored again or answered.
    ///
    /// # Errors
    ///
    /// No prompt yet, an empty choice, a choice too long for the context.
    pub fn score(&mut self, choices: &[String]) -> Result<Vec<ChoiceScore>, RunError> {
        let mut encoded = Vec::with_capacity(choices.len());
        for (index, choice) in choices.iter().enumerate() {
            encoded.push(self.choice_ids(index, choice)?);
        }
        let after_prompt = self.logits()?;
        let start = self.engine.position();
        let mut scores = Vec::with_capacity(choices.len());
        for (choice, ids) in choices.iter().zip(&encoded) {
            let score = self.score_tokens(&after_prompt, ids);
            self.truncate(start);
            self.known_logits = Some(after_prompt.clone());
            scores.push((choice.clone(), score?));
        }
        let best = scores.iter().fold(f64::NEG_INFINITY, |m, (_, s)| m.max(*s));
        let total: f64 = scores.iter().map(|(_, s)| (s - best).exp()).sum();
        Ok(scores
            .into_iter()
            .map(|(choice, score)| ChoiceScore {
                choice,
                log_probability: score,
                probability: (score - best).exp() / total,
            })
            .collect())
    }

    /// Tokens of a choice as an answer; `index` from 0 names it in errors.
    fn choice_ids(&self, index: usize, choice: &str) -> Result<Vec<u32>, RunError> {
        let text = choice.trim();
        if text.is_empty() {
            return Err(RunError::EmptyChoice { index: index + 1 });
        }
        if let Some(token) = self.model.tokenizer.added_token_in(text) {
            return Err(RunError::TokenInChoice {
                index: index + 1,
                token: token.to_owned(),
            });
        }
        // Answers of this family begin with a space after `Assistant:`.
        Ok(self.model.tokenizer.encode(&format!(" {text}"))?)
    }

    /// Log probability of `ids` and a stop token after the current position.
    fn score_tokens(&mut self, after_prompt: &[f32], ids: &[u32]) -> Result<f64, RunError> {
        let mut sum = 0.0;
        let mut logits = after_prompt.to_vec();
        for id in ids {
            self.cancel.check()?;
            sum += log_probability(&logits, *id);
            self.append(&[*id], &[])?;
            self.write_logits(&mut logits)?;
        }
        let stops = &self.model.generation.stop_token_ids;
        let stop = stops
            .iter()
            .map(|id| log_probability(&logits, *id))
            .reduce(f64::max);
        Ok(sum + stop.unwrap_or(0.0))
    }

    /// Weighs closed answers, each of which may be spelt in several ways: the log probability that
    /// the model's answer begins with one of an answer's spellings, and not with a longer spelling
    /// of another one. What the model would say after it, an end mark for instance, does not
    /// matter. Spellings share the work on what they have in common. The prompt stays as it is.
    ///
    /// The first spelling of an answer names it; of the others those are left out that also spell
    /// another answer. An answer that is far less likely than the best one gets an upper bound.
    ///
    /// # Errors
    ///
    /// No prompt yet; an answer without spelling, or an empty one; [`RunError::SameChoice`]; a
    /// spelling too long for the context.
    pub fn weigh(&mut self, answers: &[Vec<String>]) -> Result<Vec<f64>, RunError> {
        let spellings = self.spellings(answers)?;
        let after_prompt = self.logits()?;
        let start = self.engine.position();
        let mut weighing = Weighing {
            sums: vec![f64::NEG_INFINITY; answers.len()],
        };
        let outcome = self.weigh_from(&mut weighing, &spellings, 0.0, &after_prompt);
        self.truncate(start);
        self.known_logits = Some(after_prompt);
        outcome.map(|()| weighing.sums)
    }

    fn spellings(&self, answers: &[Vec<String>]) -> Result<Spellings, RunError> {
        let mut root = Spellings::default();
        for (index, answer) in answers.iter().enumerate() {
            let first = answer.first().map_or("", String::as_str);
            let ids = self.choice_ids(index, first)?;
            if let Some(other) = root.add(&ids, index) {
                return Err(RunError::SameChoice {
                    first: other + 1,
                    second: index + 1,
                    text: first.to_owned(),
                });
            }
        }
        for (index, answer) in answers.iter().enumerate() {
            for text in answer.iter().skip(1) {
                let ids = self.choice_ids(index, text)?;
                // What is taken stays taken.
                let _ = root.add(&ids, index);
            }
        }
        Ok(root)
    }

    /// Follows the spellings behind the current position, where `logits` are and the answer so
    /// far has log probability `before`.
    fn weigh_from(
        &mut self,
        weighing: &mut Weighing,
        spellings: &Spellings,
        before: f64,
        logits: &[f32],
    ) -> Result<(), RunError> {
        let mut next: Vec<(f64, u32, &Spellings)> = (spellings.next.iter())
            .map(|(id, rest)| (log_probability(logits, *id), *id, rest))
            .collect();
        if let Some(answer) = spellings.answer {
            let goes_on: f64 = next.iter().map(|(p, _, _)| p.exp()).sum();
            weighing.add(answer, before + (1.0 - goes_on).max(f64::MIN_POSITIVE).ln());
        }
        // The likeliest first, so that the hopeless are known early; equal ones by their id.
        next.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        for (own, id, rest) in next {
            let so_far = before + own;
            if rest.next.is_empty() || weighing.is_hopeless(so_far) {
                rest.answers(&mut |answer| weighing.add(answer, so_far));
                continue;
            }
            self.cancel.check()?;
            let position = self.engine.position();
            self.append(&[id], &[])?;
            let logits = self.logits()?;
            self.weigh_from(weighing, rest, so_far, &logits)?;
            self.truncate(position);
        }
        Ok(())
    }
}

/// Token sequences by their begin.
#[derive(Debug, Default)]
struct Spellings {
    /// The answer that may end here.
    answer: Option<usize>,
    next: BTreeMap<u32, Spellings>,
}

impl Spellings {
    /// Adds a spelling; gives the other answer that has it already.
    fn add(&mut self, ids: &[u32], answer: usize) -> Option<usize> {
        let end = ids
            .iter()
            .fold(self, |node, id| node.next.entry(*id).or_default());
        let taken = *end.answer.get_or_insert(answer);
        (taken != answer).then_some(taken)
    }

    /// Every answer that ends here or behind.
    fn answers(&self, each: &mut dyn FnMut(usize)) {
        self.answer.iter().for_each(|answer| each(*answer));
        self.next.values().for_each(|rest| rest.answers(each));
    }
}

/// Log probabilities of the answers so far.
struct Weighing {
    sums: Vec<f64>,
}

impl Weighing {
    fn add(&mut self, answer: usize, log_probability: f64) {
        let sum = &mut self.sums[answer];
        let (small, large) = match *sum < log_probability {
            true => (*sum, log_probability),
            false => (log_probability, *sum),
        };
        if large > f64::NEG_INFINITY {
            *sum = large + (small - large).exp().ln_1p();
        }
    }

    fn is_hopeless(&self, log_probability: f64) -> bool {
        let best = self.sums.iter().fold(f64::NEG_INFINITY, |m, s| m.max(*s));
        log_probability < best - HOPELESS
    }
}
