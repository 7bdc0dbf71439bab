//! [`verdict`]: what the permission lines say about an action.

use super::envelope::check_evidence;
use crate::action::{Action, ActionKind};
use crate::index::{PermissionIndex, RuleIndex};
use crate::note::Refusal;
use crate::output::Evidence;
use crate::permission::{Effect, Level, Permission};
use crate::policy::Policy;
use crate::state::State;
use crate::time::{LocalTime, Millis};

/// An action as permission lines see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) kind: ActionKind,
    pub(crate) level: Level,
    pub(crate) target: usize,
    pub(crate) rule: RuleIndex,
    pub(crate) value: Option<i32>,
    pub(crate) evidence: Option<Evidence>,
}

impl Subject {
    pub(crate) fn of(action: &Action, rule: RuleIndex) -> Subject {
        Subject {
            kind: action.command.kind(),
            level: action.level,
            target: action.command.target(),
            rule,
            value: None,
            evidence: None,
        }
    }
}

/// What the lines say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Go on; `None`: no line was needed.
    Allow(Option<PermissionIndex>),
    /// A person must approve.
    Ask {
        line: PermissionIndex,
        via: u8,
        expires: Millis,
    },
    /// Stop.
    Deny(Refusal),
}

/// Whether the line speaks about the action, its window apart.
pub(crate) fn matches(line: &Permission, subject: &Subject) -> bool {
    line.covers_kind(subject.kind)
        && line.levels & (1 << subject.level as u8) != 0
        && line.targets & bit(subject.target) != 0
        && line.rules & bit(subject.rule.get()) != 0
        && match (line.values, subject.value) {
            (None, _) => true,
            (Some((low, high)), Some(value)) => (low..=high).contains(&value),
            // A line about values cannot allow what has none, and must not miss it either.
            (Some(_), None) => line.effect != Effect::Allow,
        }
}

fn bit(position: usize) -> u64 {
    u32::try_from(position)
        .ok()
        .and_then(|position| 1_u64.checked_shl(position))
        .unwrap_or(0)
}

/// Whether the line is in force. Without a wall clock a line in a window does not allow, but it
/// asks and denies.
fn in_force(line: &Permission, local: Option<LocalTime>) -> bool {
    match (line.during, local) {
        (None, _) => true,
        (Some(window), Some(local)) => window.contains(local),
        (Some(_), None) => line.effect != Effect::Allow,
    }
}

/// Lines in force about an action.
pub(crate) fn lines<'p>(
    policy: &'p Policy,
    subject: &'p Subject,
    local: Option<LocalTime>,
) -> impl Iterator<Item = (PermissionIndex, &'p Permission)> {
    (0..)
        .map(PermissionIndex)
        .zip(&policy.permissions)
        .filter(move |(_, line)| matches(line, subject) && in_force(line, local))
}

/// Deny beats ask beats allow, whatever the order; the limits of every line in force must hold;
/// without a line, what actuates is denied.
pub(crate) fn verdict(
    policy: &Policy,
    state: &State,
    subject: &Subject,
    local: Option<LocalTime>,
) -> Verdict {
    if subject.level > policy.highest {
        return Verdict::Deny(Refusal::Level);
    }
    if let Some((index, _)) =
        lines(policy, subject, local).find(|(_, line)| line.effect == Effect::Deny)
    {
        return Verdict::Deny(Refusal::Denied(index));
    }
    let mut allow = None;
    let mut ask: Option<(PermissionIndex, u8, Millis)> = None;
    for (index, line) in lines(policy, subject, local) {
        if let Err(refusal) = check_limits(state, index, line, subject) {
            return Verdict::Deny(refusal);
        }
        if line.effect == Effect::Ask {
            ask = Some(match ask {
                None => (index, line.via, line.expires),
                Some((first, via, expires)) => (first, via & line.via, expires.min(line.expires)),
            });
        } else {
            allow = allow.or(Some(index));
        }
    }
    match (ask, allow) {
        (Some((line, via, expires)), _) => Verdict::Ask { line, via, expires },
        (None, None) if subject.level.actuates() => Verdict::Deny(Refusal::NoLine),
        (None, line) => Verdict::Allow(line),
    }
}

fn check_limits(
    state: &State,
    index: PermissionIndex,
    line: &Permission,
    subject: &Subject,
) -> Result<(), Refusal> {
    check_evidence(line.evidence, subject.evidence, state.time)?;
    let Some(rated) = line.rate else {
        return Ok(());
    };
    match state.rates.get(rated.slot) {
        Some(history) if history.times.allow(rated.rate, state.time) => Ok(()),
        _ => Err(Refusal::LineRate(index)),
    }
}
