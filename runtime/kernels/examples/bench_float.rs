//! Prints the time of the float functions on shapes of the model, for every available tier.
//!
//! ```text
//! taskset -c 0 cargo run --release -p ocelli-kernels --example bench_float [-- THREADS]
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use ocelli_kernels::attention::{
    KvBlocks, decoder_attention, kv_layer_len, vision_attention, vision_attention_int8,
};
use ocelli_kernels::quantize::quantize_rows;
use ocelli_kernels::rope::RopeTable;
use ocelli_kernels::{Compute, Int8RowsBuf, activation, f32_gemm, int8_gemm, norm};

const MEASURE: Duration = Duration::from_millis(300);

/// Best time of a call, in milliseconds.
fn best_ms(mut f: impl FnMut()) -> f64 {
    f();
    let (mut best, mut runs, start) = (f64::INFINITY, 0, Instant::now());
    while runs < 3 || start.elapsed() < MEASURE {
        let begin = Instant::now();
        f();
        best = best.min(begin.elapsed().as_secs_f64() * 1e3);
        runs += 1;
    }
    best
}

fn wave(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * 0.37).sin()).collect()
}

fn main() {
    let n_threads = std::env::args()
        .nth(1)
        .map_or(1, |a| a.parse().expect("THREADS is a number"));
    let mut tiers = Vec::new();
    for kernels in int8_gemm::available() {
        if tiers.contains(&kernels.float_tier) {
            continue;
        }
        tiers.push(kernels.float_tier);
        let compute = Compute::with_kernel(n_threads, kernels.gemm.name()).expect("available");
        println!(
            "{} ({n_threads} threads), milliseconds",
            compute.float_tier().name()
        );
        let print = |what: &str, ms: f64| println!("  {what:44} {ms:10.4}");

        let (n, heads, head_dim) = (1024, 12, 64);
        let qkv = wave(n * 3 * heads * head_dim);
        let mut out = vec![0.0; n * heads * head_dim];
        print(
            "vision_attention 1024 patches, 12 x 64",
            best_ms(|| vision_attention(&compute, &qkv, n, heads, head_dim, &mut out)),
        );

        print(
            "vision_attention_int8 1024 patches, 12 x 64",
            best_ms(|| vision_attention_int8(&compute, &qkv, n, heads, head_dim, &mut out)),
        );

        let (block_len, n_kv_heads, context) = (64, 3, 1024);
        let block = Arc::new(vec![0x3800; kv_layer_len(block_len, n_kv_heads, head_dim)]);
        let blocks = vec![block; context / block_len];
        let kv = KvBlocks {
            blocks: &blocks,
            block_len,
            layer_offset: 0,
            n_kv_heads,
            head_dim,
            len: context,
        };
        for (m, first) in [(1, 199), (1, context - 1), (84, 0), (512, 512)] {
            let width = 9 * head_dim;
            let q = wave(m * width);
            let mut out = vec![0.0; m * width];
            print(
                &format!("decoder_attention {m} queries from {first}"),
                best_ms(|| decoder_attention(&compute, &q, width, m, 9, kv, first, &mut out)),
            );
        }

        let (m, k) = (1024, 768);
        let (x, wide) = (wave(m * k), wave(m * 4 * k));
        let mut rows = Int8RowsBuf::new();
        print(
            "quantize_rows 1024 x 768",
            best_ms(|| quantize_rows(&compute, &x, rows.reshape(m, k, 0))),
        );
        print(
            "rms_norm_quantize_rows 1024 x 768",
            best_ms(|| {
                norm::rms_norm_quantize_rows(&compute, &x, None, 1e-6, rows.reshape(m, k, 0))
            }),
        );
        print(
            "layer_norm_quantize_rows 1024 x 768",
            best_ms(|| {
                norm::layer_norm_quantize_rows(
                    &compute,
                    &x,
                    None,
                    None,
                    1e-6,
                    rows.reshape(m, k, 0),
                )
            }),
        );
        print(
            "gelu_tanh_quantize_rows 1024 x 3072",
            best_ms(|| {
                activation::gelu_tanh_quantize_rows(&compute, &wide, rows.reshape(m, 4 * k, 0))
            }),
        );
        print(
            "swiglu_quantize_rows 84 x 1536, group 64",
            best_ms(|| {
                activation::swiglu_quantize_rows(
                    &compute,
                    &wide[..84 * 3072],
                    1536,
                    rows.reshape(84, 1536, 64),
                );
            }),
        );
        let rope = RopeTable::new(head_dim, 100_000.0, 128);
        let mut q = wave(84 * 960);
        print(
            "rope 84 x 12 heads x 64",
            best_ms(|| rope.apply(&mut q, 960, 12, 0)),
        );
        let (m, n, k) = (84, 576, 576);
        let (x, w, mut out) = (wave(m * k), wave(n * k), vec![0.0; m * n]);
        print(
            "f32 matmul 84 x 576 x 576",
            best_ms(|| f32_gemm::matmul(&compute, &x, &w, None, m, n, k, &mut out)),
        );
    }
}
