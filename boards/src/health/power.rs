//! Watts: read from a sensor, or estimated and called so.

use std::path::Path;

use serde::Serialize;

use crate::board::Board;
use crate::board::schema::PowerSensor;
use crate::tree::Tree;

/// How a number of watts was had.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Power {
    /// A sensor of the supply.
    Measured {
        /// Watts.
        watts: f64,
        /// Which sensor.
        sensor: String,
    },
    /// A line between two published figures over the use of the cores; not a measurement.
    Estimated {
        /// Watts.
        watts: f64,
        /// Where the two figures are from.
        source: String,
    },
    /// Nothing is known.
    Unknown,
}

impl Power {
    /// Watts, if anything is known.
    pub fn watts(&self) -> Option<f64> {
        match self {
            Power::Measured { watts, .. } | Power::Estimated { watts, .. } => Some(*watts),
            Power::Unknown => None,
        }
    }

    /// Whether a sensor said it.
    pub fn is_measured(&self) -> bool {
        matches!(self, Power::Measured { .. })
    }
}

/// A reading with the use of the cores that it rests on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PowerReading {
    /// Power.
    pub power: Power,
    /// Use of all cores since the reading before, 0 to 1; none at the first.
    pub utilization: Option<f64>,
}

/// Time the cores spent, in ticks, since the start of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuTimes {
    /// Not idle and not waiting for I/O.
    pub busy: u64,
    /// All.
    pub total: u64,
}

impl CpuTimes {
    /// Reads the first line of `/proc/stat`.
    pub fn read(tree: &Tree) -> Option<CpuTimes> {
        let stat = tree.text("/proc/stat")?;
        let fields = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let ticks: Vec<u64> = fields
            .split_whitespace()
            .map_while(|field| field.parse().ok())
            .take(8)
            .collect();
        let total = ticks.iter().copied().fold(0u64, u64::saturating_add);
        let idle = ticks.get(3)?.saturating_add(*ticks.get(4).unwrap_or(&0));
        Some(CpuTimes {
            busy: total.saturating_sub(idle),
            total,
        })
    }

    /// Use of the cores from `self` to `later`, 0 to 1; none if no time passed.
    pub fn utilization(&self, later: &CpuTimes) -> Option<f64> {
        let total = later
            .total
            .checked_sub(self.total)
            .filter(|total| *total > 0)?;
        let busy = later.busy.saturating_sub(self.busy);
        Some((busy as f64 / total as f64).clamp(0.0, 1.0))
    }
}

/// Reads power, and remembers the use of the cores that an estimate needs.
#[derive(Clone, Debug, Default)]
pub struct PowerMeter {
    before: Option<CpuTimes>,
}

impl PowerMeter {
    /// The power now. An estimate is over the time since the call before; the first is of an idle board.
    pub fn read(&mut self, tree: &Tree, board: &Board) -> PowerReading {
        let times = CpuTimes::read(tree);
        let before = std::mem::replace(&mut self.before, times);
        let utilization = before
            .zip(times)
            .and_then(|(before, now)| before.utilization(&now));
        let measured = board
            .power
            .sensors
            .iter()
            .find_map(|sensor| measure(tree, sensor));
        let power = measured.unwrap_or_else(|| match &board.power.estimate {
            Some(estimate) => Power::Estimated {
                watts: estimate.idle_watts
                    + (estimate.load_watts - estimate.idle_watts) * utilization.unwrap_or(0.0),
                source: estimate.source.clone(),
            },
            None => Power::Unknown,
        });
        PowerReading { power, utilization }
    }
}

/// Watts that no board of this kind draws are taken for a fault of the sensor.
const MAX_WATTS: f64 = 500.0;

fn measure(tree: &Tree, sensor: &PowerSensor) -> Option<Power> {
    let (watts, sensor) = match sensor {
        PowerSensor::Hwmon { name, label } => hwmon_watts(tree, name, label.as_deref())?,
        PowerSensor::Iio { path, label } => iio_watts(tree, Path::new(path), label)?,
    };
    (0.0..=MAX_WATTS)
        .contains(&watts)
        .then_some(Power::Measured { watts, sensor })
}

/// Source: Linux `Documentation/hwmon/sysfs-interface`: power in µW, voltage in mV, current in mA.
fn hwmon_watts(tree: &Tree, name: &str, label: Option<&str>) -> Option<(f64, String)> {
    let device = tree.hwmon(name)?;
    let channel = match label {
        None => 1,
        Some(label) => (1..=8)
            .find(|n| tree.text(device.join(format!("in{n}_label"))).as_deref() == Some(label))?,
    };
    let number = |kind: &str| tree.number(device.join(format!("{kind}{channel}_input")));
    let watts = match number("power") {
        Some(microwatts) => microwatts / 1e6,
        None => number("in")? / 1e3 * (number("curr")? / 1e3),
    };
    Some((
        watts,
        [Some(name), label]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(" "),
    ))
}

fn iio_watts(tree: &Tree, device: &Path, label: &str) -> Option<(f64, String)> {
    let channel = (0..3)
        .find(|n| tree.text(device.join(format!("rail_name_{n}"))).as_deref() == Some(label))?;
    let milliwatts = tree.number(device.join(format!("in_power{channel}_input")))?;
    Some((milliwatts / 1e3, format!("ina3221x {label}")))
}

#[cfg(test)]
mod tests {
    use super::{CpuTimes, Power, PowerMeter};
    use crate::board::Board;
    use crate::fixture::Fixture;

    fn measured(board: &str, files: &[(&str, &str)]) -> Power {
        let board = Board::by_name(board).unwrap();
        PowerMeter::default()
            .read(&Fixture::new(files).tree(), &board)
            .power
    }

    #[test]
    fn a_jetson_orin_measures_its_input() {
        let power = measured(
            "jetson-orin-nano",
            &[
                ("sys/class/hwmon/hwmon1/name", "ina3221\n"),
                ("sys/class/hwmon/hwmon1/in1_label", "VDD_CPU_GPU_CV\n"),
                ("sys/class/hwmon/hwmon1/in2_label", "VDD_IN\n"),
                ("sys/class/hwmon/hwmon1/in2_input", "5000\n"),
                ("sys/class/hwmon/hwmon1/curr2_input", "1200\n"),
            ],
        );
        assert_eq!(
            power,
            Power::Measured {
                watts: 6.0,
                sensor: "ina3221 VDD_IN".into()
            }
        );
    }

    #[test]
    fn a_jetson_nano_measures_its_input() {
        let folder = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0";
        let power = measured(
            "jetson-nano",
            &[
                (&format!("{folder}/rail_name_0"), "POM_5V_IN\n"),
                (&format!("{folder}/in_power0_input"), "2750\n"),
            ],
        );
        assert_eq!(
            power,
            Power::Measured {
                watts: 2.75,
                sensor: "ina3221x POM_5V_IN".into()
            }
        );
    }

    #[test]
    fn an_ina226_gives_its_own_power_value() {
        let text = Board::text("raspberry-pi-5").unwrap();
        let text = text.replace(
            "[power]\n",
            "[power]\nsensors = [{ kind = \"hwmon\", name = \"ina226\" }]\n",
        );
        let board = Board::parse(crate::BoardSource::BuiltIn, &text).unwrap();
        let fixture = Fixture::new(&[
            ("sys/class/hwmon/hwmon4/name", "ina226\n"),
            ("sys/class/hwmon/hwmon4/power1_input", "4200000\n"),
        ]);
        let mut meter = PowerMeter::default();
        assert_eq!(meter.read(&fixture.tree(), &board).power.watts(), Some(4.2));
        fixture.write("sys/class/hwmon/hwmon4/power1_input", "-1");
        assert!(!meter.read(&fixture.tree(), &board).power.is_measured());
    }

    #[test]
    fn an_estimate_follows_the_use_of_the_cores_and_is_called_so() {
        let board = Board::by_name("raspberry-pi-4").unwrap();
        let fixture = Fixture::new(&[("proc/stat", "cpu  100 0 0 900 0 0 0 0 0 0\ncpu0 1\n")]);
        let mut meter = PowerMeter::default();
        let first = meter.read(&fixture.tree(), &board);
        assert_eq!((first.power.watts(), first.utilization), (Some(2.7), None));
        fixture.write("proc/stat", "cpu  200 0 50 950 0 0 0 0 0 0\n");
        let second = meter.read(&fixture.tree(), &board);
        assert_eq!(second.utilization, Some(0.75));
        let Power::Estimated { watts, source } = second.power else {
            panic!("{second:?}")
        };
        assert!((watts - (2.7 + 3.7 * 0.75)).abs() < 1e-9 && source.contains("pidramble"));
    }

    #[test]
    fn a_board_without_sensor_and_figures_knows_nothing() {
        assert_eq!(measured("generic", &[]), Power::Unknown);
    }

    #[test]
    fn time_that_runs_backwards_gives_no_utilization() {
        let (early, late) = (
            CpuTimes { busy: 5, total: 10 },
            CpuTimes { busy: 1, total: 9 },
        );
        assert_eq!(early.utilization(&late), None);
        assert_eq!(early.utilization(&early), None);
        assert_eq!(late.utilization(&early), Some(1.0));
    }
}
