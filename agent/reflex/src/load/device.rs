//! What the rules work with: zones, pins, topics, packets, hooks.

use super::names::{find, tables};
use super::section::{Item, Section};
use super::{Inventory, one_or_more, unknown};
use crate::action::ActionKind;
use crate::channel::{Direction, Packet, Topic};
use crate::diagnostic::{Problem, Span};
use crate::hook::Hook;
use crate::index::PinIndex;
use crate::limit::{
    MAX_HOOKS, MAX_INTERLOCKS, MAX_PACKETS, MAX_PINS, MAX_TEMPLATE, MAX_TOPICS, MAX_ZONES,
};
use crate::observation::Link;
use crate::permission::Level;
use crate::pin::{Envelope, Interlock, Pin, Role, SERIAL};
use crate::policy::Policy;
use crate::text::{Name, name};

pub(super) fn zones(file: &Section<'_>, inventory: &Inventory, policy: &mut Policy) {
    let known = inventory.zones.as_deref();
    policy.zones = names(file, "zones", "zone", known);
}

pub(super) fn schemas(file: &Section<'_>, inventory: &Inventory) -> Vec<Name> {
    names(file, "schemas", "schema", inventory.schemas.as_deref())
}

fn names(file: &Section<'_>, key: &str, kind: &'static str, known: Option<&[String]>) -> Vec<Name> {
    let mut names: Vec<(Name, Span)> = Vec::new();
    for item in file
        .get(key)
        .map_or(Vec::new(), |item| item.list(MAX_ZONES, kind))
    {
        let Some(name) = item.name() else { continue };
        if let Some(known) = known.filter(|known| !known.iter().any(|known| *known == *name)) {
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            unknown(file.report, &item, kind, &known);
        }
        match names.iter().find(|(first, _)| *first == name) {
            Some((_, first)) => duplicate(file, kind, &name, *first, item.span),
            None => names.push((name, item.span)),
        }
    }
    names.into_iter().map(|(name, _)| name).collect()
}

pub(super) fn duplicate(
    file: &Section<'_>,
    kind: &'static str,
    name: &str,
    first: Span,
    second: Span,
) {
    let problem = Problem::Duplicate {
        kind,
        name: name.to_owned(),
        first: file.report.line(first),
    };
    file.report
        .error(second, problem, "rename or remove one of them");
}

const PIN_KEYS: [&str; 14] = [
    "line",
    "direction",
    "values",
    "safe",
    "reversible",
    "max_on",
    "min_off",
    "dwell",
    "dead_man",
    "rate",
    "evidence",
    "needs_link",
    "interlocks",
    "why",
];

pub(super) fn pins(file: &Section<'_>, inventory: &Inventory, policy: &mut Policy) {
    let all = tables(file, "pins", MAX_PINS, &PIN_KEYS);
    for (name, at, section) in &all {
        let line = section
            .need("line")
            .and_then(|item| board_line(&item, inventory));
        let direction = section
            .need("direction")
            .and_then(|item| item.word(&Direction::NAMES));
        let role = match direction {
            Some(Direction::Out) => {
                let envelope = envelope(section);
                if let Some(line) = &line {
                    suits_line(section, line, &envelope);
                }
                Role::Output(envelope)
            }
            _ => {
                input_has_no_envelope(section);
                Role::Input
            }
        };
        policy.pins.push(Pin {
            name: name.clone(),
            line: line.unwrap_or_default(),
            role,
            at: *at,
        });
    }
    same_lines(file, &policy.pins);
    for (index, (_, _, section)) in all.iter().enumerate() {
        let interlocks = interlocks(section, &policy.pins, index);
        if let Some(Role::Output(envelope)) = policy.pins.get_mut(index).map(|pin| &mut pin.role) {
            envelope.interlocks = interlocks;
        }
    }
}

fn input_has_no_envelope(section: &Section<'_>) {
    for (key, span, _) in section.entries() {
        if !["line", "direction", "why"].contains(&key.as_str()) && PIN_KEYS.contains(&key.as_str())
        {
            let what = format!("`{key}` is for outputs, this pin is an input");
            section.contradiction(span, what, "remove the key or write direction = \"out\"");
        }
    }
}

/// Reports an envelope that what drives the line cannot keep.
fn suits_line(section: &Section<'_>, line: &str, envelope: &Envelope) {
    let (low, high) = envelope.range;
    if line.starts_with(SERIAL) {
        if envelope.max_on.is_none() {
            let what = "a pin of the microcontroller needs `max_on`: without a time limit the \
                        microcontroller takes no value but the safe one";
            section.contradiction(section.span, what, "add `max_on = …`");
        }
    } else if !line.contains('/') && (low < 0 || high > 1) {
        let what = format!("a line of the board takes 0 and 1, not values = [{low}, {high}]");
        let help = "stay in [0, 1], or drive the pin by a microcontroller: line = \"serial:NAME\"";
        let span = section.get("values").map_or(section.span, |item| item.span);
        section.contradiction(span, what, help);
    }
}

/// The board's own spelling of a line; pins of the microcontroller and `LABEL/LINE` as written.
fn board_line(item: &Item<'_>, inventory: &Inventory) -> Option<Name> {
    let text = item.text(crate::limit::MAX_NAME)?;
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        item.bad("a line of the board in plain letters, e.g. \"GPIO17\"");
        return None;
    }
    if let Some(pin) = text.strip_prefix(SERIAL) {
        return serial_line(item, &text, pin, inventory);
    }
    let lines = match &inventory.lines {
        Some(lines) if !text.contains('/') => lines,
        _ => return name(&text),
    };
    let found = lines.iter().find(|line| {
        std::iter::once(&line.name)
            .chain(&line.aliases)
            .any(|known| known.eq_ignore_ascii_case(&text))
    });
    if found.is_none() {
        let known: Vec<&str> = lines.iter().map(|line| line.name.as_str()).collect();
        unknown(item.report, item, "line of the board", &known);
    }
    name(&found?.name)
}

fn serial_line(item: &Item<'_>, line: &str, pin: &str, inventory: &Inventory) -> Option<Name> {
    if pin.is_empty() {
        item.bad("`serial:` and the name of a pin of the microcontroller");
        return None;
    }
    if !inventory.serial {
        let problem = Problem::Contradiction {
            section: "`line`".to_owned(),
            what: format!("`{line}` is a pin of a microcontroller, and no serial link is set up"),
        };
        let help = "configure [serial] in the settings, or name a line of the board";
        item.report.error(item.span, problem, help);
        return None;
    }
    name(line)
}

fn same_lines(file: &Section<'_>, pins: &[Pin]) {
    for (index, pin) in pins.iter().enumerate() {
        let same =
            |other: &&Pin| !pin.line.is_empty() && line_key(&other.line) == line_key(&pin.line);
        if let Some(first) = pins.iter().take(index).find(same) {
            let problem = Problem::SameLine {
                first: first.name.to_string(),
                second: pin.name.to_string(),
                line: pin.line.to_string(),
            };
            let help = "one pin has one name: remove the other, or its limits could be evaded";
            file.report.error(pin.at, problem, help);
        }
    }
}

/// Spellings with the same key are taken for the same line: case, separators, the word `gpio` and
/// leading zeros make no difference. A microcontroller tells its pins apart by every letter.
fn line_key(line: &str) -> String {
    if line.starts_with(SERIAL) {
        return line.to_owned();
    }
    if let Some((label, line)) = line.rsplit_once('/') {
        return format!("{}/{}", label.to_ascii_lowercase(), line_key(line));
    }
    let plain: String = line
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|character| character.to_ascii_lowercase())
        .collect();
    let number = plain.trim_start_matches("gpio").trim_start_matches('0');
    number.to_owned()
}

fn envelope(section: &Section<'_>) -> Envelope {
    let bounds = i64::from(i32::MIN)..=i64::from(i32::MAX);
    let (low, high) = section
        .get("values")
        .and_then(|item| item.bounds(bounds))
        .unwrap_or((0, 1));
    let safe = section.need("safe").and_then(|item| match item.is_text() {
        true => item.word(&[("off", 0), ("on", 1)]),
        false => item.integer(low..=high),
    });
    let safe = safe.unwrap_or(low);
    if safe < low || safe > high {
        let what = format!("`safe` = {safe} is outside values = [{low}, {high}]");
        section.contradiction(section.span, what, "choose a safe value inside the range");
    }
    let max_on = section.duration("max_on");
    let reversible = section.flag("reversible", false);
    // Both lie between i32 bounds, as read above.
    let small = |number: i64| i32::try_from(number).unwrap_or_default();
    Envelope {
        range: (small(low), small(high)),
        safe: small(safe),
        level: if reversible {
            Level::ActuateReversible
        } else {
            Level::ActuateIrreversible
        },
        max_on,
        // Without time off, a limit on the time on would mean nothing.
        min_off: section
            .duration("min_off")
            .unwrap_or(if max_on.is_some() { 1000 } else { 0 }),
        dwell: section.duration("dwell").unwrap_or(0),
        dead_man: section.duration("dead_man"),
        rate: section.get("rate").and_then(|item| item.rate()),
        evidence: section.duration("evidence"),
        needs_link: section
            .get("needs_link")
            .and_then(|item| item.word(&Link::NAMES)),
        interlocks: Vec::new(),
    }
}

fn interlocks(section: &Section<'_>, pins: &[Pin], own: usize) -> Vec<Interlock> {
    let Some(item) = section.get("interlocks") else {
        return Vec::new();
    };
    let elements = item.list(MAX_INTERLOCKS, "interlocks");
    let interlock = |item: Item<'_>| {
        let entry = item.section("`interlocks`", &["pin", "is"])?;
        let active = entry
            .need("is")
            .and_then(|item| item.word(&[("active", true), ("inactive", false)]));
        let pin = entry.need("pin").and_then(|item| find(&item, pins))?;
        if usize::from(pin) == own {
            section.contradiction(
                item.span,
                "a pin cannot interlock itself",
                "name another pin",
            );
        }
        Some(Interlock {
            pin: PinIndex(pin),
            active: active?,
        })
    };
    elements.into_iter().filter_map(interlock).collect()
}

fn level(section: &Section<'_>, default: Level) -> Level {
    section
        .get("level")
        .and_then(|item| item.word(&Level::NAMES))
        .unwrap_or(default)
}

fn direction(section: &Section<'_>) -> Direction {
    section
        .need("direction")
        .and_then(|item| item.word(&Direction::NAMES))
        .unwrap_or(Direction::Out)
}

pub(super) fn topics(file: &Section<'_>, policy: &mut Policy) {
    let keys = ["path", "direction", "retain", "level"];
    for (name, at, section) in tables(file, "topics", MAX_TOPICS, &keys) {
        let path = section.need("path").and_then(|item| topic_path(&item));
        let topic = Topic {
            name,
            path: path.unwrap_or_default(),
            direction: direction(&section),
            retain: section.flag("retain", false),
            level: level(&section, Level::Notify),
            at,
        };
        if let Some(first) = policy
            .topics
            .iter()
            .find(|other| other.path == topic.path && !topic.path.is_empty())
        {
            duplicate(file, "topic path", &topic.path, first.at, at);
        }
        if topic.retain && (topic.direction == Direction::In || topic.level.actuates()) {
            let what = "only what is told may be retained; a retained command acts again later";
            section.contradiction(at, what, "remove `retain = true`");
        }
        policy.topics.push(topic);
    }
}

fn topic_path(item: &Item<'_>) -> Option<String> {
    let path = item.text(MAX_TEMPLATE)?;
    if path.contains(['+', '#', '\0']) {
        item.bad("a topic without the wildcards + and #");
        return None;
    }
    Some(path)
}

pub(super) fn packets(file: &Section<'_>, policy: &mut Policy) {
    let keys = ["number", "direction", "level"];
    for (name, at, section) in tables(file, "packets", MAX_PACKETS, &keys) {
        let number = section
            .need("number")
            .and_then(|item| item.integer(0..=255));
        let packet = Packet {
            name,
            number: number
                .and_then(|number| u8::try_from(number).ok())
                .unwrap_or(0),
            direction: direction(&section),
            level: level(&section, Level::ActuateIrreversible),
            at,
        };
        if let Some(first) = policy
            .packets
            .iter()
            .find(|other| other.number == packet.number && other.direction == packet.direction)
        {
            duplicate(
                file,
                "packet number",
                &packet.number.to_string(),
                first.at,
                at,
            );
        }
        policy.packets.push(packet);
    }
}

pub(super) fn hooks(file: &Section<'_>, policy: &mut Policy) {
    let keys = ["command", "before", "after", "timeout", "level"];
    for (name, at, section) in tables(file, "hooks", MAX_HOOKS, &keys) {
        let command = section.need("command").map_or(Vec::new(), |item| {
            let words = item.list(16, "words");
            words
                .iter()
                .filter_map(|word| word.text(MAX_TEMPLATE))
                .collect()
        });
        if command.is_empty() && section.get("command").is_some() {
            section.contradiction(
                at,
                "`command` is empty",
                "name the program and its arguments",
            );
        }
        policy.hooks.push(Hook {
            name,
            command,
            before: kinds(&section, "before"),
            after: kinds(&section, "after"),
            timeout: section.duration("timeout").unwrap_or(2000),
            level: level(&section, Level::ActuateIrreversible),
            at,
        });
    }
}

fn kinds(section: &Section<'_>, key: &str) -> u8 {
    let Some(item) = section.get(key) else {
        return 0;
    };
    let kinds = one_or_more(&item);
    kinds
        .iter()
        .filter_map(|item| item.word(&ActionKind::NAMES))
        .fold(0, |bits, kind| bits | kind.bit())
}
