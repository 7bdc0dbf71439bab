use super::*;
use crate::activation::{gelu_tanh_quantize_rows, swiglu_quantize_rows};
use crate::int4_groups::Int4Groups;
use crate::int4_panels::{int4_byte_len, pack_int4_rows_into};
use crate::panels::{byte_len, k_padded, pack_int8_rows_into};
use crate::quantize::{Int8RowsBuf, n_groups};
use crate::{Activation, AlignedBytes, int8_gemm};

/// Tokens and weights of one product, deterministic noise.
struct Operands {
    m: usize,
    n: usize,
    k: usize,
    group: usize,
    lhs: Vec<i8>,
    lhs_scales: Vec<f32>,
    int8: AlignedBytes,
    int4: AlignedBytes,
}

impl Operands {
    fn new(m: usize, n: usize, k: usize, group: usize) -> Operands {
        let mut state = (m * 7919 + n * 31 + k) as u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8 as i8
        };
        let mut lhs = vec![0; m * k_padded(k)];
        for row in lhs.chunks_exact_mut(k_padded(k).max(1)) {
            row[..k].iter_mut().for_each(|v| *v = noise());
        }
        let weights: Vec<i8> = (0..n * k).map(|_| noise().max(-127)).collect();
        let scales: Vec<f32> = (0..n).map(|r| 1e-4 + r as f32 * 1e-6).collect();
        let bias: Vec<f32> = (0..n).map(|r| (r as f32 * 0.7).sin()).collect();
        let mut int8 = AlignedBytes::zeroed(byte_len(n, k));
        pack_int8_rows_into(&weights, &scales, Some(&bias), 0, k, &mut int8);
        let mut int4 = AlignedBytes::zeroed(0);
        if k.is_multiple_of(BLOCK) {
            let small = weights.iter().map(|w| w >> 4).collect();
            let groups = Int4Groups::new(small, vec![0x1800; n * k / BLOCK], k);
            int4 = AlignedBytes::zeroed(int4_byte_len(n, k));
            pack_int4_rows_into(&groups, Some(&bias), 0, &mut int4);
        }
        Operands {
            m,
            n,
            k,
            group,
            lhs,
            lhs_scales: vec![0.01; m * n_groups(k, group)],
            int8,
            int4,
        }
    }

    fn lhs(&self) -> Int8Rows<'_> {
        Int8Rows::new(&self.lhs, &self.lhs_scales, self.m, self.k, self.group).unwrap()
    }

    fn int8(&self) -> Panels<'_> {
        Panels::new(&self.int8, self.n, self.k).unwrap()
    }

    fn int4(&self) -> Int4Panels<'_> {
        Int4Panels::new(&self.int4, self.n, self.k).unwrap()
    }

    /// The plain product, row by row.
    fn product(&self, compute: &Compute, int4: bool) -> Vec<f32> {
        let mut out = vec![f32::NAN; self.m * self.n];
        if int4 {
            linear_int4(compute, self.lhs(), self.int4(), &mut out, Store::Overwrite);
        } else {
            linear(compute, self.lhs(), self.int8(), &mut out, Store::Overwrite);
        }
        out
    }
}

/// Every kernel with one thread and with three.
fn computes() -> impl Iterator<Item = Compute> {
    int8_gemm::available()
        .flat_map(|kernels| [1, 3].map(|n| Compute::with_kernel(n, kernels.gemm.name()).unwrap()))
}

/// Tokens around the tiles.
const TOKENS: [usize; 5] = [1, 2, 12, 13, 84];

#[test]
fn columns_in_blocks_are_the_columns_of_the_rows() {
    for compute in computes() {
        for m in TOKENS {
            for (n, k, block) in [
                (192, 64_usize, 64),
                (216, 32, 72),
                (96, 48, 24),
                (8, 16, 8),
                // Several blocks of strips.
                (16, 4096, 8),
            ] {
                for int4 in [false, true] {
                    if int4 && !k.is_multiple_of(BLOCK) {
                        continue;
                    }
                    let operands = Operands::new(m, n, k, 0);
                    let rows = operands.product(&compute, int4);
                    let mut got = vec![f32::NAN; m * n];
                    let lhs = operands.lhs();
                    if int4 {
                        linear_int4_blocks(&compute, lhs, operands.int4(), block, &mut got);
                    } else {
                        linear_blocks(&compute, lhs, operands.int8(), block, &mut got);
                    }
                    for (i, value) in got.iter().enumerate() {
                        let (b, token, column) = (i / (m * block), i / block % m, i % block);
                        let want = rows[token * n + b * block + column];
                        assert_eq!(
                            value.to_bits(),
                            want.to_bits(),
                            "{compute}: {m} x {k} x {n} in blocks of {block}, int4 {int4}, at {i}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn activated_products_are_those_of_the_two_steps() {
    for compute in computes() {
        for m in TOKENS {
            // Groups of the output, and whole rows, also such as end inside a panel or are padded.
            for (activation, n, k, group) in [
                (Activation::GeluTanh, 192, 64, 64),
                (Activation::GeluTanh, 192, 64, 32),
                (Activation::GeluTanh, 144, 64, 0),
                (Activation::GeluTanh, 84, 64, 0),
                (Activation::GeluTanh, 32, 4096, 16),
                (Activation::GeluTanh, 12, 0, 0),
                (Activation::SwiGlu, 256, 64, 64),
                (Activation::SwiGlu, 96, 32, 16),
                (Activation::SwiGlu, 208, 64, 0),
                (Activation::SwiGlu, 64, 4096, 32),
            ] {
                for int4 in [false, true] {
                    let operands = Operands::new(m, n, k, 0);
                    let rows = operands.product(&compute, int4);
                    let k = n / activation.columns();
                    let (mut want, mut got) = (Int8RowsBuf::new(), Int8RowsBuf::new());
                    match activation {
                        Activation::GeluTanh => {
                            gelu_tanh_quantize_rows(&compute, &rows, want.reshape(m, k, group));
                        }
                        Activation::SwiGlu => {
                            swiglu_quantize_rows(&compute, &rows, k, want.reshape(m, k, group));
                        }
                    }
                    // What an earlier use left behind.
                    got.reshape(m, k, group).data_mut().fill(99);
                    let out = got.reshape(m, k, group);
                    let lhs = operands.lhs();
                    if int4 {
                        linear_int4_activated(&compute, lhs, operands.int4(), activation, out);
                    } else {
                        linear_activated(&compute, lhs, operands.int8(), activation, out);
                    }
                    let what = format!("{compute}: {m} x {n}, {activation:?}, groups of {group}");
                    assert_eq!(got.rows().data(), want.rows().data(), "{what}");
                    let bits = |rows: Int8Rows<'_>| -> Vec<u32> {
                        rows.scales().iter().map(|s| s.to_bits()).collect()
                    };
                    assert_eq!(bits(got.rows()), bits(want.rows()), "{what}");
                }
            }
        }
    }
}

#[test]
#[should_panic(expected = "block must be a multiple of 8 that divides n")]
fn blocks_that_do_not_divide_the_columns_are_refused() {
    let operands = Operands::new(2, 64, 16, 0);
    let compute = Compute::new(1).unwrap();
    linear_blocks(
        &compute,
        operands.lhs(),
        operands.int8(),
        24,
        &mut [0.0; 128],
    );
}

#[test]
#[should_panic(expected = "out must be [m, n] as the activation leaves it")]
fn an_activation_that_halves_the_columns_wants_half_as_many() {
    let operands = Operands::new(2, 64, 16, 0);
    let compute = Compute::new(1).unwrap();
    let mut rows = Int8RowsBuf::new();
    let out = rows.reshape(2, 64, 0);
    linear_activated(
        &compute,
        operands.lhs(),
        operands.int8(),
        Activation::SwiGlu,
        out,
    );
}

#[test]
#[should_panic(expected = "gate and up must be whole panels of 8")]
fn half_a_panel_of_gates_is_refused() {
    let operands = Operands::new(2, 24, 16, 0);
    let compute = Compute::new(1).unwrap();
    let mut rows = Int8RowsBuf::new();
    let out = rows.reshape(2, 12, 0);
    linear_activated(
        &compute,
        operands.lhs(),
        operands.int8(),
        Activation::SwiGlu,
        out,
    );
}
