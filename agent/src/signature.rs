//! Whose a pack is: detached minisign signatures, and the keys the owner trusts.
//!
//! Keys come from `--key`, else `OCELLI_MODEL_KEYS`, else the first `models.toml` that names any:
//! `ocelli/models.toml` in the user's configuration folder, then `/etc/ocelli/models.toml`.
//! While no key is configured, nothing is asked of a pack.
//!
//! Format: minisign, Ed25519 over BLAKE2b-512 of the file.

use crate::hub::digest::feed;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use minisign_verify::{PublicKey, Signature};
use ocelli_runtime::file::open_regular;
use serde::Deserialize;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// What a signature file adds to the name of its pack.
pub const EXTENSION: &str = "minisig";
/// Longest signature, key or settings file, in bytes.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// Why a pack is not trusted, or keys cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// A key cannot be read.
    #[error(
        "{from}: {text:?} is no minisign public key ({reason}); give the line that begins with RW, or the .pub file that holds it"
    )]
    Key {
        /// Where it was given.
        from: String,
        /// What was given.
        text: String,
        /// What is wrong.
        reason: String,
    },
    /// A settings file cannot be used.
    #[error("{}: {reason}", path.display())]
    Settings {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// There is no signature.
    #[error("{} has no signature, and {from} asks for one by {wanted}; put {}.{EXTENSION} beside it, or allow this one with --allow-unsigned", pack.display(), pack.display())]
    Missing {
        /// The pack.
        pack: PathBuf,
        /// Where the keys are configured.
        from: String,
        /// Ids of the keys.
        wanted: String,
    },
    /// The signature is no signature.
    #[error("the signature of {} cannot be read: {reason}; a signature by {wanted} is wanted", pack.display())]
    Malformed {
        /// The pack.
        pack: PathBuf,
        /// What is wrong.
        reason: String,
        /// Ids of the keys.
        wanted: String,
    },
    /// Another key signed.
    #[error("{} is signed by key {found}, {from} asks for {wanted}; get the pack from whom you trust", pack.display())]
    Stranger {
        /// The pack.
        pack: PathBuf,
        /// Id of the key that signed.
        found: String,
        /// Where the keys are configured.
        from: String,
        /// Ids of the keys.
        wanted: String,
    },
    /// The signature is of another content.
    #[error("the signature of {} by key {key} does not fit: the pack or the signature was changed; do not use it, and get both again", pack.display())]
    Wrong {
        /// The pack.
        pack: PathBuf,
        /// Id of the key.
        key: String,
    },
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl SignatureError {
    /// The same about a pack that goes by another name for people.
    #[must_use]
    pub fn of_pack(mut self, name: &str) -> SignatureError {
        match &mut self {
            SignatureError::Missing { pack, .. }
            | SignatureError::Malformed { pack, .. }
            | SignatureError::Stranger { pack, .. }
            | SignatureError::Wrong { pack, .. } => *pack = PathBuf::from(name),
            _ => {}
        }
        self
    }
}

/// Keys that the owner trusts.
#[derive(Debug, Default)]
pub struct Keys {
    from: String,
    keys: Vec<(String, PublicKey)>,
}

/// A good signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// Id of the key.
    pub key: String,
    /// The comment that is signed too.
    pub comment: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(default)]
    keys: Vec<String>,
}

impl Keys {
    /// Reads the keys of the flags, else of the environment, else of the settings files.
    ///
    /// # Errors
    ///
    /// A key or file that cannot be read: then nothing is trusted.
    pub fn configured(
        flags: &[String],
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Keys, SignatureError> {
        if !flags.is_empty() {
            return Keys::read("--key", flags);
        }
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        if let Some(value) = set("OCELLI_MODEL_KEYS") {
            let value = value.to_string_lossy().into_owned();
            let keys: Vec<String> = value
                .split([',', ' ', '\n'])
                .filter(|key| !key.is_empty())
                .map(str::to_owned)
                .collect();
            let from = "OCELLI_MODEL_KEYS";
            // Or what only looks empty would switch off the keys of the files.
            if keys.is_empty() {
                return Err(SignatureError::Key {
                    from: from.to_owned(),
                    text: value,
                    reason: "it names no key; unset it to ask for none".to_owned(),
                });
            }
            return Keys::read(from, &keys);
        }
        let user = set("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(set("HOME")?).join(".config")));
        let user = user.map(|dir| dir.join("ocelli/models.toml"));
        for path in user.into_iter().chain(["/etc/ocelli/models.toml".into()]) {
            let keys = settings(&path)?;
            if !keys.is_empty() {
                return Keys::read(&path.display().to_string(), &keys);
            }
        }
        Ok(Keys::default())
    }

    fn read(from: &str, keys: &[String]) -> Result<Keys, SignatureError> {
        let keys: Result<_, _> = keys.iter().map(|text| key(from, text)).collect();
        Ok(Keys {
            from: from.to_owned(),
            keys: keys?,
        })
    }

    /// Whether nothing is asked of packs.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// What is said of a pack without a signature.
    pub fn missing(&self, pack: impl Into<PathBuf>) -> SignatureError {
        SignatureError::Missing {
            pack: pack.into(),
            from: self.from.clone(),
            wanted: self.ids(),
        }
    }

    /// Ids of all keys, in words.
    fn ids(&self) -> String {
        let ids: Vec<_> = self
            .keys
            .iter()
            .map(|(id, _)| format!("key {id}"))
            .collect();
        ids.join(" or ")
    }

    /// Checks a pack against the text of its signature. Reads the whole pack.
    ///
    /// # Errors
    ///
    /// See [`SignatureError`].
    pub fn check(&self, pack: &Path, signature: Option<&str>) -> Result<Signed, SignatureError> {
        let path = || pack.to_owned();
        let Some(text) = signature else {
            return Err(self.missing(pack));
        };
        let malformed = |reason: String| SignatureError::Malformed {
            pack: path(),
            reason,
            wanted: self.ids(),
        };
        let signature = Signature::decode(text).map_err(|error| malformed(error.to_string()))?;
        let signer = text.lines().nth(1).and_then(key_id);
        let signer = signer.ok_or_else(|| malformed("it names no key".to_owned()))?;
        let Some((id, key)) = self.keys.iter().find(|(id, _)| *id == signer) else {
            return Err(SignatureError::Stranger {
                pack: path(),
                found: signer,
                from: self.from.clone(),
                wanted: self.ids(),
            });
        };
        let mut stream = key.verify_stream(&signature).map_err(|error| {
            malformed(format!(
                "{error}; sign with a minisign of version 0.10 or later"
            ))
        })?;
        open_regular(pack)
            .and_then(|mut file| feed(&mut file, |part| stream.update(part)))
            .map_err(|source| SignatureError::File {
                path: path(),
                source,
            })?;
        match stream.finalize() {
            Ok(()) => Ok(Signed {
                key: id.clone(),
                comment: signature.trusted_comment().to_owned(),
            }),
            Err(_) => Err(SignatureError::Wrong {
                pack: path(),
                key: id.clone(),
            }),
        }
    }
}

/// The signature file beside a pack.
pub fn beside(pack: &Path) -> PathBuf {
    pack.with_added_extension(EXTENSION)
}

/// The text of a signature file, if there is one.
///
/// # Errors
///
/// It cannot be read, is too long or no UTF-8.
pub fn read(path: &Path) -> Result<Option<String>, SignatureError> {
    read_text(path).map_err(|source| SignatureError::File {
        path: path.to_owned(),
        source,
    })
}

fn read_text(path: &Path) -> io::Result<Option<String>> {
    let file = match open_regular(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    match text.len() as u64 > MAX_FILE_BYTES {
        true => Err(io::Error::other(format!(
            "it is longer than {MAX_FILE_BYTES} bytes"
        ))),
        false => Ok(Some(text)),
    }
}

/// The keys of a settings file; none without the file.
fn settings(path: &Path) -> Result<Vec<String>, SignatureError> {
    let wrong = |reason: String| SignatureError::Settings {
        path: path.to_owned(),
        reason,
    };
    let text = match read_text(path) {
        // The home of a service may be no folder: `/dev/null`.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => None,
        text => text.map_err(|error| wrong(error.to_string()))?,
    };
    let Some(text) = text else {
        return Ok(Vec::new());
    };
    let settings: Settings = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let absolute = |key: String| match key.ends_with(".pub") {
        true => folder.join(key).display().to_string(),
        false => key,
    };
    Ok(settings.keys.into_iter().map(absolute).collect())
}

/// A public key, given as its line or as the file that holds it.
fn key(from: &str, text: &str) -> Result<(String, PublicKey), SignatureError> {
    let wrong = |reason: String| SignatureError::Key {
        from: from.to_owned(),
        text: text.to_owned(),
        reason,
    };
    let line = match text.ends_with(".pub") {
        true => {
            let file = fs::metadata(text).and_then(|_| read_text(Path::new(text)));
            let file = file.map_err(|error| wrong(error.to_string()))?;
            let lines = file.unwrap_or_default();
            let line = lines.lines().nth(1).map(str::trim).map(str::to_owned);
            line.ok_or_else(|| wrong("it has no second line".to_owned()))?
        }
        false => text.trim().to_owned(),
    };
    let key = PublicKey::from_base64(&line).map_err(|error| wrong(error.to_string()))?;
    let id = key_id(&line).ok_or_else(|| wrong("it is too short".to_owned()))?;
    Ok((id, key))
}

/// The key's id in a line of a key or signature, as minisign prints it.
fn key_id(line: &str) -> Option<String> {
    let bytes = STANDARD.decode(line.trim()).ok()?;
    let id: [u8; 8] = bytes.get(2..10)?.try_into().ok()?;
    Some(format!("{:016X}", u64::from_le_bytes(id)))
}

#[cfg(test)]
mod tests;
