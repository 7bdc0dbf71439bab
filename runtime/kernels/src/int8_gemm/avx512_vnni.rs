//! AVX-512 VNNI (Ice Lake, Zen 4 and later): up to 12 tokens × 4 panels, VPDPBUSD.
//!
//! ```text
//!                          zmm: panel 0 │ panel 1            zmm: panel 2 │ panel 3
//!   weights of one step    r0 r1 … r7   │ r0 … r7            r0 … r7      │ r0 … r7    (4 bytes each)
//!   token 0  x[4s..4s+4]   acc[0][0] += w · x                acc[0][1] += w · x
//!     ⋮      broadcast     ⋮                                 ⋮
//!   token 11               acc[11][0]                        acc[11][1]
//!
//!   24 accumulators + 2 weights + broadcasts in 32 registers
//! ```
//!
//! VPDPBUSD wants one unsigned operand. Weights become `w + 128` by flipping the top bit, and each
//! accumulator starts at `-128 · Σ x` of its token and group, which takes the excess away again:
//! exact modulo 2³², and the true sum fits. With scales by groups, six tokens at a time: [`groups`].

mod groups;
mod int4;
mod packing;

use std::arch::x86_64::*;

use super::epilogue::TailZmm;
use super::{Microkernel, Tile, with_rows};
use crate::isa::Isa;
use crate::linear::Store;
use crate::panels::{K_GROUP, PANEL_ROWS, STEP_BYTES};
use crate::prefetch::{prefetch, prefetch_line};

const MR: usize = 12;
const PANELS: usize = 4;
const NR: usize = PANELS * PANEL_ROWS;
/// Panels side by side in one register, and registers of weights.
const PAIR: usize = 2;
/// Columns, or words, of a register.
const WORDS: usize = PAIR * PANEL_ROWS;

struct Avx512Vnni {
    // Not constructible outside `probe`, which is what proves the instructions exist.
    _proof: (),
}

pub(super) fn probe() -> Option<&'static dyn Microkernel> {
    static KERNEL: Avx512Vnni = Avx512Vnni { _proof: () };
    let isa = Isa::probe();
    (isa.has_avx512() && isa.has("avx512vnni")).then_some(&KERNEL)
}

// SAFETY: `probe` is the only constructor and checks the features.
unsafe impl Microkernel for Avx512Vnni {
    fn name(&self) -> &'static str {
        "x86_64-qd8qc8w-avx512vnni-12x32"
    }
    fn mr(&self) -> usize {
        MR
    }
    fn nr(&self) -> usize {
        NR
    }
    fn uses_lhs_sums(&self) -> bool {
        true
    }
    fn asks_ahead(&self) -> bool {
        true
    }
    fn run_in_registers(&self, turns: u64) -> u64 {
        const PRODUCTS: u64 = 24 * 64;
        if turns > 0 {
            // SAFETY: touches registers only; having `self` proves the instruction.
            unsafe {
                std::arch::asm!(
                    "2:",
                    "vpdpbusd zmm0, zmm30, zmm31",
                    "vpdpbusd zmm1, zmm30, zmm31",
                    "vpdpbusd zmm2, zmm30, zmm31",
                    "vpdpbusd zmm3, zmm30, zmm31",
                    "vpdpbusd zmm4, zmm30, zmm31",
                    "vpdpbusd zmm5, zmm30, zmm31",
                    "vpdpbusd zmm6, zmm30, zmm31",
                    "vpdpbusd zmm7, zmm30, zmm31",
                    "vpdpbusd zmm8, zmm30, zmm31",
                    "vpdpbusd zmm9, zmm30, zmm31",
                    "vpdpbusd zmm10, zmm30, zmm31",
                    "vpdpbusd zmm11, zmm30, zmm31",
                    "vpdpbusd zmm12, zmm30, zmm31",
                    "vpdpbusd zmm13, zmm30, zmm31",
                    "vpdpbusd zmm14, zmm30, zmm31",
                    "vpdpbusd zmm15, zmm30, zmm31",
                    "vpdpbusd zmm16, zmm30, zmm31",
                    "vpdpbusd zmm17, zmm30, zmm31",
                    "vpdpbusd zmm18, zmm30, zmm31",
                    "vpdpbusd zmm19, zmm30, zmm31",
                    "vpdpbusd zmm20, zmm30, zmm31",
                    "vpdpbusd zmm21, zmm30, zmm31",
                    "vpdpbusd zmm22, zmm30, zmm31",
                    "vpdpbusd zmm23, zmm30, zmm31",
                    "dec {turns}",
                    "jnz 2b",
                    turns = inout(reg) turns => _,
                    out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _, out("zmm4") _, out("zmm5") _, out("zmm6") _, out("zmm7") _, out("zmm8") _, out("zmm9") _, out("zmm10") _, out("zmm11") _, out("zmm12") _, out("zmm13") _, out("zmm14") _, out("zmm15") _, out("zmm16") _, out("zmm17") _, out("zmm18") _, out("zmm19") _, out("zmm20") _, out("zmm21") _, out("zmm22") _, out("zmm23") _,
                    options(nomem, nostack),
                );
            }
        }
        turns * PRODUCTS
    }
    fn pack_lhs(&self, rows: &[i8], k_padded: usize, out: &mut [i8]) {
        assert!(rows.len() == out.len() && k_padded.is_multiple_of(4 * K_GROUP));
        // SAFETY: having `self` proves the instructions; so many rows have the lengths just checked.
        unsafe {
            with_rows!(
                rows.len() / k_padded,
                R in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12] => packing::pack::<R>(rows, k_padded, out)
            );
        }
    }
    fn sum_lhs(&self, packed: &[i8], rows: usize, len: usize, sums: &mut [i32]) {
        assert!(packed.len() == len * sums.len() && len.is_multiple_of(4 * K_GROUP));
        // SAFETY: having `self` proves the instructions; the lengths were checked.
        unsafe {
            with_rows!(
                rows,
                R in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12] => packing::sum::<R>(packed, len, sums)
            );
        }
    }
    unsafe fn tile(&self, tile: &Tile<'_>, out: *mut f32, out_stride: usize, store: Store) {
        tile.debug_check(self);
        // SAFETY: having `self` proves the instructions; the rest is the caller's contract.
        unsafe {
            with_rows!(
                tile.rows,
                R in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12] => tile_vnni::<R>(tile, out, out_stride, store)
            );
        }
    }
    fn takes_int4(&self) -> bool {
        true
    }
    unsafe fn int4_tile(&self, tile: &Tile<'_>, out: *mut f32, out_stride: usize, store: Store) {
        tile.debug_check_int4(self);
        prefetch(tile.ahead);
        // SAFETY: having `self` proves the instructions; the rest is the caller's contract.
        unsafe {
            with_rows!(
                tile.rows,
                R in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12] => int4::tile::<R>(tile, out, out_stride, store)
            );
        }
    }
}

/// # Safety
///
/// * The CPU has AVX-512 F, BW, VL and VNNI; the tile has `R` tokens.
/// * The rest as in [`Microkernel::tile`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn tile_vnni<const R: usize>(
    tile: &Tile<'_>,
    out: *mut f32,
    out_stride: usize,
    store: Store,
) {
    let stride = tile.panel_stride();
    let last = tile.n_panels - 1;
    let start = tile.panels.as_ptr();
    // A missing panel repeats the last one; its columns are not stored.
    let panels = [
        start,
        start.wrapping_add(last.min(1) * stride),
        start.wrapping_add(last.min(2) * stride),
        start.wrapping_add(last.min(3) * stride),
    ];
    let scales_and_sums = (
        tile.lhs_scales.as_chunks::<R>().0,
        tile.lhs_sums.as_chunks::<R>().0,
    );
    // SAFETY: by the caller's promises; the panels are whole.
    unsafe {
        match scales_and_sums {
            ([scales], [sums]) => {
                in_one_go(tile, panels, (scales, sums), out, out_stride, store);
            }
            _ => groups::tile(tile, panels, out, out_stride, store),
        }
    }
}

/// A tile with one scale for each token: sums go from registers to `out`.
///
/// # Safety
///
/// * As in [`tile_vnni`], with four whole panels.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn in_one_go<const R: usize>(
    tile: &Tile<'_>,
    panels: [*const u8; 2 * PAIR],
    (scales, sums): (&[f32; R], &[i32; R]),
    out: *mut f32,
    out_stride: usize,
    store: Store,
) {
    let (x, steps) = (tile.lhs.as_ptr(), tile.k_padded / K_GROUP);
    // SAFETY: the panels are whole and the packed tokens have as many steps; row i of `out` holds
    // the columns of the panels, for `Add` initialised.
    unsafe {
        let mut starts = [0; WORDS];
        let mask = (1 << R) - 1;
        let sums = _mm512_maskz_loadu_epi32(mask, sums.as_ptr());
        _mm512_storeu_epi32(starts.as_mut_ptr(), without_excess(sums));
        let starts = &starts.as_chunks::<R>().0[0];
        let mut requests = Requests::new(tile, 1);
        let acc = products(panels, x, R, starts, steps, &mut requests);
        for j in 0..tile.n_panels.div_ceil(PAIR) {
            let tail = TailZmm::load(tile, panels, j);
            for (i, (acc, scale)) in acc.iter().zip(scales).enumerate() {
                let scale = _mm512_set1_ps(*scale);
                let sum = _mm512_cvtepi32_ps(acc[j]);
                let total = _mm512_fmadd_ps(sum, scale, _mm512_setzero_ps());
                tail.store(total, out.add(i * out_stride + j * WORDS), store);
            }
        }
    }
}

/// What accumulators start at, from the sums of tokens: minus what the excess of the weights adds.
#[inline]
#[target_feature(enable = "avx512f")]
fn without_excess(sums: __m512i) -> __m512i {
    _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32::<7>(sums))
}

/// `R` tokens of `places` packed side by side times four panels over `steps` steps, added to
/// `starts`.
///
/// # Safety
///
/// * The CPU has AVX-512 F and VNNI.
/// * `weights` and `x` point at `steps` steps, of `x` with `places` tokens each, at least `R` to be
///   read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn products<const R: usize>(
    weights: [*const u8; 2 * PAIR],
    x: *const i8,
    places: usize,
    starts: &[i32; R],
    steps: usize,
    requests: &mut Requests,
) -> [[__m512i; PAIR]; R] {
    // No closures in here: one that a function of the standard library calls is compiled without
    // the instructions of this one, and does not get inlined.
    let mut acc = [[_mm512_setzero_si512(); PAIR]; R];
    for (acc, start) in acc.iter_mut().zip(starts) {
        *acc = [_mm512_set1_epi32(*start); PAIR];
    }
    // Tokens come in multiples of four steps.
    for four in 0..steps / 4 {
        for step in 4 * four..4 * four + 4 {
            let offset = step * STEP_BYTES;
            requests.ask();
            // SAFETY: the step is one of `steps`, 32 bytes of each panel.
            let (weights, x) = unsafe {
                (
                    [
                        load_pair(weights[0].add(offset), weights[1].add(offset)),
                        load_pair(weights[2].add(offset), weights[3].add(offset)),
                    ],
                    x.add(step * places * K_GROUP),
                )
            };
            for (i, acc) in acc.iter_mut().enumerate() {
                // SAFETY: a step holds groups of 4 bytes, R at least.
                let x = unsafe { x.add(i * K_GROUP).cast::<i32>().read_unaligned() };
                let x = _mm512_set1_epi32(x);
                acc[0] = _mm512_dpbusd_epi32(acc[0], weights[0], x);
                acc[1] = _mm512_dpbusd_epi32(acc[1], weights[1], x);
            }
        }
    }
    acc
}

/// Requests for the weights of later tiles, spread over the steps of this one: a step makes one,
/// so that no load has to wait behind many.
struct Requests {
    next: *const u8,
    bytes_per_step: usize,
}

impl Requests {
    /// For a tile that goes over its steps `passes` times.
    #[inline(always)]
    fn new(tile: &Tile<'_>, passes: usize) -> Requests {
        // A request for no memory at all would look for it in vain at every step.
        if tile.ahead.is_empty() {
            return Requests {
                next: tile.panels.as_ptr(),
                bytes_per_step: 0,
            };
        }
        let steps = tile.k_padded / K_GROUP * passes;
        Requests {
            next: tile.ahead.as_ptr(),
            bytes_per_step: tile.ahead.len().div_ceil(steps.max(1)),
        }
    }

    #[inline(always)]
    fn ask(&mut self) {
        prefetch_line(self.next);
        self.next = self.next.wrapping_add(self.bytes_per_step);
    }
}

/// The places `bytes` after the given ones.
#[inline(always)]
fn moved([a, b, c, d]: [*const u8; 2 * PAIR], bytes: usize) -> [*const u8; 2 * PAIR] {
    [
        a.wrapping_add(bytes),
        b.wrapping_add(bytes),
        c.wrapping_add(bytes),
        d.wrapping_add(bytes),
    ]
}

/// One step of two panels, as `w + 128`.
///
/// # Safety
///
/// * The CPU has AVX-512 F; 32 bytes are readable at both pointers.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load_pair(low: *const u8, high: *const u8) -> __m512i {
    // SAFETY: by the caller's promise.
    let (low, high) = unsafe {
        (
            _mm256_loadu_si256(low.cast()),
            _mm256_loadu_si256(high.cast()),
        )
    };
    let both = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
    _mm512_xor_si512(both, _mm512_set1_epi32(0x8080_8080_u32 as i32))
}
