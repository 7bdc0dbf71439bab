//! Vision attention on the int8 kernels: both products are tiles of [`crate::int8_gemm`].
//!
//! ```text
//!   once per head     keys    minus their mean, one scale per key ──▶ panels [n, terms * head_dim]
//!                     values  minus their mean, one scale per dimension ──▶ panels [head_dim, n]
//!
//!   per strip of up to grouped_mr queries, KEY_BLOCK keys at a time:
//!     queries (one scale each) · keysᵀ ──▶ scores f32 ──▶ weights int8, one scale per GROUP keys
//!   then weights · values / sum of the weights + mean value ──▶ out
//! ```
//!
//! A mean taken from the keys moves all scores of a query alike, which softmax does not see; one
//! taken from the values comes back at the end, because the weights of a query sum to 1. Both
//! leave smaller numbers to round. Scores carry the factor log₂e, so the weights are powers of two:
//! within a group of keys `254 · 2^(score - maximum of the group)`, the exponent rounded to 32nds and
//! then the weight, by a table of one octave; with the scale
//! `2^(maximum of the group - maximum of the row)`. Less 127 they fit a byte; what that takes from
//! the output is a multiple of the sum of the group's values, and comes back at the end. The sum
//! that divides is that of the rounded weights.
//!
//! A head whose scores are wide has queries and keys of two terms, `high + low / 254`, and three
//! products: see [`terms`].
//!
//! Every step is exact or rounded in a fixed order, so all kernels and float tiers give the same
//! bits.

use super::softmax::scale;
use super::{Part, VisionQkv};
use crate::aligned::{Line, lines_for, take_words, with_scratch, words};
use crate::compute::Compute;
use crate::int8_gemm::{Microkernel, Tile};
use crate::lanes::MAX_LANES;
use crate::linear::Store;
use crate::panels::{PANEL_ROWS, k_padded, panel_stride};
use crate::threads::SyncPtr;

mod head;
mod terms;
#[cfg(test)]
mod tests;
mod weights;

use head::{HeadLayout, PackedHead};
use terms::{MAX_TERMS, Order, quantize_terms, term_scales};
use weights::{SCORE_STEPS, add_groups, add_offsets, weigh_rows};

/// Keys whose weights share a scale.
const GROUP: usize = 64;
/// Keys whose scores are held at a time; a multiple of [`GROUP`].
const KEY_BLOCK: usize = 256;

/// Full attention among `n` patches, as [`super::vision_attention`], in int8. `qkv`
/// `[3, n_heads, n, head_dim]`; `out` `[n, n_heads * head_dim]`.
///
/// Values are rounded to 8 bits, weights to 8 bits of the largest of their 64 keys; queries and keys
/// to 8 bits, or to 15 where 8 would move the scores of the head by more than 1/64. On normally
/// distributed rows the output is within 1.6 % (root mean square, relative) of
/// [`super::vision_attention`], and the same bits come from every kernel and number of threads.
///
/// # Panics
///
/// Panics if a length does not fit or `head_dim` is not a multiple of 8.
pub fn vision_attention_int8(
    compute: &Compute,
    qkv: &[f32],
    n: usize,
    n_heads: usize,
    head_dim: usize,
    out: &mut [f32],
) {
    let qkv = VisionQkv::new(qkv, n, n_heads, head_dim);
    qkv.check_out(out);
    if n == 0 || n_heads == 0 {
        return;
    }
    let layout = HeadLayout::new(n, head_dim);
    let kernel = compute.gemm();
    let most_queries = n.min(kernel.grouped_mr());
    let n_strips = n.div_ceil(most_queries);
    let out = SyncPtr::new(out.as_mut_ptr());
    with_scratch(n_heads * layout.lines(), |heads| {
        compute
            .pool()
            .for_each_chunk_mut(heads, layout.lines(), &|head, lines| {
                layout.pack(compute.float_tier(), &qkv, head, lines);
            });
        let heads = &*heads;
        compute.pool().run(n_heads * n_strips, &|chunk| {
            let (head, strip) = (chunk / n_strips, chunk % n_strips);
            let first = strip * most_queries;
            let n_queries = most_queries.min(n - first);
            let packed = layout.view(&heads[head * layout.lines()..][..layout.lines()]);
            with_scratch(Strip::lines(kernel, most_queries, &layout), |lines| {
                let mut strip = Strip::new(compute, n_queries, packed.terms, &layout, lines);
                for i in 0..n_queries {
                    strip.set_query(i, qkv.part(Part::Query, head, first + i));
                }
                strip.attend(&packed);
                for i in 0..n_queries {
                    let start = (first + i) * qkv.width() + head * head_dim;
                    // SAFETY: each (query, head) belongs to one chunk.
                    let out = unsafe { out.slice_mut(start, head_dim) };
                    strip.output(i, &packed, out);
                }
            });
            kernel.finish();
        });
    });
}

/// Some queries of one head, at most the kernel's `grouped_mr`, on their way through the keys.
struct Strip<'a> {
    compute: &'a Compute,
    kernel: &'static dyn Microkernel,
    layout: &'a HeadLayout,
    /// Queries, and products of a score.
    m: usize,
    terms: usize,
    /// `[m, terms, head_dim padded]`, and as the kernel wants them, with scales and sums `[terms, m]`.
    query_rows: &'a mut [i8],
    queries: &'a mut [i8],
    query_scales: &'a mut [f32],
    query_sums: &'a mut [i32],
    /// `[m, KEY_BLOCK]`, in steps of a [`SCORE_STEPS`]th.
    scores: &'a mut [f32],
    weight_rows: &'a mut [i8],
    /// All keys, as the kernel wants them.
    weights: &'a mut [i8],
    /// `[groups, m]` and room for a vector: maximum score, sum of the weights' bytes, scale.
    maxima: &'a mut [f32],
    sums: &'a mut [i32],
    scales: &'a mut [f32],
    /// `[m]` and room for a vector: what the weights of a query sum to.
    totals: &'a mut [f32],
    /// `[m, head_dim]`.
    out: &'a mut [f32],
}

impl<'a> Strip<'a> {
    /// Scratch lines a strip of `m` queries needs.
    fn lines(kernel: &dyn Microkernel, m: usize, layout: &HeadLayout) -> usize {
        let groups = m * layout.n_groups() + MAX_LANES;
        let width = layout.key_width(MAX_TERMS);
        lines_for::<i8>(m * width)
            + lines_for::<i8>(kernel.lhs_bytes(m, width))
            + 2 * lines_for::<f32>(MAX_TERMS * m)
            + lines_for::<f32>(m + MAX_LANES)
            + lines_for::<f32>(m * KEY_BLOCK)
            + lines_for::<i8>(m * KEY_BLOCK)
            + lines_for::<i8>(kernel.lhs_bytes(m, layout.n_padded()))
            + 3 * lines_for::<f32>(groups)
            + lines_for::<f32>(m * layout.head_dim())
    }

    /// Makes a strip of `m` queries, all zero, in `lines`, [`Strip::lines`] long.
    fn new(
        compute: &'a Compute,
        m: usize,
        terms: usize,
        layout: &'a HeadLayout,
        lines: &'a mut [Line],
    ) -> Strip<'a> {
        let kernel = compute.gemm();
        let (groups, width) = (m * layout.n_groups() + MAX_LANES, layout.key_width(terms));
        let mut rest = lines;
        let strip = Strip {
            compute,
            kernel,
            layout,
            m,
            terms,
            query_rows: take_words(&mut rest, m * width),
            queries: take_words(&mut rest, kernel.lhs_bytes(m, width)),
            query_scales: take_words(&mut rest, terms * m),
            query_sums: take_words(&mut rest, terms * m),
            scores: take_words(&mut rest, m * KEY_BLOCK),
            weight_rows: take_words(&mut rest, m * KEY_BLOCK),
            weights: take_words(&mut rest, kernel.lhs_bytes(m, layout.n_padded())),
            maxima: take_words(&mut rest, groups),
            sums: take_words(&mut rest, groups),
            scales: take_words(&mut rest, groups),
            totals: take_words(&mut rest, m + MAX_LANES),
            out: take_words(&mut rest, m * layout.head_dim()),
        };
        strip.query_rows.fill(0);
        strip
    }

    /// Puts query `i` of the strip in its place, quantised.
    fn set_query(&mut self, i: usize, query: &[f32]) {
        // Exact: the factor is a power of two.
        let factor = SCORE_STEPS * scale(query.len());
        let width = self.layout.key_width(1);
        let row = &mut self.query_rows[i * self.terms * width..][..self.terms * width];
        let tier = self.compute.float_tier();
        // SAFETY: the row holds `terms` times `width` values, `width` at least as long as the query.
        let scale = unsafe { quantize_terms(tier, query, factor, Order::Query, width, row) };
        for (t, scale) in term_scales(self.terms, scale).enumerate() {
            self.query_scales[t * self.m + i] = scale;
        }
    }

    /// Runs the queries over all keys and values of a head; `out` is not yet divided.
    fn attend(&mut self, head: &PackedHead<'_>) {
        let width = self.layout.key_width(self.terms);
        self.kernel.pack_lhs(self.query_rows, width, self.queries);
        if self.kernel.uses_lhs_sums() {
            let len = width / self.terms;
            self.kernel
                .sum_lhs(self.queries, self.m, len, self.query_sums);
        }
        for first_key in (0..self.layout.n_padded()).step_by(KEY_BLOCK) {
            let n_keys = KEY_BLOCK.min(self.layout.n_padded() - first_key);
            self.score(head, first_key, n_keys);
            self.weigh(first_key, n_keys);
        }
        // SAFETY: all hold whole groups of m values, totals m values, and have room for a vector.
        unsafe {
            let tier = self.compute.float_tier();
            add_groups(
                tier,
                self.m,
                self.maxima,
                self.sums,
                self.scales,
                self.totals,
            );
        }
        let groups = self.m * self.layout.n_groups();
        let tile = Tile {
            rows: self.m,
            lhs: self.weights,
            lhs_scales: &self.scales[..groups],
            lhs_sums: &self.sums[..groups],
            panels: head.values,
            block_scales: &[],
            n_panels: self.layout.head_dim() / PANEL_ROWS,
            k_padded: self.layout.n_padded(),
            group_len: GROUP,
            ahead: &[],
        };
        product(self.kernel, &tile, self.out, self.layout.head_dim());
    }

    /// Writes the scores of `n_keys` keys, a multiple of [`GROUP`].
    fn score(&mut self, head: &PackedHead<'_>, first_key: usize, n_keys: usize) {
        let width = self.layout.key_width(self.terms);
        let stride = panel_stride(width);
        let tile = Tile {
            rows: self.m,
            lhs: self.queries,
            lhs_scales: self.query_scales,
            lhs_sums: self.query_sums,
            panels: &head.keys[first_key / PANEL_ROWS * stride..][..n_keys / PANEL_ROWS * stride],
            block_scales: &[],
            n_panels: n_keys / PANEL_ROWS,
            k_padded: width,
            group_len: width / self.terms,
            ahead: &[],
        };
        product(self.kernel, &tile, self.scores, KEY_BLOCK);
        let real = self.layout.n().saturating_sub(first_key).min(n_keys);
        for row in self.scores.chunks_exact_mut(KEY_BLOCK) {
            // Padding gets no weight.
            row[real..n_keys].fill(f32::NEG_INFINITY);
        }
    }

    /// Turns the scores of `n_keys` keys into weights in the kernel's order.
    fn weigh(&mut self, first_key: usize, n_keys: usize) {
        let (kernel, m) = (self.kernel, self.m);
        let first = first_key / GROUP * m;
        // SAFETY: there are m rows of scores and weights, n_keys in whole groups; behind the maxima
        // and sums of all groups is room for a vector of any tier.
        unsafe {
            weigh_rows(
                self.compute.float_tier(),
                self.scores,
                KEY_BLOCK,
                &mut self.weight_rows[..m * n_keys],
                n_keys,
                &mut self.maxima[first..],
                &mut self.sums[first..],
            );
        }
        let packed = &mut self.weights[kernel.lhs_bytes(m, first_key)..];
        let packed = &mut packed[..kernel.lhs_bytes(m, n_keys)];
        kernel.pack_lhs(&self.weight_rows[..m * n_keys], n_keys, packed);
    }

    /// Writes the output of query `i`, `[head_dim]`.
    fn output(&self, i: usize, head: &PackedHead<'_>, out: &mut [f32]) {
        let row = &self.out[i * out.len()..][..out.len()];
        let (scales, factor) = (&self.scales[i..], 1.0 / self.totals[i]);
        let (tier, mean) = (self.compute.float_tier(), head.mean_value);
        // SAFETY: row, mean and out hold head_dim values, there are offsets and scales of every
        // group.
        unsafe { add_offsets(tier, row, scales, self.m, head.offsets, factor, mean, out) };
    }
}

/// Multiplies the tokens of `tile` with all its panels; rows of `out` are `out_stride` apart.
fn product(kernel: &dyn Microkernel, tile: &Tile<'_>, out: &mut [f32], out_stride: usize) {
    assert!(tile.n_panels * PANEL_ROWS <= out_stride && out.len() >= tile.rows * out_stride);
    assert_eq!(
        tile.panels.len(),
        tile.n_panels * panel_stride(tile.k_padded)
    );
    // SAFETY: the lengths of the tile follow from its shape, panels start on lines, and `out` holds
    // the rows with all columns.
    unsafe { kernel.tiles(tile, out.as_mut_ptr(), out_stride, Store::Overwrite) };
}
