//! Two endpoints over a line that loses, damages, repeats, splits and delays bytes.

mod simulation;

use ocelli_wire::Timing;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use simulation::{Faults, Restart, Simulation, silence_ms};

/// Faults in thousandths; a third of the runs have none of a kind.
fn faults() -> impl Strategy<Value = Faults> {
    let rate = |most: u32| prop_oneof![1 => Just(0_u32), 2 => 0..most];
    (
        rate(250),
        rate(250),
        rate(250),
        rate(700),
        rate(150),
        rate(100),
    )
        .prop_map(|(lost, damaged, repeated, split, noise, cut)| Faults {
            lost,
            damaged,
            repeated,
            split,
            noise,
            cut,
        })
}

fn speeds() -> impl Strategy<Value = u32> {
    prop_oneof![Just(9600), Just(115_200), Just(921_600)]
}

fn config() -> ProptestConfig {
    ProptestConfig {
        // A damaged frame passes the checksum once in some ten thousand; the seed keeps that from
        // failing a run that changed nothing.
        rng_seed: RngSeed::Fixed(4),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_record_arrives_once_and_in_order(seed: u64, faults in faults(), baud in speeds()) {
        let mut run = Simulation::new(seed, Timing::for_baud(baud), faults);
        run.advance(20_000);
        run.heal();
        run.settle();
        prop_assert!(run.both_up());
        for end in &run.ends {
            prop_assert_eq!(&end.records_received, &run.other(end).records_accepted);
        }
    }

    #[test]
    fn a_command_arrives_once_or_its_sender_is_told(
        seed: u64, faults in faults(), baud in speeds(),
    ) {
        let timing = Timing::for_baud(baud);
        let mut run = Simulation::new(seed, timing, faults);
        run.advance(20_000);
        run.heal();
        run.settle();
        for end in &run.ends {
            let received: Vec<u16> = end.commands_received.iter().map(|c| c.number).collect();
            prop_assert!(received.is_sorted_by(|a, b| a < b), "{:?}", received);
            let sender = run.other(end);
            prop_assert_eq!(sender.open_tickets(), 0);
            for number in &sender.commands_delivered {
                prop_assert!(received.contains(number), "{} said delivered", number);
            }
        }
    }

    #[test]
    fn no_command_arrives_late(seed: u64, faults in faults(), baud in speeds()) {
        let timing = Timing::for_baud(baud);
        let mut run = Simulation::new(seed, timing, faults);
        run.advance(20_000);
        let latest = u64::from(timing.command_ms) + simulation::MAX_DELAY_MS;
        for command in run.ends.iter().flat_map(|end| &end.commands_received) {
            prop_assert!(command.age_ms <= latest, "{:?}", command);
        }
    }

    #[test]
    fn a_restart_loses_no_record_and_repeats_none_in_one_run(
        seed: u64,
        faults in faults(),
        restarts in prop::collection::vec((1_000_u64..6_000, any::<bool>(), any::<bool>()), 1..5),
    ) {
        let mut run = Simulation::new(seed, Timing::for_baud(115_200), faults);
        for (after_ms, agent, without_number) in restarts {
            run.advance(after_ms);
            run.restart(Restart { agent, without_number: without_number && !agent });
        }
        run.heal();
        run.settle();
        for end in &run.ends {
            for received in &end.records_by_run {
                prop_assert!(received.is_sorted_by(|a, b| a < b), "{:?}", received);
            }
            for record in run.other(end).records_of_last_run() {
                prop_assert!(end.records_received.contains(record), "{} is missing", record);
            }
        }
    }

    #[test]
    fn silence_brings_both_ends_down(seed: u64, faults in faults(), baud in speeds()) {
        let timing = Timing::for_baud(baud);
        let mut run = Simulation::new(seed, timing, faults);
        run.advance(5_000);
        run.cut_for_good();
        run.advance(silence_ms(timing));
        prop_assert!(!run.ends[0].endpoint.is_up());
        prop_assert!(!run.ends[1].endpoint.is_up());
    }
}

#[test]
fn the_simulated_line_does_all_that_it_is_for() {
    let faults = Faults {
        lost: 100,
        damaged: 100,
        repeated: 100,
        split: 500,
        noise: 50,
        cut: 40,
    };
    let mut run = Simulation::new(1, Timing::for_baud(115_200), faults);
    run.advance(60_000);
    for end in &run.ends {
        let counters = end.endpoint.counters();
        assert!(counters.damaged > 20, "{counters:?}");
        assert!(counters.duplicates > 5, "{counters:?}");
        assert!(counters.retries > 20, "{counters:?}");
        assert!(counters.downs > 2, "{counters:?}");
        assert!(end.records_received.len() > 50);
        assert!(end.commands_received.len() > 10);
    }
}

#[test]
fn a_line_cut_one_way_brings_both_ends_down() {
    let mut run = Simulation::new(3, Timing::for_baud(115_200), Faults::default());
    run.advance(2_000);
    assert!(run.both_up());
    run.cut_towards_peer();
    run.advance(silence_ms(Timing::for_baud(115_200)) + 1_000);
    assert_eq!(run.ends[1].downs.len(), 1, "{:?}", run.ends[1].downs);
    assert!(!run.ends[1].endpoint.is_up());
    assert!(!run.ends[0].endpoint.is_up());
}

#[test]
fn a_quiet_line_carries_records_fast() {
    let mut run = Simulation::new(5, Timing::for_baud(115_200), Faults::default());
    run.advance(30_000);
    run.settle();
    for end in &run.ends {
        assert_eq!(end.endpoint.counters().retries, 0);
        assert_eq!(end.downs, []);
        assert_eq!(end.records_received, run.other(end).records_accepted);
    }
}
