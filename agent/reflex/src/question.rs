//! [`Question`]: what a rule asks about a picture.

use crate::diagnostic::Span;
use crate::probability::Probability;
use crate::time::Millis;
use std::ops::Range;

/// A question of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// What is asked.
    pub prompt: String,
    /// Form of the answer.
    pub form: Form,
    /// An answer less probable than this is `unsure`.
    pub threshold: Probability,
    /// How many looks must agree.
    pub votes: Votes,
    /// Which picture the first look uses.
    pub picture: Picture,
    /// Time from trigger to decision; later is `unsure`.
    pub deadline: Millis,
    /// Tokens an answer may have.
    pub max_tokens: u16,
    /// A first answer from the global view may already notify.
    pub early: bool,
    /// If unsure, the remote model is asked.
    pub second_opinion: bool,
    /// Where it is defined.
    pub at: Span,
}

/// Form of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// One of a closed list.
    Choices {
        /// The list.
        choices: Vec<String>,
        /// Choices that take the `then` branch, a bit each.
        expect: u8,
    },
    /// A number of things.
    Count {
        /// Lowest and highest number.
        range: (u32, u32),
        /// Numbers that take the `then` branch.
        expect: (u32, u32),
    },
    /// Free text.
    Caption,
    /// Fields of a document.
    Schema {
        /// Name of the schema.
        schema: String,
    },
    /// The model picks one of the rule's actions, or none (the last index).
    Pick {
        /// The actions.
        actions: Range<u16>,
        /// How often it may pick in one run.
        steps: u8,
    },
}

impl Form {
    /// Word for people.
    pub fn word(&self) -> &'static str {
        match self {
            Form::Choices { .. } => "choices",
            Form::Count { .. } => "count",
            Form::Caption => "caption",
            Form::Schema { .. } => "schema",
            Form::Pick { .. } => "pick",
        }
    }
}

/// "2 of 3 looks agree".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Votes {
    /// Looks that must agree.
    pub need: u8,
    /// Looks at most.
    pub of: u8,
    /// Time between looks.
    pub gap: Millis,
}

/// Which picture the first look uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Picture {
    /// One taken after the trigger.
    Fresh,
    /// The one in which the change was seen, if there is one, else a fresh one.
    Trigger,
}
