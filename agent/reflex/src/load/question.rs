//! Questions of rules.

use super::section::{Item, Section};
use super::{one_or_more, unknown};
use crate::limit::{MAX_CHOICES, MAX_COUNT, MAX_LOOKS, MAX_STEPS, MAX_TEMPLATE, MAX_TOKENS};
use crate::probability::Probability;
use crate::question::{Form, Picture, Question, Votes};
use crate::text::Name;
use std::ops::Range;

const DEADLINE_MS: u64 = 30_000;

const COMMON_KEYS: [&str; 8] = [
    "question",
    "threshold",
    "agree",
    "picture",
    "deadline",
    "max_tokens",
    "early",
    "second_opinion",
];

/// Reads the `ask` of a rule.
pub(super) fn question(item: &Item<'_>, schemas: &[Name]) -> Option<Question> {
    let mut keys = COMMON_KEYS.to_vec();
    keys.extend(["choices", "count", "caption", "schema", "expect"]);
    let section = item.section("`ask`", &keys)?;
    let form = form(&section, schemas);
    common(&section, item, form?)
}

/// Reads the `choose` of a rule, whose actions stand at these positions.
pub(super) fn choose(item: &Item<'_>, actions: Range<u16>) -> Option<Question> {
    let section = item.section(
        "`choose`",
        &[
            "question",
            "actions",
            "steps",
            "threshold",
            "picture",
            "deadline",
        ],
    )?;
    let steps = small(&section, "steps", 1, 1..=i64::from(MAX_STEPS))?;
    common(&section, item, Form::Pick { actions, steps })
}

fn form(section: &Section<'_>, schemas: &[Name]) -> Option<Form> {
    let (key, item) = section.one_of(&["choices", "count", "caption", "schema"])?;
    if matches!(key, "caption" | "schema")
        && let Some(expect) = section.get("expect")
    {
        let what = format!("a {key} has nothing to expect");
        section.contradiction(expect.span, what, "remove `expect`");
    }
    match key {
        "choices" => choices(section, &item),
        "count" => count(section, &item),
        "caption" => {
            if !item.flag()? {
                item.bad("true");
                return None;
            }
            Some(Form::Caption)
        }
        _ => {
            let name = item.str()?;
            if !schemas.iter().any(|schema| schema == name) {
                let known: Vec<&str> = schemas.iter().map(Name::as_str).collect();
                unknown(item.report, &item, "schema", &known);
            }
            Some(Form::Schema {
                schema: name.to_owned(),
            })
        }
    }
}

fn choices(section: &Section<'_>, item: &Item<'_>) -> Option<Form> {
    let elements = item.list(MAX_CHOICES, "choices");
    let choices: Vec<String> = elements.iter().filter_map(|item| item.text(64)).collect();
    if choices.len() < 2 {
        item.bad("a list of at least two choices");
        return None;
    }
    let folded: Vec<String> = choices
        .iter()
        .map(|choice| choice.trim().to_lowercase())
        .collect();
    for (at, choice) in folded.iter().enumerate() {
        if folded[..at].contains(choice) {
            elements[at].bad("a choice that differs from the others in more than case");
        }
    }
    let mut expect = 0_u8;
    for expected in one_or_more(&section.need("expect")?) {
        let name = expected.str()?;
        match choices.iter().position(|choice| choice == name) {
            Some(at) => expect |= 1 << at,
            None => {
                let known: Vec<&str> = choices.iter().map(String::as_str).collect();
                unknown(item.report, &expected, "choice", &known);
            }
        }
    }
    Some(Form::Choices { choices, expect })
}

fn count(section: &Section<'_>, item: &Item<'_>) -> Option<Form> {
    let most = i64::from(MAX_COUNT);
    let number = |number: i64| u32::try_from(number).unwrap_or(MAX_COUNT);
    let (low, high) = item.bounds(0..=most)?;
    let expect = section.need("expect")?;
    let (from, to) = expect.bounds(0..=most)?;
    if to < low || from > high {
        let problem = crate::diagnostic::Problem::Unreachable {
            what: format!("the expected count {from} to {to}"),
            why: format!("the question counts from {low} to {high}"),
        };
        let help = "expect numbers the question can be answered with";
        section.report.error(expect.span, problem, help);
    }
    Some(Form::Count {
        range: (number(low), number(high)),
        expect: (number(from), number(to)),
    })
}

fn common(section: &Section<'_>, item: &Item<'_>, form: Form) -> Option<Question> {
    let prompt = section
        .need("question")
        .and_then(|item| item.text(MAX_TEMPLATE));
    let is_free = matches!(form, Form::Caption);
    let threshold = match section.get("threshold") {
        Some(item) => item.probability()?,
        None if is_free => Probability::ZERO,
        None => Probability::from_f64(0.7)?,
    };
    let picture = section
        .get("picture")
        .and_then(|item| item.word(&[("fresh", Picture::Fresh), ("trigger", Picture::Trigger)]));
    let votes = match section.get("agree") {
        Some(item) => votes(&item)?,
        None => Votes {
            need: 1,
            of: 1,
            gap: 0,
        },
    };
    let max_tokens = small(section, "max_tokens", 64, 1..=i64::from(MAX_TOKENS))?;
    Some(Question {
        prompt: prompt?,
        form,
        threshold,
        votes,
        picture: picture.unwrap_or(Picture::Fresh),
        deadline: section.duration("deadline").unwrap_or(DEADLINE_MS),
        max_tokens,
        early: section.flag("early", false),
        second_opinion: section.flag("second_opinion", false),
        at: item.span,
    })
}

fn votes(item: &Item<'_>) -> Option<Votes> {
    let section = item.section("`agree`", &["need", "of", "gap"])?;
    let most = i64::from(MAX_LOOKS);
    let of = small(&section, "of", 3, 1..=most)?;
    let need = small(&section, "need", 2, 1..=most)?;
    if need > of {
        let problem = crate::diagnostic::Problem::Unreachable {
            what: format!("agreement of {need} looks"),
            why: format!("there are only {of}"),
        };
        section.report.error(
            item.span,
            problem,
            "ask for at most as many as there are looks",
        );
    }
    Some(Votes {
        need,
        of,
        gap: section.duration("gap").unwrap_or(300),
    })
}

fn small<T: TryFrom<i64>>(
    section: &Section<'_>,
    key: &str,
    default: i64,
    range: std::ops::RangeInclusive<i64>,
) -> Option<T> {
    let number = match section.get(key) {
        Some(item) => item.integer(range)?,
        None => default,
    };
    T::try_from(number).ok()
}
