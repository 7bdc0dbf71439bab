//! A second opinion before the model is asked.

use crate::change::PixelBox;
use crate::rgb::Rgb;

/// What a second look found.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Something that matters.
    Confirmed {
        /// What it is, in the detector's word.
        label: String,
        /// How sure, 0 to 1.
        score: f32,
    },
    /// Nothing that matters.
    Denied,
}

/// Why a second look could not be had. The caller looks all the same: a broken detector must not blind the camera.
#[derive(Debug, thiserror::Error)]
#[error("the second look at the picture failed: {reason}; the trigger counts without it")]
pub struct SecondLookError {
    /// What went wrong.
    pub reason: String,
}

/// A detector that is asked about a picture in which something changed.
pub trait SecondLook {
    /// Whether what changed in `boxes` of the picture matters.
    fn confirm(&mut self, picture: &Rgb, boxes: &[PixelBox]) -> Result<Verdict, SecondLookError>;
}
