//! [`linear_blocks`]: a product whose columns lie in blocks, one after the other.

use std::marker::PhantomData;
use std::ops::Range;

use super::tiles::{Place, Target, many_tokens};
use super::weights::Weights;
use super::{Store, product};
use crate::compute::Compute;
use crate::int4_panels::Int4Panels;
use crate::panels::{PANEL_ROWS, Panels};
use crate::quantize::Int8Rows;
use crate::threads::SyncPtr;

/// [`super::linear`] with the columns in blocks: `out` `[n / block, m, block]`. Blocks that are written and
/// read one by one, as the heads of an attention, lie in few pages.
///
/// # Panics
///
/// Panics if the shapes do not fit or `block` is not a multiple of 8 that divides `n`.
pub fn linear_blocks(
    compute: &Compute,
    lhs: Int8Rows<'_>,
    rhs: Panels<'_>,
    block: usize,
    out: &mut [f32],
) {
    run(compute, lhs, &rhs, block, out);
}

/// [`linear_blocks`] with int4 weights.
///
/// # Panics
///
/// Panics as [`linear_blocks`], or if a group of activations is not a multiple of 32 values.
pub fn linear_int4_blocks(
    compute: &Compute,
    lhs: Int8Rows<'_>,
    rhs: Int4Panels<'_>,
    block: usize,
    out: &mut [f32],
) {
    run(compute, lhs, &rhs, block, out);
}

fn run(compute: &Compute, lhs: Int8Rows<'_>, rhs: &dyn Weights, block: usize, out: &mut [f32]) {
    let (m, n) = (lhs.m(), rhs.n());
    rhs.check(&lhs);
    assert!(
        block > 0 && block.is_multiple_of(PANEL_ROWS) && n.is_multiple_of(block),
        "block must be a multiple of {PANEL_ROWS} that divides n"
    );
    assert_eq!(out.len(), m * n, "out must be [n / block, m, block]");
    if m == 0 || n == 0 {
        return;
    }
    if m == 1 {
        product(compute, lhs, rhs, out, Store::Overwrite);
        return;
    }
    assert!(lhs.k() > 0, "lhs must have columns");
    many_tokens(compute, lhs, rhs, &Blocks::new(m, block, out));
}

/// `[n / block, m, block]`.
pub(super) struct Blocks<'a> {
    out: SyncPtr<f32>,
    m: usize,
    block: usize,
    _out: PhantomData<&'a mut [f32]>,
}

impl<'a> Blocks<'a> {
    /// `out` holds whole blocks of `m` rows.
    pub(super) fn new(m: usize, block: usize, out: &'a mut [f32]) -> Blocks<'a> {
        Blocks {
            out: SyncPtr::new(out.as_mut_ptr()),
            m,
            block,
            _out: PhantomData,
        }
    }
}

// SAFETY: a unit is a block of `out`, of which each row comes once.
unsafe impl Target for Blocks<'_> {
    fn width(&self) -> usize {
        self.block
    }
    fn with_unit(&self, rows: Range<usize>, unit: usize, fill: &mut dyn FnMut(Place)) {
        fill(Place {
            // SAFETY: the row is inside the block.
            out: unsafe { self.out.at((unit * self.m + rows.start) * self.block) },
            stride: self.block,
            store: Store::Overwrite,
        });
    }
}
