//! Int4 GEMV kernels: one int8 token times a run of int4 panels, the decode path of int4 weights.
//!
//! Weights are unpacked in registers. The inner sum over the 32 values of a block is exact in i32;
//! the float steps are, in this order in every kernel, and the same in the GEMM tile:
//!
//! ```text
//! t = +0;  for each group g of activations:  u = +0
//!            for each block b of g:          u = fma(f32(acc_b), sw[b], u)
//!          t = fma(u, sx[g], t)
//! value = t + bias
//! ```

use std::fmt;

use crate::int4_panels::{BLOCK, BLOCK_BYTES, int4_panel_stride};
use crate::linear::Store;

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512_vnni;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon_dotprod;
pub(crate) mod scalar;
#[cfg(test)]
mod tests;

/// One operand set of [`Int4GemvKernel::panels`].
#[derive(Clone, Copy, Debug)]
pub struct Int4Gemv<'a> {
    /// The token, `[k]`.
    pub lhs: &'a [i8],
    /// Its scales, `[n_groups]`.
    pub lhs_scales: &'a [f32],
    /// Sums of the int8 values of each block, `[k / 32]`; empty unless the kernel asks.
    pub lhs_sums: &'a [i32],
    /// Whole panels.
    pub panels: &'a [u8],
    /// Values per activation scale: a multiple of 32 that divides `k`.
    pub group_len: usize,
}

/// An int4 kernel for one token.
///
/// # Safety
///
/// Implementors hand out a value of `Self` only on a machine that executes the instructions the
/// kernel uses: having one proves capability.
pub unsafe trait Int4GemvKernel: Sync {
    /// `{arch}-qd8qc4w-{isa}-1x{nr}`.
    fn name(&self) -> &'static str;

    /// True if [`Int4Gemv::lhs_sums`] must be filled.
    fn uses_lhs_sums(&self) -> bool {
        false
    }

    /// Writes (or adds to) eight values for each panel at `out`.
    ///
    /// # Safety
    ///
    /// * `gemv` is consistent: lengths follow from the token and `group_len`, `k` is a multiple of
    ///   32, the panels are whole and 64-byte aligned.
    /// * Eight values for each panel are writable at `out`, and for [`Store::Add`] initialised.
    unsafe fn panels(&self, gemv: &Int4Gemv<'_>, out: *mut f32, store: Store);
}

impl fmt::Debug for dyn Int4GemvKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl<'a> Int4Gemv<'a> {
    /// The panels one by one: blocks, then biases.
    #[inline(always)]
    pub(crate) fn each_panel(&self) -> impl Iterator<Item = (&'a [[u8; BLOCK_BYTES]], &'a [u8])> {
        let k = self.lhs.len();
        self.panels
            .chunks_exact(int4_panel_stride(k))
            .map(move |panel| {
                let (blocks, biases) = panel.split_at(k / BLOCK * BLOCK_BYTES);
                (blocks.as_chunks().0, biases)
            })
    }

    /// The token block by block.
    #[inline(always)]
    pub(crate) fn token_blocks(&self) -> &'a [[i8; BLOCK]] {
        self.lhs.as_chunks().0
    }

    /// Debug check of the lengths that [`Int4GemvKernel::panels`] requires.
    pub(crate) fn debug_check(&self, kernel: &dyn Int4GemvKernel) {
        let k = self.lhs.len();
        debug_assert!(k.is_multiple_of(self.group_len) && self.group_len.is_multiple_of(BLOCK));
        debug_assert_eq!(self.lhs_scales.len(), k / self.group_len);
        debug_assert!(!kernel.uses_lhs_sums() || self.lhs_sums.len() == k / BLOCK);
        debug_assert!(self.panels.len().is_multiple_of(int4_panel_stride(k)));
    }
}
