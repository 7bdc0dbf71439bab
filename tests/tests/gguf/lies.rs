//! Files that are cut, or say what is not so: always an error that names the place.

use std::path::Path;

use ocelli_runtime::import::FloatWeights;
use ocelli_runtime::import::gguf::{GgufFile, GgufModel};
use ocelli_runtime::weights::Region;
use ocelli_tests::gguf::{GgufBuilder, value_type};

use crate::{model, open, tiny};

/// A file of two tensors of eight floats.
fn two() -> GgufBuilder {
    let mut file = GgufBuilder::default();
    file.text("general.architecture", "llama");
    file.size("a.size", 7);
    file.texts("a.texts", &["one", "two"]);
    file.tensor("a", &[4, 2], 0, vec![0; 32]);
    file.tensor("b", &[8], 0, vec![0; 32]);
    file
}

fn refused(change: impl FnOnce(&mut GgufBuilder)) -> String {
    let mut file = two();
    change(&mut file);
    match open(&file) {
        Ok(_) => "believed".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_sound_file_is_read() {
    let file = open(&two()).expect("a sound file");
    assert_eq!(file.size("a.size").expect("a number"), Some(7));
    assert_eq!(
        file.texts("a.texts").expect("texts"),
        Some(vec!["one", "two"])
    );
    assert_eq!(file.read("a", &[2, 4]).expect("floats"), [0.0; 8]);
    assert_eq!(
        file.tensor("a").map(|info| &info.shape[..]),
        Some(&[2, 4][..])
    );
    let mut old = two();
    old.version = 2;
    assert!(open(&old).is_ok());
}

/// A change to a file, and what its error says.
type Lie = (fn(&mut GgufBuilder), &'static str);

#[test]
fn every_lie_in_a_file_is_named() {
    let cases: [Lie; 30] = [
        (|f| f.version = 1, "version 1"),
        (|f| f.version = 3 << 24, "big-endian"),
        (|f| f.version = 77, "version 77"),
        (|f| f.counts[0] = Some(1 << 63), "the number of tensors"),
        (|f| f.counts[1] = Some(1 << 63), "the number of keys"),
        (|f| f.counts[0] = Some(3), "tensor"),
        (|f| f.alignment = 0, "general.alignment is 0"),
        (|f| f.alignment = 24, "general.alignment is 24"),
        (|f| f.alignment = 1 << 21, "general.alignment is 2097152"),
        (
            |f| f.text("general.alignment", "32"),
            "general.alignment is no number",
        ),
        (|f| f.key("k", 13, vec![0; 8]), "value type 13"),
        (
            |f| f.key("k", value_type::TEXT, vec![255; 8]),
            "key k at byte",
        ),
        (
            |f| f.array("k", value_type::U32, 1 << 63, &[0; 64]),
            "is 9223372036854775808",
        ),
        (
            |f| f.array("k", value_type::TEXT, 1 << 61, &[0; 64]),
            "is 2305843009213693952",
        ),
        (
            |f| f.array("k", value_type::ARRAY, u64::MAX, &[0; 64]),
            "is 18446744073709551615",
        ),
        (
            |f| {
                let mut deep = Vec::new();
                for _ in 0..6 {
                    deep.extend_from_slice(&value_type::ARRAY.to_le_bytes());
                    deep.extend_from_slice(&1u64.to_le_bytes());
                }
                f.key("k", value_type::ARRAY, deep);
            },
            "nests arrays deeper than 4",
        ),
        (
            |f| f.keys.push(f.keys[1].clone()),
            "key a.size is there twice",
        ),
        (
            |f| f.tensors[1].name = "a".into(),
            "tensor a is there twice",
        ),
        (|f| f.tensors[0].dimensions.clear(), "0 dimensions"),
        (|f| f.tensors[0].dimensions = vec![1; 5], "5 dimensions"),
        (|f| f.tensors[0].dimensions = vec![0, 2], "none may be 0"),
        (
            |f| f.tensors[0].dimensions = vec![1 << 63, 1 << 63],
            "goes beyond",
        ),
        (
            |f| f.tensors[0].dimensions = vec![4, u64::MAX, 2],
            "goes beyond",
        ),
        (|f| f.tensors[1].offset = Some(32 * 1000), "goes beyond"),
        (|f| f.tensors[1].offset = Some(u64::MAX - 31), "goes beyond"),
        (
            |f| f.tensors[1].offset = Some(8),
            "no multiple of the alignment",
        ),
        (|f| f.tensors[1].offset = Some(0), "overlap"),
        (
            |f| f.tensors[0].format = 2,
            "Q4_0 wants rows of a multiple of 32",
        ),
        (
            |f| f.tensors[0].format = 10,
            "stored as Q2_K, supported are F32",
        ),
        (|f| f.tensors[0].format = 4_000_000, "format 4000000"),
    ];
    for (change, expected) in cases {
        let message = refused(change);
        assert!(message.contains(expected), "{message:?}: {expected:?}");
        assert!(message.contains("test.gguf"), "{message:?} names the file");
    }
}

/// What is cut is refused; what is left whole by a cut in the padding at the end may be believed.
#[test]
fn a_file_cut_anywhere_is_refused() {
    let (text, projector) = tiny();
    for builder in [text, projector] {
        let (bytes, _) = builder.build_parts();
        for end in (0..bytes.len() - 64).step_by(64) {
            let region = Region::from_vec(bytes[..end].to_vec());
            let file = GgufFile::from_region(region, Path::new("cut.gguf"));
            assert!(file.is_err(), "cut at {end} of {}", bytes.len());
        }
    }
}

/// Whatever a byte in front of the data becomes, opening ends with an error or a usable model.
#[test]
fn no_changed_byte_makes_the_reader_panic() {
    let (text, _) = tiny();
    let (bytes, start) = text.build_parts();
    let mut state = 7u64;
    for _ in 0..4000 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let at = (state >> 20) as usize % start;
        let mut changed = bytes[..start + 4096].to_vec();
        changed[at] = (state >> 56) as u8;
        let region = Region::from_vec(changed);
        let Ok(file) = GgufFile::from_region(region, Path::new("changed.gguf")) else {
            continue;
        };
        if let Ok(model) = GgufModel::new(file, None) {
            let _ = model.model_files();
            let _ = model.read("model.text_model.norm.weight", &[128]);
        }
    }
}

#[test]
fn keys_that_cannot_be_used_are_named_with_their_value() {
    let cases: [Lie; 32] = [
        (|f| f.text("general.architecture", "qwen2"), "qwen2"),
        (|f| f.text("general.architecture", "clip"), "--mmproj"),
        (
            |f| f.without("llama.block_count"),
            "llama.block_count is missing",
        ),
        (|f| f.text("llama.block_count", "2"), "a text"),
        (
            |f| f.float("llama.block_count", 2.0),
            "must be a whole number",
        ),
        (
            |f| f.integers("llama.feed_forward_length", &[256, 256]),
            "an array of 2 I32",
        ),
        (
            |f| f.size("llama.attention.head_count", 0),
            "key llama.attention.head_count is 0",
        ),
        (
            |f| f.size("llama.embedding_length", u32::MAX),
            "key llama.embedding_length is 4294967295",
        ),
        (
            |f| f.size("llama.rope.dimension_count", 32),
            "llama.rope.dimension_count is 32",
        ),
        (
            |f| f.text("llama.rope.scaling.type", "linear"),
            "llama.rope.scaling.type is linear",
        ),
        // Without a type they are scaled all the same.
        (
            |f| f.float("llama.rope.scaling.factor", 2.0),
            "llama.rope.scaling.factor is 2",
        ),
        (
            |f| f.float("llama.rope.scale_linear", 4.0),
            "llama.rope.scale_linear is 4",
        ),
        (
            |f| f.flag("llama.attention.causal", false),
            "llama.attention.causal is false",
        ),
        (
            |f| f.size("llama.attention.sliding_window", 1),
            "llama.attention.sliding_window is 1",
        ),
        (
            |f| f.float("llama.logit_scale", 0.5),
            "llama.logit_scale is 0.5",
        ),
        (
            |f| f.float("llama.embedding_scale", 12.0),
            "llama.embedding_scale is 12",
        ),
        (
            |f| f.float("llama.residual_scale", f32::NAN),
            "llama.residual_scale is NaN",
        ),
        (
            |f| f.float("llama.attention.scale", 0.5),
            "llama.attention.scale is 0.5",
        ),
        (
            |f| f.float("llama.attention.clamp_kqv", 1.0),
            "llama.attention.clamp_kqv is 1",
        ),
        (
            |f| f.size("llama.expert_count", 8),
            "llama.expert_count is 8",
        ),
        (|f| f.size("split.count", 2), "split.count is 2"),
        (
            |f| f.float("llama.rope.freq_base", f32::NAN),
            "key llama.rope.freq_base is NaN",
        ),
        (
            |f| f.without("llama.attention.layer_norm_rms_epsilon"),
            "layer_norm_rms_epsilon is missing",
        ),
        (|f| f.text("tokenizer.ggml.model", "llama"), "only gpt2"),
        (
            |f| f.text("tokenizer.ggml.pre", "qwen2"),
            "smollm and gpt-2",
        ),
        (
            |f| f.without("tokenizer.ggml.pre"),
            "tokenizer.ggml.pre is missing",
        ),
        (|f| f.integers("tokenizer.ggml.token_type", &[1]), "1 types"),
        (
            |f| f.texts("tokenizer.ggml.merges", &["ab"]),
            "a merge names two tokens",
        ),
        (
            |f| f.integers("tokenizer.ggml.token_type", &[7; 400]),
            "tokenizer.ggml.token_type is 7",
        ),
        (
            |f| f.without("tokenizer.ggml.tokens"),
            "tokenizer.ggml.tokens is missing",
        ),
        (
            |f| f.tensor("blk.0.attn_q.bias", &[128], 0, vec![0; 512]),
            "blk.0.attn_q.bias belongs to no model",
        ),
        (
            |f| f.size("llama.block_count", 1),
            "blk.1.attn_k.weight belongs to no model",
        ),
    ];
    let (sound, _) = tiny();
    for (change, expected) in cases {
        let mut file = sound.clone();
        change(&mut file);
        let files = model(&file, None).and_then(|model| model.model_files());
        let message = files.map_or_else(|error| error.to_string(), |_| "believed".to_owned());
        assert!(message.contains(expected), "{message:?}: {expected:?}");
    }
}

#[test]
fn projectors_that_do_not_fit_are_refused() {
    let cases: [Lie; 9] = [
        (|f| f.text("clip.projector_type", "mlp"), "only idefics3"),
        (
            |f| f.text("general.architecture", "llama"),
            "exchange the two files",
        ),
        (|f| f.flag("clip.use_silu", true), "clip.use_silu is true"),
        (|f| f.flag("clip.use_gelu", false), "clip.use_gelu is false"),
        (
            |f| f.size("clip.vision.projection_dim", 64),
            "clip.vision.projection_dim is 64",
        ),
        (
            |f| f.size("clip.vision.patch_size", 0),
            "key clip.vision.patch_size is 0",
        ),
        (
            |f| f.floats("clip.vision.image_mean", &[0.5]),
            "3 colour channels",
        ),
        (
            |f| f.size("clip.vision.preproc_image_size", 1 << 30),
            "clip.vision.preproc_image_size is 1073741824",
        ),
        (
            |f| f.tensor("v.class_embd", &[64], 0, vec![0; 256]),
            "v.class_embd belongs to no model",
        ),
    ];
    let (text, sound) = tiny();
    for (change, expected) in cases {
        let mut file = sound.clone();
        change(&mut file);
        let files = model(&text, Some(&file)).and_then(|model| model.model_files());
        let message = files.map_or_else(|error| error.to_string(), |_| "believed".to_owned());
        assert!(message.contains(expected), "{message:?}: {expected:?}");
    }
}

#[test]
fn weights_of_another_shape_or_no_number_are_refused() {
    let (mut text, _) = tiny();
    let at = text
        .tensors
        .iter()
        .position(|tensor| tensor.name == "output_norm.weight")
        .expect("the norm is there");
    text.tensors[at].data[4..8].copy_from_slice(&f32::NAN.to_le_bytes());
    let model = model(&text, None).expect("sound shapes");
    let error = |name: &str, shape: &[usize]| match model.read(name, shape) {
        Ok(_) => "believed".to_owned(),
        Err(error) => error.to_string(),
    };
    let norm = error("model.text_model.norm.weight", &[128]);
    assert!(
        norm.contains("output_norm.weight holds NaN at index 1"),
        "{norm}"
    );
    let shape = error("model.text_model.norm.weight", &[64]);
    assert!(
        shape.contains("has shape [128], the keys ask for [64]"),
        "{shape}"
    );
    let missing = error("model.text_model.layers.9.mlp.up_proj.weight", &[256, 128]);
    assert!(
        missing.contains("blk.9.ffn_up.weight is missing"),
        "{missing}"
    );
}
