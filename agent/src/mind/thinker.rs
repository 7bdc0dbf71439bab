//! [`Thinker`]: a model on a thread of its own.

#[cfg(test)]
mod tests;

use super::job::{Failure, Job, Thought};
use super::queue::{Queue, View, view};
use super::{Mind, MindSettings};
use crate::mailbox::event;
use nix::sys::eventfd::EventFd;
use ocelli_reflex::QuestionId;
use ocelli_reflex::observation::Stage;
use ocelli_runtime::{CancelFlag, Vlm};
use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// Most results that wait to be taken. When there are more, the oldest is lost and counted.
pub const MOST_RESULTS: usize = 128;

/// What thinks. [`Mind`] does.
pub trait Brain: Send {
    /// Works on one stage of a job until it is done or `cancel` says stop. `None`: there is nothing
    /// to say at this stage.
    fn think(&mut self, job: &Job, stage: Stage, cancel: &CancelFlag) -> Option<Thought>;
}

/// Makes a [`Brain`], at the begin and after a fault; else says why it cannot.
pub type MakeBrain = Box<dyn FnMut() -> Result<Box<dyn Brain>, String> + Send>;

/// A model on a thread of its own, with a queue before it and results behind it.
#[derive(Debug)]
pub struct Thinker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Readable while a result waits.
    ready: EventFd,
    pulse: Arc<AtomicU64>,
}

#[derive(Debug)]
struct State {
    queue: Queue,
    /// What is being worked on.
    current: Option<(QuestionId, CancelFlag)>,
    results: VecDeque<Thought>,
    lost: u64,
    stop: bool,
}

impl Thinker {
    /// Starts thinking with a model. `capacity` jobs may wait.
    ///
    /// # Errors
    ///
    /// The system has no thread or descriptor left.
    pub fn with_model(
        vlm: Arc<Vlm>,
        settings: MindSettings,
        capacity: usize,
    ) -> io::Result<Thinker> {
        let make = move || {
            let mind = Mind::new(vlm.clone(), settings.clone());
            mind.map(|mind| Box::new(mind) as Box<dyn Brain>)
                .map_err(|error| error.to_string())
        };
        Thinker::start(Box::new(make), capacity)
    }

    /// Starts thinking with what `make` makes.
    ///
    /// # Errors
    ///
    /// The system has no thread or descriptor left.
    pub fn start(make: MakeBrain, capacity: usize) -> io::Result<Thinker> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                queue: Queue::new(capacity.max(1)),
                current: None,
                results: VecDeque::new(),
                lost: 0,
                stop: false,
            }),
            changed: Condvar::new(),
            ready: event()?,
            pulse: Arc::new(AtomicU64::new(0)),
        });
        let worker = Worker {
            shared: shared.clone(),
            make,
            brain: None,
            last: None,
        };
        let thread = std::thread::Builder::new()
            .name("thinker".into())
            .spawn(move || worker.run())?;
        Ok(Thinker {
            shared,
            thread: Some(thread),
        })
    }

    /// Adds a job. If too many wait, the oldest of the lowest priority is dropped, which its
    /// result says.
    pub fn submit(&self, job: Job) {
        let mut state = self.shared.lock();
        let waiting = state.queue.capacity();
        if let Some(question) = state.queue.push(job) {
            self.shared
                .fail(&mut state, question, Failure::Dropped { waiting });
        }
        self.shared.changed.notify_all();
    }

    /// Gives a job up, whether it waits or is being worked on: its result will be
    /// [`Failure::Cancelled`], unless an answer was on its way already. False if there is no such job.
    pub fn cancel(&self, question: QuestionId) -> bool {
        let mut state = self.shared.lock();
        let waited = state.queue.remove(question);
        let running = match &state.current {
            Some((current, flag)) if *current == question => {
                flag.cancel();
                true
            }
            _ => false,
        };
        if waited && !running {
            self.shared.fail(&mut state, question, Failure::Cancelled);
        }
        waited || running
    }

    /// The oldest result that waits.
    pub fn try_next(&self) -> Option<Thought> {
        let mut state = self.shared.lock();
        let next = state.results.pop_front();
        if state.results.is_empty() {
            // Nothing to read is what is wanted.
            let _ = self.shared.ready.read();
        }
        next
    }

    /// Readable while a result waits; for a poll loop.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.shared.ready.as_fd()
    }

    /// Counts on with every step of the model: frames, pieces of a prompt, tokens. A watchdog that
    /// sees it stand still while [`Thinker::is_busy`] has a hung model before it.
    pub fn progress(&self) -> u64 {
        self.shared.pulse.load(Ordering::Relaxed)
    }

    /// Whether a job is being worked on.
    pub fn is_busy(&self) -> bool {
        self.shared.lock().current.is_some()
    }

    /// Jobs that wait, without the one being worked on.
    pub fn waiting(&self) -> usize {
        self.shared.lock().queue.len()
    }

    /// Results that were lost because nobody took them.
    pub fn lost(&self) -> u64 {
        self.shared.lock().lost
    }
}

impl Drop for Thinker {
    fn drop(&mut self) {
        {
            let mut state = self.shared.lock();
            state.stop = true;
            if let Some((_, flag)) = &state.current {
                flag.cancel();
            }
        }
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // Panics of the model are caught and reported as results.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// The state. Its parts are changed one by one, so one that a panic left behind is whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, state: &mut State, thought: Thought) {
        if state.results.len() >= MOST_RESULTS {
            state.results.pop_front();
            state.lost += 1;
        }
        state.results.push_back(thought);
        // A full counter is readable as well.
        let _ = self.ready.write(1);
    }

    fn fail(&self, state: &mut State, question: QuestionId, failure: Failure) {
        let result = Err(failure);
        self.tell(state, Thought { question, result });
    }
}

/// The thread's side.
struct Worker {
    shared: Arc<Shared>,
    make: MakeBrain,
    brain: Option<Box<dyn Brain>>,
    /// What the brain looked at last.
    last: Option<View>,
}

impl Worker {
    fn run(mut self) {
        while let Some((job, stage, flag)) = self.next() {
            let thought = self.think(&job, stage, &flag);
            let mut state = self.shared.lock();
            state.current = None;
            let Some(thought) = thought else { continue };
            if thought.result.is_err() {
                state.queue.remove(job.question);
            }
            self.shared.tell(&mut state, thought);
        }
    }

    /// Waits for work; `None` at the end.
    fn next(&self) -> Option<(Arc<Job>, Stage, CancelFlag)> {
        let shared = &self.shared;
        let mut state = shared.lock();
        loop {
            if state.stop {
                return None;
            }
            let now = Instant::now();
            for question in state.queue.expire(now) {
                shared.fail(&mut state, question, Failure::Deadline);
            }
            if let Some((job, stage)) = state.queue.take(self.last) {
                let flag = CancelFlag::until(job.deadline).with_pulse(shared.pulse.clone());
                state.current = Some((job.question, flag.clone()));
                return Some((job, stage, flag));
            }
            let waited = shared.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets the brain think. One that failed is replaced before the next job.
    fn think(&mut self, job: &Job, stage: Stage, flag: &CancelFlag) -> Option<Thought> {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let brain = match &mut self.brain {
                Some(brain) => brain,
                empty => empty.insert((self.make)().map_err(Failure::Engine)?),
            };
            Ok(brain.think(job, stage, flag))
        }));
        let outcome = outcome.unwrap_or_else(|cause| Err(Failure::Engine(panic_text(&*cause))));
        let thought = outcome.unwrap_or_else(|failure| {
            Some(Thought {
                question: job.question,
                result: Err(failure),
            })
        });
        let failed = |thought: &Thought| matches!(thought.result, Err(Failure::Engine(_)));
        if thought.as_ref().is_some_and(failed) {
            self.brain = None;
            self.last = None;
        } else {
            self.last = Some(view(job, stage));
        }
        thought
    }
}

/// What a panic said.
fn panic_text(cause: &(dyn Any + Send)) -> String {
    let text = cause.downcast_ref::<&str>().copied();
    let text = text.or_else(|| cause.downcast_ref::<String>().map(String::as_str));
    format!("it panicked: {}", text.unwrap_or("without a word"))
}
