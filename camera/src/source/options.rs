//! What a caller wants of a source.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::frame::{Color, MAX_SIDE, Matrix, Range};
use crate::pixel_format::PixelFormat;
use crate::view::View;

/// Fastest rate that can be asked for, in frames a second.
const MAX_RATE: f64 = 1_000.0;

/// Wishes; a source takes those that concern it.
#[derive(Clone, Debug)]
pub struct SourceOptions {
    /// Width and height wanted, in pixels. Cameras give the cheapest size that is enough.
    pub size: Option<(u32, u32)>,
    /// Frames a second: the least wanted of a camera, the pace of a snapshot URL or a folder.
    pub rate: Option<f64>,
    /// Pixel format: forces a camera's choice, tells what a pipe writes.
    pub pixel: Option<PixelFormat>,
    /// Bytes a row of what a pipe writes; none = the least that holds a row.
    pub stride: Option<u32>,
    /// Colour matrix, in place of what the source says.
    pub matrix: Option<Matrix>,
    /// Range of YUV values, in place of what the source says.
    pub range: Option<Range>,
    /// Controls of the camera by name in snake case, for example `exposure_time_absolute`.
    pub controls: BTreeMap<String, String>,
    /// Orientation and privacy mask put on every frame.
    pub view: Arc<View>,
    /// Replay: 1 = as recorded, 2 = twice as fast; 0 = as fast as it can be read.
    pub speed: f64,
    /// Replay: begin again at the end.
    pub repeat: bool,
    /// Frames that waited longer than this in a queue are left out.
    pub max_age: Duration,
    /// Silence after which a stream counts as stuck.
    pub stall: Duration,
    /// Choice of a camera by the name it has, in place of a path.
    pub card: Option<String>,
    /// Choice of a camera by where it is plugged in, in place of a path.
    pub bus: Option<String>,
    /// Number of the sensor on boards with several CSI sockets.
    pub sensor: u32,
}

impl Default for SourceOptions {
    fn default() -> Self {
        SourceOptions {
            size: None,
            rate: None,
            pixel: None,
            stride: None,
            matrix: None,
            range: None,
            controls: BTreeMap::new(),
            view: Arc::default(),
            speed: 1.0,
            repeat: false,
            max_age: Duration::from_millis(500),
            stall: Duration::from_secs(5),
            card: None,
            bus: None,
            sensor: 0,
        }
    }
}

/// An option that cannot be met.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("option {key}={value}: {limit}")]
pub struct OptionError {
    /// The key.
    pub key: String,
    /// The value as given.
    pub value: String,
    /// What it should be.
    pub limit: String,
}

impl SourceOptions {
    /// These options, overridden by `key=value&key=value` (percent-encoded).
    ///
    /// # Errors
    ///
    /// The first option with an unknown key or an impossible value.
    pub fn with_query(&self, query: &str) -> Result<SourceOptions, OptionError> {
        let mut options = self.clone();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = percent_decode_str(value).decode_utf8_lossy();
            options.set(key, &decoded)?;
        }
        Ok(options)
    }

    /// Sets one option by name.
    ///
    /// Keys: `size` (`640x480`), `width`, `height`, `rate`, `pixel` (four-character code),
    /// `stride`, `matrix` (`bt601`, `bt709`, `bt2020`), `range` (`limited`, `full`), `speed`,
    /// `repeat`, `max_age_ms`, `stall_ms`, `card`, `bus`, `sensor`, `turn` (0, 90, 180, 270),
    /// `mirror`, `flip`, and `control.NAME`.
    ///
    /// # Errors
    ///
    /// Key unknown or value out of its limits.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), OptionError> {
        let given = Given { key, value };
        if let Some(name) = key.strip_prefix("control.") {
            self.controls.insert(name.to_owned(), value.to_owned());
            return Ok(());
        }
        match key {
            "size" => self.size = Some(given.size()?),
            "width" => self.size = Some((given.side()?, self.size.map_or(0, |size| size.1))),
            "height" => self.size = Some((self.size.map_or(0, |size| size.0), given.side()?)),
            "rate" => self.rate = Some(given.number(f64::MIN_POSITIVE, MAX_RATE)?),
            "pixel" => self.pixel = Some(given.pixel()?),
            "stride" => self.stride = Some(given.number(1, MAX_SIDE * 8)?),
            "matrix" => self.matrix = Some(given.one_of(MATRICES)?),
            "range" => self.range = Some(given.one_of(RANGES)?),
            "speed" => self.speed = given.number(0.0, 1_000.0)?,
            "repeat" => self.repeat = given.one_of(SWITCH)?,
            "max_age_ms" => self.max_age = given.milliseconds()?,
            "stall_ms" => self.stall = given.milliseconds()?,
            "card" => self.card = Some(value.to_owned()),
            "bus" => self.bus = Some(value.to_owned()),
            "sensor" => self.sensor = given.number(0, 15)?,
            "turn" => {
                let turns = given.one_of(TURNS)?;
                Arc::make_mut(&mut self.view).orientation.quarter_turns = turns;
            }
            "mirror" => {
                let mirror = given.one_of(SWITCH)?;
                Arc::make_mut(&mut self.view).orientation.mirror = mirror;
            }
            "flip" => {
                let flip = given.one_of(SWITCH)?;
                Arc::make_mut(&mut self.view).orientation.flip = flip;
            }
            _ => return Err(given.error("no such option".into())),
        }
        Ok(())
    }

    /// `found` with what the caller knows better.
    pub fn color(&self, found: Color) -> Color {
        Color {
            matrix: self.matrix.unwrap_or(found.matrix),
            range: self.range.unwrap_or(found.range),
        }
    }
}

static MATRICES: &[(&str, Matrix)] = &[
    ("bt601", Matrix::Bt601),
    ("bt709", Matrix::Bt709),
    ("bt2020", Matrix::Bt2020),
];
static RANGES: &[(&str, Range)] = &[("limited", Range::Limited), ("full", Range::Full)];
static SWITCH: &[(&str, bool)] = &[
    ("true", true),
    ("false", false),
    ("1", true),
    ("0", false),
    ("", true),
];
static TURNS: &[(&str, u8)] = &[("0", 0), ("90", 1), ("180", 2), ("270", 3)];

/// One option as written.
struct Given<'a> {
    key: &'a str,
    value: &'a str,
}

impl Given<'_> {
    fn error(&self, limit: String) -> OptionError {
        OptionError {
            key: self.key.to_owned(),
            value: self.value.to_owned(),
            limit,
        }
    }

    fn number<T>(&self, least: T, most: T) -> Result<T, OptionError>
    where
        T: FromStr + PartialOrd + std::fmt::Display + Copy,
    {
        let number: Option<T> = self.value.parse().ok();
        let number = number.filter(|number| *number >= least && *number <= most);
        number.ok_or_else(|| self.error(format!("it is a number from {least} to {most}")))
    }

    fn side(&self) -> Result<u32, OptionError> {
        self.number(1, MAX_SIDE)
    }

    fn size(&self) -> Result<(u32, u32), OptionError> {
        let side = |value| {
            Given {
                key: self.key,
                value,
            }
            .side()
            .ok()
        };
        let sides = self.value.split_once('x');
        let size = sides.and_then(|(width, height)| side(width).zip(side(height)));
        size.ok_or_else(|| {
            self.error(format!(
                "it is WIDTHxHEIGHT, each from 1 to {MAX_SIDE}, as 640x480"
            ))
        })
    }

    fn milliseconds(&self) -> Result<Duration, OptionError> {
        Ok(Duration::from_millis(self.number(1, 3_600_000)?))
    }

    fn pixel(&self) -> Result<PixelFormat, OptionError> {
        let mut code = [b' '; 4];
        let text = self.value.as_bytes();
        let fits = text.len() <= 4;
        if fits {
            code[..text.len()].copy_from_slice(text);
        }
        let known = PixelFormat::from_fourcc(code).filter(|_| fits);
        known.ok_or_else(|| {
            let all: Vec<String> = PixelFormat::all()
                .map(|format| format.to_string())
                .collect();
            self.error(format!("it is one of {}", all.join(" ")))
        })
    }

    fn one_of<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T, OptionError> {
        let found = choices.iter().find(|(name, _)| *name == self.value);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let names = choices.iter().map(|(name, _)| *name);
            let names: Vec<&str> = names.filter(|name| !name.is_empty()).collect();
            self.error(format!("it is one of {}", names.join(" ")))
        })
    }
}
