//! Every available kernel against the definition, bit for bit, on inputs that hurt.

use proptest::prelude::*;

use super::available;
use crate::panels::{self, Panels, k_padded};
use crate::quantize::{Int8Rows, n_groups};
use crate::{AlignedBytes, Compute, Store, linear};

const SCALAR: &str = "scalar-qd8qc8w-1x8";

/// One product with everything it needs, in plain layouts.
#[derive(Clone, Debug)]
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

/// Deterministic noise.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }

    /// A byte that is an end of the range every other time: saturation bugs live there.
    fn byte(&mut self, low: i8) -> i8 {
        match self.next() % 4 {
            0 => low,
            1 => 127,
            _ => ((self.next() % 256) as u8 as i8).max(low),
        }
    }

    fn unit(&mut self) -> f32 {
        (self.next() % 20_001) as f32 / 10_000.0 - 1.0
    }
}

/// What fills the operands.
#[derive(Clone, Copy, Debug)]
enum Fill {
    Noise,
    /// Every activation, every weight.
    Constant(i8, i8),
    /// Signs alternate along k: partial sums swing between the ends.
    Alternating,
}

fn case(m: usize, n: usize, k: usize, group: usize, fill: Fill, seed: u64) -> Case {
    let mut noise = Noise(seed);
    let width = k_padded(k);
    let mut lhs = vec![0; m * width];
    let mut weights = vec![0; n * k];
    for row in lhs.chunks_mut(width.max(1)) {
        for (i, v) in row[..k].iter_mut().enumerate() {
            *v = match fill {
                Fill::Noise => noise.byte(-128),
                Fill::Constant(x, _) => x,
                Fill::Alternating => [-128, 127][i % 2],
            };
        }
    }
    for row in weights.chunks_mut(k.max(1)) {
        for (i, v) in row.iter_mut().enumerate() {
            *v = match fill {
                Fill::Noise => noise.byte(-127),
                Fill::Constant(_, w) => w,
                Fill::Alternating => [127, -127][i % 2],
            };
        }
    }
    let lhs_scales = (0..m * n_groups(k, group))
        .map(|_| noise.unit().abs() * 0.01)
        .collect();
    let scales: Vec<f32> = (0..n).map(|_| noise.unit().abs() * 0.01).collect();
    let bias: Vec<f32> = (0..n).map(|_| noise.unit()).collect();
    let mut packed = AlignedBytes::zeroed(panels::byte_len(n, k));
    panels::pack_int8_rows_into(&weights, &scales, Some(&bias), 0, k, &mut packed);
    let before = (0..m * n).map(|_| noise.unit()).collect();
    Case {
        m,
        n,
        k,
        group,
        lhs,
        lhs_scales,
        rhs: packed,
        before,
    }
}

impl Case {
    fn rhs(&self) -> Panels<'_> {
        Panels::new(&self.rhs, self.n, self.k).unwrap()
    }

    fn lhs(&self) -> Int8Rows<'_> {
        Int8Rows::new(&self.lhs, &self.lhs_scales, self.m, self.k, self.group).unwrap()
    }

    fn run(&self, compute: &Compute, store: Store) -> Vec<u32> {
        let mut out = match store {
            Store::Overwrite => vec![f32::NAN; self.m * self.n],
            Store::Add => self.before.clone(),
        };
        linear(compute, self.lhs(), self.rhs(), &mut out, store);
        out.into_iter().map(f32::to_bits).collect()
    }

    /// The formula of [`crate::int8_gemm`], written from scratch over unpacked weights.
    fn by_hand(&self, store: Store) -> Vec<u32> {
        let rhs = self.rhs().unpack();
        let groups = n_groups(self.k, self.group);
        let len = if self.group == 0 { self.k } else { self.group };
        let mut out = Vec::new();
        for i in 0..self.m {
            for r in 0..self.n {
                let mut total = 0.0_f32;
                for g in 0..groups {
                    let acc: i64 = (g * len..(g + 1) * len)
                        .map(|c| {
                            i64::from(self.lhs[i * k_padded(self.k) + c])
                                * i64::from(rhs.weights[r * self.k + c])
                        })
                        .sum();
                    let acc = i32::try_from(acc).unwrap();
                    total = (acc as f32).mul_add(self.lhs_scales[i * groups + g], total);
                }
                let value = total.mul_add(rhs.scales[r], rhs.biases[r]);
                let value = if store == Store::Add {
                    self.before[i * self.n + r] + value
                } else {
                    value
                };
                out.push(value.to_bits());
            }
        }
        out
    }

    fn describe(&self, name: &str) -> String {
        format!(
            "{name}: [{}, {}] x [{}, {}] group {}",
            self.m, self.k, self.n, self.k, self.group
        )
    }

    /// Every available kernel gives the bits of the definition.
    fn check(&self, computes: &[Compute]) {
        for store in [Store::Overwrite, Store::Add] {
            let want = self.by_hand(store);
            for compute in computes {
                let got = self.run(compute, store);
                assert!(
                    got == want,
                    "{} {store:?}: {}",
                    self.describe(compute.kernel_name()),
                    first_difference(&got, &want)
                );
            }
        }
    }
}

fn first_difference(got: &[u32], want: &[u32]) -> String {
    match got.iter().zip(want).position(|(g, w)| g != w) {
        Some(i) => format!(
            "at {i} {} instead of {}",
            f32::from_bits(got[i]),
            f32::from_bits(want[i])
        ),
        None => "lengths differ".to_owned(),
    }
}

fn computes(n_threads: usize) -> Vec<Compute> {
    available()
        .map(|kernels| Compute::with_kernel(n_threads, kernels.gemm.name()).unwrap())
        .collect()
}

#[test]
fn every_available_kernel_matches_the_definition_around_its_tile() {
    let computes = computes(1);
    for compute in &computes {
        let (mr, nr) = (compute.gemm().mr(), compute.gemm().nr());
        for m in (1..=mr + 1).chain([2 * mr - 1, 2 * mr, 2 * mr + 1]) {
            for n in [1, 7, 8, 9, nr - 1, nr, nr + 1, nr + 9, 2 * nr] {
                for group in [0, 16] {
                    case(m, n, 48, group, Fill::Noise, (m * 100 + n) as u64)
                        .check(std::slice::from_ref(compute));
                }
            }
        }
    }
}

#[test]
fn odd_k_and_every_group_match_the_definition() {
    let computes = computes(1);
    for k in [0, 1, 3, 15, 16, 17, 31, 33, 64, 65, 80, 112, 576, 1536] {
        for m in [1, 5, 13] {
            case(m, 17, k, 0, Fill::Noise, k as u64).check(&computes);
        }
    }
    for (k, group) in [
        (16, 16),
        (64, 16),
        (96, 32),
        (96, 48),
        (192, 64),
        (240, 80),
        (576, 64),
        (1536, 64),
        (576, 576),
    ] {
        for m in [1, 4, 13] {
            case(m, 40, k, group, Fill::Noise, (k + group) as u64).check(&computes);
        }
    }
}

#[test]
fn the_ends_of_the_range_do_not_saturate() {
    let computes = computes(1);
    let ends = [-128, -127, 127]
        .into_iter()
        .flat_map(|x| [-127, 127].map(|w| Fill::Constant(x, w)));
    for fill in ends.chain([Fill::Alternating]) {
        for (k, group) in [(16, 0), (576, 0), (576, 64)] {
            for m in [1, 4, 5, 7] {
                case(m, 9, k, group, fill, 1).check(&computes);
            }
        }
    }
}

#[test]
fn the_longest_row_does_not_overflow() {
    let computes = computes(1);
    for fill in [
        Fill::Constant(-128, -127),
        Fill::Constant(-128, 127),
        Fill::Constant(127, 127),
    ] {
        for m in [1, 2] {
            case(m, 1, panels::MAX_K, 0, fill, 1).check(&computes);
        }
    }
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    let cases = [
        case(1, 200, 576, 0, Fill::Noise, 1),
        case(61, 200, 576, 64, Fill::Noise, 2),
    ];
    for case in cases {
        let want = case.run(&Compute::with_kernel(1, SCALAR).unwrap(), Store::Add);
        for n_threads in [1, 2, 3] {
            for compute in computes(n_threads) {
                assert_eq!(
                    case.run(&compute, Store::Add),
                    want,
                    "{n_threads} threads {}",
                    case.describe(compute.kernel_name())
                );
            }
        }
    }
}

#[test]
fn the_loop_in_registers_counts_its_products() {
    for kernels in available() {
        let once = kernels.gemm.run_in_registers(1);
        assert!(once > 0 && kernels.gemm.run_in_registers(0) == 0);
        assert_eq!(kernels.gemm.run_in_registers(1000), 1000 * once);
    }
}

#[test]
fn names_follow_the_convention_and_are_unique() {
    let names: Vec<_> = available()
        .map(|k| (k.gemm.name(), k.gemv.name(), k.gemm.mr(), k.gemm.nr()))
        .collect();
    for (i, (gemm, gemv, mr, nr)) in names.iter().enumerate() {
        assert!(
            gemm.ends_with(&format!("-{mr}x{nr}")) && gemm.contains("-qd8qc8w-") || *gemm == SCALAR,
            "{gemm}"
        );
        assert!(gemv.contains("-1x8"), "{gemv}");
        assert!(mr * nr <= super::MAX_TILE && nr % 8 == 0, "{gemm}");
        assert!(
            names[i + 1..].iter().all(|other| other.0 != *gemm),
            "{gemm} twice"
        );
    }
    assert_eq!(names.last().unwrap().0, SCALAR);
}

#[test]
#[should_panic(expected = "lhs and rhs must agree on k")]
fn shapes_that_do_not_fit_panic() {
    let (a, b) = (
        case(2, 8, 16, 0, Fill::Noise, 1),
        case(2, 8, 32, 0, Fill::Noise, 1),
    );
    linear(
        &computes(1)[0],
        a.lhs(),
        b.rhs(),
        &mut [0.0; 16],
        Store::Overwrite,
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_shapes_match_the_definition(
        m in 1_usize..40, n in 1_usize..80, groups in 1_usize..6, group in 0_usize..6, rest in 0_usize..16, seed: u64,
    ) {
        let k = if group == 0 { groups * 16 + rest } else { groups * group * 16 };
        case(m, n, k, group * 16, Fill::Noise, seed).check(&computes(1));
    }
}

#[test]
fn packed_tokens_have_the_sums_of_their_groups() {
    for kernels in available().filter(|kernels| kernels.gemm.uses_lhs_sums()) {
        let (kernel, mut noise) = (kernels.gemm, Noise(5));
        for rows in 1..=kernel.mr() {
            for (k, len) in [(16, 16), (64, 64), (192, 48), (768, 768)] {
                let tokens: Vec<i8> = (0..rows * k).map(|_| noise.byte(-128)).collect();
                let mut packed = vec![0; kernel.lhs_bytes(rows, k)];
                kernel.pack_lhs(&tokens, k, &mut packed);
                let mut sums = vec![i32::MAX; k / len * rows];
                kernel.sum_lhs(&packed, rows, len, &mut sums);
                for (place, sum) in sums.iter().enumerate() {
                    let (group, row) = (place / rows, place % rows);
                    let values = &tokens[row * k + group * len..][..len];
                    let want: i32 = values.iter().map(|&v| i32::from(v)).sum();
                    assert_eq!(*sum, want, "{rows} x {k}, groups of {len}, at {place}");
                }
            }
        }
    }
}
