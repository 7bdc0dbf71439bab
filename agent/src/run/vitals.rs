//! [`Vitals`]: how the board is: heat, memory, disk, power.

use nix::sys::statvfs::statvfs;
use ocelli_boards::{
    Board, EnergyMeter, Health, MemoryPressure, PowerMeter, PressureGauge, ThermalPressure, Tree,
};
use ocelli_reflex::observation::Fault;
use std::path::PathBuf;
use std::time::Duration;

/// Time between two readings.
pub const PAUSE: Duration = Duration::from_secs(5);
/// A disk with less room is full, in bytes.
const FULL: u64 = 8 << 20;
/// A disk with more room no longer is.
const ROOMY: u64 = 16 << 20;

/// Reads the board now and then.
#[derive(Debug)]
pub struct Vitals {
    tree: Tree,
    board: Board,
    folder: PathBuf,
    gauge: PressureGauge,
    power: PowerMeter,
    energy: EnergyMeter,
    health: Health,
    next: Duration,
    /// Faults that were told, by their place in [`FAULTS`].
    told: [bool; 3],
    disk_full: bool,
}

const FAULTS: [Fault; 3] = [Fault::Hot, Fault::LowMemory, Fault::DiskFull];

impl Vitals {
    /// For a board whose state is kept in `folder`.
    pub fn new(tree: Tree, board: Board, folder: PathBuf) -> Vitals {
        Vitals {
            gauge: PressureGauge::new(&board),
            tree,
            board,
            folder,
            power: PowerMeter::default(),
            energy: EnergyMeter::default(),
            health: Health::default(),
            next: Duration::ZERO,
            told: [false; 3],
            disk_full: false,
        }
    }

    /// When it wants to be read again.
    pub fn next_at(&self) -> Duration {
        self.next
    }

    /// The board at the last reading.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Reads the board if it is time, and tells which faults began or ended. `disk_stuck`: the disk
    /// refused what was last given to it.
    pub fn tick(&mut self, now: Duration, disk_stuck: bool) -> Vec<(Fault, bool)> {
        if now < self.next {
            return Vec::new();
        }
        self.next = now.saturating_add(PAUSE);
        self.health = Health::read(&self.tree, &self.board);
        self.meter(now);
        let room = statvfs(&self.folder).map_or(u64::MAX, |disk| {
            disk.blocks_available().saturating_mul(disk.fragment_size())
        });
        self.disk_full = disk_stuck || room < if self.disk_full { ROOMY } else { FULL };
        let pressure = self.gauge.update(&self.health);
        self.compare([
            pressure.thermal == ThermalPressure::Hot,
            pressure.memory == MemoryPressure::Critical,
            self.disk_full,
        ])
    }

    /// Adds a reading of power.
    pub fn meter(&mut self, now: Duration) {
        let reading = self.power.read(&self.tree, &self.board);
        self.energy.add(now, reading.power);
    }

    /// Joules since the last call, and whether they were measured; `None` where they are not known.
    pub fn take_joules(&mut self) -> Option<(f32, bool)> {
        let joules = self.energy.take();
        (joules.covered > Duration::ZERO).then_some((joules.joules as f32, joules.measured))
    }

    fn compare(&mut self, active: [bool; 3]) -> Vec<(Fault, bool)> {
        let news = FAULTS.into_iter().zip(active).zip(&mut self.told);
        news.filter_map(|((fault, active), told)| {
            (std::mem::replace(told, active) != active).then_some((fault, active))
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_told_when_they_begin_and_when_they_end() {
        let board = Board::by_name("generic").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        let mut vitals = Vitals::new(Tree::new(root.path()), board, folder.path().into());
        let at = Duration::from_secs;
        assert_eq!(vitals.tick(at(100), false), []);
        assert_eq!(vitals.tick(at(101), true), [], "it is not time yet");
        assert_eq!(vitals.tick(at(105), true), [(Fault::DiskFull, true)]);
        assert_eq!(vitals.tick(at(110), true), []);
        assert_eq!(vitals.tick(at(115), false), [(Fault::DiskFull, false)]);
    }
}
