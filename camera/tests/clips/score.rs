//! Triggers against what really entered.

use super::clip::RATE;
use super::scene::{CELL, Visit};

/// After a visit, a trigger still counts as its own for this long, in seconds.
const AFTER: f32 = 2.0;

/// How a detector did.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Score {
    /// Seconds watched.
    pub(crate) seconds: f32,
    /// Triggers while nothing was there.
    pub(crate) false_triggers: u32,
    /// Visits.
    pub(crate) entries: u32,
    /// Visits that caused no trigger.
    pub(crate) missed: u32,
    /// From one cell of it being visible to the trigger, in seconds; one a visit that was seen.
    pub(crate) delays: Vec<f32>,
}

/// Follows one clip.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    active: bool,
    frames: u32,
    triggers: Vec<f32>,
}

impl Tally {
    pub(crate) fn step(&mut self, time: f32, active: bool) {
        if active && !self.active {
            self.triggers.push(time);
        }
        self.active = active;
        self.frames += 1;
    }

    pub(crate) fn score(&self, visits: &[Visit]) -> Score {
        let mut score = Score {
            seconds: self.frames as f32 / RATE,
            ..Score::default()
        };
        let belongs = |visit: &Visit, time: f32| time >= visit.start && time <= visit.end() + AFTER;
        for time in &self.triggers {
            score.false_triggers += u32::from(!visits.iter().any(|visit| belongs(visit, *time)));
        }
        for visit in visits {
            score.entries += 1;
            match self.triggers.iter().find(|time| belongs(visit, **time)) {
                Some(time) => score.delays.push((time - visible_from(visit)).max(0.0)),
                None => score.missed += 1,
            }
        }
        score
    }
}

/// When as much as a cell of it can be seen, in seconds.
fn visible_from(visit: &Visit) -> f32 {
    let cell = (CELL * CELL) as f32;
    let mut time = visit.start;
    while visit.visible(time) < cell && time < visit.end() {
        time += 0.02;
    }
    time
}

impl Score {
    pub(crate) fn add(&mut self, other: &Score) {
        self.seconds += other.seconds;
        self.false_triggers += other.false_triggers;
        self.entries += other.entries;
        self.missed += other.missed;
        self.delays.extend(&other.delays);
    }

    pub(crate) fn false_an_hour(&self) -> f32 {
        self.false_triggers as f32 * 3600.0 / self.seconds.max(1.0)
    }

    pub(crate) fn missed_percent(&self) -> f32 {
        self.missed as f32 * 100.0 / self.entries.max(1) as f32
    }

    /// Delay that `share` of the seen visits do not exceed, in seconds.
    pub(crate) fn delay(&self, share: f32) -> f32 {
        let mut delays = self.delays.clone();
        delays.sort_by(f32::total_cmp);
        let at = (delays.len() as f32 * share) as usize;
        delays
            .get(at.min(delays.len().saturating_sub(1)))
            .copied()
            .unwrap_or(0.0)
    }
}
