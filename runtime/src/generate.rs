//! Answers token by token: an iterator with stop conditions and cancellation.

use crate::error::RunError;
use crate::sampler::{Sampler, Sampling, log_probability};
use crate::session::Session;
use crate::tokenizer::TextStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A flag another thread or a signal handler raises to end the work early.
/// Looked at between image tiles, prompt chunks and tokens.
#[derive(Clone, Debug, Default)]
pub struct CancelFlag {
    raised: Arc<AtomicBool>,
    deadline: Option<Instant>,
    pulse: Option<Arc<AtomicU64>>,
}

impl CancelFlag {
    /// A flag that is not raised.
    pub fn new() -> CancelFlag {
        CancelFlag::default()
    }

    /// A flag that also ends the work at `deadline`.
    pub fn until(deadline: Instant) -> CancelFlag {
        CancelFlag {
            deadline: Some(deadline),
            ..CancelFlag::default()
        }
    }

    /// The same flag, that also adds one to `pulse` whenever the work looks at it: a counter that
    /// stands still means work that hangs.
    #[must_use]
    pub fn with_pulse(self, pulse: Arc<AtomicU64>) -> CancelFlag {
        CancelFlag {
            pulse: Some(pulse),
            ..self
        }
    }

    /// Raises the flag, for good.
    pub fn cancel(&self) {
        self.raised.store(true, Ordering::Relaxed);
    }

    /// Whether it was raised.
    pub fn is_cancelled(&self) -> bool {
        self.raised.load(Ordering::Relaxed)
    }

    /// [`RunError::Cancelled`] when it was raised, [`RunError::DeadlinePassed`] when it is too late.
    pub(crate) fn check(&self) -> Result<(), RunError> {
        if let Some(pulse) = &self.pulse {
            pulse.fetch_add(1, Ordering::Relaxed);
        }
        if self.is_cancelled() {
            return Err(RunError::Cancelled);
        }
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => Err(RunError::DeadlinePassed),
            _ => Ok(()),
        }
    }
}

/// What an answer may be.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateOptions {
    /// Most tokens of the answer.
    pub max_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Texts that end the answer; they are not part of it.
    pub stop: Vec<String>,
}

impl Default for GenerateOptions {
    fn default() -> GenerateOptions {
        GenerateOptions {
            max_tokens: 256,
            sampling: Sampling::default(),
            stop: Vec::new(),
        }
    }
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model gave a stop token, or a stop text appeared.
    Stop,
    /// The token limit or the context was reached.
    Length,
}

impl FinishReason {
    /// The name used in JSON output.
    pub fn name(self) -> &'static str {
        match self {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
        }
    }
}

/// One step of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    /// The token, or `None` for the rest of the text at the end.
    pub token: Option<u32>,
    /// Text that is certain now; may be empty while a character or a possible stop
    /// text is incomplete.
    pub text: String,
}

/// An answer in the making: an iterator over its pieces.
#[derive(Debug)]
pub struct Generation<'s> {
    session: &'s mut Session,
    sampler: Sampler,
    stops: StopFilter,
    stream: Option<TextStream>,
    max_tokens: usize,
    tokens: Vec<u32>,
    /// Probability of every token, where wanted.
    probabilities: Option<Vec<f32>>,
    finish: Option<FinishReason>,
    decode: Duration,
    steps: usize,
}

impl<'s> Generation<'s> {
    pub(crate) fn new(
        session: &'s mut Session,
        options: GenerateOptions,
    ) -> Result<Generation<'s>, RunError> {
        Ok(Generation {
            sampler: Sampler::new(options.sampling)?,
            stops: StopFilter::new(options.stop),
            stream: Some(TextStream::new()),
            max_tokens: options.max_tokens,
            tokens: Vec::new(),
            probabilities: None,
            finish: None,
            decode: Duration::ZERO,
            steps: 0,
            session,
        })
    }

    /// Tokens so far, without the stop token.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Keeps the probability of every token.
    #[must_use]
    pub fn with_probabilities(self) -> Generation<'s> {
        Generation {
            probabilities: Some(Vec::new()),
            ..self
        }
    }

    /// Probability of every token so far when it was chosen; empty unless asked for by
    /// [`Generation::with_probabilities`].
    pub fn probabilities(&self) -> &[f32] {
        self.probabilities.as_deref().unwrap_or_default()
    }

    /// Why the answer ended, once it has.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.finish
    }

    /// Time spent on decode steps, and their number. The first token comes out of
    /// the prefill and is no step.
    pub fn decode_time(&self) -> (Duration, usize) {
        (self.decode, self.steps)
    }

    /// One more token, or the held-back text once the answer has ended.
    fn step(&mut self) -> Result<Option<Piece>, RunError> {
        let Some(stream) = self.stream.as_mut() else {
            return Ok(None);
        };
        self.session.cancel_flag().check()?;
        if self.finish.is_none() && self.tokens.len() >= self.max_tokens {
            self.finish = Some(FinishReason::Length);
        }
        if self.finish.is_none() {
            let mut logits = self.session.logits()?;
            // An image token asks for image features, which only a prompt can bring.
            let image_token = self.session.image_token();
            if let Some(logit) = image_token.and_then(|id| logits.get_mut(id as usize)) {
                *logit = f32::NEG_INFINITY;
            }
            let known = self.probabilities.as_ref().map(|_| logits.clone());
            let token = self.sampler.sample(&mut logits, self.session.ids());
            if let (Some(known), Some(all)) = (known, &mut self.probabilities)
                && !self.session.is_stop_token(token)
            {
                all.push(log_probability(&known, token).exp() as f32);
            }
            if self.session.is_stop_token(token) {
                self.finish = Some(FinishReason::Stop);
            } else {
                self.tokens.push(token);
                let text = stream.push(self.session.tokenizer(), token);
                let (text, stopped) = self.stops.push(&text);
                if stopped {
                    self.finish = Some(FinishReason::Stop);
                    self.stream = None;
                } else {
                    self.advance(token)?;
                }
                return Ok(Some(Piece {
                    token: Some(token),
                    text,
                }));
            }
        }
        let rest = self
            .stream
            .take()
            .map(TextStream::finish)
            .unwrap_or_default();
        let (mut text, stopped) = self.stops.push(&rest);
        if !stopped {
            text.push_str(&self.stops.finish());
        }
        Ok((!text.is_empty()).then_some(Piece { token: None, text }))
    }

    /// Runs the decoder over a token whose successor will be wanted.
    fn advance(&mut self, token: u32) -> Result<(), RunError> {
        if self.tokens.len() >= self.max_tokens || self.session.room() == 0 {
            self.finish = Some(FinishReason::Length);
            return Ok(());
        }
        let start = Instant::now();
        self.session.append(&[token], &[])?;
        self.decode += start.elapsed();
        self.steps += 1;
        Ok(())
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<Piece, RunError>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.step().transpose();
        if matches!(item, Some(Err(_))) {
            self.stream = None;
        }
        item
    }
}

/// Holds back text that may become a stop text and cuts at the first one.
#[derive(Clone, Debug)]
struct StopFilter {
    stops: Vec<String>,
    held: String,
}

impl StopFilter {
    fn new(stops: Vec<String>) -> StopFilter {
        let stops = stops.into_iter().filter(|stop| !stop.is_empty()).collect();
        StopFilter {
            stops,
            held: String::new(),
        }
    }

    /// Takes new text; returns what is certain, and whether a stop text was found.
    fn push(&mut self, text: &str) -> (String, bool) {
        self.held.push_str(text);
        let found = self
            .stops
            .iter()
            .filter_map(|stop| self.held.find(stop.as_str()))
            .min();
        if let Some(at) = found {
            let before = self.held[..at].to_owned();
            self.held.clear();
            return (before, true);
        }
        let hold = self
            .stops
            .iter()
            .flat_map(|stop| {
                (1..stop.len())
                    .filter(|n| stop.is_char_boundary(*n))
                    .map(|n| &stop[..n])
            })
            .filter(|prefix| self.held.ends_with(prefix))
            .map(str::len)
            .max()
            .unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - hold);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// The held text once no more can come.
    fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_text_split_over_pieces_is_found_and_cut() {
        let mut filter = StopFilter::new(vec!["\n\n".into(), "END".into()]);
        let pieces = ["a cat E", "N", " and\n", "x\n", "\nmore"];
        let out: Vec<(String, bool)> = pieces.iter().map(|piece| filter.push(piece)).collect();
        let text: String = out.iter().map(|(text, _)| text.as_str()).collect();
        assert_eq!(text, "a cat EN and\nx");
        assert_eq!(
            out.iter().map(|o| o.1).collect::<Vec<_>>(),
            [false, false, false, false, true]
        );
    }

    #[test]
    fn a_half_stop_text_at_the_end_is_given_out() {
        let mut filter = StopFilter::new(vec!["END".into(), String::new()]);
        assert_eq!(filter.push("the EN"), ("the ".to_owned(), false));
        assert_eq!(filter.finish(), "EN");
    }
}
