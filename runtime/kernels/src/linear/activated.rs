//! [`linear_activated`]: a product whose columns pass through an activation and are quantised while
//! they are in the cache; the f32 rows never exist as a whole.

use std::ops::Range;

use super::tiles::{Place, Target, many_tokens};
use super::weights::Weights;
use super::{Store, product};
use crate::activation::Activation;
use crate::aligned::{lines_for, take_words, with_f32_scratch, with_scratch};
use crate::compute::Compute;
use crate::int4_panels::Int4Panels;
use crate::panels::{PANEL_ROWS, Panels, k_padded};
use crate::quantize::{Int8Rows, Int8RowsMut};
use crate::threads::SyncPtr;

/// Quantises `activation(lhs · rhsᵀ + bias)` as [`crate::quantize::quantize_rows`] does: the bits of
/// [`super::linear`] followed by the activation. `lhs` `[m, k]`, `rhs` `[n, k]`, `out` `[m, n]`, or
/// `[m, n / 2]` where the activation takes two columns for each of its own.
///
/// # Panics
///
/// Panics if the shapes do not fit.
pub fn linear_activated(
    compute: &Compute,
    lhs: Int8Rows<'_>,
    rhs: Panels<'_>,
    activation: Activation,
    out: Int8RowsMut<'_>,
) {
    run(compute, lhs, &rhs, activation, out);
}

/// [`linear_activated`] with int4 weights.
///
/// # Panics
///
/// Panics as [`linear_activated`], or if a group of activations of `lhs` is not a multiple of 32
/// values.
pub fn linear_int4_activated(
    compute: &Compute,
    lhs: Int8Rows<'_>,
    rhs: Int4Panels<'_>,
    activation: Activation,
    out: Int8RowsMut<'_>,
) {
    run(compute, lhs, &rhs, activation, out);
}

fn run(
    compute: &Compute,
    lhs: Int8Rows<'_>,
    rhs: &dyn Weights,
    activation: Activation,
    mut out: Int8RowsMut<'_>,
) {
    let n = rhs.n();
    rhs.check(&lhs);
    assert_eq!(out.m(), lhs.m(), "lhs and out must agree on m");
    assert_eq!(
        out.k() * activation.columns(),
        n,
        "out must be [m, n] as the activation leaves it"
    );
    assert!(
        activation.columns() == 1 || out.k().is_multiple_of(PANEL_ROWS),
        "gate and up must be whole panels of {PANEL_ROWS}"
    );
    if lhs.m() == 0 || n == 0 {
        return;
    }
    // One token is no tile.
    if lhs.m() == 1 || lhs.k() == 0 {
        with_f32_scratch(lhs.m() * n, |columns| {
            product(compute, lhs, rhs, columns, Store::Overwrite);
            activation.quantize_rows(compute, columns, out);
        });
        return;
    }
    let (k, group) = (out.k(), out.group());
    let values_per_unit = if group == 0 { k } else { group };
    let target = Activated {
        compute,
        activation,
        columns: n,
        values_per_unit,
        row_values: k_padded(k),
        row_scales: k / values_per_unit,
        padding: k_padded(k) - k,
        // Whole panels, though columns may be missing from the last.
        width: (values_per_unit * activation.columns()).next_multiple_of(PANEL_ROWS),
        scales: SyncPtr::new(out.scales_mut().as_mut_ptr()),
        values: SyncPtr::new(out.data_mut().as_mut_ptr()),
    };
    many_tokens(compute, lhs, rhs, &target);
}

/// Units as wide as a group of quantised values.
struct Activated<'a> {
    compute: &'a Compute,
    activation: Activation,
    columns: usize,
    width: usize,
    values_per_unit: usize,
    row_values: usize,
    row_scales: usize,
    padding: usize,
    values: SyncPtr<i8>,
    scales: SyncPtr<f32>,
}

// SAFETY: the place is scratch of the length asked for.
unsafe impl Target for Activated<'_> {
    fn width(&self) -> usize {
        self.width
    }

    fn with_unit(&self, rows: Range<usize>, unit: usize, fill: &mut dyn FnMut(Place)) {
        let columns = self.width.min(self.columns - unit * self.width);
        let (m, values) = (rows.len(), self.values_per_unit);
        let lines = lines_for::<f32>(m * columns) + lines_for::<f32>(m * values);
        with_scratch(lines, |lines| {
            let mut rest = lines;
            let products = take_words::<f32>(&mut rest, m * columns);
            let activated = take_words::<f32>(&mut rest, m * values);
            fill(Place {
                out: products.as_mut_ptr(),
                stride: columns,
                store: Store::Overwrite,
            });
            let tier = self.compute.float_tier();
            let first = rows.start * self.row_values + unit * values;
            let first_scale = rows.start * self.row_scales + unit;
            // SAFETY: the rows were checked when they were made; each unit of a row comes once. The
            // padding follows the last unit, which is the only one of such rows.
            unsafe {
                let out = (self.values.at(first), self.row_values);
                let scales = (self.scales.at(first_scale), self.row_scales);
                self.activation
                    .quantize_strided(tier, m, products, activated, out, scales);
                for row in 0..m {
                    let end = first + row * self.row_values + values;
                    self.values.slice_mut(end, self.padding).fill(0);
                }
            }
        });
    }
}
