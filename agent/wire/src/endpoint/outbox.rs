//! [`Outbox`]: messages on their way out.

use super::{SendError, Ticket, UndeliveredReason};
use crate::message::Message;
use crate::timing::Millis;
use heapless::{Deque, Vec};

/// Loose messages that wait; the oldest makes room.
const LOOSE: usize = 4;

#[derive(Debug)]
struct Waiting {
    ticket: Ticket,
    message: Message,
    /// For commands.
    expires: Option<Millis>,
}

/// The first message of the queue, once it was sent.
#[derive(Clone, Copy, Debug)]
struct UnderWay {
    sequence: u16,
    /// 0 after the link went down: the number stays, the tries begin anew.
    n_tries: u8,
    retry_at: Millis,
}

#[derive(Debug)]
pub(super) struct Outbox<const QUEUE: usize> {
    waiting: Vec<Waiting, QUEUE>,
    under_way: Option<UnderWay>,
    loose: Deque<Message, LOOSE>,
    next_sequence: u16,
    next_ticket: u32,
    /// The link went down since commands were last looked at.
    was_down: bool,
}

impl<const QUEUE: usize> Outbox<QUEUE> {
    pub(super) fn new() -> Outbox<QUEUE> {
        Outbox {
            waiting: Vec::new(),
            under_way: None,
            loose: Deque::new(),
            next_sequence: 0,
            next_ticket: 0,
            was_down: false,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn has_command(&self) -> bool {
        self.waiting.iter().any(|entry| entry.expires.is_some())
    }

    pub(super) fn push(
        &mut self,
        message: Message,
        expires: Option<Millis>,
    ) -> Result<Ticket, SendError> {
        let ticket = Ticket(self.next_ticket);
        let entry = Waiting {
            ticket,
            message,
            expires,
        };
        self.waiting
            .push(entry)
            .map_err(|_| SendError::Full { limit: QUEUE })?;
        self.next_ticket = self.next_ticket.wrapping_add(1);
        Ok(ticket)
    }

    /// Keeps a loose message; whether an older one had to go.
    pub(super) fn push_loose(&mut self, message: Message) -> bool {
        let drops = self.loose.is_full() && self.loose.pop_front().is_some();
        // There is room now.
        let _ = self.loose.push_back(message);
        drops
    }

    pub(super) fn next_loose(&mut self) -> Option<Message> {
        self.loose.pop_front()
    }

    /// When something may leave.
    pub(super) fn ready_at(&self) -> Millis {
        match self.under_way {
            _ if !self.loose.is_empty() => 0,
            _ if self.waiting.is_empty() => Millis::MAX,
            Some(first) if first.n_tries > 0 => first.retry_at,
            _ => 0,
        }
    }

    /// The reliable message that is to be sent now, its number, and whether it was sent before.
    pub(super) fn next_reliable(
        &mut self,
        now: Millis,
        retry_ms: u32,
    ) -> Option<(u16, &Message, bool)> {
        let entry = self.waiting.first()?;
        let under_way = self.under_way.get_or_insert_with(|| {
            let sequence = self.next_sequence;
            self.next_sequence = sequence.wrapping_add(1);
            UnderWay {
                sequence,
                n_tries: 0,
                retry_at: now,
            }
        });
        let again = under_way.n_tries > 0;
        if again && now < under_way.retry_at {
            return None;
        }
        under_way.n_tries = under_way.n_tries.saturating_add(1);
        under_way.retry_at = now + u64::from(retry_ms);
        Some((under_way.sequence, &entry.message, again))
    }

    /// When the last try has had its time.
    pub(super) fn exhausted_at(&self, max_tries: u8) -> Millis {
        match self.under_way {
            Some(first) if first.n_tries >= max_tries => first.retry_at,
            _ => Millis::MAX,
        }
    }

    /// The end of the message under way, if `sequence` is its number.
    pub(super) fn acknowledged(&mut self, sequence: u16) -> Option<Ticket> {
        self.under_way.filter(|first| first.sequence == sequence)?;
        Some(self.remove(0))
    }

    /// One command that is not worth sending any more.
    pub(super) fn give_up(
        &mut self,
        now: Millis,
        is_up: bool,
    ) -> Option<(Ticket, UndeliveredReason)> {
        if self.was_down {
            if let Some(at) = self.position(|_| true) {
                return Some((self.remove(at), UndeliveredReason::LinkDown));
            }
            self.was_down = false;
        }
        debug_assert!(is_up || !self.has_command());
        let at = self.position(|expires| now >= expires)?;
        Some((self.remove(at), UndeliveredReason::Expired))
    }

    fn position(&self, of: impl Fn(Millis) -> bool) -> Option<usize> {
        self.waiting
            .iter()
            .position(|entry| entry.expires.is_some_and(&of))
    }

    fn remove(&mut self, at: usize) -> Ticket {
        if at == 0 {
            self.under_way = None;
        }
        self.waiting.remove(at).ticket
    }

    /// The link went down: commands are given up by the next calls of `give_up`, loose messages
    /// are dropped, and the message under way is sent first when the link is up again.
    pub(super) fn on_down(&mut self) {
        self.was_down = true;
        self.loose.clear();
        if let Some(first) = &mut self.under_way {
            first.n_tries = 0;
        }
    }

    /// When the next command gets too old.
    pub(super) fn expires_at(&self) -> Millis {
        self.waiting
            .iter()
            .filter_map(|entry| entry.expires)
            .min()
            .unwrap_or(Millis::MAX)
    }
}
