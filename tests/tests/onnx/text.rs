//! Text models in one file, and in two branches of an `If`: the weights of the checkpoint, and what
//! they say.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ocelli_runtime::config::ModelFiles;
use ocelli_runtime::import::onnx::{Graph, OnnxModel, Part};
use ocelli_runtime::import::{FloatWeights, Published};
use ocelli_runtime::weights::Region;
use ocelli_runtime::{ModelSource, Precision};
use ocelli_tests::onnx::{FLOAT, choice, model, node, tensor};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::lies::message;
use crate::models::{F32_BOUND, distance, load, packed};
use crate::{checkpoint, folder};

/// `text/expected.json`
#[derive(Debug, Deserialize)]
struct Expected {
    prompt: Vec<u32>,
    greedy: Vec<u32>,
    cases: BTreeMap<String, Case>,
}

/// One file: its number format, and every twelfth logit after the prompt and after each token.
#[derive(Debug, Deserialize)]
struct Case {
    scheme: String,
    merged: bool,
    lifted: Vec<Vec<f32>>,
}

impl Expected {
    fn load() -> Expected {
        let text = fs::read(folder().join("text/expected.json")).expect("the fixture is there");
        serde_json::from_slice(&text).expect("the fixture has its fields")
    }
}

/// The text model of the fixtures' checkpoint as a directory of its own: its flat configuration, and
/// its tensors under the names that text models have.
fn text_model() -> TempDir {
    let dir = checkpoint();
    let path = |name: &str| dir.path().join(name);
    let read = |name: &str| -> Value {
        let text = fs::read(path(name)).expect("a file of the checkpoint");
        serde_json::from_slice(&text).expect("JSON")
    };
    let whole = read("config.json");
    let mut config = whole["text_config"].clone();
    config["model_type"] = json!("llama");
    config["tie_word_embeddings"] = whole["tie_word_embeddings"].clone();
    fs::write(path("config.json"), config.to_string()).expect("a file");

    let bytes = fs::read(path("model.safetensors")).expect("the weights");
    let (len, rest) = bytes.split_first_chunk().expect("a length");
    let (header, data) = rest.split_at(u64::from_le_bytes(*len) as usize);
    let header: BTreeMap<String, Value> = serde_json::from_slice(header).expect("a header");
    let renamed = header.into_iter();
    let renamed = renamed.map(|(name, entry)| (name.replace("text_model.", ""), entry));
    let header = json!(renamed.collect::<BTreeMap<_, _>>()).to_string();
    let header = format!("{header:width$}", width = header.len().next_multiple_of(8));
    let len = (header.len() as u64).to_le_bytes();
    let bytes = [&len, header.as_bytes(), data].concat();
    fs::write(path("model.safetensors"), bytes).expect("a file");
    for name in ["preprocessor_config.json", "processor_config.json"] {
        fs::remove_file(path(name)).expect("a file of the checkpoint");
    }
    dir
}

/// The same with an ONNX file instead of the tensors.
fn export(file: &str) -> TempDir {
    let dir = text_model();
    fs::remove_file(dir.path().join("model.safetensors")).expect("it was written");
    fs::create_dir(dir.path().join("onnx")).expect("a folder");
    let to = dir.path().join("onnx").join(file);
    fs::copy(folder().join("text").join(file), to).expect("the fixture is there");
    dir
}

#[test]
fn every_file_of_a_text_model_gives_what_its_weights_give() {
    let expected = Expected::load();
    assert!(expected.cases.values().filter(|case| case.merged).count() >= 2);
    for (file, case) in &expected.cases {
        let dir = export(file);
        let model = load(&ModelSource::Path(dir.path().into()), Precision::F32);
        let mut session = model.session().expect("a session starts");
        for (n, lifted) in case.lifted.iter().enumerate() {
            let ids = [&expected.prompt[..], &expected.greedy[..n]].concat();
            let logits = session
                .prompt_ids(&ids, &[])
                .expect("the prompt runs")
                .logits;
            let some: Vec<f32> = logits.iter().step_by(12).take(32).copied().collect();
            let apart = distance(&some, lifted);
            assert!(apart < F32_BOUND, "{file}: {apart} after {n} tokens");
            let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
            if case.scheme == "fp16" && n < expected.greedy.len() {
                let token = best.and_then(|token| u32::try_from(token).ok());
                assert_eq!(token, Some(expected.greedy[n]), "{file}");
            }
        }
    }
}

#[test]
fn lossless_files_of_a_text_model_are_the_same_pack_as_its_safetensors() {
    let (reference, said) = packed(text_model().path());
    assert_eq!(said, None);
    let sums = |pack: &ocelli_runtime::pack::Pack| -> Vec<(String, [u8; 4])> {
        let tensors = pack.header().tensors.iter();
        tensors
            .map(|entry| (entry.name.clone(), entry.crc32))
            .collect()
    };
    for file in ["model_fp16.onnx", "decoder_model_merged_fp16.onnx"] {
        let (pack, said) = packed(export(file).path());
        assert_eq!(said.as_deref(), Some("ONNX files, variant fp16"), "{file}");
        assert_eq!(sums(&pack), sums(&reference), "{file}");
    }
}

/// Adds another file to a directory of [`export`].
fn put(dir: &TempDir, file: &str) {
    let from = folder().join("text").join(file);
    fs::copy(from, dir.path().join("onnx").join(file)).expect("the fixture is there");
}

#[test]
fn a_decoder_in_two_files_is_read_from_either_and_both_must_agree() {
    let (first, later) = (
        "decoder_model_fp16.onnx",
        "decoder_with_past_model_fp16.onnx",
    );
    let sums = |dir: &TempDir| -> (Vec<String>, Vec<[u8; 4]>) {
        let (pack, said) = packed(dir.path());
        assert_eq!(said.as_deref(), Some("ONNX files, variant fp16"));
        let sources = pack.header().sources.iter();
        let tensors = pack.header().tensors.iter();
        (
            sources.map(|source| source.name.clone()).collect(),
            tensors.map(|tensor| tensor.crc32).collect(),
        )
    };
    let (_, expected) = sums(&export("model_fp16.onnx"));
    let pair = export(first);
    put(&pair, later);
    for (dir, taken) in [(&pair, first), (&export(later), later)] {
        let (sources, found) = sums(dir);
        assert!(sources.iter().any(|source| source == taken), "{sources:?}");
        assert!(found == expected, "{taken}");
    }
    // One file of both is taken before two.
    put(&pair, "decoder_model_merged_fp16.onnx");
    let (sources, _) = sums(&pair);
    assert!(
        sources
            .iter()
            .any(|name| name == "decoder_model_merged_fp16.onnx")
    );
    fs::remove_file(pair.path().join("onnx/decoder_model_merged_fp16.onnx")).expect("it is there");

    let path = pair.path().join("onnx").join(later);
    let mut bytes = fs::read(&path).expect("the fixture");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).expect("the folder can be written");
    let error = Published::open(pair.path(), None, None);
    let error = error.expect_err("a byte differs").to_string();
    for part in [first, later, "weight ", "which is not the same"] {
        assert!(error.contains(part), "{error:?}: {part:?}");
    }
}

#[test]
fn of_a_text_models_files_the_one_asked_for_is_taken_or_the_most_exact() {
    let dir = export("model_q4.onnx");
    let onnx = dir.path().join("onnx");
    let from = folder().join("text/decoder_model_merged_fp16.onnx");
    fs::copy(from, onnx.join("decoder_model_merged_fp16.onnx")).expect("the fixture is there");
    let open = |variant: Option<&str>| {
        let variant = variant.map(|name| name.parse().expect("a variant"));
        Published::open(dir.path(), None, variant)
            .map(|model| model.weights.description())
            .map_err(|error| error.to_string())
    };
    assert_eq!(open(None), Ok(Some("ONNX files, variant fp16".into())));
    assert_eq!(open(Some("q4")), Ok(Some("ONNX files, variant q4".into())));
    let absent = open(Some("int8")).expect_err("it is not there");
    let wanted = "no onnx/decoder_model_merged_int8.onnx or onnx/model_int8.onnx; present are";
    assert!(absent.contains(wanted), "{absent}");
}

/// A file of a decoder without layers, of which the branches are these.
fn without_layers(branches: [&[Vec<u8>]; 2], outside: &[Vec<u8>]) -> Result<OnnxModel, String> {
    let dir = text_model();
    let mut config = ModelFiles::read(dir.path()).expect("sound files").config;
    config.text.n_layers = 0;
    let parts = [outside, &[choice("use_cache_branch", "logits", branches)]].concat();
    let region = Region::from_vec(model("inputs_embeds", "logits", &parts));
    let graph = Graph::from_region(region, Path::new("a.onnx")).map_err(|e| e.to_string())?;
    OnnxModel::of(vec![(Part::Decoder, graph)], &config).map_err(|e| e.to_string())
}

/// Norm `n` and head `w` of it.
fn head(w: &str) -> Vec<Vec<u8>> {
    let norm = "SimplifiedLayerNormalization";
    vec![
        node(norm, &["inputs_embeds", "n"], &["x"], &[]),
        node("MatMul", &["x", w], &["logits"], &[]),
    ]
}

/// A matrix `[64, 384]` of one number.
fn matrix(name: &str, value: f32) -> Vec<u8> {
    tensor(
        name,
        FLOAT,
        &[64, 384],
        &value.to_le_bytes().repeat(64 * 384),
    )
}

#[test]
fn branches_hold_the_same_weights_or_are_refused() {
    let norm = tensor("n", FLOAT, &[64], &1f32.to_le_bytes().repeat(64));
    let outside = [
        norm,
        matrix("w", 1.0),
        matrix("twin", 1.0),
        matrix("other", 2.0),
    ];
    // Of one initialiser, and of two that hold the same.
    for second in ["w", "twin"] {
        let model = without_layers([&head("w"), &head(second)], &outside);
        let model = model.unwrap_or_else(|error| panic!("{second}: {error}"));
        let shape = [384, 64];
        let values = FloatWeights::read(&model, "lm_head.weight", &shape).expect("the head");
        assert!(values.iter().all(|value| *value == 1.0));
    }
    // Each branch may have its own of one name.
    let own = |value| [&[matrix("mine", value)][..], &head("mine")].concat();
    assert!(without_layers([&own(3.0), &own(3.0)], &outside).is_ok());

    let different = without_layers([&head("w"), &head("other")], &outside);
    let inside = without_layers([&own(3.0), &own(4.0)], &outside);
    let nothing = [node("Neg", &["inputs_embeds"], &["logits"], &[])];
    let missing = without_layers([&head("w"), &nothing], &outside);
    let twice = [&outside[1..2], &head("w")[..]].concat();
    let twice = without_layers([&twice, &head("w")], &outside);
    for (found, wanted) in [
        (
            different,
            "lm_head.weight is w where use_cache_branch holds, and other where",
        ),
        (
            inside,
            "lm_head.weight is mine where use_cache_branch holds, and mine where",
        ),
        (
            missing,
            "is Neg of domain ai.onnx, expected was the output head",
        ),
        (twice, "initialiser w is there twice"),
    ] {
        let found = found.map_or_else(|error| error, |_| "believed".to_owned());
        assert!(found.contains(wanted), "{found:?}: {wanted:?}");
    }
}

#[test]
fn an_if_that_no_input_decides_is_refused_by_name() {
    let norm = tensor("n", FLOAT, &[64], &1f32.to_le_bytes().repeat(64));
    let decided = node("Greater", &["inputs_embeds", "n"], &["greater"], &[]);
    let parts = [norm, matrix("w", 1.0), decided];
    let chosen = choice("greater", "logits", [&head("w"), &head("w")]);
    // Without what declares the condition an input.
    let declared = ocelli_tests::onnx::field(11, ocelli_tests::onnx::field(1, "greater"));
    let chosen = chosen[..chosen.len() - declared.len()].to_vec();
    let bytes = model("inputs_embeds", "logits", &[&parts[..], &[chosen]].concat());
    let graph = Graph::from_region(Region::from_vec(bytes), Path::new("a.onnx"));
    let config = crate::lies::config();
    let found =
        message(graph.and_then(|graph| OnnxModel::of(vec![(Part::Decoder, graph)], &config)));
    assert!(found.contains("is If of domain ai.onnx"), "{found}");
}
