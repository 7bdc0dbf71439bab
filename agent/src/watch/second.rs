//! The second look: an ONNX detector that is asked whether a change matters.

use crate::answer;
use crate::fault::Fault;
use ocelli_camera::Rgb;
use ocelli_camera::change::PixelBox;
use ocelli_camera::look::{SecondLook, SecondLookError, Verdict};
use ocelli_runtime::detector::{Area, Detection, Detector};
use std::path::Path;

/// A detector that counts what it finds where something changed.
#[derive(Debug)]
pub struct DetectorLook(Detector);

impl DetectorLook {
    /// Loads `NAME.onnx` and the `NAME.json` beside it.
    ///
    /// # Errors
    ///
    /// [`Fault::Detector`].
    pub fn open(path: &Path) -> Result<DetectorLook, Fault> {
        Ok(DetectorLook(Detector::open(path)?))
    }
}

impl SecondLook for DetectorLook {
    fn confirm(&mut self, picture: &Rgb, boxes: &[PixelBox]) -> Result<Verdict, SecondLookError> {
        let failed = |error: &dyn std::fmt::Display| SecondLookError {
            reason: error.to_string(),
        };
        let size = (picture.width as f32, picture.height as f32);
        let picture = answer::from_camera(picture.clone()).map_err(|error| failed(&error))?;
        let found = self.0.detect(&picture).map_err(|error| failed(&error))?;
        let best = found
            .into_iter()
            .find(|detection| counts(detection, boxes, size));
        Ok(
            best.map_or(Verdict::Denied, |Detection { label, score, .. }| {
                Verdict::Confirmed { label, score }
            }),
        )
    }
}

/// Whether a find touches a change. Without boxes, and for finds without a place, everything counts.
fn counts(detection: &Detection, boxes: &[PixelBox], (width, height): (f32, f32)) -> bool {
    let Some(area) = detection.area else {
        return true;
    };
    let touches = |b: &PixelBox| {
        let Area {
            left,
            top,
            right,
            bottom,
        } = area;
        left * width < (b.x + b.width) as f32
            && right * width > b.x as f32
            && top * height < (b.y + b.height) as f32
            && bottom * height > b.y as f32
    };
    boxes.is_empty() || boxes.iter().any(touches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_find_counts_where_something_changed() {
        let detection = |area| Detection {
            label: "person".into(),
            score: 0.9,
            area,
        };
        let area = Area {
            left: 0.5,
            top: 0.5,
            right: 0.6,
            bottom: 0.6,
        };
        let at = |x, y| PixelBox {
            x,
            y,
            width: 10,
            height: 10,
        };
        let size = (100.0, 100.0);
        let found = detection(Some(area));
        assert!(counts(&found, &[at(0, 0), at(45, 55)], size));
        assert!(!counts(&found, &[at(0, 0), at(61, 50)], size));
        assert!(counts(&found, &[], size));
        assert!(counts(&detection(None), &[at(0, 0)], size));
    }
}
