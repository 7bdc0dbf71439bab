//! Whole models: what the weights lifted out of the graphs see and say.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;

use ocelli_kernels::half::f16_bits_to_f32;
use ocelli_runtime::config::ModelFiles;
use ocelli_runtime::import::FloatWeights;
use ocelli_runtime::import::Published;
use ocelli_runtime::import::onnx::{Graph, OnnxModel, Part};
use ocelli_runtime::import::safetensors::Checkpoint;
use ocelli_runtime::pack::Pack;
use ocelli_runtime::packer::PackOptions;
use ocelli_runtime::weights::Region;
use ocelli_runtime::{LoadOptions, ModelSource, Precision, Vlm, packer};
use ocelli_tests::closeness::{cosine, max_abs_diff, std};
use ocelli_tests::command::ocelli;
use ocelli_tests::fixture::frame;

use crate::{Answer, Case, Expected, UNMERGED, add, checkpoint, export};

/// f32 features and logits against the reference on the same weights, largest difference over the
/// standard deviation.
pub(crate) const F32_BOUND: f64 = 1e-4;

pub(crate) fn load(source: &ModelSource, precision: Precision) -> Vlm {
    let options = LoadOptions {
        threads: 1,
        precision,
        verify: true,
        ..LoadOptions::default()
    };
    Vlm::load(source, &options, &mut |_, _| {}).unwrap_or_else(|error| panic!("{error}"))
}

/// What a model computes of the fixtures' prompt and steps.
fn look(model: &Vlm, expected: &Expected) -> Answer {
    let size = model.config().vision.as_ref().expect("it sees").image_size;
    let frames: Vec<_> = (0..expected.frames).map(|f| frame(size, f)).collect();
    let mut answer = Answer {
        features: Vec::new(),
        logits: Vec::new(),
    };
    for steps in 0..=expected.steps.len() {
        let ids = [&expected.input_ids[..], &expected.steps[..steps]].concat();
        let mut session = model.session().expect("a session starts");
        let stages = session.prompt_ids(&ids, &frames).expect("the prompt runs");
        answer.features = stages
            .image_features
            .iter()
            .step_by(16)
            .take(32)
            .copied()
            .collect();
        answer
            .logits
            .push(stages.logits.iter().step_by(12).take(32).copied().collect());
    }
    answer
}

pub(crate) fn distance(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    max_abs_diff(found, expected) / std(expected)
}

/// Largest difference of features and of logits, in standard deviations.
fn distances(found: &Answer, expected: &Answer) -> [f64; 2] {
    let logits = found.logits.iter().zip(&expected.logits);
    [
        distance(&found.features, &expected.features),
        logits
            .map(|(found, expected)| distance(found, expected))
            .fold(0.0, f64::max),
    ]
}

#[test]
fn every_way_of_writing_in_every_number_format_gives_what_its_weights_give() {
    let expected = Expected::load();
    for (name, case) in &expected.cases {
        let dir = export(case, "");
        let model = load(&ModelSource::Path(dir.path().to_path_buf()), Precision::F32);
        let found = look(&model, &expected);
        let [features, logits] = distances(&found, &case.lifted);
        println!("{name}: features {features:.1e}, logits {logits:.1e}");
        assert!(
            features < F32_BOUND && logits < F32_BOUND,
            "{name}: {features} {logits}"
        );

        // What onnxruntime makes of the same file, in the file's own arithmetic.
        let [features, logits] = distances(&found, &case.onnxruntime);
        let bound = arithmetic_bound(&case.arithmetic);
        assert!(
            features < bound && logits < bound,
            "{name}: {features} {logits}"
        );
    }
}

/// Largest distance of a graph that runs in this arithmetic from f32, in standard deviations.
fn arithmetic_bound(arithmetic: &str) -> f64 {
    match arithmetic {
        "f32" => F32_BOUND,
        // Observed 6e-3.
        "f16" => 0.02,
        // Activations become bytes with one scale for a whole tensor; observed 0.15.
        "bytes" => 0.3,
        // With one for every input.
        _ => 1.0,
    }
}

/// How far the weights of a number format move features and logits: least cosines on these random
/// weights, where single rows scatter. Observed at least 0.9998 and 0.9985 for bytes, 0.987 and 0.89
/// for 4 bits, 0.979 and 0.78 for NF4.
#[test]
fn every_number_format_stays_within_its_error() {
    let expected = Expected::load();
    for (name, case) in &expected.cases {
        let [features, logits] = match case.scheme.as_str() {
            "fp32" | "fp16" => [0.999_999; 2],
            "int8" | "uint8" | "products" | "static" => [0.9995, 0.997],
            "bnb4" => [0.97, 0.75],
            _ => [0.98, 0.88],
        };
        let dir = export(case, "");
        let found = look(
            &load(&ModelSource::Path(dir.path().into()), Precision::F32),
            &expected,
        );
        let rows = found.logits.iter().zip(&expected.reference.logits);
        let least = rows.map(|(a, b)| cosine(a, b)).fold(1.0, f64::min);
        let seen = cosine(&found.features, &expected.reference.features);
        assert!(
            seen >= features && least >= logits,
            "{name}: {seen} {least}"
        );
    }
}

fn graphs(case: &Case) -> Vec<(Part, Graph)> {
    let parts = [Part::Vision, Part::Embedding, Part::Decoder];
    let open = |part: Part| {
        let graph = Graph::open(&case.path(part));
        (part, graph.unwrap_or_else(|error| panic!("{error}")))
    };
    parts.map(open).into()
}

/// The checkpoint's weights are exact in f16, so these files hold every one of them bit for bit.
#[test]
fn lossless_files_hold_exactly_the_weights_of_the_checkpoint() {
    let expected = Expected::load();
    let dir = checkpoint();
    let config = ModelFiles::read(dir.path()).expect("sound files").config;
    let checkpoint = Checkpoint::open(dir.path()).expect("a sound file");
    let lossless = |scheme: &str| scheme == "fp32" || scheme == "fp16";
    let cases: Vec<_> = expected
        .cases
        .iter()
        .filter(|(_, case)| lossless(&case.scheme))
        .collect();
    assert!(cases.len() >= 5);
    for (name, case) in cases {
        let model = OnnxModel::of(graphs(case), &config);
        let model = model.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(model.weights().count(), 2 * 16 + 6 + 2 * 9 + 3);
        for (weight, shape) in model.weights() {
            let found = FloatWeights::read(&model, weight, shape).expect("a weight");
            assert!(
                found == checkpoint.read(weight, shape).expect("the same"),
                "{name}: {weight}"
            );
        }
    }
}

/// Names of the decoder's layer matrices.
fn layer_matrices(model: &OnnxModel) -> Vec<(String, [usize; 2])> {
    let layers = model.weights().filter_map(|(name, shape)| {
        let shape: [usize; 2] = shape.try_into().ok()?;
        let is_layer = name.starts_with("model.text_model.layers.");
        is_layer.then(|| (name.to_owned(), shape))
    });
    layers.collect()
}

/// Half a step of f16 for each scale is all that differs.
#[test]
fn numbers_on_a_4_bit_grid_are_those_the_floats_are_made_of() {
    let expected = Expected::load();
    let config = ModelFiles::read(checkpoint().path())
        .expect("sound files")
        .config;
    let mut on_grid = BTreeMap::new();
    for (name, case) in &expected.cases {
        let model = OnnxModel::of(graphs(case), &config);
        let model = model.unwrap_or_else(|error| panic!("{name}: {error}"));
        let matrices = layer_matrices(&model);
        assert_eq!(matrices.len(), 2 * 7);
        let mut found = 0;
        for (weight, shape) in matrices {
            let groups = model.int4_groups(&weight, shape).expect("a weight");
            let Some(groups) = groups else { continue };
            found += 1;
            let floats = FloatWeights::read(&model, &weight, &shape).expect("a weight");
            for (i, (value, float)) in groups.values().iter().zip(&floats).enumerate() {
                let kept = f32::from(*value) * f16_bits_to_f32(groups.scales()[i / 32]);
                let error = (kept - float).abs();
                assert!(
                    error <= float.abs() / 2000.0,
                    "{name} {weight} {i}: {kept} {float}"
                );
            }
        }
        on_grid
            .entry(case.scheme.as_str())
            .or_insert_with(Vec::new)
            .push(found);
    }
    for (scheme, found) in on_grid {
        let all = match scheme {
            "q4" | "q4f16" | "qdq4" => 14,
            _ => 0,
        };
        assert!(
            found.iter().all(|found| *found == all),
            "{scheme}: {found:?}"
        );
    }
}

#[test]
fn a_4_bit_export_keeps_its_grid() {
    let expected = Expected::load();
    for name in [
        "plain_q4",
        "fused_q4f16",
        "interleaved_q4",
        "packed_q4",
        "fused_q4_zero",
    ] {
        let dir = export(expected.case(name), "");
        let source = ModelSource::Path(dir.path().into());
        let exact = look(&load(&source, Precision::F32), &expected);
        let kept = load(&source, Precision::Int8);
        let is_kept = name != "fused_q4_zero";
        assert_eq!(kept.weights_name() == "int4", is_kept, "{name}");
        let kept = look(&kept, &expected);
        let rows = kept.logits.iter().zip(&exact.logits);
        let least = rows.map(|(a, b)| cosine(a, b)).fold(1.0, f64::min);
        assert!(least > 0.998, "{name}: {least}");
    }
}

pub(crate) fn packed(dir: &Path) -> (Pack, Option<String>) {
    let model = Published::open(dir, None, None).unwrap_or_else(|error| panic!("{error}"));
    let out = Cursor::new(Vec::new());
    let pack = packer::pack_model(
        "x",
        &model.files,
        &*model.weights,
        &PackOptions::default(),
        out,
        &mut |_, _| {},
    );
    let bytes = pack.expect("it can be packed").out.into_inner();
    let pack = Pack::from_region(Region::from_vec(bytes), "x").expect("a good pack");
    (pack, model.weights.description())
}

#[test]
fn a_pack_holds_the_same_tensors_whichever_lossless_files_it_was_made_of() {
    let expected = Expected::load();
    let (reference, said) = packed(checkpoint().path());
    assert_eq!(said, None);
    for (name, suffix, variant) in [("fused", "", "fp32"), ("named_fp16", "_fp16", "fp16")] {
        let dir = export(expected.case(name), suffix);
        let (pack, said) = packed(dir.path());
        assert_eq!(said, Some(format!("ONNX files, variant {variant}")));
        assert_eq!(
            pack.header().tensors.len(),
            reference.header().tensors.len()
        );
        for (found, expected) in pack
            .header()
            .tensors
            .iter()
            .zip(&reference.header().tensors)
        {
            assert_eq!(
                (&found.name, found.crc32),
                (&expected.name, expected.crc32),
                "{name}"
            );
        }
        let sources = pack
            .header()
            .sources
            .iter()
            .map(|source| source.name.as_str());
        let wanted = format!("decoder_model_merged{suffix}.onnx");
        assert!(sources.into_iter().any(|source| source == wanted), "{name}");
    }
}

/// Names and checksums of a pack's tensors, and the files it was made of.
fn contents(dir: &Path) -> (Vec<(String, [u8; 4])>, Vec<String>) {
    let (pack, said) = packed(dir);
    assert_eq!(said.as_deref(), Some("ONNX files, variant q4f16"));
    let tensors = pack.header().tensors.iter();
    let sources = pack.header().sources.iter();
    (
        tensors.map(|t| (t.name.clone(), t.crc32)).collect(),
        sources.map(|source| source.name.clone()).collect(),
    )
}

/// Their weights lie in a data file each.
#[test]
fn a_decoder_in_two_files_beside_a_vision_side_is_the_merged_one() {
    let expected = Expected::load();
    let [whole, two] = ["plain_q4f16", "unmerged_q4f16"].map(|name| {
        let dir = export(expected.case(name), "_q4f16");
        let source = ModelSource::Path(dir.path().into());
        let answers = [Precision::F32, Precision::Int8]
            .map(|precision| look(&load(&source, precision), &expected));
        (dir, answers)
    });
    assert_eq!(two.1, whole.1);

    let (tensors, sources) = contents(whole.0.path());
    assert!(sources.contains(&"decoder_model_merged_q4f16.onnx".to_owned()));
    let path = |stem: &str| two.0.path().join(format!("onnx/{stem}_q4f16.onnx"));
    // Both, the first alone, the other alone.
    for (taken, hidden) in [(0, None), (0, Some(1)), (1, Some(0))] {
        let aside = two.0.path().join("aside");
        if let Some(hidden) = hidden {
            std::fs::rename(path(UNMERGED[hidden]), &aside).expect("it is there");
        }
        let (found, sources) = contents(two.0.path());
        assert!(found == tensors, "{taken} without {hidden:?}");
        for (number, stem) in UNMERGED.iter().enumerate() {
            for end in ["", "_data"] {
                let name = format!("{stem}_q4f16.onnx{end}");
                assert_eq!(sources.contains(&name), number == taken, "{sources:?}");
            }
        }
        if let Some(hidden) = hidden {
            std::fs::rename(&aside, path(UNMERGED[hidden])).expect("it is there");
        }
    }
    // With the embedding or the vision side gone, what is missing is named.
    for stem in ["embed_tokens", "vision_encoder"] {
        std::fs::remove_file(path(stem)).expect("it is there");
        let error = Published::open(two.0.path(), None, None);
        let error = error.expect_err("a file is missing").to_string();
        let wanted = format!("no onnx/{stem}.onnx");
        assert!(error.contains(&wanted), "{error:?}: {wanted:?}");
    }
}

#[test]
fn a_directory_of_several_variants_gives_the_one_asked_for_or_the_most_exact() {
    let expected = Expected::load();
    let dir = checkpoint();
    add(expected.case("fused_q4"), "_q4", dir.path());
    add(expected.case("plain_fp16"), "_fp16", dir.path());
    let open = |variant: Option<&str>| {
        let variant = variant.map(|name| name.parse().expect("a variant"));
        Published::open(dir.path(), None, variant)
            .map(|model| model.weights.description())
            .map_err(|error| error.to_string())
    };
    // Safetensors are there.
    assert_eq!(open(None), Ok(None));
    assert_eq!(open(Some("q4")), Ok(Some("ONNX files, variant q4".into())));
    let absent = open(Some("int8")).expect_err("it is not there");
    for part in [
        "onnx/vision_encoder_int8.onnx",
        "decoder_model_merged_q4.onnx",
        "--variant",
    ] {
        assert!(absent.contains(part), "{absent:?}: {part:?}");
    }
    std::fs::remove_file(dir.path().join("model.safetensors")).expect("it is there");
    assert_eq!(open(None), Ok(Some("ONNX files, variant fp16".into())));
    std::fs::remove_file(dir.path().join("onnx/vision_encoder_fp16.onnx")).expect("it is there");
    let mixed = "ONNX files: vision_encoder q4, embed_tokens fp16, decoder_model_merged fp16";
    assert_eq!(open(None), Ok(Some(mixed.into())));
}

#[test]
fn the_command_line_says_what_it_took_and_refuses_what_is_not_there() {
    let expected = Expected::load();
    let dir = export(expected.case("fused_q4"), "_q4");
    let (source, out) = (
        dir.path().display().to_string(),
        dir.path().join("out.ocelli"),
    );
    let out = out.display().to_string();
    let pack =
        |variant: &str| ocelli(["pack", &source, "-o", &out, "--force", "--variant", variant]);
    let done = pack("q4");
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(
        done.stderr.contains("weights from ONNX files, variant q4"),
        "{}",
        done.stderr
    );
    let absent = pack("fp16");
    assert_eq!(absent.code, Some(3), "{}", absent.stderr);
    assert!(
        absent
            .stderr
            .contains("present are: decoder_model_merged_q4.onnx"),
        "{}",
        absent.stderr
    );
    let unknown = pack("q5");
    assert_eq!(unknown.code, Some(2), "{}", unknown.stderr);
    assert!(
        unknown.stderr.contains("fp32, fp16, int8"),
        "{}",
        unknown.stderr
    );
    let lone = ocelli(["ask", "--text", "?", "--model", &out, "--variant", "q4"]);
    assert!(
        lone.stderr.contains("is none; leave it out"),
        "{}",
        lone.stderr
    );
}
