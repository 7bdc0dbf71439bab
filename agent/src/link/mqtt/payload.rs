//! What is published: JSON objects after `docs/schemas`, and their bounds.

#[cfg(test)]
mod tests;

use super::topics::{MAX_NAME_BYTES, WIRE_VERSION};
use crate::link::queue::{Priority, Stamp};
use serde::Serialize;

/// Longest text of an answer, in bytes; longer ones are cut.
pub const MAX_TEXT_BYTES: usize = 4096;
/// Longest question, in bytes; longer ones are cut.
pub const MAX_QUESTION_BYTES: usize = 1024;
/// Longest short text (a choice, a zone, an identifier), in bytes; longer ones are cut.
pub const MAX_WORD_BYTES: usize = 128;
/// Longest description of an action that waits, in bytes; longer ones are cut.
pub const MAX_ACTION_BYTES: usize = 256;
/// Most rules that are named.
pub const MAX_RULES: usize = 256;
/// Most zones of a sight.
pub const MAX_ZONES: usize = 16;
/// Most actions that are shown as waiting.
pub const MAX_PENDING: usize = 16;

/// What was seen and what came of it: the inside of an event, and the last answer of a rule.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Sight {
    /// The same through `new`, `update` and `end` of one event.
    pub id: String,
    /// Rule that asked.
    pub rule: String,
    /// Camera that looked.
    pub camera: Option<String>,
    /// When the picture was taken, in milliseconds since 1970.
    pub time_ms: u64,
    /// The question.
    pub question: Option<String>,
    /// The choice or count that was answered; `None` for free text and when unsure.
    pub answer: Option<String>,
    /// Probability of the answer, 0 to 1.
    pub probability: Option<f32>,
    /// Whether the model abstained.
    pub unsure: bool,
    /// Free text.
    pub text: Option<String>,
    /// Zones that changed.
    pub zones: Vec<String>,
    /// Whether the rule's snapshot shows this.
    pub has_snapshot: bool,
}

/// Phase of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// First answer.
    New,
    /// Refined answer.
    Update,
    /// It is over.
    End,
}

/// An event, as the agent hands it over.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Phase.
    pub phase: Phase,
    /// What was said before under this id.
    pub before: Option<Sight>,
    /// What holds now.
    pub after: Sight,
    /// What is dropped first when the queue is full.
    pub priority: Priority,
}

/// An action that waits for approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PendingAction {
    /// Its id.
    pub id: String,
    /// Must be said to decide: it binds the decision to this very action.
    pub nonce: String,
    /// Rule that wants it.
    pub rule: String,
    /// What would be done, for a person to read.
    pub action: String,
    /// Permission level, e.g. `actuate-reversible`.
    pub level: String,
    /// When it is denied by itself, in milliseconds since 1970.
    pub expires_ms: u64,
}

/// Where a figure of energy comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EnergySource {
    /// A power meter of the board.
    Measured,
    /// A model of the board.
    Estimate,
}

/// Figures about the device; `None` is what it cannot tell.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    /// When they were taken, in milliseconds since 1970.
    pub time_ms: u64,
    /// Seconds since the agent started.
    pub uptime_s: u64,
    /// Seconds from the last picture to its answer.
    pub latency_s: Option<f32>,
    /// Temperature of the processor in °C.
    pub temperature_c: Option<f32>,
    /// Whether the processor is being slowed down.
    pub throttled: Option<bool>,
    /// Pictures looked at.
    pub looks: u64,
    /// Questions answered.
    pub answers: u64,
    /// Actions done.
    pub actions: u64,
    /// Actions denied.
    pub denied: u64,
    /// Joules of the last answer.
    pub energy_j: Option<f32>,
    /// Where `energy_j` comes from.
    pub energy_source: Option<EnergySource>,
}

/// Figures the link adds to [`Stats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LinkStats {
    /// Events that wait.
    pub events_queued: usize,
    /// Events dropped since the queue was made.
    pub events_dropped: u64,
    /// Commands that were refused.
    pub commands_refused: u64,
    /// Times the connection stood.
    pub connects: u64,
}

/// What this device is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Info {
    /// Program, `ocelli`.
    pub program: String,
    /// Its version.
    pub version: String,
    /// Board.
    pub board: String,
    /// Model.
    pub model: String,
    /// Names of the rules.
    pub rules: Vec<String>,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// Done.
    Done,
    /// Taken on; what comes of it is published elsewhere.
    Accepted,
    /// The payload is not what the schema says.
    Malformed,
    /// The payload is longer than the table allows.
    TooLarge,
    /// No such rule, pin, feature or pending action.
    Unknown,
    /// The permission gate said no, or the nonce is wrong.
    Denied,
    /// Too much is going on; again later.
    Busy,
    /// It was tried and failed.
    Failed,
}

/// The answer to a command.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// How it ended.
    pub code: Code,
    /// Why, for a person to read.
    pub reason: Option<String>,
    /// What was seen, after `ask`.
    pub sight: Option<Sight>,
}

impl Reply {
    /// A reply without reason.
    pub fn plain(code: Code) -> Reply {
        Reply {
            code,
            reason: None,
            sight: None,
        }
    }

    /// A reply with a reason.
    pub fn because(code: Code, reason: impl Into<String>) -> Reply {
        Reply {
            reason: Some(reason.into()),
            ..Reply::plain(code)
        }
    }
}

#[derive(Serialize)]
struct Versioned<'a, T: Serialize> {
    v: u32,
    #[serde(flatten)]
    body: &'a T,
}

#[derive(Serialize)]
struct EventBody<'a> {
    #[serde(rename = "type")]
    phase: Phase,
    queue: String,
    seq: u64,
    dropped: u64,
    before: &'a Option<Sight>,
    after: &'a Sight,
}

#[derive(Serialize)]
struct StatsBody<'a> {
    #[serde(flatten)]
    stats: &'a Stats,
    #[serde(flatten)]
    link: LinkStats,
}

#[derive(Serialize)]
struct PendingBody<'a> {
    pending: &'a [PendingAction],
}

#[derive(Serialize)]
struct ReplyBody<'a> {
    id: Option<&'a str>,
    ok: bool,
    code: Code,
    reason: Option<&'a str>,
    sight: Option<&'a Sight>,
}

/// `body` with the version in front.
fn json(body: &impl Serialize) -> Vec<u8> {
    let versioned = Versioned {
        v: WIRE_VERSION,
        body,
    };
    // Strings, numbers and lists always serialise.
    serde_json::to_vec(&versioned).unwrap_or_default()
}

/// Cuts `text` to at most `limit` bytes, between characters, and makes blanks of control
/// characters other than line ends: JSON would write six bytes for each.
fn cut(text: &mut String, limit: usize) {
    text.truncate(text.floor_char_boundary(limit));
    let is_bad = |c: char| c.is_control() && c != '\n';
    if text.contains(is_bad) {
        *text = text.replace(is_bad, " ");
        text.truncate(text.floor_char_boundary(limit));
    }
}

impl Sight {
    /// The same with every text within its bound, so that no payload outgrows its topic.
    pub fn bounded(mut self) -> Sight {
        cut(&mut self.id, MAX_WORD_BYTES);
        cut(&mut self.rule, MAX_NAME_BYTES);
        for (text, limit) in [
            (&mut self.camera, MAX_WORD_BYTES),
            (&mut self.question, MAX_QUESTION_BYTES),
            (&mut self.answer, MAX_WORD_BYTES),
            (&mut self.text, MAX_TEXT_BYTES),
        ] {
            if let Some(text) = text {
                cut(text, limit);
            }
        }
        self.zones.truncate(MAX_ZONES);
        for zone in &mut self.zones {
            cut(zone, MAX_WORD_BYTES);
        }
        self.probability = self.probability.filter(|p| p.is_finite());
        self
    }

    /// Payload of a rule's last answer.
    pub fn answer_json(self) -> Vec<u8> {
        json(&self.bounded())
    }
}

impl Event {
    /// Payload of the event under its mark.
    pub fn json(self, stamp: Stamp) -> Vec<u8> {
        json(&EventBody {
            phase: self.phase,
            queue: format!("{:016x}", stamp.queue),
            seq: stamp.seq,
            dropped: stamp.dropped,
            before: &self.before.map(Sight::bounded),
            after: &self.after.bounded(),
        })
    }
}

impl Stats {
    /// Payload of the figures, the link's own among them.
    pub fn json(&self, link: LinkStats) -> Vec<u8> {
        json(&StatsBody { stats: self, link })
    }
}

impl Info {
    /// Payload that says what this device is: the first [`MAX_RULES`] rules of it.
    pub fn json(mut self) -> Vec<u8> {
        for text in [
            &mut self.program,
            &mut self.version,
            &mut self.board,
            &mut self.model,
        ] {
            cut(text, MAX_WORD_BYTES);
        }
        self.rules.truncate(MAX_RULES);
        for rule in &mut self.rules {
            cut(rule, MAX_NAME_BYTES);
        }
        json(&self)
    }
}

/// Payload of the actions that wait: the first [`MAX_PENDING`] of them.
pub fn pending_json(mut pending: Vec<PendingAction>) -> Vec<u8> {
    pending.truncate(MAX_PENDING);
    for action in &mut pending {
        cut(&mut action.id, MAX_WORD_BYTES);
        cut(&mut action.nonce, MAX_WORD_BYTES);
        cut(&mut action.rule, MAX_NAME_BYTES);
        cut(&mut action.action, MAX_ACTION_BYTES);
        cut(&mut action.level, MAX_WORD_BYTES);
    }
    json(&PendingBody { pending: &pending })
}

/// Payload of a reply; `id` is what the command called itself.
pub fn reply_json(reply: Reply, id: Option<&str>) -> Vec<u8> {
    let mut reason = reply.reason;
    if let Some(reason) = &mut reason {
        cut(reason, MAX_QUESTION_BYTES);
    }
    json(&ReplyBody {
        id,
        ok: matches!(reply.code, Code::Done | Code::Accepted),
        code: reply.code,
        reason: reason.as_deref(),
        sight: reply.sight.map(Sight::bounded).as_ref(),
    })
}
