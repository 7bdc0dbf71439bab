//! Calibration: a short text runs through the decoder in f32, layer by layer, and leaves
//! behind how the inputs of each linear go together.

use super::PackModelError;
use super::arithmetic::Arithmetic;
use super::feedback::Moments;
use crate::config::{ModelFiles, TextConfig};
use crate::import::FloatWeights;
use crate::pack::StreamBasis;
use crate::rotation::Rotation;
use crate::tokenizer::Tokenizer;
use ocelli_kernels::FloatTier;
use ocelli_kernels::activation::{exp_slice, silu_slice};
use ocelli_kernels::rope::RopeTable;

/// Written for this purpose: prose, dialogue, lists, code, captions, forms.
const BUILT_IN: &str = include_str!("calibration.txt");
/// Tokens that see each other.
const WINDOW: usize = 256;
/// Most windows of a text.
const MAX_WINDOWS: usize = 7;

/// The text that says how the decoder's inputs go together.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum CalibrationText {
    /// The one that comes with the program.
    #[default]
    BuiltIn,
    /// Another; its first 1792 tokens count.
    Own(String),
    /// None: every weight is rounded to nearest.
    None,
}

impl CalibrationText {
    fn text(&self) -> Option<&str> {
        match self {
            CalibrationText::BuiltIn => Some(BUILT_IN),
            CalibrationText::Own(text) => Some(text),
            CalibrationText::None => None,
        }
    }
}

/// The text on its way through the decoder.
#[derive(Debug)]
pub(super) struct Calibration<'a> {
    weights: &'a dyn FloatWeights,
    config: &'a TextConfig,
    /// Basis of the layers' inputs in the pack, and the rotation, in which the head's always is.
    basis: StreamBasis,
    rotation: &'a Rotation,
    rope: RopeTable,
    /// Tokens of a window; the last one may have fewer.
    window: usize,
    /// Residual stream. `[tokens, hidden]`
    x: Vec<f32>,
}

/// The tokens of the text that count; none for no text.
///
/// # Errors
///
/// A tokenizer that cannot be used.
pub(super) fn tokens(
    files: &ModelFiles,
    text: &CalibrationText,
) -> Result<Vec<u32>, PackModelError> {
    let Some(text) = text.text() else {
        return Ok(Vec::new());
    };
    let tokenizer = Tokenizer::from_bytes(&files.tokenizer_json, &files.config, &files.generation)?;
    let mut ids = tokenizer.encode(text)?;
    ids.truncate(WINDOW.min(files.config.text.max_positions) * MAX_WINDOWS);
    Ok(ids)
}

impl<'a> Calibration<'a> {
    /// `x`: the embeddings of [`tokens`], `[tokens, hidden]`.
    pub(super) fn new(
        config: &'a TextConfig,
        weights: &'a dyn FloatWeights,
        (basis, rotation): (StreamBasis, &'a Rotation),
        x: Vec<f32>,
    ) -> Self {
        let window = WINDOW.min(config.max_positions);
        Calibration {
            weights,
            config,
            basis,
            rotation,
            rope: RopeTable::new(config.head_dim, f64::from(config.rope_theta), window),
            window,
            x,
        }
    }

    /// Runs the text through the next layer: moments of those inputs of `qkv`, `out`, `gate_up` and
    /// `down` that are wanted, in the basis of the pack.
    ///
    /// # Errors
    ///
    /// A tensor that is missing or of another shape.
    pub(super) fn layer(
        &mut self,
        arithmetic: &Arithmetic,
        index: usize,
        wanted: [bool; 4],
    ) -> Result<[Option<Moments>; 4], PackModelError> {
        let t = self.config;
        let layer = format!("model.text_model.layers.{index}");
        let (hidden, heads, kv) = (
            t.hidden_size,
            t.n_heads * t.head_dim,
            t.n_kv_heads * t.head_dim,
        );
        let product = |input: &[f32], name: &str, n: usize, k: usize| {
            let weight = self
                .weights
                .read(&format!("{layer}.{name}.weight"), &[n, k])?;
            Ok::<_, PackModelError>(arithmetic.product(input, &weight, k))
        };

        let norm = format!("{layer}.input_layernorm.weight");
        let (input, qkv) = self.normed_input(arithmetic, &norm, wanted[0])?;
        let mut q = product(&input, "self_attn.q_proj", heads, hidden)?;
        let mut k = product(&input, "self_attn.k_proj", kv, hidden)?;
        let v = product(&input, "self_attn.v_proj", kv, hidden)?;
        for (rows, n_heads) in [(&mut q, t.n_heads), (&mut k, t.n_kv_heads)] {
            let width = n_heads * t.head_dim;
            for window in rows.chunks_mut(self.window * width) {
                self.rope.apply(window, width, n_heads, 0);
            }
        }
        let context = self.attend(arithmetic, &q, &k, &v);
        drop((q, k, v));
        let out = wanted[1].then(|| Moments::of(arithmetic, &context, heads));
        let projected = product(&context, "self_attn.o_proj", hidden, heads)?;
        add(&mut self.x, &projected);

        let norm = format!("{layer}.post_attention_layernorm.weight");
        let (input, gate_up) = self.normed_input(arithmetic, &norm, wanted[2])?;
        let inter = t.intermediate_size;
        let gate = product(&input, "mlp.gate_proj", inter, hidden)?;
        let mut inner = product(&input, "mlp.up_proj", inter, hidden)?;
        let mut gated = vec![0f32; inter];
        for (up, gate) in inner.chunks_exact_mut(inter).zip(gate.chunks_exact(inter)) {
            silu_slice(FloatTier::SCALAR, gate, &mut gated);
            for (up, gated) in up.iter_mut().zip(&gated) {
                *up *= gated;
            }
        }
        drop(gate);
        let down = wanted[3].then(|| Moments::of(arithmetic, &inner, inter));
        let projected = product(&inner, "mlp.down_proj", hidden, inter)?;
        add(&mut self.x, &projected);
        Ok([qkv, out, gate_up, down])
    }

    /// Moments of the head's input, after the last layer.
    pub(super) fn head(&self, arithmetic: &Arithmetic) -> Moments {
        self.rotated_moments(arithmetic, &self.normed())
    }

    /// The residual stream through a norm, and its moments if they are wanted: those in front of
    /// the norm's weight where that is folded.
    fn normed_input(
        &self,
        arithmetic: &Arithmetic,
        norm: &str,
        wanted: bool,
    ) -> Result<(Vec<f32>, Option<Moments>), PackModelError> {
        let mut input = self.normed();
        let folded = wanted && self.basis == StreamBasis::Rotated;
        let folded = folded.then(|| self.rotated_moments(arithmetic, &input));
        self.scale(&mut input, norm)?;
        let plain = wanted && self.basis == StreamBasis::Published;
        let plain = plain.then(|| Moments::of(arithmetic, &input, self.config.hidden_size));
        Ok((input, folded.or(plain)))
    }

    /// Weightless norm of the residual stream. `[tokens, hidden]`
    fn normed(&self) -> Vec<f32> {
        let width = self.config.hidden_size;
        let mut out = self.x.clone();
        for row in out.chunks_exact_mut(width) {
            let squares: f64 = row.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
            let mean = squares / width as f64 + f64::from(self.config.rms_norm_eps);
            let scale = 1.0 / mean.sqrt();
            for value in row {
                *value = (f64::from(*value) * scale) as f32;
            }
        }
        out
    }

    /// Moments of normed rows in the rotated basis.
    fn rotated_moments(&self, arithmetic: &Arithmetic, rows: &[f32]) -> Moments {
        let width = self.config.hidden_size;
        let mut rotated = rows.to_vec();
        for row in rotated.chunks_exact_mut(width) {
            self.rotation.rotate(row);
        }
        Moments::of(arithmetic, &rotated, width)
    }

    /// Multiplies rows by a norm's weight.
    fn scale(&self, rows: &mut [f32], norm: &str) -> Result<(), PackModelError> {
        let weight = self.weights.read(norm, &[self.config.hidden_size])?;
        for row in rows.chunks_exact_mut(weight.len()) {
            for (value, weight) in row.iter_mut().zip(&weight) {
                *value *= weight;
            }
        }
        Ok(())
    }

    /// Causal attention inside each window. `q`: `[tokens, heads · head_dim]`, `k`, `v`:
    /// `[tokens, kv heads · head_dim]` → as `q`
    fn attend(&self, arithmetic: &Arithmetic, q: &[f32], k: &[f32], v: &[f32]) -> Vec<f32> {
        let (t, size) = (self.config, self.window);
        let (width, kv) = (t.n_heads * t.head_dim, t.n_kv_heads * t.head_dim);
        let mut out = vec![0f32; q.len()];
        let pool = &arithmetic.pool;
        pool.for_each_chunk_mut(&mut out, size * width, &|window, out| {
            let (first, n) = (window * size, out.len() / width);
            let (k, v) = (&k[first * kv..][..n * kv], &v[first * kv..][..n * kv]);
            let columns = transposed(k, kv);
            for (i, out) in out.chunks_exact_mut(width).enumerate() {
                let q = &q[(first + i) * width..][..width];
                for head in 0..t.n_heads {
                    let at = head / (t.n_heads / t.n_kv_heads) * t.head_dim;
                    let q = &q[head * t.head_dim..][..t.head_dim];
                    let mut scores = vec![0f32; i + 1];
                    arithmetic.add_rows(q, &columns[at * n..], n, &mut scores);
                    softmax(&mut scores, t.head_dim);
                    let out = &mut out[head * t.head_dim..][..t.head_dim];
                    arithmetic.add_rows(&scores, &v[at..], kv, out);
                }
            }
        });
        out
    }
}

/// `[rows, width]` → `[width, rows]`
fn transposed(values: &[f32], width: usize) -> Vec<f32> {
    let columns = (0..width).flat_map(|j| values.iter().skip(j).step_by(width));
    columns.copied().collect()
}

/// Softmax of `scores / √head_dim`.
fn softmax(scores: &mut [f32], head_dim: usize) {
    let largest = scores.iter().fold(f32::NEG_INFINITY, |max, s| max.max(*s));
    let scale = 1.0 / (head_dim as f32).sqrt();
    let shifted: Vec<f32> = scores.iter().map(|s| (s - largest) * scale).collect();
    exp_slice(FloatTier::SCALAR, &shifted, scores);
    let sum: f32 = scores.iter().sum();
    for score in scores {
        *score /= sum;
    }
}

fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;
    use crate::import::safetensors::Checkpoint;
    use crate::reference::ReferenceModel;
    use ocelli_kernels::Compute;
    use std::path::Path;
    use std::sync::Arc;

    fn default_model() -> (ModelFiles, Checkpoint) {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/default");
        (
            ModelFiles::read(&dir).unwrap(),
            Checkpoint::open(&dir).unwrap(),
        )
    }

    #[test]
    fn the_text_goes_through_the_decoder_as_the_f32_path_does_window_by_window() {
        let (files, weights) = default_model();
        let config = &files.config.text;
        let ids: Vec<u32> = (0..WINDOW as u32 + 9).map(|i| 3 + i * 7 % 250).collect();
        let rotation = Rotation::new(config.hidden_size, 1);
        let arithmetic = Arithmetic::new();
        let embedding = weights
            .read(
                "model.text_model.embed_tokens.weight",
                &[config.vocab_size, config.hidden_size],
            )
            .unwrap();
        let rows = ids
            .iter()
            .flat_map(|id| &embedding[*id as usize * config.hidden_size..][..config.hidden_size]);
        let bases = (StreamBasis::Rotated, &rotation);
        let mut text = Calibration::new(config, &weights, bases, rows.copied().collect());
        for layer in 0..config.n_layers {
            text.layer(&arithmetic, layer, [true; 4]).unwrap();
        }
        let compute = Arc::new(Compute::new(1).unwrap());
        let model = Arc::new(ReferenceModel::load(&files, &weights, compute).unwrap());
        let head = weights
            .read("lm_head.weight", &[config.vocab_size, config.hidden_size])
            .unwrap();
        let mut rows = text.normed();
        text.scale(&mut rows, "model.text_model.norm.weight")
            .unwrap();
        for window in [0..WINDOW, WINDOW..ids.len()] {
            let mut engine = model.start();
            engine.append(&ids[window.clone()], &[]).unwrap();
            let mut logits = Vec::new();
            engine.logits(&mut logits).unwrap();
            let row = &rows[(window.end - 1) * config.hidden_size..][..config.hidden_size];
            let found = arithmetic.product(row, &head, config.hidden_size);
            for (a, b) in logits.iter().zip(&found) {
                assert!((a - b).abs() < 1e-3, "{a} {b}");
            }
        }
    }

    #[test]
    fn no_text_has_no_tokens() {
        let (files, _) = default_model();
        for text in [CalibrationText::None, CalibrationText::Own(String::new())] {
            assert_eq!(tokens(&files, &text).unwrap(), [0; 0], "{text:?}");
        }
    }
}
