//! [`Weights`]: what the products need of packed weights, in int8 or int4.

use std::ops::Range;

use super::{Store, one_token, one_token_int4};
use crate::aligned::{lines_for, take_words, with_scratch, words_mut};
use crate::compute::Compute;
use crate::int4_panels::{BLOCK, Int4Panels, int4_panel_stride};
use crate::int8_gemm::{Microkernel, pair_bytes};
use crate::panels::{PANEL_ROWS, Panels, k_padded, panel_stride};
use crate::quantize::Int8Rows;

/// Some panels as a tile takes them.
#[derive(Clone, Copy)]
pub(super) struct TilePanels<'a> {
    pub(super) bytes: &'a [u8],
    /// Whether they are int4 panels as stored.
    pub(super) is_int4: bool,
    pub(super) block_scales: &'a [f32],
    /// Panels, and output rows that exist.
    pub(super) n_panels: usize,
    pub(super) n: usize,
}

/// The packed weights of a product, `[n, k]`.
pub(super) trait Weights: Sync {
    fn n(&self) -> usize;
    fn k(&self) -> usize;
    /// Panics unless the tokens can be multiplied with these weights.
    fn check(&self, lhs: &Int8Rows<'_>) {
        assert_eq!(lhs.k(), self.k(), "lhs and rhs must agree on k");
    }
    /// What the kernels would compute for row `r` and an empty sum.
    fn empty_sum(&self, r: usize) -> f32;
    /// Multiplies one token.
    fn one_token(&self, compute: &Compute, lhs: Int8Rows<'_>, out: &mut [f32], store: Store);
    /// Values whose sum a kernel needs that corrects its tokens.
    fn sum_len(&self, lhs: &Int8Rows<'_>) -> usize;
    /// The bytes of some panels.
    fn panel_bytes(&self, panels: Range<usize>) -> &[u8];
    /// Lends some panels to `f`, as the kernel takes them.
    fn with_panels(
        &self,
        kernel: &dyn Microkernel,
        panels: Range<usize>,
        f: &mut dyn FnMut(TilePanels<'_>),
    );
}

/// A pair of panels of `stride` bytes each; one alone is its own second.
fn both(panels: &[u8], stride: usize) -> [&[u8]; 2] {
    let (first, rest) = panels.split_at(stride);
    [first, if rest.is_empty() { first } else { rest }]
}

impl Weights for Panels<'_> {
    fn n(&self) -> usize {
        Panels::n(self)
    }
    fn k(&self) -> usize {
        Panels::k(self)
    }
    fn empty_sum(&self, r: usize) -> f32 {
        0.0_f32.mul_add(self.scale(r), self.bias(r))
    }
    fn one_token(&self, compute: &Compute, lhs: Int8Rows<'_>, out: &mut [f32], store: Store) {
        one_token(compute, lhs, *self, out, store);
    }
    fn sum_len(&self, lhs: &Int8Rows<'_>) -> usize {
        lhs.group_len()
    }
    fn panel_bytes(&self, panels: Range<usize>) -> &[u8] {
        self.panel_range(panels.start, panels.len()).bytes()
    }
    fn with_panels(
        &self,
        kernel: &dyn Microkernel,
        panels: Range<usize>,
        f: &mut dyn FnMut(TilePanels<'_>),
    ) {
        let range = self.panel_range(panels.start, panels.len());
        if kernel.takes_pairs() {
            let (k, stride) = (k_padded(self.k()), panel_stride(self.k()));
            let pair = pair_bytes(k);
            let bytes = panels.len().div_ceil(2) * pair;
            return with_scratch(lines_for::<u8>(bytes), |lines| {
                let room = &mut words_mut(lines)[..bytes];
                let pairs = range.bytes().chunks(2 * stride);
                for (two, out) in pairs.zip(room.chunks_exact_mut(pair)) {
                    kernel.pair(both(two, stride), k, out);
                }
                f(TilePanels {
                    bytes: room,
                    is_int4: false,
                    block_scales: &[],
                    n_panels: panels.len(),
                    n: range.n(),
                });
            });
        }
        f(TilePanels {
            bytes: range.bytes(),
            is_int4: false,
            block_scales: &[],
            n_panels: panels.len(),
            n: range.n(),
        });
    }
}

impl Weights for Int4Panels<'_> {
    fn n(&self) -> usize {
        Int4Panels::n(self)
    }
    fn k(&self) -> usize {
        Int4Panels::k(self)
    }
    fn check(&self, lhs: &Int8Rows<'_>) {
        assert_eq!(lhs.k(), self.k(), "lhs and rhs must agree on k");
        assert!(
            lhs.group().is_multiple_of(BLOCK),
            "groups of activations must be whole blocks of {BLOCK}"
        );
    }
    fn empty_sum(&self, r: usize) -> f32 {
        self.bias(r)
    }
    fn one_token(&self, compute: &Compute, lhs: Int8Rows<'_>, out: &mut [f32], store: Store) {
        one_token_int4(compute, lhs, *self, out, store);
    }
    fn sum_len(&self, _: &Int8Rows<'_>) -> usize {
        BLOCK
    }
    fn panel_bytes(&self, panels: Range<usize>) -> &[u8] {
        self.panel_range(panels.start, panels.len()).bytes()
    }
    /// For a kernel that does not take them as they are, widens the panels into scratch, once for
    /// all tokens of a block.
    fn with_panels(
        &self,
        kernel: &dyn Microkernel,
        panels: Range<usize>,
        f: &mut dyn FnMut(TilePanels<'_>),
    ) {
        let range = self.panel_range(panels.start, panels.len());
        if kernel.takes_int4() {
            return f(TilePanels {
                bytes: range.bytes(),
                is_int4: true,
                block_scales: &[],
                n_panels: panels.len(),
                n: range.n(),
            });
        }
        if kernel.takes_pairs() {
            let (k, stride) = (self.k(), int4_panel_stride(self.k()));
            let (pair, n_pairs) = (pair_bytes(k), panels.len().div_ceil(2));
            let of_pair = k / BLOCK * 2 * PANEL_ROWS;
            let (bytes, n_scales) = (n_pairs * pair, n_pairs * of_pair);
            return with_scratch(
                lines_for::<u8>(bytes) + lines_for::<f32>(n_scales),
                |lines| {
                    let mut rest = lines;
                    let bytes = take_words(&mut rest, bytes);
                    let scales = take_words(&mut rest, n_scales);
                    let pairs = range.bytes().chunks(2 * stride);
                    let room = bytes
                        .chunks_exact_mut(pair)
                        .zip(scales.chunks_mut(of_pair.max(1)));
                    for (two, (out, scales)) in pairs.zip(room) {
                        kernel.pair_int4(both(two, stride), k, out, scales);
                    }
                    f(TilePanels {
                        bytes,
                        is_int4: false,
                        block_scales: scales,
                        n_panels: panels.len(),
                        n: range.n(),
                    });
                },
            );
        }
        let bytes = panels.len() * panel_stride(self.k());
        let n_scales = panels.len() * self.k() / BLOCK * PANEL_ROWS;
        with_scratch(
            lines_for::<u8>(bytes) + lines_for::<f32>(n_scales),
            |lines| {
                let mut rest = lines;
                let bytes = take_words(&mut rest, bytes);
                let block_scales = take_words(&mut rest, n_scales);
                self.widen_into(panels.start, bytes, block_scales);
                f(TilePanels {
                    bytes,
                    is_int4: false,
                    block_scales,
                    n_panels: panels.len(),
                    n: range.n(),
                });
            },
        );
    }
}
