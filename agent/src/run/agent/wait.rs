//! Waiting for everything at once.

use super::Agent;
use crate::link::Interest;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// Longest wait: signals, a lost camera and the watchdogs are looked after that often.
const LONGEST: Duration = Duration::from_millis(500);

impl Agent {
    /// Sleeps until something may have come or something is due.
    pub(super) fn wait(&self) {
        let now = self.parts.clock.monotonic();
        let parts = &self.parts;
        let links: Vec<Interest<'_>> = parts
            .broker
            .iter()
            .map(|broker| broker.interest())
            .chain(parts.line.iter().map(|line| line.interest()))
            .collect();
        let others = [
            parts.hands.as_ref().map(|(hands, _)| hands.fd()),
            parts.lookout.as_ref().map(|lookout| lookout.fd()),
            parts.thinker.as_ref().map(|(thinker, _)| thinker.fd()),
            Some(parts.hooks.fd()),
            parts.remote.as_ref().map(|remote| remote.fd()),
            parts.page.as_ref().map(|page| page.fd()),
        ];
        let wanted = links.iter().filter_map(|interest| {
            let mut flags = PollFlags::POLLIN;
            flags.set(PollFlags::POLLOUT, interest.writable);
            Some((interest.fd?, flags))
        });
        let wanted: Vec<(BorrowedFd<'_>, PollFlags)> = wanted
            .chain(
                others
                    .into_iter()
                    .flatten()
                    .map(|fd| (fd, PollFlags::POLLIN)),
            )
            .collect();
        let mut fds: Vec<PollFd<'_>> = wanted
            .iter()
            .map(|(fd, flags)| PollFd::new(*fd, *flags))
            .collect();
        let deadlines = links.iter().filter_map(|interest| interest.deadline);
        let due = deadlines
            .chain(self.wake_at)
            .chain(parts.recorder.next_tick_at())
            .chain([parts.vitals.next_at(), self.next_stats])
            .min();
        let wait = due.map_or(LONGEST, |due| due.saturating_sub(now).min(LONGEST));
        let wait = match self.inbox.is_empty() {
            true => wait,
            false => Duration::ZERO,
        };
        // One more, so that a deadline between two milliseconds is not met by spinning.
        let wait = wait.as_millis() as u16 + u16::from(!wait.is_zero());
        // A signal ends the wait; so may any fault, and everything is looked at afterwards.
        let _ = poll(&mut fds, PollTimeout::from(wait));
    }
}
