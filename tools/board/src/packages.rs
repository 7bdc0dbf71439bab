//! Debian packages for arm64, chosen and fetched by apt in a private state.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::{Error, host};

const LIST: &str = include_str!("../guest/packages");
const SUITE: &str = "bookworm";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Overrides the mirror of the host's apt.
const MIRROR_VARIABLE: &str = "OCELLI_BOARD_MIRROR";
/// How the address of a Debian archive ends.
const DEBIAN: &str = "/debian";
const LIMIT: Duration = Duration::from_secs(300);
/// Options of the host's apt that say how to reach a mirror from here.
const HOST_OPTIONS: [&str; 3] = ["Acquire::http", "Acquire::Check-", "Acquire::Retries"];

/// One package in one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
}

impl Package {
    /// Whether this is the kernel.
    pub(crate) fn is_kernel(&self) -> bool {
        self.name.starts_with("linux-image-")
    }

    /// The form `name=version` that apt takes.
    fn exactly(&self) -> String {
        format!("{}={}", self.name, self.version)
    }
}

/// The names asked for, one a line, without the comments.
pub(crate) fn wanted() -> impl Iterator<Item = &'static str> {
    LIST.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// What is installed nowhere and knows only arm64: apt with a state of its own.
pub(crate) struct Archive {
    folder: PathBuf,
}

impl Archive {
    /// Sets the private state up in `folder`. The host's dpkg status is neither read nor written.
    pub(crate) fn open(folder: PathBuf) -> Result<Archive, Error> {
        for name in ["state/lists/partial", "cache/archives/partial", "debs"] {
            let path = folder.join(name);
            fs::create_dir_all(&path).map_err(Error::io("making", &path))?;
        }
        let archive = Archive { folder };
        archive.write("state/status", "")?;
        archive.write("sources.list", &sources()?)?;
        let options = archive.options()?;
        archive.write("apt.conf", &options)?;
        Ok(archive)
    }

    /// Asks the mirror which versions are current.
    pub(crate) fn resolve(&self) -> Result<Vec<Package>, Error> {
        host::run(self.apt("apt-get").arg("update"), LIMIT)?;
        let kernel = self.kernel()?;
        let mut command = self.apt("apt-get");
        command
            .args(["--simulate", "--yes", "install"])
            .args(wanted().filter(|name| *name != "kernel"));
        let plan = host::run(&mut command, LIMIT)?;
        let mut packages: Vec<Package> = plan.lines().filter_map(planned).collect();
        packages.push(kernel);
        Ok(packages)
    }

    /// Fetches what is not there yet and returns the files in the order of `packages`.
    pub(crate) fn fetch(&self, packages: &[Package]) -> Result<Vec<PathBuf>, Error> {
        let debs = self.folder.join("debs");
        let absent: Vec<String> = packages
            .iter()
            .filter(|package| self.file(package).is_none())
            .map(Package::exactly)
            .collect();
        if !absent.is_empty() {
            let mut command = self.apt("apt-get");
            command.current_dir(&debs).arg("download").args(&absent);
            host::run(&mut command, LIMIT)?;
        }
        let file = |package: &Package| {
            self.file(package).ok_or_else(|| Error::Unexpected {
                what: format!("fetching {}", package.exactly()),
                found: format!("no such file in {}", debs.display()),
            })
        };
        packages.iter().map(file).collect()
    }

    /// The kernel package that `linux-image-arm64` stands for today.
    fn kernel(&self) -> Result<Package, Error> {
        let mut command = self.apt("apt-cache");
        command.args(["show", "--no-all-versions", "linux-image-arm64"]);
        let record = host::run(&mut command, LIMIT)?;
        let depends = record
            .lines()
            .find_map(|line| line.strip_prefix("Depends: "))
            .unwrap_or_default();
        let mut words = depends
            .split([' ', ',', '(', ')', '='])
            .filter(|w| !w.is_empty());
        match (words.next(), words.next()) {
            (Some(name), Some(version)) if name.starts_with("linux-image-") => Ok(Package {
                name: name.to_owned(),
                version: version.to_owned(),
            }),
            _ => Err(Error::Unexpected {
                what: "the kernel linux-image-arm64 depends on".to_owned(),
                found: format!("{depends:?}"),
            }),
        }
    }

    /// The fetched file of a package. Apt writes `:` of versions as `%3a`.
    fn file(&self, package: &Package) -> Option<PathBuf> {
        let version = package.version.replace(':', "%3a");
        let name = |architecture: &str| format!("{}_{version}_{architecture}.deb", package.name);
        ["arm64", "all"]
            .map(|architecture| self.folder.join("debs").join(name(architecture)))
            .into_iter()
            .find(|path| path.is_file())
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = host::command(program);
        command
            .env("APT_CONFIG", self.folder.join("apt.conf"))
            .env("LC_ALL", "C");
        command
    }

    fn write(&self, name: &str, text: &str) -> Result<(), Error> {
        let path = self.folder.join(name);
        fs::write(&path, text).map_err(Error::io("writing", &path))
    }

    /// The host's own configuration is left out but for how to reach the mirror: its hooks would
    /// touch the host.
    fn options(&self) -> Result<String, Error> {
        let folder = self.folder.display();
        let mut text = format!(
            "APT::Architecture \"arm64\";\n\
             APT::Architectures {{ \"arm64\"; }};\n\
             APT::Install-Recommends \"false\";\n\
             APT::Sandbox::User \"\";\n\
             Acquire::Languages \"none\";\n\
             Debug::NoLocking \"true\";\n\
             Dir::Cache \"{folder}/cache\";\n\
             Dir::Etc::main \"/dev/null\";\n\
             Dir::Etc::parts \"/dev/null\";\n\
             Dir::Etc::sourcelist \"{folder}/sources.list\";\n\
             Dir::Etc::sourceparts \"/dev/null\";\n\
             Dir::Log \"{folder}\";\n\
             Dir::State \"{folder}/state\";\n\
             Dir::State::status \"{folder}/state/status\";\n"
        );
        let dump = host::run(host::command("apt-config").arg("dump"), LIMIT)?;
        for line in dump.lines() {
            if HOST_OPTIONS.iter().any(|option| line.starts_with(option)) {
                text.push_str(line);
                text.push('\n');
            }
        }
        Ok(text)
    }
}

/// Where packages come from, part of the key of an image: the mirror of the host's own apt, or the
/// one that the environment names.
pub(crate) fn sources() -> Result<String, Error> {
    let mirror = match std::env::var(MIRROR_VARIABLE) {
        Ok(mirror) => mirror,
        Err(_) => {
            let mut command = host::command("apt-get");
            command.args(["indextargets", "--format", "$(REPO_URI)"]);
            let listing = host::run(command.env("LC_ALL", "C"), LIMIT)?;
            mirror_in(&listing).ok_or_else(|| Error::Unexpected {
                what: "the mirror of Debian among this machine's apt sources".to_owned(),
                found: format!(
                    "none ends in {DEBIAN}; set {MIRROR_VARIABLE} to the address under which debian/ and \
                     debian-security/ lie"
                ),
            })?
        }
    };
    let line = |archive: &str, suite: &str| {
        format!("deb [arch=arm64 signed-by={KEYRING}] {mirror}/{archive} {suite} main\n")
    };
    Ok(line("debian", SUITE)
        + &line("debian", &format!("{SUITE}-updates"))
        + &line("debian-security", &format!("{SUITE}-security")))
}

/// What stands before `/debian` in the first address of a list that ends in it.
fn mirror_in(addresses: &str) -> Option<String> {
    let mirrors = addresses
        .lines()
        .filter_map(|line| line.trim_end_matches('/').strip_suffix(DEBIAN));
    mirrors.map(str::to_owned).next()
}

/// Reads a line `Inst NAME (VERSION ...` of a simulated installation.
fn planned(line: &str) -> Option<Package> {
    let (name, rest) = line.strip_prefix("Inst ")?.split_once(" (")?;
    let version = rest.split_whitespace().next()?;
    Some(Package {
        name: name.to_owned(),
        version: version.to_owned(),
    })
}

/// Unpacks a package file into a folder; nothing of it is run.
pub(crate) fn unpack(deb: &Path, into: &Path) -> Result<(), Error> {
    let mut command = host::command("dpkg-deb");
    host::run(command.arg("--extract").arg(deb).arg(into), LIMIT).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_that_of_the_first_debian_archive() {
        let listing = "http://security.example/debian-security/\nhttp://one.example/pub/debian/\nhttp://two.example/debian\n";
        assert_eq!(mirror_in(listing).unwrap(), "http://one.example/pub");
        assert_eq!(mirror_in("http://archive.example/ubuntu/\n"), None);
        assert_eq!(mirror_in(""), None);
    }

    #[test]
    fn a_planned_package_is_read_with_its_epoch() {
        let line = "Inst busybox-static (1:1.35.0-4+b1 Debian:12.15/oldstable [arm64])";
        let package = planned(line).unwrap();
        assert_eq!(package.exactly(), "busybox-static=1:1.35.0-4+b1");
        assert_eq!(planned("Conf busybox-static (1:1.35 Debian)"), None);
    }
}
