//! `ocelli journal show`: the entries asked for, in words.

use super::teller::{Teller, Told};
use crate::cli::{EntryKind, Global, ShowArgs};
use crate::entry::Entry;
use crate::fault::Fault;
use crate::journal::{Damage, Disk, Reader, Record};
use crate::wall_clock;
use clap::ValueEnum;
use serde_json::json;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often `--follow` looks for more.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// From when on entries are shown.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Since {
    /// Milliseconds since 1970-01-01 UTC.
    Wall(u64),
    /// Seconds of the device's wall clock.
    Local(i64),
}

impl Since {
    fn parse(text: &str, now: SystemTime) -> Result<Since, Fault> {
        if let Some(local) = wall_clock::parse(text) {
            return Ok(Since::Local(wall_clock::seconds(local)));
        }
        let age = humantime::parse_duration(text).map_err(|error| {
            Fault::Argument(format!(
                "--since: {text:?} is no time: {error}; write for instance 90min, 2days or \"2026-11-22 23:10\""
            ))
        })?;
        let since_1970 = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let from = since_1970.saturating_sub(age).as_millis();
        Ok(Since::Wall(u64::try_from(from).unwrap_or(u64::MAX)))
    }

    fn is_over(self, told: &Told) -> bool {
        match self {
            Since::Wall(from) => told.wall_ms.is_some_and(|ms| ms >= from),
            Since::Local(from) => told
                .local
                .is_some_and(|local| wall_clock::seconds(local) >= from),
        }
    }
}

pub(super) fn run(global: &Global, args: &ShowArgs) -> Result<(), Fault> {
    let now = SystemTime::now();
    let since = args.since.as_deref().map(|text| Since::parse(text, now));
    let disk = super::open(&args.folder)?;
    let mut shown = Show {
        global,
        args,
        since: since.transpose()?,
        teller: Teller::default(),
        last: 0,
        kept: VecDeque::new(),
    };
    for found in Reader::<_, Entry>::new(&disk)? {
        shown.take(found, args.tail.is_some())?;
    }
    for line in std::mem::take(&mut shown.kept) {
        shown.print(&line)?;
    }
    if !args.follow {
        return Ok(());
    }
    loop {
        std::thread::sleep(LOOK_EVERY);
        shown.go_on(&disk)?;
    }
}

/// An entry or damage to be printed.
enum Line {
    Told(Told),
    Damage(Damage),
}

struct Show<'a> {
    global: &'a Global,
    args: &'a ShowArgs,
    /// `None`: everything from here on.
    since: Option<Since>,
    teller: Teller,
    /// Number of the last record read.
    last: u64,
    /// The last lines, for `--tail`.
    kept: VecDeque<Line>,
}

impl Show<'_> {
    fn take(&mut self, found: Result<Record<Entry>, Damage>, keep: bool) -> io::Result<()> {
        let line = match found {
            Ok(record) => {
                self.last = record.sequence;
                let told = self.teller.tell(&record);
                if !self.is_wanted(&told) {
                    return Ok(());
                }
                Line::Told(told)
            }
            Err(damage) => Line::Damage(damage),
        };
        if !keep {
            return self.print(&line);
        }
        self.kept.push_back(line);
        if self.kept.len() > self.args.tail.unwrap_or(usize::MAX) {
            self.kept.pop_front();
        }
        Ok(())
    }

    /// Reads what was written since.
    fn go_on(&mut self, disk: &Disk) -> Result<(), Fault> {
        let last = self.last;
        for found in Reader::<_, Entry>::since(disk, last.saturating_add(1))? {
            // Damage before the last record has been shown.
            if found.as_ref().is_ok_and(|record| record.sequence > last) {
                self.take(found, false)?;
            }
        }
        Ok(())
    }

    fn is_wanted(&mut self, told: &Told) -> bool {
        if let Some(since) = self.since {
            if !since.is_over(told) {
                return false;
            }
            // Entries without time come after the one before them.
            self.since = None;
        }
        let is_kind = self.args.kind.is_empty() || self.args.kind.contains(&told.kind);
        let rule = self.args.rule.as_ref();
        is_kind && rule.is_none_or(|rule| told.rules.contains(rule))
    }

    fn print(&self, line: &Line) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match line {
            Line::Told(told) if self.global.json => {
                let fields = json!({
                    "sequence": told.sequence,
                    "time": told.time,
                    "wall_ms": told.wall_ms,
                    "kind": kind_name(told.kind),
                    "rules": told.rules,
                    "lines": told.lines,
                });
                writeln!(out, "{fields}")
            }
            Line::Told(told) => {
                let first = told.lines.first().map_or("", String::as_str);
                let kind = kind_name(told.kind);
                writeln!(
                    out,
                    "{:>7}  {}  {kind:<8}  {first}",
                    told.sequence, told.time
                )?;
                let rest = told.lines.iter().skip(1);
                rest.into_iter()
                    .try_for_each(|line| writeln!(out, "{:>9}{line}", ""))
            }
            Line::Damage(damage) if self.global.json => {
                let fields = json!({
                    "kind": "damage",
                    "segment": damage.segment,
                    "offset": damage.offset,
                    "lines": [damage.to_string()],
                });
                writeln!(out, "{fields}")
            }
            Line::Damage(damage) => writeln!(out, "damage   {damage}"),
        }
    }
}

fn kind_name(kind: EntryKind) -> String {
    let value = kind.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_counts_back_and_a_date_is_the_devices() {
        let now = UNIX_EPOCH + Duration::from_secs(10_000);
        let parse = |text| Since::parse(text, now).ok();
        assert_eq!(parse("1h"), Some(Since::Wall(6_400_000)));
        assert_eq!(parse("90 days"), Some(Since::Wall(0)));
        assert_eq!(parse("1970-01-02"), Some(Since::Local(86_400)));
        assert_eq!(parse("yesterday"), None);
    }
}
