//! Buffers that go round between a source and its frames.

use std::sync::{Arc, Mutex, PoisonError};

/// Buffers kept for the next frames; more are given back to the allocator.
const KEPT: usize = 4;

/// A source's free buffers. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffers {
    /// An empty buffer, with the room of an earlier frame if one has come back.
    pub(crate) fn take(&self) -> Vec<u8> {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        free.pop().unwrap_or_default()
    }

    /// Gives a buffer back; its content is gone.
    pub(crate) fn put(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < KEPT {
            free.push(buffer);
        }
    }

    pub(super) fn lend(&self, buffer: Vec<u8>) -> Bytes {
        Bytes {
            buffer,
            home: Some(self.clone()),
        }
    }
}

/// The bytes of a frame, and where their buffer goes afterwards.
pub(super) struct Bytes {
    buffer: Vec<u8>,
    home: Option<Buffers>,
}

impl Bytes {
    pub(super) fn new(buffer: Vec<u8>) -> Bytes {
        Bytes { buffer, home: None }
    }

    pub(super) fn get(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            home.put(std::mem::take(&mut self.buffer));
        }
    }
}
