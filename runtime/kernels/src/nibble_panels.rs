//! [`NibblePanels`]: int8 weights as two planes of 4 bits, the high halves of all weights first.
//!
//! A matrix of which only the largest outputs matter, the head of a greedy decoder, is read by its
//! high plane alone; of the low one the few panels that may hold the largest ([`crate::linear_arg_max`]).
//! Both together are the int8 weights, exactly.
//!
//! Weights `[n, k]` in [-127, 127], `n` padded to 8, `k` a multiple of 32, one scale per row, no bias.
//! `w = 16 · h + u`, `h` in [-8, 7], `u` in [0, 15]:
//!
//! ```text
//! high plane, panel p = output rows 8p .. 8p+8:
//!   k/32 blocks of 128 bytes, `h` in the places of [`crate::int4_panels`]
//!   8 × f32 scale │ 8 × u16 mean of u │ 8 × u16 deviation of u, both in 1/4096
//! low plane, panel p:
//!   k/32 blocks of 128 bytes, `u - 8` in the same places
//! ```
//!
//! The deviation is the root mean square of `u` less the mean, rounded up.

use std::fmt;

use crate::int4_panels::{BLOCK, BLOCK_WEIGHTS};
use crate::panels::{
    ALIGNMENT, PANEL_ROWS, Panels, PanelsError, STEP_BYTES, check_bytes, check_width,
};

/// Largest `k`: sixteen times a sum over a plane is an i32.
pub const MAX_K: usize = 65_536;
/// Bytes behind the blocks of a high panel.
const TAIL_BYTES: usize = 64;
/// Means and deviations are multiples of 1 / this.
const STEPS: f32 = 4096.0;

/// Bytes from one panel of the low plane to the next.
const fn low_stride(k: usize) -> usize {
    k / BLOCK * BLOCK_WEIGHTS
}

/// Bytes from one panel of the high plane to the next: what a product reads of every panel.
pub const fn high_stride(k: usize) -> usize {
    low_stride(k) + TAIL_BYTES
}

/// Bytes of both planes of weights `[n, k]`.
pub const fn nibble_byte_len(n: usize, k: usize) -> usize {
    n.div_ceil(PANEL_ROWS) * (high_stride(k) + low_stride(k))
}

/// Appends the planes of some panels to `high` and `low`. A tensor is all of the one, then all of
/// the other.
///
/// # Panics
///
/// Panics if the width is not a multiple of 32 up to [`MAX_K`], or a row has a bias.
pub fn split_panels(panels: Panels<'_>, high: &mut Vec<u8>, low: &mut Vec<u8>) {
    let (n, k) = (panels.n(), panels.k());
    assert_eq!(
        check_width(k, BLOCK, MAX_K),
        Ok(()),
        "there are no such planes"
    );
    assert!(
        (0..n).all(|row| panels.bias(row) == 0.0),
        "planes have no bias"
    );
    let stride = crate::panels::panel_stride(k);
    for (p, panel) in panels.bytes().chunks_exact(stride).enumerate() {
        let blocks = &panel[..PANEL_ROWS * k];
        for block in blocks.as_chunks::<{ 2 * BLOCK_WEIGHTS }>().0 {
            let (first, second) = block.split_at(BLOCK_WEIGHTS);
            let pairs = || first.iter().zip(second);
            high.extend(pairs().map(|(a, b)| (a >> 4) | (b & 0xf0)));
            low.extend(pairs().map(|(a, b)| ((a & 0x0f) | (b << 4)) ^ 0x88));
        }
        for r in 0..PANEL_ROWS {
            // Scales of rows that pad the last panel are zero already.
            high.extend_from_slice(&panel[PANEL_ROWS * k + 4 * r..][..4]);
        }
        let statistics: Vec<[u16; 2]> = (0..PANEL_ROWS).map(|r| low_halves(blocks, r)).collect();
        for of in 0..2 {
            high.extend(statistics.iter().flat_map(|row| row[of].to_le_bytes()));
        }
        debug_assert_eq!(high.len() % ALIGNMENT, 0, "panel {p}");
    }
}

/// Mean and deviation of the low halves of row `r` of a panel, in 1/4096.
fn low_halves(steps: &[u8], r: usize) -> [u16; 2] {
    let steps = steps.chunks_exact(STEP_BYTES);
    statistics(steps.flat_map(|step| &step[4 * r..4 * r + 4]).copied())
}

/// Mean and deviation of the low halves of some weights, in 1/4096.
fn statistics(weights: impl Iterator<Item = u8> + Clone) -> [u16; 2] {
    let halves = weights.map(|weight| f64::from(weight & 0x0f));
    let count = halves.clone().count() as f64;
    let steps = f64::from(STEPS);
    let mean = (halves.clone().sum::<f64>() / count * steps).round() / steps;
    let square = halves.map(|u| (u - mean).powi(2)).sum::<f64>() / count;
    [mean * steps, (square.sqrt() * steps).ceil()].map(|value| value as u16)
}

fn check_k(k: usize) -> Result<(), PanelsError> {
    match k {
        0 => Err(PanelsError::Width {
            k,
            multiple: BLOCK,
            limit: MAX_K,
        }),
        _ => check_width(k, BLOCK, MAX_K),
    }
}

/// A checked view of both planes of weights `[n, k]`.
#[derive(Clone, Copy)]
pub struct NibblePanels<'a> {
    high: &'a [u8],
    low: &'a [u8],
    n: usize,
    k: usize,
}

/// What is known of eight rows without their low halves.
pub(crate) struct HighTail {
    pub(crate) scales: [f32; PANEL_ROWS],
    pub(crate) means: [f32; PANEL_ROWS],
    pub(crate) deviations: [f32; PANEL_ROWS],
}

impl HighTail {
    /// Reads the end of a high panel.
    #[inline(always)]
    pub(crate) fn of(panel: &[u8]) -> HighTail {
        let tail = panel.last_chunk::<TAIL_BYTES>();
        let tail = tail.expect("a high panel ends with its tail");
        let in_steps = |at: usize| u16::from_le_bytes([tail[at], tail[at + 1]]);
        let mut known = HighTail {
            scales: [0.0; PANEL_ROWS],
            means: [0.0; PANEL_ROWS],
            deviations: [0.0; PANEL_ROWS],
        };
        for r in 0..PANEL_ROWS {
            let at = 4 * r;
            known.scales[r] =
                f32::from_le_bytes([tail[at], tail[at + 1], tail[at + 2], tail[at + 3]]);
            known.means[r] = f32::from(in_steps(32 + 2 * r)) * (1.0 / STEPS);
            known.deviations[r] = f32::from(in_steps(48 + 2 * r)) * (1.0 / STEPS);
        }
        known
    }
}

impl<'a> NibblePanels<'a> {
    /// Views `bytes` as weights `[n, k]` in two planes.
    ///
    /// # Errors
    ///
    /// Fails if the length, the alignment or `k` is not that of weights in two planes. The contents
    /// are not read: any bytes give a product without undefined behaviour, see
    /// [`NibblePanels::validate`].
    pub fn new(bytes: &'a [u8], n: usize, k: usize) -> Result<NibblePanels<'a>, PanelsError> {
        check_k(k)?;
        let n_panels = n.div_ceil(PANEL_ROWS);
        let stride = high_stride(k) + low_stride(k);
        check_bytes(bytes, n_panels.saturating_mul(stride))?;
        let (high, low) = bytes.split_at(n_panels * high_stride(k));
        Ok(NibblePanels { high, low, n, k })
    }

    /// Output rows.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Input values per row.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Number of panels.
    pub fn n_panels(&self) -> usize {
        self.n.div_ceil(PANEL_ROWS)
    }

    /// Panels of the high plane.
    pub(crate) fn high(&self) -> &'a [u8] {
        self.high
    }

    /// Panels of the low plane.
    pub(crate) fn low(&self) -> &'a [u8] {
        self.low
    }

    /// Bytes from one panel of the low plane to the next.
    pub(crate) fn low_stride(&self) -> usize {
        low_stride(self.k)
    }

    /// Rows `8 * first_panel..8 * (first_panel + n_panels)`, at most `n`, as weights of their own.
    ///
    /// # Panics
    ///
    /// Panics if a panel is out of range.
    pub fn panel_range(&self, first_panel: usize, n_panels: usize) -> NibblePanels<'a> {
        let some = |plane: &'a [u8], stride| &plane[first_panel * stride..][..n_panels * stride];
        NibblePanels {
            high: some(self.high, high_stride(self.k)),
            low: some(self.low, low_stride(self.k)),
            n: (n_panels * PANEL_ROWS).min(self.n.saturating_sub(first_panel * PANEL_ROWS)),
            k: self.k,
        }
    }

    /// What is known of row `row` without its low half: scale, mean and deviation of that half.
    pub fn known(&self, row: usize) -> [f32; 3] {
        assert!(row < self.n, "row {row} of {}", self.n);
        let panel = &self.high[row / PANEL_ROWS * high_stride(self.k)..][..high_stride(self.k)];
        let (known, r) = (HighTail::of(panel), row % PANEL_ROWS);
        [known.scales[r], known.means[r], known.deviations[r]]
    }

    /// One int8 weight; -128 only where [`split_panels`] did not write it.
    pub fn weight(&self, row: usize, col: usize) -> i8 {
        assert!(
            row < self.n && col < self.k,
            "weight [{row}, {col}] of [{}, {}]",
            self.n,
            self.k
        );
        let (place, shift) = crate::int4_panels::place_in_block(row % PANEL_ROWS, col % BLOCK);
        let (panel, place) = (row / PANEL_ROWS, col / BLOCK * BLOCK_WEIGHTS + place);
        let half = |plane: &[u8], stride| (plane[panel * stride + place] >> shift) & 0x0f;
        let high = half(self.high, high_stride(self.k));
        let low = half(self.low, low_stride(self.k)) ^ 8;
        (high << 4 | low) as i8
    }

    /// Reads every byte and checks what [`split_panels`] promises: weights above -128, finite
    /// scales, means and deviations of the low halves.
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
            let [scale, mean, deviation] = self.known(row);
            if !scale.is_finite() || scale < 0.0 {
                return broken("the scale is not finite and positive");
            }
            let known = [mean, deviation].map(|value| (value * STEPS) as u16);
            if statistics(weights.map(|w| w as u8)) != known {
                return broken("mean and deviation are not those of the low halves");
            }
        }
        Ok(())
    }
}

impl fmt::Debug for NibblePanels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NibblePanels[{}, {}]", self.n, self.k)
    }
}

#[cfg(test)]
mod tests;
