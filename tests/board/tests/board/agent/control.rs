//! New rules, stops, kills, the watchdog, and persons who decide.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ocelli_board::{Board, Disk, Options, WatchdogAction};
use ocelli_board_tests::agent;
use ocelli_board_tests::bench::Bench;
use ocelli_board_tests::broker::Broker;
use ocelli_board_tests::program::Program;
use ocelli_board_tests::suite::Test;
use ocelli_board_tests::tests;
use serde_json::{Value, json};

use super::{
    LAMP_RULE, LIMIT, QUIET, RULES, edges, guest, guest_on, lamp_edge, press, release, running,
    started,
};

pub(crate) const TESTS: &[Test] = tests![&[Program::Ocelli];
    new_rules_take_effect_with_pins_safe_between_and_broken_ones_change_nothing,
    a_stop_ends_in_order_and_a_kill_is_made_safe_afterwards,
    an_agent_that_stands_still_is_ended_by_the_watchdog,
    an_action_waits_for_a_person_and_silence_is_a_no,
    a_person_switches_the_lamp_through_the_rules_written_for_it,
];

fn new_rules_take_effect_with_pins_safe_between_and_broken_ones_change_nothing(bench: &Bench) {
    let guest = guest(bench);
    let broker = Broker::start();
    let rules = RULES.to_owned() + LAMP_RULE;
    let (agent, mut peer) = running(&guest, &broker, &[], &rules);
    press(&guest);
    assert!(lamp_edge(&guest).high);
    let mut level = false;

    agent::write_rules(
        &guest,
        &rules.replace("format = 1", "format = 1\nformta = 2"),
    );
    agent.signal("HUP");
    agent.await_line("settings: not taken");
    edges(&guest, &mut peer, &mut level, 1);
    assert!(guest.pins().next_edge(QUIET).is_none(), "the lamp stays on");

    let packet = "[packets.news]\nnumber = 2\ndirection = \"out\"\nlevel = \"notify\"\n\n[[rules]]\nid = \"edge\"";
    let other = rules
        .replace("[[rules]]\nid = \"edge\"", packet)
        .replace("packet = \"seen\"", "packet = \"news\"");
    agent::write_rules(&guest, &other);
    agent.signal("HUP");
    assert!(!lamp_edge(&guest).high, "safe between old and new rules");
    agent.await_line("settings and rules were read again");
    guest.pins().set(super::PIR, !level).unwrap();
    peer.await_packet(2);
    agent.stop();
    agent::verify_journal(&guest);
}

fn a_stop_ends_in_order_and_a_kill_is_made_safe_afterwards(bench: &Bench) {
    let guest = guest(bench);
    let broker = Broker::start();
    let rules = RULES.to_owned() + LAMP_RULE;
    let (agent, _peer) = running(&guest, &broker, &[], &rules);
    press(&guest);
    assert!(lamp_edge(&guest).high);
    agent.stop();
    assert!(!lamp_edge(&guest).high);
    assert_eq!(agent::journal(&guest).last().unwrap()["body"], "Ended");

    release(&guest);
    let (agent, _peer) = started(&guest, &broker);
    press(&guest);
    assert!(lamp_edge(&guest).high);
    agent.signal("KILL");
    assert_eq!(agent.wait(), 137);
    // The controller keeps the last level of a line that nobody holds (`gpio.released` of the board).
    assert!(guest.pins().next_edge(QUIET).is_none());
    guest.sh(&agent::command("--make-safe")).unwrap();
    assert!(!lamp_edge(&guest).high);
    agent::verify_journal(&guest);
}

fn an_agent_that_stands_still_is_ended_by_the_watchdog(bench: &Bench) {
    let data = Arc::new(Disk::for_data().unwrap());
    let guest = bench.booted(&Options {
        watchdog: WatchdogAction::PowerOff,
        data: Some(Arc::clone(&data)),
        ..bench.options()
    });
    let module = "/lib/modules/$(uname -r)/i6300esb.ko";
    guest.sh(&format!("insmod {module} heartbeat=8")).unwrap();
    let broker = Broker::start();
    let watchdog = "[watchdog]\ndevice = \"/dev/watchdog0\"\n";
    let rules = RULES.to_owned() + LAMP_RULE;
    let (agent, mut peer) = running(&guest, &broker, &[watchdog], &rules);
    press(&guest);
    assert!(lamp_edge(&guest).high);
    // Fed: longer than the time-out passes without it.
    let fed = guest.event("WATCHDOG", Duration::from_secs(12));
    assert!(fed.is_none(), "{fed:?}");
    edges(&guest, &mut peer, &mut false, 1);
    agent.signal("STOP");
    assert!(guest.event("WATCHDOG", LIMIT).is_some());
    assert!(guest.await_end(LIMIT));
    agent.abandon();
    drop(peer);
    drop(guest);
    let guest = guest_on(bench, data);
    agent::verify_journal(&guest);
    guest.load_modules("watchdog").unwrap();
    let (agent, mut peer) = started(&guest, &broker);
    edges(&guest, &mut peer, &mut false, 1);
    agent.stop();
}

/// As [`LAMP_RULE`], and a person has to allow it.
const ASKING: &str = r#"
[[rules]]
id = "lamp"
when = { pin = "button", edge = "both" }
then = [{ set = "lamp", value = "on", for = "5 min" }]

[[permissions]]
effect = "ask"
action = "set"
target = "lamp"
via = ["mqtt"]
expires = "5 s"
"#;

fn an_action_waits_for_a_person_and_silence_is_a_no(bench: &Bench) {
    let guest = guest(bench);
    let broker = Broker::start();
    let rules = RULES.to_owned() + ASKING;
    let (agent, _peer) = running(&guest, &broker, &[], &rules);

    let mark = broker.mark();
    press(&guest);
    let asked = Instant::now();
    let request = pending(&broker, mark);
    assert_eq!(request["rule"], "lamp", "{request}");
    let mark = broker.mark();
    broker.await_message("the end of the wait", mark, is_empty);
    assert!(
        asked.elapsed() >= Duration::from_secs(4),
        "silence takes its time"
    );
    assert!(guest.pins().next_edge(QUIET).is_none(), "silence is a no");

    let mark = broker.mark();
    release(&guest);
    let request = pending(&broker, mark);
    let wrong = json!({"action": request["id"], "nonce": "0000000000000001"});
    broker.send("ocelli/porch/command/approve", &wrong.to_string());
    let reply = broker.await_message("reply", mark, |message| {
        message.topic == "ocelli/porch/reply"
    });
    assert_eq!(reply.json()["code"], "denied", "{}", reply.json());
    let right = json!({"action": request["id"], "nonce": request["nonce"]});
    broker.send("ocelli/porch/command/approve", &right.to_string());
    assert!(lamp_edge(&guest).high);
    agent.stop();
    assert!(!lamp_edge(&guest).high);
    agent::verify_journal(&guest);
    let refused = agent::journal(&guest).iter().any(|record| {
        record["body"]["Step"]["outputs"]["list"]
            .to_string()
            .contains("Refused")
    });
    assert!(refused);
}

/// The only action that waits.
fn pending(broker: &Broker, mark: usize) -> Value {
    let message = broker.await_message("an action that waits", mark, |message| {
        message.topic == "ocelli/porch/pending" && !is_empty(message)
    });
    let list = message.json()["pending"].clone();
    assert_eq!(list.as_array().map(Vec::len), Some(1), "{list}");
    list[0].clone()
}

fn is_empty(message: &ocelli_board_tests::broker::Published) -> bool {
    message.topic == "ocelli/porch/pending" && message.json()["pending"] == json!([])
}

fn a_person_switches_the_lamp_through_the_rules_written_for_it(bench: &Bench) {
    const COMMANDED: &str = r#"
[[rules]]
id = "lamp_on"
when = { command = "lamp", is = "on", from = ["mqtt"] }
then = [{ set = "lamp", value = "on", for = "5 min" }]

[[rules]]
id = "lamp_off"
when = { command = "lamp", is = "off" }
then = [{ set = "lamp", value = "off" }]

[[permissions]]
effect = "allow"
action = "set"
target = "lamp"
"#;
    let guest = guest(bench);
    let broker = Broker::start();
    let (agent, _peer) = running(&guest, &broker, &[], &(RULES.to_owned() + COMMANDED));
    for (word, high) in [("ON", true), ("OFF", false), ("ON", true)] {
        broker.send("ocelli/porch/pin/lamp/set", word);
        assert_eq!(lamp_edge(&guest).high, high, "{word}");
    }
    agent.stop();
    assert!(!lamp_edge(&guest).high);
    is_in_order(&guest);
}

fn is_in_order(guest: &Board) {
    agent::verify_journal(guest);
    assert_eq!(agent::journal(guest).last().unwrap()["body"], "Ended");
}
