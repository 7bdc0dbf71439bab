//! Where observations meet triggers.

use super::Turn;
use super::run::Cue;
use crate::channel::Direction;
use crate::index::RuleIndex;
use crate::limit::{MAX_CHAIN, MAX_RULES};
use crate::note::{Idle, Ignored, Note};
use crate::observation::{Change, Link, Value};
use crate::rule::{Rule, Source};
use crate::state::Ended;
use crate::text::{Name, Text};

/// Rules whose trigger holds, the most important first, in file order among equals.
pub(super) struct Matched(heapless::Vec<(u8, RuleIndex, u8), MAX_RULES>);

impl Matched {
    pub(super) fn new() -> Matched {
        Matched(heapless::Vec::new())
    }

    /// Adds a rule, once only.
    pub(super) fn add(&mut self, priority: u8, rule: RuleIndex, trigger: u8) {
        if !self.0.iter().any(|(_, known, _)| *known == rule) {
            // There are as many places as rules.
            let _ = self.0.push((u8::MAX - priority, rule, trigger));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn sorted(mut self) -> heapless::Vec<(u8, RuleIndex, u8), MAX_RULES> {
        self.0.sort_unstable();
        self.0
    }
}

impl Turn<'_> {
    fn matching(&self, holds: impl Fn(RuleIndex, &Rule, &Source) -> bool) -> Matched {
        let mut matched = Matched::new();
        for (rule, index) in self.policy.rules.iter().zip(0..) {
            for (trigger, number) in rule.when.iter().zip(0..) {
                if holds(RuleIndex(index), rule, &trigger.source) {
                    matched.add(rule.priority, RuleIndex(index), number);
                }
            }
        }
        matched
    }

    /// Starts the rules, or notes that there is none.
    pub(super) fn fire_all(&mut self, matched: Matched, cue: Cue) {
        if matched.is_empty() {
            return self.note(Note::Ignored(Ignored::NoRule));
        }
        for (_, rule, trigger) in matched.sorted() {
            self.fire(rule, trigger, &cue);
        }
    }

    pub(super) fn changed(&mut self, change: &Change) {
        let mut zones = 0_u64;
        for name in &change.zones {
            match self.policy.zones.iter().position(|zone| zone == name) {
                Some(at) => zones |= 1 << at,
                None => self.note(Note::Ignored(Ignored::UnknownName)),
            }
        }
        let mut matched = Matched::new();
        for (rule, index) in self.policy.rules.iter().zip(0..) {
            for (trigger, number) in rule.when.iter().zip(0..) {
                if let Source::Change {
                    zones: wanted,
                    fraction,
                    cause,
                    once,
                } = trigger.source
                    && wanted & zones != 0
                    && change.fraction >= fraction
                    && change.cause == cause
                {
                    let rule_index = RuleIndex(index);
                    if once && self.has_seen(rule_index, change.episode) {
                        self.note(Note::NotStarted {
                            rule: rule_index,
                            why: Idle::SameEpisode,
                        });
                    } else {
                        matched.add(rule.priority, rule_index, number);
                    }
                }
            }
        }
        let evidence = self.evidence_of(change.frame);
        if evidence.is_none() {
            self.note(Note::Ignored(Ignored::Future));
        }
        let cue = Cue {
            evidence,
            quality: Some(change.frame.quality),
            episode: Some(change.episode),
            ..Cue::default()
        };
        self.fire_all(matched, cue);
    }

    fn has_seen(&self, rule: RuleIndex, episode: u64) -> bool {
        self.state
            .rules
            .get(rule.get())
            .is_some_and(|state| state.last_episode == Some(episode))
    }

    pub(super) fn pin_read(&mut self, name: &Name, level: bool, initial: bool) {
        let found = (0..)
            .zip(&self.policy.pins)
            .find(|(_, pin)| pin.name == *name && pin.envelope().is_none());
        let Some((index, _)) = found else {
            return self.note(Note::Ignored(Ignored::UnknownName));
        };
        let Some(state) = self.state.pins.get_mut(usize::from(index)) else {
            return;
        };
        let is_edge = !initial && state.level != Some(level);
        state.level = Some(level);
        self.enforce_interlocks();
        if is_edge {
            let matched = self.matching(|_, _, source| {
                matches!(source, Source::Pin { pin, level: wanted }
                    if pin.0 == index && wanted.is_none_or(|wanted| wanted == level))
            });
            self.fire_all(matched, Cue::default());
        }
    }

    pub(super) fn packet(&mut self, link: Link, name: &Name, body: &Text) {
        let found = (0..)
            .zip(&self.policy.packets)
            .find(|(_, packet)| packet.name == *name && packet.direction == Direction::In);
        let Some((index, _)) = found else {
            return self.note(Note::Ignored(Ignored::UnknownName));
        };
        if !self.may_come_over(link, Link::Serial, body) {
            return;
        }
        let matched = self.matching(|_, _, source| {
            matches!(source, Source::Packet { packet, equals }
                if packet.0 == index && is_body(body, equals.as_deref()))
        });
        self.fire_all(matched, Cue::default());
    }

    pub(super) fn message(&mut self, link: Link, name: &Name, body: &Text, retained: bool) {
        let found = (0..)
            .zip(&self.policy.topics)
            .find(|(_, topic)| topic.name == *name && topic.direction == Direction::In);
        let Some((index, _)) = found else {
            return self.note(Note::Ignored(Ignored::UnknownName));
        };
        if retained {
            return self.note(Note::Ignored(Ignored::Retained));
        }
        if !self.may_come_over(link, Link::Mqtt, body) {
            return;
        }
        let matched = self.matching(|_, _, source| {
            matches!(source, Source::Topic { topic, equals }
                if topic.0 == index && is_body(body, equals.as_deref()))
        });
        self.fire_all(matched, Cue::default());
    }

    pub(super) fn commanded(&mut self, link: Link, name: &Name, on: bool) {
        let found = (0..)
            .zip(&self.policy.pins)
            .find(|(_, pin)| pin.name == *name && pin.envelope().is_some());
        let Some((index, _)) = found else {
            return self.note(Note::Ignored(Ignored::UnknownName));
        };
        let matched = self.matching(|_, _, source| {
            matches!(source, Source::Command { pin, on: wanted, from }
                if pin.0 == index
                    && from & link.bit() != 0
                    && wanted.is_none_or(|wanted| wanted == on))
        });
        self.fire_all(matched, Cue::default());
    }

    fn may_come_over(&mut self, link: Link, right: Link, body: &Text) -> bool {
        if link != right {
            self.note(Note::Ignored(Ignored::WrongLink(link)));
        } else if body.is_cut() {
            self.note(Note::Ignored(Ignored::Cut));
        }
        link == right
    }

    /// Remembers that a rule ended.
    pub(super) fn ended(&mut self, ended: Ended) {
        if self.chain.push_back(ended).is_err() {
            self.state.drops_mut().chain += 1;
            self.note(Note::Dropped(crate::note::Dropped::Chain));
        }
    }

    /// Starts rules that wait for others. Rules form no circle, so this ends; the bound only backs
    /// that up.
    pub(super) fn follow(&mut self) {
        for _ in 0..MAX_RULES * MAX_CHAIN {
            let Some(ended) = self.chain.pop_front() else {
                return;
            };
            let matched = self.matching(|_, _, source| {
                matches!(source, Source::Rule { rule, branch, choice }
                    if *rule == ended.rule
                        && *branch == ended.branch
                        && choice.is_none_or(|choice| ended.value == Value::Choice(choice)))
            });
            if !matched.is_empty() {
                let cue = Cue {
                    evidence: ended.evidence,
                    value: ended.value,
                    probability: ended.probability,
                    ..Cue::default()
                };
                self.fire_all(matched, cue);
            }
        }
    }
}

fn is_body(body: &Text, equals: Option<&str>) -> bool {
    equals.is_none_or(|wanted| !body.is_cut() && body.as_str() == wanted)
}
