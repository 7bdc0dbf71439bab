//! Packs put in place: written aside, checked, renamed; and what is remembered of them.

use crate::cli::Global;
use crate::fault::Fault;
use crate::gate;
use crate::hub::cache::{Lock, replace};
use crate::hub::digest::ContentId;
use crate::model::{self, DEFAULT};
use crate::progress::Progress;
use crate::remark::remark;
use crate::signature::{self, Keys, SignatureError, Signed};
use crate::verbs::pack;
use ocelli_runtime::LoadError;
use ocelli_runtime::file::open_regular;
use ocelli_runtime::import::Published;
use ocelli_runtime::pack::Pack;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Longest name of an installed model, in bytes.
const MAX_NAME_BYTES: usize = 100;
/// Longest record, in bytes.
const MAX_RECORD_BYTES: u64 = 256 << 10;
/// Bytes copied at a time.
const CHUNK: usize = 1 << 20;
/// Folder of the records.
const RECORDS: &str = ".records";
/// What a pack's name ends with while it is written.
const PARTIAL: &str = "ocelli.partial";

/// Checks a pack that is about to be installed, before it gets its name: structure, bounds, the
/// checksum of every tensor, its probes on this CPU.
///
/// # Errors
///
/// What is wrong with it.
pub fn check(path: &Path) -> Result<Arc<Pack>, Fault> {
    let pack = Arc::new(Pack::open(path).map_err(LoadError::from)?);
    pack.verify().map_err(LoadError::from)?;
    gate::check(&pack, &gate::kernels()?)?;
    Ok(pack)
}

/// Where an installed pack came from. It belongs to the pack's content, not to its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Repository or file.
    pub source: String,
    /// The commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The files it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Licence by the model's card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// When it was installed, in seconds since 1970.
    pub installed_at: u64,
    /// Its signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

impl Record {
    /// A record of something that is installed now.
    pub fn now(source: impl Into<String>) -> Record {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Record {
            source: source.into(),
            installed_at: since.map_or(0, |since| since.as_secs()),
            ..Record::default()
        }
    }

    fn path(dir: &Path, pack: &Pack) -> PathBuf {
        let hash = ContentId::Sha256(pack.header_sha256());
        dir.join(RECORDS).join(format!("{hash}.json"))
    }

    /// The record of a pack in the folder of installed models; none of one that was put there by
    /// hand, or whose record is damaged.
    pub fn of(dir: &Path, pack: &Pack) -> Option<Record> {
        let file = open_regular(&Record::path(dir, pack)).ok()?;
        let mut bytes = Vec::new();
        file.take(MAX_RECORD_BYTES).read_to_end(&mut bytes).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    fn write(&self, dir: &Path, pack: &Pack) -> io::Result<()> {
        let path = Record::path(dir, pack);
        fs::create_dir_all(dir.join(RECORDS))?;
        let bytes = serde_json::to_vec(self).map_err(io::Error::other)?;
        replace(&path, |file| file.write_all(&bytes))
    }
}

/// Whether an installed pack is whose the owner wants it to be; `None` while no key is configured.
///
/// # Errors
///
/// It is not.
pub fn check_signature(
    path: &Path,
    record: Option<&Record>,
    keys: &Keys,
) -> Result<Option<Signed>, SignatureError> {
    if keys.is_empty() {
        return Ok(None);
    }
    let kept = record.and_then(|record| record.signature.clone());
    let signature = match kept {
        Some(signature) => Some(signature),
        None => signature::read(&signature::beside(path))?,
    };
    keys.check(path, signature.as_deref()).map(Some)
}

/// Says what names installed models may have.
///
/// # Errors
///
/// [`Fault::Argument`].
pub fn check_name(name: &str) -> Result<(), Fault> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let sound = (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.bytes().all(plain)
        && !name.starts_with(['.', '-'])
        && name != DEFAULT;
    match sound {
        true => Ok(()),
        false => Err(Fault::Argument(format!(
            "a model cannot be installed as {name:?}: write at most {MAX_NAME_BYTES} letters, digits, `-`, `_` and `.`, beginning with a letter or digit, and not \"{DEFAULT}\"; --name gives it another name"
        ))),
    }
}

/// A name in the folder of installed models, locked while something is put there.
#[derive(Debug)]
pub struct Slot {
    dir: PathBuf,
    name: String,
    partial: PathBuf,
    // Let go after the partial file is removed: fields are dropped after the slot itself.
    _lock: Lock,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.partial);
    }
}

impl Slot {
    /// Takes a name; waits for another process that has it. Removes what killed processes left.
    ///
    /// # Errors
    ///
    /// A bad name, a folder that cannot be written.
    pub fn open(global: &Global, name: &str) -> Result<Slot, Fault> {
        check_name(name)?;
        let dir = model::installed_dir();
        let file_fault = |path: PathBuf, source| Fault::File { path, source };
        fs::create_dir_all(&dir).map_err(|source| file_fault(dir.clone(), source))?;
        sweep(&dir);
        let lock = Lock::take(&lock_path(&dir, name), &mut |_| {
            if !global.quiet {
                remark!("ocelli: another process installs {name}; waiting for it");
            }
        });
        let lock = lock.map_err(|(path, source)| file_fault(path, source))?;
        Ok(Slot {
            partial: dir.join(format!(".{name}.{PARTIAL}")),
            dir,
            name: name.to_owned(),
            _lock: lock,
        })
    }

    /// The folder of installed models.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the pack will be.
    pub fn target(&self) -> PathBuf {
        model::installed_path(&self.dir, &self.name)
    }

    fn fault(&self) -> impl FnOnce(io::Error) -> Fault + use<> {
        let path = self.partial.clone();
        |source| Fault::File { path, source }
    }

    fn create(&self) -> Result<File, Fault> {
        let _ = fs::remove_file(&self.partial);
        let mut options = File::options();
        options.create_new(true).read(true).write(true);
        options.open(&self.partial).map_err(self.fault())
    }

    /// Packs a model aside.
    ///
    /// # Errors
    ///
    /// See [`pack::write`].
    pub fn pack(
        &self,
        global: &Global,
        model: &Published,
        progress: &mut Progress,
    ) -> Result<(), Fault> {
        let file = self.create()?;
        let out = (&file, self.partial.as_path());
        let options = pack::options(global);
        pack::write(global, &self.name, model, &options, out, progress)?;
        progress.clear();
        Ok(())
    }

    /// Copies a pack aside.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or written.
    pub fn copy(&self, from: &Path, progress: &mut Progress) -> Result<(), Fault> {
        let input = |source| Fault::Input {
            path: from.to_owned(),
            source,
        };
        let mut source = open_regular(from).map_err(input)?;
        let total = source.metadata().map_err(input)?.len();
        let mut file = self.create()?;
        let mut part = vec![0; CHUNK];
        let mut done = 0u64;
        loop {
            let n = source.read(&mut part).map_err(input)?;
            if n == 0 {
                break;
            }
            file.write_all(&part[..n]).map_err(self.fault())?;
            done += n as u64;
            progress.show(&format!(
                "copying {}: {} of {} MB",
                self.name,
                done / 1_000_000,
                total / 1_000_000
            ));
        }
        progress.clear();
        file.sync_all().map_err(self.fault())
    }

    /// Checks what was put aside, remembers where it came from, and gives it its name.
    ///
    /// # Errors
    ///
    /// The pack is damaged or not signed as the owner wants; nothing is installed then.
    pub fn install(self, record: &Record, keys: &Keys) -> Result<Installed, Fault> {
        let pack = check(&self.partial)?;
        let target = self.target();
        if !keys.is_empty() {
            keys.check(&self.partial, record.signature.as_deref())
                .map_err(|error| error.of_pack(&record.source))?;
        }
        record.write(&self.dir, &pack).map_err(self.fault())?;
        let before = Pack::open(&target).ok();
        fs::rename(&self.partial, &target).map_err(self.fault())?;
        let synced = File::open(&self.dir).and_then(|dir| dir.sync_all());
        synced.map_err(self.fault())?;
        if let Some(before) = before.filter(|old| old.header_sha256() != pack.header_sha256()) {
            forget(&self.dir, &before);
            // It spoke of the pack that was here before.
            let _ = fs::remove_file(signature::beside(&target));
        }
        Ok(Installed {
            name: self.name.clone(),
            bytes: pack.len() as u64,
            path: target,
        })
    }
}

/// A pack in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Its name.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
}

/// Removes the record of a content, unless an installed pack still has it.
fn forget(dir: &Path, pack: &Pack) {
    let has_it = |name: &String| {
        Pack::open(&model::installed_path(dir, name))
            .is_ok_and(|other| other.header_sha256() == pack.header_sha256())
    };
    if !model::installed_names().iter().any(has_it) {
        let _ = fs::remove_file(Record::path(dir, pack));
    }
}

/// Takes an installed pack away, with its record and signature.
///
/// # Errors
///
/// It cannot be removed.
pub fn remove(global: &Global, name: &str) -> Result<(), Fault> {
    let slot = Slot::open(global, name)?;
    let target = slot.target();
    let pack = Pack::open(&target).ok();
    fs::remove_file(&target).map_err(|source| Fault::File {
        path: target.clone(),
        source,
    })?;
    if let Some(pack) = pack {
        forget(slot.dir(), &pack);
    }
    let _ = fs::remove_file(signature::beside(&target));
    File::open(slot.dir())
        .and_then(|dir| dir.sync_all())
        .map_err(slot.fault())
}

fn lock_path(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!(".{name}.lock"))
}

/// Removes partial files that no process works on.
fn sweep(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let of = name
            .strip_prefix('.')
            .and_then(|name| name.strip_suffix(PARTIAL)?.strip_suffix('.'));
        let Some(of) = of else { continue };
        let lock = File::options().append(true).open(lock_path(dir, of));
        if lock.is_ok_and(|lock| lock.try_lock().is_ok()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
