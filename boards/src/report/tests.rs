use std::time::{Duration, SystemTime};

use super::{Finding, Level, Needs, report};
use crate::board::Board;
use crate::facts::Facts;
use crate::fixture::Fixture;
use crate::health::Health;

/// A board on which nothing is wrong.
const GOOD: &[(&str, &str)] = &[
    (
        "proc/meminfo",
        "MemTotal: 4096000 kB\nMemAvailable: 3072000 kB\n",
    ),
    (
        "proc/self/status",
        "Uid:\t1000\t1000\nGid:\t1000\t1000\nGroups:\t20 44 986\n",
    ),
    ("etc/group", "dialout:x:20:\nvideo:x:44:\ngpio:x:986:\n"),
    ("bin/sh", "\u{7f}ELF\u{2}"),
    ("dev/gpiochip0", ""),
    ("dev/video0", ""),
    ("dev/ttyUSB0", ""),
    ("dev/watchdog0", ""),
    (
        "sys/devices/system/cpu/cpufreq/policy0/scaling_governor",
        "ondemand\n",
    ),
];
const ALL: Needs = Needs {
    model_bytes: 300 << 20,
    pins: true,
    serial: true,
    camera: true,
};

fn findings(board: &str, change: &[(&str, &str)], needs: Needs, now: u64) -> Vec<Finding> {
    let fixture = Fixture::new(GOOD);
    for (path, content) in change {
        match *content {
            "gone" => std::fs::remove_file(fixture.tree().path(path)).unwrap(),
            content => fixture.write(path, content),
        }
    }
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now);
    let board = Board::by_name(board).unwrap();
    let (facts, health) = (
        Facts::read(&fixture.tree(), now),
        Health::read(&fixture.tree(), &board),
    );
    report(&facts, &board, &health, needs)
}

const NOW: u64 = 1_800_000_000;

#[test]
fn each_fault_has_its_finding() {
    let volt = ("sys/class/hwmon/hwmon0/name", "rpi_volt\n");
    let alarm = ("sys/class/hwmon/hwmon0/in0_lcrit_alarm", "1\n");
    let hot = ("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n");
    type Files<'a> = &'a [(&'a str, &'a str)];
    let cases: &[(Files<'_>, Level, &str, &str)] = &[
        (
            &[("bin/sh", "\u{7f}ELF\u{1}")],
            Level::Warning,
            "32-bit",
            "64-bit image",
        ),
        (
            &[("proc/meminfo", "MemTotal: 400000 kB\nMemAvailable: 1 kB\n")],
            Level::Fault,
            "300 MB",
            "at most",
        ),
        (
            &[(
                "proc/meminfo",
                "MemTotal: 4096000 kB\nMemAvailable: 102400 kB\n",
            )],
            Level::Warning,
            "100 MB are free",
            "stop",
        ),
        (
            &[("dev/video0", "gone")],
            Level::Warning,
            "/dev/video",
            "v4l2-ctl",
        ),
        (
            &[("dev/gpiochip0", "gone")],
            Level::Fault,
            "/dev/gpiochip",
            "CONFIG_GPIO_CDEV",
        ),
        (
            &[("dev/ttyUSB0", "gone")],
            Level::Warning,
            "/dev/ttyAMA0",
            "uart0=on",
        ),
        (
            &[("proc/self/status", "Uid:\t1 1\nGroups:\t20 986\n")],
            Level::Fault,
            "group video",
            "usermod -aG video",
        ),
        (
            &[("proc/self/status", "Uid:\t1 1\nGroups:\t20 44\n")],
            Level::Fault,
            "group gpio",
            "usermod -aG gpio",
        ),
        (
            &[("proc/self/status", "Uid:\t1 1\nGroups:\t44 986\n")],
            Level::Fault,
            "group dialout",
            "usermod -aG dialout",
        ),
        (
            &[(
                "sys/devices/system/cpu/cpufreq/policy0/scaling_governor",
                "powersave",
            )],
            Level::Warning,
            "powersave",
            "ondemand",
        ),
        (&[volt, alarm], Level::Fault, "voltage", "supply"),
        (
            &[hot, ("sys/class/thermal/thermal_zone0/temp", "82000")],
            Level::Warning,
            "82 °C",
            "fan",
        ),
        (
            &[("dev/watchdog0", "gone")],
            Level::Note,
            "watchdog",
            "driver",
        ),
    ];
    for (change, level, what, advice) in cases {
        let found = findings("raspberry-pi-5", change, ALL, NOW);
        let fits = |finding: &&Finding| {
            finding.level == *level
                && finding.what.contains(what)
                && finding.advice.contains(advice)
        };
        assert!(
            found.iter().any(|finding| fits(&finding)),
            "{what}: {found:#?}"
        );
    }
}

#[test]
fn a_good_board_has_no_faults() {
    let serial = ("dev/ttyAMA0", "");
    let found = findings("raspberry-pi-5", &[serial], ALL, NOW);
    assert!(
        found.iter().all(|finding| finding.level == Level::Note),
        "{found:#?}"
    );
    assert!(findings("generic", &[], Needs::default(), NOW).is_empty());
}

#[test]
fn a_clock_of_the_past_is_found() {
    let found = findings("generic", &[], Needs::default(), 5);
    assert!(found[0].what.contains("never set"), "{found:?}");
    let waiting = findings(
        "generic",
        &[("run/systemd/timesync/x", "")],
        Needs::default(),
        NOW,
    );
    assert_eq!((waiting.len(), waiting[0].level), (1, Level::Note));
}

#[test]
fn root_needs_no_groups() {
    let root = ("proc/self/status", "Uid:\t0\t0\nGroups:\t0\n");
    let found = findings("raspberry-pi-5", &[root], ALL, NOW);
    assert!(
        !found.iter().any(|finding| finding.what.contains("group")),
        "{found:#?}"
    );
}

#[test]
fn the_mini_uart_is_warned_of() {
    let found = findings("raspberry-pi-4", &[("dev/ttyS0", "")], ALL, NOW);
    assert!(
        found
            .iter()
            .any(|finding| finding.advice.contains("disable-bt")),
        "{found:#?}"
    );
}

#[test]
fn counted_events_are_told() {
    let counts = [
        ("sys/class/hwmon/hwmon0/name", "soctherm_oc\n"),
        ("sys/class/hwmon/hwmon0/oc1_event_cnt", "0\n"),
        ("sys/class/hwmon/hwmon0/oc3_event_cnt", "37\n"),
    ];
    let found = findings("jetson-orin-nano", &counts, Needs::default(), NOW);
    let told: Vec<&str> = found.iter().map(|finding| finding.what.as_str()).collect();
    assert!(
        told.contains(&"37 events of over-current since the start"),
        "{told:?}"
    );
    assert!(
        !told.iter().any(|what| what.contains("under-voltage")),
        "{told:?}"
    );
}
