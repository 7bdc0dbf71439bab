//! [`Exact`]: the same observations must give the same outputs.

use super::issued::Issued;
use super::rule_book::{RuleBook, RuleFault};
use super::words;
use crate::entry::{Began, Entry, Step};
use crate::journal::{Damage, Moment, Record};
use ocelli_reflex::{Now, Observation, Outputs, Policy, State, step};
use serde::Serialize;

/// A step that came out otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Number of its record.
    pub sequence: u64,
    /// When it was written down.
    pub at: Moment,
    /// When it was made.
    pub now: Now,
    /// What happened.
    pub observation: String,
    /// Outputs of the journal, in words.
    pub recorded: Vec<String>,
    /// Outputs of the replay, in words.
    pub replayed: Vec<String>,
    /// Position of the first output that differs; the length of the shorter list if one goes on,
    /// `None` if only the time to wake differs.
    pub first: Option<usize>,
}

/// Why steps could not be replayed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Hole {
    /// Records are damaged.
    #[error("damage before record {0}")]
    Damage(u64),
    /// Records are missing.
    #[error("records are missing before record {0}")]
    Gap(u64),
    /// The state an agent began with cannot be read.
    #[error("the state in record {0} cannot be read")]
    State(u64),
    /// The rules of a step are not known.
    #[error("record {0}: {1}")]
    Rules(u64, RuleFault),
}

/// Replays a journal record by record.
#[derive(Debug, Default)]
pub struct Exact {
    /// Rule files seen so far.
    pub book: RuleBook,
    state: Option<Box<State>>,
    issued: Issued,
    last: Option<u64>,
    /// Steps that came out the same.
    pub n_steps: u64,
    /// Outputs of these.
    pub n_outputs: u64,
    /// Begins of an agent.
    pub n_begins: u64,
    /// Reloads.
    pub n_reloads: u64,
    /// Steps before the first begin: nobody knows the state they were made in.
    pub n_before: u64,
    /// Steps left out because of a hole before them.
    pub n_left_out: u64,
    /// Holes, up to the first 100.
    pub holes: Vec<Hole>,
    /// Range of the steps replayed.
    pub range: Option<(u64, u64)>,
    /// The first step that came out otherwise; nothing is replayed after it.
    pub difference: Option<Box<Difference>>,
}

const MAX_HOLES: usize = 100;

impl Exact {
    /// Nothing replayed yet.
    pub fn new() -> Exact {
        Exact::default()
    }

    /// Takes the next record; false after a difference.
    pub fn take(&mut self, found: Result<Record<Entry>, Damage>) -> bool {
        match found {
            Err(damage) => self.hole(Hole::Damage(damage.good_again.unwrap_or(0))),
            Ok(record) => {
                let expected = self.last.replace(record.sequence).map(|last| last + 1);
                if expected.is_some_and(|expected| expected != record.sequence)
                    && !matches!(self.holes.last(), Some(Hole::Damage(_)))
                {
                    self.hole(Hole::Gap(record.sequence));
                }
                self.book.take(&record.body);
                match &record.body {
                    Entry::Began(began) => self.begin(record.sequence, began),
                    Entry::Step(step) => self.step(record.sequence, record.at, step),
                    _ => {}
                }
            }
        }
        self.difference.is_none()
    }

    /// Whether every step was replayed, and came out the same.
    pub fn is_whole(&self) -> bool {
        self.difference.is_none() && self.holes.is_empty() && self.n_steps > 0
    }

    fn hole(&mut self, hole: Hole) {
        self.state = None;
        if self.holes.len() < MAX_HOLES {
            self.holes.push(hole);
        }
    }

    fn begin(&mut self, sequence: u64, began: &Began) {
        self.n_begins += 1;
        match read_state(began) {
            Some(state) => self.state = Some(state),
            None => self.hole(Hole::State(sequence)),
        }
    }

    fn step(&mut self, sequence: u64, at: Moment, recorded: &Step) {
        let Some(state) = &mut self.state else {
            if self.n_begins == 0 {
                self.n_before += 1;
            } else {
                self.n_left_out += 1;
            }
            return;
        };
        let policy = match self.book.policy(recorded.rules) {
            Ok(policy) => policy,
            Err(fault) => {
                self.n_left_out += 1;
                return self.hole(Hole::Rules(sequence, fault));
            }
        };
        let replayed = step(&policy, state, &recorded.observation, recorded.now);
        if replayed != recorded.outputs {
            let differs = difference(&policy, recorded, &replayed, &self.issued);
            self.difference = Some(Box::new(Difference {
                sequence,
                at,
                ..differs
            }));
            return;
        }
        self.issued.note(&policy, &replayed);
        self.n_steps += 1;
        self.n_outputs += replayed.list.len() as u64;
        self.n_reloads += u64::from(recorded.observation == Observation::Reload);
        let first = self.range.map_or(sequence, |(first, _)| first);
        self.range = Some((first, sequence));
    }
}

/// The state an agent began with; `None` if the bytes are none.
pub fn read_state(began: &Began) -> Option<Box<State>> {
    match postcard::take_from_bytes(&began.state) {
        Ok((state, [])) => Some(Box::new(state)),
        _ => None,
    }
}

fn difference(policy: &Policy, recorded: &Step, replayed: &Outputs, issued: &Issued) -> Difference {
    let (old, new) = (&recorded.outputs.list, &replayed.list);
    let equal = old.iter().zip(new).take_while(|(old, new)| old == new);
    let equal = equal.count();
    Difference {
        sequence: 0,
        at: Moment::default(),
        now: recorded.now,
        observation: words::observation(&recorded.observation, issued),
        recorded: words::outputs(policy, &recorded.outputs),
        replayed: words::outputs(policy, replayed),
        first: (equal < old.len().max(new.len())).then_some(equal),
    }
}
