//! `ocelli run` on the board, between camera, pins, broker, microcontroller and disk: what it does,
//! and what becomes of it when one of them fails.
//!
//! | file | tests |
//! |---|---|
//! | `scene` | from an edge to lamp, event, packet and record |
//! | `links` | broker, cable, serial line and camera go and come back |
//! | `disk` | full, cut off, frozen |
//! | `control` | reload, stop, kill, watchdog, approvals |

#[path = "agent/control.rs"]
mod control;
#[path = "agent/disk.rs"]
mod disk;
#[path = "agent/links.rs"]
mod links;
#[path = "agent/scene.rs"]
mod scene;

use std::sync::Arc;
use std::time::Duration;

use ocelli_board::{Board, Disk, Edge, Options};
use ocelli_board_tests::agent::{self, Agent};
use ocelli_board_tests::bench::{Bench, Guest};
use ocelli_board_tests::broker::{Broker, Published};
use ocelli_board_tests::peer::Peer;
use ocelli_board_tests::suite::Test;

pub(crate) use control::TESTS as CONTROL;
pub(crate) use disk::TESTS as DISK;
pub(crate) use links::TESTS as LINKS;
pub(crate) use scene::TESTS as SCENE;

const LIMIT: Duration = Duration::from_secs(60);
/// How long nothing must happen to count as nothing.
const QUIET: Duration = Duration::from_millis(300);
/// Pins of `gpiochip0` as [`RULES`] names them.
const PIR: u8 = 1;
const LAMP: u8 = 2;
const BUTTON: u8 = 4;
/// Where the agent publishes events.
const EVENTS: &str = "ocelli/porch/events";

/// Every edge of the sensor is an event and a packet. The packet goes out after the event was
/// written down, so whoever has it knows that the event is safe.
const RULES: &str = r#"
format = 1

[pins.pir]
line = "P1"
direction = "in"

[pins.button]
line = "P4"
direction = "in"

[pins.lamp]
line = "P2"
direction = "out"
safe = "off"
reversible = true
max_on = "5 min"
min_off = "1 ms"

[packets.seen]
number = 1
direction = "out"
level = "notify"

[[rules]]
id = "edge"
when = { pin = "pir", edge = "both" }
then = [{ event = "edge", hold = "1 h" }, { packet = "seen", body = "{event}" }]
"#;

/// Lamp on at a press of the button.
const LAMP_RULE: &str = r#"
[[rules]]
id = "lamp"
when = { pin = "button", edge = "rising" }
then = [{ set = "lamp", value = "on", for = "5 min" }]

[[permissions]]
effect = "allow"
action = "set"
target = "lamp"
"#;

pub(crate) fn tests() -> Vec<Test> {
    [SCENE, LINKS, DISK, CONTROL].concat()
}

/// A guest with an empty data disk.
fn guest(bench: &Bench) -> Guest {
    guest_on(bench, Arc::new(Disk::for_data().unwrap()))
}

fn guest_on(bench: &Bench, data: Arc<Disk>) -> Guest {
    bench.guest_with(&Options {
        data: Some(data),
        ..bench.options()
    })
}

/// An agent under these rules with broker and serial line, its link up.
fn running<'a>(
    guest: &'a Board,
    broker: &Broker,
    tables: &[&str],
    rules: &str,
) -> (Agent<'a>, Peer<'a>) {
    let settings = broker.settings();
    let tables = [&[settings.as_str(), agent::SERIAL], tables].concat();
    agent::configure(guest, &tables, rules);
    started(guest, broker)
}

/// An agent under the rules that are there already.
fn started<'a>(guest: &'a Board, broker: &Broker) -> (Agent<'a>, Peer<'a>) {
    let mark = broker.mark();
    let agent = Agent::start(guest);
    broker.await_message("info", mark, |message| message.topic == "ocelli/porch/info");
    let mut peer = Peer::new(guest.serial(), incarnation());
    peer.await_up();
    (agent, peer)
}

/// Another number for each peer of a run of the tests.
fn incarnation() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Changes the level of the sensor `n` times and waits for the packet of each.
fn edges(guest: &Board, peer: &mut Peer<'_>, level: &mut bool, n: usize) {
    for _ in 0..n {
        *level = !*level;
        guest.pins().set(PIR, *level).unwrap();
        peer.await_packet(1);
    }
}

/// Presses the button.
fn press(guest: &Board) {
    guest.pins().set(BUTTON, true).unwrap();
}

/// Lets the button go.
fn release(guest: &Board) {
    guest.pins().set(BUTTON, false).unwrap();
}

/// Waits for the next edge of the lamp.
fn lamp_edge(guest: &Board) -> Edge {
    let edge = guest.pins().next_edge(LIMIT).expect("an edge of the lamp");
    assert_eq!(edge.pin, LAMP);
    edge
}

/// Events in the order of their numbers, each once; every number from 1 on must be there.
fn events(published: &[Published]) -> Vec<serde_json::Value> {
    let mut last: Option<(String, u64)> = None;
    let mut events = Vec::new();
    for event in published.iter().filter(|message| message.topic == EVENTS) {
        let event = event.json();
        let queue = event["queue"].as_str().unwrap_or_default().to_owned();
        let seq = event["seq"].as_u64().unwrap_or_default();
        match &last {
            Some((known, last)) if *known == queue && seq <= *last => continue,
            Some((known, last)) => {
                assert_eq!(
                    (known.as_str(), *last + 1),
                    (queue.as_str(), seq),
                    "{event}"
                );
            }
            None => assert_eq!(seq, 1, "{event}"),
        }
        assert_eq!(event["dropped"], 0, "{event}");
        last = Some((queue, seq));
        events.push(event);
    }
    events
}

/// Waits until so many edges of the sensor have come as events, once each and in order.
fn await_events(broker: &Broker, n: usize) {
    let what = format!("{n} events");
    broker.await_all(&what, |published| n_sighted(published) >= n);
    assert_eq!(n_sighted(&broker.published()), n);
}

/// Edges of the sensor among the events, ends of events left out.
fn n_sighted(published: &[Published]) -> usize {
    let events = events(published);
    events.iter().filter(|event| event["type"] != "end").count()
}
