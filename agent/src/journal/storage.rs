//! [`Storage`]: the few file operations the journal stands on.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// A folder of files. What a call did is on the disk only after [`sync`](Self::sync) of the file
/// and, for creations, renamings and removals, [`sync_folder`](Self::sync_folder). All calls fail as
/// the system reports it.
#[expect(clippy::missing_errors_doc, reason = "said once for all calls")]
pub trait Storage {
    /// Names of the files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Size of a file in bytes.
    fn size(&self, name: &str) -> io::Result<u64>;
    /// The first `limit` bytes of a file, or all of it if it is shorter.
    fn read(&self, name: &str, limit: u64) -> io::Result<Vec<u8>>;
    /// Makes an empty file; there must be none of that name.
    fn create(&mut self, name: &str) -> io::Result<()>;
    /// Adds bytes to the end of a file. After an error part of them may be there.
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Returns when the content of a file is on the disk.
    fn sync(&mut self, name: &str) -> io::Result<()>;
    /// Returns when the names of the files are on the disk.
    fn sync_folder(&mut self) -> io::Result<()>;
    /// Cuts a file off.
    fn truncate(&mut self, name: &str, n_bytes: u64) -> io::Result<()>;
    /// Gives a file another name, in one step, in place of any other of that name.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&mut self, name: &str) -> io::Result<()>;
}

/// A folder of the file system.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
    /// Files written to, until they are renamed or removed or another is made.
    open: HashMap<String, File>,
}

impl Disk {
    /// A folder, made if it is not there.
    ///
    /// # Errors
    ///
    /// As the system reports them.
    pub fn open(folder: &Path) -> io::Result<Disk> {
        fs::create_dir_all(folder)?;
        Ok(Disk {
            folder: folder.to_path_buf(),
            open: HashMap::new(),
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn file(&mut self, name: &str) -> io::Result<&mut File> {
        if !self.open.contains_key(name) {
            let file = OpenOptions::new().append(true).open(self.path(name))?;
            self.open.insert(name.to_owned(), file);
        }
        self.open
            .get_mut(name)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Storage for Disk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            // The journal makes no names that are not UTF-8.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn size(&self, name: &str) -> io::Result<u64> {
        Ok(fs::metadata(self.path(name))?.len())
    }

    fn read(&self, name: &str, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(self.path(name))?
            .take(limit)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        self.open.clear();
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(self.path(name))?;
        self.open.insert(name.to_owned(), file);
        Ok(())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.file(name)?.write_all(bytes)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.file(name)?.sync_data()
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }

    fn truncate(&mut self, name: &str, n_bytes: u64) -> io::Result<()> {
        self.file(name)?.set_len(n_bytes)
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.open.remove(from);
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.open.remove(name);
        fs::remove_file(self.path(name))
    }
}
