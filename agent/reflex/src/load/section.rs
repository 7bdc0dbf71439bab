//! [`Section`] and [`Item`]: reading a TOML table and saying what is wrong with it.

use crate::diagnostic::{Problem, Report, Span, suggestion};
use crate::limit::{MAX_DURATION_MS, MAX_NAME, MAX_RATE};
use crate::probability::Probability;
use crate::schedule::{Days, Rate, Window};
use crate::text::Name;
use crate::time::Millis;
use std::ops::RangeInclusive;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A table with known keys.
pub(super) struct Section<'t> {
    pub(super) report: &'t Report<'t>,
    table: &'t DeTable<'t>,
    /// How it is called in messages.
    pub(super) name: String,
    pub(super) span: Span,
}

/// The value of a key.
#[derive(Clone)]
pub(super) struct Item<'t> {
    pub(super) report: &'t Report<'t>,
    pub(super) key: String,
    value: &'t DeValue<'t>,
    pub(super) span: Span,
}

impl<'t> Section<'t> {
    pub(super) fn root(
        report: &'t Report<'t>,
        table: &'t DeTable<'t>,
        keys: &[&str],
    ) -> Section<'t> {
        let section = Section {
            report,
            table,
            name: "the file".to_owned(),
            span: Span::default(),
        };
        section.check_keys(keys);
        section
    }

    fn check_keys(&self, keys: &[&str]) {
        for (key, _) in self.table.iter() {
            if !keys.contains(&key.get_ref().as_ref()) {
                let problem = Problem::UnknownKey {
                    key: key.get_ref().to_string(),
                    section: self.name.clone(),
                };
                let help = suggestion(key.get_ref(), keys.iter().copied(), "keys");
                self.report.error(key.span().into(), problem, help);
            }
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<Item<'t>> {
        let value = self.table.get(key)?;
        Some(self.item(key, value))
    }

    fn item(&self, key: &str, value: &'t Spanned<DeValue<'t>>) -> Item<'t> {
        Item {
            report: self.report,
            key: key.to_owned(),
            value: value.get_ref(),
            span: value.span().into(),
        }
    }

    /// As [`Section::get`]; a missing key is a mistake.
    pub(super) fn need(&self, key: &str) -> Option<Item<'t>> {
        let item = self.get(key);
        if item.is_none() {
            let problem = Problem::MissingKey {
                key: key.to_owned(),
                section: self.name.clone(),
            };
            self.report
                .error(self.span, problem, format!("add `{key} = …`"));
        }
        item
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> bool {
        self.get(key)
            .and_then(|item| item.flag())
            .unwrap_or(default)
    }

    pub(super) fn duration(&self, key: &str) -> Option<Millis> {
        self.get(key)?.duration()
    }

    /// All keys with their values, keys with their places.
    pub(super) fn entries(&self) -> Vec<(String, Span, Item<'t>)> {
        self.table
            .iter()
            .map(|(key, value)| {
                let name = key.get_ref().to_string();
                (name.clone(), key.span().into(), self.item(&name, value))
            })
            .collect()
    }

    /// A mistake about several keys.
    pub(super) fn contradiction(&self, span: Span, what: impl Into<String>, help: &str) {
        let problem = Problem::Contradiction {
            section: self.name.clone(),
            what: what.into(),
        };
        self.report.error(span, problem, help);
    }

    /// The one key of the list that is there.
    pub(super) fn one_of(&self, keys: &[&'static str]) -> Option<(&'static str, Item<'t>)> {
        let found: Vec<_> = keys
            .iter()
            .filter_map(|key| Some((*key, self.get(key)?)))
            .collect();
        if found.len() != 1 {
            let what = format!("it must have exactly one of {}", keys.join(", "));
            self.contradiction(self.span, what, "say one thing in each table");
        }
        found.into_iter().next()
    }
}

impl<'t> Item<'t> {
    /// The value for messages.
    pub(super) fn shown(&self) -> String {
        match self.value {
            DeValue::String(text) => text.chars().take(60).collect(),
            DeValue::Integer(number) => number.as_str().to_owned(),
            DeValue::Float(number) => number.as_str().to_owned(),
            DeValue::Boolean(flag) => flag.to_string(),
            other => format!("a {}", other.type_str()),
        }
    }

    fn wrong_type(&self, wanted: &'static str) {
        let problem = Problem::WrongType {
            key: self.key.clone(),
            found: format!("a {}", self.value.type_str()),
            wanted,
        };
        self.report
            .error(self.span, problem, format!("write {wanted}"));
    }

    pub(super) fn bad(&self, wanted: impl Into<String>) {
        let wanted = wanted.into();
        let help = format!("change it to {wanted}");
        let problem = Problem::BadValue {
            key: self.key.clone(),
            found: format!("`{}`", self.shown()),
            wanted,
        };
        self.report.error(self.span, problem, help);
    }

    pub(super) fn str(&self) -> Option<&'t str> {
        let text = self.value.as_str();
        if text.is_none() {
            self.wrong_type("a text in quotes");
        }
        text
    }

    pub(super) fn is_text(&self) -> bool {
        self.value.is_str()
    }

    /// Text that is not empty and has at most so many bytes.
    pub(super) fn text(&self, longest: usize) -> Option<String> {
        let text = self.str()?;
        if text.is_empty() || text.len() > longest {
            self.bad(format!("a text of 1 to {longest} bytes"));
            return None;
        }
        Some(text.to_owned())
    }

    /// A name: small letters, digits, `_` and `-`, beginning with a letter.
    pub(super) fn name(&self) -> Option<Name> {
        let found = as_name(self.str()?);
        if found.is_none() {
            self.bad(NAME_RULE);
        }
        found
    }

    pub(super) fn flag(&self) -> Option<bool> {
        let flag = self.value.as_bool();
        if flag.is_none() {
            self.wrong_type("true or false");
        }
        flag
    }

    pub(super) fn integer(&self, range: RangeInclusive<i64>) -> Option<i64> {
        let Some(number) = self.value.as_integer() else {
            self.wrong_type("a whole number");
            return None;
        };
        let parsed = i64::from_str_radix(number.as_str(), number.radix()).ok();
        let found = parsed.filter(|number| range.contains(number));
        if found.is_none() {
            self.bad(format!(
                "a number from {} to {}",
                range.start(),
                range.end()
            ));
        }
        found
    }

    /// A share in 0..=1.
    pub(super) fn probability(&self) -> Option<Probability> {
        let number = match self.value {
            DeValue::Float(number) => number.as_str().parse().ok(),
            DeValue::Integer(number) => number.as_str().parse().ok(),
            _ => {
                self.wrong_type("a number from 0 to 1");
                return None;
            }
        };
        let found = number.and_then(Probability::from_f64);
        if found.is_none() {
            self.bad("a number from 0 to 1");
        }
        found
    }

    /// A time such as `"500 ms"`, `"2 s"`, `"5 min"`, `"1 h"`, `"1 day"`, longer than nothing.
    pub(super) fn duration(&self) -> Option<Millis> {
        let found = as_duration(self.str()?);
        if found.is_none() {
            self.bad("a time such as \"500 ms\", \"2 s\", \"5 min\", \"1 h\" or \"1 day\", at most 31 days");
        }
        found
    }

    /// Seconds since midnight from `"07:30"`.
    pub(super) fn time_of_day(&self) -> Option<u32> {
        let found = as_time_of_day(self.str()?);
        if found.is_none() {
            self.bad("a time of day such as \"07:30\"");
        }
        found
    }

    /// One of a list of words.
    pub(super) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let text = self.str()?;
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let problem = Problem::BadValue {
                key: self.key.clone(),
                found: format!("`{}`", self.shown()),
                wanted: format!("one of {}", known.join(", ")),
            };
            let help = suggestion(text, known, "words");
            self.report.error(self.span, problem, help);
        }
        found.map(|(_, value)| *value)
    }

    /// The elements, if it is a list.
    pub(super) fn elements(&self) -> Option<Vec<Item<'t>>> {
        let array = self.value.as_array()?;
        let elements = array.iter().map(|value| Item {
            report: self.report,
            key: self.key.clone(),
            value: value.get_ref(),
            span: value.span().into(),
        });
        Some(elements.collect())
    }

    /// The elements of a list with at most so many.
    pub(super) fn list(&self, limit: usize, kind: &'static str) -> Vec<Item<'t>> {
        let Some(mut elements) = self.elements() else {
            self.wrong_type("a list in square brackets");
            return Vec::new();
        };
        if elements.len() > limit {
            let problem = Problem::TooMany {
                section: format!("`{}`", self.key),
                kind,
                found: elements.len(),
                limit,
            };
            let help = format!("keep at most {limit}");
            self.report.error(self.span, problem, help);
            elements.truncate(limit);
        }
        elements
    }

    pub(super) fn section(&self, name: impl Into<String>, keys: &[&str]) -> Option<Section<'t>> {
        let section = self.open(name)?;
        section.check_keys(keys);
        Some(section)
    }

    /// A table whose keys are names of the owner.
    pub(super) fn open(&self, name: impl Into<String>) -> Option<Section<'t>> {
        let Some(table) = self.value.as_table() else {
            self.wrong_type("a table");
            return None;
        };
        Some(Section {
            report: self.report,
            table,
            name: name.into(),
            span: self.span,
        })
    }

    /// `{ count = 6, per = "1 min" }`.
    pub(super) fn rate(&self) -> Option<Rate> {
        let section = self.section(format!("`{}`", self.key), &["count", "per"])?;
        let most = i64::try_from(MAX_RATE).unwrap_or(i64::MAX);
        let count = section
            .need("count")
            .and_then(|item| item.integer(1..=most));
        let per = section.need("per").and_then(|item| item.duration());
        Some(Rate {
            count: u8::try_from(count?).ok()?,
            per: per?,
        })
    }

    /// `["mon", "tue"]`.
    pub(super) fn days(&self) -> Option<Days> {
        let names: Vec<(&str, u8)> = Days::NAMES.into_iter().zip(0..).collect();
        let mut days = Days::NONE;
        for item in self.list(7, "days") {
            days = days.with(item.word(&names)?);
        }
        if days.is_empty() {
            let problem = Problem::Unreachable {
                what: format!("`{}`", self.key),
                why: "it names no day".to_owned(),
            };
            self.report
                .error(self.span, problem, "name a day or leave the key out");
        }
        Some(days)
    }

    /// `{ from = "22:00", to = "06:00", days = ["sat"] }`.
    pub(super) fn window(&self) -> Option<Window> {
        let section = self.section(format!("`{}`", self.key), &["from", "to", "days"])?;
        let from = section.need("from").and_then(|item| item.time_of_day());
        let to = section.need("to").and_then(|item| item.time_of_day());
        let days = match section.get("days") {
            Some(item) => item.days()?,
            None => Days::ALL,
        };
        let (from, to) = (from?, to?);
        if from == to {
            let problem = Problem::Unreachable {
                what: format!("`{}`", self.key),
                why: "it ends when it begins".to_owned(),
            };
            let help = "for the whole day leave the key out";
            self.report.error(self.span, problem, help);
        }
        Some(Window { from, to, days })
    }

    /// `[lowest, highest]`.
    pub(super) fn bounds(&self, range: RangeInclusive<i64>) -> Option<(i64, i64)> {
        let elements = self.list(2, "numbers");
        let [low, high] = elements.as_slice() else {
            self.bad("a list of two numbers, [lowest, highest]");
            return None;
        };
        let (low, high) = (low.integer(range.clone())?, high.integer(range)?);
        if low > high {
            self.bad("a list of two numbers, the lower one first");
            return None;
        }
        Some((low, high))
    }
}

pub(super) const NAME_RULE: &str =
    "a name of 1 to 32 small letters a to z, digits, `_` and `-`, beginning with a letter";

/// A name if the text is one.
pub(super) fn as_name(text: &str) -> Option<Name> {
    let is_name = text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.len() <= MAX_NAME
        && text.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-'
        });
    if is_name {
        crate::text::name(text)
    } else {
        None
    }
}

fn as_duration(text: &str) -> Option<Millis> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim_start_matches(' ') {
        "ms" => 1,
        "s" => 1000,
        "min" => 60_000,
        "h" => 3_600_000,
        "day" | "days" => 86_400_000,
        _ => return None,
    };
    let time = number.parse::<Millis>().ok()?.checked_mul(unit)?;
    (1..=MAX_DURATION_MS).contains(&time).then_some(time)
}

fn as_time_of_day(text: &str) -> Option<u32> {
    let bytes = text.as_bytes();
    let number = |range: std::ops::Range<usize>| {
        let digits = bytes.get(range)?;
        digits.iter().all(u8::is_ascii_digit).then(|| {
            digits
                .iter()
                .fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'))
        })
    };
    if bytes.len() != 5 || bytes[2] != b':' {
        return None;
    }
    let (hour, minute) = (number(0..2)?, number(3..5)?);
    (hour < 24 && minute < 60).then_some(hour * 3600 + minute * 60)
}
