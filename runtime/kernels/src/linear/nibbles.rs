//! [`linear_nibbles`]: products with weights in two planes, and [`linear_arg_max`], the largest of
//! them by reading little more than the high one.
//!
//! With `w = 16 · h + u` a product is `16 · Σ h·x + Σ u·x`. The high plane gives the first sum; the
//! second is `mean · Σ x` and what the low halves' differences from their mean add up to. Those are
//! what rounding left over, and independent of the token: their sum has the standard deviation
//! `deviation · |x|`, and is beyond [`REACH`] of these with a probability of e^(-REACH²/2) at most,
//! if they are distributed evenly (a uniform distribution is strictly sub-Gaussian). Nor is it ever
//! beyond `√k` of them (Cauchy-Schwarz).

use std::ops::Range;

use crate::compute::Compute;
use crate::linear::{Store, run_panels, sum};
use crate::nibble_gemv::NibbleGemv;
use crate::nibble_panels::{HighTail, NibblePanels, high_stride};
use crate::panels::PANEL_ROWS;
use crate::quantize::Int8Rows;

/// Standard deviations that the low halves may add: beyond it once in 10^21 sums.
const REACH: f32 = 10.0;
/// Panels whose sums lie on the stack together.
const BATCH: usize = 16;

/// The token of a product.
struct Token<'a> {
    compute: &'a Compute,
    values: &'a [i8],
    scale: f32,
    sum: i32,
}

type Sums = [i32; PANEL_ROWS];

impl<'a> Token<'a> {
    /// Token `i`.
    fn of(compute: &'a Compute, lhs: Int8Rows<'a>, i: usize) -> Token<'a> {
        let row = lhs.row_range(i, 1);
        Token {
            compute,
            values: row.data(),
            scale: row.scales()[0],
            sum: sum(row.data()),
        }
    }

    fn high_sums(&self, rhs: &NibblePanels<'_>, out: &mut [Sums]) {
        self.sums(rhs.high(), high_stride(rhs.k()), out);
    }

    fn sums(&self, panels: &[u8], stride: usize, out: &mut [Sums]) {
        let gemv = NibbleGemv {
            token: self.values,
            token_sum: self.sum,
            panels,
            stride,
        };
        self.compute.nibble_gemv().sums(&gemv, out);
    }

    /// The products with some panels, at most [`BATCH`], eight for each: what int8 panels give, in
    /// the order of the float steps of [`crate::int8_gemm`] without a bias.
    fn products(&self, rhs: &NibblePanels<'_>, out: &mut [[f32; PANEL_ROWS]]) {
        let (mut high, mut low) = ([Sums::default(); BATCH], [Sums::default(); BATCH]);
        self.high_sums(rhs, &mut high[..out.len()]);
        self.sums(rhs.low(), rhs.low_stride(), &mut low[..out.len()]);
        let panels = rhs.high().chunks_exact(high_stride(rhs.k()));
        for (((panel, high), low), out) in panels.zip(high).zip(low).zip(out) {
            let known = HighTail::of(panel);
            for r in 0..PANEL_ROWS {
                // The low plane holds u - 8.
                let acc = 16 * high[r] + low[r] + 8 * self.sum;
                // Adding zero makes a negative one positive, as the bias of int8 panels does.
                out[r] = acc as f32 * self.scale * known.scales[r] + 0.0;
            }
        }
    }
}

/// Some panels, at most [`BATCH`] at a time, beside where their values go.
fn batches<'r, 'o>(
    rhs: &NibblePanels<'r>,
    panels: Range<usize>,
    out: &'o mut [f32],
) -> impl Iterator<Item = (NibblePanels<'r>, &'o mut [[f32; PANEL_ROWS]])> {
    let out = out.as_chunks_mut().0.chunks_mut(BATCH);
    panels
        .step_by(BATCH)
        .zip(out)
        .map(|(first, out)| (rhs.panel_range(first, out.len()), out))
}

fn check(lhs: &Int8Rows<'_>, rhs: &NibblePanels<'_>) {
    assert_eq!(lhs.k(), rhs.k(), "lhs and rhs must agree on k");
    assert_eq!(lhs.group(), 0, "a token must have one scale");
}

/// [`crate::linear`] with weights in two planes: the same to the last bit as with int8 panels of the
/// same weights.
///
/// # Panics
///
/// Panics if the shapes do not fit, or tokens have more than one scale.
pub fn linear_nibbles(
    compute: &Compute,
    lhs: Int8Rows<'_>,
    rhs: NibblePanels<'_>,
    out: &mut [f32],
    store: Store,
) {
    check(&lhs, &rhs);
    assert_eq!(out.len(), lhs.m() * rhs.n(), "out must be [m, n]");
    let stride = high_stride(rhs.k()) + rhs.low_stride();
    for (i, out) in out.chunks_exact_mut(rhs.n().max(1)).enumerate() {
        let token = Token::of(compute, lhs, i);
        run_panels(compute, stride, out, store, &|panels, out, store| {
            for (some, out) in batches(&rhs, panels, out) {
                let mut values = [[0.0; PANEL_ROWS]; BATCH];
                let values = &mut values[..out.len()];
                token.products(&some, values);
                for (out, values) in out.iter_mut().zip(values) {
                    super::store_edge(values, out, store);
                }
            }
        });
    }
}

/// The products of one token with some rows alone, to their places in `out` (`[n]`); what stands in
/// other places may change.
///
/// # Panics
///
/// Panics if the shapes do not fit, there is not one token, it has more than one scale, or a row is
/// out of range.
pub fn linear_nibbles_of(
    compute: &Compute,
    lhs: Int8Rows<'_>,
    rhs: NibblePanels<'_>,
    rows: impl Iterator<Item = usize>,
    out: &mut [f32],
) {
    check(&lhs, &rhs);
    assert_eq!(lhs.m(), 1, "some rows are those of one token");
    assert_eq!(out.len(), rhs.n(), "out must be [n]");
    let token = Token::of(compute, lhs, 0);
    let mut last = None;
    for panel in rows.map(|row| row / PANEL_ROWS) {
        // Neighbouring rows are often asked for together.
        if last == Some(panel) {
            continue;
        }
        let mut values = [[0.0; PANEL_ROWS]];
        token.products(&rhs.panel_range(panel, 1), &mut values);
        let places = out[panel * PANEL_ROWS..].iter_mut().zip(values[0]);
        places.for_each(|(place, value)| *place = value);
        last = Some(panel);
    }
}

/// For each row an upper bound of its product with one token, by the high plane alone. `out`: `[n]`
///
/// # Panics
///
/// Panics if the shapes do not fit, there is not one token, or it has more than one scale.
pub fn linear_upper_bounds(
    compute: &Compute,
    lhs: Int8Rows<'_>,
    rhs: NibblePanels<'_>,
    out: &mut [f32],
) {
    check(&lhs, &rhs);
    assert_eq!(lhs.m(), 1, "bounds are those of one token");
    assert_eq!(out.len(), rhs.n(), "out must be [n]");
    let token = Token::of(compute, lhs, 0);
    let squares: i32 = (token.values.iter()).map(|x| i32::from(*x).pow(2)).sum();
    let reach = REACH.min((rhs.k() as f32).sqrt()) * (squares as f32).sqrt();
    let stride = high_stride(rhs.k());
    run_panels(compute, stride, out, Store::Overwrite, &|panels, out, _| {
        for (some, out) in batches(&rhs, panels, out) {
            let mut sums = [Sums::default(); BATCH];
            token.high_sums(&some, &mut sums[..out.len()]);
            let panels = some.high().chunks_exact(stride);
            for ((panel, sums), out) in panels.zip(&sums).zip(out) {
                *out = bounds(&token, reach, &HighTail::of(panel), sums);
            }
        }
    });
}

/// Upper bounds of eight rows. `reach`: most that the low halves add, for a deviation of 1
#[inline(always)]
fn bounds(token: &Token<'_>, reach: f32, known: &HighTail, sums: &Sums) -> [f32; PANEL_ROWS] {
    /// More than the float steps here and those of a product differ by.
    const ROUNDING: f32 = 1.0 / (1 << 20) as f32;
    /// More than the mean of the low halves was rounded by.
    const MEAN_STEP: f32 = 1.0 / 4096.0;
    let token_sum = token.sum as f32;
    std::array::from_fn(|r| {
        let (high, low) = (16.0 * sums[r] as f32, known.means[r] * token_sum);
        let slack = reach * known.deviations[r] + token_sum.abs() * MEAN_STEP;
        let slack = slack + (high.abs() + low.abs()) * ROUNDING;
        let scale = token.scale * known.scales[r];
        (high + low) * scale + slack * scale.abs()
    })
}

/// The row of the largest value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ArgMax {
    /// The row; the first of equals.
    pub row: usize,
    /// Its value.
    pub value: f32,
    /// Panels of eight rows of which the low plane was read, too.
    pub n_panels: usize,
}

/// The row whose product with one token, after `value_of`, is largest; `None` if none is a number.
///
/// `bounds` (`[n]`) are those of [`linear_upper_bounds`], each changed as `value_of(row, product)`
/// changes a product, which must not fall where the product rises. Whole products are computed where
/// they may be the largest.
///
/// # Panics
///
/// Panics if the shapes do not fit, there is not one token, or it has more than one scale.
pub fn linear_arg_max(
    compute: &Compute,
    lhs: Int8Rows<'_>,
    rhs: NibblePanels<'_>,
    bounds: &[f32],
    value_of: &dyn Fn(usize, f32) -> f32,
) -> Option<ArgMax> {
    check(&lhs, &rhs);
    assert_eq!(lhs.m(), 1, "bounds are those of one token");
    assert_eq!(bounds.len(), rhs.n(), "bounds must be [n]");
    let token = Token::of(compute, lhs, 0);
    let mut best = Best {
        found: None,
        value: f32::NEG_INFINITY,
        n_panels: 0,
    };
    let look = |best: &mut Best, panel: usize| {
        let mut values = [[0.0; PANEL_ROWS]];
        token.products(&rhs.panel_range(panel, 1), &mut values);
        let rows = (panel * PANEL_ROWS..rhs.n()).zip(values[0]);
        rows.for_each(|(row, value)| best.offer(row, value_of(row, value)));
        best.n_panels += 1;
    };
    // The likeliest first, which leaves little to look at behind it.
    let mut highest = (0, f32::NEG_INFINITY);
    for (row, bound) in bounds.iter().enumerate() {
        if *bound > highest.1 {
            highest = (row, *bound);
        }
    }
    let first = highest.0 / PANEL_ROWS;
    if !bounds.is_empty() {
        look(&mut best, first);
    }
    for (panel, bounds) in bounds.chunks(PANEL_ROWS).enumerate() {
        // A bound is no number only where the product is none.
        let may_win = |bound: &f32| *bound >= best.value;
        if panel != first && bounds.iter().any(may_win) {
            look(&mut best, panel);
        }
    }
    best.found.map(|row| ArgMax {
        row,
        value: best.value,
        n_panels: best.n_panels,
    })
}

/// The largest value so far.
struct Best {
    found: Option<usize>,
    value: f32,
    n_panels: usize,
}

impl Best {
    fn offer(&mut self, row: usize, value: f32) {
        let is_earlier = value == self.value && self.found.is_some_and(|found| row < found);
        if value > self.value || is_earlier {
            (self.found, self.value) = (Some(row), value);
        }
    }
}

#[cfg(test)]
mod tests;
