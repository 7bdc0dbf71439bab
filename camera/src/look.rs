//! When to look: which observations are worth asking the model about a picture.
//!
//! ```text
//! change in a zone ┐                                  ┌ refused, and why
//! every so often   │   schedule ─▶ cooldown ─▶ settle ┤
//! pin, message     ┘            (steady and sharp)    └ look: event id, new or update ─▶ … ─▶ end
//! ```
//!
//! Triggers that come close together belong to one event. The policy holds no clock and does no I/O.

mod schedule;
mod second;
mod settings;
mod settle;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use crate::change::{Cause, Change};
use crate::quality::{Finding, Quality};

use settle::{Settled, Settling};

pub use schedule::{DayTime, Days, Schedule, ScheduleError};
pub use second::{SecondLook, SecondLookError, Verdict};
pub use settings::{
    Edge, LookSettings, LookSettingsError, MAX_TRIGGERS, On, Trigger, TriggerTimes,
};

/// A moment on two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Time since any fixed moment, never running backwards.
    pub steady: Duration,
    /// Seconds since 1970 UTC; `None` while the board does not know the time.
    pub unix: Option<i64>,
}

/// What happened.
#[derive(Clone, Copy, Debug)]
pub enum Observation<'a> {
    /// A picture, with what changed in it and how good it is.
    Picture {
        /// What changed.
        change: &'a Change,
        /// How good it is.
        quality: &'a Quality,
    },
    /// A pin changed.
    Pin {
        /// Its name.
        name: &'a str,
        /// Its level now.
        high: bool,
    },
    /// A message came.
    Message {
        /// Its topic.
        topic: &'a str,
    },
    /// Nothing; time passes. Needed at least once a second when no pictures come.
    Tick,
}

/// Number of an event, rising by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(pub u64);

/// Whether a look is the first of its event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The first look: answer early.
    New,
    /// A later look at the same event.
    Update,
}

/// Which picture to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The one of this observation.
    This,
    /// The one last told to [`Decision::Keep`].
    Kept,
}

/// Why a trigger led to no look.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// Too soon after the trigger's last look.
    Cooldown {
        /// Time left.
        left: Duration,
    },
    /// At this time the trigger does not count.
    OutsideSchedule,
    /// The trigger has a schedule, and the board does not know the time.
    NoClock,
    /// No picture was good enough.
    Quality(Finding),
    /// No picture came.
    NoPicture,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Cooldown { left } => {
                write!(f, "cooldown {} s left", left.as_millis().div_ceil(1000))
            }
            Refusal::OutsideSchedule => f.write_str("outside schedule"),
            Refusal::NoClock => {
                f.write_str("the time is not known yet, and the trigger has a schedule")
            }
            Refusal::Quality(finding) => finding.fmt(f),
            Refusal::NoPicture => f.write_str("no picture came; is the camera there?"),
        }
    }
}

/// What to do. `trigger` is the place in the settings.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Hold on to this observation's picture, instead of any kept before.
    Keep,
    /// Look at a picture.
    Look {
        /// The event it belongs to.
        event: EventId,
        /// First or later look.
        phase: Phase,
        /// What led to it.
        trigger: usize,
        /// Which picture.
        picture: Choice,
    },
    /// The trigger belongs to a look that is under way or was a moment ago.
    Merged {
        /// The trigger.
        trigger: usize,
        /// The event.
        event: EventId,
    },
    /// The trigger led to nothing.
    Refused {
        /// The trigger.
        trigger: usize,
        /// Why.
        reason: Refusal,
    },
    /// The event is over.
    End {
        /// The event.
        event: EventId,
    },
}

/// Decides when to look.
#[derive(Clone, Debug)]
pub struct LookPolicy {
    settings: LookSettings,
    /// Places in `Change::zones` of each trigger's zones.
    zones: Vec<Vec<usize>>,
    states: Vec<State>,
    next: u64,
    open: Option<Open>,
    pending: Option<Pending>,
    decisions: Vec<Decision>,
}

/// What is remembered of one trigger.
#[derive(Clone, Debug, Default)]
struct State {
    looked: Option<Duration>,
    /// Since when its zones are active.
    active: Option<Duration>,
    /// It fired for the activity at hand.
    fired: bool,
    /// Last period or minute it fired for.
    period: Option<i64>,
    /// Last level of its pin.
    high: Option<bool>,
}

/// The event at hand.
#[derive(Clone, Copy, Debug)]
struct Open {
    id: EventId,
    looks: u32,
    looked: Duration,
    /// Last sign of activity.
    lively: Duration,
}

/// A look that waits for a good picture.
#[derive(Clone, Debug)]
struct Pending {
    trigger: usize,
    settling: Settling,
}

impl LookPolicy {
    /// A policy for a detector whose zones have the given names, in its order; events are numbered from `first`.
    pub fn new(
        settings: LookSettings,
        zones: &[&str],
        first: EventId,
    ) -> Result<LookPolicy, LookSettingsError> {
        let places = settings.check(zones)?;
        let count = settings.triggers.len();
        Ok(LookPolicy {
            zones: places,
            states: vec![State::default(); count],
            next: first.0,
            open: None,
            pending: None,
            decisions: Vec::with_capacity(count + 3),
            settings,
        })
    }

    /// The settings.
    pub fn settings(&self) -> &LookSettings {
        &self.settings
    }

    /// Takes in an observation; what to do about it, in order.
    pub fn step(&mut self, observation: Observation<'_>, now: Moment) -> &[Decision] {
        self.decisions.clear();
        if let Some(trigger) = self.admit(observation, now) {
            self.begin(trigger, now.steady);
        }
        self.settle(observation, now.steady);
        self.end(now.steady);
        &self.decisions
    }

    /// The most important of the triggers that fire and may; the others are answered.
    fn admit(&mut self, observation: Observation<'_>, now: Moment) -> Option<usize> {
        let mut chosen: Option<usize> = None;
        for trigger in 0..self.settings.triggers.len() {
            if !self.fires(trigger, observation, now) {
                continue;
            }
            if let Some(reason) = self.refusal(trigger, now) {
                self.decisions.push(Decision::Refused { trigger, reason });
                continue;
            }
            let priority = |trigger: usize| self.settings.triggers[trigger].priority;
            let other = match chosen {
                Some(best) if priority(best) >= priority(trigger) => Some(trigger),
                _ => chosen.replace(trigger),
            };
            if let Some(other) = other {
                self.merge(other, now.steady);
            }
        }
        chosen
    }

    /// Starts waiting for a picture, or joins the look that already waits.
    fn begin(&mut self, trigger: usize, now: Duration) {
        let settings = &self.settings.triggers[trigger];
        let waiting = self.pending.as_ref().map(|pending| pending.trigger);
        let outranked =
            waiting.filter(|other| self.settings.triggers[*other].priority >= settings.priority);
        let recent = self
            .open
            .filter(|open| now.saturating_sub(open.looked) < self.settings.merge());
        if outranked.is_some() || waiting.is_none() && recent.is_some() {
            self.merge(trigger, now);
            return;
        }
        let settling = Settling::new(settings, now);
        if let Some(outranked) = self.pending.replace(Pending { trigger, settling }) {
            self.merge(outranked.trigger, now);
        }
        self.lively(now);
    }

    /// Counts a trigger as part of the event at hand or about to be.
    fn merge(&mut self, trigger: usize, now: Duration) {
        self.states[trigger].looked = Some(now);
        self.lively(now);
        let event = self.open.map_or(EventId(self.next), |open| open.id);
        self.decisions.push(Decision::Merged { trigger, event });
    }

    fn lively(&mut self, now: Duration) {
        if let Some(open) = &mut self.open {
            open.lively = now;
        }
    }

    /// Whether a trigger fires; follows its state.
    fn fires(&mut self, trigger: usize, observation: Observation<'_>, now: Moment) -> bool {
        let offset = i64::from(self.settings.utc_offset_minutes) * 60;
        let state = &mut self.states[trigger];
        match (&self.settings.triggers[trigger].on, observation) {
            (On::Change { dwell_ms, .. }, Observation::Picture { change, .. }) => {
                let active = is_active(change, &self.zones[trigger]);
                let dwell = Duration::from_millis(u64::from(*dwell_ms));
                self.changed(trigger, active, dwell, now.steady)
            }
            (On::Every { ms }, _) => {
                let period = (now.steady.as_millis() / u128::from(*ms)) as i64;
                let known = state.period.is_some();
                state.is_new(period) && known
            }
            (On::Daily { at }, _) => {
                let Some(unix) = now.unix else { return false };
                let local = unix + offset;
                // Minutes since the moment of the day; the day before counts until it comes.
                let since = local.div_euclid(60) - i64::from(at.minutes());
                let day = since.div_euclid(24 * 60);
                let known = state.period.is_some();
                state.is_new(day) && (known || since.rem_euclid(24 * 60) == 0)
            }
            (On::Pin { pin, edge }, Observation::Pin { name, high }) if pin == name => {
                let before = state.high.replace(high);
                before != Some(high) && edge.is(high) && (before.is_some() || *edge != Edge::Both)
            }
            (On::Message { topic }, Observation::Message { topic: came }) => topic == came,
            _ => false,
        }
    }

    /// Whether activity has lasted long enough, for the first time or since the last look at it.
    fn changed(&mut self, trigger: usize, active: bool, dwell: Duration, now: Duration) -> bool {
        let update = self.settings.update();
        let looked = self.open.map(|open| open.looked);
        let state = &mut self.states[trigger];
        if !active {
            (state.active, state.fired) = (None, false);
            return false;
        }
        let since = *state.active.get_or_insert(now);
        if let Some(open) = &mut self.open {
            open.lively = now;
        }
        if !state.fired {
            state.fired = now.saturating_sub(since) >= dwell;
            return state.fired;
        }
        let due = looked.is_some_and(|looked| now.saturating_sub(looked) >= update);
        due && !update.is_zero() && self.pending.is_none()
    }

    fn refusal(&self, trigger: usize, now: Moment) -> Option<Refusal> {
        let settings = &self.settings.triggers[trigger];
        if let Some(schedule) = &settings.schedule {
            let Some(unix) = now.unix else {
                return Some(Refusal::NoClock);
            };
            if !schedule.holds(unix + i64::from(self.settings.utc_offset_minutes) * 60) {
                return Some(Refusal::OutsideSchedule);
            }
        }
        let cooldown = settings.times.cooldown();
        let since = now.steady.saturating_sub(self.states[trigger].looked?);
        (since < cooldown).then(|| Refusal::Cooldown {
            left: cooldown - since,
        })
    }

    /// Offers the picture at hand to the look that waits.
    fn settle(&mut self, observation: Observation<'_>, now: Duration) {
        let Some(pending) = &mut self.pending else {
            return;
        };
        let seen = match observation {
            Observation::Picture { change, quality } => Some((change, quality)),
            _ => None,
        };
        let trigger = pending.trigger;
        match pending.settling.offer(seen, now) {
            Settled::Wait => return,
            Settled::Keep => {
                self.decisions.push(Decision::Keep);
                return;
            }
            Settled::Take(picture) => self.look(trigger, picture, now),
            Settled::Refuse(reason) => self.decisions.push(Decision::Refused { trigger, reason }),
        }
        self.pending = None;
    }

    fn look(&mut self, trigger: usize, picture: Choice, now: Duration) {
        let open = self.open.get_or_insert(Open {
            id: EventId(self.next),
            looks: 0,
            looked: now,
            lively: now,
        });
        let phase = if open.looks == 0 {
            Phase::New
        } else {
            Phase::Update
        };
        open.looks = open.looks.saturating_add(1);
        (open.looked, open.lively) = (now, now);
        self.states[trigger].looked = Some(now);
        self.decisions.push(Decision::Look {
            event: open.id,
            phase,
            trigger,
            picture,
        });
    }

    fn end(&mut self, now: Duration) {
        let quiet = self.settings.quiet();
        let over = self
            .open
            .filter(|open| now.saturating_sub(open.lively) >= quiet);
        if let (Some(open), None) = (over, &self.pending) {
            self.decisions.push(Decision::End { event: open.id });
            self.open = None;
            self.next = open.id.0.saturating_add(1);
        }
    }
}

impl State {
    /// Whether a period is another than the last one seen.
    fn is_new(&mut self, period: i64) -> bool {
        self.period.replace(period) != Some(period)
    }
}

/// Whether any of the zones, or the whole picture if none are named, is active.
fn is_active(change: &Change, zones: &[usize]) -> bool {
    if change.cause == Cause::Learning {
        return false;
    }
    match zones {
        [] => change.whole.active,
        zones => zones
            .iter()
            .any(|zone| change.zones.get(*zone).is_some_and(|zone| zone.active)),
    }
}
