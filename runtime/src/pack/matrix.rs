//! Weight matrices of a pack: where they lie, and their panels in whatever layout.

use super::{Layout, OpenError, Pack};
use ocelli_kernels::{Int4Panels, NibblePanels, Panels};

/// Place and shape of a weight matrix inside a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrix {
    pub(super) start: usize,
    pub(super) len: usize,
    layout: Layout,
    /// Output rows.
    pub n: usize,
    /// Input columns.
    pub k: usize,
    /// Activations along k that share a scale; 0 = the whole row.
    pub group: usize,
}

/// The panels of a weight matrix, in the layout the pack has them in.
#[derive(Clone, Copy, Debug)]
pub enum WeightPanels<'a> {
    /// One scale an output row.
    Int8(Panels<'a>),
    /// One scale for 32 values.
    Int4(Int4Panels<'a>),
    /// One scale an output row, in two planes: only the decoder's head.
    Nibbles(NibblePanels<'a>),
}

impl Matrix {
    /// Bytes in the pack.
    pub fn byte_len(&self) -> usize {
        self.len
    }
}

impl<'a> WeightPanels<'a> {
    /// Views bytes as panels of `[n, k]`, or says what is wrong with them.
    fn new(layout: Layout, bytes: &'a [u8], n: usize, k: usize) -> Result<Self, String> {
        let said = |error: &dyn std::error::Error| error.to_string();
        match layout {
            Layout::Panels => match Panels::new(bytes, n, k) {
                Ok(panels) => Ok(WeightPanels::Int8(panels)),
                Err(error) => Err(said(&error)),
            },
            Layout::Int4Panels => match Int4Panels::new(bytes, n, k) {
                Ok(panels) => Ok(WeightPanels::Int4(panels)),
                Err(error) => Err(said(&error)),
            },
            Layout::NibblePanels => match NibblePanels::new(bytes, n, k) {
                Ok(panels) => Ok(WeightPanels::Nibbles(panels)),
                Err(error) => Err(said(&error)),
            },
            other => Err(format!("{other:?} is no layout of a weight matrix")),
        }
    }

    /// Some panels as a matrix of their own, of at most `8 * n_panels` rows.
    ///
    /// # Panics
    ///
    /// Panics if a panel is out of range.
    pub fn panel_range(&self, first_panel: usize, n_panels: usize) -> WeightPanels<'a> {
        match self {
            WeightPanels::Int8(panels) => {
                WeightPanels::Int8(panels.panel_range(first_panel, n_panels))
            }
            WeightPanels::Int4(panels) => {
                WeightPanels::Int4(panels.panel_range(first_panel, n_panels))
            }
            WeightPanels::Nibbles(panels) => {
                WeightPanels::Nibbles(panels.panel_range(first_panel, n_panels))
            }
        }
    }

    /// Input columns.
    pub fn k(&self) -> usize {
        match self {
            WeightPanels::Int8(panels) => panels.k(),
            WeightPanels::Int4(panels) => panels.k(),
            WeightPanels::Nibbles(panels) => panels.k(),
        }
    }
}

impl Pack {
    /// A weight matrix, whatever its layout: its place in the pack, checked once so that
    /// [`Pack::panels`] cannot fail later.
    ///
    /// # Errors
    ///
    /// [`OpenError::Damaged`] when it is missing, no matrix or of another shape.
    pub fn matrix(&self, name: &str, n: usize, k: usize) -> Result<Matrix, OpenError> {
        let layout = self.entry(name)?.layout;
        let wanted = if layout.is_panels() {
            layout
        } else {
            Layout::Panels
        };
        let entry = self.find(name, wanted, [n, k])?;
        WeightPanels::new(layout, self.bytes_of(entry), n, k)
            .map_err(|what| self.damaged(format!("tensor {name}: {what}")))?;
        Ok(Matrix {
            start: self.data_start + entry.offset as usize,
            len: entry.len as usize,
            layout,
            n,
            k,
            group: entry.group,
        })
    }

    /// A list of f32 values, which are finite.
    ///
    /// # Errors
    ///
    /// [`OpenError::Damaged`] when it is missing, of another length, or holds something else.
    pub fn floats(&self, name: &str, len: usize) -> Result<Vec<f32>, OpenError> {
        let bytes = self.tensor(name, Layout::F32, [1, len])?;
        let values = bytes.as_chunks::<4>().0.iter();
        let values: Vec<f32> = values.map(|bytes| f32::from_le_bytes(*bytes)).collect();
        match values.iter().find(|value| !value.is_finite()) {
            None => Ok(values),
            Some(value) => Err(self.damaged(format!("tensor {name} holds {value}"))),
        }
    }

    /// The panels of a matrix that [`Pack::matrix`] of this same pack returned.
    ///
    /// # Panics
    ///
    /// When the handle is from another pack and out of this one's bounds.
    pub fn panels(&self, matrix: &Matrix) -> WeightPanels<'_> {
        let bytes = &self.region[matrix.start..matrix.start + matrix.len];
        WeightPanels::new(matrix.layout, bytes, matrix.n, matrix.k)
            .expect("the matrix was checked when it was found")
    }
}
