use std::time::Duration;

use embedded_hal::digital::{InputPin, OutputPin};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::*;
use crate::board::Board;
use crate::fixture::Fixture;

const SIREN: PinId = PinId(0);
const LAMP: PinId = PinId(1);
const PIR: PinId = PinId(2);
const DOOR: PinId = PinId(3);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn output(name: &str, pin: &str, active_low: bool, safe: bool) -> PinRequest {
    let usage = PinUse::Output { active_low, safe };
    PinRequest {
        name: name.into(),
        pin: pin.into(),
        usage,
        insist: false,
    }
}

fn input(name: &str, pin: &str, active_low: bool, debounce: Duration) -> PinRequest {
    let usage = PinUse::Input {
        active_low,
        bias: Bias::AsIs,
        edges: true,
        debounce,
    };
    PinRequest {
        name: name.into(),
        pin: pin.into(),
        usage,
        insist: false,
    }
}

fn pi() -> Board {
    Board::by_name("raspberry-pi-5").unwrap()
}

fn requests() -> Vec<PinRequest> {
    vec![
        output("siren", "GPIO17", true, false),
        output("lamp", "pin13", false, true),
        input("pir", "GPIO22", false, Duration::ZERO),
        input("door", "GPIO23", true, ms(20)),
    ]
}

fn fakes() -> (FakePins, FakeControl) {
    FakePins::new(plan(&pi(), &requests()).unwrap()).unwrap()
}

fn polled(pins: &mut FakePins, now: Duration) -> Vec<Edge> {
    let mut edges = Vec::new();
    pins.poll(now, &mut edges).unwrap();
    edges
}

#[test]
fn requests_become_lines() {
    let plans = plan(&pi(), &requests()).unwrap();
    let lines: Vec<(&str, u32)> = plans
        .iter()
        .map(|plan| (plan.pin.as_str(), plan.line))
        .collect();
    assert_eq!(
        lines,
        [
            ("GPIO17", 17),
            ("GPIO27", 27),
            ("GPIO22", 22),
            ("GPIO23", 23)
        ]
    );
    assert!(plans.iter().all(|plan| plan.chips == ["pinctrl-rp1"]));
}

#[test]
fn impossible_requests_are_refused_with_advice() {
    let twice = [
        output("a", "GPIO4", false, false),
        output("b", "pin7", false, false),
    ];
    let named = [
        output("a", "GPIO4", false, false),
        output("a", "GPIO5", false, false),
    ];
    let alias = [
        output("a", "GPIO4", false, false),
        output("b", "pinctrl-rp1/4", false, false),
    ];
    let cases: &[(&[PinRequest], &[&str])] = &[
        (
            &[output("siren", "GPIO71", false, false)],
            &[
                "\"siren\"",
                "raspberry-pi-5 has no pin \"GPIO71\"",
                "did you mean",
            ],
        ),
        (
            &[output("siren", "relay", false, false)],
            &["known: GPIO4 GPIO5"],
        ),
        (
            &[output("siren", "GPIO2", false, false)],
            &["GPIO2, line 2 of pinctrl-rp1", "I2C1 SDA", "insist"],
        ),
        (
            &[output("siren", "pinctrl-rp1/2", false, false)],
            &["I2C1 SDA"],
        ),
        (&twice, &["pin \"b\" (GPIO4", "\"a\" has this line"]),
        (&named, &["\"a\" has this name"]),
        (&alias, &["\"a\" has this line"]),
        (
            &[input("pir", "GPIO4", false, Duration::from_secs(11))],
            &["debounce", "11s", "10 s"],
        ),
        (&vec![output("x", "GPIO4", false, false); 65], &["65", "64"]),
    ];
    for (requests, words) in cases {
        let message = plan(&pi(), requests).unwrap_err().to_string();
        for word in *words {
            assert!(message.contains(word), "{message:?} lacks {word:?}");
        }
    }
}

#[test]
fn a_reserved_pin_is_given_to_those_who_insist() {
    let request = PinRequest {
        insist: true,
        ..output("siren", "GPIO2", false, false)
    };
    assert_eq!(plan(&pi(), &[request]).unwrap()[0].line, 2);
}

#[test]
fn any_line_of_any_chip_can_be_named() {
    let generic = Board::by_name("generic").unwrap();
    let plans = plan(&generic, &[output("siren", "my/chip/7", false, false)]).unwrap();
    assert_eq!(
        (plans[0].chips.as_slice(), plans[0].line),
        (["my/chip".to_owned()].as_slice(), 7)
    );
    for pin in ["/7", "chip/", "chip/x", "GPIO4"] {
        let message = plan(&generic, &[output("siren", pin, false, false)])
            .unwrap_err()
            .to_string();
        assert!(message.contains("LABEL/LINE"), "{message}");
    }
}

#[test]
fn the_kernel_sees_a_name_of_at_most_31_bytes() {
    let mut plans = plan(&pi(), &requests()).unwrap();
    assert_eq!(plans[0].consumer(), "ocelli:siren");
    plans[0].name = "ä".repeat(40);
    assert_eq!(plans[0].consumer().len(), 31);
}

#[test]
fn outputs_begin_and_end_in_their_safe_state() {
    let (mut pins, control) = fakes();
    let first: Vec<(PinId, bool, bool)> = control
        .changes()
        .iter()
        .map(|c| (c.pin, c.active, c.high))
        .collect();
    assert_eq!(first, [(SIREN, false, true), (LAMP, true, true)]);
    pins.set(SIREN, true, ms(5)).unwrap();
    pins.set(LAMP, false, ms(6)).unwrap();
    drop(pins);
    let changes = control.changes();
    let last: Vec<(PinId, bool, Duration)> = changes[4..]
        .iter()
        .map(|c| (c.pin, c.active, c.at))
        .collect();
    assert_eq!(last, [(SIREN, false, ms(6)), (LAMP, true, ms(6))]);
}

#[test]
fn active_low_is_inverted_once() {
    let (mut pins, control) = fakes();
    pins.set(SIREN, true, ms(1)).unwrap();
    pins.set(LAMP, true, ms(2)).unwrap();
    let high: Vec<bool> = control.changes()[2..]
        .iter()
        .map(|change| change.high)
        .collect();
    assert_eq!(high, [false, true]);
    assert!(pins.get(SIREN).unwrap() && control.is_active(SIREN));
}

#[test]
fn an_injected_edge_wakes_and_is_polled_once() {
    let (mut pins, control) = fakes();
    let readable = |pins: &FakePins| {
        let descriptors = pins.descriptors();
        poll(
            &mut [PollFd::new(descriptors[0], PollFlags::POLLIN)],
            PollTimeout::ZERO,
        )
        .unwrap()
            == 1
    };
    assert!(!readable(&pins));
    control.inject(PIR, true, ms(7)).unwrap();
    assert!(readable(&pins));
    assert!(pins.get(PIR).unwrap());
    assert_eq!(
        polled(&mut pins, ms(8)),
        [Edge {
            pin: PIR,
            active: true,
            at: ms(7)
        }]
    );
    assert!(!readable(&pins));
    assert_eq!(polled(&mut pins, ms(9)), []);
}

#[test]
fn a_bouncing_input_has_a_deadline() {
    let (mut pins, control) = fakes();
    for (active, at) in [(true, 0), (false, 3), (true, 4)] {
        control.inject(DOOR, active, ms(at)).unwrap();
    }
    assert_eq!(polled(&mut pins, ms(5)), []);
    assert_eq!(pins.deadline(), Some(ms(24)));
    assert_eq!(
        polled(&mut pins, ms(24)),
        [Edge {
            pin: DOOR,
            active: true,
            at: ms(4)
        }]
    );
    assert_eq!(pins.deadline(), None);
}

#[test]
fn edges_beyond_what_a_kernel_keeps_are_lost() {
    let (mut pins, control) = fakes();
    for n in 0..40 {
        control.inject(PIR, n % 2 == 0, ms(n)).unwrap();
    }
    assert_eq!(polled(&mut pins, ms(99)).len(), 16);
}

#[test]
fn pins_are_used_as_they_were_requested() {
    let (mut pins, control) = fakes();
    let error = pins.set(PIR, true, ms(0)).unwrap_err().to_string();
    assert!(
        error.contains("\"pir\"") && error.contains("not an output"),
        "{error}"
    );
    assert!(matches!(
        control.inject(SIREN, true, ms(0)),
        Err(PinError::WrongUse { .. })
    ));
    assert!(matches!(
        pins.get(PinId(9)),
        Err(PinError::NoSuchPin { id: 9, count: 4 })
    ));
    assert_eq!((pins.find("door"), pins.find("cat")), (Some(DOOR), None));
}

#[test]
fn one_broken_pin_does_not_keep_the_others_from_safety() {
    let (mut pins, control) = fakes();
    pins.set(SIREN, true, ms(1)).unwrap();
    pins.set(LAMP, false, ms(1)).unwrap();
    control.set_broken(SIREN, true);
    assert!(matches!(
        pins.make_safe(ms(2)),
        Err(PinError::Broken { .. })
    ));
    assert!(control.is_active(SIREN) && control.is_active(LAMP));
}

#[test]
fn a_broken_input_does_not_hide_the_edges_of_others() {
    let (mut pins, control) = fakes();
    control.set_broken(DOOR, true);
    control.inject(PIR, true, ms(1)).unwrap();
    let mut edges = Vec::new();
    assert!(pins.poll(ms(2), &mut edges).is_err());
    assert_eq!(edges.len(), 1);
}

#[test]
fn the_record_is_bounded() {
    let (mut pins, control) = fakes();
    for n in 0..5000 {
        pins.set(SIREN, n % 2 == 0, ms(n)).unwrap();
    }
    let changes = control.changes();
    assert_eq!((changes.len(), changes[4095].at), (4096, ms(4999)));
}

#[test]
fn drivers_of_embedded_hal_can_use_any_pin() {
    let (mut pins, control) = fakes();
    AsHal::new(&mut pins, SIREN, ms(3)).set_high().unwrap();
    assert!(control.is_active(SIREN));
    AsHal::new(&mut pins, SIREN, ms(4)).set_low().unwrap();
    assert!(!control.is_active(SIREN));
    control.inject(PIR, true, ms(5)).unwrap();
    assert!(AsHal::new(&mut pins, PIR, ms(6)).is_high().unwrap());
}

#[test]
fn a_machine_without_chips_says_what_was_looked_for() {
    let fixture = Fixture::new(&[("dev/gpiochip0", "not a chip")]);
    let plans = plan(&pi(), &requests()).unwrap();
    let message = GpioPins::open(&fixture.tree(), plans)
        .unwrap_err()
        .to_string();
    for word in [
        "\"siren\"",
        "line 17 of pinctrl-rp1",
        "there are: none",
        "gpiodetect",
    ] {
        assert!(message.contains(word), "{message:?} lacks {word:?}");
    }
}

#[test]
fn stamps_of_either_clock_become_monotonic() {
    let clock = EdgeClock {
        monotonic: ms(90_000),
        realtime: Duration::from_secs(1_800_000_000),
    };
    let real = |back: u64| (clock.realtime - ms(back)).as_nanos() as u64;
    for (stamp, time) in [
        (ms(89_990).as_nanos() as u64, ms(89_990)),
        (real(10), ms(89_990)),
        (real(0), ms(90_000)),
        (ms(90_005).as_nanos() as u64, ms(90_000)),
        (0, ms(0)),
    ] {
        assert_eq!(clock.monotonic_time(stamp), time, "{stamp}");
    }
}
