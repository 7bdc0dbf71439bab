//! Settings of the page: the `[http]` table of the configuration.

use crate::secret::Secret;
use serde::Deserialize;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// Shortest token, in bytes.
pub const MIN_TOKEN_BYTES: usize = 16;

/// The `[http]` table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Address and port; other machines reach it only if this is no loopback address.
    pub listen: SocketAddr,
    /// File with the token that a reader must show, as password of any user or as bearer token; a
    /// line end after it is ignored. Needed unless `listen` is a loopback address.
    pub token_file: Option<PathBuf>,
    /// Names by which browsers may call this device, besides `localhost` and addresses.
    pub hosts: Vec<String>,
    /// `/health` is well for so many seconds after the last progress of the loop.
    pub health_limit_s: u32,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            token_file: None,
            hosts: Vec::new(),
            health_limit_s: 30,
        }
    }
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// Others could reach the page and nothing would be asked of them.
    #[error(
        "`http.listen = \"{listen}\"` can be reached by other machines, so `http.token_file` is needed; write for instance `token_file = \"/etc/ocelli/token\"`, or listen on 127.0.0.1"
    )]
    NoToken {
        /// The address.
        listen: SocketAddr,
    },
    /// The token cannot be read.
    #[error("{}: the token cannot be read: {source}", path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The token can be guessed or not be typed.
    #[error(
        "{}: the token has {bytes} bytes or signs that are no visible ASCII; it needs at least {MIN_TOKEN_BYTES} visible ones, for instance from `openssl rand -hex 16`", path.display()
    )]
    Token {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// A number or text outside what it may be.
    #[error("`http.{field} = {value}` is out of range: {rule}")]
    Range {
        /// Name of the setting.
        field: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        rule: &'static str,
    },
}

impl Settings {
    /// Checks what types cannot, the token included.
    ///
    /// # Errors
    ///
    /// [`SettingsError`].
    pub fn check(&self) -> Result<(), SettingsError> {
        self.token().map(drop)
    }

    /// The token, read from its file.
    ///
    /// # Errors
    ///
    /// [`SettingsError`].
    pub fn token(&self) -> Result<Option<Secret>, SettingsError> {
        if !(1..=3600).contains(&self.health_limit_s) {
            return Err(SettingsError::Range {
                field: "health_limit_s",
                value: self.health_limit_s.to_string(),
                rule: "1 to 3600 seconds",
            });
        }
        let is_name = |host: &&String| {
            let sound = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
            !((1..=253).contains(&host.len()) && host.bytes().all(sound))
        };
        if let Some(host) = self.hosts.iter().find(is_name) {
            return Err(SettingsError::Range {
                field: "hosts",
                value: format!("{host:?}"),
                rule: "host names of letters, digits, `-` and `.`, without port",
            });
        }
        let Some(path) = &self.token_file else {
            return match self.listen.ip().is_loopback() {
                true => Ok(None),
                false => Err(SettingsError::NoToken {
                    listen: self.listen,
                }),
            };
        };
        let token = Secret::read(path).map_err(|source| SettingsError::TokenFile {
            path: path.clone(),
            source,
        })?;
        let text = token.reveal();
        if text.len() < MIN_TOKEN_BYTES || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(SettingsError::Token {
                path: path.clone(),
                bytes: text.len(),
            });
        }
        Ok(Some(token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn a_page_others_can_reach_needs_a_token() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "0123456789abcdef\n").unwrap();
        let with = format!("token_file = {:?}", file);
        for (listen, sound) in [
            ("127.0.0.1:8080", true),
            ("127.3.2.1:0", true),
            ("[::1]:8080", true),
            ("0.0.0.0:8080", false),
            ("192.168.1.5:8080", false),
            ("[::]:8080", false),
            ("[::ffff:127.0.0.1]:8080", false),
        ] {
            let open = settings(&format!("listen = {listen:?}"));
            assert_eq!(open.check().is_ok(), sound, "{listen}");
            let guarded = settings(&format!("listen = {listen:?}\n{with}"));
            let token = guarded.token().unwrap();
            assert_eq!(token, Some("0123456789abcdef".into()), "{listen}");
        }
        assert!(settings("").check().is_ok());
    }

    #[test]
    fn a_token_that_can_be_guessed_or_read_wrongly_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let settings = Settings {
            token_file: Some(file.clone()),
            ..Settings::default()
        };
        assert!(matches!(
            settings.check(),
            Err(SettingsError::TokenFile { .. })
        ));
        for token in [
            "",
            "0123456789abcde",
            "0123456789 abcdef",
            "0123456789abcdéf",
        ] {
            std::fs::write(&file, token).unwrap();
            let refused = settings.check();
            assert!(
                matches!(refused, Err(SettingsError::Token { .. })),
                "{token}"
            );
        }
    }

    #[test]
    fn strange_settings_are_refused() {
        assert!(toml::from_str::<Settings>("port = 1").is_err());
        assert!(toml::from_str::<Settings>("listen = \"localhost:1\"").is_err());
        assert!(settings("health_limit_s = 0").check().is_err());
        assert!(settings("hosts = [\"a.local:80\"]").check().is_err());
        assert!(settings("hosts = [\"a.local\"]").check().is_ok());
    }
}
