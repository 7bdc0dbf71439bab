//! The scale of 32 int4 values whose rounding errors are fed back ([`int4_scale_under_feedback`]).

use crate::half::{f16_bits_to_f32, f32_to_f16_bits};
use crate::int4_panels::BLOCK;
use crate::lanes::{FloatTier, Lanes, MAX_LANES, tiered};

/// Least and greatest int4 value.
const LEAST: f32 = -8.0;
const GREATEST: f32 = 7.0;
/// Scales tried, half of them negative: the largest magnitude falls on 5.5 to 9.25 steps.
const CANDIDATES: usize = 32;
const FIRST_STEPS: f32 = 5.5;
const STEP: f32 = 0.25;

/// 32 neighbouring weights of a row that are rounded one after the other: value `c` becomes the
/// multiple of the scale next to `wanted[c] + Σ_{j<c} (weights[j] − rounded[j])·shares[j][c]`, and
/// what it misses that by costs its square times `costs[c]`.
#[derive(Clone, Copy, Debug)]
pub struct FedBlock<'a> {
    /// The weights with what the values before the block have left to make good.
    pub wanted: &'a [f32; BLOCK],
    /// The weights alone.
    pub weights: &'a [f32; BLOCK],
    /// Row `j` begins at `j * stride`; only what lies right of the diagonal counts.
    pub shares: &'a [f32],
    /// Distance of the rows of `shares`.
    pub stride: usize,
    /// What a missed square costs; not negative.
    pub costs: &'a [f32; BLOCK],
}

/// The f16 bits of the scale that costs the least when all values of the block are rounded in turn.
///
/// 16 scales of either sign are tried, each fitted by least squares to the values it rounds to and
/// tried again; 0 where none is better than zeros. Equal bits on every CPU.
///
/// # Panics
///
/// Panics if `shares` has fewer than 32 rows.
pub fn int4_scale_under_feedback(tier: FloatTier, block: &FedBlock<'_>) -> u16 {
    assert!(
        block.shares.len() >= (BLOCK - 1) * block.stride + BLOCK,
        "shares must have {BLOCK} rows, {} apart",
        block.stride
    );
    // What is wanted of each value before its scale is known, had nothing been rounded.
    let mut target = block.wanted.map(|wanted| match wanted.is_nan() {
        true => 0.0,
        false => wanted.clamp(-f32::MAX, f32::MAX),
    });
    let absmax = target.iter().fold(0f32, |max, value| max.max(value.abs()));
    for (c, weight) in block.weights.iter().enumerate() {
        let shares = &block.shares[c * block.stride..][..BLOCK];
        for (target, share) in target[c + 1..].iter_mut().zip(&shares[c + 1..]) {
            *target += weight * share;
        }
    }
    let mut scales: [f32; CANDIDATES] = std::array::from_fn(|i| {
        let sign = if i.is_multiple_of(2) { 1.0 } else { -1.0 };
        sign * absmax / (FIRST_STEPS + STEP * (i / 2) as f32)
    });
    let mut trials = Trials::default();
    // SAFETY: shares was measured above.
    unsafe { try_all(tier, block, &target, &scales, &mut trials) };
    let bits: [u16; CANDIDATES] =
        std::array::from_fn(|i| f32_to_f16_bits(trials.products[i] / trials.squares[i]));
    scales = bits.map(f16_bits_to_f32);
    // SAFETY: as above.
    unsafe { try_all(tier, block, &target, &scales, &mut trials) };
    let costs = block.costs.iter().zip(&target);
    let mut least: f32 = costs.map(|(cost, target)| cost * target * target).sum();
    let mut best = 0;
    for (i, scale) in scales.iter().enumerate() {
        if *scale != 0.0 && scale.is_finite() && trials.costs[i] < least {
            (least, best) = (trials.costs[i], bits[i]);
        }
    }
    best
}

/// What each scale costs, and the sums that fit it: with `b` the values and what they feed back,
/// a block misses `target − scale · b`.
struct Trials {
    costs: [f32; CANDIDATES],
    products: [f32; CANDIDATES],
    squares: [f32; CANDIDATES],
}

impl Default for Trials {
    fn default() -> Trials {
        Trials {
            costs: [0.0; CANDIDATES],
            products: [0.0; CANDIDATES],
            squares: [0.0; CANDIDATES],
        }
    }
}

tiered! {
    unsafe fn try_all(
        block: &FedBlock<'_>,
        target: &[f32; BLOCK],
        scales: &[f32; CANDIDATES],
        trials: &mut Trials,
    ) = try_all_on
}

/// # Safety
///
/// * The CPU has the instructions of `L`.
/// * `block.shares` has 32 rows.
#[inline(always)]
unsafe fn try_all_on<L: Lanes>(
    block: &FedBlock<'_>,
    target: &[f32; BLOCK],
    scales: &[f32; CANDIDATES],
    trials: &mut Trials,
) {
    const { assert!(CANDIDATES.is_multiple_of(MAX_LANES)) };
    // SAFETY: candidates come in whole vectors, rows of shares were promised.
    unsafe {
        for first in (0..CANDIDATES).step_by(L::N) {
            let scale = L::load(scales.as_ptr().add(first));
            let inverse = L::splat(1.0).div(scale);
            // What the values so far feed back to each of the block, in steps.
            let mut fed = [L::splat(0.0); BLOCK];
            let zero = L::splat(0.0);
            let (mut costs, mut products, mut squares) = (zero, zero, zero);
            for c in 0..BLOCK {
                let wanted = L::splat(target[c]);
                let steps = wanted.mul(inverse).sub(fed[c]);
                let value = steps.max(L::splat(LEAST)).min(L::splat(GREATEST)).round();
                let made = value.add(fed[c]);
                let missed = wanted.sub(scale.mul(made));
                let cost = L::splat(block.costs[c]);
                costs = costs.add(cost.mul(missed.mul(missed)));
                let weighed = cost.mul(made);
                products = products.add(weighed.mul(wanted));
                squares = squares.add(weighed.mul(made));
                let shares = block.shares.as_ptr().add(c * block.stride);
                for (j, fed) in fed.iter_mut().enumerate().skip(c + 1) {
                    *fed = fed.add(value.mul(L::splat(*shares.add(j))));
                }
            }
            costs.store(trials.costs.as_mut_ptr().add(first));
            products.store(trials.products.as_mut_ptr().add(first));
            squares.store(trials.squares.as_mut_ptr().add(first));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::int4_groups::quantize_int4_groups;

    /// Values between -1 and 1.
    struct Noise(u32);

    impl Noise {
        fn next(&mut self) -> f32 {
            self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (self.0 >> 8) as f32 / (1 << 23) as f32 - 1.0
        }

        fn values<const N: usize>(&mut self) -> [f32; N] {
            std::array::from_fn(|_| self.next())
        }
    }

    /// What the definition of [`FedBlock`] says that a scale costs.
    fn cost_of(block: &FedBlock<'_>, scale: f32) -> f32 {
        let mut wanted = *block.wanted;
        let mut cost = 0.0;
        for c in 0..BLOCK {
            let steps = if scale == 0.0 { 0.0 } else { wanted[c] / scale };
            let rounded = steps.round_ties_even().clamp(LEAST, GREATEST) * scale;
            cost += block.costs[c] * (wanted[c] - rounded).powi(2);
            for (j, wanted) in wanted.iter_mut().enumerate().skip(c + 1) {
                *wanted += (block.weights[c] - rounded) * block.shares[c * block.stride + j];
            }
        }
        cost
    }

    #[test]
    fn the_scale_costs_less_than_the_one_found_without_feedback() {
        let mut noise = Noise(7);
        let (mut fed, mut plain) = (0.0, 0.0);
        for _ in 0..200 {
            let weights: [f32; BLOCK] = noise.values();
            let left: [f32; BLOCK] = noise.values();
            let wanted = std::array::from_fn(|i| weights[i] + 0.1 * left[i]);
            let shares: Vec<f32> = (0..40 * BLOCK).map(|_| 0.4 * noise.next()).collect();
            let costs = noise.values::<BLOCK>().map(|v| 1.5 + v);
            let block = FedBlock {
                wanted: &wanted,
                weights: &weights,
                shares: &shares,
                stride: 40,
                costs: &costs,
            };
            let bits = int4_scale_under_feedback(FloatTier::SCALAR, &block);
            let groups = quantize_int4_groups(&wanted, BLOCK);
            fed += cost_of(&block, f16_bits_to_f32(bits));
            plain += cost_of(&block, f16_bits_to_f32(groups.scales()[0]));
            for tier in FloatTier::available() {
                assert_eq!(int4_scale_under_feedback(tier, &block), bits, "{tier:?}");
            }
        }
        assert!(fed < 0.8 * plain, "{fed} against {plain}");
    }

    #[test]
    fn without_shares_it_is_next_to_the_best_scale_for_rounding_to_nearest() {
        let mut noise = Noise(9);
        for _ in 0..50 {
            let weights: [f32; BLOCK] = noise.values();
            let block = FedBlock {
                wanted: &weights,
                weights: &weights,
                shares: &[0.0; BLOCK * BLOCK],
                stride: BLOCK,
                costs: &[1.0; BLOCK],
            };
            let bits = int4_scale_under_feedback(FloatTier::SCALAR, &block);
            let groups = quantize_int4_groups(&weights, BLOCK);
            let nearest = cost_of(&block, f16_bits_to_f32(groups.scales()[0]));
            let found = cost_of(&block, f16_bits_to_f32(bits));
            assert!(found <= 1.001 * nearest, "{found} against {nearest}");
        }
    }

    #[test]
    fn zeros_nan_and_infinities_have_a_finite_scale() {
        for wanted in [0.0, f32::NAN, f32::INFINITY, f32::MAX, f32::MIN_POSITIVE] {
            let block = FedBlock {
                wanted: &[wanted; BLOCK],
                weights: &[wanted; BLOCK],
                shares: &[0.5; BLOCK * BLOCK],
                stride: BLOCK,
                costs: &[1.0; BLOCK],
            };
            for tier in FloatTier::available() {
                let bits = int4_scale_under_feedback(tier, &block);
                assert!(f16_bits_to_f32(bits).is_finite(), "{wanted} {tier:?}");
            }
        }
    }
}
