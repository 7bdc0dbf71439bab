//! The `ocelli` binary, run as a user runs it.

use std::env;
use std::ffi::OsStr;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// A run that takes longer than this is a hang.
const TIME_LIMIT: Duration = Duration::from_secs(300);

/// What a run left behind.
#[derive(Debug)]
pub struct Outcome {
    /// Exit code; `None` when a signal ended the process.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// The binary: `OCELLI_BINARY` if set, else built beside the running test by `cargo build`.
pub fn binary() -> PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY
        .get_or_init(|| env::var_os("OCELLI_BINARY").map_or_else(build, PathBuf::from))
        .clone()
}

/// Builds the binary into the folder and profile of the running test.
fn build() -> PathBuf {
    let test = env::current_exe().expect("a running program has a path");
    let profile_dir = test
        .parent()
        .and_then(|deps| deps.parent())
        .expect("tests run from <profile>/deps");
    let target_dir = profile_dir.parent().expect("a profile has a target folder");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.args([
        "build",
        "--quiet",
        // The selection of the tests, so that dependencies keep their features and are not built again.
        "--workspace",
        "--bin",
        "ocelli",
        "--target-dir",
    ]);
    cargo.arg(target_dir);
    if profile_dir.file_name() == Some(OsStr::new("release")) {
        cargo.arg("--release");
    }
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "building ocelli failed: {status}");
    profile_dir.join("ocelli")
}

/// Runs `ocelli` with `args` and no standard input, to its end or the time limit.
pub fn ocelli<I, S>(args: I) -> Outcome
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new(binary());
    command.args(args);
    ocelli_with(command)
}

/// Runs a command of [`binary`] with no standard input, to its end or the time limit.
pub fn ocelli_with(mut command: Command) -> Outcome {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stdout = collect(child.stdout.take().expect("stdout is piped"));
    let stderr = collect(child.stderr.take().expect("stderr is piped"));
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            break status;
        }
        if start.elapsed() > TIME_LIMIT {
            let _ = child.kill();
            panic!("{command:?} still runs after {TIME_LIMIT:?}");
        }
        thread::sleep(Duration::from_millis(5));
    };
    let text =
        |reader: thread::JoinHandle<String>| reader.join().expect("reading a pipe does not panic");
    Outcome {
        code: status.code(),
        stdout: text(stdout),
        stderr: text(stderr),
    }
}

/// Reads a pipe to its end on a thread of its own, so that neither pipe can fill up.
fn collect(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
