//! A random checkpoint: a Hugging Face style model directory whose every byte is a pure function
//! of its configuration, dtype and seed.
//!
//! The Rust twin of `tools/reference/checkpoint.py`; the rule is stated in
//! `tests/fixtures/README.md`, and the SHA-256 values in the stage fixtures hold both to it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::fixture::StageFixture;

/// Increment of SplitMix64.
const GOLDEN_GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;
/// Elements made at a time.
const CHUNK: usize = 1 << 16;
/// Gain of query and key projections: attention scores have a standard deviation of about 2.
const QUERY_KEY_GAIN: f64 = 1.5;
/// Gain of the embedding table and the head: logits have a standard deviation of about 2.
const VOCABULARY_GAIN: f64 = 2.0;
const POSITION_SCALE: f32 = 0.5;
const NORM_SCALE: f32 = 0.2;
const BIAS_SCALE: f32 = 0.1;

/// How weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// 32-bit floats.
    F32,
    /// IEEE half precision, rounded to nearest even.
    F16,
    /// The upper half of an f32, rounded to nearest even.
    Bf16,
}

impl Dtype {
    /// The dtype a fixture names `f32`, `f16` or `bf16`.
    pub fn from_name(name: &str) -> Option<Dtype> {
        match name {
            "f32" => Some(Dtype::F32),
            "f16" => Some(Dtype::F16),
            "bf16" => Some(Dtype::Bf16),
            _ => None,
        }
    }

    /// Bytes of one element.
    pub fn width(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
        }
    }

    /// The name in a safetensors header.
    fn safetensors_name(self) -> &'static str {
        match self {
            Dtype::F32 => "F32",
            Dtype::F16 => "F16",
            Dtype::Bf16 => "BF16",
        }
    }

    /// Appends `value` in storage order.
    fn push(self, value: f32, bytes: &mut Vec<u8>) {
        match self {
            Dtype::F32 => bytes.extend_from_slice(&value.to_le_bytes()),
            Dtype::F16 => bytes.extend_from_slice(&f16_bits(value).to_le_bytes()),
            Dtype::Bf16 => bytes.extend_from_slice(&bf16_bits(value).to_le_bytes()),
        }
    }
}

/// Half precision of `value`, rounded to nearest even; too large becomes infinity, NaN a quiet NaN.
fn f16_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let magnitude = bits & 0x7FFF_FFFF;
    let half = if magnitude > 0x7F80_0000 {
        0x7E00
    } else if magnitude >= 0x4780_0000 {
        0x7C00
    } else if magnitude < 0x3880_0000 {
        // Subnormal: one step at 0.5 is 2^-24, so the f32 addition does the rounding.
        (f32::from_bits(magnitude) + 0.5).to_bits() - 0.5f32.to_bits()
    } else {
        let round = 0xFFF + (magnitude >> 13 & 1);
        (magnitude + round - (112 << 23)) >> 13
    };
    sign | half as u16
}

/// The upper half of a finite f32, rounded to nearest even.
fn bf16_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16) as u16
}

/// FNV-1a, 64 bits, of the UTF-8 bytes.
fn fnv1a64(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3)
    })
}

/// Element `index` of the sequence of `key`: a multiple of 2^-23 in [-1, 1).
fn signed_unit(key: u64, index: u64) -> f32 {
    let mut z = key.wrapping_add((index + 1).wrapping_mul(GOLDEN_GAMMA));
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    let centred = (z >> 40) as i32 - (1 << 23);
    centred as f32 / (1 << 23) as f32
}

/// A tensor of a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Name in the safetensors header.
    pub name: String,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
}

impl Tensor {
    /// Number of elements.
    pub fn n_elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The map from [-1, 1) to weights: (offset, scale).
    fn offset_and_scale(&self) -> (f32, f32) {
        let fan_in = self.shape[1..].iter().product::<usize>() as f64;
        let by_fan_in = |gain: f64| (gain * (3.0 / fan_in).sqrt()) as f32;
        let name = self.name.as_str();
        if name.ends_with(".bias") {
            (0.0, BIAS_SCALE)
        } else if name.contains("norm") {
            (1.0, NORM_SCALE)
        } else if name.ends_with("position_embedding.weight") {
            (0.0, POSITION_SCALE)
        } else if name.ends_with("embed_tokens.weight") || name.ends_with("lm_head.weight") {
            (0.0, by_fan_in(VOCABULARY_GAIN))
        } else if name.ends_with("q_proj.weight") || name.ends_with("k_proj.weight") {
            (0.0, by_fan_in(QUERY_KEY_GAIN))
        } else {
            (0.0, by_fan_in(1.0))
        }
    }

    /// The weights under `seed`, before rounding to a dtype: row-major, `n_elements` of them.
    pub fn values(&self, seed: u64) -> impl Iterator<Item = f32> + use<> {
        let key = fnv1a64(&self.name) ^ seed;
        let (offset, scale) = self.offset_and_scale();
        (0..self.n_elements() as u64).map(move |index| signed_unit(key, index) * scale + offset)
    }
}

/// What determines every file of a model directory.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// `config.json`.
    pub config: Value,
    /// The other small JSON files by name: processor, generation, chat template.
    pub small_files: BTreeMap<String, Value>,
    /// How weights are stored.
    pub dtype: Dtype,
    /// Seed of the weights.
    pub seed: u64,
    /// A new shard begins where the next tensor would pass this size; `None`: one file.
    pub max_shard_bytes: Option<usize>,
    /// Whether `<global-img>` and `<row_r_col_c>` are tokens; plain text in the first 2.2B.
    pub tile_tokens: bool,
}

impl Checkpoint {
    /// The checkpoint of a stage fixture, by the fixture's name.
    pub fn of_fixture(name: &str) -> Checkpoint {
        StageFixture::load(name).checkpoint()
    }

    /// The same with other numbers of vision and decoder layers.
    #[must_use]
    pub fn with_layers(mut self, vision: usize, decoder: usize) -> Checkpoint {
        self.config["vision_config"]["num_hidden_layers"] = json!(vision);
        self.config["text_config"]["num_hidden_layers"] = json!(decoder);
        self
    }

    /// The same stored as `dtype`.
    #[must_use]
    pub fn with_dtype(mut self, dtype: Dtype) -> Checkpoint {
        self.dtype = dtype;
        self
    }

    /// The same in shards of at most `limit` bytes, or in one file.
    #[must_use]
    pub fn with_max_shard_bytes(mut self, limit: Option<usize>) -> Checkpoint {
        self.max_shard_bytes = limit;
        self
    }

    /// Every tensor, sorted by name.
    pub fn tensors(&self) -> Vec<Tensor> {
        let n = Numbers::of(&self.config);
        let (d, h) = (n.vision, n.hidden);
        let mut out = BTreeMap::new();
        let mut put = |name: String, shape: &[usize]| {
            out.insert(name, shape.to_vec());
        };
        let embeddings = "model.vision_model.embeddings";
        put(
            format!("{embeddings}.patch_embedding.weight"),
            &[d, 3, n.patch, n.patch],
        );
        put(format!("{embeddings}.patch_embedding.bias"), &[d]);
        put(
            format!("{embeddings}.position_embedding.weight"),
            &[n.side * n.side, d],
        );
        put("model.vision_model.post_layernorm.weight".into(), &[d]);
        put("model.vision_model.post_layernorm.bias".into(), &[d]);
        put(
            "model.connector.modality_projection.proj.weight".into(),
            &[h, d * n.scale * n.scale],
        );
        put("model.text_model.embed_tokens.weight".into(), &[n.vocab, h]);
        put("model.text_model.norm.weight".into(), &[h]);
        if !n.tied {
            put("lm_head.weight".into(), &[n.vocab, h]);
        }
        for layer in 0..n.vision_layers {
            let layer = format!("model.vision_model.encoder.layers.{layer}");
            let linears = [
                ("self_attn.q_proj", d, d),
                ("self_attn.k_proj", d, d),
                ("self_attn.v_proj", d, d),
                ("self_attn.out_proj", d, d),
                ("mlp.fc1", n.vision_ffn, d),
                ("mlp.fc2", d, n.vision_ffn),
            ];
            for (part, rows, cols) in linears {
                put(format!("{layer}.{part}.weight"), &[rows, cols]);
                put(format!("{layer}.{part}.bias"), &[rows]);
            }
            for part in ["layer_norm1", "layer_norm2"] {
                put(format!("{layer}.{part}.weight"), &[d]);
                put(format!("{layer}.{part}.bias"), &[d]);
            }
        }
        for layer in 0..n.layers {
            let layer = format!("model.text_model.layers.{layer}");
            put(format!("{layer}.self_attn.q_proj.weight"), &[n.q, h]);
            put(format!("{layer}.self_attn.k_proj.weight"), &[n.kv, h]);
            put(format!("{layer}.self_attn.v_proj.weight"), &[n.kv, h]);
            put(format!("{layer}.self_attn.o_proj.weight"), &[h, n.q]);
            put(format!("{layer}.mlp.gate_proj.weight"), &[n.ffn, h]);
            put(format!("{layer}.mlp.up_proj.weight"), &[n.ffn, h]);
            put(format!("{layer}.mlp.down_proj.weight"), &[h, n.ffn]);
            put(format!("{layer}.input_layernorm.weight"), &[h]);
            put(format!("{layer}.post_attention_layernorm.weight"), &[h]);
        }
        out.into_iter()
            .map(|(name, shape)| Tensor { name, shape })
            .collect()
    }

    /// Weight files with the tensors of each, in order.
    pub fn shards(&self) -> Vec<(String, Vec<Tensor>)> {
        let mut shards = vec![Vec::new()];
        let mut size = 0;
        for tensor in self.tensors() {
            let n_bytes = self.dtype.width() * tensor.n_elements();
            let full = self
                .max_shard_bytes
                .is_some_and(|limit| size + n_bytes > limit);
            if full && !shards[shards.len() - 1].is_empty() {
                shards.push(Vec::new());
                size = 0;
            }
            size += n_bytes;
            shards
                .last_mut()
                .expect("there is always a shard")
                .push(tensor);
        }
        let count = shards.len();
        let name = |i: usize| match count {
            1 => "model.safetensors".to_owned(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
        };
        shards
            .into_iter()
            .enumerate()
            .map(|(i, shard)| (name(i), shard))
            .collect()
    }

    /// Writes the directory; returns the SHA-256 of each weight file and of `tokenizer.json`, in hex.
    ///
    /// # Errors
    ///
    /// Whatever creating or writing a file reports.
    pub fn write(&self, dir: &Path) -> io::Result<BTreeMap<String, String>> {
        fs::create_dir_all(dir)?;
        let mut hashes = BTreeMap::new();
        let shards = self.shards();
        for (file, tensors) in &shards {
            hashes.insert(file.clone(), self.write_weights(&dir.join(file), tensors)?);
        }
        if shards.len() > 1 {
            fs::write(
                dir.join("model.safetensors.index.json"),
                self.index(&shards).to_string(),
            )?;
        }
        fs::write(dir.join("config.json"), self.config.to_string())?;
        for (file, content) in &self.small_files {
            fs::write(dir.join(file), content.to_string())?;
        }
        let tokenizer = self.tokenizer_json();
        hashes.insert("tokenizer.json".into(), hex(&Sha256::digest(&tokenizer)));
        fs::write(dir.join("tokenizer.json"), tokenizer)?;
        Ok(hashes)
    }

    /// `model.safetensors.index.json`.
    fn index(&self, shards: &[(String, Vec<Tensor>)]) -> Value {
        let mut weight_map = Map::new();
        let mut total_size = 0;
        for (file, tensors) in shards {
            for tensor in tensors {
                weight_map.insert(tensor.name.clone(), json!(file));
                total_size += self.dtype.width() * tensor.n_elements();
            }
        }
        json!({ "metadata": { "total_size": total_size }, "weight_map": weight_map })
    }

    /// Writes one safetensors file and returns its SHA-256 in hex.
    fn write_weights(&self, path: &Path, tensors: &[Tensor]) -> io::Result<String> {
        let mut header = String::from(r#"{"__metadata__":{"format":"pt"}"#);
        let mut end = 0;
        for tensor in tensors {
            let begin = end;
            end += self.dtype.width() * tensor.n_elements();
            let shape = tensor
                .shape
                .iter()
                .map(usize::to_string)
                .collect::<Vec<_>>()
                .join(",");
            let _ = write!(
                header,
                r#","{}":{{"dtype":"{}","shape":[{shape}],"data_offsets":[{begin},{end}]}}"#,
                tensor.name,
                self.dtype.safetensors_name(),
            );
        }
        header.push('}');
        while !header.len().is_multiple_of(8) {
            header.push(' ');
        }
        let mut file = Hashing {
            file: BufWriter::new(File::create(path)?),
            digest: Sha256::new(),
        };
        file.put(&(header.len() as u64).to_le_bytes())?;
        file.put(header.as_bytes())?;
        let mut bytes = Vec::with_capacity(CHUNK * self.dtype.width());
        for tensor in tensors {
            for value in tensor.values(self.seed) {
                self.dtype.push(value, &mut bytes);
                if bytes.len() == bytes.capacity() {
                    file.put(&bytes)?;
                    bytes.clear();
                }
            }
            file.put(&bytes)?;
            bytes.clear();
        }
        file.file.flush()?;
        Ok(hex(&file.digest.finalize()))
    }

    /// Special tokens behind the base vocabulary, in the order of the published checkpoints.
    pub fn added_tokens(&self) -> Vec<String> {
        let mut out: Vec<String> = Vec::new();
        if self.tile_tokens {
            out.push("<global-img>".into());
            for row in 1..=6 {
                out.extend((1..=6).map(|col| format!("<row_{row}_col_{col}>")));
            }
        }
        out.extend(["<fake_token_around_image>".into(), "<image>".into()]);
        if self.tile_tokens && Numbers::of(&self.config).vocab > 4096 {
            out.extend((0..88).map(|i| format!("<|reserved_special_token_{i}|>")));
        }
        out.push("<end_of_utterance>".into());
        out
    }

    /// `tokenizer.json`, compact: byte-level BPE with single digits, as SmolLM2's.
    pub fn tokenizer_json(&self) -> String {
        let added = self.added_tokens();
        let merges = merges();
        let mut base: Vec<String> = FIRST_TOKENS.iter().map(|&token| token.to_owned()).collect();
        let mut bytes = byte_characters();
        bytes.sort_unstable();
        base.extend(bytes.iter().map(char::to_string));
        base.extend(merges.iter().map(|(left, right)| format!("{left}{right}")));
        let vocab = Numbers::of(&self.config).vocab;
        assert!(
            vocab >= base.len() + added.len(),
            "the vocabulary of {vocab} is too small"
        );
        let n_fillers = vocab - base.len() - added.len();
        base.extend((0..n_fillers).map(|i| format!("<|filler_{i}|>")));

        let specials = FIRST_TOKENS
            .iter()
            .map(|&token| token.to_owned())
            .enumerate();
        let specials = specials.chain(
            added
                .into_iter()
                .enumerate()
                .map(|(i, t)| (base.len() + i, t)),
        );
        let added_tokens = joined(specials.map(|(id, token)| {
            format!(
                r#"{{"id":{id},"content":{},"single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}}"#,
                quoted(&token)
            )
        }));
        let vocab = joined(
            base.iter()
                .enumerate()
                .map(|(id, token)| format!("{}:{id}", quoted(token))),
        );
        let merges = joined(
            merges
                .iter()
                .map(|(left, right)| format!("[{},{}]", quoted(left), quoted(right))),
        );
        format!(
            concat!(
                r#"{{"version":"1.0","truncation":null,"padding":null,"added_tokens":[{added_tokens}],"#,
                r#""normalizer":null,"pre_tokenizer":{{"type":"Sequence","pretokenizers":["#,
                r#"{{"type":"Digits","individual_digits":true}},"#,
                r#"{{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true}}]}},"#,
                r#""post_processor":null,"#,
                r#""decoder":{{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true}},"#,
                r#""model":{{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,"#,
                r#""end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":false,"ignore_merges":false,"#,
                r#""vocab":{{{vocab}}},"merges":[{merges}]}}}}"#,
            ),
            added_tokens = added_tokens,
            vocab = vocab,
            merges = merges,
        )
    }
}

/// A file and the running hash of what went into it.
struct Hashing {
    file: BufWriter<File>,
    digest: Sha256,
}

impl Hashing {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digest.update(bytes);
        self.file.write_all(bytes)
    }
}

/// The sizes the tensor list depends on, defaults filled in.
struct Numbers {
    vision: usize,
    vision_ffn: usize,
    vision_layers: usize,
    patch: usize,
    /// Patches a side.
    side: usize,
    scale: usize,
    hidden: usize,
    ffn: usize,
    layers: usize,
    /// Rows of the query projection.
    q: usize,
    /// Rows of the key and value projections.
    kv: usize,
    vocab: usize,
    tied: bool,
}

impl Numbers {
    fn of(config: &Value) -> Numbers {
        let optional = |section: &str, key: &str| {
            config[section][key]
                .as_u64()
                .map(|value| usize::try_from(value).expect("a size fits usize"))
        };
        let required = |section: &str, key: &str| {
            optional(section, key)
                .unwrap_or_else(|| panic!("the configuration lacks {section}.{key}"))
        };
        let heads = optional("text_config", "num_attention_heads").unwrap_or(32);
        let kv_heads = optional("text_config", "num_key_value_heads").unwrap_or(heads);
        let hidden = required("text_config", "hidden_size");
        let head_dim = optional("text_config", "head_dim").unwrap_or(hidden / heads);
        let patch = required("vision_config", "patch_size");
        Numbers {
            vision: required("vision_config", "hidden_size"),
            vision_ffn: optional("vision_config", "intermediate_size").unwrap_or(3072),
            vision_layers: optional("vision_config", "num_hidden_layers").unwrap_or(12),
            patch,
            side: required("vision_config", "image_size") / patch,
            scale: config["scale_factor"]
                .as_u64()
                .expect("the configuration has scale_factor") as usize,
            hidden,
            ffn: required("text_config", "intermediate_size"),
            layers: required("text_config", "num_hidden_layers"),
            q: heads * head_dim,
            kv: kv_heads * head_dim,
            vocab: required("text_config", "vocab_size"),
            tied: config["tie_word_embeddings"].as_bool().unwrap_or(false),
        }
    }
}

/// SmolLM2's first ids.
const FIRST_TOKENS: [&str; 17] = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<repo_name>",
    "<reponame>",
    "<file_sep>",
    "<filename>",
    "<gh_stars>",
    "<issue_start>",
    "<issue_comment>",
    "<issue_closed>",
    "<jupyter_start>",
    "<jupyter_text>",
    "<jupyter_code>",
    "<jupyter_output>",
    "<jupyter_script>",
    "<empty_output>",
];

/// Words that become one token each, with Ġ for a leading space and Ċ for a newline.
const WORDS: [&str; 16] = [
    "ĊĊ",
    "User",
    "Assistant",
    "System",
    "Can",
    "What",
    "Ġyou",
    "Ġdescribe",
    "Ġthis",
    "Ġthe",
    "Ġimage",
    "Ġpicture",
    "Ġis",
    "Ġthere",
    "Ġa",
    "Ġand",
];

/// The printable stand-in of each byte in byte-level BPE: itself where Latin-1 prints it, else U+0100 onwards.
fn byte_characters() -> Vec<char> {
    let mut next = 0x100;
    let stand_in = |byte: u8| match byte {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
        _ => {
            next += 1;
            char::from_u32(next - 1).expect("U+0100 onwards are characters")
        }
    };
    (0..=u8::MAX).map(stand_in).collect()
}

/// Merge pairs that grow each word of [`WORDS`] from its left end, repeats left out.
fn merges() -> Vec<(String, String)> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for word in WORDS {
        for (at, character) in word.char_indices().skip(1) {
            let pair = (word[..at].to_owned(), character.to_string());
            if !pairs.contains(&pair) {
                pairs.push(pair);
            }
        }
    }
    pairs
}

/// A JSON string of a token; tokens hold no control characters.
fn quoted(token: &str) -> String {
    format!("\"{}\"", token.replace('\\', "\\\\").replace('"', "\\\""))
}

fn joined(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(",")
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_rounds_to_nearest_even() {
        let cases = [
            (0.0, 0x0000),
            (-0.0, 0x8000),
            (1.0, 0x3C00),
            (1.0 + 1.0 / 2048.0, 0x3C00),
            (1.0 + 3.0 / 2048.0, 0x3C02),
            (-65504.0, 0xFBFF),
            (65519.0, 0x7BFF),
            (65520.0, 0x7C00),
            (f32::INFINITY, 0x7C00),
            (6.103_515_6e-5, 0x0400),
            (6.097_555e-5, 0x03FF),
            (5.960_464_5e-8, 0x0001),
            (2.980_232_2e-8, 0x0000),
            (2.980_232_6e-8, 0x0001),
            (8.940_697e-8, 0x0002),
        ];
        for (value, bits) in cases {
            assert_eq!(f16_bits(value), bits, "{value}");
        }
        assert_eq!(f16_bits(f32::NAN) & 0x7FFF, 0x7E00);
    }

    #[test]
    fn bfloat_rounds_to_nearest_even() {
        let cases = [
            (0x3F80_8000, 0x3F80),
            (0x3F80_8001, 0x3F81),
            (0x3F81_8000, 0x3F82),
            (0xBF80_7FFF, 0xBF80),
        ];
        for (bits, rounded) in cases {
            assert_eq!(bf16_bits(f32::from_bits(bits)), rounded, "{bits:#x}");
        }
    }

    #[test]
    fn the_sequence_is_splitmix64_of_the_name() {
        assert_eq!(fnv1a64(""), 0xCBF2_9CE4_8422_2325);
        assert_eq!(fnv1a64("a"), 0xAF63_DC4C_8601_EC8C);
        // SplitMix64 seeded with 0 begins with 0xE220A8397B1DCDAF.
        assert_eq!(
            signed_unit(0, 0),
            (0xE220A8 - (1 << 23)) as f32 / 8_388_608.0
        );
    }

    #[test]
    fn the_published_parameter_counts_come_out() {
        let of = |name: &str, vision, decoder| {
            let tensors = Checkpoint::of_fixture(name)
                .with_layers(vision, decoder)
                .tensors();
            tensors.iter().map(Tensor::n_elements).sum::<usize>()
        };
        assert_eq!(of("smolvlm_256m_cut", 12, 30), 256_484_928);
    }

    #[test]
    fn shards_hold_every_tensor_once() {
        let checkpoint = Checkpoint::of_fixture("tiny").with_max_shard_bytes(Some(500_000));
        let shards = checkpoint.shards();
        assert!(shards.len() > 2, "{}", shards.len());
        assert!(
            shards[0].0.starts_with("model-00001-of-0000"),
            "{}",
            shards[0].0
        );
        let together: Vec<Tensor> = shards
            .into_iter()
            .flat_map(|(_, tensors)| tensors)
            .collect();
        assert_eq!(together, checkpoint.tensors());
    }
}
