//! Waiting until a camera has found its exposure.

use crate::frame::Frame;

/// How long exposure may take to settle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settle {
    /// Most frames left out after opening; 0 = believe the first.
    pub frames: u32,
    /// Difference of mean luma from frame to frame that counts as settled, of 255.
    pub tolerance: u8,
}

/// Alike frames in a row that end the wait.
const ALIKE: u32 = 2;

impl Default for Settle {
    /// At most 30 frames, a second or two of a webcam; settled when two steps in a row are within 2 levels.
    fn default() -> Self {
        Settle {
            frames: 30,
            tolerance: 2,
        }
    }
}

/// Progress since the source was opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settling {
    limit: Settle,
    seen: u32,
    alike: u32,
    last: Option<u8>,
}

impl Settling {
    pub(super) fn new(limit: Settle) -> Settling {
        Settling {
            limit,
            seen: 0,
            alike: 0,
            last: None,
        }
    }

    /// Whether the frame can be believed.
    pub(super) fn accepts(&mut self, frame: &Frame) -> bool {
        if self.is_settled() {
            return true;
        }
        let mean = frame
            .luma(1, 1)
            .ok()
            .and_then(|luma| luma.values.first().copied());
        self.accepts_mean(mean)
    }

    fn is_settled(&self) -> bool {
        self.seen > self.limit.frames || self.alike >= ALIKE
    }

    /// Takes a frame's mean luma; none if it could not be measured, which is no sign of a settled camera.
    fn accepts_mean(&mut self, mean: Option<u8>) -> bool {
        self.seen += 1;
        let difference = self.last.zip(mean).map(|(last, mean)| last.abs_diff(mean));
        let alike = difference.is_some_and(|difference| difference <= self.limit.tolerance);
        self.alike = if alike { self.alike + 1 } else { 0 };
        self.last = mean;
        self.is_settled()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_left_out_until_their_brightness_holds() {
        let usual = Settle {
            frames: 10,
            tolerance: 2,
        };
        let cases: [(&str, Settle, &[u8], usize); 5] = [
            ("steady at once", usual, &[90, 90, 90, 90], 2),
            ("brightening", usual, &[10, 40, 80, 100, 101, 102, 103], 5),
            ("a plateau too short", usual, &[10, 10, 60, 60, 60], 4),
            (
                "never steady",
                usual,
                &[0, 255, 0, 255, 0, 255, 0, 255, 0, 255, 0, 255],
                10,
            ),
            (
                "no wait wanted",
                Settle {
                    frames: 0,
                    tolerance: 2,
                },
                &[0, 255],
                0,
            ),
        ];
        for (name, limit, means, expected) in cases {
            let mut settling = Settling::new(limit);
            let first = means
                .iter()
                .position(|mean| settling.accepts_mean(Some(*mean)));
            assert_eq!(first, Some(expected), "{name}");
        }
    }
}
