//! Prints the rate of every available integer kernel on shapes of SmolVLM-256M, and the share of what
//! the same instructions reach in registers alone.
//!
//! ```text
//! cargo run --release -p ocelli-kernels --example bench_int8 [-- ROUNDS]
//! ```
//!
//! One thread. In each round every kernel runs every shape once, in turns, so that a disturbance
//! falls on all of them; printed are the median over the rounds and the quartiles. Times are those
//! the thread spent on a processor, so that waiting for one does not count.

use ocelli_kernels::int4_groups::Int4Groups;
use ocelli_kernels::int4_panels::{BLOCK, int4_byte_len, pack_int4_rows_into};
use ocelli_kernels::isa::Isa;
use ocelli_kernels::panels::{byte_len, k_padded, pack_int8_rows_into};
use ocelli_kernels::quantize::n_groups;
use ocelli_kernels::{
    AlignedBytes, Compute, Int4Panels, Int8Rows, Panels, Store, int8_gemm, linear, linear_int4,
};

/// What a shape is for, tokens, output rows, k, activation group.
const SHAPES: &[(&str, usize, usize, usize, usize)] = &[
    ("vision qkv", 1024, 2304, 768, 0),
    ("vision out", 1024, 768, 768, 0),
    ("vision fc1", 1024, 3072, 768, 0),
    ("vision fc2", 1024, 768, 3072, 0),
    ("prefill qkv", 84, 960, 576, 0),
    ("prefill gate|up", 84, 3072, 576, 0),
    ("prefill down", 84, 576, 1536, 64),
    ("5 tokens gate|up", 5, 3072, 576, 0),
    ("13 tokens gate|up", 13, 3072, 576, 0),
    ("decode gate|up", 1, 3072, 576, 0),
    ("decode down", 1, 576, 1536, 64),
    ("decode head", 1, 49280, 576, 0),
];
const ROUNDS: usize = 9;
/// Products of one timed run at least.
const LEAST_PRODUCTS: usize = 200_000_000;

/// Seconds this thread has spent on a processor.
fn thread_seconds() -> f64 {
    #[repr(C)]
    struct Timespec {
        seconds: i64,
        nanoseconds: i64,
    }
    unsafe extern "C" {
        fn clock_gettime(clock: i32, time: *mut Timespec) -> i32;
    }
    const CLOCK_THREAD_CPUTIME_ID: i32 = 3;
    let mut time = Timespec {
        seconds: 0,
        nanoseconds: 0,
    };
    // SAFETY: the C library that `std` links on Linux fills one `timespec`.
    let status = unsafe { clock_gettime(CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(status, 0, "Linux has a clock for each thread");
    time.seconds as f64 + time.nanoseconds as f64 * 1e-9
}

/// Products a second of one call of `f`, which does `products` of them.
fn rate(products: usize, mut f: impl FnMut()) -> f64 {
    let calls = LEAST_PRODUCTS.div_ceil(products);
    f();
    let start = thread_seconds();
    (0..calls).for_each(|_| f());
    (calls * products) as f64 / (thread_seconds() - start)
}

/// Quartiles and median.
fn quartiles(rates: &mut [f64]) -> [f64; 3] {
    rates.sort_by(f64::total_cmp);
    [1, 2, 3].map(|q| rates[(rates.len() - 1) * q / 4])
}

/// Operands of one shape, for int8 and int4 weights.
struct Operands {
    lhs: Vec<i8>,
    lhs_scales: Vec<f32>,
    int8: AlignedBytes,
    int4: AlignedBytes,
    out: Vec<f32>,
}

impl Operands {
    fn new(m: usize, n: usize, k: usize, group: usize) -> Operands {
        let mut state = 1_u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8 as i8
        };
        let lhs = (0..m * k_padded(k)).map(|_| noise()).collect();
        let weights: Vec<i8> = (0..n * k).map(|_| noise().max(-127)).collect();
        let mut int8 = AlignedBytes::zeroed(byte_len(n, k));
        pack_int8_rows_into(&weights, &vec![0.01; n], None, 0, k, &mut int8);
        let small = weights.iter().map(|w| w >> 4).collect();
        let groups = Int4Groups::new(small, vec![0x2000; n * k / BLOCK], k);
        let mut int4 = AlignedBytes::zeroed(int4_byte_len(n, k));
        pack_int4_rows_into(&groups, None, 0, &mut int4);
        Operands {
            lhs,
            lhs_scales: vec![0.01; m * n_groups(k, group)],
            int8,
            int4,
            out: vec![0.0; m * n],
        }
    }
}

fn main() {
    let rounds = std::env::args()
        .nth(1)
        .map_or(ROUNDS, |a| a.parse().expect("ROUNDS is a number"));
    let computes: Vec<Compute> = int8_gemm::available()
        .filter(|kernels| kernels.gemm.mr() > 1)
        .map(|kernels| Compute::with_kernel(1, kernels.gemm.name()).expect("available"))
        .collect();
    println!("cpu: {}; 1 thread, {rounds} rounds", Isa::probe());
    let mut peaks = vec![Vec::new(); computes.len()];
    for _ in 0..rounds {
        for (compute, peaks) in computes.iter().zip(&mut peaks) {
            let once = compute.gemm().run_in_registers(1) as usize;
            let turns = LEAST_PRODUCTS / once;
            peaks.push(rate(once * turns, || {
                compute.gemm().run_in_registers(turns as u64);
            }));
        }
    }
    let peaks: Vec<f64> = peaks.iter_mut().map(|p| quartiles(p)[1]).collect();
    for (compute, peak) in computes.iter().zip(&peaks) {
        println!(
            "{:36} {:7.1} G products/s in registers",
            compute.kernel_name(),
            peak / 1e9
        );
    }
    for &(what, m, n, k, group) in SHAPES {
        println!("{what}: {m} x {k} x {n}, group {group}");
        let mut operands = Operands::new(m, n, k, group);
        let mut rates = vec![[Vec::new(), Vec::new()]; computes.len()];
        for _ in 0..rounds {
            for (compute, rates) in computes.iter().zip(&mut rates) {
                let Operands {
                    lhs,
                    lhs_scales,
                    int8,
                    int4,
                    out,
                } = &mut operands;
                let lhs = Int8Rows::new(lhs, lhs_scales, m, k, group).expect("made for it");
                let rhs = Panels::new(int8, n, k).expect("packed for this shape");
                rates[0].push(rate(m * n * k, || {
                    linear(compute, lhs, rhs, out, Store::Overwrite);
                }));
                let rhs = Int4Panels::new(int4, n, k).expect("packed for this shape");
                rates[1].push(rate(m * n * k, || {
                    linear_int4(compute, lhs, rhs, out, Store::Overwrite);
                }));
            }
        }
        for ((compute, peak), rates) in computes.iter().zip(&peaks).zip(&mut rates) {
            let bytes = [operands.int8.len(), operands.int4.len()];
            for ((weights, rates), bytes) in ["int8", "int4"].into_iter().zip(rates).zip(bytes) {
                let [low, median, high] = quartiles(rates);
                println!(
                    "  {:34} {weights} {:7.1} G/s ({:.1} to {:.1}), {:3.0} % of registers, {:5.1} GB/s of weights",
                    compute.kernel_name(),
                    median / 1e9,
                    low / 1e9,
                    high / 1e9,
                    100.0 * median / peak,
                    median / (m * n * k) as f64 * bytes as f64 / 1e9,
                );
            }
        }
    }
}
