//! Which GGUF tensor holds which weight of the published checkpoints, and what llama.cpp's
//! converter did to its rows.

use super::error::GgufError;
use super::file::GgufFile;
use crate::config::{TextConfig, VisionConfig};

/// Which file a tensor is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The file of the text model.
    Text,
    /// The projector file.
    Projector,
}

/// How the rows of a matrix lie in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rows {
    /// As published.
    Plain,
    /// Rotary pairs side by side, in every query head.
    Queries,
    /// The same in every key head.
    Keys,
}

/// One line of the table of names; `{}` stands for the number of a layer.
struct Pairing {
    holder: Holder,
    published: &'static str,
    gguf: &'static str,
    rows: Rows,
    bias: bool,
}

const fn text(published: &'static str, gguf: &'static str, rows: Rows) -> Pairing {
    Pairing {
        holder: Holder::Text,
        published,
        gguf,
        rows,
        bias: false,
    }
}

const fn vision(published: &'static str, gguf: &'static str, bias: bool) -> Pairing {
    Pairing {
        holder: Holder::Projector,
        published,
        gguf,
        rows: Rows::Plain,
        bias,
    }
}

/// Every weight, without `.weight` or `.bias`.
const PAIRINGS: [Pairing; 23] = [
    text("model.text_model.embed_tokens", "token_embd", Rows::Plain),
    text("model.text_model.norm", "output_norm", Rows::Plain),
    text("lm_head", "output", Rows::Plain),
    text(
        "model.text_model.layers.{}.input_layernorm",
        "blk.{}.attn_norm",
        Rows::Plain,
    ),
    text(
        "model.text_model.layers.{}.self_attn.q_proj",
        "blk.{}.attn_q",
        Rows::Queries,
    ),
    text(
        "model.text_model.layers.{}.self_attn.k_proj",
        "blk.{}.attn_k",
        Rows::Keys,
    ),
    text(
        "model.text_model.layers.{}.self_attn.v_proj",
        "blk.{}.attn_v",
        Rows::Plain,
    ),
    text(
        "model.text_model.layers.{}.self_attn.o_proj",
        "blk.{}.attn_output",
        Rows::Plain,
    ),
    text(
        "model.text_model.layers.{}.post_attention_layernorm",
        "blk.{}.ffn_norm",
        Rows::Plain,
    ),
    text(
        "model.text_model.layers.{}.mlp.gate_proj",
        "blk.{}.ffn_gate",
        Rows::Plain,
    ),
    text(
        "model.text_model.layers.{}.mlp.up_proj",
        "blk.{}.ffn_up",
        Rows::Plain,
    ),
    text(
        "model.text_model.layers.{}.mlp.down_proj",
        "blk.{}.ffn_down",
        Rows::Plain,
    ),
    vision(
        "model.vision_model.embeddings.patch_embedding",
        "v.patch_embd",
        true,
    ),
    vision(
        "model.vision_model.embeddings.position_embedding",
        "v.position_embd",
        false,
    ),
    vision(
        "model.vision_model.encoder.layers.{}.self_attn.q_proj",
        "v.blk.{}.attn_q",
        true,
    ),
    vision(
        "model.vision_model.encoder.layers.{}.self_attn.k_proj",
        "v.blk.{}.attn_k",
        true,
    ),
    vision(
        "model.vision_model.encoder.layers.{}.self_attn.v_proj",
        "v.blk.{}.attn_v",
        true,
    ),
    vision(
        "model.vision_model.encoder.layers.{}.self_attn.out_proj",
        "v.blk.{}.attn_out",
        true,
    ),
    vision(
        "model.vision_model.encoder.layers.{}.layer_norm1",
        "v.blk.{}.ln1",
        true,
    ),
    vision(
        "model.vision_model.encoder.layers.{}.layer_norm2",
        "v.blk.{}.ln2",
        true,
    ),
    vision("model.vision_model.encoder.layers.{}.mlp.fc1", FC1, true),
    vision("model.vision_model.encoder.layers.{}.mlp.fc2", FC2, true),
    vision("model.vision_model.post_layernorm", "v.post_ln", true),
];

/// The modality projection, which has no bias.
const CONNECTOR: Pairing = vision(
    "model.connector.modality_projection.proj",
    "mm.model.fc",
    false,
);

const FC1: &str = "v.blk.{}.ffn_up";
const FC2: &str = "v.blk.{}.ffn_down";

fn pairings() -> impl Iterator<Item = &'static Pairing> {
    PAIRINGS.iter().chain(std::iter::once(&CONNECTOR))
}

/// A name with its first all-digit part replaced by `{}`, and that part.
fn without_number(name: &str) -> (String, Option<&str>) {
    let is_number = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let number = name.split('.').find(is_number);
    let parts: Vec<&str> = name
        .split('.')
        .map(|part| if Some(part) == number { "{}" } else { part })
        .collect();
    (parts.join("."), number)
}

/// Whether a checkpoint of the family may have a tensor of this name.
pub(in crate::import) fn is_published(name: &str) -> bool {
    Place::of(name, false).is_some()
}

/// Where a weight of the published checkpoints is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which file.
    pub holder: Holder,
    /// Name of the tensor there.
    pub name: String,
    rows: Rows,
}

impl Place {
    /// The place of the weight with this published name; `None` if no model of the family has it.
    /// `swapped` exchanges the names of the vision side's two feed-forward layers.
    pub fn of(published: &str, swapped: bool) -> Option<Place> {
        let (stem, kind) = published.rsplit_once('.')?;
        let (pattern, number) = without_number(stem);
        let pairing = pairings()
            .filter(|pairing| kind == "weight" || (kind == "bias" && pairing.bias))
            .find(|pairing| pairing.published == pattern)?;
        let gguf = match pairing.gguf {
            FC1 if swapped => FC2,
            FC2 if swapped => FC1,
            other => other,
        };
        let stem = gguf.replace("{}", number.unwrap_or_default());
        Some(Place {
            holder: pairing.holder,
            name: format!("{stem}.{kind}"),
            rows: pairing.rows,
        })
    }

    /// The number of heads whose rows have to be put back in order.
    pub(super) fn heads(&self, text: &TextConfig) -> Option<usize> {
        match self.rows {
            Rows::Plain => None,
            Rows::Queries => Some(text.n_heads),
            Rows::Keys => Some(text.n_kv_heads),
        }
    }
}

/// Refuses a file that holds a tensor no part of the model reads; `layers` is the number of layers.
pub(super) fn refuse_unknown(
    file: &GgufFile,
    holder: Holder,
    layers: usize,
) -> Result<(), GgufError> {
    for (name, _) in file.tensors() {
        let known = name.rsplit_once('.').is_some_and(|(stem, kind)| {
            let (pattern, number) = without_number(stem);
            let is_layer = number.is_none_or(|n| n.parse().is_ok_and(|n: usize| n < layers));
            pairings().any(|pairing| {
                is_layer
                    && pairing.holder == holder
                    && pairing.gguf == pattern
                    && (kind == "weight" || (kind == "bias" && pairing.bias))
            })
        });
        if !known {
            return Err(GgufError::UnknownTensor {
                path: file.path().to_owned(),
                name: name.to_owned(),
            });
        }
    }
    Ok(())
}

/// Whether a projector file calls the first feed-forward layer `ffn_down`, as older converters
/// did. The shapes tell, unless both layers are square.
pub(super) fn feed_forward_is_swapped(file: &GgufFile, vision: &VisionConfig) -> bool {
    let (hidden, inter) = (vision.hidden_size, vision.intermediate_size);
    let up = file.tensor("v.blk.0.ffn_up.weight");
    hidden != inter && up.is_some_and(|info| info.shape == [hidden, inter])
}

/// Undoes the converter's order of rows, in which the two values that rotary positions turn
/// together are neighbours: row `2·j + a` of each head becomes row `a·(head size / 2) + j`.
///
/// `values`: `[rows, columns]`; the rows of a head are `rows / heads`, an even number.
pub fn rotary_halves<T: Copy>(values: &[T], shape: &[usize], heads: usize) -> Vec<T> {
    let [rows, columns] = *shape else {
        return values.to_vec();
    };
    let head = rows / heads;
    let mut out = Vec::with_capacity(values.len());
    for row in 0..rows {
        let (first, within) = (row / head * head, row % head);
        let (half, pair) = (within / (head / 2), within % (head / 2));
        let from = first + 2 * pair + half;
        out.extend_from_slice(&values[from * columns..][..columns]);
    }
    out
}
