mod own_topics;

use super::*;
use crate::link::mqtt::Publication;
use crate::link::mqtt::discovery::{Feature, Pin, Rule, RuleKind};
use crate::link::mqtt::payload::{Event, Phase, Sight};
use crate::link::queue::Priority;
use serde_json::Value;
use tempfile::TempDir;

const NOW: Duration = Duration::from_secs(1000);

struct Bench {
    session: Session,
    _folder: TempDir,
}

fn rule(name: &str) -> Rule {
    Rule {
        name: name.to_owned(),
        title: name.to_owned(),
        kind: RuleKind::YesNo,
        snapshot: true,
    }
}

fn description(rules: &[&str]) -> Description {
    Description {
        title: "Porch".to_owned(),
        rules: rules.iter().map(|name| rule(name)).collect(),
        pins: vec![Pin {
            name: "lamp".to_owned(),
            title: "Lamp".to_owned(),
        }],
        features: vec![Feature {
            name: "mode".to_owned(),
            title: "Mode".to_owned(),
            options: vec!["watch".to_owned(), "sleep".to_owned()],
        }],
        ..Description::default()
    }
}

impl Bench {
    fn new() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let limits = Limits {
            events: 100,
            bytes: 1 << 20,
        };
        let (queue, _) = Queue::open(&folder.path().join("q"), limits, 9).unwrap();
        let names = Names::new("b", Some("ha"), "porch").unwrap();
        let mut session = Session::new(names, queue);
        session
            .accept(Outgoing::Describe(Box::new(description(&["person"]))))
            .unwrap();
        Bench {
            session,
            _folder: folder,
        }
    }

    fn event(&mut self, id: &str) {
        let event = Event {
            phase: Phase::New,
            before: None,
            after: Sight {
                id: id.to_owned(),
                rule: "person".to_owned(),
                ..Sight::default()
            },
            priority: Priority::Normal,
        };
        self.session
            .accept(Outgoing::Event(Box::new(event)))
            .unwrap();
    }

    /// Sends all there is to send; packet numbers count from `first`.
    fn drain(&mut self, first: u16) -> Vec<Publish> {
        let mut sent = Vec::new();
        while let Some((what, publish)) = self.session.next(NOW) {
            let packet_id = first + sent.len() as u16;
            self.session.sent(what, Some(packet_id));
            sent.push(publish);
        }
        sent
    }

    fn hear(&mut self, topic: &str, payload: &str) {
        self.session.message(message(topic, payload), NOW);
    }

    fn incoming(&mut self) -> Vec<Incoming> {
        std::iter::from_fn(|| self.session.next_incoming()).collect()
    }

    fn requests(&mut self) -> Vec<Request> {
        let of = |incoming| match incoming {
            Incoming::Request(request) => Some(request),
            _ => None,
        };
        self.incoming().into_iter().filter_map(of).collect()
    }
}

fn message(topic: &str, payload: &str) -> Message {
    Message {
        topic: topic.to_owned(),
        payload: payload.as_bytes().to_vec(),
        ..Message::default()
    }
}

fn topics(sent: &[Publish]) -> Vec<&str> {
    sent.iter().map(|publish| publish.topic.as_str()).collect()
}

fn body(publish: &Publish) -> Value {
    serde_json::from_slice(&publish.payload).unwrap()
}

#[test]
fn birth_comes_first_then_state_then_events() {
    let mut bench = Bench::new();
    bench.event("e1");
    assert_eq!(
        bench.session.next(NOW),
        None,
        "nothing goes out before the connection stands"
    );
    bench.session.connected();
    let sent = bench.drain(1);
    assert_eq!(
        topics(&sent),
        ["b/availability", "ha/device/porch/config", "b/events"]
    );
    assert_eq!(sent[0].payload, b"online");
    assert!(sent[0].retained && sent[1].retained && !sent[2].retained);
    assert_eq!(sent[2].expiry, Some(86_400));
}

#[test]
fn an_event_stays_until_it_is_acknowledged() {
    let mut bench = Bench::new();
    bench.session.connected();
    bench.drain(1);
    for id in ["e1", "e2", "e3"] {
        bench.event(id);
    }
    let sent = bench.drain(10);
    assert_eq!(sent.len(), 3);
    bench.session.acknowledged(10, None, NOW);
    bench.session.disconnected("cut".to_owned());
    bench.session.acknowledged(11, None, NOW);
    bench.session.connected();
    let again: Vec<_> = bench
        .drain(1)
        .into_iter()
        .filter(|p| p.topic == "b/events")
        .collect();
    assert_eq!(
        again,
        sent[1..],
        "the same bytes under the same marks, in order"
    );
}

#[test]
fn no_more_than_the_window_is_under_way() {
    let mut bench = Bench::new();
    bench.session.connected();
    bench.drain(1);
    for n in 0..40 {
        bench.event(&format!("e{n}"));
    }
    assert_eq!(bench.drain(100).len(), WINDOW);
    bench.session.acknowledged(100, None, NOW);
    assert_eq!(bench.drain(200).len(), 1);
}

#[test]
fn a_refused_event_waits_or_is_given_up() {
    let mut bench = Bench::new();
    bench.session.connected();
    bench.drain(1);
    bench.event("e1");
    bench.drain(10);
    bench
        .session
        .acknowledged(10, Some(Refusal::Later("quota")), NOW);
    assert_eq!(bench.session.next(NOW), None);
    let later = bench.session.deadline().unwrap();
    let (what, _) = bench.session.next(later).unwrap();
    bench.session.sent(what, Some(11));
    bench
        .session
        .acknowledged(11, Some(Refusal::Never("form")), NOW);
    assert_eq!(bench.session.next(later), None);
    let told = bench.incoming();
    assert!(
        matches!(told.last(), Some(Incoming::Dropped { total: 1 })),
        "{told:?}"
    );
    assert_eq!(bench.session.link_stats().events_dropped, 1);
}

#[test]
fn only_the_latest_state_is_sent() {
    let mut bench = Bench::new();
    for on in [true, false, true, false] {
        let rule = "person".to_owned();
        bench
            .session
            .accept(Outgoing::State(State::Rule { rule, on }))
            .unwrap();
    }
    bench.session.connected();
    let sent = bench.drain(1);
    let states: Vec<_> = sent
        .iter()
        .filter(|p| p.topic == "b/rule/person/state")
        .collect();
    assert_eq!(states.len(), 1);
    assert_eq!(states[0].payload, b"OFF");
    assert!(bench.drain(50).is_empty());
    bench.session.connected();
    assert_eq!(
        topics(&bench.drain(1)),
        topics(&sent),
        "all of it again after a reconnect"
    );
}

#[test]
fn a_retained_command_is_never_obeyed() {
    let mut bench = Bench::new();
    bench.session.connected();
    bench.drain(1);
    for topic in [
        "b/pin/lamp/set",
        "b/rule/person/set",
        "b/feature/mode/set",
        "b/command/look",
    ] {
        let mut retained = message(topic, "ON");
        retained.retained = true;
        bench.session.message(retained, NOW);
    }
    assert!(bench.requests().is_empty());
    assert!(
        bench.drain(50).is_empty(),
        "nobody waits for the answer to a retained command"
    );
    assert_eq!(bench.session.link_stats().commands_refused, 4);
}

#[test]
fn a_command_that_comes_twice_is_obeyed_once() {
    let mut bench = Bench::new();
    bench.session.connected();
    bench.drain(1);
    let twice = r#"{"id":"7","on":true}"#;
    bench.hear("b/rule/person/set", twice);
    bench.hear("b/rule/person/set", twice);
    let requests = bench.requests();
    assert_eq!(requests.len(), 1);
    assert!(bench.drain(10).is_empty(), "it is not answered yet");
    let reply = Outgoing::Reply(requests[0].ticket.clone(), Reply::plain(Code::Done));
    bench.session.accept(reply).unwrap();
    let first = bench.drain(20);
    bench.hear("b/rule/person/set", twice);
    assert_eq!(bench.drain(30), first, "the same answer again");
    assert_eq!(body(&first[0])["id"], "7");
    bench.hear("b/rule/person/set", r#"{"id":"7","on":false}"#);
    bench.hear("b/rule/person/set", "ON");
    bench.hear("b/rule/person/set", "ON");
    assert_eq!(
        bench.requests().len(),
        3,
        "other contents, or no id, are other commands"
    );
    bench.session.message(
        message("b/rule/person/set", twice),
        NOW + Duration::from_secs(601),
    );
    assert_eq!(
        bench.requests().len(),
        1,
        "it is forgotten after ten minutes"
    );
}

#[test]
fn a_reply_goes_where_the_sender_listens() {
    let mut bench = Bench::new();
    bench.session.connected();
    bench.drain(1);
    for (asked, given) in [("answers/me", "answers/me"), ("b/pin/lamp/set", "b/reply")] {
        let mut command = message("b/command/look", "{}");
        command.response_topic = Some(asked.to_owned());
        command.correlation = Some(asked.as_bytes().to_vec());
        command.expiry = Some(4);
        bench.session.message(command, NOW);
        let request = bench.requests().remove(0);
        assert_eq!(request.expires, Some(Duration::from_secs(4)));
        let reply = Outgoing::Reply(request.ticket, Reply::plain(Code::Accepted));
        bench.session.accept(reply).unwrap();
        let sent = bench.drain(10);
        assert_eq!(topics(&sent), [given]);
        assert_eq!(sent[0].correlation.as_deref(), Some(asked.as_bytes()));
    }
}

#[test]
fn bad_commands_are_answered_and_counted() {
    let table = [
        ("b/rule/person/set", "perhaps", "malformed"),
        ("b/rule/nobody/set", "ON", "unknown"),
        ("b/pin/nobody/set", "ON", "unknown"),
        ("b/feature/mode/set", "fly", "unknown"),
        ("b/feature/nothing/set", "ON", "unknown"),
        ("b/command/look", r#"{"rule":"nobody"}"#, "unknown"),
        ("b/command/ask", "{}", "malformed"),
    ];
    let mut bench = Bench::new();
    bench.session.connected();
    bench.drain(1);
    for (count, (topic, payload, code)) in table.into_iter().enumerate() {
        bench.hear(topic, payload);
        let sent = bench.drain(10);
        assert_eq!(topics(&sent), ["b/reply"], "{topic} {payload}");
        assert_eq!(body(&sent[0])["code"], code, "{topic} {payload}");
        assert!(bench.requests().is_empty());
        assert_eq!(
            bench.session.link_stats().commands_refused,
            count as u64 + 1
        );
    }
}

#[test]
fn a_flood_of_commands_is_turned_down() {
    let mut bench = Bench::new();
    bench.session.connected();
    bench.drain(1);
    for _ in 0..1000 {
        bench.hear("b/command/look", "");
    }
    let sent = bench.drain(10);
    assert_eq!(sent.len(), MAX_REPLIES);
    assert_eq!(body(&sent[0])["code"], "busy");
    assert!(bench.incoming().len() <= MAX_INCOMING + 1);
}

#[test]
fn entities_that_are_gone_are_removed_and_emptied() {
    let mut bench = Bench::new();
    bench.session.connected();
    bench.drain(1);
    bench
        .session
        .accept(Outgoing::Describe(Box::new(description(&["other"]))))
        .unwrap();
    let sent = bench.drain(10);
    let removal = body(&sent[0])["cmps"].clone();
    assert_eq!(
        removal["answer_person"],
        serde_json::json!({ "p": "binary_sensor" })
    );
    assert!(removal["answer_other"]["stat_t"].is_string());
    let emptied: Vec<_> = sent.iter().filter(|p| p.payload.is_empty()).collect();
    let names: Vec<_> = emptied.iter().map(|p| p.topic.as_str()).collect();
    assert_eq!(
        names,
        [
            "b/rule/person/answer",
            "b/rule/person/snapshot",
            "b/rule/person/state"
        ]
    );
    assert!(emptied.iter().all(|p| p.retained));
    let last = sent
        .iter()
        .rfind(|p| p.topic == "ha/device/porch/config")
        .unwrap();
    assert!(body(last)["cmps"].get("answer_person").is_none());
}

#[test]
fn what_an_older_start_left_behind_is_removed() {
    let mut bench = Bench::new();
    bench.session.connected();
    let current = bench.drain(1).remove(1);
    bench.hear(
        "ha/device/porch/config",
        std::str::from_utf8(&current.payload).unwrap(),
    );
    assert!(
        bench.drain(10).is_empty(),
        "our own description changes nothing"
    );
    let old = r#"{"cmps":{"answer_old":{"p":"sensor","stat_t":"x"},"rule_gone":{"p":"switch"}}}"#;
    bench.hear("ha/device/porch/config", old);
    let sent = bench.drain(10);
    assert_eq!(
        body(&sent[0])["cmps"]["answer_old"],
        serde_json::json!({ "p": "sensor" })
    );
    assert!(
        body(&sent[0])["cmps"].get("rule_gone").is_none(),
        "that was removed before"
    );
    bench.hear(
        "ha/device/porch/config",
        std::str::from_utf8(&sent[0].payload).unwrap(),
    );
    assert!(
        bench.drain(10).is_empty(),
        "hearing the removal does not begin it again"
    );
}

#[test]
fn home_assistants_birth_brings_everything_again() {
    let mut bench = Bench::new();
    bench.session.connected();
    let first = bench.drain(1);
    bench.hear("ha/status", "offline");
    assert!(bench.drain(10).is_empty());
    bench.hear("ha/status", "online");
    assert_eq!(bench.drain(10), first);
}

#[test]
fn a_payload_too_long_for_its_topic_is_refused() {
    let mut bench = Bench::new();
    let jpeg = vec![0; crate::link::mqtt::topics::MAX_SNAPSHOT_BYTES + 1];
    let rule = "person".to_owned();
    let refused = bench
        .session
        .accept(Outgoing::State(State::Snapshot { rule, jpeg }));
    assert!(matches!(refused, Err(MqttError::TooLarge { .. })));
    let sight = Sight {
        rule: "a/b".to_owned(),
        ..Sight::default()
    };
    let refused = bench.session.accept(Outgoing::State(State::Answer(sight)));
    assert!(matches!(refused, Err(MqttError::Topic(_))));
}
