//! Time as the step sees it.
//!
//! The step owns no clock. Every call brings [`Now`]; all durations are measured on a clock of the
//! state that follows `Now::ms` but never goes back and never jumps further than
//! [`crate::limit::MAX_ADVANCE_MS`].

use serde::{Deserialize, Serialize};

/// Milliseconds.
pub type Millis = u64;

/// The moment of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Now {
    /// Milliseconds on a clock that should only go forward, e.g. `CLOCK_BOOTTIME`.
    pub ms: Millis,
    /// Wall clock at the place of the device; `None` while it is not known to be right. Time
    /// windows that allow are then closed and time windows that deny are open.
    pub local: Option<LocalTime>,
}

impl Now {
    /// A moment without wall clock.
    pub fn at(ms: Millis) -> Now {
        Now { ms, local: None }
    }
}

/// A wall clock reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalTime {
    /// Days since 1970-01-01, a Thursday.
    pub day: i32,
    /// Seconds since midnight; more than 86399 counts as 86399.
    pub second: u32,
}

impl LocalTime {
    /// Day of the week, 0 = Monday.
    pub fn weekday(self) -> u8 {
        // In 0..7, so the cast keeps the value.
        (i64::from(self.day) + 3).rem_euclid(7) as u8
    }

    /// Seconds since midnight, at most 86399.
    pub fn second_of_day(self) -> u32 {
        self.second.min(86_399)
    }
}
