//! The tokenizer made of a GGUF vocabulary encodes as the original does.

use std::fs;
use std::path::Path;

use ocelli_runtime::packer::TokenizerBlobs;
use ocelli_tests::gguf::convert;
use serde_json::Value;
use tokenizers::Tokenizer;

use crate::{model, tiny};

/// Pieces that random texts are made of: digits, spaces, scripts, special tokens, control codes.
const PIECES: [&str; 40] = [
    "a",
    "the",
    " the",
    "ing",
    "Hello",
    "WORLD",
    "12",
    "3",
    "2026",
    "1,000.5",
    " ",
    "  ",
    "   ",
    "\n",
    "\n\n",
    "\t",
    "\r\n",
    "'s",
    "'ll",
    "don't",
    ".",
    "...",
    "!?",
    "—",
    "é",
    "e\u{301}",
    "ß",
    "你好",
    "こんにちは",
    "Привет",
    "مرحبا",
    "हिन्दी",
    "😀",
    "👩‍👩‍👧",
    "\u{0}",
    "\u{7f}",
    "\u{a0}",
    "<|im_start|>",
    "<image>",
    "<end_of_utterance>",
];

/// Texts of up to a dozen pieces each, from a linear congruential generator.
fn texts(n: usize) -> Vec<String> {
    let mut state = 20_261_123u64;
    let mut next = |limit: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % limit
    };
    (0..n)
        .map(|_| {
            let length = 1 + next(12);
            (0..length)
                .map(|_| PIECES[next(PIECES.len() as u64) as usize])
                .collect()
        })
        .collect()
}

/// The tokenizer rebuilt from the keys of `original`.
fn rebuilt(original: &Value) -> Tokenizer {
    Tokenizer::from_bytes(rebuilt_json(original)).expect("a good tokenizer")
}

/// The bytes of the tokenizer rebuilt from the keys of `original`, in a model that has room for it.
fn rebuilt_json(original: &Value) -> Vec<u8> {
    let (mut text, _) = tiny();
    convert::vocabulary(&mut text, original);
    let tokens = original["model"]["vocab"]
        .as_object()
        .expect("a vocabulary")
        .len();
    let added = original["added_tokens"].as_array().expect("a list").len();
    text.size("llama.vocab_size", (tokens + added) as u32);
    text.size("tokenizer.ggml.eos_token_id", 2);
    let files = model(&text, None).expect("good shapes").model_files();
    files.expect("a good vocabulary").tokenizer_json
}

fn check(path: &Path, n: usize) {
    let json = fs::read(path).expect("a readable tokenizer");
    let original: Value = serde_json::from_slice(&json).expect("JSON");
    let rebuilt = rebuilt(&original);
    let original = Tokenizer::from_bytes(&json).expect("a good tokenizer");
    let everything = [
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")),
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/model.md")),
    ];
    let documents = everything.map(|text| text.expect("a readable document"));
    for text in texts(n).iter().chain(&documents) {
        let ids = |tokenizer: &Tokenizer| {
            let encoding = tokenizer.encode(text.as_str(), false);
            encoding.expect("a text can be encoded").get_ids().to_vec()
        };
        assert_eq!(ids(&rebuilt), ids(&original), "{text:?}");
    }
    for id in 0..original.get_vocab_size(true) as u32 {
        assert_eq!(rebuilt.id_to_token(id), original.id_to_token(id));
    }
}

#[test]
fn a_rebuilt_tokenizer_gives_the_ids_of_the_original() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in ["tokenizer.json", "tokenizer_v1.json"] {
        check(&folder.join("fixtures/preprocess").join(name), 3000);
    }
    check(&folder.join("../models/default/tokenizer.json"), 3000);
}

/// Converters name an unknown token whether tokenizer.json has one or not. llama.cpp drops bytes that
/// have no token, and so does the published tokenizer.
#[test]
fn bytes_without_a_token_are_dropped_whatever_token_is_called_unknown() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/preprocess/tokenizer.json");
    let json = fs::read(path).expect("a readable tokenizer");
    let mut original: Value = serde_json::from_slice(&json).expect("JSON");
    let vocabulary = original["model"]["vocab"]
        .as_object_mut()
        .expect("a vocabulary");
    // The byte 4 in the alphabet of byte-level BPE.
    let id = vocabulary.remove("Ą").expect("every byte has a token");
    vocabulary.insert("<|filler|>".to_owned(), id);
    original["model"]["unk_token"] = "<|endoftext|>".into();
    let json = rebuilt_json(&original);
    let rebuilt = Tokenizer::from_bytes(&json).expect("a good tokenizer");
    let ids = |text| {
        rebuilt
            .encode(text, false)
            .expect("encoded")
            .get_ids()
            .to_vec()
    };
    assert_eq!(ids("a\u{4}b"), [ids("a"), ids("b")].concat());
    let blobs = TokenizerBlobs::new(&json);
    let names: Vec<&str> = blobs.iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["tokenizer.json", "tokenizer.tables"]);
}

#[test]
fn the_published_tokenizer_is_rebuilt_from_its_vocabulary() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/reference");
    let path = folder.join("SmolVLM-256M-Instruct/tokenizer.json");
    if !path.exists() {
        eprintln!("skipped: golden reference not present (3000 cases)");
        return;
    }
    check(&path, 3000);
}
