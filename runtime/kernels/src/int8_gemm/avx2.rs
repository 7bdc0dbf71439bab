//! AVX2 (Haswell, Zen and later): up to 6 tokens × 1 panel, weights and tokens widened to 16 bits, VPMADDWD.
//!
//! ```text
//!                       ymm 0: rows 0..4 of the panel          ymm 1: rows 4..8
//!   weights of a step   r0k0 r0k1 r0k2 r0k3 │ … │ r3k3         r4k0 … r7k3           (16 bits each)
//!   token i, 4 k ×4     k0   k1   k2   k3   │ … │ k3
//!   VPMADDWD            r0k01     r0k23     │ … │ r3k23        two 32-bit sums per row
//!
//!   12 accumulators + 2 weights + 1 token + 1 product = 16 registers
//! ```
//!
//! The 8-bit product instruction saturates pairs of full-range bytes; the 16-bit one cannot, since
//! 2 · 128 · 127 is far below 2³¹. Tokens are widened when packed, `[k / 4][rows][4]` of 16 bits.

use std::arch::x86_64::*;

use super::epilogue::TailYmm;
use super::{Microkernel, Tile, with_rows};
use crate::int4_panels::BLOCK;
use crate::isa::Isa;
use crate::linear::Store;
use crate::panels::{K_GROUP, PANEL_ROWS, PanelTail, STEP_BYTES};

const MR: usize = 6;
const NR: usize = PANEL_ROWS;
/// Steps of a block of int4 weights.
const BLOCK_STEPS: usize = BLOCK / K_GROUP;
/// Bytes of one packed value.
const WIDE: usize = 2;

struct Avx2 {
    // Not constructible outside `probe`, which is what proves the instructions exist.
    _proof: (),
}

pub(super) fn probe() -> Option<&'static dyn Microkernel> {
    static KERNEL: Avx2 = Avx2 { _proof: () };
    Isa::probe().has_avx2().then_some(&KERNEL)
}

// SAFETY: `probe` is the only constructor and checks the features.
unsafe impl Microkernel for Avx2 {
    fn name(&self) -> &'static str {
        "x86_64-qd8qc8w-avx2-6x8"
    }
    fn mr(&self) -> usize {
        MR
    }
    fn nr(&self) -> usize {
        NR
    }
    fn lhs_bytes(&self, rows: usize, k_padded: usize) -> usize {
        rows * k_padded * WIDE
    }
    fn pack_lhs(&self, rows: &[i8], k_padded: usize, out: &mut [i8]) {
        let n_rows = rows.len() / k_padded;
        debug_assert_eq!(out.len(), self.lhs_bytes(n_rows, k_padded));
        let step = n_rows * K_GROUP * WIDE;
        for (i, row) in rows.chunks_exact(k_padded).enumerate() {
            for (group, out) in row
                .as_chunks::<K_GROUP>()
                .0
                .iter()
                .zip(out.chunks_exact_mut(step))
            {
                let out = &mut out[i * K_GROUP * WIDE..][..K_GROUP * WIDE];
                for (value, out) in group.iter().zip(out.as_chunks_mut::<WIDE>().0) {
                    *out = i16::from(*value).to_le_bytes().map(|byte| byte as i8);
                }
            }
        }
    }
    fn run_in_registers(&self, turns: u64) -> u64 {
        const PRODUCTS: u64 = 10 * 16;
        if turns > 0 {
            // SAFETY: touches registers only; having `self` proves the instructions.
            unsafe {
                std::arch::asm!(
                    "2:",
                    "vpmaddwd ymm10, ymm14, ymm15",
                    "vpaddd ymm0, ymm0, ymm10",
                    "vpmaddwd ymm11, ymm14, ymm15",
                    "vpaddd ymm1, ymm1, ymm11",
                    "vpmaddwd ymm12, ymm14, ymm15",
                    "vpaddd ymm2, ymm2, ymm12",
                    "vpmaddwd ymm13, ymm14, ymm15",
                    "vpaddd ymm3, ymm3, ymm13",
                    "vpmaddwd ymm10, ymm14, ymm15",
                    "vpaddd ymm4, ymm4, ymm10",
                    "vpmaddwd ymm11, ymm14, ymm15",
                    "vpaddd ymm5, ymm5, ymm11",
                    "vpmaddwd ymm12, ymm14, ymm15",
                    "vpaddd ymm6, ymm6, ymm12",
                    "vpmaddwd ymm13, ymm14, ymm15",
                    "vpaddd ymm7, ymm7, ymm13",
                    "vpmaddwd ymm10, ymm14, ymm15",
                    "vpaddd ymm8, ymm8, ymm10",
                    "vpmaddwd ymm11, ymm14, ymm15",
                    "vpaddd ymm9, ymm9, ymm11",
                    "dec {turns}",
                    "jnz 2b",
                    turns = inout(reg) turns => _,
                    out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _, out("ymm4") _, out("ymm5") _, out("ymm6") _, out("ymm7") _, out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _, out("ymm12") _, out("ymm13") _,
                    options(nomem, nostack),
                );
            }
        }
        turns * PRODUCTS
    }
    unsafe fn tile(&self, tile: &Tile<'_>, out: *mut f32, out_stride: usize, store: Store) {
        tile.debug_check(self);
        // SAFETY: having `self` proves the instructions; the rest is the caller's contract.
        unsafe {
            with_rows!(tile.rows, R in [1, 2, 3, 4, 5, 6] => tile_avx2::<R>(tile, out, out_stride, store));
        }
    }
}

/// # Safety
///
/// * The CPU has AVX2 and FMA; the tile has `R` tokens.
/// * The rest as in [`Microkernel::tile`].
#[target_feature(enable = "avx2,fma")]
unsafe fn tile_avx2<const R: usize>(
    tile: &Tile<'_>,
    out: *mut f32,
    out_stride: usize,
    store: Store,
) {
    let panel = tile.panels.as_ptr();
    let group_steps = tile.group_len / K_GROUP;

    let mut totals = [_mm256_setzero_ps(); R];
    if !tile.block_scales.is_empty() {
        add_blocks::<R>(tile, &mut totals);
    }
    let groups = if tile.block_scales.is_empty() {
        tile.lhs_scales
    } else {
        &[]
    };
    for (g, scales) in groups.as_chunks::<R>().0.iter().enumerate() {
        let first = g * group_steps;
        // SAFETY: the steps of the group are inside the panel and the packed tokens.
        let acc = unsafe {
            let x = tile.lhs.as_ptr().add(first * R * K_GROUP * WIDE);
            products::<R>(panel.add(first * STEP_BYTES), x, group_steps)
        };
        for ((total, acc), scale) in totals.iter_mut().zip(acc).zip(scales) {
            let sum = _mm256_cvtepi32_ps(sum_rows(acc));
            *total = _mm256_fmadd_ps(sum, _mm256_set1_ps(*scale), *total);
        }
    }
    // SAFETY: the panel is whole, row i of `out` holds eight values.
    unsafe {
        let tail = TailYmm::load(PanelTail::of(panel, tile.k_padded));
        for (i, total) in totals.into_iter().enumerate() {
            tail.store(total, out.add(i * out_stride), store);
        }
    }
}

/// The totals of `R` tokens and one panel with block scales.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_blocks<const R: usize>(tile: &Tile<'_>, totals: &mut [__m256; R]) {
    let blocks_per_group = tile.group_len / BLOCK;
    for (g, sx) in tile.lhs_scales.as_chunks::<R>().0.iter().enumerate() {
        let first = g * blocks_per_group;
        let mut sums = [_mm256_setzero_ps(); R];
        let scales = &tile.scales_of_panel(0)[first..][..blocks_per_group];
        for (b, sw) in (first..).zip(scales) {
            // SAFETY: the steps of the block are inside the panel and the packed tokens; a block
            // has eight scales.
            let (acc, sw) = unsafe {
                let weights = tile.panels.as_ptr().add(b * BLOCK_STEPS * STEP_BYTES);
                let x = tile.lhs.as_ptr().add(b * BLOCK * R * WIDE);
                (
                    products::<R>(weights, x, BLOCK_STEPS),
                    _mm256_loadu_ps(sw.as_ptr()),
                )
            };
            for (sum, acc) in sums.iter_mut().zip(acc) {
                *sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum_rows(acc)), sw, *sum);
            }
        }
        for ((total, sum), sx) in totals.iter_mut().zip(sums).zip(sx) {
            *total = _mm256_fmadd_ps(sum, _mm256_set1_ps(*sx), *total);
        }
    }
}

/// `R` tokens times one panel over `steps` steps.
///
/// # Safety
///
/// * The CPU has AVX2.
/// * `weights` and `x` point at `steps` steps, of `x` with `R` tokens each.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn products<const R: usize>(
    weights: *const u8,
    x: *const i8,
    steps: usize,
) -> [[__m256i; 2]; R] {
    let mut acc = [[_mm256_setzero_si256(); 2]; R];
    for step in 0..steps {
        // SAFETY: the step is one of `steps`.
        let (weights, x) = unsafe {
            let bytes = weights.add(step * STEP_BYTES);
            (
                [widen(bytes), widen(bytes.add(STEP_BYTES / 2))],
                x.add(step * R * K_GROUP * WIDE),
            )
        };
        for (i, acc) in acc.iter_mut().enumerate() {
            // SAFETY: a step holds R groups of 8 bytes.
            let x = unsafe { x.add(i * K_GROUP * WIDE).cast::<i64>().read_unaligned() };
            let x = _mm256_set1_epi64x(x);
            acc[0] = _mm256_add_epi32(acc[0], _mm256_madd_epi16(weights[0], x));
            acc[1] = _mm256_add_epi32(acc[1], _mm256_madd_epi16(weights[1], x));
        }
    }
    acc
}

/// Sixteen bytes as 16-bit values.
///
/// # Safety
///
/// * The CPU has AVX2; 16 bytes are readable.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) unsafe fn widen(from: *const u8) -> __m256i {
    // SAFETY: by the caller's promise.
    _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(from.cast()) })
}

/// Adds the two partial sums of each row and puts the rows in order.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn sum_rows(acc: [__m256i; 2]) -> __m256i {
    // Rows after the horizontal sum: 0 1 4 5 │ 2 3 6 7.
    _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_hadd_epi32(acc[0], acc[1]))
}
