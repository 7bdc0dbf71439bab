//! Rounding with error feedback: what one weight loses by rounding, the weights after it in
//! its row make good, as far as their inputs go together.
//!
//! With the second moments `H` of a linear's input, a row that is rounded with errors `e`
//! misses its output by `e·H·eᵀ` in the mean square. Factored as `H = R·D·Rᵀ` (`R` upper
//! triangular with a unit diagonal, `D` diagonal) that is `Σ_c D_c·(e_c + Σ_{j<c} e_j·R_jc)²`,
//! so, column by column, `q_c` is what lies nearest to `w_c + Σ_{j<c} e_j·R_jc` (GPTQ,
//! arXiv 2210.17323; in this form LDLQ of QuIP, arXiv 2307.13304).

use super::arithmetic::Arithmetic;
use ocelli_kernels::half::f16_bits_to_f32;
use ocelli_kernels::int4_feedback::{FedBlock, int4_scale_under_feedback};
use ocelli_kernels::int4_groups::Int4Groups;
use ocelli_kernels::int4_panels::BLOCK;
use ocelli_kernels::ordered::{Rows, RowsMut};
use ocelli_kernels::panels::row_scale;

/// Inputs whose moments are held together; wider inputs fall into blocks of so many.
const MAX_WIDTH: usize = 3072;
/// Rows that are computed together, while what they read is in the cache.
const TOGETHER: usize = 16;
/// Added to the diagonal, as a share of its mean: how far the calibration text is trusted.
const DAMPING: f32 = 0.1;
/// Largest magnitude of an int8 weight.
const INT8_MAX: f32 = 127.0;

/// Sums over rows of the products of every two inputs.
#[derive(Debug)]
pub(super) struct Moments {
    blocks: Vec<Square>,
}

/// A symmetric matrix over neighbouring inputs; only the lower triangle counts.
#[derive(Debug)]
struct Square {
    first: usize,
    width: usize,
    /// `[width, width]`
    values: Vec<f32>,
}

impl Moments {
    /// Those of `rows` (`[m, k]`).
    pub(super) fn of(arithmetic: &Arithmetic, rows: &[f32], k: usize) -> Moments {
        Moments::in_blocks(arithmetic, rows, k, MAX_WIDTH)
    }

    fn in_blocks(arithmetic: &Arithmetic, rows: &[f32], k: usize, max_width: usize) -> Moments {
        let square = |first: usize| {
            let width = max_width.min(k - first);
            let mut values = vec![0f32; width * width];
            let pool = &arithmetic.pool;
            pool.for_each_chunk_mut(&mut values, width * TOGETHER, &|index, out| {
                let (begin, m, count) = (index * TOGETHER, out.len() / width, rows.len() / k);
                let mut columns = vec![0f32; m * count];
                for (b, row) in rows.chunks_exact(k).enumerate() {
                    for (i, value) in row[first + begin..][..m].iter().enumerate() {
                        columns[i * count + b] = *value;
                    }
                }
                let (columns, rows) = (Rows::new(&columns, count), Rows::new(&rows[first..], k));
                let out = RowsMut::new(out, width);
                arithmetic.add_products([m, count, begin + m], columns, rows, out);
            });
            Square {
                first,
                width,
                values,
            }
        };
        Moments {
            blocks: (0..k).step_by(max_width).map(square).collect(),
        }
    }
}

/// `H = R·D·Rᵀ` over neighbouring inputs.
#[derive(Debug)]
struct Factor {
    first: usize,
    width: usize,
    /// `R` without its diagonal. `[width, width]`
    shares: Vec<f32>,
    /// `D`: what an error costs that nothing makes good. `[width]`
    costs: Vec<f32>,
}

impl Factor {
    fn new(arithmetic: &Arithmetic, square: Square) -> Factor {
        let (width, mut values) = (square.width, square.values);
        let mean = (0..width).map(|i| values[i * width + i]).sum::<f32>() / width as f32;
        for i in 0..width {
            values[i * width + i] += DAMPING * mean;
        }
        let mut costs = vec![0f32; width];
        let mut end = width;
        while end > 0 {
            let start = end.saturating_sub(BLOCK);
            let (before, block) = values.split_at_mut(start * width);
            eliminate(arithmetic, block, start, width, &mut costs[start..end]);
            let costs = &costs[start..end];
            let pool = &arithmetic.pool;
            pool.for_each_chunk_mut(before, width * TOGETHER, &|index, out| {
                let (begin, m) = (index * TOGETHER, out.len() / width);
                let factors = (begin..begin + m).flat_map(|j| {
                    let column = block[j..].iter().step_by(width);
                    column.zip(costs).map(|(v, cost)| -share(*v, *cost))
                });
                let factors: Vec<f32> = factors.collect();
                let shape = [m, costs.len(), begin + m];
                let (factors, block) = (Rows::new(&factors, costs.len()), Rows::new(block, width));
                arithmetic.add_products(shape, factors, block, RowsMut::new(out, width));
            });
            end = start;
        }
        let mut shares = vec![0f32; width * width];
        for (c, cost) in costs.iter().enumerate() {
            for j in 0..c {
                shares[j * width + c] = share(values[c * width + j], *cost);
            }
        }
        Factor {
            first: square.first,
            width,
            shares,
            costs,
        }
    }

    /// Rounds the values of a row's block that begins at `start` one after the other to multiples of
    /// a scale within a range; what is `wanted` of the later ones takes up what the earlier lost.
    fn round_block(
        &self,
        weights: &[f32],
        wanted: &mut [f32],
        start: usize,
        (scale, (least, greatest)): (f32, (f32, f32)),
        values: &mut [i8],
        errors: &mut [f32],
    ) {
        for c in 0..weights.len() {
            let rounded = if scale == 0.0 {
                0.0
            } else {
                (wanted[c] / scale).round_ties_even().clamp(least, greatest)
            };
            values[c] = rounded as i8;
            errors[c] = weights[c] - rounded * scale;
            let shares = &self.shares[(start + c) * self.width + start..];
            for (wanted, share) in wanted[c + 1..].iter_mut().zip(&shares[c + 1..]) {
                *wanted += errors[c] * share;
            }
        }
    }

    /// The f16 bits of the int4 scale of the block that begins at `start`.
    fn int4_scale(
        &self,
        arithmetic: &Arithmetic,
        weights: &[f32],
        wanted: &[f32],
        start: usize,
    ) -> u16 {
        let block = |values: &'_ [f32]| *values.first_chunk().expect("int4 rows are whole blocks");
        let block = FedBlock {
            wanted: &block(wanted),
            weights: &block(weights),
            shares: &self.shares[start * self.width + start..],
            stride: self.width,
            costs: &block(&self.costs[start..]),
        };
        int4_scale_under_feedback(arithmetic.tier, &block)
    }
}

/// An entry of `R`; 0 where an input never differs from what later ones say.
fn share(value: f32, cost: f32) -> f32 {
    if cost > 0.0 { value / cost } else { 0.0 }
}

/// Takes the last inputs of a block out of its other rows. `block`: the rows from `start` on
fn eliminate(
    arithmetic: &Arithmetic,
    block: &mut [f32],
    start: usize,
    width: usize,
    costs: &mut [f32],
) {
    for c in (0..costs.len()).rev() {
        let (before, row) = block.split_at_mut(c * width);
        costs[c] = row[start + c];
        for (j, out) in before.chunks_exact_mut(width).enumerate() {
            let factor = -share(row[start + j], costs[c]);
            arithmetic.add_rows(&[factor], row, width, &mut out[..=start + j]);
        }
    }
}

/// A way to round the rows of one linear.
#[derive(Debug)]
pub(super) struct Feedback<'a> {
    arithmetic: &'a Arithmetic,
    factors: Vec<Factor>,
}

/// A row of small integers and the scales of its runs.
#[derive(Clone, Debug, Default, PartialEq)]
struct Rounded<S> {
    values: Vec<i8>,
    scales: Vec<S>,
}

impl<'a> Feedback<'a> {
    /// For a linear whose input has these moments.
    pub(super) fn new(arithmetic: &'a Arithmetic, moments: Moments) -> Feedback<'a> {
        let factors = moments.blocks.into_iter();
        Feedback {
            arithmetic,
            factors: factors
                .map(|square| Factor::new(arithmetic, square))
                .collect(),
        }
    }

    /// Rounds rows to int8, one scale each: values `[r, k]` and scales `[r]`. `weights`: `[r, k]`
    pub(super) fn int8_rows(&self, weights: &[f32], k: usize) -> (Vec<i8>, Vec<f32>) {
        let rows = self.rows(weights, k, &|rows| {
            let scales: Vec<f32> = rows.chunks_exact(k).map(row_scale).collect();
            let values = self.round(rows, k, (-INT8_MAX, INT8_MAX), |r, _, _, _, _| scales[r]);
            Rounded { values, scales }
        });
        join(rows)
    }

    /// Rounds rows to int4, one scale for 32 values, searched for where the feedback of all values
    /// before them is known, with that among them. `weights`: `[r, k]`
    pub(super) fn int4_rows(&self, weights: &[f32], k: usize) -> Int4Groups {
        let rows = self.rows(weights, k, &|rows| {
            let blocks = k / BLOCK;
            let mut scales = vec![0; rows.len() / k * blocks];
            let scale =
                |r: usize, factor: &Factor, weights: &[f32], wanted: &[f32], start: usize| {
                    let bits = factor.int4_scale(self.arithmetic, weights, wanted, start);
                    scales[r * blocks + (factor.first + start) / BLOCK] = bits;
                    f16_bits_to_f32(bits)
                };
            let values = self.round(rows, k, (-8.0, 7.0), scale);
            Rounded { values, scales }
        });
        let (values, scales) = join(rows);
        Int4Groups::new(values, scales, k)
    }

    /// Rounds all rows, [`TOGETHER`] at a time.
    fn rows<S: Clone + Default + Send>(
        &self,
        weights: &[f32],
        k: usize,
        round: &(dyn Fn(&[f32]) -> Rounded<S> + Sync),
    ) -> Vec<Rounded<S>> {
        let parts: Vec<&[f32]> = weights.chunks(TOGETHER * k).collect();
        let mut rounded = vec![Rounded::default(); parts.len()];
        let pool = &self.arithmetic.pool;
        pool.for_each_chunk_mut(&mut rounded, 1, &|i, out| out[0] = round(parts[i]));
        rounded
    }

    /// Rounds rows, [`BLOCK`] values at a time, to multiples of the scale that `scale` says for the
    /// row, the weights there, what is wanted of them, and where among the inputs of the factor
    /// they begin. `rows`: `[r, k]`
    fn round(
        &self,
        rows: &[f32],
        k: usize,
        range: (f32, f32),
        mut scale: impl FnMut(usize, &Factor, &[f32], &[f32], usize) -> f32,
    ) -> Vec<i8> {
        let m = rows.len() / k;
        let mut values = vec![0i8; rows.len()];
        for factor in &self.factors {
            let width = factor.width;
            let row = |r: usize| &rows[r * k + factor.first..][..width];
            let mut wanted: Vec<f32> = (0..m).flat_map(row).copied().collect();
            for start in (0..width).step_by(BLOCK) {
                let end = (start + BLOCK).min(width);
                let mut errors = vec![0f32; m * (end - start)];
                for (r, errors) in errors.chunks_exact_mut(end - start).enumerate() {
                    let weights = &row(r)[start..end];
                    let wanted = &mut wanted[r * width..][start..end];
                    let scale = scale(r, factor, weights, wanted, start);
                    let values = &mut values[r * k + factor.first + start..];
                    factor.round_block(weights, wanted, start, (scale, range), values, errors);
                }
                let shape = [m, end - start, width - end];
                let errors = Rows::new(&errors, end - start);
                let shares = Rows::new(&factor.shares[start * width + end..], width);
                let wanted = RowsMut::new(&mut wanted[end..], width);
                self.arithmetic.add_products(shape, errors, shares, wanted);
            }
        }
        values
    }
}

fn join<S>(rows: Vec<Rounded<S>>) -> (Vec<i8>, Vec<S>) {
    let (mut values, mut scales) = (Vec::new(), Vec::new());
    for row in rows {
        values.extend(row.values);
        scales.extend(row.scales);
    }
    (values, scales)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix;
    use ocelli_kernels::int4_groups::quantize_int4_groups;
    use ocelli_kernels::panels;

    const K: usize = 96;

    /// Inputs that go together: few sources, mixed, and a little noise. `[m, K]`
    fn inputs(m: usize) -> Vec<f32> {
        let mut random = SplitMix(1);
        let mix: Vec<f32> = (0..12 * K).map(|_| random.gaussian() as f32).collect();
        let mut rows = Vec::with_capacity(m * K);
        for _ in 0..m {
            let sources: Vec<f32> = (0..12).map(|_| random.gaussian() as f32).collect();
            rows.extend((0..K).map(|j| {
                let sum: f32 = sources
                    .iter()
                    .zip(mix.iter().skip(j).step_by(K))
                    .map(|(s, m)| s * m)
                    .sum();
                sum + 0.1 * random.gaussian() as f32
            }));
        }
        rows
    }

    fn weights(n: usize) -> Vec<f32> {
        let mut random = SplitMix(2);
        (0..n * K).map(|_| random.gaussian() as f32).collect()
    }

    /// Mean square of what the rounded rows miss on `x`.
    fn loss(x: &[f32], weights: &[f32], rounded: &[f32]) -> f64 {
        let mut sum = 0.0;
        for x in x.chunks_exact(K) {
            for (w, q) in weights.chunks_exact(K).zip(rounded.chunks_exact(K)) {
                let miss: f32 = x
                    .iter()
                    .zip(w.iter().zip(q))
                    .map(|(x, (w, q))| x * (w - q))
                    .sum();
                sum += f64::from(miss).powi(2);
            }
        }
        sum
    }

    fn int8_values(values: &[i8], scales: &[f32]) -> Vec<f32> {
        let scaled = values.iter().enumerate();
        scaled.map(|(i, q)| f32::from(*q) * scales[i / K]).collect()
    }

    fn int4_values(groups: &Int4Groups) -> Vec<f32> {
        let scaled = groups.values().iter().enumerate();
        scaled
            .map(|(i, q)| f32::from(*q) * f16_bits_to_f32(groups.scales()[i / BLOCK]))
            .collect()
    }

    #[test]
    fn the_factors_multiply_to_the_damped_moments() {
        let arithmetic = Arithmetic::new();
        let x = inputs(200);
        let moments = Moments::of(&arithmetic, &x, K);
        let whole = moments.blocks[0].values.clone();
        let mean = (0..K).map(|i| whole[i * K + i]).sum::<f32>() / K as f32;
        let factor = Factor::new(&arithmetic, moments.blocks.into_iter().next().unwrap());
        let r = |i: usize, c: usize| match i.cmp(&c) {
            std::cmp::Ordering::Less => factor.shares[i * K + c],
            std::cmp::Ordering::Equal => 1.0,
            std::cmp::Ordering::Greater => 0.0,
        };
        for i in 0..K {
            for j in 0..=i {
                let product: f32 = (i..K).map(|c| r(i, c) * factor.costs[c] * r(j, c)).sum();
                let damping = if i == j { DAMPING * mean } else { 0.0 };
                let wanted = whole[i * K + j] + damping;
                assert!(
                    (product - wanted).abs() < 1e-3 * mean,
                    "{i} {j}: {product} {wanted}"
                );
            }
        }
    }

    #[test]
    fn outputs_on_inputs_that_go_together_lose_less_than_half() {
        let arithmetic = Arithmetic::new();
        let (x, fresh) = (inputs(300), inputs(400).split_off(300 * K));
        let (w, n) = (weights(16), 16);
        let feedback = Feedback::new(&arithmetic, Moments::of(&arithmetic, &x, K));

        let packed = ocelli_kernels::AlignedBytes::copy_of(&panels::pack(&w, None, n, K));
        let nearest = panels::Panels::new(&packed, n, K).unwrap().unpack();
        let nearest = loss(&fresh, &w, &int8_values(&nearest.weights, &nearest.scales));
        let (values, scales) = feedback.int8_rows(&w, K);
        let fed = loss(&fresh, &w, &int8_values(&values, &scales));
        assert!(fed < 0.5 * nearest, "int8: {fed} against {nearest}");

        let nearest = loss(&fresh, &w, &int4_values(&quantize_int4_groups(&w, K)));
        let fed = loss(&fresh, &w, &int4_values(&feedback.int4_rows(&w, K)));
        assert!(fed < 0.5 * nearest, "int4: {fed} against {nearest}");
    }

    #[test]
    fn inputs_that_never_come_are_rounded_to_nearest() {
        let arithmetic = Arithmetic::new();
        let w = weights(3);
        let feedback = Feedback::new(&arithmetic, Moments::of(&arithmetic, &[0.0; 2 * K], K));
        let (values, scales) = feedback.int8_rows(&w, K);
        for (i, (w, q)) in w.iter().zip(&values).enumerate() {
            assert_eq!((w / scales[i / K]).round_ties_even(), f32::from(*q));
        }
    }

    #[test]
    fn wide_inputs_fall_into_blocks_without_feedback_between_them() {
        let arithmetic = Arithmetic::new();
        let (x, w) = (inputs(100), weights(2));
        let half = K / 2;
        let parts = Moments::in_blocks(&arithmetic, &x, K, half);
        let (both, _) = Feedback::new(&arithmetic, parts).int8_rows(&w, K);
        // The first half alone, at the scale of the whole row.
        let mut first_w = w[..half].to_vec();
        let absmax = w[..K].iter().fold(0f32, |max, w| max.max(w.abs()));
        first_w.push(absmax);
        let mut first_x: Vec<f32> = Vec::new();
        for row in x.chunks_exact(K) {
            first_x.extend_from_slice(&row[..half]);
            first_x.push(0.0);
        }
        let moments = Moments::in_blocks(&arithmetic, &first_x, half + 1, half);
        let (alone, _) = Feedback::new(&arithmetic, moments).int8_rows(&first_w, half + 1);
        assert_eq!(both[..half], alone[..half]);
    }

    #[test]
    fn a_row_beyond_f32_keeps_a_finite_scale() {
        let arithmetic = Arithmetic::new();
        let feedback = Feedback::new(&arithmetic, Moments::of(&arithmetic, &inputs(9), K));
        let mut w = weights(1);
        w[40] = f32::INFINITY;
        let (_, scales) = feedback.int8_rows(&w, K);
        assert!(scales[0].is_finite(), "{scales:?}");
    }

    #[test]
    fn a_row_of_zeros_stays_zero() {
        let arithmetic = Arithmetic::new();
        let feedback = Feedback::new(&arithmetic, Moments::of(&arithmetic, &inputs(9), K));
        let zeros = vec![0f32; K];
        assert_eq!(feedback.int8_rows(&zeros, K), (vec![0; K], vec![0.0]));
        assert!(
            feedback
                .int4_rows(&zeros, K)
                .values()
                .iter()
                .all(|q| *q == 0)
        );
    }
}
