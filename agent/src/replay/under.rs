//! [`Under`]: the same observations under other rules.

use super::exact::{Hole, read_state};
use super::issued::Issued;
use super::open::Open;
use super::rule_book::RuleBook;
use super::tally::{Tallies, count, deeds};
use super::words;
use crate::entry::{Began, Entry, Step};
use crate::journal::{Damage, Record};
use ocelli_reflex::{Now, Observation, Policy, State, step};
use serde::Serialize;

const MAX_HOLES: usize = 100;

/// An observation after which the other rules did something else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// Number of its record.
    pub sequence: u64,
    /// When.
    pub now: Now,
    /// What happened.
    pub observation: String,
    /// The other rules did not wait for it.
    pub misfit: bool,
    /// What was done and is not done under the other rules.
    pub lost: Vec<String>,
    /// What is done under the other rules only.
    pub gained: Vec<String>,
}

/// Observations that the other rules did not wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Misfits {
    /// Pictures.
    pub pictures: u64,
    /// Answers, because the question was not asked, or not with these words and choices.
    pub answers: u64,
    /// Decisions of people.
    pub decisions: u64,
    /// Verdicts of hooks.
    pub hooks: u64,
    /// Outcomes of actions.
    pub outcomes: u64,
}

impl Misfits {
    fn add(&mut self, observation: &Observation) {
        let number = match observation {
            Observation::Looked { .. } => &mut self.pictures,
            Observation::Answer(_) => &mut self.answers,
            Observation::Approval(_) => &mut self.decisions,
            Observation::Hook { .. } => &mut self.hooks,
            Observation::Outcome { .. } => &mut self.outcomes,
            _ => return,
        };
        *number += 1;
    }
}

/// Replays a journal under other rules, record by record. Pictures and answers are those of the
/// journal: what only the other rules want does not come, and ends at its deadline.
#[derive(Debug)]
pub struct Under {
    /// Rule files seen so far.
    pub book: RuleBook,
    policy: Policy,
    state: Option<Box<State>>,
    issued: Issued,
    /// What the run of the journal waits for, and what the other one does.
    recorded: Open,
    open: Open,
    /// What the rules of the journal did.
    pub before: Tallies,
    /// What the other rules did.
    pub after: Tallies,
    /// What they did not wait for.
    pub misfits: Misfits,
    /// Steps made.
    pub n_steps: u64,
    /// Steps after which something else was done.
    pub n_changed: u64,
    /// Holes of the journal, up to the first 100; the replay goes on behind them.
    pub holes: Vec<Hole>,
}

impl Under {
    /// Nothing replayed yet.
    pub fn new(policy: Policy) -> Under {
        Under {
            book: RuleBook::new(),
            policy,
            state: None,
            issued: Issued::default(),
            recorded: Open::default(),
            open: Open::default(),
            before: Tallies::new(),
            after: Tallies::new(),
            misfits: Misfits::default(),
            n_steps: 0,
            n_changed: 0,
            holes: Vec::new(),
        }
    }

    /// Takes the next record and says whether anything came out otherwise.
    pub fn take(&mut self, found: Result<Record<Entry>, Damage>) -> Option<Changed> {
        let record = match found {
            Ok(record) => record,
            Err(damage) => {
                self.hole(Hole::Damage(damage.good_again.unwrap_or(0)));
                return None;
            }
        };
        self.book.take(&record.body);
        match &record.body {
            Entry::Began(began) => {
                self.begin(record.sequence, began);
                None
            }
            Entry::Step(step) => self.step(record.sequence, step),
            _ => None,
        }
    }

    fn hole(&mut self, hole: Hole) {
        if self.holes.len() < MAX_HOLES {
            self.holes.push(hole);
        }
    }

    /// The other rules go on with their own state, as they would have found it on the disk, unless
    /// the agent of the journal found none.
    fn begin(&mut self, sequence: u64, began: &Began) {
        match read_state(began) {
            None => self.hole(Hole::State(sequence)),
            Some(state) if self.state.is_none() || *state == State::new() => {
                self.state = Some(state);
            }
            Some(_) => {}
        }
        self.recorded.clear();
        self.open.clear();
    }

    /// The observation as the other rules would see it; `None` if they do not wait for it.
    fn fitting(&self, observation: &Observation) -> Option<Observation> {
        match observation {
            // These rules are not replaced.
            Observation::Reload => Some(Observation::Tick),
            // A forged number stays one.
            Observation::Approval(approval)
                if self.recorded.nonce(approval.request) != Some(approval.nonce) =>
            {
                let mut fitting = self
                    .open
                    .fit(observation, self.recorded.awaits(observation))?;
                if let Observation::Approval(fitting) = &mut fitting {
                    fitting.nonce = !fitting.nonce;
                }
                Some(fitting)
            }
            observation => self
                .open
                .fit(observation, self.recorded.awaits(observation)),
        }
    }

    fn step(&mut self, sequence: u64, recorded: &Step) -> Option<Changed> {
        self.state.as_ref()?;
        let old = match self.book.policy(recorded.rules) {
            Ok(policy) => policy,
            Err(fault) => {
                self.hole(Hole::Rules(sequence, fault));
                return None;
            }
        };
        let fitting = self.fitting(&recorded.observation);
        if fitting.is_none() {
            self.misfits.add(&recorded.observation);
        }
        if let Observation::Start { .. } | Observation::Stop | Observation::Reload =
            recorded.observation
        {
            self.recorded.clear();
            if recorded.observation != Observation::Reload {
                self.open.clear();
            }
        }
        self.recorded.answered(&recorded.observation);
        let misfit = fitting.is_none();
        let observation = fitting.unwrap_or(Observation::Tick);
        let state = self.state.as_mut()?;
        let outputs = step(&self.policy, state, &observation, recorded.now);
        self.open.answered(&observation);
        self.n_steps += 1;
        count(&old, &recorded.outputs, &mut self.before);
        count(&self.policy, &outputs, &mut self.after);
        let words = words::observation(&recorded.observation, &self.issued);
        self.issued.note(&old, &recorded.outputs);
        self.recorded.note(&old, &recorded.outputs, self.n_steps);
        self.open.note(&self.policy, &outputs, self.n_steps);
        let mut lost = deeds(&old, &recorded.outputs);
        let gained = without(deeds(&self.policy, &outputs), &mut lost);
        if lost.is_empty() && gained.is_empty() {
            return None;
        }
        self.n_changed += 1;
        Some(Changed {
            sequence,
            now: recorded.now,
            observation: words,
            misfit,
            lost,
            gained,
        })
    }
}

/// Those of `all` that are not in `others`; those that are in both are removed from `others`.
fn without(all: Vec<String>, others: &mut Vec<String>) -> Vec<String> {
    all.into_iter()
        .filter(|one| match others.iter().position(|other| other == one) {
            Some(at) => {
                others.remove(at);
                false
            }
            None => true,
        })
        .collect()
}
