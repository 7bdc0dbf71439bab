//! Settings of the MQTT link: the `[mqtt]` table of the configuration.

#[cfg(test)]
mod tests;

use super::topics::{Names, TopicError};
use crate::link::queue::Limits;
use crate::secret::MAX_SECRET_BYTES;
pub use crate::secret::Secret;
use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;

/// The `[mqtt]` table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Host name or address of the broker.
    pub host: String,
    /// TCP port; 1883, or 8883 with TLS, when not said.
    pub port: Option<u16>,
    /// Protocol version.
    #[serde(default)]
    pub version: Version,
    /// TLS; plain TCP when absent.
    pub tls: Option<Tls>,
    /// User name.
    pub user: Option<String>,
    /// Password; `password_file` keeps it out of this file.
    pub password: Option<Secret>,
    /// File with the password, read at every connect; a line end after it is ignored.
    pub password_file: Option<PathBuf>,
    /// Client identifier; `ocelli-<device>` when not said. Two clients with one identifier throw
    /// each other out.
    pub client_id: Option<String>,
    /// First levels of every topic; `ocelli/<device>` when not said.
    pub base_topic: Option<String>,
    /// Seconds of silence after which each side asks the other.
    #[serde(default = "default_keep_alive")]
    pub keep_alive_s: u16,
    /// Home Assistant's discovery prefix; empty for no discovery.
    #[serde(default = "default_discovery")]
    pub discovery_prefix: String,
    /// Longest time a connection may take to stand, in seconds.
    #[serde(default = "default_connect_timeout")]
    pub connect_timeout_s: u16,
    /// The event queue.
    #[serde(default)]
    pub queue: QueueSettings,
}

/// Protocol versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Version {
    /// MQTT 5.0.
    #[default]
    #[serde(rename = "5")]
    V5,
    /// MQTT 3.1.1.
    #[serde(rename = "3.1.1")]
    V311,
}

/// The `[mqtt.tls]` table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM file of the certificate authorities to trust; the system's when not said.
    pub ca: Option<PathBuf>,
    /// PEM file of the certificate (chain) that this device shows.
    pub cert: Option<PathBuf>,
    /// PEM file of that certificate's private key.
    pub key: Option<PathBuf>,
    /// Name the broker's certificate must bear; the host when not said.
    pub server_name: Option<String>,
}

/// The `[mqtt.queue]` table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QueueSettings {
    /// Most events that wait.
    pub events: usize,
    /// Most bytes that wait.
    pub bytes: u64,
}

impl Default for QueueSettings {
    fn default() -> QueueSettings {
        QueueSettings {
            events: 10_000,
            bytes: 16 << 20,
        }
    }
}

fn default_keep_alive() -> u16 {
    30
}

fn default_connect_timeout() -> u16 {
    10
}

fn default_discovery() -> String {
    "homeassistant".to_owned()
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// A number or text outside what it may be.
    #[error("`mqtt.{field} = {value}` is out of range: {rule}")]
    Range {
        /// Name of the setting.
        field: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        rule: &'static str,
    },
    /// Two settings that exclude or need each other.
    #[error("`mqtt.{first}` and `mqtt.{second}`: {rule}")]
    Pair {
        /// One setting.
        first: &'static str,
        /// The other.
        second: &'static str,
        /// What holds between them.
        rule: &'static str,
    },
    /// A topic that cannot be used.
    #[error("in the `[mqtt]` settings: {0}")]
    Topic(#[from] TopicError),
    /// The password file cannot be read.
    #[error("{}: the password cannot be read: {source}", path.display())]
    PasswordFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Settings {
    /// Plain MQTT 5 to `host`, everything else as when not said.
    pub fn to_host(host: &str) -> Settings {
        Settings {
            host: host.to_owned(),
            port: None,
            version: Version::V5,
            tls: None,
            user: None,
            password: None,
            password_file: None,
            client_id: None,
            base_topic: None,
            keep_alive_s: default_keep_alive(),
            discovery_prefix: default_discovery(),
            connect_timeout_s: default_connect_timeout(),
            queue: QueueSettings::default(),
        }
    }

    /// Checks what types cannot, and makes the topics of `device`.
    ///
    /// # Errors
    ///
    /// [`SettingsError`] naming the setting, its value and what it may be.
    pub fn names(&self, device: &str) -> Result<Names, SettingsError> {
        self.check()?;
        let base = self
            .base_topic
            .clone()
            .unwrap_or_else(|| format!("ocelli/{device}"));
        let discovery = Some(self.discovery_prefix.as_str()).filter(|prefix| !prefix.is_empty());
        Ok(Names::new(&base, discovery, device)?)
    }

    fn check(&self) -> Result<(), SettingsError> {
        let range = |holds: bool, field, value: String, rule| {
            if holds {
                Ok(())
            } else {
                Err(SettingsError::Range { field, value, rule })
            }
        };
        let pair = |holds: bool, first, second, rule| {
            if holds {
                Ok(())
            } else {
                Err(SettingsError::Pair {
                    first,
                    second,
                    rule,
                })
            }
        };
        let text = |text: &Option<String>, most: usize| {
            text.as_ref()
                .is_none_or(|text| (1..=most).contains(&text.len()) && !text.contains('\0'))
        };
        range(
            (1..=255).contains(&self.host.len()),
            "host",
            format!("{:?}", self.host),
            "1 to 255 bytes",
        )?;
        range(self.port != Some(0), "port", "0".into(), "1 to 65535")?;
        range(
            (5..=3600).contains(&self.keep_alive_s),
            "keep_alive_s",
            self.keep_alive_s.to_string(),
            "5 to 3600 seconds",
        )?;
        range(
            (1..=120).contains(&self.connect_timeout_s),
            "connect_timeout_s",
            self.connect_timeout_s.to_string(),
            "1 to 120 seconds",
        )?;
        range(
            text(&self.client_id, 128),
            "client_id",
            format!("{:?}", self.client_id),
            "1 to 128 bytes without NUL",
        )?;
        range(
            text(&self.user, MAX_SECRET_BYTES),
            "user",
            format!("{:?}", self.user),
            "1 to 4096 bytes without NUL",
        )?;
        range(
            (1..=1_000_000).contains(&self.queue.events),
            "queue.events",
            self.queue.events.to_string(),
            "1 to 1000000 events",
        )?;
        range(
            (64 << 10..=1 << 30).contains(&self.queue.bytes),
            "queue.bytes",
            self.queue.bytes.to_string(),
            "65536 to 1073741824 bytes",
        )?;
        pair(
            self.password.is_none() || self.password_file.is_none(),
            "password",
            "password_file",
            "give one of them",
        )?;
        pair(
            self.user.is_some() || (self.password.is_none() && self.password_file.is_none()),
            "user",
            "password",
            "a password needs a user",
        )?;
        let tls = self.tls.as_ref();
        pair(
            tls.is_none_or(|tls| tls.cert.is_some() == tls.key.is_some()),
            "tls.cert",
            "tls.key",
            "give both or none",
        )
    }

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.port
            .unwrap_or(if self.tls.is_some() { 8883 } else { 1883 })
    }

    /// The client identifier of `device`.
    pub fn client_id(&self, device: &str) -> String {
        self.client_id
            .clone()
            .unwrap_or_else(|| format!("ocelli-{device}"))
    }

    /// Longest time a connection may take to stand.
    pub fn connect_timeout(&self) -> Duration {
        Duration::from_secs(self.connect_timeout_s.into())
    }

    /// Bounds of the event queue.
    pub fn queue_limits(&self) -> Limits {
        Limits {
            events: self.queue.events,
            bytes: self.queue.bytes,
        }
    }

    /// The password, read from its file if it has one.
    ///
    /// # Errors
    ///
    /// [`SettingsError::PasswordFile`].
    pub fn read_password(&self) -> Result<Option<Secret>, SettingsError> {
        let Some(path) = &self.password_file else {
            return Ok(self.password.clone());
        };
        Secret::read(path)
            .map(Some)
            .map_err(|source| SettingsError::PasswordFile {
                path: path.clone(),
                source,
            })
    }
}
