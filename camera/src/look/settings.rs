//! How the policy is set.

use std::time::Duration;

use serde::Deserialize;

use crate::zone::ZoneName;

use super::schedule::{DayTime, Schedule};

/// Most triggers of a camera.
pub const MAX_TRIGGERS: usize = 32;
/// Longest name of a pin, and longest topic, in bytes.
const MAX_TEXT: usize = 256;
/// Longest time of any setting: a day, in milliseconds.
const MAX_MS: u32 = 86_400_000;

/// Which level of a pin fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Edge {
    /// It goes high.
    Rising,
    /// It goes low.
    Falling,
    /// Either, except for the first level heard of.
    Both,
}

impl Edge {
    pub(super) fn is(self, high: bool) -> bool {
        match self {
            Edge::Rising => high,
            Edge::Falling => !high,
            Edge::Both => true,
        }
    }
}

/// What makes a trigger fire.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum On {
    /// Something is in one of the zones.
    Change {
        /// The zones; none means the whole picture.
        #[serde(default)]
        zones: Vec<ZoneName>,
        /// For how long it must be there, in milliseconds.
        #[serde(default)]
        dwell_ms: u32,
    },
    /// Time passes.
    Every {
        /// How much, in milliseconds.
        ms: u32,
    },
    /// A time of day comes.
    Daily {
        /// Local time.
        at: DayTime,
    },
    /// A pin changes.
    Pin {
        /// Its name.
        pin: String,
        /// Which way.
        edge: Edge,
    },
    /// A message comes.
    Message {
        /// Its topic, exactly.
        topic: String,
    },
}

/// Times of a trigger in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TriggerTimes {
    /// Least time between two looks because of this trigger.
    pub cooldown_ms: u32,
    /// How long to wait for a steady and sharp picture; then the best one seen is taken.
    pub settle_ms: u32,
}

impl Default for TriggerTimes {
    fn default() -> TriggerTimes {
        TriggerTimes {
            cooldown_ms: 10_000,
            settle_ms: 1_000,
        }
    }
}

impl TriggerTimes {
    pub(super) fn cooldown(self) -> Duration {
        Duration::from_millis(u64::from(self.cooldown_ms))
    }

    pub(super) fn settle(self) -> Duration {
        Duration::from_millis(u64::from(self.settle_ms))
    }
}

/// A reason to look.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Trigger {
    /// Its name.
    pub name: ZoneName,
    /// What makes it fire.
    pub on: On,
    /// Cooldown and patience.
    #[serde(flatten)]
    pub times: TriggerTimes,
    /// The highest of those that fire together decides how long to wait for the picture.
    #[serde(default)]
    pub priority: u8,
    /// When it counts; always if there is none.
    #[serde(default)]
    pub schedule: Option<Schedule>,
    /// Look at bad pictures too.
    #[serde(default)]
    pub any_quality: bool,
}

/// How the policy is set.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LookSettings {
    /// Reasons to look.
    pub triggers: Vec<Trigger>,
    /// Local time less UTC, in minutes.
    pub utc_offset_minutes: i16,
    /// Triggers within this time after a look belong to it and cause no other, in milliseconds.
    pub merge_ms: u32,
    /// How often to look again while something goes on, in milliseconds; 0 for never.
    pub update_ms: u32,
    /// An event ends when nothing was going on for this long, in milliseconds.
    pub quiet_ms: u32,
}

impl Default for LookSettings {
    fn default() -> LookSettings {
        LookSettings {
            triggers: Vec::new(),
            utc_offset_minutes: 0,
            merge_ms: 3_000,
            update_ms: 15_000,
            quiet_ms: 10_000,
        }
    }
}

/// Why settings cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LookSettingsError {
    /// Too many triggers.
    #[error("{count} triggers, the limit is {MAX_TRIGGERS}; join some")]
    TooMany {
        /// Triggers given.
        count: usize,
    },
    /// Two triggers have the same name.
    #[error("trigger `{name}` is there twice; give each its own name")]
    Twice {
        /// The name.
        name: ZoneName,
    },
    /// A zone that does not exist.
    #[error("trigger `{trigger}`: there is no zone `{zone}`; the zones are: {known}")]
    NoZone {
        /// The trigger.
        trigger: ZoneName,
        /// The zone named.
        zone: ZoneName,
        /// The zones there are.
        known: String,
    },
    /// A time is out of range.
    #[error("{place}: {field} is {value}; the limits are {least} to {MAX_MS} milliseconds")]
    Time {
        /// `trigger NAME`, or `look`.
        place: String,
        /// The field.
        field: &'static str,
        /// What was given.
        value: u32,
        /// The least.
        least: u32,
    },
    /// A pin or topic without a name, or with one that is too long.
    #[error("trigger `{trigger}`: the {field} has {length} bytes; the limits are 1 to {MAX_TEXT}")]
    Text {
        /// The trigger.
        trigger: ZoneName,
        /// `pin` or `topic`.
        field: &'static str,
        /// Its length.
        length: usize,
    },
    /// No such time zone.
    #[error("utc_offset_minutes is {value}; the limits are -840 to 840")]
    Offset {
        /// What was given.
        value: i16,
    },
}

impl LookSettings {
    pub(super) fn merge(&self) -> Duration {
        Duration::from_millis(u64::from(self.merge_ms))
    }

    pub(super) fn update(&self) -> Duration {
        Duration::from_millis(u64::from(self.update_ms))
    }

    pub(super) fn quiet(&self) -> Duration {
        Duration::from_millis(u64::from(self.quiet_ms))
    }

    /// Checks everything; the places of each trigger's zones among `zones`.
    pub(super) fn check(&self, zones: &[&str]) -> Result<Vec<Vec<usize>>, LookSettingsError> {
        let count = self.triggers.len();
        if count > MAX_TRIGGERS {
            return Err(LookSettingsError::TooMany { count });
        }
        if !(-840..=840).contains(&self.utc_offset_minutes) {
            return Err(LookSettingsError::Offset {
                value: self.utc_offset_minutes,
            });
        }
        for (field, value, least) in [
            ("merge_ms", self.merge_ms, 0),
            ("update_ms", self.update_ms, 0),
            ("quiet_ms", self.quiet_ms, 1),
        ] {
            check_time("look", field, value, least)?;
        }
        for (index, trigger) in self.triggers.iter().enumerate() {
            if self.triggers[..index]
                .iter()
                .any(|earlier| earlier.name == trigger.name)
            {
                return Err(LookSettingsError::Twice {
                    name: trigger.name.clone(),
                });
            }
        }
        self.triggers
            .iter()
            .map(|trigger| trigger.check(zones))
            .collect()
    }
}

fn check_time(
    place: &str,
    field: &'static str,
    value: u32,
    least: u32,
) -> Result<(), LookSettingsError> {
    if (least..=MAX_MS).contains(&value) {
        return Ok(());
    }
    Err(LookSettingsError::Time {
        place: place.to_owned(),
        field,
        value,
        least,
    })
}

impl Trigger {
    fn check(&self, zones: &[&str]) -> Result<Vec<usize>, LookSettingsError> {
        let place = format!("trigger `{}`", self.name);
        check_time(&place, "cooldown_ms", self.times.cooldown_ms, 0)?;
        check_time(&place, "settle_ms", self.times.settle_ms, 0)?;
        match &self.on {
            On::Change {
                zones: named,
                dwell_ms,
            } => {
                check_time(&place, "dwell_ms", *dwell_ms, 0)?;
                return named
                    .iter()
                    .map(|zone| self.place_of(zone, zones))
                    .collect();
            }
            On::Every { ms } => check_time(&place, "ms", *ms, 100)?,
            On::Daily { .. } => {}
            On::Pin { pin, .. } => self.check_text("pin", pin)?,
            On::Message { topic } => self.check_text("topic", topic)?,
        }
        Ok(Vec::new())
    }

    fn place_of(&self, zone: &ZoneName, zones: &[&str]) -> Result<usize, LookSettingsError> {
        let place = zones.iter().position(|known| *known == zone.as_str());
        place.ok_or_else(|| LookSettingsError::NoZone {
            trigger: self.name.clone(),
            zone: zone.clone(),
            known: if zones.is_empty() {
                "none".to_owned()
            } else {
                zones.join(", ")
            },
        })
    }

    fn check_text(&self, field: &'static str, text: &str) -> Result<(), LookSettingsError> {
        if (1..=MAX_TEXT).contains(&text.len()) {
            return Ok(());
        }
        Err(LookSettingsError::Text {
            trigger: self.name.clone(),
            field,
            length: text.len(),
        })
    }
}
