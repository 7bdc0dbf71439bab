use super::*;
use crate::nibble_panels::{nibble_byte_len, split_panels};
use crate::panels::{Panels, byte_len, pack_int8_rows_into};
use crate::{AlignedBytes, int8_gemm, linear};

/// Weights in both layouts and tokens, deterministic noise.
struct Operands {
    n: usize,
    k: usize,
    int8: AlignedBytes,
    planes: AlignedBytes,
    tokens: Vec<i8>,
    scales: Vec<f32>,
}

impl Operands {
    fn new(m: usize, n: usize, k: usize) -> Operands {
        let mut state = (m * 7919 + n * 31 + k) as u64;
        let mut noise = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 40) as u8 as i8
        };
        let tokens = (0..m * k).map(|_| noise()).collect();
        let weights: Vec<i8> = (0..n * k).map(|_| noise().max(-127)).collect();
        let scales: Vec<f32> = (0..n).map(|r| 1e-4 + (r % 7) as f32 * 1e-6).collect();
        Operands::of(&weights, &scales, tokens, k)
    }

    fn of(weights: &[i8], scales: &[f32], tokens: Vec<i8>, k: usize) -> Operands {
        let n = scales.len();
        let mut int8 = AlignedBytes::zeroed(byte_len(n, k));
        pack_int8_rows_into(weights, scales, None, 0, k, &mut int8);
        let (mut high, mut low) = (Vec::new(), Vec::new());
        split_panels(Panels::new(&int8, n, k).unwrap(), &mut high, &mut low);
        high.extend(low);
        assert_eq!(high.len(), nibble_byte_len(n, k));
        Operands {
            n,
            k,
            int8,
            planes: AlignedBytes::copy_of(&high),
            scales: vec![0.01; tokens.len() / k],
            tokens,
        }
    }

    fn lhs(&self) -> Int8Rows<'_> {
        let m = self.scales.len();
        Int8Rows::new(&self.tokens, &self.scales, m, self.k, 0).unwrap()
    }

    fn planes(&self) -> NibblePanels<'_> {
        NibblePanels::new(&self.planes, self.n, self.k).unwrap()
    }

    /// The products by int8 panels, `[m, n]`.
    fn expected(&self, compute: &Compute) -> Vec<f32> {
        let mut out = vec![0.0; self.scales.len() * self.n];
        let panels = Panels::new(&self.int8, self.n, self.k).unwrap();
        linear(compute, self.lhs(), panels, &mut out, Store::Overwrite);
        out
    }
}

fn computes() -> impl Iterator<Item = Compute> {
    let kernels = int8_gemm::available();
    kernels.flat_map(|k| [1, 3].map(|n| Compute::with_kernel(n, k.gemm.name()).unwrap()))
}

#[test]
fn planes_give_what_int8_panels_give_on_every_kernel() {
    for (m, n, k) in [
        (1, 8, 32),
        (1, 21, 96),
        (3, 300, 64),
        (1, 1000, 576),
        (2, 5, 32),
    ] {
        let operands = Operands::new(m, n, k);
        for compute in computes() {
            let expected = operands.expected(&compute);
            let mut out = vec![f32::NAN; m * n];
            linear_nibbles(
                &compute,
                operands.lhs(),
                operands.planes(),
                &mut out,
                Store::Overwrite,
            );
            assert_eq!(out, expected, "{compute} [{m}, {n}, {k}]");
            linear_nibbles(
                &compute,
                operands.lhs(),
                operands.planes(),
                &mut out,
                Store::Add,
            );
            let twice: Vec<f32> = expected.iter().map(|v| v + v).collect();
            assert_eq!(out, twice, "{compute} [{m}, {n}, {k}]");
        }
    }
}

#[test]
fn some_rows_alone_are_those_of_all() {
    let (n, k) = (301, 96);
    let operands = Operands::new(1, n, k);
    for compute in computes() {
        let expected = operands.expected(&compute);
        let mut out = vec![f32::NAN; n];
        let rows = [300, 7, 8, 9, 7, 0, 150];
        linear_nibbles_of(
            &compute,
            operands.lhs(),
            operands.planes(),
            rows.into_iter(),
            &mut out,
        );
        for row in rows {
            assert_eq!(out[row], expected[row], "{compute} {row}");
        }
        assert!(out[100].is_nan());
    }
}

/// The largest product, by its definition.
fn arg_max(values: &[f32]) -> (usize, f32) {
    let mut best = (0, f32::NEG_INFINITY);
    for (row, value) in values.iter().enumerate() {
        if *value > best.1 {
            best = (row, *value);
        }
    }
    best
}

fn find(
    compute: &Compute,
    operands: &Operands,
    value_of: &dyn Fn(usize, f32) -> f32,
) -> Option<ArgMax> {
    let mut bounds = vec![f32::NAN; operands.n];
    linear_upper_bounds(compute, operands.lhs(), operands.planes(), &mut bounds);
    let changed: Vec<f32> = (0..)
        .zip(&bounds)
        .map(|(row, b)| value_of(row, *b))
        .collect();
    linear_arg_max(
        compute,
        operands.lhs(),
        operands.planes(),
        &changed,
        value_of,
    )
}

#[test]
fn the_largest_product_is_found_by_reading_few_low_halves() {
    for (n, k) in [(7, 32), (300, 96), (5000, 576), (2003, 960)] {
        let operands = Operands::new(1, n, k);
        for compute in computes() {
            let (row, value) = arg_max(&operands.expected(&compute));
            let found = find(&compute, &operands, &|_, value| value).unwrap();
            assert_eq!(
                (found.row, found.value),
                (row, value),
                "{compute} [{n}, {k}]"
            );
            if n > 2000 {
                assert!(
                    found.n_panels * 10 < n / 8,
                    "{} of {}",
                    found.n_panels,
                    n / 8
                );
            }
        }
    }
}

#[test]
fn every_bound_holds() {
    for (n, k) in [(300, 32), (2000, 96), (3000, 576)] {
        let operands = Operands::new(1, n, k);
        for compute in computes() {
            let expected = operands.expected(&compute);
            let mut bounds = vec![f32::NAN; n];
            linear_upper_bounds(&compute, operands.lhs(), operands.planes(), &mut bounds);
            let below = (0..n).find(|row| bounds[*row] < expected[*row]);
            assert_eq!(below, None, "{compute} [{n}, {k}]");
        }
    }
}

/// Low halves that all pull one way, where nothing is left to chance: a row of 16 · h + 15 where x
/// is positive and 16 · h where it is negative.
#[test]
fn a_token_as_short_as_its_bound_cannot_hide_a_row() {
    let k = 96;
    let token: Vec<i8> = (0..k)
        .map(|i| if i % 3 == 0 { 100 } else { -100 })
        .collect();
    let mut weights = vec![16_i8; 64 * k];
    for (weight, x) in weights[40 * k..41 * k].iter_mut().zip(&token) {
        *weight = if *x > 0 { 15 } else { 0 };
    }
    let operands = Operands::of(&weights, &[1e-3; 64], token, k);
    for compute in computes() {
        let (row, value) = arg_max(&operands.expected(&compute));
        assert_eq!(row, 40);
        let found = find(&compute, &operands, &|_, value| value).unwrap();
        assert_eq!((found.row, found.value), (row, value), "{compute}");
    }
}

#[test]
fn values_may_be_changed_and_the_first_of_equals_wins() {
    let mut operands = Operands::new(1, 500, 64);
    let compute = Compute::new(1).unwrap();
    let plain = operands.expected(&compute);
    let (best, _) = arg_max(&plain);
    let banned = |row: usize, value: f32| match row == best {
        true => f32::NEG_INFINITY,
        false => value,
    };
    let values: Vec<f32> = (0..).zip(&plain).map(|(row, v)| banned(row, *v)).collect();
    let found = find(&compute, &operands, &banned).unwrap();
    assert_eq!((found.row, found.value), arg_max(&values));

    // The same product in every row.
    operands = Operands::of(&[3; 64 * 64], &[0.5; 64], vec![5; 64], 64);
    let found = find(&compute, &operands, &|_, value| value).unwrap();
    assert_eq!((found.row, found.n_panels), (0, 8));
    let last_only = |row: usize, value: f32| if row < 63 { f32::NAN } else { value };
    assert_eq!(find(&compute, &operands, &last_only).unwrap().row, 63);
    assert_eq!(find(&compute, &operands, &|_, _| f32::NAN), None);
}

/// The second of two equal products has the higher bound, so it is looked at first.
#[test]
fn the_first_of_equals_wins_whatever_its_bound() {
    let k = 64;
    let mut weights = vec![0_i8; 64 * k];
    weights[..k].fill(16);
    for (col, weight) in weights[40 * k..41 * k].iter_mut().enumerate() {
        *weight = if col % 2 == 0 { 31 } else { 1 };
    }
    let operands = Operands::of(&weights, &[0.5; 64], vec![5; 64], k);
    for compute in computes() {
        let mut bounds = vec![0.0; 64];
        linear_upper_bounds(&compute, operands.lhs(), operands.planes(), &mut bounds);
        assert!(bounds[40] > bounds[0], "{compute}");
        let found = find(&compute, &operands, &|_, value| value).unwrap();
        assert_eq!((found.row, found.n_panels), (0, 2), "{compute}");
    }
}
