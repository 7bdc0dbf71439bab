//! One line on stderr that says what is going on, when a person is watching.

use crate::cli::Global;
use std::io::{IsTerminal, Write};

/// A line that is rewritten in place; silent when stderr is no terminal or with `--quiet`.
#[derive(Debug)]
pub struct Progress {
    enabled: bool,
    shown: bool,
}

impl Progress {
    /// A line that obeys the flags.
    pub fn new(global: &Global) -> Progress {
        Progress {
            enabled: !global.quiet && std::io::stderr().is_terminal(),
            shown: false,
        }
    }

    /// Whether anybody sees it.
    pub fn is_shown(&self) -> bool {
        self.enabled
    }

    /// Shows a text instead of the last one.
    pub fn show(&mut self, text: &str) {
        if self.enabled {
            // A terminal that cannot be written to is no reason to stop working.
            let _ = write!(std::io::stderr(), "\r\x1b[2K{text}");
            let _ = std::io::stderr().flush();
            self.shown = true;
        }
    }

    /// Removes the line, so that other output starts on a clean one.
    pub fn clear(&mut self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[2K");
            let _ = std::io::stderr().flush();
            self.shown = false;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
