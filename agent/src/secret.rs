//! [`Secret`]: a password, key or token that does not show itself.

use serde::Deserialize;
use std::fmt;
use std::io::{self, Read};
use std::path::Path;

/// Longest secret, in bytes.
pub const MAX_SECRET_BYTES: usize = 4096;

/// A secret that does not show itself in logs.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The secret itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Reads a secret from a file; a line end after it is ignored.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is no UTF-8 or longer than [`MAX_SECRET_BYTES`].
    pub fn read(path: &Path) -> io::Result<Secret> {
        let mut text = String::new();
        std::fs::File::open(path)?
            .take(MAX_SECRET_BYTES as u64 + 1)
            .read_to_string(&mut text)?;
        if text.len() > MAX_SECRET_BYTES {
            return Err(io::Error::other(format!(
                "it is longer than {MAX_SECRET_BYTES} bytes"
            )));
        }
        let secret = text.strip_suffix('\n').unwrap_or(&text);
        Ok(Secret(
            secret.strip_suffix('\r').unwrap_or(secret).to_owned(),
        ))
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Secret {
        Secret(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
