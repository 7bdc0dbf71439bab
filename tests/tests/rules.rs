//! `ocelli rules`, as a user runs it.

use ocelli_tests::command::{Outcome, ocelli};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn example(name: &str) -> String {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/reflex/examples");
    path.join(name).to_str().unwrap().to_owned()
}

fn written(text: &str) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rules.toml");
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

fn explain(file: &str, arguments: &[&str]) -> Outcome {
    let mut all = vec!["rules", "explain", file];
    all.extend(arguments);
    ocelli(&all)
}

const LAMP: &str =
    "format = 1\n[pins.lamp]\nline = \"GPIO17\"\ndirection = \"out\"\nsafe = \"off\"\n";

#[test]
fn good_files_are_good_and_all_mistakes_of_bad_ones_are_shown_where_they_are() {
    let good = ocelli([
        "rules",
        "check",
        &example("pir_lamp.toml"),
        &example("kiosk.toml"),
    ]);
    assert_eq!(good.code, Some(0), "{}", good.stdout);
    assert_eq!(good.stdout.lines().count(), 2);
    let (_folder, bad) = written(
        &LAMP
            .replace("safe =", "saef =")
            .replace("\"out\"", "\"oat\""),
    );
    let outcome = ocelli(["rules", "check", &bad, &example("kiosk.toml")]);
    assert_eq!(outcome.code, Some(2));
    assert!(
        outcome.stderr.contains("1 of 2 rule files"),
        "{}",
        outcome.stderr
    );
    for wanted in [
        format!("{bad}:4:13: error: "),
        "    4 | direction = \"oat\"\n      |             ^^^^^\n      = ".to_owned(),
        format!("{bad}:5:1: error: unknown key `saef`"),
        "did you mean `safe`?".to_owned(),
    ] {
        assert!(
            outcome.stdout.contains(&wanted),
            "{wanted:?} in {}",
            outcome.stdout
        );
    }
    let json = ocelli(["rules", "check", "--json", &bad]);
    assert_eq!(json.code, Some(2));
    let first: Value = serde_json::from_str(json.stdout.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["line"], &first["column"]),
        (&Value::from(4), &Value::from(13))
    );
    assert_eq!(first["severity"], "error");
}

#[test]
fn warnings_alone_are_no_failure() {
    let (_folder, file) = written(&format!(
        "{LAMP}[pins.pir]\nline = \"GPIO4\"\ndirection = \"in\"\n[[rules]]\nid = \"idle\"\nwhen = {{ pin = \"pir\" }}\nthen = []\n"
    ));
    let outcome = ocelli(["rules", "check", &file]);
    assert_eq!(
        outcome.code,
        Some(0),
        "{}{}",
        outcome.stdout,
        outcome.stderr
    );
    assert!(outcome.stdout.contains("warning: "), "{}", outcome.stdout);
}

#[test]
fn a_file_is_held_against_board_zones_and_schemas() {
    let file = example("pir_lamp.toml");
    let check = |arguments: &[&str]| {
        let mut all = vec!["rules", "check", file.as_str()];
        all.extend(arguments);
        ocelli(&all)
    };
    assert_eq!(
        check(&["--board", "raspberry-pi-4", "--zones", "porch,street"]).code,
        Some(0)
    );
    let zones = check(&["--zones", "street"]);
    assert_eq!(zones.code, Some(2));
    assert!(
        zones.stdout.contains("no zone named `porch`"),
        "{}",
        zones.stdout
    );
    let (_folder, wrong) = written(&LAMP.replace("GPIO17", "GPIO99"));
    let board = ocelli(["rules", "check", &wrong, "--board", "raspberry-pi-4"]);
    assert_eq!(board.code, Some(2));
    assert!(board.stdout.contains("`GPIO99`"), "{}", board.stdout);
    let (_folder, alias) = written(&LAMP.replace("GPIO17", "pin11"));
    assert_eq!(
        ocelli(["rules", "check", &alias, "--board", "raspberry-pi-4"]).code,
        Some(0)
    );
    let schemas = tempfile::tempdir().unwrap();
    let check = || {
        ocelli([
            "rules",
            "check",
            &example("kiosk.toml"),
            "--schemas",
            schemas.path().to_str().unwrap(),
        ])
    };
    assert_eq!(check().code, Some(2));
    fs::write(schemas.path().join("delivery_note.json"), "{}").unwrap();
    assert_eq!(check().code, Some(0));
    let unknown = check_board_name(&file);
    assert_eq!(unknown.code, Some(2));
    assert!(
        unknown.stderr.contains("raspberry-pi-4"),
        "{}",
        unknown.stderr
    );
}

fn check_board_name(file: &str) -> Outcome {
    ocelli(["rules", "check", file, "--board", "raspbery-pi-4"])
}

#[test]
fn a_missing_or_unreadable_file_is_named() {
    let outcome = ocelli(["rules", "check", "no/such/file.toml"]);
    assert_eq!(outcome.code, Some(2));
    assert!(
        outcome.stderr.contains("no/such/file.toml"),
        "{}",
        outcome.stderr
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bytes.toml");
    fs::write(&path, b"format = 1 # \xff\n").unwrap();
    let outcome = ocelli(["rules", "check", path.to_str().unwrap()]);
    assert_eq!(outcome.code, Some(2));
    assert!(
        outcome.stderr.contains("byte 13 is not UTF-8"),
        "{}",
        outcome.stderr
    );
    fs::write(&path, "é".repeat(200_000)).unwrap();
    let outcome = ocelli(["rules", "check", path.to_str().unwrap()]);
    assert_eq!(outcome.code, Some(2));
    assert!(
        outcome.stdout.contains("the limit is 262144"),
        "{}",
        outcome.stdout
    );
}

#[test]
fn one_observation_is_explained_with_what_every_answer_leads_to() {
    let outcome = explain(&example("pir_lamp.toml"), &["pin pir rising"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    for line in [
        "rule porch_person starts by its pin trigger",
        "if the answer is yes with at least 0.800, 2 of 3 looks agreeing:",
        "set lamp = 1 for 30 s: allowed by line 53 (light at the door)",
    ] {
        assert!(
            outcome.stdout.contains(line),
            "{line} in {}",
            outcome.stdout
        );
    }
}

/// Before, observation, what must be said.
type Scene<'a> = (&'a str, &'a [&'a str], &'a str, &'a str);

#[test]
fn words_bring_about_what_they_say() {
    let scenes: [Scene<'_>; 17] = [
        (
            "pir_lamp.toml",
            &["pin pir rising", "pin pir falling"],
            "pin pir rising",
            "rule porch_person does not start: it is running",
        ),
        (
            "pir_lamp.toml",
            &[
                "answer porch_person no",
                "answer porch_person no",
                "pin pir falling",
            ],
            "pin pir rising",
            "does not start: cooldown, ",
        ),
        (
            "pir_lamp.toml",
            &["answer porch_person yes 0.9"],
            "answer porch_person yes 0.9",
            "do: set lamp = 1 for 30 s",
        ),
        (
            "pir_lamp.toml",
            &["answer porch_person yes", "answer porch_person yes"],
            "wait 30 s",
            "make pin lamp safe: its time is over",
        ),
        (
            "pir_lamp.toml",
            &[],
            "answer porch_person yes 0.9 early",
            "announce event person: new",
        ),
        (
            "pir_lamp.toml",
            &["answer porch_person yes 0.2"],
            "answer porch_person unsure",
            "rule porch_person ends with unsure",
        ),
        (
            "pir_lamp.toml",
            &[],
            "change porch 0.01 motion",
            "no rule waits for it",
        ),
        (
            "pir_lamp.toml",
            &["change porch"],
            "picture dark",
            "the picture is no good: Dark",
        ),
        (
            "pir_lamp.toml",
            &["fault camera"],
            "pin pir rising",
            "ends with unsure: CameraGone",
        ),
        (
            "pir_lamp.toml",
            &["fault camera", "fault camera over"],
            "pin pir rising",
            "take a picture",
        ),
        (
            "kiosk.toml",
            &[],
            "topic read GO",
            "rule read_note starts by its topic trigger",
        ),
        (
            "kiosk.toml",
            &[],
            "wait 1 h",
            "rule hourly starts by its schedule trigger",
        ),
        (
            "delivery_door.toml",
            &["answer parcels 3"],
            "hook guard pass",
            "do: set servo = 27",
        ),
        (
            "delivery_door.toml",
            &["answer parcels 3"],
            "hook guard veto",
            "is refused: hook guard objects",
        ),
        (
            "delivery_door.toml",
            &[
                "answer parcels 3",
                "answer courier courier",
                "answer courier courier",
                "hook guard pass",
                "hook guard pass",
            ],
            "approve courier",
            "do: set lock = 1 for 5 s",
        ),
        (
            "delivery_door.toml",
            &[
                "answer parcels 3",
                "answer courier courier",
                "answer courier courier",
                "hook guard pass",
                "hook guard pass",
            ],
            "reject courier button",
            "is refused: a person said no",
        ),
        (
            "delivery_door.toml",
            &[
                "answer parcels 3",
                "answer courier courier",
                "answer courier courier",
                "hook guard pass",
                "hook guard pass",
                "approve courier",
            ],
            "outcome courier failed",
            "make pin lock safe: setting it failed",
        ),
    ];
    for (file, before, observation, wanted) in scenes {
        let mut arguments = vec!["--at", "2026-11-20 12:30", observation];
        for before in before {
            arguments.extend(["--after", before]);
        }
        let outcome = explain(&example(file), &arguments);
        assert_eq!(outcome.code, Some(0), "{observation}: {}", outcome.stderr);
        let now = outcome
            .stdout
            .rsplit_once(&format!("{observation}\n"))
            .unwrap()
            .1;
        assert!(
            now.contains(wanted),
            "{before:?} {observation}: {wanted} in {}",
            outcome.stdout
        );
    }
}

#[test]
fn the_wall_clock_decides_about_windows() {
    let file = example("delivery_door.toml");
    let before = [
        "--after",
        "answer parcels 3",
        "--after",
        "answer courier courier",
    ];
    for (at, wanted) in [
        (
            "2026-11-22 23:10",
            "line 98 (closed at night, whoever asks) denies it",
        ),
        ("2026-11-22 12:00", "ask hook guard about set lock"),
    ] {
        let mut arguments = vec!["answer courier courier", "--at", at];
        arguments.extend(before);
        let outcome = explain(&file, &arguments);
        assert!(outcome.stdout.contains(wanted), "{at}: {}", outcome.stdout);
    }
    let kiosk = example("kiosk.toml");
    let saturday = explain(
        &kiosk,
        &[
            "pin button rising",
            "--after",
            "at 12:30 sat",
            "--at",
            "2026-11-20 12:00",
        ],
    );
    assert!(
        saturday.stdout.contains("outside its time window"),
        "{}",
        saturday.stdout
    );
    let friday = explain(
        &kiosk,
        &[
            "pin button rising",
            "--after",
            "at 12:30",
            "--at",
            "2026-11-20 12:00",
        ],
    );
    assert!(
        friday.stdout.contains("save the picture: refused: line 47"),
        "{}",
        friday.stdout
    );
    let wrong = explain(&kiosk, &["tick", "--at", "noon"]);
    assert_eq!(wrong.code, Some(2));
    assert!(
        wrong.stderr.contains("2026-11-22 23:10"),
        "{}",
        wrong.stderr
    );
}

#[test]
fn without_an_observation_every_rule_is_told_with_the_line_that_decides() {
    let outcome = explain(
        &example("delivery_door.toml"),
        &["--at", "2026-11-22 23:10"],
    );
    for line in [
        "  when  rule parcels ends with then",
        "  asks  \"Who is at the door?\" (choices)",
        "    set servo = answer × 9 + 0: allowed by line 106",
        "    set lock = 1 for 5 s: refused: line 98 (closed at night, whoever asks) denies it",
        "helper (not enabled)",
        "  if the model picks \"keep the picture\":",
    ] {
        assert!(
            outcome.stdout.lines().any(|found| found == line),
            "{line} in {}",
            outcome.stdout
        );
    }
    let json = explain(&example("kiosk.toml"), &["--json"]);
    let rules: Vec<Value> = json
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(rules[0]["rule"], "read_note");
    assert_eq!(rules[0]["when"][1], "topic read \"GO\"");
    assert_eq!(rules[1]["when"][0], "every 1 h");
}

#[test]
fn words_that_are_no_observation_are_answered_with_what_could_be_meant() {
    let file = example("delivery_door.toml");
    for (words, wanted) in [
        ("", "an observation is missing"),
        ("pim lock rising", "did you mean `pin`?"),
        ("pin lock rising", "is an output; there are: door_closed"),
        ("pin door_close rising", "did you mean `door_closed`?"),
        ("pin door_closed up", "there is no edge \"up\""),
        ("pin door_closed", "edge is missing"),
        (
            "pin door_closed rising twice",
            "nothing is expected at \"twice\"",
        ),
        ("change rump", "did you mean `ramp`?"),
        ("change ramp 1.5", "write a number from 0 to 1"),
        ("answer courier curier", "did you mean `courier`?"),
        ("answer parcels many", "write a number from 0 to 20"),
        ("answer parcels", "the answer is missing"),
        ("answer courier courier", "only another rule starts it"),
        ("at 25:00", "write HH:MM"),
        (
            "at 12:00 monday",
            "there is no day \"monday\"; there are: mon",
        ),
        ("wait long", "e.g. wait 500 ms"),
        ("wait 40 days", "up to 31 days"),
        ("approve courier", "no action of rule `courier` waits"),
        ("hook guard pass", "has not been asked"),
        ("outcome courier done", "is under way"),
        ("picture good", "no picture is asked for"),
        ("link mqtt", "state is missing"),
        ("fault cold", "there is no fault \"cold\""),
    ] {
        let outcome = explain(&file, &[words]);
        assert_eq!(outcome.code, Some(2), "{words}: {}", outcome.stdout);
        assert!(
            outcome.stderr.contains(wanted),
            "{words}: {}",
            outcome.stderr
        );
    }
}
