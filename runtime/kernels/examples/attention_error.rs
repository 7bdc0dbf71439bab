//! Prints how far the image features of a vision encoder of SmolVLM-256M's shape (random weights,
//! 12 layers, 1024 patches) move when its attention is computed in int8 instead of f32, and, as the
//! least that any change brings about, when the f32 attention gets its input rounded to f16 or
//! changed in the last bit.
//!
//! ```text
//! cargo run --release -p ocelli-kernels --example attention_error
//! ```

use ocelli_kernels::activation::gelu_tanh_quantize_rows;
use ocelli_kernels::attention::{vision_attention, vision_attention_int8};
use ocelli_kernels::norm::rms_norm_quantize_rows;
use ocelli_kernels::panels::{byte_len, pack_int8_rows_into};
use ocelli_kernels::quantize::quantize_rows;
use ocelli_kernels::{AlignedBytes, Compute, Int8RowsBuf, Panels, Store, linear, linear_blocks};

const PATCHES: usize = 1024;
const HIDDEN: usize = 768;
const INTERMEDIATE: usize = 3072;
const HEADS: usize = 12;
const LAYERS: usize = 12;
/// Patches of one image token, and values of its features.
const SHUFFLED: usize = 16;
const FEATURES: usize = 576;
/// Standard deviation of uniformly distributed bytes.
const BYTE_DEVIATION: f32 = 73.5;
const EPS: f32 = 1e-6;

type Attention = fn(&Compute, &[f32], usize, usize, usize, &mut [f32]);

struct Noise(u32);

impl Noise {
    fn byte(&mut self) -> i8 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((self.0 >> 24) as u8 as i8).max(-127)
    }

    /// A matrix `[n, k]` that keeps the variance of its input, the first rows times `factor`.
    fn matrix(&mut self, n: usize, k: usize, larger: usize, factor: f32) -> Matrix {
        let weights: Vec<i8> = (0..n * k).map(|_| self.byte()).collect();
        let scale = 1.0 / (BYTE_DEVIATION * (k as f32).sqrt());
        let mut scales = vec![scale; n];
        scales[..larger].fill(scale * factor);
        let mut packed = AlignedBytes::zeroed(byte_len(n, k));
        pack_int8_rows_into(&weights, &scales, None, 0, k, &mut packed);
        Matrix { packed, n, k }
    }
}

struct Matrix {
    packed: AlignedBytes,
    n: usize,
    k: usize,
}

impl Matrix {
    fn panels(&self) -> Panels<'_> {
        Panels::new(&self.packed, self.n, self.k).expect("packed for this shape")
    }
}

struct Layer {
    qkv: Matrix,
    out: Matrix,
    fc1: Matrix,
    fc2: Matrix,
}

/// Image features `[64, 576]` of one picture.
fn features(
    compute: &Compute,
    layers: &[Layer],
    connector: &Matrix,
    picture: &[f32],
    attend: Attention,
) -> Vec<f32> {
    let mut x = picture.to_vec();
    let mut rows = Int8RowsBuf::new();
    let mut qkv = vec![0.0; PATCHES * 3 * HIDDEN];
    let mut context = vec![0.0; PATCHES * HIDDEN];
    let mut wide = vec![0.0; PATCHES * INTERMEDIATE];
    for layer in layers {
        rms_norm_quantize_rows(compute, &x, None, EPS, rows.reshape(PATCHES, HIDDEN, 0));
        linear_blocks(
            compute,
            rows.rows(),
            layer.qkv.panels(),
            HIDDEN / HEADS,
            &mut qkv,
        );
        attend(compute, &qkv, PATCHES, HEADS, HIDDEN / HEADS, &mut context);
        quantize_rows(compute, &context, rows.reshape(PATCHES, HIDDEN, 0));
        linear(compute, rows.rows(), layer.out.panels(), &mut x, Store::Add);
        rms_norm_quantize_rows(compute, &x, None, EPS, rows.reshape(PATCHES, HIDDEN, 0));
        linear(
            compute,
            rows.rows(),
            layer.fc1.panels(),
            &mut wide,
            Store::Overwrite,
        );
        gelu_tanh_quantize_rows(compute, &wide, rows.reshape(PATCHES, INTERMEDIATE, 0));
        linear(compute, rows.rows(), layer.fc2.panels(), &mut x, Store::Add);
    }
    let (m, k) = (PATCHES / SHUFFLED, SHUFFLED * HIDDEN);
    rms_norm_quantize_rows(compute, &x, None, EPS, rows.reshape(m, k, 0));
    let mut out = vec![0.0; m * FEATURES];
    linear(
        compute,
        rows.rows(),
        connector.panels(),
        &mut out,
        Store::Overwrite,
    );
    out
}

/// Attention in f32 on changed values.
fn attention_of(
    compute: &Compute,
    qkv: &[f32],
    (n, heads, head_dim): (usize, usize, usize),
    out: &mut [f32],
    change: fn(f32) -> f32,
) {
    let changed: Vec<f32> = qkv.iter().map(|v| change(*v)).collect();
    vision_attention(compute, &changed, n, heads, head_dim, out);
}

fn rounded_to_f16(c: &Compute, qkv: &[f32], n: usize, heads: usize, dim: usize, out: &mut [f32]) {
    attention_of(c, qkv, (n, heads, dim), out, |v| {
        // To nearest even, 13 bits shorter; the values are normal numbers of f16.
        let bits = v.to_bits();
        f32::from_bits(bits.wrapping_add(0xfff + (bits >> 13 & 1)) & !0x1fff)
    });
}

fn one_bit_off(c: &Compute, qkv: &[f32], n: usize, heads: usize, dim: usize, out: &mut [f32]) {
    attention_of(c, qkv, (n, heads, dim), out, |v| v * (1.0 + f32::EPSILON));
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
        products.sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn main() {
    let compute = Compute::new(1).expect("the kernel named in the environment runs here");
    println!("{compute}");
    for factor in [1.0, std::f32::consts::SQRT_2, 2.0, 3.0] {
        let mut noise = Noise(1);
        let layers: Vec<Layer> = (0..LAYERS)
            .map(|_| Layer {
                qkv: noise.matrix(3 * HIDDEN, HIDDEN, 2 * HIDDEN, factor),
                out: noise.matrix(HIDDEN, HIDDEN, 0, 1.0),
                fc1: noise.matrix(INTERMEDIATE, HIDDEN, 0, 1.0),
                fc2: noise.matrix(HIDDEN, INTERMEDIATE, 0, 1.0),
            })
            .collect();
        let connector = noise.matrix(FEATURES, SHUFFLED * HIDDEN, 0, 1.0);
        let picture: Vec<f32> = (0..PATCHES * HIDDEN)
            .map(|_| f32::from(noise.byte()) / BYTE_DEVIATION)
            .collect();
        let run = |attend| features(&compute, &layers, &connector, &picture, attend);
        let want = run(vision_attention);
        let others: [(&str, Attention); 3] = [
            ("int8", vision_attention_int8),
            ("f32 of f16", rounded_to_f16),
            ("f32 off by a bit", one_bit_off),
        ];
        for (name, attend) in others {
            let got = run(attend);
            let rows = got.chunks_exact(FEATURES).zip(want.chunks_exact(FEATURES));
            let worst = rows.map(|(g, w)| cosine(g, w)).fold(1.0, f64::min);
            println!(
                "scores with deviation {:.0}, {name}: cosine of all image features {:.5}, of the worst row {worst:.5}",
                factor * factor,
                cosine(&got, &want),
            );
        }
    }
}
