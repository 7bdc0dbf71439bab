//! `ocelli journal`, as a user runs it.

#[path = "replay/day.rs"]
mod day;

use day::{Plan, record};
use ocelli_agent::entry::{Entry, Remark};
use ocelli_agent::journal::{Disk, Journal, JournalSettings, Moment};
use ocelli_tests::command::{Outcome, binary, ocelli};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use tempfile::TempDir;

const PLAN: Plan = Plan {
    n_steps: 600,
    reload_every: 250,
    restart_every: 230,
    ..Plan::FULL
};

fn day() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    record(folder.path(), PLAN);
    folder
}

fn journal(verb: &str, folder: &TempDir, arguments: &[&str]) -> Outcome {
    let mut all = vec!["journal", verb, folder.path().to_str().unwrap()];
    all.extend(arguments);
    let outcome = ocelli(&all);
    assert_ne!(outcome.code, Some(101), "{}", outcome.stderr);
    outcome
}

fn lines(outcome: &Outcome) -> Vec<Value> {
    let lines = outcome.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).expect(line))
        .collect()
}

#[test]
fn a_day_is_told_in_words_and_local_time() {
    let folder = day();
    let outcome = journal("show", &folder, &[]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    for words in [
        "began     porch on raspberry-pi-4, ocelli 0.1.0, rules ",
        "step      pin pir rising\n",
        "rule porch_person starts by its pin trigger\n",
        "do: set lamp = 1 for 30 s\n",
        "step      answer porch_person yes 0.",
        "step      hook of porch_person pass\n",
        "step      reload\n",
        "answered  porch_person early: \"Is there a person in the picture?\"",
        "kept      ",
        "ended     in order\n",
        // The clock is not known at first; the device is an hour east of Greenwich.
        "boot + 40000 ms  began",
        "2026-11-22 06:",
    ] {
        assert!(outcome.stdout.contains(words), "{words} is not told");
    }
    assert!(!outcome.stdout.contains('?') || !outcome.stdout.contains("answer ? "));
}

#[test]
fn what_is_shown_can_be_chosen() {
    let folder = day();
    let all = lines(&journal("show", &folder, &["--json"]));
    let kind =
        |lines: &[Value], kind: &str| lines.iter().filter(|line| line["kind"] == kind).count();
    assert_eq!(kind(&all, "step") as u64, PLAN.n_steps);
    let chosen = lines(&journal(
        "show",
        &folder,
        &["--json", "--kind", "began", "--kind", "ended"],
    ));
    assert_eq!(chosen.len(), kind(&all, "began") + kind(&all, "ended"));
    let rule = lines(&journal("show", &folder, &["--json", "--rule", "courier"]));
    assert!(rule.len() > 10 && rule.len() < all.len() / 2);
    let concerns = |line: &Value| {
        line["rules"]
            .as_array()
            .unwrap()
            .contains(&"courier".into())
    };
    assert!(rule.iter().all(concerns));
    let tail = lines(&journal("show", &folder, &["--json", "--tail", "7"]));
    assert_eq!(tail, all[all.len() - 7..]);
    let since = "2026-11-22 06:30";
    let later = lines(&journal("show", &folder, &["--json", "--since", since]));
    assert!(!later.is_empty() && later.len() < all.len());
    assert_eq!(later, all[all.len() - later.len()..]);
    assert!(later[0]["time"].as_str().unwrap() >= since);
    let before = &all[all.len() - later.len() - 1];
    assert!(before["time"].as_str().unwrap() < since, "{before}");
    // The day is long ago, or still to come.
    let recent = journal("show", &folder, &["--since", "1ms"]);
    assert_eq!(recent.code, Some(0));
    assert_eq!(journal("show", &folder, &["--since", "soon"]).code, Some(2));
}

#[test]
fn what_comes_is_followed() {
    let folder = day();
    let mut child = Command::new(binary())
        .args(["journal", "show", "--follow", "--tail", "1"])
        .arg(folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert!(line.contains("ended"), "{line}");
    let disk = Disk::open(folder.path()).unwrap();
    let (mut journal, _) = Journal::open(disk, JournalSettings::default(), 9).unwrap();
    let remark = Entry::Remark(Remark {
        about: "mqtt".to_owned(),
        text: "broker \u{1b}[31maway".to_owned(),
    });
    journal.append_now(6, &remark, Moment::default()).unwrap();
    line.clear();
    out.read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    // Nothing from a journal commands the terminal.
    assert!(
        line.ends_with("remark    mqtt: broker \\u{1b}[31maway\n"),
        "{line:?}"
    );
}

#[test]
fn a_whole_journal_verifies_with_its_head_and_range() {
    let folder = day();
    let outcome = journal("verify", &folder, &["--json"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let report = &lines(&outcome)[0];
    assert_eq!(report["first"], 1);
    assert_eq!(report["last"], report["records"]);
    assert_eq!(report["head"].as_str().unwrap().len(), 64);
    let words = journal("verify", &folder, &[]);
    assert!(words.stdout.contains(report["head"].as_str().unwrap()));
}

#[test]
fn damage_is_found_named_and_never_a_panic() {
    let folder = day();
    let mut names: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    names.sort();
    let segment = &names[0];
    let whole = fs::read(segment).unwrap();
    for part in [1, 3, 10, 25, 40] {
        let mut bytes = whole.clone();
        let place = bytes.len() * part / 64;
        bytes[place] ^= 0x10;
        fs::write(segment, &bytes).unwrap();
        let outcome = journal("verify", &folder, &[]);
        assert_eq!(outcome.code, Some(1), "byte {place}: {}", outcome.stdout);
        assert!(
            outcome.stdout.contains("damage      "),
            "{}",
            outcome.stdout
        );
        assert!(journal("show", &folder, &[]).stdout.contains("\ndamage   "));
        assert_eq!(journal("export", &folder, &[]).code, Some(1));
        assert_eq!(
            journal("export", &folder, &["--format", "csv"]).code,
            Some(1)
        );
    }
    fs::write(segment, &whole[..whole.len() / 2]).unwrap();
    fs::remove_file(segment).unwrap();
    fs::write(segment, b"OCELLIJN").unwrap();
    for verb in ["show", "verify", "export"] {
        journal(verb, &folder, &[]);
    }
}

#[test]
fn everything_is_exported_as_lines_and_answers_as_a_table() {
    let folder = day();
    let shown = lines(&journal("show", &folder, &["--json"]));
    let outcome = journal("export", &folder, &[]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let exported = lines(&outcome);
    assert_eq!(exported.len(), shown.len());
    assert!(
        exported
            .iter()
            .any(|line| !line["body"]["Step"]["observation"].is_null())
    );
    let table = journal("export", &folder, &["--format", "csv"]);
    assert_eq!(table.code, Some(0), "{}", table.stderr);
    let rows: Vec<&str> = table.stdout.lines().collect();
    let answers = shown
        .iter()
        .filter(|line| line["kind"] == "answered")
        .count();
    assert_eq!(rows.len(), answers + 1);
    let n_columns = rows[0].split(',').count();
    // The answer is quoted and holds the only comma.
    assert!(rows[1].contains("\"so, or \"\"so\"\"\""), "{}", rows[1]);
    assert!(
        rows[1..]
            .iter()
            .all(|row| row.split(',').count() == n_columns + 1)
    );
}
