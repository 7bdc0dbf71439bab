//! What is missing on this machine and how to mend it.

#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::board::Board;
use crate::facts::Facts;
use crate::health::Health;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Good to know.
    Note,
    /// Something works worse than it could.
    Warning,
    /// Something does not work.
    Fault,
}

impl Level {
    /// `note`, `warning` or `fault`.
    pub fn name(self) -> &'static str {
        match self {
            Level::Note => "note",
            Level::Warning => "warning",
            Level::Fault => "fault",
        }
    }
}

/// One thing about this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What it is.
    pub what: String,
    /// What to do.
    pub advice: String,
}

/// What is going to run here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Bytes of the model's pack with its working memory; 0 if no model is meant.
    pub model_bytes: u64,
    /// Whether pins are used.
    pub pins: bool,
    /// Whether a serial port is used.
    pub serial: bool,
    /// Whether a camera is used.
    pub camera: bool,
}

/// Before this, a clock was never set: 1 January 2025.
const CLOCK_FLOOR: Duration = Duration::from_secs(1_735_689_600);
/// Memory that a model may use of all, in percent.
const MODEL_SHARE_PERCENT: u64 = 70;

/// Whether a model that needs so many bytes suits a board with so much memory: the rest is for the
/// system and its other programs.
pub fn fits_in_memory(need: u64, ram_bytes: u64) -> bool {
    need.saturating_mul(100) <= ram_bytes.saturating_mul(MODEL_SHARE_PERCENT)
}

type Look = fn(&Scene<'_>, &mut Vec<Finding>);

/// Every question, in the order of the answers.
const LOOKS: &[Look] = &[
    userland, clock, memory, camera, pins, serial, governor, supply, heat, watchdog,
];

struct Scene<'a> {
    facts: &'a Facts,
    board: &'a Board,
    health: &'a Health,
    needs: Needs,
}

/// Findings about this machine, most about what `needs` says will be used.
pub fn report(facts: &Facts, board: &Board, health: &Health, needs: Needs) -> Vec<Finding> {
    let scene = Scene {
        facts,
        board,
        health,
        needs,
    };
    let mut findings = Vec::new();
    for look in LOOKS {
        look(&scene, &mut findings);
    }
    findings
}

fn add(
    findings: &mut Vec<Finding>,
    level: Level,
    what: impl Into<String>,
    advice: impl Into<String>,
) {
    findings.push(Finding {
        level,
        what: what.into(),
        advice: advice.into(),
    });
}

fn userland(scene: &Scene<'_>, findings: &mut Vec<Finding>) {
    if scene.facts.userland_bits == Some(32) {
        let advice = "install the 64-bit image of the system; camera programs and libraries of this one are 32-bit";
        add(findings, Level::Warning, "the system is 32-bit", advice);
    }
}

fn clock(scene: &Scene<'_>, findings: &mut Vec<Finding>) {
    let since = scene
        .facts
        .now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    if since < CLOCK_FLOOR {
        let advice = "connect to a network and wait for `timedatectl` to show it, or fit a clock with a battery; schedules and the journal carry wrong times";
        add(findings, Level::Warning, "the clock was never set", advice);
    } else if scene.facts.clock_synchronized == Some(false) {
        let advice = "see `timedatectl`; times may be off since the last power cut";
        add(
            findings,
            Level::Note,
            "the clock was not yet set from the network",
            advice,
        );
    }
}

fn memory(scene: &Scene<'_>, findings: &mut Vec<Finding>) {
    const MB: u64 = 1 << 20;
    let need = scene.needs.model_bytes;
    let Some(ram) = scene.facts.ram_bytes else {
        return;
    };
    if !fits_in_memory(need, ram) {
        let what = format!(
            "the model needs {} MB, the board has {} MB",
            need / MB,
            ram / MB
        );
        let advice = format!(
            "take a model of at most {} MB",
            ram / MB * MODEL_SHARE_PERCENT / 100
        );
        add(findings, Level::Fault, what, advice);
    } else if let Some(memory) = scene.health.memory
        && need as f64 / MB as f64 > memory.available_mb
    {
        let what = format!(
            "the model needs {} MB, {:.0} MB are free now",
            need / MB,
            memory.available_mb
        );
        add(
            findings,
            Level::Warning,
            what,
            "stop other programs, or boot without a desktop",
        );
    }
}

/// Adds a finding if this process is not in a group that exists.
fn group(scene: &Scene<'_>, name: &str, what_for: &str, findings: &mut Vec<Finding>) {
    if scene.facts.groups.get(name) == Some(&false) && !scene.facts.is_root {
        let what = format!("this user is not in the group {name}, which may use {what_for}");
        let advice = format!(
            "run `sudo usermod -aG {name} $USER` and log in again, or give the service SupplementaryGroups={name}"
        );
        add(findings, Level::Fault, what, advice);
    }
}

fn camera(scene: &Scene<'_>, findings: &mut Vec<Finding>) {
    if !scene.needs.camera {
        return;
    }
    if !scene.facts.has_node_like("/dev/video") {
        let note = &scene.board.camera.note;
        let advice = format!(
            "plug a camera in and see `v4l2-ctl --list-devices`{}",
            after_semicolon(note)
        );
        add(
            findings,
            Level::Warning,
            "there is no /dev/video device",
            advice,
        );
    }
    group(scene, "video", "cameras", findings);
}

fn after_semicolon(note: &str) -> String {
    if note.is_empty() {
        String::new()
    } else {
        format!("; {note}")
    }
}

fn pins(scene: &Scene<'_>, findings: &mut Vec<Finding>) {
    if !scene.needs.pins {
        return;
    }
    if !scene.facts.has_node_like("/dev/gpiochip") {
        let advice = "switch on the kernel's GPIO character device (CONFIG_GPIO_CDEV) and the driver of the chip";
        add(
            findings,
            Level::Fault,
            "there is no /dev/gpiochip device",
            advice,
        );
    }
    group(scene, "gpio", "pins", findings);
    let note = &scene.board.gpio.note;
    if !note.is_empty() {
        add(
            findings,
            Level::Note,
            format!("pins of {}", scene.board.title),
            note.as_str(),
        );
    }
}

fn serial(scene: &Scene<'_>, findings: &mut Vec<Finding>) {
    if !scene.needs.serial {
        return;
    }
    group(scene, "dialout", "serial ports", findings);
    let ports = &scene.board.serial;
    let Some(port) = ports
        .iter()
        .find(|port| scene.facts.has_node(&port.path))
        .or(ports.first())
    else {
        return;
    };
    match scene.facts.has_node(&port.path) {
        true if port.note.is_empty() => {}
        true => add(
            findings,
            Level::Note,
            format!("serial port {}", port.path),
            port.note.as_str(),
        ),
        false => {
            let advice = format!(
                "switch the port on, or plug in an adapter{}",
                after_semicolon(&port.note)
            );
            add(
                findings,
                Level::Warning,
                format!("there is no {}", port.path),
                advice,
            );
        }
    }
}

fn governor(scene: &Scene<'_>, findings: &mut Vec<Finding>) {
    let slow = scene
        .health
        .governors
        .iter()
        .find(|governor| *governor == "powersave");
    if slow.is_some() {
        let advice = "run `echo ondemand | sudo tee /sys/devices/system/cpu/cpufreq/policy*/scaling_governor` (schedutil and performance are good too)";
        add(
            findings,
            Level::Warning,
            "the clock governor is powersave, the cores stay at their lowest clock",
            advice,
        );
    }
}

fn supply(scene: &Scene<'_>, findings: &mut Vec<Finding>) {
    let throttling = &scene.health.throttling;
    let advice =
        "use the supply made for this board and a short thick cable; unplug what draws much";
    if throttling.under_voltage {
        add(
            findings,
            Level::Fault,
            "the supply voltage is too low",
            advice,
        );
    }
    let counts = [
        (throttling.under_voltage_events, "under-voltage"),
        (throttling.over_current_events, "over-current"),
    ];
    for (count, kind) in counts
        .into_iter()
        .filter_map(|(count, kind)| Some((count?, kind)))
    {
        if count > 0 {
            add(
                findings,
                Level::Warning,
                format!("{count} events of {kind} since the start"),
                advice,
            );
        }
    }
}

fn heat(scene: &Scene<'_>, findings: &mut Vec<Finding>) {
    let throttling = &scene.health.throttling;
    if throttling.is_slowed() {
        let advice = "add a heat sink or a fan, or give the board air";
        add(
            findings,
            Level::Warning,
            "the board is slowed down to stay cool or within its supply",
            advice,
        );
    }
    let Some(temperature) = &scene.health.temperature else {
        return;
    };
    if temperature.celsius >= scene.board.thermal.hot_c {
        let what = format!(
            "{} is at {:.0} °C, the limit is {} °C",
            temperature.zone, temperature.celsius, scene.board.thermal.hot_c
        );
        add(
            findings,
            Level::Warning,
            what,
            "add a heat sink or a fan, or give the board air",
        );
    }
}

fn watchdog(scene: &Scene<'_>, findings: &mut Vec<Finding>) {
    let path = scene
        .board
        .watchdog
        .as_ref()
        .map_or("/dev/watchdog0", |device| device.path.as_str());
    if !scene.facts.has_node(path) && !scene.facts.has_node("/dev/watchdog") {
        let advice =
            "load the driver of the board's watchdog; on a Raspberry Pi dtparam=watchdog=on";
        add(
            findings,
            Level::Note,
            "there is no hardware watchdog, a hung kernel stays hung",
            advice,
        );
    }
}
