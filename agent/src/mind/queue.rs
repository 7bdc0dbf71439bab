//! [`Queue`]: which job is next.

use super::job::Job;
use ocelli_reflex::QuestionId;
use ocelli_reflex::observation::Stage;
use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Instant;

/// A picture as it is looked at: its number and the most image tiles.
pub(super) type View = (u64, Option<usize>);

/// Jobs that wait, at most so many.
#[derive(Debug)]
pub(super) struct Queue {
    /// Oldest first.
    waiting: Vec<Waiting>,
    capacity: usize,
}

#[derive(Debug)]
struct Waiting {
    job: Arc<Job>,
    /// The first answer is still to come.
    early: bool,
}

impl Waiting {
    fn stage(&self) -> Stage {
        match self.early {
            true => Stage::Early,
            false => Stage::Refined,
        }
    }
}

/// The picture a stage of a job looks at.
pub(super) fn view(job: &Job, stage: Stage) -> View {
    let max_tiles = match stage {
        Stage::Early => Some(0),
        Stage::Refined => job.max_tiles,
    };
    (job.frame, max_tiles)
}

impl Queue {
    pub(super) fn new(capacity: usize) -> Queue {
        Queue {
            waiting: Vec::with_capacity(capacity + 1),
            capacity,
        }
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Adds a job. If there are too many then, the oldest of the lowest priority is taken out.
    pub(super) fn push(&mut self, job: Job) -> Option<QuestionId> {
        let early = job.early;
        self.waiting.push(Waiting {
            job: Arc::new(job),
            early,
        });
        if self.waiting.len() <= self.capacity {
            return None;
        }
        let lowest = (0..self.waiting.len()).min_by_key(|at| self.waiting[*at].job.priority)?;
        Some(self.waiting.remove(lowest).job.question)
    }

    /// The next work: highest priority, then the picture that was looked at last, then age. A job
    /// with an early answer is given twice.
    pub(super) fn take(&mut self, last: Option<View>) -> Option<(Arc<Job>, Stage)> {
        let nearness = |waiting: &Waiting| match last {
            Some(last) if view(&waiting.job, waiting.stage()) == last => 2,
            Some((frame, _)) if waiting.job.frame == frame => 1,
            _ => 0,
        };
        let at = (0..self.waiting.len()).min_by_key(|at| {
            let waiting = &self.waiting[*at];
            Reverse((waiting.job.priority, nearness(waiting)))
        })?;
        if self.waiting[at].early {
            self.waiting[at].early = false;
            return Some((self.waiting[at].job.clone(), Stage::Early));
        }
        Some((self.waiting.remove(at).job, Stage::Refined))
    }

    /// Takes a job out; false if it does not wait.
    pub(super) fn remove(&mut self, question: QuestionId) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|w| w.job.question != question);
        self.waiting.len() < before
    }

    /// Takes out what is too late.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<QuestionId> {
        let late: Vec<QuestionId> = (self.waiting.iter())
            .filter(|w| w.job.deadline <= now)
            .map(|w| w.job.question)
            .collect();
        self.waiting.retain(|w| w.job.deadline > now);
        late
    }
}
