//! Int8 GEMV kernels: one token times a run of panels, the decode path.
//!
//! The formula and the order of the float steps are those of [`crate::int8_gemm`]; the weights
//! are read once, so memory bandwidth sets the pace.

use std::fmt;

use crate::linear::Store;
use crate::panels::PANEL_ROWS;

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512_vnni;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon_dotprod;
pub(crate) mod scalar;

/// One operand set of [`GemvKernel::panels`].
#[derive(Clone, Copy, Debug)]
pub struct Gemv<'a> {
    /// The token, `[k_padded]`.
    pub lhs: &'a [i8],
    /// Its scales, `[n_groups]`.
    pub lhs_scales: &'a [f32],
    /// Sums of the int8 values of each group, `[n_groups]`; empty unless the kernel asks.
    pub lhs_sums: &'a [i32],
    /// Whole panels.
    pub panels: &'a [u8],
    /// Number of panels.
    pub n_panels: usize,
    /// Values per scale: `k_padded`, or a multiple of 16 that divides it.
    pub group_len: usize,
}

/// An int8 kernel for one token.
///
/// # Safety
///
/// Implementors hand out a value of `Self` only on a machine that executes the instructions the
/// kernel uses: having one proves capability.
pub unsafe trait GemvKernel: Sync {
    /// `{arch}-qd8qc8w-{isa}-1x{nr}`.
    fn name(&self) -> &'static str;

    /// True if [`Gemv::lhs_sums`] must be filled.
    fn uses_lhs_sums(&self) -> bool {
        false
    }

    /// Writes (or adds to) `8 * n_panels` values at `out`.
    ///
    /// # Safety
    ///
    /// * `gemv` is consistent: lengths follow from the token, `group_len` and `n_panels`,
    ///   `k_padded` is a multiple of 16, the panels are 64-byte aligned.
    /// * `8 * n_panels` values are writable at `out`, and for [`Store::Add`] initialised.
    unsafe fn panels(&self, gemv: &Gemv<'_>, out: *mut f32, store: Store);
}

impl fmt::Debug for dyn GemvKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Gemv<'_> {
    /// Values per row, padded.
    #[inline(always)]
    pub(crate) fn k_padded(&self) -> usize {
        self.lhs.len()
    }

    /// Bytes from one panel to the next.
    #[inline(always)]
    pub(crate) fn panel_stride(&self) -> usize {
        crate::panels::panel_stride(self.k_padded())
    }

    /// Debug check of the lengths that [`GemvKernel::panels`] requires.
    pub(crate) fn debug_check(&self, kernel: &dyn GemvKernel) {
        debug_assert!(self.k_padded().is_multiple_of(self.group_len));
        debug_assert_eq!(self.lhs_scales.len(), self.k_padded() / self.group_len);
        debug_assert!(!kernel.uses_lhs_sums() || self.lhs_sums.len() == self.lhs_scales.len());
        debug_assert_eq!(self.panels.len(), self.n_panels * self.panel_stride());
        debug_assert!(PANEL_ROWS * size_of::<f32>() == 32);
    }
}
