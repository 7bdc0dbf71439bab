//! Which of the buffers a driver hands over is news.

use std::time::Duration;

/// What is known about a buffer when it is taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    /// The driver's time stamp, if by the monotonic clock.
    pub(super) stamp: Option<Duration>,
    /// The queue was seen empty before: the buffer was filled since, whatever its stamp says.
    pub(super) awaited: bool,
    /// How long ago the queue was last looked at.
    pub(super) idle: Duration,
}

/// What to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Take it; this is when it was taken.
    Fresh(Duration),
    /// It waited too long.
    Stale,
}

/// A stamp further ahead is of another clock. The slowest frame rates in use have a frame a second.
const LONGEST_LEAD: Duration = Duration::from_secs(1);

/// Judges a frame at `now`.
///
/// A stamp a little ahead (vivid stamps the end of the frame to come) counts as now, one far ahead is of
/// another clock and says nothing. One that is old although the frame was waited for is of a wrong clock too:
/// the frame is new.
pub(super) fn judge(arrival: Arrival, now: Duration, max_age: Duration) -> Verdict {
    let stamp = arrival
        .stamp
        .filter(|stamp| stamp.saturating_sub(now) <= LONGEST_LEAD);
    let age = stamp.map(|stamp| now.saturating_sub(stamp));
    match age {
        Some(age) if age <= max_age => Verdict::Fresh(now - age),
        _ if arrival.awaited => Verdict::Fresh(now),
        Some(_) => Verdict::Stale,
        None if arrival.idle > max_age => Verdict::Stale,
        None => Verdict::Fresh(now),
    }
}

/// The driver's counter made endless, and the gaps in it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sequence {
    last: Option<u32>,
    count: u64,
}

/// A jump of more than this is a counter that began anew, not frames that got lost.
const LONGEST_GAP: u32 = 1000;

impl Sequence {
    /// Takes the next number: the endless one, and how many are missing before it.
    pub(super) fn advance(&mut self, number: u32) -> (u64, u64) {
        let step = self.last.map_or(1, |last| number.wrapping_sub(last));
        self.last = Some(number);
        let step = if step == 0 || step > LONGEST_GAP {
            1
        } else {
            u64::from(step)
        };
        self.count = self.count.saturating_add(step);
        (self.count - 1, step - 1)
    }

    /// The driver will begin to count anew.
    pub(super) fn restart(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn frames_are_judged_by_stamp_unless_they_were_waited_for() {
        let now = ms(10_000);
        let stamped = |stamp, awaited| Arrival {
            stamp: Some(ms(stamp)),
            awaited,
            idle: ms(0),
        };
        let unstamped = |idle, awaited| Arrival {
            stamp: None,
            awaited,
            idle: ms(idle),
        };
        let cases = [
            ("young", stamped(9_960, false), Verdict::Fresh(ms(9_960))),
            (
                "at the limit",
                stamped(9_500, false),
                Verdict::Fresh(ms(9_500)),
            ),
            ("from an idle queue", stamped(9_499, false), Verdict::Stale),
            (
                "from the future",
                stamped(10_178, false),
                Verdict::Fresh(now),
            ),
            ("a clock that lags", stamped(3, true), Verdict::Fresh(now)),
            (
                "a clock that is days ahead",
                stamped(1 << 40, true),
                Verdict::Fresh(now),
            ),
            (
                "another clock, read all the time",
                stamped(1 << 40, false),
                Verdict::Fresh(now),
            ),
            (
                "another clock, idle",
                Arrival {
                    stamp: Some(ms(1 << 40)),
                    awaited: false,
                    idle: ms(501),
                },
                Verdict::Stale,
            ),
            (
                "no stamp, read all the time",
                unstamped(40, false),
                Verdict::Fresh(now),
            ),
            ("no stamp, idle", unstamped(501, false), Verdict::Stale),
            (
                "no stamp, idle, then waited for",
                unstamped(501, true),
                Verdict::Fresh(now),
            ),
        ];
        for (name, arrival, verdict) in cases {
            assert_eq!(judge(arrival, now, ms(500)), verdict, "{name}");
        }
    }

    #[test]
    fn gaps_in_the_counter_are_counted_and_wraps_and_resets_are_not() {
        let mut sequence = Sequence::default();
        let numbers = [7, 8, 11, 12, 0, 1, u32::MAX - 1, u32::MAX, 0, 2];
        let mut found = Vec::new();
        for number in numbers {
            found.push(sequence.advance(number));
        }
        let expected = [
            (0, 0),
            (1, 0),
            (4, 2),
            (5, 0),
            (6, 0),
            (7, 0),
            (8, 0),
            (9, 0),
            (10, 0),
            (12, 1),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_restarted_stream_counts_on_without_a_gap() {
        let mut sequence = Sequence::default();
        sequence.advance(5);
        sequence.restart();
        assert_eq!(sequence.advance(9), (1, 0));
    }
}
