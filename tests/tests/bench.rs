//! `ocelli bench` as a user runs it: figures beside the machine's limits, without any file.

use ocelli_tests::command::{binary, ocelli};
use serde_json::Value;
use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

#[test]
fn a_shape_is_measured_without_files_and_every_promised_figure_is_there() {
    // One layer and the high halves of the head: 3.5 and 28.4 million weights.
    for (weights, all, bytes_per_token) in [
        ("int8", false, 18.0e6..18.5e6),
        ("int8", true, 32.0e6..33.0e6),
        ("int4", false, 16.4e6..16.9e6),
    ] {
        let figures = figures_of_the_256m_shape(weights, all);
        assert_eq!(figures["all_logits"], all);
        assert_eq!(figures["weights"], weights);
        let found = figures["bytes_per_token"].as_f64();
        assert!(
            found.is_some_and(|bytes| bytes_per_token.contains(&bytes)),
            "{weights}: {found:?}"
        );
    }
}

/// Measures one layer of each tower; every promised figure is there.
fn figures_of_the_256m_shape(weights: &str, all_logits: bool) -> Value {
    let args = "bench --shape smolvlm-256m --depth 1,1 --runs 1 --prefill 4 --decode 2 --threads 2 --json --weights";
    let all_logits = all_logits.then_some("--all-logits");
    let outcome = ocelli(args.split(' ').chain([weights]).chain(all_logits));
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let line = outcome.stdout.lines().last().expect("a line of figures");
    let figures: Value = serde_json::from_str(line).expect("the last line is JSON");
    for name in [
        "encode_tile_ms",
        "prefill_ms",
        "decode_tokens_per_second",
        "start_to_first_token_ms",
        "peak_anonymous_bytes",
        "kv_bytes",
        "scratch_bytes",
        "pack_bytes",
    ] {
        assert!(
            figures[name].as_f64().is_some_and(|value| value > 0.0),
            "{name}: {line}"
        );
    }
    for name in ["read_bytes_per_second", "int8_ops_per_second"] {
        let limit = figures["limits"][name].as_f64();
        assert!(limit.is_some_and(|value| value > 0.0), "{name}: {line}");
    }
    assert_eq!(figures["threads"], 2);
    assert!(
        figures["kernel"]
            .as_str()
            .is_some_and(|name| name.contains("qd8qc8w"))
    );
    figures
}

#[test]
fn what_cannot_be_measured_is_an_argument_error_that_says_so() {
    for (args, message) in [
        (
            "bench --weights int4",
            "the embedded model default has int8 weights, not int4",
        ),
        (
            "bench --shape smolvlm-256m -m other.ocelli",
            "-m other.ocelli names others",
        ),
        (
            "bench --shape smolvlm-256m --precision f32",
            "no f32 weights",
        ),
        (
            "bench --shape smolvlm-256m --variant q4 --depth 1,1 --write /tmp",
            "--variant q4",
        ),
        (
            "bench --shape smolvlm-256m --write /tmp",
            "/tmp exists; give --force",
        ),
        (
            "bench --shape smolvlm-256m --write /tmp --force",
            "/tmp is a folder",
        ),
        ("bench --shape smolvlm-256m --depth 12", "as in 12,30"),
        (
            "bench --prefill 900 --decode 900",
            "over the model's context",
        ),
    ] {
        let outcome = ocelli(args.split(' '));
        assert_eq!(outcome.code, Some(2), "{args}: {}", outcome.stderr);
        assert!(
            outcome.stderr.contains(message),
            "{args}: {}",
            outcome.stderr
        );
    }
}

#[test]
fn a_file_is_replaced_by_random_weights_only_by_force() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("mine.ocelli");
    fs::write(&path, "mine").expect("a file");
    let path_text = path.display().to_string();
    let write = |force: &[&str]| {
        let args = "bench --shape smolvlm-256m --depth 1,1 --quiet --write";
        let args = args.split(' ').chain([path_text.as_str()]);
        ocelli(args.chain(force.iter().copied()))
    };
    let refused = write(&[]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("give --force"), "{refused:?}");
    assert_eq!(fs::read(&path).expect("a file"), b"mine");
    let done = write(&["--force"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(fs::metadata(&path).expect("a file").len() > 1 << 20);
}

/// The process of the synthetic weights, which the system may kill for its memory.
#[test]
fn a_measurement_that_is_killed_says_so() {
    let args = "bench --shape smolvlm-256m --depth 1,1 --runs 1000000 --threads 1";
    let mut bench = Command::new(binary())
        .args(args.split(' '))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let measuring = loop {
        let ended = bench.try_wait().expect("a child can be waited for");
        assert_eq!(ended, None, "it never ends by itself");
        if let Some(id) = child_of(bench.id()) {
            break id;
        }
        thread::sleep(Duration::from_millis(5));
    };
    let killed = Command::new("kill").args(["-KILL", &measuring]).status();
    assert!(killed.expect("kill runs").success());
    let outcome = bench.wait_with_output().expect("a child can be waited for");
    let said = String::from_utf8_lossy(&outcome.stderr);
    assert_eq!(outcome.status.code(), Some(1), "{said}");
    assert!(said.contains("ended by signal: 9"), "{said}");
}

/// Id of a process that this one has started.
fn child_of(id: u32) -> Option<String> {
    let parent = |stat: &str| -> Option<u32> {
        // Name in brackets, state, parent.
        stat.rsplit_once(')')?.1.split(' ').nth(2)?.parse().ok()
    };
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        (parent(&stat)? == id).then(|| entry.file_name().to_string_lossy().into_owned())
    })
}
