use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::path::PathBuf;

fn docs() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

fn names() -> Names {
    Names::new("home/porch", Some("homeassistant"), "porch").unwrap()
}

#[test]
fn every_kind_has_one_line() {
    let kinds: BTreeSet<_> = TABLE.iter().map(|topic| topic.kind).collect();
    assert_eq!(kinds.len(), TABLE.len());
    for topic in &TABLE {
        assert_eq!(topic.kind.topic(), topic);
    }
}

#[test]
fn the_table_in_the_document_is_the_table_in_the_code() {
    let document = std::fs::read_to_string(docs().join("wire.md")).unwrap();
    let (_, rest) = document.split_once("<!-- topics -->\n").unwrap();
    let (table, _) = rest.split_once("<!-- /topics -->").unwrap();
    assert_eq!(
        table.trim(),
        markdown().trim(),
        "docs/wire.md: put this between the marks:\n{}",
        markdown()
    );
    assert!(document.contains(&format!("Version {WIRE_VERSION} of topics and payloads")));
}

#[test]
fn schemas_are_those_of_the_table() {
    let named: BTreeSet<String> = TABLE
        .iter()
        .filter_map(|topic| topic.content.schema())
        .map(|schema| format!("{schema}.json"))
        .collect();
    let there: BTreeSet<String> = std::fs::read_dir(docs().join("schemas"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(named, there);
}

#[test]
fn events_replies_and_commands_are_never_retained_and_expire() {
    for topic in &TABLE {
        let command = topic.direction == Direction::In
            && !matches!(topic.kind, Kind::DiscoveryStatus | Kind::DiscoveryEcho);
        if command || matches!(topic.kind, Kind::Event | Kind::Reply) {
            assert!(!topic.retained, "{topic:?}");
            assert!(topic.expiry.is_some(), "{topic:?}");
        } else {
            assert!(topic.retained && topic.idempotent, "{topic:?}");
        }
        if command {
            assert!(topic.max_bytes <= MAX_COMMAND_BYTES);
        }
        assert!(!topic.about.is_empty());
    }
}

#[test]
fn subscriptions_cover_what_is_heard_and_nothing_we_publish() {
    let filters: Vec<_> = names()
        .filters()
        .into_iter()
        .map(|(filter, _)| filter)
        .collect();
    assert_eq!(
        filters,
        [
            "home/porch/command/look",
            "home/porch/command/ask",
            "home/porch/command/approve",
            "home/porch/command/deny",
            "home/porch/command/reload",
            "home/porch/rule/+/set",
            "home/porch/pin/+/set",
            "home/porch/feature/+/set",
            "homeassistant/status",
            "homeassistant/device/porch/config",
        ]
    );
    let silent = Names::new("b", None, "porch").unwrap();
    assert_eq!(silent.filters().len(), 8);
    assert_eq!(silent.path(Kind::Discovery, ""), None);
}

#[test]
fn a_topic_is_heard_with_its_name() {
    let names = names();
    let table = [
        (
            "home/porch/rule/person/set",
            Some((Kind::RuleSet, Some("person"))),
        ),
        (
            "home/porch/pin/lamp/set",
            Some((Kind::PinSet, Some("lamp"))),
        ),
        ("home/porch/command/look", Some((Kind::Look, None))),
        ("homeassistant/status", Some((Kind::DiscoveryStatus, None))),
        ("home/porch/rule//set", Some((Kind::RuleSet, Some("")))),
        ("home/porch/rule/a/b/set", None),
        ("home/porch/rule/set", None),
        ("home/porch/rule/person/state", None),
        ("home/porch/events", None),
        ("home/porchy/command/look", None),
        ("", None),
    ];
    for (topic, expected) in table {
        let found = names
            .heard(topic)
            .map(|heard| (heard.topic.kind, heard.name));
        assert_eq!(found, expected, "{topic}");
    }
}

#[test]
fn answers_go_only_where_they_can_do_no_harm() {
    let names = names();
    let table = [
        ("answers/me", true),
        ("home/porch/reply", true),
        ("home/porch/reply/me", true),
        ("home/porchy/reply", true),
        ("", false),
        ("home/porch", false),
        ("home/porch/events", false),
        ("home/porch/replying", false),
        ("home/porch/pin/lamp/set", false),
        ("home/shed/pin/lamp/set", false),
        ("home/shed/command/look", false),
        ("homeassistant/device/x/config", false),
        ("$SYS/broker", false),
        ("answers/+", false),
        ("answers/#", false),
    ];
    for (topic, may) in table {
        assert_eq!(names.may_answer_on(topic), may, "{topic}");
    }
    assert!(!names.may_answer_on(&"x".repeat(257)));
}

#[test]
fn bases_and_names_that_make_no_topics_are_refused() {
    for base in [
        "", "/", "a/", "/a", "a//b", "a/+", "#", "a b", "a\0", "ö", "$SYS",
    ] {
        let error = Names::new(base, None, "porch").unwrap_err();
        assert!(
            matches!(
                error,
                TopicError::Base {
                    field: "base_topic",
                    ..
                }
            ),
            "{base:?}"
        );
        let error = Names::new("a", Some(base), "porch").unwrap_err();
        assert!(
            matches!(
                error,
                TopicError::Base {
                    field: "discovery_prefix",
                    ..
                }
            ),
            "{base:?}"
        );
    }
    assert!(Names::new(&"x".repeat(MAX_BASE_BYTES + 1), None, "porch").is_err());
    for name in ["", "a/b", "a b", "+", "ü", &"x".repeat(MAX_NAME_BYTES + 1)] {
        assert!(Names::new("a", None, name).is_err(), "{name:?}");
    }
    assert!(Names::new("a.b/c-d_E9", Some("ha"), "A-b_9").is_ok());
}

proptest! {
    #[test]
    fn what_is_heard_is_one_of_our_filters(topic in "(home/porch/)?(rule|pin|feature|command|x)/[a-z/]{0,8}(/set)?") {
        let names = names();
        if let Some(heard) = names.heard(&topic) {
            let name = heard.name.unwrap_or_default();
            prop_assert_eq!(names.path(heard.topic.kind, name), Some(topic));
        }
    }
}
