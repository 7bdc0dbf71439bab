//! Frames of an earlier session, and ends of an earlier version.

use ocelli_wire::message::{Packet, SetPin, cut};
use ocelli_wire::packet::Head;
use ocelli_wire::{
    Endpoint, FrameBuffer, FrameDecoder, Hello, Identity, Message, NackReason, Notice, Role,
    Timing, UndeliveredReason, Version,
};

type End = Endpoint<4>;

/// Hands everything `from` has to say to `to`; returns what was heard.
fn hand_over(from: &mut End, to: &mut End, now: u64) -> Vec<Notice> {
    let (mut buffer, mut heard) = (FrameBuffer::new(), Vec::new());
    while let Some(frame) = from.next_frame(&mut buffer, now) {
        heard.extend(hear(to, frame, now));
    }
    heard
}

fn hear(end: &mut End, mut bytes: &[u8], now: u64) -> Vec<Notice> {
    std::iter::from_fn(|| end.on_bytes(&mut bytes, now)).collect()
}

fn bring_up(agent: &mut End, peer: &mut End, now: u64) {
    for _ in 0..4 {
        hand_over(agent, peer, now);
        hand_over(peer, agent, now);
    }
    assert!(agent.is_up() && peer.is_up());
}

#[test]
fn a_command_of_an_earlier_session_is_dropped() {
    let timing = Timing::for_baud(115_200);
    let mut agent = End::new(Identity::new(Role::Agent, "a", 1), timing, 0);
    let mut peer = End::new(Identity::new(Role::Peer, "p", 2), timing, 0);
    bring_up(&mut agent, &mut peer, 0);
    let unlock = Message::SetPin(SetPin {
        request: 1,
        pin: cut("lock"),
        value: 1,
        max_on_ms: 1000,
    });
    // The frame stays somewhere on the way.
    agent.send(unlock.clone(), 100).unwrap();
    let frame = agent
        .next_frame(&mut FrameBuffer::new(), 100)
        .unwrap()
        .to_vec();
    assert!(matches!(peer.close(200), Some(Notice::Down(_))));
    bring_up(&mut agent, &mut peer, 1000);
    let n_stale = peer.counters().stale;
    assert_eq!(hear(&mut peer, &frame, 1001), []);
    assert_eq!(peer.counters().stale, n_stale + 1);

    agent.send(unlock.clone(), 1100).unwrap();
    let heard = hand_over(&mut agent, &mut peer, 1100);
    assert_eq!(heard, [Notice::Received(unlock)]);
}

#[test]
fn an_end_that_hears_itself_stays_down_and_says_so_once() {
    let timing = Timing::for_baud(115_200);
    let mut agent = End::new(Identity::new(Role::Agent, "a", 1), timing, 0);
    let mut refusals = 0;
    for now in (0..10_000).step_by(50) {
        let frame = agent
            .next_frame(&mut FrameBuffer::new(), now)
            .map(<[u8]>::to_vec);
        let heard = hear(&mut agent, &frame.unwrap_or_default(), now);
        refusals += heard
            .iter()
            .filter(|n| matches!(n, Notice::Refused(_)))
            .count();
    }
    assert!(!agent.is_up());
    assert_eq!(refusals, 1);
}

/// What the frames of `end` say.
fn heads(end: &mut End, now: u64) -> Vec<Head> {
    let (mut buffer, mut decoder) = (FrameBuffer::new(), FrameDecoder::new());
    let mut heads = Vec::new();
    while let Some(frame) = end.next_frame(&mut buffer, now) {
        let packets = frame.iter().filter_map(|&byte| decoder.push(byte));
        heads.extend(packets.map(|packet| packet.unwrap().head));
    }
    heads
}

#[test]
fn an_end_of_minor_0_is_talked_to_and_refuses_what_it_does_not_know() {
    let timing = Timing::for_baud(115_200);
    let mut agent = End::new(Identity::new(Role::Agent, "a", 1), timing, 0);
    let said = heads(&mut agent, 0);
    let [Head::Hello(mine)] = said.as_slice() else {
        panic!("{said:?}");
    };
    let hello = |minor, schema| {
        Head::Hello(Hello {
            version: Version { major: 1, minor },
            schema,
            role: Role::Peer,
            incarnation: 2,
            session: 77,
            peer_incarnation: mine.incarnation,
            peer_session: mine.session,
            is_up: false,
            name: cut("p"),
        })
    };
    let mut buffer = FrameBuffer::new();
    let other_types = buffer.write(&hello(1, 0x1a05_2963), None).unwrap();
    let heard = hear(&mut agent, other_types, 1);
    assert!(matches!(heard[..], [Notice::Refused(_)]), "{heard:?}");

    let frame = buffer.write(&hello(0, 0x1a05_2963), None).unwrap();
    let heard = hear(&mut agent, frame, 2);
    let version = Version { major: 1, minor: 0 };
    assert!(
        matches!(&heard[..], [Notice::Up { version: of, .. }] if *of == version),
        "{heard:?}"
    );
    let bell = Message::Packet(Packet {
        number: 3,
        body: cut("ring"),
        is_command: true,
    });
    let ticket = agent.send(bell, 1000).unwrap().unwrap();
    let sequence = heads(&mut agent, 1000).iter().find_map(|head| match head {
        Head::Reliable { sequence, .. } => Some(*sequence),
        _ => None,
    });
    let nack = Head::Nack {
        to: mine.session,
        sequence: sequence.unwrap(),
        reason: NackReason::Unknown,
    };
    let frame = buffer.write(&nack, None).unwrap();
    let rejected = UndeliveredReason::Rejected(NackReason::Unknown);
    assert_eq!(
        hear(&mut agent, frame, 1001),
        [Notice::Undelivered(ticket, rejected)]
    );
}

#[test]
fn a_packet_that_is_a_command_is_never_late_and_another_one_waits() {
    let timing = Timing::for_baud(115_200);
    let mut agent = End::new(Identity::new(Role::Agent, "a", 1), timing, 0);
    let mut peer = End::new(Identity::new(Role::Peer, "p", 2), timing, 0);
    let bell = |is_command| {
        Message::Packet(Packet {
            number: 3,
            body: cut("ring"),
            is_command,
        })
    };
    assert!(agent.send(bell(true), 0).is_err());
    agent.send(bell(false), 0).unwrap();
    peer.send(bell(false), 0).unwrap();
    let mut heard = Vec::new();
    for now in (0..1000).step_by(50) {
        heard.extend(hand_over(&mut agent, &mut peer, now));
        heard.extend(hand_over(&mut peer, &mut agent, now));
    }
    let received = Notice::Received(bell(false));
    assert_eq!(heard.iter().filter(|n| **n == received).count(), 2);
}
