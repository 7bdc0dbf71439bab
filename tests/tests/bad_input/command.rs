//! Exit codes, streams and left-over files of the `ocelli` command on bad input.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use ocelli_tests::command::{Outcome, binary, ocelli};
use ocelli_tests::gguf::convert::{Storage, write_fixture};
use tempfile::TempDir;

use crate::pictures::{declared_40000, file, png};
use crate::ruin::{Safetensors, WEIGHTS, edit_json, sound_directory, sound_pack};

/// A model, a picture and a place for output.
struct Desk {
    model: TempDir,
    files: TempDir,
}

impl Desk {
    fn new() -> Desk {
        let desk = Desk {
            model: sound_directory(),
            files: tempfile::tempdir().expect("a temporary folder"),
        };
        desk.put("sound.png", &png(70, 50));
        desk
    }

    /// Writes a file and returns its path.
    fn put(&self, name: &str, bytes: &[u8]) -> String {
        fs::write(self.files.path().join(name), bytes).expect("the folder can be written");
        self.path(name)
    }

    fn path(&self, name: &str) -> String {
        self.files.path().join(name).display().to_string()
    }

    fn model(&self) -> String {
        self.model.path().display().to_string()
    }

    /// Names of all files in the output folder.
    fn left(&self) -> Vec<String> {
        let entries = fs::read_dir(self.files.path()).expect("the folder is there");
        let mut names: Vec<String> = entries
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        names.sort();
        names
    }
}

/// Asserts the exit code, that stdout stays empty and that stderr is a message with `wanted`.
fn assert_fails(outcome: &Outcome, code: i32, wanted: &[&str]) {
    assert_eq!(outcome.code, Some(code), "{outcome:?}");
    assert_eq!(outcome.stdout, "", "answers only go to stdout");
    assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
    assert!(!outcome.stderr.trim().is_empty(), "a fault has a message");
    for part in wanted {
        assert!(
            outcome.stderr.contains(part),
            "{part:?} is not in {:?}",
            outcome.stderr
        );
    }
}

fn caption(picture: &str, model: &str) -> Outcome {
    ocelli([
        "caption",
        picture,
        "--model",
        model,
        "--max-tokens",
        "2",
        "--max-tiles",
        "0",
    ])
}

#[test]
fn sound_input_is_answered() {
    let desk = Desk::new();
    let outcome = caption(&desk.path("sound.png"), &desk.model());
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let outcome = ocelli([
        "caption",
        &desk.path("sound.png"),
        "--json",
        "--max-tokens",
        "2",
        "--model",
        &desk.model(),
    ]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let line: serde_json::Value =
        serde_json::from_str(outcome.stdout.trim()).expect("one JSON object");
    assert_eq!(line["tiles"], 4 * 3 + 1, "{line}");
}

#[test]
fn bad_arguments_exit_with_2() {
    let desk = Desk::new();
    let (picture, model) = (desk.path("sound.png"), desk.model());
    let cases: &[&[&str]] = &[
        &[],
        &["nonsense"],
        &["caption"],
        &["caption", &picture, "--bogus"],
        &["caption", &picture, "--model", &model, "--threads", "0"],
        &["caption", &picture, "--model", &model, "--threads", "many"],
        &["caption", &picture, "--model", &model, "--max-tokens", "-1"],
        &[
            "caption",
            &picture,
            "--model",
            &model,
            "--temperature",
            "-1",
        ],
        &[
            "caption",
            &picture,
            "--model",
            &model,
            "--temperature",
            "NaN",
        ],
        &["caption", &picture, "--model", &model, "--top-p", "0"],
        &["caption", &picture, "--model", &model, "--top-p", "2"],
        &[
            "caption",
            &picture,
            "--model",
            &model,
            "--repetition-penalty",
            "0",
        ],
        &["caption", &picture, "--model", &model, "--precision", "f8"],
        &["ask", &picture],
        &[
            "ask",
            &picture,
            "What?",
            "--model",
            &model,
            "--choices",
            "a,,b",
        ],
        &[
            "ask",
            &picture,
            "What?",
            "--model",
            &model,
            "--choices",
            "yes,no",
            "--unsure-below",
            "NaN",
        ],
        &["pack", &model],
        &["caption", &picture, "--model", &picture, "--variant", "q4"],
        &["caption", &picture, "--model", &picture, "--mmproj", &model],
    ];
    for args in cases {
        let outcome = ocelli(*args);
        assert_fails(&outcome, 2, &[]);
    }
}

#[test]
fn bad_pictures_exit_with_2_and_are_named() {
    let desk = Desk::new();
    let sound = file("soft.jpg");
    let mut cases = vec![
        ("empty.png".to_owned(), Vec::new()),
        ("text.png".to_owned(), b"not a picture".to_vec()),
        ("cut.png".to_owned(), png(70, 50)[..60].to_vec()),
        ("cut.jpg".to_owned(), sound[..sound.len() / 2].to_vec()),
    ];
    cases.extend(
        declared_40000()
            .into_iter()
            .map(|(format, bytes)| (format!("huge.{format}"), bytes)),
    );
    for (name, bytes) in cases {
        let path = desk.put(&name, &bytes);
        assert_fails(&caption(&path, &desk.model()), 2, &[&name]);
    }
    assert_fails(
        &caption(&desk.path("nowhere.png"), &desk.model()),
        2,
        &["nowhere.png"],
    );
    assert_fails(
        &caption(&desk.files.path().display().to_string(), &desk.model()),
        2,
        &[],
    );
}

/// One bad picture among several does not take the others' answers away.
#[test]
fn a_bad_picture_among_good_ones_is_reported() {
    let desk = Desk::new();
    let bad = desk.put("bad.png", b"");
    let good = desk.path("sound.png");
    let outcome = ocelli([
        "caption",
        &good,
        &bad,
        &good,
        "--json",
        "--max-tokens",
        "2",
        "--max-tiles",
        "0",
        "--model",
        &desk.model(),
    ]);
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
    assert!(outcome.stderr.contains("bad.png"), "{outcome:?}");
    assert_eq!(
        outcome
            .stdout
            .lines()
            .filter(|line| line.contains("sound.png"))
            .count(),
        2,
        "{outcome:?}"
    );
}

#[test]
fn missing_and_unusable_models_exit_with_3() {
    let desk = Desk::new();
    let picture = desk.path("sound.png");
    assert_fails(&caption(&picture, "no-such-model"), 3, &["no-such-model"]);
    assert_fails(
        &caption(&picture, &desk.path("nowhere.ocelli")),
        3,
        &["nowhere.ocelli"],
    );
    assert_fails(&caption(&picture, &picture), 3, &["sound.png"]);
    let empty = desk.files.path().join("empty");
    fs::create_dir(&empty).expect("the folder can be written");
    assert_fails(
        &caption(&picture, &empty.display().to_string()),
        3,
        &["config.json"],
    );

    assert_fails(&caption(&picture, "/dev/null"), 3, &["a device or a pipe"]);

    let pack = desk.put("cut.ocelli", &sound_pack()[..sound_pack().len() / 2]);
    assert_fails(&caption(&picture, &pack), 3, &["cut.ocelli"]);
    let mut flipped = sound_pack().to_vec();
    flipped[100] ^= 1;
    let pack = desk.put("flipped.ocelli", &flipped);
    assert_fails(&caption(&picture, &pack), 3, &["flipped.ocelli"]);
    let pack = desk.put("zero.ocelli", b"");
    assert_fails(&caption(&picture, &pack), 3, &["zero.ocelli"]);

    let weights = desk.model.path().join(WEIGHTS);
    let whole = fs::read(&weights).expect("the file is there");
    fs::write(&weights, &whole[..whole.len() / 2]).expect("the folder can be written");
    assert_fails(&caption(&picture, &desk.model()), 3, &[WEIGHTS]);
    fs::write(&weights, whole).expect("the folder can be written");
    edit_json(desk.model.path(), "config.json", |json| {
        json["text_config"]["num_attention_heads"] = 0.into()
    });
    assert_fails(
        &caption(&picture, &desk.model()),
        3,
        &["config.json", "num_attention_heads"],
    );
}

#[test]
fn a_prompt_longer_than_the_context_exits_with_2() {
    let desk = Desk::new();
    let picture = desk.path("sound.png");
    let long = "word ".repeat(600);
    let outcome = ocelli([
        "ask",
        &picture,
        &long,
        "--model",
        &desk.model(),
        "--max-tiles",
        "0",
    ]);
    assert_fails(&outcome, 2, &["512", "context"]);
    let outcome = ocelli([
        "caption",
        &picture,
        "--model",
        &desk.model(),
        "--max-tokens",
        "5000",
    ]);
    assert_fails(&outcome, 2, &["512", "5000"]);
}

/// Whatever stops packing, nothing new lies in the folder and an older pack stays as it was.
#[test]
fn failed_packing_leaves_no_file() {
    let desk = Desk::new();
    let older = b"an older pack";
    let output = desk.put("model.ocelli", older);
    let before = desk.left();
    let unfinished = |dir: &Path| {
        let outcome = ocelli(["pack", &dir.display().to_string(), "-o", &output, "--force"]);
        assert_fails(&outcome, 3, &[]);
        assert_eq!(desk.left(), before);
        assert_eq!(fs::read(&output).expect("the older pack is there"), older);
    };
    let path = desk.model.path();

    let mut file = Safetensors::read(path);
    let last = "model.vision_model.post_layernorm.weight";
    let at = file.span(last)[0];
    file.data[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    file.write(path);
    unfinished(path);

    let head = "lm_head.weight";
    file.data[at..at + 4].copy_from_slice(&1f32.to_le_bytes());
    file.header
        .as_object_mut()
        .expect("the header is an object")
        .remove(head);
    file.write(path);
    unfinished(path);

    fs::remove_file(path.join("tokenizer.json")).expect("the folder can be written");
    unfinished(path);

    let outcome = ocelli([
        "pack",
        &desk.path("nowhere"),
        "-o",
        &desk.path("new.ocelli"),
    ]);
    assert!(matches!(outcome.code, Some(2 | 3)), "{outcome:?}");
    assert_eq!(desk.left(), before);
}

/// `--force` replaces an older pack, not the files that the new one is made of.
#[test]
fn a_pack_does_not_replace_what_it_is_made_of() {
    let desk = Desk::new();
    let (dir, files) = (desk.model.path(), desk.files.path());
    let [text, projector] = write_fixture("tiny", Storage::F32, files).expect("written");
    let path = |path: &Path| path.display().to_string();
    let (text, projector) = (path(&text), path(&projector));
    let link = path(&files.join("link.gguf"));
    std::os::unix::fs::symlink(&text, &link).expect("the folder can be written");
    let calibration = desk.put("text.txt", b"Two bells.");
    let weights = path(&dir.join(WEIGHTS));
    let config = path(&dir.join("config.json"));
    let model = desk.model();
    let cases: [(&[&str], &str); 7] = [
        (&[&text], &text),
        (&[&link], &text),
        (&[&link], &link),
        (&[&text, "--mmproj", &projector], &projector),
        (&[&text, "--calibration", &calibration], &calibration),
        (&[&model], &weights),
        (&[&model], &config),
    ];
    for (args, output) in cases {
        let before = fs::read(output).expect("it is there");
        let args = [&["pack"], args, &["-o", output, "--force"]].concat();
        assert_fails(&ocelli(&args), 2, &[output, "made of"]);
        assert!(before == fs::read(output).expect("it is there"), "{args:?}");
    }
    let folder = path(files);
    let outcome = ocelli(["pack", &model, "-o", &folder, "--force"]);
    assert_fails(&outcome, 2, &[&folder, "is a folder"]);
    // A pack in the model's folder is no part of the model.
    let pack = path(&dir.join("older.ocelli"));
    fs::write(&pack, b"older").expect("the folder can be written");
    let outcome = ocelli(["pack", &model, "-o", &pack, "--force"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
}

/// Ctrl-C and a stopped service leave no partial pack.
#[test]
fn a_signal_while_packing_leaves_no_file() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/default");
    for signal in ["-INT", "-TERM"] {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let left = || {
            fs::read_dir(dir.path())
                .expect("the folder is there")
                .count()
        };
        let packing = Command::new(binary())
            .args([OsStr::new("pack"), model.as_os_str(), OsStr::new("-o")])
            .arg(dir.path().join("new.ocelli"))
            .spawn()
            .expect("the program starts");
        interrupt(packing, signal, || left() > 0);
        assert_eq!(left(), 0, "{signal}");
    }
}

/// Sends a signal as soon as something is there, and waits for the end by it.
fn interrupt(mut program: Child, signal: &str, is_there: impl Fn() -> bool) {
    while !is_there() {
        let ended = program.try_wait().expect("a child can be waited for");
        assert_eq!(ended, None, "no partial file was seen");
        thread::sleep(Duration::from_millis(1));
    }
    let id = program.id().to_string();
    let killed = Command::new("kill").args([signal, &id]).status();
    assert!(killed.expect("kill runs").success());
    let status = program.wait().expect("a child can be waited for");
    assert_eq!(status.code(), None, "{status}");
}

/// A synthetic pack that was to replace another leaves that one as it was.
#[test]
fn a_signal_while_writing_a_synthetic_pack_leaves_the_old_file() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let output = dir.path().join("synthetic.ocelli");
    let names = || -> Vec<_> {
        let entries = fs::read_dir(dir.path()).expect("the folder is there");
        entries
            .map(|entry| entry.expect("an entry").file_name())
            .collect()
    };
    for signal in ["-INT", "-TERM"] {
        fs::write(&output, "the old one").expect("the folder can be written");
        let bench = Command::new(binary())
            .args(["bench", "--shape", "smolvlm-256m", "--force", "--write"])
            .arg(&output)
            .spawn()
            .expect("the program starts");
        let touched = || {
            let old = fs::read(&output).expect("it is there");
            names().len() > 1 || old != b"the old one"
        };
        interrupt(bench, signal, touched);
        assert_eq!(names(), ["synthetic.ocelli"], "{signal}");
        let left = fs::read(&output).expect("it is there");
        assert_eq!(left, b"the old one", "{signal}");
    }
}

#[test]
fn a_calibration_text_without_text_is_refused() {
    let desk = Desk::new();
    let output = desk.path("new.ocelli");
    for (bytes, expected) in [(&b" \n"[..], "holds no text"), (&[0xff], "not UTF-8")] {
        let text = desk.put("text.txt", bytes);
        let outcome = ocelli(["pack", &desk.model(), "-o", &output, "--calibration", &text]);
        assert_fails(&outcome, 2, &[&text, expected]);
    }
}

/// A log on a full disk, or a terminal that is gone, changes neither the answer nor the exit code.
#[test]
fn messages_that_cannot_be_written_end_nothing() {
    let desk = Desk::new();
    let (good, bad) = (desk.path("sound.png"), desk.path("nowhere.png"));
    let model = desk.model();
    for (pictures, code) in [(&[&good][..], 0), (&[&bad], 2), (&[&bad, &good], 2)] {
        let full = fs::File::options().write(true).open("/dev/full");
        let outcome = Command::new(binary())
            .args([
                "caption",
                "--max-tokens",
                "2",
                "--max-tiles",
                "0",
                "-v",
                "--model",
            ])
            .arg(&model)
            .args(pictures)
            .stderr(full.expect("a device that is full"))
            .output()
            .expect("the program starts");
        assert_eq!(outcome.status.code(), Some(code), "{pictures:?}");
        assert_eq!(outcome.stdout.is_empty(), !pictures.contains(&&good));
    }
}

/// Without `--force` an existing file is not replaced.
#[test]
fn an_existing_pack_is_not_replaced_unasked() {
    let desk = Desk::new();
    let output = desk.put("model.ocelli", b"mine");
    let outcome = ocelli(["pack", &desk.model(), "-o", &output]);
    assert_fails(&outcome, 2, &["model.ocelli", "--force"]);
    assert_eq!(fs::read(&output).expect("it is there"), b"mine");

    let outcome = ocelli(["pack", &desk.model(), "-o", &output, "--force"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_eq!(desk.left(), ["model.ocelli", "sound.png"]);
    let outcome = caption(&desk.path("sound.png"), &output);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
}

/// An output that cannot be written is a fault of the run, not of the model.
#[test]
fn an_output_that_cannot_be_written_is_named() {
    let desk = Desk::new();
    let output = desk.path("no/such/folder/model.ocelli");
    let outcome = ocelli(["pack", &desk.model(), "-o", &output]);
    assert!(matches!(outcome.code, Some(1 | 2)), "{outcome:?}");
    assert!(outcome.stderr.contains("model.ocelli"), "{outcome:?}");
    assert_eq!(desk.left(), ["sound.png"]);
}
