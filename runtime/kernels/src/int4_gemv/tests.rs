//! Every available kernel with int4 weights, one token and several, against the formula, bit for bit.

use proptest::prelude::*;

use crate::half::f32_to_f16_bits;
use crate::int4_groups::Int4Groups;
use crate::int4_panels::{BLOCK, Int4Panels, int4_byte_len, pack_int4_rows_into};
use crate::quantize::{Int8Rows, n_groups};
use crate::{AlignedBytes, Compute, Store, int8_gemm, linear_int4};

/// One product with everything it needs, in plain layouts.
struct Case {
    m: usize,
    n: usize,
    k: usize,
    group: usize,
    lhs: Vec<i8>,
    lhs_scales: Vec<f32>,
    rhs: AlignedBytes,
    before: Vec<f32>,
}

/// Every activation and every weight, or noise that likes the ends of the range.
#[derive(Clone, Copy, Debug)]
enum Fill {
    Noise,
    Constant(i8, i8),
}

fn case(m: usize, n: usize, k: usize, group: usize, fill: Fill, seed: u64) -> Case {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    };
    let mut value = |least: i32, greatest: i32| match next() % 4 {
        0 => least as i8,
        1 => greatest as i8,
        _ => (least + (next() % (greatest - least + 1) as u32) as i32) as i8,
    };
    let (lhs, weights): (Vec<i8>, Vec<i8>) = match fill {
        Fill::Noise => (
            (0..m * k).map(|_| value(-128, 127)).collect(),
            (0..n * k).map(|_| value(-8, 7)).collect(),
        ),
        Fill::Constant(x, w) => (vec![x; m * k], vec![w; n * k]),
    };
    let mut unit = || (next() % 20_001) as f32 / 10_000.0 - 1.0;
    let scales = (0..n * k / BLOCK)
        .map(|_| f32_to_f16_bits(unit() * 0.1))
        .collect();
    let bias: Vec<f32> = (0..n).map(|_| unit()).collect();
    let mut rhs = AlignedBytes::zeroed(int4_byte_len(n, k));
    pack_int4_rows_into(
        &Int4Groups::new(weights, scales, k),
        Some(&bias),
        0,
        &mut rhs,
    );
    Case {
        lhs_scales: (0..m * n_groups(k, group))
            .map(|_| unit().abs() * 0.01)
            .collect(),
        before: (0..m * n).map(|_| unit()).collect(),
        m,
        n,
        k,
        group,
        lhs,
        rhs,
    }
}

impl Case {
    fn run(&self, compute: &Compute, store: Store) -> Vec<u32> {
        let mut out = match store {
            Store::Overwrite => vec![f32::NAN; self.m * self.n],
            Store::Add => self.before.clone(),
        };
        let lhs = Int8Rows::new(&self.lhs, &self.lhs_scales, self.m, self.k, self.group).unwrap();
        let rhs = Int4Panels::new(&self.rhs, self.n, self.k).unwrap();
        linear_int4(compute, lhs, rhs, &mut out, store);
        out.into_iter().map(f32::to_bits).collect()
    }

    /// The formula of [`crate::int4_gemv`], written from scratch over single weights.
    fn by_hand(&self, store: Store) -> Vec<u32> {
        let rhs = Int4Panels::new(&self.rhs, self.n, self.k).unwrap();
        let groups = n_groups(self.k, self.group);
        let blocks = self.k / BLOCK / groups;
        let mut out = Vec::new();
        for i in 0..self.m {
            for r in 0..self.n {
                let mut total = 0.0_f32;
                for g in 0..groups {
                    let mut sum = 0.0_f32;
                    for b in g * blocks..(g + 1) * blocks {
                        let acc: i32 = (b * BLOCK..(b + 1) * BLOCK)
                            .map(|c| {
                                i32::from(self.lhs[i * self.k + c]) * i32::from(rhs.weight(r, c))
                            })
                            .sum();
                        sum = (acc as f32).mul_add(rhs.scale(r, b), sum);
                    }
                    total = sum.mul_add(self.lhs_scales[i * groups + g], total);
                }
                let value = total + rhs.bias(r);
                let before = self.before[i * self.n + r];
                out.push(match store {
                    Store::Overwrite => value.to_bits(),
                    Store::Add => (before + value).to_bits(),
                });
            }
        }
        out
    }

    fn check(&self, computes: &[Compute]) {
        for store in [Store::Overwrite, Store::Add] {
            let want = self.by_hand(store);
            for compute in computes {
                let got = self.run(compute, store);
                let different = got.iter().zip(&want).position(|(got, want)| got != want);
                assert!(
                    different.is_none() && got.len() == want.len(),
                    "{} {store:?} [{}, {}] x [{}, {}] group {} at {different:?}",
                    compute.kernel_name(),
                    self.m,
                    self.k,
                    self.n,
                    self.k,
                    self.group
                );
            }
        }
    }
}

fn computes(n_threads: usize) -> Vec<Compute> {
    int8_gemm::available()
        .map(|kernels| Compute::with_kernel(n_threads, kernels.gemm.name()).unwrap())
        .collect()
}

#[test]
fn every_kernel_matches_the_definition_around_its_tile() {
    for compute in computes(1) {
        let (mr, nr) = (compute.gemm().mr(), compute.gemm().nr());
        for m in (1..=mr + 1).chain([2 * mr + 1]) {
            for n in [1, 8, 9, nr - 1, nr, nr + 9] {
                for group in [0, 32, 64] {
                    let seed = (m * 100 + n + group) as u64;
                    case(m, n, 192, group, Fill::Noise, seed).check(std::slice::from_ref(&compute));
                }
            }
        }
    }
}

#[test]
fn every_width_and_group_matches_the_definition() {
    let computes = computes(1);
    for (k, group) in [
        (0, 0),
        (32, 0),
        (64, 32),
        (96, 96),
        (576, 0),
        (576, 64),
        (1536, 64),
    ] {
        for m in [1, 3, 13] {
            case(m, 17, k, group, Fill::Noise, k as u64).check(&computes);
        }
    }
}

#[test]
fn the_ends_of_the_range_do_not_saturate() {
    let computes = computes(1);
    for x in [-128, -127, 127] {
        for w in [-8, 7] {
            for m in [1, 5, 7] {
                case(m, 9, 64, 0, Fill::Constant(x, w), 1).check(&computes);
            }
        }
    }
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    for case in [
        case(1, 300, 576, 0, Fill::Noise, 1),
        case(61, 200, 576, 64, Fill::Noise, 2),
    ] {
        let want = case.by_hand(Store::Add);
        for n_threads in [2, 3] {
            for compute in computes(n_threads) {
                assert!(
                    case.run(&compute, Store::Add) == want,
                    "{}",
                    compute.kernel_name()
                );
            }
        }
    }
}

#[test]
fn names_follow_the_convention() {
    for kernels in int8_gemm::available() {
        let name = kernels.int4_gemv.name();
        assert_eq!(name, kernels.gemv.name().replace("qc8w", "qc4w"));
    }
}

#[test]
#[should_panic(expected = "whole blocks of 32")]
fn groups_that_cut_a_block_panic() {
    case(2, 8, 96, 48, Fill::Noise, 1).run(&computes(1)[0], Store::Overwrite);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn random_shapes_match_the_definition(
        m in 1_usize..30, n in 1_usize..70, groups in 1_usize..4, group in 0_usize..4, seed: u64,
    ) {
        let k = groups * group.max(1) * BLOCK;
        case(m, n, k, group * BLOCK, Fill::Noise, seed).check(&computes(1));
    }
}
