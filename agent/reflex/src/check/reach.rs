//! What the actions of a rule can reach, held against permission lines and pins.

use crate::action::{Action, Command, PinValue};
use crate::diagnostic::{Problem, Report};
use crate::explain::phrase;
use crate::index::RuleIndex;
use crate::permission::{Effect, Level};
use crate::pin::{Envelope, Pin};
use crate::policy::Policy;
use crate::question::Form;
use crate::rule::{Branch, Rule, Source, actions_of};
use crate::step::{Subject, matches};

/// A rule, one of its actions, and where that stands.
struct Site<'a> {
    policy: &'a Policy,
    index: RuleIndex,
    rule: &'a Rule,
    action: &'a Action,
    branch: Option<Branch>,
    report: &'a Report<'a>,
}

pub(super) fn check(policy: &Policy, index: RuleIndex, rule: &Rule, report: &Report<'_>) {
    for (at, action) in actions_of(rule, &policy.actions) {
        let branch = [Branch::Then, Branch::Else, Branch::Unsure]
            .into_iter()
            .find(|branch| rule.branch(*branch).contains(&at));
        let site = Site {
            policy,
            index,
            rule,
            action,
            branch,
            report,
        };
        site.check();
    }
}

impl Site<'_> {
    fn check(&self) {
        self.check_level();
        match &self.action.command {
            Command::Set { pin, value, hold } => {
                let Some(pin) = self.policy.pin(*pin) else {
                    return;
                };
                let Some(values) = self.values(*value) else {
                    return;
                };
                self.check_lines(&values);
                if let Some(envelope) = pin.envelope() {
                    self.check_envelope(pin, envelope, &values, *hold);
                }
            }
            _ => self.check_lines(&[None]),
        }
        self.check_evidence();
    }

    fn words(&self, value: Option<i32>) -> String {
        phrase::action(self.policy, self.action, value)
    }

    fn check_level(&self) {
        if self.action.level > self.policy.highest {
            let word = |level: Level| Level::NAMES[level as usize].0;
            let problem = Problem::ReachesTooHigh {
                rule: self.rule.id.to_string(),
                action: self.words(None),
                level: word(self.action.level),
                highest: word(self.policy.highest),
            };
            let help = "remove the action or raise `highest`";
            self.report.error(self.action.at, problem, help);
        }
    }

    /// Every value the action can set; reports it if one cannot be told.
    fn values(&self, value: PinValue) -> Option<Vec<Option<i32>>> {
        let (times, plus) = match value {
            PinValue::Fixed(value) => return Some(vec![Some(value)]),
            PinValue::Answer { times, plus } => (times, plus),
        };
        let counts = self
            .branch
            .and_then(|branch| counts(self.policy, self.rule, branch));
        let Some(counts) = counts else {
            let problem = Problem::Unreachable {
                what: "value = \"answer\"".to_owned(),
                why: "not every way here brings a certain count".to_owned(),
            };
            let help = "ask a question with `count`, or set a fixed value";
            self.report.error(self.action.at, problem, help);
            return None;
        };
        let scaled = |count: u32| i64::from(count) * i64::from(times) + i64::from(plus);
        let mut values = Vec::with_capacity(counts.len());
        for count in counts {
            match i32::try_from(scaled(count)) {
                Ok(value) => values.push(Some(value)),
                Err(_) => {
                    let problem = Problem::ReachesOutside {
                        rule: self.rule.id.to_string(),
                        action: format!("{count} × {times} + {plus}"),
                        pin: String::new(),
                        limit: "a number of 32 bits".to_owned(),
                    };
                    let help = "use a smaller factor or count";
                    self.report.error(self.action.at, problem, help);
                    return None;
                }
            }
        }
        Some(values)
    }

    fn subject(&self, value: Option<i32>) -> Subject {
        Subject {
            value,
            ..Subject::of(self.action, self.index)
        }
    }

    fn check_lines(&self, values: &[Option<i32>]) {
        for line in &self.policy.permissions {
            let is_absolute = line.effect == Effect::Deny && line.during.is_none();
            let reached = values
                .iter()
                .find(|value| is_absolute && matches(line, &self.subject(**value)));
            if let Some(value) = reached {
                let problem = Problem::ReachesDenied {
                    rule: self.rule.id.to_string(),
                    action: self.words(*value),
                    line: line.line,
                };
                let help = "deny always wins: change the rule, or narrow the line";
                self.report.error(self.action.at, problem, help);
            }
        }
        if !self.action.level.actuates() {
            return;
        }
        let permits = |value: Option<i32>| {
            self.policy
                .permissions
                .iter()
                .any(|line| line.effect != Effect::Deny && matches(line, &self.subject(value)))
        };
        if let Some(value) = values.iter().find(|value| !permits(**value)) {
            let problem = Problem::ReachesUnpermitted {
                rule: self.rule.id.to_string(),
                action: self.words(*value),
            };
            let help = "add a [[permissions]] line with effect = \"allow\" or \"ask\" for it";
            self.report.error(self.action.at, problem, help);
        }
    }

    fn check_envelope(
        &self,
        pin: &Pin,
        envelope: &Envelope,
        values: &[Option<i32>],
        hold: Option<u64>,
    ) {
        let outside = |limit: String, value: Option<i32>| {
            let problem = Problem::ReachesOutside {
                rule: self.rule.id.to_string(),
                action: self.words(value),
                pin: pin.name.to_string(),
                limit,
            };
            let help = "change the action or the pin";
            self.report.error(self.action.at, problem, help);
        };
        let (low, high) = envelope.range;
        let is_outside = |value: i32| value < low || value > high;
        if let Some(value) = values.iter().flatten().find(|value| is_outside(**value)) {
            outside(format!("values = [{low}, {high}]"), Some(*value));
        }
        if let (Some(hold), Some(max_on)) = (hold, envelope.max_on)
            && hold > max_on
        {
            let limit = format!("max_on = {}", phrase::time(max_on));
            outside(limit, values.first().copied().flatten());
        }
        if let (Some(hold), Some(dead_man)) = (hold, envelope.dead_man)
            && hold > dead_man
        {
            let what = format!(
                "`dead_man` = {} of pin `{}` ends this before `for` does, unless it is set again",
                phrase::time(dead_man),
                pin.name
            );
            let problem = Problem::Suspicious { what };
            self.report
                .warning(self.action.at, problem, "make `for` shorter");
        }
    }

    /// Reports an action that needs a picture where none is, or an approval that comes too late.
    fn check_evidence(&self) {
        let Some(limit) = self.evidence_limit() else {
            return;
        };
        if !brings_picture(self.policy, self.rule) {
            let problem = Problem::Unreachable {
                what: self.words(None),
                why: format!("it needs a picture at most {} old", phrase::time(limit)),
            };
            let help = "let the rule ask, or start by a change; or remove the evidence limit";
            self.report.error(self.action.at, problem, help);
        }
        let subject = self.subject(None);
        for line in &self.policy.permissions {
            if line.effect == Effect::Ask && matches(line, &subject) && line.expires > limit {
                let what = format!(
                    "line {} waits {} for a person, but after {} the picture is too old",
                    line.line,
                    phrase::time(line.expires),
                    phrase::time(limit)
                );
                let help = "shorten `expires` or lengthen the evidence limit";
                self.report
                    .warning(self.action.at, Problem::Suspicious { what }, help);
            }
        }
    }

    fn evidence_limit(&self) -> Option<u64> {
        let of_rule = self.rule.evidence.filter(|_| self.action.level.actuates());
        let of_pin = match &self.action.command {
            Command::Set { pin, .. } => self
                .policy
                .pin(*pin)
                .and_then(Pin::envelope)
                .and_then(|envelope| envelope.evidence),
            _ => None,
        };
        let subject = self.subject(None);
        let of_lines = self
            .policy
            .permissions
            .iter()
            .filter(|line| line.values.is_none() && matches(line, &subject))
            .filter_map(|line| line.evidence);
        of_rule.into_iter().chain(of_pin).chain(of_lines).min()
    }
}

/// Whether a rule can have a picture when it decides.
fn brings_picture(policy: &Policy, rule: &Rule) -> bool {
    rule.ask.is_some()
        || rule.when.iter().any(|trigger| match trigger.source {
            Source::Change { .. } => true,
            Source::Rule { rule, .. } => policy
                .rule(rule)
                .is_some_and(|rule| brings_picture(policy, rule)),
            _ => false,
        })
}

/// Counts with which a rule can take a branch; `None` if it can be taken without a certain count.
fn counts(policy: &Policy, rule: &Rule, branch: Branch) -> Option<Vec<u32>> {
    if branch == Branch::Unsure {
        return None;
    }
    match rule.ask.as_ref().map(|ask| &ask.form) {
        Some(Form::Count { range, expect }) => Some(
            (range.0..=range.1)
                .filter(|count| (expect.0..=expect.1).contains(count) == (branch == Branch::Then))
                .collect(),
        ),
        Some(_) => None,
        None => {
            let mut all = Vec::new();
            for trigger in &rule.when {
                let Source::Rule { rule, branch, .. } = trigger.source else {
                    return None;
                };
                all.extend(counts(policy, policy.rule(rule)?, branch)?);
            }
            Some(all)
        }
    }
}
