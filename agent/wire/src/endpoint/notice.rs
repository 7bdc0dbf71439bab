//! What an endpoint tells its owner.

use crate::message::{Message, Text};
use crate::packet::{Mismatch, NackReason, Role};
use crate::schema::Version;
#[cfg(doc)]
use crate::timing::Timing;

/// Names a reliable message until its end is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(pub u32);

/// Something the owner of an endpoint must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Both ends hear each other.
    Up {
        /// Name of the other end.
        name: Text<16>,
        /// Its version.
        version: Version,
        /// It is another run than the one last heard.
        is_new_run: bool,
    },
    /// The link is down: a microcontroller makes its outputs safe.
    Down(DownReason),
    /// The other end cannot be talked to. Said once for each reason.
    Refused(Mismatch),
    /// A message from the other end; acknowledged if it is reliable.
    Received(Message),
    /// The other end is alive and this was its clock.
    Clock {
        /// Milliseconds on the other end's clock.
        peer_ms: u32,
    },
    /// The other end has the message.
    Delivered(Ticket),
    /// The message was given up. It may have arrived all the same.
    Undelivered(Ticket, UndeliveredReason),
}

/// Why the link went down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DownReason {
    /// No valid frame for [`Timing::silence_ms`].
    Silence,
    /// [`Timing::max_tries`] without acknowledgement.
    NoAcknowledgement,
    /// The other end lost the link and begins again.
    PeerReset,
    /// The other end started anew.
    PeerRestarted,
    /// The other end cannot be talked to any more.
    Mismatch,
    /// The owner closed the line.
    Closed,
}

/// Why a message was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UndeliveredReason {
    /// A command got older than [`Timing::command_ms`].
    Expired,
    /// The link went down before a command was acknowledged.
    LinkDown,
    /// The other end cannot use it.
    Rejected(NackReason),
}

/// Why a message was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// As many messages wait as may.
    #[error("{limit} messages wait for the other end, the limit; wait for some to be delivered")]
    Full {
        /// The limit.
        limit: usize,
    },
    /// Commands and loose messages are not kept while the link is down.
    #[error("the link is down; commands and loose messages are sent only while it is up")]
    Down,
    /// The message goes the other way.
    #[error("{role:?} cannot send this message, it goes the other way")]
    Direction {
        /// This end's side.
        role: Role,
    },
}

/// What an endpoint counted since it was made; counters stop at the top.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames handed out.
    pub frames_out: u32,
    /// Sound frames of this version.
    pub frames_in: u32,
    /// Bytes between zeros that were no sound frame of this version.
    pub damaged: u32,
    /// Sound frames for another session.
    pub stale: u32,
    /// Reliable messages that came again.
    pub duplicates: u32,
    /// Reliable messages sent again.
    pub retries: u32,
    /// Loose messages thrown away because newer ones came, or that did not decode.
    pub loose_dropped: u32,
    /// Times the link went down.
    pub downs: u32,
}

pub(super) fn count(counter: &mut u32) {
    *counter = counter.saturating_add(1);
}
