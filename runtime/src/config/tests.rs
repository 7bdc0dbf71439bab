//! Tests of configuration reading, and the fixtures that other tests of this crate share.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::fields::Fields;
use super::read::read_model;
use super::*;

/// The JSON file `name` of the committed preprocessing fixtures.
pub(crate) fn fixture(name: &str) -> Value {
    let bytes = fixture_bytes(name);
    serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The bytes of file `name` of the committed preprocessing fixtures.
pub(crate) fn fixture_bytes(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/preprocess");
    std::fs::read(folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The reference file or folder `name`, which is not part of the repository. Without it the test is
/// skipped: that is said on stderr with the number of `cases` lost.
pub(crate) fn reference(name: &str, cases: usize) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/reference");
    let path = root.join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: golden reference not present ({cases} cases), no {name}");
    None
}

/// [`reference`] parsed as JSON.
pub(crate) fn reference_json(name: &str, cases: usize) -> Option<Value> {
    let bytes = std::fs::read(reference(name, cases)?).expect("a readable reference file");
    Some(serde_json::from_slice(&bytes).expect("a JSON reference file"))
}

/// The length of the array `value`; helps to state that all cases were seen.
pub(crate) fn cases(value: &Value) -> &[Value] {
    value.as_array().expect("a list of cases")
}

/// The number `value` as `usize`.
pub(crate) fn number(value: &Value) -> usize {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("{value} is no number")) as usize
}

/// The numbers of the array `value`.
pub(crate) fn numbers<T: TryFrom<u64>>(value: &Value) -> Vec<T> {
    let number = |v: &Value| v.as_u64().and_then(|v| T::try_from(v).ok());
    cases(value)
        .iter()
        .map(|v| number(v).unwrap_or_else(|| panic!("{v} is no number")))
        .collect()
}

/// A small model whose token ids are those of the fixture tokenizer with `vocab_size` tokens.
pub(crate) fn small_model(
    vocab_size: usize,
    image_token_id: u32,
    stop: u32,
) -> (ModelConfig, GenerationConfig) {
    let mut config = small_config();
    config["text_config"]["vocab_size"] = json!(vocab_size);
    config["image_token_id"] = json!(image_token_id);
    let fields = Fields::top("config.json", &config).expect("an object");
    let generation = GenerationConfig {
        stop_token_ids: vec![stop],
        pad_token_id: 2,
        bos_token_id: None,
        sampling: SamplingDefaults::default(),
    };
    (
        read_model(&fields).expect("a good configuration"),
        generation,
    )
}

fn small_config() -> Value {
    json!({
        "model_type": "idefics3",
        "image_token_id": 330,
        "scale_factor": 4,
        "tie_word_embeddings": false,
        "torch_dtype": "bfloat16",
        "text_config": {
            "model_type": "llama",
            "hidden_size": 96,
            "intermediate_size": 256,
            "num_hidden_layers": 4,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-5,
            "rope_theta": 100000,
            "rope_scaling": null,
            "max_position_embeddings": 2048,
            "eos_token_id": 2,
            "pad_token_id": 2,
            "vocab_size": 400
        },
        "vision_config": {
            "hidden_size": 48,
            "intermediate_size": 192,
            "num_hidden_layers": 3,
            "num_attention_heads": 3,
            "image_size": 64,
            "patch_size": 8,
            "hidden_act": "gelu_pytorch_tanh",
            "layer_norm_eps": 1e-6
        }
    })
}

fn small_preprocessor() -> Value {
    json!({
        "do_image_splitting": true,
        "do_normalize": true,
        "do_rescale": true,
        "do_resize": true,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "max_image_size": {"longest_edge": 64},
        "resample": 1,
        "rescale_factor": 0.00392156862745098,
        "size": {"longest_edge": 256}
    })
}

/// The files of a model directory, to be changed by a test and written.
struct Files(Vec<(&'static str, Value)>);

impl Files {
    fn good() -> Files {
        Files(vec![
            ("config.json", small_config()),
            ("preprocessor_config.json", small_preprocessor()),
            ("processor_config.json", json!({"image_seq_len": 4})),
            (
                "generation_config.json",
                json!({"bos_token_id": 0, "eos_token_id": 335, "pad_token_id": 2}),
            ),
            (
                "chat_template.json",
                json!({"chat_template": "{{ messages }}"}),
            ),
            (
                "tokenizer.json",
                json!({"added_tokens": [{"id": 399, "content": "<end_of_utterance>"}]}),
            ),
        ])
    }

    fn file(&mut self, name: &str) -> &mut Value {
        &mut self
            .0
            .iter_mut()
            .find(|(file, _)| *file == name)
            .expect("a known file")
            .1
    }

    /// Sets the field at the JSON pointer, or takes it away.
    fn edit(mut self, name: &str, pointer: &str, value: Option<Value>) -> Files {
        let (parent, key) = pointer.rsplit_once('/').expect("a JSON pointer");
        let parent = self
            .file(name)
            .pointer_mut(parent)
            .expect("an existing parent");
        let parent = parent.as_object_mut().expect("an object");
        match value {
            Some(value) => parent.insert(key.to_owned(), value),
            None => parent.remove(key),
        };
        self
    }

    fn without(mut self, name: &str) -> Files {
        self.0.retain(|(file, _)| *file != name);
        self
    }

    fn with(mut self, name: &'static str, value: Value) -> Files {
        self = self.without(name);
        self.0.push((name, value));
        self
    }

    fn write(&self) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for (name, value) in &self.0 {
            std::fs::write(dir.path().join(name), value.to_string()).expect("a written file");
        }
        dir
    }

    fn read(&self) -> Result<ModelFiles, ConfigError> {
        ModelFiles::read(self.write().path())
    }
}

#[test]
fn a_good_directory_is_read_field_by_field() {
    let files = Files::good().read().expect("a good directory");
    let expected = ModelConfig {
        vision: Some(VisionConfig {
            hidden_size: 48,
            intermediate_size: 192,
            n_layers: 3,
            n_heads: 3,
            image_size: 64,
            patch_size: 8,
            layer_norm_eps: 1e-6,
            scale_factor: 4,
            image_token_id: 330,
        }),
        text: TextConfig {
            hidden_size: 96,
            intermediate_size: 256,
            n_layers: 4,
            n_heads: 6,
            n_kv_heads: 2,
            head_dim: 16,
            vocab_size: 400,
            rope_theta: 100_000.0,
            rms_norm_eps: 1e-5,
            max_positions: 2048,
        },
        tie_word_embeddings: false,
    };
    assert_eq!(files.config, expected);
    let vision = files.config.vision.as_ref().expect("a vision side");
    assert_eq!(vision.patches_per_side(), 8);
    assert_eq!(vision.n_patches(), 64);
    assert_eq!(vision.head_dim(), 16);
    assert_eq!(files.config.image_tokens_per_tile(), 4);
    let expected = PreprocessConfig {
        tile_size: 64,
        longest_edge: 256,
        do_image_splitting: true,
        mean: [0.5; 3],
        std: [0.5; 3],
        rescale_factor: 0.00392156862745098,
        filter: ResampleFilter::Lanczos,
    };
    assert_eq!(files.preprocess, Some(expected));
    assert_eq!(files.generation.stop_token_ids, [335]);
    assert_eq!(files.generation.pad_token_id, 2);
    assert_eq!(files.generation.bos_token_id, Some(0));
    assert_eq!(files.generation.sampling, SamplingDefaults::default());
    assert_eq!(files.image_seq_len, 4);
    assert_eq!(files.chat_template, "{{ messages }}");
    assert_eq!(files.model_type, "idefics3");
    assert_eq!(files.dtype.as_deref(), Some("bfloat16"));
}

#[test]
fn a_configuration_survives_the_pack_header() {
    let files = Files::good().read().expect("a good directory");
    let whole = (files.config, files.preprocess, files.generation);
    let bytes = postcard::to_stdvec(&whole).expect("encodes");
    let back: (ModelConfig, Option<PreprocessConfig>, GenerationConfig) =
        postcard::from_bytes(&bytes).expect("decodes");
    assert_eq!(back, whole);
}

#[test]
fn keys_that_smolvlm2_leaves_out_get_the_class_defaults() {
    let mut files = Files::good();
    let config = files.file("config.json");
    config["model_type"] = json!("smolvlm");
    config["pad_token_id"] = json!(128_002);
    config["dtype"] = json!("float32");
    let text = config["text_config"].as_object_mut().expect("an object");
    for key in [
        "num_attention_heads",
        "num_key_value_heads",
        "rms_norm_eps",
        "rope_theta",
    ] {
        text.remove(key);
    }
    config["text_config"]["rope_parameters"] =
        json!({"rope_type": "default", "rope_theta": 130_000.0});
    config["vision_config"] = json!({"hidden_size": 768, "image_size": 64, "patch_size": 8});
    let files = files.read().expect("defaults fill the gaps");
    let ModelConfig { vision, text, .. } = files.config;
    let vision = vision.expect("a vision side");
    assert_eq!(
        (vision.intermediate_size, vision.n_layers, vision.n_heads),
        (3072, 12, 16)
    );
    assert_eq!(vision.layer_norm_eps, 1e-6);
    assert_eq!((text.n_heads, text.n_kv_heads, text.head_dim), (6, 6, 16));
    assert_eq!((text.rope_theta, text.rms_norm_eps), (130_000.0, 1e-6));
    assert_eq!(files.dtype.as_deref(), Some("float32"));
    assert_eq!(files.generation.pad_token_id, 2);

    let heads = Files::good()
        .edit("config.json", "/text_config/head_dim", None)
        .read()
        .expect("the head width follows from the heads");
    assert_eq!(heads.config.text.head_dim, 16);
    let both = Files::good()
        .edit("config.json", "/text_config/head_dim", None)
        .edit("config.json", "/text_config/num_attention_heads", None)
        .edit("config.json", "/text_config/num_key_value_heads", None)
        .edit("config.json", "/text_config/hidden_size", Some(json!(128)))
        .read()
        .expect("32 heads is the class default");
    assert_eq!(
        (both.config.text.n_heads, both.config.text.head_dim),
        (32, 4)
    );
    let square = Files::good()
        .edit(
            "config.json",
            "/vision_config/image_size",
            Some(json!([64, 64])),
        )
        .read();
    assert_eq!(
        square
            .expect("two equal sides")
            .config
            .vision
            .expect("a vision side")
            .image_size,
        64
    );
}

#[test]
fn the_top_level_decides_about_tied_embeddings() {
    for (top, text, expected) in [
        (Some(true), Some(false), true),
        (Some(false), Some(true), false),
        (None, Some(true), true),
        (None, None, false),
    ] {
        let files = Files::good()
            .edit("config.json", "/tie_word_embeddings", top.map(Value::from))
            .edit(
                "config.json",
                "/text_config/tie_word_embeddings",
                text.map(Value::from),
            );
        let config = files.read().expect("a good directory").config;
        assert_eq!(
            config.tie_word_embeddings, expected,
            "top {top:?}, text {text:?}"
        );
    }
}

#[test]
fn stop_and_pad_tokens_are_taken_from_the_right_place() {
    let stops = |value: Value| {
        let files = Files::good().edit("generation_config.json", "/eos_token_id", Some(value));
        files.read().map(|files| files.generation.stop_token_ids)
    };
    assert_eq!(stops(json!(335)).expect("one id"), [335]);
    assert_eq!(stops(json!([335, 2, 335])).expect("a list"), [2, 335]);
    // Never text_config.eos_token_id, which is 2.
    assert_eq!(stops(json!(null)).expect("the end of an utterance"), [399]);
    assert_eq!(stops(json!([])).expect("the end of an utterance"), [399]);
    let files = Files::good()
        .without("generation_config.json")
        .read()
        .expect("a good directory");
    assert_eq!(files.generation.stop_token_ids, [399]);
    assert_eq!(files.generation.pad_token_id, 2);

    for (file, pointer) in [
        ("generation_config.json", "/pad_token_id"),
        ("config.json", "/text_config/pad_token_id"),
    ] {
        let files = Files::good()
            .edit("generation_config.json", "/pad_token_id", None)
            .edit(file, pointer, Some(json!(128_002)));
        let generation = files.read().expect("a usable pad token").generation;
        assert_eq!(generation.pad_token_id, 2, "{file}");
    }
    let message = stops(json!(400))
        .expect_err("outside the vocabulary")
        .to_string();
    assert_eq!(
        message,
        "generation_config.json: eos_token_id is 400: must be below vocab_size 400; \
         take all files from the same model"
    );
    let no_end = Files::good()
        .without("generation_config.json")
        .with("tokenizer.json", json!({"added_tokens": []}));
    assert!(matches!(
        no_end.read(),
        Err(ConfigError::MissingField { .. })
    ));
}

#[test]
fn sampling_defaults_are_read_and_checked() {
    let file = "generation_config.json";
    let files = Files::good()
        .edit(file, "/do_sample", Some(json!(true)))
        .edit(file, "/temperature", Some(json!(0.7)))
        .edit(file, "/top_k", Some(json!(40)))
        .edit(file, "/top_p", Some(json!(0.9)))
        .edit(file, "/repetition_penalty", Some(json!(1.1)));
    let expected = SamplingDefaults {
        do_sample: true,
        temperature: Some(0.7),
        top_k: Some(40),
        top_p: Some(0.9),
        repetition_penalty: Some(1.1),
    };
    assert_eq!(
        files.read().expect("a good directory").generation.sampling,
        expected
    );
    for (field, value) in [
        ("temperature", 0.0),
        ("top_p", 1.5),
        ("repetition_penalty", -1.0),
    ] {
        let files = Files::good().edit(file, &format!("/{field}"), Some(json!(value)));
        let message = files.read().expect_err("out of range").to_string();
        assert!(message.contains(field), "{message}");
    }
}

#[test]
fn the_chat_template_is_found_wherever_it_is_kept() {
    let mut files = Files::good()
        .with(
            "processor_config.json",
            json!({"image_seq_len": 4, "chat_template": "processor"}),
        )
        .with(
            "tokenizer_config.json",
            json!({"chat_template": "tokenizer"}),
        );
    let dir = files.write();
    std::fs::write(dir.path().join("chat_template.jinja"), "jinja\n").expect("written");
    let template = |dir: &Path| ModelFiles::read(dir).expect("a template").chat_template;
    assert_eq!(template(dir.path()), "jinja\n");
    assert_eq!(template(files.write().path()), "{{ messages }}");
    files = files.without("chat_template.json");
    assert_eq!(template(files.write().path()), "processor");
    files = files.with("processor_config.json", json!({}));
    assert_eq!(template(files.write().path()), "tokenizer");
    let named = json!({"chat_template": [{"name": "tools", "template": "no"},
                                         {"name": "default", "template": "named"}]});
    files = files.with("tokenizer_config.json", named);
    assert_eq!(template(files.write().path()), "named");
    files = files.without("tokenizer_config.json");
    assert!(matches!(files.read(), Err(ConfigError::MissingFile { .. })));
}

#[test]
fn the_image_processor_may_be_kept_in_the_processor_config() {
    let nested = json!({"image_seq_len": 4, "image_processor": small_preprocessor()});
    let files = Files::good()
        .without("preprocessor_config.json")
        .with("processor_config.json", nested);
    assert_eq!(
        files
            .read()
            .expect("a nested image processor")
            .preprocess
            .expect("a processor")
            .tile_size,
        64
    );
    let files = Files::good().without("preprocessor_config.json").read();
    assert!(matches!(files, Err(ConfigError::MissingFile { .. })));
}

#[test]
fn switched_off_normalising_and_single_numbers_are_understood() {
    let file = "preprocessor_config.json";
    let files = Files::good()
        .edit(file, "/do_normalize", Some(json!(false)))
        .read();
    let preprocess = files.expect("a good directory").preprocess;
    let preprocess = preprocess.expect("a processor");
    assert_eq!((preprocess.mean, preprocess.std), ([0.0; 3], [1.0; 3]));
    let files = Files::good()
        .edit(file, "/image_mean", Some(json!(0.25)))
        .read();
    let preprocess = files.expect("a good directory").preprocess;
    assert_eq!(preprocess.expect("a processor").mean, [0.25; 3]);
}

#[test]
fn every_wrong_value_is_refused_with_its_place() {
    const CONFIG: &str = "config.json";
    const PREPROCESSOR: &str = "preprocessor_config.json";
    let huge = json!(1u64 << 40);
    let cases = [
        (CONFIG, "/model_type", json!("qwen2_vl"), "\"idefics3\""),
        (CONFIG, "/model_type", json!(null), "is missing"),
        (CONFIG, "/model_type", json!(7), "must be a string"),
        (
            CONFIG,
            "/quantization_config",
            json!({"bits": 4}),
            "unquantised",
        ),
        (CONFIG, "/text_config", json!(null), "is missing"),
        (CONFIG, "/text_config", json!([1]), "must be a JSON object"),
        (CONFIG, "/vision_config", json!(null), "is missing"),
        (CONFIG, "/image_token_id", json!(null), "is missing"),
        (
            CONFIG,
            "/image_token_id",
            json!(400),
            "below vocab_size 400",
        ),
        (CONFIG, "/image_token_id", json!(-1), "must be a token id"),
        (CONFIG, "/scale_factor", json!(3), "which is 8"),
        (CONFIG, "/scale_factor", json!(0), "must be 1 to 16"),
        (CONFIG, "/use_resampler", json!(true), "pixel shuffle"),
        (
            CONFIG,
            "/text_config/use_resampler",
            json!(true),
            "pixel shuffle",
        ),
        (
            CONFIG,
            "/text_config/model_type",
            json!("qwen2"),
            "\"llama\"",
        ),
        (CONFIG, "/text_config/hidden_act", json!("gelu"), "\"silu\""),
        (
            CONFIG,
            "/text_config/attention_bias",
            json!(true),
            "no bias",
        ),
        (CONFIG, "/text_config/mlp_bias", json!(true), "no bias"),
        (
            CONFIG,
            "/text_config/rope_interleaved",
            json!(true),
            "halves",
        ),
        (
            CONFIG,
            "/text_config/qk_layer_norms",
            json!(true),
            "not normalised",
        ),
        (
            CONFIG,
            "/text_config/rope_scaling",
            json!({"type": "linear", "factor": 2}),
            "scaled",
        ),
        (
            CONFIG,
            "/text_config/rope_scaling",
            json!({"factor": 2}),
            "scaled",
        ),
        (
            CONFIG,
            "/text_config/rope_parameters",
            json!({"rope_type": "llama3"}),
            "scaled",
        ),
        (
            CONFIG,
            "/text_config/rope_parameters",
            json!({"partial_rotary_factor": 0.5}),
            "whole heads",
        ),
        (CONFIG, "/text_config/rope_theta", json!(0), "at least 1"),
        (CONFIG, "/text_config/rope_theta", json!(1e300), "finite"),
        (CONFIG, "/text_config/rms_norm_eps", json!(0), "above 0"),
        (
            CONFIG,
            "/text_config/hidden_size",
            json!(null),
            "is missing",
        ),
        (
            CONFIG,
            "/text_config/hidden_size",
            json!(1.5),
            "whole number",
        ),
        (
            CONFIG,
            "/text_config/hidden_size",
            json!("96"),
            "whole number",
        ),
        (
            CONFIG,
            "/text_config/hidden_size",
            huge.clone(),
            "1 to 16384",
        ),
        (
            CONFIG,
            "/text_config/intermediate_size",
            huge.clone(),
            "1 to 65536",
        ),
        (
            CONFIG,
            "/text_config/num_hidden_layers",
            json!(0),
            "1 to 256",
        ),
        (
            CONFIG,
            "/text_config/num_attention_heads",
            json!(0),
            "1 to 256",
        ),
        (
            CONFIG,
            "/text_config/num_attention_heads",
            json!(5),
            "which is 96",
        ),
        (
            CONFIG,
            "/text_config/num_attention_heads",
            json!(12),
            "must be hidden_size 96",
        ),
        (
            CONFIG,
            "/text_config/num_key_value_heads",
            json!(4),
            "which is 6",
        ),
        (
            CONFIG,
            "/text_config/num_key_value_heads",
            json!(0),
            "1 to 6",
        ),
        (
            CONFIG,
            "/text_config/head_dim",
            json!(0),
            "must be hidden_size 96",
        ),
        (
            CONFIG,
            "/text_config/head_dim",
            json!(u64::MAX),
            "must be hidden_size 96",
        ),
        (
            CONFIG,
            "/text_config/vocab_size",
            huge.clone(),
            "1 to 1048576",
        ),
        (
            CONFIG,
            "/text_config/max_position_embeddings",
            huge.clone(),
            "1 to 1048576",
        ),
        (
            CONFIG,
            "/vision_config/hidden_act",
            json!("gelu"),
            "\"gelu_pytorch_tanh\"",
        ),
        (
            CONFIG,
            "/vision_config/num_channels",
            json!(1),
            "3 colour channels",
        ),
        (
            CONFIG,
            "/vision_config/hidden_size",
            json!(50),
            "which is 50",
        ),
        (
            CONFIG,
            "/vision_config/image_size",
            huge.clone(),
            "1 to 2048",
        ),
        (
            CONFIG,
            "/vision_config/image_size",
            json!([64, 32]),
            "two equal ones",
        ),
        (CONFIG, "/vision_config/patch_size", json!(0), "1 to 64"),
        (CONFIG, "/vision_config/patch_size", json!(65), "1 to 64"),
        (
            CONFIG,
            "/vision_config/layer_norm_eps",
            json!(-1e-6),
            "above 0",
        ),
        (PREPROCESSOR, "/resample", json!(3), "only 1"),
        (PREPROCESSOR, "/do_resize", json!(false), "always resized"),
        (PREPROCESSOR, "/do_rescale", json!(false), "always resized"),
        (
            PREPROCESSOR,
            "/max_image_size/longest_edge",
            json!(128),
            "vision_config.image_size 64",
        ),
        (PREPROCESSOR, "/max_image_size", json!(null), "is missing"),
        (
            PREPROCESSOR,
            "/size",
            json!({"height": 64, "width": 64}),
            "is missing",
        ),
        (PREPROCESSOR, "/size/longest_edge", json!(0), "1 to 16384"),
        (
            PREPROCESSOR,
            "/size/longest_edge",
            json!(4096),
            "more than 32 image tiles",
        ),
        (
            PREPROCESSOR,
            "/image_mean",
            json!([0.5, 0.5]),
            "three numbers",
        ),
        (
            PREPROCESSOR,
            "/image_std",
            json!([0.5, 0.5, 0.0]),
            "above 0",
        ),
        (PREPROCESSOR, "/rescale_factor", json!(-1), "above 0"),
        (
            "processor_config.json",
            "/image_seq_len",
            json!(64),
            "must be 4",
        ),
        (
            "generation_config.json",
            "/eos_token_id",
            json!("end"),
            "token id",
        ),
    ];
    let mut failures = Vec::new();
    for (file, pointer, value, expected) in cases {
        let field = pointer.rsplit('/').next().expect("a field");
        let result = Files::good()
            .edit(file, pointer, Some(value.clone()))
            .read();
        let message = match &result {
            Ok(_) => "accepted".to_owned(),
            Err(e) => e.to_string(),
        };
        // The nested kinds name the field inside, the relations the other side.
        let place = message.starts_with(file)
            && (message.contains(field) || message.contains("head") || value.is_object());
        if !place || !message.contains(expected) {
            failures.push(format!("{file} {pointer} = {value}: {message}"));
        }
    }
    assert!(
        failures.is_empty(),
        "{} wrong:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

#[test]
fn patches_are_limited_in_number() {
    let files = Files::good()
        .edit(
            "config.json",
            "/vision_config/image_size",
            Some(json!(2048)),
        )
        .edit("config.json", "/vision_config/patch_size", Some(json!(8)));
    let message = files.read().expect_err("256 patches a side").to_string();
    assert!(message.contains("256 patches along a side"), "{message}");
}

#[test]
fn broken_files_are_named() {
    for name in ["config.json", "tokenizer.json", "chat_template.json"] {
        let message = Files::good()
            .without(name)
            .read()
            .expect_err("a missing file")
            .to_string();
        assert!(
            message.contains("no chat_template.jinja") || message.contains(name),
            "{message}"
        );
    }
    let dir = Files::good().write();
    let config = dir.path().join("config.json");
    for bytes in [&b""[..], b"{", b"[]", b"\xff\xfe", b"{\"model_type\": NaN}"] {
        std::fs::write(&config, bytes).expect("written");
        let message = ModelFiles::read(dir.path())
            .expect_err("broken JSON")
            .to_string();
        assert!(message.contains("config.json"), "{message}");
    }
    std::fs::write(&config, vec![b' '; (4 << 20) + 1]).expect("written");
    assert!(matches!(
        ModelFiles::read(dir.path()),
        Err(ConfigError::TooLarge { .. })
    ));
    let missing = ModelFiles::read(&dir.path().join("nowhere"));
    assert!(matches!(missing, Err(ConfigError::MissingFile { .. })));
    std::fs::remove_file(&config).expect("removed");
    std::fs::create_dir(&config).expect("created");
    assert!(matches!(
        ModelFiles::read(dir.path()),
        Err(ConfigError::Io { .. })
    ));

    let dir = Files::good().write();
    std::fs::write(dir.path().join("chat_template.jinja"), b"\xff").expect("written");
    assert!(matches!(
        ModelFiles::read(dir.path()),
        Err(ConfigError::Syntax { .. })
    ));
}

#[test]
fn the_published_256m_files_are_read() {
    let Some(dir) = reference("SmolVLM-256M-Instruct", 1) else {
        return;
    };
    let files = ModelFiles::read(&dir).expect("the published files");
    let ModelConfig { vision, text, .. } = &files.config;
    let vision = vision.as_ref().expect("a vision side");
    assert_eq!((vision.hidden_size, vision.intermediate_size), (768, 3072));
    assert_eq!(
        (vision.n_layers, vision.n_heads, vision.head_dim()),
        (12, 12, 64)
    );
    assert_eq!(
        (vision.image_size, vision.patch_size, vision.n_patches()),
        (512, 16, 1024)
    );
    assert_eq!(
        (text.hidden_size, text.intermediate_size, text.n_layers),
        (576, 1536, 30)
    );
    assert_eq!((text.n_heads, text.n_kv_heads, text.head_dim), (9, 3, 64));
    assert_eq!((text.vocab_size, text.max_positions), (49_280, 8192));
    assert_eq!((text.rope_theta, text.rms_norm_eps), (100_000.0, 1e-5));
    assert_eq!((vision.scale_factor, vision.image_token_id), (4, 49_190));
    assert!(!files.config.tie_word_embeddings);
    let preprocess = files.preprocess.as_ref().expect("a processor");
    assert_eq!((preprocess.tile_size, preprocess.longest_edge), (512, 2048));
    assert_eq!(files.generation.stop_token_ids, [49_279]);
    assert_eq!(
        (files.generation.bos_token_id, files.generation.pad_token_id),
        (Some(0), 2)
    );
    assert_eq!(files.image_seq_len, 64);
    assert_eq!(files.tokenizer_json.len(), 3_548_256);
    assert!(
        files
            .chat_template
            .starts_with("<|im_start|>{% for message")
    );
}

#[test]
fn the_known_values_of_the_other_models_are_accepted() {
    let Some(known) = reference_json("known_configs.json", 5) else {
        return;
    };
    let mut seen = 0;
    for (name, known) in known.as_object().expect("an object") {
        let Some(text) = known.get("text") else {
            continue;
        };
        let mut config = json!({
            "model_type": known["model_type"], "image_token_id": known["image_token_id"],
            "scale_factor": known["scale_factor"], "text_config": text,
            "vision_config": known["vision"],
        });
        if let Some(extra) = known.get("extra_fields").and_then(Value::as_object) {
            config
                .as_object_mut()
                .expect("an object")
                .extend(extra.clone());
        }
        let files = Files::good()
            .with("config.json", config)
            .with("preprocessor_config.json", known["preprocessor"].clone())
            .with(
                "processor_config.json",
                json!({"image_seq_len": known["image_seq_len"]}),
            )
            .with("generation_config.json", known["generation"].clone());
        let files = files.read().unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(
            files.image_seq_len,
            number(&known["image_seq_len"]),
            "{name}"
        );
        assert_eq!(
            files.config.text.rope_theta as usize,
            number(&text["rope_theta"]),
            "{name}"
        );
        assert_eq!(files.generation.pad_token_id, 2, "{name}");
        seen += 1;
    }
    assert_eq!(seen, 5);
}

#[test]
fn a_text_model_is_read_from_its_flat_configuration() {
    let mut files = Files::good();
    let mut config = files.file("config.json")["text_config"].clone();
    config["model_type"] = json!("llama");
    config["eos_token_id"] = json!(7);
    config["tie_word_embeddings"] = json!(true);
    *files.file("config.json") = config;
    let files = files
        .without("preprocessor_config.json")
        .without("processor_config.json");
    let read = files.read().expect("a good text model");
    let whole = Files::good().read().expect("a good directory").config;
    assert_eq!(read.config.text, whole.text);
    assert!(read.config.vision.is_none() && read.config.tie_word_embeddings);
    assert_eq!((&*read.model_type, read.image_seq_len), ("llama", 0));
    assert_eq!(read.preprocess, None);

    let files = files.edit("generation_config.json", "/eos_token_id", None);
    let read = files.read().expect("the configuration names a stop token");
    assert_eq!(read.generation.stop_token_ids, [7]);
}
