//! Pins: what their envelope allows, and making them safe.

use super::Turn;
use crate::index::PinIndex;
use crate::limit::MAX_OUTPUTS;
use crate::note::{Note, Refusal};
use crate::observation::Link;
use crate::output::{Evidence, Output, PinSafe, SafeCause};
use crate::pin::{Envelope, Interlock};
use crate::policy::Policy;
use crate::state::{PinState, State};
use crate::time::Millis;

/// Checks a value against the envelope of a pin, with the time limits as they stand.
///
/// Making a pin safe is always allowed.
pub(crate) fn allowed_by_envelope(
    policy: &Policy,
    state: &State,
    pin: PinIndex,
    value: i32,
    evidence: Option<Evidence>,
) -> Result<(), Refusal> {
    let Some(envelope) = policy.pin(pin).and_then(|pin| pin.envelope()) else {
        return Err(Refusal::Range);
    };
    let Some(pin_state) = state.pins.get(pin.get()) else {
        return Err(Refusal::Range);
    };
    if value < envelope.range.0 || value > envelope.range.1 {
        return Err(Refusal::Range);
    }
    if value == envelope.safe {
        return Ok(());
    }
    if let Some(link) = envelope.needs_link
        && state.links_up & link.bit() == 0
    {
        return Err(Refusal::LinkDown);
    }
    check_interlocks(policy, state, pin, envelope)?;
    check_evidence(envelope.evidence, evidence, state.time)?;
    check_times(envelope, pin_state, value, state.time)
}

fn check_interlocks(
    policy: &Policy,
    state: &State,
    pin: PinIndex,
    envelope: &Envelope,
) -> Result<(), Refusal> {
    if let Some(interlock) = envelope
        .interlocks
        .iter()
        .find(|interlock| forbids(state, **interlock))
    {
        return Err(Refusal::Interlock(interlock.pin));
    }
    // Switching this one on must not break the interlock of another one that is on.
    let broken = (0..).zip(&policy.pins).find(|(index, other)| {
        let is_on = state
            .pins
            .get(usize::from(*index))
            .is_some_and(PinState::is_on);
        is_on
            && other.envelope().is_some_and(|envelope| {
                envelope
                    .interlocks
                    .iter()
                    .any(|interlock| interlock.pin == pin && interlock.active)
            })
    });
    match broken {
        Some((index, _)) => Err(Refusal::Interlock(PinIndex(index))),
        None => Ok(()),
    }
}

/// Whether an interlock keeps its pin safe: the other pin is as named, or not known.
fn forbids(state: &State, interlock: Interlock) -> bool {
    let Some(other) = state.pins.get(interlock.pin.get()) else {
        return true;
    };
    match (other.value, other.level) {
        (Some(_), _) => other.is_on() == interlock.active,
        (None, Some(level)) => level == interlock.active,
        (None, None) => true,
    }
}

/// Checks the age of a picture against a limit.
pub(super) fn check_evidence(
    limit: Option<Millis>,
    evidence: Option<Evidence>,
    now: Millis,
) -> Result<(), Refusal> {
    let Some(limit) = limit else { return Ok(()) };
    let evidence = evidence.ok_or(Refusal::NoEvidence)?;
    let age = now.saturating_sub(evidence.time);
    if age > limit {
        return Err(Refusal::StaleEvidence { age });
    }
    Ok(())
}

fn check_times(
    envelope: &Envelope,
    pin: &PinState,
    value: i32,
    now: Millis,
) -> Result<(), Refusal> {
    let passed = |since: Option<Millis>| since.map(|since| now.saturating_sub(since));
    if pin.value != Some(value) && passed(pin.changed).is_some_and(|time| time < envelope.dwell) {
        return Err(Refusal::Dwell);
    }
    if !pin.is_on() && passed(pin.off_since).is_some_and(|time| time < envelope.min_off) {
        return Err(Refusal::MinOff);
    }
    match envelope.rate {
        Some(rate) if !pin.times.allow(rate, now) => Err(Refusal::PinRate),
        _ => Ok(()),
    }
}

/// When a pin must be safe again.
fn deadline(envelope: &Envelope, pin: &PinState) -> Option<(Millis, SafeCause)> {
    let since = pin.on_since?;
    let max_on = envelope
        .max_on
        .map(|time| (since.saturating_add(time), SafeCause::MaxOn));
    let hold = pin.hold_until.map(|until| (until, SafeCause::HoldOver));
    let dead_man = envelope
        .dead_man
        .map(|time| (pin.refreshed.saturating_add(time), SafeCause::DeadMan));
    [max_on, hold, dead_man]
        .into_iter()
        .flatten()
        .min_by_key(|(time, _)| *time)
}

impl Turn<'_> {
    /// Records that a pin is set and tells when it must be safe again.
    pub(super) fn set_pin(
        &mut self,
        pin: PinIndex,
        value: i32,
        hold: Option<Millis>,
    ) -> Option<Millis> {
        let now = self.now();
        let envelope = self.policy.pin(pin)?.envelope()?;
        let state = self.state.pins.get_mut(pin.get())?;
        if value == envelope.safe {
            state.switch_off(envelope.safe, now);
            self.enforce_interlocks();
            return None;
        }
        if state.value != Some(value) {
            state.changed = Some(now);
        }
        state.on_since.get_or_insert(now);
        state.value = Some(value);
        state.refreshed = now;
        state.hold_until = hold.map(|hold| now.saturating_add(hold));
        state.times.record(now);
        let within = deadline(envelope, state).map(|(time, _)| time.saturating_sub(now));
        self.enforce_interlocks();
        within
    }

    /// Makes a pin safe if it is on.
    fn make_safe(&mut self, pin: PinIndex, cause: SafeCause) {
        let now = self.now();
        let Some(definition) = self.policy.pin(pin) else {
            return;
        };
        let Some(envelope) = definition.envelope() else {
            return;
        };
        let Some(state) = self.state.pins.get_mut(pin.get()) else {
            return;
        };
        state.switch_off(envelope.safe, now);
        if self.policy.dry_run {
            self.note(Note::MadeSafe { pin, cause });
        } else if self.out.list.len() < MAX_OUTPUTS - 1 {
            // There is room.
            let _ = self.out.list.push(Output::PinSafe(PinSafe {
                pin,
                line: definition.line.clone(),
                value: envelope.safe,
                cause,
            }));
        } else {
            self.all_safe(cause);
        }
    }

    /// Makes a pin safe after setting it failed, and with it those it interlocks.
    pub(super) fn mistrust(&mut self, pin: PinIndex) {
        self.make_safe(pin, SafeCause::ActionFailed);
        self.enforce_interlocks();
    }

    /// Makes all pins safe with one output, which always finds a place.
    pub(super) fn all_safe(&mut self, cause: SafeCause) {
        let now = self.now();
        for (pin, state) in self.policy.pins.iter().zip(&mut self.state.pins) {
            if let Some(envelope) = pin.envelope() {
                state.switch_off(envelope.safe, now);
            }
        }
        if self.policy.dry_run {
            return;
        }
        if self.out.list.is_full() {
            // The last place is kept for this output, so it stands there already.
            return;
        }
        let _ = self.out.list.push(Output::AllPinsSafe(cause));
    }

    pub(super) fn enforce_interlocks(&mut self) {
        // A pin made safe may break the interlock of another one, so at most once round each pin.
        for _ in 0..self.policy.pins.len() {
            let broken = (0..).zip(&self.policy.pins).find_map(|(index, pin)| {
                let is_on = self.state.pins.get(usize::from(index))?.is_on();
                let interlocks = &pin.envelope().filter(|_| is_on)?.interlocks;
                let interlock = interlocks
                    .iter()
                    .find(|interlock| forbids(self.state, **interlock))?;
                Some((PinIndex(index), interlock.pin))
            });
            let Some((pin, by)) = broken else { return };
            self.make_safe(pin, SafeCause::Interlock(by));
        }
    }

    pub(super) fn expire_pins(&mut self) {
        let now = self.now();
        self.safe_where(|envelope, pin| {
            deadline(envelope, pin)
                .filter(|(time, _)| *time <= now)
                .map(|(_, cause)| cause)
        });
    }

    pub(super) fn safe_pins_of(&mut self, link: Link) {
        self.safe_where(|envelope, pin| {
            (pin.is_on() && envelope.needs_link == Some(link)).then_some(SafeCause::LinkDown)
        });
    }

    fn safe_where(&mut self, cause: impl Fn(&Envelope, &PinState) -> Option<SafeCause>) {
        let policy = self.policy;
        for (index, pin) in (0..).zip(&policy.pins) {
            let cause = pin
                .envelope()
                .and_then(|envelope| cause(envelope, self.state.pins.get(usize::from(index))?));
            if let Some(cause) = cause {
                self.make_safe(PinIndex(index), cause);
            }
        }
        self.enforce_interlocks();
    }

    pub(super) fn pin_deadlines(&self) -> impl Iterator<Item = Millis> + '_ {
        self.policy
            .pins
            .iter()
            .zip(&self.state.pins)
            .filter_map(|(pin, state)| Some(deadline(pin.envelope()?, state)?.0))
    }
}
