//! How many threads each phase of the work uses.
//!
//! One pool serves all phases; a phase may use fewer threads than it has. Encoding and prefill are
//! arithmetic and gain from every core; a decode step reads all weights once, and once memory is
//! busy another thread only costs. Answers do not depend on any of these numbers.

use ocelli_kernels::Compute;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// A larger number of threads is taken only if it saves this share of the time.
pub const LEAST_GAIN: f64 = 0.05;

/// A part of the work with its own number of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The vision encoder and the connector.
    Encode,
    /// The decoder over several tokens.
    Prefill,
    /// The decoder over one token, and the logits.
    Decode,
}

/// Numbers of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseThreads {
    /// Of [`Phase::Encode`].
    pub encode: usize,
    /// Of [`Phase::Prefill`].
    pub prefill: usize,
    /// Of [`Phase::Decode`].
    pub decode: usize,
}

impl PhaseThreads {
    /// The same number in every phase.
    pub fn all(threads: usize) -> PhaseThreads {
        PhaseThreads {
            encode: threads,
            prefill: threads,
            decode: threads,
        }
    }

    /// The number of a phase.
    pub fn of(&self, phase: Phase) -> usize {
        match phase {
            Phase::Encode => self.encode,
            Phase::Prefill => self.prefill,
            Phase::Decode => self.decode,
        }
    }
}

/// How long a fixed piece of work takes on a number of threads.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// Threads that took part.
    pub threads: usize,
    /// The shortest of several runs.
    pub seconds: f64,
}

/// A short measurement: a piece of each phase on the numbers of threads that come into question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trials {
    /// Of [`Phase::Encode`]; empty for a model that reads text only.
    pub encode: Vec<Trial>,
    /// Of [`Phase::Prefill`].
    pub prefill: Vec<Trial>,
    /// Of [`Phase::Decode`].
    pub decode: Vec<Trial>,
}

impl Trials {
    /// The number of each phase, by [`fewest_near_best`].
    pub fn choose(&self) -> PhaseThreads {
        PhaseThreads {
            encode: fewest_near_best(&self.encode),
            prefill: fewest_near_best(&self.prefill),
            decode: fewest_near_best(&self.decode),
        }
    }

    /// Whether these are sound times on exactly these numbers of threads, for a model that sees or
    /// one that reads only.
    pub fn are_of(&self, candidates: &[usize], sees: bool) -> bool {
        let sound = |trials: &[Trial]| {
            let threads = trials.iter().map(|trial| trial.threads);
            let times = trials.iter().map(|trial| trial.seconds);
            threads.eq(candidates.iter().copied())
                && times
                    .into_iter()
                    .all(|time| time.is_finite() && time >= 0.0)
        };
        let encode = match sees {
            true => sound(&self.encode),
            false => self.encode.is_empty(),
        };
        encode && sound(&self.prefill) && sound(&self.decode)
    }
}

/// The smallest number of threads beside which no larger one saves [`LEAST_GAIN`] of the time;
/// 1 without trials.
pub fn fewest_near_best(trials: &[Trial]) -> usize {
    let best = trials.iter().map(|trial| trial.seconds);
    let best = best.fold(f64::INFINITY, f64::min);
    let near = trials
        .iter()
        .filter(|trial| trial.seconds * (1.0 - LEAST_GAIN) <= best);
    near.map(|trial| trial.threads).min().unwrap_or(1)
}

/// Where numbers of threads come from.
#[derive(Clone, Debug, PartialEq)]
pub enum ThreadOrigin {
    /// Nothing was measured: as many as were asked for, or all there are.
    Given,
    /// They were measured now.
    Measured(Trials),
    /// They were measured before, under the same circumstances.
    Remembered(Trials),
    /// All there are: while they were measured, more was to run than there are cores.
    Crowded(Trials),
}

impl ThreadOrigin {
    /// The name used in JSON output.
    pub fn name(&self) -> &'static str {
        match self {
            ThreadOrigin::Given => "given",
            ThreadOrigin::Measured(_) => "measured",
            ThreadOrigin::Remembered(_) => "remembered",
            ThreadOrigin::Crowded(_) => "crowded",
        }
    }

    /// The measurement behind them.
    pub fn trials(&self) -> Option<&Trials> {
        match self {
            ThreadOrigin::Given => None,
            ThreadOrigin::Measured(trials)
            | ThreadOrigin::Remembered(trials)
            | ThreadOrigin::Crowded(trials) => Some(trials),
        }
    }
}

/// Numbers of threads and where they come from.
#[derive(Clone, Debug, PartialEq)]
pub struct ThreadPlan {
    /// The numbers.
    pub threads: PhaseThreads,
    /// Their origin.
    pub origin: ThreadOrigin,
}

impl ThreadPlan {
    /// The same number in every phase, without a measurement.
    pub fn given(threads: usize) -> ThreadPlan {
        ThreadPlan {
            threads: PhaseThreads::all(threads),
            origin: ThreadOrigin::Given,
        }
    }
}

/// One line: the numbers, and per phase the times they were chosen by.
impl fmt::Display for ThreadPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PhaseThreads {
            encode,
            prefill,
            decode,
        } = self.threads;
        let origin = self.origin.name();
        write!(
            f,
            "encode {encode}, prefill {prefill}, decode {decode}; {origin}"
        )?;
        let Some(trials) = self.origin.trials() else {
            return Ok(());
        };
        for (name, trials) in [
            ("encode", &trials.encode),
            ("prefill", &trials.prefill),
            ("decode", &trials.decode),
        ] {
            for (i, trial) in trials.iter().enumerate() {
                let before = if i == 0 {
                    format!("; {name}")
                } else {
                    ",".to_owned()
                };
                let milliseconds = trial.seconds * 1e3;
                write!(f, "{before} {milliseconds:.2} ms on {}", trial.threads)?;
            }
        }
        Ok(())
    }
}

/// Most threads that may work now, e.g. by the board's temperature. It is asked before each frame,
/// each part of a prompt and each token, never within one; so it is to answer at once.
#[derive(Clone)]
pub struct ThreadLimit(Arc<dyn Fn() -> usize + Send + Sync>);

impl ThreadLimit {
    /// A limit that `most` tells; below 1 counts as 1.
    pub fn new(most: impl Fn() -> usize + Send + Sync + 'static) -> ThreadLimit {
        ThreadLimit(Arc::new(most))
    }
}

impl fmt::Debug for ThreadLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ThreadLimit")
    }
}

/// The pool, and how many of its threads each phase uses.
#[derive(Clone, Debug)]
pub(crate) struct Crew {
    compute: Arc<Compute>,
    pub(crate) threads: PhaseThreads,
    pub(crate) limit: Option<ThreadLimit>,
}

impl Crew {
    /// All threads in every phase.
    pub(crate) fn new(compute: Arc<Compute>) -> Crew {
        Crew {
            threads: PhaseThreads::all(compute.n_threads()),
            compute,
            limit: None,
        }
    }

    /// Does a piece of a phase's work with the threads of the phase, or those that are allowed.
    pub(crate) fn work<R>(&self, phase: Phase, work: impl FnOnce() -> R) -> R {
        let allowed = self.limit.as_ref().map_or(usize::MAX, |limit| (limit.0)());
        let threads = self.threads.of(phase).min(allowed);
        self.compute.pool().limited(threads, work)
    }
}

#[cfg(test)]
mod tests;
