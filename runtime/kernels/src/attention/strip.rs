//! [`Strips`]: some dozens of queries that walk the same keys together, one query per lane.
//!
//! Everything is held transposed, so that neither maximum nor sum crosses lanes:
//!
//! ```text
//!              lane 0 1 2 …                 lane 0 1 2 …               lane 0 1 2 …
//!   q   d=0   [ q q q … ]     scores key 0 [ s s s … ]    out   d=0   [ o o o … ]
//!       d=1   [ q q q … ]            key 1 [ s s s … ]          d=1   [ o o o … ]
//!       …                            …  KEY_TILE rows           …
//! ```
//!
//! Scores take one key value at a time, broadcast, times the query vectors; the output takes one
//! value at a time, broadcast, times the probability vectors. [`STRIPS`] strips share each tile of
//! keys and values, so that reading (or widening) the tile is paid once for all of them.

use super::KEY_TILE;
use crate::activation::bounded_exp_lanes;
use crate::aligned::with_f32_scratch;
use crate::lanes::{FloatTier, Lanes, load_vectors, tiered};

/// Keys (or output dimensions) whose vectors are held in registers together.
const STEP: usize = 4;
/// Score of a masked key: its exponential is 0 beside any real score.
const MASKED: f32 = -1e30;

/// Strips that share the tiles of keys and values.
pub(super) const STRIPS: usize = 4;

/// [`STRIPS`] strips and one tile of keys and values, `[KEY_TILE, head_dim]` each.
pub(super) struct Strips<'a> {
    strips: [Strip<'a>; STRIPS],
    keys: &'a mut [f32],
    values: &'a mut [f32],
}

/// Queries in scratch, with their running softmax.
struct Strip<'a> {
    tier: FloatTier,
    head_dim: usize,
    width: usize,
    /// `[head_dim, width]`, scaled by 1/sqrt(head_dim).
    queries: &'a mut [f32],
    /// `[KEY_TILE, width]`.
    scores: &'a mut [f32],
    /// `[head_dim, width]`, not yet divided by the sum.
    out: &'a mut [f32],
    /// `[width]` each: running maximum, running sum, number of keys the lane may see.
    maximum: &'a mut [f32],
    sum: &'a mut [f32],
    limit: &'a mut [f32],
    /// The smallest limit: tiles below it need no mask.
    least_limit: usize,
    /// The largest limit: tiles from it on need not be looked at. 0 without queries.
    greatest_limit: usize,
}

/// Lends strips without queries to `f`.
pub(super) fn with_strips(tier: FloatTier, head_dim: usize, f: impl FnOnce(&mut Strips<'_>)) {
    let tile = KEY_TILE * head_dim;
    let strip_len = Strip::scratch_len(tier, head_dim);
    with_f32_scratch(2 * tile + STRIPS * strip_len, |scratch| {
        let (keys, rest) = scratch.split_at_mut(tile);
        let (values, rest) = rest.split_at_mut(tile);
        let mut rest = rest.chunks_exact_mut(strip_len);
        let strips = std::array::from_fn(|_| {
            Strip::new(
                tier,
                head_dim,
                rest.next().expect("the scratch holds every strip"),
            )
        });
        f(&mut Strips {
            strips,
            keys,
            values,
        });
    });
}

impl Strips<'_> {
    /// Puts a query into a lane of a strip; it sees the keys below `limit`, at least one.
    pub(super) fn set_query(&mut self, strip: usize, lane: usize, query: &[f32], limit: usize) {
        self.strips[strip].set_query(lane, query, limit);
    }

    /// Walks the keys `0..n_keys`. `load(position, key, value)` writes one row of each.
    pub(super) fn attend(&mut self, n_keys: usize, load: impl Fn(usize, &mut [f32], &mut [f32])) {
        let head_dim = self.strips[0].head_dim;
        for first_key in (0..n_keys).step_by(KEY_TILE) {
            let n_tile = KEY_TILE.min(n_keys - first_key);
            let rows = self
                .keys
                .chunks_exact_mut(head_dim)
                .zip(self.values.chunks_exact_mut(head_dim));
            for (j, (key, value)) in rows.enumerate().take(n_tile) {
                load(first_key + j, key, value);
            }
            for strip in self
                .strips
                .iter_mut()
                .filter(|strip| first_key < strip.greatest_limit)
            {
                strip.attend(first_key, n_tile, self.keys, self.values);
            }
        }
    }

    /// Writes the output of one lane of a strip, `[head_dim]`.
    pub(super) fn output(&self, strip: usize, lane: usize, out: &mut [f32]) {
        self.strips[strip].output(lane, out);
    }
}

/// Lanes of a strip.
pub(super) fn strip_width(tier: FloatTier) -> usize {
    // SAFETY: nothing is passed.
    unsafe { width(tier) }
}

tiered! {
    unsafe fn width() -> usize = width_on
}

/// # Safety
///
/// None beyond that of all tiered functions.
#[inline(always)]
unsafe fn width_on<L: Lanes>() -> usize {
    L::N * L::QUERY_VECTORS
}

impl<'a> Strip<'a> {
    /// f32 values of scratch a strip needs.
    fn scratch_len(tier: FloatTier, head_dim: usize) -> usize {
        strip_width(tier) * (2 * head_dim + KEY_TILE + 3)
    }

    /// Makes a strip without queries in `scratch`, [`Strip::scratch_len`] long.
    fn new(tier: FloatTier, head_dim: usize, scratch: &'a mut [f32]) -> Strip<'a> {
        let width = strip_width(tier);
        let (queries, rest) = scratch.split_at_mut(head_dim * width);
        let (out, rest) = rest.split_at_mut(head_dim * width);
        let (scores, rest) = rest.split_at_mut(KEY_TILE * width);
        let (maximum, rest) = rest.split_at_mut(width);
        let (sum, limit) = rest.split_at_mut(width);
        queries.fill(0.0);
        out.fill(0.0);
        maximum.fill(MASKED);
        sum.fill(0.0);
        limit.fill(f32::INFINITY);
        Strip {
            tier,
            head_dim,
            width,
            queries,
            scores,
            out,
            maximum,
            sum,
            limit,
            least_limit: usize::MAX,
            greatest_limit: 0,
        }
    }

    /// Puts a query into a lane; it sees the keys below `limit`, at least one.
    fn set_query(&mut self, lane: usize, query: &[f32], limit: usize) {
        assert!(lane < self.width && query.len() == self.head_dim && limit > 0);
        let scale = 1.0 / (self.head_dim as f32).sqrt();
        for (d, q) in query.iter().enumerate() {
            self.queries[d * self.width + lane] = q * scale;
        }
        self.limit[lane] = limit as f32;
        self.least_limit = self.least_limit.min(limit);
        self.greatest_limit = self.greatest_limit.max(limit);
    }

    /// Takes in the keys `first_key..first_key + n_keys`, `keys` and `values` `[KEY_TILE, head_dim]`.
    /// The first tile must show every lane at least one key.
    fn attend(&mut self, first_key: usize, n_keys: usize, keys: &[f32], values: &[f32]) {
        assert!(n_keys > 0 && n_keys <= KEY_TILE);
        assert!(keys.len() == KEY_TILE * self.head_dim && values.len() == keys.len());
        let masked = first_key + n_keys > self.least_limit;
        // SAFETY: the lengths were checked here and in `new`; head_dim is a multiple of 8.
        unsafe {
            attend_tile(
                self.tier,
                self,
                first_key,
                n_keys,
                masked,
                keys.as_ptr(),
                values.as_ptr(),
            )
        };
    }

    /// Writes the output of one lane, `[head_dim]`.
    fn output(&self, lane: usize, out: &mut [f32]) {
        assert!(lane < self.width && out.len() == self.head_dim);
        let factor = 1.0 / self.sum[lane];
        for (d, out) in out.iter_mut().enumerate() {
            *out = self.out[d * self.width + lane] * factor;
        }
    }
}

tiered! {
    unsafe fn attend_tile(
        strip: &mut Strip<'_>, first_key: usize, n_keys: usize, masked: bool, keys: *const f32, values: *const f32,
    ) = attend_tile_on
}

/// # Safety
///
/// * The CPU has the instructions of `L`, and the strip was made for this tier.
/// * `KEY_TILE * head_dim` values are readable at `keys` and `values`; `n_keys <= KEY_TILE`.
#[inline(always)]
unsafe fn attend_tile_on<L: Lanes>(
    strip: &mut Strip<'_>,
    first_key: usize,
    n_keys: usize,
    masked: bool,
    keys: *const f32,
    values: *const f32,
) {
    // SAFETY: by the caller's promises; each tier names its number of query vectors.
    unsafe {
        match L::QUERY_VECTORS {
            2 => attend_vectors::<L, 2>(strip, first_key, n_keys, masked, keys, values),
            _ => attend_vectors::<L, 4>(strip, first_key, n_keys, masked, keys, values),
        }
    }
}

/// # Safety
///
/// As [`attend_tile_on`]; `QV` is `L::QUERY_VECTORS`.
#[inline(always)]
unsafe fn attend_vectors<L: Lanes, const QV: usize>(
    strip: &mut Strip<'_>,
    first_key: usize,
    n_keys: usize,
    masked: bool,
    keys: *const f32,
    values: *const f32,
) {
    let (head_dim, width) = (strip.head_dim, QV * L::N);
    let queries = strip.queries.as_ptr();
    let scores = strip.scores.as_mut_ptr();
    let out = strip.out.as_mut_ptr();
    // SAFETY: the strip's buffers are as long as their comments say, KEY_TILE is a multiple of
    // STEP, so is head_dim; keys after n_keys are readable scratch whose scores nobody reads.
    unsafe {
        let old_maximum = load_vectors::<L, QV>(strip.maximum.as_ptr());
        let mut maximum = old_maximum;
        for key in (0..n_keys).step_by(STEP) {
            let mut acc = [[L::splat(0.0); QV]; STEP];
            for d in 0..head_dim {
                let q = load_vectors::<L, QV>(queries.add(d * width));
                for (j, acc) in acc.iter_mut().enumerate() {
                    let k = L::splat(*keys.add((key + j) * head_dim + d));
                    for (acc, q) in acc.iter_mut().zip(q) {
                        *acc = k.mul_add(q, *acc);
                    }
                }
            }
            for (j, acc) in acc.iter().enumerate().take(n_keys - key) {
                for (v, score) in acc.iter().enumerate() {
                    let mut score = *score;
                    if masked {
                        let limit = L::load(strip.limit.as_ptr().add(v * L::N));
                        // At least 1 for a key the lane sees, at most 0 for one it does not.
                        let left = limit.sub(L::splat((first_key + key + j) as f32));
                        let penalty = L::splat(0.0)
                            .min(left.sub(L::splat(0.5)))
                            .mul(L::splat(-2.0 * MASKED));
                        score = score.add(penalty);
                    }
                    maximum[v] = score.max(maximum[v]);
                    score.store(scores.add((key + j) * width + v * L::N));
                }
            }
        }

        let mut sum = load_vectors::<L, QV>(strip.sum.as_ptr());
        let mut correction = [L::splat(0.0); QV];
        for v in 0..QV {
            correction[v] = bounded_exp_lanes(old_maximum[v].sub(maximum[v]));
            sum[v] = sum[v].mul(correction[v]);
            maximum[v].store(strip.maximum.as_mut_ptr().add(v * L::N));
        }
        for key in 0..n_keys {
            for (v, (sum, maximum)) in sum.iter_mut().zip(maximum).enumerate() {
                let at = scores.add(key * width + v * L::N);
                let p = bounded_exp_lanes(L::load(at).sub(maximum));
                *sum = sum.add(p);
                p.store(at);
            }
        }
        for (v, sum) in sum.into_iter().enumerate() {
            sum.store(strip.sum.as_mut_ptr().add(v * L::N));
        }

        for d in (0..head_dim).step_by(STEP) {
            let mut acc = [[L::splat(0.0); QV]; STEP];
            for (j, acc) in acc.iter_mut().enumerate() {
                *acc = load_vectors(out.add((d + j) * width));
                for (acc, correction) in acc.iter_mut().zip(correction) {
                    *acc = acc.mul(correction);
                }
            }
            for key in 0..n_keys {
                let p = load_vectors::<L, QV>(scores.add(key * width));
                for (j, acc) in acc.iter_mut().enumerate() {
                    let value = L::splat(*values.add(key * head_dim + d + j));
                    for (acc, p) in acc.iter_mut().zip(p) {
                        *acc = value.mul_add(p, *acc);
                    }
                }
            }
            for (j, acc) in acc.iter().enumerate() {
                for (v, acc) in acc.iter().enumerate() {
                    acc.store(out.add((d + j) * width + v * L::N));
                }
            }
        }
    }
}
