//! Rule files: whatever the text, it is rejected with places in it, or it gives a policy that can be
//! stepped and explained.
//!
//! What follows a line `%%` is bytes that become observations.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ocelli_reflex::observation::{Answer, Approval, Frame, HookVerdict, Link, Quality, Stage, Value};
use ocelli_reflex::{
    CallId, Inventory, LocalTime, LookId, Now, Observation, Policy, Probability, QuestionId,
    RequestId, State, Text, explain, load, step,
};

const DIVIDER: &str = "\n%%\n";

fn observation(policy: &Policy, kind: u8, byte: u8, ms: u64) -> Observation {
    let id = u64::from(byte);
    let flag = byte & 1 == 0;
    let pick = |len: usize| usize::from(byte) % len.max(1);
    match kind % 11 {
        0 => Observation::Start { secret: [1, 2] },
        1 => match policy.topics.get(pick(policy.topics.len())) {
            Some(topic) => Observation::Message {
                link: Link::Mqtt,
                topic: topic.name.clone(),
                body: Text::new("ON"),
                retained: false,
            },
            None => Observation::Stop,
        },
        2 => match policy.pins.get(pick(policy.pins.len())) {
            Some(pin) => Observation::Pin { pin: pin.name.clone(), level: flag, initial: false },
            None => Observation::Reload,
        },
        3 => Observation::Looked {
            look: LookId(id),
            frame: Some(Frame { id, time: ms, quality: Quality::Good }),
        },
        4 | 5 => Observation::Answer(Answer {
            question: QuestionId(id),
            value: if kind % 11 == 4 { Value::Choice(byte % 3) } else { Value::Count(id as u32 % 30) },
            probability: Probability::ONE,
            unsure: false,
            frame_time: ms,
            stage: Stage::Refined,
        }),
        6 => Observation::Hook { call: CallId(id), verdict: HookVerdict::Pass },
        7 => Observation::Approval(Approval {
            request: RequestId(id),
            nonce: 0,
            granted: true,
            link: Link::Mqtt,
            retained: false,
        }),
        8 => match policy.rules.get(pick(policy.rules.len())) {
            Some(rule) => Observation::Switch { rule: rule.id.clone(), on: flag },
            None => Observation::Tick,
        },
        9 => match policy.pins.get(pick(policy.pins.len())) {
            Some(pin) => Observation::Command { link: Link::Http, pin: pin.name.clone(), on: flag },
            None => Observation::Tick,
        },
        _ => Observation::Tick,
    }
}

fuzz_target!(|input: &[u8]| {
    let text = String::from_utf8_lossy(input);
    let (file, script) = text.split_once(DIVIDER).unwrap_or((&text, "\0"));
    let inventory = Inventory { serial: true, ..Inventory::default() };
    let policy = match load(file, &inventory) {
        Ok(loaded) => loaded.policy,
        Err(rejected) => {
            assert!(!rejected.diagnostics.is_empty());
            for diagnostic in &rejected.diagnostics {
                assert!(diagnostic.span.start <= file.len() && diagnostic.line > 0);
            }
            let _ = rejected.to_string();
            return;
        }
    };
    let mut state = State::new();
    let mut ms = 0_u64;
    for pair in script.as_bytes().chunks(2).take(200) {
        let byte = pair.get(1).copied().unwrap_or(0);
        ms = ms.wrapping_add(u64::from(byte) * u64::from(byte));
        let local = LocalTime { day: i32::from(pair[0]), second: u32::from(byte) * 400 };
        let now = Now { ms, local: Some(local) };
        let observation = observation(&policy, pair[0], byte, ms);
        let _ = explain(&policy, &state, &observation, now);
        let _ = step(&policy, &mut state, &observation, now);
    }
});
