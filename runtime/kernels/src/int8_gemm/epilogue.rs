//! The last float step, `out = fma(t, sw, bias)` or `out + fma(t, sw, bias)`: scales and biases of
//! one panel in registers, once per register width.

use crate::linear::Store;
use crate::panels::PanelTail;

/// Scales and biases of the eight rows of a panel.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct TailYmm {
    scales: std::arch::x86_64::__m256,
    biases: std::arch::x86_64::__m256,
}

#[cfg(target_arch = "x86_64")]
impl TailYmm {
    /// # Safety
    ///
    /// * The CPU has AVX2 and FMA; `tail` is that of a whole panel.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(crate) unsafe fn load(tail: PanelTail) -> TailYmm {
        use std::arch::x86_64::_mm256_loadu_ps;
        // SAFETY: the tail holds eight scales and biases.
        unsafe {
            TailYmm {
                scales: _mm256_loadu_ps(tail.scales()),
                biases: _mm256_loadu_ps(tail.biases()),
            }
        }
    }

    /// Finishes eight output rows of one token.
    ///
    /// # Safety
    ///
    /// * The CPU has AVX2 and FMA.
    /// * Eight values are writable at `out`, and for `Add` initialised.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(crate) unsafe fn store(
        self,
        total: std::arch::x86_64::__m256,
        out: *mut f32,
        store: Store,
    ) {
        use std::arch::x86_64::*;
        let value = _mm256_fmadd_ps(total, self.scales, self.biases);
        // SAFETY: by the caller's promise.
        unsafe {
            let value = match store {
                Store::Overwrite => value,
                Store::Add => _mm256_add_ps(_mm256_loadu_ps(out), value),
            };
            _mm256_storeu_ps(out, value);
        }
    }
}

/// Scales and biases of the rows of two panels, one after the other.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct TailZmm {
    scales: std::arch::x86_64::__m512,
    biases: std::arch::x86_64::__m512,
    /// Those of panels that exist.
    columns: std::arch::x86_64::__mmask16,
}

#[cfg(target_arch = "x86_64")]
impl TailZmm {
    /// Pair `pair` of the `panels` of a tile; a second panel that is missing gives no columns.
    ///
    /// # Safety
    ///
    /// * The CPU has AVX-512 F; the panels are whole, and the tile has the first of the pair.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) unsafe fn load(
        tile: &super::Tile<'_>,
        panels: [*const u8; 4],
        pair: usize,
    ) -> TailZmm {
        // SAFETY: the panels are whole.
        unsafe {
            let low = PanelTail::of(panels[2 * pair], tile.k_padded);
            let high = PanelTail::of(panels[2 * pair + 1], tile.k_padded);
            TailZmm {
                scales: load_pair_ps(low.scales(), high.scales()),
                biases: load_pair_ps(low.biases(), high.biases()),
                columns: if tile.n_panels == 2 * pair + 1 {
                    0x00ff
                } else {
                    0xffff
                },
            }
        }
    }

    /// Scales and biases of a pair of panels, or of its first one alone.
    ///
    /// # Safety
    ///
    /// * The CPU has AVX-512 F; sixteen values are readable at both pointers.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) unsafe fn of_pair(scales: *const f32, biases: *const f32, whole: bool) -> TailZmm {
        use std::arch::x86_64::_mm512_loadu_ps;
        // SAFETY: by the caller's promise.
        unsafe {
            TailZmm {
                scales: _mm512_loadu_ps(scales),
                biases: _mm512_loadu_ps(biases),
                columns: if whole { 0xffff } else { 0x00ff },
            }
        }
    }

    /// Finishes the output rows of one token.
    ///
    /// # Safety
    ///
    /// * The CPU has AVX-512 F.
    /// * The columns of the panels are writable at `out`, and for `Add` initialised.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) unsafe fn store(
        self,
        total: std::arch::x86_64::__m512,
        out: *mut f32,
        store: Store,
    ) {
        use std::arch::x86_64::*;
        let mut value = _mm512_fmadd_ps(total, self.scales, self.biases);
        // SAFETY: by the caller's promise.
        unsafe {
            if store == Store::Add {
                value = _mm512_add_ps(_mm512_maskz_loadu_ps(self.columns, out), value);
            }
            _mm512_mask_storeu_ps(out, self.columns, value);
        }
    }
}

/// Eight f32 of one panel's tail beside eight of the next.
///
/// # Safety
///
/// * The CPU has AVX-512 F; eight values are readable at both pointers.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) unsafe fn load_pair_ps(low: *const f32, high: *const f32) -> std::arch::x86_64::__m512 {
    use std::arch::x86_64::*;
    // SAFETY: by the caller's promise.
    let (low, high) = unsafe {
        (
            _mm256_loadu_si256(low.cast()),
            _mm256_loadu_si256(high.cast()),
        )
    };
    _mm512_castsi512_ps(_mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high))
}

/// Scales and biases of the eight rows of a panel.
#[cfg(target_arch = "aarch64")]
#[derive(Clone, Copy)]
pub(crate) struct TailQ {
    scales: [std::arch::aarch64::float32x4_t; 2],
    biases: [std::arch::aarch64::float32x4_t; 2],
}

#[cfg(target_arch = "aarch64")]
impl TailQ {
    /// # Safety
    ///
    /// * `tail` is that of a whole panel.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(crate) unsafe fn load(tail: PanelTail) -> TailQ {
        use std::arch::aarch64::vld1q_f32;
        let (scales, biases) = (tail.scales(), tail.biases());
        // SAFETY: the tail holds eight scales and biases.
        unsafe {
            TailQ {
                scales: [vld1q_f32(scales), vld1q_f32(scales.add(4))],
                biases: [vld1q_f32(biases), vld1q_f32(biases.add(4))],
            }
        }
    }

    /// Finishes eight output rows of one token.
    ///
    /// # Safety
    ///
    /// * Eight values are writable at `out`, and for `Add` initialised.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(crate) unsafe fn store(
        self,
        total: [std::arch::aarch64::float32x4_t; 2],
        out: *mut f32,
        store: Store,
    ) {
        for (half, total) in total.into_iter().enumerate() {
            // SAFETY: by the caller's promise.
            unsafe { self.store_half(half, total, out, store) };
        }
    }

    /// Finishes the output rows 0..4 (`half` 0) or 4..8 of one token, eight of which begin at `out`.
    ///
    /// # Safety
    ///
    /// * Eight values are writable at `out`, and for `Add` initialised.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(crate) unsafe fn store_half(
        self,
        half: usize,
        total: std::arch::aarch64::float32x4_t,
        out: *mut f32,
        store: Store,
    ) {
        use std::arch::aarch64::*;
        let value = vfmaq_f32(self.biases[half], total, self.scales[half]);
        // SAFETY: by the caller's promise.
        unsafe {
            let out = out.add(4 * half);
            let value = match store {
                Store::Overwrite => value,
                Store::Add => vaddq_f32(vld1q_f32(out), value),
            };
            vst1q_f32(out, value);
        }
    }
}
