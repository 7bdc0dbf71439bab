//! How the bytes of a frame are laid out, by V4L2's four-character codes.

use std::fmt;

/// Order of the colour filters of a Bayer sensor, from the top left pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BayerOrder {
    /// Blue green / green red.
    Bggr,
    /// Green blue / red green.
    Gbrg,
    /// Green red / blue green.
    Grbg,
    /// Red green / green blue.
    Rggb,
}

/// A layout of pixels in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PixelFormat {
    /// 4:2:2 packed, `Y0 U Y1 V`.
    Yuyv,
    /// 4:2:2 packed, `U Y0 V Y1`.
    Uyvy,
    /// 4:2:0, a plane of luma and one of `U V` pairs.
    Nv12,
    /// 4:2:0, a plane of luma and one of `V U` pairs.
    Nv21,
    /// 4:2:0, planes Y, U, V (I420).
    Yu12,
    /// 4:2:0, planes Y, V, U.
    Yv12,
    /// 4:2:2, planes Y, U, V.
    P422,
    /// 4:4:4, planes Y, U, V. The code is libyuv's: V4L2 has none for one buffer.
    I444,
    /// Three bytes a pixel, red first.
    Rgb3,
    /// Three bytes a pixel, blue first.
    Bgr3,
    /// 8 bits of luma.
    Grey,
    /// Luma in the low `bits` (10, 12 or 16) of little-endian 16-bit words.
    Grey16 {
        /// Bits in use.
        bits: u8,
    },
    /// One colour a pixel: bytes when `bits` is 8, else the low `bits` (10, 12, 14 or 16) of little-endian words.
    Bayer {
        /// Which colour stands where.
        order: BayerOrder,
        /// Bits in use.
        bits: u8,
    },
    /// One JPEG picture a frame; Huffman tables may be missing.
    Mjpg,
}

impl PixelFormat {
    /// Every format this crate reads.
    pub fn all() -> impl Iterator<Item = PixelFormat> {
        TABLE.iter().map(|(format, _)| *format)
    }

    /// The format of a V4L2 code, if this crate reads it (`JPEG` means [`PixelFormat::Mjpg`] too).
    pub fn from_fourcc(code: [u8; 4]) -> Option<PixelFormat> {
        if &code == b"JPEG" {
            return Some(PixelFormat::Mjpg);
        }
        let entry = TABLE.iter().find(|(_, known)| **known == code)?;
        Some(entry.0)
    }

    /// The V4L2 code.
    pub fn fourcc(self) -> [u8; 4] {
        let entry = TABLE.iter().find(|(format, _)| *format == self);
        *entry.map_or(b"????", |(_, code)| code)
    }
}

impl fmt::Display for PixelFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.fourcc()))
    }
}

use BayerOrder::{Bggr, Gbrg, Grbg, Rggb};

const fn bayer(order: BayerOrder, bits: u8) -> PixelFormat {
    PixelFormat::Bayer { order, bits }
}

static TABLE: &[(PixelFormat, &[u8; 4])] = &[
    (PixelFormat::Yuyv, b"YUYV"),
    (PixelFormat::Uyvy, b"UYVY"),
    (PixelFormat::Nv12, b"NV12"),
    (PixelFormat::Nv21, b"NV21"),
    (PixelFormat::Yu12, b"YU12"),
    (PixelFormat::Yv12, b"YV12"),
    (PixelFormat::P422, b"422P"),
    (PixelFormat::I444, b"I444"),
    (PixelFormat::Rgb3, b"RGB3"),
    (PixelFormat::Bgr3, b"BGR3"),
    (PixelFormat::Grey, b"GREY"),
    (PixelFormat::Grey16 { bits: 10 }, b"Y10 "),
    (PixelFormat::Grey16 { bits: 12 }, b"Y12 "),
    (PixelFormat::Grey16 { bits: 16 }, b"Y16 "),
    (bayer(Bggr, 8), b"BA81"),
    (bayer(Gbrg, 8), b"GBRG"),
    (bayer(Grbg, 8), b"GRBG"),
    (bayer(Rggb, 8), b"RGGB"),
    (bayer(Bggr, 10), b"BG10"),
    (bayer(Gbrg, 10), b"GB10"),
    (bayer(Grbg, 10), b"BA10"),
    (bayer(Rggb, 10), b"RG10"),
    (bayer(Bggr, 12), b"BG12"),
    (bayer(Gbrg, 12), b"GB12"),
    (bayer(Grbg, 12), b"BA12"),
    (bayer(Rggb, 12), b"RG12"),
    (bayer(Bggr, 14), b"BG14"),
    (bayer(Gbrg, 14), b"GB14"),
    (bayer(Grbg, 14), b"GR14"),
    (bayer(Rggb, 14), b"RG14"),
    (bayer(Bggr, 16), b"BYR2"),
    (bayer(Gbrg, 16), b"GB16"),
    (bayer(Grbg, 16), b"GR16"),
    (bayer(Rggb, 16), b"RG16"),
    (PixelFormat::Mjpg, b"MJPG"),
];
