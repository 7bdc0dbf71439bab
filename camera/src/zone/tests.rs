use super::{MAX_ZONES, Sensitivity, Zone, ZoneError, ZoneName, check_zones};

fn error(text: &str) -> String {
    text.parse::<Zone>().expect_err(text).to_string()
}

#[test]
fn a_zone_is_read_from_the_command_line() {
    let zone: Zone = "gate@70:0.1,0.2 0.5,0.9".parse().expect("a rectangle");
    assert_eq!(zone.name.as_str(), "gate");
    assert_eq!(zone.sensitivity.get(), 70);
    assert_eq!(
        zone.area.corners(),
        [[0.1, 0.2], [0.5, 0.2], [0.5, 0.9], [0.1, 0.9]]
    );
    let polygon: Zone = "path:0,0 1,0 0.5,1".parse().expect("a triangle");
    assert_eq!(
        (polygon.area.corners().len(), polygon.sensitivity),
        (3, Sensitivity::USUAL)
    );
}

#[test]
fn a_zone_is_read_from_settings() {
    let forms = [
        r#"{"name": "gate", "area": "0.1,0.2 0.5,0.9", "sensitivity": 70}"#,
        r#"{"name": "gate", "area": [[0.1, 0.2], [0.5, 0.9]], "sensitivity": 70}"#,
    ];
    for form in forms {
        let zone: Zone = serde_json::from_str(form).expect(form);
        assert_eq!(
            zone,
            "gate@70:0.1,0.2 0.5,0.9".parse().expect("the same zone")
        );
    }
}

#[test]
fn errors_name_the_zone_the_coordinate_and_the_limits() {
    let text = error("gate:0.1,0.2 1.5,0.9");
    for word in ["gate", "corner 2", "x is 1.5", "0 to 1"] {
        assert!(text.contains(word), "{text}");
    }
    let settings = r#"{"name": "gate", "area": [[0.1, 0.2], [0.5, -1]]}"#;
    let text = serde_json::from_str::<Zone>(settings)
        .expect_err("outside")
        .to_string();
    assert!(text.contains("gate") && text.contains("y is -1"), "{text}");
    for sensitivity in ["0", "101", "700", "-1", "x"] {
        assert!(error(&format!("gate@{sensitivity}:0,0 1,1")).contains("1 (only"));
    }
    assert!(error("gate").contains("name:x,y"));
}

#[test]
fn names_that_do_not_fit_into_a_topic_are_refused() {
    for name in ["", "Gate", "1st", "a/b", "a b", "ä", &"a".repeat(33)] {
        assert!(
            matches!(name.parse::<ZoneName>(), Err(ZoneError::Name { .. })),
            "{name}"
        );
    }
    assert!("a".repeat(32).parse::<ZoneName>().is_ok());
}

#[test]
fn zones_are_few_and_have_different_names() {
    let zone = |number: usize| {
        format!("z{number}:0,0 1,1")
            .parse::<Zone>()
            .expect("a zone")
    };
    let many: Vec<Zone> = (0..=MAX_ZONES).map(zone).collect();
    assert_eq!(
        check_zones(&many),
        Err(ZoneError::TooMany {
            count: MAX_ZONES + 1
        })
    );
    assert_eq!(check_zones(&many[1..]), Ok(()));
    assert!(matches!(
        check_zones(&[zone(1), zone(1)]),
        Err(ZoneError::Twice { .. })
    ));
}
