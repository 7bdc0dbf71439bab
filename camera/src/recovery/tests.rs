use super::*;
use proptest::prelude::*;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn recovery() -> Recovery {
    let policy = Policy {
        hiccups: 2,
        restarts: 1,
        stuck_after: ms(5_000),
        first_wait: ms(100),
        longest_wait: ms(1_000),
        steady_after: ms(10_000),
        gone_after: ms(60_000),
    };
    let mut recovery = Recovery::new(policy, ms(0));
    recovery.frame(ms(0));
    recovery
}

fn tries(state: &State) -> Option<u32> {
    match state {
        State::Recovering { tries, .. } => Some(*tries),
        _ => None,
    }
}

#[test]
fn a_fault_leads_to_the_least_that_may_help() {
    let cases: [(&str, &[Fault], Step); 8] = [
        ("one late frame", &[Fault::Late], Step::Read),
        ("a hiccup", &[Fault::Hiccup], Step::Read),
        ("hiccups up to the limit", &[Fault::Hiccup; 2], Step::Read),
        ("one hiccup more", &[Fault::Hiccup; 3], Step::Restart),
        ("a broken stream", &[Fault::Stream], Step::Restart),
        (
            "broken again after the restart",
            &[Fault::Stream; 2],
            Step::Reopen,
        ),
        ("unplugged", &[Fault::Device], Step::Reopen),
        ("the end", &[Fault::End], Step::Stop),
    ];
    for (name, faults, expected) in cases {
        let mut recovery = recovery();
        for fault in faults {
            recovery.fault(*fault, "x", ms(10));
        }
        assert_eq!(recovery.step(ms(10)), expected, "{name}");
    }
}

#[test]
fn a_stream_without_frames_for_long_is_restarted_then_opened_again() {
    let mut recovery = recovery();
    recovery.fault(Fault::Late, "no frame", ms(4_999));
    assert_eq!(recovery.state(ms(4_999)), State::Streaming);
    recovery.fault(Fault::Late, "no frame", ms(5_000));
    assert_eq!(recovery.step(ms(5_000)), Step::Restart);
    recovery.mended(ms(5_001));
    recovery.fault(Fault::Late, "no frame", ms(10_000));
    assert_eq!(recovery.step(ms(10_000)), Step::Read);
    recovery.fault(Fault::Late, "no frame", ms(10_001));
    assert_eq!(recovery.step(ms(10_001)), Step::Reopen);
    assert_eq!(tries(&recovery.state(ms(10_001))), Some(2));
}

#[test]
fn attempts_to_open_are_spaced_ever_wider_up_to_a_limit() {
    let mut recovery = recovery();
    let mut now = ms(0);
    let mut waits = Vec::new();
    for _ in 0..8 {
        recovery.fault(Fault::Device, "unplugged", now);
        let until = match recovery.next {
            Step::Wait(until) => until,
            step => panic!("{step:?}"),
        };
        waits.push((until - now).as_millis());
        now = until;
    }
    assert_eq!(waits, [0, 100, 200, 400, 800, 1_000, 1_000, 1_000]);
}

#[test]
fn the_wait_ends_at_its_time_or_when_a_device_turns_up() {
    let mut recovery = recovery();
    recovery.fault(Fault::Device, "unplugged", ms(0));
    recovery.fault(Fault::Device, "unplugged", ms(0));
    assert_eq!(recovery.step(ms(99)), Step::Wait(ms(100)));
    assert_eq!(recovery.step(ms(100)), Step::Reopen);
    recovery.wake(ms(50));
    assert_eq!(recovery.step(ms(50)), Step::Reopen);
}

#[test]
fn a_frame_ends_the_trouble_and_only_steady_frames_end_the_caution() {
    let mut recovery = recovery();
    recovery.fault(Fault::Device, "unplugged", ms(0));
    recovery.mended(ms(10));
    assert!(matches!(recovery.state(ms(10)), State::Recovering { .. }));
    recovery.frame(ms(20));
    assert_eq!(recovery.state(ms(20)), State::Streaming);
    recovery.fault(Fault::Device, "loose plug", ms(30));
    assert_eq!(
        recovery.step(ms(30)),
        Step::Wait(ms(130)),
        "it failed at once: with a wait"
    );
    recovery.mended(ms(130));
    recovery.frame(ms(200));
    recovery.frame(ms(10_200));
    recovery.fault(Fault::Device, "unplugged", ms(10_300));
    assert_eq!(
        recovery.step(ms(10_300)),
        Step::Reopen,
        "it ran well for long: at once"
    );
}

#[test]
fn a_device_away_for_long_is_gone_and_still_looked_for() {
    let mut recovery = recovery();
    recovery.fault(Fault::Device, "unplugged", ms(0));
    let reason = "unplugged".to_owned();
    assert_eq!(tries(&recovery.state(ms(59_999))), Some(1));
    assert_eq!(
        recovery.state(ms(60_000)),
        State::Gone {
            reason,
            since: ms(0)
        }
    );
    assert_eq!(recovery.step(ms(60_000)), Step::Reopen);
    recovery.mended(ms(60_010));
    recovery.frame(ms(60_020));
    assert_eq!(recovery.state(ms(60_020)), State::Streaming);
}

#[test]
fn a_stream_that_keeps_breaking_is_recovering_and_not_gone() {
    let mut recovery = recovery();
    for second in 0..120 {
        recovery.fault(Fault::Stream, "EIO", ms(second * 1_000));
        recovery.mended(ms(second * 1_000 + 1));
    }
    assert!(matches!(
        recovery.state(ms(120_000)),
        State::Recovering { .. }
    ));
}

#[test]
fn what_has_ended_stays_ended() {
    let mut recovery = recovery();
    recovery.fault(Fault::End, "the end", ms(5));
    recovery.wake(ms(6));
    assert_eq!(recovery.step(ms(1 << 40)), Step::Stop);
    assert!(matches!(recovery.state(ms(6)), State::Gone { .. }));
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Frame,
    Mended,
    Wake,
    Fault(Fault),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::Frame),
        Just(Event::Mended),
        Just(Event::Wake),
        prop_oneof![
            Just(Fault::Late),
            Just(Fault::Hiccup),
            Just(Fault::Stream),
            Just(Fault::Device),
            Just(Fault::Request),
        ]
        .prop_map(Event::Fault),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_a_next_attempt_is_never_further_than_the_longest_wait(
        events in proptest::collection::vec((event(), 0u64..100_000), 0..200),
    ) {
        let mut recovery = recovery();
        let mut now = Duration::ZERO;
        for (event, passed) in events {
            now += ms(passed);
            match event {
                Event::Frame => recovery.frame(now),
                Event::Mended => recovery.mended(now),
                Event::Wake => recovery.wake(now),
                Event::Fault(fault) => recovery.fault(fault, "x", now),
            }
            match recovery.step(now) {
                Step::Wait(until) => prop_assert!(until - now <= ms(1_000)),
                Step::Stop => prop_assert!(false, "nothing ended"),
                Step::Read | Step::Restart | Step::Reopen => {}
            }
            if matches!(event, Event::Frame) {
                prop_assert_eq!(recovery.state(now), State::Streaming);
                prop_assert_eq!(recovery.step(now), Step::Read);
            }
        }
    }
}
