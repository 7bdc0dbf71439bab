//! [`Teller`]: an entry in words, with the rules the journal keeps.

use crate::cli::EntryKind;
use crate::entry::{Answered, Answerer, Began, Entry, Step};
use crate::journal::Record;
use crate::replay::tally::rule_of;
use crate::replay::{Issued, RuleBook, issued::id_of, words};
use crate::wall_clock;
use ocelli_reflex::LocalTime;
use ocelli_reflex::explain::describe;
use ocelli_reflex::observation::Stage;

/// Offsets of time zones are multiples of this, in seconds.
const OFFSET_S: i64 = 900;

/// An entry in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) sequence: u64,
    /// Milliseconds since 1970-01-01 UTC.
    pub(super) wall_ms: Option<u64>,
    /// At the place of the device.
    pub(super) local: Option<LocalTime>,
    /// For people.
    pub(super) time: String,
    pub(super) kind: EntryKind,
    /// Names of the rules it concerns.
    pub(super) rules: Vec<String>,
    /// What happened, and what it led to.
    pub(super) lines: Vec<String>,
}

/// Knows from the entries so far what names and ids mean and how late it is at the device.
#[derive(Debug, Default)]
pub(super) struct Teller {
    book: RuleBook,
    issued: Issued,
    /// Wall clock at the device before UTC, in seconds.
    offset_s: Option<i64>,
}

impl Teller {
    pub(super) fn tell(&mut self, record: &Record<Entry>) -> Told {
        self.book.take(&record.body);
        let local = self.local(record);
        let (kind, rules, lines) = match &record.body {
            Entry::Began(began) => (EntryKind::Began, Vec::new(), began_words(began)),
            Entry::Rules(part) => {
                let (at, of, fingerprint) = (part.part, part.parts, part.fingerprint);
                let bytes = part.text.len();
                let line = format!(
                    "rule file {fingerprint:016x}, piece {} of {of}, {bytes} bytes",
                    u16::from(at) + 1
                );
                (EntryKind::Rules, Vec::new(), vec![line])
            }
            Entry::Step(step) => {
                let (rules, lines) = self.step(step);
                (EntryKind::Step, rules, lines)
            }
            Entry::Answered(answered) => (
                EntryKind::Answered,
                vec![answered.rule.clone()],
                answered_words(answered),
            ),
            Entry::Kept(kept) => {
                let event = match kept.event {
                    0 => String::new(),
                    event => format!(", event {event}"),
                };
                let line = format!(
                    "{}: picture {}{event}, {} bytes",
                    kept.name, kept.frame, kept.n_bytes
                );
                (EntryKind::Kept, Vec::new(), vec![line])
            }
            Entry::Remark(remark) => {
                let line = format!("{}: {}", remark.about, remark.text);
                (EntryKind::Remark, Vec::new(), vec![line])
            }
            Entry::Ended => (EntryKind::Ended, Vec::new(), vec!["in order".to_owned()]),
        };
        Told {
            sequence: record.sequence,
            wall_ms: record.at.wall_ms,
            local,
            time: self.time(record, local),
            kind,
            rules,
            lines: lines.iter().map(|line| super::harmless(line)).collect(),
        }
    }

    /// Wall clock at the device: a step says it, for others it is told from the steps before.
    fn local(&mut self, record: &Record<Entry>) -> Option<LocalTime> {
        let wall_s = record.at.wall_ms.map(|ms| (ms / 1000) as i64);
        if let Entry::Step(step) = &record.body
            && let Some(local) = step.now.local
        {
            let exact = wall_s.map(|wall| wall_clock::seconds(local).saturating_sub(wall));
            self.offset_s = exact
                .map(|exact| exact.saturating_add(OFFSET_S / 2).div_euclid(OFFSET_S) * OFFSET_S)
                .or(self.offset_s);
            return Some(local);
        }
        let seconds = wall_s?.checked_add(self.offset_s?)?;
        wall_clock::of_seconds(u64::try_from(seconds).ok()?)
    }

    fn time(&self, record: &Record<Entry>, local: Option<LocalTime>) -> String {
        if let Some(local) = local {
            return wall_clock::text(local);
        }
        let utc = record.at.wall_ms.map(|ms| ms / 1000);
        match utc.and_then(wall_clock::of_seconds) {
            Some(utc) => format!("{} UTC", wall_clock::text(utc)),
            None => format!("boot + {} ms", record.at.boot_ms),
        }
    }

    fn step(&mut self, step: &Step) -> (Vec<String>, Vec<String>) {
        let mut lines = vec![words::observation(&step.observation, &self.issued)];
        let asked = id_of(&step.observation).and_then(|id| self.issued.purpose(id));
        let mut rules: Vec<String> = asked.map(|of| of.name.clone()).into_iter().collect();
        match self.book.policy(step.rules) {
            Ok(policy) => {
                lines.extend(describe(&policy, &step.outputs));
                for output in &step.outputs.list {
                    let rule = rule_of(output).and_then(|rule| policy.rule(rule));
                    rules.extend(rule.map(|rule| rule.id.to_string()));
                }
                self.issued.note(&policy, &step.outputs);
            }
            Err(fault) => {
                lines.push(fault.to_string());
                let outputs = step.outputs.list.iter();
                lines.extend(outputs.map(|output| format!("{output:?}")));
            }
        }
        rules.sort_unstable();
        rules.dedup();
        (rules, lines)
    }
}

fn began_words(began: &Began) -> Vec<String> {
    let model = match &began.model {
        Some(model) => format!("{} on {}", model.name, model.kernel),
        None => "none".to_owned(),
    };
    let mut lines = vec![format!(
        "{} on {}, ocelli {}, rules {:016x}, model {model}",
        began.device, began.board, began.version, began.rules
    )];
    if !began.recovered.is_empty() {
        lines.push(began.recovered.clone());
    }
    lines
}

fn answered_words(answered: &Answered) -> Vec<String> {
    let by = match &answered.by {
        Answerer::Local(model) => format!("{} on {}", model.name, model.kernel),
        Answerer::Remote { url, model } => format!("{model} at {url}"),
    };
    let early = match answered.stage {
        Stage::Early => " early",
        Stage::Refined => "",
    };
    let unsure = if answered.unsure { ", unsure" } else { "" };
    let rule = match answered.rule.as_str() {
        "" => "a person",
        rule => rule,
    };
    let (frame, probability) = (answered.frame, answered.probability);
    let [encode, prefill, decode] = answered.time_ms;
    let joules = match answered.joules {
        Some((joules, true)) => format!(", {joules:.2} J"),
        Some((joules, false)) => format!(", about {joules:.2} J"),
        None => String::new(),
    };
    let mut lines = vec![
        format!(
            "{rule}{early}: {:?} about picture {frame}: {:?} {probability:.3}{unsure}",
            answered.prompt, answered.text
        ),
        format!(
            "{by}, {} + {} tokens, encode {encode:.0} prefill {prefill:.0} decode {decode:.0} ms{joules}",
            answered.prompt_tokens,
            answered.tokens.len()
        ),
    ];
    lines.extend(
        answered
            .picture
            .as_ref()
            .map(|name| format!("kept as {name}")),
    );
    lines
}
