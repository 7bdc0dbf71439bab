//! Runs one kernel on a shape of SmolVLM-256M between two marks, on one thread.
//!
//! ```text
//! ocelli-armcost-probe          prints NAME and multiply-accumulates of each kernel
//! ocelli-armcost-probe NAME     prints the kernel chosen on this CPU, runs; phase 1 is the run
//! ```
//!
//! Tokens are fewer than a tile has where that changes nothing but the length of the run.

#![forbid(unsafe_code)]

use ocelli_kernels::attention::{KvBlocks, decoder_attention, kv_layer_len, vision_attention_int8};
use ocelli_kernels::int4_groups::quantize_int4_groups;
use ocelli_kernels::int4_panels::{int4_byte_len, pack_int4_rows_into};
use ocelli_kernels::limits::mark;
use ocelli_kernels::nibble_panels::split_panels;
use ocelli_kernels::panels::{byte_len, k_padded, pack_int8_rows_into};
use ocelli_kernels::quantize::n_groups;
use ocelli_kernels::rope::RopeTable;
use ocelli_kernels::{
    AlignedBytes, Compute, Int4Panels, Int8Rows, Int8RowsBuf, NibblePanels, Panels, Store,
    activation, linear, linear_arg_max, linear_int4, linear_upper_bounds, norm,
};
use std::process::ExitCode;
use std::sync::Arc;

/// Tokens of a vision kernel: whole tiles of every kernel, but for that of five tokens.
const PATCHES: usize = 192;
/// Tokens of a prefill.
const PROMPT: usize = 84;
/// Position of a decode step.
const POSITION: usize = 116;
/// Head size of both towers.
const HEAD_DIM: usize = 64;

#[derive(Clone, Copy)]
enum Kind {
    /// int8 rows times panels: tokens, output rows, k, activations that share a scale.
    Linear(usize, usize, usize, usize),
    /// The same with int4 panels.
    Int4Linear(usize, usize, usize, usize),
    /// The largest of the products of one token in two planes: output rows, k.
    Largest(usize, usize),
    /// One head over all patches of a tile: what queries and keys are multiplied with.
    VisionAttention(f32),
    /// Queries, position of the first.
    DecoderAttention(usize, usize),
    NormQuantize(usize, usize),
    GeluQuantize(usize, usize),
    SwigluQuantize(usize, usize),
    Rope(usize),
}

const KERNELS: &[(&str, Kind)] = &[
    ("vision.qkv", Kind::Linear(PATCHES, 2304, 768, 0)),
    ("vision.out", Kind::Linear(PATCHES, 768, 768, 64)),
    ("vision.fc1", Kind::Linear(PATCHES, 3072, 768, 0)),
    ("vision.fc2", Kind::Linear(PATCHES, 768, 3072, 64)),
    ("connector", Kind::Linear(64, 576, 12_288, 768)),
    ("vision.attention", Kind::VisionAttention(1.0)),
    ("vision.attention.wide", Kind::VisionAttention(4.0)),
    ("vision.norm", Kind::NormQuantize(PATCHES, 768)),
    ("vision.gelu", Kind::GeluQuantize(PATCHES, 3072)),
    ("prefill.qkv", Kind::Linear(PROMPT, 960, 576, 0)),
    ("prefill.out", Kind::Linear(PROMPT, 576, 576, 0)),
    ("prefill.gate_up", Kind::Linear(PROMPT, 3072, 576, 0)),
    ("prefill.down", Kind::Linear(PROMPT, 576, 1536, 64)),
    (
        "prefill.gate_up.int4",
        Kind::Int4Linear(PROMPT, 3072, 576, 0),
    ),
    ("prefill.down.int4", Kind::Int4Linear(PROMPT, 576, 1536, 64)),
    ("prefill.attention", Kind::DecoderAttention(PROMPT, 0)),
    ("prefill.norm", Kind::NormQuantize(PROMPT, 576)),
    ("prefill.swiglu", Kind::SwigluQuantize(PROMPT, 1536)),
    ("prefill.rope", Kind::Rope(PROMPT)),
    ("decode.qkv", Kind::Linear(1, 960, 576, 0)),
    ("decode.out", Kind::Linear(1, 576, 576, 0)),
    ("decode.gate_up", Kind::Linear(1, 3072, 576, 0)),
    ("decode.down", Kind::Linear(1, 576, 1536, 64)),
    ("decode.head", Kind::Largest(4928, 576)),
    ("decode.attention", Kind::DecoderAttention(1, POSITION)),
];

impl Kind {
    fn macs(self) -> usize {
        match self {
            Kind::Linear(m, n, k, _) | Kind::Int4Linear(m, n, k, _) => m * n * k,
            Kind::Largest(n, k) => n * k,
            Kind::VisionAttention(_) => 2 * 1024 * 1024 * HEAD_DIM,
            Kind::DecoderAttention(m, first) => {
                2 * 9 * HEAD_DIM * (0..m).map(|i| first + i + 1).sum::<usize>()
            }
            _ => 0,
        }
    }

    fn run(self, compute: &Compute) {
        match self {
            Kind::Linear(m, n, k, group) => run_linear(compute, m, n, k, group),
            Kind::Int4Linear(m, n, k, group) => run_int4_linear(compute, m, n, k, group),
            Kind::Largest(n, k) => run_largest(compute, n, k),
            Kind::VisionAttention(factor) => run_vision_attention(compute, factor),
            Kind::DecoderAttention(m, first) => run_decoder_attention(compute, m, first),
            Kind::NormQuantize(m, k) => {
                let x = wave(m * k);
                let mut rows = Int8RowsBuf::new();
                between_marks(|| {
                    norm::rms_norm_quantize_rows(compute, &x, None, 1e-6, rows.reshape(m, k, 0));
                });
            }
            Kind::GeluQuantize(m, k) => {
                let x = wave(m * k);
                let mut rows = Int8RowsBuf::new();
                between_marks(|| {
                    activation::gelu_tanh_quantize_rows(compute, &x, rows.reshape(m, k, 64));
                });
            }
            Kind::SwigluQuantize(m, k) => {
                let x = wave(m * 2 * k);
                let mut rows = Int8RowsBuf::new();
                between_marks(|| {
                    activation::swiglu_quantize_rows(compute, &x, k, rows.reshape(m, k, 64));
                });
            }
            Kind::Rope(m) => {
                let rope = RopeTable::new(HEAD_DIM, 100_000.0, 128);
                let mut x = wave(m * 960);
                // The first use of a position computes its angles.
                rope.apply(&mut x, 960, 12, 0);
                between_marks(|| rope.apply(&mut x, 960, 12, 0));
            }
        }
    }
}

fn between_marks(mut run: impl FnMut()) {
    mark::<0>();
    run();
    mark::<1>();
}

/// Some tokens and int8 panels of weights: noise.
fn operands(m: usize, n: usize, k: usize) -> (Vec<i8>, AlignedBytes) {
    let mut state = 1_u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8 as i8
    };
    let lhs: Vec<i8> = (0..m * k_padded(k)).map(|_| noise()).collect();
    let weights: Vec<i8> = (0..n * k).map(|_| noise().max(-127)).collect();
    let mut packed = AlignedBytes::zeroed(byte_len(n, k));
    pack_int8_rows_into(&weights, &vec![0.01; n], None, 0, k, &mut packed);
    (lhs, packed)
}

fn run_largest(compute: &Compute, n: usize, k: usize) {
    let (lhs, packed) = operands(1, n, k);
    let (mut planes, mut low) = (Vec::new(), Vec::new());
    let int8 = Panels::new(&packed, n, k).expect("packed for this shape");
    split_panels(int8, &mut planes, &mut low);
    planes.append(&mut low);
    let planes = AlignedBytes::copy_of(&planes);
    let rhs = NibblePanels::new(&planes, n, k).expect("split for this shape");
    let lhs = Int8Rows::new(&lhs, &[0.01], 1, k, 0).expect("made for this shape");
    let mut bounds = vec![0.0; n];
    between_marks(|| {
        linear_upper_bounds(compute, lhs, rhs, &mut bounds);
        linear_arg_max(compute, lhs, rhs, &bounds, &|_, value| value);
    });
}

fn run_linear(compute: &Compute, m: usize, n: usize, k: usize, group: usize) {
    let (lhs, packed) = operands(m, n, k);
    let lhs_scales = vec![0.01; m * n_groups(k, group)];
    let rhs = Panels::new(&packed, n, k).expect("packed for this shape");
    let lhs = Int8Rows::new(&lhs, &lhs_scales, m, k, group).expect("made for this shape");
    let mut out = vec![0.0; m * n];
    between_marks(|| linear(compute, lhs, rhs, &mut out, Store::Overwrite));
}

fn run_int4_linear(compute: &Compute, m: usize, n: usize, k: usize, group: usize) {
    let (lhs, _) = operands(m, 0, k);
    let lhs_scales = vec![0.01; m * n_groups(k, group)];
    let mut packed = AlignedBytes::zeroed(int4_byte_len(n, k));
    let weights = quantize_int4_groups(&wave(n * k), k);
    pack_int4_rows_into(&weights, None, 0, &mut packed);
    let rhs = Int4Panels::new(&packed, n, k).expect("packed for this shape");
    let lhs = Int8Rows::new(&lhs, &lhs_scales, m, k, group).expect("made for this shape");
    let mut out = vec![0.0; m * n];
    between_marks(|| linear_int4(compute, lhs, rhs, &mut out, Store::Overwrite));
}

fn run_vision_attention(compute: &Compute, factor: f32) {
    let n = 1024;
    let mut qkv = wave(n * 3 * HEAD_DIM);
    let queries_and_keys = &mut qkv[..2 * n * HEAD_DIM];
    queries_and_keys.iter_mut().for_each(|v| *v *= factor);
    let mut out = vec![0.0; n * HEAD_DIM];
    between_marks(|| vision_attention_int8(compute, &qkv, n, 1, HEAD_DIM, &mut out));
}

fn run_decoder_attention(compute: &Compute, m: usize, first: usize) {
    let (block_len, n_kv_heads, n_heads) = (64, 3, 9);
    let block = Arc::new(vec![0x3800; kv_layer_len(block_len, n_kv_heads, HEAD_DIM)]);
    let len = first + m;
    let blocks = vec![block; len.div_ceil(block_len)];
    let kv = KvBlocks {
        blocks: &blocks,
        block_len,
        layer_offset: 0,
        n_kv_heads,
        head_dim: HEAD_DIM,
        len,
    };
    let width = n_heads * HEAD_DIM;
    let q = wave(m * width);
    let mut out = vec![0.0; m * width];
    between_marks(|| decoder_attention(compute, &q, width, m, n_heads, kv, first, &mut out));
}

fn wave(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * 0.37).sin()).collect()
}

fn main() -> ExitCode {
    let Some(name) = std::env::args().nth(1) else {
        for (name, kind) in KERNELS {
            println!("{name} {}", kind.macs());
        }
        return ExitCode::SUCCESS;
    };
    let Some((_, kind)) = KERNELS.iter().find(|(known, _)| *known == name) else {
        eprintln!("there is no kernel {name}; without an argument they are listed");
        return ExitCode::from(2);
    };
    let compute = match Compute::new(1) {
        Ok(compute) => compute,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    println!("{}", compute.kernel_name());
    kind.run(&compute);
    ExitCode::SUCCESS
}
