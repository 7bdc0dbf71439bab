//! When: days of the week, windows of the day, schedules and rates.

use crate::time::{LocalTime, Millis};
use serde::{Deserialize, Serialize};

/// A set of days of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Days(u8);

impl Days {
    /// Every day.
    pub const ALL: Days = Days(0b111_1111);
    /// No day.
    pub const NONE: Days = Days(0);
    /// Names in files, Monday first.
    pub const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

    /// These days and one more, 0 = Monday; a number above 6 adds nothing.
    pub fn with(self, weekday: u8) -> Days {
        if weekday < 7 {
            Days(self.0 | 1 << weekday)
        } else {
            self
        }
    }

    /// Whether the day is in the set.
    pub fn contains(self, weekday: u8) -> bool {
        weekday < 7 && self.0 & (1 << weekday) != 0
    }

    /// Whether no day is in the set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// A part of the day on some days. It contains its begin and not its end; if the end is before the
/// begin it reaches into the next day, which belongs to the day it began on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Begin, seconds since midnight.
    pub from: u32,
    /// End, seconds since midnight, not equal to the begin.
    pub to: u32,
    /// Days on which it begins.
    pub days: Days,
}

impl Window {
    /// Whether the wall clock is inside.
    pub fn contains(&self, local: LocalTime) -> bool {
        let second = local.second_of_day();
        let today = local.weekday();
        let yesterday = (today + 6) % 7;
        if self.from < self.to {
            self.days.contains(today) && (self.from..self.to).contains(&second)
        } else {
            (self.days.contains(today) && second >= self.from)
                || (self.days.contains(yesterday) && second < self.to)
        }
    }
}

/// When a rule starts by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Schedule {
    /// Again and again, first one period after start.
    Every(Millis),
    /// Once a day.
    Daily {
        /// Seconds since midnight.
        second: u32,
        /// Days on which it fires.
        days: Days,
    },
}

/// At most so many in any stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// How many, 1 to [`crate::limit::MAX_RATE`].
    pub count: u8,
    /// Length of the stretch. One exactly this long ago no longer counts.
    pub per: Millis,
}
