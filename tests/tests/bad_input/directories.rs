//! Damaged model directories.

use std::fs;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use ocelli_runtime::{GenerateOptions, Precision};
use ocelli_tests::checkpoint::{Checkpoint, Dtype};
use serde_json::{Value, json};

use crate::ruin::{
    Safetensors, WEIGHTS, assert_refused, chain, directory_of, edit_json, header_length, load,
    sound_directory,
};

const Q_PROJ: &str = "model.text_model.layers.1.self_attn.q_proj.weight";
const EMBEDDING: &str = "model.text_model.embed_tokens.weight";

/// What is ruined below does load before.
#[test]
fn a_sound_directory_loads() {
    let dir = sound_directory();
    for precision in [Precision::Int8, Precision::F32] {
        load(dir.path(), precision).expect("the sound directory loads");
    }
}

#[test]
fn truncated_weights_are_refused_at_every_length() {
    let dir = sound_directory();
    let path = dir.path().join(WEIGHTS);
    let whole = fs::read(&path).expect("the file is there");
    let data = 8 + header_length(&whole);
    let around = |at: usize| [at - 1, at, at + 1];
    let mut lengths = vec![
        0,
        1,
        7,
        8,
        9,
        100,
        data / 2,
        data + (whole.len() - data) / 2,
    ];
    lengths.extend(around(data));
    lengths.extend([whole.len() - 4, whole.len() - 1]);
    for length in lengths {
        fs::write(&path, &whole[..length]).expect("the folder can be written");
        assert_refused(
            dir.path(),
            &format!("{length} bytes"),
            &[WEIGHTS, "safetensors"],
        );
    }
}

#[test]
fn header_lengths_that_lie_are_refused() {
    let dir = sound_directory();
    let path = dir.path().join(WEIGHTS);
    let whole = fs::read(&path).expect("the file is there");
    let (length, size) = (header_length(&whole) as u64, whole.len() as u64);
    for lie in [
        0,
        1,
        length - 8,
        length + 8,
        size - 8,
        size,
        100 << 20,
        1 << 40,
        1 << 63,
        u64::MAX,
    ] {
        let mut bytes = whole.clone();
        bytes[..8].copy_from_slice(&lie.to_le_bytes());
        fs::write(&path, bytes).expect("the folder can be written");
        assert_refused(dir.path(), &format!("header length {lie}"), &[WEIGHTS]);
    }
}

/// A flipped bit of the header is an error, or changes nothing that is read.
#[test]
fn flipped_header_bits_do_not_panic() {
    let dir = sound_directory();
    let path = dir.path().join(WEIGHTS);
    let whole = fs::read(&path).expect("the file is there");
    let bits = 8 * (8 + header_length(&whole));
    let (mut refused, mut loaded) = (0, 0);
    for bit in (0..64).chain((64..bits).step_by(61)) {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, bytes).expect("the folder can be written");
        match load(dir.path(), Precision::F32) {
            Err(error) => {
                let text = chain(&error);
                assert!(
                    text.contains("safetensors") || text.contains("tensor"),
                    "bit {bit}: {text}"
                );
                refused += 1;
            }
            Ok(_) => loaded += 1,
        }
    }
    assert!(refused > 10 * loaded, "{refused} refused, {loaded} loaded");
}

#[test]
fn every_missing_tensor_is_named() {
    let dir = sound_directory();
    let sound = Safetensors::read(dir.path());
    for tensor in Checkpoint::of_fixture("tiny").tensors() {
        let mut header = sound.header.clone();
        header
            .as_object_mut()
            .expect("the header is an object")
            .remove(&tensor.name);
        sound.write_with_header(dir.path(), &header.to_string());
        assert_refused(dir.path(), &tensor.name, &["missing", &tensor.name]);
    }
}

#[test]
fn header_entries_that_lie_are_refused() {
    let span = |begin: u64, end: u64| json!([begin, end]);
    let cases: &[(&str, &str, Value)] = &[
        ("an end beyond the file", "data_offsets", span(0, 1 << 40)),
        ("an end before the begin", "data_offsets", span(64, 0)),
        (
            "the largest offsets",
            "data_offsets",
            span(u64::MAX - 1, u64::MAX),
        ),
        ("a span shorter than the shape", "data_offsets", span(0, 4)),
        ("a negative offset", "data_offsets", json!([-4, 0])),
        ("an offset with a fraction", "data_offsets", json!([0.5, 4])),
        ("one offset", "data_offsets", json!([0])),
        ("three offsets", "data_offsets", json!([0, 4, 8])),
        ("no offsets", "data_offsets", Value::Null),
        ("a shape of another size", "shape", json!([128, 127])),
        (
            "a shape whose product overflows",
            "shape",
            json!([1u64 << 32, 1u64 << 32, 1u64 << 32]),
        ),
        ("a negative dimension", "shape", json!([-128, -128])),
        ("a text for a shape", "shape", json!("128x128")),
        ("an unknown dtype", "dtype", json!("Q7")),
        ("a number for a dtype", "dtype", json!(7)),
        ("no dtype", "dtype", Value::Null),
    ];
    let dir = sound_directory();
    let sound = Safetensors::read(dir.path());
    for (what, field, value) in cases {
        let mut header = sound.header.clone();
        header[Q_PROJ][*field] = value.clone();
        sound.write_with_header(dir.path(), &header.to_string());
        assert_refused(dir.path(), what, &[WEIGHTS, Q_PROJ]);
    }
}

/// Leaving such a tensor out would change the answers.
#[test]
fn tensors_that_no_layer_reads_are_refused() {
    let dir = sound_directory();
    let sound = Safetensors::read(dir.path());
    for odd in [
        "model.text_model.layers.0.self_attn.q_proj.bias",
        "model.text_model.layers.9.self_attn.q_proj.weight",
        "model.text_model.layers.0.self_attn.q_proj.lora_A.weight",
        "model.text_model.layers.0.self_attn.q_norm.weight",
        "model.vision_model.encoder.layers.9.layer_norm1.bias",
        "lm_head.bias",
        "layers.0.self_attn.q_proj.bias",
        "text_model.layers.9.mlp.up_proj.weight",
        "connector.modality_projection.proj.bias",
        "norm.bias",
    ] {
        let mut header = sound.header.clone();
        header[odd] = json!({"dtype": "F32", "shape": [0], "data_offsets": [0, 0]});
        sound.write_with_header(dir.path(), &header.to_string());
        assert_refused(dir.path(), odd, &[odd, "config.json"]);
    }
    for harmless in [
        "model.text_model.layers.0.self_attn.rotary_emb.inv_freq",
        "model.vision_model.embeddings.position_ids",
        "optimizer.state",
    ] {
        let mut header = sound.header.clone();
        header[harmless] = json!({"dtype": "I64", "shape": [0], "data_offsets": [0, 0]});
        sound.write_with_header(dir.path(), &header.to_string());
        load(dir.path(), Precision::Int8).unwrap_or_else(|error| panic!("{harmless}: {error}"));
    }
}

/// As a model is saved without its head.
#[test]
fn names_without_model_in_front_are_known() {
    let dir = sound_directory();
    let mut file = Safetensors::read(dir.path());
    let entries = file.header.as_object().expect("an object").clone();
    let short = entries.into_iter().map(|(name, entry)| {
        let name = name.strip_prefix("model.").unwrap_or(&name).to_owned();
        (name, entry)
    });
    file.header = Value::Object(short.collect());
    file.write(dir.path());
    load(dir.path(), Precision::Int8).expect("the same model");
}

#[test]
fn the_pointer_of_an_unfetched_file_is_told() {
    let dir = sound_directory();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 269060552\n";
    fs::write(dir.path().join(WEIGHTS), pointer).expect("the folder can be written");
    assert_refused(dir.path(), "a pointer", &[WEIGHTS, "git lfs pull"]);
}

#[test]
fn overlapping_tensors_are_refused() {
    let dir = sound_directory();
    let mut file = Safetensors::read(dir.path());
    let other = "model.text_model.layers.0.self_attn.q_proj.weight";
    file.header[Q_PROJ]["data_offsets"] = file.header[other]["data_offsets"].clone();
    file.write(dir.path());
    assert_refused(
        dir.path(),
        "the same span",
        &[WEIGHTS, "overlap", Q_PROJ, other],
    );

    let [begin, end] = Safetensors::read(dir.path()).span(other);
    file.header[Q_PROJ]["data_offsets"] = json!([begin + 4, end + 4]);
    file.write(dir.path());
    assert_refused(
        dir.path(),
        "shifted by one value",
        &[WEIGHTS, "overlap", Q_PROJ],
    );
}

/// JSON keeps the last of two equal keys; which one the writer meant cannot be known.
#[test]
fn a_tensor_listed_twice_is_refused() {
    let dir = sound_directory();
    let file = Safetensors::read(dir.path());
    let text = file.header.to_string();
    let twice = format!(r#"{{"{Q_PROJ}":{},{}"#, file.header[Q_PROJ], &text[1..]);
    file.write_with_header(dir.path(), &twice);
    assert_refused(dir.path(), "twice", &[WEIGHTS, Q_PROJ]);
}

#[test]
fn headers_of_other_json_are_refused() {
    let dir = sound_directory();
    let file = Safetensors::read(dir.path());
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    for header in [
        "",
        "[]",
        "null",
        "{",
        "{\"a\":1}",
        "{}",
        "\u{0}\u{0}",
        deep.as_str(),
    ] {
        file.write_with_header(dir.path(), header);
        assert_refused(dir.path(), &header[..header.len().min(20)], &["tensor"]);
    }
}

#[test]
fn dtypes_that_are_no_weights_are_refused() {
    let dir = sound_directory();
    let sound = Safetensors::read(dir.path());
    for (dtype, width) in [
        ("F64", 8),
        ("I64", 8),
        ("I32", 4),
        ("I16", 2),
        ("I8", 1),
        ("U8", 1),
        ("BOOL", 1),
    ] {
        let mut header = sound.header.clone();
        let begin = sound.data.len();
        header[Q_PROJ]["dtype"] = json!(dtype);
        header[Q_PROJ]["data_offsets"] = json!([begin, begin + 128 * 128 * width]);
        let mut data = sound.data.clone();
        data.resize(begin + 128 * 128 * width, 0);
        Safetensors { header, data }.write(dir.path());
        assert_refused(dir.path(), dtype, &[Q_PROJ, dtype, "F32"]);
    }
}

#[test]
fn shapes_of_another_model_are_refused() {
    let dir = sound_directory();
    let sound = Safetensors::read(dir.path());
    for shape in [
        json!([64, 256]),
        json!([256, 64]),
        json!([16384]),
        json!([1, 128, 128]),
    ] {
        let mut header = sound.header.clone();
        header[Q_PROJ]["shape"] = shape;
        sound.write_with_header(dir.path(), &header.to_string());
        assert_refused(dir.path(), "another shape", &[Q_PROJ, "[128, 128]"]);
    }
}

#[test]
fn weights_that_are_not_finite_are_named_with_their_index() {
    let bad: [(Dtype, &[u8], &str); 5] = [
        (Dtype::F32, &[0, 0, 0xC0, 0x7F], "NaN"),
        (Dtype::F32, &[0, 0, 0x80, 0x7F], "inf"),
        (Dtype::F32, &[0, 0, 0x80, 0xFF], "-inf"),
        (Dtype::F16, &[0x00, 0x7E], "NaN"),
        (Dtype::Bf16, &[0x80, 0x7F], "inf"),
    ];
    for (dtype, bytes, value) in bad {
        let dir = directory_of(&Checkpoint::of_fixture("tiny").with_dtype(dtype));
        let sound = Safetensors::read(dir.path());
        for name in [
            EMBEDDING,
            Q_PROJ,
            "model.vision_model.post_layernorm.bias",
            "lm_head.weight",
        ] {
            let mut data = sound.data.clone();
            let at = sound.span(name)[0] + 37 * bytes.len();
            data[at..at + bytes.len()].copy_from_slice(bytes);
            Safetensors {
                header: sound.header.clone(),
                data,
            }
            .write(dir.path());
            assert_refused(
                dir.path(),
                &format!("{value} in {name}"),
                &[name, value, "37"],
            );
        }
    }
}

/// The largest finite weights overflow when norms are folded and rows rotated; nothing may come of
/// it but an error or an answer.
#[test]
fn the_largest_finite_weights_do_not_panic() {
    let dir = sound_directory();
    let sound = Safetensors::read(dir.path());
    for name in [
        EMBEDDING,
        Q_PROJ,
        "lm_head.weight",
        "model.text_model.norm.weight",
    ] {
        let mut file = Safetensors {
            header: sound.header.clone(),
            data: sound.data.clone(),
        };
        let [begin, end] = file.span(name);
        for value in file.data[begin..end].chunks_exact_mut(4) {
            value.copy_from_slice(&f32::MAX.to_le_bytes());
        }
        file.write(dir.path());
        for precision in [Precision::Int8, Precision::F32] {
            let Ok(model) = load(dir.path(), precision) else {
                continue;
            };
            let mut session = model.session().expect("a session starts");
            let _ = session.prompt_ids(&[1, 2, 3], &[]);
            let options = GenerateOptions {
                max_tokens: 3,
                ..GenerateOptions::default()
            };
            let _ = session.generate(options).map(|mut g| g.rest());
        }
    }
}

/// Rows of zeros have no scale to divide by.
#[test]
fn weights_of_zero_give_finite_logits() {
    let dir = sound_directory();
    let mut file = Safetensors::read(dir.path());
    for name in [
        Q_PROJ,
        "model.text_model.layers.0.mlp.down_proj.weight",
        "model.connector.modality_projection.proj.weight",
    ] {
        let [begin, end] = file.span(name);
        file.data[begin..end].fill(0);
    }
    file.write(dir.path());
    for precision in [Precision::Int8, Precision::F32] {
        let model = load(dir.path(), precision).expect("zeros are weights");
        let mut session = model.session().expect("a session starts");
        let ids = [1, 398, 398, 398, 398, 5];
        let stages = session
            .prompt_ids(&ids, &[vec![255; 64 * 64 * 3]])
            .expect("the prompt runs");
        assert!(stages.logits.iter().all(|v| v.is_finite()), "{precision:?}");
    }
}

#[test]
fn damaged_shard_indexes_are_refused() {
    let sharded = Checkpoint::of_fixture("tiny").with_max_shard_bytes(Some(500_000));
    let dir = directory_of(&sharded);
    let path = dir.path();
    load(path, Precision::Int8).expect("shards load");
    let index = "model.safetensors.index.json";
    let shard = "model-00002-of-00005.safetensors";
    let sound = fs::read(path.join(index)).expect("the file is there");
    let text = String::from_utf8(sound.clone()).expect("the index is text");

    let moved = path.join("moved");
    fs::rename(path.join(shard), &moved).expect("the folder can be written");
    assert_refused(path, "a shard is gone", &[shard]);
    fs::write(path.join(shard), b"").expect("the folder can be written");
    assert_refused(path, "a shard is empty", &[shard]);
    fs::copy(
        path.join("model-00001-of-00005.safetensors"),
        path.join(shard),
    )
    .expect("a copy");
    assert_refused(path, "a shard is a copy of another", &[shard]);
    fs::rename(&moved, path.join(shard)).expect("the folder can be written");

    for (what, content) in [
        ("empty", String::new()),
        ("cut", text[..text.len() / 2].to_owned()),
        ("no map", r#"{"metadata":{}}"#.to_owned()),
        ("an empty map", r#"{"weight_map":{}}"#.to_owned()),
        ("a map of numbers", r#"{"weight_map":{"a":1}}"#.to_owned()),
        (
            "a shard above the folder",
            text.replace(shard, "../../etc/passwd"),
        ),
        ("an absolute shard", text.replace(shard, "/etc/passwd")),
    ] {
        fs::write(path.join(index), content).expect("the folder can be written");
        assert_refused(path, what, &[index]);
    }
    fs::remove_file(path.join(index)).expect("the folder can be written");
    assert_refused(path, "no index", &[WEIGHTS, index]);
}

/// A configuration file that is absent, cut or not JSON is named.
#[test]
fn damaged_small_files_are_named() {
    let dir = sound_directory();
    for file in [
        "config.json",
        "preprocessor_config.json",
        "chat_template.json",
        "tokenizer.json",
    ] {
        let path = dir.path().join(file);
        let sound = fs::read(&path).expect("the file is there");
        fs::remove_file(&path).expect("the folder can be written");
        assert_refused(dir.path(), "absent", &[file]);
        let deep = "[".repeat(200_000).into_bytes();
        for content in [
            &b""[..],
            &sound[..sound.len() / 2],
            b"\xff\xfe\x00",
            b"[]",
            b"null",
            &deep,
        ] {
            fs::write(&path, content).expect("the folder can be written");
            assert_refused(dir.path(), "not JSON", &[file]);
        }
        fs::write(&path, &sound).expect("the folder can be written");
    }
    load(dir.path(), Precision::Int8).expect("all files are back");
}

/// A number that no model can have is named with its field, whatever its kind.
#[test]
fn impossible_configurations_name_the_field() {
    let sizes = [
        ("vision_config", "hidden_size"),
        ("vision_config", "image_size"),
        ("vision_config", "patch_size"),
        ("vision_config", "num_attention_heads"),
        ("vision_config", "num_hidden_layers"),
        ("vision_config", "intermediate_size"),
        ("text_config", "hidden_size"),
        ("text_config", "intermediate_size"),
        ("text_config", "num_hidden_layers"),
        ("text_config", "num_attention_heads"),
        ("text_config", "num_key_value_heads"),
        ("text_config", "head_dim"),
        ("text_config", "vocab_size"),
        ("text_config", "max_position_embeddings"),
    ];
    let impossible = [
        json!(0),
        json!(-1),
        json!(1.5),
        json!("64"),
        json!(u64::MAX),
        json!(1u64 << 40),
        json!([64]),
        json!({}),
    ];
    let dir = sound_directory();
    let path = dir.path().join("config.json");
    let sound = fs::read(&path).expect("the file is there");
    for (section, field) in sizes {
        for value in &impossible {
            fs::write(&path, &sound).expect("the folder can be written");
            edit_json(dir.path(), "config.json", |json| {
                json[section][field] = value.clone()
            });
            assert_refused(dir.path(), &format!("{field} = {value}"), &["config.json"]);
        }
    }
    let others = [
        ("scale_factor", json!(0)),
        ("scale_factor", json!(3)),
        ("scale_factor", json!(1u64 << 40)),
        ("image_token_id", json!(400)),
        ("image_token_id", json!(-1)),
        ("model_type", json!("llava")),
        ("vision_config", Value::Null),
        ("text_config", json!([])),
    ];
    for (field, value) in others {
        fs::write(&path, &sound).expect("the folder can be written");
        edit_json(dir.path(), "config.json", |json| {
            json[field] = value.clone()
        });
        assert_refused(
            dir.path(),
            &format!("{field} = {value}"),
            &["config.json", field],
        );
    }
}

/// Files of two models mixed: the message says which two do not fit.
#[test]
fn files_of_another_model_are_refused() {
    let other = Checkpoint::of_fixture("smolvlm_2b_patch_rule");
    let dir = sound_directory();
    let path = dir.path();

    let sound = fs::read(path.join("tokenizer.json")).expect("the file is there");
    fs::write(path.join("tokenizer.json"), other.tokenizer_json())
        .expect("the folder can be written");
    assert_refused(path, "another model's tokenizer", &["tokenizer.json", "<"]);
    fs::write(path.join("tokenizer.json"), &sound).expect("the folder can be written");

    for file in [
        "preprocessor_config.json",
        "processor_config.json",
        "generation_config.json",
    ] {
        let sound = fs::read(path.join(file)).expect("the file is there");
        fs::write(path.join(file), other.small_files[file].to_string())
            .expect("the folder can be written");
        assert_refused(path, "another model's file", &[file]);
        fs::write(path.join(file), sound).expect("the folder can be written");
    }
}

/// The tokenizer decides where image features go: an id that differs must not pass.
#[test]
fn wrong_tokenizers_are_refused() {
    let dir = sound_directory();
    let sound = fs::read_to_string(dir.path().join("tokenizer.json")).expect("the file is there");
    let cases = [
        (
            "without <image>",
            sound.replace("\"<image>\"", "\"<picture>\""),
        ),
        (
            "without <fake_token_around_image>",
            sound.replace("<fake_token_around_image>", "<around>"),
        ),
        (
            "with <image> elsewhere",
            sound
                .replace("\"<image>\"", "\"<x>\"")
                .replace("\"<global-img>\"", "\"<image>\""),
        ),
    ];
    for (what, text) in cases {
        fs::write(dir.path().join("tokenizer.json"), text).expect("the folder can be written");
        assert_refused(dir.path(), what, &["tokenizer.json", "<"]);
    }
}

#[test]
fn broken_chat_templates_are_refused() {
    let dir = sound_directory();
    for template in [
        "{% for m in messages %}",
        "{{ messages | nonsense( }}",
        "{% endif %}",
    ] {
        edit_json(dir.path(), "chat_template.json", |json| {
            json["chat_template"] = json!(template)
        });
        assert_refused(dir.path(), template, &["template"]);
    }
}

#[test]
fn places_that_hold_no_model_are_refused() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    assert_refused(dir.path(), "an empty folder", &["config.json"]);
    let nowhere = dir.path().join("nowhere");
    assert_refused(&nowhere, "nothing there", &["nowhere"]);
    let file = dir.path().join("picture.png");
    fs::write(&file, b"\x89PNG\r\n\x1a\n").expect("the folder can be written");
    assert_refused(&file, "a picture", &["picture.png"]);
}

/// A pipe in place of a file would be waited for until somebody writes.
#[test]
fn pipes_in_place_of_files_are_refused() {
    let whole = sound_directory();
    let names: Vec<_> = fs::read_dir(whole.path())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert!(names.len() >= 5, "{names:?}");
    let index = "model.safetensors.index.json";
    for name in names.iter().filter_map(|name| name.to_str()).chain([index]) {
        let dir = sound_directory();
        let path = dir.path().join(name);
        // The index counts where there is no single file.
        let ruined = if name == index { WEIGHTS } else { name };
        fs::remove_file(dir.path().join(ruined)).expect("it is there");
        mkfifo(&path, Mode::S_IRWXU).expect("a pipe");
        assert_refused(dir.path(), name, &[name, "a pipe"]);
    }
}
