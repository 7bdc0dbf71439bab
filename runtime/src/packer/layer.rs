//! The matrices of a decoder layer in a pack: which published weights each holds, and in what order
//! of rows.

use super::fold::Linear;
use crate::config::TextConfig;
use crate::import::{FloatWeights, ImportError};
use ocelli_kernels::int4_groups::Int4Groups;
use ocelli_kernels::panels::PANEL_ROWS;

/// What a matrix of a layer reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// The residual stream, normed, in front of attention.
    Attention,
    /// What attention gives.
    Context,
    /// The residual stream, normed, in front of the feed-forward part.
    FeedForward,
    /// `silu(gate)·up`
    Inner,
}

impl Input {
    /// All, in the order of the layer.
    pub(super) const ALL: [Input; 4] = [
        Input::Attention,
        Input::Context,
        Input::FeedForward,
        Input::Inner,
    ];

    /// The norm that makes it: its name in the pack, and the published one.
    pub(super) fn norm(self, layer: usize) -> Option<(String, String)> {
        let (part, published) = match self {
            Input::Attention => ("qkv_norm", "input_layernorm"),
            Input::FeedForward => ("gate_up_norm", "post_attention_layernorm"),
            Input::Context | Input::Inner => return None,
        };
        Some((
            format!("text.{layer}.{part}"),
            format!("model.text_model.layers.{layer}.{published}.weight"),
        ))
    }
}

/// A matrix of a decoder layer.
#[derive(Clone, Debug)]
pub(super) struct LayerMatrix {
    /// Name in the pack, e.g. `text.3.gate_up`.
    pub(super) name: String,
    pub(super) input: Input,
    /// Names and rows of the published weights in it.
    weights: Vec<(String, usize)>,
    pub(super) k: usize,
}

/// The matrices of a layer in the order of the pack; `v_apart`: v is a matrix of its own.
pub(super) fn matrices(t: &TextConfig, layer: usize, v_apart: bool) -> Vec<LayerMatrix> {
    let (hidden, inter) = (t.hidden_size, t.intermediate_size);
    let (heads, kv) = (t.n_heads * t.head_dim, t.n_kv_heads * t.head_dim);
    let matrix = |part: &str, input, weights: &[(&str, usize)], k| LayerMatrix {
        name: format!("text.{layer}.{part}"),
        input,
        weights: weights
            .iter()
            .map(|(name, rows)| {
                let name = format!("model.text_model.layers.{layer}.{name}.weight");
                (name, *rows)
            })
            .collect(),
        k,
    };
    let qkv = [
        ("self_attn.q_proj", heads),
        ("self_attn.k_proj", kv),
        ("self_attn.v_proj", kv),
    ];
    let gate_up = [("mlp.gate_proj", inter), ("mlp.up_proj", inter)];
    let mut matrices = match v_apart {
        true => vec![
            matrix("qk", Input::Attention, &qkv[..2], hidden),
            matrix("v", Input::Attention, &qkv[2..], hidden),
        ],
        false => vec![matrix("qkv", Input::Attention, &qkv, hidden)],
    };
    matrices.extend([
        matrix(
            "out",
            Input::Context,
            &[("self_attn.o_proj", hidden)],
            heads,
        ),
        matrix("gate_up", Input::FeedForward, &gate_up, hidden),
        matrix("down", Input::Inner, &[("mlp.down_proj", hidden)], inter),
    ]);
    matrices
}

impl LayerMatrix {
    /// The last part of its name.
    pub(super) fn part(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or_default()
    }

    /// Output rows.
    pub(super) fn n(&self) -> usize {
        self.rows().sum()
    }

    /// Output rows of each published weight in it.
    pub(super) fn rows(&self) -> impl Iterator<Item = usize> {
        self.weights.iter().map(|(_, rows)| *rows)
    }

    /// Whether its output is added to the residual stream.
    pub(super) fn writes_stream(&self) -> bool {
        self.input.norm(0).is_none()
    }

    /// Whether its two weights take turns, by panels.
    fn alternates(&self) -> bool {
        self.input == Input::FeedForward
    }

    /// Its weights as floats, in the order of the pack.
    pub(super) fn floats(&self, weights: &dyn FloatWeights) -> Result<Linear, ImportError> {
        let parts = self.weights.iter().map(|(name, rows)| {
            Ok(Linear {
                weight: weights.read(name, &[*rows, self.k])?,
                bias: None,
                n: *rows,
                k: self.k,
            })
        });
        let parts = parts.collect::<Result<Vec<Linear>, ImportError>>()?;
        Ok(match parts.as_slice() {
            [gate, up] if self.alternates() => Linear::alternate(gate, up, PANEL_ROWS),
            parts => Linear::stack(parts),
        })
    }

    /// Its numbers in the order of the pack, if all its weights lie on a symmetric 4-bit grid in
    /// their file.
    pub(super) fn int4_groups(
        &self,
        weights: &dyn FloatWeights,
    ) -> Result<Option<Int4Groups>, ImportError> {
        let mut parts = Vec::with_capacity(self.weights.len());
        for (name, rows) in &self.weights {
            match weights.int4_groups(name, [*rows, self.k])? {
                Some(groups) => parts.push(groups),
                None => return Ok(None),
            }
        }
        Ok(Some(match parts.as_slice() {
            [gate, up] if self.alternates() => Int4Groups::alternate(gate, up, PANEL_ROWS),
            parts => Int4Groups::stack(parts),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ocelli_kernels::half::{f16_bits_to_f32, f32_to_f16_bits};
    use std::path::Path;

    /// Every weight on the grid: the value of a row in a file is told by its name and number.
    #[derive(Debug)]
    struct OnGrid;

    fn number(name: &str, row: usize) -> (i8, u16) {
        let sum: usize = name.bytes().map(usize::from).sum();
        let scale = f32_to_f16_bits((1 + sum % 7) as f32);
        (((sum + 3 * row) % 16) as i8 - 8, scale)
    }

    impl FloatWeights for OnGrid {
        fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ImportError> {
            let row = |row| {
                let (value, scale) = number(name, row);
                std::iter::repeat_n(f32::from(value) * f16_bits_to_f32(scale), shape[1])
            };
            Ok((0..shape[0]).flat_map(row).collect())
        }

        fn strips<'s>(&'s self, _: &'s str, _: [usize; 2], _: usize) -> crate::import::Strips<'s> {
            Box::new(std::iter::empty())
        }

        fn int4_groups(
            &self,
            name: &str,
            [n, k]: [usize; 2],
        ) -> Result<Option<Int4Groups>, ImportError> {
            let numbers: Vec<(i8, u16)> = (0..n).map(|row| number(name, row)).collect();
            let values = numbers.iter().flat_map(|(q, _)| std::iter::repeat_n(*q, k));
            let scales = numbers
                .iter()
                .flat_map(|(_, s)| std::iter::repeat_n(*s, k / 32));
            Ok(Some(Int4Groups::new(values.collect(), scales.collect(), k)))
        }

        fn files(&self) -> Vec<(&Path, &[u8])> {
            Vec::new()
        }
    }

    #[test]
    fn numbers_on_a_grid_have_the_order_of_the_floats() {
        let config = TextConfig {
            hidden_size: 64,
            intermediate_size: 96,
            n_layers: 1,
            n_heads: 4,
            n_kv_heads: 2,
            head_dim: 16,
            vocab_size: 24,
            rope_theta: 1e4,
            rms_norm_eps: 1e-5,
            max_positions: 64,
        };
        for v_apart in [false, true] {
            for matrix in matrices(&config, 0, v_apart) {
                let floats = matrix.floats(&OnGrid).unwrap();
                let groups = matrix.int4_groups(&OnGrid).unwrap().unwrap();
                assert_eq!((floats.n, floats.k), (matrix.n(), matrix.k));
                assert_eq!(groups.k(), matrix.k);
                let scaled =
                    |(i, q): (usize, &i8)| f32::from(*q) * f16_bits_to_f32(groups.scales()[i / 32]);
                let values: Vec<f32> = groups.values().iter().enumerate().map(scaled).collect();
                assert_eq!(values, floats.weight, "{}", matrix.name);
            }
        }
    }
}
