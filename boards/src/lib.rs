//! What a board is and has: definitions as data, detection, pins, temperature, power.
//!
//! - [`Board`]: one definition, checked; nine are built in, others come from TOML files.
//! - [`Facts`]: what this machine says about itself; [`detect`] picks the board, [`report`] says what
//!   is missing.
//! - [`Pins`]: outputs and inputs by name; [`GpioPins`] through the character device, [`FakePins`] for
//!   tests and dry runs.
//! - [`Health`]: temperature, throttling, clocks, memory, power at one moment; [`PressureGauge`] and
//!   [`EnergyMeter`] make levels and joules of it.
//! - [`Cores`]: which cores a process may use, in groups of equal speed; [`Cooling`]: how many of
//!   them a temperature allows.
//! - [`Watchdog`]: the hardware that restarts the board when progress ends.
//!
//! Everything that reads files starts at a [`Tree`], so a folder of fixtures can stand for a board.
#![forbid(unsafe_code)]

mod board;
mod cooling;
mod cores;
mod detection;
mod energy;
mod facts;
#[cfg(test)]
mod fixture;
mod health;
mod pins;
mod pressure;
mod report;
mod suggestion;
mod tree;
mod watchdog;

pub use board::schema::{
    Camera, Cluster, Cpu, CpuTier, Definition, Gpio, I2cBus, Memory as MemoryLimits, PinDefinition,
    Power as PowerSources, PowerEstimate, PowerSensor, SerialPort, Thermal,
    Throttle as ThrottleSources, WatchdogDevice,
};
pub use board::{Board, BoardError, BoardSource, MAX_DEFINITION_BYTES};
pub use cooling::{Cooling, CoolingLimits};
pub use cores::{Cores, n_runnable, processor};
pub use detection::{Detection, detect};
pub use energy::{EnergyMeter, Joules};
pub use facts::Facts;
pub use health::{
    CpuTimes, Health, Memory, Power, PowerMeter, PowerReading, Temperature, Throttling,
};
pub use pins::{
    AsHal, Bias, Debounce, Edge, EdgeClock, FakeChange, FakeControl, FakePins, GpioPins, PinError,
    PinId, PinPlan, PinRequest, PinUse, Pins, plan,
};
pub use pressure::{MemoryPressure, Pressure, PressureGauge, ThermalPressure};
pub use report::{Finding, Level, Needs, fits_in_memory, report};
pub use tree::Tree;
pub use watchdog::{Fed, Pace, Watchdog, WatchdogError};
