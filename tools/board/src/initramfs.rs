//! The guest's root file system: programs and libraries of the packages, modules, our scripts.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::Error;
use crate::cpio::Cpio;
use crate::modules::Modules;

const PROGRAMS: &str = include_str!("../guest/programs");
const FOLDERS: [&str; 20] = [
    "bin",
    "board",
    "board/in",
    "data",
    "dev",
    "etc",
    "etc/modules",
    "lib",
    "lib/aarch64-linux-gnu",
    "lib/modules",
    "proc",
    "root",
    "run",
    "sbin",
    "sys",
    "tmp",
    "usr",
    "usr/bin",
    "usr/lib",
    "usr/lib/aarch64-linux-gnu",
];
const LIBRARY_FOLDERS: [&str; 3] = ["lib", "lib/aarch64-linux-gnu", "usr/lib/aarch64-linux-gnu"];
/// Our files in the guest: path, mode, content.
const SCRIPTS: &[(&str, u32, &str)] = &[
    ("init", 0o755, include_str!("../guest/init")),
    (
        "bin/board-camera",
        0o755,
        include_str!("../guest/board-camera"),
    ),
    (
        "bin/board-modules",
        0o755,
        include_str!("../guest/board-modules"),
    ),
    (
        "etc/board-links",
        0o755,
        include_str!("../guest/board-links"),
    ),
    ("etc/mdev.conf", 0o644, include_str!("../guest/mdev.conf")),
    ("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\n"),
    ("etc/group", 0o644, "root:x:0:\n"),
];

/// Everything that decides what is in the archive besides the packages, for the key of an image.
pub(crate) fn recipe() -> impl Iterator<Item = &'static str> {
    let lists = [
        PROGRAMS,
        include_str!("../guest/modules"),
        include_str!("initramfs.rs"),
    ];
    SCRIPTS.iter().map(|script| script.2).chain(lists)
}

/// Builds the archive from the unpacked packages in `root` and the kernel package in `kernel`.
pub(crate) fn build(root: &Path, kernel: &Path) -> Result<Vec<u8>, Error> {
    let mut cpio = Cpio::default();
    FOLDERS.iter().for_each(|folder| cpio.directory(folder));
    // The kernel opens it for the first process before anything is mounted.
    cpio.device("dev/console", (5, 1));
    for (path, mode, content) in SCRIPTS {
        cpio.file(path, *mode, content.as_bytes());
    }
    add_programs(&mut cpio, root)?;
    for folder in LIBRARY_FOLDERS {
        add_libraries(&mut cpio, root, folder)?;
    }
    add_modules(&mut cpio, kernel)?;
    Ok(cpio.finish())
}

fn add_programs(cpio: &mut Cpio, root: &Path) -> Result<(), Error> {
    for line in PROGRAMS.lines().filter(|line| !line.starts_with('#')) {
        let (path, links) = line.split_once(" -> ").unwrap_or((line, ""));
        cpio.file(path, 0o755, &read(&root.join(path))?);
        for link in links.split_whitespace() {
            cpio.link(&format!("bin/{link}"), "busybox");
        }
    }
    Ok(())
}

/// Adds the shared libraries of one folder, without the folders below it.
fn add_libraries(cpio: &mut Cpio, root: &Path, folder: &str) -> Result<(), Error> {
    let path = root.join(folder);
    let mut names: Vec<_> = fs::read_dir(&path)
        .map_err(Error::io("listing", &path))?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.contains(".so"))
        .collect();
    names.sort();
    for name in names {
        let (file, inside) = (path.join(&name), format!("{folder}/{name}"));
        if let Ok(target) = fs::read_link(&file) {
            cpio.link(&inside, &target.to_string_lossy());
        } else if file.is_file() {
            let mode = fs::metadata(&file).map_or(0o755, |m| m.permissions().mode() & 0o777);
            cpio.file(&inside, mode, &read(&file)?);
        }
    }
    Ok(())
}

fn add_modules(cpio: &mut Cpio, kernel: &Path) -> Result<(), Error> {
    let modules = kernel.join("lib/modules");
    let release = fs::read_dir(&modules)
        .map_err(Error::io("listing", &modules))?
        .flatten()
        .next()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .unwrap_or_default();
    let folder = format!("lib/modules/{release}");
    cpio.directory(&folder);
    let mut added = Vec::new();
    for group in Modules::index(&modules.join(&release))?.groups()? {
        let mut order = String::new();
        for file in group.files {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            // The camera is plugged in on its own, with parameters.
            if name != "vivid.ko" {
                order.push_str(&format!("{name}\n"));
            }
            if !added.contains(&file) {
                cpio.file(&format!("{folder}/{name}"), 0o644, &read(&file)?);
                added.push(file.clone());
            }
        }
        cpio.file(
            &format!("etc/modules/{}", group.name),
            0o644,
            order.as_bytes(),
        );
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(Error::io("reading", path))
}
