use super::super::schema::schema;
use super::super::topics::{Direction, Names, TABLE};
use super::*;
use proptest::prelude::*;

fn names() -> Names {
    Names::new("b", Some("ha"), "d").unwrap()
}

fn parse_at(topic: &str, payload: &[u8]) -> Result<Parsed, CommandError> {
    let topic = format!("b/{topic}");
    parse(&names().heard(&topic).unwrap(), payload)
}

/// Whether the schema of `topic` lets `payload` pass.
fn schema_takes(topic: &str, payload: &[u8]) -> bool {
    let topic = format!("b/{topic}");
    let names = names();
    let heard = names.heard(&topic).unwrap();
    let Ok(value) = serde_json::from_slice(payload) else {
        return false;
    };
    schema(heard.topic.content.schema().unwrap()).is_valid(&value)
}

fn text(text: &str) -> String {
    text.to_owned()
}

#[test]
fn commands_are_what_the_table_says() {
    let level = |value| Command::SetPin {
        pin: text("lamp"),
        value,
    };
    let rule = |on| Command::SetRule {
        rule: text("person"),
        on,
    };
    let mode = || Command::SetFeature {
        feature: text("mode"),
        value: text("watch"),
    };
    let table: Vec<(&str, &str, Command)> = vec![
        ("command/look", "", Command::Look { rule: None }),
        ("command/look", "{}", Command::Look { rule: None }),
        (
            "command/look",
            " {\"rule\":null}\n",
            Command::Look { rule: None },
        ),
        (
            "command/look",
            r#"{"rule":"person"}"#,
            Command::Look {
                rule: Some(text("person")),
            },
        ),
        (
            "command/ask",
            r#"{"question":"Who?","choices":["a","b"],"camera":"front","max_tokens":9}"#,
            Command::Ask {
                question: text("Who?"),
                choices: vec![text("a"), text("b")],
                camera: Some(text("front")),
                max_tokens: Some(9),
            },
        ),
        (
            "command/ask",
            r#"{"question":"Who?","choices":[]}"#,
            Command::Ask {
                question: text("Who?"),
                choices: vec![],
                camera: None,
                max_tokens: None,
            },
        ),
        (
            "command/approve",
            r#"{"action":"a1","nonce":"n"}"#,
            Command::Decide {
                action: text("a1"),
                nonce: text("n"),
                approve: true,
            },
        ),
        (
            "command/deny",
            r#"{"action":"a1","nonce":"n"}"#,
            Command::Decide {
                action: text("a1"),
                nonce: text("n"),
                approve: false,
            },
        ),
        ("command/reload", "", Command::Reload),
        ("rule/person/set", "ON", rule(true)),
        ("rule/person/set", "OFF", rule(false)),
        ("rule/person/set", r#"{"on":false}"#, rule(false)),
        ("pin/lamp/set", "ON", level(PinValue::Level(true))),
        ("pin/lamp/set", "-2.5", level(PinValue::Number(-2.5))),
        (
            "pin/lamp/set",
            r#"{"value":false}"#,
            level(PinValue::Level(false)),
        ),
        (
            "pin/lamp/set",
            r#"{"value":3}"#,
            level(PinValue::Number(3.0)),
        ),
        ("feature/mode/set", "watch", mode()),
        ("feature/mode/set", r#"{"value":"watch"}"#, mode()),
    ];
    for (topic, payload, command) in table {
        let parsed = parse_at(topic, payload.as_bytes());
        assert_eq!(
            parsed,
            Ok(Parsed { command, id: None }),
            "{topic} {payload}"
        );
        if payload.trim_start().starts_with('{') {
            assert!(schema_takes(topic, payload.as_bytes()), "{topic} {payload}");
        }
    }
}

#[test]
fn an_id_is_given_back() {
    for (topic, payload) in [
        ("command/look", r#"{"id":"7"}"#),
        ("command/ask", r#"{"id":"7","question":"?"}"#),
        ("command/deny", r#"{"id":"7","action":"a","nonce":"n"}"#),
        ("command/reload", r#"{"id":"7"}"#),
        ("rule/person/set", r#"{"id":"7","on":true}"#),
        ("pin/lamp/set", r#"{"id":"7","value":1}"#),
        ("feature/mode/set", r#"{"id":"7","value":"x"}"#),
    ] {
        assert_eq!(
            parse_at(topic, payload.as_bytes()).unwrap().id.as_deref(),
            Some("7")
        );
        assert_eq!(id_of(payload.as_bytes()).as_deref(), Some("7"));
    }
    assert_eq!(id_of(br#"{"id":"7","bad":1}"#).as_deref(), Some("7"));
    for none in [
        &b""[..],
        b"ON",
        b"{}",
        br#"{"id":7}"#,
        br#"{"id":""}"#,
        b"[\"7\"]x",
        b"\xFF",
    ] {
        assert_eq!(id_of(none), None);
    }
}

#[test]
fn what_is_wrong_is_refused_by_parser_and_schema_alike() {
    let long = "x".repeat(129);
    let table = [
        ("command/look", "[]".to_owned()),
        ("command/look", "null".to_owned()),
        ("command/look", "[null,null]".to_owned()),
        ("command/look", "ON".to_owned()),
        ("command/look", r#"{"rule":1}"#.to_owned()),
        ("command/look", r#"{"rule":"a/b"}"#.to_owned()),
        ("command/look", r#"{"rules":"a"}"#.to_owned()),
        ("command/look", format!(r#"{{"id":"{long}"}}"#)),
        ("command/look", r#"{"id":""}"#.to_owned()),
        ("command/ask", String::new()),
        ("command/ask", "{}".to_owned()),
        ("command/ask", r#"{"question":""}"#.to_owned()),
        (
            "command/ask",
            format!(r#"{{"question":"{}"}}"#, "x".repeat(1025)),
        ),
        (
            "command/ask",
            r#"{"question":"?","choices":["a"]}"#.to_owned(),
        ),
        (
            "command/ask",
            r#"{"question":"?","choices":["a","a"]}"#.to_owned(),
        ),
        (
            "command/ask",
            r#"{"question":"?","choices":["a",""]}"#.to_owned(),
        ),
        (
            "command/ask",
            format!(
                r#"{{"question":"?","choices":["a"{}]}}"#,
                r#","b""#.repeat(16)
            ),
        ),
        ("command/ask", r#"{"question":"?","camera":""}"#.to_owned()),
        (
            "command/ask",
            r#"{"question":"?","max_tokens":0}"#.to_owned(),
        ),
        (
            "command/ask",
            r#"{"question":"?","max_tokens":513}"#.to_owned(),
        ),
        (
            "command/ask",
            r#"{"question":"?","max_tokens":1.5}"#.to_owned(),
        ),
        ("command/approve", r#"{"action":"a"}"#.to_owned()),
        ("command/approve", r#"{"nonce":"n"}"#.to_owned()),
        ("command/approve", r#"{"action":"a","nonce":""}"#.to_owned()),
        ("command/deny", r#"{"action":"a","nonce":null}"#.to_owned()),
        ("command/reload", r#"{"now":true}"#.to_owned()),
        ("rule/person/set", "on".to_owned()),
        ("rule/person/set", String::new()),
        ("rule/person/set", r#"{"on":"ON"}"#.to_owned()),
        ("rule/person/set", r#"{"on":null}"#.to_owned()),
        ("pin/lamp/set", "inf".to_owned()),
        ("pin/lamp/set", "NaN".to_owned()),
        ("pin/lamp/set", "1e999".to_owned()),
        ("pin/lamp/set", r#"{"value":1e999}"#.to_owned()),
        ("pin/lamp/set", r#"{"value":"ON"}"#.to_owned()),
        ("pin/lamp/set", r#"{"value":[1]}"#.to_owned()),
        ("pin/lamp/set", "{}".to_owned()),
        ("feature/mode/set", String::new()),
        ("feature/mode/set", "x".repeat(65)),
        ("feature/mode/set", r#"{"value":""}"#.to_owned()),
        ("feature/mode/set", r#"{"value":1}"#.to_owned()),
    ];
    for (topic, payload) in table {
        let parsed = parse_at(topic, payload.as_bytes());
        assert!(parsed.is_err(), "{topic} {payload} gives {parsed:?}");
        assert!(
            !schema_takes(topic, payload.as_bytes()),
            "schema takes {topic} {payload}"
        );
    }
}

#[test]
fn a_field_said_twice_is_refused() {
    for payload in [
        r#"{"on":true,"on":false}"#,
        r#"{"id":"a","on":true,"id":"b"}"#,
    ] {
        let error = parse_at("rule/person/set", payload.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("duplicate field"), "{error}");
    }
}

#[test]
fn the_limit_is_on_the_byte() {
    let payload = |len: usize| {
        let mut payload = b"{}".to_vec();
        payload.resize(len, b' ');
        payload
    };
    for topic in TABLE
        .iter()
        .filter(|topic| topic.direction == Direction::In)
    {
        if topic.content.schema().is_none() {
            continue;
        }
        let heard = Heard {
            topic,
            name: Some("x"),
        };
        let limit = topic.max_bytes;
        let at = parse(&heard, &payload(limit));
        assert!(
            !matches!(at, Err(CommandError::TooLarge { .. })),
            "{topic:?}"
        );
        let over = parse(&heard, &payload(limit + 1));
        assert_eq!(
            over,
            Err(CommandError::TooLarge {
                bytes: limit + 1,
                limit
            })
        );
    }
}

#[test]
fn a_topic_without_a_name_is_refused() {
    let names = names();
    for topic in ["b/rule//set", "b/pin/a b/set", "b/feature/+/set"] {
        let heard = names.heard(topic).unwrap();
        assert_eq!(parse(&heard, b"ON"), Err(CommandError::Name), "{topic}");
    }
    let heard = names.heard("ha/status").unwrap();
    assert_eq!(parse(&heard, b"online"), Err(CommandError::NoCommand));
}

#[test]
fn refusals_have_codes() {
    let code = |error: CommandError| Reply::from(&error).code;
    assert_eq!(code(CommandError::Name), Code::Unknown);
    assert_eq!(
        code(CommandError::TooLarge { bytes: 2, limit: 1 }),
        Code::TooLarge
    );
    assert_eq!(code(CommandError::NoCommand), Code::Malformed);
}

const TOPICS: [&str; 8] = [
    "command/look",
    "command/ask",
    "command/approve",
    "command/deny",
    "command/reload",
    "rule/person/set",
    "pin/lamp/set",
    "feature/mode/set",
];

fn json() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        "-?[0-9]{1,3}(\\.5)?",
        "\"[a-z_ ü]{0,3}\"",
        "\\[(\"[ab]\",){0,2}\"c\"\\]",
    ];
    let key = prop_oneof![
        Just("id"),
        Just("rule"),
        Just("question"),
        Just("choices"),
        Just("camera"),
        Just("max_tokens"),
        Just("action"),
        Just("nonce"),
        Just("on"),
        Just("value"),
        Just("x"),
    ];
    // A schema does not see that a field is said twice, so no field is.
    proptest::collection::btree_map(key, value, 0..4).prop_map(|fields| {
        let fields: Vec<_> = fields
            .iter()
            .map(|(key, value)| format!("\"{key}\":{value}"))
            .collect();
        format!("{{{}}}", fields.join(","))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn parser_and_schema_agree(topic in proptest::sample::select(&TOPICS[..]), payload in json()) {
        let parsed = parse_at(topic, payload.as_bytes());
        let taken = schema_takes(topic, payload.as_bytes());
        prop_assert_eq!(parsed.is_ok(), taken, "{} {}", topic, payload);
    }

    #[test]
    fn no_bytes_panic(topic in proptest::sample::select(&TOPICS[..]), payload: Vec<u8>) {
        let _ = parse_at(topic, &payload);
        let _ = id_of(&payload);
    }
}
