//! Settings of the remote model: the `[remote]` table of the configuration.

use serde::Deserialize;
use std::net::IpAddr;
use std::path::PathBuf;

/// The `[remote]` table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Address up to, and without, `/chat/completions`; `http://` only to this machine or the local
    /// network.
    pub url: String,
    /// Name of the model there.
    pub model: String,
    /// File with the key, read at every question; a line end after it is ignored.
    pub key_file: Option<PathBuf>,
    /// PEM file of the certificate authorities to trust; the system's when not said.
    pub ca: Option<PathBuf>,
    /// Longest time of a question, in seconds.
    #[serde(default = "default_timeout")]
    pub timeout_s: u32,
    /// Longest request, picture included, in bytes.
    #[serde(default = "default_max_bytes")]
    pub max_bytes: usize,
    /// Most questions a day.
    #[serde(default = "default_per_day")]
    pub per_day: u32,
    /// Ask for the probability of the answer; off for servers that refuse it.
    #[serde(default = "default_logprobs")]
    pub logprobs: bool,
}

fn default_timeout() -> u32 {
    20
}

fn default_max_bytes() -> usize {
    2 << 20
}

fn default_per_day() -> u32 {
    200
}

fn default_logprobs() -> bool {
    true
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// A number or text outside what it may be.
    #[error("`remote.{field} = {value}` is out of range: {rule}")]
    Range {
        /// Name of the setting.
        field: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        rule: &'static str,
    },
    /// Pictures would go through foreign networks for all to read.
    #[error(
        "`remote.url = {url:?}`: {host:?} is not in the local network, so pictures would travel readable for others; write https://"
    )]
    Plain {
        /// The address.
        url: String,
        /// Its host.
        host: String,
    },
}

impl Settings {
    /// Checks what types cannot.
    ///
    /// # Errors
    ///
    /// [`SettingsError`].
    pub fn check(&self) -> Result<(), SettingsError> {
        let range = |holds: bool, field, value: String, rule| match holds {
            true => Ok(()),
            false => Err(SettingsError::Range { field, value, rule }),
        };
        range(
            (1..=600).contains(&self.timeout_s),
            "timeout_s",
            self.timeout_s.to_string(),
            "1 to 600 seconds",
        )?;
        range(
            (1 << 10..=64 << 20).contains(&self.max_bytes),
            "max_bytes",
            self.max_bytes.to_string(),
            "1024 to 67108864 bytes",
        )?;
        range(
            (1..=1_000_000).contains(&self.per_day),
            "per_day",
            self.per_day.to_string(),
            "1 to 1000000 questions; take the table out to ask none",
        )?;
        range(
            (1..=256).contains(&self.model.len()),
            "model",
            format!("{:?}", self.model),
            "1 to 256 bytes",
        )?;
        let rule = "http:// or https://, a host, and perhaps a port and a path like /v1";
        let url = || format!("{:?}", self.url);
        let uri: ureq::http::Uri = self.url.parse().map_err(|_| SettingsError::Range {
            field: "url",
            value: url(),
            rule,
        })?;
        let host = uri.host().unwrap_or("");
        let sound = !host.is_empty() && uri.query().is_none() && !self.url.contains('@');
        match uri.scheme_str() {
            Some("https") if sound => Ok(()),
            Some("http") if sound && is_near(host) => Ok(()),
            Some("http") if sound => Err(SettingsError::Plain {
                url: self.url.clone(),
                host: host.to_owned(),
            }),
            _ => range(false, "url", url(), rule),
        }
    }

    /// Where questions are posted.
    pub fn endpoint(&self) -> String {
        format!("{}/chat/completions", self.url.trim_end_matches('/'))
    }
}

/// Whether a host is this machine or in the local network.
pub(crate) fn is_near(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        Ok(IpAddr::V6(ip)) => {
            ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()
        }
        Err(_) => {
            let near = [".local", ".lan", ".internal", ".home.arpa"];
            !host.contains('.') || near.iter().any(|end| host.ends_with(end))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_travel_in_the_clear_only_nearby() {
        for (url, sound) in [
            ("https://api.example.com/v1", true),
            ("https://api.example.com:8443", true),
            ("http://127.0.0.1:8080/v1", true),
            ("http://[::1]:8080/v1", true),
            ("http://192.168.1.9/v1", true),
            ("http://nas/v1", true),
            ("http://nas.local:11434/v1", true),
            ("http://api.example.com/v1", false),
            ("http://8.8.8.8/v1", false),
            ("http://local.example.com/v1", false),
            ("ftp://nas/v1", false),
            ("nas/v1", false),
            ("https:///v1", false),
            ("https://user:key@api.example.com/v1", false),
            ("https://api.example.com/v1?key=1", false),
            ("", false),
        ] {
            let text = format!("url = {url:?}\nmodel = \"m\"");
            let settings: Settings = toml::from_str(&text).unwrap();
            assert_eq!(settings.check().is_ok(), sound, "{url}");
        }
    }

    #[test]
    fn numbers_have_bounds_and_keys_are_known() {
        let base = "url = \"http://nas/v1/\"\nmodel = \"m\"\n";
        let settings: Settings = toml::from_str(base).unwrap();
        assert_eq!(settings.endpoint(), "http://nas/v1/chat/completions");
        for wrong in ["timeout_s = 0", "max_bytes = 1", "per_day = 0"] {
            let settings: Settings = toml::from_str(&format!("{base}{wrong}")).unwrap();
            assert!(settings.check().is_err(), "{wrong}");
        }
        assert!(toml::from_str::<Settings>(&format!("{base}key = \"x\"")).is_err());
    }
}
