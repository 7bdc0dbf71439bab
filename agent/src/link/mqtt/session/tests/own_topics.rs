//! Topics of the rules' own.

use super::*;
use crate::link::mqtt::publication::{MAX_HEARD_BYTES, MAX_LISTENED, MAX_PUBLICATION_BYTES};

fn publication(topic: &str, payload: &[u8]) -> Outgoing {
    Outgoing::Publish(Box::new(Publication {
        topic: topic.to_owned(),
        payload: payload.to_vec(),
        retain: topic.ends_with("kept"),
        priority: Priority::Normal,
    }))
}

fn listen(topics: &[&str]) -> Outgoing {
    Outgoing::Listen(topics.iter().map(|topic| (*topic).to_owned()).collect())
}

fn subscriptions(bench: &mut Bench) -> (Vec<String>, Vec<String>) {
    let changes = bench.session.subscriptions();
    (changes.new, changes.gone)
}

fn texts(topics: &[&str]) -> Vec<String> {
    topics.iter().map(|topic| (*topic).to_owned()).collect()
}

#[test]
fn publications_and_events_go_out_in_one_order_until_they_are_acknowledged() {
    let mut bench = Bench::new();
    bench.event("e1");
    bench.session.accept(publication("door/say", b"a")).unwrap();
    bench.event("e2");
    bench
        .session
        .accept(publication("door/kept", b"\xff"))
        .unwrap();
    bench.session.connected();
    let sent = bench.drain(1).split_off(2);
    assert_eq!(
        topics(&sent),
        ["b/events", "door/say", "b/events", "door/kept"]
    );
    assert_eq!((sent[1].payload.as_slice(), sent[1].qos), (&b"a"[..], 1));
    assert!(!sent[1].retained && sent[3].retained);
    assert_eq!(sent[1].media_type, "text/plain");
    assert_eq!(sent[3].media_type, "application/octet-stream");
    // Numbers 1 and 2 went to the birth and the description.
    bench.session.acknowledged(3, None, NOW);
    bench.session.acknowledged(4, None, NOW);
    bench.session.disconnected("cut".to_owned());
    bench.session.connected();
    assert_eq!(bench.drain(1).split_off(2), sent[2..]);
}

#[test]
fn publications_outlive_the_program_and_an_old_queue_stays_readable() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("q");
    let limits = Limits {
        events: 100,
        bytes: 1 << 20,
    };
    let names = || Names::new("b", None, "porch").unwrap();
    {
        let (mut queue, _) = Queue::open(&path, limits, 9).unwrap();
        let pushed = queue.push(Priority::Normal, |_| b"{\"old\":1}".to_vec());
        assert!(pushed.unwrap().durable);
        let mut session = Session::new(names(), queue);
        session.accept(publication("door/say", b"a")).unwrap();
    }
    let (queue, _) = Queue::open(&path, limits, 9).unwrap();
    let mut session = Session::new(names(), queue);
    session.connected();
    let mut sent = Vec::new();
    while let Some((what, publish)) = session.next(NOW) {
        session.sent(what, Some(sent.len() as u16 + 1));
        sent.push(publish);
    }
    assert_eq!(topics(&sent), ["b/availability", "b/events", "door/say"]);
    assert_eq!(sent[1].payload, b"{\"old\":1}");
}

#[test]
fn what_rules_may_not_publish_or_hear_is_refused() {
    let mut bench = Bench::new();
    for topic in ["b/pin/lamp/set", "ha/status", "a/+", "$SYS/x", ""] {
        let refused = bench.session.accept(publication(topic, b""));
        assert!(matches!(refused, Err(MqttError::Publication(_))), "{topic}");
        let refused = bench.session.accept(listen(&["fine", topic]));
        assert!(matches!(refused, Err(MqttError::Publication(_))), "{topic}");
    }
    let long = vec![0; MAX_PUBLICATION_BYTES];
    assert!(bench.session.accept(publication("a", &long)).is_ok());
    let longer = vec![0; MAX_PUBLICATION_BYTES + 1];
    assert!(bench.session.accept(publication("a", &longer)).is_err());
    let many = vec!["a"; MAX_LISTENED + 1];
    assert!(bench.session.accept(listen(&many)).is_err());
}

#[test]
fn a_reload_that_takes_a_topic_gives_up_what_waits_for_it() {
    let mut bench = Bench::new();
    bench.session.accept(publication("door/say", b"a")).unwrap();
    bench.session.accept(listen(&["door/go"])).unwrap();
    let names = Names::new("door", None, "porch").unwrap();
    let limits = Limits {
        events: 100,
        bytes: 1 << 20,
    };
    bench.session.rename(names, limits);
    bench.session.connected();
    assert!(!topics(&bench.drain(1)).contains(&"door/say"));
    assert_eq!(bench.session.link_stats().events_dropped, 1);
    assert_eq!(subscriptions(&mut bench), (vec![], vec![]));
}

#[test]
fn the_broker_is_asked_for_what_changed_and_for_all_after_a_reconnect() {
    let mut bench = Bench::new();
    bench.session.accept(listen(&["a", "b2"])).unwrap();
    assert_eq!(subscriptions(&mut bench), (vec![], vec![]));
    bench.session.connected();
    assert_eq!(subscriptions(&mut bench), (texts(&["a", "b2"]), vec![]));
    assert_eq!(subscriptions(&mut bench), (vec![], vec![]));
    bench.session.accept(listen(&["b2", "c"])).unwrap();
    let changed = (texts(&["c"]), texts(&["a"]));
    assert_eq!(subscriptions(&mut bench), changed);
    bench.session.disconnected("cut".to_owned());
    assert_eq!(subscriptions(&mut bench), (vec![], vec![]));
    bench.session.connected();
    assert_eq!(subscriptions(&mut bench), (texts(&["b2", "c"]), vec![]));
}

#[test]
fn later_subscriptions_are_told_only_when_they_are_refused() {
    let mut bench = Bench::new();
    bench.session.connected();
    bench.session.subscribed(0);
    bench.session.subscribed(0);
    bench.session.subscribed(2);
    assert_eq!(
        bench.incoming(),
        [Incoming::Up, Incoming::Deaf { refused: 2 }]
    );
    bench.session.disconnected("cut".to_owned());
    bench.session.connected();
    bench.session.subscribed(0);
    assert_eq!(bench.incoming().last(), Some(&Incoming::Up));
}

#[test]
fn own_topics_are_heard_with_what_the_broker_had_kept_marked() {
    let mut bench = Bench::new();
    bench.session.accept(listen(&["door/go"])).unwrap();
    bench.hear("door/go", "now");
    let mut kept = message("door/go", "then");
    kept.retained = true;
    bench.session.message(kept, NOW);
    bench.hear("door/other", "now");
    let heard = |payload: &str, retained| Incoming::Message {
        topic: "door/go".to_owned(),
        payload: payload.as_bytes().to_vec(),
        retained,
    };
    assert_eq!(bench.incoming(), [heard("now", false), heard("then", true)]);
    bench.session.accept(listen(&[])).unwrap();
    bench.hear("door/go", "late");
    assert_eq!(bench.incoming(), []);
}

#[test]
fn long_messages_and_floods_are_refused_and_earlier_ones_stay() {
    let mut bench = Bench::new();
    bench.session.accept(listen(&["door/go"])).unwrap();
    bench.hear("door/go", &"x".repeat(MAX_HEARD_BYTES));
    bench.hear("door/go", &"x".repeat(MAX_HEARD_BYTES + 1));
    let told = bench.incoming();
    assert!(
        matches!(
            &told[..],
            [Incoming::Message { .. }, Incoming::Refused { .. }]
        ),
        "{told:?}"
    );
    for _ in 0..1000 {
        bench.hear("door/go", "");
    }
    let told = bench.incoming();
    assert_eq!(told.len(), MAX_INCOMING + 1);
    assert!(matches!(told[0], Incoming::Message { .. }));
    assert!(matches!(told.last(), Some(Incoming::Refused { .. })));
}
