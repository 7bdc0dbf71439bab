//! [`Backoff`]: how long to wait before the next try to connect.

use std::time::Duration;

/// Waiting times that double from a first to a longest one, and start again after a success.
///
/// Pure: the caller brings the time. The wait is shortened by up to a quarter, by a fixed sequence
/// that depends on `seed`, so that many devices do not knock at the same moment.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    n_failures: u32,
    noise: u64,
    next_try: Duration,
}

impl Backoff {
    /// Waits from `first` to `longest`; the first try may be made at once.
    pub fn new(first: Duration, longest: Duration, seed: u64) -> Backoff {
        Backoff {
            first,
            longest,
            n_failures: 0,
            noise: seed,
            next_try: Duration::ZERO,
        }
    }

    /// When the next try may be made.
    pub fn next_try(&self) -> Duration {
        self.next_try
    }

    /// Whether a try may be made now.
    pub fn is_due(&self, now: Duration) -> bool {
        now >= self.next_try
    }

    /// Tries that failed since the last success.
    pub fn n_failures(&self) -> u32 {
        self.n_failures
    }

    /// A try failed, or a connection broke.
    pub fn failed(&mut self, now: Duration) {
        let factor = 1_u32 << self.n_failures.min(20);
        let wait = self.first.saturating_mul(factor).min(self.longest);
        self.n_failures = self.n_failures.saturating_add(1);
        self.next_try = now.saturating_add(self.shortened(wait));
    }

    /// A connection stood and was useful; the next failure waits the first time again.
    pub fn succeeded(&mut self) {
        self.n_failures = 0;
    }

    /// One step of SplitMix64 (Steele, Lea, Flood 2014) chooses what is taken off.
    fn shortened(&mut self, wait: Duration) -> Duration {
        self.noise = self.noise.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.noise;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let thousandths = (mixed ^ (mixed >> 31)) % 250;
        wait - wait.saturating_mul(thousandths as u32) / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(500);
    const LONGEST: Duration = Duration::from_secs(30);

    #[test]
    fn waits_double_up_to_the_longest() {
        let mut backoff = Backoff::new(FIRST, LONGEST, 7);
        assert!(backoff.is_due(Duration::ZERO));
        let now = Duration::from_secs(100);
        for failure in 0..40_u32 {
            backoff.failed(now);
            let full = FIRST.saturating_mul(1 << failure.min(20)).min(LONGEST);
            let wait = backoff.next_try() - now;
            assert!(
                wait <= full && wait * 4 >= full * 3,
                "failure {failure}: {wait:?} of {full:?}"
            );
            assert!(!backoff.is_due(now));
            assert!(backoff.is_due(now + wait));
        }
    }

    #[test]
    fn a_success_starts_from_the_first_wait() {
        let mut backoff = Backoff::new(FIRST, LONGEST, 7);
        (0..9).for_each(|_| backoff.failed(Duration::ZERO));
        backoff.succeeded();
        backoff.failed(Duration::ZERO);
        assert!(backoff.next_try() <= FIRST);
    }

    #[test]
    fn two_devices_do_not_keep_step() {
        let waits = |seed| {
            let mut backoff = Backoff::new(FIRST, LONGEST, seed);
            let mut wait = || {
                backoff.failed(Duration::ZERO);
                backoff.next_try()
            };
            [wait(), wait(), wait()]
        };
        assert_ne!(waits(1), waits(2));
    }
}
