//! [`Rule`]: when to look, what to ask, what to do.

use crate::action::Action;
use crate::diagnostic::Span;
use crate::index::{PacketIndex, PinIndex, RuleIndex, TopicIndex};
use crate::observation::Cause;
use crate::probability::Probability;
use crate::question::Question;
use crate::schedule::{Schedule, Window};
use crate::text::Name;
use crate::time::Millis;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// A rule of the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name.
    pub id: Name,
    /// False: it does not start unless a person switches it on.
    pub enabled: bool,
    /// Whether a person may switch it on and off; otherwise `enabled` stands.
    pub switchable: bool,
    /// 0 to 9; under pressure low ones go first.
    pub priority: u8,
    /// Shortest time between two starts.
    pub cooldown: Millis,
    /// When it may start; `None`: always.
    pub during: Option<Window>,
    /// What starts it.
    pub when: Vec<Trigger>,
    /// What it asks; `None`: it takes `then` at once.
    pub ask: Option<Question>,
    /// Age limit of the picture behind an action of this rule.
    pub evidence: Option<Millis>,
    /// Actions if the answer is the expected one, as positions in the policy's table.
    pub then: Range<u16>,
    /// Actions if it is another one.
    pub otherwise: Range<u16>,
    /// Actions if there is no certain answer.
    pub unsure: Range<u16>,
    /// Where it is defined.
    pub at: Span,
}

impl Rule {
    /// Positions of the actions of a branch.
    pub fn branch(&self, branch: Branch) -> Range<u16> {
        match branch {
            Branch::Then => self.then.clone(),
            Branch::Else => self.otherwise.clone(),
            Branch::Unsure => self.unsure.clone(),
        }
    }
}

/// How a rule ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Branch {
    /// The expected answer, or none needed.
    Then,
    /// Another answer.
    Else,
    /// No certain answer.
    Unsure,
}

impl Branch {
    /// Name in files.
    pub fn word(self) -> &'static str {
        match self {
            Branch::Then => "then",
            Branch::Else => "else",
            Branch::Unsure => "unsure",
        }
    }
}

/// What starts a rule, and where it is defined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// The event awaited.
    pub source: Source,
    /// Where it is defined.
    pub at: Span,
}

/// The event a trigger awaits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A change in one of the zones.
    Change {
        /// Zones, a bit each.
        zones: u64,
        /// Smallest changed share.
        fraction: Probability,
        /// The cause.
        cause: Cause,
        /// Start once only in a stretch of change.
        once: bool,
    },
    /// An edge of an input.
    Pin {
        /// The pin.
        pin: PinIndex,
        /// Level after the edge; `None`: both.
        level: Option<bool>,
    },
    /// A packet from the serial peer.
    Packet {
        /// The packet.
        packet: PacketIndex,
        /// Its body; `None`: any.
        equals: Option<String>,
    },
    /// A message.
    Topic {
        /// The topic.
        topic: TopicIndex,
        /// Its payload; `None`: any.
        equals: Option<String>,
    },
    /// The clock.
    Schedule(Schedule),
    /// The end of another rule.
    Rule {
        /// The other rule.
        rule: RuleIndex,
        /// How it ended.
        branch: Branch,
        /// The choice answered; `None`: any.
        choice: Option<u8>,
    },
    /// A person's wish for an output.
    Command {
        /// The pin.
        pin: PinIndex,
        /// What is wished; `None`: on or off.
        on: Option<bool>,
        /// Links it may come over, a bit each.
        from: u8,
    },
}

impl Source {
    /// Name in files.
    pub fn word(&self) -> &'static str {
        match self {
            Source::Change { .. } => "change",
            Source::Pin { .. } => "pin",
            Source::Packet { .. } => "packet",
            Source::Topic { .. } => "topic",
            Source::Schedule(_) => "schedule",
            Source::Rule { .. } => "rule",
            Source::Command { .. } => "command",
        }
    }
}

/// All actions of a rule's branches and choices, with their positions.
pub(crate) fn actions_of<'a>(
    rule: &Rule,
    actions: &'a [Action],
) -> impl Iterator<Item = (u16, &'a Action)> + use<'a> {
    let picks = match rule.ask.as_ref().map(|ask| &ask.form) {
        Some(crate::question::Form::Pick { actions, .. }) => actions.clone(),
        _ => 0..0,
    };
    [
        rule.then.clone(),
        rule.otherwise.clone(),
        rule.unsure.clone(),
        picks,
    ]
    .into_iter()
    .flatten()
    .filter_map(|index| Some((index, actions.get(usize::from(index))?)))
}
