//! A command that runs in the guest's background.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::Error;
use crate::board::{Board, STEP_LIMIT};
use crate::channel::Channel;
use crate::shell::{self, Line};

/// A running background command. Dropping it kills the command and what it started.
pub struct Job<'a> {
    board: &'a Board,
    command: String,
    number: u64,
    port: usize,
    /// Present until the job is dropped.
    channel: Option<Channel>,
    status: Cell<Option<i32>>,
}

impl<'a> Job<'a> {
    pub(crate) fn start(board: &'a Board, command: &str) -> Result<Job<'a>, Error> {
        let (port, channel) = board.take_port().ok_or_else(|| Error::Unexpected {
            what: format!("starting `{command}` in the background"),
            found: "4 commands run there already".to_owned(),
        })?;
        channel.take_all();
        Ok(Job {
            board,
            command: command.to_owned(),
            number: board.start_in_background(command, port)?,
            port,
            channel: Some(channel),
            status: Cell::new(None),
        })
    }

    /// Waits for the next line of standard output; `None` when the command has ended.
    ///
    /// # Errors
    ///
    /// When no line comes in time or the guest dies.
    pub fn line(&self, limit: Duration) -> Result<Option<String>, Error> {
        if self.status.get().is_some() {
            return Ok(None);
        }
        let line = shell::line(self.channel(), self.number, limit);
        match line.map_err(|silence| self.board.silence(&self.what(), limit, silence))? {
            Line::Text(line) => Ok(Some(line)),
            Line::End { status } => {
                self.status.set(Some(status));
                Ok(None)
            }
        }
    }

    /// Waits for a line that `wanted` accepts, and returns it with those before it.
    ///
    /// # Errors
    ///
    /// When the command ends before or takes too long; the error names the lines that came.
    pub fn lines_until(
        &self,
        limit: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Vec<String>, Error> {
        let start = Instant::now();
        let mut lines: Vec<String> = Vec::new();
        loop {
            let left = limit.saturating_sub(start.elapsed());
            match self.line(left) {
                Ok(Some(line)) => lines.push(line),
                Ok(None) => {
                    return Err(Error::Status {
                        command: self.command.clone(),
                        status: self.status.get().unwrap_or(-1),
                        stdout: lines.join("\n"),
                        console: self.board.console_tail(),
                    });
                }
                Err(Error::Deadline { what, console, .. }) => {
                    let what = format!("{what}, after the lines\n{}", lines.join("\n"));
                    return Err(Error::Deadline {
                        what,
                        limit,
                        console,
                    });
                }
                Err(error) => return Err(error),
            }
            if lines.last().is_some_and(|line| wanted(line)) {
                return Ok(lines);
            }
        }
    }

    /// Waits for the end; returns the status. Lines not yet read are dropped.
    ///
    /// # Errors
    ///
    /// When it does not end in time or the guest dies.
    pub fn wait(&self, limit: Duration) -> Result<i32, Error> {
        let start = Instant::now();
        while self.line(limit.saturating_sub(start.elapsed()))?.is_some() {}
        Ok(self.status.get().unwrap_or(-1))
    }

    /// Takes `n` bytes of standard output as they are.
    ///
    /// # Errors
    ///
    /// When they do not come in time or the guest dies.
    pub fn bytes(&self, n: usize, limit: Duration) -> Result<Vec<u8>, Error> {
        let bytes = self.channel().take_exactly(n, limit);
        bytes.map_err(|silence| self.board.silence(&self.what(), limit, silence))
    }

    /// Writes to its standard input.
    ///
    /// # Errors
    ///
    /// When the guest is gone.
    pub fn send(&self, bytes: &[u8]) -> Result<(), Error> {
        self.channel()
            .send(bytes)
            .map_err(Error::io("writing to", self.what()))
    }

    /// Sends a signal, such as `TERM`, to the command and what it started.
    ///
    /// # Errors
    ///
    /// When the guest dies.
    pub fn signal(&self, name: &str) -> Result<(), Error> {
        let kill = format!("kill -{name} -$(cat /run/job{})", self.port);
        self.board.run(&kill, STEP_LIMIT).map(drop)
    }

    fn what(&self) -> String {
        format!("background command `{}`", self.command)
    }

    fn channel(&self) -> &Channel {
        self.channel.as_ref().expect("present until dropped")
    }
}

impl Drop for Job<'_> {
    fn drop(&mut self) {
        let alive = self.status.get().is_none() && self.board.is_running();
        let ended = !alive || (self.signal("KILL").is_ok() && self.wait(STEP_LIMIT).is_ok());
        // A port whose command may still write stays out of use.
        if let (true, Some(channel)) = (ended, self.channel.take()) {
            self.board.give_port_back(self.port, channel);
        }
    }
}
