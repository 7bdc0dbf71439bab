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

/// The first start that measures without a crowd of other programs; `None` if there always is one.
fn measured(cache: &Path, flags: &[&str]) -> Option<(Outcome, Value)> {
    let kept = || -> Vec<Vec<u8>> {
        let files = files(&cache.join("ocelli/threads"));
        let read = |file: &PathBuf| fs::read(file).expect("a file");
        files.iter().map(read).collect()
    };
    for _ in 0..50 {
        let before = kept();
        let (said, answer) = caption(cache, flags);
        let plan = &answer["phase_threads"];
        if plan["origin"] == "measured" {
            return Some((said, answer));
        }
        assert_eq!(plan["origin"], "crowded");
        for phase in ["encode", "prefill", "decode"] {
            assert_eq!(plan[phase], answer["threads"], "all threads in a crowd");
        }
        assert_eq!(kept(), before, "nothing is kept");
    }
    eprintln!("skipped: this machine is always crowded");
    None
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
    let Some((said, first)) = measured(cache.path(), &["--verbose"]) else {
        return;
    };
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
    assert_eq!(without_origin(&remembered), without_origin(&first));
    fs::write(file, "{}").expect("it can be damaged");
    let Some((said, again)) = measured(cache.path(), &[]) else {
        return;
    };
    assert_eq!(said.stderr, "", "a damaged file is nobody's concern");
    let (_, mended) = caption(cache.path(), &[]);
    assert_eq!(mended["phase_threads"]["origin"], "remembered");
    for answer in [&first, &remembered, &again, &mended] {
        assert_eq!(answer["token_ids"], given["token_ids"]);
        assert_eq!(answer["threads"], first["threads"]);
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
    let Some((said, _)) = measured(&file, &[]) else {
        return;
    };
    assert_eq!(said.stderr.matches("cannot be kept").count(), 1, "{said:?}");
    assert!(said.stderr.contains(&*file.to_string_lossy()), "{said:?}");
    let Some((said, _)) = measured(&file, &["--quiet"]) else {
        return;
    };
    assert_eq!(said.stderr, "");
}
