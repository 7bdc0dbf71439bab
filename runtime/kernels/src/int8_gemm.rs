//! Int8 GEMM microkernels: several tokens times several panels, one tile at a time. A kernel takes
//! any number of tokens up to its own, so that a product costs what its tokens cost.
//!
//! `out[i][r] = (Σ_g f32(Σ_k lhs[i][k] · rhs[r][k]) · sx[i][g]) · sw[r] + bias[r]`
//!
//! The inner sum over the k of a group is exact in i32. The rest is f32 with one fused
//! multiply-add per step, in this order, the same in every kernel, so that all kernels give the
//! same bits:
//!
//! ```text
//! t = +0;  for each group g in order: t = fma(f32(acc_g), sx[g], t);  value = fma(t, sw, bias)
//! ```
//!
//! Adding a kernel = one file in this folder, one in each `…_gemv/`, one line in `PREFERENCE`.

use std::fmt;

use crate::int4_gemv::{self, Int4GemvKernel};
use crate::int4_panels::BLOCK;
use crate::int8_gemv::{self, GemvKernel};
use crate::lanes::FloatTier;
use crate::linear::Store;
use crate::nibble_gemv::{self, NibbleGemvKernel};
use crate::panels::{K_GROUP, PANEL_ROWS};

pub(crate) use scalar::dot as scalar_dot;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512_vnni;
pub(crate) mod epilogue;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon_dotprod;
mod scalar;
#[cfg(test)]
mod tests;

/// Most values of a tile of any kernel.
pub const MAX_TILE: usize = if cfg!(target_arch = "x86_64") {
    96 * 32
} else {
    12 * 32
};

/// One operand set of [`Microkernel::tile`].
#[derive(Clone, Copy, Debug)]
pub struct Tile<'a> {
    /// Tokens, between one and `mr`, or `grouped_mr` where they have several scales.
    pub rows: usize,
    /// The tokens in the kernel's own order, from [`Microkernel::pack_lhs`].
    pub lhs: &'a [i8],
    /// Scales of the tokens, `[n_groups, rows]`.
    pub lhs_scales: &'a [f32],
    /// Sums of the int8 values of each group, `[n_groups, rows]`, or with block scales of each
    /// block; empty unless the kernel asks.
    pub lhs_sums: &'a [i32],
    /// Whole panels, between one and `nr / 8`, or their pairs for a kernel that
    /// [takes them so](Microkernel::takes_pairs). A kernel that wants more repeats the last.
    pub panels: &'a [u8],
    /// Scales of blocks of 32 weights, `[n_panels, k / 32, 8]`, in pairs `[n_pairs, k / 32, 16]`: the
    /// weights were int4 ones, and the float steps are those of [`crate::int4_gemv`]. Empty for int8
    /// weights.
    pub block_scales: &'a [f32],
    /// Number of panels.
    pub n_panels: usize,
    /// Values per row, padded.
    pub k_padded: usize,
    /// Values per scale: `k_padded`, or a multiple of 16 that divides it.
    pub group_len: usize,
    /// Weights that will be wanted next, for a kernel that [asks](Microkernel::asks_ahead) for them.
    pub ahead: &'a [u8],
}

/// An int8 kernel for tiles of up to `mr` tokens times `nr` output rows.
///
/// # Safety
///
/// Implementors hand out a value of `Self` only on a machine that executes the instructions the
/// kernel uses: having one proves capability.
pub unsafe trait Microkernel: Sync {
    /// `{arch}-qd8qc8w-{isa}-{mr}x{nr}`, e.g. `aarch64-qd8qc8w-dotprod-12x24`.
    fn name(&self) -> &'static str;
    /// Most tokens of a tile.
    fn mr(&self) -> usize;
    /// Tokens that a tile costs together: it may as well have a multiple of them.
    fn tokens_together(&self) -> usize {
        1
    }
    /// Most tokens of a tile whose tokens have several scales each.
    fn grouped_mr(&self) -> usize {
        self.mr()
    }
    /// Output rows of a tile, a multiple of 8.
    fn nr(&self) -> usize;

    /// Panels to multiply with all tokens of a block before the next ones come, at most `nr / 8`: a
    /// share of the first cache level.
    fn panels_at_once(&self, _k_padded: usize) -> usize {
        self.nr() / PANEL_ROWS
    }

    /// Runs `turns` turns of the products of the inner loop with nothing but registers, and returns
    /// how many products that were: what the CPU could do at best.
    fn run_in_registers(&self, turns: u64) -> u64;

    /// Most bytes of packed tokens that should meet the same panels before the next ones come: a
    /// share of the second cache level of a small core.
    fn lhs_block_bytes(&self) -> usize {
        160 * 1024
    }

    /// Bytes of `rows` packed tokens; proportional to `k_padded`.
    fn lhs_bytes(&self, rows: usize, k_padded: usize) -> usize {
        rows * k_padded
    }

    /// True if [`Tile::lhs_sums`] must be filled.
    fn uses_lhs_sums(&self) -> bool {
        false
    }

    /// True if [`Microkernel::tile`] asks for the memory of [`Tile::ahead`] on its way.
    fn asks_ahead(&self) -> bool {
        false
    }

    /// Packs the tokens `[rows, k_padded]`, one to `mr` of them, into `out`,
    /// [`Microkernel::lhs_bytes`] long. The order is k-major: ranges of k, multiples of 64 but for
    /// the last, packed one after the other give the packing of the whole.
    fn pack_lhs(&self, rows: &[i8], k_padded: usize, out: &mut [i8]) {
        pack_interleaved(rows, k_padded, rows.len() / k_padded, out);
    }

    /// Sums of every `len` values, a multiple of 16, of `rows` packed tokens, `[groups, rows]`: what a
    /// kernel that [uses](Microkernel::uses_lhs_sums) them finds in [`Tile::lhs_sums`].
    fn sum_lhs(&self, _packed: &[i8], rows: usize, _len: usize, _sums: &mut [i32]) {
        unreachable!("{} uses no sums, here of {rows} tokens", self.name())
    }

    /// Writes (or adds to) `tile.rows` rows of `8 * n_panels` values, `out_stride` apart.
    ///
    /// # Safety
    ///
    /// * `tile` is consistent: lengths follow from `rows`, `k_padded`, `group_len` and `n_panels`,
    ///   `k_padded` is a multiple of 16, the panels are 64-byte aligned.
    /// * `out` is writable for `rows` rows of `8 * n_panels` values, `out_stride` values apart, and
    ///   for [`Store::Add`] initialised.
    unsafe fn tile(&self, tile: &Tile<'_>, out: *mut f32, out_stride: usize, store: Store);

    /// [`Microkernel::tile`] for any number of int8 panels.
    ///
    /// # Safety
    ///
    /// * As for [`Microkernel::tile`].
    unsafe fn tiles(&self, tile: &Tile<'_>, out: *mut f32, out_stride: usize, store: Store) {
        // SAFETY: by the caller's promise.
        unsafe { self.one_by_one(tile, out, out_stride, store) };
    }

    /// [`Microkernel::tiles`] by calls of [`Microkernel::tile`].
    ///
    /// # Safety
    ///
    /// * As for [`Microkernel::tile`].
    unsafe fn one_by_one(&self, tile: &Tile<'_>, out: *mut f32, out_stride: usize, store: Store) {
        let (stride, at_once) = (tile.panel_stride(), self.nr() / PANEL_ROWS);
        for first in (0..tile.n_panels).step_by(at_once) {
            let n_panels = at_once.min(tile.n_panels - first);
            let part = Tile {
                panels: &tile.panels[first * stride..][..n_panels * stride],
                n_panels,
                ..*tile
            };
            // SAFETY: by the caller's promise; panels start on lines.
            unsafe {
                let out = out.add(first * PANEL_ROWS);
                self.tile(&part, out, out_stride, store);
            }
        }
    }

    /// True for a kernel that takes panels in pairs, laid out by [`Microkernel::pair`] or
    /// [`Microkernel::pair_int4`], [`pair_bytes`] each; [`Microkernel::tiles`] takes them as they are
    /// stored nevertheless.
    fn takes_pairs(&self) -> bool {
        false
    }

    /// Lays out two int8 panels as a kernel that [takes pairs](Microkernel::takes_pairs) wants them.
    ///
    /// # Panics
    ///
    /// Panics if a length does not fit.
    fn pair(&self, _panels: [&[u8]; 2], k_padded: usize, _out: &mut [u8]) {
        unreachable!("{} takes no pairs, here of {k_padded} values", self.name())
    }

    /// [`Microkernel::pair`] of two int4 panels, which are widened, and the scales of their blocks,
    /// `[k / 32, 16]`.
    ///
    /// # Panics
    ///
    /// Panics if a length does not fit.
    fn pair_int4(&self, _panels: [&[u8]; 2], k: usize, _out: &mut [u8], _scales: &mut [f32]) {
        unreachable!("{} takes no pairs, here of {k} values", self.name())
    }

    /// The kernel to take instead of this one for so few tokens, if there is a faster one.
    fn for_few(&self, _tokens: usize) -> Option<&'static dyn Microkernel> {
        None
    }

    /// Gives back what [`Microkernel::tile`] has set up for the calling thread, which has computed
    /// its last one for now.
    fn finish(&self) {}

    /// True for a kernel that takes int4 panels as they are stored; for others they are widened,
    /// with their scales in [`Tile::block_scales`].
    fn takes_int4(&self) -> bool {
        false
    }

    /// [`Microkernel::tile`] of a kernel that [takes int4 panels](Microkernel::takes_int4): `panels`
    /// are those of [`crate::int4_panels`], `lhs_sums` those of blocks, `block_scales` is empty.
    ///
    /// # Safety
    ///
    /// * As for [`Microkernel::tile`]; `k_padded` and `group_len` are multiples of 32.
    unsafe fn int4_tile(&self, tile: &Tile<'_>, _: *mut f32, _: usize, _: Store) {
        unreachable!(
            "{} takes no int4 panels, here {}",
            self.name(),
            tile.n_panels
        )
    }
}

/// Bytes of a pair of panels for a kernel that [takes them](Microkernel::takes_pairs): all steps, 16
/// scales, 16 biases.
pub(crate) const fn pair_bytes(k_padded: usize) -> usize {
    2 * PANEL_ROWS * (k_padded + 2 * size_of::<f32>())
}

/// `with_rows!(rows, R in [1, 2, …] => f::<R>(…))`: calls with the number of tokens as a constant.
macro_rules! with_rows {
    ($rows:expr, $name:ident in [$($count:literal),*] => $call:expr) => {
        match $rows {
            $($count => { const $name: usize = $count; $call })*
            rows => unreachable!("a tile of {rows} tokens"),
        }
    };
}
pub(crate) use with_rows;

impl fmt::Debug for dyn Microkernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The kernels that go together on one CPU.
#[derive(Clone, Copy, Debug)]
pub struct Kernels {
    /// More than one token.
    pub gemm: &'static dyn Microkernel,
    /// One token.
    pub gemv: &'static dyn GemvKernel,
    /// One token and int4 weights.
    pub int4_gemv: &'static dyn Int4GemvKernel,
    /// One token and a plane of 4-bit halves.
    pub nibble_gemv: &'static dyn NibbleGemvKernel,
    /// Vector width of the float functions.
    pub float_tier: FloatTier,
}

type Probe = fn() -> Option<Kernels>;

/// Every kernel of this build, best first. The only list: dispatch, tests, benches and logs read it.
static PREFERENCE: &[Probe] = &[
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    || {
        Some(Kernels {
            gemm: amx::probe()?,
            gemv: int8_gemv::avx512_vnni::probe()?,
            int4_gemv: int4_gemv::avx512_vnni::probe()?,
            nibble_gemv: nibble_gemv::avx512_vnni::probe()?,
            float_tier: FloatTier::by_name("avx512")?,
        })
    },
    #[cfg(target_arch = "x86_64")]
    || {
        Some(Kernels {
            gemm: avx512_vnni::probe()?,
            gemv: int8_gemv::avx512_vnni::probe()?,
            int4_gemv: int4_gemv::avx512_vnni::probe()?,
            nibble_gemv: nibble_gemv::avx512_vnni::probe()?,
            float_tier: FloatTier::by_name("avx512")?,
        })
    },
    #[cfg(target_arch = "x86_64")]
    || {
        Some(Kernels {
            gemm: avx2::probe()?,
            gemv: int8_gemv::avx2::probe()?,
            int4_gemv: int4_gemv::avx2::probe()?,
            nibble_gemv: nibble_gemv::avx2::probe()?,
            float_tier: FloatTier::by_name("avx2")?,
        })
    },
    #[cfg(target_arch = "aarch64")]
    || {
        Some(Kernels {
            gemm: neon_dotprod::probe()?,
            gemv: int8_gemv::neon_dotprod::probe()?,
            int4_gemv: int4_gemv::neon_dotprod::probe()?,
            nibble_gemv: nibble_gemv::neon_dotprod::probe()?,
            float_tier: FloatTier::by_name("neon")?,
        })
    },
    #[cfg(target_arch = "aarch64")]
    || {
        Some(Kernels {
            gemm: neon::probe()?,
            gemv: int8_gemv::neon::probe()?,
            int4_gemv: int4_gemv::neon::probe()?,
            nibble_gemv: nibble_gemv::neon::probe()?,
            float_tier: FloatTier::by_name("neon")?,
        })
    },
    || {
        Some(Kernels {
            gemm: scalar::probe()?,
            gemv: int8_gemv::scalar::probe()?,
            int4_gemv: int4_gemv::scalar::probe()?,
            nibble_gemv: nibble_gemv::scalar::probe()?,
            float_tier: FloatTier::by_name("scalar")?,
        })
    },
];

/// The kernels this CPU can run, best first. Never empty: the scalar ones always can.
pub fn available() -> impl Iterator<Item = Kernels> {
    PREFERENCE.iter().filter_map(|probe| probe())
}

/// The kernels whose GEMM has this name, if this CPU can run them.
pub fn by_name(name: &str) -> Option<Kernels> {
    available().find(|kernels| kernels.gemm.name() == name)
}

/// Packs rows as `[k / 4][places][4]`; places after the rows keep what they held.
fn pack_interleaved(rows: &[i8], k_padded: usize, places: usize, out: &mut [i8]) {
    debug_assert!(rows.len() <= places * k_padded && rows.len().is_multiple_of(k_padded));
    debug_assert_eq!(out.len(), places * k_padded);
    let step = places * K_GROUP;
    for (i, row) in rows.chunks_exact(k_padded).enumerate() {
        for (group, out) in row
            .as_chunks::<K_GROUP>()
            .0
            .iter()
            .zip(out.chunks_exact_mut(step))
        {
            out[i * K_GROUP..][..K_GROUP].copy_from_slice(group);
        }
    }
}

impl Tile<'_> {
    /// Number of scales per token.
    #[inline(always)]
    pub(crate) fn n_groups(&self) -> usize {
        self.k_padded / self.group_len
    }

    /// The block scales of one panel, `[k / 32][8]`.
    #[inline(always)]
    pub(crate) fn scales_of_panel(&self, panel: usize) -> &[[f32; PANEL_ROWS]] {
        let n_blocks = self.k_padded / BLOCK;
        &self.block_scales.as_chunks().0[panel * n_blocks..][..n_blocks]
    }

    /// Bytes from one panel to the next.
    #[inline(always)]
    pub(crate) fn panel_stride(&self) -> usize {
        crate::panels::panel_stride(self.k_padded)
    }

    /// Debug check of the lengths that [`Microkernel::int4_tile`] requires.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn debug_check_int4(&self, kernel: &dyn Microkernel) {
        self.debug_check_lhs(kernel, BLOCK);
        debug_assert!(self.block_scales.is_empty() && self.group_len.is_multiple_of(BLOCK));
        let stride = crate::int4_panels::int4_panel_stride(self.k_padded);
        debug_assert_eq!(self.panels.len(), self.n_panels * stride);
    }

    /// Debug check of the lengths that [`Microkernel::tile`] of a kernel requires that takes pairs.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    pub(crate) fn debug_check_pairs(&self, kernel: &dyn Microkernel) {
        self.debug_check_lhs(kernel, self.group_len);
        let n_pairs = self.n_panels.div_ceil(2);
        let n_scales = n_pairs * self.k_padded / BLOCK * 2 * PANEL_ROWS;
        debug_assert!(self.block_scales.is_empty() || self.block_scales.len() == n_scales);
        debug_assert_eq!(self.panels.len(), n_pairs * pair_bytes(self.k_padded));
    }

    fn debug_check_lhs(&self, kernel: &dyn Microkernel, sum_len: usize) {
        let most = match self.n_groups() {
            1 => kernel.mr(),
            _ => kernel.grouped_mr(),
        };
        debug_assert!((1..=most).contains(&self.rows));
        debug_assert_eq!(self.lhs.len(), kernel.lhs_bytes(self.rows, self.k_padded));
        debug_assert_eq!(self.lhs_scales.len(), self.n_groups() * self.rows);
        let n_sums = self.k_padded / sum_len * self.rows;
        debug_assert!(!kernel.uses_lhs_sums() || self.lhs_sums.len() == n_sums);
        debug_assert!((1..=kernel.nr() / PANEL_ROWS).contains(&self.n_panels));
        debug_assert!(self.k_padded.is_multiple_of(self.group_len));
    }

    /// Debug check of the lengths that [`Microkernel::tile`] requires.
    pub(crate) fn debug_check(&self, kernel: &dyn Microkernel) {
        let sum_len = if self.block_scales.is_empty() {
            self.group_len
        } else {
            BLOCK
        };
        self.debug_check_lhs(kernel, sum_len);
        let n_scales = self.n_panels * self.k_padded / BLOCK * PANEL_ROWS;
        debug_assert!(self.block_scales.is_empty() || self.block_scales.len() == n_scales);
        debug_assert_eq!(self.panels.len(), self.n_panels * self.panel_stride());
    }
}
