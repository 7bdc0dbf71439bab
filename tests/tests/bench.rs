//! `ocelli bench` as a user runs it: figures beside the machine's limits, without any file.

use ocelli_tests::command::ocelli;
use serde_json::Value;

#[test]
fn a_shape_is_measured_without_files_and_every_promised_figure_is_there() {
    let args =
        "bench --shape smolvlm-256m --depth 1,1 --runs 1 --prefill 4 --decode 2 --threads 2 --json";
    let outcome = ocelli(args.split(' '));
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let line = outcome.stdout.lines().last().expect("a line of figures");
    let figures: Value = serde_json::from_str(line).expect("the last line is JSON");
    for name in [
        "encode_tile_ms",
        "prefill_ms",
        "decode_tokens_per_second",
        "start_to_first_token_ms",
        "peak_anonymous_bytes",
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
    assert_eq!(figures["weights"], "int8");
    assert!(
        figures["kernel"]
            .as_str()
            .is_some_and(|name| name.contains("qd8qc8w"))
    );
}

#[test]
fn what_cannot_be_measured_is_an_argument_error_that_says_so() {
    for (args, message) in [
        (
            "bench --shape smolvlm-256m --weights int4",
            "int4 is not in this build",
        ),
        (
            "bench --shape smolvlm-256m -m other.ocelli",
            "-m other.ocelli names others",
        ),
        (
            "bench --shape smolvlm-256m --precision f32",
            "no f32 weights",
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
