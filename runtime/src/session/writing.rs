//! Answers that follow a form.

use super::Session;
use crate::constrain::{Field, Grammar, Guide, Step};
use crate::error::RunError;

/// An answer that follows a form.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// The answer without the space before it.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// Probability of each token among those that were allowed; 1 where the text had no alternative.
    pub probabilities: Vec<f32>,
    /// Values of the answer, in order; for a number or a choice there is one.
    pub fields: Vec<Field>,
}

impl Written {
    /// Probability of the weakest field.
    pub fn probability(&self) -> f64 {
        let weakest = self.fields.iter().map(|field| field.probability);
        weakest.reduce(f64::min).unwrap_or(1.0)
    }
}

impl Session {
    /// Answers the prompt with the likeliest tokens that follow a form, in at most `max_tokens`
    /// tokens. Whatever the model would like to say, the answer is whole and follows the form. Text
    /// that the form leaves no choice about, names of properties for one, is not asked of the model;
    /// its tokens go through the decoder together.
    ///
    /// # Errors
    ///
    /// [`RunError::AnswerBudget`] before any work if the tokens, or the positions that are left, do
    /// not suffice for the shortest answer; cancellation and engine faults.
    pub fn write(&mut self, grammar: &Grammar, max_tokens: usize) -> Result<Written, RunError> {
        let model = self.model.clone();
        // The last token is not run through the decoder.
        let budget = max_tokens.min(self.room().saturating_add(1));
        let mut guide = Guide::new(grammar, model.trie(), budget)?;
        self.reserve(budget.saturating_sub(1));
        let mut logits = Vec::with_capacity(self.vocab_size());
        // Tokens of the answer that have not been through the decoder.
        let mut waiting = Vec::new();
        loop {
            self.cancel.check()?;
            // A text the tokenizer cannot encode is left to the model.
            let encode = |text: &str| model.tokenizer.encode(text).unwrap_or_default();
            waiting.extend(guide.take_certain(encode));
            self.extend(&waiting)?;
            waiting.clear();
            match guide.few_wanted() {
                Some(wanted) => self.write_logits_of(&wanted, &mut logits)?,
                None => self.write_logits(&mut logits)?,
            }
            match guide.next(&logits) {
                Step::Token(token) if !guide.is_over() => waiting.push(token),
                _ => return Ok(guide.finish()),
            }
        }
    }
}
