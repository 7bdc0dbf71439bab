//! The hardware that restarts the board when progress ends.
//!
//! Opening the device arms it; every byte written to it gives it one more time-out to wait. Only
//! writes are used: the calls that set the time-out are `ioctl`s, which need unsafe code. The
//! time-out is therefore the driver's (`heartbeat=` of its module, or `RuntimeWatchdogSec=` where
//! systemd has the device instead).
//!
//! Source: Linux `Documentation/watchdog/watchdog-api.rst`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::tree::Tree;

/// Time between writes where the driver does not say its time-out.
const CAUTIOUS: Duration = Duration::from_secs(1);

/// Why the watchdog cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WatchdogError {
    /// There is none.
    #[error("{}: there is no watchdog; load its driver (`modprobe softdog` has one in software)", path.display())]
    Missing {
        /// The device.
        path: PathBuf,
    },
    /// Another program feeds it.
    #[error("{}: the watchdog is in use, mostly by systemd; take RuntimeWatchdogSec= out of system.conf, or leave the hardware to systemd and use WatchdogSec= of the service", path.display())]
    Busy {
        /// The device.
        path: PathBuf,
    },
    /// We may not open it.
    #[error("{}: the watchdog may not be opened; give the service DeviceAllow={} rw and run it as root, or add a udev rule", path.display(), path.display())]
    Permission {
        /// The device.
        path: PathBuf,
    },
    /// Opening or writing failed.
    #[error("{}: the watchdog does not answer", path.display())]
    Io {
        /// The device.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// What became of a feeding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fed {
    /// The hardware waits anew.
    Fed,
    /// It was fed a moment ago.
    NotDue,
    /// The caller made no progress since it was last fed, so it was not.
    NoProgress,
}

/// When a watchdog is fed: three times a time-out, and only after progress.
#[derive(Clone, Debug)]
pub struct Pace {
    every: Duration,
    last: Option<(Duration, u64)>,
}

impl Pace {
    /// The pace for a time-out; once a second where it is not known.
    pub fn new(timeout: Option<Duration>) -> Pace {
        Pace {
            every: timeout.map_or(CAUTIOUS, |timeout| timeout / 3),
            last: None,
        }
    }

    /// Time between two feedings.
    pub fn every(&self) -> Duration {
        self.every
    }

    /// What is to be done now; [`Fed::Fed`]: feed, then say so with [`Pace::fed`].
    pub fn due(&self, progress: u64, now: Duration) -> Fed {
        match self.last {
            Some((fed, _)) if now.saturating_sub(fed) < self.every => Fed::NotDue,
            Some((_, seen)) if seen == progress => Fed::NoProgress,
            _ => Fed::Fed,
        }
    }

    /// It was fed.
    pub fn fed(&mut self, progress: u64, now: Duration) {
        self.last = Some((now, progress));
    }
}

/// An armed watchdog. Dropping it without [`Watchdog::disarm`] leaves it armed on purpose: a program
/// that dies is restarted with its board.
#[derive(Debug)]
pub struct Watchdog<W: Write = File> {
    device: W,
    path: PathBuf,
    pace: Pace,
}

impl Watchdog {
    /// Opens and thereby arms the watchdog at `path`.
    ///
    /// # Errors
    /// [`WatchdogError`] if it is not there, in use, or closed to us.
    pub fn open(tree: &Tree, path: &str) -> Result<Watchdog, WatchdogError> {
        let device = OpenOptions::new().write(true).open(tree.path(path));
        let device = device.map_err(|source| {
            let path = PathBuf::from(path);
            match source.kind() {
                io::ErrorKind::NotFound => WatchdogError::Missing { path },
                io::ErrorKind::ResourceBusy => WatchdogError::Busy { path },
                io::ErrorKind::PermissionDenied => WatchdogError::Permission { path },
                _ => WatchdogError::Io { path, source },
            }
        })?;
        Ok(Watchdog::new(device, path, timeout(tree, path)))
    }
}

/// The time-out that the driver of `path` shows.
fn timeout(tree: &Tree, path: &str) -> Option<Duration> {
    let name = match Path::new(path).file_name()?.to_str()? {
        "watchdog" => "watchdog0",
        name => name,
    };
    let seconds = tree.number(Path::new("/sys/class/watchdog").join(name).join("timeout"))?;
    Some(Duration::from_secs_f64(seconds.clamp(1.0, 86_400.0)))
}

impl<W: Write> Watchdog<W> {
    /// A watchdog behind `device`, called `path` in messages. It is fed three times a `timeout`, or
    /// every second where that is not known.
    pub fn new(device: W, path: impl Into<PathBuf>, timeout: Option<Duration>) -> Watchdog<W> {
        Watchdog {
            device,
            path: path.into(),
            pace: Pace::new(timeout),
        }
    }

    /// Time between two feedings; [`Watchdog::feed`] has to be called at least this often.
    pub fn every(&self) -> Duration {
        self.pace.every()
    }

    /// Feeds the hardware if it is due and if `progress` is another number than at the last
    /// feeding. The caller counts `progress` up with its work, never with a timer.
    ///
    /// # Errors
    /// [`WatchdogError::Io`] if the device takes no byte; the board will restart.
    pub fn feed(&mut self, progress: u64, now: Duration) -> Result<Fed, WatchdogError> {
        let fed = self.pace.due(progress, now);
        if fed == Fed::Fed {
            self.write(b"k")?;
            self.pace.fed(progress, now);
        }
        Ok(fed)
    }

    /// Stops the hardware, for an orderly end: the magic character `V` before closing. Drivers
    /// built with `nowayout` go on all the same.
    ///
    /// # Errors
    /// [`WatchdogError::Io`] if the device takes no byte; the board will restart.
    pub fn disarm(mut self) -> Result<(), WatchdogError> {
        self.write(b"V")
    }

    fn write(&mut self, byte: &[u8]) -> Result<(), WatchdogError> {
        let written = self
            .device
            .write_all(byte)
            .and_then(|()| self.device.flush());
        written.map_err(|source| WatchdogError::Io {
            path: self.path.clone(),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Fed, Watchdog, WatchdogError};
    use crate::fixture::Fixture;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn only_progress_feeds_it() {
        let mut bytes = Vec::new();
        let mut watchdog = Watchdog::new(&mut bytes, "test", Some(at(15)));
        assert_eq!(watchdog.every(), at(5));
        for (progress, now, fed) in [
            (0, 0, Fed::Fed),
            (9, 4, Fed::NotDue),
            (9, 5, Fed::Fed),
            (9, 10, Fed::NoProgress),
            (9, 14, Fed::NoProgress),
            (10, 14, Fed::Fed),
        ] {
            assert_eq!(
                watchdog.feed(progress, at(now)).unwrap(),
                fed,
                "{progress} at {now}"
            );
        }
        watchdog.disarm().unwrap();
        assert_eq!(bytes, b"kkkV");
    }

    #[test]
    fn a_dropped_watchdog_stays_armed() {
        let mut bytes = Vec::new();
        let mut watchdog = Watchdog::new(&mut bytes, "test", None);
        watchdog.feed(1, at(0)).unwrap();
        drop(watchdog);
        assert_eq!(bytes, b"k");
    }

    #[test]
    fn the_time_out_is_the_drivers() {
        let fixture = Fixture::new(&[
            ("dev/watchdog0", ""),
            ("sys/class/watchdog/watchdog0/timeout", "30\n"),
            ("dev/watchdog1", ""),
        ]);
        let every = |path| Watchdog::open(&fixture.tree(), path).unwrap().every();
        assert_eq!(
            (every("/dev/watchdog0"), every("/dev/watchdog1")),
            (at(10), at(1))
        );
    }

    #[test]
    fn a_missing_watchdog_is_said_so() {
        let error = Watchdog::open(&Fixture::new(&[]).tree(), "/dev/watchdog0").unwrap_err();
        assert!(matches!(error, WatchdogError::Missing { .. }), "{error}");
        assert!(error.to_string().contains("/dev/watchdog0"));
    }
}
