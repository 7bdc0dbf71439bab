//! How the decoder's layers are stored: rotated and rounded, or on the grid their file has them on.

use super::PackOptions;
use super::layer::{self, LayerMatrix};
use super::plan::GROUP;
use crate::config::TextConfig;
use crate::import::{FloatWeights, ImportError};
use crate::pack::{Layout, StreamBasis, WeightScheme};
use ocelli_kernels::int4_panels::BLOCK;
use std::collections::BTreeSet;

/// How the decoder's layers are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Storage {
    /// In the basis of the pack's rotation, norms folded, rounded here.
    Rotated(WeightScheme),
    /// In the basis of the published model. The matrices of these names keep the numbers of their
    /// file, the others are rounded to int8.
    OnGrid(BTreeSet<String>),
}

impl Storage {
    /// What the options say without a look at any file.
    pub(super) fn asked(options: &PackOptions) -> Storage {
        Storage::Rotated(options.weights.unwrap_or_default())
    }

    /// What the options say for these weights: on a 4-bit grid stays what mostly lies on one, unless
    /// int8 is asked for.
    pub(super) fn of(
        t: &TextConfig,
        weights: &dyn FloatWeights,
        options: &PackOptions,
    ) -> Result<Storage, ImportError> {
        if options.weights == Some(WeightScheme::Int8) || options.rounds_again {
            return Ok(Storage::asked(options));
        }
        let mut kept = BTreeSet::new();
        let (mut on_grid, mut all) = (0, 0);
        for matrix in (0..t.n_layers).flat_map(|layer| layer::matrices(t, layer, true)) {
            let size = matrix.n() * matrix.k;
            all += size;
            if matrix.int4_groups(weights)?.is_some() {
                on_grid += size;
                kept.insert(matrix.name);
            }
        }
        Ok(match on_grid > 0 && 2 * on_grid >= all {
            true => Storage::OnGrid(kept),
            false => Storage::asked(options),
        })
    }

    /// Whether the layers' numbers are int4, as far as nothing else is said of a matrix.
    pub(super) fn scheme(&self) -> WeightScheme {
        match self {
            Storage::Rotated(scheme) => *scheme,
            Storage::OnGrid(_) => WeightScheme::Int4,
        }
    }

    /// Basis of the residual stream.
    pub(super) fn basis(&self) -> StreamBasis {
        match self {
            Storage::Rotated(_) => StreamBasis::Rotated,
            Storage::OnGrid(_) => StreamBasis::Published,
        }
    }

    /// The matrices of a layer. v loses the most for its size in int4 (docs/quantization.md), so
    /// that it stands apart there.
    pub(super) fn matrices(&self, t: &TextConfig, layer: usize) -> Vec<LayerMatrix> {
        layer::matrices(t, layer, self.scheme() == WeightScheme::Int4)
    }

    /// How a matrix is stored if it is no exception.
    pub(super) fn usual(&self, matrix: &LayerMatrix) -> WeightScheme {
        match self {
            Storage::Rotated(_) if matrix.part() == "v" => WeightScheme::Int8,
            Storage::Rotated(scheme) => *scheme,
            Storage::OnGrid(kept) if kept.contains(&matrix.name) => WeightScheme::Int4,
            Storage::OnGrid(_) => WeightScheme::Int8,
        }
    }

    /// Whether a matrix of this layout keeps the numbers of its file.
    pub(super) fn keeps(&self, name: &str, layout: Layout) -> bool {
        match self {
            Storage::Rotated(_) => false,
            Storage::OnGrid(kept) => layout == Layout::Int4Panels && kept.contains(name),
        }
    }

    /// How many activations in front of a matrix of this layout share a scale; 0 = all.
    pub(super) fn group(&self, matrix: &LayerMatrix, layout: Layout) -> usize {
        let finest = match (self, layout) {
            (Storage::Rotated(_), _) if matrix.part() != "down" => return 0,
            (Storage::Rotated(_), Layout::Panels) => &[GROUP, 16][..],
            (Storage::Rotated(_), _) => &[GROUP, BLOCK],
            // Equal for qk and v, whatever their layouts.
            (Storage::OnGrid(_), _) => &[GROUP, BLOCK, 16],
        };
        let fits = |group: &&usize| matrix.k.is_multiple_of(**group);
        finest.iter().find(fits).copied().unwrap_or(0)
    }
}
