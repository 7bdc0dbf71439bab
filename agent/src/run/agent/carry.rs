//! Outputs of the step, carried out.

use super::Agent;
use crate::hook::{HookId, HookJob};
use crate::link::mqtt::message::{Outgoing, State as BrokerState};
use crate::link::mqtt::{command::PinValue, payload::PendingAction};
use crate::remark::remark;
use ocelli_reflex::action::{Command, PinValue as ActionValue};
use ocelli_reflex::observation::{HookVerdict, Link, Outcome, Value};
use ocelli_reflex::output::{
    Act, ApprovalRequest, Cancelled, Deed, Grant, HookCall, Moment, Output, PinSafe,
};
use ocelli_reflex::permission::Level;
use ocelli_reflex::pin::SERIAL;
use ocelli_reflex::{ActId, ActionIndex, CallId, Note, Observation, Outputs, PinIndex, RuleIndex};
use serde_json::json;
use std::time::Duration;

/// Marks calls of hooks that are only told of an action and decide nothing.
const TOLD: u64 = 1 << 63;

impl Agent {
    pub(super) fn carry_out(&mut self, outputs: &Outputs) {
        for output in &outputs.list {
            match output {
                Output::Look(look) => match &self.parts.lookout {
                    Some(lookout) => lookout.look(look.id, Duration::from_millis(look.within)),
                    None => {
                        let (look, frame) = (look.id, None);
                        self.queue(Observation::Looked { look, frame });
                    }
                },
                Output::Ask(ask) => self.ask(ask),
                Output::Act(act) => self.act(act),
                Output::WouldAct(act) => {
                    let action = self.action_words(act.action);
                    remark!("ocelli: dry run, would do: {action}");
                }
                Output::RequestApproval(request) => self.request_approval(request),
                Output::CallHook(call) => self.call_hook(call),
                Output::Cancel(cancelled) => self.cancel(*cancelled),
                Output::Event(notice) => self.tell_event(notice),
                Output::PinSafe(safe) => self.pin_safe(safe),
                Output::AllPinsSafe(_) => self.all_pins_safe(),
                Output::Note(note) => self.note(*note),
            }
        }
        if self.is_verbose {
            for line in ocelli_reflex::explain::describe(&self.parts.rules.policy, outputs) {
                remark!("ocelli: {line}");
            }
        }
    }

    fn act(&mut self, act: &Act) {
        let outcome = match act.deed {
            Deed::Publish { .. } => Some(self.publish(act)),
            Deed::Snapshot { frame } => self.snapshot(act, frame),
            Deed::Packet { .. } => self.packet(act),
            Deed::Set { pin, value, within } => self.set(act.id, pin, value, within),
            Deed::Hook { .. } => self.run_hook(act),
            // Only in a dry run.
            Deed::Event => Some(Outcome::Done),
        };
        self.counts.actions += 1;
        let is_limited = self
            .parts
            .rules
            .policy
            .action(act.action)
            .is_some_and(|action| action.level >= Level::ActuateReversible);
        if is_limited || matches!(act.grant, Grant::Line(_) | Grant::Person(..)) {
            self.parts.recorder.state_changed();
        }
        if let Some(outcome) = outcome {
            let act = act.id;
            self.queue(Observation::Outcome { act, outcome });
        }
    }

    /// Text of a publication or packet, with whole answers where the step carries their begin.
    fn payload(&self, act: &Act) -> String {
        let policy = &self.parts.rules.policy;
        let whole = || self.whole.iter().find(|(event, _)| *event == act.event);
        let is_cut = match &act.finding.value {
            Value::Text(text) => text.is_cut(),
            Value::Fields { json, .. } => json.is_cut(),
            _ => false,
        };
        let answer = match is_cut {
            true => whole().map(|(_, text)| text.as_str()),
            false => None,
        };
        policy.payload_with(act, answer).unwrap_or_default()
    }

    fn publish(&mut self, act: &Act) -> Outcome {
        let payload = self.payload(act);
        let policy = &self.parts.rules.policy;
        let topic = match policy.action(act.action).map(|action| &action.command) {
            Some(Command::Publish { topic, .. }) => policy.topics.get(topic.get()),
            _ => None,
        };
        let priority = policy.rule(act.rule).map_or(5, |rule| rule.priority);
        let now = self.parts.clock.monotonic();
        let (Some(topic), Some(broker)) = (topic, &mut self.parts.broker) else {
            let text = "a rule publishes, and there is no [mqtt] in the configuration";
            self.remark("mqtt", text);
            return Outcome::Failed;
        };
        let sent = broker.publish((&topic.path, topic.retain), payload, priority, now);
        match sent {
            Ok(()) => Outcome::Done,
            Err(error) => {
                self.remark("mqtt", &error.to_string());
                Outcome::Failed
            }
        }
    }

    fn packet(&mut self, act: &Act) -> Option<Outcome> {
        let body = self.payload(act);
        let policy = &self.parts.rules.policy;
        let packet = match policy.action(act.action).map(|action| &action.command) {
            Some(Command::Packet { packet, .. }) => policy.packets.get(packet.get()),
            _ => None,
        };
        let now = self.parts.clock.monotonic();
        let (Some(packet), Some(line)) = (packet, &mut self.parts.line) else {
            let text = "a rule sends a packet, and there is no [serial] in the configuration";
            self.remark("serial", text);
            return Some(Outcome::Failed);
        };
        // What moves something at the other end must not come late.
        let is_command = packet.level >= Level::ActuateReversible;
        let name = (packet.name.as_str(), packet.number);
        match line.packet(act.id, name, &body, is_command, now) {
            Ok(outcome) => outcome,
            Err(error) => {
                let text = error.to_string();
                self.remark("serial", &text);
                Some(Outcome::Failed)
            }
        }
    }

    fn set(
        &mut self,
        act: ActId,
        pin: PinIndex,
        value: i32,
        within: Option<u64>,
    ) -> Option<Outcome> {
        let now = self.parts.clock.monotonic();
        let pin = self.parts.rules.policy.pin(pin)?;
        let longest = pin.envelope().and_then(|envelope| envelope.max_on);
        let name = pin.name.to_string();
        let outcome = if let Some(peer) = pin.serial_name() {
            let line = self.parts.line.as_mut();
            let within = within.or(longest);
            let set = line.map(|line| line.set_pin(Some(act), peer, value, within, now));
            match set {
                Some(Ok(())) => None,
                Some(Err(error)) => {
                    let text = error.to_string();
                    self.remark("serial", &text);
                    Some(Outcome::Failed)
                }
                None => Some(Outcome::Failed),
            }
        } else {
            let hands = self.parts.hands.as_ref();
            let id = hands.and_then(|(_, names)| names.get(&name));
            match (hands, id) {
                (Some((hands, _)), Some(id)) => {
                    hands.set(act, *id, value != 0, within.map(Duration::from_millis));
                    None
                }
                _ => {
                    self.remark("pins", &format!("pin {name} is not open"));
                    Some(Outcome::Failed)
                }
            }
        };
        self.tell_pin(&name, value);
        outcome
    }

    fn pin_safe(&mut self, safe: &PinSafe) {
        let policy = &self.parts.rules.policy;
        let name = policy.pin(safe.pin).map(|pin| pin.name.to_string());
        if let Some(name) = name {
            self.tell_pin(&name, safe.value);
            let hands = self.parts.hands.as_ref();
            if let Some((hands, id)) =
                hands.and_then(|(hands, names)| Some((hands, names.get(&name)?)))
            {
                hands.safe(*id);
            }
        }
        if let Some(peer) = safe.line.strip_prefix(SERIAL) {
            self.peer_pin_safe(peer.to_owned(), safe.value);
        }
        self.parts.recorder.state_changed();
    }

    fn peer_pin_safe(&mut self, pin: String, value: i32) {
        let now = self.parts.clock.monotonic();
        let sent = self
            .parts
            .line
            .as_mut()
            .map(|line| line.set_pin(None, &pin, value, Some(0), now));
        // While the line is down the microcontroller has made its pins safe by itself.
        if let Some(Err(error)) = sent
            && self.parts.line.as_ref().is_some_and(|line| line.is_up())
        {
            let text = format!("pin {pin} could not be made safe: {error}");
            self.remark("serial", &text);
        }
    }

    fn all_pins_safe(&mut self) {
        if let Some((hands, _)) = &self.parts.hands {
            hands.all_safe();
        }
        let pins = self.parts.rules.policy.pins.iter().filter_map(|pin| {
            let safe = pin.envelope()?.safe;
            Some((pin.name.to_string(), pin.line.to_string(), safe))
        });
        let pins: Vec<(String, String, i32)> = pins.collect();
        for (name, line, safe) in pins {
            self.tell_pin(&name, safe);
            if let Some(peer) = line.strip_prefix(SERIAL) {
                self.peer_pin_safe(peer.to_owned(), safe);
            }
        }
        self.parts.recorder.state_changed();
    }

    fn tell_pin(&mut self, name: &str, value: i32) {
        let policy = &self.parts.rules.policy;
        let pin = policy.pins.iter().find(|pin| pin.name == name);
        let range = pin
            .and_then(|pin| pin.envelope())
            .map(|envelope| envelope.range);
        let value = match range {
            Some((0, 1)) => PinValue::Level(value != 0),
            _ => PinValue::Number(value.into()),
        };
        let pin = name.to_owned();
        self.tell_broker(Outgoing::State(BrokerState::Pin { pin, value }));
    }

    fn run_hook(&mut self, act: &Act) -> Option<Outcome> {
        let policy = &self.parts.rules.policy;
        let hook = match policy.action(act.action).map(|action| &action.command) {
            Some(Command::Hook { hook }) => policy.hooks.get(hook.get())?,
            _ => return Some(Outcome::Failed),
        };
        let job = HookJob {
            id: HookId::Act(act.id),
            command: hook.command.clone(),
            input: self.hook_input("act", act.rule, act.action, None),
            timeout: Duration::from_millis(hook.timeout),
            wants_verdict: false,
        };
        (!self.start_hook(job)).then_some(Outcome::Failed)
    }

    fn call_hook(&mut self, call: &HookCall) {
        let Some(hook) = self.parts.rules.policy.hooks.get(call.hook.get()) else {
            return;
        };
        let wants_verdict = call.moment == Moment::Before;
        let moment = if wants_verdict { "before" } else { "after" };
        let mut input = self.hook_input(moment, call.rule, call.action, call.value);
        if let Moment::After(act, outcome) = call.moment {
            input["act"] = json!(act.0);
            input["outcome"] = json!(format!("{outcome:?}").to_lowercase());
        }
        let id = match wants_verdict {
            true => call.id,
            false => CallId(call.id.0 | TOLD),
        };
        let job = HookJob {
            id: HookId::Call(id),
            command: hook.command.clone(),
            input,
            timeout: Duration::from_millis(call.within),
            wants_verdict,
        };
        if !self.start_hook(job) && wants_verdict {
            let (call, verdict) = (call.id, HookVerdict::Failed);
            self.queue(Observation::Hook { call, verdict });
        }
    }

    fn hook_input(
        &self,
        moment: &str,
        rule: RuleIndex,
        action: ActionIndex,
        value: Option<i32>,
    ) -> serde_json::Value {
        let policy = &self.parts.rules.policy;
        let of = policy.action(action);
        let target = match of.map(|action| &action.command) {
            Some(Command::Set { pin, .. }) => policy.pin(*pin).map(|pin| pin.name.to_string()),
            Some(Command::Publish { topic, .. }) => policy
                .topics
                .get(topic.get())
                .map(|topic| topic.name.to_string()),
            Some(Command::Packet { packet, .. }) => policy
                .packets
                .get(packet.get())
                .map(|packet| packet.name.to_string()),
            _ => None,
        };
        let fixed = match of.map(|action| &action.command) {
            Some(Command::Set {
                value: ActionValue::Fixed(value),
                ..
            }) => Some(*value),
            _ => None,
        };
        json!({
            "v": 1,
            "moment": moment,
            "device": self.parts.settings.device.name,
            "rule": self.rule_name(rule),
            "action": of.map(|action| action.command.kind().word()),
            "target": target,
            "value": value.or(fixed),
            "says": self.action_words(action),
        })
    }

    fn start_hook(&mut self, job: HookJob) -> bool {
        match self.parts.hooks.call(job) {
            Ok(()) => true,
            Err(error) => {
                self.remark("hook", &error.to_string());
                false
            }
        }
    }

    pub(super) fn take_hooks(&mut self) {
        for _ in 0..super::MAX_TAKEN {
            let Some(report) = self.parts.hooks.try_next() else {
                return;
            };
            if !report.remark.is_empty() {
                self.remark("hook", &report.remark);
            }
            match report.id {
                HookId::Call(call) if call.0 & TOLD != 0 => {}
                HookId::Call(call) => {
                    let verdict = report.verdict;
                    self.observe(&Observation::Hook { call, verdict });
                }
                HookId::Act(act) => {
                    let outcome = report.outcome;
                    self.observe(&Observation::Outcome { act, outcome });
                }
            }
        }
    }

    fn cancel(&mut self, cancelled: Cancelled) {
        match cancelled {
            Cancelled::Look(look) => {
                if let Some(lookout) = &self.parts.lookout {
                    lookout.cancel(look);
                }
            }
            Cancelled::Question(question) => self.cancel_question(question),
            Cancelled::Request(request) => {
                self.pending.retain(|(waiting, _)| waiting.id != request);
                if let Some(line) = &mut self.parts.line {
                    line.withdraw(request);
                }
                self.tell_pending();
            }
            Cancelled::Call(call) => self.parts.hooks.cancel(call),
        }
    }

    fn request_approval(&mut self, request: &ApprovalRequest) {
        let now = self.parts.clock.monotonic();
        let until = now.saturating_add(Duration::from_millis(request.within));
        self.pending.push((request.clone(), until));
        self.tell_pending();
        if request.takes(Link::Serial) {
            let (rule, action) = (
                self.rule_name(request.rule),
                self.action_words(request.action),
            );
            let sent = self.parts.line.as_mut().map(|line| {
                let id = (request.id, request.nonce);
                line.ask_approval(id, (&rule, &action), request.within, now)
            });
            if let Some(Err(error)) = sent {
                let text = error.to_string();
                self.remark("serial", &text);
            }
        }
    }

    /// What waits for a person, in words.
    pub(super) fn pending_actions(&self, link: Link) -> Vec<PendingAction> {
        let now = self.parts.clock.monotonic();
        let wall_ms = self.parts.clock.wall_ms().unwrap_or(0);
        let policy = &self.parts.rules.policy;
        let waiting = self
            .pending
            .iter()
            .filter(|(request, _)| request.takes(link));
        waiting
            .map(|(request, until)| PendingAction {
                id: request.id.0.to_string(),
                nonce: format!("{:016x}", request.nonce),
                rule: self.rule_name(request.rule),
                action: self.action_words(request.action),
                level: policy
                    .action(request.action)
                    .map_or_else(String::new, |action| level_word(action.level)),
                expires_ms: wall_ms + super::millis(until.saturating_sub(now)),
            })
            .collect()
    }

    fn note(&mut self, note: Note) {
        if let Note::Refused { .. } = note {
            self.counts.denied += 1;
        }
    }

    pub(super) fn decided(&mut self, request: ocelli_reflex::RequestId) {
        self.pending.retain(|(waiting, _)| waiting.id != request);
        self.tell_pending();
    }

    pub(super) fn rule_name(&self, rule: RuleIndex) -> String {
        let policy = &self.parts.rules.policy;
        policy
            .rule(rule)
            .map_or_else(String::new, |rule| rule.id.to_string())
    }

    pub(super) fn action_words(&self, action: ActionIndex) -> String {
        ocelli_reflex::explain::action(&self.parts.rules.policy, action)
    }
}

fn level_word(level: Level) -> String {
    let found = Level::NAMES.iter().find(|(_, known)| *known == level);
    found.map_or_else(String::new, |(word, _)| (*word).to_owned())
}
