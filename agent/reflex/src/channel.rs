//! [`Topic`] and [`Packet`]: named ways of telling and being told.

use crate::diagnostic::Span;
use crate::permission::Level;
use crate::text::Name;
use serde::{Deserialize, Serialize};

/// Whether something comes in or goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    /// It comes in.
    In,
    /// It goes out.
    Out,
}

impl Direction {
    /// Names in files.
    pub const NAMES: [(&str, Direction); 2] = [("in", Direction::In), ("out", Direction::Out)];
}

/// A topic of the MQTT broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Name in the policy.
    pub name: Name,
    /// The topic itself, without wildcards.
    pub path: String,
    /// In or out.
    pub direction: Direction,
    /// Whether the broker keeps what is published.
    pub retain: bool,
    /// Level of publishing on it.
    pub level: Level,
    /// Where it is defined.
    pub at: Span,
}

/// A packet of the serial link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Name in the policy.
    pub name: Name,
    /// Number on the wire.
    pub number: u8,
    /// In or out.
    pub direction: Direction,
    /// Level of sending it.
    pub level: Level,
    /// Where it is defined.
    pub at: Span,
}
