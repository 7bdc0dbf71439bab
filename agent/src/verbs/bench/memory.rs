//! Anonymous memory of this process while something runs.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The kernel keeps no peak of anonymous memory alone, so a thread looks this often.
const INTERVAL: Duration = Duration::from_millis(1);

/// Watches the anonymous memory of this process until [`AnonymousPeak::end`].
#[derive(Debug)]
pub(super) struct AnonymousPeak {
    state: Arc<State>,
    watcher: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    stop: AtomicBool,
    peak: AtomicU64,
}

impl AnonymousPeak {
    pub(super) fn watch() -> AnonymousPeak {
        let state = Arc::new(State::default());
        let watcher = {
            let state = state.clone();
            let look = move || {
                while !state.stop.load(Ordering::Relaxed) {
                    state.look();
                    thread::sleep(INTERVAL);
                }
            };
            thread::Builder::new().spawn(look).ok()
        };
        AnonymousPeak { state, watcher }
    }

    /// The most that was seen, in bytes; 0 where the kernel does not tell.
    pub(super) fn end(self) -> u64 {
        self.state.look();
        self.state.stop.store(true, Ordering::Relaxed);
        // The watcher does not panic.
        let _ = self.watcher.map(JoinHandle::join);
        self.state.peak.load(Ordering::Relaxed)
    }
}

impl State {
    fn look(&self) {
        let seen = fs::read_to_string("/proc/self/status")
            .ok()
            .and_then(|status| anonymous_bytes(&status));
        self.peak.fetch_max(seen.unwrap_or(0), Ordering::Relaxed);
    }
}

/// Resident anonymous memory in a `/proc/PID/status`.
fn anonymous_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with("RssAnon:"))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anonymous_memory_is_told_apart_from_mapped_files() {
        let status = "VmRSS:\t  5000 kB\nRssAnon:\t    1234 kB\nRssFile:\t    3766 kB\n";
        assert_eq!(anonymous_bytes(status), Some(1234 * 1024));
        assert_eq!(anonymous_bytes("VmRSS:\t 5000 kB\n"), None);
        assert_eq!(anonymous_bytes("RssAnon:\t lots kB\n"), None);
    }

    #[test]
    fn the_peak_holds_what_was_touched_while_it_watched() {
        let peak = AnonymousPeak::watch();
        let mut touched = vec![1_u8; 32 << 20];
        touched[1 << 20] = 2;
        std::hint::black_box(&touched);
        assert!(peak.end() >= 32 << 20);
    }
}
