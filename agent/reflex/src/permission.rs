//! [`Permission`]: a line that denies, asks for or allows actions.

use crate::action::ActionKind;
use crate::diagnostic::Span;
use crate::observation::Link;
use crate::schedule::{Rate, Window};
use crate::time::Millis;
use serde::{Deserialize, Serialize};

/// What an action can do to the world, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Level {
    /// Looks and remembers.
    Observe,
    /// Tells.
    Notify,
    /// Moves something that can be moved back.
    ActuateReversible,
    /// Moves something that cannot.
    ActuateIrreversible,
}

impl Level {
    /// All levels with their names in files, weakest first.
    pub const NAMES: [(&str, Level); 4] = [
        ("observe", Level::Observe),
        ("notify", Level::Notify),
        ("actuate-reversible", Level::ActuateReversible),
        ("actuate-irreversible", Level::ActuateIrreversible),
    ];

    /// Whether actions of this level need a line that allows them.
    pub fn actuates(self) -> bool {
        self >= Level::ActuateReversible
    }
}

/// What a line says. Over all lines that match, deny beats ask beats allow; order means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Effect {
    /// May be done.
    Allow,
    /// A person must approve.
    Ask,
    /// Must not be done.
    Deny,
}

/// One line of the permission list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    /// What it says.
    pub effect: Effect,
    /// Kinds of action, a bit each.
    pub(crate) kinds: u8,
    /// Level of the action, a bit each.
    pub(crate) levels: u8,
    /// Targets of the action's kind, a bit each; all kinds but one are all ones if `kinds` has
    /// several.
    pub(crate) targets: u64,
    /// Rules, a bit each.
    pub(crate) rules: u64,
    /// Values of `set`, lowest and highest; `None`: any.
    pub values: Option<(i32, i32)>,
    /// When; `None`: always.
    pub during: Option<Window>,
    /// How often, all actions together that the line allows.
    pub rate: Option<RatedLine>,
    /// Age limit of the evidence.
    pub evidence: Option<Millis>,
    /// For `ask`: links a decision may come from, a bit each.
    pub(crate) via: u8,
    /// For `ask`: time after which the answer is no.
    pub expires: Millis,
    /// The owner's reason, for people.
    pub why: String,
    /// Where it is defined.
    pub at: Span,
    /// Line in the file, from 1.
    pub line: u32,
}

/// A rate and where its history stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RatedLine {
    /// The rate.
    pub rate: Rate,
    /// Position in the state's table.
    pub(crate) slot: usize,
    /// Recognises the line after a reload.
    pub(crate) key: u64,
}

impl Permission {
    /// Whether the line speaks about a kind of action.
    pub fn covers_kind(&self, kind: ActionKind) -> bool {
        self.kinds & kind.bit() != 0
    }

    /// Whether a decision may come from this link.
    pub fn takes_decisions_from(&self, link: Link) -> bool {
        self.via & link.bit() != 0
    }
}
