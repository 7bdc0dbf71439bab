//! MQTT command payloads: whatever topic and bytes, parsing is a refusal with a reason or a command
//! within its bounds.
//!
//! The first byte chooses the topic, the rest is the payload.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ocelli_agent::link::mqtt::command::{Command, MAX_CHOICES, MAX_TOKENS, PinValue, id_of, parse};
use ocelli_agent::link::mqtt::payload::{MAX_QUESTION_BYTES, MAX_WORD_BYTES, Reply, reply_json};
use ocelli_agent::link::mqtt::topics::{MAX_COMMAND_BYTES, Names, is_name};

const TOPICS: [&str; 11] = [
    "b/command/look",
    "b/command/ask",
    "b/command/approve",
    "b/command/deny",
    "b/command/reload",
    "b/rule/person/set",
    "b/pin/lamp/set",
    "b/feature/mode/set",
    "b/rule//set",
    "ha/status",
    "ha/device/d/config",
];

fn is_word(text: &str) -> bool {
    (1..=MAX_WORD_BYTES).contains(&text.len())
}

fn check(command: &Command) {
    match command {
        Command::Look { rule } => assert!(rule.as_deref().is_none_or(is_name)),
        Command::Ask {
            question,
            choices,
            camera,
            max_tokens,
        } => {
            assert!((1..=MAX_QUESTION_BYTES).contains(&question.len()));
            assert!(choices.len() != 1 && choices.len() <= MAX_CHOICES);
            assert!(choices.iter().chain(camera).all(|word| is_word(word)));
            assert!(max_tokens.is_none_or(|n| (1..=MAX_TOKENS).contains(&n)));
        }
        Command::Decide { action, nonce, .. } => assert!(is_word(action) && is_word(nonce)),
        Command::SetRule { rule, .. } => assert!(is_name(rule)),
        Command::SetPin { pin, value } => {
            assert!(is_name(pin));
            assert!(!matches!(value, PinValue::Number(number) if !number.is_finite()));
        }
        Command::SetFeature { feature, value } => assert!(is_name(feature) && is_word(value)),
        Command::Reload => {}
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((choice, payload)) = input.split_first() else {
        return;
    };
    let topic = TOPICS[usize::from(*choice) % TOPICS.len()];
    let Ok(names) = Names::new("b", Some("ha"), "d") else {
        return;
    };
    let Some(heard) = names.heard(topic) else {
        return;
    };
    match parse(&heard, payload) {
        Ok(parsed) => {
            assert!(payload.len() <= MAX_COMMAND_BYTES);
            assert!(parsed.id.as_deref().is_none_or(is_word));
            check(&parsed.command);
        }
        Err(error) => {
            let id = id_of(payload);
            let reply = reply_json(Reply::from(&error), id.as_deref());
            assert!(serde_json::from_slice::<serde_json::Value>(&reply).is_ok());
        }
    }
});
