//! A small grey picture: what change detection and quality look at.

/// Mean luma of a grid of cells, full range (0 black, 255 white), rows from top to bottom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Luma {
    /// Cells of a row.
    pub columns: u32,
    /// Rows.
    pub rows: u32,
    /// `[rows, columns]`.
    pub values: Vec<u8>,
}
