//! Named areas of the picture in which change matters.

#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use crate::polygon::{Corners, Polygon, PolygonError};

/// Longest name of a zone, in bytes.
pub const MAX_NAME: usize = 32;
/// Most zones of a camera.
pub const MAX_ZONES: usize = 32;

/// Why a zone cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ZoneError {
    /// The name breaks the rules.
    #[error(
        "zone name `{name}`: 1 to {MAX_NAME} of the characters a-z, 0-9, `-` and `_`, a letter first"
    )]
    Name {
        /// The name given, cut to 40 characters.
        name: String,
    },
    /// Two zones have the same name.
    #[error("zone `{name}` is there twice; give each zone its own name")]
    Twice {
        /// The name.
        name: ZoneName,
    },
    /// Too many zones.
    #[error("{count} zones, the limit is {MAX_ZONES}; join some")]
    TooMany {
        /// Zones given.
        count: usize,
    },
    /// The area cannot be used.
    #[error("zone `{name}`: {problem}")]
    Area {
        /// The zone.
        name: ZoneName,
        /// What is wrong with its area.
        problem: PolygonError,
    },
    /// The sensitivity is out of range.
    #[error(
        "sensitivity {given}: a whole number from 1 (only what is plain) to 100 (the faintest), {} is usual",
        Sensitivity::USUAL
    )]
    Sensitivity {
        /// What was given.
        given: String,
    },
    /// Text without a name.
    #[error(
        "zone `{text}`: write name:x,y x,y for a rectangle, name:x,y x,y x,y for a polygon, name@70:… for a sensitivity of 70"
    )]
    Form {
        /// The text given, cut to 40 characters.
        text: String,
    },
}

/// Name of a zone: 1 to [`MAX_NAME`] of `a-z 0-9 - _`, a letter first, so that it can be part of a topic and a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct ZoneName(String);

impl ZoneName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ZoneName {
    type Error = ZoneError;

    fn try_from(name: String) -> Result<ZoneName, ZoneError> {
        let allowed =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        let good = name.len() <= MAX_NAME
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.bytes().all(allowed);
        if good {
            Ok(ZoneName(name))
        } else {
            Err(ZoneError::Name { name: cut(&name) })
        }
    }
}

impl FromStr for ZoneName {
    type Err = ZoneError;

    fn from_str(name: &str) -> Result<ZoneName, ZoneError> {
        ZoneName::try_from(name.to_owned())
    }
}

impl fmt::Display for ZoneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How faint a change may be to count, 1 to 100.
///
/// Fifty steps up need half the contrast; see the curve in `docs/camera.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "i64")]
pub struct Sensitivity(u8);

impl Sensitivity {
    /// What a camera starts with.
    pub const USUAL: Sensitivity = Sensitivity(50);

    /// The number, 1 to 100.
    pub fn get(self) -> u8 {
        self.0
    }
}

impl Default for Sensitivity {
    fn default() -> Sensitivity {
        Sensitivity::USUAL
    }
}

impl fmt::Display for Sensitivity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<i64> for Sensitivity {
    type Error = ZoneError;

    fn try_from(given: i64) -> Result<Sensitivity, ZoneError> {
        match u8::try_from(given) {
            Ok(number @ 1..=100) => Ok(Sensitivity(number)),
            _ => Err(ZoneError::Sensitivity {
                given: given.to_string(),
            }),
        }
    }
}

impl FromStr for Sensitivity {
    type Err = ZoneError;

    fn from_str(text: &str) -> Result<Sensitivity, ZoneError> {
        match text.parse::<i64>() {
            Ok(given) => Sensitivity::try_from(given),
            Err(_) => Err(ZoneError::Sensitivity { given: cut(text) }),
        }
    }
}

/// A named area with its own sensitivity.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Fields")]
pub struct Zone {
    /// Its name.
    pub name: ZoneName,
    /// Where it is.
    pub area: Polygon,
    /// How faint a change in it may be.
    pub sensitivity: Sensitivity,
}

/// A zone as settings write it; the area is kept as it stands so that its error can name the zone.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    name: ZoneName,
    area: Corners,
    #[serde(default)]
    sensitivity: Sensitivity,
}

impl TryFrom<Fields> for Zone {
    type Error = ZoneError;

    fn try_from(fields: Fields) -> Result<Zone, ZoneError> {
        Zone::new(
            fields.name,
            Polygon::try_from(fields.area),
            fields.sensitivity,
        )
    }
}

impl Zone {
    fn new(
        name: ZoneName,
        area: Result<Polygon, PolygonError>,
        sensitivity: Sensitivity,
    ) -> Result<Zone, ZoneError> {
        match area {
            Ok(area) => Ok(Zone {
                name,
                area,
                sensitivity,
            }),
            Err(problem) => Err(ZoneError::Area { name, problem }),
        }
    }
}

impl FromStr for Zone {
    type Err = ZoneError;

    /// Reads `name:x,y x,y …` or `name@sensitivity:x,y x,y …`; two corners are a rectangle.
    fn from_str(text: &str) -> Result<Zone, ZoneError> {
        let (head, area) = text
            .split_once(':')
            .ok_or_else(|| ZoneError::Form { text: cut(text) })?;
        let (name, sensitivity) = match head.split_once('@') {
            Some((name, sensitivity)) => (name, sensitivity.parse()?),
            None => (head, Sensitivity::USUAL),
        };
        let name: ZoneName = name.parse()?;
        Zone::new(name, area.parse(), sensitivity)
    }
}

/// Checks what concerns zones together: their number, and that names differ.
pub fn check_zones(zones: &[Zone]) -> Result<(), ZoneError> {
    if zones.len() > MAX_ZONES {
        return Err(ZoneError::TooMany { count: zones.len() });
    }
    for (index, zone) in zones.iter().enumerate() {
        if zones[..index]
            .iter()
            .any(|earlier| earlier.name == zone.name)
        {
            return Err(ZoneError::Twice {
                name: zone.name.clone(),
            });
        }
    }
    Ok(())
}

fn cut(text: &str) -> String {
    text.chars().take(40).collect()
}
