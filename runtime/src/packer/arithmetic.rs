//! Threads and f32 products of the packer, equal bit for bit on every CPU.

use ocelli_kernels::FloatTier;
use ocelli_kernels::ordered::{Rows, RowsMut, add_products, add_scaled_rows};
use ocelli_kernels::threads::ThreadPool;

/// Outputs of a product that one piece of work computes.
const STRIP: usize = 64;

/// What the packer computes with.
#[derive(Debug)]
pub(super) struct Arithmetic {
    pub(super) pool: ThreadPool,
    pub(super) tier: FloatTier,
}

impl Arithmetic {
    /// All processors, the widest vectors.
    pub(super) fn new() -> Arithmetic {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Arithmetic {
            pool: ThreadPool::new(threads),
            tier: FloatTier::available().next().unwrap_or(FloatTier::SCALAR),
        }
    }

    /// `y[i] += Σ_b factors[b] · x[b · stride + i]`.
    pub(super) fn add_rows(&self, factors: &[f32], x: &[f32], stride: usize, y: &mut [f32]) {
        add_scaled_rows(self.tier, factors, x, stride, y);
    }

    /// `y[r][i] += Σ_b factors[r][b] · x[b][i]`. `shape`: rows of `y`, terms, values of a row
    pub(super) fn add_products(
        &self,
        shape: [usize; 3],
        factors: Rows<'_>,
        x: Rows<'_>,
        y: RowsMut<'_>,
    ) {
        add_products(self.tier, shape, factors, x, y);
    }

    /// `x·wᵀ`. `x`: `[m, k]`, `w`: `[n, k]` → `[m, n]`
    pub(super) fn product(&self, x: &[f32], w: &[f32], k: usize) -> Vec<f32> {
        let (m, n) = (x.len() / k, w.len() / k);
        let mut strips = vec![0f32; m * n];
        self.pool
            .for_each_chunk_mut(&mut strips, m * STRIP, &|index, strip| {
                let rows = &w[index * STRIP * k..];
                let width = strip.len() / m;
                let mut columns = vec![0f32; k * width];
                for (r, row) in rows.chunks_exact(k).take(width).enumerate() {
                    for (value, column) in row.iter().zip(columns.chunks_exact_mut(width)) {
                        column[r] = *value;
                    }
                }
                let (x, columns) = (Rows::new(x, k), Rows::new(&columns, width));
                self.add_products([m, k, width], x, columns, RowsMut::new(strip, width));
            });
        let mut out = vec![0f32; m * n];
        for (index, strip) in strips.chunks(m * STRIP).enumerate() {
            let width = strip.len() / m;
            for (part, row) in strip.chunks_exact(width).zip(out.chunks_exact_mut(n)) {
                row[index * STRIP..][..width].copy_from_slice(part);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_is_the_sum_over_k() {
        let (m, n, k) = (3, 70, 5);
        let x: Vec<f32> = (0..m * k).map(|i| i as f32).collect();
        let w: Vec<f32> = (0..n * k).map(|i| (i % 7) as f32 - 3.0).collect();
        let out = Arithmetic::new().product(&x, &w, k);
        for i in 0..m {
            for r in 0..n {
                let sum: f32 = (0..k).map(|j| x[i * k + j] * w[r * k + j]).sum();
                assert_eq!(out[i * n + r], sum, "{i} {r}");
            }
        }
    }
}
