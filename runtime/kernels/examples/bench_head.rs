//! Prints what the largest of a decoder head's products costs, on every available kernel: int8
//! panels in full, both planes in full, and the high plane with what it needs of the low one.
//!
//! ```text
//! cargo run --release -p ocelli-kernels --example bench_head [-- ROUNDS]
//! ```
//!
//! One thread, 49280 × 576, the shape of SmolVLM-256M. The three take turns; printed are medians of
//! milliseconds, and how many panels of the low plane were read.

use ocelli_kernels::nibble_panels::{nibble_byte_len, split_panels};
use ocelli_kernels::panels::{byte_len, pack_int8_rows_into};
use ocelli_kernels::{
    AlignedBytes, Compute, Int8Rows, NibblePanels, Panels, Store, int8_gemm, linear,
    linear_arg_max, linear_nibbles, linear_upper_bounds,
};
use std::time::Instant;

const ROWS: usize = 49_280;
const K: usize = 576;
const ROUNDS: usize = 51;

fn main() {
    let rounds = std::env::args()
        .nth(1)
        .map_or(ROUNDS, |a| a.parse().expect("ROUNDS is a number"));
    let mut state = 1_u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8 as i8
    };
    let token: Vec<i8> = (0..K).map(|_| noise()).collect();
    let weights: Vec<i8> = (0..ROWS * K).map(|_| noise().max(-127)).collect();
    let mut int8 = AlignedBytes::zeroed(byte_len(ROWS, K));
    pack_int8_rows_into(&weights, &vec![0.01; ROWS], None, 0, K, &mut int8);
    let int8 = Panels::new(&int8, ROWS, K).expect("packed for it");
    let (mut planes, mut low) = (Vec::new(), Vec::new());
    split_panels(int8, &mut planes, &mut low);
    planes.extend(low);
    assert_eq!(planes.len(), nibble_byte_len(ROWS, K));
    let planes = AlignedBytes::copy_of(&planes);
    let planes = NibblePanels::new(&planes, ROWS, K).expect("split for it");
    let lhs = Int8Rows::new(&token, &[0.01], 1, K, 0).expect("made for it");
    let mut out = vec![0.0; ROWS];
    for kernels in int8_gemm::available() {
        let compute = Compute::with_kernel(1, kernels.gemm.name()).expect("available");
        let mut times = [const { Vec::new() }; 3];
        let mut n_panels = 0;
        for _ in 0..rounds {
            let start = Instant::now();
            linear(&compute, lhs, int8, &mut out, Store::Overwrite);
            times[0].push(start.elapsed());
            let start = Instant::now();
            linear_nibbles(&compute, lhs, planes, &mut out, Store::Overwrite);
            times[1].push(start.elapsed());
            let start = Instant::now();
            linear_upper_bounds(&compute, lhs, planes, &mut out);
            let found = linear_arg_max(&compute, lhs, planes, &out, &|_, value| value);
            times[2].push(start.elapsed());
            n_panels = found.expect("numbers").n_panels;
        }
        let [int8, both, high] = times.map(|mut times| {
            times.sort();
            times[times.len() / 2].as_secs_f64() * 1e3
        });
        println!(
            "{:36} int8 {int8:7.3}  both planes {both:7.3}  largest {high:7.3} ms, {n_panels} of {} panels",
            compute.kernel_name(),
            ROWS / 8
        );
    }
}
