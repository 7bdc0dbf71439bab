//! Promises that every board keeps.

use std::collections::HashMap;

use super::schema::Definition;

/// A promise that a definition breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The key, for example `gpio.pins.GPIO4.line`.
    pub(crate) key: String,
    /// Its value.
    pub(crate) value: String,
    /// What it should be.
    pub(crate) limit: &'static str,
}

type Check = fn(&Definition) -> Result<(), Fault>;

/// Every check, in the order in which they run; the name is part of the error.
pub(crate) const CHECKS: &[(&str, Check)] = &[
    ("the name is plain", name_is_plain),
    ("lists are short", lists_are_short),
    ("clusters have cores", clusters_have_cores),
    ("RAM sizes are sizes", ram_sizes_are_sizes),
    ("pins have a chip", pins_have_a_chip),
    ("pin names are unique", pin_names_are_unique),
    ("no line is listed twice", no_line_is_listed_twice),
    (
        "no header position is taken twice",
        no_header_position_is_taken_twice,
    ),
    ("devices are in /dev", devices_are_in_dev),
    ("files are in /sys", files_are_in_sys),
    ("temperatures are in order", temperatures_are_in_order),
    ("memory limits are in order", memory_limits_are_in_order),
    ("the power estimate is possible", power_estimate_is_possible),
    ("the watchdog can wait", watchdog_can_wait),
];

/// Lines of a chip that are believed.
const MAX_LINE: u32 = 1023;
/// Entries of a list.
const MAX_ENTRIES: usize = 256;

fn fault(key: impl Into<String>, value: impl ToString, limit: &'static str) -> Result<(), Fault> {
    Err(Fault {
        key: key.into(),
        value: value.to_string(),
        limit,
    })
}

fn name_is_plain(board: &Definition) -> Result<(), Fault> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if board.name.is_empty() || board.name.len() > 64 || !board.name.chars().all(plain) {
        return fault(
            "name",
            &board.name,
            "1 to 64 small letters, digits and hyphens",
        );
    }
    Ok(())
}

fn lists_are_short(board: &Definition) -> Result<(), Fault> {
    let lists = [
        ("compatible", board.compatible.len()),
        ("ram_mb", board.ram_mb.len()),
        ("cpu.clusters", board.cpu.clusters.len()),
        ("gpio.chips", board.gpio.chips.len()),
        ("gpio.pins", board.gpio.pins.len()),
        ("serial", board.serial.len()),
        ("i2c", board.i2c.len()),
        ("thermal.zones", board.thermal.zones.len()),
        (
            "throttle.firmware_flags",
            board.throttle.firmware_flags.len(),
        ),
        ("throttle.cooling", board.throttle.cooling.len()),
        ("power.sensors", board.power.sensors.len()),
    ];
    match lists.into_iter().find(|(_, len)| *len > MAX_ENTRIES) {
        Some((key, len)) => fault(key, format!("{len} entries"), "at most 256 entries"),
        None => Ok(()),
    }
}

fn clusters_have_cores(board: &Definition) -> Result<(), Fault> {
    for cluster in &board.cpu.clusters {
        if !(1..=256).contains(&cluster.count) {
            return fault(
                format!("cpu.clusters.{}.count", cluster.core),
                cluster.count,
                "1 to 256",
            );
        }
        if !(100..=10_000).contains(&cluster.max_mhz) {
            let key = format!("cpu.clusters.{}.max_mhz", cluster.core);
            return fault(key, cluster.max_mhz, "100 to 10000");
        }
    }
    Ok(())
}

fn ram_sizes_are_sizes(board: &Definition) -> Result<(), Fault> {
    match board
        .ram_mb
        .iter()
        .find(|mb| !(64..=1_048_576).contains(*mb))
    {
        Some(mb) => fault("ram_mb", mb, "64 to 1048576"),
        None => Ok(()),
    }
}

fn pins_have_a_chip(board: &Definition) -> Result<(), Fault> {
    for pin in &board.gpio.pins {
        if pin.chip.is_none() && board.gpio.chips.is_empty() {
            return fault(
                "gpio.chips",
                "empty",
                "the label of the chip that has the pins (gpiodetect)",
            );
        }
        if pin.line > MAX_LINE {
            return fault(
                format!("gpio.pins.{}.line", pin.name),
                pin.line,
                "0 to 1023",
            );
        }
    }
    Ok(())
}

fn pin_names_are_unique(board: &Definition) -> Result<(), Fault> {
    let mut seen = HashMap::new();
    for (index, pin) in board.gpio.pins.iter().enumerate() {
        for name in std::iter::once(&pin.name).chain(&pin.aliases) {
            if name.is_empty() || name.len() > 32 || name.contains(char::is_whitespace) {
                let limit = "1 to 32 bytes without white space";
                return fault(
                    format!("gpio.pins.{}", pin.name),
                    format!("{name:?}"),
                    limit,
                );
            }
            if seen
                .insert(name.to_ascii_lowercase(), index)
                .is_some_and(|other| other != index)
            {
                let limit = "a name of its own; another pin has this one";
                return fault(format!("gpio.pins.{}", pin.name), name, limit);
            }
        }
    }
    Ok(())
}

fn no_line_is_listed_twice(board: &Definition) -> Result<(), Fault> {
    let mut seen = HashMap::new();
    for pin in &board.gpio.pins {
        if let Some(other) = seen.insert((&pin.chip, pin.line), &pin.name) {
            let value = format!("{}, as of {other}", pin.line);
            return fault(
                format!("gpio.pins.{}.line", pin.name),
                value,
                "a line of its own",
            );
        }
    }
    Ok(())
}

fn no_header_position_is_taken_twice(board: &Definition) -> Result<(), Fault> {
    let mut seen = HashMap::new();
    for (pin, header) in (board.gpio.pins.iter()).filter_map(|pin| Some((pin, pin.header?))) {
        if !(1..=256).contains(&header) {
            return fault(format!("gpio.pins.{}.header", pin.name), header, "1 to 256");
        }
        if let Some(other) = seen.insert(header, &pin.name) {
            let value = format!("{header}, as of {other}");
            return fault(
                format!("gpio.pins.{}.header", pin.name),
                value,
                "a position of its own",
            );
        }
    }
    Ok(())
}

fn devices_are_in_dev(board: &Definition) -> Result<(), Fault> {
    let serial = board.serial.iter().map(|port| ("serial.path", &port.path));
    let i2c = board.i2c.iter().map(|bus| ("i2c.path", &bus.path));
    let watchdog = board
        .watchdog
        .iter()
        .map(|device| ("watchdog.path", &device.path));
    let mut paths = serial.chain(i2c).chain(watchdog);
    match paths.find(|(_, path)| !is_under(path, "/dev/")) {
        Some((key, path)) => fault(key, path, "a path under /dev/ without .."),
        None => Ok(()),
    }
}

fn files_are_in_sys(board: &Definition) -> Result<(), Fault> {
    let flags = board
        .throttle
        .firmware_flags
        .iter()
        .map(|path| ("throttle.firmware_flags", path));
    let sensors = board
        .power
        .sensors
        .iter()
        .filter_map(|sensor| match sensor {
            super::schema::PowerSensor::Iio { path, .. } => Some(("power.sensors.path", path)),
            super::schema::PowerSensor::Hwmon { .. } => None,
        });
    match flags
        .chain(sensors)
        .find(|(_, path)| !is_under(path, "/sys/"))
    {
        Some((key, path)) => fault(key, path, "a path under /sys/ without .."),
        None => Ok(()),
    }
}

fn is_under(path: &str, folder: &str) -> bool {
    path.len() > folder.len()
        && path.starts_with(folder)
        && !path.split('/').any(|part| part == "..")
}

fn temperatures_are_in_order(board: &Definition) -> Result<(), Fault> {
    let thermal = &board.thermal;
    if !(0.0..=150.0).contains(&thermal.warm_c) {
        return fault("thermal.warm_c", thermal.warm_c, "0 to 150");
    }
    if !(thermal.hot_c > thermal.warm_c && thermal.hot_c <= 150.0) {
        return fault("thermal.hot_c", thermal.hot_c, "above warm_c, at most 150");
    }
    if !(0.0..=30.0).contains(&thermal.hysteresis_c) {
        return fault("thermal.hysteresis_c", thermal.hysteresis_c, "0 to 30");
    }
    Ok(())
}

fn memory_limits_are_in_order(board: &Definition) -> Result<(), Fault> {
    let memory = &board.memory;
    if !(1.0..=1_048_576.0).contains(&memory.critical_mb) {
        return fault("memory.critical_mb", memory.critical_mb, "1 to 1048576");
    }
    if !(memory.low_mb > memory.critical_mb && memory.low_mb <= 1_048_576.0) {
        return fault(
            "memory.low_mb",
            memory.low_mb,
            "above critical_mb, at most 1048576",
        );
    }
    if !(0.0..=65_536.0).contains(&memory.hysteresis_mb) {
        return fault("memory.hysteresis_mb", memory.hysteresis_mb, "0 to 65536");
    }
    Ok(())
}

fn power_estimate_is_possible(board: &Definition) -> Result<(), Fault> {
    let Some(estimate) = &board.power.estimate else {
        return Ok(());
    };
    if !(0.0..=1_000.0).contains(&estimate.idle_watts) {
        return fault(
            "power.estimate.idle_watts",
            estimate.idle_watts,
            "0 to 1000",
        );
    }
    if !(estimate.load_watts >= estimate.idle_watts && estimate.load_watts <= 1_000.0) {
        return fault(
            "power.estimate.load_watts",
            estimate.load_watts,
            "idle_watts to 1000",
        );
    }
    if estimate.source.trim().is_empty() {
        return fault(
            "power.estimate.source",
            "empty",
            "who measured the two numbers",
        );
    }
    Ok(())
}

fn watchdog_can_wait(board: &Definition) -> Result<(), Fault> {
    match board
        .watchdog
        .as_ref()
        .and_then(|device| device.max_timeout_s)
    {
        Some(seconds) if !(1..=86_400).contains(&seconds) => {
            fault("watchdog.max_timeout_s", seconds, "1 to 86400")
        }
        _ => Ok(()),
    }
}
