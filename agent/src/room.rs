//! Whether there is room: on disks for files that will come, in memory for packing.

use nix::sys::statvfs::statvfs;
use ocelli_runtime::memory;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What a disk keeps free, in bytes: a full one stops journals and logs.
pub const RESERVE_BYTES: u64 = 64 << 20;

/// Why there is not enough room.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RoomError {
    /// A disk.
    #[error(
        "{}: {} MB are needed there, {} MB are free and {} MB of them stay so; make room, or name another folder with HF_HOME or OCELLI_MODELS",
        path.display(), needed.div_ceil(1_000_000), free / 1_000_000, RESERVE_BYTES / 1_000_000
    )]
    Disk {
        /// A folder on it.
        path: PathBuf,
        /// Bytes that will be written.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// The memory.
    #[error(
        "packing needs about {needed_mb} MB of memory, {available_mb} MB are available, of the machine or of a control group; stop other programs, raise the limit of the group, or pack on another machine and bring the pack (`ocelli models add`); --force tries it"
    )]
    Memory {
        /// What is needed, in MB.
        needed_mb: u64,
        /// What there is, in MB.
        available_mb: u64,
    },
}

/// The nearest folder above a path that exists.
fn existing(path: &Path) -> Option<&Path> {
    path.ancestors().find(|path| path.exists())
}

/// Checks that disks have room for so many bytes each; folders on one disk count together. What
/// cannot be told counts as room.
///
/// # Errors
///
/// [`RoomError::Disk`] for the first disk that has not.
pub fn check_disks(needs: &[(&Path, u64)]) -> Result<(), RoomError> {
    let mut disks: Vec<(u64, &Path, u64)> = Vec::new();
    for (path, bytes) in needs {
        let Some(folder) = existing(path) else {
            continue;
        };
        let Ok(device) = fs::metadata(folder).map(|meta| meta.dev()) else {
            continue;
        };
        match disks.iter_mut().find(|disk| disk.0 == device) {
            Some(disk) => disk.2 = disk.2.saturating_add(*bytes),
            None => disks.push((device, folder, *bytes)),
        }
    }
    for (_, path, needed) in disks {
        let Ok(disk) = statvfs(path) else { continue };
        let free = disk.blocks_available().saturating_mul(disk.fragment_size());
        if needed > 0 && needed.saturating_add(RESERVE_BYTES) > free {
            return Err(RoomError::Disk {
                path: path.to_owned(),
                needed,
                free,
            });
        }
    }
    Ok(())
}

/// Checks that this process can have so much memory: of the machine, and of every control group it
/// is in; where that cannot be told, it can.
///
/// # Errors
///
/// [`RoomError::Memory`].
pub fn check_memory(needed: u64) -> Result<(), RoomError> {
    check_memory_within(Path::new("/"), needed)
}

fn check_memory_within(root: &Path, needed: u64) -> Result<(), RoomError> {
    match memory::available_within(root) {
        Some(available) => compare_memory(needed, available >> 20),
        None => Ok(()),
    }
}

fn compare_memory(needed: u64, available_mb: u64) -> Result<(), RoomError> {
    let needed_mb = needed.div_ceil(1 << 20);
    match needed_mb > available_mb {
        true => Err(RoomError::Memory {
            needed_mb,
            available_mb,
        }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_on_one_disk_count_together_even_before_they_exist() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a/b/c"), dir.path().join("d"));
        assert!(check_disks(&[(&a, 1), (&b, 1)]).is_ok());
        let disk = statvfs(dir.path()).unwrap();
        let free = disk.blocks_available() * disk.fragment_size();
        let error = check_disks(&[(&a, free / 2 + 1), (&b, free / 2 + 1)]).unwrap_err();
        assert!(matches!(error, RoomError::Disk { needed, .. } if needed >= free));
        assert!(check_disks(&[(&a, u64::MAX), (&b, u64::MAX)]).is_err());
    }

    #[test]
    fn the_tightest_control_group_counts() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let check = |mb: u64| check_memory_within(root.path(), mb << 20);
        assert!(check(u64::from(u32::MAX)).is_ok());
        put("proc/meminfo", "MemAvailable: 1024000 kB\n");
        assert!(check(1000).is_ok() && check(1001).is_err());
        put("proc/self/cgroup", "0::/a/b\n");
        put("sys/fs/cgroup/a/b/memory.max", "max\n");
        put("sys/fs/cgroup/a/b/memory.current", "1000\n");
        put("sys/fs/cgroup/a/memory.max", "314572800\n");
        put("sys/fs/cgroup/a/memory.current", "104857600\n");
        assert!(check(200).is_ok());
        let error = check(201).unwrap_err();
        assert!(
            error.to_string().contains("200 MB are available"),
            "{error}"
        );
        put("proc/self/cgroup", "7:memory:/c\n");
        put("sys/fs/cgroup/memory/memory.limit_in_bytes", "104857600\n");
        put("sys/fs/cgroup/memory/memory.usage_in_bytes", "0\n");
        assert!(check(100).is_ok() && check(101).is_err());
    }

    #[test]
    fn memory_is_compared_in_whole_megabytes() {
        assert!(compare_memory(100 << 20, 100).is_ok());
        assert!(compare_memory((100 << 20) + 1, 100).is_err());
        assert!(compare_memory(0, 0).is_ok());
    }
}
