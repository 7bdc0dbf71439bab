//! The checking path: the published model in plain f32, stage by stage.
//!
//! Slow and simple on purpose. It reads the checkpoint as it is (nothing folded,
//! rotated or quantised) and shares only the f32 matrix product with the rest, so
//! that it can judge the int8 engine and be judged by other implementations.

mod tower;

use crate::config::{ModelConfig, ModelFiles, TextConfig};
use crate::engine::Engine;
use crate::error::RunError;
use crate::import::{FloatWeights, ImportError};
use ocelli_kernels::{Compute, f32_gemm};
use std::sync::Arc;
use tower::Tower;

/// A linear layer. `weight`: `[n, k]`, `bias`: `[n]`
#[derive(Debug)]
struct Linear {
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
    n: usize,
    k: usize,
}

#[derive(Debug)]
struct TextLayer {
    norm1: Vec<f32>,
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    norm2: Vec<f32>,
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Linear {
    /// `y = x·Wᵀ + b`. `x`: `[m, k]` → `[m, n]`
    fn apply(&self, compute: &Compute, x: &[f32]) -> Vec<f32> {
        let m = x.len() / self.k;
        let mut out = vec![0f32; m * self.n];
        let bias = self.bias.as_deref();
        f32_gemm::matmul(compute, x, &self.weight, bias, m, self.n, self.k, &mut out);
        out
    }
}

/// All weights of a model in f32.
#[derive(Debug)]
pub struct ReferenceModel {
    config: ModelConfig,
    compute: Arc<Compute>,
    /// `None` for a model that reads text only.
    tower: Option<Tower>,
    /// `[vocab, hidden]`
    embedding: Vec<f32>,
    text: Vec<TextLayer>,
    final_norm: Vec<f32>,
    /// `None` when tied to the embedding.
    head: Option<Linear>,
}

/// Reads weights by name.
struct Reader<'a>(&'a dyn FloatWeights);

impl Reader<'_> {
    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, ImportError> {
        self.0.read(name, &[len])
    }

    fn linear(&self, name: &str, n: usize, k: usize) -> Result<Linear, ImportError> {
        Ok(Linear {
            weight: self.0.read(&format!("{name}.weight"), &[n, k])?,
            bias: None,
            n,
            k,
        })
    }

    fn biased(&self, name: &str, n: usize, k: usize) -> Result<Linear, ImportError> {
        let bias = Some(self.vector(&format!("{name}.bias"), n)?);
        Ok(Linear {
            bias,
            ..self.linear(name, n, k)?
        })
    }

    fn text_layer(&self, i: usize, t: &TextConfig) -> Result<TextLayer, ImportError> {
        let layer = format!("model.text_model.layers.{i}");
        let (h, heads, kv) = (
            t.hidden_size,
            t.n_heads * t.head_dim,
            t.n_kv_heads * t.head_dim,
        );
        Ok(TextLayer {
            norm1: self.vector(&format!("{layer}.input_layernorm.weight"), h)?,
            q: self.linear(&format!("{layer}.self_attn.q_proj"), heads, h)?,
            k: self.linear(&format!("{layer}.self_attn.k_proj"), kv, h)?,
            v: self.linear(&format!("{layer}.self_attn.v_proj"), kv, h)?,
            out: self.linear(&format!("{layer}.self_attn.o_proj"), h, heads)?,
            norm2: self.vector(&format!("{layer}.post_attention_layernorm.weight"), h)?,
            gate: self.linear(&format!("{layer}.mlp.gate_proj"), t.intermediate_size, h)?,
            up: self.linear(&format!("{layer}.mlp.up_proj"), t.intermediate_size, h)?,
            down: self.linear(&format!("{layer}.mlp.down_proj"), h, t.intermediate_size)?,
        })
    }
}

impl ReferenceModel {
    /// Reads every weight of a checkpoint into memory, 4 bytes a parameter.
    ///
    /// # Errors
    ///
    /// A tensor that is missing, of another shape or dtype, or not finite.
    pub fn load(
        files: &ModelFiles,
        weights: &dyn FloatWeights,
        compute: Arc<Compute>,
    ) -> Result<ReferenceModel, ImportError> {
        let config = files.config.clone();
        let t = &config.text;
        let reader = Reader(weights);
        let tower = match (&config.vision, &files.preprocess) {
            (Some(vision), Some(preprocess)) => Some(Tower::load(
                &reader,
                vision,
                preprocess,
                t.hidden_size,
                compute.clone(),
            )?),
            _ => None,
        };
        let text = (0..t.n_layers)
            .map(|i| reader.text_layer(i, t))
            .collect::<Result<_, _>>()?;
        let head = match config.tie_word_embeddings {
            true => None,
            false => Some(reader.linear("lm_head", t.vocab_size, t.hidden_size)?),
        };
        Ok(ReferenceModel {
            tower,
            embedding: weights.read(
                "model.text_model.embed_tokens.weight",
                &[t.vocab_size, t.hidden_size],
            )?,
            text,
            final_norm: reader.vector("model.text_model.norm.weight", t.hidden_size)?,
            head,
            compute,
            config,
        })
    }

    /// Starts a conversation.
    pub fn start(self: &Arc<Self>) -> ReferenceEngine {
        ReferenceEngine {
            keys: vec![Vec::new(); self.text.len()],
            values: vec![Vec::new(); self.text.len()],
            model: self.clone(),
            len: 0,
            last_hidden: None,
        }
    }

    fn apply(&self, linear: &Linear, x: &[f32]) -> Vec<f32> {
        linear.apply(&self.compute, x)
    }
}

/// One conversation on a [`ReferenceModel`].
#[derive(Debug)]
pub struct ReferenceEngine {
    model: Arc<ReferenceModel>,
    /// Per layer `[positions, kv heads, head_dim]`, after rotary positions.
    keys: Vec<Vec<f32>>,
    /// Per layer `[positions, kv heads, head_dim]`.
    values: Vec<Vec<f32>>,
    len: usize,
    /// `[hidden]`
    last_hidden: Option<Vec<f32>>,
}

impl ReferenceEngine {
    /// Input embeddings with image rows merged in. `[ids, hidden]`
    fn embed(&self, ids: &[u32], image_rows: &[f32]) -> Result<Vec<f32>, RunError> {
        let (config, hidden) = (&self.model.config, self.model.config.text.hidden_size);
        let fault = |message: String| RunError::Engine {
            stage: "decoder",
            message,
        };
        let mut rows = image_rows.chunks_exact(hidden);
        let mut x = Vec::with_capacity(ids.len() * hidden);
        for id in ids {
            let row = if Some(*id) == config.image_token_id() {
                rows.next()
                    .ok_or_else(|| fault("more image tokens than image rows".into()))?
            } else {
                let vocab = config.text.vocab_size;
                self.model
                    .embedding
                    .chunks_exact(hidden)
                    .nth(*id as usize)
                    .ok_or_else(|| fault(format!("token id {id}, the vocabulary has {vocab}")))?
            };
            x.extend_from_slice(row);
        }
        if rows.next().is_some() {
            return Err(fault("more image rows than image tokens".into()));
        }
        Ok(x)
    }

    /// Causal attention of new queries over all keys so far. `q`: `[m, heads, head_dim]`
    fn attend(&self, layer: usize, q: &[f32], first: usize) -> Vec<f32> {
        let t = &self.model.config.text;
        let (d, kv_width) = (t.head_dim, t.n_kv_heads * t.head_dim);
        let per_kv = t.n_heads / t.n_kv_heads;
        let mut out = vec![0f32; q.len()];
        for (row, (q, out)) in q
            .chunks_exact(t.n_heads * d)
            .zip(out.chunks_exact_mut(t.n_heads * d))
            .enumerate()
        {
            for head in 0..t.n_heads {
                let offset = head / per_kv * d;
                let q = &q[head * d..][..d];
                let key = |p: usize| &self.keys[layer][p * kv_width + offset..][..d];
                let mut scores: Vec<f32> = (0..=first + row)
                    .map(|p| dot(q, key(p)) / (d as f32).sqrt())
                    .collect();
                softmax(&mut scores);
                for (p, weight) in scores.iter().enumerate() {
                    let value = &self.values[layer][p * kv_width + offset..][..d];
                    for (out, value) in out[head * d..][..d].iter_mut().zip(value) {
                        *out += weight * value;
                    }
                }
            }
        }
        out
    }
}

impl Engine for ReferenceEngine {
    fn encode(&mut self, frame: &[u8]) -> Result<Vec<f32>, RunError> {
        let tower = self.model.tower.as_ref().ok_or(RunError::NoVision)?;
        Ok(tower.encode(frame))
    }

    fn append(&mut self, ids: &[u32], image_rows: &[f32]) -> Result<(), RunError> {
        if ids.is_empty() {
            return Ok(());
        }
        let model = self.model.clone();
        let t = &model.config.text;
        if self.len + ids.len() > t.max_positions {
            return Err(RunError::ContextFull {
                position: self.len,
                additional: ids.len(),
                limit: t.max_positions,
            });
        }
        let mut x = self.embed(ids, image_rows)?;
        let first = self.len;
        for (i, layer) in model.text.iter().enumerate() {
            let normed = rms_norm(&x, &layer.norm1, t.rms_norm_eps);
            let mut q = model.apply(&layer.q, &normed);
            let mut k = model.apply(&layer.k, &normed);
            rotate_half(&mut q, t.n_heads, t, first);
            rotate_half(&mut k, t.n_kv_heads, t, first);
            self.keys[i].extend_from_slice(&k);
            self.values[i].extend_from_slice(&model.apply(&layer.v, &normed));
            let ctx = self.attend(i, &q, first);
            add(&mut x, &model.apply(&layer.out, &ctx));
            let normed = rms_norm(&x, &layer.norm2, t.rms_norm_eps);
            let mut inner = model.apply(&layer.gate, &normed);
            let up = model.apply(&layer.up, &normed);
            for (gate, up) in inner.iter_mut().zip(&up) {
                *gate = *gate / (1.0 + (-*gate).exp()) * up;
            }
            add(&mut x, &model.apply(&layer.down, &inner));
        }
        self.len += ids.len();
        self.last_hidden = Some(x[x.len() - t.hidden_size..].to_vec());
        Ok(())
    }

    fn logits(&mut self, out: &mut Vec<f32>) -> Result<(), RunError> {
        let hidden = self.last_hidden.as_ref().ok_or(RunError::NothingAppended)?;
        let model = &self.model;
        let t = &model.config.text;
        let x = rms_norm(hidden, &model.final_norm, t.rms_norm_eps);
        let head = model
            .head
            .as_ref()
            .map_or(&model.embedding, |head| &head.weight);
        out.resize(t.vocab_size, 0.0);
        f32_gemm::matmul(
            &model.compute,
            &x,
            head,
            None,
            1,
            t.vocab_size,
            t.hidden_size,
            out,
        );
        Ok(())
    }

    /// Nothing: this path allocates as it goes.
    fn reserve(&mut self, _: usize) {}

    fn position(&self) -> usize {
        self.len
    }

    fn truncate(&mut self, len: usize) {
        let t = &self.model.config.text;
        let width = t.n_kv_heads * t.head_dim;
        self.len = self.len.min(len);
        self.last_hidden = None;
        for cache in self.keys.iter_mut().chain(&mut self.values) {
            cache.truncate(self.len * width);
        }
    }

    fn to_model_basis(&self, _: &mut [f32]) {}

    fn kv_bytes(&self) -> usize {
        self.keys
            .iter()
            .chain(&self.values)
            .map(|cache| cache.len() * 4)
            .sum()
    }

    fn scratch_bytes(&self) -> usize {
        0
    }
}

fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `x/√(mean(x²) + eps)·weight` per row.
fn rms_norm(x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let width = weight.len();
    let mut out = Vec::with_capacity(x.len());
    for row in x.chunks_exact(width) {
        let mean = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / width as f64;
        let scale = 1.0 / (mean + f64::from(eps)).sqrt();
        out.extend(
            row.iter()
                .zip(weight)
                .map(|(v, w)| (f64::from(*v) * scale) as f32 * w),
        );
    }
    out
}

fn softmax(row: &mut [f32]) {
    let max = row.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
    row.iter_mut().for_each(|v| *v = (*v - max).exp());
    let sum: f32 = row.iter().sum();
    row.iter_mut().for_each(|v| *v /= sum);
}

/// Rotary positions, halves rotated against each other. `rows`: `[m, n_heads, head_dim]`
fn rotate_half(rows: &mut [f32], n_heads: usize, t: &TextConfig, first: usize) {
    let (d, half) = (t.head_dim, t.head_dim / 2);
    for (i, row) in rows.chunks_exact_mut(n_heads * d).enumerate() {
        for j in 0..half {
            let frequency = 1.0 / t.rope_theta.powf((2 * j) as f32 / d as f32);
            let (sin, cos) = ((first + i) as f32 * frequency).sin_cos();
            for head in row.chunks_exact_mut(d) {
                let (a, b) = (head[j], head[j + half]);
                head[j] = a * cos - b * sin;
                head[j + half] = b * cos + a * sin;
            }
        }
    }
}
