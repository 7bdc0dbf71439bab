//! [`Endpoint`]: one end of the line as a pure state machine.
//!
//! Both ends send hellos until each has heard its own session in the other's hello; then the link
//! is up. One reliable message is under way at a time: it is sent again until it is acknowledged,
//! and the receiver tells repetitions by the sequence number. The line may lose, damage, split and
//! repeat bytes, but must not change their order. Then, as long as neither end restarts, every
//! record arrives exactly once and in order, whatever goes down between.
//!
//! The link is down after silence, after too many tries, and when the other end says hello again.
//! A new session begins then, and frames meant for the old one are dropped.

mod notice;
mod outbox;

pub use notice::{Counters, DownReason, Notice, SendError, Ticket, UndeliveredReason};

use crate::frame::{FrameBuffer, FrameDecoder};
use crate::message::{Delivery, Direction, Message};
use crate::packet::{Head, Hello, Identity, Mismatch, NackReason, Packet, Role};
use crate::schema::{SCHEMA_FINGERPRINT, VERSION};
use crate::timing::{Millis, Timing};
use notice::count;
use outbox::Outbox;

/// How far ahead of the line frames are handed out, in microseconds.
const LINE_AHEAD_US: u64 = 20_000;

/// The other end, as its last hello showed it.
#[derive(Clone, Copy, Debug)]
struct Peer {
    incarnation: u32,
    session: u16,
    last_received: Option<u16>,
    /// Another run than before, not yet reported.
    is_new_run: bool,
}

/// One end of the line. At most `QUEUE` reliable messages wait.
#[derive(Debug)]
pub struct Endpoint<const QUEUE: usize> {
    identity: Identity,
    timing: Timing,
    session: u16,
    peer: Option<Peer>,
    is_up: bool,
    heard_ms: Millis,
    spoke_ms: Millis,
    hello_ms: Millis,
    reply: Option<Head>,
    refused: Option<Mismatch>,
    decoder: FrameDecoder,
    outbox: Outbox<QUEUE>,
    line_free_us: u64,
    counters: Counters,
}

impl<const QUEUE: usize> Endpoint<QUEUE> {
    /// An end whose link is down.
    pub fn new(identity: Identity, timing: Timing, now: Millis) -> Endpoint<QUEUE> {
        Endpoint {
            session: first_session(identity.incarnation),
            identity,
            timing,
            peer: None,
            is_up: false,
            heard_ms: now,
            spoke_ms: now,
            hello_ms: now,
            reply: None,
            refused: None,
            decoder: FrameDecoder::new(),
            outbox: Outbox::new(),
            line_free_us: 0,
            counters: Counters::default(),
        }
    }

    /// Whether both ends hear each other.
    pub fn is_up(&self) -> bool {
        self.is_up
    }

    /// What was counted.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Reliable messages that wait for their end.
    pub fn n_waiting(&self) -> usize {
        self.outbox.len()
    }

    /// Accepts a message. Reliable ones get a ticket.
    ///
    /// Of loose messages the newest are kept.
    ///
    /// # Errors
    ///
    /// See [`SendError`]; a message refused is not kept.
    pub fn send(&mut self, message: Message, now: Millis) -> Result<Option<Ticket>, SendError> {
        let role = self.identity.role;
        if !may_come_from(message.direction(), role) {
            return Err(SendError::Direction { role });
        }
        let delivery = message.delivery();
        if delivery != Delivery::Record && !self.is_up {
            return Err(SendError::Down);
        }
        match delivery {
            Delivery::Loose => {
                if self.outbox.push_loose(message) {
                    count(&mut self.counters.loose_dropped);
                }
                Ok(None)
            }
            Delivery::Record => self.outbox.push(message, None).map(Some),
            Delivery::Command => {
                let expires = now + u64::from(self.timing.command_ms);
                self.outbox.push(message, Some(expires)).map(Some)
            }
        }
    }

    /// Takes bytes off the line until something happened or `bytes` is empty. Call it until it
    /// returns `None`.
    pub fn on_bytes(&mut self, bytes: &mut &[u8], now: Millis) -> Option<Notice> {
        while let Some((&byte, rest)) = bytes.split_first() {
            *bytes = rest;
            match self.decoder.push(byte) {
                None => {}
                Some(Ok(packet)) => {
                    count(&mut self.counters.frames_in);
                    if let Some(notice) = self.on_packet(packet, now) {
                        return Some(notice);
                    }
                }
                Some(Err(_)) => count(&mut self.counters.damaged),
            }
        }
        None
    }

    /// Lets time pass. Call it until it returns `None`, at the latest at
    /// [`next_tick_at`](Self::next_tick_at).
    pub fn on_tick(&mut self, now: Millis) -> Option<Notice> {
        if self.is_up && now >= self.silent_at() {
            return Some(self.go_down(DownReason::Silence, now));
        }
        if self.is_up && now >= self.outbox.exhausted_at(self.timing.max_tries) {
            return Some(self.go_down(DownReason::NoAcknowledgement, now));
        }
        self.outbox
            .give_up(now, self.is_up)
            .map(|(ticket, reason)| Notice::Undelivered(ticket, reason))
    }

    /// When [`on_tick`](Self::on_tick) has something to do, bytes and messages aside; a time gone by
    /// means at once.
    pub fn next_tick_at(&self) -> Millis {
        if !self.is_up {
            return match self.outbox.has_command() {
                true => 0,
                false => Millis::MAX,
            };
        }
        self.silent_at()
            .min(self.outbox.exhausted_at(self.timing.max_tries))
            .min(self.outbox.expires_at())
    }

    /// When [`next_frame`](Self::next_frame) has a frame, bytes and messages aside; a time gone by
    /// means at once.
    pub fn next_frame_at(&self) -> Millis {
        let due = if self.reply.is_some() {
            0
        } else if self.is_up {
            self.heartbeat_at().min(self.outbox.ready_at())
        } else if self.identity.incarnation == 0 {
            Millis::MAX
        } else {
            self.hello_ms
        };
        let line_has_room = self
            .line_free_us
            .saturating_sub(LINE_AHEAD_US)
            .div_ceil(1000);
        due.max(line_has_room)
    }

    /// The owner closed the line, or it broke. Commands are given up by the next ticks.
    pub fn close(&mut self, now: Millis) -> Option<Notice> {
        self.decoder.clear();
        self.line_free_us = 0;
        self.is_up.then(|| self.go_down(DownReason::Closed, now))
    }

    /// The next frame for the line, written into `buffer`. Call it when the line has room, until it
    /// returns `None`; no more is handed out than the line can carry away.
    pub fn next_frame<'a>(&mut self, buffer: &'a mut FrameBuffer, now: Millis) -> Option<&'a [u8]> {
        let now_us = now.saturating_mul(1000);
        if self.line_free_us > now_us.saturating_add(LINE_AHEAD_US) {
            return None;
        }
        let frame = self.write_frame(buffer, now)?;
        self.line_free_us = self.line_free_us.max(now_us) + self.timing.line_us(frame.len());
        self.spoke_ms = now;
        count(&mut self.counters.frames_out);
        Some(frame)
    }

    fn write_frame<'a>(&mut self, buffer: &'a mut FrameBuffer, now: Millis) -> Option<&'a [u8]> {
        if let Some(head) = self.reply.take() {
            return buffer.write(&head, None);
        }
        let Some(to) = self.peer.filter(|_| self.is_up).map(|peer| peer.session) else {
            if now < self.hello_ms || self.identity.incarnation == 0 {
                return None;
            }
            self.hello_ms = now + u64::from(self.timing.hello_ms);
            return buffer.write(&Head::Hello(self.hello()), None);
        };
        if let Some((sequence, message, again)) =
            self.outbox.next_reliable(now, self.timing.retry_ms)
        {
            if again {
                count(&mut self.counters.retries);
            }
            return buffer.write(&Head::Reliable { to, sequence }, Some(message));
        }
        if let Some(message) = self.outbox.next_loose() {
            return buffer.write(&Head::Loose { to }, Some(&message));
        }
        if now < self.heartbeat_at() {
            return None;
        }
        // The clock of the wire is 32 bits and wraps after 49 days.
        let clock_ms = now as u32;
        buffer.write(&Head::Heartbeat { to, clock_ms }, None)
    }

    fn hello(&self) -> Hello {
        Hello {
            version: VERSION,
            schema: SCHEMA_FINGERPRINT,
            role: self.identity.role,
            incarnation: self.identity.incarnation,
            session: self.session,
            peer_incarnation: self.peer.map_or(0, |peer| peer.incarnation),
            peer_session: self.peer.map_or(0, |peer| peer.session),
            is_up: self.is_up,
            name: self.identity.name.clone(),
        }
    }

    fn silent_at(&self) -> Millis {
        self.heard_ms + u64::from(self.timing.silence_ms)
    }

    fn heartbeat_at(&self) -> Millis {
        self.spoke_ms + u64::from(self.timing.heartbeat_ms)
    }

    fn go_down(&mut self, reason: DownReason, now: Millis) -> Notice {
        count(&mut self.counters.downs);
        self.is_up = false;
        self.session = next_session(self.session);
        self.reply = None;
        self.hello_ms = now;
        self.outbox.on_down();
        Notice::Down(reason)
    }

    fn on_packet(&mut self, packet: Packet, now: Millis) -> Option<Notice> {
        let head = match packet.head {
            Head::Hello(hello) => return self.on_hello(&hello, now),
            head => head,
        };
        if !self.is_up || head.to() != Some(self.session) {
            count(&mut self.counters.stale);
            return None;
        }
        self.heard_ms = now;
        match head {
            Head::Hello(_) => None,
            Head::Heartbeat { clock_ms, .. } => Some(Notice::Clock { peer_ms: clock_ms }),
            Head::Ack { sequence, .. } => self.outbox.acknowledged(sequence).map(Notice::Delivered),
            Head::Nack {
                sequence, reason, ..
            } => self
                .outbox
                .acknowledged(sequence)
                .map(|ticket| Notice::Undelivered(ticket, UndeliveredReason::Rejected(reason))),
            Head::Reliable { sequence, .. } => self.on_reliable(sequence, packet.message),
            Head::Loose { .. } => self.on_loose(packet.message),
        }
    }

    fn on_loose(&mut self, message: Option<Message>) -> Option<Notice> {
        let sender = other(self.identity.role);
        let usable = message.filter(|message| may_come_from(message.direction(), sender));
        if usable.is_none() {
            count(&mut self.counters.loose_dropped);
        }
        usable.map(Notice::Received)
    }

    fn on_reliable(&mut self, sequence: u16, message: Option<Message>) -> Option<Notice> {
        let sender = other(self.identity.role);
        let peer = self.peer.as_mut()?;
        let to = peer.session;
        let nack = |reason| Head::Nack {
            to,
            sequence,
            reason,
        };
        let Some(message) = message else {
            self.reply = Some(nack(NackReason::Unknown));
            return None;
        };
        if !may_come_from(message.direction(), sender) {
            self.reply = Some(nack(NackReason::Direction));
            return None;
        }
        self.reply = Some(Head::Ack { to, sequence });
        // The sender may have given messages up, so numbers may be missing.
        let is_new = peer
            .last_received
            .is_none_or(|last| sequence.wrapping_sub(last) as i16 > 0);
        if !is_new {
            count(&mut self.counters.duplicates);
            return None;
        }
        peer.last_received = Some(sequence);
        Some(Notice::Received(message))
    }

    fn on_hello(&mut self, hello: &Hello, now: Millis) -> Option<Notice> {
        if let Some(mismatch) = hello.mismatch(self.identity.role) {
            return self.on_mismatch(mismatch, now);
        }
        if self.identity.incarnation == 0 {
            self.take_incarnation_from(hello);
        }
        let known = self
            .peer
            .filter(|peer| peer.incarnation == hello.incarnation && hello.peer_incarnation != 0);
        let hears_me = hello.peer_incarnation == self.identity.incarnation
            && hello.peer_session == self.session;
        let went_down =
            self.is_up && (!hears_me || known.is_none_or(|peer| peer.session != hello.session));
        self.peer = Some(Peer {
            incarnation: hello.incarnation,
            session: hello.session,
            last_received: known.and_then(|peer| peer.last_received),
            is_new_run: known.is_none_or(|peer| peer.is_new_run),
        });
        if went_down {
            let reason = match known {
                Some(_) => DownReason::PeerReset,
                None => DownReason::PeerRestarted,
            };
            return Some(self.go_down(reason, now));
        }
        let came_up = !self.is_up && hears_me;
        if hears_me {
            self.is_up = true;
            self.heard_ms = now;
        }
        if !hello.is_up {
            self.reply = Some(Head::Hello(self.hello()));
        }
        came_up.then(|| self.came_up(hello))
    }

    /// The other end begins a new session whenever it loses this one, so the number is another one
    /// in every run that gets a link.
    fn take_incarnation_from(&mut self, hello: &Hello) {
        let mixed = hello.incarnation.rotate_left(16) ^ u32::from(hello.session);
        self.identity.incarnation = mixed.wrapping_mul(0x85eb_ca6b).max(1);
        self.session = first_session(self.identity.incarnation);
    }

    fn came_up(&mut self, hello: &Hello) -> Notice {
        self.refused = None;
        let is_new_run = self
            .peer
            .as_mut()
            .is_some_and(|peer| core::mem::take(&mut peer.is_new_run));
        Notice::Up {
            name: hello.name.clone(),
            version: hello.version,
            is_new_run,
        }
    }

    fn on_mismatch(&mut self, mismatch: Mismatch, now: Millis) -> Option<Notice> {
        if self.is_up {
            return Some(self.go_down(DownReason::Mismatch, now));
        }
        let is_news = self.refused.replace(mismatch) != Some(mismatch);
        is_news.then_some(Notice::Refused(mismatch))
    }
}

/// Far apart for incarnations that are near.
fn first_session(incarnation: u32) -> u16 {
    next_session((incarnation.wrapping_mul(0x9e37_79b9) >> 16) as u16)
}

/// 0 stands for "never heard".
fn next_session(session: u16) -> u16 {
    session.wrapping_add(1).max(1)
}

fn other(role: Role) -> Role {
    match role {
        Role::Agent => Role::Peer,
        Role::Peer => Role::Agent,
    }
}

fn may_come_from(direction: Direction, sender: Role) -> bool {
    match direction {
        Direction::Both => true,
        Direction::ToPeer => sender == Role::Agent,
        Direction::ToAgent => sender == Role::Peer,
    }
}
