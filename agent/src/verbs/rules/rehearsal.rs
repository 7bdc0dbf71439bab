//! [`Rehearsal`]: a device in invented time that follows a policy.

use super::sentence::{Sentence, SentenceError};
use crate::wall_clock;
use ocelli_reflex::explain::describe;
use ocelli_reflex::observation::{Answer, Approval, Change, Frame, Link, Quality, Stage};
use ocelli_reflex::output::{Act, ApprovalRequest, Ask, Cancelled, HookCall, Look, Moment};
use ocelli_reflex::rule::Source;
use ocelli_reflex::schedule::Schedule;
use ocelli_reflex::{
    LocalTime, Note, Now, Observation, Output, Outputs, Policy, RuleIndex, State, step,
};

/// Where the clock begins, in ms.
const BEGIN_MS: u64 = 1_000_000_000;
/// Time between two observations that say nothing about it.
const STEP_MS: u64 = 10;
/// Most wake-ups within one wait; then the rest of it passes at once.
const MAX_WAKES: usize = 10_000;
/// Most pictures and pauses before an answer.
const MAX_LOOKS: usize = 40;

/// A device that was started so long ago that no pin has to stay off, with all links up and all
/// inputs inactive.
#[derive(Debug)]
pub struct Rehearsal<'p> {
    policy: &'p Policy,
    /// What the step remembers.
    pub state: State,
    ms: u64,
    /// Wall clock in ms since 1970, at the place of the device.
    local_ms: Option<u64>,
    n_frames: u64,
    n_episodes: u64,
    wake_in: Option<u64>,
    running: Vec<RuleIndex>,
    looks: Vec<Look>,
    asks: Vec<(Ask, u64)>,
    requests: Vec<ApprovalRequest>,
    calls: Vec<HookCall>,
    acts: Vec<Act>,
    /// What the steps since the last [`Rehearsal::told`] did, in words.
    lines: Vec<String>,
}

impl<'p> Rehearsal<'p> {
    /// Starts the device at a wall clock reading; `None`: the wall clock is not known.
    pub fn start(policy: &'p Policy, local: Option<LocalTime>) -> Rehearsal<'p> {
        let envelopes = policy.pins.iter().filter_map(|pin| pin.envelope());
        let rest = envelopes
            .map(|envelope| envelope.min_off.max(envelope.dwell))
            .max()
            .unwrap_or(0);
        let local_ms = local.and_then(|local| u64::try_from(wall_clock::seconds(local)).ok());
        let mut rehearsal = Rehearsal {
            policy,
            state: State::new(),
            ms: BEGIN_MS,
            local_ms: local_ms.map(|seconds| seconds.saturating_mul(1000)),
            n_frames: 0,
            n_episodes: 0,
            wake_in: None,
            running: Vec::new(),
            looks: Vec::new(),
            asks: Vec::new(),
            requests: Vec::new(),
            calls: Vec::new(),
            acts: Vec::new(),
            lines: Vec::new(),
        };
        rehearsal.see(&Observation::Start { secret: [0, 0] });
        for (_, link) in Link::NAMES {
            rehearsal.see(&Observation::Link { link, up: true });
        }
        for pin in policy.pins.iter().filter(|pin| pin.envelope().is_none()) {
            rehearsal.see(&Observation::Pin {
                pin: pin.name.clone(),
                level: false,
                initial: true,
            });
        }
        // A start counts as switched off just now.
        rehearsal.local_ms = rehearsal.local_ms.map(|ms| ms.saturating_sub(rest));
        rehearsal.wait(rest);
        rehearsal.lines.clear();
        rehearsal
    }

    /// The moment.
    pub fn now(&self) -> Now {
        Now {
            ms: self.ms,
            local: self
                .local_ms
                .and_then(|ms| wall_clock::of_seconds(ms / 1000)),
        }
    }

    /// Brings about what must come before, and returns the observation that the words stand for;
    /// it is still to be fed with [`Rehearsal::see`].
    ///
    /// # Errors
    ///
    /// It cannot come about, e.g. an answer to a question that is not asked.
    pub fn prepare(
        &mut self,
        sentence: &Sentence,
        words: &str,
    ) -> Result<Observation, SentenceError> {
        let impossible = |what: String, help: &str| SentenceError {
            sentence: words.to_owned(),
            what,
            help: help.to_owned(),
        };
        self.pass(STEP_MS);
        match sentence {
            Sentence::Plain(observation) => Ok(observation.clone()),
            Sentence::Wait(ms) => {
                self.wait(*ms);
                Ok(Observation::Tick)
            }
            Sentence::At { second, weekday } => {
                self.wait_for(*second, *weekday);
                Ok(Observation::Tick)
            }
            Sentence::Change {
                zones,
                fraction,
                cause,
            } => {
                self.n_episodes += 1;
                Ok(Observation::Change(Change {
                    zones: zones.clone(),
                    fraction: *fraction,
                    cause: *cause,
                    episode: self.n_episodes,
                    frame: self.frame(Quality::Good),
                }))
            }
            Sentence::Picture(quality) => match self.looks.first().copied() {
                Some(look) => Ok(self.looked(look, *quality)),
                None => Err(impossible(
                    "no picture is asked for".to_owned(),
                    "put what starts a rule into --after",
                )),
            },
            Sentence::Answer {
                rule,
                value,
                probability,
                unsure,
                stage,
            } => {
                let (ask, frame_time) = self
                    .asked(*rule)
                    .map_err(|what| impossible(what, "put what makes the rule ask into --after"))?;
                Ok(Observation::Answer(Answer {
                    question: ask.id,
                    value: value.clone(),
                    probability: *probability,
                    unsure: *unsure,
                    frame_time,
                    stage: *stage,
                }))
            }
            Sentence::Decision {
                rule,
                granted,
                link,
            } => {
                let request = self.requests.iter().find(|open| open.rule == *rule);
                let request = request.ok_or_else(|| {
                    impossible(
                        format!(
                            "no action of rule `{}` waits for a person",
                            self.name(*rule)
                        ),
                        "put the answer that leads to it into --after",
                    )
                })?;
                let right = Link::NAMES.iter().find(|(_, link)| request.takes(*link));
                Ok(Observation::Approval(Approval {
                    request: request.id,
                    nonce: request.nonce,
                    granted: *granted,
                    link: link
                        .or(right.map(|(_, link)| *link))
                        .unwrap_or(Link::Button),
                    retained: false,
                }))
            }
            Sentence::Hook { hook, verdict } => {
                let call = self.calls.iter().find(|open| open.hook == *hook);
                call.map(|call| Observation::Hook {
                    call: call.id,
                    verdict: *verdict,
                })
                .ok_or_else(|| {
                    impossible(
                        "the hook has not been asked".to_owned(),
                        "put the answer that leads to the action into --after",
                    )
                })
            }
            Sentence::Outcome { rule, outcome } => {
                let act = self.acts.iter().rev().find(|act| act.rule == *rule);
                act.map(|act| Observation::Outcome {
                    act: act.id,
                    outcome: *outcome,
                })
                .ok_or_else(|| {
                    impossible(
                        format!("no action of rule `{}` is under way", self.name(*rule)),
                        "put the answer that leads to it into --after",
                    )
                })
            }
        }
    }

    /// Feeds an observation.
    pub fn see(&mut self, observation: &Observation) -> Outputs {
        let now = self.now();
        match observation {
            Observation::Answer(answer) if answer.stage == Stage::Refined => {
                self.asks.retain(|(open, _)| open.id != answer.question);
            }
            Observation::Looked { look, .. } => self.looks.retain(|open| open.id != *look),
            Observation::Approval(approval) => {
                self.requests.retain(|open| open.id != approval.request);
            }
            Observation::Hook { call, .. } => self.calls.retain(|open| open.id != *call),
            Observation::Outcome { act, .. } => self.acts.retain(|open| open.id != *act),
            Observation::Start { .. } | Observation::Stop | Observation::Reload => self.forget(),
            _ => {}
        }
        let outputs = step(self.policy, &mut self.state, observation, now);
        self.lines.extend(describe(self.policy, &outputs));
        self.wake_in = outputs.wake_in;
        for output in &outputs.list {
            self.follow(output);
        }
        outputs
    }

    /// What the steps since the last call did, in words.
    pub fn told(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }

    fn forget(&mut self) {
        self.looks.clear();
        self.asks.clear();
        self.requests.clear();
        self.calls.clear();
        self.acts.clear();
        self.running.clear();
    }

    fn follow(&mut self, output: &Output) {
        match output {
            Output::Look(look) => self.looks.push(*look),
            Output::Ask(ask) => {
                self.asks.retain(|(open, _)| open.rule != ask.rule);
                self.asks.push((*ask, self.ms));
            }
            Output::RequestApproval(request) => self.requests.push(request.clone()),
            Output::CallHook(call) if call.moment == Moment::Before => self.calls.push(*call),
            Output::Act(act) => self.acts.push(act.clone()),
            Output::Cancel(Cancelled::Look(id)) => self.looks.retain(|open| open.id != *id),
            Output::Cancel(Cancelled::Question(id)) => self.asks.retain(|(open, _)| open.id != *id),
            Output::Cancel(Cancelled::Request(id)) => self.requests.retain(|open| open.id != *id),
            Output::Cancel(Cancelled::Call(id)) => self.calls.retain(|open| open.id != *id),
            Output::Note(Note::Started { rule, .. }) => self.running.push(*rule),
            Output::Note(Note::Decided { rule, .. } | Note::GivenUp { rule, .. }) => {
                self.running.retain(|running| running != rule);
                self.asks.retain(|(open, _)| open.rule != *rule);
            }
            _ => {}
        }
    }

    fn name(&self, rule: RuleIndex) -> String {
        self.policy
            .rule(rule)
            .map_or_else(String::new, |rule| rule.id.to_string())
    }

    fn pass(&mut self, ms: u64) {
        self.ms = self.ms.saturating_add(ms);
        self.local_ms = self.local_ms.map(|local| local.saturating_add(ms));
    }

    /// Lets time pass as the loop does: it wakes when something is due. The last moment is left to
    /// the caller.
    fn wait(&mut self, ms: u64) {
        let until = self.ms.saturating_add(ms);
        for _ in 0..MAX_WAKES {
            match self.wake_in {
                Some(wake) if self.ms.saturating_add(wake.max(1)) < until => {
                    self.pass(wake.max(1));
                    self.see(&Observation::Tick);
                }
                _ => break,
            }
        }
        self.pass(until.saturating_sub(self.ms));
    }

    fn wait_for(&mut self, second: u32, weekday: Option<u8>) {
        const DAY_MS: u64 = 86_400_000;
        let wanted = u64::from(second) * 1000;
        let Some(local) = self.local_ms else {
            // Nothing is known but this: the fourth day after 1970-01-01 was a Monday.
            let day = 4 + u64::from(weekday.unwrap_or(0));
            self.local_ms = Some(day * DAY_MS + wanted);
            return;
        };
        let mut left = (DAY_MS + wanted - local % DAY_MS) % DAY_MS;
        if let (Some(weekday), Some(then)) = (
            weekday,
            wall_clock::of_seconds(local.saturating_add(left) / 1000),
        ) {
            left += u64::from((7 + weekday - then.weekday()) % 7) * DAY_MS;
        }
        self.wait(left);
    }

    fn frame(&mut self, quality: Quality) -> Frame {
        self.n_frames += 1;
        Frame {
            id: self.n_frames,
            time: self.ms,
            quality,
        }
    }

    fn looked(&mut self, look: Look, quality: Option<Quality>) -> Observation {
        Observation::Looked {
            look: look.id,
            frame: quality.map(|quality| self.frame(quality)),
        }
    }

    /// The open question of a rule and the time of its picture. Starts the rule, waits and shows
    /// pictures until it asks.
    fn asked(&mut self, rule: RuleIndex) -> Result<(Ask, u64), String> {
        let open = |asks: &[(Ask, u64)]| asks.iter().find(|(ask, _)| ask.rule == rule).copied();
        if open(&self.asks).is_none() && !self.running.contains(&rule) {
            self.start_rule(rule)?;
        }
        for _ in 0..MAX_LOOKS {
            if let Some(found) = open(&self.asks) {
                return Ok(found);
            }
            if !self.running.contains(&rule) {
                break;
            }
            match (self.looks.first().copied(), self.wake_in) {
                (Some(look), _) => {
                    let looked = self.looked(look, Some(Quality::Good));
                    self.see(&looked);
                }
                (None, Some(wake)) => {
                    self.pass(wake.max(1));
                    self.see(&Observation::Tick);
                }
                (None, None) => break,
            }
        }
        let why = self.lines.last().cloned().unwrap_or_default();
        Err(format!(
            "rule `{}` asks nothing now ({why})",
            self.name(rule)
        ))
    }

    /// Starts a rule by its first trigger that needs no other rule.
    fn start_rule(&mut self, index: RuleIndex) -> Result<(), String> {
        let policy = self.policy;
        let triggers = policy.rule(index).map_or(&[][..], |rule| &rule.when);
        let words = triggers
            .iter()
            .find_map(|trigger| starter(policy, &trigger.source));
        let Some(words) = words else {
            return Err(format!(
                "rule `{}` has not started, and only another rule starts it",
                self.name(index)
            ));
        };
        let sentence = Sentence::parse(policy, &words).map_err(|error| error.what)?;
        let observation = self
            .prepare(&sentence, &words)
            .map_err(|error| error.what)?;
        self.lines.push(format!("before that: {words}"));
        self.see(&observation);
        Ok(())
    }
}

/// Words that make a trigger hold; `None` if another rule does.
pub fn starter(policy: &Policy, source: &Source) -> Option<String> {
    Some(match source {
        Source::Change {
            zones,
            fraction,
            cause,
            ..
        } => {
            let at = usize::try_from(zones.trailing_zeros()).ok()?;
            let cause = format!("{cause:?}").to_lowercase();
            // Rounded up, so that it is enough.
            let share = f64::from(fraction.per_mille() + 1).min(1000.0) / 1000.0;
            format!("change {} {share} {cause}", policy.zones.get(at)?)
        }
        Source::Pin { pin, level } => {
            let edge = match level {
                Some(false) => "falling",
                _ => "rising",
            };
            format!("pin {} {edge}", policy.pin(*pin)?.name)
        }
        Source::Packet { packet, equals } => {
            let name = &policy.packets.get(packet.get())?.name;
            format!("packet {name} {}", equals.as_deref().unwrap_or_default())
        }
        Source::Topic { topic, equals } => {
            let name = &policy.topics.get(topic.get())?.name;
            format!("topic {name} {}", equals.as_deref().unwrap_or_default())
        }
        Source::Schedule(Schedule::Every(period)) => format!("wait {period}ms"),
        Source::Schedule(Schedule::Daily { second, days }) => {
            let day = (0..7).find(|day| days.contains(*day))?;
            let name = ocelli_reflex::schedule::Days::NAMES[usize::from(day)];
            let (hour, minute) = (second / 3600, second / 60 % 60);
            format!("at {hour:02}:{minute:02}:{:02} {name}", second % 60)
        }
        Source::Command { pin, on, from } => {
            let wish = if on.unwrap_or(true) { "on" } else { "off" };
            let link = Link::NAMES
                .iter()
                .find(|(_, link)| from & (1 << *link as u8) != 0)?;
            format!("command {} {wish} {}", policy.pin(*pin)?.name, link.0)
        }
        Source::Rule { .. } => return None,
    })
}
