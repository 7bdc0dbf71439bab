use super::*;
use crate::int8_gemm;
use crate::panels::MAX_K;

/// The definition of [`quantize_rows`], one row, written from scratch.
fn by_hand(x: &[f32], group: usize) -> (Vec<i8>, Vec<f32>) {
    let len = if group == 0 { x.len().max(1) } else { group };
    let (mut values, mut scales) = (Vec::new(), Vec::new());
    for group in x.chunks(len) {
        let numbers = group.iter().filter(|v| !v.is_nan());
        let absmax = numbers.map(|v| v.abs()).fold(0.0, f32::max).min(f32::MAX);
        let zero = absmax < ABSMAX_MIN;
        scales.push(if zero { 0.0 } else { absmax / 127.0 });
        for v in group {
            let scaled = v * (127.0 / absmax);
            values.push(if zero || v.is_nan() {
                0
            } else {
                scaled.clamp(-127.0, 127.0).round_ties_even() as i8
            });
        }
    }
    if x.is_empty() {
        scales.push(0.0);
    }
    values.resize(k_padded(x.len()), 0);
    (values, scales)
}

pub(crate) fn computes() -> impl Iterator<Item = Compute> {
    int8_gemm::available().map(|kernels| Compute::with_kernel(2, kernels.gemm.name()).unwrap())
}

fn noise(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

#[test]
fn every_tier_gives_the_bits_of_the_definition() {
    for compute in computes() {
        for (m, k, group) in [
            (1, 1, 0),
            (3, 15, 0),
            (2, 17, 0),
            (5, 64, 16),
            (4, 192, 64),
            (70, 576, 0),
            (9, 96, 48),
        ] {
            let x = noise(m * k, (m * k) as u32);
            let mut out = Int8RowsBuf::new();
            let mut used = out.reshape(m, k, group);
            used.data_mut().fill(99);
            quantize_rows(&compute, &x, used);
            let (values, scales): (Vec<_>, Vec<_>) =
                x.chunks(k).map(|row| by_hand(row, group)).unzip();
            assert_eq!(
                out.rows().data(),
                values.concat(),
                "{} [{m}, {k}] {group}",
                compute.kernel_name()
            );
            assert_eq!(out.rows().scales(), scales.concat());
        }
    }
}

#[test]
fn zeros_nan_infinities_and_tiny_rows_are_defined() {
    let rows: [[f32; 5]; 7] = [
        [0.0; 5],
        [f32::NAN; 5],
        [f32::NAN, 1.0, -1.0, 0.5, 0.0],
        [f32::INFINITY, 1.0, f32::NEG_INFINITY, f32::NAN, 0.0],
        [1e-31, 0.0, -1e-40, 0.0, 0.0],
        [f32::MAX, -f32::MAX, 1.0, f32::MAX / 2.0, 0.0],
        [1e-29, -1e-29, 5e-30, 1e-31, 0.0],
    ];
    let values = [
        [0; 5],
        [0; 5],
        [0, 127, -127, 64, 0],
        [127, 0, -127, 0, 0],
        [0; 5],
        [127, -127, 0, 64, 0],
        [127, -127, 64, 1, 0],
    ];
    for compute in computes() {
        let mut out = Int8RowsBuf::new();
        quantize_rows(&compute, rows.as_flattened(), out.reshape(rows.len(), 5, 0));
        for (i, want) in values.iter().enumerate() {
            let got = &out.rows().data()[i * 16..][..16];
            assert_eq!(got[..5], want[..], "{} row {i}", compute.kernel_name());
            assert!(got[5..].iter().all(|v| *v == 0));
            assert!(out.rows().scales()[i].is_finite());
        }
        assert_eq!(out.rows().scales()[..2], [0.0, 0.0]);
        assert_eq!(out.rows().scales()[4], 0.0);
    }
}

#[test]
fn dequantised_values_are_within_half_a_step() {
    let compute = computes().next().unwrap();
    let (m, k, group) = (7, 128, 32);
    let x = noise(m * k, 5);
    let mut out = Int8RowsBuf::new();
    quantize_rows(&compute, &x, out.reshape(m, k, group));
    let mut back = vec![0.0; m * k];
    out.rows().dequantize(&mut back);
    for (i, (a, b)) in x.iter().zip(&back).enumerate() {
        assert!((a - b).abs() <= out.rows().scales()[i / group] * 0.5001);
    }
    let middle = out.rows().row_range(2, 3);
    assert_eq!(
        (middle.m(), middle.data().len(), middle.scales().len()),
        (3, 3 * k, 12)
    );
}

#[test]
fn rows_of_the_wrong_shape_are_refused() {
    let (data, scales) = ([0; 64], [0.0; 4]);
    assert!(Int8Rows::new(&data, &scales, 4, 10, 0).is_ok());
    assert!(Int8Rows::new(&data, &scales, 2, 32, 16).is_ok());
    assert_eq!(
        Int8Rows::new(&data, &scales, 2, 32, 8).unwrap_err(),
        RowsError::Group { group: 8, k: 32 }
    );
    assert_eq!(
        Int8Rows::new(&data, &scales, 2, 24, 16).unwrap_err(),
        RowsError::Group { group: 16, k: 24 }
    );
    assert_eq!(
        Int8Rows::new(&data, &scales, 3, 16, 0).unwrap_err(),
        RowsError::Data {
            got: 64,
            expected: 48
        }
    );
    assert_eq!(
        Int8Rows::new(&data, &scales, 2, 32, 0).unwrap_err(),
        RowsError::Scales {
            got: 4,
            expected: 2
        }
    );
    assert!(matches!(
        Int8Rows::new(&data, &scales, 0, MAX_K + 1, 0),
        Err(RowsError::TooWide { .. })
    ));
}
