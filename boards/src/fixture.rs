//! Folders that stand for a board in tests.

use std::fs;
use std::os::unix::fs::symlink;

use crate::tree::Tree;

/// A folder with files, removed at the end of the test.
pub(crate) struct Fixture {
    folder: tempfile::TempDir,
}

impl Fixture {
    /// Files by path and content; a content that begins with `->` makes a link.
    pub(crate) fn new(files: &[(&str, &str)]) -> Fixture {
        let fixture = Fixture {
            folder: tempfile::tempdir().unwrap(),
        };
        for (path, content) in files {
            fixture.write(path, content);
        }
        fixture
    }

    /// Writes one file, or replaces it.
    pub(crate) fn write(&self, path: &str, content: &str) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match content.strip_prefix("->") {
            Some(target) => symlink(target, path).unwrap(),
            None => fs::write(path, content).unwrap(),
        }
    }

    /// The folder as a tree.
    pub(crate) fn tree(&self) -> Tree {
        Tree::new(self.folder.path())
    }
}
