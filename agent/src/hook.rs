//! Hooks: programs of the owner that may object before an action, or are told or do something after.
//!
//! | file | defines |
//! |---|---|
//! | [`verdict`] | what a program said, and what its end means |
//! | `child` | one running program, its pipes and its process group |
//! | `worker` | the thread that starts, feeds, reads and ends them |
//!
//! A program is started without a shell, in its own process group, in `/`, with nothing of our
//! environment but `PATH`, `LANG` and `TZ`. It reads one JSON object on standard input. At its end,
//! its time-out or a cancellation its whole group is killed. Whatever is not a clean pass denies.

mod child;
pub mod verdict;
mod worker;

use crate::mailbox::Mailbox;
use ocelli_reflex::observation::{HookVerdict, Outcome};
use ocelli_reflex::{ActId, CallId};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use worker::Shared;

/// Programs that run at the same time; others wait with their time running.
pub const MAX_RUNNING: usize = 4;
/// Jobs that wait for a place; one more is refused.
pub const MAX_WAITING: usize = 16;
/// Reports that wait to be taken; while there are so many, jobs are refused.
pub const MAX_REPORTS: usize = 64;
/// Longest input of a program, in bytes.
pub const MAX_INPUT_BYTES: usize = 64 << 10;
/// Longest standard output of a program that gives a verdict, in bytes.
pub const MAX_OUTPUT_BYTES: usize = 64 << 10;

/// What a program is run for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HookId {
    /// A call before or after an action.
    Call(CallId),
    /// The action of a rule.
    Act(ActId),
}

impl From<CallId> for HookId {
    fn from(id: CallId) -> HookId {
        HookId::Call(id)
    }
}

impl From<ActId> for HookId {
    fn from(id: ActId) -> HookId {
        HookId::Act(id)
    }
}

/// A program to be run.
#[derive(Clone, Debug)]
pub struct HookJob {
    /// What for; comes back in the report.
    pub id: HookId,
    /// Program and arguments. The program is an absolute path or a name found in `PATH`.
    pub command: Vec<String>,
    /// Written to its standard input, at most [`MAX_INPUT_BYTES`].
    pub input: serde_json::Value,
    /// Time from now to the report, waiting for a place included.
    pub timeout: Duration,
    /// Whether a verdict is expected on its standard output; else its exit code is all.
    pub wants_verdict: bool,
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookReport {
    /// The job.
    pub id: HookId,
    /// What it said. Without `wants_verdict`: `Pass` after exit code 0, else `Failed`.
    pub verdict: HookVerdict,
    /// Whether it ran to a good end.
    pub outcome: Outcome,
    /// Its reason, or what went wrong, with the first line of its standard error. One line; may be
    /// empty.
    pub remark: String,
}

/// Why a program was not run. The caller treats it as a failed hook.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HookError {
    /// Too many jobs or reports wait.
    #[error(
        "{waiting} hook calls wait, the limit is {limit}; shorten the hooks' `timeout`, or call them for fewer actions"
    )]
    Full {
        /// Calls waiting.
        waiting: usize,
        /// Most that may wait.
        limit: usize,
    },
    /// The input is too long.
    #[error(
        "the hook's input has {bytes} bytes, the limit is {limit}; shorten the payload of the action"
    )]
    Input {
        /// Its length.
        bytes: usize,
        /// Most it may have.
        limit: usize,
    },
    /// The thread or its descriptors cannot be had.
    #[error("hooks cannot be run: {source}; check the limits of open files and processes")]
    Start {
        /// What the system said.
        source: std::io::Error,
    },
}

/// The programs of the owner. Dropping it kills what runs.
pub struct Hooks {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Hooks {
    /// Starts the thread that looks after the programs.
    ///
    /// # Errors
    ///
    /// [`HookError::Start`].
    pub fn start() -> Result<Hooks, HookError> {
        let begin = || -> std::io::Result<Hooks> {
            let shared = Arc::new(Shared::new(Mailbox::new(MAX_REPORTS)?)?);
            let theirs = Arc::clone(&shared);
            let thread = std::thread::Builder::new()
                .name("hooks".to_owned())
                .spawn(move || worker::run(&theirs))?;
            Ok(Hooks {
                shared,
                thread: Some(thread),
            })
        };
        begin().map_err(|source| HookError::Start { source })
    }

    /// Runs a program; exactly one report follows unless it is cancelled.
    ///
    /// # Errors
    ///
    /// [`HookError`]: it is not run, and no report follows.
    pub fn call(&self, job: HookJob) -> Result<(), HookError> {
        let mut input = job.input.to_string().into_bytes();
        input.push(b'\n');
        if input.len() > MAX_INPUT_BYTES {
            return Err(HookError::Input {
                bytes: input.len(),
                limit: MAX_INPUT_BYTES,
            });
        }
        self.shared.accept(job, input)
    }

    /// Kills a program, or forgets it if it waits. No report follows, except one that waits already.
    pub fn cancel(&self, id: impl Into<HookId>) {
        self.shared.cancel(id.into());
    }

    /// The next report.
    pub fn try_next(&self) -> Option<HookReport> {
        self.shared.reports().take()
    }

    /// Readable while a report waits.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.shared.reports().as_fd()
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        self.shared.stop();
        if let Some(thread) = self.thread.take() {
            // It only sends kills before it ends; it waits for nobody.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
