use super::*;
use crate::half::{f16_bits_to_f32, f32_to_f16_bits};
use crate::int8_gemm;

fn computes(n_threads: usize) -> impl Iterator<Item = Compute> {
    int8_gemm::available()
        .map(move |kernels| Compute::with_kernel(n_threads, kernels.gemm.name()).unwrap())
}

fn noise(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 22) as f32 - 2.0
        })
        .collect()
}

fn softmax_rows(q: &[f32], keys: &[Vec<f32>], values: &[Vec<f32>]) -> Vec<f64> {
    let dot = |k: &Vec<f32>| {
        q.iter()
            .zip(k)
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum::<f64>()
    };
    let scores: Vec<f64> = keys
        .iter()
        .map(|k| dot(k) / (q.len() as f64).sqrt())
        .collect();
    let maximum = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let p: Vec<f64> = scores.iter().map(|s| (s - maximum).exp()).collect();
    let sum: f64 = p.iter().sum();
    (0..q.len())
        .map(|d| {
            p.iter()
                .zip(values)
                .map(|(p, v)| p * f64::from(v[d]))
                .sum::<f64>()
                / sum
        })
        .collect()
}

/// Scores reach ±30 here: f32 sums of 64 products and the exponential leave this much.
const TOLERANCE: f64 = 4e-5;

fn assert_close(got: &[f32], want: &[f64], what: &str) {
    assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!(
            (f64::from(*got) - want).abs() <= TOLERANCE,
            "{what} at {i}: {got} instead of {want}"
        );
    }
}

/// A cache in blocks, filled through [`write_kv`], and its rounded contents.
struct Cache {
    blocks: Vec<Arc<Vec<u16>>>,
    block_len: usize,
    layer_offset: usize,
    n_kv_heads: usize,
    head_dim: usize,
    len: usize,
}

impl Cache {
    fn new(len: usize, block_len: usize, n_kv_heads: usize, head_dim: usize) -> Cache {
        let layer_offset = 24;
        let size = layer_offset + kv_layer_len(block_len, n_kv_heads, head_dim) + 8;
        // NaN wherever nothing is written: reading it would spoil the result.
        let mut blocks = vec![vec![0x7e00; size]; len.div_ceil(block_len)];
        for p in 0..len {
            let (k, v) = Cache::row(p, n_kv_heads, head_dim);
            let block = &mut blocks[p / block_len];
            write_kv(
                block,
                layer_offset,
                block_len,
                n_kv_heads,
                head_dim,
                p % block_len,
                &k,
                &v,
            );
        }
        Cache {
            blocks: blocks.into_iter().map(Arc::new).collect(),
            block_len,
            layer_offset,
            n_kv_heads,
            head_dim,
            len,
        }
    }

    fn row(position: usize, n_kv_heads: usize, head_dim: usize) -> (Vec<f32>, Vec<f32>) {
        let len = n_kv_heads * head_dim;
        (
            noise(len, 2 * position as u32 + 1),
            noise(len, 2 * position as u32 + 1000),
        )
    }

    fn with<R>(&self, f: impl FnOnce(KvBlocks<'_>) -> R) -> R {
        f(KvBlocks {
            blocks: &self.blocks,
            block_len: self.block_len,
            layer_offset: self.layer_offset,
            n_kv_heads: self.n_kv_heads,
            head_dim: self.head_dim,
            len: self.len,
        })
    }

    /// Keys and values of a head as f32, positions `0..n`.
    fn head(&self, head: usize, n: usize) -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
        let round = |row: &[f32]| {
            row.iter()
                .map(|v| f16_bits_to_f32(f32_to_f16_bits(*v)))
                .collect::<Vec<_>>()
        };
        (0..n)
            .map(|p| {
                let (k, v) = Cache::row(p, self.n_kv_heads, self.head_dim);
                let range = head * self.head_dim..(head + 1) * self.head_dim;
                (round(&k[range.clone()]), round(&v[range]))
            })
            .unzip()
    }
}

fn run_decoder(
    compute: &Compute,
    cache: &Cache,
    m: usize,
    n_heads: usize,
    stride: usize,
    first: usize,
) -> Vec<f32> {
    let width = n_heads * cache.head_dim;
    let q = noise((m - 1) * stride + width, 77);
    let mut out = vec![f32::NAN; m * width];
    cache.with(|kv| decoder_attention(compute, &q, stride, m, n_heads, kv, first, &mut out));
    out
}

#[test]
fn decoder_attention_matches_f64() {
    for compute in computes(2) {
        for (m, first, n_heads, n_kv_heads, head_dim, block_len) in [
            (1, 0, 3, 1, 64, 16),
            (1, 69, 9, 3, 64, 16),
            (1, 40, 5, 1, 72, 7),
            (1, 32, 2, 2, 8, 32),
            (2, 0, 9, 3, 64, 16),
            (33, 0, 6, 2, 72, 16),
            (12, 55, 9, 3, 64, 32),
            (40, 5, 1, 1, 16, 64),
            (2, 3, 40, 1, 8, 16),
        ] {
            let cache = Cache::new(first + m + 2, block_len, n_kv_heads, head_dim);
            let (width, stride) = (n_heads * head_dim, n_heads * head_dim + 24);
            let q = noise((m - 1) * stride + width, 77);
            let out = run_decoder(&compute, &cache, m, n_heads, stride, first);
            for i in 0..m {
                for head in 0..n_heads {
                    let (keys, values) = cache.head(head / (n_heads / n_kv_heads), first + i + 1);
                    let want = softmax_rows(
                        &q[i * stride + head * head_dim..][..head_dim],
                        &keys,
                        &values,
                    );
                    let got = &out[i * width + head * head_dim..][..head_dim];
                    assert_close(
                        got,
                        &want,
                        &format!("{} m {m} query {i} head {head}", compute.kernel_name()),
                    );
                }
            }
        }
    }
}

#[test]
fn threads_and_block_length_do_not_change_a_bit() {
    for (one, three) in computes(1).zip(computes(3)) {
        for m in [1, 21] {
            let want = run_decoder(&one, &Cache::new(70, 16, 3, 64), m, 9, 576, 49);
            for block_len in [5, 16, 32, 128] {
                let cache = Cache::new(70, block_len, 3, 64);
                assert_eq!(
                    run_decoder(&three, &cache, m, 9, 576, 49),
                    want,
                    "{}",
                    one.kernel_name()
                );
            }
        }
        let (n, heads) = (70, 3);
        let qkv = noise(n * 3 * heads * 16, 3);
        let (mut a, mut b) = (vec![0.0; n * heads * 16], vec![1.0; n * heads * 16]);
        vision_attention(&one, &qkv, n, heads, 16, &mut a);
        vision_attention(&three, &qkv, n, heads, 16, &mut b);
        assert_eq!(a, b);
    }
}

/// `[n, 3, heads, head_dim]`, a patch after the other, as `[3, heads, n, head_dim]`.
pub(super) fn by_heads(patches: &[f32], n: usize, head_dim: usize) -> Vec<f32> {
    let parts = patches.len() / (n * head_dim);
    let mut out = Vec::with_capacity(patches.len());
    for part in 0..parts {
        for patch in patches.chunks_exact(parts * head_dim) {
            out.extend_from_slice(&patch[part * head_dim..][..head_dim]);
        }
    }
    out
}

#[test]
fn vision_attention_matches_f64() {
    for compute in computes(2) {
        for (n, n_heads, head_dim) in [(1, 1, 8), (5, 2, 64), (33, 3, 72), (100, 2, 64)] {
            let width = n_heads * head_dim;
            let qkv = noise(n * 3 * width, 9);
            let mut out = vec![f32::NAN; n * width];
            let heads = by_heads(&qkv, n, head_dim);
            vision_attention(&compute, &heads, n, n_heads, head_dim, &mut out);
            for head in 0..n_heads {
                let part = |part: usize| -> Vec<Vec<f32>> {
                    (0..n)
                        .map(|i| {
                            qkv[(i * 3 + part) * width + head * head_dim..][..head_dim].to_vec()
                        })
                        .collect()
                };
                let (q, k, v) = (part(0), part(1), part(2));
                for i in 0..n {
                    let got = &out[i * width + head * head_dim..][..head_dim];
                    assert_close(
                        got,
                        &softmax_rows(&q[i], &k, &v),
                        &format!("{} n {n}", compute.kernel_name()),
                    );
                }
            }
        }
    }
}

#[test]
fn huge_scores_do_not_overflow() {
    for compute in computes(1) {
        let (n, head_dim) = (40, 8);
        let mut qkv = vec![0.0; n * 3 * head_dim];
        for (i, row) in qkv.chunks_mut(3 * head_dim).enumerate() {
            row[..head_dim].fill(1e3);
            row[head_dim..2 * head_dim].fill(if i == 37 { 1e3 } else { -1e3 });
            row[2 * head_dim..].fill(i as f32);
        }
        let mut out = vec![0.0; n * head_dim];
        let heads = by_heads(&qkv, n, head_dim);
        vision_attention(&compute, &heads, n, 1, head_dim, &mut out);
        assert!(out.iter().all(|v| *v == 37.0), "{}", compute.kernel_name());
    }
}

#[test]
fn write_kv_puts_heads_where_the_picture_says() {
    let (block_len, heads, head_dim, offset) = (4, 2, 8, 16);
    let mut block = vec![0; offset + kv_layer_len(block_len, heads, head_dim)];
    let k: Vec<f32> = (0..16).map(|i| i as f32).collect();
    let v: Vec<f32> = (0..16).map(|i| 100.0 + i as f32).collect();
    write_kv(&mut block, offset, block_len, heads, head_dim, 2, &k, &v);
    for head in 0..heads {
        for d in 0..head_dim {
            let at = |part: usize| {
                block[offset + ((part * heads + head) * block_len + 2) * head_dim + d]
            };
            assert_eq!(f16_bits_to_f32(at(0)), k[head * head_dim + d]);
            assert_eq!(f16_bits_to_f32(at(1)), v[head * head_dim + d]);
        }
    }
    assert_eq!(block.iter().filter(|b| **b != 0).count(), 31);
}

#[test]
#[should_panic(expected = "the cache ends before the last query")]
fn a_query_past_the_cache_panics() {
    let cache = Cache::new(4, 16, 1, 8);
    run_decoder(&computes(1).next().unwrap(), &cache, 2, 1, 8, 3);
}
