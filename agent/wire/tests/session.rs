//! Frames of an earlier session.

use ocelli_wire::message::{SetPin, cut};
use ocelli_wire::{Endpoint, FrameBuffer, Identity, Message, Notice, Role, Timing};

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
