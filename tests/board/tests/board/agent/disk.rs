//! The disk is full, loses power, or hangs.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ocelli_board::{Board, Disk};
use ocelli_board_tests::agent;
use ocelli_board_tests::bench::Bench;
use ocelli_board_tests::broker::Broker;
use ocelli_board_tests::program::Program;
use ocelli_board_tests::suite::{Test, is_long};
use ocelli_board_tests::tests;
use ocelli_wire::Message;

use super::{
    LAMP_RULE, LIMIT, PIR, QUIET, RULES, await_events, edges, guest, guest_on, lamp_edge,
    n_sighted, press, release, running, started,
};

pub(crate) const TESTS: &[Test] = tests![&[Program::Ocelli];
    a_full_disk_refuses_pictures_and_nothing_else,
    a_power_cut_loses_no_acknowledged_event,
    a_disk_that_hangs_leaves_no_pin_on,
];

fn a_full_disk_refuses_pictures_and_nothing_else(bench: &Bench) {
    const SHOT: &str = r#"
[[rules]]
id = "shot"
when = { pin = "button", edge = "rising" }
then = [{ snapshot = true }, { packet = "seen", body = "shot" }]
"#;
    let guest = guest(bench);
    let broker = Broker::start();
    let rules = RULES.to_owned() + SHOT;
    let (agent, mut peer) = running(&guest, &broker, &[agent::CAMERA], &rules);
    agent.await_line("streaming");
    let mut level = false;
    edges(&guest, &mut peer, &mut level, 1);
    press(&guest);
    assert_eq!(peer.await_packet(1).1, "shot");
    agent::await_pictures(&guest, 1);
    release(&guest);
    let fill = "dd if=/dev/zero of=/data/ballast bs=64k 2>/dev/null; dd if=/dev/zero of=/data/rest bs=1k 2>/dev/null; sync";
    guest.run(fill, LIMIT).unwrap();
    peer.await_message(
        "word of the full disk",
        |message| matches!(message, Message::State(state) if state.fault.contains("DiskFull")),
    );
    press(&guest);
    assert_eq!(peer.await_packet(1).1, "shot");
    edges(&guest, &mut peer, &mut level, 5);
    await_events(&broker, 6);
    assert_eq!(agent::n_pictures(&guest), 1);
    guest.sh("rm /data/ballast /data/rest; sync").unwrap();
    peer.await_message(
        "word of room",
        |message| matches!(message, Message::State(state) if state.fault.is_empty()),
    );
    edges(&guest, &mut peer, &mut level, 1);
    await_events(&broker, 7);
    agent.stop();
    agent::verify_journal(&guest);
    assert_eq!(n_journalled(&guest), 7, "what waited in memory was written");
}

fn a_power_cut_loses_no_acknowledged_event(bench: &Bench) {
    let n_cuts = if is_long() { 30 } else { 3 };
    let broker = Broker::start();
    let mut data = Arc::new(Disk::for_data().unwrap());
    let mut acknowledged = 0;
    for cut in 0..n_cuts {
        let guest = guest_on(bench, data);
        let (agent, mut peer) = if cut == 0 {
            running(&guest, &broker, &[], &(RULES.to_owned() + LAMP_RULE))
        } else {
            is_sound_after_a_cut(&guest, acknowledged);
            started(&guest, &broker)
        };
        press(&guest);
        assert!(lamp_edge(&guest).high);
        let mut level = false;
        let n = 2 + cut * 7 % 5;
        edges(&guest, &mut peer, &mut level, n);
        acknowledged += n;
        // Cut somewhere in what follows an edge, elsewhere each time.
        guest.pins().set(PIR, !level).unwrap();
        thread::sleep(Duration::from_millis(cut as u64 * 37 % 101));
        agent.abandon();
        data = guest.cut_power();
    }
    let guest = guest_on(bench, data);
    is_sound_after_a_cut(&guest, acknowledged);
    let (agent, mut peer) = started(&guest, &broker);
    edges(&guest, &mut peer, &mut false, 1);
    broker.await_all("every acknowledged event", |published| {
        n_sighted(published) > acknowledged
    });
    agent.stop();
    agent::verify_journal(&guest);
}

/// The journal is whole and has what was acknowledged, and the lamp is off and stays so.
fn is_sound_after_a_cut(guest: &Board, acknowledged: usize) {
    agent::verify_journal(guest);
    let n = n_journalled(guest);
    assert!(n >= acknowledged, "{n} of {acknowledged} events");
    guest.sh(&agent::command("--make-safe")).unwrap();
    let edge = guest.pins().next_edge(QUIET);
    assert!(edge.is_none(), "the lamp changed after the cut: {edge:?}");
}

fn a_disk_that_hangs_leaves_no_pin_on(bench: &Bench) {
    let guest = guest(bench);
    let broker = Broker::start();
    let rules = RULES.to_owned() + LAMP_RULE;
    let (agent, mut peer) = running(&guest, &broker, &[], &rules);
    press(&guest);
    let on = lamp_edge(&guest);
    assert!(on.high);
    edges(&guest, &mut peer, &mut false, 1);
    guest.sh("/bin/busybox fsfreeze --freeze /data").unwrap();
    guest.pins().set(PIR, false).unwrap();
    let off = lamp_edge(&guest);
    assert!(!off.high);
    guest.sh("/bin/busybox fsfreeze --unfreeze /data").unwrap();
    agent.await_line("the loop stood still");
    // It goes on where it was.
    await_events(&broker, 2);
    agent.stop();
    agent::verify_journal(&guest);
}

/// Events of the sensor in the journal.
fn n_journalled(guest: &Board) -> usize {
    let is_sighting = |output: &&serde_json::Value| {
        let phase = &output["Event"]["phase"];
        phase == "New" || phase == "Update"
    };
    let records = agent::journal(guest);
    let outputs = records
        .iter()
        .filter_map(|record| record["body"]["Step"]["outputs"]["list"].as_array())
        .flatten();
    outputs.filter(is_sighting).count()
}
