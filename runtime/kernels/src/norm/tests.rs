use super::*;
use crate::int8_gemm;
use crate::quantize::{Int8RowsBuf, quantize_rows};

fn computes(n_threads: usize) -> impl Iterator<Item = Compute> {
    int8_gemm::available()
        .map(move |kernels| Compute::with_kernel(n_threads, kernels.gemm.name()).unwrap())
}

fn wave(len: usize, step: f32) -> Vec<f32> {
    (0..len)
        .map(|i| (i as f32 * step).sin() * (1.0 + (i % 7) as f32) + 0.3)
        .collect()
}

const SHAPES: [(usize, usize); 6] = [(1, 1), (3, 5), (2, 16), (5, 63), (4, 576), (33, 768)];
const EPS: f32 = 1e-5;

/// Largest error of a norm of values whose largest result is `size`, for sums of `k` terms.
fn bound(k: usize, size: f64) -> f64 {
    f64::from(f32::EPSILON) * (4.0 + (k as f64).sqrt()) * size
}

fn assert_close(got: &[f32], want: &[f64], k: usize, what: &str) {
    let size = want.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
    for (got, want) in got.iter().zip(want) {
        let error = (f64::from(*got) - want).abs();
        assert!(error <= bound(k, size), "{what}: {got} instead of {want}");
    }
}

#[test]
fn the_bound_rejects_a_wrong_result() {
    let wrong = std::panic::catch_unwind(|| assert_close(&[1.00002], &[1.0], 576, "judge"));
    assert!(wrong.is_err());
}

#[test]
fn rms_norm_matches_f64() {
    for compute in computes(2) {
        for (m, k) in SHAPES {
            let (x, w) = (wave(m * k, 0.37), wave(k, 1.1));
            for weight in [None, Some(w.as_slice())] {
                let mut out = vec![f32::NAN; m * k];
                rms_norm_rows(&compute, &x, k, EPS, weight, &mut out);
                for (x, out) in x.chunks(k).zip(out.chunks(k)) {
                    let squares: f64 = x.iter().map(|v| f64::from(*v).powi(2)).sum();
                    let factor = 1.0 / (squares / k as f64 + f64::from(EPS)).sqrt();
                    let want: Vec<f64> = (0..k)
                        .map(|i| f64::from(x[i]) * factor * weight.map_or(1.0, |w| f64::from(w[i])))
                        .collect();
                    assert_close(out, &want, k, compute.kernel_name());
                }
            }
        }
    }
}

#[test]
fn layer_norm_matches_f64() {
    for compute in computes(2) {
        for (m, k) in SHAPES {
            let (x, w, b) = (wave(m * k, 0.37), wave(k, 1.1), wave(k, 0.2));
            for (weight, bias) in [
                (None, None),
                (Some(&w), None),
                (None, Some(&b)),
                (Some(&w), Some(&b)),
            ] {
                let (weight, bias) = (weight.map(Vec::as_slice), bias.map(Vec::as_slice));
                let mut out = vec![f32::NAN; m * k];
                layer_norm_rows(&compute, &x, k, weight, bias, EPS, &mut out);
                for (x, out) in x.chunks(k).zip(out.chunks(k)) {
                    let mean = x.iter().map(|v| f64::from(*v)).sum::<f64>() / k as f64;
                    let variance = x
                        .iter()
                        .map(|v| (f64::from(*v) - mean).powi(2))
                        .sum::<f64>()
                        / k as f64;
                    let factor = 1.0 / (variance + f64::from(EPS)).sqrt();
                    let want: Vec<f64> = (0..k)
                        .map(|i| {
                            let normal = (f64::from(x[i]) - mean) * factor;
                            normal * weight.map_or(1.0, |w| f64::from(w[i]))
                                + bias.map_or(0.0, |b| f64::from(b[i]))
                        })
                        .collect();
                    assert_close(out, &want, k, compute.kernel_name());
                }
            }
        }
    }
}

#[test]
fn fused_norms_give_the_bits_of_norm_then_quantise() {
    for compute in computes(1) {
        for (m, k, group) in [(3, 5, 0), (2, 64, 16), (30, 576, 0), (4, 576, 64)] {
            let (x, w, b) = (wave(m * k, 0.37), wave(k, 1.1), wave(k, 0.2));
            let (mut normal, mut want, mut got) =
                (vec![0.0; m * k], Int8RowsBuf::new(), Int8RowsBuf::new());

            for weight in [None, Some(w.as_slice())] {
                rms_norm_rows(&compute, &x, k, EPS, weight, &mut normal);
                quantize_rows(&compute, &normal, want.reshape(m, k, group));
                rms_norm_quantize_rows(&compute, &x, weight, EPS, got.reshape(m, k, group));
                let (got, want) = (got.rows(), want.rows());
                assert_eq!(got.data(), want.data(), "{}", compute.kernel_name());
                assert_eq!(got.scales(), want.scales(), "{}", compute.kernel_name());
            }

            layer_norm_rows(&compute, &x, k, Some(&w), Some(&b), EPS, &mut normal);
            quantize_rows(&compute, &normal, want.reshape(m, k, group));
            layer_norm_quantize_rows(
                &compute,
                &x,
                Some(&w),
                Some(&b),
                EPS,
                got.reshape(m, k, group),
            );
            assert_eq!(
                got.rows().data(),
                want.rows().data(),
                "{}",
                compute.kernel_name()
            );
            assert_eq!(
                got.rows().scales(),
                want.rows().scales(),
                "{}",
                compute.kernel_name()
            );
        }
    }
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    let (m, k) = (133, 576);
    let x = wave(m * k, 0.37);
    for (one, three) in computes(1).zip(computes(3)) {
        let (mut a, mut b) = (vec![0.0; m * k], vec![1.0; m * k]);
        rms_norm_rows(&one, &x, k, EPS, None, &mut a);
        rms_norm_rows(&three, &x, k, EPS, None, &mut b);
        assert_eq!(a, b);
    }
}
