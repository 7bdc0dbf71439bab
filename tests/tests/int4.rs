//! int4 weights from the packer to the answer, on small random models.

use ocelli_kernels::{Compute, int8_gemm};
use ocelli_runtime::pack::{Layout, Pack, WeightScheme};
use ocelli_runtime::packer::{self, PackOptions};
use ocelli_runtime::weights::Region;
use ocelli_runtime::{GenerateOptions, LoadOptions, ModelSource, Precision, Vlm};
use ocelli_tests::checkpoint::Checkpoint;
use ocelli_tests::closeness::{assert_alike, cosine};
use ocelli_tests::command::ocelli;
use serde_json::Value;
use std::io::Cursor;
use std::sync::Arc;
use tempfile::TempDir;

const IDS: [u32; 9] = [1, 17, 240, 33, 8, 399, 120, 121, 77];

fn directory(fixture: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    Checkpoint::of_fixture(fixture).write(dir.path()).unwrap();
    dir
}

fn int4_pack(fixture: &str) -> Arc<Pack> {
    pack(fixture, &PackOptions::from(WeightScheme::Int4))
}

/// A pack whose layers are int4 throughout, q, k and v stacked.
fn stacked_int4_pack(fixture: &str) -> Arc<Pack> {
    let layers = int4_pack(fixture).header().config.text.n_layers;
    let names = |i| ["qkv", "out", "gate_up", "down"].map(|part| format!("text.{i}.{part}"));
    let options = PackOptions {
        exceptions: (0..layers).flat_map(names).collect(),
        ..PackOptions::default()
    };
    pack(fixture, &options)
}

fn pack(fixture: &str, options: &PackOptions) -> Arc<Pack> {
    let out = Cursor::new(Vec::new());
    let dir = directory(fixture);
    let bytes = packer::pack_directory(dir.path(), options, out, &mut |_, _| {}).unwrap();
    let region = Region::from_vec(bytes.into_inner());
    Arc::new(Pack::from_region(region, fixture).unwrap())
}

/// Logits after the ids, and the greedy tokens that follow.
fn answer(vlm: &Vlm) -> (Vec<f32>, Vec<u32>) {
    let mut session = vlm.session().unwrap();
    session.extend(&IDS).unwrap();
    let logits = session.logits().unwrap();
    let options = GenerateOptions {
        max_tokens: 12,
        ..GenerateOptions::default()
    };
    let mut generation = session.generate(options).unwrap();
    generation.rest().unwrap();
    (logits, generation.tokens().to_vec())
}

#[test]
fn every_kernel_gives_the_tokens_of_the_scalar_one() {
    let pack = int4_pack("tiny");
    assert_eq!(pack.weights(), WeightScheme::Int4);
    let run = |kernel: &str, threads| {
        let compute = Compute::with_kernel(threads, kernel).unwrap();
        let vlm = Vlm::from_pack(pack.clone(), Arc::new(compute)).unwrap();
        assert_eq!(vlm.weights_name(), "int4");
        let answer = answer(&vlm);
        assert_eq!(answer.1.len(), 12);
        answer
    };
    let names = int8_gemm::available().map(|kernels| kernels.gemm.name());
    assert_alike("scalar-qd8qc8w-1x8", names, run);
}

#[test]
fn one_token_at_a_time_gives_the_logits_of_all_at_once() {
    for pack in [int4_pack("tiny"), stacked_int4_pack("tiny")] {
        let compute = Arc::new(Compute::new(1).unwrap());
        let vlm = Vlm::from_pack(pack, compute).unwrap();
        let (expected, _) = answer(&vlm);
        let mut session = vlm.session().unwrap();
        for id in IDS {
            session.extend(&[id]).unwrap();
        }
        let closeness = cosine(&session.logits().unwrap(), &expected);
        assert!(closeness > 0.9999, "{closeness}");
    }
}

#[test]
fn packs_with_v_stacked_and_with_v_in_int8_answer_alike() {
    let [on_its_own, stacked] = [int4_pack("tiny"), stacked_int4_pack("tiny")].map(|pack| {
        let v = pack.header().tensors.iter().find(|t| t.name == "text.0.v");
        assert!(v.is_none_or(|v| v.layout == Layout::Panels));
        let compute = Arc::new(Compute::new(1).unwrap());
        let logits = answer(&Vlm::from_pack(pack.clone(), compute).unwrap()).0;
        (pack.has("text.0.v"), logits)
    });
    assert_eq!((on_its_own.0, stacked.0), (true, false));
    let closeness = cosine(&on_its_own.1, &stacked.1);
    assert!((0.95..0.99999).contains(&closeness), "{closeness}");
}

#[test]
fn int4_weights_stay_near_the_f32_path() {
    let dir = directory("tiny");
    let logits = |precision, weights| {
        let source = ModelSource::Path(dir.path().to_path_buf());
        let options = LoadOptions {
            precision,
            weights,
            ..LoadOptions::default()
        };
        answer(&Vlm::load(&source, &options, &mut |_, _| {}).unwrap()).0
    };
    let exact = logits(Precision::F32, None);
    let int8 = cosine(&logits(Precision::Int8, None), &exact);
    let int4 = cosine(&logits(Precision::Int8, Some(WeightScheme::Int4)), &exact);
    assert!((0.97..int8).contains(&int4), "int4 {int4}, int8 {int8}");
}

#[test]
fn a_model_is_packed_to_int4_shown_and_asked() {
    let dir = directory("text_only");
    let source = dir.path().display().to_string();
    let pack = dir.path().join("small.ocelli").display().to_string();
    let run = |args: &[&str], code| {
        let outcome = ocelli(args);
        assert_eq!(outcome.code, Some(code), "{args:?}: {}", outcome.stderr);
        outcome
    };
    let report = |args: &[&str]| -> Value {
        let outcome = run(args, 0);
        serde_json::from_str(outcome.stdout.lines().last().unwrap()).unwrap()
    };
    // Weights quantised in memory are rounded to nearest.
    let nearest = ["--weights", "int4", "--calibration", "none", "--json"];
    let packed = report(&[&["pack", &source, "-o", &pack], &nearest[..]].concat());
    assert_eq!(packed["weights"], "int4");
    assert_eq!(
        report(&["models", &pack, "--json", "--verify"])["weights"],
        "int4"
    );
    let shown = run(&["models", &pack], 0).stdout;
    assert!(shown.contains("int4 weights"), "{shown}");

    let question = ["ask", "--text", "Who?", "--max-tokens", "4", "--json"];
    let ask = |model: &[&str]| report(&[&question[..], model].concat());
    let from_pack = ask(&["-m", &pack]);
    assert_eq!(from_pack["weights"], "int4");
    let in_memory = ask(&["-m", &source, "--weights", "int4"]);
    assert_eq!(in_memory["token_ids"], from_pack["token_ids"]);
    assert_eq!(in_memory["weights"], "int4");
    assert_eq!(ask(&["-m", &source])["weights"], "int8");

    let refused = run(
        &[&question[..], &["-m", &pack, "--weights", "int8"]].concat(),
        2,
    );
    assert!(
        refused.stderr.contains("has int4 weights, not int8"),
        "{}",
        refused.stderr
    );
}

#[test]
fn spare_bytes_keep_some_matrices_in_int8() {
    let layouts = |spare_percent| {
        let options = PackOptions {
            spare_percent,
            ..PackOptions::from(WeightScheme::Int4)
        };
        let pack = pack("text_only", &options);
        let downs = pack.header().tensors.iter();
        let downs = downs.filter(|tensor| tensor.name.ends_with(".down"));
        let layouts: Vec<Layout> = downs.map(|tensor| tensor.layout).collect();
        let model = Vlm::from_pack(pack, Arc::new(Compute::new(1).unwrap())).unwrap();
        (layouts, answer(&model).0)
    };
    let (int4, less) = layouts(0);
    let (int8, more) = layouts(100);
    assert!(int4.iter().all(|layout| *layout == Layout::Int4Panels));
    assert!(int8.iter().all(|layout| *layout == Layout::Panels));
    let close = cosine(&less, &more);
    assert!((0.97..0.999_999).contains(&close), "{close}");

    let dir = directory("text_only");
    let source = dir.path().display().to_string();
    let out = dir.path().join("out.ocelli").display().to_string();
    for (flags, reason) in [
        (["--spare", "10"].as_slice(), "give --weights int4"),
        (
            &["--spare", "1", "--weights", "int4"],
            "--spare 1 leaves all matrices in int4",
        ),
    ] {
        let refused = ocelli([&["pack", &source, "-o", &out], flags].concat());
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.stderr.contains(reason), "{refused:?}");
    }
}
