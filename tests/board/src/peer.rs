//! A microcontroller at the host's end of a serial line.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ocelli_board::SerialLine;
use ocelli_wire::{Endpoint, FrameBuffer, Identity, Message, Notice, Role, Timing};

/// How long a test waits for something that should come.
const LIMIT: Duration = Duration::from_secs(60);
/// How long the peer listens before it looks at its clock.
const GLANCE: Duration = Duration::from_millis(10);

/// The peer. It hears and speaks only while a test waits for it.
pub struct Peer<'a> {
    line: &'a SerialLine,
    endpoint: Endpoint<16>,
    begin: Instant,
    heard: VecDeque<(Instant, Notice)>,
}

impl<'a> Peer<'a> {
    /// A peer whose link is down; `incarnation` is another number for each.
    pub fn new(line: &'a SerialLine, incarnation: u32) -> Peer<'a> {
        let identity = Identity::new(Role::Peer, "bench", incarnation);
        Peer {
            line,
            endpoint: Endpoint::new(identity, Timing::for_baud(115_200), 0),
            begin: Instant::now(),
            heard: VecDeque::new(),
        }
    }

    /// Waits until both ends hear each other.
    ///
    /// # Panics
    ///
    /// When they do not.
    pub fn await_up(&mut self) {
        let start = Instant::now();
        while !self.endpoint.is_up() {
            assert!(start.elapsed() < LIMIT, "the serial link is not up");
            self.listen();
        }
    }

    /// Waits for a message and when it came; those before it are dropped.
    ///
    /// # Panics
    ///
    /// When it does not come.
    pub fn await_message(
        &mut self,
        what: &str,
        wanted: impl Fn(&Message) -> bool,
    ) -> (Instant, Message) {
        let start = Instant::now();
        let mut story = Vec::new();
        loop {
            while let Some((at, notice)) = self.heard.pop_front() {
                match notice {
                    Notice::Received(message) if wanted(&message) => return (at, message),
                    notice => story.push(notice),
                }
            }
            assert!(
                start.elapsed() < LIMIT,
                "no {what} on the serial line within {LIMIT:?}; heard: {story:?}"
            );
            self.listen();
        }
    }

    /// Waits for a packet of the rules and returns its body.
    ///
    /// # Panics
    ///
    /// When it does not come.
    pub fn await_packet(&mut self, number: u8) -> (Instant, String) {
        let is_it = |message: &Message| matches!(message, Message::Packet(packet) if packet.number == number);
        match self.await_message(&format!("packet {number}"), is_it) {
            (at, Message::Packet(packet)) => (at, packet.body.to_string()),
            other => unreachable!("{other:?}"),
        }
    }

    fn listen(&mut self) {
        // Silence is no fault.
        let bytes = self.line.receive_through(0, GLANCE).unwrap_or_default();
        let now = self.now();
        let mut rest = bytes.as_slice();
        while let Some(notice) = self.endpoint.on_bytes(&mut rest, now) {
            self.heard.push_back((Instant::now(), notice));
        }
        while let Some(notice) = self.endpoint.on_tick(now) {
            self.heard.push_back((Instant::now(), notice));
        }
        let mut buffer = FrameBuffer::new();
        while let Some(frame) = self.endpoint.next_frame(&mut buffer, now) {
            // A line that is gone is noticed by its silence.
            let _ = self.line.send(frame);
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
