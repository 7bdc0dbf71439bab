//! [`Recent`]: commands of the last minutes, so that one that comes twice is obeyed once.

use super::super::message::Ticket;
use super::super::protocol::{Message, Publish};
use std::collections::VecDeque;
use std::time::Duration;

/// How many commands are remembered.
const MAX_REMEMBERED: usize = 32;
/// How long.
const MEMORY: Duration = Duration::from_secs(600);

/// Whether a command is a repetition.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// It is; the reply it got, if it has one already.
    Before(Option<Publish>),
    /// It is new and has this number.
    Now(u64),
}

#[derive(Debug)]
struct Command {
    serial: u64,
    at: Duration,
    topic: String,
    response_topic: Option<String>,
    correlation: Option<Vec<u8>>,
    payload: Vec<u8>,
    reply: Option<Publish>,
}

/// Commands that came with correlation data or an `id`.
#[derive(Debug, Default)]
pub(super) struct Recent {
    commands: VecDeque<Command>,
    last_serial: u64,
}

impl Recent {
    /// Only commands that their sender gave correlation data or an `id` can be repetitions.
    pub(super) fn remember(&mut self, message: &Message, ticket: &Ticket, now: Duration) -> Seen {
        self.last_serial += 1;
        if message.correlation.is_none() && ticket.id.is_none() {
            return Seen::Now(self.last_serial);
        }
        self.commands
            .retain(|command| now.saturating_sub(command.at) < MEMORY);
        if let Some(before) = self.commands.iter().find(|command| command.equals(message)) {
            return Seen::Before(before.reply.clone());
        }
        if self.commands.len() >= MAX_REMEMBERED {
            self.commands.pop_front();
        }
        self.commands.push_back(Command {
            serial: self.last_serial,
            at: now,
            topic: message.topic.clone(),
            response_topic: message.response_topic.clone(),
            correlation: message.correlation.clone(),
            payload: message.payload.clone(),
            reply: None,
        });
        Seen::Now(self.last_serial)
    }

    /// The command with this number was answered.
    pub(super) fn answered(&mut self, serial: u64, reply: Option<&Publish>) {
        let command = self
            .commands
            .iter_mut()
            .find(|command| command.serial == serial);
        if let Some(command) = command {
            command.reply = reply.cloned();
        }
    }
}

impl Command {
    fn equals(&self, message: &Message) -> bool {
        self.topic == message.topic
            && self.response_topic == message.response_topic
            && self.correlation == message.correlation
            && self.payload == message.payload
    }
}
