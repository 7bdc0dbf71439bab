//! [`Action`]: what a rule may do.

use crate::diagnostic::Span;
use crate::index::{HookIndex, PacketIndex, PinIndex, TopicIndex};
use crate::permission::Level;
use crate::time::Millis;
use serde::{Deserialize, Serialize};

/// An action of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// What it does.
    pub command: Command,
    /// What it can do to the world.
    pub level: Level,
    /// How it is called in the list a model chooses from.
    pub says: String,
    /// Where it is defined.
    pub at: Span,
}

/// What an action does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Publishes on a topic.
    Publish {
        /// The topic.
        topic: TopicIndex,
        /// Payload with `{answer}`, `{probability}`, `{rule}`, `{event}`, `{frame}`.
        payload: String,
    },
    /// Saves the picture.
    Snapshot,
    /// Sends a packet to the serial peer.
    Packet {
        /// The packet.
        packet: PacketIndex,
        /// Body with the same placeholders as a payload.
        body: String,
    },
    /// Sets a pin.
    Set {
        /// The pin.
        pin: PinIndex,
        /// To what.
        value: PinValue,
        /// For how long; then it goes safe.
        hold: Option<Millis>,
    },
    /// Runs a hook.
    Hook {
        /// The hook.
        hook: HookIndex,
    },
    /// Announces an event that stays open.
    Event {
        /// Its label.
        label: String,
        /// It ends this long after the last update.
        hold: Millis,
    },
}

impl Command {
    /// Kind of the command.
    pub fn kind(&self) -> ActionKind {
        match self {
            Command::Publish { .. } => ActionKind::Publish,
            Command::Snapshot => ActionKind::Snapshot,
            Command::Packet { .. } => ActionKind::Packet,
            Command::Set { .. } => ActionKind::Set,
            Command::Hook { .. } => ActionKind::Hook,
            Command::Event { .. } => ActionKind::Event,
        }
    }

    /// Position of the target in the table of its kind; 0 for kinds without targets.
    pub(crate) fn target(&self) -> usize {
        match self {
            Command::Publish { topic, .. } => topic.get(),
            Command::Packet { packet, .. } => packet.get(),
            Command::Set { pin, .. } => pin.get(),
            Command::Hook { hook } => hook.get(),
            Command::Snapshot | Command::Event { .. } => 0,
        }
    }
}

/// Value a pin is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinValue {
    /// A number of the file.
    Fixed(i32),
    /// The count that was answered, `count × times + plus`.
    Answer {
        /// Factor.
        times: i32,
        /// Summand.
        plus: i32,
    },
}

/// Kinds of action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ActionKind {
    /// [`Command::Publish`]
    Publish,
    /// [`Command::Snapshot`]
    Snapshot,
    /// [`Command::Packet`]
    Packet,
    /// [`Command::Set`]
    Set,
    /// [`Command::Hook`]
    Hook,
    /// [`Command::Event`]
    Event,
}

impl ActionKind {
    /// All kinds with their names in files.
    pub const NAMES: [(&str, ActionKind); 6] = [
        ("publish", ActionKind::Publish),
        ("snapshot", ActionKind::Snapshot),
        ("packet", ActionKind::Packet),
        ("set", ActionKind::Set),
        ("hook", ActionKind::Hook),
        ("event", ActionKind::Event),
    ];

    /// Name in files.
    pub fn word(self) -> &'static str {
        Self::NAMES[self as usize].0
    }

    pub(crate) fn bit(self) -> u8 {
        1 << self as u8
    }
}
