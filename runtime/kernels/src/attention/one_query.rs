//! One query against the cache, the decode path: lanes run along the head dimension.
//!
//! The query heads that share a cache head go together, so each key and value row is read and
//! widened once for all of them.

use super::softmax::{LOWEST, scale, weigh};
use super::{KEY_TILE, KvBlocks};
use crate::lanes::{FloatTier, Lanes, MAX_LANES, load_first, store_first, tiered};

/// Query heads handled together.
const HEADS: usize = 4;
/// Keys whose scores are summed together.
const KEYS: usize = 4;

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
    let scores = scores.as_mut_ptr();
    let mut maximum = [LOWEST; H];
    let mut sum = [0.0_f32; H];
    out.fill(0.0);
    for first in (0..n_keys).step_by(KEY_TILE) {
        let n_tile = KEY_TILE.min(n_keys - first);
        // SAFETY: rows have head_dim values, scores KEY_TILE per head, by the caller's promises;
        // the vectors of scores end within KEY_TILE, a multiple of every N.
        unsafe {
            let keys = kv.keys(kv_head, first, n_tile);
            score_keys::<L, H>(q, &keys[..n_tile], head_dim, scores);
            let width = n_tile.next_multiple_of(L::N);
            for h in 0..H {
                for j in n_tile..width {
                    *scores.add(h * KEY_TILE + j) = LOWEST;
                }
            }
            let correction = weigh::<L, H>(scores, width, &mut maximum, &mut sum);
            let values = kv.values(kv_head, first, n_tile);
            add_values::<L, H>(&values[..n_tile], head_dim, scores, correction, out);
        }
    }
    for (h, head) in out.chunks_exact_mut(head_dim).enumerate() {
        let factor = 1.0 / sum[h];
        head.iter_mut().for_each(|v| *v *= factor);
    }
}

/// Scores of some keys, times log2(e), with each head of `q`.
///
/// # Safety
///
/// * The CPU has the instructions of `L`; `q` is `[H, head_dim]`, each key `[head_dim]`.
/// * `scores` is `[H, KEY_TILE]`; there are at most KEY_TILE keys and at least one.
#[inline(always)]
unsafe fn score_keys<L: Lanes, const H: usize>(
    q: &[f32],
    keys: &[&[u16]],
    head_dim: usize,
    scores: *mut f32,
) {
    let scale = scale(head_dim);
    let q = q.as_ptr();
    for first in (0..keys.len()).step_by(KEYS) {
        // Missing keys repeat the last one; the caller overwrites their scores.
        let mut rows = [keys[keys.len() - 1].as_ptr(); KEYS];
        for (row, key) in rows.iter_mut().zip(&keys[first..]) {
            *row = key.as_ptr();
        }
        // SAFETY: every access is below head_dim; KEY_TILE is a multiple of KEYS.
        unsafe {
            let mut acc = [[L::splat(0.0); KEYS]; H];
            let mut d = 0;
            while d + 2 * L::N <= head_dim {
                let mut k = [[L::splat(0.0); 2]; KEYS];
                for (k, row) in k.iter_mut().zip(rows) {
                    *k = L::load_f16_pair(row.add(d));
                }
                for half in 0..2 {
                    for (h, acc) in acc.iter_mut().enumerate() {
                        let q = L::load(q.add(h * head_dim + d + half * L::N));
                        for (acc, k) in acc.iter_mut().zip(k) {
                            *acc = k[half].mul_add(q, *acc);
                        }
                    }
                }
                d += 2 * L::N;
            }
            while d < head_dim {
                let len = L::N.min(head_dim - d);
                for (j, row) in rows.into_iter().enumerate() {
                    let k = load_f16_first::<L>(row.add(d), len);
                    for (h, acc) in acc.iter_mut().enumerate() {
                        let q = load_first(q.add(h * head_dim + d), len, 0.0);
                        acc[j] = k.mul_add(q, acc[j]);
                    }
                }
                d += L::N;
            }
            for (h, acc) in acc.into_iter().enumerate() {
                for (j, dot) in L::reduce_add_four(acc).into_iter().enumerate() {
                    *scores.add(h * KEY_TILE + first + j) = dot * scale;
                }
            }
        }
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
    correction: [f32; MAX_LANES],
    out: &mut [f32],
) {
    let out = out.as_mut_ptr();
    let mut d = 0;
    // SAFETY: every access is below head_dim, the number of rows or H.
    unsafe {
        if L::TILE_ROWS * L::TILE_VECTORS >= 4 * HEADS {
            while d + 4 * L::N <= head_dim {
                add_columns::<L, H, 2>(values, head_dim, p, correction, out, d);
                d += 4 * L::N;
            }
        }
        while d + 2 * L::N <= head_dim {
            add_columns::<L, H, 1>(values, head_dim, p, correction, out, d);
            d += 2 * L::N;
        }
        while d < head_dim {
            let len = L::N.min(head_dim - d);
            for (h, correction) in correction.iter().enumerate().take(H) {
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

/// [`add_values`] for `P` pairs of vectors from dimension `d` on.
///
/// # Safety
///
/// * As in [`add_values`]; the vectors are inside head_dim.
#[inline(always)]
unsafe fn add_columns<L: Lanes, const H: usize, const P: usize>(
    values: &[&[u16]],
    head_dim: usize,
    p: *const f32,
    correction: [f32; MAX_LANES],
    out: *mut f32,
    d: usize,
) {
    // SAFETY: by the caller's promises.
    unsafe {
        let mut acc = [[[L::splat(0.0); 2]; P]; H];
        for (h, acc) in acc.iter_mut().enumerate() {
            for (i, acc) in acc.as_flattened_mut().iter_mut().enumerate() {
                let old = L::load(out.add(h * head_dim + d + i * L::N));
                *acc = old.mul(L::splat(correction[h]));
            }
        }
        for (j, row) in values.iter().enumerate() {
            let mut value = [[L::splat(0.0); 2]; P];
            for (i, value) in value.iter_mut().enumerate() {
                *value = L::load_f16_pair(row.as_ptr().add(d + 2 * i * L::N));
            }
            for (h, acc) in acc.iter_mut().enumerate() {
                let p = L::splat(*p.add(h * KEY_TILE + j));
                let values = value.as_flattened().iter();
                for (acc, value) in acc.as_flattened_mut().iter_mut().zip(values) {
                    *acc = value.mul_add(p, *acc);
                }
            }
        }
        for (h, acc) in acc.iter().enumerate() {
            for (i, acc) in acc.as_flattened().iter().enumerate() {
                acc.store(out.add(h * head_dim + d + i * L::N));
            }
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
