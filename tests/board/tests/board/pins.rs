//! Pins in both directions, and the watchdog.

use std::time::Duration;

use ocelli_board::{Options, WatchdogAction};
use ocelli_board_tests::bench::Bench;
use ocelli_board_tests::suite::Test;
use ocelli_board_tests::tests;

const LIMIT: Duration = Duration::from_secs(20);

pub(crate) const TESTS: &[Test] = tests![&[];
    the_guest_sees_edges_of_an_input_pin,
    the_host_sees_edges_of_an_output_pin,
    a_watchdog_nobody_feeds_is_reported,
    a_watchdog_nobody_feeds_can_switch_the_board_off,
];

fn the_guest_sees_edges_of_an_input_pin(bench: &Bench) {
    let guest = bench.guest();
    let monitor = guest
        .spawn("gpiomon --line-buffered --num-events=4 --format='%e' gpiochip0 1")
        .unwrap();
    guest
        .await_true("grep -q gpiomon /proc/interrupts", LIMIT)
        .unwrap();
    for (level, event) in [(true, "1"), (false, "0"), (true, "1"), (false, "0")] {
        guest.pins().set(1, level).unwrap();
        assert_eq!(monitor.line(LIMIT).unwrap().as_deref(), Some(event));
    }
    guest.pins().set(1, true).unwrap();
    assert_eq!(guest.sh("gpioget gpiochip0 1").unwrap(), "1\n");
}

fn the_host_sees_edges_of_an_output_pin(bench: &Bench) {
    let guest = bench.guest();
    let mut last = None;
    for high in [true, false, true] {
        guest
            .sh(&format!("gpioset gpiochip0 2={}", u8::from(high)))
            .unwrap();
        let edge = guest.pins().next_edge(LIMIT).expect("an edge");
        assert_eq!((edge.pin, edge.high), (2, high));
        assert!(last.is_none_or(|last| edge.at > last));
        last = Some(edge.at);
    }
    assert!(guest.pins().next_edge(Duration::from_millis(100)).is_none());
}

fn a_watchdog_nobody_feeds_is_reported(bench: &Bench) {
    let guest = bench.guest();
    assert!(
        guest
            .event("WATCHDOG", Duration::from_millis(100))
            .is_none()
    );
    starve(&guest);
    let event = guest.event("WATCHDOG", LIMIT).expect("an event");
    assert_eq!(event.data["action"], "none");
    assert_eq!(guest.sh("echo alive").unwrap(), "alive\n");
}

fn a_watchdog_nobody_feeds_can_switch_the_board_off(bench: &Bench) {
    let options = Options {
        watchdog: WatchdogAction::PowerOff,
        ..bench.options()
    };
    let guest = bench.booted(&options);
    starve(&guest);
    assert!(guest.event("WATCHDOG", LIMIT).is_some());
    assert!(guest.await_end(LIMIT));
}

/// Arms the watchdog with 2 s and feeds it no more; the hold on it lasts.
fn starve(guest: &ocelli_board::Board) {
    let module = "/lib/modules/$(uname -r)/i6300esb.ko";
    guest.sh(&format!("insmod {module} heartbeat=2")).unwrap();
    guest.sh("(exec sleep 1000 >/dev/watchdog) & true").unwrap();
}
