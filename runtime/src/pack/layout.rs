//! How the bytes of a tensor are laid out, and what that asks of its shape.

use crate::config::ModelConfig;
use ocelli_kernels::int4_panels::{self, BLOCK};
use ocelli_kernels::{nibble_panels, panels};
use serde::{Deserialize, Serialize};

/// Most elements of a tensor.
const MAX_ELEMENTS: usize = 1 << 40;

/// How the bytes of a tensor are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Layout {
    /// int8 panels of 8 output rows × 4 k ([`ocelli_kernels::panels`]), shape `[n, k]`.
    Panels,
    /// f32 little endian, row-major.
    F32,
    /// f16 little endian, row-major.
    F16,
    /// Plain bytes, shape `[1, length]`.
    Bytes,
    /// int4 panels of 8 output rows × 32 k ([`ocelli_kernels::int4_panels`]), shape `[n, k]`.
    Int4Panels,
    /// int8 weights as two planes of 4 bits ([`ocelli_kernels::nibble_panels`]), shape `[n, k]`: the
    /// decoder's head, of which a greedy step reads little more than one.
    NibblePanels,
}

impl Layout {
    /// Whether a tensor is a weight matrix in panels.
    pub fn is_panels(self) -> bool {
        matches!(
            self,
            Layout::Panels | Layout::Int4Panels | Layout::NibblePanels
        )
    }

    /// Bytes a tensor of this layout and shape takes; `None` for a shape the layout cannot hold.
    pub fn byte_len(self, [rows, columns]: [usize; 2]) -> Option<u64> {
        let count = rows
            .checked_mul(columns)
            .filter(|count| *count <= MAX_ELEMENTS)?;
        let bytes = match self {
            _ if self.is_panels() && count == 0 => return None,
            Layout::Int4Panels if !columns.is_multiple_of(BLOCK) => return None,
            Layout::NibblePanels if !splits(columns) => return None,
            Layout::Panels => panels::byte_len(rows, columns),
            Layout::Int4Panels => int4_panels::int4_byte_len(rows, columns),
            Layout::NibblePanels => nibble_panels::nibble_byte_len(rows, columns),
            Layout::F32 => 4 * count,
            Layout::F16 => 2 * count,
            Layout::Bytes => count,
        };
        Some(bytes as u64)
    }

    /// What groups of activations that share a scale are whole numbers of.
    pub(super) fn group_multiple(self) -> usize {
        match self {
            Layout::Int4Panels => BLOCK,
            _ => 16,
        }
    }
}

/// Whether rows of this width can lie in two planes.
pub(crate) fn splits(columns: usize) -> bool {
    columns.is_multiple_of(BLOCK) && columns <= nibble_panels::MAX_K
}

/// The first size of a model that the int8 kernels cannot run: its field, value, and what it must be
/// a multiple of.
pub(crate) fn unfit_for_kernels(config: &ModelConfig) -> Option<(&'static str, usize, usize)> {
    let vision = config.vision.as_ref().map(|vision| {
        [
            ("vision_config.hidden_size", vision.hidden_size, 16),
            (
                "vision_config.hidden_size / num_attention_heads",
                vision.head_dim(),
                8,
            ),
        ]
    });
    let text = [
        ("text_config.hidden_size", config.text.hidden_size, 16),
        (
            "text_config.intermediate_size",
            config.text.intermediate_size,
            16,
        ),
        ("text_config.head_dim", config.text.head_dim, 8),
    ];
    let mut sizes = vision.into_iter().flatten().chain(text);
    sizes.find(|(_, value, multiple)| !value.is_multiple_of(*multiple))
}

/// How the decoder's matrices are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightScheme {
    /// int8, one scale an output row.
    #[default]
    Int8,
    /// int4, one scale for 32 values; embedding, head and vision side as with int8.
    Int4,
}

impl WeightScheme {
    /// The name used on the command line and in JSON output.
    pub fn name(self) -> &'static str {
        match self {
            WeightScheme::Int8 => "int8",
            WeightScheme::Int4 => "int4",
        }
    }
}
