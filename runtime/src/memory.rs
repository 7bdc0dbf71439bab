//! How much memory this process may still take: of the machine, and of its control group.

use std::fs;
use std::path::Path;

/// A pack that memory cannot hold: the system reads its pages again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// Bytes of the pack.
    pub pack: u64,
    /// Bytes that could be had when it was opened.
    pub available: u64,
}

impl Shortage {
    /// The shortage of a pack of so many bytes, if there is one. What the kernel does not tell
    /// counts as enough.
    pub fn of(pack: usize) -> Option<Shortage> {
        Shortage::within(Path::new("/"), pack as u64)
    }

    fn within(root: &Path, pack: u64) -> Option<Shortage> {
        let available = available_within(root)?;
        (pack > available).then_some(Shortage { pack, available })
    }
}

/// Bytes that can be had without taking them from another program: the least of what the machine
/// has and of what every control group above this process leaves. Pages of files count as
/// available, the kernel drops them for others. `None` where the kernel does not tell.
pub fn available_bytes() -> Option<u64> {
    available_within(Path::new("/"))
}

/// [`available_bytes`], as the files below a folder that stands for `/` tell it.
pub fn available_within(root: &Path) -> Option<u64> {
    let machine = machine_bytes(root);
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let of_groups = groups.lines().filter_map(|line| group_bytes(root, line));
    machine.into_iter().chain(of_groups).min()
}

fn machine_bytes(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = (text.lines()).find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// What a line of `/proc/self/cgroup` leaves: `0::/path` (version 2) or `7:memory:/path`.
fn group_bytes(root: &Path, line: &str) -> Option<u64> {
    let mut parts = line.splitn(3, ':');
    let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let (base, files) = if controllers.is_empty() {
        ("sys/fs/cgroup", ["memory.max", "memory.current", "file"])
    } else if controllers.split(',').any(|name| name == "memory") {
        let limit = "memory.limit_in_bytes";
        (
            "sys/fs/cgroup/memory",
            [limit, "memory.usage_in_bytes", "total_cache"],
        )
    } else {
        return None;
    };
    let base = root.join(base);
    let group = base.join(path.trim_start_matches('/'));
    let above = group.ancestors().take_while(|dir| dir.starts_with(&base));
    above.filter_map(|dir| left_in(dir, files)).min()
}

/// Limit minus use, without the pages of files. `max`, which is no number, is no limit.
fn left_in(dir: &Path, [limit, used, cached]: [&str; 3]) -> Option<u64> {
    let read = |name: &str| fs::read_to_string(dir.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let cached = read("memory.stat").and_then(|stat| {
        let mut lines = stat.lines().filter_map(|line| line.split_once(' '));
        lines
            .find(|(name, _)| *name == cached)?
            .1
            .trim()
            .parse()
            .ok()
    });
    let used = number(used)?.saturating_sub(cached.unwrap_or(0));
    Some(number(limit)?.saturating_sub(used))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file tree with these files.
    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    const MEMINFO: (&str, &str) = (
        "proc/meminfo",
        "MemTotal:  4000 kB\nMemFree:  100 kB\nMemAvailable:  2000 kB\n",
    );

    #[test]
    fn the_tightest_of_machine_and_groups_counts() {
        let kb = 1024;
        let v2 = ("proc/self/cgroup", "0::/a/b\n");
        let v1 = ("proc/self/cgroup", "9:cpu:/x\n7:memory:/a\n0::/a\n");
        for (files, expected) in [
            (vec![], None),
            (vec![MEMINFO], Some(2000 * kb)),
            (vec![MEMINFO, v2], Some(2000 * kb)),
            (
                vec![
                    MEMINFO,
                    v2,
                    ("sys/fs/cgroup/a/b/memory.max", "max\n"),
                    ("sys/fs/cgroup/a/b/memory.current", "999\n"),
                    ("sys/fs/cgroup/a/memory.max", "500000\n"),
                    ("sys/fs/cgroup/a/memory.current", "300000\n"),
                    ("sys/fs/cgroup/a/memory.stat", "anon 1000\nfile 250000\n"),
                ],
                Some(450_000),
            ),
            (
                vec![
                    v1,
                    ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "5000\n"),
                    ("sys/fs/cgroup/memory/a/memory.usage_in_bytes", "9000\n"),
                    ("sys/fs/cgroup/memory/a/memory.stat", "total_cache 1000\n"),
                ],
                Some(0),
            ),
            (
                vec![
                    MEMINFO,
                    v1,
                    (
                        "sys/fs/cgroup/memory/a/memory.limit_in_bytes",
                        "9223372036854771712\n",
                    ),
                    ("sys/fs/cgroup/memory/a/memory.usage_in_bytes", "9000\n"),
                ],
                Some(2000 * kb),
            ),
            (vec![("proc/meminfo", "MemAvailable: lots\n")], None),
        ] {
            let root = tree(&files);
            assert_eq!(available_within(root.path()), expected, "{files:?}");
        }
    }

    #[test]
    fn a_pack_is_short_of_memory_when_it_is_larger_than_what_is_left() {
        let root = tree(&[MEMINFO]);
        let available = 2000 * 1024;
        assert_eq!(Shortage::within(root.path(), available), None);
        let pack = available + 1;
        let shortage = Shortage { pack, available };
        assert_eq!(Shortage::within(root.path(), pack), Some(shortage));
        assert_eq!(Shortage::within(tree(&[]).path(), pack), None);
    }
}
