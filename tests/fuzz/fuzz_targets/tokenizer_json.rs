//! Tokenizer files: whatever the bytes, reading is an error or gives a tokenizer whose ids lie in
//! the vocabulary and whose text survives encoding and decoding without a panic.
//!
//! The first byte chooses: even, the model reads text only; odd, it has image tokens.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ocelli_runtime::config::{GenerationConfig, ModelConfig, SamplingDefaults, TextConfig, VisionConfig};
use ocelli_runtime::tokenizer::{TextStream, Tokenizer};

/// Most tokens of the model.
const VOCABULARY: usize = 512;
/// Ordinary text, digits, letters beyond ASCII, special tokens written out.
const TEXTS: [&str; 3] = ["ab abc  12\n", "é 東 🦀\u{301}", "a<image><|im_end|>b"];

fn config(sees: bool) -> ModelConfig {
    let vision = VisionConfig {
        hidden_size: 16,
        intermediate_size: 16,
        n_layers: 1,
        n_heads: 2,
        image_size: 8,
        patch_size: 4,
        layer_norm_eps: 1e-6,
        scale_factor: 2,
        image_token_id: 4,
    };
    ModelConfig {
        vision: sees.then_some(vision),
        text: TextConfig {
            hidden_size: 16,
            intermediate_size: 16,
            n_layers: 1,
            n_heads: 2,
            n_kv_heads: 1,
            head_dim: 8,
            vocab_size: VOCABULARY,
            rope_theta: 10_000.0,
            rms_norm_eps: 1e-5,
            max_positions: 64,
        },
        tie_word_embeddings: true,
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((choice, json)) = input.split_first() else { return };
    let generation = GenerationConfig {
        stop_token_ids: vec![0],
        pad_token_id: 0,
        bos_token_id: None,
        sampling: SamplingDefaults::default(),
    };
    let Ok(tokenizer) = Tokenizer::from_bytes(json, &config(choice % 2 == 1), &generation) else { return };
    assert!(tokenizer.n_tokens() <= VOCABULARY);
    for text in TEXTS {
        let _ = tokenizer.added_token_in(text);
        let Ok(ids) = tokenizer.encode(text) else { continue };
        assert!(ids.iter().all(|id| (*id as usize) < VOCABULARY));
        let whole = tokenizer.decode(&ids, true);
        let mut stream = TextStream::new();
        let mut parts = String::new();
        ids.iter().for_each(|id| stream.push(&tokenizer, *id, &mut parts));
        stream.finish(&mut parts);
        assert_eq!(parts, whole);
    }
    for (id, bytes) in tokenizer.text_tokens() {
        assert_eq!(tokenizer.token_bytes(id), Some(bytes));
    }
});
