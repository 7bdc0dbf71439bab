//! What the rest of the device brings: taken in, made observations, put before the step.

use super::{Agent, MAX_TAKEN};
use crate::page::Page;
use crate::run::desk::{Inbound, Query, Receipt, broker};
use crate::run::hands::HandNews;
use crate::run::lookout::{Lookout, Seen};
use ocelli_boards::PinId;
use ocelli_reflex::explain::describe;
use ocelli_reflex::note::{Ignored, Note};
use ocelli_reflex::observation::{Approval, Fault as DeviceFault, Link, Outcome};
use ocelli_reflex::output::Output;
use ocelli_reflex::{Observation, Outputs, RequestId};
use std::time::Duration;

/// How long a camera may be away before rules are told.
const CAMERA_GRACE: Duration = Duration::from_secs(2);

impl Agent {
    pub(super) fn take_hands(&mut self) {
        for _ in 0..MAX_TAKEN {
            let Some((hands, _)) = &self.parts.hands else {
                return;
            };
            let Some(news) = hands.try_next() else { return };
            self.hand_news(news);
        }
    }

    fn hand_news(&mut self, news: HandNews) {
        match news {
            HandNews::Edge(edge) => {
                if let Some(name) = self.pin_name(edge.pin) {
                    self.pin(&name, edge.active, false);
                }
            }
            HandNews::Done(act, done) => {
                let outcome = match done {
                    Ok(()) => Outcome::Done,
                    Err(error) => {
                        self.remark("pins", &error.to_string());
                        Outcome::Failed
                    }
                };
                self.observe(&Observation::Outcome { act, outcome });
            }
            // The step counts the same time, and says so by itself.
            HandNews::TimeOver(_) => {}
            HandNews::LoopStuck(still) => {
                let text = format!("the loop stood still for {still:?}; all pins were made safe");
                self.remark("loop", &text);
                // What the step took for on is off: it gives up what waits and calls all pins safe.
                self.observe(&Observation::Reload);
            }
            HandNews::Fault(error) => self.remark("pins", &error.to_string()),
            HandNews::Lost(count) => {
                self.remark("pins", &format!("{count} edges were lost"));
                self.read_inputs();
            }
        }
    }

    fn pin_name(&self, id: PinId) -> Option<String> {
        let (_, names) = self.parts.hands.as_ref()?;
        let found = names.iter().find(|(_, pin)| **pin == id);
        found.map(|(name, _)| name.clone())
    }

    pub(super) fn take_lookout(&mut self) {
        for _ in 0..MAX_TAKEN {
            let seen = self.parts.lookout.as_ref().and_then(Lookout::try_next);
            let Some(seen) = seen else { break };
            self.seen(seen);
        }
        let now = self.parts.clock.monotonic();
        if self
            .camera_lost
            .is_some_and(|since| now.saturating_sub(since) >= CAMERA_GRACE)
        {
            self.fault(DeviceFault::CameraGone, true);
        }
    }

    fn seen(&mut self, seen: Seen) {
        match seen {
            Seen::Change(change) => {
                let zones = change.zones.iter().map(ToString::to_string).collect();
                self.frame_taken(change.frame.id, change.frame.time, zones);
                self.observe(&Observation::Change(*change));
            }
            Seen::Looked(look, frame) => {
                self.counts.looks += 1;
                if let Some(frame) = frame {
                    self.frame_taken(frame.id, frame.time, Vec::new());
                }
                if !self.snapshot_looked(look, frame) && !self.errand_looked(look, frame) {
                    self.observe(&Observation::Looked { look, frame });
                }
            }
            Seen::Camera { works, state } => {
                self.remark("camera", &state);
                match works {
                    true => {
                        self.camera_lost = None;
                        self.fault(DeviceFault::CameraGone, false);
                    }
                    false => {
                        let now = self.parts.clock.monotonic();
                        self.camera_lost.get_or_insert(now);
                    }
                }
            }
            Seen::Ended => {
                self.remark("camera", "the source has ended");
                self.fault(DeviceFault::CameraGone, true);
            }
            Seen::BadFrame(error) => self.remark("camera", &error),
            Seen::Lost(count) => self.remark("camera", &format!("{count} changes were lost")),
        }
    }

    pub(super) fn take_links(&mut self) {
        for _ in 0..MAX_TAKEN {
            let now = self.parts.clock.monotonic();
            let policy = &self.parts.rules.policy;
            let inbound = self
                .parts
                .broker
                .as_mut()
                .and_then(|broker| broker.recv(policy, now));
            let Some(inbound) = inbound else { break };
            self.inbound(inbound);
        }
        for _ in 0..MAX_TAKEN {
            let now = self.parts.clock.monotonic();
            let policy = &self.parts.rules.policy;
            let inbound = self
                .parts
                .line
                .as_mut()
                .and_then(|line| line.recv(policy, now));
            let Some(inbound) = inbound else { break };
            self.inbound(inbound);
        }
    }

    fn inbound(&mut self, inbound: Inbound) {
        match inbound {
            Inbound::Observe(observation) => {
                if let Observation::Link {
                    link: Link::Mqtt,
                    up,
                } = observation
                {
                    self.fault(DeviceFault::BrokerAway, !up);
                }
                self.observe(&observation);
            }
            Inbound::Request(observation, receipt) => {
                let outputs = self.observe(&observation);
                let refusal = self.refusal(&outputs);
                self.answer_request(&receipt, refusal);
                if let Observation::Switch { .. } = observation {
                    self.parts.recorder.state_changed();
                    self.tell_rules();
                }
            }
            Inbound::Errand(errand) => self.errand(errand),
            Inbound::Query(query, receipt) => self.query(query, &receipt),
            Inbound::Reload(receipt) => self.reload = Some(receipt),
            Inbound::Remark(about, text) => self.remark(about, &text),
        }
    }

    /// Why a request came to nothing, in words; `None` if it did not.
    fn refusal(&self, outputs: &Outputs) -> Option<String> {
        let is_against = |output: &&Output| {
            matches!(
                output,
                Output::Note(
                    Note::NotStarted { .. }
                        | Note::Refused { .. }
                        | Note::ApprovalRefused { .. }
                        | Note::Ignored(
                            Ignored::NoRule | Ignored::UnknownName | Ignored::WrongLink(_)
                        )
                )
            )
        };
        let started = |output: &Output| matches!(output, Output::Note(Note::Started { .. }));
        let refused = |output: &Output| matches!(output, Output::Note(Note::Refused { .. }));
        let goes_on = outputs.list.iter().any(started) && !outputs.list.iter().any(refused);
        if goes_on || !outputs.list.iter().any(|output| is_against(&output)) {
            return None;
        }
        let against = outputs.list.iter().filter(is_against).cloned().collect();
        let outputs = Outputs {
            list: against,
            wake_in: None,
        };
        Some(describe(&self.parts.rules.policy, &outputs).join("; "))
    }

    fn answer_request(&mut self, receipt: &Receipt, refusal: Option<String>) {
        let now = self.parts.clock.monotonic();
        if let Some(broker) = &mut self.parts.broker {
            broker.reply(receipt, broker::verdict(refusal.clone()), now);
        }
        if let Some(line) = &mut self.parts.line {
            line.verdict(receipt, refusal);
        }
    }

    fn query(&mut self, query: Query, receipt: &Receipt) {
        let now = self.parts.clock.monotonic();
        let condition = self.condition();
        let rules = self.rules_on();
        let rules = rules.map(|(rule, on)| format!("{rule},{}", if on { "on" } else { "off" }));
        let rules = rules.collect();
        let Some(line) = &mut self.parts.line else {
            return;
        };
        match query {
            Query::State => line.condition(receipt, &condition, now),
            Query::Rules => line.list(receipt, "RULE", rules),
            Query::Version => {
                let version = format!("ocelli {}", env!("CARGO_PKG_VERSION"));
                line.list(receipt, "VER", vec![version]);
            }
        }
    }

    pub(super) fn take_page(&mut self) {
        for _ in 0..MAX_TAKEN {
            let decision = self.parts.page.as_ref().and_then(Page::try_next);
            let Some(decision) = decision else { return };
            self.observe(&Observation::Approval(Approval {
                request: RequestId(decision.request),
                nonce: decision.nonce,
                granted: decision.granted,
                link: Link::Http,
                retained: false,
            }));
        }
    }

    pub(super) fn take_vitals(&mut self) {
        let now = self.parts.clock.monotonic();
        let stuck = self.parts.recorder.is_stuck();
        for (fault, active) in self.parts.vitals.tick(now, stuck) {
            self.fault(fault, active);
        }
    }
}
