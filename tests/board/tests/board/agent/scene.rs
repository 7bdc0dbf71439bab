//! From an edge to everything that comes of it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use ocelli_board::{Board, Picture};
use ocelli_board_tests::agent;
use ocelli_board_tests::bench::Bench;
use ocelli_board_tests::broker::Broker;
use ocelli_board_tests::program::Program;
use ocelli_board_tests::suite::Test;
use ocelli_board_tests::tests;
use serde_json::Value;

use super::{EVENTS, LIMIT, PIR, guest, lamp_edge, running};
use crate::watch;

pub(crate) const TESTS: &[Test] = tests![&[Program::Ocelli, Program::Host];
    an_edge_becomes_a_picture_an_answer_a_light_an_event_a_packet_and_a_record_that_replays,
];

const RULES: &str = r#"
format = 1

[pins.pir]
line = "P1"
direction = "in"

[pins.lamp]
line = "P2"
direction = "out"
safe = "off"
reversible = true
max_on = "5 min"
min_off = "1 ms"
evidence = "1 min"

[topics.seen]
path = "porch/seen"
direction = "out"

[packets.seen]
number = 1
direction = "out"
level = "notify"

[[rules]]
id = "dog"
when = { pin = "pir", edge = "rising" }
ask = { question = "Is there a dog?", choices = ["yes", "no"], expect = "yes", threshold = 0.5, deadline = "50 s" }
then = [
  { set = "lamp", value = "on", for = "1 min" },
  { event = "dog" },
  { publish = "seen", payload = "{answer}" },
  { packet = "seen", body = "{answer}" },
  { snapshot = true },
]

[[permissions]]
effect = "allow"
action = "set"
target = "lamp"
"#;

const CAMERA: &str = "[camera]\nsource = \"v4l2:/dev/video0?pixel=YUYV\"\nsize = [640, 480]\n[privacy]\nkeep_evidence = true\n";

fn an_edge_becomes_a_picture_an_answer_a_light_an_event_a_packet_and_a_record_that_replays(
    bench: &Bench,
) {
    let guest = guest(bench);
    let broker = Broker::start();
    let picture = watch::scaled("dog-person.jpg");
    let picture = Picture::from_rgb(watch::SIZE.0, watch::SIZE.1, &picture, *b"YUYV").unwrap();
    let _showing = guest.camera().show(&picture).unwrap();
    let (agent, mut peer) = running(&guest, &broker, &[CAMERA], RULES);
    let begin = Instant::now();
    guest.pins().set(PIR, true).unwrap();
    let (at, body) = peer.await_packet(1);
    assert_eq!(body, "yes");
    let packet_after = at - begin;
    let edge = lamp_edge(&guest);
    assert!(edge.high);
    let event = broker.await_message("event", 0, |message| message.topic == EVENTS);
    let told = event.json();
    assert_eq!(told["type"], "new", "{told}");
    assert_eq!(told["after"]["rule"], "dog", "{told}");
    assert_eq!(told["after"]["answer"], "yes", "{told}");
    let seen = broker.await_message("publication", 0, |message| message.topic == "porch/seen");
    assert_eq!(seen.payload, b"yes");
    // The first question also weighs its answers on an empty picture; later ones do not.
    guest.pins().set(PIR, false).unwrap();
    let fell = "[ $(/board/in/ocelli journal export /data/state/journal | grep -c '\"Pin\".*\"level\":false,\"initial\":false') -ge 1 ]";
    guest.await_true(fell, LIMIT).unwrap();
    let again = Instant::now();
    guest.pins().set(PIR, true).unwrap();
    let (at, body) = peer.await_packet(1);
    assert_eq!(body, "yes");
    let packet_again_after = at - again;
    agent.stop();
    assert!(!lamp_edge(&guest).high, "safe after a stop");

    agent::verify_journal(&guest);
    let records = agent::journal(&guest);
    let (answered, _) = find(&records, "Answered");
    assert_eq!(answered["text"], "yes", "{answered}");
    let (kept, _) = find(&records, "Kept");
    let name = kept["name"].as_str().unwrap();
    let jpeg = guest
        .fetch(&format!("{}/snapshots/{name}", agent::STATE))
        .unwrap();
    assert_eq!(image::load_from_memory(&jpeg).unwrap().width(), 640);
    assert_eq!(records.last().unwrap()["body"], "Ended");
    let times = answered["time_ms"].as_array().unwrap();
    println!(
        "emulated, says nothing about a board: edge to lamp {:.0} ms, to event {:.0} ms, to packet {:.0} ms; \
         of that encoder {:.0} ms, prefill {:.0} ms, choices {:.0} ms; \
         edge to packet the second time {:.0} ms",
        (edge.at - begin).as_secs_f64() * 1e3,
        (event.at - begin).as_secs_f64() * 1e3,
        packet_after.as_secs_f64() * 1e3,
        times[0].as_f64().unwrap(),
        times[1].as_f64().unwrap(),
        times[2].as_f64().unwrap(),
        packet_again_after.as_secs_f64() * 1e3,
    );
    replay(&guest);
}

/// The first entry of a kind and its place.
fn find<'a>(records: &'a [Value], kind: &str) -> (&'a Value, usize) {
    let found = records
        .iter()
        .enumerate()
        .find_map(|(at, record)| Some((record["body"].get(kind)?, at)));
    found.unwrap_or_else(|| panic!("no {kind} in {records:?}"))
}

/// Does the guest's journal again on this machine.
fn replay(guest: &Board) {
    let folder = tempfile::tempdir().unwrap();
    let journal = format!("{}/journal", agent::STATE);
    let names = guest.sh(&format!("ls {journal}")).unwrap();
    for name in names.lines() {
        let bytes = guest.fetch(&format!("{journal}/{name}")).unwrap();
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    let told = replayed(folder.path());
    assert_eq!(told.0, Some(0), "{}", told.1);
}

fn replayed(folder: &Path) -> (Option<i32>, String) {
    let program = Program::Host.file().expect("it was built");
    let output = Command::new(program)
        .arg("replay")
        .arg(folder)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}
