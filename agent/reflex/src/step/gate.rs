//! The gate: every action of every rule passes here, however it came about.

use super::Turn;
use super::envelope::{allowed_by_envelope, check_evidence};
use super::verdict::{Subject, Verdict, lines, verdict};
use crate::action::{Action, Command, PinValue};
use crate::index::{ActId, HookIndex, RequestId};
use crate::note::{Dropped, Note, Refusal};
use crate::observation::{Fault, Value};
use crate::output::{Act, ApprovalRequest, Deed, Grant, HookCall, Moment, Output};
use crate::state::{Awaits, OpenAct, Pending, Request};
use crate::time::Millis;
use siphasher::sip::SipHasher24;
use std::hash::Hasher;

impl Turn<'_> {
    /// An action wants to be done.
    pub(super) fn request(&mut self, mut request: Request) {
        let policy = self.policy;
        let Some(action) = policy.action(request.action) else {
            return;
        };
        request.value = match value_of(action, &request.finding.value) {
            Ok(value) => value,
            Err(refusal) => return self.refuse(&request, refusal),
        };
        let waits = self.state.pending.iter().any(|pending| {
            pending.request.rule == request.rule && pending.request.action == request.action
        });
        if waits {
            return self.refuse(&request, Refusal::AlreadyPending);
        }
        match self.verdict(action, &request) {
            Verdict::Deny(refusal) => self.refuse(&request, refusal),
            _ if policy.dry_run => self.pass(request),
            _ => self.ask_hooks(request, 0),
        }
    }

    fn verdict(&self, action: &Action, request: &Request) -> Verdict {
        if matches!(action.command, Command::Snapshot)
            && self.state.faults & Fault::DiskFull.bit() != 0
        {
            return Verdict::Deny(Refusal::DiskFull);
        }
        verdict(
            self.policy,
            self.state,
            &subject(action, request),
            self.local,
        )
    }

    /// Asks the hooks from this one on, one after the other; then goes on.
    pub(super) fn ask_hooks(&mut self, request: Request, from: u16) {
        let policy = self.policy;
        let Some(action) = policy.action(request.action) else {
            return;
        };
        let kind = action.command.kind();
        let next = (from..)
            .zip(policy.hooks.iter().skip(usize::from(from)))
            .find(|(_, hook)| hook.runs_before(kind));
        let Some((index, hook)) = next else {
            return self.ask_person(request);
        };
        let id = crate::index::CallId(self.state.id());
        let call = HookCall {
            id,
            hook: HookIndex(index),
            rule: request.rule,
            action: request.action,
            value: request.value,
            moment: Moment::Before,
            within: hook.timeout,
        };
        let awaits = Awaits::Hook(id, HookIndex(index));
        if self.wait(request, awaits, hook.timeout) {
            self.emit(Output::CallHook(call));
        }
    }

    fn ask_person(&mut self, request: Request) {
        let policy = self.policy;
        let Some(action) = policy.action(request.action) else {
            return;
        };
        match self.verdict(action, &request) {
            Verdict::Deny(refusal) => self.refuse(&request, refusal),
            Verdict::Allow(_) => self.pass(request),
            Verdict::Ask { line, via, expires } => {
                let id = RequestId(self.state.id());
                let nonce = nonce(self.state.secret, id, &request);
                let question = ApprovalRequest {
                    id,
                    nonce,
                    event: request.event,
                    rule: request.rule,
                    action: request.action,
                    value: request.value,
                    permission: line,
                    via,
                    evidence: request.evidence,
                    within: expires,
                };
                if self.wait(request, Awaits::Person(id, nonce, line, via), expires) {
                    self.emit(Output::RequestApproval(question));
                }
            }
        }
    }

    /// Keeps an action until somebody decides; refuses it if there is no room.
    fn wait(&mut self, request: Request, awaits: Awaits, within: Millis) -> bool {
        if !self.has_room() || self.state.pending.is_full() {
            self.refuse(&request, Refusal::Full);
            return false;
        }
        let deadline = self.now().saturating_add(within);
        self.state
            .pending
            .push(Pending {
                request,
                awaits,
                deadline,
            })
            .is_ok()
    }

    /// Last checks, against lines and envelope as they stand now; then the action is handed out.
    pub(super) fn pass(&mut self, request: Request) {
        self.pass_by(request, None);
    }

    /// As [`Turn::pass`], with the decision of a person where a line asks for one.
    pub(super) fn pass_by(&mut self, request: Request, person: Option<RequestId>) {
        let policy = self.policy;
        let Some(action) = policy.action(request.action) else {
            return;
        };
        let grant = match (self.verdict(action, &request), person) {
            (Verdict::Deny(refusal), _) => return self.refuse(&request, refusal),
            (Verdict::Allow(None), _) => Grant::Default,
            (Verdict::Allow(Some(line)), _) => Grant::Line(line),
            (Verdict::Ask { line, .. }, Some(person)) => Grant::Person(line, person),
            (Verdict::Ask { line, .. }, None) if policy.dry_run => Grant::Line(line),
            (Verdict::Ask { .. }, None) => return self.refuse(&request, Refusal::Withdrawn),
        };
        if let Err(refusal) = self.check_limits(action, &request) {
            return self.refuse(&request, refusal);
        }
        self.count(action, &request);
        self.carry_out(action, request, grant);
    }

    fn check_limits(&self, action: &Action, request: &Request) -> Result<(), Refusal> {
        if !self.has_room() {
            return Err(Refusal::Full);
        }
        let limit = self
            .policy
            .rule(request.rule)
            .and_then(|rule| rule.evidence);
        if action.level.actuates() {
            check_evidence(limit, request.evidence, self.now())?;
        }
        match (&action.command, request.value) {
            (Command::Set { pin, .. }, Some(value)) => {
                allowed_by_envelope(self.policy, self.state, *pin, value, request.evidence)
            }
            _ => Ok(()),
        }
    }

    /// Counts the action against the rates of the lines about it.
    fn count(&mut self, action: &Action, request: &Request) {
        let now = self.now();
        let subject = subject(action, request);
        for (_, line) in lines(self.policy, &subject, self.local) {
            let slot = line.rate.map(|rated| rated.slot);
            if let Some(history) = slot.and_then(|slot| self.state.rates.get_mut(slot)) {
                history.times.record(now);
            }
        }
    }

    fn carry_out(&mut self, action: &Action, request: Request, grant: Grant) {
        self.note(Note::Permitted {
            rule: request.rule,
            action: request.action,
            grant,
        });
        let deed = match &action.command {
            Command::Publish { topic, .. } => Deed::Publish { topic: *topic },
            Command::Snapshot => Deed::Snapshot {
                frame: request.evidence.map(|evidence| evidence.frame),
            },
            Command::Packet { packet, .. } => Deed::Packet { packet: *packet },
            Command::Hook { hook } => Deed::Hook { hook: *hook },
            Command::Event { .. } if self.policy.dry_run => Deed::Event,
            Command::Event { hold, .. } => return self.announce(request, *hold),
            Command::Set { pin, hold, .. } => {
                let value = request.value.unwrap_or_default();
                let within = self.set_pin(*pin, value, *hold);
                Deed::Set {
                    pin: *pin,
                    value,
                    within,
                }
            }
        };
        self.hand_out(request, grant, deed);
    }

    fn hand_out(&mut self, request: Request, grant: Grant, deed: Deed) {
        let id = ActId(self.state.id());
        let value = request.value;
        let act = Act {
            id,
            event: request.event,
            rule: request.rule,
            action: request.action,
            grant,
            deed,
            evidence: request.evidence,
            finding: request.finding,
        };
        if self.policy.dry_run {
            return self.emit(Output::WouldAct(act));
        }
        if self.state.acts.is_full() {
            self.state.acts.remove(0);
            self.state.drops_mut().acts += 1;
            self.note(Note::Dropped(Dropped::Act));
        }
        // There is room.
        let _ = self.state.acts.push(OpenAct {
            id,
            rule: act.rule,
            action: act.action,
            value,
        });
        self.emit(Output::Act(act));
    }

    pub(super) fn refuse(&mut self, request: &Request, why: Refusal) {
        self.note(Note::Refused {
            rule: request.rule,
            action: request.action,
            why,
        });
    }
}

fn subject(action: &Action, request: &Request) -> Subject {
    Subject {
        value: request.value,
        evidence: request.evidence,
        ..Subject::of(action, request.rule)
    }
}

/// The value a pin is to be set to; `None` for actions without value.
fn value_of(action: &Action, answer: &Value) -> Result<Option<i32>, Refusal> {
    let Command::Set { value, .. } = &action.command else {
        return Ok(None);
    };
    match (value, answer) {
        (PinValue::Fixed(value), _) => Ok(Some(*value)),
        (PinValue::Answer { times, plus }, Value::Count(count)) => {
            let scaled = i64::from(*count) * i64::from(*times) + i64::from(*plus);
            i32::try_from(scaled)
                .map(Some)
                .map_err(|_| Refusal::NoValue)
        }
        _ => Err(Refusal::NoValue),
    }
}

/// A number nobody without the secret can tell, bound to what is asked.
fn nonce(secret: [u64; 2], id: RequestId, request: &Request) -> u64 {
    let mut hasher = SipHasher24::new_with_keys(secret[0], secret[1]);
    hasher.write(&id.0.to_le_bytes());
    hasher.write(&request.rule.0.to_le_bytes());
    hasher.write(&request.action.0.to_le_bytes());
    hasher.write(&i64::from(request.value.unwrap_or_default()).to_le_bytes());
    hasher.finish()
}
