//! [`Tally`]: what a rule did, in numbers.

use super::issued::purpose;
use ocelli_reflex::explain;
use ocelli_reflex::note::Note;
use ocelli_reflex::output::EventPhase;
use ocelli_reflex::rule::Branch;
use ocelli_reflex::{Output, Outputs, Policy, RuleIndex};
use serde::Serialize;
use std::collections::BTreeMap;

/// What a rule did, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// It started.
    pub started: u64,
    /// Its trigger held and it did not start.
    pub held_back: u64,
    /// Questions put.
    pub asked: u64,
    /// Decisions for `then`, `else` and `unsure`.
    pub decided: [u64; 3],
    /// Actions done.
    pub done: u64,
    /// Actions refused.
    pub refused: u64,
    /// Actions put before a person.
    pub requested: u64,
    /// Events announced.
    pub events: u64,
}

impl Tally {
    /// Names and numbers.
    pub fn columns(&self) -> [(&'static str, u64); 10] {
        [
            ("started", self.started),
            ("held back", self.held_back),
            ("asked", self.asked),
            ("then", self.decided[0]),
            ("else", self.decided[1]),
            ("unsure", self.decided[2]),
            ("done", self.done),
            ("refused", self.refused),
            ("put to a person", self.requested),
            ("events", self.events),
        ]
    }

    fn add(&mut self, output: &Output) {
        let number = match output {
            Output::Ask(_) => &mut self.asked,
            Output::Act(_) | Output::WouldAct(_) => &mut self.done,
            Output::RequestApproval(_) => &mut self.requested,
            Output::Event(notice) if notice.phase == EventPhase::New => &mut self.events,
            Output::Note(Note::Started { .. }) => &mut self.started,
            Output::Note(Note::NotStarted { .. }) => &mut self.held_back,
            Output::Note(Note::Refused { .. }) => &mut self.refused,
            Output::Note(Note::Decided { branch, .. }) => match branch {
                Branch::Then => &mut self.decided[0],
                Branch::Else => &mut self.decided[1],
                Branch::Unsure => &mut self.decided[2],
            },
            _ => return,
        };
        *number += 1;
    }
}

/// Tallies by the rule's name.
pub type Tallies = BTreeMap<String, Tally>;

/// Counts the outputs of a step.
pub fn count(policy: &Policy, outputs: &Outputs, tallies: &mut Tallies) {
    for output in &outputs.list {
        if let Some(rule) = rule_of(output).and_then(|rule| policy.rule(rule)) {
            tallies.entry(rule.id.to_string()).or_default().add(output);
        }
    }
}

/// The rule an output belongs to.
pub fn rule_of(output: &Output) -> Option<RuleIndex> {
    match output {
        Output::Ask(ask) => Some(ask.rule),
        Output::Act(act) | Output::WouldAct(act) => Some(act.rule),
        Output::RequestApproval(request) => Some(request.rule),
        Output::CallHook(call) => Some(call.rule),
        Output::Event(notice) => Some(notice.rule),
        Output::Note(
            Note::Started { rule, .. }
            | Note::NotStarted { rule, .. }
            | Note::Decided { rule, .. }
            | Note::Permitted { rule, .. }
            | Note::Refused { rule, .. }
            | Note::GivenUp { rule, .. },
        ) => Some(*rule),
        _ => None,
    }
}

/// What matters of the outputs of a step, in words without ids and times, so that it can be
/// compared with that of other rules.
pub fn deeds(policy: &Policy, outputs: &Outputs) -> Vec<String> {
    let mut deeds = Vec::new();
    for output in &outputs.list {
        let rule = rule_of(output).and_then(|rule| policy.rule(rule));
        let rule = rule.map_or("", |rule| rule.id.as_str());
        deeds.extend(
            match output {
                Output::Ask(_) => {
                    purpose(policy, output).map(|(_, of)| format!("asks {:?}", of.what))
                }
                Output::Act(act) | Output::WouldAct(act) => {
                    Some(format!("does: {}", explain::action(policy, act.action)))
                }
                Output::RequestApproval(request) => Some(format!(
                    "asks a person about {}",
                    explain::action(policy, request.action)
                )),
                Output::Event(notice) => Some(format!(
                    "{}: {:?}",
                    explain::action(policy, notice.action),
                    notice.phase
                )),
                Output::Note(Note::Started { .. }) => Some("starts".to_owned()),
                Output::Note(Note::NotStarted { why, .. }) => {
                    let why = format!("{why:?}");
                    // How much of a cooldown is left is no news.
                    let why = why.split([' ', '(']).next().unwrap_or_default();
                    Some(format!("does not start: {}", why.to_lowercase()))
                }
                Output::Note(Note::Refused { action, why, .. }) => {
                    let why = format!("{why:?}");
                    let why = why.split([' ', '(']).next().unwrap_or_default();
                    let action = explain::action(policy, *action);
                    Some(format!("is refused {action}: {}", why.to_lowercase()))
                }
                Output::Note(Note::Decided { branch, .. }) => {
                    Some(format!("ends with {}", branch.word()))
                }
                _ => None,
            }
            .map(|deed| format!("{rule}: {deed}")),
        );
        if let Output::PinSafe(safe) = output
            && let Some(pin) = policy.pin(safe.pin)
        {
            deeds.push(format!("pin {} is made safe", pin.name));
        }
    }
    deeds
}
