//! What others are told: events, answers, figures.

use super::Agent;
use crate::link::mqtt::discovery::{Description, Pin, Rule, RuleKind};
use crate::link::mqtt::message::{Outgoing, State};
use crate::link::mqtt::payload::{EnergySource, Event, Info, Phase, Sight, Stats};
use crate::run::desk::broker::priority_of;
use crate::run::desk::{Condition, EventWords, Receipt};
use ocelli_reflex::channel::Direction;
use ocelli_reflex::observation::{Link, Value};
use ocelli_reflex::output::{EventNotice, EventPhase, Evidence, Finding};
use ocelli_reflex::question::Form;
use ocelli_reflex::{RuleIndex, rule};
use std::time::Duration;

/// Time between two tellings of the figures.
const STATS_PAUSE: Duration = Duration::from_secs(30);
/// Most open events whose last word is remembered.
const MAX_SIGHTS: usize = 32;

impl Agent {
    pub(super) fn tell_broker(&mut self, message: Outgoing) {
        let now = self.parts.clock.monotonic();
        let sent = self
            .parts
            .broker
            .as_mut()
            .map(|broker| broker.send(message, now));
        if let Some(Err(error)) = sent {
            let text = error.to_string();
            self.remark("mqtt", &text);
        }
    }

    /// An event begins, goes on or is over.
    pub(super) fn tell_event(&mut self, notice: &EventNotice) {
        let rule = self.rule_name(notice.rule);
        let answer = self
            .parts
            .rules
            .policy
            .answer_text(notice.rule, &notice.finding.value);
        let words = EventWords {
            id: notice.id.0,
            phase: notice.phase,
            rule: rule.clone(),
            answer,
            probability: notice.finding.probability,
        };
        let now = self.parts.clock.monotonic();
        if let Some(line) = &mut self.parts.line
            && let Err(error) = line.event(&words, now)
        {
            let text = error.to_string();
            self.remark("serial", &text);
        }
        let before = self.sights.remove(&notice.id.0);
        let after = match (notice.phase, &before) {
            (EventPhase::End, Some(last)) => last.clone(),
            _ => self.sight(
                &notice.id.0.to_string(),
                notice.rule,
                notice.evidence,
                &notice.finding,
            ),
        };
        if notice.phase != EventPhase::End {
            if self.sights.len() >= MAX_SIGHTS {
                self.sights.pop_first();
            }
            self.sights.insert(notice.id.0, after.clone());
        }
        let phase = match notice.phase {
            EventPhase::New => Phase::New,
            EventPhase::Update => Phase::Update,
            EventPhase::End => Phase::End,
        };
        let policy = &self.parts.rules.policy;
        let priority = policy.rule(notice.rule).map_or(5, |rule| rule.priority);
        let event = Event {
            phase,
            before,
            after,
            priority: priority_of(priority),
        };
        self.tell_broker(Outgoing::Event(Box::new(event)));
    }

    /// What was seen, in the words of the broker.
    pub(super) fn sight(
        &self,
        id: &str,
        rule: RuleIndex,
        evidence: Option<Evidence>,
        finding: &Finding,
    ) -> Sight {
        let policy = &self.parts.rules.policy;
        let fact = evidence.and_then(|evidence| self.frame_fact(evidence.frame));
        let text = policy.answer_text(rule, &finding.value);
        let is_closed = matches!(finding.value, Value::Choice(_) | Value::Count(_));
        let has_answer = finding.value != Value::Nothing;
        Sight {
            id: id.to_owned(),
            rule: self.rule_name(rule),
            camera: Some(self.parts.settings.device.name.clone()),
            time_ms: fact
                .map(|fact| fact.wall_ms)
                .or_else(|| self.parts.clock.wall_ms())
                .unwrap_or(0),
            question: policy
                .question(rule)
                .map(|question| question.prompt.clone()),
            answer: is_closed.then(|| text.clone()),
            probability: has_answer.then(|| f32::from(finding.probability.0) / f32::from(u16::MAX)),
            unsure: false,
            text: (has_answer && !is_closed).then_some(text),
            zones: fact.map_or_else(Vec::new, |fact| fact.zones.clone()),
            has_snapshot: self.parts.settings.privacy.publish_snapshots,
        }
    }

    /// What waits for a person.
    pub(super) fn tell_pending(&mut self) {
        let pending = self.pending_actions(Link::Mqtt);
        self.tell_broker(Outgoing::State(State::Pending(pending)));
        self.tell_page();
    }

    /// The rules, each with whether it may start.
    pub(super) fn rules_on(&self) -> impl Iterator<Item = (&str, bool)> {
        let policy = &self.parts.rules.policy;
        policy.rules.iter().map(|rule| {
            let switched = self.state.is_enabled(policy, &rule.id);
            (rule.id.as_str(), switched.unwrap_or(rule.enabled))
        })
    }

    /// Which rules are on.
    pub(super) fn tell_rules(&mut self) {
        let states: Vec<State> = self
            .rules_on()
            .map(|(rule, on)| State::Rule {
                rule: rule.to_owned(),
                on,
            })
            .collect();
        for state in states {
            self.tell_broker(Outgoing::State(state));
        }
    }

    /// Describes the device for those who come to know it: at start and after new rules.
    pub(super) fn describe_device(&mut self) {
        let policy = &self.parts.rules.policy;
        let rules = policy.rules.iter().filter_map(|rule| {
            Some(Rule {
                name: rule.id.to_string(),
                title: rule.id.replace('_', " "),
                kind: rule_kind(rule)?,
                snapshot: self.parts.settings.privacy.publish_snapshots,
            })
        });
        let commanded = policy
            .pins
            .iter()
            .filter(|pin| pin.envelope().is_some() && policy.takes_commands(&pin.name));
        let pins = commanded.map(|pin| Pin {
            name: pin.name.to_string(),
            title: pin.name.replace('_', " "),
        });
        let description = Description {
            title: self.parts.settings.title().to_owned(),
            board: self.parts.board.title.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            rules: rules.collect(),
            pins: pins.collect(),
            features: Vec::new(),
        };
        let heard = policy
            .topics
            .iter()
            .filter(|topic| topic.direction == Direction::In);
        let heard = heard.map(|topic| topic.path.clone()).collect();
        let info = Info {
            program: "ocelli".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            board: self.parts.board.name.clone(),
            model: self
                .parts
                .thinker
                .as_ref()
                .map_or_else(String::new, |(_, identity)| identity.name.clone()),
            rules: policy
                .rules
                .iter()
                .map(|rule| rule.id.to_string())
                .collect(),
        };
        self.tell_broker(Outgoing::Describe(Box::new(description)));
        self.tell_broker(Outgoing::Listen(heard));
        self.tell_broker(Outgoing::State(State::Info(info)));
        self.tell_rules();
        self.tell_pending();
    }

    /// How the agent is.
    pub(super) fn condition(&self) -> Condition {
        let policy = &self.parts.rules.policy;
        let health = self.parts.vitals.health();
        let uptime = self.parts.clock.monotonic().saturating_sub(self.started);
        let faults: Vec<String> = self
            .faults
            .iter()
            .map(|fault| format!("{fault:?}"))
            .collect();
        Condition {
            uptime_s: uptime.as_secs(),
            // At most 32 rules.
            n_armed_rules: self.rules_on().filter(|(_, on)| *on).count() as u16,
            temperature_c: health.temperature.as_ref().map(|t| t.celsius),
            is_dry_run: policy.dry_run,
            faults: faults.join(", "),
        }
    }

    /// Tells all who listen how the agent is.
    pub(super) fn tell_condition(&mut self) {
        let condition = self.condition();
        let now = self.parts.clock.monotonic();
        if let Some(line) = &mut self.parts.line {
            line.condition(&Receipt::None, &condition, now);
        }
        let status = match condition.faults.is_empty() {
            true => format!("{} rules", condition.n_armed_rules),
            false => format!("{} rules; {}", condition.n_armed_rules, condition.faults),
        };
        let told = self.parts.notify.status(&status);
        self.notified(told);
        self.tell_page();
    }

    /// Tells the figures.
    pub(super) fn tell_stats(&mut self, now: Duration) {
        self.next_stats = now.saturating_add(STATS_PAUSE);
        let health = self.parts.vitals.health();
        let stats = Stats {
            time_ms: self.parts.clock.wall_ms().unwrap_or(0),
            uptime_s: now.saturating_sub(self.started).as_secs(),
            latency_s: self.last_latency,
            // A sensor of a board, far inside the type.
            temperature_c: health.temperature.as_ref().map(|t| t.celsius as f32),
            throttled: health
                .throttling
                .is_known()
                .then(|| health.throttling.is_slowed()),
            looks: self.counts.looks,
            answers: self.counts.answers,
            actions: self.counts.actions,
            denied: self.counts.denied,
            energy_j: self.last_joules.map(|(joules, _)| joules),
            energy_source: self.last_joules.map(|(_, measured)| match measured {
                true => EnergySource::Measured,
                false => EnergySource::Estimate,
            }),
        };
        self.tell_broker(Outgoing::State(State::Stats(stats)));
        self.tell_condition();
    }
}

/// What kind of answer others may expect; `None` for rules that ask nothing.
fn rule_kind(rule: &rule::Rule) -> Option<RuleKind> {
    Some(match &rule.ask.as_ref()?.form {
        Form::Choices { choices, .. } => {
            let is = |at: usize, word: &str| {
                choices
                    .get(at)
                    .is_some_and(|choice| choice.eq_ignore_ascii_case(word))
            };
            match choices.len() == 2 && is(0, "yes") && is(1, "no") {
                true => RuleKind::YesNo,
                false => RuleKind::Choices(choices.clone()),
            }
        }
        Form::Count { .. } => RuleKind::Count,
        Form::Caption | Form::Schema { .. } | Form::Pick { .. } => RuleKind::Text,
    })
}
