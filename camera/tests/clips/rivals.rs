//! Two plain ways to detect change, for comparison.

use ocelli_camera::Luma;

/// How a rival makes its reference picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reference {
    /// The frame before.
    LastFrame,
    /// A running mean with a time constant of 50 frames.
    RunningMean,
}

/// Active while at least three cells differ from the reference by more than a threshold, and a second after.
#[derive(Clone, Debug)]
pub(crate) struct Rival {
    reference: Reference,
    threshold: f32,
    usual: Vec<f32>,
    hold: u32,
}

impl Rival {
    pub(crate) fn new(reference: Reference, threshold: f32) -> Rival {
        Rival {
            reference,
            threshold,
            usual: Vec::new(),
            hold: 0,
        }
    }

    /// Whether something is moving.
    pub(crate) fn step(&mut self, luma: &Luma) -> bool {
        if self.usual.is_empty() {
            self.usual = luma.values.iter().map(|value| f32::from(*value)).collect();
        }
        let pace = if self.reference == Reference::LastFrame {
            1.0
        } else {
            0.02
        };
        let mut differing = 0;
        for (usual, value) in self.usual.iter_mut().zip(&luma.values) {
            let away = f32::from(*value) - *usual;
            differing += u32::from(away.abs() > self.threshold);
            *usual += away * pace;
        }
        self.hold = if differing >= 3 {
            5
        } else {
            self.hold.saturating_sub(1)
        };
        self.hold > 0
    }
}
