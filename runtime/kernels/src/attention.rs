//! Softmax attention: causal over the f16 KV cache for the decoder, full for the vision encoder.
//!
//! `out = softmax(q · Kᵀ / sqrt(head_dim)) · V` per head. Both walk the keys in tiles of
//! [`KEY_TILE`] with an online softmax: after each tile, the running maximum, the running sum and
//! the output so far are corrected by `e^(old maximum - new maximum)`. Memory is a few tiles per
//! thread, whatever the context. Sums run over positions in order, tile by tile, so the result
//! does not depend on the block length of the cache or on the number of threads.
//!
//! [`vision_attention_int8`] computes the vision encoder's attention with the int8 kernels.

use std::fmt;
use std::sync::Arc;

use crate::compute::Compute;
use crate::half::f32_to_f16;
use crate::threads::SyncPtr;

mod int8;
mod one_query;
mod query_rows;
mod softmax;
#[cfg(test)]
mod tests;

pub use int8::vision_attention_int8;

use one_query::attend_one_query;
use query_rows::{ROWS, with_query_rows};

/// Key positions handled between two corrections of the running softmax.
pub const KEY_TILE: usize = 32;

/// Keys and values of one layer: f16 bits in blocks of `block_len` positions, which conversations
/// may share.
///
/// In each block, at `layer_offset`, lie the keys `[n_kv_heads, block_len, head_dim]`, then the
/// values in the same shape. Position `p` is slot `p % block_len` of block `p / block_len`.
#[derive(Clone, Copy)]
pub struct KvBlocks<'a> {
    /// The blocks, in order of position.
    pub blocks: &'a [Arc<Vec<u16>>],
    /// Positions per block.
    pub block_len: usize,
    /// Where the layer starts in each block.
    pub layer_offset: usize,
    /// Key and value heads.
    pub n_kv_heads: usize,
    /// Values per head.
    pub head_dim: usize,
    /// Positions written.
    pub len: usize,
}

/// f16 values that one layer takes in one block: keys and values.
pub const fn kv_layer_len(block_len: usize, n_kv_heads: usize, head_dim: usize) -> usize {
    2 * n_kv_heads * block_len * head_dim
}

impl<'a> KvBlocks<'a> {
    fn check(&self) {
        let layer_len = kv_layer_len(self.block_len, self.n_kv_heads, self.head_dim);
        assert!(self.block_len > 0, "block_len must not be 0");
        assert!(
            self.len <= self.blocks.len() * self.block_len,
            "{} positions exceed the blocks",
            self.len
        );
        for block in self.blocks {
            assert!(
                block.len() >= self.layer_offset + layer_len,
                "a block ends before its layer"
            );
        }
    }

    /// Keys of the `n` positions from `first` on, at most [`KEY_TILE`], `[head_dim]` each; then
    /// empty rows.
    #[inline(always)]
    fn keys(&self, head: usize, first: usize, n: usize) -> [&'a [u16]; KEY_TILE] {
        self.rows(head, first, n)
    }

    /// Values as [`KvBlocks::keys`].
    #[inline(always)]
    fn values(&self, head: usize, first: usize, n: usize) -> [&'a [u16]; KEY_TILE] {
        self.rows(self.n_kv_heads + head, first, n)
    }

    #[inline(always)]
    fn rows(&self, head: usize, first: usize, n: usize) -> [&'a [u16]; KEY_TILE] {
        let mut rows: [&[u16]; KEY_TILE] = [&[]; KEY_TILE];
        let mut rest = &mut rows[..n];
        let (mut block, mut slot) = (first / self.block_len, first % self.block_len);
        while !rest.is_empty() {
            let here = rest.len().min(self.block_len - slot);
            let (now, later) = rest.split_at_mut(here);
            let start = self.layer_offset + (head * self.block_len + slot) * self.head_dim;
            let stored = &self.blocks[block][start..][..here * self.head_dim];
            for (row, stored) in now.iter_mut().zip(stored.chunks_exact(self.head_dim)) {
                *row = stored;
            }
            rest = later;
            (block, slot) = (block + 1, 0);
        }
        rows
    }
}

impl fmt::Debug for KvBlocks<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "KvBlocks[{} heads, {} of {}]",
            self.n_kv_heads,
            self.len,
            self.blocks.len() * self.block_len
        )
    }
}

/// Writes the key and value of one position, `k` and `v` `[n_kv_heads, head_dim]`, as f16 into slot
/// `slot` of `block`. Shapes as in [`KvBlocks`].
///
/// # Panics
///
/// Panics if `slot` or a length does not fit.
#[expect(
    clippy::too_many_arguments,
    reason = "the shape of a block is part of the call"
)]
pub fn write_kv(
    block: &mut [u16],
    layer_offset: usize,
    block_len: usize,
    n_kv_heads: usize,
    head_dim: usize,
    slot: usize,
    k: &[f32],
    v: &[f32],
) {
    assert!(slot < block_len, "slot {slot} of {block_len}");
    assert_eq!(
        k.len(),
        n_kv_heads * head_dim,
        "k must be [n_kv_heads, head_dim]"
    );
    assert_eq!(
        v.len(),
        n_kv_heads * head_dim,
        "v must be [n_kv_heads, head_dim]"
    );
    let layer = &mut block[layer_offset..][..kv_layer_len(block_len, n_kv_heads, head_dim)];
    let (keys, values) = layer.split_at_mut(n_kv_heads * block_len * head_dim);
    for (rows, heads) in [(keys, k), (values, v)] {
        for (head, from) in heads.chunks_exact(head_dim).enumerate() {
            f32_to_f16(
                from,
                &mut rows[(head * block_len + slot) * head_dim..][..head_dim],
            );
        }
    }
}

/// Causal grouped-query attention over the KV cache.
///
/// `q`: `m` rows, `q_stride` apart, each beginning with `[n_heads, head_dim]`; query `i` stands at
/// position `first_position + i` and sees the positions up to its own. `n_heads` is a multiple of
/// the cache's heads; query head `h` reads cache head `h / (n_heads / n_kv_heads)`. `out`
/// `[m, n_heads * head_dim]`.
///
/// One query and several take different paths that agree within rounding, not to the bit.
///
/// # Panics
///
/// Panics if a shape does not fit, `head_dim` is not a multiple of 8, or the cache ends before the
/// last query's position.
#[expect(clippy::too_many_arguments, reason = "shapes of three tensors")]
pub fn decoder_attention(
    compute: &Compute,
    q: &[f32],
    q_stride: usize,
    m: usize,
    n_heads: usize,
    kv: KvBlocks<'_>,
    first_position: usize,
    out: &mut [f32],
) {
    let head_dim = kv.head_dim;
    let width = n_heads * head_dim;
    kv.check();
    check_head_dim(head_dim);
    assert!(
        kv.n_kv_heads > 0 && n_heads.is_multiple_of(kv.n_kv_heads),
        "n_heads must be a multiple of the cache's"
    );
    assert_eq!(out.len(), m * width, "out must be [m, n_heads * head_dim]");
    if m == 0 || n_heads == 0 {
        return;
    }
    assert!(
        q_stride >= width && q.len() >= (m - 1) * q_stride + width,
        "q must be m rows of all heads"
    );
    assert!(
        first_position + m <= kv.len,
        "the cache ends before the last query"
    );
    let heads_per_kv = n_heads / kv.n_kv_heads;
    let tier = compute.float_tier();
    let out = SyncPtr::new(out.as_mut_ptr());
    if m == 1 {
        compute.pool().run(kv.n_kv_heads, &|kv_head| {
            let first = kv_head * heads_per_kv * head_dim;
            let len = heads_per_kv * head_dim;
            // SAFETY: each cache head owns a range of `out` no other has.
            let out = unsafe { out.slice_mut(first, len) };
            attend_one_query(
                tier,
                &q[first..][..len],
                &kv,
                kv_head,
                first_position + 1,
                out,
            );
        });
        return;
    }
    // Rows are (query, head of the group) pairs: they share the keys of one cache head.
    let heads_per_chunk = heads_per_kv.min(ROWS);
    let queries_per_chunk = ROWS / heads_per_chunk;
    let n_chunks = m.div_ceil(queries_per_chunk);
    let chunks_per_head = n_chunks * heads_per_kv.div_ceil(heads_per_chunk);
    compute
        .pool()
        .run(kv.n_kv_heads * chunks_per_head, &|chunk| {
            let (kv_head, chunk) = (chunk / chunks_per_head, chunk % chunks_per_head);
            let first_head = kv_head * heads_per_kv + chunk / n_chunks * heads_per_chunk;
            let last_head = (first_head + heads_per_chunk).min((kv_head + 1) * heads_per_kv);
            let heads = last_head - first_head;
            // The chunks with the most keys come first: they take longest.
            let first_query = (n_chunks - 1 - chunk % n_chunks) * queries_per_chunk;
            let queries = first_query..(first_query + queries_per_chunk).min(m);
            with_query_rows(tier, head_dim, |rows| {
                for (i, query) in queries.clone().enumerate() {
                    let q = &q[query * q_stride + first_head * head_dim..][..heads * head_dim];
                    rows.set(i * heads, q, first_position + query + 1);
                }
                rows.attend(first_position + queries.end, |first, n, tile| {
                    let keys = kv.keys(kv_head, first, n);
                    let values = kv.values(kv_head, first, n);
                    tile.set_f16(&keys[..n], &values[..n]);
                });
                for (i, query) in queries.enumerate() {
                    let first = query * width + first_head * head_dim;
                    // SAFETY: each (query, head) belongs to one chunk.
                    rows.write(i * heads, unsafe { out.slice_mut(first, heads * head_dim) });
                }
            });
        });
}

/// Queries, keys and values of one vision layer, `[3, n_heads, n, head_dim]`.
#[derive(Clone, Copy)]
struct VisionQkv<'a> {
    values: &'a [f32],
    n: usize,
    n_heads: usize,
    head_dim: usize,
}

impl<'a> VisionQkv<'a> {
    fn new(qkv: &'a [f32], n: usize, n_heads: usize, head_dim: usize) -> VisionQkv<'a> {
        let width = n_heads * head_dim;
        assert_eq!(
            qkv.len(),
            n * 3 * width,
            "qkv must be [3, n_heads, n, head_dim]"
        );
        check_head_dim(head_dim);
        VisionQkv {
            values: qkv,
            n,
            n_heads,
            head_dim,
        }
    }

    fn width(&self) -> usize {
        self.n_heads * self.head_dim
    }

    fn check_out(&self, out: &[f32]) {
        assert_eq!(
            out.len(),
            self.n * self.width(),
            "out must be [n, n_heads * head_dim]"
        );
    }

    /// One head of one row, `[head_dim]`.
    #[inline(always)]
    fn part(&self, part: Part, head: usize, row: usize) -> &'a [f32] {
        let start = ((part as usize * self.n_heads + head) * self.n + row) * self.head_dim;
        &self.values[start..][..self.head_dim]
    }
}

/// What [`VisionQkv`] consists of, in this order.
#[derive(Clone, Copy)]
enum Part {
    Query,
    Key,
    Value,
}

/// Full attention among `n` patches. `qkv` `[3, n_heads, n, head_dim]`, as
/// [`crate::linear_blocks`] writes it; `out` `[n, n_heads * head_dim]`.
///
/// # Panics
///
/// Panics if a length does not fit or `head_dim` is not a multiple of 8.
pub fn vision_attention(
    compute: &Compute,
    qkv: &[f32],
    n: usize,
    n_heads: usize,
    head_dim: usize,
    out: &mut [f32],
) {
    let qkv = VisionQkv::new(qkv, n, n_heads, head_dim);
    qkv.check_out(out);
    let width = qkv.width();
    let tier = compute.float_tier();
    let n_chunks = n.div_ceil(ROWS);
    let out = SyncPtr::new(out.as_mut_ptr());
    compute.pool().run(n_heads * n_chunks, &|chunk| {
        let (head, first_query) = (chunk / n_chunks, chunk % n_chunks * ROWS);
        let queries = first_query..(first_query + ROWS).min(n);
        with_query_rows(tier, head_dim, |rows| {
            for (i, query) in queries.clone().enumerate() {
                rows.set(i, qkv.part(Part::Query, head, query), n);
            }
            rows.attend(n, |first, n, tile| {
                tile.set_f32(n, |j| {
                    let part = |part| qkv.part(part, head, first + j);
                    (part(Part::Key), part(Part::Value))
                });
            });
            for (i, query) in queries.enumerate() {
                // SAFETY: each (query, head) belongs to one chunk.
                let out = unsafe { out.slice_mut(query * width + head * head_dim, head_dim) };
                rows.write(i, out);
            }
        });
    });
}

fn check_head_dim(head_dim: usize) {
    assert!(
        head_dim > 0 && head_dim.is_multiple_of(8),
        "head_dim must be a multiple of 8"
    );
}
