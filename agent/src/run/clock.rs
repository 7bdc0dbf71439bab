//! [`Clock`]: the times the loop works with.

use crate::journal::Moment;
use jiff::tz::TimeZone;
use ocelli_camera::source::monotonic_now;
use ocelli_reflex::{LocalTime, Now};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A wall clock before this was never set: 1 January 2025, in seconds since 1970.
const NEVER_SET: u64 = 1_735_689_600;
/// There once the time came from the network.
const SYNCHRONIZED: &str = "/run/systemd/timesync/synchronized";
/// There where the kernel set its clock from one with a battery.
const BATTERY: &str = "/sys/class/rtc/rtc0/hctosys";

/// While the system has not said that its time is right, it is asked this often.
const LOOK_PAUSE_MS: u64 = 1000;

/// Monotonic time for decisions, wall time for people.
#[derive(Clone, Debug)]
pub struct Clock {
    zone: TimeZone,
    /// The wall clock is right: the owner said so, or the system has.
    is_right: Arc<AtomicBool>,
    /// When the system is asked next, by the monotonic clock in milliseconds.
    next_look: Arc<AtomicU64>,
}

impl Clock {
    /// The clock of this machine in its time zone. `trusted`: the wall clock is taken as right.
    pub fn new(trusted: bool) -> Clock {
        Clock {
            zone: TimeZone::system(),
            is_right: Arc::new(AtomicBool::new(trusted)),
            next_look: Arc::default(),
        }
    }

    /// `CLOCK_MONOTONIC`, which pictures and edges carry too.
    pub fn monotonic(&self) -> Duration {
        monotonic_now()
    }

    /// The moment for the step.
    pub fn now(&self) -> Now {
        Now {
            ms: millis(self.monotonic()),
            local: self.wall_ms().and_then(|ms| self.local(ms)),
        }
    }

    /// The moment for the journal.
    pub fn moment(&self) -> Moment {
        Moment {
            boot_ms: millis(self.monotonic()),
            wall_ms: self.wall_ms(),
        }
    }

    /// Milliseconds since 1970; `None` while the wall clock is not known to be right.
    pub fn wall_ms(&self) -> Option<u64> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        (self.is_right() && since.as_secs() >= NEVER_SET).then(|| millis(since))
    }

    /// The clock is read at every step: files are looked at seldom, and no more once they said yes.
    fn is_right(&self) -> bool {
        let now = millis(self.monotonic());
        if !self.is_right.load(Ordering::Relaxed) && now >= self.next_look.load(Ordering::Relaxed) {
            self.next_look.store(now + LOOK_PAUSE_MS, Ordering::Relaxed);
            self.is_right
                .store(is_told(Path::new("/")), Ordering::Relaxed);
        }
        self.is_right.load(Ordering::Relaxed)
    }

    fn local(&self, wall_ms: u64) -> Option<LocalTime> {
        let stamp = jiff::Timestamp::from_millisecond(i64::try_from(wall_ms).ok()?).ok()?;
        let offset = self.zone.to_offset(stamp).seconds();
        let seconds = stamp.as_second() + i64::from(offset);
        Some(LocalTime {
            day: i32::try_from(seconds.div_euclid(86_400)).ok()?,
            // 0..86400
            second: seconds.rem_euclid(86_400) as u32,
        })
    }
}

/// Whether the system under `root` says where its time came from.
fn is_told(root: &Path) -> bool {
    let at = |path: &str| root.join(path.trim_start_matches('/'));
    let battery = std::fs::read_to_string(at(BATTERY)).is_ok_and(|text| text.trim() == "1");
    battery || at(SYNCHRONIZED).exists()
}

/// Whole milliseconds.
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_time_follows_the_zone() {
        let at = |zone: TimeZone, text: &str| {
            let stamp: jiff::Timestamp = text.parse().unwrap();
            let clock = Clock {
                zone,
                ..Clock::new(true)
            };
            clock.local(stamp.as_millisecond() as u64).unwrap()
        };
        let berlin = jiff::tz::Offset::from_hours(1).unwrap();
        let local = at(TimeZone::fixed(berlin), "2026-11-22T23:30:05Z");
        assert_eq!((local.second, local.weekday()), (30 * 60 + 5, 0), "Monday");
        let local = at(TimeZone::UTC, "2026-11-22T23:30:05Z");
        assert_eq!((local.second, local.weekday()), (84_605, 6), "Sunday");
    }

    #[test]
    fn a_wall_clock_nobody_vouches_for_is_not_known() {
        let root = tempfile::tempdir().unwrap();
        assert!(!is_told(root.path()));
        let rtc = root.path().join("sys/class/rtc/rtc0");
        std::fs::create_dir_all(&rtc).unwrap();
        std::fs::write(rtc.join("hctosys"), "0\n").unwrap();
        assert!(!is_told(root.path()));
        std::fs::write(rtc.join("hctosys"), "1\n").unwrap();
        assert!(is_told(root.path()));
    }
}
