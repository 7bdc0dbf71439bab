//! Where the hub is, who asks, and how patient: read from the variables that other tools read.

use super::address::{DEFAULT_ENDPOINT, Endpoint};
use super::error::HubError;
use crate::authorities::SYSTEM_AUTHORITIES;
use crate::secret::Secret;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest time without a byte before a connection counts as stalled, unless another is named.
pub const DEFAULT_STALL: Duration = Duration::from_secs(30);
/// Tries after a failure, unless another number is named; progress begins the count anew.
pub const DEFAULT_RETRIES: u32 = 5;
/// Pause before the second try; it doubles with every further one.
pub const DEFAULT_PAUSE: Duration = Duration::from_secs(1);

/// Settings of a hub.
#[derive(Clone, Debug)]
pub struct HubSettings {
    /// The hub.
    pub endpoint: Endpoint,
    /// Folder of the shared cache.
    pub cache: PathBuf,
    /// The access token and where it is from.
    pub token: Option<(Secret, String)>,
    /// PEM file of the certificate authorities to trust.
    pub authorities: PathBuf,
    /// Whether the network is left alone.
    pub offline: bool,
    /// Longest time without a byte.
    pub stall: Duration,
    /// Tries after a failure.
    pub retries: u32,
    /// Pause before the second try.
    pub pause: Duration,
}

impl HubSettings {
    /// Reads `HF_ENDPOINT`, `HF_HUB_CACHE`, `HF_HOME`, `HF_TOKEN`, `HF_TOKEN_PATH`,
    /// `HF_HUB_OFFLINE` and `SSL_CERT_FILE` of an environment, the former names
    /// `HUGGINGFACE_HUB_CACHE` and `HUGGING_FACE_HUB_TOKEN`, and the token file.
    ///
    /// # Errors
    ///
    /// An endpoint or a token that cannot be used.
    pub fn of(variable: impl Fn(&str) -> Option<OsString>) -> Result<HubSettings, HubError> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let text = |name: &'static str| {
            let value = set(name).map(|value| value.into_string());
            value.transpose().map_err(|value| HubError::Setting {
                name,
                value: value.to_string_lossy().into_owned(),
                rule: "must be UTF-8 text",
            })
        };
        let path = |name: &str| set(name).map(|value| with_home(&value, set("HOME")));
        let home = path("HF_HOME").unwrap_or_else(|| {
            let cache = path("XDG_CACHE_HOME").or_else(|| Some(path("HOME")?.join(".cache")));
            let cache = cache.unwrap_or_else(|| PathBuf::from("/var/cache"));
            cache.join("huggingface")
        });
        let cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE"));
        let token = match (text("HF_TOKEN")?, text("HUGGING_FACE_HUB_TOKEN")?) {
            (Some(token), _) => token_of(&token, "HF_TOKEN".to_owned())?,
            (None, Some(token)) => token_of(&token, "HUGGING_FACE_HUB_TOKEN".to_owned())?,
            (None, None) => {
                let file = path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
                token_in(&file)?
            }
        };
        let endpoint = text("HF_ENDPOINT")?;
        let offline = text("HF_HUB_OFFLINE")?.unwrap_or_default();
        Ok(HubSettings {
            endpoint: endpoint.as_deref().unwrap_or(DEFAULT_ENDPOINT).parse()?,
            cache: cache.unwrap_or_else(|| home.join("hub")),
            token,
            authorities: path("SSL_CERT_FILE").unwrap_or_else(|| SYSTEM_AUTHORITIES.into()),
            offline: ["1", "ON", "YES", "TRUE"].contains(&offline.to_uppercase().as_str()),
            stall: DEFAULT_STALL,
            retries: DEFAULT_RETRIES,
            pause: DEFAULT_PAUSE,
        })
    }
}

/// A path whose first part may be `~`.
fn with_home(path: &OsString, home: Option<OsString>) -> PathBuf {
    let path = Path::new(path);
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => Path::new(&home).join(rest),
        _ => path.to_owned(),
    }
}

fn token_in(path: &Path) -> Result<Option<(Secret, String)>, HubError> {
    let from = path.display().to_string();
    match Secret::read(path) {
        Ok(secret) => token_of(secret.reveal(), from),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(HubError::Token {
            from,
            reason: error.to_string(),
        }),
    }
}

/// The token in a text; none if it is blank.
fn token_of(text: &str, from: String) -> Result<Option<(Secret, String)>, HubError> {
    let token = text.trim();
    if token.is_empty() {
        return Ok(None);
    }
    match token.bytes().all(|b| b.is_ascii_graphic()) {
        true => Ok(Some((Secret::from(token), from))),
        false => Err(HubError::Token {
            from,
            reason: "it holds a character that is no visible ASCII character".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<HubSettings, HubError> {
        HubSettings::of(|name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| value.into())
        })
    }

    #[test]
    fn the_cache_lies_where_other_tools_look() {
        for (variables, want) in [
            (&[("HOME", "/h")][..], "/h/.cache/huggingface/hub"),
            (
                &[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")],
                "/x/huggingface/hub",
            ),
            (&[("HOME", "/h"), ("HF_HOME", "/f")], "/f/hub"),
            (&[("HOME", "/h"), ("HF_HOME", "~/f")], "/h/f/hub"),
            (&[("HF_HOME", "/f"), ("HF_HUB_CACHE", "/c")], "/c"),
            (&[("HF_HOME", "/f"), ("HF_HUB_CACHE", "")], "/f/hub"),
            (&[], "/var/cache/huggingface/hub"),
        ] {
            assert_eq!(
                of(variables).unwrap().cache,
                Path::new(want),
                "{variables:?}"
            );
        }
    }

    #[test]
    fn a_token_comes_from_its_variable_or_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().display().to_string();
        let token = |variables: &[(&str, &str)]| {
            let token = of(variables).unwrap().token;
            token.map(|(secret, _)| secret.reveal().to_owned())
        };
        assert_eq!(token(&[("HF_HOME", &home)]), None);
        std::fs::write(dir.path().join("token"), "hf_file\n").unwrap();
        assert_eq!(token(&[("HF_HOME", &home)]).as_deref(), Some("hf_file"));
        let both = [("HF_HOME", home.as_str()), ("HF_TOKEN", " hf_variable ")];
        assert_eq!(token(&both).as_deref(), Some("hf_variable"));
        assert!(of(&[("HF_TOKEN", "a\nb")]).is_err());
    }

    #[test]
    fn the_network_can_be_switched_off_and_the_hub_named() {
        assert!(of(&[("HF_HUB_OFFLINE", "1")]).unwrap().offline);
        assert!(!of(&[("HF_HUB_OFFLINE", "0")]).unwrap().offline);
        let named = of(&[("HF_ENDPOINT", "http://127.0.0.1:1/")]).unwrap();
        assert_eq!(named.endpoint.to_string(), "http://127.0.0.1:1");
        assert!(of(&[("HF_ENDPOINT", "nowhere")]).is_err());
    }
}
