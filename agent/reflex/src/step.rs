//! [`step()`]: one observation in, outputs out.

mod clock;
mod decision;
mod entrance;
mod envelope;
mod event;
mod gate;
mod pending;
mod run;
mod verdict;

pub(crate) use envelope::allowed_by_envelope;
pub(crate) use verdict::{Subject, Verdict, matches, verdict};

use crate::index::{LookId, RuleIndex};
use crate::limit::{MAX_CHAIN, MAX_NOTES, MAX_OUTPUTS, MAX_PINS};
use crate::note::{Dropped, GivenUp, Ignored, Note};
use crate::observation::{Fault, Link, Observation};
use crate::output::{Output, Outputs, SafeCause};
use crate::policy::Policy;
use crate::state::{Ended, State};
use crate::text::Name;
use crate::time::{LocalTime, Millis, Now};

/// Outputs other than notes and pins made safe use the places below this one.
const MAX_COMMON: usize = MAX_OUTPUTS - MAX_PINS - 1;

/// Takes one observation.
///
/// The same policy, state, observation and time give the same outputs and the same new state, on
/// every machine. Every call first does what has become due: pins whose time is over, decisions
/// that did not come, schedules. Nothing acts before [`Observation::Start`] or after
/// [`Observation::Stop`].
pub fn step(policy: &Policy, state: &mut State, observation: &Observation, now: Now) -> Outputs {
    let mut turn = Turn {
        policy,
        state,
        out: Outputs::default(),
        chain: heapless::Deque::new(),
        look: None,
        local: now.local,
        ms: now.ms,
        dropped: [false; 2],
    };
    turn.adopt();
    turn.advance(matches!(observation, Observation::Start { .. }));
    turn.expire();
    turn.observe(observation);
    turn.follow();
    turn.finish()
}

/// One call of [`step()`].
struct Turn<'a> {
    policy: &'a Policy,
    state: &'a mut State,
    out: Outputs,
    /// Rules that ended and may start others.
    chain: heapless::Deque<Ended, MAX_CHAIN>,
    /// The look asked for in this turn; all runs that want one share it.
    look: Option<LookId>,
    local: Option<LocalTime>,
    /// `Now::ms`.
    ms: Millis,
    /// Whether notes, whether other outputs were dropped in this turn.
    dropped: [bool; 2],
}

impl Turn<'_> {
    fn now(&self) -> Millis {
        self.state.time
    }

    fn note(&mut self, note: Note) {
        if self.out.list.len() >= MAX_NOTES || self.out.list.push(Output::Note(note)).is_err() {
            self.state.drops_mut().notes += 1;
            self.dropped[0] = true;
        }
    }

    fn has_room(&self) -> bool {
        self.out.list.len() < MAX_COMMON
    }

    fn emit(&mut self, output: Output) {
        if !self.has_room() || self.out.list.push(output).is_err() {
            self.state.drops_mut().outputs += 1;
            self.dropped[1] = true;
        }
    }

    fn adopt(&mut self) {
        if self.state.fingerprint == Some(self.policy.fingerprint) {
            return;
        }
        if self.state.fingerprint.is_some() {
            self.forget();
            if !self.policy.dry_run {
                self.emit(Output::AllPinsSafe(SafeCause::Reload));
            }
        }
        self.state.adopt(self.policy);
        self.note(Note::Adopted {
            fingerprint: self.policy.fingerprint,
        });
    }

    fn observe(&mut self, observation: &Observation) {
        match observation {
            Observation::Start { secret } => self.start(*secret),
            Observation::Stop => self.rest(SafeCause::Stop),
            Observation::Reload => self.rest(SafeCause::Reload),
            Observation::Tick => {}
            Observation::Change(change) => self.changed(change),
            Observation::Looked { look, frame } => self.looked(*look, *frame),
            Observation::Pin {
                pin,
                level,
                initial,
            } => self.pin_read(pin, *level, *initial),
            Observation::Packet { link, packet, body } => self.packet(*link, packet, body),
            Observation::Message {
                link,
                topic,
                body,
                retained,
            } => self.message(*link, topic, body, *retained),
            Observation::Answer(answer) => self.answered(answer),
            Observation::Approval(approval) => self.approved(approval),
            Observation::Hook { call, verdict } => self.hook_said(*call, *verdict),
            Observation::Outcome { act, outcome } => self.finished(*act, *outcome),
            Observation::Link { link, up } => self.link(*link, *up),
            Observation::Fault { fault, active } => self.fault(*fault, *active),
            Observation::Switch { rule, on } => self.switch(rule, *on),
            Observation::Command { link, pin, on } => self.commanded(*link, pin, *on),
        }
    }

    fn start(&mut self, secret: [u64; 2]) {
        self.forget();
        self.state.secret = secret;
        self.state.links_up = 0;
        self.state.faults = 0;
        let now = self.now();
        for (pin, state) in self.policy.pins.iter().zip(&mut self.state.pins) {
            state.level = None;
            if let Some(envelope) = pin.envelope() {
                state.switch_off(envelope.safe, now);
                // What the pin did before is not known: it counts as switched off just now.
                state.off_since = Some(now);
                state.changed = Some(now);
            }
        }
        self.all_safe(SafeCause::Start);
        self.state.running = true;
        for rule in &mut self.state.rules {
            rule.due = None;
        }
        self.plan_schedules();
    }

    /// Ends everything under way and makes all pins safe. After a reload the agent runs on.
    fn rest(&mut self, cause: SafeCause) {
        self.end_all_events();
        self.withdraw_pending();
        self.give_up_runs(GivenUp::Restart);
        self.all_safe(cause);
        self.state.running &= cause == SafeCause::Reload;
    }

    /// Drops what refers to rules of before, without a word to executors that know none of it.
    fn forget(&mut self) {
        self.state.runs.clear();
        self.state.pending.clear();
        self.state.events.clear();
        self.state.acts.clear();
    }

    fn link(&mut self, link: Link, up: bool) {
        if up {
            self.state.links_up |= link.bit();
        } else {
            self.state.links_up &= !link.bit();
        }
        self.note(Note::Link { link, up });
        if !up {
            self.safe_pins_of(link);
        }
    }

    fn fault(&mut self, fault: Fault, active: bool) {
        if active {
            self.state.faults |= fault.bit();
        } else {
            self.state.faults &= !fault.bit();
        }
        self.note(Note::Fault { fault, active });
        if active {
            self.shed_runs(fault);
        }
    }

    /// A person enables or disables a rule; a run under way goes on.
    fn switch(&mut self, name: &Name, on: bool) {
        let found = (0..)
            .zip(&self.policy.rules)
            .find(|(_, rule)| rule.id == *name);
        let Some((index, rule)) = found else {
            return self.note(Note::Ignored(Ignored::UnknownName));
        };
        if !rule.switchable {
            return self.note(Note::Ignored(Ignored::NotSwitchable));
        }
        if let Some(state) = self.state.rules.get_mut(usize::from(index)) {
            state.switched = Some(on);
        }
        let rule = RuleIndex(index);
        self.note(Note::Switched { rule, on });
    }

    fn finish(mut self) -> Outputs {
        let [notes, outputs] = self.dropped;
        for (dropped, what) in [(notes, Dropped::Notes), (outputs, Dropped::Outputs)] {
            if dropped && self.out.list.len() < MAX_OUTPUTS - 1 {
                // There is room.
                let _ = self.out.list.push(Output::Note(Note::Dropped(what)));
            }
        }
        self.out.wake_in = self.wake_in();
        self.out
    }
}
