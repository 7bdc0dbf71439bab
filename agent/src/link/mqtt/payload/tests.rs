use super::super::schema::schema;
use super::*;
use proptest::prelude::*;
use serde_json::Value;

fn holds(name: &str, payload: &[u8]) -> Value {
    let value: Value = serde_json::from_slice(payload).unwrap();
    if let Err(fault) = schema(name).validate(&value) {
        panic!("{name}: {fault}\n{value:#}");
    }
    value
}

const STAMP: Stamp = Stamp {
    queue: 0xA1,
    seq: 3,
    dropped: 2,
};

fn sight() -> Sight {
    Sight {
        id: "e1".to_owned(),
        rule: "person".to_owned(),
        time_ms: 5,
        answer: Some("yes".to_owned()),
        probability: Some(0.5),
        ..Sight::default()
    }
}

/// As long as anything can be, in characters that JSON escapes.
fn longest(character: char) -> Sight {
    let text = |bytes: usize| character.to_string().repeat(2 * bytes);
    Sight {
        id: text(MAX_WORD_BYTES),
        rule: text(MAX_NAME_BYTES),
        camera: Some(text(MAX_WORD_BYTES)),
        time_ms: u64::MAX,
        question: Some(text(MAX_QUESTION_BYTES)),
        answer: Some(text(MAX_WORD_BYTES)),
        probability: Some(f32::MIN_POSITIVE),
        unsure: false,
        text: Some(text(MAX_TEXT_BYTES)),
        zones: vec![text(MAX_WORD_BYTES); 2 * MAX_ZONES],
        has_snapshot: true,
    }
}

#[test]
fn an_event_has_one_id_and_its_mark() {
    for (phase, name) in [
        (Phase::New, "new"),
        (Phase::Update, "update"),
        (Phase::End, "end"),
    ] {
        let event = Event {
            phase,
            before: (phase != Phase::New).then(sight),
            after: sight(),
            priority: Priority::Normal,
        };
        let value = holds("event", &event.json(STAMP));
        assert_eq!(value["type"], name);
        assert_eq!(value["v"], WIRE_VERSION);
        assert_eq!(value["after"]["id"], "e1");
        assert_eq!(value["queue"], "00000000000000a1");
        assert_eq!((&value["seq"], &value["dropped"]), (&3.into(), &2.into()));
    }
}

#[test]
fn no_text_outgrows_its_topic_or_its_schema() {
    use super::super::topics::MAX_JSON_BYTES;
    for character in ['x', '"', '\\', '\n', '\u{1}', '\u{7f}', 'é', '🦊'] {
        let event = Event {
            phase: Phase::Update,
            before: Some(longest(character)),
            after: longest(character),
            priority: Priority::Normal,
        };
        let all = character.to_string().repeat(5000);
        let action = PendingAction {
            id: all.clone(),
            nonce: all.clone(),
            rule: all.clone(),
            action: all.clone(),
            level: all.clone(),
            expires_ms: u64::MAX,
        };
        let info = Info {
            program: all.clone(),
            version: all.clone(),
            board: all.clone(),
            model: all.clone(),
            rules: vec!["x".repeat(100); 300],
        };
        let reply = Reply {
            code: Code::Done,
            reason: Some(all),
            sight: Some(longest(character)),
        };
        for (name, payload) in [
            ("event", event.json(STAMP)),
            ("answer", longest(character).answer_json()),
            ("pending", pending_json(vec![action; 40])),
            ("info", info.json()),
            ("reply", reply_json(reply, Some("id"))),
        ] {
            holds(name, &payload);
            assert!(
                payload.len() <= MAX_JSON_BYTES,
                "{name} of {character:?}: {}",
                payload.len()
            );
        }
    }
}

#[test]
fn figures_that_are_not_known_are_null() {
    let value = holds("stats", &Stats::default().json(LinkStats::default()));
    assert!(value["temperature_c"].is_null() && value["energy_source"].is_null());
    let stats = Stats {
        temperature_c: Some(48.5),
        latency_s: Some(f32::NAN),
        throttled: Some(true),
        energy_j: Some(3.0),
        energy_source: Some(EnergySource::Estimate),
        ..Stats::default()
    };
    let link = LinkStats {
        events_dropped: 7,
        ..LinkStats::default()
    };
    let value = holds("stats", &stats.json(link));
    assert_eq!(value["energy_source"], "estimate");
    assert!(
        value["latency_s"].is_null(),
        "what is no number is not known"
    );
    assert_eq!(value["events_dropped"], 7);
}

#[test]
fn replies_say_whether_it_went_well() {
    let codes = [
        (Code::Done, "done", true),
        (Code::Accepted, "accepted", true),
        (Code::Malformed, "malformed", false),
        (Code::TooLarge, "too_large", false),
        (Code::Unknown, "unknown", false),
        (Code::Denied, "denied", false),
        (Code::Busy, "busy", false),
        (Code::Failed, "failed", false),
    ];
    for (code, name, ok) in codes {
        let value = holds("reply", &reply_json(Reply::plain(code), None));
        assert_eq!(
            (value["code"].as_str(), value["ok"].as_bool()),
            (Some(name), Some(ok))
        );
    }
}

#[test]
fn a_cut_falls_between_characters() {
    let mut text = "aé🦊".to_owned();
    cut(&mut text, 4);
    assert_eq!(text, "aé");
    let mut text = "a\tb\nc\u{85}d".to_owned();
    cut(&mut text, 100);
    assert_eq!(text, "a b\nc d");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_sight_fits_its_schema(
        words in proptest::collection::vec(any::<String>(), 7),
        time_ms: u64,
        probability: Option<f32>,
    ) {
        let sight = Sight {
            id: words[0].clone(),
            rule: words[1].clone(),
            camera: Some(words[2].clone()),
            time_ms,
            question: Some(words[3].clone()),
            answer: Some(words[4].clone()),
            probability,
            unsure: false,
            text: Some(words[5].clone()),
            zones: vec![words[6].clone()],
            has_snapshot: false,
        };
        holds("answer", &sight.answer_json());
    }
}
