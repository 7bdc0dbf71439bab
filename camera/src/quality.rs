//! Is the picture any good? Darkness, glare, blur, a covered lens, fog, a frozen camera: measured, and told in words
//! that say what to do.
//!
//! Measured on a luma picture of at most 512 pixels a side, so that the limits mean the same for every camera.

mod edges;
mod frozen;
mod measures;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use crate::rgb::Rgb;

use frozen::Stillness;

pub use edges::Edges;
pub use measures::{Measures, Place};

/// Median luma from which a picture shows a bright page.
const PAGE: u8 = 200;

/// From which measures on a picture is refused.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QualityLimits {
    /// Least mean luma. 30: below, an 8-bit picture has some twenty levels left for all of its detail.
    pub least_mean: u8,
    /// A picture as dark as that is still good if its brightest twentieth is above this luma: a lit sign at night.
    pub least_bright: u8,
    /// Most blown pixels (all channels 250 or more), of a thousand, in the picture. 80: what document readers allow.
    pub most_blown: u32,
    /// The same where half of the picture is brighter than luma 200: a white page is not a lamp.
    pub most_blown_page: u32,
    /// Widest edges, as the deviation of the blur in 1/10 pixel. 16: letters of 12 pixels cannot be told apart.
    pub most_blur: u32,
    /// How many times wider edges are one way than the other when it is motion, in tenths.
    pub motion_ratio: u32,
    /// Least range of luma from the darkest twentieth to the brightest. 40: less is fog, or a dirty window.
    pub least_contrast: u8,
    /// A picture of less contrast than this, and without edges, shows a covered lens.
    pub covered_contrast: u8,
    /// How long a live camera may send the very same picture, in milliseconds.
    pub frozen_ms: u32,
    /// And how many of them at least.
    pub frozen_pictures: u32,
}

impl Default for QualityLimits {
    fn default() -> QualityLimits {
        QualityLimits {
            least_mean: 30,
            least_bright: 90,
            most_blown: 80,
            most_blown_page: 500,
            most_blur: 16,
            motion_ratio: 15,
            least_contrast: 40,
            covered_contrast: 24,
            frozen_ms: 5_000,
            frozen_pictures: 20,
        }
    }
}

/// What is wrong with a picture; its text says what to do.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Finding {
    /// Nothing to measure.
    Empty,
    /// Too little light.
    Dark {
        /// Mean luma.
        mean: u8,
        /// The limit.
        needs: u8,
    },
    /// One even surface: a hand, a cap, a wall at no distance.
    Covered {
        /// Range of luma.
        contrast: u8,
        /// The limit.
        needs: u8,
    },
    /// Blown spots.
    Glare {
        /// Blown pixels of a thousand.
        permille: u32,
        /// The limit.
        limit: u32,
        /// Where most of them are.
        place: Place,
    },
    /// Too little contrast, but something to see.
    Fog {
        /// Range of luma.
        contrast: u8,
        /// The limit.
        needs: u8,
    },
    /// Out of focus.
    Blur {
        /// Width of edges, in tenths of a pixel.
        width: u32,
        /// The limit.
        limit: u32,
    },
    /// Camera or object moved while the shutter was open.
    Motion {
        /// Width of edges across the motion, in tenths of a pixel.
        width: u32,
        /// The limit.
        limit: u32,
        /// Along the rows; otherwise up and down.
        sideways: bool,
    },
    /// The camera sends one picture again and again.
    Frozen {
        /// For how long, in whole seconds.
        seconds: u64,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = |tenths: u32| f64::from(tenths) / 10.0;
        match *self {
            Finding::Empty => f.write_str("No picture: the camera sent one without pixels"),
            Finding::Dark { mean, needs } => {
                write!(
                    f,
                    "Too dark to read: turn on a light (mean luma {mean}, needs {needs})"
                )
            }
            Finding::Covered { contrast, needs } => write!(
                f,
                "Nothing but one even surface: uncover the lens, wipe it, or wait for the fog to lift (contrast {contrast}, needs {needs})"
            ),
            Finding::Glare {
                permille,
                limit,
                place,
            } => write!(
                f,
                "Glare {place}: shade the light, tilt the camera or lower the exposure ({}% of the picture is blown, at most {}%)",
                tenths(permille),
                tenths(limit)
            ),
            Finding::Fog { contrast, needs } => write!(
                f,
                "Hardly any contrast: wipe the lens or window, or wait for the fog to lift (contrast {contrast}, needs {needs})"
            ),
            Finding::Blur { width, limit } => write!(
                f,
                "Out of focus: set the focus or change the distance (edges {} pixels wide, at most {})",
                tenths(width),
                tenths(limit)
            ),
            Finding::Motion {
                width,
                limit,
                sideways,
            } => write!(
                f,
                "Moved {}: hold still, or give more light for a shorter exposure (edges {} pixels wide, at most {})",
                if sideways { "sideways" } else { "up and down" },
                tenths(width),
                tenths(limit)
            ),
            Finding::Frozen { seconds } => write!(
                f,
                "The camera has sent the very same picture for {seconds} s: unplug it and plug it in again"
            ),
        }
    }
}

/// How good a picture is.
#[derive(Clone, Debug, PartialEq)]
pub struct Quality {
    /// What was measured.
    pub measures: Measures,
    /// What is wrong, most important first; empty for a good picture.
    pub findings: Vec<Finding>,
}

impl Quality {
    /// Whether nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Judges picture after picture of one source.
#[derive(Clone, Debug)]
pub struct QualityJudge {
    limits: QualityLimits,
    stillness: Stillness,
}

impl QualityJudge {
    /// A judge. `live` is whether the source is a sensor, whose noise differs from picture to picture; a replay of
    /// files is not, and never frozen.
    pub fn new(limits: QualityLimits, live: bool) -> QualityJudge {
        QualityJudge {
            limits,
            stillness: Stillness::new(live),
        }
    }

    /// Judges a picture; `now` is the time since any fixed moment.
    pub fn judge(&mut self, picture: &Rgb, now: Duration) -> Quality {
        let mut quality = judge_one(&self.limits, picture);
        let still = self.stillness.step(picture, now);
        let long = still.time >= Duration::from_millis(u64::from(self.limits.frozen_ms));
        if long && still.pictures >= self.limits.frozen_pictures {
            quality.findings.insert(
                0,
                Finding::Frozen {
                    seconds: still.time.as_secs(),
                },
            );
        }
        quality
    }
}

/// Judges a single picture: everything but freezing. Darkness comes before blur, as blur in the dark means nothing.
pub fn judge_one(limits: &QualityLimits, picture: &Rgb) -> Quality {
    let measures = Measures::of(picture);
    let findings = findings(limits, &measures);
    Quality { measures, findings }
}

fn findings(limits: &QualityLimits, measures: &Measures) -> Vec<Finding> {
    if measures.pixels == 0 {
        return vec![Finding::Empty];
    }
    if measures.mean < limits.least_mean && measures.bright < limits.least_bright {
        return vec![Finding::Dark {
            mean: measures.mean,
            needs: limits.least_mean,
        }];
    }
    let mut found = Vec::new();
    let limit = if measures.median > PAGE {
        limits.most_blown_page
    } else {
        limits.most_blown
    };
    if measures.blown > limit {
        found.push(Finding::Glare {
            permille: measures.blown,
            limit,
            place: measures.blown_at,
        });
    }
    let contrast = measures.contrast();
    if contrast < limits.covered_contrast && measures.edges.is_none() {
        found.push(Finding::Covered {
            contrast,
            needs: limits.covered_contrast,
        });
    } else if contrast < limits.least_contrast {
        found.push(Finding::Fog {
            contrast,
            needs: limits.least_contrast,
        });
    }
    found.extend(blur(limits, measures));
    found
}

fn blur(limits: &QualityLimits, measures: &Measures) -> Option<Finding> {
    let edges = measures.edges?;
    let limit = limits.most_blur;
    let (wide, narrow) = (edges.across.max(edges.down), edges.across.min(edges.down));
    if wide > limit && wide * 10 > narrow * limits.motion_ratio {
        return Some(Finding::Motion {
            width: wide,
            limit,
            sideways: edges.across > edges.down,
        });
    }
    (edges.width > limit).then_some(Finding::Blur {
        width: edges.width,
        limit,
    })
}
