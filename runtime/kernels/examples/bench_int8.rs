//! Prints the rate of every available int8 kernel on shapes of the model, after checking each
//! product against the scalar kernel.
//!
//! ```text
//! taskset -c 0 cargo run --release -p ocelli-kernels --example bench_int8 [-- THREADS]
//! ```

use std::time::{Duration, Instant};

use ocelli_kernels::isa::Isa;
use ocelli_kernels::panels::{byte_len, k_padded, pack_int8_rows_into};
use ocelli_kernels::quantize::n_groups;
use ocelli_kernels::{AlignedBytes, Compute, Int8Rows, Panels, Store, int8_gemm, linear};

/// tokens, output rows, k, activation group
const SHAPES: &[(usize, usize, usize, usize)] = &[
    (1024, 2304, 768, 0),
    (1024, 768, 3072, 0),
    (84, 1536, 576, 0),
    (84, 576, 1536, 0),
    (84, 576, 1536, 64),
    (1, 49280, 576, 0),
    (1, 576, 1536, 64),
];
const MEASURE: Duration = Duration::from_millis(400);
const CHECKED_TOKENS: usize = 13;

fn main() {
    let n_threads = std::env::args()
        .nth(1)
        .map_or(1, |a| a.parse().expect("THREADS is a number"));
    println!("cpu: {}; {n_threads} threads", Isa::probe());
    let scalar =
        Compute::with_kernel(n_threads, "scalar-qd8qc8w-1x8").expect("scalar runs everywhere");
    for &(m, n, k, group) in SHAPES {
        println!("{m} x {k} x {n}, group {group}");
        let mut state = 1_u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8 as i8
        };
        let lhs: Vec<i8> = (0..m * k_padded(k)).map(|_| noise()).collect();
        let lhs_scales = vec![0.01; m * n_groups(k, group)];
        let weights: Vec<i8> = (0..n * k).map(|_| noise().max(-127)).collect();
        let mut packed = AlignedBytes::zeroed(byte_len(n, k));
        pack_int8_rows_into(&weights, &vec![0.01; n], None, 0, k, &mut packed);
        let rhs = Panels::new(&packed, n, k).expect("packed for this shape");
        let lhs = Int8Rows::new(&lhs, &lhs_scales, m, k, group).expect("made for this shape");

        let checked = lhs.row_range(0, m.min(CHECKED_TOKENS));
        let mut want = vec![0.0; checked.m() * n];
        linear(&scalar, checked, rhs, &mut want, Store::Overwrite);
        for kernels in int8_gemm::available() {
            let compute = Compute::with_kernel(n_threads, kernels.gemm.name()).expect("available");
            let mut out = vec![0.0; m * n];
            linear(&compute, lhs, rhs, &mut out, Store::Overwrite);
            assert_eq!(out[..want.len()], want, "{}", compute.kernel_name());
            let name = if m == 1 {
                compute.gemv().name()
            } else {
                compute.kernel_name()
            };
            let (mut runs, start) = (0_u32, Instant::now());
            let mut best = f64::INFINITY;
            while runs < 3 || start.elapsed() < MEASURE {
                let begin = Instant::now();
                linear(&compute, lhs, rhs, &mut out, Store::Overwrite);
                best = best.min(begin.elapsed().as_secs_f64());
                runs += 1;
            }
            let macs = (m * n * k) as f64;
            let bytes = packed.len() as f64;
            println!(
                "  {name:34} {:8.1} GMAC/s  {:6.1} GB/s of weights  best of {runs}",
                macs / best / 1e9,
                bytes / best / 1e9
            );
        }
    }
}
