//! A stage fixture: what transformers computed for one prompt on one random checkpoint.
//!
//! Fields and how they were made are described in `tests/fixtures/README.md`.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use crate::checkpoint::{Checkpoint, Dtype};

/// Every stage fixture that runs in a second or two without optimisation.
pub const SMALL_FIXTURES: [&str; 8] = [
    "tiny",
    "smolvlm_2b_patch_rule",
    "smolvlm2_omitted_keys",
    "gqa5",
    "tied",
    "frames",
    "narrow",
    "text_only",
];

/// Stage fixtures with the true widths of a published model.
pub const WIDE_FIXTURES: [&str; 2] = ["smolvlm_256m_cut", "smolvlm2_2b_cut"];

/// The folder of this crate's fixtures.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// One file of `tests/fixtures/stages`.
#[derive(Debug, Deserialize)]
pub struct StageFixture {
    /// The case.
    pub name: String,
    checkpoint: CheckpointFields,
    config: Value,
    preprocessor_config: Value,
    processor_config: Value,
    generation_config: Value,
    chat_template: Value,
    /// SHA-256 of each weight file and of `tokenizer.json`, in hex.
    pub sha256: BTreeMap<String, String>,
    /// The messages.
    pub chat: Vec<Message>,
    /// The messages after template and image expansion.
    pub prompt: String,
    /// The prompt after the tokenizer.
    pub input_ids: Vec<u32>,
    /// Number of frames F.
    pub frames: usize,
    /// Side of a frame S in pixels.
    pub frame_size: usize,
    /// Stages of the prefill by name.
    pub stages: BTreeMap<String, Summary>,
    /// Image features [F·M, H]; none without a picture.
    pub image_features: Option<Features>,
    /// Logits of the last row after prefill.
    pub logits: Logits,
    /// The greedy continuation.
    pub greedy: Vec<Step>,
}

#[derive(Debug, Deserialize)]
struct CheckpointFields {
    dtype: String,
    seed: u64,
    max_shard_bytes: Option<usize>,
    tile_tokens: bool,
}

/// One chat message.
#[derive(Debug, Deserialize)]
pub struct Message {
    /// `user`, `assistant` or `system`.
    pub role: String,
    /// Texts and pictures in order.
    pub content: Vec<Part>,
}

/// A part of a message.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Part {
    /// Plain text.
    Text(String),
    /// A picture split into rows × columns image tiles before its global view; [0, 0]: not split.
    Image([usize; 2]),
}

/// Moments and exact samples of a tensor.
#[derive(Debug, Deserialize)]
pub struct Summary {
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Mean over all values.
    pub mean: f64,
    /// Population standard deviation over all values.
    pub std: f64,
    /// (flat index, value).
    pub samples: Vec<(usize, f32)>,
}

/// Image features.
#[derive(Debug, Deserialize)]
pub struct Features {
    /// Moments and samples.
    #[serde(flatten)]
    pub summary: Summary,
    /// The first row, at most 256 entries.
    pub first_row: Vec<f32>,
    /// The last row, at most 256 entries.
    pub last_row: Vec<f32>,
    /// Euclidean norm of each frame's block of rows.
    pub frame_norms: Vec<f64>,
}

/// Logits after prefill: either `all`, or `top` and `samples`.
#[derive(Debug, Deserialize)]
pub struct Logits {
    /// Length of the row.
    pub vocab: usize,
    /// Mean of the row.
    pub mean: f64,
    /// Population standard deviation of the row.
    pub std: f64,
    /// The whole row.
    #[serde(default)]
    pub all: Vec<f32>,
    /// The largest, (id, value), falling.
    #[serde(default)]
    pub top: Vec<(usize, f32)>,
    /// (id, value).
    #[serde(default)]
    pub samples: Vec<(usize, f32)>,
}

impl Logits {
    /// Every known (id, value).
    pub fn known(&self) -> Vec<(usize, f32)> {
        let all = self.all.iter().copied().enumerate();
        all.chain(self.top.iter().copied())
            .chain(self.samples.iter().copied())
            .collect()
    }
}

/// One step of the greedy continuation.
#[derive(Debug, Deserialize)]
pub struct Step {
    /// The token chosen.
    pub token: u32,
    /// Its logit minus the next.
    pub gap: f32,
    /// Standard deviation of the row it was chosen from.
    pub std: f32,
    /// The four best, (id, logit).
    pub top: Vec<(usize, f32)>,
}

impl StageFixture {
    /// Reads a fixture by name.
    pub fn load(name: &str) -> StageFixture {
        let path = folder().join("stages").join(format!("{name}.json"));
        let text =
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// The checkpoint the fixture was made on.
    pub fn checkpoint(&self) -> Checkpoint {
        let small_files = [
            ("preprocessor_config.json", &self.preprocessor_config),
            ("processor_config.json", &self.processor_config),
            ("generation_config.json", &self.generation_config),
            ("chat_template.json", &self.chat_template),
        ];
        Checkpoint {
            config: self.config.clone(),
            small_files: small_files
                .map(|(name, content)| (name.to_owned(), content.clone()))
                .into(),
            dtype: Dtype::from_name(&self.checkpoint.dtype).expect("the fixture names a dtype"),
            seed: self.checkpoint.seed,
            max_shard_bytes: self.checkpoint.max_shard_bytes,
            tile_tokens: self.checkpoint.tile_tokens,
        }
    }

    /// Pixel values [F, 3, S, S] of the prompt's frames.
    pub fn pixel_values(&self) -> Vec<f32> {
        let size = self.frame_size;
        let mut out = Vec::with_capacity(self.frames * 3 * size * size);
        for frame in 0..self.frames {
            for channel in 0..3 {
                for y in 0..size {
                    out.extend(
                        (0..size).map(|x| {
                            f32::from(frame_pixel(size, frame, x, y)[channel]) / 127.5 - 1.0
                        }),
                    );
                }
            }
        }
        out
    }
}

/// A frame by number as bytes [S, S, 3].
pub fn frame(size: usize, frame: usize) -> Vec<u8> {
    let pixels = (0..size * size).flat_map(|at| frame_pixel(size, frame, at % size, at / size));
    pixels.collect()
}

/// The u8 RGB pixel (x, y) of a frame by number.
fn frame_pixel(size: usize, frame: usize, x: usize, y: usize) -> [u8; 3] {
    let checker = if (x / 16 + y / 16) % 2 == 1 {
        255
    } else {
        255 * y / (size - 1)
    };
    let rgb = [
        7 * x + 3 * y + 29 * frame,
        255 * x / (size - 1) + 53 * frame,
        checker + 17 * frame,
    ];
    rgb.map(|value| (value % 256) as u8)
}
