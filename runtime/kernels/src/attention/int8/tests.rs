use super::super::tests::by_heads;
use super::super::vision_attention;
use super::terms::terms_for;
use super::weights::{EXP2_MAX_RELATIVE_ERROR, exp2_lanes};
use super::*;
use crate::int8_gemm;
use crate::lanes::{FloatTier, Lanes, MAX_LANES, tiered};

/// Normally distributed noise, by the sum of twelve uniform numbers.
fn normal(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut unit = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32
    };
    (0..len)
        .map(|_| (0..12).map(|_| unit()).sum::<f32>() - 6.0)
        .collect()
}

/// `qkv` `[n, 3, heads, head_dim]`
fn run(compute: &Compute, qkv: &[f32], shape: (usize, usize, usize)) -> Vec<f32> {
    let (n, heads, head_dim) = shape;
    let mut out = vec![f32::NAN; n * heads * head_dim];
    let qkv = by_heads(qkv, n, head_dim);
    vision_attention_int8(compute, &qkv, n, heads, head_dim, &mut out);
    out
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// Root mean square error over root mean square, and cosine, against the f32 attention.
fn error(got: &[f32], qkv: &[f32], (n, heads, head_dim): (usize, usize, usize)) -> (f64, f64) {
    let compute = Compute::new(1).unwrap();
    let mut want = vec![0.0; got.len()];
    let qkv = by_heads(qkv, n, head_dim);
    vision_attention(&compute, &qkv, n, heads, head_dim, &mut want);
    let sum = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
        let pairs = got.iter().zip(&want);
        pairs.map(|(g, w)| f(f64::from(*g), f64::from(*w))).sum()
    };
    let (gg, ww, gw) = (sum(&|g, _| g * g), sum(&|_, w| w * w), sum(&|g, w| g * w));
    (
        (sum(&|g, w| (g - w) * (g - w)) / ww).sqrt(),
        gw / (gg * ww).sqrt(),
    )
}

#[test]
fn every_kernel_and_number_of_threads_gives_the_same_bits() {
    let scalar = Compute::with_kernel(1, "scalar-qd8qc8w-1x8").unwrap();
    // Around the tile, the group, the block of keys; head sizes that are padded.
    for (n, heads, head_dim) in [
        (1, 1, 8),
        (11, 2, 16),
        (64, 1, 64),
        (65, 2, 72),
        (144, 3, 64),
        (257, 1, 24),
        (330, 2, 40),
    ] {
        let qkv = normal(n * 3 * heads * head_dim, n as u32);
        let want = bits(&run(&scalar, &qkv, (n, heads, head_dim)));
        for kernels in int8_gemm::available() {
            for n_threads in [1, 3] {
                let compute = Compute::with_kernel(n_threads, kernels.gemm.name()).unwrap();
                assert_eq!(
                    bits(&run(&compute, &qkv, (n, heads, head_dim))),
                    want,
                    "{} {n_threads} threads, {n} x {heads} x {head_dim}",
                    compute.kernel_name()
                );
            }
        }
    }
}

#[test]
fn the_error_against_f32_is_as_stated() {
    let compute = Compute::new(1).unwrap();
    // From a scale of 1.5 on, queries and keys have two terms.
    for (shape, scale, bound) in [
        ((1024, 2, 64), 1.0, 0.016),
        ((729, 1, 72), 1.0, 0.016),
        ((144, 3, 64), 1.5, 0.0125),
        ((1024, 2, 64), 2.0, 0.0125),
        ((200, 1, 24), 3.0, 0.0125),
    ] {
        let (n, heads, head_dim) = shape;
        let mut qkv = normal(n * 3 * heads * head_dim, 7);
        qkv.iter_mut().for_each(|v| *v *= scale);
        let (relative, cosine) = error(&run(&compute, &qkv, shape), &qkv, shape);
        eprintln!("{shape:?} times {scale}: relative error {relative:.5}, cosine {cosine:.6}");
        assert!(
            relative <= bound && cosine >= 1.0 - bound * bound,
            "{relative} {cosine}"
        );
    }
}

#[test]
fn wide_scores_take_two_terms_and_three_products() {
    assert_eq!(terms_for([1.0, 144.0]), 1);
    assert_eq!(terms_for([1.0, 144.1]), MAX_TERMS);
    assert_eq!(terms_for([f32::NAN, 0.0]), MAX_TERMS);
    let row = [-1.0, 0.5, 0.303, 0.0, 1.0 / 127.0, 0.9999];
    let width = 16;
    for (order, again, low) in [(Order::Query, 2, 1), (Order::Key, 1, 2)] {
        for tier in FloatTier::available() {
            let mut out = [9_i8; 3 * 16];
            // SAFETY: three parts of 16 values, the row is shorter.
            let scale = unsafe { quantize_terms(tier, &row, 2.0, order, width, &mut out) };
            let scales: Vec<f32> = term_scales(MAX_TERMS, scale).collect();
            assert_eq!((scales[0], scales[1]), (2.0 / 127.0, 2.0 / 127.0 / 254.0));
            for (i, x) in row.into_iter().enumerate() {
                assert_eq!(out[again * width + i], out[i], "{tier:?}");
                let low = f32::from(out[low * width + i]);
                let value = f32::from(out[i]) * scales[0] + low * scales[1];
                assert!((value - 2.0 * x).abs() <= scales[1] * 0.51, "{tier:?} {x}");
            }
            assert_eq!(out[6..16], [9; 10], "behind the row");
        }
    }
}

#[test]
fn offsets_of_keys_and_values_cost_no_accuracy() {
    let compute = Compute::new(1).unwrap();
    let shape @ (n, heads, head_dim) = (300, 2, 64);
    let mut qkv = normal(n * 3 * heads * head_dim, 3);
    let plain = error(&run(&compute, &qkv, shape), &qkv, shape).0;
    for row in qkv
        .chunks_exact_mut(heads * head_dim)
        .enumerate()
        .filter(|(i, _)| i % 3 == 1)
    {
        for (d, v) in row.1.iter_mut().enumerate() {
            *v += if d % 7 == 0 { 20.0 } else { -1.0 };
        }
    }
    let offset = error(&run(&compute, &qkv, shape), &qkv, shape).0;
    assert!(offset <= plain * 1.5, "{offset} instead of {plain}");
}

#[test]
fn one_key_far_above_the_others_takes_all_the_weight() {
    let compute = Compute::new(1).unwrap();
    let (n, head_dim) = (200, 16);
    let mut qkv = vec![0.0; n * 3 * head_dim];
    for (i, row) in qkv.chunks_exact_mut(3 * head_dim).enumerate() {
        row[0] = 100.0;
        row[head_dim] = if i == 131 { 100.0 } else { -100.0 };
        row[2 * head_dim..].fill(i as f32);
    }
    for value in run(&compute, &qkv, (n, 1, head_dim)) {
        assert!((value - 131.0).abs() <= 1.0, "{value}");
    }
}

#[test]
fn equal_keys_give_the_mean_value() {
    let compute = Compute::new(1).unwrap();
    let (n, head_dim) = (100, 8);
    let mut qkv = normal(n * 3 * head_dim, 9);
    for row in qkv.chunks_exact_mut(3 * head_dim) {
        row[head_dim..2 * head_dim].fill(3.0);
    }
    let out = run(&compute, &qkv, (n, 1, head_dim));
    for d in 0..head_dim {
        let values = qkv
            .chunks_exact(3 * head_dim)
            .map(|row| f64::from(row[2 * head_dim + d]));
        let mean = values.sum::<f64>() / n as f64;
        for row in out.chunks_exact(head_dim) {
            assert!((f64::from(row[d]) - mean).abs() < 5e-3, "{} {mean}", row[d]);
        }
    }
}

#[test]
fn values_that_are_not_numbers_do_no_harm_beyond_their_head() {
    let compute = Compute::new(1).unwrap();
    let shape @ (n, heads, head_dim) = (70, 2, 16);
    let mut qkv = normal(n * 3 * heads * head_dim, 5);
    let clean = run(&compute, &qkv, shape);
    qkv[heads * head_dim] = f32::NAN;
    qkv[5 * heads * head_dim + 1] = f32::INFINITY;
    qkv[6 * heads * head_dim + 1] = f32::NEG_INFINITY;
    let spoilt = run(&compute, &qkv, shape);
    for (row, clean) in spoilt
        .chunks_exact(heads * head_dim)
        .zip(clean.chunks_exact(heads * head_dim))
    {
        assert_eq!(row[head_dim..], clean[head_dim..]);
    }
}

tiered! {
    unsafe fn exp2_all(x: &[f32; MAX_LANES], out: &mut [f32; MAX_LANES]) = exp2_all_on
}

#[inline(always)]
unsafe fn exp2_all_on<L: Lanes>(x: &[f32; MAX_LANES], out: &mut [f32; MAX_LANES]) {
    for i in (0..MAX_LANES).step_by(L::N) {
        // SAFETY: both hold MAX_LANES values; the tier is available.
        unsafe {
            let coefficients = super::weights::coefficients::<L>(1.0);
            exp2_lanes(L::load(x.as_ptr().add(i)), coefficients).store(out.as_mut_ptr().add(i));
        }
    }
}

#[test]
fn powers_of_two_keep_their_bound() {
    for tier in FloatTier::available() {
        for step in 0..20_000 {
            let x: [f32; MAX_LANES] =
                std::array::from_fn(|i| -(step as f32 * 0.005 + i as f32 * 0.000_31));
            let mut out = [0.0; MAX_LANES];
            // SAFETY: nothing beyond the tier.
            unsafe { exp2_all(tier, &x, &mut out) };
            for (x, got) in x.iter().zip(out).filter(|(x, _)| **x >= -100.0) {
                let want = f64::from(*x).exp2();
                let error = (f64::from(got) - want).abs() / want;
                assert!(
                    error <= EXP2_MAX_RELATIVE_ERROR,
                    "{tier:?} 2^{x}: {error:e}"
                );
            }
        }
    }
}
