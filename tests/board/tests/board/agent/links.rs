//! Broker, cable, serial line and camera go away and come back.

use std::thread;
use std::time::Duration;

use ocelli_board_tests::agent;
use ocelli_board_tests::bench::Bench;
use ocelli_board_tests::broker::Broker;
use ocelli_board_tests::peer::Peer;
use ocelli_board_tests::program::Program;
use ocelli_board_tests::suite::{Test, is_long};
use ocelli_board_tests::tests;

use super::{LIMIT, RULES, await_events, edges, guest, incarnation, press, running};

pub(crate) const TESTS: &[Test] = tests![&[Program::Ocelli];
    a_broker_that_is_killed_gets_every_event_once_and_in_order,
    a_pulled_cable_delays_events_and_loses_none,
    a_serial_line_and_a_camera_that_are_pulled_out_come_back_while_the_rest_goes_on,
];

fn a_broker_that_is_killed_gets_every_event_once_and_in_order(bench: &Bench) {
    let guest = guest(bench);
    let broker = Broker::start();
    let (_agent, mut peer) = running(&guest, &broker, &[], RULES);
    let mut level = false;
    edges(&guest, &mut peer, &mut level, 3);
    await_events(&broker, 3);
    broker.kill();
    edges(&guest, &mut peer, &mut level, 5);
    broker.restart();
    await_events(&broker, 8);
    // Killed with events under way.
    guest.pins().set(super::PIR, !level).unwrap();
    level = !level;
    broker.kill();
    peer.await_packet(1);
    edges(&guest, &mut peer, &mut level, 2);
    broker.restart();
    await_events(&broker, 11);
}

fn a_pulled_cable_delays_events_and_loses_none(bench: &Bench) {
    let (away, n) = if is_long() {
        (Duration::from_secs(120), 100)
    } else {
        (Duration::from_secs(15), 10)
    };
    let guest = guest(bench);
    let broker = Broker::start();
    let (_agent, mut peer) = running(&guest, &broker, &[], RULES);
    let mut level = false;
    edges(&guest, &mut peer, &mut level, 2);
    await_events(&broker, 2);
    guest.network().pull_cable().unwrap();
    edges(&guest, &mut peer, &mut level, n);
    // How long a cable is out is what is tested.
    thread::sleep(away);
    edges(&guest, &mut peer, &mut level, 1);
    guest.network().plug_cable().unwrap();
    await_events(&broker, 3 + n);
}

fn a_serial_line_and_a_camera_that_are_pulled_out_come_back_while_the_rest_goes_on(bench: &Bench) {
    const SHOT: &str = r#"
[topics.shot]
path = "porch/shot"
direction = "out"

[[rules]]
id = "shot"
when = { pin = "button", edge = "rising" }
then = [{ publish = "shot", payload = "{rule}" }, { snapshot = true }]
"#;
    let guest = guest(bench);
    let broker = Broker::start();
    let settings = broker.settings();
    let serial = "[serial]\ndevice = \"/dev/ttyUSB0\"\n";
    let camera = agent::CAMERA;
    agent::configure(
        &guest,
        &[&settings, serial, camera],
        &(RULES.to_owned() + SHOT),
    );
    let adapter = guest.plug_usb_serial().unwrap();
    let agent = agent::Agent::start(&guest);
    agent.await_line("camera: streaming");
    let mut peer = Peer::new(adapter.line(), incarnation());
    peer.await_up();
    let mut level = false;
    edges(&guest, &mut peer, &mut level, 2);
    await_events(&broker, 2);

    drop(peer);
    adapter.unplug().unwrap();
    agent.await_line("is gone");
    guest.pins().set(super::PIR, !level).unwrap();
    level = !level;
    await_events(&broker, 3);
    guest.await_true("[ ! -e /dev/ttyUSB0 ]", LIMIT).unwrap();
    let adapter = guest.plug_usb_serial().unwrap();
    let mut peer = Peer::new(adapter.line(), incarnation());
    peer.await_up();
    // What was to be said while the line was away.
    peer.await_packet(1);
    edges(&guest, &mut peer, &mut level, 1);
    await_events(&broker, 4);

    guest.camera().unplug().unwrap();
    agent.await_line("camera: recovering");
    edges(&guest, &mut peer, &mut level, 2);
    await_events(&broker, 6);
    guest.camera().replug().unwrap();
    agent.await_line("camera: streaming");
    press(&guest);
    broker.await_message("word of a picture", 0, |message| {
        message.topic == "porch/shot"
    });
    agent::await_pictures(&guest, 1);
    agent.stop();
    agent::verify_journal(&guest);
}
