//! [`Child`]: one running program, its pipes and its process group.

use super::MAX_OUTPUT_BYTES;
use super::verdict::End;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{self, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a program sees of our environment.
const PASSED_ON: [&str; 3] = ["PATH", "LANG", "TZ"];
/// Where programs are looked for if we have no `PATH` ourselves.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// How much of standard error is kept to find its first line, in bytes.
const MAX_COMPLAINT_BYTES: usize = 1024;
/// How much is read from one pipe before the others have their turn, in bytes.
const TURN_BYTES: usize = 128 << 10;

/// A running program.
pub(super) struct Child {
    group: Arc<Group>,
    input: Option<(ChildStdin, Vec<u8>)>,
    stdout: Option<ChildStdout>,
    output: Vec<u8>,
    stderr: Option<ChildStderr>,
    complaint: Vec<u8>,
}

/// A process group. Its number stays ours until the leader is reaped, and nobody kills after that.
struct Group {
    leader: Pid,
    end: Mutex<Option<End>>,
}

impl Group {
    fn end(&self) -> MutexGuard<'_, Option<End>> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kill(&self) {
        if self.end().is_none() {
            let _ = killpg(self.leader, Signal::SIGKILL);
        }
    }

    /// Waits for the leader, kills what is left of its group, and reaps.
    fn watch(&self, mut process: process::Child) {
        // Not yet reaped: the group's number cannot become another's before the kill below.
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        while waitid(Id::Pid(self.leader), flags) == Err(Errno::EINTR) {}
        let mut end = self.end();
        let _ = killpg(self.leader, Signal::SIGKILL);
        *end = Some(match process.wait() {
            Ok(status) => match (status.code(), status.signal()) {
                (Some(code), _) => End::Exited(code),
                (None, signal) => End::Signalled(signal.unwrap_or_default()),
            },
            Err(fault) => End::Broken(format!("its end cannot be told: {fault}")),
        });
    }
}

impl Child {
    /// Starts `command` and a thread that waits for its end and then calls `ended`.
    pub(super) fn start(
        command: &[String],
        input: Vec<u8>,
        ended: impl FnOnce() + Send + 'static,
    ) -> io::Result<Child> {
        let mut process = spawn(command)?;
        let leader = i32::try_from(process.id()).map_err(io::Error::other)?;
        let group = Arc::new(Group {
            leader: Pid::from_raw(leader),
            end: Mutex::new(None),
        });
        let (stdin, stdout, stderr) = (
            process.stdin.take(),
            process.stdout.take(),
            process.stderr.take(),
        );
        let watched = Arc::clone(&group);
        let watcher = std::thread::Builder::new().name("hook".to_owned());
        let watching = watcher.spawn(move || {
            watched.watch(process);
            ended();
        });
        if let Err(fault) = watching {
            group.kill();
            let _ = waitpid(group.leader, None);
            return Err(fault);
        }
        let quiet = quieten(&stdin)
            .and_then(|()| quieten(&stdout))
            .and_then(|()| quieten(&stderr));
        if let Err(fault) = quiet {
            group.kill();
            return Err(fault);
        }
        Ok(Child {
            group,
            input: stdin.map(|stdin| (stdin, input)),
            stdout,
            output: Vec::new(),
            stderr,
            complaint: Vec::new(),
        })
    }

    /// Kills the whole group.
    pub(super) fn kill(&self) {
        self.group.kill();
    }

    /// Closes the pipes; what the program still prints is nobody's.
    pub(super) fn forget_pipes(&mut self) {
        self.input = None;
        self.stdout = None;
        self.stderr = None;
    }

    /// Moves bytes both ways as far as that does not block. Returns how the program ended, once all
    /// it printed before is read.
    pub(super) fn pump(&mut self) -> Option<End> {
        // Before reading: what it printed before its end is then in the pipes.
        let end = self.group.end().clone();
        self.write();
        read(&mut self.stdout, &mut self.output, MAX_OUTPUT_BYTES + 1);
        read(&mut self.stderr, &mut self.complaint, MAX_COMPLAINT_BYTES);
        end
    }

    /// Whether the program is gone and reaped.
    pub(super) fn is_gone(&self) -> bool {
        self.group.end().is_some()
    }

    /// What it printed, at most one byte more than it may.
    pub(super) fn output(&self) -> &[u8] {
        &self.output
    }

    /// The begin of its standard error.
    pub(super) fn complaint(&self) -> &[u8] {
        &self.complaint
    }

    /// What to wait for.
    pub(super) fn interests<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        if let Some((stdin, _)) = &self.input {
            fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLOUT));
        }
        if let Some(stdout) = &self.stdout {
            fds.push(PollFd::new(stdout.as_fd(), PollFlags::POLLIN));
        }
        if let Some(stderr) = &self.stderr {
            fds.push(PollFd::new(stderr.as_fd(), PollFlags::POLLIN));
        }
    }

    fn write(&mut self) {
        while let Some((stdin, left)) = &mut self.input {
            match stdin.write(left) {
                Ok(n) if n > 0 && n < left.len() => drop(left.drain(..n)),
                Err(fault) if fault.kind() == ErrorKind::WouldBlock => return,
                Err(fault) if fault.kind() == ErrorKind::Interrupted => {}
                // All is written, or the program does not read it: both are its right.
                _ => self.input = None,
            }
        }
    }
}

fn spawn(command: &[String]) -> io::Result<process::Child> {
    let (program, arguments) = command
        .split_first()
        .ok_or_else(|| io::Error::other("no program is named"))?;
    let environment = PASSED_ON
        .iter()
        .filter_map(|name| Some((OsString::from(name), std::env::var_os(name)?)));
    Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", DEFAULT_PATH)
        .envs(environment)
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

/// Makes our end of a pipe one that does not block.
fn quieten(pipe: &Option<impl AsFd>) -> io::Result<()> {
    let Some(pipe) = pipe else { return Ok(()) };
    fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Reads what is there and keeps it up to `most` bytes.
fn read(pipe: &mut Option<impl Read>, kept: &mut Vec<u8>, most: usize) {
    let mut buffer = [0; 4096];
    let mut turn = 0;
    while let Some(open) = pipe
        && turn < TURN_BYTES
    {
        match open.read(&mut buffer) {
            Ok(0) => *pipe = None,
            Ok(n) => {
                let room = most.saturating_sub(kept.len());
                kept.extend_from_slice(&buffer[..n.min(room)]);
                turn += n;
            }
            Err(fault) if fault.kind() == ErrorKind::WouldBlock => return,
            Err(fault) if fault.kind() == ErrorKind::Interrupted => {}
            Err(_) => *pipe = None,
        }
    }
}
