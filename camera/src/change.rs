//! Did something move, or did only the light change?
//!
//! The detector looks at a coarse grid of mean luma, about 40 × 30 cells a few times a second. For each cell it
//! learns the usual value, the noise around it, and how far it strays when leaves or rain keep it busy. What a
//! new picture shows beyond that is explained away in this order, and the rest is movement:
//!
//! ```text
//! picture ─▶ light: one gain a neighbourhood ─▶ bands of mains flicker ─▶ shift of the whole picture
//!         ─▶ cells over their own floor, not alone ─▶ a running sum for each zone ─▶ entered, active, left
//! ```
//!
//! All arithmetic is on integers: the same pictures give the same answer on every machine.

mod background;
mod bands;
mod boxes;
mod cells;
mod evidence;
mod light;
mod scene;
mod shake;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::Deserialize;

use crate::luma::Luma;
use crate::zone::{Sensitivity, Zone, ZoneError, check_zones};

use evidence::Evidence;
use scene::Scene;
use shake::Shift;

pub use boxes::{CellBox, MAX_BOXES, PixelBox};
pub use cells::{Cells, Tile, TileLayout};
pub use evidence::AreaChange;

/// Most cells of a row, and most rows, that the detector looks at; what is beyond is ignored.
pub const MAX_SIDE: u32 = 256;

/// After a pause of this length everything is learned anew.
const FORGET: Duration = Duration::from_secs(120);
/// Pictures learned from at least.
const LEARN_PICTURES: i32 = 8;
/// Share of changed cells, in 1/16, from which it is not one object: the light, or the whole view.
const SCENE: u32 = 8;
/// How long a camera goes on shaking, in milliseconds.
const SHAKES: i32 = 1_000;
/// How long after such a change the new scene is taken as it comes, in milliseconds.
const SETTLE: i32 = 800;

/// How the detector is set.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChangeSettings {
    /// Sensitivity of the whole picture.
    pub sensitivity: Sensitivity,
    /// How long to learn before anything is reported, in milliseconds; 500 to 60 000.
    pub learn_ms: u32,
    /// After how long an object that stands still becomes background, in milliseconds; 1000 to 3 600 000.
    pub absorb_ms: u32,
}

impl Default for ChangeSettings {
    fn default() -> ChangeSettings {
        ChangeSettings {
            sensitivity: Sensitivity::USUAL,
            learn_ms: 3_000,
            absorb_ms: 30_000,
        }
    }
}

/// Why a detector cannot be made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// A zone is unusable.
    #[error(transparent)]
    Zone(#[from] ZoneError),
    /// A time is out of range.
    #[error("{field} is {value}; the limits are {least} to {most} milliseconds")]
    Time {
        /// `learn_ms` or `absorb_ms`.
        field: &'static str,
        /// What was given.
        value: u32,
        /// The shortest.
        least: u32,
        /// The longest.
        most: u32,
    },
}

/// What a step was about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cause {
    /// Nothing changed.
    #[default]
    None,
    /// The usual picture is not known yet.
    Learning,
    /// Something moved, or stands where nothing stood.
    Movement,
    /// The light changed.
    Lighting,
    /// The camera shook.
    Shake,
}

/// What changed with one picture.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Cells in which something moved or stands where nothing stood.
    pub cells: Cells,
    /// How many of a thousand cells these are.
    pub permille: u32,
    /// How many of a thousand cells differ from the last picture: low once everything stands still.
    pub unsteady_permille: u32,
    /// What it was.
    pub cause: Cause,
    /// The whole picture.
    pub whole: AreaChange,
    /// Each zone, in the order given.
    pub zones: Vec<AreaChange>,
    /// Boxes around connected cells, largest first, at most [`MAX_BOXES`].
    pub boxes: Vec<CellBox>,
}

/// Watches a grid of luma for change.
#[derive(Debug)]
pub struct ChangeDetector {
    settings: ChangeSettings,
    zones: Vec<Zone>,
    scene: Scene,
    /// The last of these is the whole picture.
    evidence: Vec<Evidence>,
    change: Change,
}

impl ChangeDetector {
    /// A detector for the whole picture and `zones`.
    pub fn new(settings: ChangeSettings, zones: Vec<Zone>) -> Result<ChangeDetector, ChangeError> {
        check_zones(&zones)?;
        let times = [
            ("learn_ms", settings.learn_ms, 500, 60_000),
            ("absorb_ms", settings.absorb_ms, 1_000, 3_600_000),
        ];
        for (field, value, least, most) in times {
            if !(least..=most).contains(&value) {
                return Err(ChangeError::Time {
                    field,
                    value,
                    least,
                    most,
                });
            }
        }
        let areas = zones.len() + 1;
        Ok(ChangeDetector {
            settings,
            zones,
            scene: Scene::default(),
            evidence: vec![Evidence::default(); areas],
            change: Change {
                zones: vec![AreaChange::default(); areas - 1],
                ..Change::default()
            },
        })
    }

    /// The zones, in the order of [`Change::zones`].
    pub fn zones(&self) -> &[Zone] {
        &self.zones
    }

    /// Compares a picture with what is usual and learns from it. `now` is the time since any fixed moment.
    ///
    /// Another grid size or a pause of two minutes begins anew. Cells that `luma` does not have count as 0.
    pub fn step(&mut self, luma: &Luma, now: Duration) -> &Change {
        let size = (
            luma.columns.clamp(1, MAX_SIDE),
            luma.rows.clamp(1, MAX_SIDE),
        );
        let pause = now.saturating_sub(self.scene.time);
        if size != self.scene.size() || pause >= FORGET {
            self.start(size, now);
        }
        let elapsed = self.scene.elapsed(now);
        self.scene.take(luma);
        self.change.cells.clear();
        self.change.unsteady_permille = 1000;
        let cause = if self.scene.learned < self.settings.learn_ms as i32
            || self.scene.learned_pictures < LEARN_PICTURES
        {
            self.scene.learn_first(elapsed);
            Cause::Learning
        } else {
            self.look(elapsed)
        };
        self.report(cause, elapsed);
        &self.change
    }

    fn start(&mut self, size: (u32, u32), now: Duration) {
        self.scene = Scene::new(size, &self.zones, self.settings.sensitivity);
        self.scene.time = now;
        self.change.cells = Cells::new(size.0, size.1);
        self.change.boxes.reserve(MAX_BOXES);
    }

    /// Tells what the picture at hand shows and learns from it.
    fn look(&mut self, elapsed: i32) -> Cause {
        let scene = &mut self.scene;
        let shift = scene.explain(elapsed);
        let strange = scene.score();
        let whole_scene = scene.light.jumped() || strange * 16 > scene.count() as u32 * SCENE;
        if whole_scene || scene.settling > 0 {
            let anew = whole_scene || scene.light.follows();
            scene.settling = if anew {
                SETTLE
            } else {
                scene.settling - elapsed
            };
            scene.background.replace(&scene.picture);
            scene.light.restart();
            return Cause::Lighting;
        }
        scene.mark(&mut self.change.cells, &mut self.evidence);
        scene.shaken = if shift == Shift::default() {
            (scene.shaken - elapsed).max(0)
        } else {
            SHAKES
        };
        let unsteady = scene.learn(&self.change.cells, elapsed, self.settings.absorb_ms as i32);
        self.change.unsteady_permille = unsteady * 1000 / scene.count() as u32;
        let shaken = shift != Shift::default();
        if !self.change.cells.is_empty() {
            Cause::Movement
        } else if scene.light.is_lit() {
            Cause::Lighting
        } else if shaken {
            Cause::Shake
        } else {
            Cause::None
        }
    }

    fn report(&mut self, cause: Cause, elapsed: i32) {
        let change = &mut self.change;
        let (whole, zones) = self
            .evidence
            .split_last_mut()
            .expect("the whole picture is always there");
        let disturbed = self.scene.shaken > 0 || self.scene.light.is_unsettled();
        change.whole = whole.close(elapsed, disturbed);
        for (told, evidence) in change.zones.iter_mut().zip(zones) {
            *told = evidence.close(elapsed, disturbed);
        }
        let count = change.cells.count();
        change.permille = count * 1000 / (self.scene.count() as u32).max(1);
        self.scene.boxes.find(&change.cells, &mut change.boxes);
        change.cause = cause;
    }
}

const _: () = assert!(crate::zone::MAX_ZONES < 64);
