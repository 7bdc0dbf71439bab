//! Whether a camera sends the same picture over and over.

use std::time::Duration;

use crate::rgb::Rgb;

/// Pictures that must have differed from the one before until a camera is known to be noisy.
const LIVELY: u32 = 3;

/// Run of equal pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Still {
    /// Pictures equal to the one before.
    pub(super) pictures: u32,
    /// From the first of them to the last.
    pub(super) time: Duration,
}

/// Follows the fingerprints of a source.
#[derive(Clone, Debug)]
pub(super) struct Stillness {
    live: bool,
    fingerprint: Option<u64>,
    since: Duration,
    equal: u32,
    differed: u32,
}

impl Stillness {
    pub(super) fn new(live: bool) -> Stillness {
        Stillness {
            live,
            fingerprint: None,
            since: Duration::ZERO,
            equal: 0,
            differed: 0,
        }
    }

    /// The run that `picture` continues; none for a source that was never seen to be noisy.
    pub(super) fn step(&mut self, picture: &Rgb, now: Duration) -> Still {
        if !self.live {
            return Still::default();
        }
        let fingerprint = Some(fingerprint(picture));
        if fingerprint == self.fingerprint {
            self.equal = self.equal.saturating_add(1);
        } else {
            self.differed = self
                .differed
                .saturating_add(u32::from(self.fingerprint.is_some()));
            (self.fingerprint, self.since, self.equal) = (fingerprint, now, 0);
        }
        if self.differed < LIVELY {
            return Still::default();
        }
        Still {
            pictures: self.equal,
            time: now.saturating_sub(self.since),
        }
    }
}

/// A 64-bit mix of size and all pixels; not against forgers.
fn fingerprint(picture: &Rgb) -> u64 {
    let start = u64::from(picture.width) << 32 | u64::from(picture.height);
    let (words, rest) = picture.pixels.as_chunks::<8>();
    let mixed = words
        .iter()
        .fold(start, |mix, word| stir(mix, u64::from_le_bytes(*word)));
    rest.iter()
        .fold(mixed, |mix, byte| stir(mix, u64::from(*byte)))
}

fn stir(mix: u64, word: u64) -> u64 {
    (mix.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95)
}
