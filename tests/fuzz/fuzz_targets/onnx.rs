//! ONNX files: whatever the bytes, opening and taking the graph apart as any part of a model is an
//! error or gives weights of the shapes the configuration asks for.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use ocelli_runtime::config::{ModelConfig, TextConfig, VisionConfig};
use ocelli_runtime::import::FloatWeights;
use ocelli_runtime::import::onnx::{Graph, OnnxModel, Part};
use ocelli_runtime::weights::Region;

/// The configuration of the committed exports (`tests/fixtures/stages/narrow.json`).
fn config() -> ModelConfig {
    ModelConfig {
        vision: Some(VisionConfig {
            hidden_size: 32,
            intermediate_size: 64,
            n_layers: 2,
            n_heads: 2,
            image_size: 32,
            patch_size: 8,
            layer_norm_eps: 1e-6,
            scale_factor: 2,
            image_token_id: 382,
        }),
        text: TextConfig {
            hidden_size: 64,
            intermediate_size: 96,
            n_layers: 2,
            n_heads: 4,
            n_kv_heads: 2,
            head_dim: 16,
            vocab_size: 384,
            rope_theta: 100_000.0,
            rms_norm_eps: 1e-5,
            max_positions: 64,
        },
        tie_word_embeddings: false,
    }
}

fuzz_target!(|input: &[u8]| {
    for part in [Part::Vision, Part::Embedding, Part::Decoder, Part::Text] {
        let region = Region::from_vec(input.to_vec());
        let Ok(graph) = Graph::from_region(region, Path::new("fuzz.onnx")) else {
            return;
        };
        let Ok(model) = OnnxModel::of(vec![(part, graph)], &config()) else {
            continue;
        };
        for (name, shape) in model.weights() {
            if let Ok(values) = model.read(name, shape) {
                assert_eq!(values.len(), shape.iter().product::<usize>());
                assert!(values.iter().all(|value| value.is_finite()));
            }
        }
    }
});
