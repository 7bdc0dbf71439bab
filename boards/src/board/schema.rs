//! What a definition says: every key of `definitions/*.toml` with its meaning.
//!
//! Unknown keys are errors. All numbers are checked by [`checks`](super::checks) before a
//! [`Board`](super::Board) exists.

use serde::{Deserialize, Serialize};

/// One board.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// Name in settings and logs: small letters, digits, hyphens.
    pub name: String,
    /// Name for people.
    pub title: String,
    /// Device tree `compatible` strings of the board itself (not of its chip).
    pub compatible: Vec<String>,
    /// Sizes of RAM it is sold with, in MB (2^20 bytes).
    pub ram_mb: Vec<u32>,
    /// Its cores.
    pub cpu: Cpu,
    /// Its pins.
    #[serde(default)]
    pub gpio: Gpio,
    /// Its serial ports, the best one for a link first.
    #[serde(default)]
    pub serial: Vec<SerialPort>,
    /// Its I²C buses.
    #[serde(default)]
    pub i2c: Vec<I2cBus>,
    /// Which kind of camera source to try first.
    pub camera: Camera,
    /// Where the temperature is and when it is high.
    pub thermal: Thermal,
    /// When memory is short.
    pub memory: Memory,
    /// Where throttling can be seen.
    #[serde(default)]
    pub throttle: Throttle,
    /// Where power can be read.
    #[serde(default)]
    pub power: Power,
    /// The hardware watchdog.
    pub watchdog: Option<WatchdogDevice>,
}

/// The cores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cpu {
    /// The best int8 instructions of the cores.
    pub tier: CpuTier,
    /// Groups of equal cores, the fastest first; empty if not known.
    pub clusters: Vec<Cluster>,
}

/// The int8 instructions that matter for speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CpuTier {
    /// Widening multiplies only (Cortex-A53, A57, A72).
    Neon,
    /// `sdot` (Cortex-A55, A76, A78AE).
    Dotprod,
    /// `smmla`.
    I8mm,
}

/// Equal cores that share a clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Design, for example `cortex-a76`.
    pub core: String,
    /// How many.
    pub count: u32,
    /// Highest clock in MHz.
    pub max_mhz: u32,
}

/// The pins.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gpio {
    /// Labels that the chip of the header has under one kernel or another. Numbers (`gpiochip0`)
    /// move between kernels and are never used.
    pub chips: Vec<String>,
    /// Name of a built-in header whose pins come before `pins`.
    pub header: Option<String>,
    /// Pins.
    #[serde(default)]
    pub pins: Vec<PinDefinition>,
    /// What an output does after its line was released, as far as known.
    #[serde(default)]
    pub released: String,
    /// What else to know.
    #[serde(default)]
    pub note: String,
}

/// One line of a chip that can be reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinDefinition {
    /// Name.
    pub name: String,
    /// Other names.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Offset on the chip.
    pub line: u32,
    /// Label of its chip, if it is another one than the header's.
    pub chip: Option<String>,
    /// Position on the header; also answers to `pin11`.
    pub header: Option<u32>,
    /// What the pin is kept for. Such a pin is only given to a request that insists.
    pub reserved: Option<String>,
}

/// A serial port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SerialPort {
    /// Device.
    pub path: String,
    /// Header positions of transmit and receive.
    pub header: Option<[u32; 2]>,
    /// What to know before using it.
    #[serde(default)]
    pub note: String,
}

/// An I²C bus.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct I2cBus {
    /// Device.
    pub path: String,
    /// Header positions of data and clock.
    pub header: Option<[u32; 2]>,
    /// What to know before using it.
    #[serde(default)]
    pub note: String,
}

/// The kind of camera source to try first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Camera {
    /// `v4l2`, or the name of a source preset of the camera crate.
    pub source: String,
    /// What to know.
    #[serde(default)]
    pub note: String,
}

/// Temperature.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thermal {
    /// Types of thermal zones; the hottest that can be read counts.
    pub zones: Vec<String>,
    /// From here on it is warm, in °C.
    pub warm_c: f64,
    /// From here on it is hot, in °C.
    pub hot_c: f64,
    /// A level is left this far below where it was entered, in °C.
    #[serde(default = "thermal_hysteresis")]
    pub hysteresis_c: f64,
}

fn thermal_hysteresis() -> f64 {
    5.0
}

/// Available memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Below this it is low, in MB.
    pub low_mb: f64,
    /// Below this it is critical, in MB.
    pub critical_mb: f64,
    /// A level is left this far above where it was entered, in MB.
    #[serde(default = "memory_hysteresis")]
    pub hysteresis_mb: f64,
}

fn memory_hysteresis() -> f64 {
    32.0
}

/// Where throttling can be seen. Every source that is there is read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Throttle {
    /// Hwmon device whose `in0_lcrit_alarm` is 1 while the supply is too weak.
    pub under_voltage_hwmon: Option<String>,
    /// Files with the flags of the Raspberry Pi firmware in hexadecimal; the first readable one.
    #[serde(default)]
    pub firmware_flags: Vec<String>,
    /// Hwmon device with `ocN_event_cnt` counters (NVIDIA: 1 under-voltage, 2 average and 3
    /// instantaneous over-current).
    pub over_current_hwmon: Option<String>,
    /// Types of cooling devices whose state is above 0 while the clock is held down.
    #[serde(default)]
    pub cooling: Vec<String>,
}

/// Where power can be read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Power {
    /// Sensors of the supply of the whole board or module; the first readable one counts.
    #[serde(default)]
    pub sensors: Vec<PowerSensor>,
    /// What to say when there is no sensor.
    pub estimate: Option<PowerEstimate>,
    /// What to know.
    #[serde(default)]
    pub note: String,
}

/// A power sensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum PowerSensor {
    /// `/sys/class/hwmon`: `powerN_input` (µW), else `inN_input` (mV) times `currN_input` (mA).
    Hwmon {
        /// Name of the device: `ina3221`, `ina219`, `ina226`.
        name: String,
        /// Which channel, by `inN_label`; without it channel 1.
        label: Option<String>,
    },
    /// The IIO files of NVIDIA's older kernels: `rail_name_N` and `in_powerN_input` (mW).
    Iio {
        /// Folder of the device.
        path: String,
        /// Which rail, by `rail_name_N`.
        label: String,
    },
}

/// Two points on a line over the use of the cores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PowerEstimate {
    /// Watts of the idle board.
    pub idle_watts: f64,
    /// Watts with all cores busy.
    pub load_watts: f64,
    /// Who measured that.
    pub source: String,
}

/// The hardware watchdog.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatchdogDevice {
    /// Device.
    pub path: String,
    /// Longest time it can wait, in seconds, if known.
    pub max_timeout_s: Option<u32>,
}
