//! When to try again, and when to give up.

use super::Watcher;
use super::error::HubError;
use super::pace::Slow;
use super::settings::HubSettings;
use std::time::Duration;

/// Longest pause between two tries that the back-off makes.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Longest pause that a server may ask for.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(600);

/// How a try failed.
#[derive(Debug)]
pub enum Failure {
    /// Trying again will not help.
    Final(HubError),
    /// Trying again may help.
    Passing {
        /// What was asked for.
        url: String,
        /// What happened.
        reason: String,
        /// Status of the answer, if there was one.
        status: Option<u16>,
        /// How long the server wants to be left alone.
        after: Option<Duration>,
    },
    /// Trying again may help; what came was too slow to be progress.
    Slow {
        /// What was asked for.
        url: String,
        /// How slow it was.
        slow: Slow,
    },
}

impl Failure {
    /// A connection that broke or stalled.
    pub fn broken(url: &str, reason: impl ToString) -> Failure {
        Failure::Passing {
            url: url.to_owned(),
            reason: reason.to_string(),
            status: None,
            after: None,
        }
    }

    /// Whether it went on, but too slowly.
    pub fn is_slow(&self) -> bool {
        matches!(self, Failure::Slow { .. })
    }
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Failure {
        Failure::Final(error)
    }
}

/// Failures one after the other.
#[derive(Debug)]
pub struct Patience {
    retries: u32,
    first_pause: Duration,
    failures: u32,
}

impl Patience {
    /// All the patience the settings give.
    pub fn new(settings: &HubSettings) -> Patience {
        Patience {
            retries: settings.retries,
            first_pause: settings.pause,
            failures: 0,
        }
    }

    /// Something was achieved: the count begins anew.
    pub fn renew(&mut self) {
        self.failures = 0;
    }

    /// The pause before the next try.
    ///
    /// # Errors
    ///
    /// The failure, if it is final or one too many.
    pub fn after(&mut self, failure: Failure) -> Result<(Duration, String), HubError> {
        let (url, reason, status, after) = match failure {
            Failure::Final(error) => return Err(error),
            Failure::Passing {
                url,
                reason,
                status,
                after,
            } => (url, reason, status, after),
            Failure::Slow { url, slow } => (url, slow.to_string(), None, None),
        };
        let text = format!("{url}: {reason}");
        self.failures += 1;
        if self.failures > self.retries {
            return Err(HubError::GivenUp {
                reason: text,
                tries: self.failures,
            });
        }
        if let (Some(after), Some(status)) = (after, status)
            && after > LONGEST_RETRY_AFTER
        {
            return Err(HubError::TooBusy {
                url,
                status,
                after,
                limit: LONGEST_RETRY_AFTER,
            });
        }
        let doubled = 1u32.checked_shl(self.failures - 1).unwrap_or(u32::MAX);
        let pause = self.first_pause.saturating_mul(doubled).min(LONGEST_PAUSE);
        Ok((after.unwrap_or(pause), text))
    }

    /// Tells the watcher and keeps the pause.
    ///
    /// # Errors
    ///
    /// As [`Patience::after`].
    pub fn pause(&mut self, failure: Failure, watcher: &mut dyn Watcher) -> Result<(), HubError> {
        let (pause, reason) = self.after(failure)?;
        watcher.retry(&reason, pause);
        std::thread::sleep(pause);
        Ok(())
    }
}

/// Seconds of a `Retry-After` header; a date is not understood and gives nothing.
pub fn retry_after(value: &str) -> Option<Duration> {
    value.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patience(retries: u32) -> Patience {
        Patience {
            retries,
            first_pause: Duration::from_secs(1),
            failures: 0,
        }
    }

    fn busy(after: Option<u64>) -> Failure {
        Failure::Passing {
            url: "u".into(),
            reason: "r".into(),
            status: Some(429),
            after: after.map(Duration::from_secs),
        }
    }

    #[test]
    fn pauses_double_up_to_a_limit_and_tries_end() {
        let mut patience = patience(9);
        let pauses: Vec<u64> = (0..9)
            .map(|_| patience.after(busy(None)).unwrap().0.as_secs())
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        let end = patience.after(busy(None));
        assert!(
            matches!(end, Err(HubError::GivenUp { tries: 10, .. })),
            "{end:?}"
        );
    }

    #[test]
    fn a_server_may_ask_for_a_pause_but_not_for_any() {
        let mut patience = patience(5);
        assert_eq!(patience.after(busy(Some(0))).unwrap().0, Duration::ZERO);
        assert_eq!(patience.after(busy(Some(7))).unwrap().0.as_secs(), 7);
        let end = patience.after(busy(Some(601)));
        assert!(matches!(end, Err(HubError::TooBusy { .. })), "{end:?}");
    }

    #[test]
    fn progress_renews_patience() {
        let mut patience = patience(1);
        for _ in 0..5 {
            assert_eq!(patience.after(busy(None)).unwrap().0.as_secs(), 1);
            patience.renew();
        }
    }

    #[test]
    fn only_seconds_are_a_time_to_come_back() {
        assert_eq!(retry_after(" 12 "), Some(Duration::from_secs(12)));
        for text in ["", "-1", "soon", "Wed, 21 Oct 2026 07:28:00 GMT"] {
            assert_eq!(retry_after(text), None, "{text}");
        }
    }
}
