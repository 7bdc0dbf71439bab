//! How many threads a model gets, as a user sees it: measured once, remembered, overridden.

use ocelli_tests::command::{Outcome, binary, ocelli_with};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn picture() -> PathBuf {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/samples");
    samples.join("bells-hats.jpg")
}

/// Captions a picture with the user's cache in `cache`; what it says, and its answer.
fn caption(cache: &Path, flags: &[&str]) -> (Outcome, Value) {
    let mut command = Command::new(binary());
    command.env("XDG_CACHE_HOME", cache);
    command.args(["caption", "--json", "--max-tokens", "6"]);
    command.arg(picture()).args(flags);
    let outcome = ocelli_with(command);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let answer = serde_json::from_str(&outcome.stdout).expect("one JSON object");
    (outcome, answer)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

/// Whether there is anything to choose.
fn has_cores() -> bool {
    std::thread::available_parallelism().is_ok_and(|n| n.get() > 1)
}

#[test]
fn threads_are_measured_once_and_the_answer_is_the_same() {
    let cache = tempfile::tempdir().expect("a folder");
    let folder = cache.path().join("ocelli/threads");
    let (_, given) = caption(cache.path(), &["--threads", "2"]);
    assert_eq!(given["phase_threads"]["origin"], "given");
    assert_eq!(given["phase_threads"]["trials"], Value::Null);
    for phase in ["encode", "prefill", "decode"] {
        assert_eq!(given["phase_threads"][phase], 2);
    }
    assert!(files(&folder).is_empty(), "nothing was measured");
    if !has_cores() {
        return;
    }
    let (said, measured) = caption(cache.path(), &["--verbose"]);
    assert_eq!(measured["phase_threads"]["origin"], "measured");
    assert!(said.stderr.contains("; measured; encode "), "{said:?}");
    let (said, remembered) = caption(cache.path(), &["--verbose"]);
    assert_eq!(remembered["phase_threads"]["origin"], "remembered");
    assert!(said.stderr.contains("; remembered; encode "), "{said:?}");
    let [file] = &files(&folder)[..] else {
        panic!("one file: {:?}", files(&folder));
    };
    // The times are the same ones, and with them the choice.
    let without_origin = |answer: &Value| {
        let mut threads = answer["phase_threads"].clone();
        threads["origin"] = Value::Null;
        threads
    };
    assert_eq!(without_origin(&remembered), without_origin(&measured));
    fs::write(file, "{}").expect("it can be damaged");
    let (said, again) = caption(cache.path(), &[]);
    assert_eq!(again["phase_threads"]["origin"], "measured");
    assert_eq!(said.stderr, "", "a damaged file is nobody's concern");
    let (_, mended) = caption(cache.path(), &[]);
    assert_eq!(mended["phase_threads"]["origin"], "remembered");
    for answer in [&measured, &remembered, &again, &mended] {
        assert_eq!(answer["token_ids"], given["token_ids"]);
        assert_eq!(answer["threads"], measured["threads"]);
    }
}

#[test]
fn a_cache_that_cannot_be_written_costs_one_remark_and_no_answer() {
    if !has_cores() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    fs::write(&file, "").expect("a file");
    let (said, answer) = caption(&file, &[]);
    assert_eq!(answer["phase_threads"]["origin"], "measured");
    assert_eq!(said.stderr.matches("cannot be kept").count(), 1, "{said:?}");
    assert!(said.stderr.contains(&*file.to_string_lossy()), "{said:?}");
    let (said, answer) = caption(&file, &["--quiet"]);
    assert_eq!(answer["phase_threads"]["origin"], "measured");
    assert_eq!(said.stderr, "");
}
