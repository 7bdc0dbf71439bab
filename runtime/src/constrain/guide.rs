//! [`Guide`]: which tokens may come next, and which does.

use super::node::Node;
use super::{Grammar, State, TokenTrie};
use crate::error::RunError;
use crate::session::Written;
use std::collections::HashMap;
use std::rc::Rc;

/// In place of a count of tokens: the vocabulary has no way out.
const NO_WAY: u16 = u16::MAX;

/// Tokens whose logits are computed one by one rather than with all others.
const FEW: usize = 256;

/// Leads one answer along a grammar.
#[derive(Debug)]
pub struct Guide<'g> {
    grammar: &'g Grammar,
    trie: &'g TokenTrie,
    state: State,
    /// Tokens that may still come.
    left: usize,
    /// Tokens that may follow a state, each with the tokens of the way out behind it.
    followers: HashMap<State, Rc<[(u32, u16)]>>,
    /// Tokens of the way out from a state.
    ways_out: HashMap<State, u16>,
    text: Vec<u8>,
    tokens: Vec<u32>,
    probabilities: Vec<f32>,
    fields: Vec<Begun>,
}

/// A value of an answer and its probability.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Where it stands, e.g. `items[].name`; empty if it is the whole answer.
    pub path: String,
    /// The value as it is written.
    pub text: String,
    /// Probability of its tokens among those that were allowed: of all of them together, for a
    /// string the geometric mean.
    pub probability: f64,
}

/// A field in the making.
#[derive(Debug)]
struct Begun {
    number: u16,
    node: u16,
    text: Vec<u8>,
    log_probability: f64,
    tokens: usize,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// This token.
    Token(u32),
    /// Nothing: the answer is whole.
    End,
}

impl<'g> Guide<'g> {
    /// Begins an answer of at most `max_tokens` tokens.
    ///
    /// # Errors
    ///
    /// [`RunError::AnswerBudget`] if they do not suffice; [`RunError::NoTokens`] if the vocabulary
    /// cannot write the shortest answer.
    pub fn new(
        grammar: &'g Grammar,
        trie: &'g TokenTrie,
        max_tokens: usize,
    ) -> Result<Guide<'g>, RunError> {
        let state = grammar.start();
        let way_out = count_tokens(grammar, trie, &state);
        if way_out == NO_WAY {
            let text = String::from_utf8_lossy(&grammar.way_out(&state)).into_owned();
            return Err(RunError::NoTokens { text });
        }
        if usize::from(way_out) > max_tokens {
            return Err(RunError::AnswerBudget {
                needed: usize::from(way_out),
                allowed: max_tokens,
            });
        }
        Ok(Guide {
            grammar,
            trie,
            state,
            left: max_tokens,
            followers: HashMap::new(),
            ways_out: HashMap::new(),
            text: Vec::new(),
            tokens: Vec::new(),
            probabilities: Vec::new(),
            fields: Vec::new(),
        })
    }

    /// Whether nothing more can come.
    pub fn is_over(&self) -> bool {
        self.state.is_over()
    }

    /// Tokens that may come next, with which the answer can still be finished in time.
    pub fn allowed(&mut self) -> Vec<u32> {
        allowed(&self.followers(), self.left).collect()
    }

    /// The tokens whose logits alone decide what comes next, where they are few.
    pub fn few_wanted(&mut self) -> Option<Vec<u32>> {
        if self.grammar.may_end(&self.state) {
            return None;
        }
        let followers = self.followers();
        let allowed = allowed(&followers, self.left);
        let few = 1..=FEW;
        few.contains(&allowed.clone().count())
            .then(|| allowed.collect())
    }

    /// Takes the likeliest token that is allowed, or ends. Where the answer may end, everything the
    /// model would say instead of going on counts for the end. `logits`: `[vocab]`, of which only those
    /// of [`Guide::few_wanted`] are read where that gives any.
    pub fn next(&mut self, logits: &[f32]) -> Step {
        if self.is_over() {
            return Step::End;
        }
        let followers = self.followers();
        let allowed = allowed(&followers, self.left);
        let logit = |token: u32| logits.get(token as usize).copied();
        let may_end = self.grammar.may_end(&self.state);
        let total = match may_end {
            true => log_sum(logits.iter().copied()),
            false => log_sum(allowed.clone().filter_map(logit)),
        };
        let share = |token: u32| {
            let share = logit(token).map_or(0.0, |own| (f64::from(own) - total).exp());
            if share.is_finite() {
                share.min(1.0)
            } else {
                0.0
            }
        };
        let likeliest = likeliest(allowed.clone(), logit);
        if may_end {
            let goes_on: f64 = allowed.map(share).sum();
            let end = (1.0 - goes_on).clamp(0.0, 1.0);
            if likeliest.is_none_or(|token| share(token) <= end) {
                return self.end(end);
            }
        }
        match likeliest.or_else(|| self.first_out()) {
            Some(token) => self.take(token, share(token)),
            // The budget always keeps a way out open.
            None => Step::End,
        }
    }

    /// Takes the tokens of the text that comes next whatever the model says, as far as it belongs to no
    /// field: names of properties and the marks around them. They need no logits, and can be run
    /// through the decoder together. `encode` gives a text's tokens, of which the last is left to the
    /// model, which may join it to what follows; nor is a token taken that is not allowed.
    pub fn take_certain(&mut self, encode: impl FnOnce(&str) -> Vec<u32>) -> Vec<u32> {
        let bytes = self.certain();
        let whole = bytes.utf8_chunks().next();
        let mut tokens = whole.map_or(Vec::new(), |text| encode(text.valid()));
        tokens.pop();
        let taken = (tokens.iter()).position(|token| {
            let is_allowed = self.allowed().contains(token);
            if is_allowed {
                self.take(*token, 1.0);
            }
            !is_allowed
        });
        tokens.truncate(taken.unwrap_or(tokens.len()));
        tokens
    }

    /// The bytes that follow whatever the model says, as far as they belong to no field.
    fn certain(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut state = self.state;
        while !self.grammar.may_end(&state) {
            let step = |byte| self.grammar.step(&state, byte).map(|next| (byte, next));
            let mut steps = (0..=u8::MAX).filter_map(step);
            match (steps.next(), steps.next()) {
                (Some((byte, next)), None) if next.field.0 == 0 => {
                    bytes.push(byte);
                    state = next;
                }
                _ => break,
            }
        }
        bytes
    }

    fn take(&mut self, token: u32, probability: f64) -> Step {
        self.left = self.left.saturating_sub(1);
        self.tokens.push(token);
        self.probabilities.push(probability as f32);
        let mut counted = 0;
        for byte in self.trie.bytes_of(token) {
            let fresh = self.state.fresh;
            // Tokens that may not come were not allowed.
            let Some(next) = self.grammar.step(&self.state, *byte) else {
                break;
            };
            self.state = next;
            if fresh && next.field.0 == 0 && *byte == b' ' {
                continue;
            }
            self.text.push(*byte);
            let (number, node) = next.field;
            if number == 0 {
                continue;
            }
            if self.fields.last().is_none_or(|last| last.number != number) {
                self.fields.push(Begun::new(number, node));
            }
            if let Some(field) = self.fields.last_mut() {
                field.text.push(*byte);
                if counted != number {
                    field.count(probability);
                    counted = number;
                }
            }
        }
        Step::Token(token)
    }

    /// Ends an answer that could have gone on.
    fn end(&mut self, probability: f64) -> Step {
        if let Some(field) = self.fields.last_mut() {
            field.count(probability);
        }
        Step::End
    }

    /// The first token of the way out.
    fn first_out(&self) -> Option<u32> {
        let text = self.grammar.way_out(&self.state);
        self.trie.first_token(&text).map(|(token, _)| token)
    }

    /// The tokens that may follow, each with what it takes to finish behind it.
    fn followers(&mut self) -> Rc<[(u32, u16)]> {
        let longest = self.trie.longest();
        let key = self.grammar.key(&self.state, longest);
        if let Some(known) = self.followers.get(&key) {
            return known.clone();
        }
        let (grammar, trie, ways_out) = (self.grammar, self.trie, &mut self.ways_out);
        let mut found = Vec::new();
        trie.walk(
            self.state,
            |state, byte| grammar.step(state, byte),
            |token, state| {
                // A way out may be asked for by a text of any length.
                let key = grammar.key(state, 0);
                let way_out = *ways_out
                    .entry(key)
                    .or_insert_with(|| count_tokens(grammar, trie, state));
                found.push((token, way_out));
            },
        );
        let found: Rc<[(u32, u16)]> = found.into();
        self.followers.insert(key, found.clone());
        found
    }

    /// The answer.
    pub fn finish(self) -> Written {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let grammar = self.grammar;
        let field = |field: Begun| Field {
            path: grammar.paths[usize::from(field.node)].clone(),
            text: text(&field.text),
            probability: match grammar.nodes[usize::from(field.node)] {
                Node::Text(_) => (field.log_probability / field.tokens as f64).exp(),
                _ => field.log_probability.exp(),
            },
        };
        Written {
            text: text(&self.text),
            tokens: self.tokens,
            probabilities: self.probabilities,
            fields: self.fields.into_iter().map(field).collect(),
        }
    }
}

impl Begun {
    fn new(number: u16, node: u16) -> Begun {
        Begun {
            number,
            node,
            text: Vec::new(),
            log_probability: 0.0,
            tokens: 0,
        }
    }

    /// One more token of the field.
    fn count(&mut self, probability: f64) {
        self.log_probability += probability.max(f64::MIN_POSITIVE).ln();
        self.tokens += 1;
    }
}

/// Followers with which the answer can be finished within `left` tokens.
fn allowed(followers: &[(u32, u16)], left: usize) -> impl Iterator<Item = u32> + Clone {
    followers
        .iter()
        .filter(move |(_, way_out)| *way_out != NO_WAY && usize::from(*way_out) < left)
        .map(|(token, _)| *token)
}

/// The token with the highest logit, the one with the lowest id of equals; `None` if none has a
/// usable one.
fn likeliest(tokens: impl Iterator<Item = u32>, logit: impl Fn(u32) -> Option<f32>) -> Option<u32> {
    let mut best: Option<(f32, u32)> = None;
    for token in tokens {
        let own = logit(token).filter(|own| *own > f32::NEG_INFINITY);
        let Some(own) = own else { continue };
        if best.is_none_or(|(most, id)| own > most || (own == most && token < id)) {
            best = Some((own, token));
        }
    }
    best.map(|(_, token)| token)
}

/// `ln Σ exp(x)` of those that are numbers.
fn log_sum(logits: impl Iterator<Item = f32> + Clone) -> f64 {
    let most = f64::from(logits.clone().fold(f32::NEG_INFINITY, f32::max));
    let terms = logits.filter(|logit| !logit.is_nan());
    let sum: f64 = terms.map(|logit| (f64::from(logit) - most).exp()).sum();
    most + sum.ln()
}

/// Tokens of the way out from a state.
fn count_tokens(grammar: &Grammar, trie: &TokenTrie, state: &State) -> u16 {
    let text = grammar.way_out(state);
    let mut rest = &text[..];
    let mut count = 0;
    while !rest.is_empty() {
        match trie.first_token(rest) {
            Some((_, length)) if count < NO_WAY - 1 => {
                rest = &rest[length..];
                count += 1;
            }
            _ => return NO_WAY,
        }
    }
    count
}
