//! Kernels for one plane of [`crate::nibble_panels`]: sums of 4-bit weights times one int8 token.
//!
//! The sums are exact in i32, so every kernel gives the same.

use std::fmt;

use crate::int4_panels::BLOCK_WEIGHTS;
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
#[cfg(test)]
mod tests;

/// One operand set of [`NibbleGemvKernel::sums`].
#[derive(Clone, Copy, Debug)]
pub struct NibbleGemv<'a> {
    /// The token, `[k]`, `k` a multiple of 32 up to 65536.
    pub token: &'a [i8],
    /// Sum of its values.
    pub token_sum: i32,
    /// Whole panels of a plane.
    pub panels: &'a [u8],
    /// Bytes from one panel to the next; its blocks come first.
    pub stride: usize,
}

/// A kernel for one token and one plane.
///
/// # Safety
///
/// Implementors hand out a value of `Self` only on a machine that executes the instructions the
/// kernel uses: having one proves capability.
pub unsafe trait NibbleGemvKernel: Sync {
    /// `{arch}-nibbles-{isa}-1x{nr}`.
    fn name(&self) -> &'static str;

    /// `Σ_k w[r][k] · x[k]` for the eight rows of each panel, `w` in [-8, 7].
    fn sums(&self, gemv: &NibbleGemv<'_>, out: &mut [[i32; PANEL_ROWS]]);
}

impl fmt::Debug for dyn NibbleGemvKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl<'a> NibbleGemv<'a> {
    /// The blocks of each panel beside where its sums go.
    #[inline(always)]
    pub(crate) fn each_panel<'o>(
        &self,
        out: &'o mut [[i32; PANEL_ROWS]],
    ) -> impl Iterator<Item = (&'a [[u8; BLOCK_WEIGHTS]], &'o mut [i32; PANEL_ROWS])> {
        let len = self.token.len() * PANEL_ROWS / 2;
        let panels = self.panels.chunks_exact(self.stride);
        panels.map(move |panel| panel[..len].as_chunks().0).zip(out)
    }
}
