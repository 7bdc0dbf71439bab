//! One sample of luma a pixel, full range.

use crate::convert::{LumaRows, RgbRows};
use crate::frame::Plane;

/// Bytes.
pub(super) struct GreyRows<'a> {
    bytes: &'a [u8],
    plane: Plane,
}

impl<'a> GreyRows<'a> {
    pub(super) fn new(bytes: &'a [u8], plane: Plane) -> Self {
        GreyRows { bytes, plane }
    }
}

impl RgbRows for GreyRows<'_> {
    fn rgb_row(&mut self, y: usize, out: &mut [u8]) {
        spread(out, self.plane.row(self.bytes, y).iter().copied());
    }
}

impl LumaRows for GreyRows<'_> {
    fn add_luma_row(&mut self, y: usize, sums: &mut [u16]) {
        add(sums, self.plane.row(self.bytes, y).iter().copied());
    }
}

/// Little-endian words of which the low bits are in use; the highest eight of those count.
pub(super) struct Grey16Rows<'a> {
    bytes: &'a [u8],
    plane: Plane,
    bits: u8,
}

impl<'a> Grey16Rows<'a> {
    pub(super) fn new(bytes: &'a [u8], plane: Plane, bits: u8) -> Self {
        Grey16Rows { bytes, plane, bits }
    }

    fn samples(&self, y: usize) -> impl Iterator<Item = u8> + use<'_> {
        eight_bits(self.plane.row(self.bytes, y), self.bits)
    }
}

impl RgbRows for Grey16Rows<'_> {
    fn rgb_row(&mut self, y: usize, out: &mut [u8]) {
        spread(out, self.samples(y));
    }
}

impl LumaRows for Grey16Rows<'_> {
    fn add_luma_row(&mut self, y: usize, sums: &mut [u16]) {
        add(sums, self.samples(y));
    }
}

/// The highest eight of the low `bits` of little-endian words; words beyond `bits` count as white.
pub(super) fn eight_bits(row: &[u8], bits: u8) -> impl Iterator<Item = u8> + use<'_> {
    let shift = u32::from(bits.clamp(8, 16)) - 8;
    let words = row.as_chunks::<2>().0;
    words
        .iter()
        .map(move |word| (u16::from_le_bytes(*word) >> shift).min(255) as u8)
}

fn spread(out: &mut [u8], samples: impl Iterator<Item = u8>) {
    let (out, _) = out.as_chunks_mut::<3>();
    for (pixel, sample) in out.iter_mut().zip(samples) {
        *pixel = [sample; 3];
    }
}

pub(super) fn add(sums: &mut [u16], samples: impl Iterator<Item = u8>) {
    for (sum, sample) in sums.iter_mut().zip(samples) {
        *sum += u16::from(sample);
    }
}
