//! The shapes of the tile registers, which a thread sets before it uses them and gives back
//! afterwards, so that the system need not keep 8 kB for it at every change of threads.

use std::arch::asm;
use std::cell::Cell;

use super::CHUNK;
use crate::int8_gemm::Tile;
use crate::panels::{K_ALIGN, K_GROUP};
use crate::prefetch::LINE;

/// Most tokens of a register.
pub(super) const TOKENS: usize = 16;
/// Registers of sums, then two of tokens and two of weights.
const REGISTERS: usize = 8;

/// What the registers of a tile hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Tokens of a register.
    pub(super) rows: usize,
    /// Values multiplied by one instruction: 64, 32 or 16.
    pub(super) depth: usize,
}

thread_local! {
    static SET: Cell<Option<Shape>> = const { Cell::new(None) };
}

/// What LDTILECFG loads.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Shape {
    /// For `rows` tokens in as few registers as can hold them, and sums of `len` values, a multiple of
    /// 16.
    #[inline(always)]
    pub(super) fn new(rows: usize, len: usize) -> Shape {
        // The largest power of two that divides the length.
        let depth = (1 << len.trailing_zeros().min(CHUNK.ilog2())).max(K_ALIGN);
        Shape {
            rows: rows.div_ceil(rows.div_ceil(TOKENS)),
            depth,
        }
    }

    /// For the sums of a tile.
    #[inline(always)]
    pub(super) fn of(tile: &Tile<'_>) -> Shape {
        let len = match tile.block_scales {
            [] => tile.group_len,
            _ => crate::int4_panels::BLOCK,
        };
        Shape::new(tile.rows, len)
    }

    /// Registers that hold all tokens of a tile.
    #[inline(always)]
    pub(super) fn registers(self, tile: &Tile<'_>) -> usize {
        tile.rows.div_ceil(self.rows)
    }

    /// First token of a register: the last ones begin earlier where tokens are missing, as all are
    /// equally long.
    #[inline(always)]
    pub(super) fn first(self, tile: &Tile<'_>, register: usize) -> usize {
        (register * self.rows).min(tile.rows - self.rows)
    }

    /// Gives the registers of this thread their shapes, unless they have them. Only where a kernel
    /// of this file exists, which proves that the CPU and the system allow it.
    #[inline(always)]
    pub(super) fn set(self) {
        if SET.get() != Some(self) {
            self.load();
        }
    }

    #[inline(never)]
    fn load(self) {
        let mut configuration = Configuration {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: [0; 16],
            rows: [0; 16],
        };
        for register in 0..REGISTERS {
            let (rows, bytes) = match register {
                0..4 => (self.rows, LINE),
                4..6 => (self.rows, self.depth),
                _ => (self.depth / K_GROUP, LINE),
            };
            configuration.rows[register] = rows as u8;
            configuration.row_bytes[register] = bytes as u16;
        }
        // SAFETY: reads the 64 bytes of a valid configuration; kernels are the only users of the
        // registers.
        unsafe {
            asm!(
                "ldtilecfg [{at}]",
                at = in(reg) &raw const configuration,
                options(readonly, nostack, preserves_flags)
            );
        }
        SET.set(Some(self));
    }
}

/// Gives the registers of this thread back.
pub(super) fn release() {
    if SET.take().is_some() {
        // SAFETY: clears the tile registers, which only kernels use.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
    }
}
