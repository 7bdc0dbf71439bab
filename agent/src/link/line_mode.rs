//! Line mode: commands as lines of text, for PLCs and sketches.
//!
//! | file | defines |
//! |---|---|
//! | [`command`] | what a line asks |
//! | [`reply`] | what is said back, without a way to forge a line |
//!
//! One command is worked on at a time. It is answered by any number of `+NAME: …` lines and exactly
//! one last line, `OK` or `ERROR: code text`; events come as `+EVENT: …` and packets as
//! `+PACKET: …` between answers, never inside one. Only lines that begin with `AT` are answered, so two ends that hear their own words
//! do not talk for ever. `docs/wire.md` has a transcript.

pub mod command;
pub mod reply;
#[cfg(test)]
mod tests;

pub use command::{Command, CommandError, MAX_LINE_BYTES};
pub use reply::{ErrorCode, Reply, Said};

use super::serial::Dialect;
use super::{LinkError, LinkErrorKind};
use std::collections::VecDeque;
use std::time::Duration;

/// A command must be answered in this time; then the other end is told that it was not.
pub const REPLY_TIME: Duration = Duration::from_secs(60);
/// Events and packets that wait for the end of an answer; the oldest makes room.
pub const EVENTS: usize = 16;

/// A command that waits for its [`Reply`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Comes back with the reply.
    pub number: u32,
    /// What is asked.
    pub command: Command,
}

/// What the agent says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// The answer to a request.
    Reply {
        /// The request's number.
        number: u32,
        /// The answer.
        reply: Reply,
    },
    /// Something nobody asked for.
    Event(Said),
    /// A packet of the rule file.
    Packet {
        /// Its name.
        name: String,
        /// Its body.
        body: String,
    },
}

/// A reply that nobody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nobody waits for the reply to request {number}; it was answered, or took more than {} s", REPLY_TIME.as_secs())]
pub struct NotWaiting {
    /// The request's number.
    pub number: u32,
}

impl LinkError for NotWaiting {
    fn kind(&self) -> LinkErrorKind {
        LinkErrorKind::Timeout
    }
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    number: u32,
    until: Duration,
}

/// The agent's end of a line of text.
#[derive(Debug, Default)]
pub struct Lines {
    line: Vec<u8>,
    is_too_long: bool,
    pending: Option<Pending>,
    next_number: u32,
    answer: String,
    /// What nobody asked for, each with the name of its line.
    events: VecDeque<(&'static str, Said)>,
    n_events_dropped: u64,
    n_ignored: u64,
}

impl Lines {
    /// A line on which nothing has been said.
    pub fn new() -> Lines {
        Lines::default()
    }

    /// Events and packets thrown away because newer ones came while the line was slow or closed.
    pub fn n_events_dropped(&self) -> u64 {
        self.n_events_dropped
    }

    /// Lines that did not begin with `AT`.
    pub fn n_ignored(&self) -> u64 {
        self.n_ignored
    }

    /// Works a finished line off; a command for the agent comes back.
    fn on_line(&mut self, now: Duration) -> Option<Request> {
        let line = std::mem::take(&mut self.line);
        let is_too_long = std::mem::take(&mut self.is_too_long);
        if line.is_empty() {
            return None;
        }
        if !command::is_addressed(&line) {
            self.n_ignored += 1;
            return None;
        }
        let parsed = match is_too_long {
            true => Err(CommandError::TooLong),
            false => Command::parse(&line),
        };
        match parsed {
            Ok(Command::Attention) => self.answer(&Reply::done()),
            Ok(Command::Help) => self.answer(&Reply::help()),
            Ok(command) => return Some(self.ask(command, now)),
            Err(error) => self.answer(&Reply::from(&error)),
        }
        None
    }

    fn ask(&mut self, command: Command, now: Duration) -> Request {
        let number = self.next_number;
        self.next_number = number.wrapping_add(1);
        self.pending = Some(Pending {
            number,
            until: now + REPLY_TIME,
        });
        Request { number, command }
    }

    fn answer(&mut self, reply: &Reply) {
        self.pending = None;
        reply.write(&mut self.answer);
    }

    /// Whether the next command has to wait for an answer, or for its way out.
    fn is_busy(&self) -> bool {
        self.pending.is_some() || !self.answer.is_empty()
    }

    fn push_event(&mut self, name: &'static str, said: Said) {
        if self.events.len() == EVENTS {
            self.events.pop_front();
            self.n_events_dropped += 1;
        }
        self.events.push_back((name, said));
    }
}

impl Dialect for Lines {
    type Outgoing = Outgoing;
    type Incoming = Request;
    type Receipt = ();
    type Refusal = NotWaiting;

    fn send(&mut self, message: Outgoing, _now: Duration) -> Result<(), NotWaiting> {
        match message {
            Outgoing::Event(event) => self.push_event("EVENT", event),
            Outgoing::Packet { name, body } => {
                self.push_event("PACKET", Said::packet(&name, &body));
            }
            Outgoing::Reply { number, reply } => {
                self.pending
                    .filter(|pending| pending.number == number)
                    .ok_or(NotWaiting { number })?;
                self.answer(&reply);
            }
        }
        Ok(())
    }

    fn on_bytes(&mut self, bytes: &mut &[u8], now: Duration) -> Option<Request> {
        while !self.is_busy()
            && let Some((&byte, rest)) = bytes.split_first()
        {
            *bytes = rest;
            match byte {
                b'\r' | b'\n' => {
                    if let Some(request) = self.on_line(now) {
                        return Some(request);
                    }
                }
                _ if self.line.len() < MAX_LINE_BYTES => self.line.push(byte),
                _ => self.is_too_long = true,
            }
        }
        None
    }

    fn on_tick(&mut self, now: Duration) -> Option<Request> {
        if self.pending.is_some_and(|pending| now >= pending.until) {
            self.answer(&Reply::error(ErrorCode::TimedOut, "no answer in time"));
        }
        None
    }

    fn on_closed(&mut self, _now: Duration) -> Option<Request> {
        self.line.clear();
        self.is_too_long = false;
        self.pending = None;
        self.answer.clear();
        None
    }

    fn next_output(&mut self, out: &mut Vec<u8>, _now: Duration) -> bool {
        if !self.answer.is_empty() {
            out.extend_from_slice(self.answer.as_bytes());
            self.answer.clear();
            return true;
        }
        if self.pending.is_some() {
            return false;
        }
        let Some((name, said)) = self.events.pop_front() else {
            return false;
        };
        out.extend_from_slice(format!("+{name}: {}\r\n", said.as_str()).as_bytes());
        true
    }

    fn next_tick_at(&self) -> Option<Duration> {
        self.pending.map(|pending| pending.until)
    }

    fn next_output_at(&self) -> Option<Duration> {
        let has_output =
            !self.answer.is_empty() || (self.pending.is_none() && !self.events.is_empty());
        has_output.then_some(Duration::ZERO)
    }
}
