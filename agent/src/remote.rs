//! A second opinion from an OpenAI-compatible model on another machine.
//!
//! | file | defines |
//! |---|---|
//! | [`settings`] | the `[remote]` table of the configuration |
//! | [`exchange`] | the request and what an answer means, without I/O |
//! | `worker` | the thread that asks |
//!
//! Off unless configured. A picture leaves the device only if the caller allows it with the very
//! question; without that no connection is made.
//!
//! Source: OpenAI API reference, chat completions.

pub mod exchange;
pub mod settings;
mod worker;

pub use exchange::{Form, Heard};
pub use settings::{Settings, SettingsError};

use crate::mailbox::Mailbox;
use ocelli_reflex::QuestionId;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use worker::Shared;

/// Questions that wait; one more is refused.
pub const MAX_WAITING: usize = 4;
/// Answers that wait to be taken; while there are so many, questions are refused.
pub const MAX_ANSWERS: usize = 16;

/// A question about a picture.
#[derive(Clone, Debug)]
pub struct RemoteQuestion {
    /// Comes back with the answer.
    pub id: QuestionId,
    /// The picture as JPEG file bytes.
    pub jpeg: Vec<u8>,
    /// What is asked.
    pub prompt: String,
    /// What it is to be answered with.
    pub form: Form,
    /// Tokens the answer may have.
    pub max_tokens: u16,
    /// Give up after this time; `timeout_s` holds, too.
    pub within: Duration,
}

/// How a question ended.
#[derive(Debug)]
pub struct RemoteAnswer {
    /// The question.
    pub id: QuestionId,
    /// What was answered.
    pub result: Result<Heard, RemoteError>,
}

/// What was asked on a day; kept by the caller over restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Spent {
    /// The day, counted from any.
    pub day: u64,
    /// Questions sent on it, failed ones included.
    pub questions: u32,
}

/// Why there is no second opinion.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// Settings.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The thread or its descriptors cannot be had.
    #[error(
        "the remote model cannot be asked: {source}; check the limits of open files and processes"
    )]
    Start {
        /// What the system said.
        source: std::io::Error,
    },
    /// Pictures may not leave the device.
    #[error("pictures may not leave this device; set `privacy.remote_images = true` to allow it")]
    ImagesStay,
    /// The day's questions are used up.
    #[error(
        "{spent} questions were sent today, the limit is `remote.per_day = {limit}`; it begins anew tomorrow"
    )]
    Budget {
        /// Sent today.
        spent: u32,
        /// Most a day.
        limit: u32,
    },
    /// Too many questions or answers wait.
    #[error("{waiting} remote questions wait, the limit is {limit}; ask less often")]
    Full {
        /// How many wait.
        waiting: usize,
        /// Most that may.
        limit: usize,
    },
    /// The request is too long.
    #[error(
        "the request has {bytes} bytes, the limit is `remote.max_bytes = {limit}`; make the picture smaller or the limit higher"
    )]
    TooLong {
        /// Its length.
        bytes: usize,
        /// Most it may have.
        limit: usize,
    },
    /// The key cannot be read.
    #[error("{}: the key of the remote model cannot be read: {source}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The certificate authorities cannot be read.
    #[error("{}: the certificate authorities cannot be read: {reason}; install `ca-certificates` or set `remote.ca`", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// No answer in time.
    #[error("{url}: no answer in {} ms; check the network, or allow more with `remote.timeout_s` and the rule's `deadline`", within.as_millis())]
    Timeout {
        /// Where it was asked.
        url: String,
        /// The time it had.
        within: Duration,
    },
    /// No connection, or it broke.
    #[error("{url}: {reason}; check `remote.url`, the network and this device's clock")]
    Connection {
        /// Where it was asked.
        url: String,
        /// What happened.
        reason: String,
    },
    /// The server refused.
    #[error(
        "{url} answered with status {status}: {text}; 401 and 403 speak of `remote.key_file`, 404 of `remote.url` or `remote.model`, 429 of too many questions"
    )]
    Status {
        /// Where it was asked.
        url: String,
        /// The status.
        status: u16,
        /// The begin of what it said.
        text: String,
    },
    /// The answer cannot be read.
    #[error("{url} gave no chat completion: {reason}; is it an OpenAI-compatible server?")]
    Malformed {
        /// Where it was asked.
        url: String,
        /// What is wrong.
        reason: String,
    },
}

/// The remote model. Dropping it gives up what waits; a question under way ends by itself.
pub struct Remote {
    shared: Arc<Shared>,
    _thread: JoinHandle<()>,
}

impl Remote {
    /// Starts the thread that asks; `spent` is what an earlier run used up.
    ///
    /// # Errors
    ///
    /// [`RemoteError::Settings`], [`RemoteError::Start`].
    pub fn start(settings: &Settings, spent: Spent) -> Result<Remote, RemoteError> {
        settings.check()?;
        let begin = || -> std::io::Result<Remote> {
            let answers = Mailbox::new(MAX_ANSWERS)?;
            let shared = Arc::new(Shared::new(settings.clone(), answers, spent));
            let theirs = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name("remote".to_owned());
            Ok(Remote {
                shared,
                _thread: thread.spawn(move || worker::run(&theirs))?,
            })
        };
        begin().map_err(|source| RemoteError::Start { source })
    }

    /// Asks; exactly one answer follows unless it is cancelled. `allow_images` is the owner's word
    /// that pictures may leave the device, `day` the number of today.
    ///
    /// # Errors
    ///
    /// [`RemoteError`]: nothing was sent, and no answer follows.
    pub fn ask(
        &self,
        question: RemoteQuestion,
        allow_images: bool,
        day: u64,
    ) -> Result<(), RemoteError> {
        if !allow_images {
            return Err(RemoteError::ImagesStay);
        }
        self.shared.accept(question, day)
    }

    /// Forgets a question. If it is under way, its answer is thrown away.
    pub fn cancel(&self, id: QuestionId) {
        self.shared.cancel(id);
    }

    /// What was used up, to be kept over restarts.
    pub fn spent(&self) -> Spent {
        self.shared.spent()
    }

    /// The next answer.
    pub fn try_next(&self) -> Option<RemoteAnswer> {
        self.shared.answers().take()
    }

    /// Readable while an answer waits.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.shared.answers().as_fd()
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

#[cfg(test)]
mod tests;
