//! The emulator's process and its sockets.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::{Error, host};

/// A running emulator; dropping it is pulling the plug.
pub(crate) struct Qemu {
    child: Mutex<Child>,
    folder: TempDir,
}

impl Qemu {
    /// A command that dies with this process, even when this process is killed.
    pub(crate) fn command() -> Command {
        let mut command = host::command("setpriv");
        command.args(["--pdeathsig", "KILL", "qemu-system-aarch64"]);
        command
    }

    /// Starts the emulator. `folder` holds its sockets.
    pub(crate) fn start(mut command: Command, folder: TempDir) -> Result<Qemu, Error> {
        let path = folder.path().join("stderr");
        let stderr = fs::File::create(&path).map_err(Error::io("making", &path))?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr);
        let child = spawn(command).map_err(Error::io("starting", "qemu-system-aarch64"))?;
        Ok(Qemu {
            child: Mutex::new(child),
            folder,
        })
    }

    /// The folder of sockets and files of this run.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Connects to a socket the emulator listens on, within `limit`.
    pub(crate) fn connect(&self, name: &str, limit: Duration) -> Result<UnixStream, Error> {
        let path: PathBuf = self.folder().join(name);
        let start = Instant::now();
        loop {
            match UnixStream::connect(&path) {
                Ok(stream) => return Ok(stream),
                Err(_) if self.is_running() && start.elapsed() < limit => {
                    thread::sleep(Duration::from_millis(2));
                }
                Err(_) if !self.is_running() => {
                    return Err(Error::Ended {
                        what: format!("connecting to {name}"),
                        console: self.stderr(),
                    });
                }
                Err(source) => return Err(Error::io("connecting to", &path)(source)),
            }
        }
    }

    /// What the emulator complained about.
    pub(crate) fn stderr(&self) -> String {
        fs::read_to_string(self.folder().join("stderr")).unwrap_or_default()
    }

    pub(crate) fn is_running(&self) -> bool {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(child.try_wait(), Ok(None))
    }

    /// Waits for the emulator to end by itself; says whether it did.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        let start = Instant::now();
        while self.is_running() {
            if start.elapsed() > limit {
                return false;
            }
            thread::sleep(Duration::from_millis(5));
        }
        true
    }

    /// Kills the emulator at once, as a power cut does.
    pub(crate) fn kill(&self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The signal at the parent's death is sent when the *thread* that started the child ends, so
/// one thread that never ends starts them all.
fn spawn(command: Command) -> std::io::Result<Child> {
    type Order = (Command, Sender<std::io::Result<Child>>);
    static STARTER: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, answer) in inbox {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(orders)
    });
    let (answer, answers) = mpsc::channel();
    let ended = |_| std::io::Error::other("the starting thread has ended");
    let orders = starter.lock().unwrap_or_else(PoisonError::into_inner);
    orders
        .send((command, answer))
        .map_err(|_| ended(mpsc::RecvError))?;
    answers.recv().map_err(ended)?
}
