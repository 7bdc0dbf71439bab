//! Packets as bytes: the examples and the table of `docs/wire.md`, and the longest of everything.

use ocelli_wire::frame::{FrameError, MAX_RAW_BYTES, checksum};
use ocelli_wire::message::*;
use ocelli_wire::packet::{Head, MAX_HEAD_BYTES, MAX_PACKET_BYTES};
use ocelli_wire::{
    FrameBuffer, FrameDecoder, Hello, MAX_FRAME_BYTES, Packet, Role, SCHEMA_FINGERPRINT, VERSION,
};
use proptest::prelude::*;

const DOCUMENT: &str = include_str!("../../../docs/wire.md");

fn longest<const N: usize>() -> Text<N> {
    cut(&"x".repeat(N))
}

/// Every message with every field as long as it gets.
fn longest_messages() -> [Message; 13] {
    [
        Message::Event(Event {
            id: u32::MAX,
            phase: Phase::End,
            rule: longest(),
            choice: longest(),
            probability: u16::MAX,
        }),
        Message::Answer(Answer {
            request: u16::MAX,
            verdict: Verdict::Failed,
            probability: u16::MAX,
            text: longest(),
        }),
        Message::SetPin(SetPin {
            request: u16::MAX,
            pin: longest(),
            value: i32::MIN,
            max_on_ms: u32::MAX,
        }),
        Message::PinOutcome(PinOutcome {
            request: u16::MAX,
            outcome: Outcome::Refused,
        }),
        Message::PinEdge(PinEdge {
            pin: longest(),
            level: true,
            at_ms: u32::MAX,
        }),
        Message::Reading(Reading {
            sensor: longest(),
            milli: i32::MIN,
            unit: longest(),
            at_ms: u32::MAX,
        }),
        Message::Look(Look {
            request: u16::MAX,
            question: longest(),
            choices: (0..6).map(|_| longest()).collect(),
        }),
        Message::StateRequest,
        Message::State(State {
            mode: Mode::Stopping,
            uptime_s: u32::MAX,
            n_armed_rules: u16::MAX,
            temperature_dc: Some(i16::MIN),
            fault: longest(),
        }),
        Message::Log(Log {
            severity: Severity::Error,
            text: longest(),
        }),
        Message::ApprovalRequest(ApprovalRequest {
            request: u16::MAX,
            rule: longest(),
            action: longest(),
            expires_ms: u32::MAX,
        }),
        Message::Approval(Approval {
            request: u16::MAX,
            granted: true,
        }),
        Message::Packet(ocelli_wire::message::Packet {
            number: u8::MAX,
            body: longest(),
            is_command: false,
        }),
    ]
}

fn encoded(message: &Message) -> Vec<u8> {
    let mut buffer = [0; 1024];
    postcard::to_slice(message, &mut buffer).unwrap().to_vec()
}

fn name(message: &Message) -> String {
    let debug = format!("{message:?}");
    debug.split('(').next().unwrap().to_owned()
}

fn decode(frame: &[u8]) -> Option<Result<Packet, FrameError>> {
    let mut decoder = FrameDecoder::new();
    frame
        .iter()
        .fold(None, |found, &byte| decoder.push(byte).or(found))
}

fn hex(bytes: &[u8]) -> String {
    let words: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    words.join(" ")
}

/// Rows of the table under this heading of the document, as cells.
fn table(heading: &str) -> Vec<Vec<String>> {
    let (_, section) = DOCUMENT.split_once(&format!("{heading}\n")).expect(heading);
    section
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| {
            let cells = line.trim_matches('|').split('|');
            cells.map(|cell| cell.trim().replace('`', "")).collect()
        })
        .collect()
}

#[test]
fn the_document_lists_every_message_with_its_number_way_delivery_and_size() {
    let rows = table("### Messages");
    let expected: Vec<Vec<String>> = longest_messages()
        .iter()
        .map(|message| {
            let bytes = encoded(message);
            let way = match message.direction() {
                Direction::ToPeer => "agent",
                Direction::ToAgent => "peer",
                Direction::Both => "both",
            };
            let delivery = match message.delivery() {
                _ if matches!(message, Message::Packet(_)) => "either",
                Delivery::Record => "record",
                Delivery::Command => "command",
                Delivery::Loose => "loose",
            };
            vec![
                bytes[0].to_string(),
                name(message),
                way.to_owned(),
                delivery.to_owned(),
                bytes.len().to_string(),
            ]
        })
        .collect();
    let found: Vec<Vec<String>> = rows.iter().map(|row| row[..5].to_vec()).collect();
    assert_eq!(found, expected);
}

#[test]
fn the_longest_message_fits_a_packet_and_the_longest_packet_a_frame() {
    let mut buffer = FrameBuffer::new();
    for message in longest_messages() {
        assert!(encoded(&message).len() <= MAX_MESSAGE_BYTES, "{message:?}");
        let head = Head::Reliable {
            to: u16::MAX,
            sequence: u16::MAX,
        };
        let frame = buffer.write(&head, Some(&message)).unwrap();
        assert!(frame.len() <= MAX_FRAME_BYTES);
        assert_eq!(
            decode(frame),
            Some(Ok(Packet {
                head,
                message: Some(message)
            }))
        );
    }
    assert_eq!(MAX_PACKET_BYTES, MAX_HEAD_BYTES + MAX_MESSAGE_BYTES);
    const { assert!(MAX_RAW_BYTES < 254, "COBS would add a second byte") };
    let hello = Head::Hello(Hello {
        version: VERSION,
        schema: u32::MAX,
        role: Role::Peer,
        incarnation: u32::MAX,
        session: u16::MAX,
        peer_incarnation: u32::MAX,
        peer_session: u16::MAX,
        is_up: true,
        name: longest(),
    });
    assert!(buffer.write(&hello, None).is_some());
}

#[test]
fn the_document_states_the_limits_of_the_code() {
    for sentence in [
        format!("A message has at most {MAX_MESSAGE_BYTES} bytes"),
        format!("a frame at most {MAX_FRAME_BYTES}"),
        format!("protocol {}.{}", VERSION.major, VERSION.minor),
        format!("fingerprint `{SCHEMA_FINGERPRINT:#010x}`"),
        format!("\"123456789\" is `{:#06x}`", checksum(b"123456789")),
    ] {
        assert!(DOCUMENT.contains(&sentence), "missing: {sentence}");
    }
    // The check value of CRC-16/IBM-3740 in the catalogue of CRCs.
    assert_eq!(checksum(b"123456789"), 0x29b1);
}

/// The examples of the document, in its order.
fn examples() -> Vec<(&'static str, Head, Option<Message>)> {
    let (to, sequence) = (0x1234, 7);
    let hello = Hello {
        version: VERSION,
        schema: SCHEMA_FINGERPRINT,
        role: Role::Peer,
        incarnation: 1,
        session: 0x1234,
        peer_incarnation: 0,
        peer_session: 0,
        is_up: false,
        name: cut("door"),
    };
    let pin = Message::SetPin(SetPin {
        request: 9,
        pin: cut("lamp"),
        value: 1,
        max_on_ms: 500,
    });
    let edge = Message::PinEdge(PinEdge {
        pin: cut("pir"),
        level: true,
        at_ms: 1000,
    });
    vec![
        (
            "hello of a peer that has heard nobody",
            Head::Hello(hello),
            None,
        ),
        (
            "set the pin `lamp` to 1 for 500 ms",
            Head::Reliable { to, sequence },
            Some(pin),
        ),
        ("its acknowledgement", Head::Ack { to, sequence }, None),
        (
            "the pin `pir` rose at 1000 ms",
            Head::Reliable { to, sequence },
            Some(edge),
        ),
        (
            "heartbeat at 300 ms",
            Head::Heartbeat { to, clock_ms: 300 },
            None,
        ),
        (
            "a state is asked for",
            Head::Reliable { to, sequence },
            Some(Message::StateRequest),
        ),
    ]
}

#[test]
fn the_examples_of_the_document_are_the_bytes_of_the_code() {
    let rows = table("### Examples");
    let mut buffer = FrameBuffer::new();
    let expected: Vec<Vec<String>> = examples()
        .iter()
        .map(|(what, head, message)| {
            let frame = buffer.write(head, message.as_ref()).unwrap();
            vec![what.replace('`', ""), hex(frame)]
        })
        .collect();
    assert_eq!(rows, expected, "{expected:#?}");
}

#[test]
fn text_that_is_longer_than_its_field_is_no_message() {
    let mut bytes = encoded(&Message::Approval(Approval {
        request: 1,
        granted: true,
    }));
    // Number of PinEdge, then a name of 33 bytes.
    bytes.splice(.., [4, 33].into_iter().chain([b'x'; 40]));
    let mut packet = [0; 80];
    let head = Head::Reliable { to: 1, sequence: 1 };
    let n_head = ocelli_wire::packet::encode(&head, None, &mut packet).unwrap();
    packet[n_head..n_head + bytes.len()].copy_from_slice(&bytes);
    let decoded = Packet::decode(&packet[..n_head + bytes.len()]).unwrap();
    assert_eq!(
        decoded,
        Packet {
            head,
            message: None
        }
    );
}

#[test]
fn bytes_left_over_make_a_message_unusable() {
    let mut packet = [0; 80];
    let head = Head::Reliable { to: 1, sequence: 1 };
    let n_bytes =
        ocelli_wire::packet::encode(&head, Some(&Message::StateRequest), &mut packet).unwrap();
    assert!(
        Packet::decode(&packet[..n_bytes])
            .unwrap()
            .message
            .is_some()
    );
    assert!(
        Packet::decode(&packet[..=n_bytes])
            .unwrap()
            .message
            .is_none()
    );
    let ack = Head::Ack { to: 1, sequence: 1 };
    let n_bytes = ocelli_wire::packet::encode(&ack, None, &mut packet).unwrap();
    assert!(Packet::decode(&packet[..n_bytes]).is_some());
    assert!(Packet::decode(&packet[..=n_bytes]).is_none());
}

#[test]
fn every_single_and_double_bit_error_is_found() {
    let mut buffer = FrameBuffer::new();
    for (what, head, message) in examples() {
        let frame = buffer.write(&head, message.as_ref()).unwrap().to_vec();
        let sound = decode(&frame);
        let n_bits = (frame.len() - 1) * 8;
        for first in 0..n_bits {
            for second in first..n_bits {
                let mut damaged = frame.clone();
                damaged[first / 8] ^= 1 << (first % 8);
                if second > first {
                    damaged[second / 8] ^= 1 << (second % 8);
                }
                assert_ne!(decode(&damaged), sound, "{what}: {first} {second}");
            }
        }
    }
}

#[test]
fn a_frame_without_end_is_dropped_and_the_next_is_read() {
    let mut buffer = FrameBuffer::new();
    let head = Head::Ack { to: 1, sequence: 2 };
    let frame = buffer.write(&head, None).unwrap().to_vec();
    for n_garbage in [1, MAX_FRAME_BYTES - 3, MAX_FRAME_BYTES, 10_000] {
        let mut decoder = FrameDecoder::new();
        let garbage = vec![0xaa; n_garbage];
        let found: Vec<_> = garbage
            .iter()
            .chain(&[0])
            .chain(&frame)
            .filter_map(|&byte| decoder.push(byte))
            .collect();
        assert_eq!(found.len(), 2, "{n_garbage}");
        assert!(found[0].is_err(), "{n_garbage}");
        assert!(found[1].is_ok(), "{n_garbage}");
    }
}

proptest! {
    #[test]
    fn any_bytes_decode_or_do_not_without_harm(
        bytes in prop::collection::vec(prop_oneof![Just(0_u8), any::<u8>()], 0..2000),
    ) {
        let mut decoder = FrameDecoder::new();
        for byte in bytes {
            decoder.push(byte);
        }
    }
}
