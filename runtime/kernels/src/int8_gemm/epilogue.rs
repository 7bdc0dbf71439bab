//! The last float step of eight output rows, `out = fma(t, sw, bias)` or `out + fma(t, sw, bias)`,
//! once per register width.

use crate::linear::Store;
use crate::panels::PanelTail;

/// Finishes eight output rows of one token.
///
/// # Safety
///
/// * The CPU has AVX2 and FMA.
/// * `tail` is that of the panel; eight values are writable at `out`, and for `Add` initialised.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(crate) unsafe fn store_ymm(
    total: std::arch::x86_64::__m256,
    tail: PanelTail,
    out: *mut f32,
    store: Store,
) {
    use std::arch::x86_64::*;
    // SAFETY: the tail holds eight scales and biases, `out` eight values, by the caller's promise.
    unsafe {
        let value = _mm256_fmadd_ps(
            total,
            _mm256_loadu_ps(tail.scales()),
            _mm256_loadu_ps(tail.biases()),
        );
        let value = match store {
            Store::Overwrite => value,
            Store::Add => _mm256_add_ps(_mm256_loadu_ps(out), value),
        };
        _mm256_storeu_ps(out, value);
    }
}

/// Finishes eight output rows of one token.
///
/// # Safety
///
/// * `tail` is that of the panel; eight values are writable at `out`, and for `Add` initialised.
#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon")]
pub(crate) unsafe fn store_q(
    total: [std::arch::aarch64::float32x4_t; 2],
    tail: PanelTail,
    out: *mut f32,
    store: Store,
) {
    use std::arch::aarch64::*;
    for (half, total) in total.into_iter().enumerate() {
        // SAFETY: the tail holds eight scales and biases, `out` eight values, by the caller's
        // promise; each half is four of them.
        unsafe {
            let out = out.add(4 * half);
            let scale = vld1q_f32(tail.scales().add(4 * half));
            let value = vfmaq_f32(vld1q_f32(tail.biases().add(4 * half)), total, scale);
            let value = match store {
                Store::Overwrite => value,
                Store::Add => vaddq_f32(vld1q_f32(out), value),
            };
            vst1q_f32(out, value);
        }
    }
}
