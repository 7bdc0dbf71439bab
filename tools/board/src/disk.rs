//! Disks of the guest: a folder handed in, and a disk that keeps data over power cuts.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::{Error, host};

const LIMIT: Duration = Duration::from_secs(60);
/// All disks of a kind have one size, as a snapshot remembers it.
const HAND_IN_BYTES: u64 = 256 << 20;
const DATA_BYTES: u64 = 64 << 20;

/// An ext4 file system in a file of the host.
#[derive(Debug)]
pub struct Disk {
    folder: TempDir,
}

impl Disk {
    /// A disk of 256 MiB with the contents of a folder, for reading in the guest.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read or does not fit.
    pub fn of_folder(folder: &Path) -> Result<Disk, Error> {
        let disk = Disk::blank(HAND_IN_BYTES)?;
        let mut command = host::command("mke2fs");
        command.args(["-q", "-t", "ext4", "-O", "^has_journal", "-d"]);
        host::run(command.arg(folder).arg(disk.path()), LIMIT)?;
        Ok(disk)
    }

    /// An empty disk of 64 MiB with a journal, for data.
    ///
    /// # Errors
    ///
    /// When the host's temporary folder is full.
    pub fn for_data() -> Result<Disk, Error> {
        let disk = Disk::blank_data()?;
        let mut command = host::command("mke2fs");
        // Everything is initialised now, so that the kernel does not write on its own later.
        command.args([
            "-q",
            "-t",
            "ext4",
            "-E",
            "lazy_itable_init=0,lazy_journal_init=0",
        ]);
        host::run(command.arg(disk.path()), LIMIT)?;
        Ok(disk)
    }

    /// The file with the disk's bytes.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    /// A disk with the same bytes.
    ///
    /// # Errors
    ///
    /// When the host's temporary folder is full.
    pub fn copy(&self) -> Result<Disk, Error> {
        let folder = folder()?;
        let to = folder.path().join("disk");
        let mut command = host::command("cp");
        host::run(
            command.arg("--sparse=always").arg(self.path()).arg(&to),
            LIMIT,
        )?;
        Ok(Disk { folder })
    }

    /// Repairs the file system as a boot does; says whether it is whole afterwards.
    ///
    /// # Errors
    ///
    /// When e2fsck cannot be run.
    pub fn repair(&self) -> Result<bool, Error> {
        let check = |option: &str| {
            let mut command = host::command("e2fsck");
            host::outcome(command.arg(option).arg(self.path()), LIMIT)
        };
        check("-fy")?;
        Ok(check("-fn")?.code == Some(0))
    }

    /// The content of a file on the disk, `None` if it is not there.
    ///
    /// # Errors
    ///
    /// When debugfs cannot be run.
    pub fn read(&self, path: &str) -> Result<Option<Vec<u8>>, Error> {
        let folder = folder()?;
        let to = folder.path().join("file");
        let request = format!("dump {path} {}", to.display());
        let mut command = host::command("debugfs");
        host::run(command.arg("-R").arg(request).arg(self.path()), LIMIT)?;
        match fs::read(&to) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("reading", &to)(error)),
        }
    }

    pub(crate) fn blank(bytes: u64) -> Result<Disk, Error> {
        let disk = Disk { folder: folder()? };
        let path = disk.path();
        let file = File::create(&path).map_err(Error::io("making", &path))?;
        file.set_len(bytes).map_err(Error::io("growing", &path))?;
        Ok(disk)
    }

    pub(crate) fn blank_data() -> Result<Disk, Error> {
        Disk::blank(DATA_BYTES)
    }

    pub(crate) fn blank_hand_in() -> Result<Disk, Error> {
        Disk::blank(HAND_IN_BYTES)
    }
}

/// A folder for the files of a run, with a path short enough for sockets.
pub(crate) fn folder() -> Result<TempDir, Error> {
    let temp = std::env::temp_dir();
    tempfile::Builder::new()
        .prefix("ocelli-board-")
        .tempdir()
        .map_err(Error::io("making a folder in", temp))
}
