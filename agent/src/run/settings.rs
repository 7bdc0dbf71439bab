//! [`Settings`]: the configuration file of `ocelli run`.
//!
//! What the agent decides stands in the rule file; this file says what the device has and where
//! things are kept. Paths are relative to the folder of the file.

mod sections;
#[cfg(test)]
mod tests;

pub use sections::Sections;

use crate::link::mqtt;
use ocelli_boards::Bias;
use ocelli_camera::Polygon;
use ocelli_camera::change::ChangeSettings;
use ocelli_camera::quality::QualityLimits;
use ocelli_camera::zone::Zone;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest configuration file, in bytes.
pub const MAX_FILE_BYTES: u64 = 256 << 10;
/// Zone that every camera has: the whole picture.
pub const WHOLE: &str = "picture";

/// The file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Version of the format, 1.
    pub format: u32,
    /// The device.
    pub device: DeviceSettings,
    /// The rule file.
    pub rules: PathBuf,
    /// Folder of JSON schemas, `NAME.json`, that rules may ask for.
    pub schemas: Option<PathBuf>,
    /// Folder for everything kept: journal, snapshots, queues, state. `$STATE_DIRECTORY` when not
    /// said, else `/var/lib/ocelli`.
    pub state: Option<PathBuf>,
    /// The model.
    #[serde(default)]
    pub model: ModelSettings,
    /// The camera; without, questions end `unsure`.
    pub camera: Option<CameraSettings>,
    /// Wiring of the pins that the rule file names.
    #[serde(default)]
    pub pins: BTreeMap<String, PinSettings>,
    /// The serial line.
    pub serial: Option<SerialSettings>,
    /// The MQTT broker.
    pub mqtt: Option<mqtt::Settings>,
    /// The page.
    pub http: Option<crate::page::Settings>,
    /// The second opinion.
    pub remote: Option<crate::remote::Settings>,
    /// What may leave the device.
    #[serde(default)]
    pub privacy: PrivacySettings,
    /// Buttons that decide about actions.
    pub approval: Option<ApprovalSettings>,
    /// The journal.
    #[serde(default)]
    pub journal: JournalSection,
    /// Kept pictures.
    #[serde(default)]
    pub snapshots: SnapshotSection,
    /// The wall clock.
    #[serde(default)]
    pub clock: ClockSettings,
    /// The hardware watchdog; leave it out where systemd has it.
    pub watchdog: Option<WatchdogSettings>,
}

/// `[device]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceSettings {
    /// Name in topics and files: `a-z 0-9 _ -`.
    pub name: String,
    /// Name for people; the name when not said.
    pub title: Option<String>,
    /// `auto`, the name of a built-in board, or the path of a definition.
    #[serde(default = "auto")]
    pub board: String,
}

/// `[model]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelSettings {
    /// As `--model`; `default` when not said.
    pub name: Option<String>,
    /// Threads; for each phase as measured on this machine when not said.
    pub threads: Option<NonZeroUsize>,
    /// From here on there are fewer threads, in °C; where the board counts as hot when not said.
    pub hot_c: Option<f64>,
    /// Most image tiles of a picture; as the model asks when not said, 0 = global view only.
    pub max_tiles: Option<u16>,
    /// System message before every question.
    pub system: Option<String>,
}

/// `[camera]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CameraSettings {
    /// Where pictures come from, as `--source` of `ocelli watch`.
    pub source: String,
    /// Width and height asked for.
    #[serde(default = "usual_size")]
    pub size: (u32, u32),
    /// Frames a second that are looked at.
    #[serde(default = "usual_rate")]
    pub rate: f64,
    /// Degrees clockwise: 0, 90, 180 or 270.
    #[serde(default)]
    pub rotate: u16,
    /// Left and right change places.
    #[serde(default)]
    pub mirror: bool,
    /// Controls of the camera.
    #[serde(default)]
    pub controls: BTreeMap<String, String>,
    /// Areas nobody may see.
    #[serde(default)]
    pub masks: Vec<Polygon>,
    /// Areas with names.
    #[serde(default)]
    pub zones: Vec<Zone>,
    /// Change detection.
    #[serde(default)]
    pub change: ChangeSettings,
    /// What a good picture is.
    #[serde(default)]
    pub quality: QualityLimits,
    /// Pictures count as good whatever they look like.
    #[serde(default)]
    pub any_quality: bool,
}

/// `[pins.NAME]`
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PinSettings {
    /// Active means low voltage.
    pub active_low: bool,
    /// Resistor of an input: `as-is`, `pull-up`, `pull-down`, `none`.
    pub bias: BiasName,
    /// A level of an input counts when it has lasted this long; at most 10 000.
    pub debounce_ms: u16,
    /// Takes the line even if the board keeps it for something else.
    pub insist: bool,
}

/// Names of resistors.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BiasName {
    /// As the firmware set it.
    #[default]
    AsIs,
    /// To the supply.
    PullUp,
    /// To ground.
    PullDown,
    /// None.
    None,
}

impl From<BiasName> for Bias {
    fn from(name: BiasName) -> Bias {
        match name {
            BiasName::AsIs => Bias::AsIs,
            BiasName::PullUp => Bias::PullUp,
            BiasName::PullDown => Bias::PullDown,
            BiasName::None => Bias::Disabled,
        }
    }
}

/// `[serial]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SerialSettings {
    /// The device, best by a name under `/dev/serial/by-id`.
    pub device: PathBuf,
    /// Bits a second.
    #[serde(default = "usual_baud")]
    pub baud: u32,
    /// What is spoken.
    #[serde(default)]
    pub speaks: Speech,
}

/// Languages of a serial line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Speech {
    /// Packets of `ocelli-wire`.
    #[default]
    Packets,
    /// Lines of text.
    Lines,
}

/// `[privacy]`
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PrivacySettings {
    /// Pictures may be sent to the model of `[remote]`.
    pub remote_images: bool,
    /// Snapshots may be published on the broker.
    pub publish_snapshots: bool,
    /// Every picture that was asked about is kept, so that answers can be asked for again.
    pub keep_evidence: bool,
}

/// `[approval]`: names of input pins of the rule file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovalSettings {
    /// Allows the oldest action that waits.
    pub yes: String,
    /// Denies it.
    pub no: Option<String>,
}

/// `[journal]`
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JournalSection {
    /// Records without action are on the disk after this time; 0 = every record at once. What acts
    /// is always on the disk before it acts.
    pub sync_ms: u32,
    /// Most megabytes.
    pub keep_mb: u32,
    /// Days records are kept.
    pub keep_days: u32,
}

impl Default for JournalSection {
    fn default() -> JournalSection {
        JournalSection {
            sync_ms: 1000,
            keep_mb: 256,
            keep_days: 90,
        }
    }
}

/// `[snapshots]`
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SnapshotSection {
    /// Most pictures.
    pub keep: u32,
    /// Days they are kept.
    pub keep_days: u32,
    /// Most megabytes of all.
    pub keep_mb: u32,
    /// JPEG quality, 1 to 100.
    pub quality: u8,
}

impl Default for SnapshotSection {
    fn default() -> SnapshotSection {
        SnapshotSection {
            keep: 10_000,
            keep_days: 30,
            keep_mb: 1024,
            quality: 90,
        }
    }
}

/// `[clock]`
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClockSettings {
    /// Taken as right without a word of the system, as with a clock that has a battery.
    pub trusted: bool,
}

/// `[watchdog]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatchdogSettings {
    /// The device, e.g. `/dev/watchdog0`.
    pub device: String,
}

fn auto() -> String {
    "auto".to_owned()
}

fn usual_size() -> (u32, u32) {
    (640, 480)
}

fn usual_rate() -> f64 {
    5.0
}

fn usual_baud() -> u32 {
    115_200
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// It cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system reported.
        source: std::io::Error,
    },
    /// It is longer than any may be.
    #[error("{}: {bytes} bytes, the limit is {MAX_FILE_BYTES}; keep only settings in it", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// It is not TOML, or has a key or value it may not have.
    #[error("{}: {source}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// A value out of its range.
    #[error("{}: `{field} = {value}`: {rule}", path.display())]
    Range {
        /// The file.
        path: PathBuf,
        /// Name of the setting.
        field: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        rule: &'static str,
    },
}

impl Settings {
    /// Reads and checks a file.
    ///
    /// # Errors
    ///
    /// [`SettingsError`] naming the file, the setting, its value and what it may be.
    pub fn read(path: &Path) -> Result<(Settings, String), SettingsError> {
        let failed = |source| SettingsError::Read {
            path: path.to_path_buf(),
            source,
        };
        let bytes = std::fs::metadata(path).map_err(failed)?.len();
        if bytes > MAX_FILE_BYTES {
            return Err(SettingsError::TooLong {
                path: path.to_path_buf(),
                bytes,
            });
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        let settings = Settings::parse(&text, path)?;
        Ok((settings, text))
    }

    /// Checks the text of a file; `path` is for messages and relative paths.
    ///
    /// # Errors
    ///
    /// As [`Settings::read`].
    pub fn parse(text: &str, path: &Path) -> Result<Settings, SettingsError> {
        let mut settings: Settings =
            toml::from_str(text).map_err(|source| SettingsError::Syntax {
                path: path.to_path_buf(),
                source: Box::new(source),
            })?;
        if let Some((field, value, rule)) = settings.out_of_range() {
            return Err(SettingsError::Range {
                path: path.to_path_buf(),
                field,
                value,
                rule,
            });
        }
        let folder = path.parent().unwrap_or(Path::new("."));
        settings.rules = folder.join(&settings.rules);
        for path in [&mut settings.schemas, &mut settings.state] {
            *path = path.take().map(|path| folder.join(path));
        }
        Ok(settings)
    }

    /// The first setting out of its range: name, value, rule.
    fn out_of_range(&self) -> Option<(&'static str, String, &'static str)> {
        let name = &self.device.name;
        let is_name = (1..=32).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
        let camera = self.camera.as_ref();
        let checks: [(bool, &'static str, String, &'static str); 11] = [
            (
                self.format == 1,
                "format",
                self.format.to_string(),
                "this program reads format 1",
            ),
            (
                is_name,
                "device.name",
                format!("{name:?}"),
                "1 to 32 of a-z 0-9 _ -",
            ),
            (
                self.model.hot_c.is_none_or(|c| (30.0..=120.0).contains(&c)),
                "model.hot_c",
                self.model.hot_c.map_or_else(String::new, |c| c.to_string()),
                "30 to 120 °C",
            ),
            (
                camera.is_none_or(|camera| (0.1..=60.0).contains(&camera.rate)),
                "camera.rate",
                camera.map_or_else(String::new, |camera| camera.rate.to_string()),
                "0.1 to 60 frames a second",
            ),
            (
                camera.is_none_or(|camera| [0, 90, 180, 270].contains(&camera.rotate)),
                "camera.rotate",
                camera.map_or_else(String::new, |camera| camera.rotate.to_string()),
                "0, 90, 180 or 270",
            ),
            (
                camera.is_none_or(|camera| {
                    let sides = [camera.size.0, camera.size.1];
                    sides.iter().all(|side| (16..=8192).contains(side))
                }),
                "camera.size",
                camera.map_or_else(String::new, |camera| format!("{:?}", camera.size)),
                "16 to 8192 pixels each",
            ),
            (
                camera.is_none_or(|camera| {
                    let is_whole = |zone: &Zone| zone.name.as_str() == WHOLE;
                    camera.zones.len() < 16 && !camera.zones.iter().any(is_whole)
                }),
                "camera.zones",
                camera.map_or_else(String::new, |camera| {
                    format!("{} zones", camera.zones.len())
                }),
                "at most 15, none called `picture`, which is the whole picture",
            ),
            (
                (1..=100).contains(&self.snapshots.quality),
                "snapshots.quality",
                self.snapshots.quality.to_string(),
                "1 to 100",
            ),
            (
                (1..=1_000_000).contains(&self.journal.keep_mb),
                "journal.keep_mb",
                self.journal.keep_mb.to_string(),
                "1 to 1000000 megabytes",
            ),
            (
                (1..=1_000_000).contains(&self.snapshots.keep_mb),
                "snapshots.keep_mb",
                self.snapshots.keep_mb.to_string(),
                "1 to 1000000 megabytes",
            ),
            (
                self.journal.sync_ms <= 60_000,
                "journal.sync_ms",
                self.journal.sync_ms.to_string(),
                "0 to 60000 milliseconds",
            ),
        ];
        checks
            .into_iter()
            .find(|(holds, ..)| !holds)
            .map(|(_, field, value, rule)| (field, value, rule))
    }

    /// Folder for everything kept.
    pub fn state_folder(&self) -> PathBuf {
        let given = || {
            let folders = std::env::var_os("STATE_DIRECTORY").filter(|value| !value.is_empty())?;
            // systemd joins several with colons; the first is ours.
            let text = folders.to_string_lossy().into_owned();
            text.split(':').next().map(PathBuf::from)
        };
        self.state
            .clone()
            .or_else(given)
            .unwrap_or_else(|| PathBuf::from("/var/lib/ocelli"))
    }

    /// Name for people.
    pub fn title(&self) -> &str {
        self.device.title.as_deref().unwrap_or(&self.device.name)
    }

    /// Names of the zones, the whole picture last.
    pub fn zone_names(&self) -> Vec<String> {
        let zones = self.camera.iter().flat_map(|camera| &camera.zones);
        zones
            .map(|zone| zone.name.to_string())
            .chain([WHOLE.to_owned()])
            .collect()
    }

    /// How the journal is kept.
    pub fn journal(&self) -> crate::journal::JournalSettings {
        use crate::journal::{JournalSettings, Sync};
        let sync_ms = self.journal.sync_ms;
        JournalSettings {
            sync: match sync_ms {
                0 => Sync::EveryRecord,
                ms => Sync::Within(Duration::from_millis(ms.into())),
            },
            keep_bytes: u64::from(self.journal.keep_mb) << 20,
            keep_days: self.journal.keep_days.into(),
            ..JournalSettings::default()
        }
    }

    /// How many pictures are kept.
    pub fn snapshots(&self) -> crate::journal::snapshots::SnapshotLimits {
        crate::journal::snapshots::SnapshotLimits {
            count: self.snapshots.keep as usize,
            days: self.snapshots.keep_days.into(),
            bytes: u64::from(self.snapshots.keep_mb) << 20,
        }
    }
}
