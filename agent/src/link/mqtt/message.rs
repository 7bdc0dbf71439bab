//! What passes between the agent and the link.

use super::command::{Command, PinValue};
use super::discovery::{Description, DescriptionError};
use super::payload::{Event, Info, PendingAction, Reply, Sight, Stats};
use super::publication::{Publication, PublicationError};
use super::settings::SettingsError;
use super::topics::TopicError;
use crate::link::queue::QueueError;
use crate::link::{LinkError, LinkErrorKind};
use std::time::Duration;

/// From the agent.
#[derive(Clone, Debug, PartialEq)]
pub enum Outgoing {
    /// An event: on the disk when `send` returns, and sent until the broker has acknowledged it.
    Event(Box<Event>),
    /// A message on a topic of the rules: on the disk when `send` returns, and sent in one order
    /// with events until the broker has acknowledged it.
    Publish(Box<Publication>),
    /// The topics of the rules to listen to, all of them; they come as [`Incoming::Message`].
    Listen(Vec<String>),
    /// State, of which only the last is kept and sent.
    State(State),
    /// The answer to a [`Request`].
    Reply(Ticket, Reply),
    /// What this device shows: rules, pins, features.
    Describe(Box<Description>),
}

/// Retained state; a new value takes the place of the old one.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// What this device is.
    Info(Info),
    /// Figures; the link adds its own.
    Stats(Stats),
    /// Actions that wait for approval.
    Pending(Vec<PendingAction>),
    /// The last answer of the rule that the sight names.
    Answer(Sight),
    /// The picture behind it.
    Snapshot {
        /// The rule.
        rule: String,
        /// A JPEG file of at most [`super::topics::MAX_SNAPSHOT_BYTES`].
        jpeg: Vec<u8>,
    },
    /// Whether a rule is enabled.
    Rule {
        /// The rule.
        rule: String,
        /// Whether it is.
        on: bool,
    },
    /// What a pin was set to.
    Pin {
        /// The pin.
        pin: String,
        /// The value.
        value: PinValue,
    },
    /// The value of a feature.
    Feature {
        /// The feature.
        feature: String,
        /// Its value.
        value: String,
    },
}

impl PinValue {
    /// As the topic of the pin's state says it.
    pub fn text(self) -> String {
        match self {
            PinValue::Level(true) => "ON".to_owned(),
            PinValue::Level(false) => "OFF".to_owned(),
            PinValue::Number(number) => number.to_string(),
        }
    }
}

/// To the agent.
#[derive(Clone, Debug, PartialEq)]
pub enum Incoming {
    /// The connection stands and commands are heard.
    Up,
    /// The connection stands, but the broker refused some of the subscriptions.
    Deaf {
        /// How many.
        refused: usize,
    },
    /// The connection is gone, or could not be made; the next try comes by itself.
    Down {
        /// Why.
        reason: String,
    },
    /// Somebody wants something.
    Request(Request),
    /// A message on one of the topics of [`Outgoing::Listen`].
    Message {
        /// The topic.
        topic: String,
        /// At most [`MAX_HEARD_BYTES`](super::publication::MAX_HEARD_BYTES).
        payload: Vec<u8>,
        /// The broker had kept it: it says what was.
        retained: bool,
    },
    /// A command was turned down, and its sender told; or a message on a topic of the rules was.
    Refused {
        /// Where it came.
        topic: String,
        /// Why.
        reason: String,
    },
    /// Events or publications were dropped; how many in the life of the queue.
    Dropped {
        /// Drops so far.
        total: u64,
    },
    /// The disk refused an event or a publication: a power cut would lose it.
    Volatile {
        /// Its number.
        seq: u64,
    },
    /// The broker or its limits stand against a message.
    Unsent {
        /// Which and why.
        reason: String,
    },
}

/// A command and where its answer goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Hands the answer to its sender.
    pub ticket: Ticket,
    /// What is wanted.
    pub command: Command,
    /// How long it is worth doing, counted from when it was received; `None` if nobody said.
    pub expires: Option<Duration>,
}

/// Where the answer to a command goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ticket {
    pub(super) id: Option<String>,
    pub(super) topic: Option<String>,
    pub(super) correlation: Option<Vec<u8>>,
    pub(super) serial: u64,
}

/// Why the link cannot be started or does not take something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MqttError {
    /// Settings that cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A name that cannot be part of a topic.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// A description that cannot be used.
    #[error(transparent)]
    Description(#[from] DescriptionError),
    /// A publication, or topics to listen to, that cannot be used.
    #[error(transparent)]
    Publication(#[from] PublicationError),
    /// The event queue does not work.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// A payload that outgrows its topic.
    #[error("{bytes} bytes for `{topic}` are more than the limit of {limit}")]
    TooLarge {
        /// The topic's pattern.
        topic: &'static str,
        /// Length of the payload.
        bytes: usize,
        /// Longest payload there.
        limit: usize,
    },
    /// The system has no thread or descriptor left.
    #[error("the MQTT link cannot be started: {source}")]
    Start {
        /// What the system said.
        source: std::io::Error,
    },
}

impl LinkError for MqttError {
    fn kind(&self) -> LinkErrorKind {
        LinkErrorKind::Other
    }
}
