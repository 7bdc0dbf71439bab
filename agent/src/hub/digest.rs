//! Names of contents: SHA-256 of large files, git's blob id of small ones.

use ocelli_runtime::file::open_regular;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Bytes read at a time.
const CHUNK: usize = 1 << 16;

/// The hash that names a file's content; also the name of its blob in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContentId {
    /// SHA-256 of the bytes (large file storage).
    Sha256([u8; 32]),
    /// SHA-1 of `blob LENGTH`, a zero byte and the bytes (git).
    Git([u8; 20]),
}

impl ContentId {
    /// Reads 64 or 40 hexadecimal digits.
    pub fn parse(text: &str) -> Option<ContentId> {
        match text.len() {
            64 => bytes(text).map(ContentId::Sha256),
            40 => bytes(text).map(ContentId::Git),
            _ => None,
        }
    }

    /// Reads the value of an `ETag` header, weak or strong.
    pub fn of_etag(etag: &str) -> Option<ContentId> {
        let etag = etag.strip_prefix("W/").unwrap_or(etag);
        ContentId::parse(etag.trim_matches('"'))
    }

    /// The id of the same kind that a file has.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn of_file(self, path: &Path) -> io::Result<ContentId> {
        let mut file = open_regular(path)?;
        let len = file.metadata()?.len();
        Ok(match self {
            ContentId::Sha256(_) => {
                let mut hash = Sha256::new();
                feed(&mut file, |part| hash.update(part))?;
                ContentId::Sha256(hash.finalize().into())
            }
            ContentId::Git(_) => {
                let mut hash = Sha1::new_with_prefix(format!("blob {len}\0"));
                feed(&mut file, |part| hash.update(part))?;
                ContentId::Git(hash.finalize().into())
            }
        })
    }
}

/// Reads a file to its end and hands out its parts.
///
/// # Errors
///
/// It cannot be read.
pub fn feed(file: &mut File, mut to: impl FnMut(&[u8])) -> io::Result<()> {
    let mut part = vec![0; CHUNK];
    loop {
        match file.read(&mut part) {
            Ok(0) => return Ok(()),
            Ok(n) => to(&part[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut out = [0; N];
    if !text.is_ascii() || text.len() != 2 * N {
        return None;
    }
    for (byte, digits) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |at: usize| char::from(digits[at]).to_digit(16);
        *byte = u8::try_from(digit(0)? * 16 + digit(1)?).ok()?;
    }
    Some(out)
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: &[u8] = match self {
            ContentId::Sha256(bytes) => bytes,
            ContentId::Git(bytes) => bytes,
        };
        bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_ids_are_those_of_git_and_sha256sum() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "hello\n").unwrap();
        for id in [
            "ce013625030ba8dba906f756967f9e9ca394464a",
            "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
        ] {
            let wanted = ContentId::parse(id).unwrap();
            assert_eq!(wanted.of_file(&path).unwrap(), wanted);
            assert_eq!(wanted.to_string(), id);
            assert_eq!(ContentId::of_etag(&format!("W/\"{id}\"")), Some(wanted));
        }
    }

    #[test]
    fn what_is_no_hash_is_no_id() {
        for text in [
            "",
            "../../x",
            "ce01",
            &"g".repeat(40),
            &"é".repeat(20),
            &"a".repeat(63),
        ] {
            assert_eq!(ContentId::parse(text), None, "{text:?}");
        }
    }
}
