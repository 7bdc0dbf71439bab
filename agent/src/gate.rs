//! The gate: a model whose probes this CPU's kernels do not compute is refused.
//!
//! What held once is remembered in the user's cache folder, by CPU, kernel, program and pack, so
//! that it costs nothing at the next start. A cache that cannot be written is no fault: the probes
//! run again.

use crate::fault::Fault;
use ocelli_kernels::isa::Isa;
use ocelli_runtime::pack::Pack;
use ocelli_runtime::probe::{self, Depth, ProbeError, Probes};
use ocelli_runtime::weights::Region;
use ocelli_runtime::{LoadError, Vlm};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What was found out about a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All probes hold.
    Holds,
    /// The pack carries no probes.
    NoProbes,
}

/// Runs every probe of a pack that was just written, before it gets the name `path`.
///
/// # Errors
///
/// A pack that cannot be read, or a probe that does not hold.
pub fn check_written(file: &File, path: &Path) -> Result<Verdict, Fault> {
    let region = Region::of_file(file).map_err(|source| Fault::File {
        path: path.to_owned(),
        source,
    })?;
    let pack = Pack::from_region(region, &path.display().to_string()).map_err(LoadError::from)?;
    check(&Arc::new(pack))
}

/// Runs every probe of an opened pack on this CPU's kernels.
///
/// # Errors
///
/// A probe that does not hold.
pub fn check(pack: &Arc<Pack>) -> Result<Verdict, Fault> {
    let compute = Arc::new(probe::this_cpu(threads())?);
    match Probes::of(pack).map_err(ProbeError::from)? {
        None => Ok(Verdict::NoProbes),
        Some(probes) => {
            probes.check(pack, &compute, Depth::Whole)?;
            Ok(Verdict::Holds)
        }
    }
}

/// Threads of a check.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// Runs the quick probes of a loaded model, unless they held before.
///
/// # Errors
///
/// A probe that does not hold.
pub fn at_start(vlm: &Vlm) -> Result<(), Fault> {
    let Some(pack) = vlm.sha256() else {
        return Ok(());
    };
    let mark = cache_dir().map(|dir| dir.join("probes").join(mark(&pack, vlm.kernel_name())));
    if mark.as_ref().is_some_and(|mark| mark.exists()) {
        return Ok(());
    }
    if vlm.check_probes(Depth::Products)? {
        let written = mark.map(|mark| {
            fs::create_dir_all(mark.parent().unwrap_or(Path::new(".")))?;
            fs::write(mark, [])
        });
        // A folder that cannot be written: they run again.
        drop(written);
    }
    Ok(())
}

/// The folder of what may be forgotten.
fn cache_dir() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    // A service's cache folder comes first: it may have no home.
    if let Some(dir) = variable("CACHE_DIRECTORY") {
        return Some(PathBuf::from(dir));
    }
    match variable("XDG_CACHE_HOME") {
        Some(cache) => Some(PathBuf::from(cache).join("ocelli")),
        None => Some(PathBuf::from(variable("HOME")?).join(".cache/ocelli")),
    }
}

/// Name of the mark for a pack on this CPU with this kernel and program.
fn mark(pack: &[u8; 32], kernel: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(pack);
    for part in [kernel, &Isa::probe().to_string(), &processor(), &program()] {
        hash.update(part);
        hash.update([0]);
    }
    let digest = hash.finalize();
    digest[..16].iter().fold(String::new(), |mut name, byte| {
        let _ = write!(name, "{byte:02x}");
        name
    })
}

/// The lines of `/proc/cpuinfo` that tell processors apart, each once.
fn processor() -> String {
    const FIELDS: [&str; 6] = [
        "model name",
        "stepping",
        "CPU implementer",
        "CPU part",
        "CPU variant",
        "CPU revision",
    ];
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mut lines: Vec<&str> = text
        .lines()
        .filter(|line| FIELDS.iter().any(|field| line.starts_with(field)))
        .collect();
    lines.sort_unstable();
    lines.dedup();
    lines.join("\n")
}

/// What tells builds of this program apart without reading it: version, size, time of change.
fn program() -> String {
    let file = std::env::current_exe().and_then(fs::metadata);
    let file = file.map(|file| format!("{} {} {}", file.len(), file.mtime(), file.mtime_nsec()));
    format!("{} {}", env!("CARGO_PKG_VERSION"), file.unwrap_or_default())
}
