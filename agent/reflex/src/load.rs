//! [`load`]: from the text of a rule file to a [`Policy`], or to all its mistakes.

mod action;
mod device;
mod names;
mod permission;
mod question;
mod rule;
mod section;

use crate::check::check;
use crate::diagnostic::{Diagnostic, Problem, Rejected, Report, Span, suggestion};
use crate::limit::MAX_FILE_BYTES;
use crate::observation::Link;
use crate::permission::Level;
use crate::policy::{Policy, Shed};
use section::{Item, Section};
use siphasher::sip::SipHasher24;
use std::hash::Hasher;
use toml::de::DeTable;

/// What the device has, as far as it is known when the file is checked.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// Zones of the camera settings; `None`: not known, names are taken as they are.
    pub zones: Option<Vec<String>>,
    /// Lines of the board; `None`: not known. Lines written `LABEL/LINE` are taken as they are.
    pub lines: Option<Vec<BoardLine>>,
    /// Whether there is a serial link, and a microcontroller with pins behind it.
    pub serial: bool,
    /// Schemas that are installed; `None`: not known.
    pub schemas: Option<Vec<String>>,
}

/// A line of the board.
#[derive(Clone, Debug, Default)]
pub struct BoardLine {
    /// The board's own name.
    pub name: String,
    /// Other names of the same line, e.g. its place on the header.
    pub aliases: Vec<String>,
}

/// A file that can be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Rules and permissions.
    pub policy: Policy,
    /// What is allowed but surprising.
    pub warnings: Vec<Diagnostic>,
}

/// Reads and checks a rule file.
///
/// # Errors
///
/// All mistakes of the file, with line, column and what to do about them. If the text is not TOML,
/// only that is reported.
pub fn load(text: &str, inventory: &Inventory) -> Result<Loaded, Rejected> {
    let report = Report::new(text);
    if text.len() > MAX_FILE_BYTES {
        let problem = Problem::FileTooLong { bytes: text.len() };
        report.error(Span::default(), problem, "split the file or shorten it");
        return Err(report.finish());
    }
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let span = error.span().unwrap_or_default().into();
        let message = error.message().to_owned();
        report.error(span, Problem::Syntax { message }, "see https://toml.io");
    }
    if !errors.is_empty() {
        return Err(report.finish());
    }
    let policy = compile(&report, table.get_ref(), inventory, text);
    if !report.has_errors() {
        check(&policy, &report);
    }
    if report.has_errors() {
        return Err(report.finish());
    }
    Ok(Loaded {
        policy,
        warnings: report.finish().diagnostics,
    })
}

const KEYS: [&str; 13] = [
    "format",
    "dry_run",
    "highest",
    "zones",
    "schemas",
    "shed",
    "remote",
    "pins",
    "topics",
    "packets",
    "hooks",
    "rules",
    "permissions",
];

fn compile(report: &Report<'_>, table: &DeTable<'_>, inventory: &Inventory, text: &str) -> Policy {
    let file = Section::root(report, table, &KEYS);
    if let Some(format) = file
        .need("format")
        .and_then(|item| item.integer(0..=i64::MAX))
        && format != 1
    {
        let span = file.get("format").map(|item| item.span).unwrap_or_default();
        let help = "write `format = 1` and check the file against docs/agent.md";
        report.error(span, Problem::Format { found: format }, help);
    }
    let mut policy = Policy {
        fingerprint: fingerprint(text),
        dry_run: file.flag("dry_run", false),
        highest: file
            .get("highest")
            .and_then(|item| item.word(&Level::NAMES))
            .unwrap_or(Level::ActuateIrreversible),
        zones: Vec::new(),
        pins: Vec::new(),
        topics: Vec::new(),
        packets: Vec::new(),
        hooks: Vec::new(),
        rules: Vec::new(),
        actions: Vec::new(),
        permissions: Vec::new(),
        shed: shed(&file),
        remote: remote(&file),
    };
    let schemas = device::schemas(&file, inventory);
    device::zones(&file, inventory, &mut policy);
    device::pins(&file, inventory, &mut policy);
    device::topics(&file, &mut policy);
    device::packets(&file, &mut policy);
    device::hooks(&file, &mut policy);
    rule::rules(&file, &schemas, &mut policy);
    permission::permissions(&file, &mut policy);
    policy
}

fn fingerprint(text: &str) -> u64 {
    let mut hasher = SipHasher24::new();
    hasher.write(text.as_bytes());
    hasher.finish()
}

fn shed(file: &Section<'_>) -> Shed {
    let section = file
        .get("shed")
        .and_then(|item| item.section("[shed]", &["hot", "low_memory"]));
    let priority = |key| {
        section
            .as_ref()
            .and_then(|section| section.get(key))
            .and_then(|item| item.integer(0..=9))
            .and_then(|priority| u8::try_from(priority).ok())
            .unwrap_or(5)
    };
    Shed {
        hot: priority("hot"),
        low_memory: priority("low_memory"),
    }
}

fn remote(file: &Section<'_>) -> Option<crate::schedule::Rate> {
    let section = file
        .get("remote")?
        .section("[remote]", &["images", "rate"])?;
    let rate = section.need("rate").and_then(|item| item.rate());
    rate.filter(|_| section.flag("images", false))
}

/// The value of a key given as one or a list.
fn one_or_more<'t>(item: &Item<'t>) -> Vec<Item<'t>> {
    item.elements().unwrap_or_else(|| vec![item.clone()])
}

/// The links that an item names, a bit each.
fn links(item: &Item<'_>) -> Option<u8> {
    one_or_more(item)
        .iter()
        .try_fold(0, |bits, item| Some(bits | item.word(&Link::NAMES)?.bit()))
}

fn unknown(report: &Report<'_>, item: &Item<'_>, kind: &'static str, known: &[&str]) {
    let name = item.shown();
    let help = suggestion(&name, known.iter().copied(), kind);
    report.error(item.span, Problem::UnknownName { kind, name }, help);
}
