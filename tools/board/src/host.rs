//! Programs of the host: which must be there, and running them with a deadline.

use std::env;
use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::Error;

/// Folders of administrators' programs, which an ordinary user's `PATH` may lack.
const SYSTEM_FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// A program or file the board cannot do without.
struct Needed {
    name: &'static str,
    package: &'static str,
}

const PROGRAMS: &[Needed] = &[
    needed("qemu-system-aarch64", "qemu-system-arm"),
    needed("apt-get", "apt"),
    needed("apt-cache", "apt"),
    needed("dpkg-deb", "dpkg"),
    needed("mke2fs", "e2fsprogs"),
    needed("e2fsck", "e2fsprogs"),
    needed("debugfs", "e2fsprogs"),
    needed("zstd", "zstd"),
    needed("setpriv", "util-linux"),
];

const FILES: &[Needed] = &[needed(
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "debian-archive-keyring",
)];

const fn needed(name: &'static str, package: &'static str) -> Needed {
    Needed { name, package }
}

/// Programs and files the host lacks, and the Debian packages that bring them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Missing {
    /// Names of programs and files.
    pub names: Vec<&'static str>,
    /// Names of packages, each once.
    pub packages: Vec<&'static str>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.names.len() == 1 { "is" } else { "are" };
        let names = self.names.join(", ");
        let packages = self.packages.join(" ");
        write!(f, "{names} {verb} not installed; apt install {packages}")
    }
}

impl Missing {
    /// Looks for everything the board needs on this host.
    ///
    /// # Errors
    ///
    /// What is not there.
    pub fn check() -> Result<(), Missing> {
        let programs = PROGRAMS.iter().filter(|p| find(p.name).is_none());
        let files = FILES
            .iter()
            .filter(|f| !std::path::Path::new(f.name).exists());
        let mut missing = Missing {
            names: Vec::new(),
            packages: Vec::new(),
        };
        for item in programs.chain(files) {
            missing.names.push(item.name);
            if !missing.packages.contains(&item.package) {
                missing.packages.push(item.package);
            }
        }
        if missing.names.is_empty() {
            Ok(())
        } else {
            Err(missing)
        }
    }
}

/// The path of a program.
fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(SYSTEM_FOLDERS.iter().map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// A command for a program of the host, found in the system's folders too.
pub(crate) fn command(name: &str) -> Command {
    Command::new(find(name).unwrap_or_else(|| PathBuf::from(name)))
}

/// What a program printed and how it ended.
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a program without input to its end, or kills it after `limit`.
pub(crate) fn outcome(command: &mut Command, limit: Duration) -> Result<Outcome, Error> {
    let program = describe(command);
    let fail = |detail: String| Error::Program {
        program: program.clone(),
        detail,
    };
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| fail(error.to_string()))?;
    let stdout = child.stdout.take().map(collect);
    let stderr = child.stderr.take().map(collect);
    let start = Instant::now();
    let mut late = false;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if start.elapsed() > limit => {
                late = true;
                let _ = child.kill();
            }
            Ok(None) => {}
            Err(error) => return Err(fail(error.to_string())),
        }
        thread::sleep(Duration::from_millis(5));
    };
    if late {
        return Err(fail(format!("still running after {limit:?}")));
    }
    let text = |reader: Option<thread::JoinHandle<String>>| {
        reader
            .and_then(|thread| thread.join().ok())
            .unwrap_or_default()
    };
    Ok(Outcome {
        code: status.code(),
        stdout: text(stdout),
        stderr: text(stderr),
    })
}

/// Runs a program that must end with status 0 and returns its standard output.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Result<String, Error> {
    let outcome = outcome(command, limit)?;
    if outcome.code == Some(0) {
        return Ok(outcome.stdout);
    }
    let all = outcome.stdout + &outcome.stderr;
    Err(Error::Program {
        program: describe(command),
        detail: format!("exit {:?}: {}", outcome.code, tail(&all, 2000)),
    })
}

/// The last `n` bytes of a text, from the start of a character.
pub(crate) fn tail(text: &str, n: usize) -> &str {
    let mut start = text.len().saturating_sub(n);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].trim()
}

pub(crate) fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

fn collect(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
