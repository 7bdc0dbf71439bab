//! [`Probability`]: a fixed-point number, the same on every machine.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A share between 0 and 1 in steps of 1/65535. Decisions compare these integers only.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Probability(pub u16);

impl Probability {
    /// Impossible.
    pub const ZERO: Probability = Probability(0);
    /// Certain.
    pub const ONE: Probability = Probability(u16::MAX);

    /// Rounds a number in 0..=1 to the nearest step; `None` outside and for NaN. For the edge of
    /// the step, where a model's float comes in or a rule file is read.
    pub fn from_f64(share: f64) -> Option<Probability> {
        (0.0..=1.0)
            .contains(&share)
            .then(|| Probability((share * f64::from(u16::MAX)).round() as u16))
    }

    /// In units of 1/1000, rounded.
    pub fn per_mille(self) -> u16 {
        // At most 1000.
        ((u32::from(self.0) * 1000 + 32_767) / 65_535) as u16
    }
}

impl fmt::Display for Probability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mille = self.per_mille();
        write!(f, "{}.{:03}", mille / 1000, mille % 1000)
    }
}
