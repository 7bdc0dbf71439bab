//! YUV in all its layouts. Chroma comes from the nearest sample, with no smoothing.

use crate::convert::{LumaRows, RgbRows, grey};
use crate::frame::{Color, FrameFormat, Layout, Matrix, Range};
use crate::pixel_format::PixelFormat;

/// Bits behind the point of the coefficients. With 13, coefficients fit 16 bits and the sums 32.
const FRACTION: u32 = 13;

/// The equations of a [`Color`] in fixed point: a factor for luma and one for each place where chroma enters.
#[derive(Clone, Copy, Debug)]
struct Equations {
    black: i32,
    luma: i16,
    red_v: i16,
    green_u: i16,
    green_v: i16,
    blue_u: i16,
}

impl Equations {
    /// From the luma weights of red and blue: ITU-R BT.601-7 §2.5.1, BT.709-6 §3.2, BT.2020-2 table 4.
    fn of(color: Color) -> Equations {
        let (kr, kb) = match color.matrix {
            Matrix::Bt601 => (0.299, 0.114),
            Matrix::Bt709 => (0.2126, 0.0722),
            Matrix::Bt2020 => (0.2627, 0.0593),
        };
        let kg = 1.0 - kr - kb;
        let (black, luma, chroma) = match color.range {
            Range::Limited => (16, 255.0 / 219.0, 255.0 / 224.0),
            Range::Full => (0, 1.0, 1.0),
        };
        let fixed = |factor: f64| (factor * f64::from(1 << FRACTION)).round() as i16;
        Equations {
            black,
            luma: fixed(luma),
            red_v: fixed(chroma * 2.0 * (1.0 - kr)),
            green_u: fixed(-chroma * 2.0 * (1.0 - kb) * kb / kg),
            green_v: fixed(-chroma * 2.0 * (1.0 - kr) * kr / kg),
            blue_u: fixed(chroma * 2.0 * (1.0 - kb)),
        }
    }

    fn rgb(self, y: u8, u: u8, v: u8) -> [u8; 3] {
        let y = (i32::from(y) - self.black) * i32::from(self.luma) + (1 << (FRACTION - 1));
        let (u, v) = (i32::from(u) - 128, i32::from(v) - 128);
        let level = |sum: i32| (sum >> FRACTION).clamp(0, 255) as u8;
        [
            level(y + v * i32::from(self.red_v)),
            level(y + u * i32::from(self.green_u) + v * i32::from(self.green_v)),
            level(y + u * i32::from(self.blue_u)),
        ]
    }
}

/// Rows of a YUV frame.
pub(super) struct YuvRows<'a> {
    bytes: &'a [u8],
    layout: Layout,
    pixel: PixelFormat,
    range: Range,
    equations: Equations,
    /// Luma of one row where the format packs it with chroma.
    y: Vec<u8>,
    /// Chroma of one row, one sample a pixel.
    u: Vec<u8>,
    v: Vec<u8>,
    /// The chroma row that `u` and `v` hold.
    chroma_row: Option<usize>,
}

impl<'a> YuvRows<'a> {
    pub(super) fn new(bytes: &'a [u8], layout: Layout, format: &FrameFormat) -> Self {
        // Even, so that every pair of pixels has its place.
        let width = format.width.next_multiple_of(2) as usize;
        YuvRows {
            bytes,
            layout,
            pixel: format.pixel,
            range: format.color.range,
            equations: Equations::of(format.color),
            y: vec![0; width],
            u: vec![0; width],
            v: vec![0; width],
            chroma_row: None,
        }
    }

    /// Fills `u` and `v`, and `y` where luma is packed with them.
    fn unpack(&mut self, y: usize) {
        let row = self.layout.planes[0].row(self.bytes, y);
        match self.pixel {
            PixelFormat::Yuyv => self.unpack_quads(row, |[y0, u, y1, v]| ([y0, y1], u, v)),
            PixelFormat::Uyvy => self.unpack_quads(row, |[u, y0, v, y1]| ([y0, y1], u, v)),
            PixelFormat::Nv12 => self.unpack_pairs(y / 2, |[u, v]| (u, v)),
            PixelFormat::Nv21 => self.unpack_pairs(y / 2, |[v, u]| (u, v)),
            PixelFormat::Yu12 => self.unpack_planes(y / 2, 1, 2),
            PixelFormat::Yv12 => self.unpack_planes(y / 2, 2, 1),
            _ => self.unpack_planes(y, 1, 2),
        }
    }

    fn unpack_quads(&mut self, row: &[u8], split: impl Fn([u8; 4]) -> ([u8; 2], u8, u8)) {
        let quads = row.as_chunks::<4>().0;
        let y = self.y.as_chunks_mut::<2>().0;
        let u = self.u.as_chunks_mut::<2>().0;
        let v = self.v.as_chunks_mut::<2>().0;
        for (((quad, y), u), v) in quads.iter().zip(y).zip(u).zip(v) {
            let (pair, quad_u, quad_v) = split(*quad);
            *y = pair;
            *u = [quad_u; 2];
            *v = [quad_v; 2];
        }
    }

    fn unpack_pairs(&mut self, row: usize, split: impl Fn([u8; 2]) -> (u8, u8)) {
        if self.chroma_row.replace(row) == Some(row) {
            return;
        }
        let pairs = self.layout.planes[1]
            .row(self.bytes, row)
            .as_chunks::<2>()
            .0;
        let u = self.u.as_chunks_mut::<2>().0;
        let v = self.v.as_chunks_mut::<2>().0;
        for ((pair, u), v) in pairs.iter().zip(u).zip(v) {
            let (pair_u, pair_v) = split(*pair);
            *u = [pair_u; 2];
            *v = [pair_v; 2];
        }
    }

    fn unpack_planes(&mut self, row: usize, u: usize, v: usize) {
        if self.chroma_row.replace(row) == Some(row) {
            return;
        }
        let [u, v] = [u, v].map(|plane| self.layout.planes[plane].row(self.bytes, row));
        if self.pixel == PixelFormat::I444 {
            self.u[..u.len()].copy_from_slice(u);
            self.v[..v.len()].copy_from_slice(v);
        } else {
            repeat(u, &mut self.u);
            repeat(v, &mut self.v);
        }
    }
}

/// Each sample twice.
fn repeat(samples: &[u8], out: &mut [u8]) {
    for (pair, sample) in out.as_chunks_mut::<2>().0.iter_mut().zip(samples) {
        *pair = [*sample; 2];
    }
}

/// Adds the bytes at `FIRST` and every second one behind it.
///
/// Four sums go through one 64-bit addition: compilers find no good vector code for the plain loop.
fn add_every_other<const FIRST: usize>(sums: &mut [u16], row: &[u8]) {
    const LOW_BYTES: u64 = 0x00FF_00FF_00FF_00FF;
    let (fours, rest) = sums.as_chunks_mut::<4>();
    let (pixels, _) = row.as_chunks::<8>();
    for (sums, pixels) in fours.iter_mut().zip(pixels) {
        let added = u64::from_le_bytes(*pixels) >> (8 * FIRST) & LOW_BYTES;
        let before = sums
            .iter()
            .rev()
            .fold(0, |word, sum| word << 16 | u64::from(*sum));
        let after = before + added;
        *sums = std::array::from_fn(|i| (after >> (16 * i)) as u16);
    }
    let behind = &row[8 * fours.len()..];
    grey::add(rest, behind.iter().skip(FIRST).step_by(2).copied());
}

fn is_packed(pixel: PixelFormat) -> bool {
    matches!(pixel, PixelFormat::Yuyv | PixelFormat::Uyvy)
}

impl RgbRows for YuvRows<'_> {
    fn rgb_row(&mut self, y: usize, out: &mut [u8]) {
        self.unpack(y);
        let row = self.layout.planes[0].row(self.bytes, y);
        let luma = if is_packed(self.pixel) { &self.y } else { row };
        let equations = self.equations;
        let chroma = self.u.iter().zip(&self.v);
        let (out, _) = out.as_chunks_mut::<3>();
        for ((pixel, y), (u, v)) in out.iter_mut().zip(luma).zip(chroma) {
            *pixel = equations.rgb(*y, *u, *v);
        }
    }
}

impl LumaRows for YuvRows<'_> {
    fn add_luma_row(&mut self, y: usize, sums: &mut [u16]) {
        let row = self.layout.planes[0].row(self.bytes, y);
        match self.pixel {
            PixelFormat::Yuyv => add_every_other::<0>(sums, row),
            PixelFormat::Uyvy => add_every_other::<1>(sums, row),
            _ => grey::add(sums, row.iter().copied()),
        }
    }

    fn black_and_span(&self) -> (i64, i64) {
        match self.range {
            Range::Limited => (16, 219),
            Range::Full => (0, 255),
        }
    }
}
