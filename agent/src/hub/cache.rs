//! The cache on disk, in the layout that other tools share.
//!
//! ```text
//! models--owner--name/
//!   blobs/HASH                    contents, named by their hash
//!   blobs/HASH.incomplete         a transfer under way or cut off
//!   blobs/HASH.incomplete.etag    what a server called that content
//!   refs/REVISION                 the commit a branch or tag meant last
//!   snapshots/COMMIT/PATH         links to blobs
//! .locks/models--owner--name/HASH.lock
//! ```

use super::Watcher;
use super::address::{Repository, Revision};
use super::digest::ContentId;
use super::error::HubError;
use super::listing::{Listing, MAX_FILES, RemoteFile};
use ocelli_runtime::file::open_regular;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Deepest folder of a snapshot that is looked into.
const MAX_DEPTH: usize = 4;

/// The whole cache.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// A cache in a folder, which need not exist.
    pub fn new(root: PathBuf) -> Cache {
        Cache { root }
    }

    /// The part of a repository.
    pub fn repository(&self, repository: &Repository) -> CachedRepository {
        let folder = repository.folder();
        CachedRepository {
            name: repository.to_string(),
            locks: self.root.join(".locks").join(&folder),
            dir: self.root.join(folder),
        }
    }
}

/// A repository's part of the cache.
#[derive(Clone, Debug)]
pub struct CachedRepository {
    name: String,
    dir: PathBuf,
    locks: PathBuf,
}

/// The size of a file that is whole as far as its size tells.
pub fn whole(path: &Path, size: Option<u64>) -> Option<u64> {
    let found = fs::metadata(path).ok().filter(fs::Metadata::is_file)?.len();
    size.is_none_or(|size| size == found).then_some(found)
}

impl CachedRepository {
    /// The repository's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where a content lies when it is whole.
    pub fn blob(&self, id: ContentId) -> PathBuf {
        self.dir.join("blobs").join(id.to_string())
    }

    /// Where a content lies while it comes.
    pub fn incomplete(&self, id: ContentId) -> PathBuf {
        self.dir.join("blobs").join(format!("{id}.incomplete"))
    }

    /// The folder of a commit.
    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.dir.join("snapshots").join(commit)
    }

    /// A file of a commit.
    pub fn file(&self, commit: &str, path: &str) -> PathBuf {
        self.snapshot(commit).join(path)
    }

    /// Bytes of a content that are here, whole or not.
    pub fn bytes_here(&self, id: ContentId) -> u64 {
        let len = |path: PathBuf| fs::metadata(path).map_or(0, |meta| meta.len());
        len(self.blob(id)).max(len(self.incomplete(id)))
    }

    /// The commit that a revision meant when the hub was last asked.
    pub fn commit(&self, revision: &Revision) -> Option<String> {
        if revision.is_commit() {
            return Some(revision.as_str().to_owned());
        }
        let mut text = String::new();
        let path = self.dir.join("refs").join(revision.as_str());
        let file = open_regular(&path).ok()?;
        file.take(64).read_to_string(&mut text).ok()?;
        let commit = text.trim();
        super::address::is_commit(commit).then(|| commit.to_owned())
    }

    /// Notes which commit a revision means.
    ///
    /// # Errors
    ///
    /// The note cannot be written.
    pub fn remember(&self, revision: &Revision, commit: &str) -> Result<(), HubError> {
        if revision.is_commit() || self.commit(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.dir.join("refs").join(revision.as_str());
        make_parent(&path)
            .and_then(|()| replace(&path, |file| file.write_all(commit.as_bytes())))
            .map_err(HubError::file(path))
    }

    /// Puts a blob into the folder of a commit, as a link.
    ///
    /// # Errors
    ///
    /// The link cannot be made.
    pub fn link(&self, commit: &str, path: &str, id: ContentId) -> Result<PathBuf, HubError> {
        let link = self.file(commit, path);
        let up = "../".repeat(path.split('/').count() + 1);
        let target = PathBuf::from(format!("{up}blobs/{id}"));
        let make = || {
            make_parent(&link)?;
            if fs::read_link(&link).is_ok_and(|old| old == target) {
                return Ok(());
            }
            let aside = aside(&link);
            symlink(&target, &aside)?;
            fs::rename(&aside, &link)
        };
        make().map_err(HubError::file(&link))?;
        Ok(link)
    }

    /// Locks a content, or under another name anything else; waits if another process has it.
    ///
    /// # Errors
    ///
    /// The lock file cannot be made.
    pub fn lock(&self, name: &str, watcher: &mut dyn Watcher) -> Result<Lock, HubError> {
        Lock::take(&self.locks.join(format!("{name}.lock")), &mut |path| {
            watcher.waiting(path)
        })
        .map_err(|(path, source)| HubError::File { path, source })
    }

    /// What is here of a revision.
    ///
    /// # Errors
    ///
    /// Nothing is, or it cannot be read.
    pub fn listing(&self, revision: &Revision) -> Result<Listing, HubError> {
        let missing = || HubError::Offline {
            what: format!("{}@{revision}", self.name),
        };
        let commit = self.commit(revision).ok_or_else(missing)?;
        let root = self.snapshot(&commit);
        let mut files = Vec::new();
        walk(&root, "", MAX_DEPTH, &mut files).map_err(HubError::file(&root))?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        match files.is_empty() {
            true => Err(missing()),
            false => Ok(Listing {
                commit,
                licence: None,
                files,
            }),
        }
    }
}

/// Collects the files under a folder whose links lead somewhere; a link to a folder, which may lead
/// back up, is not followed.
fn walk(dir: &Path, prefix: &str, depth: usize, files: &mut Vec<RemoteFile>) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let path = format!("{prefix}{name}");
        let is_folder = entry.file_type()?.is_dir();
        match fs::metadata(entry.path()) {
            Ok(_) if is_folder && depth > 0 => {
                walk(&entry.path(), &format!("{path}/"), depth - 1, files)?;
            }
            Ok(meta) if meta.is_file() && files.len() < MAX_FILES => files.push(RemoteFile {
                path,
                size: Some(meta.len()),
                id: None,
            }),
            _ => {}
        }
    }
    Ok(())
}

/// Makes the folder of a file.
///
/// # Errors
///
/// What the system says.
pub fn make_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

/// Name of a temporary file beside another, different in every process.
fn aside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    // Left by a process of the same number that was killed.
    let _ = fs::remove_file(&aside);
    aside
}

/// Writes a small file aside and renames it into place.
///
/// # Errors
///
/// What the system says.
pub fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let aside = aside(path);
    // Never through a link that somebody put there.
    let mut file = File::create_new(&aside)?;
    write(&mut file)
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&aside, path))
        .inspect_err(|_| {
            let _ = fs::remove_file(&aside);
        })
}

/// A held lock; let go when dropped or when the process ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of a file; `waiting` is told before another process is waited for.
    ///
    /// # Errors
    ///
    /// The file and what the system says.
    pub fn take(path: &Path, waiting: &mut dyn FnMut(&Path)) -> Result<Lock, (PathBuf, io::Error)> {
        let mut take = || {
            make_parent(path)?;
            let options = File::options().create(true).append(true).open(path);
            let file = options?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    waiting(path);
                    file.lock()?;
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
            Ok(Lock { _file: file })
        };
        take().map_err(|source| (path.to_owned(), source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "7e3e67edbbed1bf9888184d9df282b700a323964";
    const HELLO: &str = "ce013625030ba8dba906f756967f9e9ca394464a";

    fn cached(root: &Path) -> CachedRepository {
        Cache::new(root.to_owned()).repository(&"o/n".parse().unwrap())
    }

    #[test]
    fn a_snapshot_holds_relative_links_to_blobs() {
        let dir = tempfile::tempdir().unwrap();
        let cached = cached(dir.path());
        let id = ContentId::parse(HELLO).unwrap();
        make_parent(&cached.blob(id)).unwrap();
        fs::write(cached.blob(id), "hello\n").unwrap();
        for path in ["config.json", "onnx/deep/model.onnx"] {
            for _ in 0..2 {
                let link = cached.link(COMMIT, path, id).unwrap();
                assert_eq!(fs::read_to_string(&link).unwrap(), "hello\n");
                assert!(fs::read_link(&link).unwrap().is_relative());
            }
        }
        let revision = "refs/pr/1".parse().unwrap();
        assert!(cached.listing(&revision).is_err());
        cached.remember(&revision, COMMIT).unwrap();
        let listing = cached.listing(&revision).unwrap();
        let paths: Vec<_> = listing
            .files
            .iter()
            .map(|file| file.path.as_str())
            .collect();
        assert_eq!(paths, ["config.json", "onnx/deep/model.onnx"]);
        assert_eq!(listing.files[0].size, Some(6));
        // A link that leads back up would be a folder in a folder without end.
        symlink(".", cached.snapshot(COMMIT).join("again")).unwrap();
        assert_eq!(cached.listing(&revision).unwrap(), listing);
        // A link whose blob has gone is no file.
        fs::remove_file(cached.blob(id)).unwrap();
        assert!(cached.listing(&revision).is_err());
    }

    #[test]
    fn a_damaged_reference_means_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let cached = cached(dir.path());
        let revision: Revision = "main".parse().unwrap();
        cached.remember(&revision, COMMIT).unwrap();
        assert_eq!(cached.commit(&revision).as_deref(), Some(COMMIT));
        fs::write(cached.dir().join("refs/main"), "../../..").unwrap();
        assert_eq!(cached.commit(&revision), None);
    }

    #[test]
    fn a_lock_excludes_until_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("locks/x.lock");
        let lock = Lock::take(&path, &mut |_| panic!("nobody holds it")).unwrap();
        let other = File::options().append(true).open(&path).unwrap();
        assert!(matches!(other.try_lock(), Err(TryLockError::WouldBlock)));
        drop(lock);
        assert!(other.try_lock().is_ok());
    }
}
