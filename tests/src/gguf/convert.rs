//! A model directory as GGUF: names, keys and the order of query and key rows of llama.cpp's
//! converter. Weights come from a closure, so that this crate needs no reader of its own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::GgufBuilder;
use crate::checkpoint::Checkpoint;

/// How matrices are stored. Vectors, patches and positions stay F32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// 32-bit floats.
    F32,
    /// The upper half of an f32.
    Bf16,
    /// Bytes with one scale for 32.
    Q8_0,
    /// Half a byte each, with one scale for 32.
    Q4_0,
}

impl Storage {
    fn format(self) -> u32 {
        match self {
            Storage::F32 => 0,
            Storage::Bf16 => 30,
            Storage::Q8_0 => 8,
            Storage::Q4_0 => 2,
        }
    }

    fn bytes(self, values: &[f32]) -> Vec<u8> {
        match self {
            Storage::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Storage::Bf16 => values
                .iter()
                .flat_map(|v| ((v.to_bits() >> 16) as u16).to_le_bytes())
                .collect(),
            Storage::Q8_0 => values.chunks(32).flat_map(q8_0).collect(),
            Storage::Q4_0 => values.chunks(32).flat_map(q4_0).collect(),
        }
    }
}

/// One block: the scale as a power of two, which half precision holds exactly, then 32 bytes.
fn q8_0(values: &[f32]) -> Vec<u8> {
    let most = values.iter().fold(0f32, |most, v| most.max(v.abs()));
    let exponent = ((most / 127.0).log2().ceil() as i32).clamp(-14, 15);
    let scale = 2f32.powi(exponent);
    let half = ((exponent + 15) as u16) << 10;
    let quant = |v: &f32| (v / scale).round().clamp(-127.0, 127.0) as i8 as u8;
    let mut block = half.to_le_bytes().to_vec();
    block.extend(values.iter().map(quant));
    block
}

/// One block: three quarters of a power of two as the scale, negative where the largest value is
/// positive, then 32 values from 0 to 15, the second half of them in the upper halves of the bytes.
fn q4_0(values: &[f32]) -> Vec<u8> {
    let by_size = |a: &f32, b: &f32| a.abs().total_cmp(&b.abs());
    let most = values.iter().copied().max_by(by_size).unwrap_or(0.0);
    let exponent = ((most.abs() / 6.0).log2().ceil() as i32).clamp(-13, 14);
    let size = 0.75 * 2f32.powi(exponent);
    let (scale, sign) = if most > 0.0 {
        (-size, 1 << 15)
    } else {
        (size, 0)
    };
    // 1.5 · 2^(exponent - 1)
    let half: u16 = sign | ((exponent + 14) as u16) << 10 | 1 << 9;
    let quant = |v: &f32| ((v / scale).round().clamp(-8.0, 7.0) as i8 + 8) as u8;
    let (low, high) = values.split_at(16);
    let mut block = half.to_le_bytes().to_vec();
    let pairs = low.iter().zip(high);
    block.extend(pairs.map(|(low, high)| quant(low) | quant(high) << 4));
    block
}

/// Writes text model and projector of a fixture's random checkpoint into a folder: `model.gguf` and
/// `mmproj.gguf`, beside the small files of the checkpoint.
///
/// # Errors
///
/// Whatever writing reports.
///
/// # Panics
///
/// Panics if there is no such fixture.
pub fn write_fixture(name: &str, storage: Storage, dir: &Path) -> io::Result<[PathBuf; 2]> {
    write_changed_fixture(name, storage, dir, &|_, _| ())
}

/// [`write_fixture`] with weights that `change` has seen by their published names.
///
/// # Errors
///
/// Whatever the file system reports.
pub fn write_changed_fixture(
    name: &str,
    storage: Storage,
    dir: &Path,
    change: &dyn Fn(&str, &mut [f32]),
) -> io::Result<[PathBuf; 2]> {
    let checkpoint = Checkpoint::of_fixture(name);
    checkpoint.write(dir)?;
    let tensors = checkpoint.tensors();
    let read = |name: &str, shape: &[usize]| -> Vec<f32> {
        let tensor = tensors.iter().find(|t| t.name == name && t.shape == shape);
        let tensor = tensor.unwrap_or_else(|| panic!("{name} is a weight"));
        let mut values: Vec<f32> = tensor.values(checkpoint.seed).collect();
        change(name, &mut values);
        values
    };
    let source = Source::new(dir, &read, storage);
    let paths = ["model.gguf", "mmproj.gguf"].map(|name| dir.join(name));
    fs::write(&paths[0], source.text().build())?;
    fs::write(&paths[1], source.projector().build())?;
    Ok(paths)
}

/// A model directory whose weights `read` gives by published name and shape, row-major.
pub struct Source<'a> {
    dir: &'a Path,
    config: Value,
    read: &'a dyn Fn(&str, &[usize]) -> Vec<f32>,
    storage: Storage,
}

impl<'a> Source<'a> {
    /// Takes a directory with its `config.json` and a reader of its weights.
    pub fn new(
        dir: &'a Path,
        read: &'a dyn Fn(&str, &[usize]) -> Vec<f32>,
        storage: Storage,
    ) -> Source<'a> {
        Source {
            dir,
            config: json(dir, "config.json"),
            read,
            storage,
        }
    }

    fn size(&self, part: &str, name: &str) -> usize {
        let value = self.config[part][name].as_u64();
        value.unwrap_or_else(|| panic!("{part}.{name} is a number")) as usize
    }

    fn number(&self, part: &str, name: &str) -> f32 {
        let value = self.config[part][name].as_f64();
        value.unwrap_or_else(|| panic!("{part}.{name} is a number")) as f32
    }

    /// Adds a matrix.
    fn matrix(&self, out: &mut GgufBuilder, (published, name): (&str, &str), n: usize, k: usize) {
        let values = (self.read)(&format!("{published}.weight"), &[n, k]);
        self.add_matrix(out, name, &values, n, k);
    }

    fn add_matrix(&self, out: &mut GgufBuilder, name: &str, values: &[f32], n: usize, k: usize) {
        let bytes = self.storage.bytes(values);
        let dimensions = [k as u64, n as u64];
        out.tensor(
            &format!("{name}.weight"),
            &dimensions,
            self.storage.format(),
            bytes,
        );
    }

    /// Adds a matrix with the values that rotary positions turn together in neighbouring rows.
    fn paired(&self, out: &mut GgufBuilder, names: (&str, &str), heads: usize, k: usize) {
        let head = self.size("text_config", "head_dim");
        let values = (self.read)(&format!("{}.weight", names.0), &[heads * head, k]);
        let row = |h: usize, i: usize| &values[(h * head + i) * k..][..k];
        let mut paired = Vec::with_capacity(values.len());
        for h in 0..heads {
            for pair in 0..head / 2 {
                paired.extend_from_slice(row(h, pair));
                paired.extend_from_slice(row(h, pair + head / 2));
            }
        }
        self.add_matrix(out, names.1, &paired, heads * head, k);
    }

    /// Adds a tensor in F32.
    fn plain(&self, out: &mut GgufBuilder, published: &str, name: &str, shape: &[usize]) {
        let values = (self.read)(published, shape);
        let dimensions: Vec<u64> = shape.iter().rev().map(|d| *d as u64).collect();
        out.tensor(name, &dimensions, 0, Storage::F32.bytes(&values));
    }

    /// Adds a vision matrix and its bias.
    fn biased(&self, out: &mut GgufBuilder, names: (&str, &str), n: usize, k: usize) {
        self.matrix(out, names, n, k);
        self.plain(
            out,
            &format!("{}.bias", names.0),
            &format!("{}.bias", names.1),
            &[n],
        );
    }

    /// Adds weight and bias of a norm.
    fn norm(&self, out: &mut GgufBuilder, published: &str, name: &str, width: usize) {
        for kind in ["weight", "bias"] {
            let published = format!("{published}.{kind}");
            self.plain(out, &published, &format!("{name}.{kind}"), &[width]);
        }
    }

    /// The file of the text model.
    pub fn text(&self) -> GgufBuilder {
        let part = "text_config";
        let (hidden, inter) = (
            self.size(part, "hidden_size"),
            self.size(part, "intermediate_size"),
        );
        let heads = self.size(part, "num_attention_heads");
        let kv_heads = self.size(part, "num_key_value_heads");
        let vocab = self.size(part, "vocab_size");
        let mut out = GgufBuilder::default();
        out.text("general.architecture", "llama");
        for (key, name) in [
            ("llama.vocab_size", "vocab_size"),
            ("llama.context_length", "max_position_embeddings"),
            ("llama.embedding_length", "hidden_size"),
            ("llama.block_count", "num_hidden_layers"),
            ("llama.feed_forward_length", "intermediate_size"),
            ("llama.attention.head_count", "num_attention_heads"),
            ("llama.attention.head_count_kv", "num_key_value_heads"),
            ("llama.rope.dimension_count", "head_dim"),
        ] {
            out.size(key, self.size(part, name) as u32);
        }
        out.float("llama.rope.freq_base", self.number(part, "rope_theta"));
        let eps = self.number(part, "rms_norm_eps");
        out.float("llama.attention.layer_norm_rms_epsilon", eps);
        self.vocabulary(&mut out);

        let model = "model.text_model";
        self.matrix(
            &mut out,
            (&format!("{model}.embed_tokens"), "token_embd"),
            vocab,
            hidden,
        );
        for i in 0..self.size(part, "num_hidden_layers") {
            let layer = format!("{model}.layers.{i}");
            let attention = format!("{layer}.self_attn");
            let [q, k, v, o] = ["q", "k", "v", "o"].map(|part| format!("{attention}.{part}_proj"));
            let kv = kv_heads * self.size(part, "head_dim");
            for (published, name) in [
                ("input_layernorm", "attn_norm"),
                ("post_attention_layernorm", "ffn_norm"),
            ] {
                let published = format!("{layer}.{published}.weight");
                self.plain(
                    &mut out,
                    &published,
                    &format!("blk.{i}.{name}.weight"),
                    &[hidden],
                );
            }
            self.paired(&mut out, (&q, &format!("blk.{i}.attn_q")), heads, hidden);
            self.paired(&mut out, (&k, &format!("blk.{i}.attn_k")), kv_heads, hidden);
            self.matrix(&mut out, (&v, &format!("blk.{i}.attn_v")), kv, hidden);
            self.matrix(
                &mut out,
                (&o, &format!("blk.{i}.attn_output")),
                hidden,
                hidden,
            );
            for (part, n, k) in [
                ("gate", inter, hidden),
                ("up", inter, hidden),
                ("down", hidden, inter),
            ] {
                let published = format!("{layer}.mlp.{part}_proj");
                self.matrix(&mut out, (&published, &format!("blk.{i}.ffn_{part}")), n, k);
            }
        }
        self.plain(
            &mut out,
            &format!("{model}.norm.weight"),
            "output_norm.weight",
            &[hidden],
        );
        if self.config["tie_word_embeddings"] != true {
            self.matrix(&mut out, ("lm_head", "output"), vocab, hidden);
        }
        out
    }

    fn vocabulary(&self, out: &mut GgufBuilder) {
        vocabulary(out, &json(self.dir, "tokenizer.json"));
        let generation = json(self.dir, "generation_config.json");
        for (key, name) in [("eos", "eos_token_id"), ("bos", "bos_token_id")] {
            if let Some(id) = generation[name].as_u64() {
                out.size(&format!("tokenizer.ggml.{key}_token_id"), id as u32);
            }
        }
        let template = json(self.dir, "chat_template.json");
        let template = template["chat_template"].as_str().expect("a template");
        out.text("tokenizer.chat_template", template);
    }

    /// The projector file.
    pub fn projector(&self) -> GgufBuilder {
        let part = "vision_config";
        let (hidden, inter) = (
            self.size(part, "hidden_size"),
            self.size(part, "intermediate_size"),
        );
        let (side, patch) = (self.size(part, "image_size"), self.size(part, "patch_size"));
        let scale = self.config["scale_factor"]
            .as_u64()
            .expect("a scale factor") as usize;
        let text = self.size("text_config", "hidden_size");
        let pictures = json(self.dir, "preprocessor_config.json");
        let longest = pictures["size"]["longest_edge"].as_u64().expect("a size");
        let mut out = GgufBuilder::default();
        out.text("general.architecture", "clip");
        out.flag("clip.has_vision_encoder", true);
        out.flag("clip.use_gelu", true);
        out.text("clip.projector_type", "idefics3");
        for (key, value) in [
            ("image_size", side),
            ("patch_size", patch),
            ("embedding_length", hidden),
            ("feed_forward_length", inter),
            ("block_count", self.size(part, "num_hidden_layers")),
            (
                "attention.head_count",
                self.size(part, "num_attention_heads"),
            ),
            ("projection_dim", text),
            ("projector.scale_factor", scale),
            ("preproc_image_size", longest as usize),
        ] {
            out.size(&format!("clip.vision.{key}"), value as u32);
        }
        let eps = self.number(part, "layer_norm_eps");
        out.float("clip.vision.attention.layer_norm_epsilon", eps);
        for key in ["image_mean", "image_std"] {
            let values = pictures[key].as_array().expect("three numbers");
            let values: Vec<f32> = values
                .iter()
                .map(|v| v.as_f64().expect("a number") as f32)
                .collect();
            out.floats(&format!("clip.vision.{key}"), &values);
        }

        let model = "model.vision_model";
        let embeddings = format!("{model}.embeddings");
        let shape = [hidden, 3, patch, patch];
        let published = format!("{embeddings}.patch_embedding");
        self.plain(
            &mut out,
            &format!("{published}.weight"),
            "v.patch_embd.weight",
            &shape,
        );
        self.plain(
            &mut out,
            &format!("{published}.bias"),
            "v.patch_embd.bias",
            &[hidden],
        );
        let patches = (side / patch) * (side / patch);
        let published = format!("{embeddings}.position_embedding.weight");
        self.plain(
            &mut out,
            &published,
            "v.position_embd.weight",
            &[patches, hidden],
        );
        for i in 0..self.size(part, "num_hidden_layers") {
            let layer = format!("{model}.encoder.layers.{i}");
            for (published, name, n, k) in [
                ("self_attn.q_proj", "attn_q", hidden, hidden),
                ("self_attn.k_proj", "attn_k", hidden, hidden),
                ("self_attn.v_proj", "attn_v", hidden, hidden),
                ("self_attn.out_proj", "attn_out", hidden, hidden),
                ("mlp.fc1", "ffn_up", inter, hidden),
                ("mlp.fc2", "ffn_down", hidden, inter),
            ] {
                let names = (format!("{layer}.{published}"), format!("v.blk.{i}.{name}"));
                self.biased(&mut out, (&names.0, &names.1), n, k);
            }
            self.norm(
                &mut out,
                &format!("{layer}.layer_norm1"),
                &format!("v.blk.{i}.ln1"),
                hidden,
            );
            self.norm(
                &mut out,
                &format!("{layer}.layer_norm2"),
                &format!("v.blk.{i}.ln2"),
                hidden,
            );
        }
        self.norm(
            &mut out,
            &format!("{model}.post_layernorm"),
            "v.post_ln",
            hidden,
        );
        let connector = "model.connector.modality_projection.proj";
        self.matrix(
            &mut out,
            (connector, "mm.model.fc"),
            text,
            hidden * scale * scale,
        );
        out
    }
}

/// Adds the keys of a `tokenizer.json`.
pub fn vocabulary(out: &mut GgufBuilder, tokenizer: &Value) {
    let vocabulary = tokenizer["model"]["vocab"]
        .as_object()
        .expect("a vocabulary");
    let mut tokens: Vec<(u64, &str, i32)> = vocabulary
        .iter()
        .map(|(token, id)| (id.as_u64().expect("an id"), token.as_str(), 1))
        .collect();
    for added in tokenizer["added_tokens"].as_array().expect("a list") {
        let id = added["id"].as_u64().expect("an id");
        let kind = if added["special"] == true { 3 } else { 4 };
        tokens.retain(|(other, _, _)| *other != id);
        tokens.push((id, added["content"].as_str().expect("a text"), kind));
    }
    tokens.sort_unstable();
    let dense = tokens
        .iter()
        .enumerate()
        .all(|(i, (id, _, _))| i as u64 == *id);
    assert!(dense, "ids without gaps");
    let merge = |merge: &Value| match merge {
        Value::String(merge) => merge.clone(),
        pair => format!(
            "{} {}",
            pair[0].as_str().expect("a token"),
            pair[1].as_str().expect("a token")
        ),
    };
    let merges = tokenizer["model"]["merges"].as_array().expect("a list");
    let merges: Vec<String> = merges.iter().map(merge).collect();
    let splits = tokenizer["pre_tokenizer"].to_string();
    let pre = if splits.contains("Digits") {
        "smollm"
    } else {
        "gpt-2"
    };
    let texts: Vec<&str> = tokens.iter().map(|(_, token, _)| *token).collect();
    let kinds: Vec<i32> = tokens.iter().map(|(_, _, kind)| *kind).collect();
    out.text("tokenizer.ggml.model", "gpt2");
    out.text("tokenizer.ggml.pre", pre);
    out.texts("tokenizer.ggml.tokens", &texts);
    out.integers("tokenizer.ggml.token_type", &kinds);
    out.texts("tokenizer.ggml.merges", &merges);
    if let Some(unknown) = tokenizer["model"]["unk_token"].as_str() {
        let id = texts
            .iter()
            .position(|text| *text == unknown)
            .expect("a token");
        out.size("tokenizer.ggml.unknown_token_id", id as u32);
    }
}

fn json(dir: &Path, name: &str) -> Value {
    let bytes = fs::read(dir.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"))
}
