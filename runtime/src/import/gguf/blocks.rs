//! How GGUF files store numbers: plain floats, and blocks of small integers that share scales.
//!
//! The layouts are those ggml publishes (`ggml-common.h` and the reference dequantisation in
//! `ggml-quants.c`); every product is rounded as there, so that equal bytes give equal floats.
//! `d` is a block's scale and `m` what is added or taken away, both f16; `q` are the integers.

use ocelli_kernels::half::{bf16_bits_to_f32, f16_bits_to_f32};

/// Elements of a block of the formats whose name ends in K.
const SUPER_BLOCK: usize = 256;

/// A way to store numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// 32-bit floats.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an f32.
    Bf16,
    /// 4 bits, `d·(q − 8)`, 32 to a scale.
    Q4_0,
    /// 4 bits, `d·q + m`, 32 to a scale.
    Q4_1,
    /// 5 bits, `d·(q − 16)`, 32 to a scale.
    Q5_0,
    /// 5 bits, `d·q + m`, 32 to a scale.
    Q5_1,
    /// 8 bits, `d·q`, 32 to a scale.
    Q8_0,
    /// 4 bits, `d·s·q − m·t` with 6-bit `s` and `t` for 32 each.
    Q4K,
    /// 5 bits, `d·s·q − m·t` with 6-bit `s` and `t` for 32 each.
    Q5K,
    /// 6 bits, `d·s·(q − 32)` with 8-bit `s` for 16 each.
    Q6K,
}

/// Number in the file, format, and its name.
const FORMATS: [(u32, Format, &str); 11] = [
    (0, Format::F32, "F32"),
    (1, Format::F16, "F16"),
    (30, Format::Bf16, "BF16"),
    (2, Format::Q4_0, "Q4_0"),
    (3, Format::Q4_1, "Q4_1"),
    (6, Format::Q5_0, "Q5_0"),
    (7, Format::Q5_1, "Q5_1"),
    (8, Format::Q8_0, "Q8_0"),
    (12, Format::Q4K, "Q4_K"),
    (13, Format::Q5K, "Q5_K"),
    (14, Format::Q6K, "Q6_K"),
];

/// Formats that ggml has and this program does not read.
const OTHERS: [(u32, &str); 22] = [
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
    (40, "NVFP4"),
];

impl Format {
    /// The format with this number.
    pub fn from_id(id: u32) -> Option<Format> {
        let found = FORMATS.iter().find(|(number, _, _)| *number == id);
        found.map(|(_, format, _)| *format)
    }

    /// The name as ggml spells it.
    pub fn name(self) -> &'static str {
        let found = FORMATS.iter().find(|(_, format, _)| *format == self);
        found.map_or("", |(_, _, name)| name)
    }

    /// What to call the format with this number, supported or not.
    pub(super) fn name_of_id(id: u32) -> String {
        match OTHERS.iter().find(|(number, _)| *number == id) {
            Some((_, name)) => (*name).to_owned(),
            None => format!("format {id}"),
        }
    }

    /// All supported names.
    pub(super) fn supported() -> String {
        FORMATS.map(|(_, _, name)| name).join(", ")
    }

    /// Elements of a block.
    pub fn block_len(self) -> usize {
        match self {
            Format::F32 | Format::F16 | Format::Bf16 => 1,
            Format::Q4K | Format::Q5K | Format::Q6K => SUPER_BLOCK,
            _ => 32,
        }
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        match self {
            Format::F32 => 4,
            Format::F16 | Format::Bf16 => 2,
            Format::Q4_0 => 18,
            Format::Q4_1 => 20,
            Format::Q5_0 => 22,
            Format::Q5_1 => 24,
            Format::Q8_0 => 34,
            Format::Q4K => 144,
            Format::Q5K => 176,
            Format::Q6K => 210,
        }
    }

    /// Appends the values of all blocks in `bytes`. Bytes of an unfinished block are ignored.
    pub fn dequantize(self, bytes: &[u8], out: &mut Vec<f32>) {
        match self {
            Format::F32 => each(bytes, out, |b: &[u8; 4], out| {
                out.push(f32::from_le_bytes(*b));
            }),
            Format::F16 => each(bytes, out, |b: &[u8; 2], out| out.push(f16(*b))),
            Format::Bf16 => each(bytes, out, |b: &[u8; 2], out| {
                out.push(bf16_bits_to_f32(u16::from_le_bytes(*b)));
            }),
            Format::Q4_0 => each(bytes, out, q4_0),
            Format::Q4_1 => each(bytes, out, q4_1),
            Format::Q5_0 => each(bytes, out, q5_0),
            Format::Q5_1 => each(bytes, out, q5_1),
            Format::Q8_0 => each(bytes, out, q8_0),
            Format::Q4K => each(bytes, out, q4_k),
            Format::Q5K => each(bytes, out, q5_k),
            Format::Q6K => each(bytes, out, q6_k),
        }
    }
}

/// Integers (`q − 8`) and f16 scales of [`Format::Q4_0`] blocks, in order.
pub(super) fn q4_0_grid(bytes: &[u8]) -> (Vec<i8>, Vec<u16>) {
    let blocks = bytes.as_chunks::<18>().0;
    let values = blocks.iter().flat_map(|b| nibbles(&b[2..]));
    let scales = blocks.iter().map(|b| u16::from_le_bytes([b[0], b[1]]));
    (values.map(|q| q as i8 - 8).collect(), scales.collect())
}

/// Runs `block` over every block of `N` bytes.
fn each<const N: usize>(bytes: &[u8], out: &mut Vec<f32>, block: fn(&[u8; N], &mut Vec<f32>)) {
    for bytes in bytes.as_chunks::<N>().0 {
        block(bytes, out);
    }
}

fn f16(bytes: [u8; 2]) -> f32 {
    f16_bits_to_f32(u16::from_le_bytes(bytes))
}

/// Low halves of all bytes, then high halves.
fn nibbles(bytes: &[u8]) -> impl Iterator<Item = u8> {
    let low = bytes.iter().map(|byte| byte & 15);
    low.chain(bytes.iter().map(|byte| byte >> 4))
}

/// Four bits of each value from `low`, the fifth from the bits of `high` in order.
fn five_bits(high: [u8; 4], low: &[u8]) -> impl Iterator<Item = u8> {
    let high = u32::from_le_bytes(high);
    let fifth = move |i: usize| ((high >> i & 1) as u8) << 4;
    nibbles(low).enumerate().map(move |(i, q)| q | fifth(i))
}

fn q4_0(b: &[u8; 18], out: &mut Vec<f32>) {
    let d = f16([b[0], b[1]]);
    out.extend(nibbles(&b[2..]).map(|q| (f32::from(q) - 8.0) * d));
}

fn q4_1(b: &[u8; 20], out: &mut Vec<f32>) {
    let (d, m) = (f16([b[0], b[1]]), f16([b[2], b[3]]));
    out.extend(nibbles(&b[4..]).map(|q| f32::from(q) * d + m));
}

fn q5_0(b: &[u8; 22], out: &mut Vec<f32>) {
    let d = f16([b[0], b[1]]);
    let q = five_bits([b[2], b[3], b[4], b[5]], &b[6..]);
    out.extend(q.map(|q| (f32::from(q) - 16.0) * d));
}

fn q5_1(b: &[u8; 24], out: &mut Vec<f32>) {
    let (d, m) = (f16([b[0], b[1]]), f16([b[2], b[3]]));
    let q = five_bits([b[4], b[5], b[6], b[7]], &b[8..]);
    out.extend(q.map(|q| f32::from(q) * d + m));
}

fn q8_0(b: &[u8; 34], out: &mut Vec<f32>) {
    let d = f16([b[0], b[1]]);
    out.extend(b[2..].iter().map(|q| f32::from(*q as i8) * d));
}

/// The 6-bit scale and minimum of part `j` (of 8), packed in 12 bytes: the first four of each lie
/// in the low bits of bytes 0 to 7, the others are spread over bytes 8 to 11 and the top bits.
fn scale_and_minimum(packed: &[u8], j: usize) -> (f32, f32) {
    let (scale, minimum) = if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        (
            packed[j + 4] & 15 | packed[j - 4] >> 6 << 4,
            packed[j + 4] >> 4 | packed[j] >> 6 << 4,
        )
    };
    (f32::from(scale), f32::from(minimum))
}

/// Eight parts of 32: part `j` has the low (even `j`) or high half of the bytes of its pair, and
/// `fifth(i, j)` as a fifth bit of its value `i`.
fn k_parts(b: &[u8], low: &[u8], fifth: impl Fn(usize, usize) -> u8, out: &mut Vec<f32>) {
    let (d, m) = (f16([b[0], b[1]]), f16([b[2], b[3]]));
    for (pair, bytes) in low.chunks_exact(32).enumerate() {
        for half in 0..2 {
            let j = 2 * pair + half;
            let (scale, minimum) = scale_and_minimum(&b[4..16], j);
            let (d, m) = (d * scale, m * minimum);
            let q = |(i, byte): (usize, &u8)| byte >> (4 * half) & 15 | fifth(i, j) << 4;
            let values = bytes.iter().enumerate().map(q);
            out.extend(values.map(|q| d * f32::from(q) - m));
        }
    }
}

fn q4_k(b: &[u8; 144], out: &mut Vec<f32>) {
    k_parts(b, &b[16..], |_, _| 0, out);
}

fn q5_k(b: &[u8; 176], out: &mut Vec<f32>) {
    let high = &b[16..48];
    k_parts(b, &b[48..], |i, j| high[i] >> j & 1, out);
}

/// Two halves of 128: value `i` of quarter `k` has four bits in `low` and two in `high`.
fn q6_k(b: &[u8; 210], out: &mut Vec<f32>) {
    let d = f16([b[208], b[209]]);
    for half in 0..2 {
        let low = &b[64 * half..][..64];
        let high = &b[128 + 32 * half..][..32];
        let scales = &b[192 + 8 * half..][..8];
        for k in 0..4 {
            for i in 0..32 {
                let four = low[32 * (k % 2) + i] >> (4 * (k / 2)) & 15;
                let two = high[i] >> (2 * k) & 3;
                let q = f32::from(four | two << 4) - 32.0;
                let scale = f32::from(scales[2 * k + i / 16] as i8);
                out.push(d * scale * q);
            }
        }
    }
}
