//! The gate: a model whose probes this CPU's kernels do not compute is refused.
//!
//! What held once is remembered in the user's cache folder, by CPU, kernel, program and pack, so
//! that it costs nothing at the next start. A cache that cannot be written is no fault: the probes
//! run again.

use crate::fault::Fault;
use crate::hub::digest::ContentId;
use crate::threads;
use crate::user_cache::cache_folder;
use ocelli_boards::Tree;
use ocelli_kernels::Compute;
use ocelli_kernels::isa::Isa;
use ocelli_runtime::pack::Pack;
use ocelli_runtime::probe::{Depth, ProbeError, Probes};
use ocelli_runtime::weights::Region;
use ocelli_runtime::{LoadError, Vlm};
use sha2::{Digest, Sha256};
use std::env;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

/// What was found out about a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All probes hold.
    Holds,
    /// The pack carries no probes.
    NoProbes,
}

/// This CPU's kernels, as every verb uses them.
///
/// # Errors
///
/// `OCELLI_KERNEL` names one that cannot run here.
pub fn kernels() -> Result<Arc<Compute>, Fault> {
    let compute = Compute::new(threads::available()).map_err(LoadError::from)?;
    Ok(Arc::new(compute))
}

/// Runs every probe of a pack that was just written, before it gets the name `path`.
///
/// # Errors
///
/// A pack that cannot be read, or a probe that does not hold.
pub fn check_written(file: &File, path: &Path, kernels: &Arc<Compute>) -> Result<Verdict, Fault> {
    let region = Region::of_file(file).map_err(|source| Fault::File {
        path: path.to_owned(),
        source,
    })?;
    let pack = Pack::from_region(region, &path.display().to_string()).map_err(LoadError::from)?;
    check(&Arc::new(pack), kernels)
}

/// Runs every probe of an opened pack.
///
/// # Errors
///
/// A probe that does not hold.
pub fn check(pack: &Arc<Pack>, kernels: &Arc<Compute>) -> Result<Verdict, Fault> {
    match Probes::of(pack).map_err(ProbeError::from)? {
        None => Ok(Verdict::NoProbes),
        Some(probes) => {
            probes.check(pack, kernels, Depth::Whole)?;
            Ok(Verdict::Holds)
        }
    }
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
    let folder = cache_folder("probes", env::var_os);
    let mark = folder.map(|folder| folder.join(mark(&pack, vlm.kernel_name())));
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

/// Name of the mark for a pack on this CPU with this kernel and program.
fn mark(pack: &[u8; 32], kernel: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(pack);
    let processor = ocelli_boards::processor(&Tree::default());
    for part in [kernel, &Isa::probe().to_string(), &processor, &program()] {
        hash.update(part);
        hash.update([0]);
    }
    ContentId::Sha256(hash.finalize().into()).to_string()
}

/// What tells builds of this program apart without reading it: version, size, time of change.
fn program() -> String {
    let file = env::current_exe().and_then(fs::metadata);
    let file = file.map(|file| format!("{} {} {}", file.len(), file.mtime(), file.mtime_nsec()));
    format!("{} {}", env!("CARGO_PKG_VERSION"), file.unwrap_or_default())
}
