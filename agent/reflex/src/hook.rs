//! [`Hook`]: a program of the owner that may object before an action or hears of it after.

use crate::action::ActionKind;
use crate::diagnostic::Span;
use crate::permission::Level;
use crate::text::Name;
use crate::time::Millis;

/// A hook of the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Name in the policy.
    pub name: Name,
    /// Program and arguments; no shell is involved.
    pub command: Vec<String>,
    /// Kinds of action it is asked about before, a bit each.
    pub(crate) before: u8,
    /// Kinds of action it is told about after, a bit each.
    pub(crate) after: u8,
    /// Time it has; no verdict by then is a veto.
    pub timeout: Millis,
    /// Level of running it as an action of a rule.
    pub level: Level,
    /// Where it is defined.
    pub at: Span,
}

impl Hook {
    /// Whether the hook may object to actions of this kind.
    pub fn runs_before(&self, kind: ActionKind) -> bool {
        self.before & kind.bit() != 0
    }

    /// Whether the hook is told about actions of this kind.
    pub fn runs_after(&self, kind: ActionKind) -> bool {
        self.after & kind.bit() != 0
    }
}
