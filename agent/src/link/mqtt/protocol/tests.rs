use super::*;

const NOW: Duration = Duration::from_secs(100);

fn connected(version: Version) -> Protocol {
    let mut protocol = Protocol::new(version);
    let hello = Hello {
        client_id: "me",
        user: Some("u"),
        password: Some("p"),
        keep_alive_s: 5,
        will_topic: "b/availability",
        will_payload: b"offline",
    };
    protocol.connect(&hello, NOW).unwrap();
    assert!(!protocol.output().is_empty());
    protocol.output().clear();
    let connack: &[u8] = match version {
        Version::V5 => &[0x20, 3, 0, 0, 0],
        Version::V311 => &[0x20, 2, 0, 0],
    };
    assert_eq!(protocol.receive(connack, NOW), [Arrived::Connected]);
    protocol
}

fn message(payload: &[u8]) -> Publish {
    Publish {
        topic: "b/events".to_owned(),
        payload: payload.to_vec(),
        qos: 1,
        retained: false,
        expiry: Some(60),
        media_type: "application/json",
        schema_version: Some(1),
        correlation: Some(vec![1, 2]),
    }
}

#[test]
fn an_acknowledgement_bears_the_number_of_its_message() {
    for version in [Version::V5, Version::V311] {
        let mut protocol = connected(version);
        let first = protocol.publish(&message(b"a"), NOW).unwrap().unwrap();
        let second = protocol.publish(&message(b"b"), NOW).unwrap().unwrap();
        assert_ne!(first, second);
        let [high, low] = second.to_be_bytes();
        let arrived = protocol.receive(&[0x40, 2, high, low], NOW);
        let acknowledged = Arrived::Acknowledged {
            packet_id: second,
            refusal: None,
        };
        assert_eq!(arrived, [acknowledged], "{version:?}");
    }
}

#[test]
fn a_packet_may_come_byte_by_byte() {
    let mut protocol = connected(Version::V5);
    // PUBLISH at QoS 0: topic `a`, expiry 7, response topic `r`, correlation data `c`, payload `x`.
    let packet = [
        0x30, 18, 0, 1, b'a', 13, 2, 0, 0, 0, 7, 8, 0, 1, b'r', 9, 0, 1, b'c', b'x',
    ];
    let arrived: Vec<_> = packet
        .iter()
        .flat_map(|byte| protocol.receive(&[*byte], NOW))
        .collect();
    let expected = Message {
        topic: "a".to_owned(),
        payload: b"x".to_vec(),
        retained: false,
        expiry: Some(7),
        response_topic: Some("r".to_owned()),
        correlation: Some(b"c".to_vec()),
    };
    assert_eq!(arrived, [Arrived::Message(expected)]);
}

#[test]
fn a_broker_that_answers_no_ping_is_gone_however_often_it_is_asked() {
    for version in [Version::V5, Version::V311] {
        let mut protocol = connected(version);
        let mut now = NOW;
        let mut over = None;
        while over.is_none() && now < NOW + Duration::from_secs(60) {
            now = protocol.deadline().unwrap();
            over = protocol.tick(now);
        }
        assert!(matches!(over, Some(Arrived::Over(_))), "{version:?}");
        assert_eq!(now, NOW + Duration::from_secs(15), "{version:?}");
    }
}

#[test]
fn an_answered_ping_keeps_the_connection() {
    let mut protocol = connected(Version::V5);
    for _ in 0..10 {
        let now = protocol.deadline().unwrap();
        assert_eq!(protocol.tick(now), None);
        assert_eq!(protocol.output().as_slice(), [0xC0, 0]);
        protocol.output().clear();
        assert_eq!(protocol.receive(&[0xD0, 0], now), []);
    }
}

#[test]
fn a_refused_connection_says_why() {
    for (version, connack, says) in [
        (Version::V5, &[0x20, 3, 0, 0x87, 0][..], "NotAuthorized"),
        (Version::V311, &[0x20, 2, 0, 5][..], "NotAuthorized"),
    ] {
        let mut protocol = Protocol::new(version);
        let hello = Hello {
            client_id: "me",
            user: None,
            password: None,
            keep_alive_s: 5,
            will_topic: "w",
            will_payload: b"",
        };
        protocol.connect(&hello, NOW).unwrap();
        match protocol.receive(connack, NOW).as_slice() {
            [Arrived::Over(reason)] => assert!(reason.contains(says), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_message_larger_than_the_broker_takes_is_refused_before_it_is_sent() {
    let mut protocol = Protocol::new(Version::V5);
    let hello = Hello {
        client_id: "me",
        user: None,
        password: None,
        keep_alive_s: 5,
        will_topic: "w",
        will_payload: b"",
    };
    protocol.connect(&hello, NOW).unwrap();
    // Maximum packet size 100, receive maximum 1.
    protocol.receive(&[0x20, 11, 0, 0, 8, 0x27, 0, 0, 0, 100, 0x21, 0, 1], NOW);
    assert_eq!(
        protocol.publish(&message(&[0; 100]), NOW),
        Err(PublishFault::TooLarge)
    );
    let sent = protocol.publish(&message(b"a"), NOW).unwrap();
    assert_eq!(
        sent,
        Some(1),
        "the number of the refused message is free again"
    );
    assert_eq!(
        protocol.publish(&message(b"b"), NOW),
        Err(PublishFault::Busy)
    );
    protocol.receive(&[0x40, 2, 0, 1], NOW);
    assert!(protocol.publish(&message(b"b"), NOW).is_ok());
}

#[test]
fn a_topic_that_is_given_up_is_named_and_its_number_is_free_again() {
    for version in [Version::V5, Version::V311] {
        let mut protocol = connected(version);
        let topics = ["door/go".to_owned(), "door/stop".to_owned()];
        for _ in 0..2 {
            protocol.unsubscribe(&topics, NOW).unwrap();
            let sent = protocol.output().clone();
            assert_eq!(sent[0], 0xA2, "{version:?}");
            for topic in &topics {
                let named = sent.windows(topic.len()).any(|at| at == topic.as_bytes());
                assert!(named, "{version:?} {topic}");
            }
            assert_eq!(sent[2..4], [0, 1], "{version:?}");
            protocol.output().clear();
            let unsuback: &[u8] = match version {
                Version::V5 => &[0xB0, 5, 0, 1, 0, 0, 0],
                Version::V311 => &[0xB0, 2, 0, 1],
            };
            assert_eq!(protocol.receive(unsuback, NOW), [], "{version:?}");
        }
    }
}

#[test]
fn rubbish_ends_the_connection() {
    for version in [Version::V5, Version::V311] {
        for rubbish in [
            &[0xFF; 64][..],
            &[0x20, 0x80, 0x80, 0x80, 0x80, 0x01],
            &[0x40, 0],
        ] {
            let arrived = connected(version).receive(rubbish, NOW);
            assert!(
                matches!(arrived.last(), Some(Arrived::Over(_))),
                "{version:?} {rubbish:?}"
            );
        }
    }
}
