//! All numeric `unsafe` of the runtime: int8 matrix products, quantisation, norms, activations,
//! rotary positions and attention, each behind a safe function that checks its shapes once.
//!
//! | module | defines |
//! |---|---|
//! | [`isa`] | what this CPU can execute, probed once |
//! | [`threads`] | the thread pool every parallel loop runs on |
//! | [`compute`] | the choice a process makes once: threads, int8 kernels, float tier |
//! | [`panels`] | the one packed layout of int8 weights |
//! | [`int4_panels`], [`int4_groups`] | the packed layout of int4 weights, and how weights become int4 |
//! | [`nibble_panels`] | int8 weights as two planes of 4 bits |
//! | [`quantize`] | int8 activation rows and how f32 rows become them |
//! | [`int8_gemm`], [`int8_gemv`], [`int4_gemv`], [`nibble_gemv`] | the integer kernels, one file per instruction tier |
//! | [`mod@linear`] | int8 activations times int8 or int4 panels: blocks, edges, threads |
//! | [`norm`], [`activation`], [`rope`] | row-wise float functions |
//! | [`attention`] | decoder attention over the f16 KV cache, vision attention |
//! | [`half`] | f16 and bf16 conversion |
//! | [`limits`] | what the machine can do at most: memory reads, int8 products in registers |
//! | [`f32_gemm`] | plain f32 products, for the checking path |
//!
//! Letters: `m` tokens, `n` output rows of the weights, `k` input values. `[m, k]` is row-major.

#[cfg(target_endian = "big")]
compile_error!("packed panels hold little-endian words and are read in place");

mod aligned;
mod lanes;
mod prefetch;

pub mod activation;
pub mod attention;
pub mod compute;
pub mod f32_gemm;
#[cfg(feature = "faults")]
pub mod faults;
pub mod half;
pub mod int4_feedback;
pub mod int4_gemv;
pub mod int4_groups;
pub mod int4_panels;
pub mod int8_gemm;
pub mod int8_gemv;
pub mod isa;
pub mod limits;
pub mod linear;
pub mod nibble_gemv;
pub mod nibble_panels;
pub mod norm;
pub mod ordered;
pub mod panels;
pub mod quantize;
pub mod rope;
pub mod threads;

pub use activation::Activation;
pub use aligned::{AlignedBytes, scratch_bytes};
pub use compute::{Compute, ComputeError};
pub use int4_panels::Int4Panels;
pub use lanes::FloatTier;
pub use linear::{
    ArgMax, Store, linear, linear_activated, linear_arg_max, linear_blocks, linear_int4,
    linear_int4_activated, linear_int4_blocks, linear_nibbles, linear_nibbles_of,
    linear_upper_bounds,
};
pub use nibble_panels::NibblePanels;
pub use panels::Panels;
pub use quantize::{Int8Rows, Int8RowsBuf, Int8RowsMut};
