//! Packets between the agent and a microcontroller, for both sides of the line.
//!
//! | file | defines |
//! |---|---|
//! | [`message`] | what is said: the table of messages |
//! | [`packet`] | a message with its envelope: session, sequence, acknowledgement, hello |
//! | [`frame`] | a packet as bytes: CRC-16, COBS, a zero at the end |
//! | [`endpoint`] | one end of the line as a pure state machine |
//! | [`timing`] | its intervals and limits, by line speed |
//! | [`pins`] | outputs of a microcontroller that go safe by themselves |
//! | [`schema`] | version and fingerprint of all the above |
//!
//! Nothing here allocates, reads a clock or touches a device. The driver of a serial port moves
//! bytes between its hardware and an [`Endpoint`], on a board as on a microcontroller:
//!
//! ```
//! use ocelli_wire::{Endpoint, FrameBuffer, Identity, Notice, Role, Timing};
//!
//! # fn run(mut read: impl FnMut() -> Vec<u8>, mut write: impl FnMut(&[u8]), now_ms: u64) {
//! let me = Identity::new(Role::Peer, "door", 0x5eed);
//! let mut endpoint: Endpoint<4> = Endpoint::new(me, Timing::for_baud(115_200), now_ms);
//! let mut frame = FrameBuffer::new();
//! loop {
//!     let bytes = read();
//!     let mut rest = bytes.as_slice();
//!     while let Some(notice) = endpoint.on_bytes(&mut rest, now_ms) {
//!         if let Notice::Down(_) = notice { /* make every output safe */ }
//!     }
//!     while let Some(notice) = endpoint.on_tick(now_ms) { /* the same */ }
//!     while let Some(bytes) = endpoint.next_frame(&mut frame, now_ms) {
//!         write(bytes);
//!     }
//!     # break;
//! }
//! # }
//! ```
//!
//! The bytes are described in `docs/wire.md`.

#![no_std]
#![forbid(unsafe_code)]

pub mod endpoint;
pub mod frame;
pub mod message;
pub mod packet;
pub mod pins;
pub mod schema;
pub mod timing;

pub use endpoint::{Counters, DownReason, Endpoint, Notice, SendError, Ticket, UndeliveredReason};
pub use frame::{FrameBuffer, FrameDecoder, FrameError, MAX_FRAME_BYTES};
pub use message::{Direction, MAX_MESSAGE_BYTES, Message, Text};
pub use packet::{Hello, Identity, NackReason, Packet, Role};
pub use pins::{Pin, PinGuard};
pub use schema::{SCHEMA_FINGERPRINT, VERSION, Version};
pub use timing::{Millis, Timing};
