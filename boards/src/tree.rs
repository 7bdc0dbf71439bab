//! The files a kernel shows, under a root that tests can move.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Longest file that is read, in bytes; what the kernel shows about one value is far shorter.
const MAX_BYTES: u64 = 64 * 1024;

/// `/proc`, `/sys`, `/dev` and `/etc` as one tree of small text files.
///
/// Paths are given as on the machine (`/proc/meminfo`); the root is put before them.
#[derive(Clone, Debug)]
pub struct Tree {
    root: PathBuf,
}

impl Default for Tree {
    /// The tree of this machine.
    fn default() -> Self {
        Tree::new("/")
    }
}

impl Tree {
    /// The tree under `root`.
    pub fn new(root: impl Into<PathBuf>) -> Tree {
        Tree { root: root.into() }
    }

    /// Where `path` is really.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Whether something is at `path`.
    pub fn has(&self, path: impl AsRef<Path>) -> bool {
        self.path(path).exists()
    }

    /// The first 64 KiB at `path`; none if it cannot be read.
    pub fn bytes(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        fs::File::open(self.path(path))
            .and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes))
            .ok()?;
        Some(bytes)
    }

    /// The text at `path` without white space and NUL at its ends; none if it cannot be read.
    pub fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        let bytes = self.bytes(path)?;
        let text = String::from_utf8_lossy(&bytes);
        Some(
            text.trim_matches(|c: char| c.is_whitespace() || c == '\0')
                .to_owned(),
        )
    }

    /// The finite decimal number at `path`; none if there is something else.
    pub fn number(&self, path: impl AsRef<Path>) -> Option<f64> {
        let number: f64 = self.text(path)?.parse().ok()?;
        number.is_finite().then_some(number)
    }

    /// What is in the folder `path`, by name with numbers in their order, at most 4096 names;
    /// nothing if it cannot be read.
    pub fn list(&self, path: impl AsRef<Path>) -> Vec<PathBuf> {
        let path = path.as_ref();
        let Ok(entries) = fs::read_dir(self.path(path)) else {
            return Vec::new();
        };
        let names = entries
            .take(4096)
            .filter_map(|entry| Some(entry.ok()?.file_name()));
        let mut names: Vec<String> = names.filter_map(|name| name.into_string().ok()).collect();
        names.sort_by_cached_key(|name| {
            let digits = name.trim_start_matches(|c: char| !c.is_ascii_digit());
            let letters = &name[..name.len() - digits.len()];
            (letters.to_owned(), digits.len(), name.clone())
        });
        names.into_iter().map(|name| path.join(name)).collect()
    }

    /// The first `/sys/class/hwmon` device called `name`.
    pub fn hwmon(&self, name: &str) -> Option<PathBuf> {
        let mut devices = self.list("/sys/class/hwmon").into_iter();
        devices.find(|device| self.text(device.join("name")).as_deref() == Some(name))
    }
}

#[cfg(test)]
mod tests {
    use crate::fixture::Fixture;

    #[test]
    fn paths_stay_under_the_root() {
        let fixture = Fixture::new(&[("proc/a", " 12 \n\0"), ("proc/b", "inf")]);
        let tree = fixture.tree();
        assert_eq!(tree.text("/proc/a").as_deref(), Some("12"));
        assert_eq!(tree.number("proc/a"), Some(12.0));
        assert_eq!(tree.number("/proc/b"), None);
        assert_eq!(tree.text("/proc/c"), None);
    }

    #[test]
    fn a_folder_lists_numbers_in_their_order() {
        let fixture = Fixture::new(&[("d/zone10", ""), ("d/zone9", ""), ("d/zone1", "")]);
        let names: Vec<String> = (fixture.tree().list("/d").iter())
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(names, ["zone1", "zone9", "zone10"]);
    }
}
