//! What a person, or a program, sees while files come.

use super::pace::Pace;
use crate::cli::Global;
use crate::hub::Watcher;
use crate::hub::download::Fetched;
use crate::hub::listing::RemoteFile;
use crate::progress::Progress;
use crate::remark::remark;
use serde_json::{Value, json};
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// Least time between two JSON lines about one file.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Shows how a transfer goes: a line that is rewritten, or JSON lines.
pub struct Transfer {
    progress: Progress,
    json: bool,
    quiet: bool,
    start: Instant,
    pace: Pace,
    /// Bytes of the files that are done, and of all.
    done: u64,
    total: u64,
    last_line: Option<Instant>,
}

impl Transfer {
    /// Nothing under way.
    pub fn new(global: &Global) -> Transfer {
        Transfer {
            progress: Progress::new(global),
            json: global.json,
            quiet: global.quiet,
            start: Instant::now(),
            pace: Pace::default(),
            done: 0,
            total: 0,
            last_line: None,
        }
    }

    /// These files come next.
    pub fn begin(&mut self, files: &[&RemoteFile]) {
        let sizes = files.iter().filter_map(|file| file.size);
        self.done = 0;
        self.total = sizes.fold(0, u64::saturating_add);
        self.pace = Pace::default();
    }

    /// A file is here.
    ///
    /// # Errors
    ///
    /// Standard output cannot be written.
    pub fn end(&mut self, path: &str, fetched: &Fetched) -> io::Result<()> {
        self.done = self.done.saturating_add(fetched.bytes);
        self.last_line = None;
        if self.json {
            let event = json!({ "event": "file", "path": path, "bytes": fetched.bytes,
                "was_cached": fetched.was_cached });
            writeln!(io::stdout(), "{event}")?;
        }
        Ok(())
    }

    /// Nothing comes any more.
    pub fn clear(&mut self) {
        self.progress.clear();
    }

    fn tell(&self, event: &Value) {
        // The next event that matters reports a reader that has gone.
        let _ = writeln!(io::stdout(), "{event}");
    }
}

impl Watcher for Transfer {
    fn bytes(&mut self, path: &str, done: u64, total: Option<u64>) {
        let now = Instant::now();
        let here = self.done.saturating_add(done);
        self.pace.add(now.duration_since(self.start), here);
        if self.json {
            let is_due = self
                .last_line
                .is_none_or(|last| now.duration_since(last) >= LINE_EVERY);
            if is_due || total == Some(done) {
                self.last_line = Some(now);
                self.tell(&json!({ "event": "progress", "path": path, "bytes": done,
                    "size": total, "done": here, "total": self.total,
                    "bytes_per_second": self.pace.speed() }));
            }
        }
        if self.progress.is_shown() {
            let left = self.pace.left(self.total.saturating_sub(here));
            self.progress
                .show(&line(path, here, self.total, self.pace.speed(), left));
        }
    }

    fn retry(&mut self, what: &str, pause: Duration) {
        self.progress.clear();
        if self.json {
            self.tell(&json!({ "event": "retry", "reason": what, "pause_s": pause.as_secs_f64() }));
        } else if !self.quiet {
            remark!("ocelli: {what}; trying again in {} s", pause.as_secs());
        }
    }

    fn waiting(&mut self, lock: &Path) {
        self.progress.clear();
        if self.json {
            self.tell(&json!({ "event": "waiting", "lock": lock.display().to_string() }));
        } else if !self.quiet {
            remark!(
                "ocelli: another process pulls this ({}); waiting for it",
                lock.display()
            );
        }
    }
}

fn line(path: &str, done: u64, total: u64, speed: Option<f64>, left: Option<Duration>) -> String {
    let mb = |bytes: u64| bytes as f64 / 1e6;
    let mut line = format!("{path}  {:.1} of {:.1} MB", mb(done), mb(total));
    if let Some(speed) = speed {
        line.push_str(&format!("  {:.1} MB/s", speed / 1e6));
    }
    if let Some(left) = left {
        let seconds = left.as_secs();
        let text = match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
            (0, 0, s) => format!("{s} s"),
            (0, m, s) => format!("{m} min {s} s"),
            (h, m, _) => format!("{h} h {m} min"),
        };
        line.push_str(&format!("  {text} left"));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_how_fast_and_how_long() {
        let left = |s| Some(Duration::from_secs(s));
        for (speed, left, want) in [
            (None, None, "a  1.5 of 3.0 MB"),
            (Some(5e5), left(3), "a  1.5 of 3.0 MB  0.5 MB/s  3 s left"),
            (
                Some(2e4),
                left(75),
                "a  1.5 of 3.0 MB  0.0 MB/s  1 min 15 s left",
            ),
            (
                Some(1e2),
                left(15_000),
                "a  1.5 of 3.0 MB  0.0 MB/s  4 h 10 min left",
            ),
        ] {
            assert_eq!(line("a", 1_500_000, 3_000_000, speed, left), want);
        }
    }
}
