//! What the detector knows of one scene, and how a picture is compared with it.

use std::time::Duration;

use crate::luma::Luma;
use crate::mask::Cover;
use crate::zone::{Sensitivity, Zone};

use super::background::{Background, Lesson, Pace};
use super::bands::{Along, Bands};
use super::boxes::Boxes;
use super::cells::Cells;
use super::evidence::Evidence;
use super::light::{self, Light};
use super::shake::{Shake, Shift};

/// Score of a cell at the threshold of the usual sensitivity.
const USUAL_SCORE: i32 = 16;
/// Step that times are counted in when pictures come at once or the clock went backwards.
const SHORTEST: i32 = 1;
/// A longer pause counts as this, in milliseconds.
const LONGEST: i32 = 2_000;
/// Deviation of cells, 1/64 of them at least, that a shift is looked for from, in 1/256 levels.
const SHAKEN: i32 = 4 << 8;
/// How many times less a cell weighs that nothing near preceded.
const FRESH: i32 = 4;

/// All that depends on the size of the grid.
#[derive(Debug, Default)]
pub(super) struct Scene {
    pub(super) columns: usize,
    pub(super) rows: usize,
    pub(super) picture: Vec<i32>,
    pub(super) rest: Vec<i32>,
    pub(super) shifted: Vec<i32>,
    pub(super) score: Vec<i32>,
    /// Cells that counted in the last picture.
    pub(super) before: Cells,
    pub(super) background: Background,
    pub(super) light: Light,
    pub(super) bands: Vec<Bands>,
    pub(super) shake: Shake,
    pub(super) boxes: Boxes,
    /// Areas each cell belongs to, a bit each; bit `zones` is the whole picture.
    pub(super) areas: Vec<u64>,
    /// Smallest score that counts in any of a cell's areas.
    pub(super) least: Vec<i32>,
    /// Smallest score that counts in each area.
    pub(super) scores: Vec<i32>,
    pub(super) time: Duration,
    pub(super) learned: i32,
    pub(super) learned_pictures: i32,
    pub(super) settling: i32,
    /// For how long the camera is taken to shake still, in milliseconds.
    pub(super) shaken: i32,
}

impl Scene {
    pub(super) fn new(size: (u32, u32), zones: &[Zone], sensitivity: Sensitivity) -> Scene {
        let (columns, rows) = (size.0 as usize, size.1 as usize);
        let count = columns * rows;
        let mut scene = Scene {
            columns,
            rows,
            picture: vec![0; count],
            rest: vec![0; count],
            shifted: vec![0; count],
            score: vec![0; count],
            before: Cells::new(size.0, size.1),
            background: Background::new(count),
            light: Light::new(columns, rows),
            bands: vec![Bands::new(Along::Rows), Bands::new(Along::Columns)],
            shake: Shake::new(count),
            boxes: Boxes::new(size.0, size.1),
            areas: vec![1 << zones.len(); count],
            least: vec![least_score(sensitivity); count],
            scores: zones
                .iter()
                .map(|zone| least_score(zone.sensitivity))
                .collect(),
            ..Scene::default()
        };
        scene.scores.push(least_score(sensitivity));
        for (index, zone) in zones.iter().enumerate() {
            let cover = Cover::of(std::slice::from_ref(&zone.area), size.0, size.1);
            for row in 0..rows {
                for column in cover.row(row as u32).iter().cloned().flatten() {
                    let cell = row * columns + column as usize;
                    scene.areas[cell] |= 1 << index;
                    scene.least[cell] = scene.least[cell].min(scene.scores[index]);
                }
            }
        }
        scene
    }

    pub(super) fn count(&self) -> usize {
        self.picture.len()
    }

    pub(super) fn size(&self) -> (u32, u32) {
        (self.columns as u32, self.rows as u32)
    }

    /// Milliseconds since the last picture, within bounds: a clock may jump.
    pub(super) fn elapsed(&mut self, now: Duration) -> i32 {
        let elapsed = now.saturating_sub(self.time).as_millis();
        self.time = now;
        (elapsed.min(LONGEST as u128) as i32).max(SHORTEST)
    }

    pub(super) fn take(&mut self, luma: &Luma) {
        let width = luma.columns as usize;
        for row in 0..self.rows {
            let line = luma.values.get(row * width..).unwrap_or_default();
            for column in 0..self.columns {
                let value = line.get(column).copied().unwrap_or_default();
                self.picture[row * self.columns + column] = i32::from(value) << 8;
            }
        }
    }

    pub(super) fn learn_first(&mut self, elapsed: i32) {
        self.learned += elapsed;
        self.learned_pictures += 1;
        self.background
            .average(&self.picture, self.learned_pictures);
    }

    /// Leaves in `rest` what neither light nor flicker nor a shift explains.
    pub(super) fn explain(&mut self, elapsed: i32) -> Shift {
        let usual = &self.background.usual;
        for (rest, (value, usual)) in self.rest.iter_mut().zip(self.picture.iter().zip(usual)) {
            *rest = value - usual;
        }
        for bands in &mut self.bands {
            bands.take_out(usual, self.columns, elapsed, &mut self.rest);
        }
        for (rest, (value, usual)) in self.rest.iter().zip(self.picture.iter_mut().zip(usual)) {
            *value = (usual + rest).clamp(0, 255 << 8);
        }
        self.light
            .follow(&self.picture, usual, &self.background.noise, elapsed);
        self.explain_light();
        let left = self.rest.iter().filter(|rest| rest.abs() > SHAKEN).count();
        if left * 64 < self.rest.len() {
            return Shift::default();
        }
        self.explain_shift()
    }

    fn explain_light(&mut self) {
        let usual = &self.background.usual;
        for row in 0..self.rows {
            for column in 0..self.columns {
                let cell = row * self.columns + column;
                self.rest[cell] =
                    self.light
                        .unexplained(column, row, self.picture[cell], usual[cell]);
            }
        }
    }

    /// Takes a shift out of the picture, if there is one, and looks at the light again.
    fn explain_shift(&mut self) -> Shift {
        let overall = self.light.overall();
        let usual = &self.background.usual;
        for (cell, shifted) in self.shifted.iter_mut().enumerate() {
            *shifted = self.picture[cell] - light::relit(usual[cell], overall);
        }
        let shift = self.shake.take_out(usual, self.columns, &mut self.shifted);
        if shift != Shift::default() {
            for (cell, shifted) in self.shifted.iter().enumerate() {
                self.picture[cell] =
                    (light::relit(usual[cell], overall) + shifted).clamp(0, 255 << 8);
            }
            self.light
                .measure(&self.picture, usual, &self.background.noise);
            self.explain_light();
        }
        shift
    }

    /// Scores every cell and counts those over the threshold.
    pub(super) fn score(&mut self) -> u32 {
        let mut strange = 0;
        for cell in 0..self.rest.len() {
            let (rest, floor) = (self.rest[cell].abs(), self.background.floor(cell));
            // Less than half of the floor counts at no sensitivity; most cells need no division.
            self.score[cell] = if rest * 2 < floor {
                0
            } else {
                rest * USUAL_SCORE / floor
            };
            strange += u32::from(rest >= floor);
        }
        strange
    }

    /// Collects the cells that count: over the threshold of one of their areas, and, unless far over it, not alone
    /// in this picture. Those with nothing near in the last picture weigh less: noise does not last, objects do. So do
    /// those that change slowly while the light changes: shadows fade, objects come at once.
    pub(super) fn mark(&mut self, cells: &mut Cells, evidence: &mut [Evidence]) {
        let unsettled = self.light.is_unsettled();
        for cell in 0..self.score.len() {
            let (score, least) = (self.score[cell], self.least[cell]);
            if score < least {
                continue;
            }
            let plain = score * 2 >= least * 5;
            if !plain && !self.has_company(cell) {
                continue;
            }
            cells.add(cell);
            let lasting = plain || self.lasts(cell);
            let counts = lasting
                && (!unsettled
                    || self
                        .background
                        .steps(cell, self.picture[cell], self.rest[cell]));
            let mut areas = self.areas[cell];
            while areas != 0 {
                let area = areas.trailing_zeros() as usize;
                areas &= areas - 1;
                if score >= self.scores[area] {
                    let weight = score * USUAL_SCORE / self.scores[area];
                    evidence[area].add(if counts { weight } else { weight / FRESH });
                }
            }
        }
        self.before.clone_from(cells);
    }

    /// Whether the cell or one around it counted in the last picture.
    fn lasts(&self, cell: usize) -> bool {
        let (column, row) = ((cell % self.columns) as u32, (cell / self.columns) as u32);
        (row.saturating_sub(1)..=row + 1)
            .any(|y| (column.saturating_sub(1)..=column + 1).any(|x| self.before.contains(x, y)))
    }

    /// Whether one of the eight cells around is over its threshold too.
    fn has_company(&self, cell: usize) -> bool {
        let (column, row) = (cell % self.columns, cell / self.columns);
        let left = column.saturating_sub(1);
        let right = (column + 2).min(self.columns);
        (row.saturating_sub(1)..(row + 2).min(self.rows)).any(|y| {
            (y * self.columns + left..y * self.columns + right)
                .any(|near| near != cell && self.score[near] >= self.least[near])
        })
    }

    /// Learns from every cell; how many did not stand still.
    pub(super) fn learn(&mut self, cells: &Cells, elapsed: i32, absorb: i32) -> u32 {
        let mut unsteady = 0;
        let pace = Pace::new(elapsed, absorb);
        let (unsettled, shaken) = (self.light.is_unsettled(), self.shaken > 0);
        for row in 0..self.rows {
            for column in 0..self.columns {
                let cell = row * self.columns + column;
                let gains = self.light.at(column, row);
                let lesson = Lesson {
                    value: self.picture[cell],
                    rest: self.rest[cell],
                    gain: gains.middle,
                    lit: gains.is_lit(),
                    unsettled,
                    shaken,
                    strange: cells.has(cell),
                };
                unsteady += u32::from(!self.background.learn(cell, lesson, pace));
            }
        }
        unsteady
    }
}

/// Smallest score that counts at a sensitivity: 16 at the usual one, 8 at 100, 31 at 1.
pub(super) fn least_score(sensitivity: Sensitivity) -> i32 {
    /// 4096 · 2^(n/10).
    const ROOTS: [i32; 10] = [4096, 4390, 4705, 5043, 5405, 5793, 6208, 6654, 7132, 7643];
    let fifths = i32::from(100 - sensitivity.get());
    let (whole, part) = ((fifths / 5) as usize, fifths % 5);
    let at = |step: usize| ROOTS[step % 10] << (step / 10);
    ((at(whole) + (at(whole + 1) - at(whole)) * part / 5) * USUAL_SCORE) >> 13
}
