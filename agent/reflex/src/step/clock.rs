//! The state's own clock, and what falls due.

use super::Turn;
use crate::index::RuleIndex;
use crate::limit::{MAX_ADVANCE_MS, MAX_SCHEDULE_DELAY_S};
use crate::note::{GivenUp, Note, Refusal};
use crate::output::SafeCause;
use crate::rule::Source;
use crate::schedule::Schedule;
use crate::state::{Awaits, Phase};
use crate::time::Millis;

/// Where the clock of a new state may begin at most; far from the end of the numbers.
const LATEST_BEGIN: Millis = 1 << 62;

impl Turn<'_> {
    /// Moves the state's clock. If the given clock went back, how long pins have been on can no
    /// longer be told: they are made safe. A start does that anyway and often comes with a new
    /// clock.
    pub(super) fn advance(&mut self, is_start: bool) {
        match self.state.last_ms {
            None => self.state.time = self.ms.min(LATEST_BEGIN),
            Some(last) => {
                let advance = self.ms.saturating_sub(last).min(MAX_ADVANCE_MS);
                self.state.time = self.state.time.saturating_add(advance);
                if self.ms < last && !is_start {
                    self.note(Note::ClockWentBack { by: last - self.ms });
                    if self.state.running {
                        self.withdraw_pending();
                        self.give_up_runs(GivenUp::Clock);
                        self.all_safe(SafeCause::Clock);
                    }
                }
            }
        }
        self.state.last_ms = Some(self.ms);
    }

    /// A time of the given clock on the state's clock; `None` if it is in the future or before
    /// anything the state remembers.
    pub(super) fn state_time(&self, ms: Millis) -> Option<Millis> {
        let age = self.ms.checked_sub(ms)?;
        self.state.time.checked_sub(age)
    }

    /// Does what has become due.
    pub(super) fn expire(&mut self) {
        if !self.state.running {
            return;
        }
        self.expire_pins();
        self.expire_pending();
        self.expire_runs();
        self.expire_events();
        self.fire_schedules();
    }

    fn expire_pending(&mut self) {
        let now = self.now();
        while let Some(at) = self
            .state
            .pending
            .iter()
            .position(|pending| pending.deadline <= now)
        {
            let pending = self.state.pending.remove(at);
            self.cancel_wait(pending.awaits);
            let why = match pending.awaits {
                Awaits::Hook(_, hook) => Refusal::HookFailed(hook),
                Awaits::Person(..) => Refusal::Expired,
            };
            self.refuse(&pending.request, why);
        }
    }

    /// Gives every periodic schedule its first time.
    pub(super) fn plan_schedules(&mut self) {
        let now = self.now();
        for (rule, state) in self.policy.rules.iter().zip(&mut self.state.rules) {
            for trigger in &rule.when {
                if let Source::Schedule(Schedule::Every(period)) = trigger.source
                    && state.due.is_none()
                {
                    state.due = Some(now.saturating_add(period));
                }
            }
        }
    }

    fn fire_schedules(&mut self) {
        self.plan_schedules();
        let policy = self.policy;
        let mut matched = super::entrance::Matched::new();
        for (rule, index) in policy.rules.iter().zip(0..) {
            let index = RuleIndex(index);
            for (trigger, number) in rule.when.iter().zip(0..) {
                if let Source::Schedule(schedule) = &trigger.source
                    && self.is_due(index, *schedule)
                {
                    matched.add(rule.priority, index, number);
                }
            }
        }
        if !matched.is_empty() {
            self.fire_all(matched, super::run::Cue::default());
        }
    }

    /// Whether a schedule fires now; if so it is set to its next time.
    fn is_due(&mut self, rule: RuleIndex, schedule: Schedule) -> bool {
        let now = self.now();
        let local = self.local;
        let Some(state) = self.state.rules.get_mut(rule.get()) else {
            return false;
        };
        match schedule {
            Schedule::Every(period) => {
                let due = state.due.is_some_and(|due| due <= now);
                if due {
                    state.due = Some(now.saturating_add(period));
                }
                due
            }
            Schedule::Daily { second, days } => {
                let Some(local) = local else { return false };
                let late = local.second_of_day().checked_sub(second);
                let due = late.is_some_and(|late| late <= MAX_SCHEDULE_DELAY_S)
                    && days.contains(local.weekday())
                    && state.last_day != Some(local.day);
                if due {
                    state.last_day = Some(local.day);
                }
                due
            }
        }
    }

    /// Time until something falls due.
    pub(super) fn wake_in(&self) -> Option<Millis> {
        if !self.state.running {
            return None;
        }
        let state = &*self.state;
        let runs = state.runs.iter().map(|run| match run.phase {
            Phase::Pausing(until) => until.min(run.deadline),
            _ => run.deadline,
        });
        let times = runs
            .chain(state.pending.iter().map(|pending| pending.deadline))
            .chain(state.events.iter().map(|event| event.until))
            .chain(state.rules.iter().filter_map(|rule| rule.due))
            .chain(self.pin_deadlines());
        let until = times
            .map(|time| time.saturating_sub(state.time))
            .chain(self.daily_waits());
        until.min()
    }

    /// Times until daily schedules, by the wall clock, which need not be in step.
    fn daily_waits(&self) -> impl Iterator<Item = Millis> + '_ {
        let second = self.local.map(|local| local.second_of_day());
        self.policy
            .rules
            .iter()
            .flat_map(|rule| &rule.when)
            .filter_map(move |trigger| match trigger.source {
                Source::Schedule(Schedule::Daily { second: at, .. }) => {
                    let left = (at + 86_400 - second?) % 86_400;
                    Some(Millis::from(if left == 0 { 86_400 } else { left }) * 1000)
                }
                _ => None,
            })
    }
}
