//! [`RopeTable`]: rotary position embedding, rotate-half form.
//!
//! `inv_freq[i] = 1 / theta^(2i / head_dim)`, `angle = position · inv_freq[i]`, both in f32 as
//! transformers computes them, and for the pair `(a, b) = (x[i], x[i + head_dim/2])`:
//!
//! ```text
//! a' = a · cos(angle) - b · sin(angle)
//! b' = b · cos(angle) + a · sin(angle)
//! ```

use std::fmt;
use std::sync::OnceLock;

/// Positions that are computed together.
const BLOCK: usize = 128;

/// Cosines and sines of a context's positions, computed by blocks when a position is first asked
/// for: a whole context would take longer than a short prompt.
#[derive(Clone)]
pub struct RopeTable {
    head_dim: usize,
    n_positions: usize,
    inv_freq: Vec<f32>,
    /// `[BLOCK, head_dim / 2]` pairs of cosine and sine rows each: cosines, then sines.
    blocks: Vec<OnceLock<Box<[f32]>>>,
}

impl RopeTable {
    /// A table for positions `0..n_positions`.
    ///
    /// # Panics
    ///
    /// Panics if `head_dim` is odd or 0.
    pub fn new(head_dim: usize, theta: f64, n_positions: usize) -> RopeTable {
        assert!(
            head_dim > 0 && head_dim.is_multiple_of(2),
            "head_dim must be even"
        );
        let half = head_dim / 2;
        RopeTable {
            head_dim,
            n_positions,
            inv_freq: (0..half)
                .map(|i| 1.0 / (theta.powf(f64::from((2 * i) as f32 / head_dim as f32)) as f32))
                .collect(),
            blocks: vec![OnceLock::new(); n_positions.div_ceil(BLOCK)],
        }
    }

    fn block(&self, first: usize) -> Box<[f32]> {
        let last = self.n_positions.min(first + BLOCK);
        let mut table = Vec::with_capacity((last - first) * self.head_dim);
        for position in first..last {
            table.extend(self.values(position));
        }
        table.into()
    }

    /// Values per head.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Positions in the table.
    pub fn n_positions(&self) -> usize {
        self.n_positions
    }

    /// Cosines and sines of one position, `[head_dim / 2]` each.
    ///
    /// # Panics
    ///
    /// Panics if the position is not in the table.
    pub fn cos_sin(&self, position: usize) -> (&[f32], &[f32]) {
        let (block, row) = (position / BLOCK, position % BLOCK);
        let table = self.blocks[block].get_or_init(|| self.block(block * BLOCK));
        table[row * self.head_dim..][..self.head_dim].split_at(self.head_dim / 2)
    }

    /// Writes cosines and sines of one position to `out`, `[head_dim]`: what [`RopeTable::cos_sin`]
    /// gives, without making the table of a block that is not there yet.
    ///
    /// # Panics
    ///
    /// Panics if the position is not in the table or `out` has another length.
    pub fn write_cos_sin(&self, position: usize, out: &mut [f32]) {
        assert!(
            position < self.n_positions,
            "position {position} of {}",
            self.n_positions
        );
        if self.blocks[position / BLOCK].get().is_some() {
            let (cos, sin) = self.cos_sin(position);
            let (out_cos, out_sin) = out.split_at_mut(self.head_dim / 2);
            out_cos.copy_from_slice(cos);
            out_sin.copy_from_slice(sin);
        } else {
            assert_eq!(out.len(), self.head_dim, "out must be [head_dim]");
            let values = self.values(position);
            out.iter_mut().zip(values).for_each(|(out, v)| *out = v);
        }
    }

    /// Cosines, then sines of one position.
    fn values(&self, position: usize) -> impl Iterator<Item = f32> {
        let angle = move |f: &f32| f64::from(position as f32 * f);
        let cosines = self.inv_freq.iter().map(move |f| angle(f).cos() as f32);
        let sines = self.inv_freq.iter().map(move |f| angle(f).sin() as f32);
        cosines.chain(sines)
    }

    /// Rotates the first `n_heads` heads of each row in place. Row `i` starts at
    /// `i * row_stride`, is `[n_heads, head_dim]` and stands at position `first_position + i`; the
    /// last row may end before its stride does.
    ///
    /// In a fused row `q | k | v` with equal head sizes, `n_heads` = q heads + k heads rotates both.
    ///
    /// # Panics
    ///
    /// Panics if the heads do not fit a row, or a position is not in the table.
    pub fn apply(
        &self,
        rows: &mut [f32],
        row_stride: usize,
        n_heads: usize,
        first_position: usize,
    ) {
        let width = n_heads * self.head_dim;
        assert!(
            width <= row_stride,
            "{n_heads} heads of {} exceed the row stride {row_stride}",
            self.head_dim
        );
        if width == 0 {
            return;
        }
        for (i, row) in rows.chunks_mut(row_stride).enumerate() {
            rotate(&mut row[..width], self.cos_sin(first_position + i));
        }
    }
}

/// Rotates whole heads by the cosines and sines of their position, `[head_dim / 2]` each.
///
/// # Panics
///
/// Panics if there is no cosine, or fewer sines.
#[inline]
pub fn rotate(heads: &mut [f32], (cos, sin): (&[f32], &[f32])) {
    let half = cos.len();
    let sin = &sin[..half];
    for head in heads.chunks_exact_mut(2 * half) {
        let (a, b) = head.split_at_mut(half);
        for (((a, b), cos), sin) in a.iter_mut().zip(b).zip(cos).zip(sin) {
            (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
        }
    }
}

impl fmt::Debug for RopeTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RopeTable[{}, {}]", self.n_positions(), self.head_dim)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotation_matches_complex_multiplication() {
        let table = RopeTable::new(8, 10_000.0, 150);
        for position in [37, 127, 128, 149] {
            check_rotation(&table, position);
        }
    }

    /// One head of 8 against complex numbers; 10 000 is the table's theta.
    fn check_rotation(table: &RopeTable, position: usize) {
        let mut row: Vec<f32> = (0..8).map(|i| i as f32 - 3.0).collect();
        let before = row.clone();
        table.apply(&mut row, 8, 1, position);
        for i in 0..4 {
            let angle = position as f64 / 10_000_f64.powf(2.0 * i as f64 / 8.0);
            let (a, b) = (f64::from(before[i]), f64::from(before[i + 4]));
            let (re, im) = (
                a * angle.cos() - b * angle.sin(),
                a * angle.sin() + b * angle.cos(),
            );
            assert!(
                (f64::from(row[i]) - re).abs() < 2e-5 && (f64::from(row[i + 4]) - im).abs() < 2e-5
            );
        }
    }

    #[test]
    fn position_zero_changes_nothing_and_other_columns_stay() {
        let table = RopeTable::new(4, 100_000.0, 3);
        let mut rows: Vec<f32> = (0..22).map(|i| i as f32).collect();
        let before = rows.clone();
        // Three rows of stride 10, two heads of 4 rotated, the last row cut after its heads.
        let end = 20 + 8;
        rows.resize(end, 1.0);
        table.apply(&mut rows, 10, 2, 0);
        assert_eq!(rows[..10], before[..10]);
        assert_eq!(rows[18..20], before[18..20]);
        assert_ne!(rows[10..18], before[10..18]);
    }

    #[test]
    fn a_position_alone_has_the_values_of_the_table() {
        let table = RopeTable::new(8, 10_000.0, 150);
        for position in [0, 5, 127, 128, 149] {
            let mut alone = [f32::NAN; 8];
            table.write_cos_sin(position, &mut alone);
            let (cos, sin) = table.cos_sin(position);
            assert_eq!(alone, [cos, sin].concat()[..], "{position}");
            // And again, now that there is a table.
            table.write_cos_sin(position, &mut alone);
            assert_eq!(alone, [cos, sin].concat()[..], "{position}");
        }
    }

    #[test]
    fn two_steps_equal_one_call() {
        let table = RopeTable::new(6, 1000.0, 10);
        let rows: Vec<f32> = (0..36).map(|i| (i as f32).sin()).collect();
        let mut together = rows.clone();
        table.apply(&mut together, 12, 2, 4);
        let mut apart = rows;
        for (i, row) in apart.chunks_mut(12).enumerate() {
            table.apply(row, 12, 2, 4 + i);
        }
        assert_eq!(together, apart);
    }
}
