//! Bodies that come too slowly to ever be whole.

use std::fmt;
use std::io::{self, Read};
use std::time::{Duration, Instant};

/// Bytes that make a try count as progress.
pub const PROGRESS_BYTES: u64 = 1 << 16;
/// Stalls that may pass until so many bytes are there: under the stall time each byte would renew the
/// wait for the next one.
const STALLS: u32 = 4;

/// A body of which [`PROGRESS_BYTES`], or its end, must come in every four stall times.
#[derive(Debug)]
pub struct Paced<R> {
    body: R,
    window: Duration,
    since: Instant,
    bytes: u64,
}

impl<R> Paced<R> {
    /// `stall` is the longest time without a byte.
    pub fn new(body: R, stall: Duration) -> Paced<R> {
        Paced {
            body,
            window: stall.saturating_mul(STALLS),
            since: Instant::now(),
            bytes: 0,
        }
    }
}

impl<R: Read> Read for Paced<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.body.read(into)?;
        self.bytes += n as u64;
        if self.bytes >= PROGRESS_BYTES {
            self.since = Instant::now();
            self.bytes = 0;
        }
        let is_over = n == 0;
        let took = self.since.elapsed();
        match took > self.window && !is_over {
            true => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                Slow {
                    bytes: self.bytes,
                    took,
                },
            )),
            false => Ok(n),
        }
    }
}

/// What was too slow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slow {
    bytes: u64,
    took: Duration,
}

impl Slow {
    /// What an error of reading says, if it is this.
    pub fn of(error: &io::Error) -> Option<Slow> {
        error.get_ref()?.downcast_ref::<Slow>().copied()
    }
}

impl fmt::Display for Slow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bytes, seconds) = (self.bytes, self.took.as_secs_f64());
        write!(f, "too slow: {bytes} bytes came in {seconds:.1} s")
    }
}

impl std::error::Error for Slow {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives so many bytes at a time, each time so much later.
    struct Slowly {
        left: usize,
        at_once: usize,
        pause: Duration,
    }

    impl Read for Slowly {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            std::thread::sleep(self.pause);
            let n = self.at_once.min(self.left).min(into.len());
            self.left -= n;
            Ok(n)
        }
    }

    #[test]
    fn a_body_may_stop_and_go_but_not_trickle() {
        let stall = Duration::from_millis(50);
        let read = |left, at_once, pause| {
            let pause = Duration::from_millis(pause);
            let body = Slowly {
                left,
                at_once,
                pause,
            };
            let mut bytes = Vec::new();
            let done = Paced::new(body, stall).read_to_end(&mut bytes);
            done.map_err(|error| Slow::of(&error).expect("nothing else fails"))
        };
        let progress = PROGRESS_BYTES as usize;
        // Far slower than the window as a whole, never within one.
        assert_eq!(read(20 * progress, progress, 15), Ok(20 * progress));
        // A short one has the window.
        assert_eq!(read(10, 1, 1), Ok(10));
        let slow = read(progress, 1, 10).unwrap_err();
        assert!((1..=21).contains(&slow.bytes), "{slow}");
    }
}
