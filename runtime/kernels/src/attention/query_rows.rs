//! [`QueryRows`]: some dozens of queries that walk the same keys together.
//!
//! For each tile of keys there are two products of one shape, a row of numbers times a matrix whose
//! rows are vectors:
//!
//! ```text
//!   scores  [rows, KEY_TILE]   = queries [rows, head_dim] · keys   [head_dim, KEY_TILE]   transposed
//!   weights [rows, KEY_TILE]   = 2^(scores - maximum of the row)
//!   out     [rows, head_dim]  += weights [rows, KEY_TILE] · values [KEY_TILE, head_dim]
//! ```
//!
//! `TILE_ROWS` rows go through a tile together, so every vector of keys and values is loaded once
//! for all of them, and sums stay in registers over the whole of a product. Keys are widened,
//! transposed and scaled once for all rows; queries stay where they are.

use super::KEY_TILE;
use super::softmax::{LOWEST, scale, weigh};
use crate::aligned::with_f32_scratch;
use crate::half::widen_f16_on;
use crate::lanes::{FloatTier, Lanes, MAX_LANES, load_vectors, map_lanes, tiered};

/// Rows that share the tiles of keys and values; a multiple of the `TILE_ROWS` of every tier.
pub(super) const ROWS: usize = 64;
/// Keys and dimensions that are transposed together.
const BLOCK: usize = 8;
/// Values of the left row that are held together.
const FOUR: usize = 4;
/// Places of keys within a tile.
const PLACES: [f32; KEY_TILE] = {
    let mut places = [0.0; KEY_TILE];
    let mut i = 0;
    while i < KEY_TILE {
        places[i] = i as f32;
        i += 1;
    }
    places
};

/// Queries with their running softmax.
pub(super) struct QueryRows<'a, 'q> {
    tier: FloatTier,
    head_dim: usize,
    /// `[head_dim]` each, empty behind the last one.
    queries: [&'q [f32]; ROWS],
    /// `[ROWS, stride]`, not yet divided by the sum.
    out: &'a mut [f32],
    /// `[MAX_LANES, KEY_TILE]`: scores, then weights of the rows at work.
    scores: &'a mut [f32],
    maxima: [f32; ROWS],
    sums: [f32; ROWS],
    /// Number of keys each row may see; 0 without a query.
    limits: [usize; ROWS],
    tile: KeyTile<'a>,
}

/// Some keys and values as the products take them.
pub(super) struct KeyTile<'a> {
    tier: FloatTier,
    head_dim: usize,
    /// From one row of values to the next: `head_dim` in whole vectors of any tier.
    stride: usize,
    /// `[head_dim, KEY_TILE]`, scaled by log2(e) / sqrt(head_dim).
    keys: &'a mut [f32],
    /// `[KEY_TILE, stride]`.
    values: &'a mut [f32],
}

/// Lends rows without queries to `f`. `head_dim` is a multiple of 8.
pub(super) fn with_query_rows<'q>(
    tier: FloatTier,
    head_dim: usize,
    f: impl FnOnce(&mut QueryRows<'_, 'q>),
) {
    assert!(head_dim.is_multiple_of(BLOCK));
    let stride = head_dim.next_multiple_of(MAX_LANES);
    let lengths = [
        ROWS * stride,
        MAX_LANES * KEY_TILE,
        head_dim * KEY_TILE,
        KEY_TILE * stride,
    ];
    with_f32_scratch(lengths.iter().sum(), |scratch| {
        let mut rest = scratch;
        let [out, scores, keys, values] = lengths.map(|len| {
            let (part, after) = std::mem::take(&mut rest).split_at_mut(len);
            rest = after;
            part
        });
        // What scratch held before may be NaN, and the last vectors of a row are computed whole.
        if stride > head_dim {
            values.fill(0.0);
        }
        f(&mut QueryRows {
            tier,
            head_dim,
            queries: [&[]; ROWS],
            out,
            scores,
            maxima: [LOWEST; ROWS],
            sums: [0.0; ROWS],
            limits: [0; ROWS],
            tile: KeyTile {
                tier,
                head_dim,
                stride,
                keys,
                values,
            },
        });
    });
}

impl<'q> QueryRows<'_, 'q> {
    /// Makes `queries` `[n, head_dim]` the rows from `first` on; they see the keys below `limit`, at
    /// least one. Rows are set in order, without gaps.
    pub(super) fn set(&mut self, first: usize, queries: &'q [f32], limit: usize) {
        assert!(limit > 0);
        for (i, query) in queries.chunks_exact(self.head_dim).enumerate() {
            self.queries[first + i] = query;
            self.limits[first + i] = limit;
        }
    }

    /// Walks the keys `0..n_keys`. `load(first, n, tile)` fills the tile with `n` of them.
    pub(super) fn attend(&mut self, n_keys: usize, load: impl Fn(usize, usize, &mut KeyTile<'_>)) {
        for first_key in (0..n_keys).step_by(KEY_TILE) {
            let n_tile = KEY_TILE.min(n_keys - first_key);
            load(first_key, n_tile, &mut self.tile);
            // SAFETY: the buffers are as long as their comments say; the tile was filled.
            unsafe { attend_tile(self.tier, self, first_key, n_tile) };
        }
    }

    /// Writes the output of the rows from `first` on, `out` `[n, head_dim]`.
    pub(super) fn write(&self, first: usize, out: &mut [f32]) {
        let from = &self.out[first * self.tile.stride..];
        let sums = &self.sums[first..];
        // SAFETY: each row of `out` has its row in scratch, which is no shorter.
        unsafe { divide_rows(self.tier, from, self.tile.stride, sums, self.head_dim, out) };
    }
}

impl KeyTile<'_> {
    /// Sets `keys` and `values`, equally many of both, at least one, each `[head_dim]` of f16 bits.
    pub(super) fn set_f16(&mut self, keys: &[&[u16]], values: &[&[u16]]) {
        assert!((1..=KEY_TILE).contains(&keys.len()) && keys.len() == values.len());
        let mut rows = keys.iter().chain(values);
        assert!(rows.all(|row| row.len() == self.head_dim));
        // SAFETY: number and lengths of the rows were checked.
        unsafe { widen_tile(self.tier, self, keys, values) };
    }

    /// Sets `n` keys and values, at least one; `row` gives them by their place, each `[head_dim]`.
    pub(super) fn set_f32<'a>(&mut self, n: usize, row: impl Fn(usize) -> (&'a [f32], &'a [f32])) {
        for j in 0..KEY_TILE {
            // Masked places hold a number all the same.
            let (key, value) = row(j.min(n - 1));
            for (d, value) in key.iter().enumerate() {
                self.keys[d * KEY_TILE + j] = value * scale(self.head_dim);
            }
            self.values[j * self.stride..][..self.head_dim].copy_from_slice(value);
        }
    }
}

tiered! {
    unsafe fn divide_rows(
        x: &[f32], stride: usize, divisors: &[f32], head_dim: usize, out: &mut [f32],
    ) = divide_rows_on
}
tiered! {
    unsafe fn widen_tile(tile: &mut KeyTile<'_>, keys: &[&[u16]], values: &[&[u16]]) = widen_tile_on
}
tiered! {
    unsafe fn attend_tile(rows: &mut QueryRows<'_, '_>, first_key: usize, n_keys: usize) = attend_tile_on
}

/// # Safety
///
/// * The CPU has the instructions of `L`; `x` has a row of `head_dim` values for each of `out`.
#[inline(always)]
unsafe fn divide_rows_on<L: Lanes>(
    x: &[f32],
    stride: usize,
    divisors: &[f32],
    head_dim: usize,
    out: &mut [f32],
) {
    let rows = x.chunks_exact(stride).zip(divisors);
    for (out, (x, divisor)) in out.chunks_exact_mut(head_dim).zip(rows) {
        // SAFETY: the lengths agree.
        unsafe {
            let factor = L::splat(1.0 / divisor);
            map_lanes!(L, [x = &x[..head_dim]] => out, x.mul(factor));
        }
    }
}

/// # Safety
///
/// * The CPU has the instructions of `L`.
/// * `keys` and `values` are equally many, at most KEY_TILE and at least one, of `head_dim` values.
#[inline(always)]
unsafe fn widen_tile_on<L: Lanes>(tile: &mut KeyTile<'_>, keys: &[&[u16]], values: &[&[u16]]) {
    let (n, stride, scale) = (keys.len(), tile.stride, scale(tile.head_dim));
    for first in (0..n.next_multiple_of(MAX_LANES)).step_by(BLOCK) {
        // Masked places hold a number all the same.
        let mut rows = [keys[n - 1].as_ptr(); BLOCK];
        for (row, key) in rows.iter_mut().zip(keys.iter().skip(first)) {
            *row = key.as_ptr();
        }
        for d in (0..tile.head_dim).step_by(BLOCK) {
            // SAFETY: each key has BLOCK values from d on, KEY_TILE has BLOCK places from `first` on.
            unsafe {
                let to = tile.keys.as_mut_ptr().add(d * KEY_TILE + first);
                L::transpose_f16(rows, d, scale, to, KEY_TILE);
            }
        }
    }
    for (value, row) in values.iter().zip(tile.values.chunks_exact_mut(stride)) {
        // SAFETY: both have head_dim values.
        unsafe { widen_f16_on::<L>(value, &mut row[..value.len()]) };
    }
    tile.values[n * stride..n.next_multiple_of(FOUR) * stride].fill(0.0);
}

/// # Safety
///
/// * The CPU has the instructions of `L`; the first `n_keys` places of the tile were filled.
#[inline(always)]
unsafe fn attend_tile_on<L: Lanes>(rows: &mut QueryRows<'_, '_>, first_key: usize, n_keys: usize) {
    // SAFETY: by the caller's promises; these are the shapes of the tiers.
    unsafe {
        match (L::TILE_ROWS, L::TILE_VECTORS) {
            (8, 2) => attend_blocks::<L, 8, 2, 1>(rows, first_key, n_keys),
            (4, 4) => attend_blocks::<L, 4, 4, 2>(rows, first_key, n_keys),
            _ => attend_blocks::<L, 4, 2, 1>(rows, first_key, n_keys),
        }
    }
}

/// # Safety
///
/// As [`attend_tile_on`]; `R` and `V` are `TILE_ROWS` and `TILE_VECTORS`, `H` is half of `V`.
#[inline(always)]
unsafe fn attend_blocks<L: Lanes, const R: usize, const V: usize, const H: usize>(
    rows: &mut QueryRows<'_, '_>,
    first_key: usize,
    n_keys: usize,
) {
    let (head_dim, stride) = (rows.head_dim, rows.tile.stride);
    let (keys, values) = (rows.tile.keys.as_ptr(), rows.tile.values.as_ptr());
    let scores = rows.scores.as_mut_ptr();
    for first in (0..ROWS).step_by(R) {
        let limits = &rows.limits[first..first + R];
        let n = limits.iter().fold(0, |most, limit| most.max(*limit));
        let n = n.saturating_sub(first_key).min(n_keys);
        if n == 0 {
            continue;
        }
        let width = n.next_multiple_of(H * L::N);
        // SAFETY: the buffers are as long as their comments say, both products stay inside them,
        // and places of the tile up to `n` in whole vectors hold numbers.
        unsafe {
            // Rows behind the last query repeat the first of the block; nobody reads what they give.
            let mut left = [rows.queries[first].as_ptr(); R];
            for (left, query) in left.iter_mut().zip(&rows.queries[first..]) {
                if !query.is_empty() {
                    *left = query.as_ptr();
                }
            }
            Product {
                left,
                len: head_dim,
                right: keys,
                right_stride: KEY_TILE,
                width,
                out: scores,
                out_stride: KEY_TILE,
            }
            .run::<L, V, H>(None);

            let least = limits
                .iter()
                .fold(usize::MAX, |least, limit| least.min(*limit));
            if least < first_key + width {
                mask::<L, R>(scores, width, limits, first_key);
            }
            let correction = weigh::<L, R>(
                scores,
                width,
                &mut rows.maxima[first..first + R],
                &mut rows.sums[first..first + R],
            );

            for (i, left) in left.iter_mut().enumerate() {
                *left = scores.add(i * KEY_TILE);
            }
            Product {
                left,
                len: n.next_multiple_of(FOUR),
                right: values,
                right_stride: stride,
                width: stride,
                out: rows.out.as_mut_ptr().add(first * stride),
                out_stride: stride,
            }
            .run::<L, V, H>((first_key > 0).then_some(correction));
        }
    }
}

/// Lowers the scores of keys from the limit of each row on.
///
/// # Safety
///
/// * The CPU has the instructions of `L`; `scores` is `[R, KEY_TILE]`; `width` is a multiple of N.
#[inline(always)]
unsafe fn mask<L: Lanes, const R: usize>(
    scores: *mut f32,
    width: usize,
    limits: &[usize],
    first_key: usize,
) {
    for (i, limit) in limits.iter().enumerate() {
        let seen = limit.saturating_sub(first_key).min(KEY_TILE) as f32;
        for place in (0..width).step_by(L::N) {
            // SAFETY: by the caller's promises.
            unsafe {
                let at = scores.add(i * KEY_TILE + place);
                // Above 0 for a key the row sees, below for one it does not.
                let left = L::splat(seen - 0.5).sub(L::load(PLACES.as_ptr().add(place)));
                let penalty = L::splat(0.0).min(left).mul(L::splat(-2.0 * LOWEST));
                L::load(at).add(penalty).store(at);
            }
        }
    }
}

/// `out = [out · factor +] left · right`, `R` rows of `out`.
struct Product<const R: usize> {
    /// `[len]` each; `len` is a multiple of [`FOUR`].
    left: [*const f32; R],
    len: usize,
    /// `[len, width]`, `right_stride` apart.
    right: *const f32,
    right_stride: usize,
    width: usize,
    /// `[rows, width]`, `out_stride` apart.
    out: *mut f32,
    out_stride: usize,
}

impl<const R: usize> Product<R> {
    /// # Safety
    ///
    /// * The CPU has the instructions of `L`; the pointers are to `R` rows of the shapes above.
    /// * `width` is a multiple of `H` vectors, `V` is twice `H`.
    #[inline(always)]
    unsafe fn run<L: Lanes, const V: usize, const H: usize>(
        &self,
        factors: Option<[f32; MAX_LANES]>,
    ) {
        let mut column = 0;
        // SAFETY: by the caller's promises; columns stay below `width`.
        unsafe {
            while column + V * L::N <= self.width {
                self.columns::<L, V>(column, factors);
                column += V * L::N;
            }
            if column < self.width {
                self.columns::<L, H>(column, factors);
            }
        }
    }

    /// `V` vectors of each row from `column` on.
    ///
    /// # Safety
    ///
    /// As [`Product::run`]; the vectors are inside `width`.
    #[inline(always)]
    unsafe fn columns<L: Lanes, const V: usize>(
        &self,
        column: usize,
        factors: Option<[f32; MAX_LANES]>,
    ) {
        // SAFETY: by the caller's promises.
        unsafe {
            let out = self.out.add(column);
            let mut acc = [[L::splat(0.0); V]; R];
            if let Some(factors) = factors {
                for (i, acc) in acc.iter_mut().enumerate() {
                    *acc = load_vectors(out.add(i * self.out_stride));
                    for acc in acc {
                        *acc = acc.mul(L::splat(factors[i]));
                    }
                }
            }
            let mut right = self.right.add(column);
            for k in (0..self.len).step_by(FOUR) {
                let mut left = [L::load_four(self.left[0].add(k)); R];
                for (left, row) in left.iter_mut().zip(self.left) {
                    *left = L::load_four(row.add(k));
                }
                macro_rules! step {
                    ($s:literal) => {
                        let row = load_vectors::<L, V>(right.add($s * self.right_stride));
                        for (acc, left) in acc.iter_mut().zip(left) {
                            for (acc, row) in acc.iter_mut().zip(row) {
                                *acc = row.mul_add_of_four::<$s>(left, *acc);
                            }
                        }
                    };
                }
                step!(0);
                step!(1);
                step!(2);
                step!(3);
                right = right.add(FOUR * self.right_stride);
            }
            for (i, acc) in acc.iter().enumerate() {
                for (v, acc) in acc.iter().enumerate() {
                    acc.store(out.add(i * self.out_stride + v * L::N));
                }
            }
        }
    }
}
