//! Plain f32 matrix products, for the checking path: `out = x · wᵀ + bias`.

use crate::compute::Compute;
use crate::lanes::{Lanes, load_first, tiered};
use crate::threads::SyncPtr;

/// Tokens of one tile.
const MR: usize = 4;
/// Weight rows of one tile.
const NR: usize = 3;
/// Weight rows of one chunk of work.
const CHUNK_ROWS: usize = 8 * NR;

/// `out[i][r] = Σ_k x[i][k] · w[r][k] + bias[r]`: `x` `[m, k]`, `w` `[n, k]`, `bias` `[n]` or none,
/// `out` `[m, n]`. Accumulates in f32, several lanes along `k`.
///
/// # Panics
///
/// Panics if a length does not fit.
#[expect(clippy::too_many_arguments, reason = "three shapes and three operands")]
pub fn matmul(
    compute: &Compute,
    x: &[f32],
    w: &[f32],
    bias: Option<&[f32]>,
    m: usize,
    n: usize,
    k: usize,
    out: &mut [f32],
) {
    assert_eq!(x.len(), m * k, "x must be [m, k]");
    assert_eq!(w.len(), n * k, "w must be [n, k]");
    assert!(bias.is_none_or(|b| b.len() == n), "bias must be [n]");
    assert_eq!(out.len(), m * n, "out must be [m, n]");
    let tier = compute.float_tier();
    let out = SyncPtr::new(out.as_mut_ptr());
    compute.pool().run(n.div_ceil(CHUNK_ROWS), &|chunk| {
        let first_chunk_row = chunk * CHUNK_ROWS;
        let end = (first_chunk_row + CHUNK_ROWS).min(n);
        for i in (0..m).step_by(MR) {
            for r in (first_chunk_row..end).step_by(NR) {
                // Missing rows repeat the last one; their products are not stored.
                let x_rows = std::array::from_fn(|j| &x[(i + j).min(m - 1) * k..][..k]);
                let w_rows = std::array::from_fn(|j| &w[(r + j).min(end - 1) * k..][..k]);
                // SAFETY: all rows have k values.
                let tile = unsafe { dot_tile(tier, x_rows, w_rows) };
                for (a, dots) in tile.iter().enumerate().take(m - i) {
                    for (b, dot) in dots.iter().enumerate().take(end - r) {
                        let value = dot + bias.map_or(0.0, |bias| bias[r + b]);
                        // SAFETY: the index is inside [m, n], and this chunk alone has column r + b.
                        unsafe { *out.at((i + a) * n + r + b) = value };
                    }
                }
            }
        }
    });
}

tiered! {
    unsafe fn dot_tile(x: [&[f32]; MR], w: [&[f32]; NR]) -> [[f32; NR]; MR] = dot_tile_on
}

/// # Safety
///
/// * The CPU has the instructions of `L`; all rows have one length.
#[inline(always)]
unsafe fn dot_tile_on<L: Lanes>(x: [&[f32]; MR], w: [&[f32]; NR]) -> [[f32; NR]; MR] {
    let len = x[0].len();
    let (x, w) = (x.map(<[f32]>::as_ptr), w.map(<[f32]>::as_ptr));
    let mut i = 0;
    // SAFETY: every access is below `len`.
    unsafe {
        let mut acc = [[L::splat(0.0); NR]; MR];
        while i + L::N <= len {
            let mut rows = [L::splat(0.0); NR];
            for (row, w) in rows.iter_mut().zip(w) {
                *row = L::load(w.add(i));
            }
            for (acc, x) in acc.iter_mut().zip(x) {
                let x = L::load(x.add(i));
                for (acc, row) in acc.iter_mut().zip(rows) {
                    *acc = x.mul_add(row, *acc);
                }
            }
            i += L::N;
        }
        if i < len {
            let mut rows = [L::splat(0.0); NR];
            for (row, w) in rows.iter_mut().zip(w) {
                *row = load_first::<L>(w.add(i), len - i, 0.0);
            }
            for (acc, x) in acc.iter_mut().zip(x) {
                let x = load_first::<L>(x.add(i), len - i, 0.0);
                for (acc, row) in acc.iter_mut().zip(rows) {
                    *acc = x.mul_add(row, *acc);
                }
            }
        }
        let mut sums = [[0.0; NR]; MR];
        for (sums, acc) in sums.iter_mut().zip(acc) {
            for (sum, acc) in sums.iter_mut().zip(acc) {
                *sum = acc.reduce_add();
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::int8_gemm;

    #[test]
    fn every_tier_matches_f64_within_the_bound_of_its_inputs() {
        for kernels in int8_gemm::available() {
            let compute = Compute::with_kernel(2, kernels.gemm.name()).unwrap();
            for (m, n, k) in [(1, 1, 1), (3, 5, 7), (4, 3, 16), (5, 25, 64), (9, 50, 131)] {
                let x: Vec<f32> = (0..m * k).map(|i| (i as f32 * 0.7).sin()).collect();
                let w: Vec<f32> = (0..n * k).map(|i| (i as f32 * 0.3).cos()).collect();
                let bias: Vec<f32> = (0..n).map(|i| i as f32).collect();
                let mut out = vec![f32::NAN; m * n];
                matmul(&compute, &x, &w, Some(&bias), m, n, k, &mut out);
                for i in 0..m {
                    for r in 0..n {
                        let (x, w) = (&x[i * k..][..k], &w[r * k..][..k]);
                        let products = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
                        let want = products.clone().sum::<f64>() + f64::from(bias[r]);
                        let size = products.map(f64::abs).sum::<f64>() + f64::from(bias[r]);
                        let bound = f64::from(f32::EPSILON) * (k as f64 / 2.0 + 2.0) * size;
                        let error = (f64::from(out[i * n + r]) - want).abs();
                        assert!(
                            error <= bound,
                            "{} [{m}, {n}, {k}] {error:e} > {bound:e}",
                            compute.kernel_name()
                        );
                    }
                }
            }
        }
    }
}
