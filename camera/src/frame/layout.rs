//! Where the rows of a raw frame lie in its buffer.

use crate::frame::{FrameError, FrameFormat};
use crate::pixel_format::PixelFormat;

/// Longest gap behind a row, in bytes. The widest alignment seen in drivers is a page.
const MAX_GAP: usize = 1 << 16;

/// One plane: `rows` rows of `row_bytes`, `stride` apart, from `offset`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plane {
    pub(crate) offset: usize,
    pub(crate) stride: usize,
    pub(crate) row_bytes: usize,
    pub(crate) rows: usize,
}

impl Plane {
    /// Row `y` of the plane in a buffer of at least [`Layout::bytes`].
    pub(crate) fn row<'a>(&self, bytes: &'a [u8], y: usize) -> &'a [u8] {
        let start = self.offset + y * self.stride;
        &bytes[start..start + self.row_bytes]
    }

    fn end(&self) -> usize {
        self.offset + self.stride * self.rows
    }
}

/// The planes of a raw format, in the order they are stored; unused ones are empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) planes: [Plane; 3],
}

/// Bytes of a row of the first plane, then width and rows of the planes behind it.
struct Shape {
    row_bytes: usize,
    /// Row bytes and rows of each chroma plane, and how many there are.
    chroma: (usize, usize, usize),
}

impl Layout {
    /// The planes of a format: sizes checked, every row inside the buffer.
    pub(crate) fn of(format: &FrameFormat) -> Result<Layout, FrameError> {
        format.check_size()?;
        let Shape { row_bytes, chroma } = shape(format)?;
        let stride = match format.stride as usize {
            0 => row_bytes,
            stride if stride < row_bytes => {
                return Err(FrameError::Stride {
                    format: *format,
                    stride: format.stride,
                    row_bytes,
                });
            }
            stride if stride - row_bytes > MAX_GAP => {
                let limit = row_bytes + MAX_GAP;
                return Err(FrameError::StrideTooLong {
                    stride: format.stride,
                    limit,
                    row_bytes,
                });
            }
            stride => stride,
        };
        let mut plane = Plane {
            offset: 0,
            stride,
            row_bytes,
            rows: format.height as usize,
        };
        let mut planes = [plane, Plane::default(), Plane::default()];
        let (row_bytes, rows, count) = chroma;
        for slot in planes.iter_mut().skip(1).take(count) {
            let stride = chroma_stride(format.pixel, stride).max(row_bytes);
            plane = Plane {
                offset: plane.end(),
                stride,
                row_bytes,
                rows,
            };
            *slot = plane;
        }
        Ok(Layout { planes })
    }

    /// Bytes from the start of the first plane to the end of the last.
    pub(crate) fn bytes(&self) -> usize {
        self.planes.iter().map(Plane::end).max().unwrap_or(0)
    }
}

fn shape(format: &FrameFormat) -> Result<Shape, FrameError> {
    let (width, height) = (format.width as usize, format.height as usize);
    let (pairs, pair_rows) = (width.div_ceil(2), height.div_ceil(2));
    let packed = |row_bytes| Shape {
        row_bytes,
        chroma: (0, 0, 0),
    };
    let planar = |chroma| Shape {
        row_bytes: width,
        chroma,
    };
    Ok(match format.pixel {
        PixelFormat::Yuyv | PixelFormat::Uyvy => packed(4 * pairs),
        PixelFormat::Nv12 | PixelFormat::Nv21 => planar((2 * pairs, pair_rows, 1)),
        PixelFormat::Yu12 | PixelFormat::Yv12 => planar((pairs, pair_rows, 2)),
        PixelFormat::P422 => planar((pairs, height, 2)),
        PixelFormat::I444 => planar((width, height, 2)),
        PixelFormat::Rgb3 | PixelFormat::Bgr3 => packed(3 * width),
        PixelFormat::Grey | PixelFormat::Bayer { bits: 8, .. } => packed(width),
        PixelFormat::Grey16 { .. } | PixelFormat::Bayer { .. } => packed(2 * width),
        PixelFormat::Mjpg => return Err(FrameError::NoFixedSize { format: *format }),
    })
}

fn chroma_stride(pixel: PixelFormat, stride: usize) -> usize {
    match pixel {
        PixelFormat::Yu12 | PixelFormat::Yv12 | PixelFormat::P422 => stride.div_ceil(2),
        _ => stride,
    }
}
