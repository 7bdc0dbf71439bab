//! Answers token by token, with stop conditions and cancellation.

use crate::error::RunError;
use crate::sampler::{Sampler, Sampling, log_probability};
use crate::session::Session;
use crate::tokenizer::{TOKEN_ROOM, TextStream};
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

/// Tokens of an answer that room is made for when it begins.
const MOST_AT_START: usize = 1024;

/// One step of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The token, or `None` for the rest of the text at the end.
    pub token: Option<u32>,
    /// Text that is certain now; may be empty while a character or a possible stop
    /// text is incomplete.
    pub text: &'a str,
}

/// An answer in the making, piece by piece.
///
/// What it takes is there when the first piece is asked for: the first 1024 tokens allocate
/// nothing, unless one is longer than [`TOKEN_ROOM`].
#[derive(Debug)]
pub struct Generation<'s> {
    session: &'s mut Session,
    sampler: Sampler,
    text: TextFilter,
    /// `None` once the answer has ended.
    stream: Option<TextStream>,
    max_tokens: usize,
    tokens: Vec<u32>,
    /// `[vocab]`
    logits: Vec<f32>,
    probabilities: Option<Probabilities>,
    finish: Option<FinishReason>,
    decode: Duration,
    steps: usize,
}

/// Probability of every token, where wanted.
#[derive(Debug)]
struct Probabilities {
    of_tokens: Vec<f32>,
    /// Logits before the sampler changes them. `[vocab]`
    logits: Vec<f32>,
}

impl<'s> Generation<'s> {
    pub(crate) fn new(
        session: &'s mut Session,
        options: GenerateOptions,
    ) -> Result<Generation<'s>, RunError> {
        let vocab = session.vocab_size();
        let sampler = Sampler::new(options.sampling, vocab)?;
        // The last token is not run through the decoder.
        let expected = options.max_tokens.min(session.room() + 1);
        let expected = expected.min(MOST_AT_START);
        session.reserve(expected.saturating_sub(1));
        Ok(Generation {
            sampler,
            text: TextFilter::new(options.stop),
            stream: Some(TextStream::new()),
            max_tokens: options.max_tokens,
            tokens: Vec::with_capacity(expected),
            logits: Vec::with_capacity(vocab),
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
            probabilities: Some(Probabilities {
                of_tokens: Vec::with_capacity(self.tokens.capacity()),
                logits: Vec::with_capacity(self.logits.capacity()),
            }),
            ..self
        }
    }

    /// Probability of every token so far when it was chosen; empty unless asked for by
    /// [`Generation::with_probabilities`].
    pub fn probabilities(&self) -> &[f32] {
        self.probabilities
            .as_ref()
            .map_or(&[], |known| &known.of_tokens)
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

    /// The next piece: one more token, or the text held back once the answer has ended. `None`
    /// behind the last one, and behind an error.
    ///
    /// # Errors
    ///
    /// No prompt yet, cancellation, engine faults.
    pub fn next_piece(&mut self) -> Result<Option<Piece<'_>>, RunError> {
        if self.stream.is_none() {
            return Ok(None);
        }
        let stepped = self.step();
        if stepped.is_err() {
            self.stream = None;
        }
        let token = stepped?;
        let text = self.text.certain();
        Ok((token.is_some() || !text.is_empty()).then_some(Piece { token, text }))
    }

    /// The text of all pieces that are left.
    ///
    /// # Errors
    ///
    /// As [`Generation::next_piece`].
    pub fn rest(&mut self) -> Result<String, RunError> {
        let mut text = String::new();
        while let Some(piece) = self.next_piece()? {
            text.push_str(piece.text);
        }
        Ok(text)
    }

    /// Chooses one more token, or ends the answer and gives `None`. Either makes text certain.
    fn step(&mut self) -> Result<Option<u32>, RunError> {
        self.session.cancel_flag().check()?;
        if self.finish.is_none() && self.tokens.len() >= self.max_tokens {
            self.finish = Some(FinishReason::Length);
        }
        let token = match self.finish {
            None => Some(self.choose()?).filter(|token| !self.session.is_stop_token(*token)),
            Some(_) => None,
        };
        let Some(token) = token else {
            self.finish.get_or_insert(FinishReason::Stop);
            self.end();
            return Ok(None);
        };
        self.tokens.push(token);
        let more = self.text.room();
        if let Some(stream) = &mut self.stream {
            stream.push(self.session.tokenizer(), token, more);
        }
        if self.text.settle() {
            self.finish = Some(FinishReason::Stop);
            self.stream = None;
        } else {
            self.advance(token)?;
        }
        Ok(Some(token))
    }

    /// The next token by the logits.
    fn choose(&mut self) -> Result<u32, RunError> {
        let known = self.probabilities.as_mut().map(|known| &mut known.logits);
        let token = self
            .session
            .choose(&mut self.sampler, &mut self.logits, known)?;
        if let Some(known) = &mut self.probabilities
            && !self.session.is_stop_token(token)
        {
            let probability = log_probability(&known.logits, token).exp();
            known.of_tokens.push(probability as f32);
        }
        Ok(token)
    }

    /// Makes the text that was held back certain.
    fn end(&mut self) {
        if let Some(mut stream) = self.stream.take() {
            stream.finish(self.text.room());
        }
        if !self.text.settle() {
            self.text.finish();
        }
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

/// Holds back text that may become a stop text and cuts at the first one.
#[derive(Clone, Debug)]
struct TextFilter {
    stops: Vec<String>,
    /// Certain text, then what is held, or behind the end.
    text: String,
    certain: usize,
}

impl TextFilter {
    fn new(stops: Vec<String>) -> TextFilter {
        let stops: Vec<String> = stops.into_iter().filter(|stop| !stop.is_empty()).collect();
        let held = stops.iter().map(String::len).max().unwrap_or(0);
        // A byte that is no text becomes a character of three.
        let room = held + char::REPLACEMENT_CHARACTER.len_utf8() * (TOKEN_ROOM + 1);
        TextFilter {
            stops,
            text: String::with_capacity(room),
            certain: 0,
        }
    }

    /// Where new text is to be added; what was certain is gone. [`TextFilter::settle`] comes next.
    fn room(&mut self) -> &mut String {
        self.text.drain(..self.certain);
        self.certain = 0;
        &mut self.text
    }

    /// Finds out what of the text is certain now, and whether a stop text was found behind it.
    fn settle(&mut self) -> bool {
        let text = &self.text;
        let found = self.stops.iter().filter_map(|stop| text.find(stop)).min();
        if let Some(at) = found {
            self.certain = at;
            return true;
        }
        let held = self
            .stops
            .iter()
            .flat_map(|stop| {
                (1..stop.len())
                    .filter(|n| stop.is_char_boundary(*n))
                    .map(|n| &stop[..n])
            })
            .filter(|prefix| text.ends_with(prefix))
            .map(str::len)
            .max();
        self.certain = text.len() - held.unwrap_or(0);
        false
    }

    /// Makes the held text certain: no more can come.
    fn finish(&mut self) {
        self.certain = self.text.len();
    }

    /// The text that became certain last.
    fn certain(&self) -> &str {
        &self.text[..self.certain]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes certain by a piece, and whether a stop text was found.
    fn push(filter: &mut TextFilter, piece: &str) -> (String, bool) {
        filter.room().push_str(piece);
        let stopped = filter.settle();
        (filter.certain().to_owned(), stopped)
    }

    #[test]
    fn a_stop_text_split_over_pieces_is_found_and_cut() {
        let mut filter = TextFilter::new(vec!["\n\n".into(), "END".into()]);
        let pieces = ["a cat E", "N", " and\n", "x\n", "\nmore"];
        let out: Vec<(String, bool)> = pieces.iter().map(|p| push(&mut filter, p)).collect();
        let text: String = out.iter().map(|(text, _)| text.as_str()).collect();
        assert_eq!(text, "a cat EN and\nx");
        assert_eq!(
            out.iter().map(|o| o.1).collect::<Vec<_>>(),
            [false, false, false, false, true]
        );
    }

    #[test]
    fn a_half_stop_text_at_the_end_is_given_out() {
        let mut filter = TextFilter::new(vec!["END".into(), String::new()]);
        assert_eq!(push(&mut filter, "the EN"), ("the ".to_owned(), false));
        filter.room();
        filter.finish();
        assert_eq!(filter.certain(), "EN");
    }
}
