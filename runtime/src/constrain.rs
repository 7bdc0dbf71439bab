//! Answers that follow a form: one of some texts, a number in a range, a JSON document.
//!
//! | file | defines |
//! |---|---|
//! | this one | [`Grammar`], the form, and [`State`], how far an answer is |
//! | [`schema`] | the part of JSON Schema that can be a form |
//! | `node` | what each kind of value takes, byte by byte |
//! | `number` | numbers in a range, digit by digit |
//! | [`trie`] | the vocabulary, ordered so that all tokens are tried at once |
//! | [`guide`] | which tokens may come next, and which does |
//!
//! A grammar is an automaton over the answer's bytes with a small stack. It knows no tokens: a
//! token may end in the middle of a character, and may span the end of one value and the begin of
//! the next. From every state there is one *shortest way out*, which the grammar knows: when tokens
//! run low, only those are allowed from which the way out can still be written.
//!
//! JSON is written without any white space outside of strings, and numbers and strings are bounded:
//! small models otherwise go round in circles inside valid documents.

pub mod guide;
mod node;
mod number;
pub mod schema;
#[cfg(test)]
mod tests;
pub mod trie;

pub use guide::{Field, Guide, Step};
pub use trie::TokenTrie;

use node::{Advance, Frame, Node};
use number::Range;
use std::collections::HashSet;

/// Most values that can be open inside each other: the document, its objects and arrays, a field.
pub const MAX_DEPTH: usize = 8;
/// Most texts to choose from, and most properties of an object.
pub const MAX_ALTERNATIVES: usize = 64;
/// Longest text of an alternative, name of a property or default of a string's length, in bytes or
/// characters.
pub const MAX_TEXT: usize = 256;
/// Most values a grammar may name, all objects together.
pub const MAX_NODES: usize = 512;
/// Largest bound of a number, and the default one.
pub const MAX_NUMBER: i64 = 999_999_999;
/// Digits a number may have after its point.
pub const DECIMALS: u32 = 3;

/// Why a form cannot be used. `at` is the place in the schema, e.g. `properties.name.type`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GrammarError {
    /// The text is no JSON.
    #[error("the schema is no JSON: {what}")]
    Syntax {
        /// Where and why.
        what: String,
    },
    /// A keyword that is not understood, so that it would not be obeyed.
    #[error("schema at {at}: the keyword {keyword:?} is not supported; supported are {supported}")]
    Keyword {
        /// Place of the object with the keyword.
        at: String,
        /// The keyword.
        keyword: String,
        /// What may stand there.
        supported: String,
    },
    /// A value of another kind, or out of bounds.
    #[error("schema at {at}: found {found}, needed {needed}")]
    Value {
        /// Place of the value.
        at: String,
        /// What stands there.
        found: String,
        /// What may stand there.
        needed: String,
    },
    /// Too many or too long texts.
    #[error("{at}: {found}, the limit is {limit}")]
    TooMuch {
        /// Where.
        at: String,
        /// What was found.
        found: String,
        /// How much there may be.
        limit: usize,
    },
    /// Nothing fits.
    #[error("{at}: {what}")]
    Empty {
        /// Where.
        at: String,
        /// Why.
        what: String,
    },
}

/// The form of an answer.
#[derive(Clone, Debug)]
pub struct Grammar {
    nodes: Vec<Node>,
    /// Where each node's value stands, e.g. `items[].name`.
    paths: Vec<String>,
    root: u16,
}

/// How far an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    frames: [Frame; MAX_DEPTH],
    depth: u8,
    /// Nothing was written yet: a space may come, with which answers of this family begin.
    fresh: bool,
    /// Fields begun so far.
    fields: u16,
    /// The field the last byte belongs to, from 1, and its node; 0 if it belongs to none.
    field: (u16, u16),
}

impl Grammar {
    /// One of these texts, as it is written.
    ///
    /// # Errors
    ///
    /// No text, more than [`MAX_ALTERNATIVES`], an empty one, one longer than [`MAX_TEXT`] bytes,
    /// two that are equal.
    pub fn one_of<T: AsRef<str>>(texts: &[T]) -> Result<Grammar, GrammarError> {
        let at = || "the answers to choose from".to_owned();
        let texts: Vec<&str> = texts.iter().map(|text| text.as_ref().trim()).collect();
        if texts.is_empty() || texts.iter().any(|text| text.is_empty()) {
            return Err(GrammarError::Empty {
                at: at(),
                what: "there is none, or an empty one".to_owned(),
            });
        }
        let mut seen = HashSet::new();
        if let Some(twice) = texts.iter().find(|text| !seen.insert(**text)) {
            return Err(GrammarError::Value {
                at: at(),
                found: format!("{twice:?} twice"),
                needed: "different texts".to_owned(),
            });
        }
        Ok(Grammar::of(node::texts(&texts, &at())?))
    }

    /// A whole number from `low` to `high`, without leading zeros.
    ///
    /// # Errors
    ///
    /// A bound beyond [`MAX_NUMBER`], or `low` above `high`.
    pub fn integer(low: i64, high: i64) -> Result<Grammar, GrammarError> {
        Ok(Grammar::of(Node::Number(Range::new(low, high, 0)?)))
    }

    /// A JSON document after a schema; see [`schema`].
    ///
    /// # Errors
    ///
    /// What is not understood or contradicts itself, with its place.
    pub fn json(schema: &str) -> Result<Grammar, GrammarError> {
        schema::compile(schema)
    }

    fn of(node: Node) -> Grammar {
        Grammar {
            nodes: vec![node],
            paths: vec![String::new()],
            root: 0,
        }
    }

    /// The state before the first byte.
    pub fn start(&self) -> State {
        let mut state = State {
            frames: [Frame::default(); MAX_DEPTH],
            depth: 0,
            fresh: true,
            fields: 0,
            field: (0, 0),
        };
        self.open(&mut state, self.root);
        state
    }

    /// The state after one more byte; `None` if it may not come.
    pub fn step(&self, state: &State, byte: u8) -> Option<State> {
        let mut next = *state;
        next.fresh = false;
        if state.fresh && byte == b' ' {
            return Some(next);
        }
        loop {
            let top = usize::from(next.depth).checked_sub(1)?;
            let frame = next.frames[top];
            let node = &self.nodes[usize::from(frame.node)];
            match node.advance(frame, byte) {
                Advance::Stay(frame) => next.frames[top] = frame,
                Advance::Done => next.close(),
                Advance::Over => {
                    next.close();
                    continue;
                }
                Advance::Become(node) => {
                    next.frames[top] = Frame::of(node);
                    continue;
                }
                Advance::Into(frame, child) => {
                    next.frames[top] = frame;
                    self.open(&mut next, child);
                }
                Advance::Through(frame, child) => {
                    next.frames[top] = frame;
                    self.open(&mut next, child);
                    continue;
                }
                Advance::Refuse => return None,
            }
            next.field = match node.is_field() {
                true => (next.fields, frame.node),
                false => (0, 0),
            };
            return Some(next);
        }
    }

    /// Begins a value.
    fn open(&self, state: &mut State, node: u16) {
        // The compiler of schemas bounds the depth.
        state.frames[usize::from(state.depth)] = Frame::of(node);
        state.depth += 1;
        if self.nodes[usize::from(node)].is_field() {
            state.fields = state.fields.saturating_add(1);
        }
    }

    /// Whether the answer may end here.
    pub fn may_end(&self, state: &State) -> bool {
        match state.depth {
            0 => true,
            1 => {
                let frame = state.frames[0];
                self.nodes[usize::from(frame.node)].is_complete(frame)
            }
            _ => false,
        }
    }

    /// The bytes of the shortest way out: what can still be written so that the answer is whole.
    pub fn way_out(&self, state: &State) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut state = *state;
        while let Some(byte) = self.next_out(&state) {
            bytes.push(byte);
            match self.step(&state, byte) {
                Some(next) => state = next,
                // Every node takes the byte it names.
                None => break,
            }
        }
        bytes
    }

    /// The next byte of the shortest way out; `None` when the answer is whole.
    fn next_out(&self, state: &State) -> Option<u8> {
        let open = &state.frames[..usize::from(state.depth)];
        open.iter()
            .rev()
            .find_map(|frame| self.nodes[usize::from(frame.node)].way_out(*frame))
    }

    /// The same state with everything left out that cannot matter for a text of `longest` bytes.
    fn key(&self, state: &State, longest: usize) -> State {
        let mut key = State {
            fields: 0,
            field: (0, 0),
            ..*state
        };
        for frame in &mut key.frames[..usize::from(state.depth)] {
            *frame = self.nodes[usize::from(frame.node)].key(*frame, longest);
        }
        key
    }
}

impl State {
    /// Whether nothing more can come.
    pub fn is_over(&self) -> bool {
        self.depth == 0
    }

    fn close(&mut self) {
        self.depth -= 1;
        // What is closed must not make two states differ.
        self.frames[usize::from(self.depth)] = Frame::default();
    }
}
