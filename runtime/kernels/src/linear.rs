//! [`linear`], [`linear_int4`]: int8 activation rows times packed weights, split over the threads.
//!
//! ```text
//!   one token      runs of panels ─ one GEMV call each
//!
//!   more tokens    tiles of tokens × panels: `tiles.rs`
//! ```
//!
//! [`linear_blocks`] puts columns apart, [`linear_activated`] lets them pass through an activation
//! and quantises them before they leave the cache. [`linear_nibbles`] takes weights in two planes,
//! [`linear_arg_max`] finds the largest product by one of them.

use std::ops::Range;

use crate::aligned::{lines_for, with_scratch, words_mut};
use crate::compute::Compute;
use crate::int4_gemv::Int4Gemv;
use crate::int4_panels::{BLOCK, Int4Panels, int4_panel_stride};
use crate::int8_gemv::Gemv;
use crate::panels::{PANEL_ROWS, Panels, panel_stride};
use crate::quantize::Int8Rows;

mod activated;
mod blocks;
mod nibbles;
mod strips;
#[cfg(test)]
mod tests;
mod tiles;
mod weights;

pub use activated::{linear_activated, linear_int4_activated};
pub use blocks::{linear_blocks, linear_int4_blocks};
pub use nibbles::{ArgMax, linear_arg_max, linear_nibbles, linear_nibbles_of, linear_upper_bounds};

use tiles::{Plain, many_tokens};
use weights::Weights;

/// Weights of one GEMV chunk: enough to pay for handing it out.
const GEMV_CHUNK_BYTES: usize = 16 * 1024;
/// Chunks per thread, so that a late thread leaves the others something to take.
const CHUNKS_PER_THREAD: usize = 4;

/// What happens to the former contents of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// They are overwritten.
    Overwrite,
    /// The product is added to them: `out = out + value`, rounded once.
    Add,
}

/// `out[i][r] = (Σ_g f32(Σ_k lhs[i][k] · rhs[r][k]) · sx[i][g]) · sw[r] + bias[r]`.
///
/// `lhs` `[m, k]`, `rhs` `[n, k]`, `out` `[m, n]`. The result does not depend on the kernel or the
/// number of threads, down to the last bit; see [`crate::int8_gemm`] for the order of the float
/// steps. Exact for activations in -128..=127 and weights in -127..=127.
///
/// # Panics
///
/// Panics if the shapes do not fit.
pub fn linear(
    compute: &Compute,
    lhs: Int8Rows<'_>,
    rhs: Panels<'_>,
    out: &mut [f32],
    store: Store,
) {
    product(compute, lhs, &rhs, out, store);
}

/// [`linear`] with int4 weights: `out[i][r] = Σ_g (Σ_b f32(Σ_k lhs[i][k] · rhs[r][k]) · sw[r][b]) ·
/// sx[i][g] + bias[r]`, in the order of the float steps of [`crate::int4_gemv`].
///
/// # Panics
///
/// Panics if the shapes do not fit, or a group of activations is not a multiple of 32 values.
pub fn linear_int4(
    compute: &Compute,
    lhs: Int8Rows<'_>,
    rhs: Int4Panels<'_>,
    out: &mut [f32],
    store: Store,
) {
    product(compute, lhs, &rhs, out, store);
}

fn product(compute: &Compute, lhs: Int8Rows<'_>, rhs: &dyn Weights, out: &mut [f32], store: Store) {
    let (m, n) = (lhs.m(), rhs.n());
    rhs.check(&lhs);
    assert_eq!(out.len(), m * n, "out must be [m, n]");
    if m == 0 || n == 0 {
        return;
    }
    if lhs.k() == 0 {
        for row in out.chunks_exact_mut(n) {
            for (r, value) in row.iter_mut().enumerate() {
                store_edge(&[rhs.empty_sum(r)], std::slice::from_mut(value), store);
            }
        }
    } else if m == 1 {
        rhs.one_token(compute, lhs, out, store);
    } else {
        many_tokens(compute, lhs, rhs, &Plain::new(compute, n, out, store));
    }
}

fn one_token(compute: &Compute, lhs: Int8Rows<'_>, rhs: Panels<'_>, out: &mut [f32], store: Store) {
    let kernel = compute.gemv();
    let group_len = lhs.group_len();
    let stride = panel_stride(rhs.k());
    with_sums(lhs, kernel.uses_lhs_sums().then_some(group_len), |sums| {
        run_panels(compute, stride, out, store, &|panels, out, store| {
            let gemv = Gemv {
                lhs: lhs.data(),
                lhs_scales: lhs.scales(),
                lhs_sums: sums,
                panels: &rhs.bytes()[panels.start * stride..panels.end * stride],
                n_panels: panels.len(),
                group_len,
            };
            debug_assert_eq!(out.len(), panels.len() * PANEL_ROWS);
            // SAFETY: `Int8Rows` and `Panels` checked their lengths and alignment, `out` holds
            // eight values per panel.
            unsafe { kernel.panels(&gemv, out.as_mut_ptr(), store) };
        });
    });
}

fn one_token_int4(
    compute: &Compute,
    lhs: Int8Rows<'_>,
    rhs: Int4Panels<'_>,
    out: &mut [f32],
    store: Store,
) {
    let kernel = compute.int4_gemv();
    let stride = int4_panel_stride(rhs.k());
    with_sums(lhs, kernel.uses_lhs_sums().then_some(BLOCK), |sums| {
        run_panels(compute, stride, out, store, &|panels, out, store| {
            let gemv = Int4Gemv {
                lhs: lhs.data(),
                lhs_scales: lhs.scales(),
                lhs_sums: sums,
                panels: &rhs.bytes()[panels.start * stride..panels.end * stride],
                group_len: lhs.group_len(),
            };
            debug_assert_eq!(out.len(), panels.len() * PANEL_ROWS);
            // SAFETY: `Int8Rows` and `Int4Panels` checked their lengths and alignment, `out`
            // holds eight values per panel.
            unsafe { kernel.panels(&gemv, out.as_mut_ptr(), store) };
        });
    });
}

/// Lends the sums of every `len` values of one token to `f`; no sums without `len`.
fn with_sums(lhs: Int8Rows<'_>, len: Option<usize>, f: impl FnOnce(&[i32])) {
    let Some(len) = len else {
        return f(&[]);
    };
    let n_sums = lhs.data().len() / len;
    with_scratch(lines_for::<i32>(n_sums), |lines| {
        let sums = &mut words_mut(lines)[..n_sums];
        for (total, values) in sums.iter_mut().zip(lhs.data().chunks_exact(len)) {
            *total = sum(values);
        }
        f(sums);
    });
}

fn sum(values: &[i8]) -> i32 {
    values.iter().map(|&v| i32::from(v)).sum()
}

/// What [`run_panels`] calls: panels, their eight outputs each, and how to store them.
type PanelsFn<'a> = dyn Fn(Range<usize>, &mut [f32], Store) + Sync + 'a;

/// Hands the panels that make `out`, `stride` bytes each, to `run` in chunks worth a thread.
fn run_panels(compute: &Compute, stride: usize, out: &mut [f32], store: Store, run: &PanelsFn<'_>) {
    let n_panels = out.len().div_ceil(PANEL_ROWS);
    let n_chunks =
        (n_panels * stride / GEMV_CHUNK_BYTES).min(compute.n_threads() * CHUNKS_PER_THREAD);
    let panels_per_chunk = n_panels.div_ceil(n_chunks.max(1));
    compute
        .pool()
        .for_each_chunk_mut(out, panels_per_chunk * PANEL_ROWS, &|chunk, out| {
            let first = chunk * panels_per_chunk;
            let last = first + out.len() / PANEL_ROWS;
            let (whole, rest) = out.split_at_mut((last - first) * PANEL_ROWS);
            if !whole.is_empty() {
                run(first..last, whole, store);
            }
            if !rest.is_empty() {
                let mut edge = [0.0; PANEL_ROWS];
                run(last..last + 1, &mut edge, Store::Overwrite);
                store_edge(&edge, rest, store);
            }
        });
}

fn store_edge(values: &[f32], out: &mut [f32], store: Store) {
    for (out, value) in out.iter_mut().zip(values) {
        match store {
            Store::Overwrite => *out = *value,
            Store::Add => *out += value,
        }
    }
}
