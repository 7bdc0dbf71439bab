//! [`Packet`]: a message with its envelope.
//!
//! A packet is a [`Head`] and, for [`Head::Reliable`] and [`Head::Loose`], a message behind it.

use crate::message::{MAX_MESSAGE_BYTES, Message, Text, cut};
use crate::schema::{SCHEMA_FINGERPRINT, VERSION, Version};
use serde::{Deserialize, Serialize};

/// Longest head in bytes: session, kind and sequence of a message.
pub const MAX_HEAD_BYTES: usize = 5;
/// Longest packet in bytes.
pub const MAX_PACKET_BYTES: usize = MAX_HEAD_BYTES + MAX_MESSAGE_BYTES;

/// Which side of the line an end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// The board that sees and decides.
    Agent,
    /// The microcontroller.
    Peer,
}

/// Who an end is, for one run of its program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its side.
    pub role: Role,
    /// Name for logs.
    pub name: Text<16>,
    /// Another number in every run, e.g. random or a boot counter. 0 stands for a microcontroller
    /// that has neither: it keeps still until it hears a hello and makes its number from that.
    pub incarnation: u32,
}

impl Identity {
    /// An identity; a longer name is cut. An agent always has a number: 0 becomes 1.
    pub fn new(role: Role, name: &str, incarnation: u32) -> Identity {
        Identity {
            role,
            name: cut(name),
            incarnation: match role {
                Role::Agent => incarnation.max(1),
                Role::Peer => incarnation,
            },
        }
    }
}

/// Begin of a packet.
///
/// `to` is the receiver's session, known from its hello: what was meant for an earlier session is
/// dropped. Numbers of two bytes are little endian.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Head {
    /// Who is there, and whom it hears.
    Hello(Hello),
    /// The link stands and nothing else was to be said.
    Heartbeat {
        /// Receiver's session.
        #[serde(with = "postcard::fixint::le")]
        to: u16,
        /// Sender's clock.
        clock_ms: u32,
    },
    /// A reliable message arrived, now or before.
    Ack {
        /// Receiver's session.
        #[serde(with = "postcard::fixint::le")]
        to: u16,
        /// Its sequence number.
        #[serde(with = "postcard::fixint::le")]
        sequence: u16,
    },
    /// A reliable message arrived and cannot be used; sending it again is of no use.
    Nack {
        /// Receiver's session.
        #[serde(with = "postcard::fixint::le")]
        to: u16,
        /// Its sequence number.
        #[serde(with = "postcard::fixint::le")]
        sequence: u16,
        /// Why.
        reason: NackReason,
    },
    /// A message follows that must be acknowledged.
    Reliable {
        /// Receiver's session.
        #[serde(with = "postcard::fixint::le")]
        to: u16,
        /// Its sequence number.
        #[serde(with = "postcard::fixint::le")]
        sequence: u16,
    },
    /// A message follows that is not acknowledged.
    Loose {
        /// Receiver's session.
        #[serde(with = "postcard::fixint::le")]
        to: u16,
    },
}

/// Who is there, and whom it hears.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Version spoken.
    pub version: Version,
    /// [`SCHEMA_FINGERPRINT`] of the sender.
    pub schema: u32,
    /// Sender's side.
    pub role: Role,
    /// Sender's run.
    pub incarnation: u32,
    /// Sender's session: another number after every loss of the link.
    #[serde(with = "postcard::fixint::le")]
    pub session: u16,
    /// The other end's run, as last heard; 0 if never.
    pub peer_incarnation: u32,
    /// The other end's session, as last heard.
    #[serde(with = "postcard::fixint::le")]
    pub peer_session: u16,
    /// Whether the sender holds the link to be up.
    pub is_up: bool,
    /// Sender's name.
    pub name: Text<16>,
}

/// Why a reliable message cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NackReason {
    /// No message of this version has that number, or its fields do not decode.
    Unknown,
    /// The message goes the other way.
    Direction,
}

impl Hello {
    /// Why an end of `role` cannot talk to the sender.
    pub fn mismatch(&self, role: Role) -> Option<Mismatch> {
        if self.version.major != VERSION.major {
            Some(Mismatch::Version(self.version))
        } else if self.version.minor == VERSION.minor && self.schema != SCHEMA_FINGERPRINT {
            Some(Mismatch::Schema(self.schema))
        } else if self.role == role {
            Some(Mismatch::Role(self.role))
        } else {
            None
        }
    }
}

/// Why two ends cannot talk: what the other end has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// Another major version.
    #[error(
        "the other end speaks protocol {}.{}, this one {}.{}; bring both to one major version",
        .0.major, .0.minor, VERSION.major, VERSION.minor
    )]
    Version(Version),
    /// Other messages under the same version.
    #[error(
        "the other end has message schema {0:#010x}, this one {SCHEMA_FINGERPRINT:#010x}; \
         build both from the same version"
    )]
    Schema(u32),
    /// The same side, for example the end hears itself.
    #[error("the other end is {0:?} like this one; check the wiring and for an echo")]
    Role(Role),
}

/// A head and the message behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The head.
    pub head: Head,
    /// The message, if the head announces one. `None` behind such a head means that it does not
    /// decode.
    pub message: Option<Message>,
}

impl Head {
    /// Session it is addressed to; `None` for a hello.
    pub fn to(&self) -> Option<u16> {
        match *self {
            Head::Hello(_) => None,
            Head::Heartbeat { to, .. }
            | Head::Ack { to, .. }
            | Head::Nack { to, .. }
            | Head::Reliable { to, .. }
            | Head::Loose { to } => Some(to),
        }
    }
}

impl Packet {
    /// Reads a packet; `None` if the head does not decode or bytes are left over.
    pub fn decode(bytes: &[u8]) -> Option<Packet> {
        let (head, rest) = postcard::take_from_bytes::<Head>(bytes).ok()?;
        let message = match head {
            Head::Reliable { .. } | Head::Loose { .. } => decode_message(rest),
            _ if rest.is_empty() => None,
            _ => return None,
        };
        Some(Packet { head, message })
    }
}

fn decode_message(bytes: &[u8]) -> Option<Message> {
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Some(message),
        _ => None,
    }
}

/// Writes a packet into `buffer` and returns its length; `None` if it does not fit.
pub fn encode(head: &Head, message: Option<&Message>, buffer: &mut [u8]) -> Option<usize> {
    let head_bytes = postcard::to_slice(head, buffer).ok()?.len();
    let message_bytes = match message {
        Some(message) => postcard::to_slice(message, buffer.get_mut(head_bytes..)?)
            .ok()?
            .len(),
        None => 0,
    };
    Some(head_bytes + message_bytes)
}
