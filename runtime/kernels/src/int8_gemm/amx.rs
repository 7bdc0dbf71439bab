//! AMX (Sapphire Rapids and later): tile registers of 16 tokens × 64 values and of 64 values × 16
//! output rows, TDPBSSD.
//!
//! ```text
//!                             tmm6: panels 0, 1     tmm7: panels 2, 3     (64 bytes: 16 rows × 4 values)
//!   tmm4: up to 16 tokens     tmm0 += x · w         tmm1
//!   tmm5: the next ones       tmm2                  tmm3
//! ```
//!
//! A row of the weights' register is a step of 16 output rows, so panels come in pairs: step by step
//! the 32 bytes of one, then those of the other, laid out once for all tokens ([`pairs`]). Tokens are
//! packed by 64 values, `[k / 64][rows][64]`. Sums leave the tile registers through memory, so what
//! has a scale for every 32 or 64 values goes through [`groups`].
//!
//! The shapes of the registers are set once for all tiles of a product: [`shape`].

mod groups;
mod pairs;
mod shape;

use std::arch::asm;
use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::epilogue::TailZmm;
use super::{Microkernel, Tile};
use crate::isa::Isa;
use crate::linear::Store;
use crate::panels::PANEL_ROWS;
use crate::prefetch::{LINE, prefetch_line};
use shape::{Shape, TOKENS};

const MR: usize = 6 * TOKENS;
const NR: usize = 2 * COLUMNS;
/// Output rows of a register.
const COLUMNS: usize = 2 * PANEL_ROWS;
/// Values of a token that lie side by side when packed.
const CHUNK: usize = 64;
/// Tokens below which a tile register is too empty.
const FEW: usize = TOKENS;
/// Packed tokens of a block of strips: a share of the second cache level, 2 MB on these cores.
const LHS_BLOCK_BYTES: usize = 640 * 1024;

/// Adds the products of the tokens and weights in two registers to a third.
macro_rules! multiply {
    ($sums:literal, $tokens:literal, $weights:literal) => {
        asm!(
            concat!("tdpbssd tmm", $sums, ", tmm", $tokens, ", tmm", $weights),
            options(nomem, nostack, preserves_flags)
        )
    };
}

/// Loads a register from rows that are `stride` bytes apart.
macro_rules! load {
    ($register:literal, $at:expr, $stride:expr) => {
        asm!(
            concat!("tileloadd tmm", $register, ", [{at} + 1*{stride}]"),
            at = in(reg) $at,
            stride = in(reg) $stride,
            options(readonly, nostack, preserves_flags)
        )
    };
}

/// Stores a register of sums, row after row.
macro_rules! store {
    ($register:literal, $at:expr) => {
        asm!(
            concat!("tilestored [{at} + 1*{stride}], tmm", $register),
            at = in(reg) $at,
            stride = in(reg) size_of::<__m512i>(),
            options(nostack, preserves_flags)
        )
    };
}

macro_rules! zero {
    ($register:literal) => {
        asm!(
            concat!("tilezero tmm", $register),
            options(nomem, nostack, preserves_flags)
        )
    };
}

use {load, multiply, store, zero};

struct Amx {
    // Not constructible outside `probe`, which is what proves the instructions exist.
    _proof: (),
}

pub(super) fn probe() -> Option<&'static dyn Microkernel> {
    static KERNEL: Amx = Amx { _proof: () };
    let isa = Isa::probe();
    (isa.has_avx512() && isa.has("amx_int8")).then_some(&KERNEL)
}

// SAFETY: `probe` is the only constructor and checks the features.
unsafe impl Microkernel for Amx {
    fn name(&self) -> &'static str {
        "x86_64-qd8qc8w-amx-96x32"
    }
    fn mr(&self) -> usize {
        MR
    }
    fn nr(&self) -> usize {
        NR
    }
    fn lhs_block_bytes(&self) -> usize {
        LHS_BLOCK_BYTES
    }
    fn asks_ahead(&self) -> bool {
        true
    }
    fn run_in_registers(&self, turns: u64) -> u64 {
        const PRODUCTS: u64 = (4 * TOKENS * COLUMNS * CHUNK) as u64;
        Shape::new(TOKENS, CHUNK).set();
        for _ in 0..turns {
            // SAFETY: touches tile registers only, whose shape was just set.
            unsafe {
                multiply!(0, 4, 6);
                multiply!(1, 4, 7);
                multiply!(2, 5, 6);
                multiply!(3, 5, 7);
            }
        }
        self.finish();
        turns * PRODUCTS
    }
    fn pack_lhs(&self, rows: &[i8], k_padded: usize, out: &mut [i8]) {
        debug_assert!(rows.len() == out.len() && rows.len().is_multiple_of(k_padded));
        let n_rows = rows.len() / k_padded;
        for (i, row) in rows.chunks_exact(k_padded).enumerate() {
            let (chunks, rest) = row.as_chunks::<CHUNK>();
            for (c, chunk) in chunks.iter().enumerate() {
                out[(c * n_rows + i) * CHUNK..][..CHUNK].copy_from_slice(chunk);
            }
            let last = chunks.len() * n_rows * CHUNK + i * rest.len();
            out[last..][..rest.len()].copy_from_slice(rest);
        }
    }
    unsafe fn tile(&self, tile: &Tile<'_>, out: *mut f32, out_stride: usize, store: Store) {
        tile.debug_check_pairs(self);
        // SAFETY: having `self` proves the instructions; the rest is the caller's contract.
        unsafe { tile_amx(tile, out, out_stride, store) };
    }
    unsafe fn tiles(&self, tile: &Tile<'_>, out: *mut f32, out_stride: usize, store: Store) {
        // SAFETY: by the caller's promise.
        unsafe { pairs::tiles(self, tile, out, out_stride, store) };
    }
    fn takes_pairs(&self) -> bool {
        true
    }
    fn pair(&self, panels: [&[u8]; 2], k_padded: usize, out: &mut [u8]) {
        // SAFETY: having `self` proves the instructions.
        unsafe { pairs::pair(panels, k_padded, out) };
    }
    fn pair_int4(&self, panels: [&[u8]; 2], k: usize, out: &mut [u8], scales: &mut [f32]) {
        // SAFETY: having `self` proves the instructions.
        unsafe { pairs::pair_int4(panels, k, out, scales) };
    }
    fn for_few(&self, tokens: usize) -> Option<&'static dyn Microkernel> {
        (tokens < FEW).then(super::avx512_vnni::probe).flatten()
    }
    fn finish(&self) {
        shape::release();
    }
}

/// # Safety
///
/// * The CPU has AMX for int8 and AVX-512 F, BW and VL.
/// * The rest as in [`Microkernel::tile`], with panels in pairs.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn tile_amx(tile: &Tile<'_>, out: *mut f32, out_stride: usize, store: Store) {
    let shape = Shape::of(tile);
    shape.set();
    // SAFETY: by the caller's promises; the shape is set.
    unsafe {
        if tile.n_groups() > 1 || !tile.block_scales.is_empty() {
            groups::tile(tile, shape, out, out_stride, store);
        } else if tile.n_panels > 2 {
            in_one_go::<true>(tile, shape, out, out_stride, store);
        } else {
            in_one_go::<false>(tile, shape, out, out_stride, store);
        }
    }
}

/// A tile with one scale for each token: sums stay in the tile registers to the end. Those of two
/// registers of tokens are finished and written while the next ones are multiplied.
///
/// # Safety
///
/// * As in [`tile_amx`]; `shape` is set. `PAIRS` tells whether there is a second pair of panels.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn in_one_go<const PAIRS: bool>(
    tile: &Tile<'_>,
    shape: Shape,
    out: *mut f32,
    out_stride: usize,
    store: Store,
) {
    let registers = shape.registers(tile);
    let steps = tile.k_padded / shape.depth;
    let mut rooms = [const { Sums::<{ 4 * TOKENS }>::new() }; 2];
    let mut requests = Requests::new(tile, registers.div_ceil(2) * steps);
    // SAFETY: the tile has the pairs, and `out` the rows.
    unsafe {
        let tails = [pairs::tail(tile, 0), pairs::tail(tile, usize::from(PAIRS))];
        let mut rows = Rows::<PAIRS> {
            tile,
            tails,
            out,
            out_stride,
            store,
            next: 0,
            end: 0,
            sums: [rooms[0].register(0); 2],
            second: 0,
        };
        for (turn, register) in (0..registers).step_by(2).enumerate() {
            let room = rooms[turn % 2].register(0);
            let first = shape.first(tile, register);
            let second = (register + 1 < registers).then(|| shape.first(tile, register + 1));
            match second {
                Some(second) => {
                    let tokens = [first, second];
                    multiply_all::<true, PAIRS>(
                        tile,
                        shape,
                        tokens,
                        room,
                        &mut rows,
                        &mut requests,
                    );
                }
                None => {
                    let tokens = [first; 2];
                    multiply_all::<false, PAIRS>(
                        tile,
                        shape,
                        tokens,
                        room,
                        &mut rows,
                        &mut requests,
                    );
                }
            }
            rows.write(usize::MAX);
            // Tokens that two registers have are written once.
            rows.next = register * shape.rows;
            rows.end = ((register + 2) * shape.rows).min(tile.rows);
            rows.second = (register + 1) * shape.rows;
            let half = room.add(2 * TOKENS);
            rows.sums = [
                room.wrapping_sub(first),
                half.wrapping_sub(second.unwrap_or(first)),
            ];
        }
        rows.write(usize::MAX);
    }
}

/// Multiplies the tokens from `tokens` on, of one register or with `TWO` of two, with one or two
/// pairs of panels, and writes some of `rows` after each step. The sums go to `room`, registers in
/// the order of the tokens.
///
/// # Safety
///
/// * As in [`in_one_go`]; there is room for four registers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn multiply_all<const TWO: bool, const PAIRS: bool>(
    tile: &Tile<'_>,
    shape: Shape,
    tokens: [usize; 2],
    room: *mut __m512i,
    rows: &mut Rows<'_, PAIRS>,
    requests: &mut Requests,
) {
    let depth = shape.depth;
    let (weights, pair) = (tile.panels.as_ptr(), pairs::stride(tile.k_padded));
    let rows_per_step = (rows.end - rows.next).div_ceil(tile.k_padded / depth);
    // SAFETY: the packed tokens and the pairs hold k_padded values, of which `depth` are loaded at a
    // time.
    unsafe {
        zero!(0);
        zero!(1);
        zero!(2);
        zero!(3);
        for k in (0..tile.k_padded).step_by(depth) {
            let (x, stride) = packed_at(tile, k);
            let w = weights.add(k * COLUMNS);
            load!(4, x.add(tokens[0] * stride), stride);
            load!(6, w, LINE);
            multiply!(0, 4, 6);
            if PAIRS {
                load!(7, w.add(pair), LINE);
                multiply!(1, 4, 7);
            }
            if TWO {
                load!(5, x.add(tokens[1] * stride), stride);
                multiply!(2, 5, 6);
            }
            if TWO && PAIRS {
                multiply!(3, 5, 7);
            }
            requests.ask();
            rows.write(rows_per_step);
        }
        store!(0, room);
        if PAIRS {
            store!(1, room.add(TOKENS));
        }
        if TWO {
            store!(2, room.add(2 * TOKENS));
        }
        if TWO && PAIRS {
            store!(3, room.add(3 * TOKENS));
        }
    }
}

/// Rows whose sums are there, on their way to the output.
struct Rows<'a, const PAIRS: bool> {
    tile: &'a Tile<'a>,
    tails: [TailZmm; 2],
    out: *mut f32,
    out_stride: usize,
    store: Store,
    /// Tokens.
    next: usize,
    end: usize,
    /// Where token 0 would have its sums if those of the first, or second, register went on, those of
    /// the second pair of panels a register behind.
    sums: [*mut __m512i; 2],
    /// The first token of the second register.
    second: usize,
}

impl<const PAIRS: bool> Rows<'_, PAIRS> {
    /// Writes the next rows, at most `n`.
    ///
    /// # Safety
    ///
    /// * As in [`in_one_go`]; the sums of the rows were stored.
    #[inline(always)]
    unsafe fn write(&mut self, n: usize) {
        let end = self.end.min(self.next.saturating_add(n));
        // SAFETY: by the caller's promise.
        unsafe {
            for row in self.next..end {
                let sums = self.sums[usize::from(row >= self.second)].wrapping_add(row);
                let scale = _mm512_set1_ps(self.tile.lhs_scales[row]);
                let out = self.out.add(row * self.out_stride);
                for j in 0..1 + usize::from(PAIRS) {
                    let sum = _mm512_cvtepi32_ps(_mm512_load_si512(sums.wrapping_add(j * TOKENS)));
                    let total = _mm512_fmadd_ps(sum, scale, _mm512_setzero_ps());
                    self.tails[j].store(total, out.add(j * COLUMNS), self.store);
                }
            }
        }
        self.next = end;
    }
}

/// Room for what the registers of sums hold.
#[repr(align(64))]
struct Sums<const N: usize>([MaybeUninit<__m512i>; N]);

impl<const N: usize> Sums<N> {
    const fn new() -> Sums<N> {
        Sums([MaybeUninit::uninit(); N])
    }

    /// Row 0 of a register.
    #[inline(always)]
    fn register(&mut self, register: usize) -> *mut __m512i {
        debug_assert!((register + 1) * TOKENS <= N);
        self.0.as_mut_ptr().wrapping_add(register * TOKENS).cast()
    }
}

/// Where packed tokens have value `k`, a multiple of the depth, and bytes from token to token.
#[inline(always)]
fn packed_at(tile: &Tile<'_>, k: usize) -> (*const i8, usize) {
    let chunk = k / CHUNK * CHUNK;
    let stride = CHUNK.min(tile.k_padded - chunk);
    let at = chunk * tile.rows + k % CHUNK;
    (tile.lhs.as_ptr().wrapping_add(at), stride)
}

/// Requests for the weights of later tiles, spread over the steps of this one.
struct Requests {
    next: *const u8,
    lines: usize,
}

impl Requests {
    /// For a tile that asks in each of `steps` steps.
    #[inline(always)]
    fn new(tile: &Tile<'_>, steps: usize) -> Requests {
        let lines = tile.ahead.len().div_ceil(LINE);
        Requests {
            next: tile.ahead.as_ptr(),
            lines: lines.div_ceil(steps.max(1)),
        }
    }

    #[inline(always)]
    fn ask(&mut self) {
        for _ in 0..self.lines {
            prefetch_line(self.next);
            self.next = self.next.wrapping_add(LINE);
        }
    }
}
