//! A socket of the emulator, read by a thread of its own so that the guest never waits for us.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Why no bytes came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    /// The deadline passed.
    Late,
    /// The other end closed.
    Closed,
}

/// Both directions of a byte stream.
pub(crate) struct Channel {
    stream: UnixStream,
    inbox: Arc<Inbox>,
}

#[derive(Default)]
struct Inbox {
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    closed: bool,
}

impl Channel {
    pub(crate) fn new(stream: UnixStream) -> std::io::Result<Channel> {
        let inbox = Arc::new(Inbox::default());
        let (mut reader, theirs) = (stream.try_clone()?, Arc::clone(&inbox));
        thread::spawn(move || {
            let mut buffer = [0_u8; 16384];
            loop {
                let n = reader.read(&mut buffer).unwrap_or(0);
                let mut state = theirs.lock();
                state.bytes.extend_from_slice(&buffer[..n]);
                state.closed = n == 0;
                drop(state);
                theirs.news.notify_all();
                if n == 0 {
                    return;
                }
            }
        });
        Ok(Channel { stream, inbox })
    }

    /// Writes all bytes.
    pub(crate) fn send(&self, bytes: &[u8]) -> std::io::Result<()> {
        (&self.stream).write_all(bytes)
    }

    /// Takes bytes up to and including `end`.
    pub(crate) fn take_through(&self, end: u8, limit: Duration) -> Result<Vec<u8>, Silence> {
        let mut searched = 0;
        self.take(limit, |bytes| {
            let at = bytes[searched..].iter().position(|byte| *byte == end);
            let found = at.map(|at| searched + at + 1);
            searched = bytes.len();
            found
        })
    }

    /// Takes exactly `n` bytes.
    pub(crate) fn take_exactly(&self, n: usize, limit: Duration) -> Result<Vec<u8>, Silence> {
        self.take(limit, |bytes| (bytes.len() >= n).then_some(n))
    }

    /// Takes what has come so far.
    pub(crate) fn take_all(&self) -> Vec<u8> {
        std::mem::take(&mut self.inbox.lock().bytes)
    }

    /// A copy of the last `n` bytes that were not taken.
    pub(crate) fn last(&self, n: usize) -> Vec<u8> {
        let state = self.inbox.lock();
        let start = state.bytes.len().saturating_sub(n);
        state.bytes[start..].to_vec()
    }

    /// Waits until `measure` says how many of the bytes to take.
    fn take(
        &self,
        limit: Duration,
        mut measure: impl FnMut(&[u8]) -> Option<usize>,
    ) -> Result<Vec<u8>, Silence> {
        let start = Instant::now();
        let mut state = self.inbox.lock();
        loop {
            if let Some(n) = measure(&state.bytes) {
                let rest = state.bytes.split_off(n);
                return Ok(std::mem::replace(&mut state.bytes, rest));
            }
            if state.closed {
                return Err(Silence::Closed);
            }
            let left = limit.checked_sub(start.elapsed()).ok_or(Silence::Late)?;
            let waited = self.inbox.news.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // Ends the reading thread.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}
