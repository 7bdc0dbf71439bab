//! Rules.

use super::device::duplicate;
use super::names::find;
use super::section::{Item, Section};
use super::{action, links, one_or_more, question, unknown};
use crate::channel::Direction;
use crate::diagnostic::{Problem, Span};
use crate::index::{PacketIndex, PinIndex, RuleIndex, TopicIndex};
use crate::limit::{MAX_BRANCH_ACTIONS, MAX_CHOICES, MAX_RULES, MAX_TEXT, MAX_TRIGGERS};
use crate::observation::Cause;
use crate::policy::Policy;
use crate::probability::Probability;
use crate::question::{Form, Question};
use crate::rule::{Branch, Rule, Source, Trigger};
use crate::schedule::{Days, Schedule};
use crate::text::Name;
use std::ops::Range;

const KEYS: [&str; 13] = [
    "id",
    "enabled",
    "switchable",
    "priority",
    "cooldown",
    "during",
    "when",
    "ask",
    "choose",
    "evidence",
    "then",
    "else",
    "unsure",
];

/// Reads all rules; triggers last, as they name rules and answers.
pub(super) fn rules(file: &Section<'_>, schemas: &[Name], policy: &mut Policy) {
    let Some(item) = file.get("rules") else {
        return;
    };
    let mut whens = Vec::new();
    for item in item.list(MAX_RULES, "rules") {
        let Some(mut section) = item.section("the rule", &KEYS) else {
            continue;
        };
        let id = section
            .need("id")
            .and_then(|item| Some((item.name()?, item.span)));
        let Some((id, at)) = id else { continue };
        if let Some(first) = policy.rules.iter().find(|rule| rule.id == id) {
            duplicate(file, "rule", &id, first.at, at);
        }
        section.name = format!("rule `{id}`");
        if let Some(when) = section.need("when") {
            whens.push((policy.rules.len(), when));
        }
        let rule = rule(&section, (id, at), schemas, policy);
        policy.rules.push(rule);
    }
    for (at, when) in whens {
        let triggers = triggers(&when, policy);
        if let Some(rule) = policy.rules.get_mut(at) {
            rule.when = triggers;
        }
    }
}

fn rule(
    section: &Section<'_>,
    (id, at): (Name, Span),
    schemas: &[Name],
    policy: &mut Policy,
) -> Rule {
    let priority = section.get("priority").and_then(|item| item.integer(0..=9));
    let ask = ask(section, schemas, policy);
    if ask.is_none() {
        for key in ["else", "unsure"] {
            if let Some(item) = section.get(key)
                && section.get("ask").or(section.get("choose")).is_none()
            {
                let what = format!("`{key}` needs a question");
                section.contradiction(item.span, what, "add `ask` or remove the branch");
            }
        }
    }
    Rule {
        id,
        enabled: section.flag("enabled", true),
        switchable: section.flag("switchable", true),
        priority: priority
            .and_then(|number| u8::try_from(number).ok())
            .unwrap_or(5),
        cooldown: section.duration("cooldown").unwrap_or(0),
        during: section.get("during").and_then(|item| item.window()),
        when: Vec::new(),
        ask,
        evidence: section.duration("evidence"),
        then: branch(section, "then", policy),
        otherwise: branch(section, "else", policy),
        unsure: branch(section, "unsure", policy),
        at,
    }
}

fn ask(section: &Section<'_>, schemas: &[Name], policy: &mut Policy) -> Option<Question> {
    let choose = section.get("choose");
    if let (Some(_), Some(choose)) = (section.get("ask"), &choose) {
        let what = "it has both `ask` and `choose`";
        section.contradiction(choose.span, what, "keep one of them");
    }
    if let Some(item) = section.get("ask") {
        return question::question(&item, schemas);
    }
    let item = choose?;
    let list = item.open("`choose`")?.need("actions")?;
    if let Some(then) = section.get("then").or(section.get("else")) {
        let what = "the actions of a `choose` rule stand in `choose.actions`";
        section.contradiction(then.span, what, "move them there; only `unsure` stays");
    }
    let actions = actions(&list, policy, MAX_CHOICES - 1, true);
    question::choose(&item, actions)
}

fn branch(section: &Section<'_>, key: &str, policy: &mut Policy) -> Range<u16> {
    match section.get(key) {
        Some(item) => actions(&item, policy, MAX_BRANCH_ACTIONS, false),
        None => 0..0,
    }
}

fn actions(item: &Item<'_>, policy: &mut Policy, limit: usize, is_choice: bool) -> Range<u16> {
    // At most MAX_RULES × 4 × MAX_BRANCH_ACTIONS.
    let position = |policy: &Policy| u16::try_from(policy.actions.len()).unwrap_or(u16::MAX);
    let start = position(policy);
    for item in item.list(limit, "actions") {
        if let Some(action) = action::action(&item, policy, is_choice) {
            policy.actions.push(action);
        }
    }
    start..position(policy)
}

fn triggers(when: &Item<'_>, policy: &Policy) -> Vec<Trigger> {
    let items = match when.elements() {
        Some(_) => when.list(MAX_TRIGGERS, "triggers"),
        None => vec![when.clone()],
    };
    if items.is_empty() {
        when.bad("a trigger or a list of them");
    }
    let trigger = |item: &Item<'_>| {
        Some(Trigger {
            source: source(item, policy)?,
            at: item.span,
        })
    };
    let triggers: Vec<Trigger> = items.iter().filter_map(trigger).collect();
    let is_schedule = |trigger: &&Trigger| matches!(trigger.source, Source::Schedule(_));
    if let Some(second) = triggers.iter().filter(is_schedule).nth(1) {
        let problem = Problem::Contradiction {
            section: "`when`".to_owned(),
            what: "a rule can have one schedule".to_owned(),
        };
        when.report.error(second.at, problem, "write a second rule");
    }
    triggers
}

/// What starts a rule, then what belongs to one of these.
const WHEN_KEYS: [&str; 18] = [
    "change", "pin", "packet", "topic", "every", "at", "rule", "command", "fraction", "cause",
    "once", "edge", "equals", "days", "ends", "answer", "is", "from",
];

fn source(item: &Item<'_>, policy: &Policy) -> Option<Source> {
    let section = item.section("`when`", &WHEN_KEYS)?;
    let kinds = &WHEN_KEYS[..8];
    let (key, target) = section.one_of(kinds)?;
    let extra: &[&str] = match key {
        "change" => &["fraction", "cause", "once"],
        "pin" => &["edge"],
        "packet" | "topic" => &["equals"],
        "at" => &["days"],
        "rule" => &["ends", "answer"],
        "command" => &["is", "from"],
        _ => &[],
    };
    for (other, span, _) in section.entries() {
        let other = other.as_str();
        if WHEN_KEYS[kinds.len()..].contains(&other) && !extra.contains(&other) {
            let what = format!("`{other}` does not belong to `{key}`");
            section.contradiction(span, what, "remove the key");
        }
    }
    match key {
        "change" => change(&section, &target, policy),
        "pin" => edge(&section, &target, policy),
        "packet" => {
            let index = find(&target, &policy.packets)?;
            let packet = policy.packets.get(usize::from(index))?;
            comes_in(&target, packet.direction)?;
            let equals = equals(&section)?;
            let packet = PacketIndex(index);
            Some(Source::Packet { packet, equals })
        }
        "topic" => {
            let index = find(&target, &policy.topics)?;
            let topic = policy.topics.get(usize::from(index))?;
            comes_in(&target, topic.direction)?;
            let equals = equals(&section)?;
            let topic = TopicIndex(index);
            Some(Source::Topic { topic, equals })
        }
        "every" => Some(Source::Schedule(Schedule::Every(target.duration()?))),
        "at" => Some(Source::Schedule(Schedule::Daily {
            second: target.time_of_day()?,
            days: match section.get("days") {
                Some(item) => item.days()?,
                None => Days::ALL,
            },
        })),
        "command" => command(&section, &target, policy),
        _ => other_rule(&section, &target, policy),
    }
}

fn comes_in(target: &Item<'_>, direction: Direction) -> Option<()> {
    if direction == Direction::Out {
        target.bad("something with direction = \"in\"");
        return None;
    }
    Some(())
}

/// `Some(None)`: no condition.
fn equals(section: &Section<'_>) -> Option<Option<String>> {
    match section.get("equals") {
        Some(item) => Some(Some(item.text(MAX_TEXT)?)),
        None => Some(None),
    }
}

fn change(section: &Section<'_>, target: &Item<'_>, policy: &Policy) -> Option<Source> {
    let mut zones = 0_u64;
    for item in one_or_more(target) {
        let name = item.str()?;
        match policy.zones.iter().position(|zone| zone == name) {
            Some(at) => zones |= 1 << at,
            None => {
                let known: Vec<&str> = policy.zones.iter().map(Name::as_str).collect();
                unknown(item.report, &item, "zone", &known);
            }
        }
    }
    if one_or_more(target).is_empty() {
        let problem = Problem::Unreachable {
            what: "a change in no zone".to_owned(),
            why: "the list is empty".to_owned(),
        };
        section.report.error(target.span, problem, "name a zone");
    }
    let fraction = match section.get("fraction") {
        Some(item) => item.probability()?,
        None => Probability::ZERO,
    };
    let causes = [
        ("motion", Cause::Motion),
        ("light", Cause::Light),
        ("camera", Cause::Camera),
    ];
    let cause = match section.get("cause") {
        Some(item) => item.word(&causes)?,
        None => Cause::Motion,
    };
    Some(Source::Change {
        zones,
        fraction,
        cause,
        once: section.flag("once", false),
    })
}

fn edge(section: &Section<'_>, target: &Item<'_>, policy: &Policy) -> Option<Source> {
    let index = find(target, &policy.pins)?;
    if policy.pins.get(usize::from(index))?.envelope().is_some() {
        target.bad("a pin with direction = \"in\"");
        return None;
    }
    let edges = [
        ("rising", Some(true)),
        ("falling", Some(false)),
        ("both", None),
    ];
    let level = match section.get("edge") {
        Some(item) => item.word(&edges)?,
        None => Some(true),
    };
    Some(Source::Pin {
        pin: PinIndex(index),
        level,
    })
}

fn command(section: &Section<'_>, target: &Item<'_>, policy: &Policy) -> Option<Source> {
    let index = find(target, &policy.pins)?;
    if policy.pins.get(usize::from(index))?.envelope().is_none() {
        target.bad("a pin with direction = \"out\"");
        return None;
    }
    let on = match section.get("is") {
        Some(item) => Some(item.word(&[("on", true), ("off", false)])?),
        None => None,
    };
    let from = match section.get("from") {
        Some(item) => {
            let from = links(&item)?;
            if from == 0 {
                let what = "`from` names no link: nobody could command it";
                section.contradiction(item.span, what, "name mqtt, serial, http or button");
            }
            from
        }
        None => u8::MAX,
    };
    Some(Source::Command {
        pin: PinIndex(index),
        on,
        from,
    })
}

fn other_rule(section: &Section<'_>, target: &Item<'_>, policy: &Policy) -> Option<Source> {
    let name = target.str()?;
    let Some(at) = policy.rules.iter().position(|rule| rule.id == name) else {
        let known: Vec<&str> = policy.rules.iter().map(|rule| rule.id.as_str()).collect();
        unknown(target.report, target, "rule", &known);
        return None;
    };
    let ends = [
        ("then", Branch::Then),
        ("else", Branch::Else),
        ("unsure", Branch::Unsure),
    ];
    let mut branch = match section.get("ends") {
        Some(item) => item.word(&ends)?,
        None => Branch::Then,
    };
    let choice = match section.get("answer") {
        None => None,
        Some(item) => {
            let (choice, of) = answer(&item, &policy.rules[at])?;
            if section.get("ends").is_some() && of != branch {
                let what = format!("this answer ends with `{}`", of.word());
                section.contradiction(item.span, what, "remove `ends`");
            }
            branch = of;
            Some(choice)
        }
    };
    Some(Source::Rule {
        rule: RuleIndex(u16::try_from(at).ok()?),
        branch,
        choice,
    })
}

/// A choice of another rule and the branch it leads to.
fn answer(item: &Item<'_>, other: &Rule) -> Option<(u8, Branch)> {
    let name = item.str()?;
    let form = other.ask.as_ref().map(|ask| &ask.form);
    let Some(Form::Choices { choices, expect }) = form else {
        let problem = Problem::Unreachable {
            what: format!("the answer `{name}`"),
            why: format!("rule `{}` asks no question with choices", other.id),
        };
        item.report
            .error(item.span, problem, "use `ends` instead of `answer`");
        return None;
    };
    let Some(at) = choices.iter().position(|choice| choice == name) else {
        let known: Vec<&str> = choices.iter().map(String::as_str).collect();
        let problem = Problem::Unreachable {
            what: format!("the answer `{name}`"),
            why: format!("rule `{}` cannot give it", other.id),
        };
        let help = crate::diagnostic::suggestion(name, known, "choices");
        item.report.error(item.span, problem, help);
        return None;
    };
    let branch = if expect & (1 << at) != 0 {
        Branch::Then
    } else {
        Branch::Else
    };
    Some((u8::try_from(at).ok()?, branch))
}
