//! Speed of a transfer and the time it still takes, from readings of a clock.

use std::collections::VecDeque;
use std::time::Duration;

/// Readings older than this no longer count.
const WINDOW: Duration = Duration::from_secs(10);
/// Least time between two readings that are kept.
const STEP: Duration = Duration::from_millis(200);
/// Least time that a speed is told from.
const LEAST: Duration = Duration::from_millis(500);

/// Bytes over time.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    readings: VecDeque<(Duration, u64)>,
}

impl Pace {
    /// Adds a reading: at `now` so many bytes had come. Fewer than before begin anew.
    pub fn add(&mut self, now: Duration, bytes: u64) {
        if self.readings.back().is_some_and(|(_, last)| bytes < *last) {
            self.readings.clear();
        }
        let is_soon = |(at, _): &(Duration, u64)| now.saturating_sub(*at) < STEP;
        if self.readings.len() > 1 && self.readings.back().is_some_and(is_soon) {
            return;
        }
        self.readings.push_back((now, bytes));
        while self.readings.len() > 2
            && self
                .readings
                .front()
                .is_some_and(|(at, _)| now.saturating_sub(*at) > WINDOW)
        {
            self.readings.pop_front();
        }
    }

    /// Bytes a second lately; none before there is enough to tell.
    pub fn speed(&self) -> Option<f64> {
        let ((begin, first), (end, last)) = (self.readings.front()?, self.readings.back()?);
        let time = end.checked_sub(*begin).filter(|time| *time >= LEAST)?;
        Some((last - first) as f64 / time.as_secs_f64())
    }

    /// The time that so many more bytes take at this speed.
    pub fn left(&self, bytes: u64) -> Option<Duration> {
        let speed = self.speed().filter(|speed| *speed >= 1.0)?;
        Duration::try_from_secs_f64((bytes as f64 / speed).ceil()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_speed_is_that_of_the_last_seconds() {
        let mut pace = Pace::default();
        pace.add(at(0), 0);
        assert_eq!((pace.speed(), pace.left(1)), (None, None));
        for second in 1..=20 {
            pace.add(at(second * 1000), second * 1000);
        }
        assert_eq!(pace.speed(), Some(1000.0));
        for second in 21..=40 {
            pace.add(at(second * 1000), 20_000 + (second - 20) * 4000);
        }
        assert_eq!(pace.speed(), Some(4000.0));
        assert_eq!(pace.left(6000), Some(Duration::from_secs(2)));
    }

    #[test]
    fn a_transfer_that_begins_anew_or_stands_still_promises_nothing() {
        let mut pace = Pace::default();
        pace.add(at(0), 5000);
        pace.add(at(1000), 9000);
        pace.add(at(2000), 0);
        assert_eq!(pace.speed(), None);
        pace.add(at(9000), 0);
        assert_eq!(pace.left(1), None);
    }
}
