//! `ocelli rules explain`: what one observation would do, or what every rule may do.

use super::rehearsal::Rehearsal;
use super::sentence::{Sentence, SentenceError};
use crate::cli::{ExplainArgs, Global};
use crate::fault::Fault;
use crate::inventory;
use crate::remark::remark;
use crate::wall_clock;
use ocelli_reflex::explain::outline;
use ocelli_reflex::{Loaded, LocalTime, Policy, explain, load};
use serde_json::json;
use std::io::{self, Write};

pub(super) fn run(global: &Global, args: &ExplainArgs) -> Result<(), Fault> {
    let text = inventory::read(&args.file)?;
    let policy = match load(&text, &super::inventory(&args.inventory)?) {
        Ok(Loaded { policy, .. }) => policy,
        Err(rejected) => {
            super::check::print(global, &args.file, &rejected.diagnostics)?;
            return Err(Fault::RuleFiles {
                failed: 1,
                total: 1,
            });
        }
    };
    let local = args.at.as_deref().map(time_of).transpose()?;
    match &args.observation {
        Some(observation) => tell(global, &policy, local, &args.after, observation),
        None => Ok(table(global, &policy, local)?),
    }
}

fn time_of(text: &str) -> Result<LocalTime, Fault> {
    wall_clock::parse(text).ok_or_else(|| {
        Fault::Argument(format!(
            "--at: {text:?} is no time; write for instance \"2026-11-22 23:10\""
        ))
    })
}

impl From<SentenceError> for Fault {
    fn from(error: SentenceError) -> Fault {
        Fault::Argument(error.to_string())
    }
}

fn tell(
    global: &Global,
    policy: &Policy,
    local: Option<LocalTime>,
    before: &[String],
    words: &str,
) -> Result<(), Fault> {
    let mut rehearsal = Rehearsal::start(policy, local);
    let mut out = io::stdout().lock();
    for words in before {
        let sentence = Sentence::parse(policy, words)?;
        let observation = rehearsal.prepare(&sentence, words)?;
        rehearsal.see(&observation);
        print(global, &mut out, "before", words, &rehearsal.told())?;
    }
    let sentence = Sentence::parse(policy, words)?;
    let observation = rehearsal.prepare(&sentence, words)?;
    let mut lines = rehearsal.told();
    lines.extend(explain(
        policy,
        &rehearsal.state,
        &observation,
        rehearsal.now(),
    ));
    print(global, &mut out, "now", words, &lines)?;
    if local.is_none() && !global.quiet && policy.permissions.iter().any(|l| l.during.is_some()) {
        remark!("the wall clock is not known, so time windows refuse; give it with --at");
    }
    Ok(())
}

fn print(
    global: &Global,
    out: &mut impl Write,
    when: &str,
    words: &str,
    lines: &[String],
) -> io::Result<()> {
    if global.json {
        let fields = json!({ "when": when, "observation": words, "lines": lines });
        return writeln!(out, "{fields}");
    }
    writeln!(out, "{words}")?;
    lines.iter().try_for_each(|line| writeln!(out, "  {line}"))
}

fn table(global: &Global, policy: &Policy, local: Option<LocalTime>) -> io::Result<()> {
    let rehearsal = Rehearsal::start(policy, local);
    let mut out = io::stdout().lock();
    for rule in outline(policy, &rehearsal.state, rehearsal.now().local) {
        if global.json {
            writeln!(out, "{}", json!(rule))?;
            continue;
        }
        let off = if rule.enabled { "" } else { " (not enabled)" };
        writeln!(out, "{}{off}", rule.rule)?;
        writeln!(out, "  when  {}", rule.when.join("; "))?;
        if let Some(asks) = &rule.asks {
            writeln!(out, "  asks  {asks}")?;
        }
        let mut last = "";
        for may in &rule.may {
            if last != may.when {
                writeln!(out, "  if {}:", may.when)?;
                last = &may.when;
            }
            writeln!(out, "    {}: {}", may.action, may.verdict)?;
        }
    }
    Ok(())
}
