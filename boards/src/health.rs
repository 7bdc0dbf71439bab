//! How a board is at one moment: temperature, throttling, clocks, memory.

mod power;
mod throttling;

pub use power::{CpuTimes, Power, PowerMeter, PowerReading};
pub use throttling::Throttling;

use serde::Serialize;

use crate::board::Board;
use crate::tree::Tree;

/// One moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Health {
    /// The hottest zone.
    pub temperature: Option<Temperature>,
    /// Limits that hold the board back.
    pub throttling: Throttling,
    /// Clock governors in use, each once.
    pub governors: Vec<String>,
    /// Present clock of the fastest group of cores, in MHz.
    pub cpu_mhz: Option<f64>,
    /// Memory.
    pub memory: Option<Memory>,
}

/// A temperature.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Temperature {
    /// Type of the thermal zone.
    pub zone: String,
    /// In °C.
    pub celsius: f64,
}

/// Memory of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Memory {
    /// All, in MB (2^20 bytes).
    pub total_mb: f64,
    /// What programs can still get without swapping, in MB.
    pub available_mb: f64,
    /// Share of the last 10 s in which some task waited for memory, in percent; none without PSI.
    pub pressure_percent: Option<f64>,
}

impl Health {
    /// Reads what `board` says is there; what cannot be read is left out.
    pub fn read(tree: &Tree, board: &Board) -> Health {
        let policies = policies(tree);
        let governors = policies
            .iter()
            .filter_map(|policy| tree.text(policy.join("scaling_governor")));
        let mut governors: Vec<String> = governors.collect();
        governors.sort();
        governors.dedup();
        let clocks = policies
            .iter()
            .filter_map(|policy| tree.number(policy.join("scaling_cur_freq")));
        Health {
            temperature: Temperature::hottest(tree, board),
            throttling: Throttling::read(tree, &board.throttle),
            governors,
            cpu_mhz: clocks
                .map(|kilohertz| kilohertz / 1e3)
                .max_by(f64::total_cmp),
            memory: memory(tree),
        }
    }
}

fn policies(tree: &Tree) -> Vec<std::path::PathBuf> {
    let all = tree.list("/sys/devices/system/cpu/cpufreq").into_iter();
    all.filter(|path| path.to_string_lossy().contains("/policy"))
        .collect()
}

impl Temperature {
    /// The hottest zone of the board's types. Readings outside -40 to 150 °C are taken for faults.
    pub fn hottest(tree: &Tree, board: &Board) -> Option<Temperature> {
        let zones = tree
            .list("/sys/class/thermal")
            .into_iter()
            .filter_map(|path| {
                let zone = tree.text(path.join("type"))?;
                let celsius = tree.number(path.join("temp"))? / 1e3;
                let counts =
                    board.thermal.zones.contains(&zone) && (-40.0..=150.0).contains(&celsius);
                counts.then_some(Temperature { zone, celsius })
            });
        zones.max_by(|a, b| a.celsius.total_cmp(&b.celsius))
    }
}

fn memory(tree: &Tree) -> Option<Memory> {
    let meminfo = tree.text("/proc/meminfo")?;
    let megabytes = |name: &str| {
        let line = meminfo
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let kilobytes: f64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kilobytes / 1024.0)
    };
    let pressure = tree.text("/proc/pressure/memory");
    Some(Memory {
        total_mb: megabytes("MemTotal")?,
        available_mb: megabytes("MemAvailable")?,
        pressure_percent: pressure.and_then(|text| {
            let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
            let share = some
                .split_whitespace()
                .find_map(|part| part.strip_prefix("avg10="))?;
            share
                .parse()
                .ok()
                .filter(|share| (0.0..=100.0).contains(share))
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::{Health, Memory};
    use crate::board::Board;
    use crate::fixture::Fixture;

    #[test]
    fn the_hottest_zone_of_the_board_counts() {
        let fixture = Fixture::new(&[
            ("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n"),
            ("sys/class/thermal/thermal_zone0/temp", "48250\n"),
            ("sys/class/thermal/thermal_zone1/type", "tj-thermal\n"),
            ("sys/class/thermal/thermal_zone1/temp", "51500\n"),
            ("sys/class/thermal/thermal_zone2/type", "PMIC-Die\n"),
            ("sys/class/thermal/thermal_zone2/temp", "100000\n"),
            ("sys/class/thermal/thermal_zone3/type", "soc0-thermal\n"),
            ("sys/class/thermal/thermal_zone3/temp", "-256000\n"),
            ("sys/class/thermal/cooling_device0/type", "pwm-fan\n"),
        ]);
        let board = Board::by_name("jetson-orin-nano").unwrap();
        let temperature = Health::read(&fixture.tree(), &board).temperature.unwrap();
        assert_eq!(
            (temperature.zone.as_str(), temperature.celsius),
            ("tj-thermal", 51.5)
        );
    }

    #[test]
    fn clocks_and_memory_are_read() {
        let fixture = Fixture::new(&[
            (
                "sys/devices/system/cpu/cpufreq/policy0/scaling_governor",
                "ondemand\n",
            ),
            (
                "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq",
                "1500000\n",
            ),
            (
                "sys/devices/system/cpu/cpufreq/policy4/scaling_governor",
                "ondemand\n",
            ),
            (
                "sys/devices/system/cpu/cpufreq/policy4/scaling_cur_freq",
                "2400000\n",
            ),
            ("sys/devices/system/cpu/cpufreq/boost", "1\n"),
            (
                "proc/meminfo",
                "MemTotal: 2048 kB\nMemFree: 100 kB\nMemAvailable:   1024 kB\n",
            ),
            (
                "proc/pressure/memory",
                "some avg10=12.50 avg60=0.00 avg300=0.00 total=1\nfull avg10=1.0\n",
            ),
        ]);
        let health = Health::read(&fixture.tree(), &Board::by_name("generic").unwrap());
        assert_eq!(health.governors, ["ondemand"]);
        assert_eq!(health.cpu_mhz, Some(2400.0));
        let memory = Memory {
            total_mb: 2.0,
            available_mb: 1.0,
            pressure_percent: Some(12.5),
        };
        assert_eq!(health.memory, Some(memory));
    }

    #[test]
    fn a_machine_without_sensors_has_an_empty_health() {
        let health = Health::read(&Fixture::new(&[]).tree(), &Board::by_name("virt").unwrap());
        assert_eq!(health, Health::default());
    }
}
