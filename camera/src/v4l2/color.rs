//! What the driver says about colour, by V4L2's rules for what it leaves open.

use v4l::v4l_sys as sys;

use crate::frame::{Color, Matrix, Range};
use crate::pixel_format::PixelFormat;

/// The three fields of `v4l2_pix_format` that tell how YUV stands for colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Encoding {
    pub(super) colorspace: u32,
    pub(super) ycbcr: u32,
    pub(super) quantization: u32,
}

/// Resolves the fields as `V4L2_MAP_YCBCR_ENC_DEFAULT` and `V4L2_MAP_QUANTIZATION_DEFAULT` of
/// `linux/videodev2.h` do. JPEG pictures are BT.601 full range whatever the driver says (JFIF).
pub(super) fn color(pixel: PixelFormat, encoding: Encoding) -> Color {
    if pixel == PixelFormat::Mjpg {
        return Color {
            matrix: Matrix::Bt601,
            range: Range::Full,
        };
    }
    let matrix = match encoding.ycbcr {
        sys::v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_DEFAULT => default_matrix(encoding.colorspace),
        sys::v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_709
        | sys::v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_XV709
        // SMPTE 240M differs from BT.709 by less than a hundredth in every factor.
        | sys::v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_SMPTE240M => Matrix::Bt709,
        sys::v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_BT2020
        | sys::v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_BT2020_CONST_LUM => Matrix::Bt2020,
        _ => Matrix::Bt601,
    };
    let full = match encoding.quantization {
        sys::v4l2_quantization_V4L2_QUANTIZATION_FULL_RANGE => true,
        sys::v4l2_quantization_V4L2_QUANTIZATION_LIM_RANGE => false,
        _ => encoding.colorspace == sys::v4l2_colorspace_V4L2_COLORSPACE_JPEG,
    };
    Color {
        matrix,
        range: if full { Range::Full } else { Range::Limited },
    }
}

fn default_matrix(colorspace: u32) -> Matrix {
    match colorspace {
        sys::v4l2_colorspace_V4L2_COLORSPACE_REC709
        | sys::v4l2_colorspace_V4L2_COLORSPACE_DCI_P3
        | sys::v4l2_colorspace_V4L2_COLORSPACE_SMPTE240M => Matrix::Bt709,
        sys::v4l2_colorspace_V4L2_COLORSPACE_BT2020 => Matrix::Bt2020,
        _ => Matrix::Bt601,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn encoding(colorspace: u32, ycbcr: u32, quantization: u32) -> Encoding {
        Encoding {
            colorspace,
            ycbcr,
            quantization,
        }
    }

    #[test]
    fn what_the_driver_leaves_open_follows_from_the_colorspace() {
        let srgb = sys::v4l2_colorspace_V4L2_COLORSPACE_SRGB;
        let rec709 = sys::v4l2_colorspace_V4L2_COLORSPACE_REC709;
        let jpeg = sys::v4l2_colorspace_V4L2_COLORSPACE_JPEG;
        let bt2020 = sys::v4l2_colorspace_V4L2_COLORSPACE_BT2020;
        let cases = [
            (encoding(0, 0, 0), Matrix::Bt601, Range::Limited),
            (encoding(srgb, 0, 0), Matrix::Bt601, Range::Limited),
            (encoding(rec709, 0, 0), Matrix::Bt709, Range::Limited),
            (encoding(jpeg, 0, 0), Matrix::Bt601, Range::Full),
            (encoding(bt2020, 0, 0), Matrix::Bt2020, Range::Limited),
            (encoding(srgb, 2, 1), Matrix::Bt709, Range::Full),
            (encoding(rec709, 1, 2), Matrix::Bt601, Range::Limited),
            (encoding(jpeg, 4, 2), Matrix::Bt709, Range::Limited),
            (encoding(99, 99, 99), Matrix::Bt601, Range::Limited),
        ];
        for (given, matrix, range) in cases {
            assert_eq!(
                color(PixelFormat::Yuyv, given),
                Color { matrix, range },
                "{given:?}"
            );
        }
    }

    #[test]
    fn jpeg_is_bt601_full_range_whatever_the_driver_says() {
        let found = color(PixelFormat::Mjpg, encoding(3, 2, 2));
        assert_eq!(
            found,
            Color {
                matrix: Matrix::Bt601,
                range: Range::Full
            }
        );
    }
}
