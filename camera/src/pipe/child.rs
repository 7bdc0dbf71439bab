//! A program with its output, in a process group of its own.

use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{ChildStderr, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

/// Time a program gets to end by itself.
const GRACE: Duration = Duration::from_millis(500);
/// Time between looks whether it has.
const LOOK: Duration = Duration::from_millis(5);

/// A running program; stopped and reaped with everything it started in its group.
pub(super) struct Child {
    process: std::process::Child,
    /// Closing it ends the reader, whoever still holds the program's output.
    stop: Option<PipeWriter>,
}

impl Child {
    /// Runs a command without a shell.
    pub(super) fn spawn(arguments: &[String]) -> io::Result<(Child, Output)> {
        let (program, rest) = arguments.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let (stopped, stop) = io::pipe()?;
        let mut process = Command::new(program)
            .args(rest)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
        let child = Child {
            process,
            stop: Some(stop),
        };
        let stdout = stdout.ok_or(io::ErrorKind::BrokenPipe)?;
        Ok((
            child,
            Output {
                stdout,
                stderr,
                stopped,
                said: Stderr::default(),
            },
        ))
    }

    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    /// How the program ended, if it has, in words.
    pub(super) fn exit_status(&self) -> Option<String> {
        match self.ended()? {
            WaitStatus::Exited(_, code) => Some(format!("it ended with exit code {code}")),
            WaitStatus::Signaled(_, signal, _) => Some(format!("it was ended by {signal}")),
            _ => None,
        }
    }

    /// Looks without reaping: until then nobody else gets the number of the process or its group.
    fn ended(&self) -> Option<WaitStatus> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        let status = waitid(Id::Pid(self.pid()), flags).ok()?;
        (status != WaitStatus::StillAlive).then_some(status)
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.process.id().cast_signed())
    }

    /// Ends the whole group, at last by force, and reaps the program.
    pub(super) fn stop(&mut self) {
        self.stop = None;
        // Errors mean that the group is empty already.
        let _ = killpg(self.pid(), Signal::SIGTERM);
        let mut waited = Duration::ZERO;
        while self.ended().is_none() && waited < GRACE {
            thread::sleep(LOOK);
            waited += LOOK;
        }
        let _ = killpg(self.pid(), Signal::SIGKILL);
        let _ = self.process.wait();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.stop.is_some() {
            self.stop();
        }
    }
}

/// The last lines of a program's standard error. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Stderr(Arc<Mutex<Vec<u8>>>);

/// Bytes of standard error that are kept.
const KEPT: usize = 2048;
/// Lines of it that are told.
const TOLD: usize = 3;

impl Stderr {
    fn push(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(bytes);
        let over = kept.len().saturating_sub(KEPT);
        kept.drain(..over);
    }

    /// The last lines, in one.
    pub(super) fn said(&self) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&kept);
        let mut lines: Vec<&str> = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        lines.drain(..lines.len().saturating_sub(TOLD));
        lines.join(" / ")
    }
}

/// The standard output of a program, until it ends or is stopped. Standard error is read alongside.
pub(super) struct Output {
    stdout: ChildStdout,
    stderr: Option<ChildStderr>,
    stopped: PipeReader,
    said: Stderr,
}

impl Output {
    pub(super) fn stderr(&self) -> Stderr {
        self.said.clone()
    }

    /// Waits until one of the three has something to say: output, error, stop.
    fn ready(&self) -> io::Result<[bool; 3]> {
        let watch = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut polled = vec![watch(self.stdout.as_fd()), watch(self.stopped.as_fd())];
        polled.extend(self.stderr.as_ref().map(|stderr| watch(stderr.as_fd())));
        poll(&mut polled, PollTimeout::NONE)?;
        let ready = |index: usize| {
            polled
                .get(index)
                .is_some_and(|fd| fd.any().unwrap_or(false))
        };
        Ok([ready(0), ready(2), ready(1)])
    }

    fn read_stderr(&mut self) {
        let mut bytes = [0; 512];
        let read = self.stderr.as_mut().map(|stderr| stderr.read(&mut bytes));
        match read {
            Some(Ok(count)) if count > 0 => self.said.push(&bytes[..count]),
            _ => self.stderr = None,
        }
    }
}

impl Read for Output {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            let [output, error, stop] = self.ready()?;
            if stop {
                return Ok(0);
            }
            if error {
                self.read_stderr();
            } else if output {
                return self.stdout.read(bytes);
            }
        }
    }
}
