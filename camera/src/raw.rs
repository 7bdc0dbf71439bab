//! Raw frames in a stream: one behind the other, all of one size.

use crate::frame::{FrameError, FrameFormat};

/// Cuts a stream of raw frames: bytes in, frames out.
#[derive(Debug)]
pub struct Splitter {
    frame_bytes: usize,
    partial: Vec<u8>,
}

impl Splitter {
    /// A splitter of frames of one format.
    ///
    /// # Errors
    ///
    /// Those of [`FrameFormat::frame_bytes`].
    pub fn new(format: &FrameFormat) -> Result<Splitter, FrameError> {
        Ok(Splitter {
            frame_bytes: format.frame_bytes()?,
            partial: Vec::new(),
        })
    }

    /// Takes from `bytes` what the frame under way still misses, moves `bytes` on, and returns the frame once it is
    /// whole. Call it until it returns `None`: then all bytes are taken.
    pub fn next_frame(&mut self, bytes: &mut &[u8]) -> Option<Vec<u8>> {
        let missing = self.frame_bytes - self.partial.len();
        let (taken, rest) = bytes.split_at(missing.min(bytes.len()));
        self.partial.extend_from_slice(taken);
        *bytes = rest;
        (self.partial.len() == self.frame_bytes).then(|| std::mem::take(&mut self.partial))
    }

    /// Bytes of the frame under way.
    pub fn partial_bytes(&self) -> usize {
        self.partial.len()
    }
}
