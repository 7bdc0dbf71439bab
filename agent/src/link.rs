//! Links: channels of messages between the agent and the world.
//!
//! | file | defines |
//! |---|---|
//! | [`backoff`] | how long to wait before the next try to connect |
//! | [`line_mode`] | commands as lines of text over a serial line |
//! | [`memory`] | two ends in one program, for tests and dry runs |
//! | [`mqtt`] | a broker: events, state, commands, Home Assistant |
//! | [`queue`] | events on disk until the broker has them |
//! | [`serial`] | serial devices that come and go, and packets over them |
//!
//! A link never blocks. The loop asks every link for its [`Interest`], sleeps in one `poll` until
//! a descriptor is ready or the earliest deadline has come, then calls [`Link::recv`] on each
//! until it says `None`. Time is an argument: the monotonic clock, as a duration since any fixed
//! begin.

pub mod backoff;
pub mod line_mode;
pub mod memory;
pub mod mqtt;
pub mod queue;
pub mod serial;

use std::fmt;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// What a loop does about an error, whatever its cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkErrorKind {
    /// The other side, or the device between, is gone; the link tries again by itself.
    Closed,
    /// Nothing came, or nothing could be handed over, in the time allowed.
    Timeout,
    /// Bytes or a message broke the rules of the link; the rest goes on.
    Malformed,
    /// Anything else: settings, permissions, a full queue.
    Other,
}

impl fmt::Display for LinkErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LinkErrorKind::Closed => "closed",
            LinkErrorKind::Timeout => "timed out",
            LinkErrorKind::Malformed => "malformed",
            LinkErrorKind::Other => "failed",
        })
    }
}

/// Errors of links: the loop acts on the kind, the log prints the cause.
pub trait LinkError: std::error::Error {
    /// The kind the loop acts on.
    fn kind(&self) -> LinkErrorKind;
}

/// What a link waits for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Interest<'a> {
    /// Descriptor that becomes readable when there may be something to receive.
    pub fd: Option<BorrowedFd<'a>>,
    /// Whether room for output on `fd` is waited for, too.
    pub writable: bool,
    /// When [`Link::recv`] wants to be called even if nothing comes; a time gone by means at once.
    pub deadline: Option<Duration>,
}

/// One channel of messages. No call blocks.
pub trait Link {
    /// What goes out.
    type Outgoing;
    /// What comes in, link state included.
    type Incoming;
    /// Why a call failed.
    type Error: LinkError;

    /// Accepts a message for sending; it may leave later.
    ///
    /// # Errors
    ///
    /// The message was not accepted.
    fn send(&mut self, message: Self::Outgoing, now: Duration) -> Result<(), Self::Error>;

    /// Moves bytes both ways and returns the next thing that happened, `None` if nothing did.
    ///
    /// # Errors
    ///
    /// A fault to be reported. The link stays usable: the next call goes on.
    fn recv(&mut self, now: Duration) -> Result<Option<Self::Incoming>, Self::Error>;

    /// What to wait for before the next [`Link::recv`].
    fn interest(&self) -> Interest<'_>;
}
