//! [`Message`]: everything agent and microcontroller say to each other.
//!
//! | message | from | when | reliable | repeating it |
//! |---|---|---|---|---|
//! | [`Event`] | agent | a rule decided; again under the same id when the answer is refined | record | same id and phase: harmless |
//! | [`Answer`] | agent | a [`Look`] is answered | record | same request: harmless |
//! | [`SetPin`] | agent | an action drives an output of the microcontroller | command | sets the same value, the time on starts again |
//! | [`PinOutcome`] | peer | a [`SetPin`] was done or refused | record | same request: harmless |
//! | [`PinEdge`] | peer | an input changed | record | a second edge |
//! | [`Reading`] | peer | a sensor was read | no | the newest counts |
//! | [`Look`] | peer | it wants a picture looked at | command | a second look |
//! | [`StateRequest`](Message::StateRequest) | peer | it wants the state now | command | harmless |
//! | [`State`] | agent | the state changed, was asked for, or every 30 s | no | the newest counts |
//! | [`Log`] | both | a line for the other side's log | no | a second line |
//! | [`ApprovalRequest`] | agent | an action waits for a person | command | same request: harmless |
//! | [`Approval`] | peer | the person answered | command | same request: the first counts |
//! | [`Packet`] | both | the rules define what it means | record or command | a second packet |
//!
//! *Records* wait in the queue while the link is down and arrive once and in order. *Commands* are
//! never late: they are refused while the link is down, and given up when it goes down or they get
//! too old. Messages that are not reliable may be lost. The order of the variants is the format:
//! new ones are added at the end.

use serde::{Deserialize, Serialize};

/// Longest message in bytes, encoded with postcard.
pub const MAX_MESSAGE_BYTES: usize = 240;

/// Text of at most `N` bytes.
pub type Text<const N: usize> = heapless::String<N, u8>;
/// Name of a pin or sensor, as the microcontroller defines it.
pub type Name = Text<32>;

/// Takes as many whole characters of `text` as fit.
pub fn cut<const N: usize>(text: &str) -> Text<N> {
    let mut kept = Text::new();
    for character in text.chars() {
        if kept.push(character).is_err() {
            break;
        }
    }
    kept
}

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the agent to the peer.
    ToPeer,
    /// From the peer to the agent.
    ToAgent,
    /// Either way.
    Both,
}

/// What is done to get a message across.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Acknowledged and repeated; waits while the link is down.
    Record,
    /// Acknowledged and repeated while it is fresh and the link is up.
    Command,
    /// Sent once while the link is up.
    Loose,
}

/// Something one side tells the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// A rule decided.
    Event(Event),
    /// A look is answered.
    Answer(Answer),
    /// Drive an output.
    SetPin(SetPin),
    /// What became of a [`SetPin`].
    PinOutcome(PinOutcome),
    /// An input changed.
    PinEdge(PinEdge),
    /// A sensor was read.
    Reading(Reading),
    /// Look at the scene.
    Look(Look),
    /// Send the [`State`] now.
    StateRequest,
    /// How the agent is.
    State(State),
    /// A line for the log.
    Log(Log),
    /// An action waits for a person.
    ApprovalRequest(ApprovalRequest),
    /// The person's answer.
    Approval(Approval),
    /// Something that the rule file gives a meaning.
    Packet(Packet),
}

impl Message {
    /// Which way it goes.
    pub fn direction(&self) -> Direction {
        match self {
            Message::Event(_)
            | Message::Answer(_)
            | Message::SetPin(_)
            | Message::State(_)
            | Message::ApprovalRequest(_) => Direction::ToPeer,
            Message::PinOutcome(_)
            | Message::PinEdge(_)
            | Message::Reading(_)
            | Message::Look(_)
            | Message::StateRequest
            | Message::Approval(_) => Direction::ToAgent,
            Message::Log(_) | Message::Packet(_) => Direction::Both,
        }
    }

    /// What is done to get it across.
    pub fn delivery(&self) -> Delivery {
        match self {
            Message::Event(_)
            | Message::Answer(_)
            | Message::PinOutcome(_)
            | Message::PinEdge(_) => Delivery::Record,
            Message::SetPin(_)
            | Message::Look(_)
            | Message::StateRequest
            | Message::ApprovalRequest(_)
            | Message::Approval(_) => Delivery::Command,
            Message::Reading(_) | Message::State(_) | Message::Log(_) => Delivery::Loose,
            Message::Packet(packet) if packet.is_command => Delivery::Command,
            Message::Packet(_) => Delivery::Record,
        }
    }
}

/// A rule decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The same in all phases of one event.
    pub id: u32,
    /// Where in its life the event is.
    pub phase: Phase,
    /// Name of the rule.
    pub rule: Text<32>,
    /// The answer that decided; empty if the rule asked nothing.
    pub choice: Text<32>,
    /// Probability of the choice in steps of 1/65535.
    pub probability: u16,
}

/// Where in its life an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// It began.
    New,
    /// Its answer was refined.
    Update,
    /// It is over.
    End,
}

/// The answer to a [`Look`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Request it answers.
    pub request: u16,
    /// How sure the model is.
    pub verdict: Verdict,
    /// Probability in steps of 1/65535; 0 for a caption.
    pub probability: u16,
    /// The choice, caption or fault; cut at a character if longer.
    pub text: Text<160>,
}

/// What kind of answer it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The text is the answer.
    Answered,
    /// The best choice did not reach the threshold; the text names it.
    Unsure,
    /// There is no answer; the text says why.
    Failed,
}

/// Drive an output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetPin {
    /// Comes back in the [`PinOutcome`].
    pub request: u16,
    /// The output.
    pub pin: Name,
    /// Value, e.g. 0 or 1.
    pub value: i32,
    /// The microcontroller itself makes the pin safe after so long, or after its own limit if that
    /// is shorter. 0 is refused unless the value is the safe one.
    pub max_on_ms: u32,
}

/// What became of a [`SetPin`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinOutcome {
    /// The request.
    pub request: u16,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The output was commanded.
    Done,
    /// No output has that name.
    UnknownPin,
    /// The value is outside the output's range.
    OutOfRange,
    /// An unsafe value without a time limit.
    NoTimeLimit,
    /// The microcontroller does not allow it now.
    Refused,
}

/// An input changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinEdge {
    /// The input.
    pub pin: Name,
    /// Level after the change.
    pub level: bool,
    /// When, on the clock of the microcontroller; its heartbeats tell that clock.
    pub at_ms: u32,
}

/// A sensor was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// The sensor.
    pub sensor: Name,
    /// Value in thousandths of the unit.
    pub milli: i32,
    /// Unit, e.g. `°C`, `lx`, `hPa`.
    pub unit: Text<8>,
    /// When, on the clock of the microcontroller.
    pub at_ms: u32,
}

/// Look at the scene.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// Comes back in the [`Answer`].
    pub request: u16,
    /// What to ask; empty for a caption.
    pub question: Text<112>,
    /// Answers to choose from; none for free text.
    pub choices: heapless::Vec<Text<16>, 6, u8>,
}

/// How the agent is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// What it is doing.
    pub mode: Mode,
    /// Seconds since it started.
    pub uptime_s: u32,
    /// Rules that may fire.
    pub n_armed_rules: u16,
    /// Hottest sensor of the board in tenths of a degree Celsius.
    pub temperature_dc: Option<i16>,
    /// Last fault that still stands; empty if none.
    pub fault: Text<64>,
}

/// What the agent is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Not ready yet.
    Starting,
    /// Working.
    Running,
    /// Working without driving anything.
    DryRun,
    /// Something failed and the rest goes on; `fault` says what.
    Degraded,
    /// Ending.
    Stopping,
}

/// A line for the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// How grave it is.
    pub severity: Severity,
    /// The line.
    pub text: Text<160>,
}

/// How grave a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Severity {
    /// Of interest while building.
    Debug,
    /// Normal.
    Info,
    /// Worth a look.
    Warning,
    /// Something does not work.
    Error,
}

/// An action waits for a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalRequest {
    /// Comes back in the [`Approval`].
    pub request: u16,
    /// Rule that wants to act.
    pub rule: Text<32>,
    /// What it wants to do.
    pub action: Text<80>,
    /// Without an answer in this time the action is denied.
    pub expires_ms: u32,
}

/// The person's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// The request.
    pub request: u16,
    /// Whether the action may be done.
    pub granted: bool,
}

/// Something that the rule file gives a meaning: `[packets.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packet {
    /// Number in the rule file.
    pub number: u8,
    /// Text for the rules, or from them.
    pub body: Text<200>,
    /// It is worth nothing later: [`Delivery::Command`]. Otherwise [`Delivery::Record`].
    pub is_command: bool,
}
