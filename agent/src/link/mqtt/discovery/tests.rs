use super::*;

fn names() -> Names {
    Names::new("b", Some("ha"), "porch").unwrap()
}

fn rule(name: &str, kind: RuleKind) -> Rule {
    Rule {
        name: name.to_owned(),
        title: format!("Rule {name}"),
        kind,
        snapshot: name == "person",
    }
}

fn description() -> Description {
    Description {
        title: "Porch".to_owned(),
        board: "generic".to_owned(),
        version: "0.1.0".to_owned(),
        rules: vec![
            rule("person", RuleKind::YesNo),
            rule(
                "colour",
                RuleKind::Choices(vec!["red".into(), "green".into()]),
            ),
            rule("cars", RuleKind::Count),
            rule("scene", RuleKind::Text),
        ],
        pins: vec![Pin {
            name: "lamp".into(),
            title: "Lamp".into(),
        }],
        features: vec![Feature {
            name: "mode".into(),
            title: "Mode".into(),
            options: vec!["watch".into(), "sleep".into()],
        }],
    }
}

fn config(description: &Description) -> Value {
    serde_json::from_slice(&payload(&names(), description, &Components::new())).unwrap()
}

#[test]
fn every_platform_is_there_with_its_topics() {
    let config = config(&description());
    let table = [
        (
            "answer_person",
            "binary_sensor",
            "stat_t",
            "b/rule/person/answer",
        ),
        ("answer_colour", "sensor", "stat_t", "b/rule/colour/answer"),
        ("answer_cars", "sensor", "json_attr_t", "b/rule/cars/answer"),
        (
            "snapshot_person",
            "image",
            "img_t",
            "b/rule/person/snapshot",
        ),
        ("event_person", "event", "stat_t", "b/events"),
        ("rule_person", "switch", "cmd_t", "b/rule/person/set"),
        ("pin_lamp", "switch", "stat_t", "b/pin/lamp/state"),
        ("feature_mode", "select", "cmd_t", "b/feature/mode/set"),
        ("look", "button", "cmd_t", "b/command/look"),
        ("temperature_c", "sensor", "stat_t", "b/stats"),
    ];
    for (id, platform, field, topic) in table {
        let component = &config["cmps"][id];
        assert_eq!(component["p"], platform, "{id}");
        assert_eq!(component[field], topic, "{id}");
        assert_eq!(component["uniq_id"], format!("ocelli_porch_{id}"));
    }
    assert!(config["cmps"].get("snapshot_scene").is_none());
    assert_eq!(config["avty_t"], "b/availability");
    assert!(config["dev"].is_object() && config["o"]["name"].is_string());
}

#[test]
fn descriptions_that_make_no_topics_are_refused() {
    let broken = |change: fn(&mut Description)| {
        let mut description = description();
        change(&mut description);
        description.check().unwrap_err()
    };
    assert!(matches!(
        broken(|d| d.rules[0].name = "a b".into()),
        DescriptionError::Name(_)
    ));
    assert!(matches!(
        broken(|d| d.rules[1].name = "person".into()),
        DescriptionError::Twice { what: "rule", .. }
    ));
    assert!(matches!(
        broken(|d| d.rules[1].kind = RuleKind::Choices(vec!["x".into(), "x".into()])),
        DescriptionError::Options { .. }
    ));
    assert!(matches!(
        broken(|d| d.features[0].options.push("y".repeat(256))),
        DescriptionError::Options { .. }
    ));
    assert!(matches!(
        broken(|d| d.pins = vec![d.pins[0].clone(); MAX_ENTITIES + 1]),
        DescriptionError::TooMany {
            what: "pin",
            count: 257
        }
    ));
    assert_eq!(description().check(), Ok(()));
}

#[test]
fn the_largest_description_fits_its_topic() {
    let name = |n: usize| format!("{n:0>64}");
    let description = Description {
        title: "Porch".into(),
        rules: (0..MAX_ENTITIES / 4)
            .map(|n| rule(&name(n), RuleKind::Text))
            .collect(),
        ..Description::default()
    };
    assert_eq!(description.check(), Ok(()));
    let bytes = payload(&names(), &description, &Components::new()).len();
    assert!(bytes <= Kind::Discovery.topic().max_bytes, "{bytes}");
}

#[test]
fn rubbish_leaves_nothing_behind() {
    let ours = description();
    for retained in [
        "",
        "[]",
        "{}",
        "{\"cmps\":[]}",
        "{\"cmps\":{\"a/b\":{\"p\":\"x\",\"y\":1}}}",
        "{\"cmps\":{\"a\":{\"p\":1,\"y\":1}}}",
    ] {
        assert!(
            gone(&names(), &ours, retained.as_bytes()).is_empty(),
            "{retained}"
        );
    }
}
