//! Pictures to be shown to the camera.

/// A picture in a V4L2 layout without padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// V4L2's four-character code.
    pub format: [u8; 4],
    /// The picture.
    pub bytes: Vec<u8>,
}

impl Picture {
    /// Converts `[height, width, 3]` RGB to `YUYV`, `UYVY`, `NV12`, `NV21`, `YU12`, `YV12`, `RGB3`,
    /// `BGR3` or `GREY`; luma and chroma as in ITU-R BT.601, limited range. `None` for other
    /// formats, odd sizes of subsampled ones and a wrong number of bytes.
    pub fn from_rgb(width: u32, height: u32, rgb: &[u8], format: [u8; 4]) -> Option<Picture> {
        let (w, h) = (width as usize, height as usize);
        if w.checked_mul(h)?.checked_mul(3)? != rgb.len() {
            return None;
        }
        let planes = || Planes::of(w, h, rgb);
        let bytes = match &format {
            b"RGB3" => rgb.to_vec(),
            b"BGR3" => rgb
                .chunks_exact(3)
                .flat_map(|p| [p[2], p[1], p[0]])
                .collect(),
            b"GREY" => rgb.chunks_exact(3).map(|p| yuv(p)[0]).collect(),
            b"YUYV" | b"UYVY" if w.is_multiple_of(2) => packed(rgb, &format == b"UYVY"),
            b"NV12" => planes()?.interleaved(false),
            b"NV21" => planes()?.interleaved(true),
            b"YU12" => planes()?.separate(false),
            b"YV12" => planes()?.separate(true),
            _ => return None,
        };
        Some(Picture {
            width,
            height,
            format,
            bytes,
        })
    }

    /// A picture in which every place looks different: ramps crossed by bars.
    pub fn test_card(width: u32, height: u32, format: [u8; 4]) -> Option<Picture> {
        let mut rgb = Vec::new();
        for y in 0..height {
            for x in 0..width {
                let bar = if (x / 32 + y / 32) % 2 == 0 { 255 } else { 40 };
                rgb.extend([x * 255 / width, y * 255 / height, bar].map(|v| v.to_le_bytes()[0]));
            }
        }
        Picture::from_rgb(width, height, &rgb, format)
    }

    /// The number of the slowest timings with this size in vivid's list for HDMI.
    pub(crate) fn timings(&self) -> Option<u32> {
        match (self.width, self.height) {
            (640, 480) => Some(0),
            (800, 600) => Some(21),
            (1280, 720) => Some(3),
            (1920, 1080) => Some(8),
            _ => None,
        }
    }
}

/// Luma, and chroma of 2 by 2 pixels.
struct Planes {
    y: Vec<u8>,
    u: Vec<u8>,
    v: Vec<u8>,
}

impl Planes {
    fn of(w: usize, h: usize, rgb: &[u8]) -> Option<Planes> {
        if !w.is_multiple_of(2) || !h.is_multiple_of(2) {
            return None;
        }
        let y = rgb.chunks_exact(3).map(|p| yuv(p)[0]).collect();
        let (mut u, mut v) = (Vec::new(), Vec::new());
        for row in (0..h).step_by(2) {
            for column in (0..w).step_by(2) {
                let at = (row * w + column) * 3;
                let [_, cu, cv] = yuv(&rgb[at..at + 3]);
                u.push(cu);
                v.push(cv);
            }
        }
        Some(Planes { y, u, v })
    }

    fn interleaved(self, v_first: bool) -> Vec<u8> {
        let (first, second) = if v_first {
            (self.v, self.u)
        } else {
            (self.u, self.v)
        };
        let mut bytes = self.y;
        bytes.extend(first.into_iter().zip(second).flat_map(|(a, b)| [a, b]));
        bytes
    }

    fn separate(self, v_first: bool) -> Vec<u8> {
        let (first, second) = if v_first {
            (self.v, self.u)
        } else {
            (self.u, self.v)
        };
        [self.y, first, second].concat()
    }
}

fn packed(rgb: &[u8], chroma_first: bool) -> Vec<u8> {
    let pair = |pixels: &[u8]| {
        let ([y0, u, v], [y1, ..]) = (yuv(&pixels[..3]), yuv(&pixels[3..]));
        if chroma_first {
            [u, y0, v, y1]
        } else {
            [y0, u, y1, v]
        }
    };
    rgb.chunks_exact(6).flat_map(pair).collect()
}

/// BT.601 in limited range, with the usual 8-bit integer coefficients.
fn yuv(pixel: &[u8]) -> [u8; 3] {
    let [r, g, b] = [pixel[0], pixel[1], pixel[2]].map(i32::from);
    [
        ((66 * r + 129 * g + 25 * b + 128) >> 8) + 16,
        ((-38 * r - 74 * g + 112 * b + 128) >> 8) + 128,
        ((112 * r - 94 * g - 18 * b + 128) >> 8) + 128,
    ]
    .map(|value| u8::try_from(value.clamp(0, 255)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn black_and_white_have_the_levels_of_the_standard() {
        assert_eq!(yuv(&[0, 0, 0]), [16, 128, 128]);
        assert_eq!(yuv(&[255, 255, 255]), [235, 128, 128]);
    }

    #[test]
    fn each_format_has_its_size() {
        for (format, bytes) in [
            (b"YUYV", 8),
            (b"NV12", 6),
            (b"YV12", 6),
            (b"RGB3", 12),
            (b"GREY", 4),
        ] {
            let picture = Picture::test_card(2, 2, *format).unwrap();
            assert_eq!(picture.bytes.len(), bytes, "{format:?}");
        }
        assert_eq!(Picture::test_card(3, 2, *b"YUYV"), None);
        assert_eq!(Picture::test_card(2, 2, *b"MJPG"), None);
    }
}
