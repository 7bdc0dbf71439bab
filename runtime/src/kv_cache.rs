//! The KV cache: keys and values of every position so far, f16, in shared blocks.
//!
//! A block holds [`BLOCK_LEN`] positions of all layers:
//! `[n_layers, 2 (k, v), n_kv_heads, BLOCK_LEN, head_dim]`. Blocks are reference
//! counted: a fork shares them and copies one only when it writes into it.

use crate::config::TextConfig;
use ocelli_kernels::attention::{self, KvBlocks};
use std::sync::Arc;

/// Positions in a block.
pub const BLOCK_LEN: usize = 32;

/// Keys and values of one conversation.
#[derive(Clone, Debug)]
pub struct KvCache {
    blocks: Vec<Arc<Vec<u16>>>,
    len: usize,
    n_layers: usize,
    n_kv_heads: usize,
    head_dim: usize,
    capacity: usize,
}

impl KvCache {
    /// An empty cache for a decoder; it grows by blocks up to `max_positions`.
    pub fn new(config: &TextConfig) -> KvCache {
        KvCache {
            blocks: Vec::new(),
            len: 0,
            n_layers: config.n_layers,
            n_kv_heads: config.n_kv_heads,
            head_dim: config.head_dim,
            capacity: config.max_positions,
        }
    }

    /// Positions that are filled in every layer.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no position is filled.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes the blocks take, shared ones included.
    pub fn byte_len(&self) -> usize {
        self.blocks.len() * self.block_values() * size_of::<u16>()
    }

    fn layer_values(&self) -> usize {
        2 * self.n_kv_heads * BLOCK_LEN * self.head_dim
    }

    fn block_values(&self) -> usize {
        self.n_layers * self.layer_values()
    }

    /// Makes room for `additional` positions after the filled ones.
    /// Returns false when the context length does not allow it.
    #[must_use]
    pub fn reserve(&mut self, additional: usize) -> bool {
        let Some(len) = self
            .len
            .checked_add(additional)
            .filter(|len| *len <= self.capacity)
        else {
            return false;
        };
        while self.blocks.len() * BLOCK_LEN < len {
            self.blocks.push(Arc::new(vec![0; self.block_values()]));
        }
        true
    }

    /// Writes key and value of one layer at a reserved position.
    /// `k`, `v`: `[n_kv_heads, head_dim]`
    ///
    /// # Panics
    ///
    /// When the position was not reserved.
    pub fn write(&mut self, layer: usize, position: usize, k: &[f32], v: &[f32]) {
        let layer_offset = layer * self.layer_values();
        let block = Arc::make_mut(&mut self.blocks[position / BLOCK_LEN]);
        attention::write_kv(
            block,
            layer_offset,
            BLOCK_LEN,
            self.n_kv_heads,
            self.head_dim,
            position % BLOCK_LEN,
            k,
            v,
        );
    }

    /// One layer's view of the first `len` positions.
    pub fn layer(&self, layer: usize, len: usize) -> KvBlocks<'_> {
        KvBlocks {
            blocks: &self.blocks,
            block_len: BLOCK_LEN,
            layer_offset: layer * self.layer_values(),
            n_kv_heads: self.n_kv_heads,
            head_dim: self.head_dim,
            len,
        }
    }

    /// Marks `additional` written positions as filled.
    ///
    /// # Panics
    ///
    /// When they were not reserved.
    pub fn advance(&mut self, additional: usize) {
        self.len += additional;
        assert!(
            self.len <= self.blocks.len() * BLOCK_LEN,
            "advanced positions were reserved"
        );
    }

    /// Forgets every position from `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        self.blocks.truncate(self.len.div_ceil(BLOCK_LEN));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> TextConfig {
        TextConfig {
            hidden_size: 16,
            intermediate_size: 16,
            n_layers: 2,
            n_heads: 2,
            n_kv_heads: 2,
            head_dim: 8,
            vocab_size: 8,
            rope_theta: 1e4,
            rms_norm_eps: 1e-5,
            max_positions: 70,
        }
    }

    /// First key value of a position, read through the view.
    fn key(cache: &KvCache, layer: usize, position: usize) -> u16 {
        let kv = cache.layer(layer, cache.len());
        kv.blocks[position / BLOCK_LEN][kv.layer_offset + (position % BLOCK_LEN) * 8]
    }

    fn fill(cache: &mut KvCache, position: usize, value: f32) {
        for layer in 0..2 {
            cache.write(layer, position, &[value; 16], &[value; 16]);
        }
    }

    #[test]
    fn a_fork_shares_blocks_until_it_writes() {
        let mut cache = KvCache::new(&config());
        assert!(cache.reserve(40));
        for position in 0..40 {
            fill(&mut cache, position, 1.0);
        }
        cache.advance(40);
        let mut fork = cache.clone();
        fork.truncate(33);
        assert_eq!((cache.len(), fork.len()), (40, 33));
        assert!(fork.reserve(1));
        fill(&mut fork, 33, 2.0);
        fork.advance(1);
        assert_eq!(key(&cache, 1, 33), 0x3C00);
        assert_eq!(key(&fork, 1, 33), 0x4000);
        assert!(Arc::ptr_eq(&cache.blocks[0], &fork.blocks[0]));
        assert!(!Arc::ptr_eq(&cache.blocks[1], &fork.blocks[1]));
    }

    #[test]
    fn the_context_length_is_the_capacity() {
        let mut cache = KvCache::new(&config());
        assert!(!cache.reserve(71));
        assert!(cache.reserve(70));
        cache.advance(70);
        assert!(!cache.reserve(1));
        assert!(!cache.reserve(usize::MAX));
        cache.truncate(0);
        assert!(cache.is_empty());
        assert_eq!(cache.byte_len(), 0);
    }
}
