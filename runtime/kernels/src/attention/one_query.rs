//! One query against the cache, the decode path: lanes run along the head dimension.
//!
//! The query heads that share a cache head go together, so each key and value row is read and
//! widened once for all of them.

use super::{KEY_TILE, KvBlocks};
use crate::activation::bounded_exp_lanes;
use crate::lanes::{FloatTier, Lanes, load_first, load_vectors, store_first, tiered};

/// Vectors of one value row held in registers together, per query head.
const VALUE_VECTORS: usize = 2;
/// Query heads handled together.
const HEADS: usize = 4;

/// Attends the heads in `q` `[heads, head_dim]` to positions `0..n_keys` of one cache head. `out` is
/// shaped as `q`.
pub(super) fn attend_one_query(
    tier: FloatTier,
    q: &[f32],
    kv: &KvBlocks<'_>,
    kv_head: usize,
    n_keys: usize,
    out: &mut [f32],
) {
    let step = HEADS * kv.head_dim;
    for (q, out) in q.chunks(step).zip(out.chunks_mut(step)) {
        let scores = &mut [0.0; HEADS * KEY_TILE];
        // SAFETY: q and out hold whole heads, at most HEADS; scores holds a tile for each;
        // `KvBlocks` was checked and holds n_keys positions.
        unsafe {
            match q.len() / kv.head_dim {
                1 => attend_1(tier, q, kv, kv_head, n_keys, scores, out),
                2 => attend_2(tier, q, kv, kv_head, n_keys, scores, out),
                3 => attend_3(tier, q, kv, kv_head, n_keys, scores, out),
                _ => attend_4(tier, q, kv, kv_head, n_keys, scores, out),
            }
        }
    }
}

macro_rules! for_heads {
    ($($name:ident = $body:ident($heads:literal);)*) => {$(
        tiered! {
            unsafe fn $name(
                q: &[f32], kv: &KvBlocks<'_>, kv_head: usize, n_keys: usize, scores: &mut [f32], out: &mut [f32],
            ) = $body
        }

        /// # Safety
        ///
        /// As [`attend`], for this number of heads.
        #[inline(always)]
        unsafe fn $body<L: Lanes>(
            q: &[f32], kv: &KvBlocks<'_>, kv_head: usize, n_keys: usize, scores: &mut [f32], out: &mut [f32],
        ) {
            // SAFETY: by the caller's promises.
            unsafe { attend::<L, $heads>(q, kv, kv_head, n_keys, scores, out) }
        }
    )*};
}

for_heads! {
    attend_1 = attend_1_on(1);
    attend_2 = attend_2_on(2);
    attend_3 = attend_3_on(3);
    attend_4 = attend_4_on(4);
}

/// # Safety
///
/// * The CPU has the instructions of `L`.
/// * `q` and `out` are `[H, head_dim]` with `head_dim` a multiple of 8; `scores` is `[H, KEY_TILE]`
///   or longer; the cache holds `n_keys` positions.
#[inline(always)]
unsafe fn attend<L: Lanes, const H: usize>(
    q: &[f32],
    kv: &KvBlocks<'_>,
    kv_head: usize,
    n_keys: usize,
    scores: &mut [f32],
    out: &mut [f32],
) {
    let head_dim = kv.head_dim;
    let scale = 1.0 / (head_dim as f32).sqrt();
    let scores = scores.as_mut_ptr();
    let mut maximum = [f32::NEG_INFINITY; H];
    let mut sum = [0.0_f32; H];
    out.fill(0.0);
    for first in (0..n_keys).step_by(KEY_TILE) {
        let n_tile = KEY_TILE.min(n_keys - first);
        // SAFETY: rows have head_dim values, scores KEY_TILE per head, by the caller's promises.
        unsafe {
            for j in 0..n_tile {
                let key = kv.key(kv_head, first + j);
                let dots = dot_heads::<L, H>(q, key, head_dim);
                for (h, dot) in dots.into_iter().enumerate() {
                    *scores.add(h * KEY_TILE + j) = dot * scale;
                }
            }
            let mut correction = [1.0; H];
            for h in 0..H {
                let scores = scores.add(h * KEY_TILE);
                let old = maximum[h];
                for j in 0..n_tile {
                    maximum[h] = (*scores.add(j)).max(maximum[h]);
                }
                correction[h] = if old == f32::NEG_INFINITY {
                    0.0
                } else {
                    crate::activation::exp(old - maximum[h])
                };
                let new = L::splat(maximum[h]);
                let mut total = L::splat(0.0);
                let mut j = 0;
                while j < n_tile {
                    let left = L::N.min(n_tile - j);
                    let s = load_first::<L>(scores.add(j), left, f32::NEG_INFINITY);
                    let p = bounded_exp_lanes(s.sub(new));
                    total = total.add(p);
                    store_first(p, scores.add(j), left);
                    j += L::N;
                }
                sum[h] = sum[h] * correction[h] + total.reduce_add();
            }
            let mut values: [&[u16]; KEY_TILE] = [&[]; KEY_TILE];
            let values = &mut values[..n_tile];
            for (j, value) in values.iter_mut().enumerate() {
                *value = kv.value(kv_head, first + j);
            }
            add_values::<L, H>(values, head_dim, scores, correction, out);
        }
    }
    for (h, head) in out.chunks_exact_mut(head_dim).enumerate() {
        let factor = 1.0 / sum[h];
        head.iter_mut().for_each(|v| *v *= factor);
    }
}

/// Dot products of one key with each head of `q`.
///
/// # Safety
///
/// * The CPU has the instructions of `L`; `q` is `[H, head_dim]`, `key` `[head_dim]`.
#[inline(always)]
unsafe fn dot_heads<L: Lanes, const H: usize>(q: &[f32], key: &[u16], head_dim: usize) -> [f32; H] {
    let (q, key) = (q.as_ptr(), key.as_ptr());
    // SAFETY: every access is below head_dim.
    unsafe {
        let mut acc = [L::splat(0.0); H];
        let mut d = 0;
        while d + L::N <= head_dim {
            let k = L::load_f16(key.add(d));
            for (h, acc) in acc.iter_mut().enumerate() {
                *acc = k.mul_add(L::load(q.add(h * head_dim + d)), *acc);
            }
            d += L::N;
        }
        if d < head_dim {
            let k = load_f16_first::<L>(key.add(d), head_dim - d);
            for (h, acc) in acc.iter_mut().enumerate() {
                *acc = k.mul_add(load_first(q.add(h * head_dim + d), head_dim - d, 0.0), *acc);
            }
        }
        let mut dots = [0.0; H];
        for (dot, acc) in dots.iter_mut().zip(acc) {
            *dot = acc.reduce_add();
        }
        dots
    }
}

/// `out[h] = out[h] · correction[h] + Σ_j p[h][j] · value[j]` for one tile.
///
/// # Safety
///
/// * The CPU has the instructions of `L`.
/// * `values` are at most KEY_TILE rows of `head_dim` values, a multiple of 8; `p` is
///   `[H, KEY_TILE]`, `out` `[H, head_dim]`.
#[inline(always)]
unsafe fn add_values<L: Lanes, const H: usize>(
    values: &[&[u16]],
    head_dim: usize,
    p: *const f32,
    correction: [f32; H],
    out: &mut [f32],
) {
    let out = out.as_mut_ptr();
    let step = VALUE_VECTORS * L::N;
    // SAFETY: every access is below head_dim, the number of rows or H.
    unsafe {
        let mut d = 0;
        while d + step <= head_dim {
            let mut acc = [[L::splat(0.0); VALUE_VECTORS]; H];
            for (h, acc) in acc.iter_mut().enumerate() {
                *acc = load_vectors(out.add(h * head_dim + d));
                for acc in acc {
                    *acc = acc.mul(L::splat(correction[h]));
                }
            }
            for (j, row) in values.iter().enumerate() {
                let from = row.as_ptr().add(d);
                let mut value = [L::splat(0.0); VALUE_VECTORS];
                for (v, value) in value.iter_mut().enumerate() {
                    *value = L::load_f16(from.add(v * L::N));
                }
                for (h, acc) in acc.iter_mut().enumerate() {
                    let p = L::splat(*p.add(h * KEY_TILE + j));
                    for (acc, value) in acc.iter_mut().zip(value) {
                        *acc = value.mul_add(p, *acc);
                    }
                }
            }
            for (h, acc) in acc.iter().enumerate() {
                for (v, acc) in acc.iter().enumerate() {
                    acc.store(out.add(h * head_dim + d + v * L::N));
                }
            }
            d += step;
        }
        while d < head_dim {
            let len = L::N.min(head_dim - d);
            for (h, correction) in correction.iter().enumerate() {
                let at = out.add(h * head_dim + d);
                let mut acc = load_first::<L>(at, len, 0.0).mul(L::splat(*correction));
                for (j, row) in values.iter().enumerate() {
                    let value = load_f16_first::<L>(row.as_ptr().add(d), len);
                    acc = value.mul_add(L::splat(*p.add(h * KEY_TILE + j)), acc);
                }
                store_first(acc, at, len);
            }
            d += L::N;
        }
    }
}

/// The first `len` lanes from f16 bits, the others 0.
///
/// # Safety
///
/// * The CPU has the instructions of `L`; `len <= N` values are readable at `from`.
#[inline(always)]
unsafe fn load_f16_first<L: Lanes>(from: *const u16, len: usize) -> L {
    let mut buffer = [0_u16; crate::lanes::MAX_LANES];
    // SAFETY: `len` values are readable and fit the buffer, which has at least N lanes.
    unsafe {
        std::ptr::copy_nonoverlapping(from, buffer.as_mut_ptr(), len);
        L::load_f16(buffer.as_ptr())
    }
}
