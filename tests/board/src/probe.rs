//! Following the camera probe: JSON lines for frames and changes of state.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use ocelli_board::{Board, Job};
use serde_json::Value;

use crate::program::Program;

const LIMIT: Duration = Duration::from_secs(40);

/// A probe that runs in a guest. Methods panic with all lines so far when what is waited for does
/// not come.
pub struct Probe<'a> {
    job: Job<'a>,
    lines: RefCell<Vec<Value>>,
}

impl<'a> Probe<'a> {
    /// Starts the probe with its arguments, the source first.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub fn start(board: &'a Board, arguments: &str) -> Probe<'a> {
        let command = format!("exec /board/in/{} {arguments}", Program::Probe.name());
        let job = board
            .spawn(&command)
            .unwrap_or_else(|error| panic!("{error}"));
        Probe {
            job,
            lines: RefCell::default(),
        }
    }

    /// Waits for a line that `wanted` accepts.
    ///
    /// # Panics
    ///
    /// When it does not come.
    pub fn await_line(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        while start.elapsed() < LIMIT {
            match self.job.line(LIMIT.saturating_sub(start.elapsed())) {
                Ok(Some(text)) => {
                    let line: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
                    let is_wanted = wanted(&line);
                    self.lines.borrow_mut().push(line.clone());
                    if is_wanted {
                        return line;
                    }
                }
                Ok(None) => panic!("the probe ended before {what}; {}", self.story()),
                Err(error) => panic!("no {what}: {error}; {}", self.story()),
            }
        }
        panic!("no {what} within {LIMIT:?}; {}", self.story());
    }

    /// Waits for so many frames and returns the last.
    ///
    /// # Panics
    ///
    /// When they do not come.
    pub fn frames(&self, n: usize) -> Value {
        let mut last = Value::Null;
        for i in 0..n {
            last = self.await_line(&format!("frame {i} of {n}"), is_frame);
        }
        last
    }

    /// Waits until the probe says that it is in a state; returns the state with its reason.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub fn await_state(&self, kind: &str) -> Value {
        let line = self.await_line(&format!("state {kind}"), |line| {
            line["state"]["kind"] == kind
        });
        line["state"].clone()
    }

    /// Waits until a counter is at least `least`.
    ///
    /// # Panics
    ///
    /// When it does not get there.
    pub fn await_counter(&self, name: &str, least: u64) -> Value {
        let reached = |line: &Value| line["counters"][name].as_u64().is_some_and(|n| n >= least);
        self.await_line(&format!("counter {name} of {least}"), reached)
    }

    /// Lines that were waited through, oldest first.
    pub fn lines(&self) -> Vec<Value> {
        self.lines.borrow().clone()
    }

    /// The last lines, for a failure.
    fn story(&self) -> String {
        let lines = self.lines.borrow();
        let last: Vec<_> = lines
            .iter()
            .rev()
            .take(12)
            .rev()
            .map(Value::to_string)
            .collect();
        format!("last lines of the probe:\n{}", last.join("\n"))
    }
}

/// Whether a line of the probe reports a frame.
pub fn is_frame(line: &Value) -> bool {
    line.get("sequence").is_some()
}
