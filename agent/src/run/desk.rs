//! Desks: between the links and the loop. What comes in is made an [`Inbound`]; what the loop wants
//! told is put into each link's own words.

pub mod broker;
pub mod line;

use crate::link::mqtt::Ticket;
use ocelli_reflex::output::EventPhase;
use ocelli_reflex::{Observation, Probability};

/// What a link brings to the loop.
#[derive(Debug)]
pub enum Inbound {
    /// For the step.
    Observe(Observation),
    /// For the step, and somebody waits for what it says.
    Request(Observation, Receipt),
    /// A person's question; it moves nothing.
    Errand(Errand),
    /// How the agent is, which rules there are, which version runs.
    Query(Query, Receipt),
    /// Settings and rules are to be read again.
    Reload(Receipt),
    /// For the journal: about what, and what.
    Remark(&'static str, String),
}

/// Where an answer goes.
#[derive(Clone, Debug, PartialEq)]
pub enum Receipt {
    /// To the sender of a command on the broker.
    Broker(Ticket),
    /// To a microcontroller, under its number.
    Packet(u16),
    /// To a line of text, under its number.
    Line(u32),
    /// To nobody.
    None,
}

/// What a line may ask about the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Query {
    /// How it is.
    State,
    /// Its rules.
    Rules,
    /// Its version.
    Version,
}

/// A person's question about the scene.
#[derive(Clone, Debug, PartialEq)]
pub struct Errand {
    /// Where the answer goes.
    pub receipt: Receipt,
    /// The question; a description if there is none.
    pub question: Option<String>,
    /// Answers to choose from; none for free text.
    pub choices: Vec<String>,
    /// The rule whose question is to be asked instead.
    pub rule: Option<String>,
    /// Most tokens of the answer.
    pub max_tokens: Option<u16>,
}

/// News of an event, in words.
#[derive(Clone, Debug, PartialEq)]
pub struct EventWords {
    /// Its id, the same from new to end.
    pub id: u64,
    /// New, update or end.
    pub phase: EventPhase,
    /// Name of the rule.
    pub rule: String,
    /// The answer; empty if nothing was asked.
    pub answer: String,
    /// Its probability.
    pub probability: Probability,
}

/// The answer to an [`Errand`].
#[derive(Clone, Debug, PartialEq)]
pub struct ErrandAnswer {
    /// The choice or text, or why there is none.
    pub text: String,
    /// How it went.
    pub verdict: ErrandVerdict,
    /// Probability of the answer.
    pub probability: Probability,
}

/// How an errand went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrandVerdict {
    /// Answered.
    Answered,
    /// The model is not sure.
    Unsure,
    /// There is no answer.
    Failed,
}

/// How the agent is, for those who ask.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Condition {
    /// Seconds since the start.
    pub uptime_s: u64,
    /// Rules that may start.
    pub n_armed_rules: u16,
    /// Hottest sensor of the board in °C.
    pub temperature_c: Option<f64>,
    /// Nothing is carried out.
    pub is_dry_run: bool,
    /// Faults that stand, in words; empty if none.
    pub faults: String,
}
