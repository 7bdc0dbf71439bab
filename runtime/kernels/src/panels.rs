//! [`Panels`]: the one packed layout of int8 weights, the same for every instruction set.
//!
//! Weights `[n, k]` in [-127, 127], `n` padded to 8, `k` padded to 16, one scale per row:
//!
//! ```text
//! panel p = output rows 8p .. 8p+8
//!
//!   step s = 32 bytes:   row 8p+0        row 8p+1              row 8p+7
//!                      ┌──┬──┬──┬──┬──┬──┬──┬──┬─── ... ───┬──┬──┬──┬──┐
//!                      │4s│+1│+2│+3│4s│+1│+2│+3│           │4s│+1│+2│+3│   k index of each byte
//!                      └──┴──┴──┴──┴──┴──┴──┴──┴─── ... ───┴──┴──┴──┴──┘
//!   k_padded/4 steps, then a tail of 128 bytes:
//!                      8 × f32 scale │ 8 × i32 row sum │ 8 × f32 bias │ 32 zero bytes
//! ```
//!
//! A panel is `8 * k_padded + 128` bytes, always a multiple of 64. The row sum is the sum of the
//! int8 weights of the row, for kernels that shift activations by a constant.

use std::fmt;

/// Names this layout in files. A different byte order gets a different name.
pub const LAYOUT_ID: &str = "qc8w-8x4";
/// Output rows of one panel.
pub const PANEL_ROWS: usize = 8;
/// Neighbouring k values of one row: what one 32-bit lane holds.
pub const K_GROUP: usize = 4;
/// `k` is padded with zeros to a multiple of this.
pub const K_ALIGN: usize = 16;
/// Bytes of one step: [`PANEL_ROWS`] rows of [`K_GROUP`] values.
pub const STEP_BYTES: usize = PANEL_ROWS * K_GROUP;
/// Bytes of scales, row sums, biases and padding after the steps.
pub const TAIL_BYTES: usize = 128;
/// Panels start at a multiple of this many bytes.
pub const ALIGNMENT: usize = 64;
/// Largest `k`: the accumulator holds `128 * 127 * MAX_K` without overflow.
pub const MAX_K: usize = 131_072;

const TAIL_SUMS: usize = 4 * PANEL_ROWS;
pub(crate) const TAIL_BIASES: usize = 8 * PANEL_ROWS;
/// Largest weight magnitude; -128 is excluded so that a negated weight fits.
const WEIGHT_MAX: f32 = 127.0;

/// `k` rounded up to a multiple of [`K_ALIGN`].
pub const fn k_padded(k: usize) -> usize {
    k.next_multiple_of(K_ALIGN)
}

/// Bytes from one panel to the next.
pub const fn panel_stride(k: usize) -> usize {
    PANEL_ROWS * k_padded(k) + TAIL_BYTES
}

/// Bytes of packed weights `[n, k]`.
pub const fn byte_len(n: usize, k: usize) -> usize {
    n.div_ceil(PANEL_ROWS) * panel_stride(k)
}

/// Quantises and packs `weights` `[n, k]` with an optional `bias` `[n]`.
///
/// Each row: `scale = absmax / 127`, `q = round_to_nearest_even(w / scale)`. A row of zeros gets
/// scale 0. NaN becomes 0.
///
/// # Panics
///
/// Panics if a length does not fit `n` and `k`, or `k` exceeds [`MAX_K`].
pub fn pack(weights: &[f32], bias: Option<&[f32]>, n: usize, k: usize) -> Vec<u8> {
    let mut packed = vec![0; byte_len(n, k)];
    assert_eq!(weights.len(), n * k, "weights must be [n, k]");
    pack_rows_into(weights, bias, 0, k, &mut packed);
    packed
}

/// Quantises and packs some rows `[r, k]` as rows `first_row..first_row + r` of `packed`, which
/// holds [`byte_len`]`(n, k)` bytes and was zero before its first row.
///
/// # Panics
///
/// Panics if a length does not fit, or `k` exceeds [`MAX_K`].
pub fn pack_rows_into(
    weights: &[f32],
    bias: Option<&[f32]>,
    first_row: usize,
    k: usize,
    packed: &mut [u8],
) {
    let n_rows = rows_in(weights.len(), k, bias.map(<[f32]>::len));
    let mut row = vec![0_i8; k];
    for i in 0..n_rows {
        let scale = quantize_weight_row(&weights[i * k..][..k], &mut row);
        write_row(
            &row,
            scale,
            bias.map_or(0.0, |b| b[i]),
            first_row + i,
            packed,
        );
    }
}

/// Packs rows that are int8 already (`[r, k]`, scales `[r]`), as [`pack_rows_into`] does.
///
/// # Panics
///
/// Panics if a length does not fit, `k` exceeds [`MAX_K`], or a weight is -128.
pub fn pack_int8_rows_into(
    weights: &[i8],
    scales: &[f32],
    bias: Option<&[f32]>,
    first_row: usize,
    k: usize,
    packed: &mut [u8],
) {
    let n_rows = rows_in(weights.len(), k, bias.map(<[f32]>::len));
    assert!(k == 0 || scales.len() == n_rows, "one scale per row");
    for (i, &scale) in scales.iter().enumerate() {
        write_row(
            &weights[i * k..][..k],
            scale,
            bias.map_or(0.0, |b| b[i]),
            first_row + i,
            packed,
        );
    }
}

/// Rows in `len` values of `k` each; for `k` = 0 the bias says how many.
fn rows_in(len: usize, k: usize, bias_len: Option<usize>) -> usize {
    assert!(k <= MAX_K, "k = {k} exceeds {MAX_K}");
    let n_rows = len.checked_div(k).or(bias_len).unwrap_or(0);
    assert_eq!(n_rows * k, len, "weights must be whole rows of k values");
    assert!(bias_len.is_none_or(|b| b == n_rows), "one bias per row");
    n_rows
}

/// Scale of a row of weights in int8: `absmax / 127`, 0 for a row that is too small for one. NaN
/// does not count.
pub fn row_scale(weights: &[f32]) -> f32 {
    let absmax = weights
        .iter()
        .fold(0.0_f32, |max, w| if w.abs() > max { w.abs() } else { max });
    let scale = absmax.min(f32::MAX) / WEIGHT_MAX;
    if scale < f32::MIN_POSITIVE {
        0.0
    } else {
        scale
    }
}

/// Writes the int8 values of one row and returns its scale.
fn quantize_weight_row(weights: &[f32], row: &mut [i8]) -> f32 {
    let scale = row_scale(weights);
    if scale == 0.0 {
        row.fill(0);
        return 0.0;
    }
    for (q, w) in row.iter_mut().zip(weights) {
        // NaN becomes 0 in the cast.
        *q = (w / scale).round_ties_even().clamp(-WEIGHT_MAX, WEIGHT_MAX) as i8;
    }
    scale
}

fn write_row(row: &[i8], scale: f32, bias: f32, index: usize, packed: &mut [u8]) {
    let k = row.len();
    let stride = panel_stride(k);
    let r = index % PANEL_ROWS;
    let panel = &mut packed[index / PANEL_ROWS * stride..][..stride];
    for (step, values) in row.chunks(K_GROUP).enumerate() {
        for (j, &w) in values.iter().enumerate() {
            assert!(w != i8::MIN, "weights must be in -127..=127");
            panel[step * STEP_BYTES + r * K_GROUP + j] = w as u8;
        }
    }
    let sum: i32 = row.iter().map(|&w| i32::from(w)).sum();
    let tail = &mut panel[stride - TAIL_BYTES..];
    tail[4 * r..][..4].copy_from_slice(&scale.to_le_bytes());
    tail[TAIL_SUMS + 4 * r..][..4].copy_from_slice(&sum.to_le_bytes());
    tail[TAIL_BIASES + 4 * r..][..4].copy_from_slice(&bias.to_le_bytes());
}

/// One panel that is being written by a kernel, from memory with unspecified contents.
pub(crate) struct PanelMut<'a> {
    steps: &'a mut [u8],
    tail: &'a mut [u8],
}

impl<'a> PanelMut<'a> {
    /// Takes the memory of a panel of `k_padded` values per row; biases and row sums become 0.
    pub(crate) fn new(panel: &'a mut [u8], k_padded: usize) -> PanelMut<'a> {
        let (steps, tail) = panel.split_at_mut(PANEL_ROWS * k_padded);
        tail.fill(0);
        PanelMut { steps, tail }
    }

    /// The steps, `[k_padded / 4, 8, 4]`.
    pub(crate) fn steps(&mut self) -> &mut [[u8; STEP_BYTES]] {
        self.steps.as_chunks_mut().0
    }

    /// The bytes of all steps.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        self.steps
    }

    /// Sets every scale to 1 and the biases to those in `biases`, 8 little-endian f32.
    pub(crate) fn set_unit_scales(&mut self, biases: &[u8]) {
        for r in 0..PANEL_ROWS {
            self.set_scale(r, 1.0);
        }
        let len = 4 * PANEL_ROWS;
        self.tail[TAIL_BIASES..][..len].copy_from_slice(&biases[..len]);
    }

    /// Writes the values of row `r`, `[k_padded]`.
    pub(crate) fn set_row(&mut self, r: usize, row: &[i8]) {
        for (step, values) in self.steps().iter_mut().zip(row.as_chunks::<K_GROUP>().0) {
            step[r * K_GROUP..][..K_GROUP].copy_from_slice(&values.map(|v| v as u8));
        }
    }

    /// Writes the scale of row `r`.
    pub(crate) fn set_scale(&mut self, r: usize, scale: f32) {
        self.tail[4 * r..][..4].copy_from_slice(&scale.to_le_bytes());
    }
}

/// A checked view of packed weights `[n, k]`.
#[derive(Clone, Copy)]
pub struct Panels<'a> {
    bytes: &'a [u8],
    n: usize,
    k: usize,
}

/// Why bytes are not packed weights.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PanelsError {
    /// The length is not that of the shape in this layout.
    Length {
        /// Bytes given.
        got: usize,
        /// Bytes that `n` and `k` ask for.
        expected: usize,
    },
    /// The bytes do not start on a 64-byte boundary.
    Alignment {
        /// Address modulo 64.
        remainder: usize,
    },
    /// `k` is none the layout can hold.
    Width {
        /// The `k` given.
        k: usize,
        /// What it must be a multiple of.
        multiple: usize,
        /// The largest possible.
        limit: usize,
    },
    /// A number that packing cannot have written.
    Contents {
        /// Output row.
        row: usize,
        /// What is wrong with it.
        what: &'static str,
    },
}

impl fmt::Display for PanelsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PanelsError::Length { got, expected } => {
                write!(
                    f,
                    "packed weights have {got} bytes where the shape needs {expected}"
                )
            }
            PanelsError::Alignment { remainder } => {
                write!(
                    f,
                    "packed weights start {remainder} bytes after a multiple of {ALIGNMENT}"
                )
            }
            PanelsError::Width { k, multiple, limit } => {
                write!(f, "k = {k} is not a multiple of {multiple} up to {limit}")
            }
            PanelsError::Contents { row, what } => write!(f, "row {row}: {what}"),
        }
    }
}

impl std::error::Error for PanelsError {}

/// Whether a layout can hold rows of `k` values.
pub(crate) fn check_width(k: usize, multiple: usize, limit: usize) -> Result<(), PanelsError> {
    match k <= limit && k.is_multiple_of(multiple) {
        true => Ok(()),
        false => Err(PanelsError::Width { k, multiple, limit }),
    }
}

/// Length and alignment of packed weights.
pub(crate) fn check_bytes(bytes: &[u8], expected: usize) -> Result<(), PanelsError> {
    if bytes.len() != expected {
        let got = bytes.len();
        return Err(PanelsError::Length { got, expected });
    }
    match bytes.as_ptr().addr() % ALIGNMENT {
        0 => Ok(()),
        remainder => Err(PanelsError::Alignment { remainder }),
    }
}

/// What [`Panels::unpack`] returns.
#[derive(Clone, Debug, PartialEq)]
pub struct Unpacked {
    /// `[n, k]`.
    pub weights: Vec<i8>,
    /// `[n]`.
    pub scales: Vec<f32>,
    /// `[n]`.
    pub biases: Vec<f32>,
}

impl<'a> Panels<'a> {
    /// Views `bytes` as packed weights `[n, k]`.
    ///
    /// # Errors
    ///
    /// Fails if the length or the alignment is not that of packed weights. The contents are not
    /// read: any bytes give a product without undefined behaviour, see [`Panels::validate`].
    pub fn new(bytes: &'a [u8], n: usize, k: usize) -> Result<Panels<'a>, PanelsError> {
        check_width(k, 1, MAX_K)?;
        check_bytes(
            bytes,
            n.div_ceil(PANEL_ROWS).saturating_mul(panel_stride(k)),
        )?;
        Ok(Panels { bytes, n, k })
    }

    /// Output rows.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Input values per row.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Input values per row with padding.
    pub fn k_padded(&self) -> usize {
        k_padded(self.k)
    }

    /// Number of panels.
    pub fn n_panels(&self) -> usize {
        self.n.div_ceil(PANEL_ROWS)
    }

    /// Bytes of all panels.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Rows `8 * first_panel..8 * (first_panel + n_panels)`, at most `n`, as weights of their own.
    ///
    /// # Panics
    ///
    /// Panics if a panel is out of range.
    pub fn panel_range(&self, first_panel: usize, n_panels: usize) -> Panels<'a> {
        let stride = panel_stride(self.k);
        let n = (n_panels * PANEL_ROWS).min(self.n.saturating_sub(first_panel * PANEL_ROWS));
        Panels {
            bytes: &self.bytes[first_panel * stride..][..n_panels * stride],
            n,
            k: self.k,
        }
    }

    /// Scale of one output row.
    pub fn scale(&self, row: usize) -> f32 {
        f32::from_le_bytes(self.tail_word(row, 0))
    }

    /// Sum of the int8 weights of one output row.
    pub fn row_sum(&self, row: usize) -> i32 {
        i32::from_le_bytes(self.tail_word(row, TAIL_SUMS))
    }

    /// Bias of one output row.
    pub fn bias(&self, row: usize) -> f32 {
        f32::from_le_bytes(self.tail_word(row, TAIL_BIASES))
    }

    /// One int8 weight.
    pub fn weight(&self, row: usize, col: usize) -> i8 {
        assert!(
            row < self.n && col < self.k,
            "weight [{row}, {col}] of [{}, {}]",
            self.n,
            self.k
        );
        let panel = row / PANEL_ROWS * panel_stride(self.k);
        let in_step = row % PANEL_ROWS * K_GROUP + col % K_GROUP;
        self.bytes[panel + col / K_GROUP * STEP_BYTES + in_step] as i8
    }

    /// Writes `weight * scale` of one output row, `out` `[k]`. The bias is not added.
    ///
    /// # Panics
    ///
    /// Panics if `row` is out of range or `out` has another length.
    pub fn dequantize_row(&self, row: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.k, "out must be [k]");
        let scale = self.scale(row);
        for (col, value) in out.iter_mut().enumerate() {
            *value = f32::from(self.weight(row, col)) * scale;
        }
    }

    /// Returns the rows in plain order.
    pub fn unpack(&self) -> Unpacked {
        let cells = (0..self.n).flat_map(|row| (0..self.k).map(move |col| (row, col)));
        Unpacked {
            weights: cells.map(|(row, col)| self.weight(row, col)).collect(),
            scales: (0..self.n).map(|row| self.scale(row)).collect(),
            biases: (0..self.n).map(|row| self.bias(row)).collect(),
        }
    }

    /// Reads every byte and checks what [`pack`] promises: weights above -128, true row sums,
    /// finite scales and biases.
    ///
    /// # Errors
    ///
    /// Names the first row that breaks a promise.
    pub fn validate(&self) -> Result<(), PanelsError> {
        for row in 0..self.n {
            let broken = |what| Err(PanelsError::Contents { row, what });
            let weights = (0..self.k).map(|col| self.weight(row, col));
            if weights.clone().any(|w| w == i8::MIN) {
                return broken("a weight is -128");
            }
            if weights.map(i32::from).sum::<i32>() != self.row_sum(row) {
                return broken("the row sum is not the sum of the row");
            }
            if !self.scale(row).is_finite() || self.scale(row) < 0.0 {
                return broken("the scale is not finite and positive");
            }
            if !self.bias(row).is_finite() {
                return broken("the bias is not finite");
            }
        }
        Ok(())
    }

    fn tail_word(&self, row: usize, offset: usize) -> [u8; 4] {
        assert!(row < self.n, "row {row} of {}", self.n);
        let stride = panel_stride(self.k);
        let tail = (row / PANEL_ROWS + 1) * stride - TAIL_BYTES;
        let word = &self.bytes[tail + offset + 4 * (row % PANEL_ROWS)..][..4];
        word.try_into().expect("four bytes were sliced")
    }
}

impl fmt::Debug for Panels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Panels[{}, {}]", self.n, self.k)
    }
}

/// The tail of one panel as a kernel reads it.
#[derive(Clone, Copy)]
pub(crate) struct PanelTail {
    start: *const u8,
}

impl PanelTail {
    /// # Safety
    ///
    /// * `panel` points at a whole panel of `k_padded` values per row, 64-byte aligned.
    #[inline(always)]
    pub(crate) unsafe fn of(panel: *const u8, k_padded: usize) -> PanelTail {
        // SAFETY: the tail follows the steps inside the panel.
        let start = unsafe { panel.add(PANEL_ROWS * k_padded) };
        PanelTail { start }
    }

    /// Eight scales.
    #[inline(always)]
    pub(crate) fn scales(self) -> *const f32 {
        self.start.cast()
    }

    /// Eight biases.
    #[inline(always)]
    pub(crate) fn biases(self) -> *const f32 {
        self.start.wrapping_add(TAIL_BIASES).cast()
    }
}

#[cfg(test)]
mod tests;
