//! How much arithmetic and reading a stage is, from the shapes of the pack.

use super::rounds::Lengths;
use ocelli_kernels::nibble_panels;
use ocelli_kernels::panels::PANEL_ROWS;
use ocelli_runtime::pack::{Header, Layout, TensorEntry};

/// The work of one round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Work {
    /// Multiply-accumulates of an image tile, attention included; `None` for a model that reads
    /// text only.
    pub(super) encode_macs: Option<f64>,
    /// Multiply-accumulates of the prefill; the head is run for its last token only.
    pub(super) prefill_macs: f64,
    /// Bytes of weights that a decode step reads: every matrix of the decoder and the head once,
    /// one row of the embedding table. For a greedy token the high plane
    /// of a head in two; what is read of the other depends on the logits, and is a few panels.
    pub(super) token_bytes: u64,
    /// The same with the keys and values of half the positions that are added.
    pub(super) decode_bytes: f64,
}

/// Bytes of a matrix that every decode step reads.
fn step_bytes(tensor: &TensorEntry, lengths: Lengths) -> u64 {
    let [n, k] = tensor.shape;
    match tensor.layout {
        Layout::NibblePanels if !lengths.all_logits => {
            (n.div_ceil(PANEL_ROWS) * nibble_panels::high_stride(k)) as u64
        }
        _ => tensor.len,
    }
}

impl Work {
    pub(super) fn of(header: &Header, lengths: Lengths) -> Work {
        let text = &header.config.text;
        let panels = |prefix: &'static str| {
            let tensors = header.tensors.iter();
            tensors.filter(move |t| t.name.starts_with(prefix) && t.layout.is_panels())
        };
        let weights = |t: &TensorEntry| t.shape[0] as f64 * t.shape[1] as f64;
        let count = |prefix| panels(prefix).map(weights).sum::<f64>();

        let encode_macs = header.config.vision.as_ref().map(|vision| {
            let patches = vision.n_patches() as f64;
            let attention = 2.0 * patches * patches * (vision.hidden_size * vision.n_layers) as f64;
            let connector = header.image_seq_len as f64 * count("connector");
            patches * count("vision.") + attention + connector
        });

        let head = count("text.head");
        let prefill = lengths.prefill as f64;
        let pairs = prefill * (prefill + 1.0) / 2.0;
        let text_attention = 2.0 * pairs * (text.n_heads * text.head_dim * text.n_layers) as f64;
        let prefill_macs = prefill * (count("text.") - head) + text_attention + head;

        let kv_row = 2 * 2 * text.n_kv_heads * text.head_dim * text.n_layers;
        let position = prefill + lengths.decode as f64 / 2.0;
        let token_bytes = panels("text.").map(|t| step_bytes(t, lengths)).sum::<u64>()
            + 2 * text.hidden_size as u64;
        let decode_bytes = token_bytes as f64 + position * kv_row as f64;
        Work {
            encode_macs,
            prefill_macs,
            token_bytes,
            decode_bytes,
        }
    }
}
