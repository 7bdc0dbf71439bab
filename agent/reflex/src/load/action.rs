//! Actions of rules.

use super::names::find;
use super::section::{Item, Section};
use crate::action::{Action, Command, PinValue};
use crate::channel::Direction;
use crate::index::{HookIndex, PacketIndex, PinIndex, TopicIndex};
use crate::limit::{MAX_NAME, MAX_TEMPLATE};
use crate::permission::Level;
use crate::pin::Envelope;
use crate::policy::{PLACEHOLDERS, Policy, fill};
use std::cell::Cell;

const KEYS: [&str; 6] = ["publish", "snapshot", "packet", "set", "hook", "event"];

/// Reads one action; `says` is needed where a model chooses.
pub(super) fn action(item: &Item<'_>, policy: &Policy, is_choice: bool) -> Option<Action> {
    let section = item.section(
        "the action",
        &[
            "publish", "snapshot", "packet", "set", "hook", "event", "payload", "body", "value",
            "times", "plus", "for", "hold", "says",
        ],
    )?;
    let (key, target) = section.one_of(&KEYS)?;
    let extra: &[&str] = match key {
        "publish" => &["payload"],
        "packet" => &["body"],
        "set" => &["value", "times", "plus", "for"],
        "event" => &["hold"],
        _ => &[],
    };
    only(&section, key, extra, is_choice);
    let (command, level) = match key {
        "publish" => publish(&section, &target, policy),
        "packet" => packet(&section, &target, policy),
        "set" => set(&section, &target, policy),
        "hook" => {
            let index = find(&target, &policy.hooks)?;
            let hook = policy.hooks.get(usize::from(index))?;
            let hook_index = HookIndex(index);
            Some((Command::Hook { hook: hook_index }, hook.level))
        }
        "event" => Some((
            Command::Event {
                label: target.name()?.to_string(),
                hold: section.duration("hold").unwrap_or(30_000),
            },
            Level::Notify,
        )),
        _ => {
            if target.flag()? {
                Some((Command::Snapshot, Level::Observe))
            } else {
                target.bad("true");
                None
            }
        }
    }?;
    let says = match is_choice {
        true => section.need("says")?.text(MAX_NAME * 2)?,
        false => String::new(),
    };
    Some(Action {
        command,
        level,
        says,
        at: item.span,
    })
}

fn only(section: &Section<'_>, key: &str, extra: &[&str], is_choice: bool) {
    for (other, span, _) in section.entries() {
        let fits = other == key
            || extra.contains(&other.as_str())
            || KEYS.contains(&other.as_str())
            || (other == "says" && is_choice);
        let is_known = [
            "payload", "body", "value", "times", "plus", "for", "hold", "says",
        ]
        .contains(&other.as_str());
        if !fits && is_known {
            let what = format!("`{other}` does not belong to `{key}`");
            section.contradiction(span, what, "remove the key");
        }
    }
}

fn publish(section: &Section<'_>, target: &Item<'_>, policy: &Policy) -> Option<(Command, Level)> {
    let index = find(target, &policy.topics)?;
    let topic = policy.topics.get(usize::from(index))?;
    if topic.direction == Direction::In {
        target.bad("a topic with direction = \"out\"");
        return None;
    }
    let payload = template(section, "payload", "{answer}")?;
    let topic_index = TopicIndex(index);
    let command = Command::Publish {
        topic: topic_index,
        payload,
    };
    Some((command, topic.level))
}

fn packet(section: &Section<'_>, target: &Item<'_>, policy: &Policy) -> Option<(Command, Level)> {
    let index = find(target, &policy.packets)?;
    let packet = policy.packets.get(usize::from(index))?;
    if packet.direction == Direction::In {
        target.bad("a packet with direction = \"out\"");
        return None;
    }
    let body = template(section, "body", "{answer}")?;
    let packet_index = PacketIndex(index);
    let command = Command::Packet {
        packet: packet_index,
        body,
    };
    Some((command, packet.level))
}

/// A text with placeholders, all of them known.
fn template(section: &Section<'_>, key: &str, default: &str) -> Option<String> {
    let Some(item) = section.get(key) else {
        return Some(default.to_owned());
    };
    let text = item.text(MAX_TEMPLATE)?;
    let unknown = Cell::new(None);
    fill(&text, |placeholder| {
        // Braces around anything else are text, as in JSON.
        let is_word = !placeholder.is_empty()
            && placeholder
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        if is_word && !PLACEHOLDERS.contains(&placeholder) {
            unknown.set(Some(placeholder.to_owned()));
        }
        None
    });
    if let Some(name) = unknown.take() {
        let placeholder = format!(
            "a text in which `{{{name}}}` is one of {{{}}}",
            PLACEHOLDERS.join("}, {")
        );
        item.bad(placeholder);
    }
    Some(text)
}

fn set(section: &Section<'_>, target: &Item<'_>, policy: &Policy) -> Option<(Command, Level)> {
    let index = find(target, &policy.pins)?;
    let Some(envelope) = policy.pins.get(usize::from(index))?.envelope() else {
        target.bad("a pin with direction = \"out\"");
        return None;
    };
    let value = section
        .need("value")
        .and_then(|item| pin_value(section, &item, envelope))?;
    let command = Command::Set {
        pin: PinIndex(index),
        value,
        hold: section.duration("for"),
    };
    Some((command, envelope.level))
}

fn pin_value(section: &Section<'_>, item: &Item<'_>, envelope: &Envelope) -> Option<PinValue> {
    let whole = i64::from(i32::MIN)..=i64::from(i32::MAX);
    let small = |key: &str, default: i32| match section.get(key) {
        Some(item) => i32::try_from(item.integer(whole.clone())?).ok(),
        None => Some(default),
    };
    if item.is_text() {
        let on = match envelope.range {
            (low, high) if envelope.safe == high => low,
            (_, high) => high,
        };
        let words = [
            ("on", PinValue::Fixed(on)),
            ("off", PinValue::Fixed(envelope.safe)),
            ("answer", PinValue::Answer { times: 1, plus: 0 }),
        ];
        if item.word(&words)? != (PinValue::Answer { times: 1, plus: 0 }) {
            return item.word(&words);
        }
        return Some(PinValue::Answer {
            times: small("times", 1)?,
            plus: small("plus", 0)?,
        });
    }
    let value = i32::try_from(item.integer(whole.clone())?).ok()?;
    Some(PinValue::Fixed(value))
}
