//! Days and hours.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

const DAY: u16 = 24 * 60;
const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Text that is no time or no days.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// Not a time of day.
    #[error("`{0}` is no time of day; write hours and minutes as in 07:30, up to 24:00")]
    Time(String),
    /// Not a list of days.
    #[error(
        "`{0}` is no list of days; write names from mon tue wed thu fri sat sun, or ranges as in mon-fri"
    )]
    Days(String),
}

/// A time of day to the minute, 00:00 to 24:00.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct DayTime(u16);

impl DayTime {
    /// Minutes since midnight, 0 to 1440.
    pub fn minutes(self) -> u16 {
        self.0
    }
}

impl FromStr for DayTime {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<DayTime, ScheduleError> {
        let number = |part: &str| part.parse::<u16>().ok().filter(|_| part.len() == 2);
        let parsed = text
            .split_once(':')
            .and_then(|(hours, minutes)| Some((number(hours)?, number(minutes)?)));
        match parsed {
            Some((hours, minutes)) if minutes < 60 && hours * 60 + minutes <= DAY => {
                Ok(DayTime(hours * 60 + minutes))
            }
            _ => Err(ScheduleError::Time(text.chars().take(40).collect())),
        }
    }
}

impl TryFrom<String> for DayTime {
    type Error = ScheduleError;

    fn try_from(text: String) -> Result<DayTime, ScheduleError> {
        text.parse()
    }
}

impl fmt::Display for DayTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

/// Days of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Days(u8);

impl Days {
    /// Every day.
    pub const ALL: Days = Days(0x7f);

    /// Whether a day is among them; 0 is Monday.
    pub fn has(self, day: u8) -> bool {
        self.0 >> (day % 7) & 1 == 1
    }
}

impl Default for Days {
    fn default() -> Days {
        Days::ALL
    }
}

impl FromStr for Days {
    type Err = ScheduleError;

    /// Reads `mon-fri sun`.
    fn from_str(text: &str) -> Result<Days, ScheduleError> {
        let refused = || ScheduleError::Days(text.chars().take(40).collect());
        let day = |name: &str| {
            NAMES
                .iter()
                .position(|known| *known == name)
                .ok_or_else(refused)
        };
        let mut days = 0;
        for part in text.split_whitespace() {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (day(first)?, day(last)?);
            // A range may go over Sunday.
            for step in 0..=(last + 7 - first) % 7 {
                days |= 1 << ((first + step) % 7);
            }
        }
        if days == 0 {
            Err(refused())
        } else {
            Ok(Days(days))
        }
    }
}

impl TryFrom<String> for Days {
    type Error = ScheduleError;

    fn try_from(text: String) -> Result<Days, ScheduleError> {
        text.parse()
    }
}

/// When a trigger counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// On which days; of a span over midnight, the day it begins.
    #[serde(default)]
    pub days: Days,
    /// From this time of day on.
    pub from: DayTime,
    /// Until this; earlier than or equal to `from` means the next day.
    pub to: DayTime,
}

impl Schedule {
    /// Whether it holds at a local time, in seconds since the start of 1970 by the local clock.
    pub fn holds(&self, local: i64) -> bool {
        let day = local.div_euclid(86_400);
        let minute = (local.rem_euclid(86_400) / 60) as u16;
        // The first of January 1970 was a Thursday.
        let weekday = |day: i64| (day + 3).rem_euclid(7) as u8;
        let (from, to) = (self.from.minutes(), self.to.minutes());
        if from < to {
            return self.days.has(weekday(day)) && (from..to).contains(&minute);
        }
        minute >= from && self.days.has(weekday(day))
            || minute < to && self.days.has(weekday(day - 1))
    }
}
