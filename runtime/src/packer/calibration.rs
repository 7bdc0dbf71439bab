//! Calibration: a short text runs through the decoder in f32, layer by layer, and leaves
//! behind how the inputs of each linear go together.

use super::PackModelError;
use super::arithmetic::Arithmetic;
use super::feedback::Moments;
use super::layer::{Input, LayerMatrix};
use super::storage::Storage;
use crate::config::{ModelFiles, TextConfig};
use crate::import::FloatWeights;
use crate::pack::{StreamBasis, WeightScheme};
use crate::rotation::Rotation;
use crate::tokenizer::Tokenizer;
use ocelli_kernels::FloatTier;
use ocelli_kernels::activation::{exp_slice, silu_slice};
use ocelli_kernels::ordered::{Rows, RowsMut};
use ocelli_kernels::panels::PANEL_ROWS;
use ocelli_kernels::rope::RopeTable;

/// Written for this purpose: prose, dialogue, lists, code, captions, forms.
const BUILT_IN: &str = include_str!("calibration.txt");
/// Tokens that see each other.
const WINDOW: usize = 256;
/// Bytes of a text that are cut into tokens for each that counts, many times what one has.
const BYTES_PER_TOKEN: usize = 64;
/// Most windows of a text for weights that are rounded to int8, and to int4, which loses more.
const INT8_WINDOWS: usize = 14;
const INT4_WINDOWS: usize = 48;
/// Windows that are taken whatever memory they want.
const FEWEST_WINDOWS: usize = 7;
/// Bytes that what goes through the decoder may take, if more windows than these want more.
const MOST_BYTES: usize = 256_000_000;

/// The text that says how the decoder's inputs go together.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum CalibrationText {
    /// The one that comes with the program.
    #[default]
    BuiltIn,
    /// Another; its first 3584 tokens count, with int4 weights 12 288, of wide models fewer.
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

/// The text on its way through the decoder: what is stored in front of an input has made it.
#[derive(Debug)]
pub(super) struct Calibration<'a> {
    weights: &'a dyn FloatWeights,
    config: &'a TextConfig,
    /// Basis of the residual stream.
    basis: StreamBasis,
    rope: RopeTable,
    /// Tokens of a window; the last one may have fewer.
    window: usize,
    /// Residual stream. `[tokens, hidden]`
    x: Vec<f32>,
    /// What the next matrices read. `[tokens, k]`
    input: Vec<f32>,
    /// What the matrices made of the last input that do not write to the stream: queries, keys and
    /// values, or `silu(gate)·up`. `[tokens, n]` each
    made: Vec<Vec<f32>>,
}

/// Windows of a text that count where layers are stored so, as far as memory allows.
pub(super) fn windows(t: &TextConfig, storage: &Storage) -> usize {
    let most = match storage {
        Storage::Rotated(WeightScheme::Int4) => INT4_WINDOWS,
        // What is not on a grid becomes int8.
        Storage::Rotated(WeightScheme::Int8) | Storage::OnGrid(_) => INT8_WINDOWS,
    };
    // The stream, its norm and `silu(gate)·up`.
    let values = t.intermediate_size.saturating_add(2 * t.hidden_size);
    let fit = MOST_BYTES / (WINDOW * size_of::<f32>()) / values.max(1);
    fit.clamp(FEWEST_WINDOWS, most)
}

/// The tokens of the text that count, of so many windows; none for no text.
///
/// # Errors
///
/// A tokenizer that cannot be used.
pub(super) fn tokens(
    files: &ModelFiles,
    text: &CalibrationText,
    windows: usize,
) -> Result<Vec<u32>, PackModelError> {
    let Some(text) = text.text() else {
        return Ok(Vec::new());
    };
    let tokenizer = Tokenizer::from_bytes(&files.tokenizer_json, &files.config, &files.generation)?;
    let most = WINDOW.min(files.config.text.max_positions) * windows;
    let read = text.floor_char_boundary(most.saturating_mul(BYTES_PER_TOKEN));
    let mut ids = tokenizer.encode(&text[..read])?;
    ids.truncate(most);
    Ok(ids)
}

impl<'a> Calibration<'a> {
    /// `x`: the embeddings of [`tokens`] in this basis, `[tokens, hidden]`.
    pub(super) fn new(
        config: &'a TextConfig,
        weights: &'a dyn FloatWeights,
        basis: StreamBasis,
        x: Vec<f32>,
    ) -> Self {
        let window = WINDOW.min(config.max_positions);
        Calibration {
            weights,
            config,
            basis,
            rope: RopeTable::new(config.head_dim, f64::from(config.rope_theta), window),
            window,
            x,
            input: Vec::new(),
            made: Vec::new(),
        }
    }

    /// Goes on to the next input of a layer, which is read by [`multiply`](Self::multiply).
    ///
    /// # Errors
    ///
    /// A tensor that is missing or of another shape.
    pub(super) fn reach(
        &mut self,
        arithmetic: &Arithmetic,
        layer: usize,
        input: Input,
    ) -> Result<(), PackModelError> {
        // The last one, before another is made.
        self.input = Vec::new();
        let mut made = std::mem::take(&mut self.made);
        self.input = match (input, made.as_mut_slice()) {
            (Input::Context, [q, k, v]) => self.attend(arithmetic, q, k, v),
            (Input::Inner, [inner]) => std::mem::take(inner),
            _ => self.normed(),
        };
        if let (Some((_, norm)), StreamBasis::Published) = (input.norm(layer), self.basis) {
            let weight = self.weights.read(&norm, &[self.config.hidden_size])?;
            scale(&mut self.input, &weight);
        }
        Ok(())
    }

    /// Moments of the input.
    pub(super) fn moments(&self, arithmetic: &Arithmetic, k: usize) -> Moments {
        Moments::of(arithmetic, &self.input, k)
    }

    /// Lets a matrix read the input. `stored`: its weights as the pack has them, `[n, k]`
    pub(super) fn multiply(
        &mut self,
        arithmetic: &Arithmetic,
        matrix: &LayerMatrix,
        stored: &[f32],
    ) {
        let (t, n, k) = (self.config, matrix.n(), matrix.k);
        let widths: Vec<usize> = match matrix.input {
            Input::Attention => matrix.rows().collect(),
            Input::FeedForward => vec![t.intermediate_size],
            Input::Context | Input::Inner => Vec::new(),
        };
        let first = self.made.len();
        let tokens = self.input.len() / k;
        let rooms = widths
            .iter()
            .map(|width| Vec::with_capacity(tokens * width));
        self.made.extend(rooms);
        let windows = self.input.chunks(self.window * k);
        let streams = self.x.chunks_mut(self.window * t.hidden_size);
        for (input, x) in windows.zip(streams) {
            let output = arithmetic.product(input, stored, k);
            match matrix.input {
                Input::Attention => {
                    for row in output.chunks_exact(n) {
                        let mut rest = row;
                        for (made, width) in self.made[first..].iter_mut().zip(&widths) {
                            let (part, others) = rest.split_at(*width);
                            made.extend_from_slice(part);
                            rest = others;
                        }
                    }
                }
                Input::FeedForward => {
                    let rows = output.chunks_exact(n);
                    self.made[first].extend(rows.flat_map(gated));
                }
                Input::Context | Input::Inner => {
                    for (x, y) in x.iter_mut().zip(&output) {
                        *x += y;
                    }
                }
            }
        }
    }

    /// Moments of the head's input, after the last layer, in the basis of `rotation`.
    pub(super) fn head(&self, arithmetic: &Arithmetic, rotation: &Rotation) -> Moments {
        let width = self.config.hidden_size;
        let mut rows = self.normed();
        if self.basis == StreamBasis::Published {
            for row in rows.chunks_exact_mut(width) {
                rotation.rotate(row);
            }
        }
        Moments::of(arithmetic, &rows, width)
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

    /// Causal attention inside each window, with rotary positions. `q`: `[tokens, heads · head_dim]`,
    /// `k`, `v`: `[tokens, kv heads · head_dim]` → as `q`
    fn attend(&self, arithmetic: &Arithmetic, q: &mut [f32], k: &mut [f32], v: &[f32]) -> Vec<f32> {
        let (t, size) = (self.config, self.window);
        let (width, kv) = (t.n_heads * t.head_dim, t.n_kv_heads * t.head_dim);
        self.turn(q, t.n_heads);
        self.turn(k, t.n_kv_heads);
        let group = t.n_heads / t.n_kv_heads;
        let mut out = vec![0f32; q.len()];
        let pool = &arithmetic.pool;
        pool.for_each_chunk_mut(&mut out, size * width, &|window, out| {
            let (first, n) = (window * size, out.len() / width);
            let (k, v) = (&k[first * kv..][..n * kv], &v[first * kv..][..n * kv]);
            let columns = transposed(k, kv);
            for (i, out) in out.chunks_exact_mut(width).enumerate() {
                let q = &q[(first + i) * width..][..width];
                for head in 0..t.n_kv_heads {
                    // Queries of a group read the same keys and values.
                    let size = [group, t.head_dim, i + 1];
                    let first = head * group * t.head_dim;
                    let queries = Rows::new(&q[first..], t.head_dim);
                    let columns = Rows::new(&columns[head * t.head_dim * n..], n);
                    let mut scores = vec![0f32; group * (i + 1)];
                    let to = RowsMut::new(&mut scores, i + 1);
                    arithmetic.add_products(size, queries, columns, to);
                    for scores in scores.chunks_exact_mut(i + 1) {
                        softmax(scores, t.head_dim);
                    }
                    let size = [group, i + 1, t.head_dim];
                    let scores = Rows::new(&scores, i + 1);
                    let v = Rows::new(&v[head * t.head_dim..], kv);
                    let to = RowsMut::new(&mut out[first..], t.head_dim);
                    arithmetic.add_products(size, scores, v, to);
                }
            }
        });
        out
    }

    /// Gives rows rotary positions, those of each window from 0 on.
    fn turn(&self, rows: &mut [f32], n_heads: usize) {
        let width = n_heads * self.config.head_dim;
        for window in rows.chunks_mut(self.window * width) {
            self.rope.apply(window, width, n_heads, 0);
        }
    }
}

/// `silu(gate)·up` of a row in which gate and up take turns. `[2 · inter]` → `[inter]`
fn gated(row: &[f32]) -> impl Iterator<Item = f32> {
    row.chunks(2 * PANEL_ROWS).flat_map(|run| {
        let (gate, up) = run.split_at(run.len() / 2);
        let mut values = [0f32; PANEL_ROWS];
        silu_slice(FloatTier::SCALAR, gate, &mut values[..gate.len()]);
        for (value, up) in values.iter_mut().zip(up) {
            *value *= up;
        }
        values.into_iter().take(up.len())
    })
}

/// Multiplies rows by a norm's weight.
fn scale(rows: &mut [f32], weight: &[f32]) {
    for row in rows.chunks_exact_mut(weight.len()) {
        for (value, weight) in row.iter_mut().zip(weight) {
            *value *= weight;
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;
    use crate::import::safetensors::Checkpoint;
    use crate::packer::layer;
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
        let basis = StreamBasis::Published;
        let mut text = Calibration::new(config, &weights, basis, rows.copied().collect());
        for index in 0..config.n_layers {
            let matrices = layer::matrices(config, index, index % 2 == 0);
            for input in Input::ALL {
                text.reach(&arithmetic, index, input).unwrap();
                for matrix in matrices.iter().filter(|matrix| matrix.input == input) {
                    let floats = matrix.floats(&weights).unwrap();
                    text.multiply(&arithmetic, matrix, &floats.weight);
                }
            }
        }
        let compute = Arc::new(Compute::new(1).unwrap());
        let model = Arc::new(ReferenceModel::load(&files, &weights, compute).unwrap());
        let head = weights
            .read("lm_head.weight", &[config.vocab_size, config.hidden_size])
            .unwrap();
        let mut rows = text.normed();
        let norm = "model.text_model.norm.weight";
        scale(
            &mut rows,
            &weights.read(norm, &[config.hidden_size]).unwrap(),
        );
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
    fn int4_weights_take_more_text_and_both_as_much_as_memory_allows() {
        let (files, _) = default_model();
        let mut t = files.config.text.clone();
        for (hidden, inter, int4, int8) in [
            (576, 1536, 48, 14),
            (2048, 8192, 20, 14),
            (4096, 16384, 10, 10),
            (8192, 32768, 7, 7),
        ] {
            (t.hidden_size, t.intermediate_size) = (hidden, inter);
            let windows = |scheme| windows(&t, &Storage::Rotated(scheme));
            let found = (windows(WeightScheme::Int4), windows(WeightScheme::Int8));
            assert_eq!(found, (int4, int8), "{hidden} {inter}");
        }
    }

    #[test]
    fn no_text_has_no_tokens() {
        let (files, _) = default_model();
        for text in [CalibrationText::None, CalibrationText::Own(String::new())] {
            assert_eq!(tokens(&files, &text, 1).unwrap(), [0; 0], "{text:?}");
        }
    }
}
