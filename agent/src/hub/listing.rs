//! The files of a revision, as the hub lists them.

use super::address::is_commit;
use super::digest::ContentId;
use serde::Deserialize;

/// Longest list that is read, in bytes.
pub const MAX_LISTING_BYTES: u64 = 16 << 20;
/// Most files of a list.
pub const MAX_FILES: usize = 20_000;
/// Longest path in a repository, in bytes.
const MAX_PATH_BYTES: usize = 512;
/// Largest file that is believed, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 40;
/// Longest licence name that is kept, in bytes.
const MAX_LICENCE_BYTES: usize = 64;

/// A revision's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The commit that the revision means now: 40 hexadecimal digits.
    pub commit: String,
    /// Licence by the model's card.
    pub licence: Option<String>,
    /// The files, in the hub's order; every path stays inside the repository.
    pub files: Vec<RemoteFile>,
}

/// A file of a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteFile {
    /// Path in the repository, parts separated by `/`.
    pub path: String,
    /// Its size in bytes, if the list says it.
    pub size: Option<u64>,
    /// The hash of its content, if the list says it.
    pub id: Option<ContentId>,
}

#[derive(Deserialize)]
struct Answer {
    sha: String,
    siblings: Vec<Sibling>,
    #[serde(default)]
    tags: Vec<serde_json::Value>,
    #[serde(default, rename = "cardData")]
    card: serde_json::Value,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    #[serde(alias = "oid")]
    sha256: Option<String>,
    size: Option<u64>,
}

impl Listing {
    /// Reads the hub's answer.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn read(body: &[u8]) -> Result<Listing, String> {
        let answer: Answer = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        if !is_commit(&answer.sha) {
            return Err(format!("`sha` is {:?}, not a commit", answer.sha));
        }
        if answer.siblings.len() > MAX_FILES {
            let n = answer.siblings.len();
            return Err(format!("it names {n} files, the limit is {MAX_FILES}"));
        }
        let files: Result<Vec<RemoteFile>, String> =
            answer.siblings.into_iter().map(Sibling::file).collect();
        let tag = answer
            .tags
            .iter()
            .find_map(|tag| tag.as_str()?.strip_prefix("license:"));
        let licence = answer.card["license"].as_str().or(tag);
        Ok(Listing {
            commit: answer.sha.to_ascii_lowercase(),
            licence: licence
                .filter(|text| text.len() <= MAX_LICENCE_BYTES)
                .filter(|text| !text.chars().any(char::is_control))
                .map(str::to_owned),
            files: files?,
        })
    }

    /// The file at a path.
    pub fn file(&self, path: &str) -> Option<&RemoteFile> {
        self.files.iter().find(|file| file.path == path)
    }
}

impl Sibling {
    fn file(self) -> Result<RemoteFile, String> {
        if !is_inside(&self.rfilename) {
            return Err(format!(
                "it names {:?}, which is no path inside a repository; nothing is fetched",
                self.rfilename
            ));
        }
        let lfs_size = self.lfs.as_ref().and_then(|lfs| lfs.size);
        let size = lfs_size.or(self.size);
        if size.is_some_and(|size| size > MAX_FILE_BYTES) {
            return Err(format!(
                "{} has {} bytes, the limit is {MAX_FILE_BYTES}",
                self.rfilename,
                size.unwrap_or_default()
            ));
        }
        let hash = match self.lfs {
            Some(lfs) => lfs.sha256,
            None => self.blob_id,
        };
        let id = hash.map(|hash| {
            ContentId::parse(&hash)
                .ok_or_else(|| format!("{hash:?} is no hash of {}", self.rfilename))
        });
        Ok(RemoteFile {
            id: id.transpose()?,
            path: self.rfilename,
            size,
        })
    }
}

/// Whether a path cannot leave the folder it is put into.
pub fn is_inside(path: &str) -> bool {
    !path.is_empty()
        && path.len() <= MAX_PATH_BYTES
        && !path.chars().any(|c| c.is_control() || c == '\\')
        && path
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != "..")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::{Component, Path};

    const COMMIT: &str = "7e3e67edbbed1bf9888184d9df282b700a323964";

    fn listing(siblings: &str) -> Result<Listing, String> {
        let body = format!(r#"{{"sha":"{COMMIT}","siblings":[{siblings}]}}"#);
        Listing::read(body.as_bytes())
    }

    #[test]
    fn a_list_gives_sizes_and_hashes() {
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        let git = "ce013625030ba8dba906f756967f9e9ca394464a";
        let body = format!(
            r#"{{"sha":"{COMMIT}","tags":["x","license:apache-2.0"],"siblings":[
                {{"rfilename":"config.json","size":6,"blobId":"{git}"}},
                {{"rfilename":"model.safetensors","size":7,"blobId":"{git}","lfs":{{"sha256":"{sha256}","size":7,"pointerSize":134}}}},
                {{"rfilename":"onnx/x.onnx"}}]}}"#
        );
        let listing = Listing::read(body.as_bytes()).unwrap();
        assert_eq!(listing.commit, COMMIT);
        assert_eq!(listing.licence.as_deref(), Some("apache-2.0"));
        let ids: Vec<_> = listing.files.iter().map(|file| file.id).collect();
        assert_eq!(ids, [ContentId::parse(git), ContentId::parse(sha256), None]);
        assert_eq!(listing.files[1].size, Some(7));
    }

    #[test]
    fn a_list_with_a_path_that_leaves_the_folder_is_refused() {
        for path in [
            "../x",
            "/etc/passwd",
            "a/../../x",
            "a//b",
            "./x",
            "",
            "a\\\\b",
            "a/\\u0000",
        ] {
            let error = listing(&format!(r#"{{"rfilename":"{path}"}}"#)).unwrap_err();
            assert!(error.contains("no path inside"), "{path}: {error}");
        }
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for body in [
            "",
            "<html>",
            "[]",
            "{}",
            r#"{"sha":"main","siblings":[]}"#,
            r#"{"sha":"../../../../../../../../../../../../x","siblings":[]}"#,
        ] {
            assert!(Listing::read(body.as_bytes()).is_err(), "{body}");
        }
        assert!(listing(r#"{"rfilename":"a","blobId":"x"}"#).is_err());
        assert!(listing(r#"{"rfilename":"a","size":1e300}"#).is_err());
        assert!(listing(r#"{"rfilename":"a","size":99999999999999}"#).is_err());
    }

    proptest! {
        #[test]
        fn a_path_that_is_inside_has_only_plain_parts(path in "[a./\\\\ é]{0,12}") {
            if is_inside(&path) {
                let plain = |part| matches!(part, Component::Normal(_));
                prop_assert!(Path::new(&path).components().all(plain), "{}", path);
                prop_assert!(Path::new("/r").join(&path).starts_with("/r"));
            }
        }
    }
}
