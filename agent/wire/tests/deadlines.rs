//! An owner that sleeps until the deadlines sees all that one sees that never sleeps.

use ocelli_wire::message::{Event, Phase, cut};
use ocelli_wire::{Endpoint, FrameBuffer, Identity, Message, Notice, Role, Timing};

/// When the agent says something that nobody hears.
const LAST_WORDS_MS: u64 = 3_100;

fn asleep_until(end: &Endpoint<4>, has_last_words: bool) -> u64 {
    let deadline = end.next_tick_at().min(end.next_frame_at());
    match has_last_words {
        true => deadline.min(LAST_WORDS_MS),
        false => deadline,
    }
}

/// What an end does when its owner looks every `step_ms`, or at the deadlines if 0.
fn lonely_end(step_ms: u64) -> (Vec<(u64, Notice)>, Vec<u64>) {
    let timing = Timing::for_baud(115_200);
    let mut agent: Endpoint<4> = Endpoint::new(Identity::new(Role::Agent, "a", 1), timing, 0);
    let mut peer: Endpoint<4> = Endpoint::new(Identity::new(Role::Peer, "p", 2), timing, 0);
    let mut frame = FrameBuffer::new();
    let (mut notices, mut frames) = (Vec::new(), Vec::new());
    let mut now = 0;
    let event = Message::Event(Event {
        id: 1,
        phase: Phase::New,
        rule: cut("door"),
        choice: cut(""),
        probability: 0,
    });
    agent.send(event.clone(), 0).unwrap();
    let mut last_words = Some(event);
    while now < 20_000 {
        if now >= LAST_WORDS_MS
            && let Some(event) = last_words.take()
        {
            agent.send(event, now).unwrap();
        }
        while let Some(notice) = agent.on_tick(now) {
            notices.push((now, notice));
        }
        while let Some(bytes) = agent.next_frame(&mut frame, now) {
            frames.push(now);
            let (mut rest, mut answer) = (bytes, FrameBuffer::new());
            // The peer falls silent after three seconds.
            if now > 3_000 {
                continue;
            }
            while peer.on_bytes(&mut rest, now).is_some() {}
            while let Some(mut bytes) = peer.next_frame(&mut answer, now) {
                while let Some(notice) = agent.on_bytes(&mut bytes, now) {
                    notices.push((now, notice));
                }
            }
        }
        now = match step_ms {
            0 => asleep_until(&agent, last_words.is_some()).max(now + 1),
            step_ms => now + step_ms,
        };
    }
    (notices, frames)
}

#[test]
fn sleeping_until_the_deadlines_misses_nothing() {
    assert_eq!(lonely_end(0), lonely_end(1));
}

#[test]
fn a_lonely_end_says_hello_at_its_interval_and_sleeps_between() {
    let (notices, frames) = lonely_end(0);
    assert!(
        notices
            .iter()
            .any(|(at, n)| *at > 3_000 && matches!(n, Notice::Down(_)))
    );
    assert!(frames.len() < 100, "{}", frames.len());
}
