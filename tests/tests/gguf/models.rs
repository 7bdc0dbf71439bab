//! Whole models: the same answers from GGUF files as from the directory they were made of.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use ocelli_runtime::image::Rgb8;
use ocelli_runtime::import::Published;
use ocelli_runtime::pack::Pack;
use ocelli_runtime::packer::{self, PackOptions};
use ocelli_runtime::prompt::{Message, Role};
use ocelli_runtime::weights::Region;
use ocelli_runtime::{
    GenerateOptions, LoadOptions, ModelSource, Precision, PromptRequest, RunError, Session, Vlm,
};
use ocelli_tests::closeness::cosine;
use ocelli_tests::command::ocelli;
use ocelli_tests::gguf::GgufBuilder;
use ocelli_tests::gguf::convert::Storage;
use serde_json::Value;
use tempfile::TempDir;

use crate::{converted, model, tiny};

fn default_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/default")
}

/// GGUF files on disk.
struct Files {
    dir: TempDir,
}

impl Files {
    fn new(text: &GgufBuilder, projector: &GgufBuilder) -> Files {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let files = Files { dir };
        fs::write(files.text(), text.build()).expect("the folder can be written");
        fs::write(files.projector(), projector.build()).expect("the folder can be written");
        files
    }

    fn text(&self) -> PathBuf {
        self.dir.path().join("model.gguf")
    }

    fn projector(&self) -> PathBuf {
        self.dir.path().join("mmproj.gguf")
    }

    fn source(&self) -> ModelSource {
        ModelSource::WithProjector(self.text(), self.projector())
    }
}

fn load(source: ModelSource, precision: Precision) -> Vlm {
    let options = LoadOptions {
        threads: 2,
        precision,
        ..LoadOptions::default()
    };
    Vlm::load(&source, &options, &mut |_, _| {}).unwrap_or_else(|error| panic!("{error}"))
}

fn picture() -> Rgb8 {
    let pixels = (0..64 * 48 * 3).map(|i| (i * 31 % 253) as u8).collect();
    Rgb8::new(64, 48, pixels).expect("a picture")
}

/// What a model sees and says.
#[derive(Debug, PartialEq)]
struct Look {
    ids: Vec<u32>,
    features: Vec<f32>,
    logits: Vec<f32>,
    answer: Vec<u32>,
}

fn request<'a>(messages: &'a [Message], images: &'a [Rgb8]) -> PromptRequest<'a> {
    PromptRequest {
        messages,
        images,
        max_tiles: None,
        answer_tokens: 12,
        keep_stages: true,
    }
}

fn answer(session: &mut Session) -> Vec<u32> {
    let options = GenerateOptions {
        max_tokens: 12,
        ..GenerateOptions::default()
    };
    let mut generation = session.generate(options).expect("greedy settings");
    generation.rest().expect("generation runs");
    generation.tokens().to_vec()
}

fn look(model: &Vlm) -> Look {
    let mut session = model.session().expect("a session starts");
    let messages = [Message::image_and_text("What is there?")];
    let images = [picture()];
    session
        .prompt(&request(&messages, &images), &mut |_| {})
        .expect("the prompt runs");
    let stages = session.stages().expect("stages were kept").clone();
    Look {
        ids: stages.input_ids,
        features: stages.image_features,
        logits: stages.logits,
        answer: answer(&mut session),
    }
}

/// F32 and BF16 files hold the default model's weights exactly, so every number is the same.
#[test]
fn lossless_files_see_and_say_exactly_what_the_directory_does() {
    for precision in [Precision::F32, Precision::Int8] {
        let expected = look(&load(ModelSource::Path(default_model()), precision));
        for storage in [Storage::F32, Storage::Bf16] {
            let (text, projector) = converted(&default_model(), storage);
            let files = Files::new(&text, &projector);
            let found = look(&load(files.source(), precision));
            assert!(found == expected, "{precision:?} {storage:?}");
        }
    }
}

/// Bytes with a scale for 32 values: about 0.5 % of a weight. Observed 0.9998 and 0.99999.
#[test]
fn a_q8_0_file_stays_within_the_error_of_its_scheme() {
    let expected = look(&load(ModelSource::Path(default_model()), Precision::F32));
    let (text, projector) = converted(&default_model(), Storage::Q8_0);
    let found = look(&load(
        Files::new(&text, &projector).source(),
        Precision::F32,
    ));
    assert_eq!(found.ids, expected.ids);
    assert_ne!(found.logits, expected.logits);
    let features = cosine(&found.features, &expected.features);
    let logits = cosine(&found.logits, &expected.logits);
    println!("features {features:.6}, logits {logits:.6}");
    assert!(features > 0.999 && logits > 0.999, "{features} {logits}");
}

/// No `output.weight` means that the embedding table is the head; grouped keys have rows to unpair
/// of their own number.
#[test]
fn tied_heads_and_grouped_keys_are_understood() {
    for name in ["tied", "gqa5"] {
        let dir = tempfile::tempdir().expect("a temporary folder");
        ocelli_tests::checkpoint::Checkpoint::of_fixture(name)
            .write(dir.path())
            .expect("the folder can be written");
        let (text, projector) = converted(dir.path(), Storage::F32);
        let files = Files::new(&text, &projector);
        let expected = look(&load(ModelSource::Path(dir.path().into()), Precision::F32));
        let found = look(&load(files.source(), Precision::F32));
        assert!(found == expected, "{name}");
    }
}

#[test]
fn a_text_model_without_projector_talks_and_refuses_pictures() {
    let (text, projector) = converted(&default_model(), Storage::F32);
    let files = Files::new(&text, &projector);
    let seeing = load(files.source(), Precision::Int8);
    let reading = load(ModelSource::Path(files.text()), Precision::Int8);
    assert!(reading.config().vision.is_none() && reading.preprocess().is_none());

    let messages = [Message::text(Role::User, "What is there?")];
    let talk = |model: &Vlm| {
        let mut session = model.session().expect("a session starts");
        session
            .prompt(&request(&messages, &[]), &mut |_| {})
            .expect("a prompt without picture runs");
        let logits = session.logits().expect("logits");
        (logits, answer(&mut session))
    };
    assert!(talk(&seeing) == talk(&reading));

    let messages = [Message::image_and_text("What is there?")];
    let images = [picture()];
    let mut session = reading.session().expect("a session starts");
    let error = session
        .prompt(&request(&messages, &images), &mut |_| {})
        .expect_err("it cannot see");
    assert!(matches!(error, RunError::NoVision), "{error}");
    assert!(error.to_string().contains("--mmproj"), "{error}");
    assert!(matches!(session.encode(&[]), Err(RunError::NoVision)));
}

#[test]
fn bench_gives_null_for_the_image_tile_of_a_model_that_reads_text_only() {
    let (text, projector) = tiny();
    let files = Files::new(&text, &projector);
    let path = files.text().display().to_string();
    let bench = |more: &[&str]| {
        let lengths = "--runs 1 --prefill 4 --decode 2 --threads 2".split(' ');
        let args = ["bench", "--model", &path].into_iter().chain(lengths);
        ocelli(args.chain(more.iter().copied()))
    };
    let measured = bench(&["--json"]);
    assert_eq!(measured.code, Some(0), "{}", measured.stderr);
    let line = measured.stdout.trim();
    let figures: Value = serde_json::from_str(line).expect("a line of JSON");
    for stage in [
        "/encode_tile_ms",
        "/range/encode_tile_ms",
        "/work/encode_macs",
        "/reached/encode",
    ] {
        assert_eq!(
            figures.pointer(stage),
            Some(&Value::Null),
            "{stage}: {line}"
        );
    }
    for stage in [
        "/prefill_ms",
        "/decode_tokens_per_second",
        "/reached/decode",
    ] {
        let value = figures.pointer(stage).and_then(Value::as_f64);
        assert!(value.is_some_and(|value| value > 0.0), "{stage}: {line}");
    }
    let tile = bench(&["--once", "tile"]);
    assert_eq!(tile.code, Some(2), "{}", tile.stderr);
    assert!(tile.stderr.contains("reads text only"), "{}", tile.stderr);
}

#[test]
fn a_pack_holds_the_same_tensors_whichever_files_it_was_made_of() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    ocelli_tests::checkpoint::Checkpoint::of_fixture("tiny")
        .write(dir.path())
        .expect("the folder can be written");
    let (text, projector) = converted(dir.path(), Storage::F32);
    let files = Files::new(&text, &projector);
    let packed = |model: &Published| {
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
        Pack::from_region(Region::from_vec(bytes), "x").expect("a good pack")
    };
    let projector = files.projector();
    let from_gguf = Published::open(&files.text(), Some(&projector), None).expect("good files");
    assert_eq!(from_gguf.name, "model");
    let from_gguf = packed(&from_gguf);
    let from_dir = packed(&Published::open(dir.path(), None, None).expect("a good directory"));
    let (found, expected) = (from_gguf.header(), from_dir.header());
    assert_eq!(found.config, expected.config);
    assert_eq!(found.preprocess, expected.preprocess);
    assert_eq!(
        found.generation.stop_token_ids,
        expected.generation.stop_token_ids
    );
    assert_eq!(found.tensors.len(), expected.tensors.len());
    for (found, expected) in found.tensors.iter().zip(&expected.tensors) {
        if !expected.name.starts_with("tokenizer.") {
            assert_eq!(found.crc32, expected.crc32, "{}", expected.name);
        }
    }
    let names: Vec<&str> = found
        .sources
        .iter()
        .map(|source| source.name.as_str())
        .collect();
    assert_eq!(names, ["model.gguf", "mmproj.gguf"]);
}

#[test]
fn older_projector_files_are_understood() {
    let (text, sound) = tiny();
    let expected = model(&text, Some(&sound)).expect("sound files");
    let expected_files = expected.model_files().expect("sound keys");

    // Before the longest edge was written, it was four tiles, as this model has it.
    let mut without = sound.clone();
    without.without("clip.vision.preproc_image_size");
    let found = model(&text, Some(&without)).expect("an older file");
    let files = found.model_files().expect("an older file");
    assert_eq!(files.preprocess, expected_files.preprocess);

    // The two feed-forward layers once had each other's names.
    let mut swapped = sound.clone();
    for tensor in &mut swapped.tensors {
        tensor.name = match tensor.name.split_once(".ffn_") {
            Some((layer, part)) => match part.split_once('.') {
                Some(("up", kind)) => format!("{layer}.ffn_down.{kind}"),
                Some((_, kind)) => format!("{layer}.ffn_up.{kind}"),
                None => panic!("{part} has a kind"),
            },
            None => tensor.name.clone(),
        };
    }
    let look_at = |projector| look(&load(Files::new(&text, projector).source(), Precision::F32));
    assert!(look_at(&sound) == look_at(&swapped));
}

#[test]
fn a_file_without_template_gets_the_one_of_its_family() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    ocelli_tests::checkpoint::Checkpoint::of_fixture("tiny")
        .write(dir.path())
        .expect("the folder can be written");
    let (mut text, projector) = converted(dir.path(), Storage::F32);
    let expected = look(&load(
        Files::new(&text, &projector).source(),
        Precision::Int8,
    ));
    text.without("tokenizer.chat_template");
    let found = look(&load(
        Files::new(&text, &projector).source(),
        Precision::Int8,
    ));
    assert_eq!(found.ids, expected.ids);
}

#[test]
fn templates_that_want_one_text_and_name_their_tokens_get_both() {
    let (mut text, _) = tiny();
    text.text(
        "tokenizer.chat_template",
        "{{ bos_token }}{% for m in messages %}{{ m['role'] + '=' + m['content'] + eos_token }}{% endfor %}",
    );
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("model.gguf");
    fs::write(&path, text.build()).expect("the folder can be written");
    let reading = load(ModelSource::Path(path), Precision::Int8);
    let session = reading.session().expect("a session starts");
    let messages = [Message::text(Role::User, "a b")];
    let prompt = session
        .plan_prompt(&request(&messages, &[]))
        .expect("a prompt");
    let special = |id: Option<u32>| {
        let bytes = reading.tokenizer().token_bytes(id.expect("an id"));
        String::from_utf8(bytes.expect("a token").to_vec()).expect("a text")
    };
    let generation = reading.generation();
    let bos = special(generation.bos_token_id);
    let end = generation
        .stop_token_ids
        .iter()
        .map(|id| special(Some(*id)));
    let possible: Vec<String> = end.map(|eos| format!("{bos}user=a b{eos}")).collect();
    assert!(possible.contains(&prompt.text), "{}", prompt.text);
}
