//! Permission lines.

use super::names::Named;
use super::section::{Item, Section};
use super::{links, one_or_more, unknown};
use crate::action::ActionKind;
use crate::diagnostic::Problem;
use crate::limit::{MAX_PERMISSIONS, MAX_RATED, MAX_TEMPLATE};
use crate::permission::{Effect, Level, Permission, RatedLine};
use crate::policy::Policy;
use siphasher::sip::SipHasher24;
use std::hash::Hasher;

const KEYS: [&str; 12] = [
    "effect", "action", "level", "target", "values", "rules", "during", "rate", "evidence", "via",
    "expires", "why",
];

/// Time for a decision unless the line says otherwise.
const EXPIRES_MS: u64 = 60_000;

pub(super) fn permissions(file: &Section<'_>, policy: &mut Policy) {
    let Some(item) = file.get("permissions") else {
        return;
    };
    let mut rated = 0;
    for item in item.list(MAX_PERMISSIONS, "permission lines") {
        let Some(section) = item.section("the permission", &KEYS) else {
            continue;
        };
        let Some(mut line) = permission(&section, &item, policy) else {
            continue;
        };
        if let Some(rate) = &mut line.rate {
            rate.slot = rated;
            rated += 1;
        }
        policy.permissions.push(line);
    }
    if rated > MAX_RATED {
        let problem = Problem::TooMany {
            section: "[[permissions]]".to_owned(),
            kind: "lines with a rate",
            found: rated,
            limit: MAX_RATED,
        };
        file.report
            .error(item.span, problem, format!("keep at most {MAX_RATED}"));
    }
}

fn permission(section: &Section<'_>, item: &Item<'_>, policy: &Policy) -> Option<Permission> {
    let effects = [
        ("allow", Effect::Allow),
        ("ask", Effect::Ask),
        ("deny", Effect::Deny),
    ];
    let effect = section
        .need("effect")
        .and_then(|item| item.word(&effects))?;
    let kinds = kinds(section)?;
    let values = match section.get("values") {
        Some(item) => {
            let bounds = item.bounds(i64::from(i32::MIN)..=i64::from(i32::MAX))?;
            let small = |number| i32::try_from(number).unwrap_or_default();
            Some((small(bounds.0), small(bounds.1)))
        }
        None => None,
    };
    if values.is_some() && kinds != ActionKind::Set.bit() {
        let what = "`values` belongs to action = \"set\"";
        section.contradiction(
            section.span,
            what,
            "add action = \"set\" or remove `values`",
        );
    }
    fits_effect(section, effect);
    let line = Permission {
        effect,
        kinds,
        levels: levels(section)?,
        targets: targets(section, kinds, policy)?,
        rules: rules(section, policy)?,
        values,
        during: match section.get("during") {
            Some(item) => Some(item.window()?),
            None => None,
        },
        rate: match section.get("rate") {
            Some(item) => Some(RatedLine {
                rate: item.rate()?,
                slot: 0,
                key: 0,
            }),
            None => None,
        },
        evidence: section.duration("evidence"),
        via: via(section, effect)?,
        expires: section.duration("expires").unwrap_or(EXPIRES_MS),
        why: section
            .get("why")
            .and_then(|item| item.text(MAX_TEMPLATE))
            .unwrap_or_default(),
        at: item.span,
        line: section.report.line(item.span),
    };
    Some(with_key(line, policy))
}

/// A key by which the rate's history is found after a reload: everything the line says, its place
/// apart.
fn with_key(mut line: Permission, policy: &Policy) -> Permission {
    // By name: positions change when the file is put in another order.
    let names = [
        named(
            line.targets,
            &target_names(line.kinds, policy).unwrap_or_default(),
        ),
        named(line.rules, &rule_names(policy)),
    ];
    let says = (line.effect, line.kinds, line.levels, names);
    let limits = (line.values, line.during, line.evidence);
    if let Some(rated) = &mut line.rate {
        let mut hasher = SipHasher24::new();
        hasher.write(format!("{says:?} {limits:?} {:?}", rated.rate).as_bytes());
        rated.key = hasher.finish();
    }
    line
}

fn fits_effect(section: &Section<'_>, effect: Effect) {
    let wrong: &[&str] = match effect {
        Effect::Deny => &["rate", "evidence", "via", "expires"],
        Effect::Allow => &["via", "expires"],
        Effect::Ask => &[],
    };
    for key in wrong {
        if let Some(item) = section.get(key) {
            let what = format!("`{key}` has no meaning here");
            section.contradiction(item.span, what, "remove the key");
        }
    }
}

fn kinds(section: &Section<'_>) -> Option<u8> {
    let all = ActionKind::NAMES
        .iter()
        .fold(0, |bits, (_, kind)| bits | kind.bit());
    let Some(item) = section.get("action") else {
        return Some(all);
    };
    let mut kinds = 0;
    for item in one_or_more(&item) {
        if item.is_text() && item.str()? == "*" {
            return Some(all);
        }
        kinds |= item.word(&ActionKind::NAMES)?.bit();
    }
    if kinds == 0 {
        item.bad("a kind of action, a list of them or \"*\"");
        return None;
    }
    Some(kinds)
}

fn levels(section: &Section<'_>) -> Option<u8> {
    let Some(item) = section.get("level") else {
        return Some(u8::MAX);
    };
    let mut levels = 0;
    for item in one_or_more(&item) {
        levels |= 1 << item.word(&Level::NAMES)? as u8;
    }
    Some(levels)
}

fn targets(section: &Section<'_>, kinds: u8, policy: &Policy) -> Option<u64> {
    let Some(item) = section.get("target") else {
        return Some(u64::MAX);
    };
    let Some(known) = target_names(kinds, policy) else {
        let what = "`target` needs one action with targets: publish, packet, set or hook";
        section.contradiction(item.span, what, "name the action or remove `target`");
        return None;
    };
    patterns(&item, &known, "target")
}

fn rules(section: &Section<'_>, policy: &Policy) -> Option<u64> {
    let Some(item) = section.get("rules") else {
        return Some(u64::MAX);
    };
    patterns(&item, &rule_names(policy), "rule")
}

/// Names of the targets of one kind of action; `None` for several kinds or kinds without targets.
fn target_names(kinds: u8, policy: &Policy) -> Option<Vec<&str>> {
    let (_, kind) = ActionKind::NAMES
        .iter()
        .find(|(_, kind)| kind.bit() == kinds)?;
    match kind {
        ActionKind::Publish => Some(policy.topics.iter().map(Named::name).collect()),
        ActionKind::Packet => Some(policy.packets.iter().map(Named::name).collect()),
        ActionKind::Set => Some(policy.pins.iter().map(Named::name).collect()),
        ActionKind::Hook => Some(policy.hooks.iter().map(Named::name).collect()),
        ActionKind::Snapshot | ActionKind::Event => None,
    }
}

fn rule_names(policy: &Policy) -> Vec<&str> {
    policy.rules.iter().map(|rule| rule.id.as_str()).collect()
}

/// The names whose bits are set, in alphabetical order; all bits are one word.
fn named<'n>(bits: u64, names: &[&'n str]) -> Vec<&'n str> {
    if bits == u64::MAX {
        return vec!["*"];
    }
    let set = |at: usize| bits & (1 << at) != 0;
    let mut named: Vec<&str> = (0..)
        .zip(names)
        .filter(|(at, _)| set(*at))
        .map(|(_, name)| *name)
        .collect();
    named.sort_unstable();
    named
}

/// Names, `prefix*` or `*`, as bits of what they match; each must match something.
fn patterns(item: &Item<'_>, known: &[&str], kind: &'static str) -> Option<u64> {
    let mut bits = 0;
    for item in one_or_more(item) {
        let pattern = item.str()?;
        let matches = |name: &str| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == pattern,
        };
        let matched = (0..)
            .zip(known)
            .filter(|(_, name)| matches(name))
            .fold(0_u64, |bits, (at, _)| bits | 1 << at);
        if matched == 0 {
            unknown(item.report, &item, kind, known);
        }
        bits |= matched;
    }
    if bits == 0 && one_or_more(item).is_empty() {
        item.bad("a name, a list of names, \"prefix*\" or \"*\"");
    }
    (bits != 0).then_some(bits)
}

fn via(section: &Section<'_>, effect: Effect) -> Option<u8> {
    if effect != Effect::Ask {
        return Some(0);
    }
    let via = links(&section.need("via")?)?;
    if via == 0 {
        let what = "`via` names no link: nobody could say yes";
        section.contradiction(section.span, what, "name mqtt, serial, http or button");
    }
    Some(via)
}
