//! A recorded day done again, bit for bit and under other rules.

#[path = "replay/day.rs"]
mod day;

use day::{Plan, RULES, record};
use ocelli_agent::entry::{
    AnswerForm, Answered, Answerer, Began, Entry, ModelIdentity, RulesPart, Step,
};
use ocelli_agent::journal::{Disk, Journal, JournalSettings, Moment, Reader, Record};
use ocelli_agent::mind::picture_sha256;
use ocelli_agent::replay::{Exact, Reasked, Reasker, Under, reask};
use ocelli_reflex::observation::Stage;
use ocelli_reflex::{Inventory, Observation, Outputs, QuestionId, load};
use ocelli_runtime::image::Rgb8;
use ocelli_tests::command::ocelli;
use serde_json::Value;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

fn day(plan: Plan) -> (TempDir, day::Recorded) {
    let folder = tempfile::tempdir().unwrap();
    let recorded = record(folder.path(), plan);
    (folder, recorded)
}

fn path(folder: &TempDir) -> &str {
    folder.path().to_str().unwrap()
}

fn records(folder: &Path) -> Vec<Record<Entry>> {
    let disk = Disk::open(folder).unwrap();
    let reader = Reader::<_, Entry>::new(&disk).unwrap();
    reader.map(|found| found.unwrap()).collect()
}

const SHORT: Plan = Plan {
    n_steps: 1_500,
    reload_every: 0,
    restart_every: 0,
    ..Plan::FULL
};

#[test]
fn a_recorded_day_comes_out_bit_for_bit() {
    let (folder, recorded) = day(Plan::FULL);
    assert!(
        recorded.n_begins >= 4 && recorded.n_reloads >= 5,
        "{recorded:?}"
    );
    assert!(recorded.n_acts > 500, "{recorded:?}");
    let outcome = ocelli(["replay", "--json", path(&folder)]);
    assert_eq!(
        outcome.code,
        Some(0),
        "{}{}",
        outcome.stdout,
        outcome.stderr
    );
    let report: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(report["steps"], Plan::FULL.n_steps);
    assert_eq!(report["outputs"], recorded.n_outputs);
    assert_eq!(report["begins"], recorded.n_begins);
    assert_eq!(report["reloads"], recorded.n_reloads);
    assert_eq!(report["difference"], Value::Null);
}

#[test]
fn a_changed_byte_in_a_recorded_output_is_found_and_named() {
    for tamper_at in [40, 777, 1_400] {
        let plan = Plan {
            tamper_at: Some(tamper_at),
            ..SHORT
        };
        let (folder, recorded) = day(plan);
        let sequence = recorded.tampered.unwrap();
        // The journal itself is whole: only the replay can tell.
        assert_eq!(ocelli(["journal", "verify", path(&folder)]).code, Some(0));
        let outcome = ocelli(["replay", path(&folder)]);
        assert_eq!(outcome.code, Some(1), "{}", outcome.stdout);
        let name = format!("record {sequence}");
        assert!(outcome.stderr.contains(&name), "{}", outcome.stderr);
        let line = format!("{name}, ");
        assert!(outcome.stdout.contains(&line), "{}", outcome.stdout);
        // Outside the range it does no harm.
        let to = (sequence - 1).to_string();
        assert_eq!(ocelli(["replay", path(&folder), "--to", &to]).code, Some(0));
    }
}

#[test]
fn a_flipped_byte_on_the_disk_is_found_by_verify_and_by_replay() {
    let (folder, _) = day(SHORT);
    let segment = folder.path().join("00000000000000000001.journal");
    let mut bytes = fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let outcome = ocelli(["journal", "verify", path(&folder)]);
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome.stdout.contains("00000000000000000001.journal"),
        "{}",
        outcome.stdout
    );
    let outcome = ocelli(["replay", path(&folder)]);
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome.stdout.contains("damage before record"),
        "{}",
        outcome.stdout
    );
}

#[test]
fn a_replay_goes_on_at_the_next_begin_and_says_what_it_left_out() {
    let (folder, recorded) = day(Plan {
        n_steps: 1_000,
        restart_every: 300,
        ..SHORT
    });
    let records = records(folder.path());
    let begins: Vec<u64> = records
        .iter()
        .filter(|record| matches!(record.body, Entry::Began(_)))
        .map(|record| record.sequence)
        .collect();
    assert_eq!(begins.len() as u64, recorded.n_begins);
    let replay = |from: u64, without: u64| {
        let mut exact = Exact::new();
        for record in &records {
            match record.sequence {
                sequence if sequence < from => exact.book.take(&record.body),
                sequence if sequence == without => {}
                _ => assert!(exact.take(Ok(record.clone()))),
            }
        }
        exact
    };
    let whole = replay(0, 0);
    assert!(whole.is_whole());
    assert_eq!(whole.n_steps, 1_000);
    let later = replay(begins[1] - 1, 0);
    assert!(later.is_whole());
    assert!(later.n_begins == recorded.n_begins - 1 && later.n_before <= 1);
    let gap = replay(0, begins[1] - 100);
    assert!(!gap.is_whole());
    assert_eq!(gap.holes.len(), 1);
    assert!(gap.n_left_out > 50, "{}", gap.n_left_out);
    assert_eq!(gap.n_steps + gap.n_left_out, whole.n_steps - 1);
}

#[test]
fn rules_that_differ_in_a_comment_change_nothing() {
    let (folder, _) = day(SHORT);
    let report = under(&folder, &format!("# The same.\n{RULES}"));
    assert_eq!(report.n_changed, 0);
    assert_eq!(report.before, report.after);
    assert_eq!(report.misfits, Default::default());
    assert!(report.before["porch_person"].started > 20);
}

fn under(folder: &TempDir, rules: &str) -> Under {
    let policy = load(rules, &Inventory::default()).unwrap().policy;
    let mut under = Under::new(policy);
    for record in records(folder.path()) {
        under.take(Ok(record));
    }
    under
}

#[test]
fn another_rule_beside_them_leaves_the_others_as_they_were() {
    let (folder, _) = day(SHORT);
    // It looks and asks at the same time as others, so that every id is another one.
    let more = "\n[[rules]]\nid = \"weather\"\npriority = 9\nwhen = { pin = \"door\", edge = \"rising\" }\n\
        ask = { question = \"Does it rain?\", choices = [\"yes\", \"no\"], expect = \"yes\" }\n\
        then = [{ publish = \"diary\", payload = \"rain\" }]\n";
    let report = under(
        &folder,
        &RULES.replacen("[[permissions]]", &format!("{more}\n[[permissions]]"), 1),
    );
    for (rule, before) in &report.before {
        assert_eq!(*before, report.after[rule], "{rule}");
    }
    // Its pictures were never taken.
    let weather = report.after["weather"];
    assert!(weather.started > 10 && weather.asked < weather.started);
    assert_eq!(report.misfits.answers, 0);
    assert!(report.n_changed > 10);
}

#[test]
fn under_other_rules_the_diff_names_what_is_done_and_what_is_not() {
    let (folder, _) = day(SHORT);
    let rules = folder.path().join("new.toml");
    let text = RULES
        .replace("choices = [\"yes\", \"no\"]", "choices = [\"no\", \"yes\"]")
        .replace("Who is at the door?", "Who stands at the door?")
        .replace("{ set = \"lamp\", value = \"on\", for = \"30 s\" },", "");
    fs::write(&rules, text).unwrap();
    let outcome = ocelli(["replay", path(&folder), "--rules", rules.to_str().unwrap()]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let has = |line: &str| outcome.stdout.lines().any(|found| found == line);
    // The order of choices is no difference: an answer is known by its text.
    assert!(
        !has("  - porch_person: ends with then"),
        "{}",
        outcome.stdout
    );
    assert!(
        has("  - porch_person: does: set lamp = 1 for 30 s"),
        "{}",
        outcome.stdout
    );
    // An answer to another question is no answer.
    assert!(
        has("  - courier: asks \"Who is at the door?\""),
        "{}",
        outcome.stdout
    );
    assert!(has("  + courier: asks \"Who stands at the door?\""));
    assert!(has("  + courier: ends with unsure"));
    assert!(outcome.stdout.contains("not awaited under these rules"));
    let json = ocelli([
        "replay",
        path(&folder),
        "--json",
        "--rules",
        rules.to_str().unwrap(),
    ]);
    let last: Value = serde_json::from_str(json.stdout.lines().last().unwrap()).unwrap();
    let (before, after) = (&last["summary"]["before"], &last["summary"]["after"]);
    assert_eq!(
        before["porch_person"]["decided"],
        after["porch_person"]["decided"]
    );
    assert_eq!(after["courier"]["decided"][0], 0);
    assert!(before["courier"]["decided"][0].as_u64() > Some(0));
    assert!(last["summary"]["not_awaited"]["answers"].as_u64() > Some(5));
}

#[test]
fn what_cannot_be_replayed_is_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let outcome = ocelli(["replay", path(&folder)]);
    assert_eq!(outcome.code, Some(2));
    assert!(
        outcome.stderr.contains("holds no journal"),
        "{}",
        outcome.stderr
    );
    let missing = folder.path().join("none");
    assert_eq!(ocelli(["replay", missing.to_str().unwrap()]).code, Some(2));
    assert!(!missing.exists());
    let step = Step {
        now: Default::default(),
        rules: 77,
        observation: Observation::Tick,
        outputs: Outputs::default(),
    };
    let began = Began {
        state: postcard::to_stdvec(&ocelli_reflex::State::new()).unwrap(),
        ..Began::default()
    };
    let mut exact = Exact::new();
    for (sequence, body) in (1..).zip([
        Entry::Step(Box::new(step.clone())),
        Entry::Began(Box::new(began)),
        Entry::Step(Box::new(step)),
    ]) {
        assert!(exact.take(Ok(entry(sequence, body))));
    }
    assert_eq!((exact.n_before, exact.n_left_out, exact.n_steps), (1, 1, 0));
    assert_eq!(
        exact.holes[0].to_string(),
        "record 3: the journal holds no rule file 000000000000004d"
    );
}

fn entry(sequence: u64, body: Entry) -> Record<Entry> {
    Record {
        sequence,
        at: Moment::default(),
        boot: 0,
        kind: body.kind(),
        body,
    }
}

#[test]
fn a_rule_file_that_is_not_what_it_is_called_is_not_used() {
    let mut book = ocelli_agent::replay::RuleBook::new();
    let fingerprint = load(RULES, &Inventory::default())
        .unwrap()
        .policy
        .fingerprint;
    let part = |fingerprint, part, parts, text: &str| {
        Entry::Rules(RulesPart {
            fingerprint,
            part,
            parts,
            text: text.to_owned(),
        })
    };
    book.take(&part(1, 0, 1, RULES));
    assert!(book.policy(1).unwrap_err().to_string().contains("is"));
    book.take(&part(2, 0, 1, "format = 2"));
    assert!(book.policy(2).is_err());
    // A piece is missing, then all are there.
    let (begin, end) = RULES.split_at(500);
    book.take(&part(fingerprint, 1, 2, end));
    assert!(book.policy(fingerprint).is_err());
    book.take(&part(fingerprint, 0, 2, begin));
    book.take(&part(fingerprint, 1, 2, end));
    assert!(book.policy(fingerprint).is_ok());
}

#[test]
fn entries_with_any_byte_flipped_never_panic() {
    let (folder, _) = day(Plan {
        n_steps: 300,
        restart_every: 100,
        ..SHORT
    });
    let records = records(folder.path());
    let policy = load(RULES, &Inventory::default()).unwrap().policy;
    let mut n_foreign = 0;
    for round in 0_usize..60 {
        let (mut exact, mut under) = (Exact::new(), Under::new(policy.clone()));
        for (at, record) in records.iter().enumerate() {
            let mut record = record.clone();
            // Every begin, and some others.
            if (at + round) % 7 == 0 || matches!(record.body, Entry::Began(_)) {
                let mut bytes = postcard::to_stdvec(&record.body).unwrap();
                let place = (at * 31 + round * 97) % bytes.len();
                bytes[place] ^= 1 << (round % 8);
                if let Ok(body) = postcard::from_bytes(&bytes) {
                    record.body = body;
                    n_foreign += 1;
                }
            }
            under.take(Ok(record.clone()));
            if !exact.take(Ok(record)) {
                exact.difference = None;
            }
        }
    }
    assert!(n_foreign > 500, "{n_foreign}");
}

#[test]
fn records_of_another_program_are_named_and_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::open(folder.path()).unwrap();
    let (mut journal, _) = Journal::open(disk, JournalSettings::default(), 1).unwrap();
    for number in 0..50_u8 {
        let body = vec![number; usize::from(number)];
        journal.append(200, &body, Moment::default()).unwrap();
    }
    journal.flush(Moment::default()).unwrap();
    drop(journal);
    for (verb, code) in [
        (&["journal", "show"][..], Some(0)),
        (&["journal", "verify"], Some(1)),
        (&["journal", "export"], Some(1)),
        (&["replay"], Some(1)),
    ] {
        let mut arguments = verb.to_vec();
        arguments.push(path(&folder));
        let outcome = ocelli(&arguments);
        assert_eq!(outcome.code, code, "{verb:?}: {}", outcome.stderr);
    }
}

/// Answers as the journal says, but for one thing.
struct Parrot(fn(&mut Answered));

impl Reasker for Parrot {
    fn answer(&mut self, answered: &Answered, _: &Rgb8) -> Result<Answered, String> {
        let mut again = answered.clone();
        (self.0)(&mut again);
        match again.text.as_str() {
            "ill" => Err("no memory".to_owned()),
            _ => Ok(again),
        }
    }
}

#[test]
fn an_answer_is_asked_again_only_with_its_picture_and_compared_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let pixels: Vec<u8> = (0..4 * 3 * 3).collect();
    image::save_buffer(
        folder.path().join("a.png"),
        &pixels,
        4,
        3,
        image::ColorType::Rgb8,
    )
    .unwrap();
    let picture = Rgb8::new(4, 3, pixels).unwrap();
    let answered = Answered {
        question: QuestionId(5),
        rule: "porch".to_owned(),
        stage: Stage::Refined,
        frame: 9,
        frame_sha256: picture_sha256(&picture),
        picture: Some("a.png".to_owned()),
        by: Answerer::Local(ModelIdentity::default()),
        prompt: "What?".to_owned(),
        form: AnswerForm::Caption(8),
        max_tiles: None,
        prompt_tokens: 84,
        tokens: vec![1, 2],
        token_probabilities: vec![0.5, 0.25],
        choice_scores: vec![-1.0],
        choice_probabilities: vec![0.75],
        text: "A porch.".to_owned(),
        probability: 0.5,
        unsure: false,
        time_ms: [1.0; 3],
        joules: None,
        system: None,
    };
    let ask = |answered: &Answered, change| reask(answered, folder.path(), &mut Parrot(change));
    assert_eq!(ask(&answered, |_| ()), Reasked::Same);
    // How long it took is no part of the answer.
    assert_eq!(
        ask(&answered, |again| again.time_ms = [2.0; 3]),
        Reasked::Same
    );
    type Change = fn(&mut Answered);
    let changes: [(Change, &str); 7] = [
        (|again| again.tokens[1] = 3, "token 1 was 2, is 3"),
        (|again| again.tokens.push(4), "there were 2 of token, are 3"),
        (
            |again| again.token_probabilities[0] = f32::from_bits(0.5_f32.to_bits() + 1),
            "token probability 0 was 0.5, is 0.50000006",
        ),
        (
            |again| again.choice_scores[0] = 0.0,
            "choice score 0 was -1.0, is 0.0",
        ),
        (
            |again| again.choice_probabilities.clear(),
            "there were 1 of choice probability, are 0",
        ),
        (
            |again| again.text.push('!'),
            "the answer was \"A porch.\" 0.5 (unsure: false), is \"A porch.!\" 0.5 (unsure: false)",
        ),
        (
            |again| again.unsure = true,
            "the answer was \"A porch.\" 0.5 (unsure: false), is \"A porch.\" 0.5 (unsure: true)",
        ),
    ];
    for (change, what) in changes {
        assert_eq!(ask(&answered, change), Reasked::Differs(what.to_owned()));
    }
    let other_kernel = |again: &mut Answered| {
        again.by = Answerer::Local(ModelIdentity {
            kernel: "avx2".to_owned(),
            ..ModelIdentity::default()
        });
    };
    assert!(matches!(
        ask(&answered, other_kernel),
        Reasked::OtherKernel { .. }
    ));
    let ill = |again: &mut Answered| again.text = "ill".to_owned();
    assert_eq!(ask(&answered, ill), Reasked::Failed("no memory".to_owned()));
    for name in [
        None,
        Some("b.png"),
        Some("../a.png"),
        Some("/etc/passwd"),
        Some(""),
    ] {
        let picture = name.map(str::to_owned);
        let without = Answered {
            picture,
            ..answered.clone()
        };
        assert!(
            matches!(ask(&without, |_| ()), Reasked::NoPicture(_)),
            "{name:?}"
        );
    }
    let another = Answered {
        frame_sha256: [0; 32],
        ..answered.clone()
    };
    assert!(matches!(ask(&another, |_| ()), Reasked::NoPicture(_)));
    let remote = Answered {
        by: Answerer::Remote {
            url: String::new(),
            model: String::new(),
        },
        ..answered
    };
    assert_eq!(ask(&remote, |_| ()), Reasked::Remote);
}
