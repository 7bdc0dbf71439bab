//! Full tiles of one panel after the other, each first with its rows 0..4 and then 4..8: sums and
//! totals of twelve tokens stay in registers, where those of eight rows would go to memory and back
//! for each group of scales.
//!
//! ```text
//!   v0..v11 sums   v12..v23 totals   v24 weights   v25..v30 tokens of two steps   v31 SHORT_START
//! ```
//!
//! Everything that computes waits for two pipelines, which SDOT fills. So sums and results begin by
//! loads from memory instead of moves. LDUR rather than LDR, LDP and LD1: LLVM's model of the core
//! counts one operation for it, more for the others; and ST1, because a store of a whole register by
//! STR takes both pipelines twice as long.

use super::{GROUPS, MR, X_TOKENS};
use crate::int8_gemm::Tile;
use crate::lanes::INTEGER_SHIFT;
use crate::linear::Store;
use crate::panels::{K_GROUP, PanelTail, STEP_BYTES, TAIL_BIASES};

/// Values of the innermost loop.
const BLOCK: usize = 4 * K_GROUP;
/// Length of a group that needs no loop: the one that activations have.
const UNROLLED: usize = 64;
/// Values whose products add up to less than 2^22 in magnitude.
const SHORT: usize = 256;
/// The bits of a short sum begin with those of this number, and are those of a float: the start
/// plus the sum. Taking the start away again is a cheaper conversion than SCVTF, and exact.
const SHORT_START: f32 = INTEGER_SHIFT;

/// Whether the registers take the tile: nearly all places are taken, and sums are short.
#[inline]
pub(super) fn fit<const R: usize>(tile: &Tile<'_>) -> bool {
    let has_scales = R == MR || tile.n_groups() <= GROUPS;
    R.next_multiple_of(X_TOKENS) == MR && tile.group_len <= SHORT && has_scales
}

/// Tiles of all panels.
///
/// # Safety
///
/// * The CPU has FEAT_DotProd; the tile has `R` tokens and [fits](fit).
/// * `scales` points at [`MR`] values for each group.
/// * The rest as in [`crate::int8_gemm::Microkernel::tiles`].
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn tiles<const R: usize>(
    tile: &Tile<'_>,
    scales: *const f32,
    out: *mut f32,
    out_stride: usize,
    store: Store,
) {
    // SAFETY: by the caller's promises.
    unsafe {
        match tile.group_len {
            UNROLLED => tiles_of::<R, { UNROLLED / BLOCK }>(tile, scales, out, out_stride, store),
            _ => tiles_of::<R, 1>(tile, scales, out, out_stride, store),
        }
    }
}

/// [`tiles`] whose innermost loop takes so many times [`BLOCK`] values, or, for more than one, is
/// none because a group has no more.
///
/// # Safety
///
/// * As in [`tiles`].
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn tiles_of<const R: usize, const BLOCKS: usize>(
    tile: &Tile<'_>,
    scales: *const f32,
    out: *mut f32,
    out_stride: usize,
    store: Store,
) {
    const START: [f32; 4] = [SHORT_START; 4];
    let panel = tile.panels.as_ptr();
    // SAFETY: each half of a panel's rows goes over all groups and reads the 12 scales of each;
    // the innermost loop takes four steps at a time, a group being a multiple of 16 values, and of
    // each reads 16 of 32 bytes of weights and 12 tokens. R rows of eight values for each panel are
    // written, for `Add` after they were read.
    unsafe {
        let tail = PanelTail::of(panel, tile.k_padded);
        std::arch::asm!(
            ".arch_extension dotprod",
            "2:",
            "mov {w}, {first_w}",
            "mov {x}, {first_x}",
            "mov {scales}, {first_scales}",
            "mov {groups}, {n_groups}",
            "ldur q31, [{start}]",
            ".irp i, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23",
            "movi v\\i\\().4s, #0",
            ".endr",
            ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11",
            "ldur q\\i, [{start}]",
            ".endr",
            "3:",
            ".if {unrolled} == 1",
            "mov {count}, {blocks}",
            "4:",
            ".endif",
            ".rept {unrolled}",
            // Two of the four steps, whose tokens are in registers of their own.
            ".irp s, 0, 2",
            "ldur q24, [{w}, #(32 * \\s)]",
            "ldur q25, [{x}, #(48 * \\s + 0)]",
            "ldur q26, [{x}, #(48 * \\s + 16)]",
            "ldur q27, [{x}, #(48 * \\s + 32)]",
            "sdot v0.4s, v24.16b, v25.4b[0]",
            "sdot v1.4s, v24.16b, v25.4b[1]",
            "sdot v2.4s, v24.16b, v25.4b[2]",
            "sdot v3.4s, v24.16b, v25.4b[3]",
            "sdot v4.4s, v24.16b, v26.4b[0]",
            "sdot v5.4s, v24.16b, v26.4b[1]",
            "sdot v6.4s, v24.16b, v26.4b[2]",
            "sdot v7.4s, v24.16b, v26.4b[3]",
            "sdot v8.4s, v24.16b, v27.4b[0]",
            "sdot v9.4s, v24.16b, v27.4b[1]",
            "sdot v10.4s, v24.16b, v27.4b[2]",
            "sdot v11.4s, v24.16b, v27.4b[3]",
            "ldur q24, [{w}, #(32 * \\s + 32)]",
            "ldur q28, [{x}, #(48 * \\s + 48 + 0)]",
            "ldur q29, [{x}, #(48 * \\s + 48 + 16)]",
            "ldur q30, [{x}, #(48 * \\s + 48 + 32)]",
            "sdot v0.4s, v24.16b, v28.4b[0]",
            "sdot v1.4s, v24.16b, v28.4b[1]",
            "sdot v2.4s, v24.16b, v28.4b[2]",
            "sdot v3.4s, v24.16b, v28.4b[3]",
            "sdot v4.4s, v24.16b, v29.4b[0]",
            "sdot v5.4s, v24.16b, v29.4b[1]",
            "sdot v6.4s, v24.16b, v29.4b[2]",
            "sdot v7.4s, v24.16b, v29.4b[3]",
            "sdot v8.4s, v24.16b, v30.4b[0]",
            "sdot v9.4s, v24.16b, v30.4b[1]",
            "sdot v10.4s, v24.16b, v30.4b[2]",
            "sdot v11.4s, v24.16b, v30.4b[3]",
            ".endr",
            "add {w}, {w}, #128",
            "add {x}, {x}, #192",
            ".endr",
            ".if {unrolled} == 1",
            "subs {count}, {count}, #1",
            "b.ne 4b",
            ".endif",
            "ldur q25, [{scales}]",
            "ldur q26, [{scales}, #16]",
            "ldur q27, [{scales}, #32]",
            "add {scales}, {scales}, #48",
            "subs {groups}, {groups}, #1",
            ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11",
            "fsub v\\i\\().4s, v\\i\\().4s, v31.4s",
            ".endr",
            "fmla v12.4s, v0.4s, v25.s[0]",
            "ldur q0, [{start}]",
            "fmla v13.4s, v1.4s, v25.s[1]",
            "ldur q1, [{start}]",
            "fmla v14.4s, v2.4s, v25.s[2]",
            "ldur q2, [{start}]",
            "fmla v15.4s, v3.4s, v25.s[3]",
            "ldur q3, [{start}]",
            "fmla v16.4s, v4.4s, v26.s[0]",
            "ldur q4, [{start}]",
            "fmla v17.4s, v5.4s, v26.s[1]",
            "ldur q5, [{start}]",
            "fmla v18.4s, v6.4s, v26.s[2]",
            "ldur q6, [{start}]",
            "fmla v19.4s, v7.4s, v26.s[3]",
            "ldur q7, [{start}]",
            "fmla v20.4s, v8.4s, v27.s[0]",
            "ldur q8, [{start}]",
            "fmla v21.4s, v9.4s, v27.s[1]",
            "ldur q9, [{start}]",
            "fmla v22.4s, v10.4s, v27.s[2]",
            "ldur q10, [{start}]",
            "fmla v23.4s, v11.4s, v27.s[3]",
            "ldur q11, [{start}]",
            "b.ne 3b",
            // The rows of the half, each token in a register that begins with the biases.
            "ldur q24, [{tail}]",
            "ldur q0, [{tail}, #{biases}]",
            "ldur q1, [{tail}, #{biases}]",
            "ldur q2, [{tail}, #{biases}]",
            "ldur q3, [{tail}, #{biases}]",
            "ldur q4, [{tail}, #{biases}]",
            "ldur q5, [{tail}, #{biases}]",
            "ldur q6, [{tail}, #{biases}]",
            "ldur q7, [{tail}, #{biases}]",
            "ldur q8, [{tail}, #{biases}]",
            "ldur q9, [{tail}, #{biases}]",
            "ldur q10, [{tail}, #{biases}]",
            "ldur q11, [{tail}, #{biases}]",
            "fmla v0.4s, v12.4s, v24.4s",
            "fmla v1.4s, v13.4s, v24.4s",
            "fmla v2.4s, v14.4s, v24.4s",
            "fmla v3.4s, v15.4s, v24.4s",
            "fmla v4.4s, v16.4s, v24.4s",
            "fmla v5.4s, v17.4s, v24.4s",
            "fmla v6.4s, v18.4s, v24.4s",
            "fmla v7.4s, v19.4s, v24.4s",
            "fmla v8.4s, v20.4s, v24.4s",
            "fmla v9.4s, v21.4s, v24.4s",
            "fmla v10.4s, v22.4s, v24.4s",
            "fmla v11.4s, v23.4s, v24.4s",
            "cbz {adds}, 5f",
            "mov {at}, {out}",
            ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11",
            ".if \\i < {rows}",
            "ldur q25, [{at}]",
            "add {at}, {at}, {stride}",
            "fadd v\\i\\().4s, v25.4s, v\\i\\().4s",
            ".endif",
            ".endr",
            "5:",
            "mov {at}, {out}",
            ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11",
            ".if \\i < {rows}",
            "st1 {{v\\i\\().4s}}, [{at}], {stride}",
            ".endif",
            ".endr",
            "add {first_w}, {first_w}, #16",
            "add {tail}, {tail}, #16",
            "add {out}, {out}, #16",
            "subs {half}, {half}, #1",
            "b.eq 6f",
            // Two halves are behind: to the next panel.
            "tbnz {half}, #0, 2b",
            "add {first_w}, {first_w}, {to_next}",
            "add {tail}, {tail}, {to_next}",
            "b 2b",
            "6:",
            first_w = inout(reg) panel => _,
            first_x = in(reg) tile.lhs.as_ptr(),
            first_scales = in(reg) scales,
            n_groups = in(reg) tile.n_groups(),
            blocks = in(reg) tile.group_len / BLOCK,
            start = in(reg) START.as_ptr(),
            tail = inout(reg) tail.scales() => _,
            out = inout(reg) out => _,
            stride = in(reg) out_stride * size_of::<f32>(),
            adds = in(reg) usize::from(store == Store::Add),
            half = inout(reg) 2 * tile.n_panels => _,
            to_next = in(reg) tile.panel_stride() - STEP_BYTES,
            w = out(reg) _,
            x = out(reg) _,
            scales = out(reg) _,
            groups = out(reg) _,
            count = out(reg) _,
            at = out(reg) _,
            rows = const R,
            unrolled = const BLOCKS,
            biases = const TAIL_BIASES,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _, out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v12") _, out("v13") _, out("v14") _, out("v15") _, out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _, out("v21") _, out("v22") _, out("v23") _, out("v24") _, out("v25") _, out("v26") _, out("v27") _, out("v28") _, out("v29") _, out("v30") _, out("v31") _,
            options(nostack),
        );
    }
}
