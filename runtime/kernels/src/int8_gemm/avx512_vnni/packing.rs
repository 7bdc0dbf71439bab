//! Packing of tokens as `[k / 4][R][4]`, and the sums that the tile takes.
//!
//! ```text
//!   registers of four tokens, 16 bytes (four steps) of each:   t0 │ t1 │ t2 │ t3    t4 │ …    t8 │ …
//!   packed, 4 · R words:                                       step 0 of all R, step 1 of all R, …
//! ```
//!
//! A packed register takes its words from the first two registers of tokens by one permutation, and
//! those of tokens 8 to 11 by another.

use std::arch::x86_64::*;

use super::MR;
use crate::panels::K_GROUP;

/// Steps that are packed together: 16 bytes of each token.
const STEPS: usize = 4;
/// Tokens of a register.
const TOKENS: usize = 4;
/// Words of a register.
const WORDS: usize = 16;
/// Registers that hold the tokens, or what they are packed to.
const REGISTERS: usize = MR / TOKENS;

/// Which word goes where, for `R` tokens.
struct Order<const R: usize>;

impl<const R: usize> Order<R> {
    /// Packed registers.
    const PACKED: usize = (STEPS * R).div_ceil(WORDS);
    /// Words of tokens 0 to 7, in two registers, and of tokens 8 to 11.
    const WORDS: [[i32; WORDS]; REGISTERS] = Self::words();
    /// Words of tokens 8 to 11.
    const LAST_TOKENS: [u16; REGISTERS] = Self::last_tokens();

    /// Token and step of a packed word; those behind the last are as good as any.
    const fn place(word: usize) -> (usize, usize) {
        (word % R, word / R % STEPS)
    }

    const fn words() -> [[i32; WORDS]; REGISTERS] {
        let mut words = [[0; WORDS]; REGISTERS];
        let mut i = 0;
        while i < WORDS * REGISTERS {
            let (token, step) = Self::place(i);
            let word = (token % (2 * TOKENS)) * STEPS + step;
            words[i / WORDS][i % WORDS] = word as i32;
            i += 1;
        }
        words
    }

    const fn last_tokens() -> [u16; REGISTERS] {
        let mut masks = [0; REGISTERS];
        let mut i = 0;
        while i < WORDS * REGISTERS {
            if Self::place(i).0 >= 2 * TOKENS {
                masks[i / WORDS] |= 1 << (i % WORDS);
            }
            i += 1;
        }
        masks
    }
}

/// Packs `R` tokens of `k_padded` values each.
///
/// # Safety
///
/// * The CPU has AVX-512 F.
/// * `rows` and `out` hold `R` times `k_padded` values, which is a multiple of 16.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn pack<const R: usize>(rows: &[i8], k_padded: usize, out: &mut [i8]) {
    let (rows, out) = (rows.as_ptr(), out.as_mut_ptr());
    for k in (0..k_padded).step_by(STEPS * K_GROUP) {
        // SAFETY: 16 bytes of a token are readable from k; the masks keep the words of these steps.
        unsafe {
            let mut tokens = [_mm512_setzero_si512(); REGISTERS];
            for (i, four) in tokens.iter_mut().enumerate().take(R.div_ceil(TOKENS)) {
                // Places behind the last token repeat it.
                let token = |j: usize| {
                    let row = (i * TOKENS + j).min(R - 1);
                    rows.wrapping_add(row * k_padded + k).cast()
                };
                *four = _mm512_castsi128_si512(_mm_loadu_si128(token(0)));
                *four = _mm512_inserti32x4::<1>(*four, _mm_loadu_si128(token(1)));
                *four = _mm512_inserti32x4::<2>(*four, _mm_loadu_si128(token(2)));
                *four = _mm512_inserti32x4::<3>(*four, _mm_loadu_si128(token(3)));
            }
            let out = out.add(k * R);
            for v in 0..Order::<R>::PACKED {
                let words = _mm512_loadu_si512(Order::<R>::WORDS[v].as_ptr().cast());
                let mut packed = _mm512_permutex2var_epi32(tokens[0], words, tokens[1]);
                if R > 2 * TOKENS {
                    let last = Order::<R>::LAST_TOKENS[v];
                    packed = _mm512_mask_permutexvar_epi32(packed, last, words, tokens[2]);
                }
                let left = STEPS * R - v * WORDS;
                let to = out.add(v * size_of::<__m512i>());
                _mm512_mask_storeu_epi32(to.cast(), first_words(left), packed);
            }
        }
    }
}

/// Sums of every `len` values of `R` packed tokens, `sums` `[groups, R]`.
///
/// # Safety
///
/// * The CPU has AVX-512 F and VNNI.
/// * `packed` holds `R` times `len` values for each group, `len` is a multiple of 16.
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) unsafe fn sum<const R: usize>(packed: &[i8], len: usize, sums: &mut [i32]) {
    let ones = _mm512_set1_epi8(1);
    for (packed, sums) in packed.chunks_exact(R * len).zip(sums.chunks_exact_mut(R)) {
        let mut parts = [_mm512_setzero_si512(); STEPS];
        for first in (0..len / K_GROUP).step_by(STEPS) {
            for (i, part) in parts.iter_mut().enumerate() {
                let step = packed.as_ptr().wrapping_add((first + i) * R * K_GROUP);
                // SAFETY: the R words of a step.
                let x = unsafe { _mm512_maskz_loadu_epi32(first_words(R), step.cast()) };
                *part = _mm512_dpbusd_epi32(*part, ones, x);
            }
        }
        let [a, b, c, d] = parts;
        let total = _mm512_add_epi32(_mm512_add_epi32(a, b), _mm512_add_epi32(c, d));
        // SAFETY: the R sums of a group.
        unsafe { _mm512_mask_storeu_epi32(sums.as_mut_ptr(), first_words(R), total) };
    }
}

/// A mask of the first `n` words of a register.
const fn first_words(n: usize) -> __mmask16 {
    if n < WORDS { (1 << n) - 1 } else { u16::MAX }
}
