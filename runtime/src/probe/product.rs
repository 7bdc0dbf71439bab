//! One product of seeded activations and some panels of a matrix, which every kernel must compute
//! to the last bit.

use crate::engine::products::linear;
use crate::pack::{Matrix, OpenError, Pack, WeightPanels};
use crate::random::SplitMix;
use ocelli_kernels::panels::PANEL_ROWS;
use ocelli_kernels::{Compute, Int8RowsBuf, Store, quantize};
use serde::{Deserialize, Serialize};

/// Panels of a matrix that are probed.
const PANELS: usize = 8;
/// Numbers of tokens: the GEMV kernel, and the GEMM kernel with a tile that is not full.
const TOKENS: [usize; 2] = [1, 13];
/// The kinds of matrices: of the layers, the first stands for all.
const KINDS: [&str; 13] = [
    "vision.patch_embed",
    "vision.0.qkv",
    "vision.0.out",
    "vision.0.fc1",
    "vision.0.fc2",
    "connector",
    "text.0.qkv",
    "text.0.out",
    "text.0.gate_up",
    "text.0.down",
    "text.head",
    "text.0.qk",
    "text.0.v",
];

/// What some panels of one matrix give.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProductProbe {
    /// Name of the matrix.
    pub tensor: String,
    /// First panel.
    pub panel: usize,
    /// CRC-32 of the f32 bits of the products with one token and with several, little endian.
    pub crc32: [[u8; 4]; 2],
}

/// A probe of each kind of matrix a pack has.
pub(super) fn make(pack: &Pack, compute: &Compute) -> Result<Vec<ProductProbe>, OpenError> {
    let mut probes = Vec::new();
    for (index, tensor) in KINDS.iter().enumerate() {
        let Some(matrix) = matrix(pack, tensor)? else {
            continue;
        };
        let panels = pack.panels(&matrix);
        let last = n_panels(&matrix).saturating_sub(PANELS);
        // Anywhere in the matrix, elsewhere for each kind.
        let panel = SplitMix(index as u64).next() as usize % (last + 1);
        probes.push(ProductProbe {
            tensor: (*tensor).to_owned(),
            panel,
            crc32: TOKENS.map(|tokens| crc32(panels, &matrix, panel, tokens, compute)),
        });
    }
    Ok(probes)
}

/// The matrix of a name; `None` if there is none.
fn matrix(pack: &Pack, name: &str) -> Result<Option<Matrix>, OpenError> {
    let entry = pack.header().tensors.iter().find(|e| e.name == name);
    match entry.filter(|entry| entry.layout.is_panels()) {
        Some(entry) => pack.matrix(name, entry.shape[0], entry.shape[1]).map(Some),
        None => Ok(None),
    }
}

impl ProductProbe {
    /// How the products of these kernels differ from what they must be, if they do.
    pub(super) fn difference(
        &self,
        pack: &Pack,
        compute: &Compute,
    ) -> Result<Option<String>, OpenError> {
        let name = &self.tensor;
        let matrix = matrix(pack, name)?
            .ok_or_else(|| pack.damaged(format!("a probe names tensor {name}, which is none")))?;
        let panels = pack.panels(&matrix);
        if self.panel >= n_panels(&matrix) {
            return Err(pack.damaged(format!(
                "a probe begins at panel {} of {}, which tensor {name} does not have",
                self.panel,
                n_panels(&matrix)
            )));
        }
        for (tokens, wanted) in TOKENS.into_iter().zip(self.crc32) {
            let found = crc32(panels, &matrix, self.panel, tokens, compute);
            if found != wanted {
                let [found, wanted] = [found, wanted].map(u32::from_le_bytes);
                return Ok(Some(format!(
                    "the product of {tokens} tokens and rows from {} has checksum {found:08x}, \
                     it must be {wanted:08x}",
                    8 * self.panel
                )));
            }
        }
        Ok(None)
    }
}

fn n_panels(matrix: &Matrix) -> usize {
    matrix.n.div_ceil(PANEL_ROWS)
}

/// Checksum of the bits of one product.
fn crc32(
    panels: WeightPanels<'_>,
    matrix: &Matrix,
    panel: usize,
    tokens: usize,
    compute: &Compute,
) -> [u8; 4] {
    let count = PANELS.min(n_panels(matrix) - panel);
    let n = (PANEL_ROWS * count).min(matrix.n - PANEL_ROWS * panel);
    let (k, group) = (matrix.k, matrix.group);
    let mut random = SplitMix(tokens as u64);
    let mut buffer = Int8RowsBuf::new();
    let mut rows = buffer.reshape(tokens, k, group);
    let row_bytes = quantize::k_padded(k);
    for row in rows.data_mut().chunks_exact_mut(row_bytes) {
        let (values, padding) = row.split_at_mut(k);
        // The whole range of activations.
        values.fill_with(|| (random.next() >> 56) as i8);
        padding.fill(0);
    }
    rows.scales_mut()
        .fill_with(|| (0.5 + random.uniform()) as f32);
    let (rows, mut out) = (buffer.rows(), vec![0f32; tokens * n]);
    let weights = panels.panel_range(panel, count);
    linear(compute, rows, weights, &mut out, Store::Overwrite);
    let mut hasher = crc32fast::Hasher::new();
    for value in out {
        hasher.update(&value.to_le_bytes());
    }
    hasher.finalize().to_le_bytes()
}
