//! A microcontroller at the other end of the serial line: one lamp, one button, one reading.
//!
//! Written for the Stellaris LM3S6965 evaluation board because QEMU has it. Another board needs
//! another [`board`] and `memory.x`; the loop stays.

#![no_std]
#![no_main]
#![deny(unsafe_code)]

mod board;

use board::Board;
use cortex_m_rt::entry;
use ocelli_wire::message::{PinEdge, PinOutcome, Reading, cut};
use ocelli_wire::{
    Endpoint, FrameBuffer, Identity, Message, Millis, Notice, Pin, PinGuard, Role, Timing,
};

const BAUD: u32 = 115_200;
/// Between two readings.
const READING_MS: Millis = 1000;

/// A line without program is a line nobody holds: outputs are safe after the reset that follows.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    cortex_m::peripheral::SCB::sys_reset()
}

#[entry]
fn main() -> ! {
    let mut door = Door::new(Board::new());
    loop {
        door.turn();
    }
}

struct Door {
    board: Board,
    endpoint: Endpoint<4>,
    frame: FrameBuffer,
    pins: PinGuard<1>,
    button: bool,
    read_at: Millis,
}

impl Door {
    fn new(board: Board) -> Door {
        // The board has nothing to make a number from.
        let me = Identity::new(Role::Peer, "door", 0);
        Door {
            endpoint: Endpoint::new(me, Timing::for_baud(BAUD), board.now()),
            frame: FrameBuffer::new(),
            pins: PinGuard::new([Pin {
                name: cut("lamp"),
                safe: 0,
                range: (0, 1),
                max_on_ms: 10_000,
            }]),
            button: board.button(),
            read_at: 0,
            board,
        }
    }

    fn turn(&mut self) {
        let now = self.board.now();
        while let Some(byte) = self.board.receive() {
            let mut bytes = &[byte][..];
            while let Some(notice) = self.endpoint.on_bytes(&mut bytes, now) {
                self.on_notice(notice, now);
            }
        }
        while let Some(notice) = self.endpoint.on_tick(now) {
            self.on_notice(notice, now);
        }
        self.look_at_inputs(now);
        self.pins.on_tick(now);
        let [lamp] = self.pins.values();
        self.board.set_lamp(lamp != 0);
        while let Some(bytes) = self.endpoint.next_frame(&mut self.frame, now) {
            bytes.iter().for_each(|&byte| self.board.send(byte));
        }
    }

    fn on_notice(&mut self, notice: Notice, now: Millis) {
        match notice {
            Notice::Down(_) => self.pins.make_safe(),
            Notice::Received(Message::SetPin(request)) => {
                let outcome = PinOutcome {
                    request: request.request,
                    outcome: self.pins.set(&request, now),
                };
                self.say(Message::PinOutcome(outcome), now);
            }
            _ => {}
        }
    }

    fn look_at_inputs(&mut self, now: Millis) {
        // The clock of the wire wraps after 49 days.
        let at_ms = now as u32;
        let button = self.board.button();
        if button != self.button {
            self.button = button;
            let pin = cut("button");
            self.say(
                Message::PinEdge(PinEdge {
                    pin,
                    level: button,
                    at_ms,
                }),
                now,
            );
        }
        if now >= self.read_at {
            self.read_at = now + READING_MS;
            let uptime = Reading {
                sensor: cut("uptime"),
                milli: at_ms as i32,
                unit: cut("s"),
                at_ms,
            };
            self.say(Message::Reading(uptime), now);
        }
    }

    /// What does not fit into the queue is not said: the agent is away, and edges are worth less
    /// the older they are.
    fn say(&mut self, message: Message, now: Millis) {
        let _ = self.endpoint.send(message, now);
    }
}
