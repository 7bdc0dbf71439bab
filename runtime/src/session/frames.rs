//! [`FrameCache`]: image features of frames seen lately.

use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::sync::Arc;

/// Frames whose features are kept: a picture of 4x4 tiles, its global view and some more.
const MOST_FRAMES: usize = 24;

/// Image features by the frame's bytes, newest last.
#[derive(Debug, Default)]
pub(super) struct FrameCache {
    entries: VecDeque<([u8; 32], Arc<Vec<f32>>)>,
}

impl FrameCache {
    /// The features of a frame: known ones, else what `encode` makes of it.
    pub(super) fn get<E>(
        &mut self,
        frame: &[u8],
        encode: impl FnOnce(&[u8]) -> Result<Vec<f32>, E>,
    ) -> Result<Arc<Vec<f32>>, E> {
        let key: [u8; 32] = Sha256::digest(frame).into();
        let known = self.entries.iter().position(|(known, _)| *known == key);
        let entry = match known.and_then(|at| self.entries.remove(at)) {
            Some(entry) => entry,
            None => (key, Arc::new(encode(frame)?)),
        };
        let features = entry.1.clone();
        self.entries.push_back(entry);
        if self.entries.len() > MOST_FRAMES {
            self.entries.pop_front();
        }
        Ok(features)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_encoded_once_while_it_is_kept() {
        let mut cache = FrameCache::default();
        let mut encoded = 0;
        let mut get = |byte: u8| {
            let features = cache.get(&[byte; 4], |frame| {
                encoded += 1;
                Ok::<_, ()>(vec![f32::from(frame[0])])
            });
            (features.unwrap()[0], encoded)
        };
        assert_eq!(get(1), (1.0, 1));
        assert_eq!(get(2), (2.0, 2));
        assert_eq!(get(1), (1.0, 2));
        // The one asked for last stays, the one before goes.
        for frame in 0..MOST_FRAMES as u8 - 1 {
            get(100 + frame);
        }
        let before = get(1).1;
        assert_eq!(get(2), (2.0, before + 1));
    }

    #[test]
    fn a_frame_that_could_not_be_encoded_is_not_kept() {
        let mut cache = FrameCache::default();
        assert!(cache.get(&[1], |_| Err(())).is_err());
        assert_eq!(*cache.get(&[1], |_| Ok::<_, ()>(vec![2.0])).unwrap(), [2.0]);
    }
}
