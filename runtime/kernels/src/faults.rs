//! Kernels that compute wrongly on purpose, for tests of what must notice. Only with the feature
//! `faults`, which no product has.

use crate::compute::{Compute, ComputeError};
use crate::int8_gemm::{self, Microkernel, Tile};
use crate::int8_gemv::{Gemv, GemvKernel};
use crate::linear::Store;
use crate::nibble_gemv::{NibbleGemv, NibbleGemvKernel};
use crate::panels::PANEL_ROWS;

/// Which kernel is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The one for several tokens: the last value of every tile is one unit in the last place off.
    Gemm,
    /// The one for one token: the last value of every run of panels is.
    Gemv,
    /// The one for a plane of 4-bit halves: the last sum of every run of panels is one off.
    Nibbles,
}

impl Compute {
    /// [`Compute::with_kernel`], one of whose kernels is wrong.
    ///
    /// # Errors
    ///
    /// Fails on 0 threads, and if the kernel cannot run here.
    pub fn with_fault(n_threads: usize, name: &str, fault: Fault) -> Result<Compute, ComputeError> {
        let mut kernels = int8_gemm::by_name(name).ok_or_else(|| ComputeError::Kernel {
            name: name.to_owned(),
            available: int8_gemm::available().map(|k| k.gemm.name()).collect(),
        })?;
        match fault {
            Fault::Gemm => kernels.gemm = Box::leak(Box::new(WrongGemm(kernels.gemm))),
            Fault::Gemv => kernels.gemv = Box::leak(Box::new(WrongGemv(kernels.gemv))),
            Fault::Nibbles => {
                kernels.nibble_gemv = Box::leak(Box::new(WrongNibbles(kernels.nibble_gemv)));
            }
        }
        Compute::with_kernels(n_threads, kernels)
    }
}

/// One unit in the last place further from zero.
fn next(value: f32) -> f32 {
    f32::from_bits(value.to_bits() + 1)
}

struct WrongGemm(&'static dyn Microkernel);

// SAFETY: it runs the instructions of the kernel it holds, which proves that this machine has them.
unsafe impl Microkernel for WrongGemm {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn mr(&self) -> usize {
        self.0.mr()
    }

    fn tokens_together(&self) -> usize {
        self.0.tokens_together()
    }

    fn grouped_mr(&self) -> usize {
        self.0.grouped_mr()
    }

    fn nr(&self) -> usize {
        self.0.nr()
    }

    fn panels_at_once(&self, k_padded: usize) -> usize {
        self.0.panels_at_once(k_padded)
    }

    fn run_in_registers(&self, turns: u64) -> u64 {
        self.0.run_in_registers(turns)
    }

    fn lhs_bytes(&self, rows: usize, k_padded: usize) -> usize {
        self.0.lhs_bytes(rows, k_padded)
    }

    fn uses_lhs_sums(&self) -> bool {
        self.0.uses_lhs_sums()
    }

    fn pack_lhs(&self, rows: &[i8], k_padded: usize, out: &mut [i8]) {
        self.0.pack_lhs(rows, k_padded, out);
    }

    fn sum_lhs(&self, packed: &[i8], rows: usize, len: usize, sums: &mut [i32]) {
        self.0.sum_lhs(packed, rows, len, sums);
    }

    fn asks_ahead(&self) -> bool {
        self.0.asks_ahead()
    }

    fn lhs_block_bytes(&self) -> usize {
        self.0.lhs_block_bytes()
    }

    fn takes_pairs(&self) -> bool {
        self.0.takes_pairs()
    }

    fn pair(&self, panels: [&[u8]; 2], k_padded: usize, out: &mut [u8]) {
        self.0.pair(panels, k_padded, out);
    }

    fn pair_int4(&self, panels: [&[u8]; 2], k: usize, out: &mut [u8], scales: &mut [f32]) {
        self.0.pair_int4(panels, k, out, scales);
    }

    fn finish(&self) {
        self.0.finish();
    }

    fn takes_int4(&self) -> bool {
        self.0.takes_int4()
    }

    unsafe fn tile(&self, tile: &Tile<'_>, out: *mut f32, out_stride: usize, store: Store) {
        // SAFETY: by the caller's promise.
        unsafe {
            self.0.tile(tile, out, out_stride, store);
            spoil_last(tile, out, out_stride);
        }
    }

    unsafe fn tiles(&self, tile: &Tile<'_>, out: *mut f32, out_stride: usize, store: Store) {
        // SAFETY: by the caller's promise.
        unsafe {
            if self.takes_pairs() {
                self.0.tiles(tile, out, out_stride, store);
                spoil_last(tile, out, out_stride);
            } else {
                self.one_by_one(tile, out, out_stride, store);
            }
        }
    }

    unsafe fn int4_tile(&self, tile: &Tile<'_>, out: *mut f32, out_stride: usize, store: Store) {
        // SAFETY: by the caller's promise.
        unsafe {
            self.0.int4_tile(tile, out, out_stride, store);
            spoil_last(tile, out, out_stride);
        }
    }
}

/// Moves the last value of a tile that was written.
///
/// # Safety
///
/// * `out` holds the tile, rows `out_stride` apart.
unsafe fn spoil_last(tile: &Tile<'_>, out: *mut f32, out_stride: usize) {
    let last = (tile.rows - 1) * out_stride + 8 * tile.n_panels - 1;
    // SAFETY: by the caller's promise, of which `out` at `last` is the last value.
    unsafe { *out.add(last) = next(*out.add(last)) };
}

struct WrongGemv(&'static dyn GemvKernel);

// SAFETY: it runs the instructions of the kernel it holds, which proves that this machine has them.
unsafe impl GemvKernel for WrongGemv {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn uses_lhs_sums(&self) -> bool {
        self.0.uses_lhs_sums()
    }

    unsafe fn panels(&self, gemv: &Gemv<'_>, out: *mut f32, store: Store) {
        let last = 8 * gemv.n_panels - 1;
        // SAFETY: the caller keeps the contract, of which `out` at `last` is the last value.
        unsafe {
            self.0.panels(gemv, out, store);
            *out.add(last) = next(*out.add(last));
        }
    }
}

struct WrongNibbles(&'static dyn NibbleGemvKernel);

// SAFETY: it runs the instructions of the kernel it holds, which proves that this machine has them.
unsafe impl NibbleGemvKernel for WrongNibbles {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn sums(&self, gemv: &NibbleGemv<'_>, out: &mut [[i32; PANEL_ROWS]]) {
        self.0.sums(gemv, out);
        if let Some([.., last]) = out.last_mut() {
            *last += 1;
        }
    }
}
