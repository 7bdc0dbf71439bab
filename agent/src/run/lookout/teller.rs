//! [`Teller`]: which changes are told, and how often.

use super::WHOLE;
use ocelli_camera::Mask;
use ocelli_camera::change::{self, AreaChange};
use ocelli_camera::zone::Zone;
use ocelli_reflex::Probability;
use ocelli_reflex::observation::Cause;
use std::time::Duration;

/// While something goes on it is told again after this time.
const AGAIN: Duration = Duration::from_secs(1);
/// A change of the light or of the camera's place is told once in this time.
const SELDOM: Duration = Duration::from_secs(5);

/// A change in one zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Telling {
    /// The zone.
    pub zone: String,
    /// Share of its cells that changed.
    pub fraction: Probability,
    /// Why.
    pub cause: Cause,
    /// The stretch of change.
    pub episode: u64,
}

/// Turns what the detector says of every picture into few tellings: one when something enters a
/// zone, one a second while it goes on.
#[derive(Debug)]
pub(super) struct Teller {
    /// Name and cells of each zone, the whole picture last.
    zones: Vec<(String, u32)>,
    episode: u64,
    is_active: bool,
    told: Vec<Option<Duration>>,
    /// When a change of light, and of the camera's place, was last told.
    seldom: [Option<Duration>; 2],
}

impl Teller {
    /// For these zones on a grid of so many columns and rows.
    pub(super) fn new(zones: &[Zone], (columns, rows): (u32, u32)) -> Teller {
        let cells = |zone: &Zone| {
            let cover = Mask::new(vec![zone.area.clone()]).cover(columns, rows);
            let all = (0..rows).flat_map(|y| (0..columns).map(move |x| (x, y)));
            let n_cells = all.filter(|(x, y)| cover.covers(*x, *y)).count();
            // At most columns × rows.
            (zone.name.to_string(), n_cells as u32)
        };
        let zones: Vec<(String, u32)> = zones
            .iter()
            .map(cells)
            .chain([(WHOLE.to_owned(), columns * rows)])
            .collect();
        Teller {
            told: vec![None; zones.len()],
            zones,
            episode: 0,
            is_active: false,
            seldom: [None; 2],
        }
    }

    /// What is to be told of a picture.
    pub(super) fn step(&mut self, change: &change::Change, now: Duration) -> Vec<Telling> {
        let areas: Vec<AreaChange> = change
            .zones
            .iter()
            .chain([&change.whole])
            .copied()
            .collect();
        let is_active = areas.iter().any(|area| area.active);
        if is_active && !self.is_active {
            self.episode += 1;
        }
        self.is_active = is_active;
        let mut tellings = Vec::new();
        for (at, area) in areas.iter().enumerate() {
            let is_due = self.told[at].is_none_or(|told| now.saturating_sub(told) >= AGAIN);
            if area.active && (area.entered || is_due) {
                self.told[at] = Some(now);
                tellings.push(self.telling(at, area.cells, Cause::Motion));
            }
            if !area.active {
                self.told[at] = None;
            }
        }
        let disturbance = match change.cause {
            change::Cause::Lighting => Some((0, Cause::Light)),
            change::Cause::Shake => Some((1, Cause::Camera)),
            _ => None,
        };
        if let Some((which, cause)) = disturbance
            && self.seldom[which].is_none_or(|told| now.saturating_sub(told) >= SELDOM)
        {
            self.seldom[which] = Some(now);
            self.episode += 1;
            tellings.extend((0..self.zones.len()).map(|at| self.telling(at, u32::MAX, cause)));
        }
        tellings
    }

    fn telling(&self, at: usize, cells: u32, cause: Cause) -> Telling {
        let (zone, all) = &self.zones[at];
        let share = f64::from(cells) / f64::from((*all).max(1));
        Telling {
            zone: zone.clone(),
            fraction: Probability::from_f64(share.min(1.0)).unwrap_or_default(),
            cause,
            episode: self.episode,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn teller() -> Teller {
        let porch: Zone = toml::from_str("name = \"porch\"\narea = \"0,0 0.5,0.5\"\n").unwrap();
        Teller::new(&[porch], (40, 30))
    }

    fn change(porch: Option<u32>, entered: bool, cause: change::Cause) -> change::Change {
        let area = |cells: Option<u32>| AreaChange {
            active: cells.is_some(),
            entered,
            left: false,
            cells: cells.unwrap_or(0),
        };
        change::Change {
            zones: vec![area(porch)],
            cause,
            ..change::Change::default()
        }
    }

    #[test]
    fn what_enters_is_told_at_once_and_then_every_second() {
        let mut teller = teller();
        let moves = |entered| change(Some(30), entered, change::Cause::Movement);
        let told = teller.step(&moves(true), at(0));
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].zone.as_str(), told[0].episode), ("porch", 1));
        assert_eq!(
            told[0].fraction.per_mille(),
            89,
            "30 of the 21 × 16 cells it touches"
        );
        assert!(teller.step(&moves(false), at(200)).is_empty());
        assert_eq!(teller.step(&moves(false), at(1000)).len(), 1);
    }

    #[test]
    fn after_a_rest_a_new_stretch_begins() {
        let mut teller = teller();
        let moves = change(Some(30), true, change::Cause::Movement);
        let rests = change(None, false, change::Cause::None);
        teller.step(&moves, at(0));
        assert!(teller.step(&rests, at(400)).is_empty());
        assert_eq!(teller.step(&moves, at(600))[0].episode, 2);
    }

    #[test]
    fn a_change_of_light_is_told_for_all_zones_and_seldom() {
        let mut teller = teller();
        let light = change(None, false, change::Cause::Lighting);
        let told = teller.step(&light, at(0));
        let names: Vec<&str> = told.iter().map(|telling| telling.zone.as_str()).collect();
        assert_eq!(names, ["porch", WHOLE]);
        assert!(told.iter().all(|telling| telling.cause == Cause::Light));
        assert!(teller.step(&light, at(4_900)).is_empty());
        assert_eq!(teller.step(&light, at(5_000)).len(), 2);
    }
}
