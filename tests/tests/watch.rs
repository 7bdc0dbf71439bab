//! `ocelli watch` on recordings, and `ocelli doctor`, as a user runs them.

use ocelli_tests::command::{Outcome, ocelli as run};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// A recording that shows one sample picture again and again.
fn still(picture: &str) -> String {
    let path = repository("models/samples").join(picture);
    format!("replay:{}?rate=5&speed=0&repeat=1", path.display())
}

fn watch(arguments: &[&str]) -> Outcome {
    let mut all = vec!["watch", "--quiet"];
    all.extend(arguments);
    run(&all)
}

fn lines(outcome: &Outcome) -> Vec<Value> {
    let lines = outcome.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).expect(line))
        .collect()
}

fn captions(outcome: &Outcome) -> Vec<Value> {
    let mut lines = lines(outcome);
    lines.retain(|line| line["kind"] == "caption");
    lines
}

fn caption(path: &Path) -> Value {
    let outcome = run(["caption", "--json", path.to_str().unwrap()]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    serde_json::from_str(&outcome.stdout).unwrap()
}

#[test]
fn a_watched_picture_gets_the_tokens_of_its_file() {
    for picture in ["bells-hats.jpg", "sign-office.jpg"] {
        let outcome = watch(&["--json", "--count", "1", "--source", &still(picture)]);
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        let seen = captions(&outcome);
        assert_eq!(seen.len(), 1, "{}", outcome.stdout);
        let wanted = caption(&repository("models/samples").join(picture));
        assert_eq!(seen[0]["token_ids"], wanted["token_ids"], "{picture}");
        assert_eq!(seen[0]["trigger"], "start");
        assert_eq!(seen[0]["phase"], "new");
    }
}

#[test]
fn a_saved_picture_is_what_the_model_saw() {
    let dir = tempfile::tempdir().unwrap();
    let album = dir.path().join("album");
    let outcome = watch(&[
        "--json",
        "--count",
        "2",
        "--every",
        "1",
        "--mirror",
        "--rotate",
        "180",
        "--any-quality",
        "--save",
        album.to_str().unwrap(),
        "--save-as",
        "png",
        "--source",
        &still("trees.jpg"),
    ]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let seen = captions(&outcome);
    assert_eq!(seen.len(), 2);
    for seen in seen {
        let path = PathBuf::from(seen["saved"].as_str().unwrap());
        assert_eq!(caption(&path)["token_ids"], seen["token_ids"]);
        let words = fs::read_to_string(path.with_extension("json")).unwrap();
        let words: Value = serde_json::from_str(&words).unwrap();
        assert_eq!(words, seen);
    }
    // A half turn and an exchange of left and right are top and bottom exchanged.
    let file = fs::read_dir(&album)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let png = file
        .into_iter()
        .find(|path| path.extension().unwrap() == "png")
        .unwrap();
    let flipped = image::open(png).unwrap().flipv().to_rgb8();
    let sample = image::open(repository("models/samples/trees.jpg"))
        .unwrap()
        .to_rgb8();
    assert_eq!(flipped, sample);
}

#[test]
fn what_is_masked_is_black_in_what_the_model_saw() {
    let dir = tempfile::tempdir().unwrap();
    let outcome = watch(&[
        "--json",
        "--count",
        "1",
        "--mask",
        "0,0 0.5,1",
        "--any-quality",
        "--save",
        dir.path().to_str().unwrap(),
        "--save-as",
        "png",
        "--source",
        &still("bells-hats.jpg"),
    ]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let seen = captions(&outcome);
    let picture = image::open(seen[0]["saved"].as_str().unwrap())
        .unwrap()
        .to_rgb8();
    let sample = image::open(repository("models/samples/bells-hats.jpg"))
        .unwrap()
        .to_rgb8();
    let half = picture.width() / 2;
    for (x, y, pixel) in picture.enumerate_pixels() {
        match x < half {
            true => assert_eq!(pixel.0, [0; 3], "{x} {y}"),
            false if x > half => assert_eq!(pixel, sample.get_pixel(x, y), "{x} {y}"),
            false => {}
        }
    }
}

#[test]
fn a_detector_that_finds_nothing_keeps_the_model_out_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("yolo.onnx");
    fs::copy(repository("tests/fixtures/detector/yolo.onnx"), &model).unwrap();
    for (threshold, wanted) in [("1.0", "skipped"), ("0.0", "caption")] {
        let settings =
            format!(r#"{{"output": "yolo-v8", "labels": ["a", "b"], "threshold": {threshold}}}"#);
        fs::write(model.with_extension("json"), settings).unwrap();
        let path = repository("models/samples/ball.jpg");
        let source = format!("replay:{}?rate=5&speed=0", path.display());
        let outcome = watch(&[
            "--json",
            "--detector",
            model.to_str().unwrap(),
            "--source",
            &source,
        ]);
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        let kinds: Vec<Value> = lines(&outcome)
            .into_iter()
            .map(|line| line["kind"].clone())
            .collect();
        assert!(
            kinds.iter().any(|kind| kind == wanted),
            "{threshold}: {kinds:?}"
        );
        assert_eq!(captions(&outcome).len(), usize::from(wanted == "caption"));
    }
}

#[test]
fn sources_and_settings_that_cannot_be_are_refused_by_name() {
    let cases: [(&[&str], i32, &str); 8] = [
        (&["--source", "/dev/video97"], 4, "/dev/video97"),
        (&["--source", "nonsense:7"], 2, "nonsense:7"),
        (
            &["--source", "replay:/no/such/folder"],
            2,
            "/no/such/folder",
        ),
        (&["--zone", "Door:0,0 1,1"], 2, "Door"),
        (&["--zone", "door:0,0 3,1"], 2, "3"),
        (&["--mask", "0,0"], 2, "mask"),
        (&["--size", "640"], 2, "640x480"),
        (&["--rate", "100"], 2, "0.1 to 30"),
    ];
    for (arguments, code, named) in cases {
        let outcome = watch(arguments);
        assert_eq!(
            outcome.code,
            Some(code),
            "{arguments:?}: {}",
            outcome.stderr
        );
        assert!(
            outcome.stderr.contains(named),
            "{arguments:?}: {}",
            outcome.stderr
        );
    }
}

#[test]
fn the_doctor_tells_what_this_machine_has() {
    let outcome = run(["doctor", "--json"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let told: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert!(
        told["kernel"].as_str().unwrap().contains("qd8qc8w"),
        "{told}"
    );
    assert!(
        told["cameras"].is_array() && told["findings"].is_array(),
        "{told}"
    );
    let outcome = run(["doctor"]);
    assert!(outcome.stdout.contains("board "), "{}", outcome.stdout);
}
