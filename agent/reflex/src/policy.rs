//! [`Policy`]: rules and permissions, checked and never changed.

use crate::action::{Action, Command};
use crate::channel::{Packet, Topic};
use crate::hook::Hook;
use crate::index::{ActionIndex, PermissionIndex, PinIndex, RuleIndex};
use crate::observation::{Fault, Value};
use crate::output::Act;
use crate::permission::{Level, Permission};
use crate::pin::Pin;
use crate::question::{Form, Question};
use crate::rule::{Rule, Source, Trigger};
use crate::schedule::Rate;
use crate::text::Name;

/// A checked rule file; made by [`crate::load()`].
///
/// Indexes belong to one policy. Those that come out of [`crate::step()`] are valid in the policy
/// given to it; lookups with others give `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Recognises the file: SipHash-2-4 of its bytes with zero keys.
    pub fingerprint: u64,
    /// Nothing is carried out, only shown.
    pub dry_run: bool,
    /// Actions above this level are refused.
    pub highest: Level,
    /// Zones of the camera.
    pub zones: Vec<Name>,
    /// Pins.
    pub pins: Vec<Pin>,
    /// Topics.
    pub topics: Vec<Topic>,
    /// Packets.
    pub packets: Vec<Packet>,
    /// Hooks.
    pub hooks: Vec<Hook>,
    /// Rules.
    pub rules: Vec<Rule>,
    /// Actions of all rules.
    pub actions: Vec<Action>,
    /// Permission lines.
    pub permissions: Vec<Permission>,
    /// Lowest priority that still starts under a fault.
    pub shed: Shed,
    /// How often a remote model may be asked; `None`: never.
    pub remote: Option<Rate>,
}

/// Lowest priority that still starts under a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shed {
    /// While the board is hot.
    pub hot: u8,
    /// While memory is short.
    pub low_memory: u8,
}

impl Policy {
    /// A rule by its position.
    pub fn rule(&self, rule: RuleIndex) -> Option<&Rule> {
        self.rules.get(rule.get())
    }

    /// An action by its position.
    pub fn action(&self, action: ActionIndex) -> Option<&Action> {
        self.actions.get(action.get())
    }

    /// A pin by its position.
    pub fn pin(&self, pin: PinIndex) -> Option<&Pin> {
        self.pins.get(pin.get())
    }

    /// A permission line by its position.
    pub fn permission(&self, permission: PermissionIndex) -> Option<&Permission> {
        self.permissions.get(permission.get())
    }

    /// The question of a rule.
    pub fn question(&self, rule: RuleIndex) -> Option<&Question> {
        self.rule(rule)?.ask.as_ref()
    }

    /// Whether a rule is written for commands about an output; without one a command does nothing.
    pub fn takes_commands(&self, pin: &Name) -> bool {
        let is_meant = |trigger: &Trigger| match trigger.source {
            Source::Command { pin: index, .. } => {
                self.pin(index).is_some_and(|known| known.name == *pin)
            }
            _ => false,
        };
        self.rules.iter().any(|rule| rule.when.iter().any(is_meant))
    }

    /// What a model chooses from: choices of a closed question, or names of the actions of a
    /// `choose` rule with `none` at the end. Empty for other questions.
    pub fn choices(&self, rule: RuleIndex) -> Vec<&str> {
        match self.question(rule).map(|question| &question.form) {
            Some(Form::Choices { choices, .. }) => choices.iter().map(String::as_str).collect(),
            Some(Form::Pick { actions, .. }) => actions
                .clone()
                .filter_map(|index| self.action(ActionIndex(index)))
                .map(|action| action.says.as_str())
                .chain(["none"])
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Text of a publication or packet, placeholders filled in; `None` for other actions.
    pub fn payload(&self, act: &Act) -> Option<String> {
        self.payload_with(act, None)
    }

    /// [`Policy::payload`] with the whole answer in place of the one of the step, which may be cut.
    pub fn payload_with(&self, act: &Act, answer: Option<&str>) -> Option<String> {
        let template = match &self.action(act.action)?.command {
            Command::Publish { payload, .. } => payload,
            Command::Packet { body, .. } => body,
            _ => return None,
        };
        let rule = self.rule(act.rule)?;
        let frame = act.evidence.map(|evidence| evidence.frame.to_string());
        Some(fill(template, |placeholder| {
            Some(match placeholder {
                "answer" => answer.map_or_else(
                    || self.answer_text(act.rule, &act.finding.value),
                    str::to_owned,
                ),
                "probability" => act.finding.probability.to_string(),
                "rule" => rule.id.to_string(),
                "event" => act.event.0.to_string(),
                "frame" => frame.clone().unwrap_or_default(),
                _ => return None,
            })
        }))
    }

    /// An answer in words.
    pub fn answer_text(&self, rule: RuleIndex, value: &Value) -> String {
        match value {
            Value::Nothing => String::new(),
            Value::Choice(index) => self
                .choices(rule)
                .get(usize::from(*index))
                .map_or_else(|| index.to_string(), |choice| (*choice).to_owned()),
            Value::Count(count) => count.to_string(),
            Value::Text(text) => text.as_str().to_owned(),
            Value::Fields { json, .. } => json.as_str().to_owned(),
        }
    }

    /// The active fault that keeps a priority from starting.
    pub(crate) fn shedding(&self, faults: u8, priority: u8) -> Option<Fault> {
        [
            (Fault::Hot, self.shed.hot),
            (Fault::LowMemory, self.shed.low_memory),
        ]
        .into_iter()
        .find(|(fault, lowest)| faults & fault.bit() != 0 && priority < *lowest)
        .map(|(fault, _)| fault)
    }
}

/// Placeholders of a template.
pub(crate) const PLACEHOLDERS: [&str; 5] = ["answer", "probability", "rule", "event", "frame"];

/// Replaces `{name}` by what `value` gives; what it does not know stays.
pub(crate) fn fill(template: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(begin) = rest.find('{') {
        filled.push_str(&rest[..begin]);
        let tail = &rest[begin..];
        let end = tail.find('}').map_or(tail.len(), |end| end + 1);
        let placeholder = tail[..end].trim_start_matches('{').trim_end_matches('}');
        match value(placeholder) {
            Some(text) => filled.push_str(&text),
            None => filled.push_str(&tail[..end]),
        }
        rest = &tail[end..];
    }
    filled.push_str(rest);
    filled
}
