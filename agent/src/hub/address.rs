//! Names of repositories and revisions, and the addresses they make.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::fmt;
use std::str::FromStr;
use ureq::http::Uri;

/// The hub that is asked unless the owner names another.
pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
/// The revision that is meant unless one is named.
pub const DEFAULT_REVISION: &str = "main";
/// Longest part of a repository's name, in bytes.
const MAX_NAME_BYTES: usize = 96;
/// Longest revision, in bytes.
const MAX_REVISION_BYTES: usize = 200;

/// Characters that stand for themselves in a part of a path.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Why a text is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// No repository.
    #[error(
        "{text:?} is no repository: write owner/name, each of letters, digits, `-`, `_` and `.` and of at most {MAX_NAME_BYTES} bytes, without `--` and `..`"
    )]
    Repository {
        /// What was given.
        text: String,
    },
    /// No revision.
    #[error(
        "{text:?} is no revision: write a branch, a tag or a commit of at most {MAX_REVISION_BYTES} letters, digits, `-`, `_`, `.` and `/`, without `..`"
    )]
    Revision {
        /// What was given.
        text: String,
    },
    /// No endpoint.
    #[error(
        "HF_ENDPOINT = {text:?}: write http:// or https:// and a host, perhaps a port and a path, nothing else"
    )]
    Endpoint {
        /// What was given.
        text: String,
    },
}

fn is_plain(text: &str, and: &str) -> bool {
    text.bytes()
        .all(|b| b.is_ascii_alphanumeric() || and.as_bytes().contains(&b))
}

/// `owner/name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    owner: String,
    name: String,
}

impl Repository {
    /// The part after the owner.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Name of its folder in the cache.
    pub fn folder(&self) -> String {
        format!("models--{}--{}", self.owner, self.name)
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

impl FromStr for Repository {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Repository, AddressError> {
        let part = |part: &str| {
            let sound = (1..=MAX_NAME_BYTES).contains(&part.len())
                && is_plain(part, "-_.")
                && !part.contains("--")
                && !part.contains("..")
                && !part.starts_with(['.', '-'])
                && !part.ends_with(['.', '-']);
            sound.then(|| part.to_owned())
        };
        text.split_once('/')
            .and_then(|(owner, name)| {
                Some(Repository {
                    owner: part(owner)?,
                    name: part(name)?,
                })
            })
            .ok_or_else(|| AddressError::Repository {
                text: text.to_owned(),
            })
    }
}

/// A branch, a tag or a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision(String);

impl Revision {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it names one commit for ever.
    pub fn is_commit(&self) -> bool {
        is_commit(&self.0)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Revision {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Revision, AddressError> {
        let sound = (1..=MAX_REVISION_BYTES).contains(&text.len())
            && is_plain(text, "-_./")
            && !text.contains("..")
            && text
                .split('/')
                .all(|part| !part.is_empty() && !part.starts_with('.'));
        match sound {
            true => Ok(Revision(text.to_owned())),
            false => Err(AddressError::Revision {
                text: text.to_owned(),
            }),
        }
    }
}

/// Whether a text is a whole commit hash.
pub fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// A repository at a revision: `owner/name` or `owner/name@revision`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The repository.
    pub repository: Repository,
    /// The revision.
    pub revision: Revision,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.repository, self.revision)
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        let (repository, revision) = text.split_once('@').unwrap_or((text, DEFAULT_REVISION));
        Ok(Address {
            repository: repository.parse()?,
            revision: revision.parse()?,
        })
    }
}

/// Where the hub is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    base: String,
    origin: Origin,
}

impl FromStr for Endpoint {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Endpoint, AddressError> {
        let wrong = || AddressError::Endpoint {
            text: text.to_owned(),
        };
        let base = text.trim_end_matches('/');
        let uri: Uri = base.parse().map_err(|_| wrong())?;
        let origin = Origin::of(&uri).ok_or_else(wrong)?;
        match uri.query().is_none() && !base.contains(['@', '#']) {
            true => Ok(Endpoint {
                base: base.to_owned(),
                origin,
            }),
            false => Err(wrong()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
    }
}

impl Endpoint {
    /// Scheme, host and port.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Where the files of a revision are listed.
    pub fn listing(&self, address: &Address) -> String {
        format!(
            "{}/api/models/{}/revision/{}?blobs=true",
            self.base,
            address.repository,
            encode(address.revision.as_str())
        )
    }

    /// Where a file of a commit lies.
    pub fn file(&self, repository: &Repository, commit: &str, path: &str) -> String {
        let parts: Vec<String> = path.split('/').map(encode).collect();
        format!(
            "{}/{repository}/resolve/{}/{}",
            self.base,
            encode(commit),
            parts.join("/")
        )
    }
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

/// Scheme, host and port of an address: what a token is meant for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    /// The origin of an absolute `http` or `https` address.
    pub fn of(uri: &Uri) -> Option<Origin> {
        let scheme = uri.scheme_str()?;
        let port = match scheme {
            "https" => 443,
            "http" => 80,
            _ => return None,
        };
        let host = uri.host().filter(|host| !host.is_empty())?;
        Some(Origin {
            scheme: scheme.to_owned(),
            host: host.to_ascii_lowercase(),
            port: uri.port_u16().unwrap_or(port),
        })
    }

    /// Whether what travels there is encrypted.
    pub fn is_private(&self) -> bool {
        self.scheme == "https"
    }

    /// The host.
    pub fn host(&self) -> &str {
        &self.host
    }
}

/// Where a redirect leads: an absolute address, or one on the same host.
pub fn resolve(from: &Uri, location: &str) -> Option<Uri> {
    let full = if location.starts_with("//") {
        format!("{}:{location}", from.scheme_str()?)
    } else if location.starts_with('/') {
        format!("{}://{}{location}", from.scheme_str()?, from.authority()?)
    } else {
        location.to_owned()
    };
    let full = full.split('#').next().unwrap_or_default();
    full.parse().ok().filter(|uri| Origin::of(uri).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_owner_name_and_perhaps_a_revision() {
        for (text, sound) in [
            ("owner/name", true),
            ("Owner-1/Name_2.2B", true),
            ("owner/name@main", true),
            ("owner/name@refs/pr/1", true),
            ("owner/name@7e3e67edbbed1bf9888184d9df282b700a323964", true),
            ("name", false),
            ("owner/", false),
            ("/name", false),
            ("a/b/c", false),
            ("../name", false),
            ("owner/..", false),
            ("owner/a--b", false),
            ("owner/.hidden", false),
            ("owner/na me", false),
            ("owner/name@", false),
            ("owner/name@../../x", false),
            ("owner/name@a//b", false),
            ("owner/name@/a", false),
            ("owner/name@.git/x", false),
            ("owner/name@a?b", false),
        ] {
            assert_eq!(text.parse::<Address>().is_ok(), sound, "{text}");
        }
        let long = "a".repeat(97);
        assert!(format!("{long}/name").parse::<Repository>().is_err());
    }

    #[test]
    fn addresses_keep_what_a_revision_and_a_path_hold() {
        let endpoint: Endpoint = "https://hub.example:8443/mirror/".parse().unwrap();
        let address: Address = "o/n@refs/pr/1".parse().unwrap();
        assert_eq!(
            endpoint.listing(&address),
            "https://hub.example:8443/mirror/api/models/o/n/revision/refs%2Fpr%2F1?blobs=true"
        );
        assert_eq!(
            endpoint.file(&address.repository, "abc", "onnx/a b?.onnx"),
            "https://hub.example:8443/mirror/o/n/resolve/abc/onnx/a%20b%3F.onnx"
        );
        assert_eq!(address.repository.folder(), "models--o--n");
    }

    #[test]
    fn an_endpoint_is_a_plain_address() {
        for (text, sound) in [
            (DEFAULT_ENDPOINT, true),
            ("http://127.0.0.1:8000", true),
            ("http://[::1]:8000/x", true),
            ("ftp://hub", false),
            ("hub.example", false),
            ("https://user:key@hub", false),
            ("https://hub?x=1", false),
            ("https://", false),
            ("", false),
        ] {
            assert_eq!(text.parse::<Endpoint>().is_ok(), sound, "{text:?}");
        }
    }

    #[test]
    fn origins_differ_by_scheme_host_and_port() {
        let origin = |text: &str| Origin::of(&text.parse().unwrap()).unwrap();
        assert_eq!(origin("https://hub/a"), origin("https://HUB:443/b?c"));
        for other in [
            "http://hub/a",
            "https://hub:8443/a",
            "https://hub.example/a",
        ] {
            assert_ne!(origin("https://hub/a"), origin(other), "{other}");
        }
    }

    #[test]
    fn a_redirect_leads_to_an_address_or_a_path() {
        let from: Uri = "https://hub:8443/a/b".parse().unwrap();
        for (location, want) in [
            ("/c?d=1", Some("https://hub:8443/c?d=1")),
            ("//cdn/c", Some("https://cdn/c")),
            ("http://cdn:1/c#part", Some("http://cdn:1/c")),
            ("file:///etc/passwd", None),
            ("c", None),
            ("", None),
        ] {
            let found = resolve(&from, location).map(|uri| uri.to_string());
            assert_eq!(found.as_deref(), want, "{location:?}");
        }
    }
}
