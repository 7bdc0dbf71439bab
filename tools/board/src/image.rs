//! Kernel and root file system of the guest, built once and kept under `target/board`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::host::Missing;
use crate::packages::{self, Archive, Package};
use crate::{Error, initramfs};

/// A guest ready to be booted.
#[derive(Clone, Debug)]
pub struct Image {
    folder: PathBuf,
}

impl Image {
    /// Finds the image in the cache, or fetches packages and builds it (about 20 s and 90 MB).
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] if the host lacks programs; else what could not be fetched or written.
    pub fn prepare() -> Result<Image, Error> {
        Missing::check()?;
        let cache = cache()?;
        let _lock = lock(&cache.join("image.lock"))?;
        let record = cache.join("versions");
        if let Some(packages) = recorded(&record) {
            match Image::build(&cache, &packages) {
                Ok(image) => return Ok(image),
                // A version that left the mirror: ask for the current ones.
                Err(Error::Program { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let packages = Archive::open(cache.join("apt"))?.resolve()?;
        let image = Image::build(&cache, &packages)?;
        let lines = packages
            .iter()
            .map(|p| format!("{} {}\n", p.name, p.version));
        let text = request()? + "\n" + &lines.collect::<String>();
        fs::write(&record, text).map_err(Error::io("writing", &record))?;
        Ok(image)
    }

    /// The kernel.
    pub fn kernel(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    /// The first file system, a cpio archive.
    pub fn initramfs(&self) -> PathBuf {
        self.folder.join("initramfs")
    }

    /// The folder of this image, where what depends on it may be kept.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn build(cache: &Path, packages: &[Package]) -> Result<Image, Error> {
        let folder = cache.join(key(packages));
        if folder.join("initramfs").is_file() {
            return Ok(Image { folder });
        }
        let archive = Archive::open(cache.join("apt"))?;
        let debs = archive.fetch(packages)?;
        let work = tempfile::Builder::new()
            .prefix("unpacked-")
            .tempdir_in(cache)
            .map_err(Error::io("making a folder in", cache))?;
        let (root, kernel) = (work.path().join("root"), work.path().join("kernel"));
        for (package, deb) in packages.iter().zip(&debs) {
            let into = if package.is_kernel() { &kernel } else { &root };
            packages::unpack(deb, into)?;
        }
        let built = work.path().join("built");
        fs::create_dir(&built).map_err(Error::io("making", &built))?;
        let archive = initramfs::build(&root, &kernel)?;
        fs::write(built.join("initramfs"), archive).map_err(Error::io("writing", &built))?;
        let vmlinuz = only_kernel(&kernel.join("boot"))?;
        fs::copy(&vmlinuz, built.join("vmlinuz")).map_err(Error::io("copying", &vmlinuz))?;
        fs::rename(&built, &folder).map_err(Error::io("moving an image to", &folder))?;
        Ok(Image { folder })
    }
}

/// `target/board` of the workspace, or the folder `OCELLI_BOARD_CACHE`.
pub(crate) fn cache() -> Result<PathBuf, Error> {
    let standard = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/board");
    let folder = std::env::var_os("OCELLI_BOARD_CACHE").map_or_else(standard, PathBuf::from);
    fs::create_dir_all(&folder).map_err(Error::io("making", &folder))?;
    fs::canonicalize(&folder).map_err(Error::io("finding", &folder))
}

/// Waits for a lock that other processes and threads heed; it ends with the returned file.
pub(crate) fn lock(path: &Path) -> Result<File, Error> {
    let file = File::create(path).map_err(Error::io("making", path))?;
    file.lock().map_err(Error::io("locking", path))?;
    Ok(file)
}

/// Hash of what is asked for; recorded versions hold as long as it stays the same.
fn request() -> Result<String, Error> {
    let wanted = packages::wanted().map(str::to_owned);
    Ok(digest(wanted.chain([packages::sources()?])))
}

fn key(packages: &[Package]) -> String {
    let versions = packages.iter().map(|p| format!("{} {}", p.name, p.version));
    digest(versions.chain(initramfs::recipe().map(str::to_owned)))
}

/// 16 hex digits over texts, each ended by a zero byte.
pub(crate) fn digest(texts: impl Iterator<Item = String>) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update(text.as_bytes());
        hash.update([0]);
    }
    hash.finalize()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The versions of an earlier run, if they answer the present request.
fn recorded(path: &Path) -> Option<Vec<Package>> {
    let text = fs::read_to_string(path).ok()?;
    let (first, rest) = text.split_once('\n')?;
    if first != request().ok()? {
        return None;
    }
    let package = |line: &str| {
        let (name, version) = line.split_once(' ')?;
        Some(Package {
            name: name.to_owned(),
            version: version.to_owned(),
        })
    };
    rest.lines().map(package).collect()
}

fn only_kernel(boot: &Path) -> Result<PathBuf, Error> {
    fs::read_dir(boot)
        .map_err(Error::io("listing", boot))?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-"))
        })
        .ok_or_else(|| Error::Unexpected {
            what: format!("the kernel in {}", boot.display()),
            found: "no vmlinuz".to_owned(),
        })
}
