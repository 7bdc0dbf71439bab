use super::*;
use crate::int8_gemm;
use crate::quantize::{Int8RowsBuf, quantize_rows};

/// Distance in units in the last place of `want` rounded to f32; infinite if one alone is NaN.
fn ulps(got: f32, want: f64) -> f64 {
    let rounded = want as f32;
    if got.is_nan() || rounded.is_nan() {
        return if got.is_nan() && rounded.is_nan() {
            0.0
        } else {
            f64::INFINITY
        };
    }
    if rounded.is_infinite() {
        return if got == rounded { 0.0 } else { f64::INFINITY };
    }
    let magnitude = rounded.abs().max(f32::MIN_POSITIVE);
    let ulp = f64::from(magnitude.next_up()) - f64::from(magnitude);
    (f64::from(got) - want).abs() / ulp
}

#[test]
fn the_distance_in_ulps_can_tell_right_from_wrong() {
    assert_eq!(ulps(1.0, 1.0), 0.0);
    assert_eq!(ulps(1.0_f32.next_up(), 1.0), 1.0);
    assert_eq!(ulps(1.0, 1.0 + 0.5 * f64::from(f32::EPSILON)), 0.5);
    assert!(
        ulps(1e-3, 0.0) > 1e30
            && ulps(f32::NAN, 1.0).is_infinite()
            && ulps(1.0, f64::NAN).is_infinite()
    );
    assert!(ulps(f32::MAX, f64::INFINITY).is_infinite() && ulps(-1.0, 1.0) > 1e6);
}

/// About `n` f32 between `low` and `high`, evenly spaced.
fn grid(low: f32, high: f32, n: usize) -> Vec<f32> {
    let step = (f64::from(high) - f64::from(low)) / n as f64;
    (0..=n)
        .map(|i| (f64::from(low) + i as f64 * step) as f32)
        .collect()
}

/// Values of all magnitudes up to `high`, both signs.
fn magnitudes(high: f32) -> Vec<f32> {
    (0..=high.to_bits())
        .step_by(10_007)
        .map(f32::from_bits)
        .flat_map(|v| [v, -v])
        .collect()
}

type Slice = fn(FloatTier, &[f32], &mut [f32]);

/// The worst value of `error(x, result)` over `inputs` and tiers, with where it is.
fn worst(function: Slice, inputs: &[f32], error: impl Fn(f32, f32) -> f64) -> (f64, String) {
    let mut worst = (0.0, String::new());
    let mut out = vec![0.0; inputs.len()];
    for tier in FloatTier::available() {
        function(tier, inputs, &mut out);
        for (x, got) in inputs.iter().zip(&out) {
            let error = error(*x, *got);
            if error > worst.0 {
                worst = (
                    error,
                    format!("{} at {x:e}: {got:e}, error {error}", tier.name()),
                );
            }
        }
    }
    worst
}

fn exp_error(x: f32, got: f32) -> f64 {
    ulps(got, f64::from(x).exp())
}

fn silu_error(x: f32, got: f32) -> f64 {
    let x = f64::from(x);
    ulps(got, x / (1.0 + (-x).exp()))
}

fn gelu_error(x: f32, got: f32) -> f64 {
    let want = f64::from(gelu_tanh(x));
    let size = want.abs().max(f64::from(x).abs() / 128.0);
    if size == 0.0 {
        f64::from(got).abs()
    } else {
        (f64::from(got) - want).abs() / size
    }
}

#[test]
fn exp_is_within_its_bound() {
    let inputs: Vec<f32> = grid(-87.3, 88.72, 200_000)
        .into_iter()
        .chain(magnitudes(80.0))
        .collect();
    let (error, place) = worst(exp_slice, &inputs, exp_error);
    eprintln!("exp: {place}");
    assert!(error <= f64::from(EXP_MAX_ULP), "{place}");
}

#[test]
fn silu_is_within_its_bound() {
    let inputs: Vec<f32> = grid(-80.0, 80.0, 200_000)
        .into_iter()
        .chain(magnitudes(80.0))
        .collect();
    let (error, place) = worst(silu_slice, &inputs, silu_error);
    eprintln!("silu: {place}");
    assert!(error <= f64::from(SILU_MAX_ULP), "{place}");
}

#[test]
fn gelu_is_within_its_bound() {
    let inputs: Vec<f32> = grid(-12.0, 12.0, 200_000)
        .into_iter()
        .chain(magnitudes(1e6))
        .collect();
    let (error, place) = worst(gelu_tanh_slice, &inputs, gelu_error);
    eprintln!("gelu: {place}");
    assert!(error <= GELU_MAX_RELATIVE_ERROR, "{place}");
}

#[test]
#[ignore = "every f32 in range: minutes"]
fn exp_and_silu_are_within_their_bounds_everywhere() {
    let all = |high: f32| {
        (0..=high.to_bits()).flat_map(|bits| [f32::from_bits(bits), -f32::from_bits(bits)])
    };
    let mut inputs = all(88.72).filter(|x| *x > -87.3).peekable();
    while inputs.peek().is_some() {
        let some: Vec<f32> = inputs.by_ref().take(1 << 20).collect();
        let (error, place) = worst(exp_slice, &some, exp_error);
        assert!(error <= f64::from(EXP_MAX_ULP), "exp {place}");
        let some: Vec<f32> = some.into_iter().filter(|x| x.abs() <= 80.0).collect();
        let (error, place) = worst(silu_slice, &some, silu_error);
        assert!(error <= f64::from(SILU_MAX_ULP), "silu {place}");
        let (error, place) = worst(gelu_tanh_slice, &some, gelu_error);
        assert!(error <= GELU_MAX_RELATIVE_ERROR, "gelu {place}");
    }
}

#[test]
fn the_ends_of_the_range_are_sane() {
    let x = [
        f32::NEG_INFINITY,
        -1e30,
        -200.0,
        -100.0,
        0.0,
        -0.0,
        89.0,
        1e30,
        f32::INFINITY,
        f32::NAN,
    ];
    let mut out = [0.0; 10];
    for tier in FloatTier::available() {
        exp_slice(tier, &x, &mut out);
        assert_eq!(out[..3], [0.0; 3], "{tier:?}");
        assert!(exp_error(-100.0, out[3]) <= 1.0, "{tier:?}: {:e}", out[3]);
        assert_eq!(
            out[4..9],
            [1.0, 1.0, f32::INFINITY, f32::INFINITY, f32::INFINITY],
            "{tier:?}"
        );
        assert!(out[9].is_nan(), "{tier:?}");
        for function in [silu_slice as Slice, gelu_tanh_slice] {
            function(tier, &x, &mut out);
            assert!(
                out[2].abs() < 1e-35 && out[4] == 0.0 && out[6] == 89.0 && out[7] == 1e30,
                "{tier:?} {out:?}"
            );
            assert!(out[9].is_nan());
        }
    }
    assert_eq!(exp(0.0), 1.0);
    assert_eq!(silu(0.0), 0.0);
    assert!((gelu_tanh(1.0) - 0.841_192).abs() < 1e-6 && (silu(1.0) - 0.731_058_6).abs() < 1e-6);
}

#[test]
fn fused_activations_give_the_bits_of_their_parts() {
    for kernels in int8_gemm::available() {
        for n_threads in [1, 3] {
            let compute = Compute::with_kernel(n_threads, kernels.gemm.name()).unwrap();
            for (m, k, group) in [(3, 5, 0), (1, 64, 16), (40, 96, 0), (7, 192, 64)] {
                let x: Vec<f32> = (0..m * k).map(|i| (i as f32 * 0.61).sin() * 4.0).collect();
                let mut active = vec![0.0; m * k];
                let (mut got, mut want) = (Int8RowsBuf::new(), Int8RowsBuf::new());
                gelu_tanh_slice(compute.float_tier(), &x, &mut active);
                quantize_rows(&compute, &active, want.reshape(m, k, group));
                gelu_tanh_quantize_rows(&compute, &x, got.reshape(m, k, group));
                assert_eq!(got.rows().data(), want.rows().data());
                assert_eq!(got.rows().scales(), want.rows().scales());
            }
        }
    }
}

#[test]
fn swiglu_takes_gate_and_up_from_alternating_panels() {
    for kernels in int8_gemm::available() {
        let compute = Compute::with_kernel(2, kernels.gemm.name()).unwrap();
        for (m, inter, group) in [(1, 8, 0), (2, 24, 0), (3, 64, 16), (2, 1536, 64)] {
            let gate: Vec<f32> = (0..m * inter)
                .map(|i| (i as f32 * 0.31).sin() * 6.0)
                .collect();
            let up: Vec<f32> = (0..m * inter)
                .map(|i| (i as f32 * 0.17).cos() * 2.0)
                .collect();
            let mut gate_up = Vec::new();
            for (gate, up) in gate.chunks(8).zip(up.chunks(8)) {
                gate_up.extend(gate);
                gate_up.extend(up);
            }
            let mut out = vec![0.0; m * inter];
            swiglu_rows(&compute, &gate_up, inter, &mut out);
            for ((gate, up), out) in gate.iter().zip(&up).zip(&out) {
                let want = f64::from(silu(*gate)) * f64::from(*up);
                assert!(
                    ulps(*out, want) <= f64::from(SILU_MAX_ULP) + 1.0,
                    "{}",
                    compute.kernel_name()
                );
            }
            let (mut got, mut want) = (Int8RowsBuf::new(), Int8RowsBuf::new());
            quantize_rows(&compute, &out, want.reshape(m, inter, group));
            swiglu_quantize_rows(&compute, &gate_up, inter, got.reshape(m, inter, group));
            assert_eq!(got.rows().data(), want.rows().data());
            assert_eq!(got.rows().scales(), want.rows().scales());
        }
    }
}
