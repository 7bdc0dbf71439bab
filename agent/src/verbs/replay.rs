//! `ocelli replay`: a journal done again, bit for bit or under other rules.

use crate::cli::{Global, ReplayArgs};
use crate::entry::{Answered, Entry};
use crate::fault::Fault;
use crate::inventory::read;
use crate::journal::{Damage, Disk, Reader, Record};
use crate::mind::{Job, Mind, MindSettings};
use crate::model;
use crate::progress::Progress;
use crate::replay::exact::Hole;
use crate::replay::{Changed, Difference, Exact, Reasked, Reasker, RuleBook, Tally, Under, reask};
use crate::verbs::journal::{harmless, open};
use crate::wall_clock;
use ocelli_reflex::{Inventory, Now, load};
use ocelli_runtime::Vlm;
use ocelli_runtime::image::Rgb8;
use serde_json::json;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long one answer may take.
const ANSWER_TIME: Duration = Duration::from_secs(3600);

/// Runs the verb.
///
/// # Errors
///
/// See [`Fault`]; [`Fault::Replay`] if anything came out otherwise or could not be replayed.
pub fn run(global: &Global, args: &ReplayArgs) -> Result<(), Fault> {
    if let Some(pictures) = &args.answers {
        let (vlm, _) = model::load(global, &mut Progress::new(global))?;
        let mut again = Again {
            vlm: Arc::new(vlm),
            mind: None,
        };
        return answers(global, args, pictures, &mut again);
    }
    let disk = open(&args.folder)?;
    match &args.rules {
        None => exact(global, args, &disk),
        Some(rules) => under(global, args, &disk, rules),
    }
}

/// The model of the command line, asked as the agent asked it.
struct Again {
    vlm: Arc<Vlm>,
    /// With the instructions it was made with.
    mind: Option<(Option<String>, Mind)>,
}

impl Reasker for Again {
    fn answer(&mut self, answered: &Answered, picture: &Rgb8) -> Result<Answered, String> {
        let is_fit = |(system, _): &(Option<String>, Mind)| *system == answered.system;
        if !self.mind.as_ref().is_some_and(is_fit) {
            let settings = MindSettings {
                system: answered.system.clone(),
                ..MindSettings::default()
            };
            let mind = Mind::new(Arc::clone(&self.vlm), settings);
            let mind = mind.map_err(|error| error.to_string())?;
            self.mind = Some((answered.system.clone(), mind));
        }
        let Some((_, mind)) = &mut self.mind else {
            return Err("there is no model".to_owned());
        };
        let job = Job {
            question: answered.question,
            rule: answered.rule.clone(),
            frame: answered.frame,
            picture: Arc::new(picture.clone()),
            prompt: answered.prompt.clone(),
            form: answered.form.clone(),
            max_tiles: answered.max_tiles.map(|tiles| tiles as usize),
            early: false,
            priority: 0,
            deadline: Instant::now() + ANSWER_TIME,
        };
        let mut result = Err("the model said nothing".to_owned());
        mind.answer(&job, &mut |thought| {
            result = thought
                .result
                .map(|conclusion| conclusion.answered)
                .map_err(|failure| failure.to_string());
        });
        result
    }
}

/// The records of a range. What is before it only tells rules.
fn range<'a>(
    disk: &'a Disk,
    args: &ReplayArgs,
) -> io::Result<impl Iterator<Item = Result<Record<Entry>, Damage>> + 'a> {
    let to = args.to.unwrap_or(u64::MAX);
    let records = Reader::new(disk)?;
    Ok(
        records.take_while(move |found: &Result<Record<Entry>, Damage>| {
            found.as_ref().map_or(true, |record| record.sequence <= to)
        }),
    )
}

/// Feeds the rules of records before the range to a book; true if the record is in the range.
fn is_in_range(
    found: &Result<Record<Entry>, Damage>,
    from: u64,
    book: &mut RuleBook,
    begun: &mut bool,
) -> bool {
    if let Ok(record) = found {
        *begun = record.sequence >= from;
        if !*begun {
            book.take(&record.body);
        }
    }
    *begun
}

fn exact(global: &Global, args: &ReplayArgs, disk: &Disk) -> Result<(), Fault> {
    let mut exact = Exact::new();
    let begin = Instant::now();
    let mut begun = args.from == 0;
    for found in range(disk, args)? {
        if is_in_range(&found, args.from, &mut exact.book, &mut begun) && !exact.take(found) {
            break;
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    print_exact(global, &exact, seconds)?;
    let failed = |what: String| {
        Err(Fault::Replay {
            path: args.folder.clone(),
            what,
        })
    };
    match &exact.difference {
        Some(difference) => failed(format!("record {} came out otherwise", difference.sequence)),
        None if exact.n_begins == 0 => {
            failed("no begin of an agent is in the range; choose a wider one".to_owned())
        }
        None if !exact.holes.is_empty() => {
            failed(format!("{} steps were left out", exact.n_left_out))
        }
        None => Ok(()),
    }
}

fn moment(now: Now) -> String {
    match now.local {
        Some(local) => wall_clock::text(local),
        None => format!("{} ms", now.ms),
    }
}

fn print_exact(global: &Global, exact: &Exact, seconds: f64) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let steps_per_second = exact.n_steps as f64 / seconds.max(1e-9);
    if global.json {
        let holes: Vec<String> = exact.holes.iter().map(Hole::to_string).collect();
        let fields = json!({
            "steps": exact.n_steps,
            "outputs": exact.n_outputs,
            "begins": exact.n_begins,
            "reloads": exact.n_reloads,
            "first": exact.range.map(|range| range.0),
            "last": exact.range.map(|range| range.1),
            "before_first_begin": exact.n_before,
            "left_out": exact.n_left_out,
            "holes": holes,
            "steps_per_second": steps_per_second,
            "difference": exact.difference,
        });
        return writeln!(out, "{fields}");
    }
    if let Some((first, last)) = exact.range {
        writeln!(
            out,
            "{} steps of records {first} to {last} came out the same: {} outputs, {} begins, {} reloads; {steps_per_second:.0} steps a second",
            exact.n_steps, exact.n_outputs, exact.n_begins, exact.n_reloads
        )?;
    }
    if exact.n_before > 0 {
        let before = exact.n_before;
        writeln!(
            out,
            "{before} steps before the first begin were not replayed"
        )?;
    }
    for hole in &exact.holes {
        writeln!(out, "not replayed up to the next begin: {hole}")?;
    }
    match &exact.difference {
        Some(difference) => print_difference(&mut out, difference),
        None => Ok(()),
    }
}

fn print_difference(out: &mut impl Write, difference: &Difference) -> io::Result<()> {
    let (sequence, when) = (difference.sequence, moment(difference.now));
    let observation = harmless(&difference.observation);
    writeln!(out, "record {sequence}, {when}: {observation}")?;
    let (old, new) = (&difference.recorded, &difference.replayed);
    let same = old
        .iter()
        .zip(new)
        .take_while(|(old, new)| old == new)
        .count();
    let same = difference.first.map_or(same, |first| first.min(same));
    for line in &old[..same] {
        writeln!(out, "    {}", harmless(line))?;
    }
    for line in &old[same..] {
        writeln!(out, "  - {}", harmless(line))?;
    }
    for line in &new[same..] {
        writeln!(out, "  + {}", harmless(line))?;
    }
    let in_words = old == new;
    if in_words {
        let first = difference.first.map_or(0, |first| first + 1);
        writeln!(
            out,
            "  output {first} differs in what words do not show, e.g. an id"
        )?;
    }
    Ok(())
}

fn under(global: &Global, args: &ReplayArgs, disk: &Disk, rules: &Path) -> Result<(), Fault> {
    let inventory = Inventory {
        serial: true,
        ..Inventory::default()
    };
    let loaded = load(&read(rules)?, &inventory)
        .map_err(|rejected| Fault::Argument(format!("{}: {rejected}", rules.display())))?;
    let mut under = Under::new(loaded.policy);
    let mut begun = args.from == 0;
    let mut out = io::stdout().lock();
    for found in range(disk, args)? {
        if !is_in_range(&found, args.from, &mut under.book, &mut begun) {
            continue;
        }
        if let Some(changed) = under.take(found) {
            print_changed(global, &mut out, &changed)?;
        }
    }
    print_summary(global, &mut out, &under)?;
    match under.n_steps {
        0 => Err(Fault::Replay {
            path: args.folder.clone(),
            what: "no begin of an agent is in the range; choose a wider one".to_owned(),
        }),
        _ => Ok(()),
    }
}

fn print_changed(global: &Global, out: &mut impl Write, changed: &Changed) -> io::Result<()> {
    if global.json {
        return writeln!(out, "{}", json!({ "changed": changed }));
    }
    let (sequence, when) = (changed.sequence, moment(changed.now));
    let misfit = if changed.misfit { " (not awaited)" } else { "" };
    let observation = harmless(&changed.observation);
    writeln!(out, "record {sequence}, {when}: {observation}{misfit}")?;
    for line in &changed.lost {
        writeln!(out, "  - {}", harmless(line))?;
    }
    for line in &changed.gained {
        writeln!(out, "  + {}", harmless(line))?;
    }
    Ok(())
}

fn print_summary(global: &Global, out: &mut impl Write, under: &Under) -> io::Result<()> {
    let names: BTreeSet<&String> = under.before.keys().chain(under.after.keys()).collect();
    let tally = |tallies: &crate::replay::tally::Tallies, name: &String| {
        tallies.get(name).copied().unwrap_or_default()
    };
    if global.json {
        let holes: Vec<String> = under.holes.iter().map(Hole::to_string).collect();
        let fields = json!({
            "steps": under.n_steps,
            "changed": under.n_changed,
            "before": under.before,
            "after": under.after,
            "not_awaited": under.misfits,
            "holes": holes,
        });
        return writeln!(out, "{}", json!({ "summary": fields }));
    }
    writeln!(
        out,
        "{} of {} steps came out otherwise",
        under.n_changed, under.n_steps
    )?;
    for name in names {
        let (before, after): (Tally, Tally) =
            (tally(&under.before, name), tally(&under.after, name));
        let columns = before.columns().into_iter().zip(after.columns());
        let cells: Vec<String> = columns
            .filter(|((_, before), (_, after))| before + after > 0)
            .map(|((what, before), (_, after))| match before == after {
                true => format!("{what} {before}"),
                false => format!("{what} {before} → {after}"),
            })
            .collect();
        writeln!(out, "  {name:<24} {}", cells.join(", "))?;
    }
    let misfits = under.misfits;
    if misfits != crate::replay::under::Misfits::default() {
        writeln!(
            out,
            "not awaited under these rules: {} pictures, {} answers, {} decisions, {} hooks, {} outcomes",
            misfits.pictures, misfits.answers, misfits.decisions, misfits.hooks, misfits.outcomes
        )?;
    }
    for hole in &under.holes {
        writeln!(out, "{hole}")?;
    }
    Ok(())
}

/// Asks a model again for every answer of a range whose picture is kept, and prints what became
/// of each.
///
/// # Errors
///
/// [`Fault::Replay`] if an answer came out otherwise, or none could be asked for.
pub fn answers(
    global: &Global,
    args: &ReplayArgs,
    pictures: &Path,
    reasker: &mut impl Reasker,
) -> Result<(), Fault> {
    let disk = open(&args.folder)?;
    let mut out = io::stdout().lock();
    let (mut same, mut otherwise, mut passed_over) = (0_u64, 0_u64, 0_u64);
    for record in range(&disk, args)?.flatten() {
        let Entry::Answered(answered) = &record.body else {
            continue;
        };
        if record.sequence < args.from {
            continue;
        }
        let reasked = reask(answered, pictures, reasker);
        match &reasked {
            Reasked::Same => same += 1,
            Reasked::Differs(_) | Reasked::Failed(_) => otherwise += 1,
            _ => passed_over += 1,
        }
        if global.json {
            let fields = json!({
                "sequence": record.sequence,
                "rule": answered.rule,
                "question": answered.question.0,
                "reasked": reasked,
            });
            writeln!(out, "{fields}")?;
        } else if reasked != Reasked::Same {
            let rule = harmless(&answered.rule);
            let what = harmless(&format!("{reasked:?}"));
            writeln!(out, "record {}, {rule}: {what}", record.sequence)?;
        }
    }
    let what = format!("{same} answers the same, {otherwise} otherwise, {passed_over} passed over");
    if !global.json {
        writeln!(out, "{what}")?;
    }
    match (same, otherwise) {
        (1.., 0) => Ok(()),
        _ => Err(Fault::Replay {
            path: args.folder.clone(),
            what,
        }),
    }
}
