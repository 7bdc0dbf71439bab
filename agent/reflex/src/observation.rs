//! [`Observation`]: what happened. It names things by name, so that a journal can be replayed under
//! other rules.

use crate::index::{ActId, CallId, LookId, QuestionId, RequestId};
use crate::limit::MAX_ZONES;
use crate::probability::Probability;
use crate::text::{Name, Text};
use crate::time::Millis;
use serde::{Deserialize, Serialize};

/// Something happened.
#[expect(
    clippy::large_enum_variant,
    reason = "nothing is boxed: the step and its journal do not allocate"
)]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Observation {
    /// The agent starts, also after a crash. All pins go safe; nothing acts before this.
    Start {
        /// Random bits of the operating system; approvals are signed with them.
        secret: [u64; 2],
    },
    /// The agent stops. All pins go safe; nothing acts after this.
    Stop,
    /// The rules are about to be replaced. To be fed with the old policy; the next call brings the
    /// new one. All pins go safe, what waits is given up; rates, cooldowns and off-times stay.
    Reload,
    /// Nothing but time has passed.
    Tick,
    /// The picture changed.
    Change(Change),
    /// A picture asked for by [`crate::Output::Look`] was taken, or could not be.
    Looked {
        /// Which look.
        look: LookId,
        /// The picture; `None` if there is none.
        frame: Option<Frame>,
    },
    /// An input pin has a level.
    Pin {
        /// Name of the pin in the policy.
        pin: Name,
        /// True: active.
        level: bool,
        /// True: read, not an edge. Sent for every input after start.
        initial: bool,
    },
    /// A packet came from the serial peer.
    Packet {
        /// Where it came in.
        link: Link,
        /// Name of the packet in the policy.
        packet: Name,
        /// Its body.
        body: Text,
    },
    /// A message came on a topic.
    Message {
        /// Where it came in.
        link: Link,
        /// Name of the topic in the policy.
        topic: Name,
        /// Its payload.
        body: Text,
        /// The broker had kept it: it says what was, so it starts nothing.
        retained: bool,
    },
    /// A model answered.
    Answer(Answer),
    /// A person decided about a pending action.
    Approval(Approval),
    /// A hook called before an action came back.
    Hook {
        /// Which call.
        call: CallId,
        /// What it said.
        verdict: HookVerdict,
    },
    /// An action was carried out, or not.
    Outcome {
        /// Which action.
        act: ActId,
        /// How it went.
        outcome: Outcome,
    },
    /// A link came up or went down; all are down at start.
    Link {
        /// Which link.
        link: Link,
        /// True: up.
        up: bool,
    },
    /// A fault began or ended.
    Fault {
        /// Which.
        fault: Fault,
        /// True: it began.
        active: bool,
    },
    /// A person enables or disables a rule. It stays so until the next word, under new rules and
    /// through restarts.
    Switch {
        /// Name of the rule in the policy.
        rule: Name,
        /// True: it may start.
        on: bool,
    },
    /// A person asks for an output. Nothing happens unless a rule is written for it, and its
    /// actions pass the gate as any others do.
    Command {
        /// Where it came in.
        link: Link,
        /// Name of the pin in the policy.
        pin: Name,
        /// On or off.
        on: bool,
    },
}

/// A change seen by the camera.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Zones with changed cells.
    pub zones: heapless::Vec<Name, MAX_ZONES>,
    /// Changed share of the cells of these zones.
    pub fraction: Probability,
    /// Why.
    pub cause: Cause,
    /// The camera's number of this stretch of change.
    pub episode: u64,
    /// The picture in which it was seen.
    pub frame: Frame,
}

/// What makes pictures differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// Something moved.
    Motion,
    /// The light changed.
    Light,
    /// The camera moved or was covered.
    Camera,
}

/// A picture, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// The camera's number.
    pub id: u64,
    /// When it was taken, on the clock of [`crate::Now::ms`].
    pub time: Millis,
    /// Verdict of the quality gate.
    pub quality: Quality,
}

/// Whether a picture is worth asking about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Quality {
    /// It is.
    Good,
    /// Too dark.
    Dark,
    /// Too bright, or glare.
    Bright,
    /// Not sharp.
    Blurred,
    /// The lens is covered.
    Covered,
}

/// An answer of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// To which question.
    pub question: QuestionId,
    /// What was answered.
    pub value: Value,
    /// Probability of it; for fields that of the weakest.
    pub probability: Probability,
    /// The model abstained.
    pub unsure: bool,
    /// When the picture was taken that was looked at, on the clock of [`crate::Now::ms`].
    pub frame_time: Millis,
    /// First or last word.
    pub stage: Stage,
}

/// Content of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    /// None.
    #[default]
    Nothing,
    /// Index of a choice in the order of the question.
    Choice(u8),
    /// A count.
    Count(u32),
    /// Free text.
    Text(Text),
    /// Fields of a schema as compact JSON. If the JSON is longer than a [`Text`], the text is empty
    /// and marked as cut, and the caller keeps the whole under the question's id.
    Fields {
        /// The object.
        json: Text,
        /// Required fields without a value.
        missing: u8,
    },
}

/// First or last word of a model about a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// From the global view; another answer follows.
    Early,
    /// Final.
    Refined,
}

/// Decision of a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Which pending action.
    pub request: RequestId,
    /// The number sent with the request; another one is a forgery.
    pub nonce: u64,
    /// True: may be done.
    pub granted: bool,
    /// Where the decision came in.
    pub link: Link,
    /// The broker had kept the message: refused.
    pub retained: bool,
}

/// Verdict of a hook called before an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HookVerdict {
    /// No objection. It grants nothing by itself.
    Pass,
    /// Must not be done.
    Veto,
    /// The hook failed, timed out or said something that cannot be read; counts as a veto.
    Failed,
}

/// How an action went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Done.
    Done,
    /// It failed.
    Failed,
    /// No word in time.
    TimedOut,
}

/// Ways in and out of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Link {
    /// The serial peer.
    Serial,
    /// The MQTT broker.
    Mqtt,
    /// The HTTP page.
    Http,
    /// A button on the device.
    Button,
}

impl Link {
    /// All links with their names in files.
    pub const NAMES: [(&str, Link); 4] = [
        ("serial", Link::Serial),
        ("mqtt", Link::Mqtt),
        ("http", Link::Http),
        ("button", Link::Button),
    ];

    pub(crate) fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// What can be wrong with the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// No pictures.
    CameraGone,
    /// The model cannot be used.
    ModelRefused,
    /// Messages wait on disk.
    BrokerAway,
    /// Nothing can be saved.
    DiskFull,
    /// The board is hot or throttled.
    Hot,
    /// Memory is short.
    LowMemory,
}

impl Fault {
    /// All faults, in the order of their bits.
    pub const ALL: [Fault; 6] = [
        Fault::CameraGone,
        Fault::ModelRefused,
        Fault::BrokerAway,
        Fault::DiskFull,
        Fault::Hot,
        Fault::LowMemory,
    ];

    pub(crate) fn bit(self) -> u8 {
        1 << self as u8
    }
}
