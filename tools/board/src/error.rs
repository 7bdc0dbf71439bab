//! What can go wrong with a board.

use std::path::Path;
use std::time::Duration;

use crate::host::Missing;

/// Why the board did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The host lacks programs.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// A program of the host failed.
    #[error("{program} failed: {detail}")]
    Program {
        /// The command as it was run.
        program: String,
        /// Its exit and the end of what it printed.
        detail: String,
    },
    /// A file or socket of the host could not be used.
    #[error("{what}: {source}")]
    Io {
        /// What was tried on which path.
        what: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Something did not happen in time.
    #[error("{what}: not within {limit:?}; last lines of the console:\n{console}")]
    Deadline {
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
        /// The end of the guest's console.
        console: String,
    },
    /// The emulator ended by itself.
    #[error("{what}: the emulator has ended; last lines of the console:\n{console}")]
    Ended {
        /// What was under way.
        what: String,
        /// The end of the guest's console and of the emulator's errors.
        console: String,
    },
    /// The emulator refused a monitor command.
    #[error("the emulator refuses {command}: {reason}")]
    Refused {
        /// The command.
        command: String,
        /// The emulator's words.
        reason: String,
    },
    /// A command in the guest ended with another status than 0.
    #[error("`{command}` ended with {status}: {stdout}\nlast lines of the console:\n{console}")]
    Status {
        /// The shell command.
        command: String,
        /// Its exit status.
        status: i32,
        /// What it printed.
        stdout: String,
        /// The end of the guest's console, standard error included.
        console: String,
    },
    /// Bytes of the emulator or of a file are not what they should be.
    #[error("{what}: {found}")]
    Unexpected {
        /// What was read.
        what: String,
        /// What stood there instead.
        found: String,
    },
}

impl Error {
    /// Names the file of an I/O error: `doing` is a verb in the present participle.
    pub(crate) fn io(
        doing: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(std::io::Error) -> Error {
        let what = format!("{doing} {}", path.as_ref().display());
        move |source| Error::Io { what, source }
    }
}
