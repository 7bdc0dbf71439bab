//! Picture files into [`Rgb8`].

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use ::image::{
    ColorType, DynamicImage, ImageBuffer, ImageDecoder, ImageFormat, ImageReader, Limits,
};

use super::{ImageError, MAX_FILE_BYTES, MAX_PIXELS, Rgb8, check_size};

/// Bytes a decoder may take for itself and its output: four 16-bit channels for every pixel.
const MAX_DECODER_BYTES: u64 = MAX_PIXELS as u64 * 8;

const JPEG_START_OF_SCAN: u8 = 0xda;
const JPEG_END_OF_IMAGE: u8 = 0xd9;

impl Rgb8 {
    /// Reads and decodes the picture file at `path`; see [`Rgb8::decode`].
    ///
    /// # Errors
    /// [`ImageError`] if the file cannot be read or decoded, or is too large.
    pub fn open(path: &Path) -> Result<Rgb8, ImageError> {
        let io = |source| ImageError::Io {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(io)?;
        let mut bytes = Vec::new();
        file.take(MAX_FILE_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(io)?;
        Rgb8::decode(&bytes)
    }

    /// Decodes a picture file: PNG, JPEG, GIF, WebP, BMP, TIFF or PNM, told apart by its content.
    ///
    /// Conversions follow Pillow's `convert("RGB")` where it is exact:
    /// - an EXIF (or TIFF) orientation is applied, so that up is up;
    /// - of an animation or a multi-page file the first picture is taken, and only that must be whole;
    /// - alpha is dropped, not blended; palettes and greys are expanded;
    /// - of 16-bit channels the high byte is taken. (Pillow does so for colour, but cuts 16-bit
    ///   greys off at 255, which makes nearly every such picture white; that is not followed.)
    /// - CMYK JPEG is converted by the plain formula without a colour profile.
    ///
    /// JPEG and lossy WebP leave decoders some freedom: single values can differ from other
    /// decoders by a few levels.
    ///
    /// # Errors
    /// [`ImageError`] if the file is empty, too large, unknown, damaged, cut short, or declares more
    /// pixels than [`MAX_PIXELS`] or a side over [`super::MAX_SIDE`]; the declared size is checked
    /// before memory for the pixels is taken.
    pub fn decode(bytes: &[u8]) -> Result<Rgb8, ImageError> {
        if bytes.is_empty() {
            return Err(ImageError::Empty);
        }
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(ImageError::FileTooLarge {
                limit: MAX_FILE_BYTES,
            });
        }
        let mut reader = ImageReader::new(Cursor::new(bytes));
        let mut limits = Limits::default();
        limits.max_alloc = Some(MAX_DECODER_BYTES);
        reader.limits(limits);
        let reader = reader
            .with_guessed_format()
            .map_err(|e| ImageError::Damaged { source: e.into() })?;
        let format = reader.format().ok_or(ImageError::UnknownFormat)?;
        let mut decoder = reader.into_decoder().map_err(ImageError::from_decoder)?;
        let (width, height) = decoder.dimensions();
        check_size(width as usize, height as usize)?;
        // Floating-point samples would take twice the memory that the limits allow for.
        if let samples @ (ColorType::Rgb32F | ColorType::Rgba32F) = decoder.color_type() {
            return Err(ImageError::UnsupportedSamples {
                samples: format!("{samples:?}"),
            });
        }
        if format == ImageFormat::Jpeg && !jpeg_is_complete(bytes) {
            return Err(ImageError::Truncated);
        }
        let orientation = decoder.orientation().map_err(ImageError::from_decoder)?;
        let decoded = DynamicImage::from_decoder(decoder).map_err(ImageError::from_decoder)?;
        let buffer = ImageBuffer::from_raw(width, height, rgb_values(decoded)?);
        let mut upright = DynamicImage::ImageRgb8(buffer.ok_or(ImageError::Truncated)?);
        upright.apply_orientation(orientation);
        let (width, height) = (upright.width() as usize, upright.height() as usize);
        Rgb8::new(width, height, upright.into_bytes())
    }
}

/// The picture as 8-bit RGB values, alpha dropped.
fn rgb_values(decoded: DynamicImage) -> Result<Vec<u8>, ImageError> {
    fn spread<const N: usize, T: Copy>(
        values: &[T],
        to_rgb: impl Fn([T; N]) -> [u8; 3],
    ) -> Vec<u8> {
        values
            .as_chunks::<N>()
            .0
            .iter()
            .flat_map(|&pixel| to_rgb(pixel))
            .collect()
    }
    let high = |value: u16| (value >> 8) as u8;
    Ok(match decoded {
        DynamicImage::ImageRgb8(i) => i.into_raw(),
        DynamicImage::ImageRgba8(i) => spread(i.as_raw(), |[r, g, b, _]| [r, g, b]),
        DynamicImage::ImageLuma8(i) => spread(i.as_raw(), |[l]| [l; 3]),
        DynamicImage::ImageLumaA8(i) => spread(i.as_raw(), |[l, _]| [l; 3]),
        DynamicImage::ImageRgb16(i) => spread(i.as_raw(), |rgb: [u16; 3]| rgb.map(high)),
        DynamicImage::ImageRgba16(i) => {
            spread(i.as_raw(), |[r, g, b, _]| [high(r), high(g), high(b)])
        }
        DynamicImage::ImageLuma16(i) => spread(i.as_raw(), |[l]| [high(l); 3]),
        DynamicImage::ImageLumaA16(i) => spread(i.as_raw(), |[l, _]| [high(l); 3]),
        other => {
            return Err(ImageError::UnsupportedSamples {
                samples: format!("{:?}", other.color()),
            });
        }
    })
}

/// Whether the JPEG has its end marker behind the last scan.
///
/// Decoders fill what is missing with grey instead of failing. A search for the marker's two bytes
/// anywhere would find the end of an embedded thumbnail, so the segments are walked.
fn jpeg_is_complete(bytes: &[u8]) -> bool {
    let mut rest = bytes.get(2..).unwrap_or_default();
    let mut seen_scan = false;
    loop {
        // Before the first scan this skips fill bytes; after a scan header, the scan's data.
        // Neither a stuffed zero nor a restart marker ends a scan.
        let marker_at = rest.windows(2).position(|pair| {
            pair[0] == 0xff && !matches!(pair[1], 0x00 | 0x01 | 0xd0..=0xd7 | 0xff)
        });
        let Some(at) = marker_at else { return false };
        let marker = rest[at + 1];
        rest = &rest[at + 2..];
        if marker == JPEG_END_OF_IMAGE {
            return seen_scan;
        }
        seen_scan |= marker == JPEG_START_OF_SCAN;
        let Some(&[hi, lo]) = rest.first_chunk() else {
            return false;
        };
        let Some(after) = rest.get(usize::from(u16::from_be_bytes([hi, lo]))..) else {
            return false;
        };
        rest = after;
    }
}
