//! What to do when frames stop coming: a state machine without clock and without devices.

#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::source::Fault;

/// Limits and waits.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Reads that may fail in a row before the stream is restarted.
    pub hiccups: u32,
    /// Restarts in a row before the device is opened again.
    pub restarts: u32,
    /// Time without a frame after which a stream counts as stuck.
    pub stuck_after: Duration,
    /// Wait before the second attempt to open; it doubles with each.
    pub first_wait: Duration,
    /// Longest wait between attempts.
    pub longest_wait: Duration,
    /// Time of streaming after which earlier trouble is forgotten.
    pub steady_after: Duration,
    /// Time without the device after which it counts as gone. It is looked for all the same.
    pub gone_after: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            hiccups: 10,
            restarts: 1,
            stuck_after: Duration::from_secs(5),
            first_wait: Duration::from_millis(100),
            longest_wait: Duration::from_secs(30),
            steady_after: Duration::from_secs(10),
            gone_after: Duration::from_secs(60),
        }
    }
}

/// How a camera is, for others to read. Times are by [`crate::source::monotonic_now`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Frames come, or are about to.
    Streaming,
    /// They stopped and it is being mended.
    Recovering {
        /// What went wrong.
        reason: String,
        /// When.
        since: Duration,
        /// Restarts and attempts to open since.
        tries: u32,
    },
    /// The device has been away for long, or the source has ended.
    Gone {
        /// What went wrong last.
        reason: String,
        /// When.
        since: Duration,
    },
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask for a frame.
    Read,
    /// Stop and start the stream.
    Restart,
    /// Close the source, if still open, and open it again.
    Reopen,
    /// Nothing until then, unless the device turns up earlier.
    Wait(Duration),
    /// Nothing any more.
    Stop,
}

/// The state machine. Every call takes the time it happens at.
#[derive(Clone, Debug)]
pub struct Recovery {
    policy: Policy,
    trouble: Option<Trouble>,
    next: Step,
    /// When a frame came last, or the stream was started.
    alive: Duration,
    /// Since when frames have come without trouble; none = not yet.
    steady: Option<Duration>,
    hiccups: u32,
    restarts: u32,
    attempts: u32,
}

#[derive(Clone, Debug)]
struct Trouble {
    reason: String,
    since: Duration,
    tries: u32,
    /// The device itself is away.
    away: bool,
}

impl Recovery {
    /// A source that was opened at `now`.
    pub fn new(policy: Policy, now: Duration) -> Recovery {
        Recovery {
            policy,
            trouble: None,
            next: Step::Read,
            alive: now,
            steady: None,
            hiccups: 0,
            restarts: 0,
            attempts: 0,
        }
    }

    /// How long nothing has come.
    pub fn silence(&self, now: Duration) -> Duration {
        now.saturating_sub(self.alive)
    }

    /// What to do at `now`.
    pub fn step(&self, now: Duration) -> Step {
        match self.next {
            Step::Wait(until) if until <= now => Step::Reopen,
            step => step,
        }
    }

    /// A frame came.
    pub fn frame(&mut self, now: Duration) {
        self.trouble = None;
        self.next = Step::Read;
        self.alive = now;
        self.hiccups = 0;
        let steady = *self.steady.get_or_insert(now);
        if now.saturating_sub(steady) >= self.policy.steady_after {
            (self.restarts, self.attempts) = (0, 0);
        }
    }

    /// Restarting or opening worked; whether frames come is still to be seen.
    pub fn mended(&mut self, now: Duration) {
        self.next = Step::Read;
        self.alive = now;
        self.hiccups = 0;
        if let Some(trouble) = &mut self.trouble {
            trouble.away = false;
        }
    }

    /// Something failed.
    pub fn fault(&mut self, fault: Fault, reason: &str, now: Duration) {
        match fault {
            Fault::Late if self.silence(now) < self.policy.stuck_after => {}
            Fault::Hiccup if self.hiccups < self.policy.hiccups => self.hiccups += 1,
            Fault::Late | Fault::Hiccup | Fault::Stream if self.may_restart() => {
                self.trouble(reason, now).tries += 1;
                self.restarts += 1;
                self.next = Step::Restart;
            }
            Fault::Late | Fault::Hiccup | Fault::Stream => {
                self.trouble(reason, now);
                self.retry(now);
            }
            // What was right when the source was first opened may be right again later.
            Fault::Device | Fault::Request => {
                self.trouble(reason, now).away = true;
                self.retry(now);
            }
            Fault::End => {
                self.trouble(reason, now);
                self.next = Step::Stop;
            }
        }
    }

    /// Something turned up among the devices: look at once.
    pub fn wake(&mut self, now: Duration) {
        if let Step::Wait(_) = self.next {
            self.next = Step::Wait(now);
        }
    }

    /// How the source is at `now`.
    pub fn state(&self, now: Duration) -> State {
        let Some(Trouble {
            reason,
            since,
            tries,
            away,
        }) = &self.trouble
        else {
            return State::Streaming;
        };
        let (reason, since, tries) = (reason.clone(), *since, *tries);
        let long = *away && now.saturating_sub(since) >= self.policy.gone_after;
        match long || self.next == Step::Stop {
            true => State::Gone { reason, since },
            false => State::Recovering {
                reason,
                since,
                tries,
            },
        }
    }

    /// Attempts to open come without wait only if the last trouble is long over.
    fn retry(&mut self, now: Duration) {
        let doubled = 1u32
            .checked_shl(self.attempts.saturating_sub(1))
            .unwrap_or(u32::MAX);
        let wait = match self.attempts {
            0 => Duration::ZERO,
            _ => self
                .policy
                .first_wait
                .saturating_mul(doubled)
                .min(self.policy.longest_wait),
        };
        self.attempts = self.attempts.saturating_add(1);
        // A newly opened device may be restarted again.
        self.restarts = 0;
        if let Some(trouble) = &mut self.trouble {
            trouble.tries = trouble.tries.saturating_add(1);
        }
        self.next = Step::Wait(now.saturating_add(wait));
    }

    fn may_restart(&self) -> bool {
        self.restarts < self.policy.restarts
    }

    fn trouble(&mut self, reason: &str, now: Duration) -> &mut Trouble {
        self.steady = None;
        let fresh = Trouble {
            reason: String::new(),
            since: now,
            tries: 0,
            away: false,
        };
        let trouble = self.trouble.get_or_insert(fresh);
        trouble.reason = reason.to_owned();
        trouble
    }
}
