//! [`Packets`]: the dialect of `ocelli-wire`, spoken to microcontrollers.

use super::super::{LinkError, LinkErrorKind};
use super::Dialect;
use ocelli_wire::{
    Endpoint, FrameBuffer, Identity, Message, Notice, Role, SendError, Ticket, Timing,
};
use std::time::Duration;

/// Reliable messages that wait while the other end is away or slow.
pub const QUEUE: usize = 64;

/// The agent's end of a line of packets.
#[derive(Debug)]
pub struct Packets {
    endpoint: Box<Endpoint<QUEUE>>,
    frame: FrameBuffer,
}

impl Packets {
    /// An end for a line of `baud` bits a second. `incarnation` is another number in every run.
    pub fn new(name: &str, incarnation: u32, baud: u32, now: Duration) -> Packets {
        let me = Identity::new(Role::Agent, name, incarnation);
        Packets {
            endpoint: Box::new(Endpoint::new(me, Timing::for_baud(baud), millis(now))),
            frame: FrameBuffer::new(),
        }
    }

    /// State and counters.
    pub fn endpoint(&self) -> &Endpoint<QUEUE> {
        &self.endpoint
    }
}

impl LinkError for SendError {
    fn kind(&self) -> LinkErrorKind {
        match self {
            SendError::Down => LinkErrorKind::Closed,
            SendError::Full { .. } | SendError::Direction { .. } => LinkErrorKind::Other,
        }
    }
}

fn millis(now: Duration) -> u64 {
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

impl Dialect for Packets {
    type Outgoing = Message;
    type Incoming = Notice;
    type Receipt = Option<Ticket>;
    type Refusal = SendError;

    fn send(&mut self, message: Message, now: Duration) -> Result<Option<Ticket>, SendError> {
        self.endpoint.send(message, millis(now))
    }

    fn on_bytes(&mut self, bytes: &mut &[u8], now: Duration) -> Option<Notice> {
        self.endpoint.on_bytes(bytes, millis(now))
    }

    fn on_tick(&mut self, now: Duration) -> Option<Notice> {
        self.endpoint.on_tick(millis(now))
    }

    fn on_closed(&mut self, now: Duration) -> Option<Notice> {
        self.endpoint.close(millis(now))
    }

    fn next_output(&mut self, out: &mut Vec<u8>, now: Duration) -> bool {
        let frame = self.endpoint.next_frame(&mut self.frame, millis(now));
        out.extend_from_slice(frame.unwrap_or_default());
        frame.is_some()
    }

    fn next_tick_at(&self) -> Option<Duration> {
        Some(Duration::from_millis(self.endpoint.next_tick_at()))
    }

    fn next_output_at(&self) -> Option<Duration> {
        Some(Duration::from_millis(self.endpoint.next_frame_at()))
    }
}
