//! [`State`]: everything the step remembers.

use crate::index::{
    ActId, ActionIndex, CallId, EventId, HookIndex, LookId, PermissionIndex, QuestionId, RequestId,
    RuleIndex,
};
use crate::limit::{
    MAX_ACTS, MAX_EVENTS, MAX_PENDING, MAX_PINS, MAX_RATE, MAX_RATED, MAX_RULES, MAX_RUNS,
};
use crate::observation::Value;
use crate::output::{Evidence, Finding, Model};
use crate::policy::Policy;
use crate::rule::Rule;
use crate::schedule::Rate;
use crate::text::Name;
use crate::time::Millis;
use serde::{Deserialize, Serialize};

/// Everything the step remembers; fixed in size, without pointers.
///
/// Made by [`State::new`] for any policy; it adopts the policy it is stepped with. What it keeps
/// from one policy to the next is kept by name: rates, cooldowns, off-times and what people
/// switched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub(crate) running: bool,
    pub(crate) fingerprint: Option<u64>,
    /// `Now::ms` of the last step.
    pub(crate) last_ms: Option<Millis>,
    /// The state's own clock.
    pub(crate) time: Millis,
    pub(crate) secret: [u64; 2],
    pub(crate) next_id: u64,
    pub(crate) links_up: u8,
    pub(crate) faults: u8,
    pub(crate) pins: heapless::Vec<PinState, MAX_PINS>,
    pub(crate) rules: heapless::Vec<RuleState, MAX_RULES>,
    pub(crate) rates: heapless::Vec<LineRate, MAX_RATED>,
    pub(crate) remote: Times,
    pub(crate) runs: heapless::Vec<Run, MAX_RUNS>,
    pub(crate) pending: heapless::Vec<Pending, MAX_PENDING>,
    pub(crate) events: heapless::Vec<OpenEvent, MAX_EVENTS>,
    pub(crate) acts: heapless::Vec<OpenAct, MAX_ACTS>,
    drops: Drops,
}

/// How much was dropped since the state was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drops {
    /// Notes.
    pub notes: u64,
    /// Looks, questions, announcements.
    pub outputs: u64,
    /// Rules started by rules.
    pub chain: u64,
    /// Waits for outcomes.
    pub acts: u64,
    /// Open events, ended early.
    pub events: u64,
    /// Runs.
    pub runs: u64,
}

impl State {
    /// A state that has seen nothing.
    pub fn new() -> State {
        State::default()
    }

    /// Whether the agent has started and not stopped.
    pub fn is_running(&self) -> bool {
        self.running
    }

    /// What was dropped so far.
    pub fn drops(&self) -> Drops {
        self.drops
    }

    pub(crate) fn drops_mut(&mut self) -> &mut Drops {
        &mut self.drops
    }

    /// Value of an output pin as far as it was set; `None` for inputs and unknown names.
    pub fn pin_value(&self, pin: &str) -> Option<i32> {
        self.pins.iter().find(|state| state.name == pin)?.value
    }

    /// Level of an input pin; `None` for outputs, unknown names and before it was read.
    pub fn pin_level(&self, pin: &str) -> Option<bool> {
        self.pins.iter().find(|state| state.name == pin)?.level
    }

    /// Whether a rule may start as far as file and people are concerned; `None` for unknown names.
    pub fn is_enabled(&self, policy: &Policy, rule: &str) -> Option<bool> {
        let rule = policy.rules.iter().find(|known| known.id == rule)?;
        Some(self.enables(rule))
    }

    pub(crate) fn enables(&self, rule: &Rule) -> bool {
        let said = self
            .rules
            .iter()
            .find(|state| state.id == rule.id)
            .and_then(|state| state.switched);
        said.filter(|_| rule.switchable).unwrap_or(rule.enabled)
    }

    /// Runs under way.
    pub fn runs(&self) -> usize {
        self.runs.len()
    }

    /// Actions that wait for a hook or a person.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    pub(crate) fn id(&mut self) -> u64 {
        self.next_id = self.next_id.saturating_add(1);
        self.next_id
    }

    /// Fits the tables to a policy. What is kept is found by name and, for pins, by line.
    pub(crate) fn adopt(&mut self, policy: &Policy) {
        let old = std::mem::take(&mut self.pins);
        self.pins = policy
            .pins
            .iter()
            .map(|pin| {
                let kept = old.iter().find(|state| state.line == pin.line).cloned();
                let mut state = kept.unwrap_or_else(|| PinState::unknown(self.time));
                state.name = pin.name.clone();
                state.line = pin.line.clone();
                match pin.envelope() {
                    Some(envelope) => state.switch_off(envelope.safe, self.time),
                    None => state.value = None,
                }
                state
            })
            .take(MAX_PINS)
            .collect();
        let old = std::mem::take(&mut self.rules);
        self.rules = policy
            .rules
            .iter()
            .map(|rule| {
                let kept = old.iter().find(|state| state.id == rule.id).cloned();
                let mut state = kept.unwrap_or_default();
                state.id = rule.id.clone();
                state.due = None;
                state
            })
            .take(MAX_RULES)
            .collect();
        let old = std::mem::take(&mut self.rates);
        self.rates = policy
            .permissions
            .iter()
            .filter_map(|line| line.rate)
            .map(|rated| LineRate {
                key: rated.key,
                times: old
                    .iter()
                    .find(|state| state.key == rated.key)
                    .map(|state| state.times.clone())
                    .unwrap_or_default(),
            })
            .take(MAX_RATED)
            .collect();
        self.fingerprint = Some(policy.fingerprint);
    }
}

/// The last times something was done, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Times(heapless::Vec<Millis, MAX_RATE>);

impl Times {
    /// Whether a rate allows one more now.
    pub(crate) fn allow(&self, rate: Rate, now: Millis) -> bool {
        let recent = self
            .0
            .iter()
            .filter(|time| now.saturating_sub(**time) < rate.per)
            .count();
        recent < usize::from(rate.count)
    }

    /// Remembers one; the oldest is forgotten, which no rate can need as none counts further.
    pub(crate) fn record(&mut self, now: Millis) {
        if self.0.is_full() {
            self.0.remove(0);
        }
        // There is room.
        let _ = self.0.push(now);
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LineRate {
    pub(crate) key: u64,
    pub(crate) times: Times,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PinState {
    pub(crate) name: Name,
    pub(crate) line: Name,
    /// Outputs: last value set.
    pub(crate) value: Option<i32>,
    /// Inputs: last level read.
    pub(crate) level: Option<bool>,
    /// When it was switched on.
    pub(crate) on_since: Option<Millis>,
    /// When it was last switched off.
    pub(crate) off_since: Option<Millis>,
    /// When its value last changed.
    pub(crate) changed: Option<Millis>,
    /// When it was last set.
    pub(crate) refreshed: Millis,
    /// When the time asked for is over.
    pub(crate) hold_until: Option<Millis>,
    pub(crate) times: Times,
}

impl PinState {
    /// A pin of which nothing is known: it counts as switched off just now.
    fn unknown(now: Millis) -> PinState {
        PinState {
            off_since: Some(now),
            changed: Some(now),
            ..PinState::default()
        }
    }

    /// Whether the pin is an output that is not safe.
    pub(crate) fn is_on(&self) -> bool {
        self.on_since.is_some()
    }

    /// Makes the pin safe; the time off begins now if it was on.
    pub(crate) fn switch_off(&mut self, safe: i32, now: Millis) {
        if self.on_since.take().is_some() {
            self.off_since = Some(now);
            self.changed = Some(now);
        }
        self.value = Some(safe);
        self.hold_until = None;
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RuleState {
    pub(crate) id: Name,
    pub(crate) last_start: Option<Millis>,
    /// Periodic schedules: when next.
    pub(crate) due: Option<Millis>,
    /// Daily schedules: the day it last fired.
    pub(crate) last_day: Option<i32>,
    pub(crate) last_episode: Option<u64>,
    /// What a person said; `None`: as the file says.
    pub(crate) switched: Option<bool>,
}

/// A rule under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) event: EventId,
    pub(crate) rule: RuleIndex,
    pub(crate) phase: Phase,
    pub(crate) deadline: Millis,
    pub(crate) evidence: Option<Evidence>,
    pub(crate) looks: u8,
    pub(crate) votes_then: u8,
    pub(crate) votes_else: u8,
    /// Choice the votes are about.
    pub(crate) finding: Finding,
    /// An early answer took `then` already.
    pub(crate) told_early: bool,
    pub(crate) steps: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// A picture is awaited.
    Looking(LookId),
    /// The next look comes then.
    Pausing(Millis),
    /// An answer is awaited.
    Asking(QuestionId, Model),
}

/// An action on its way to the gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) event: EventId,
    pub(crate) rule: RuleIndex,
    pub(crate) action: ActionIndex,
    pub(crate) value: Option<i32>,
    pub(crate) evidence: Option<Evidence>,
    pub(crate) finding: Finding,
}

/// An action that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pending {
    pub(crate) request: Request,
    pub(crate) awaits: Awaits,
    pub(crate) deadline: Millis,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Awaits {
    Hook(CallId, HookIndex),
    Person(RequestId, u64, PermissionIndex, u8),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OpenEvent {
    pub(crate) id: EventId,
    pub(crate) rule: RuleIndex,
    pub(crate) action: ActionIndex,
    pub(crate) until: Millis,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OpenAct {
    pub(crate) id: ActId,
    pub(crate) rule: RuleIndex,
    pub(crate) action: ActionIndex,
    pub(crate) value: Option<i32>,
}

/// A rule that ended, for rules that wait for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) rule: RuleIndex,
    pub(crate) branch: crate::rule::Branch,
    pub(crate) value: Value,
    pub(crate) probability: crate::probability::Probability,
    pub(crate) evidence: Option<Evidence>,
}
