//! The vision side of the checking path: frame bytes to image features.

use super::{Linear, Reader, add, softmax};
use crate::config::{PreprocessConfig, VisionConfig};
use crate::import::ImportError;
use ocelli_kernels::{Compute, f32_gemm};
use std::sync::Arc;

/// A LayerNorm. Both `[hidden]`
#[derive(Debug)]
struct LayerNorm {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

#[derive(Debug)]
struct VisionLayer {
    norm1: LayerNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

/// Encoder, pixel shuffle and modality projection in f32.
#[derive(Debug)]
pub(super) struct Tower {
    config: VisionConfig,
    preprocess: PreprocessConfig,
    compute: Arc<Compute>,
    patch: Linear,
    /// `[patches, hidden]`
    positions: Vec<f32>,
    layers: Vec<VisionLayer>,
    post_norm: LayerNorm,
    connector: Linear,
}

impl Reader<'_> {
    fn layer_norm(&self, name: &str, len: usize) -> Result<LayerNorm, ImportError> {
        Ok(LayerNorm {
            weight: self.vector(&format!("{name}.weight"), len)?,
            bias: self.vector(&format!("{name}.bias"), len)?,
        })
    }

    fn vision_layer(&self, i: usize, h: usize, inter: usize) -> Result<VisionLayer, ImportError> {
        let layer = format!("model.vision_model.encoder.layers.{i}");
        Ok(VisionLayer {
            norm1: self.layer_norm(&format!("{layer}.layer_norm1"), h)?,
            q: self.biased(&format!("{layer}.self_attn.q_proj"), h, h)?,
            k: self.biased(&format!("{layer}.self_attn.k_proj"), h, h)?,
            v: self.biased(&format!("{layer}.self_attn.v_proj"), h, h)?,
            out: self.biased(&format!("{layer}.self_attn.out_proj"), h, h)?,
            norm2: self.layer_norm(&format!("{layer}.layer_norm2"), h)?,
            fc1: self.biased(&format!("{layer}.mlp.fc1"), inter, h)?,
            fc2: self.biased(&format!("{layer}.mlp.fc2"), h, inter)?,
        })
    }
}

impl Tower {
    /// Reads the vision side of a checkpoint; `text_hidden` is the width of an image feature.
    pub(super) fn load(
        reader: &Reader<'_>,
        config: &VisionConfig,
        preprocess: &PreprocessConfig,
        text_hidden: usize,
        compute: Arc<Compute>,
    ) -> Result<Tower, ImportError> {
        let h = config.hidden_size;
        let embeddings = "model.vision_model.embeddings";
        let patch = Linear {
            weight: reader.0.read(
                &format!("{embeddings}.patch_embedding.weight"),
                &[h, 3, config.patch_size, config.patch_size],
            )?,
            bias: Some(reader.vector(&format!("{embeddings}.patch_embedding.bias"), h)?),
            n: h,
            k: 3 * config.patch_size * config.patch_size,
        };
        let positions = reader.0.read(
            &format!("{embeddings}.position_embedding.weight"),
            &[config.n_patches(), h],
        )?;
        Ok(Tower {
            patch,
            positions,
            layers: (0..config.n_layers)
                .map(|i| reader.vision_layer(i, h, config.intermediate_size))
                .collect::<Result<_, _>>()?,
            post_norm: reader.layer_norm("model.vision_model.post_layernorm", h)?,
            connector: reader.linear(
                "model.connector.modality_projection.proj",
                text_hidden,
                h * config.scale_factor * config.scale_factor,
            )?,
            preprocess: preprocess.clone(),
            config: config.clone(),
            compute,
        })
    }

    /// Image features of one frame. `[image tokens, text hidden]`
    pub(super) fn encode(&self, frame: &[u8]) -> Vec<f32> {
        let shuffled = self.pixel_shuffle(&self.encode_patches(frame));
        self.apply(&self.connector, &shuffled)
    }

    fn apply(&self, linear: &Linear, x: &[f32]) -> Vec<f32> {
        linear.apply(&self.compute, x)
    }

    /// Pixel values of one patch row, channel-major. `[patches, 3·patch²]`
    fn patch_rows(&self, frame: &[u8]) -> Vec<f32> {
        let v = &self.config;
        let (side, p, grid) = (v.image_size, v.patch_size, v.patches_per_side());
        let mut rows = Vec::with_capacity(v.n_patches() * self.patch.k);
        for patch in 0..v.n_patches() {
            let (top, left) = (patch / grid * p, patch % grid * p);
            for channel in 0..3 {
                for y in 0..p {
                    for x in 0..p {
                        let byte = frame[((top + y) * side + left + x) * 3 + channel];
                        let scaled = f64::from(byte) * self.preprocess.rescale_factor;
                        let mean = f64::from(self.preprocess.mean[channel]);
                        rows.push(
                            ((scaled - mean) / f64::from(self.preprocess.std[channel])) as f32,
                        );
                    }
                }
            }
        }
        rows
    }

    /// Vision encoder: frame bytes → hidden states after the final norm. `[patches, hidden]`
    fn encode_patches(&self, frame: &[u8]) -> Vec<f32> {
        let v = &self.config;
        let eps = v.layer_norm_eps;
        let mut x = self.apply(&self.patch, &self.patch_rows(frame));
        add(&mut x, &self.positions);
        for layer in &self.layers {
            let normed = layer_norm(&x, &layer.norm1, eps);
            let (q, k) = (self.apply(&layer.q, &normed), self.apply(&layer.k, &normed));
            let value = self.apply(&layer.v, &normed);
            let ctx = self.full_attention(&q, &k, &value);
            add(&mut x, &self.apply(&layer.out, &ctx));
            let mut inner = self.apply(&layer.fc1, &layer_norm(&x, &layer.norm2, eps));
            inner
                .iter_mut()
                .for_each(|value| *value = gelu_tanh(*value));
            add(&mut x, &self.apply(&layer.fc2, &inner));
        }
        layer_norm(&x, &self.post_norm, eps)
    }

    /// `softmax(q·kᵀ/√d)·v` per head. All `[patches, hidden]`
    fn full_attention(&self, q: &[f32], k: &[f32], v: &[f32]) -> Vec<f32> {
        let config = &self.config;
        let (n, hidden, d) = (config.n_patches(), config.hidden_size, config.head_dim());
        let mut out = vec![0f32; n * hidden];
        for head in 0..config.n_heads {
            let part = |x: &[f32]| -> Vec<f32> {
                x.chunks_exact(hidden)
                    .flat_map(|row| row[head * d..][..d].to_vec())
                    .collect()
            };
            let (q, k, v) = (part(q), part(k), part(v));
            let mut scores = vec![0f32; n * n];
            f32_gemm::matmul(&self.compute, &q, &k, None, n, n, d, &mut scores);
            for row in scores.chunks_exact_mut(n) {
                row.iter_mut().for_each(|s| *s /= (d as f32).sqrt());
                softmax(row);
            }
            let mut transposed = vec![0f32; n * d];
            for (i, row) in v.chunks_exact(d).enumerate() {
                for (j, value) in row.iter().enumerate() {
                    transposed[j * n + i] = *value;
                }
            }
            let mut ctx = vec![0f32; n * d];
            f32_gemm::matmul(&self.compute, &scores, &transposed, None, n, d, n, &mut ctx);
            for (row, ctx) in out.chunks_exact_mut(hidden).zip(ctx.chunks_exact(d)) {
                row[head * d..][..d].copy_from_slice(ctx);
            }
        }
        out
    }

    /// Pixel shuffle: `[n·n, d] → [(n/s)², d·s²]`.
    fn pixel_shuffle(&self, x: &[f32]) -> Vec<f32> {
        let (s, d) = (self.config.scale_factor, self.config.hidden_size);
        let grid = self.config.patches_per_side();
        let side = grid / s;
        let mut out = Vec::with_capacity(x.len());
        for row in 0..side {
            for col in 0..side {
                for dr in 0..s {
                    let first = (row * s + dr) * grid + col * s;
                    out.extend_from_slice(&x[first * d..][..s * d]);
                }
            }
        }
        out
    }
}

/// `(x − mean)/√(var + eps)·weight + bias` per row.
fn layer_norm(x: &[f32], norm: &LayerNorm, eps: f32) -> Vec<f32> {
    let width = norm.weight.len();
    let mut out = Vec::with_capacity(x.len());
    for row in x.chunks_exact(width) {
        let mean = row.iter().map(|v| f64::from(*v)).sum::<f64>() / width as f64;
        let var = row
            .iter()
            .map(|v| (f64::from(*v) - mean).powi(2))
            .sum::<f64>()
            / width as f64;
        let scale = 1.0 / (var + f64::from(eps)).sqrt();
        let affine = norm.weight.iter().zip(&norm.bias);
        out.extend(
            row.iter()
                .zip(affine)
                .map(|(v, (weight, bias))| ((f64::from(*v) - mean) * scale) as f32 * weight + bias),
        );
    }
    out
}

/// `0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))`
fn gelu_tanh(x: f32) -> f32 {
    let inner = (2.0 / std::f32::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
    0.5 * x * (1.0 + inner.tanh())
}
