//! Files that are cut, damaged, or say what is not so: always an error that names the place.

use std::fs;
use std::path::Path;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use ocelli_runtime::config::{ModelConfig, ModelFiles};
use ocelli_runtime::import::FloatWeights;
use ocelli_runtime::import::onnx::{Graph, OnnxError, OnnxModel, Part};
use ocelli_runtime::weights::Region;

use crate::{Expected, checkpoint, folder};

pub(crate) fn config() -> ModelConfig {
    ModelFiles::read(checkpoint().path())
        .expect("sound files")
        .config
}

fn decoder(graph: Result<Graph, OnnxError>, config: &ModelConfig) -> Result<OnnxModel, OnnxError> {
    OnnxModel::of(vec![(Part::Decoder, graph?)], config)
}

pub(crate) fn message(found: Result<OnnxModel, OnnxError>) -> String {
    found.map_or_else(|error| error.to_string(), |_| "believed".to_owned())
}

#[test]
fn every_lie_in_a_file_is_named() {
    let cases = [
        ("cycle", "depends on its own output"),
        (
            "deep",
            "is Neg of domain ai.onnx, expected was the output head",
        ),
        ("two_producers", "\"logits\" is made twice"),
        (
            "missing_initializer",
            "\"weight\" is read, but it is neither",
        ),
        ("no_nodes", "\"logits\""),
        (
            "external_parent",
            "\"../secret.bin\", not inside the model's folder",
        ),
        (
            "external_absolute",
            "\"/etc/passwd\", not inside the model's folder",
        ),
        ("external_absent", "nowhere.onnx_data"),
        ("external_beyond_end", "from 4611686018427387904 of"),
        ("external_negative", "offset is \"-8\", which is no number"),
        ("external_too_long", "it claims 1024 bytes from 0 of"),
        (
            "huge_dims",
            "[2147483648, 2147483648] does not fill its 0 bytes",
        ),
        ("overflowing_dims", "does not fill its 0 bytes"),
        ("negative_dims", "weight has a dimension of -16"),
        ("short_data", "[16, 16] does not fill its 100 bytes"),
        (
            "wrong_dtype",
            "expected was a matrix of floats, not of STRING",
        ),
        ("unknown_dtype", "data type 99"),
        (
            "unknown_operator",
            "node \"odd\" is Frobnicate of domain com.example",
        ),
        ("truncated", "bytes, "),
        (
            "if_too_deep",
            "node \"if_1\" is an If inside 4 others, which is the limit",
        ),
        (
            "if_of_other_count",
            "node \"if_0\" gives 2 values, its then_branch 1",
        ),
        (
            "if_without_branch",
            "node \"if_0\" has no graph then_branch",
        ),
    ];
    let config = config();
    for (name, expected) in cases {
        let path = folder().join("hostile").join(name).with_extension("onnx");
        let found = message(decoder(Graph::open(&path), &config));
        assert!(found.contains(expected), "{found:?}: {expected:?}");
        assert!(found.contains("onnx/hostile/"), "{found:?} names a file");
    }
}

#[test]
fn a_model_of_another_shape_than_the_configuration_is_refused() {
    type Change = fn(&mut ModelConfig);
    let cases: [(Change, &str); 7] = [
        (
            |c| c.text.n_layers = 3,
            "the number of layers is 2, config.json says 3",
        ),
        (
            |c| c.text.n_layers = 1,
            "the number of layers is more than 1",
        ),
        (|c| c.text.vocab_size += 1, "(lm_head.weight) has shape"),
        (|c| c.text.rope_theta *= 2.0, "rope_theta"),
        (|c| c.text.rms_norm_eps *= 2.0, "the norm's epsilon"),
        (
            |c| c.text.intermediate_size += 1,
            "(model.text_model.layers.1.mlp.down_proj.weight)",
        ),
        (|c| c.text.n_kv_heads = 4, "is 2, config.json says 4"),
    ];
    let sound = config();
    for file in [
        "plain/decoder_model_merged.onnx",
        "fused/decoder_model_merged_q4.onnx",
    ] {
        assert_eq!(
            message(decoder(Graph::open(&folder().join(file)), &sound)),
            "believed"
        );
        for (change, expected) in &cases {
            let mut config = sound.clone();
            change(&mut config);
            let found = message(decoder(Graph::open(&folder().join(file)), &config));
            assert!(found.contains(expected), "{file}: {found:?}: {expected:?}");
        }
    }
}

#[test]
fn files_in_each_others_places_are_refused() {
    let config = config();
    let case = &Expected::load().cases["plain"];
    for part in [Part::Vision, Part::Embedding, Part::Decoder] {
        for other in [Part::Vision, Part::Embedding, Part::Decoder] {
            let graph = Graph::open(&case.path(other)).expect("sound");
            let found = OnnxModel::of(vec![(part, graph)], &config);
            assert_eq!(found.is_ok(), part == other, "{other:?} as {part:?}");
        }
    }
}

/// Reads every weight of what is believed.
fn look_at(bytes: Vec<u8>, part: Part, config: &ModelConfig) -> bool {
    let Ok(graph) = Graph::from_region(Region::from_vec(bytes), Path::new("changed.onnx")) else {
        return false;
    };
    let Ok(model) = OnnxModel::of(vec![(part, graph)], config) else {
        return false;
    };
    for (name, shape) in model.weights() {
        if let Ok(values) = model.read(name, shape) {
            assert_eq!(values.len(), shape.iter().product::<usize>());
        }
    }
    true
}

/// Whatever a byte becomes and wherever a file ends, it is refused or gives the weights it should.
#[test]
fn no_damage_makes_the_reader_panic() {
    let config = config();
    let files = [
        ("plain/decoder_model_merged_int8.onnx", Part::Decoder),
        ("fused/decoder_model_merged_q4_zero.onnx", Part::Decoder),
        ("fused/decoder_model_merged_qdq4.onnx", Part::Decoder),
        ("heads/decoder_model_merged_q4.onnx", Part::Decoder),
        ("plain/decoder_model_merged_bnb4.onnx", Part::Decoder),
        ("plain/vision_encoder_int8.onnx", Part::Vision),
        ("packed/vision_encoder_q4.onnx", Part::Vision),
        ("shared/embed_tokens_gather4_zero.onnx", Part::Embedding),
    ];
    let mut state = 11u64;
    let mut random = move |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for (file, part) in files {
        let sound = fs::read(folder().join(file)).expect("the fixture is there");
        assert!(look_at(sound.clone(), part, &config), "{file}");
        // Where bytes are not zero or evenly spread there is structure: names, sizes, numbers.
        let is_text = |at: &usize| sound[*at].is_ascii_alphanumeric() && sound[at + 1] < 128;
        let structure: Vec<usize> = (0..sound.len() - 1).filter(is_text).collect();
        for round in 0..400 {
            let mut changed = sound.clone();
            match round % 4 {
                0 => changed.truncate(random(sound.len())),
                1 => changed[random(sound.len())] = random(256) as u8,
                2 => changed[structure[random(structure.len())]] = random(256) as u8,
                _ => {
                    let (from, to) = (random(sound.len() - 16), random(sound.len() - 16));
                    let piece = sound[from..from + 16].to_vec();
                    changed[to..to + 16].copy_from_slice(&piece);
                }
            }
            look_at(changed, part, &config);
        }
    }
}

/// A pipe in place of external data would be waited for until somebody writes.
#[test]
fn a_pipe_in_place_of_external_data_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let case = &Expected::load().cases["unmerged_q4f16"];
    let from = case.path(Part::Decoder);
    let to = dir.path().join(from.file_name().expect("a name"));
    fs::copy(&from, &to).expect("the fixture is there");
    let data = to.with_extension("onnx_data");
    mkfifo(&data, Mode::S_IRWXU).expect("a pipe");
    let error = Graph::open(&to).expect_err("there is no data").to_string();
    for wanted in [data.to_str().expect("a path"), "a pipe"] {
        assert!(error.contains(wanted), "{error:?}: {wanted:?}");
    }
}
