//! A picture, and its way into the model: image tiles, global view, pixel values.
//!
//! ```text
//! picture ──▶ longest edge = L, aspect kept ──▶ both sides rounded up to multiples of T ──▶ grid
//!                                                  grid ──▶ rows × cols image tiles of T × T
//!                                                  grid ──▶ T × T                = global view
//!             (no splitting: the L picture ──▶ T × T = global view)
//! ```
//!
//! Every arrow that changes a size is one Lanczos resize with rounding to 8 bits, so the global view
//! has been resized three times. This is the arithmetic of the published image processors
//! (`Idefics3ImageProcessor`, `SmolVLMImageProcessor`) with Pillow as their backend.

mod decode;
mod resample;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::PreprocessConfig;

/// Most pixels of a picture.
pub const MAX_PIXELS: usize = 1 << 26;
/// Longest side of a picture, in pixels.
pub const MAX_SIDE: usize = 65_535;
/// Largest picture file, in bytes.
pub const MAX_FILE_BYTES: u64 = 256 << 20;

/// Longest edge after the first resize, whatever the configuration asks for.
const LONGEST_EDGE_CAP: usize = 4096;

/// Why a picture cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The file could not be read.
    #[error("{}: cannot be read", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file has no bytes.
    #[error("the picture file is empty")]
    Empty,
    /// The file is larger than any picture should be.
    #[error("the picture file is larger than the limit of {limit} bytes; save it smaller")]
    FileTooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// The content is of no known format.
    #[error("the picture is of no known format; use PNG, JPEG, GIF, WebP, BMP, TIFF or PNM")]
    UnknownFormat,
    /// The declared size has too many pixels.
    #[error(
        "the picture is {width}x{height}, over the limit of {} pixels; scale it down first",
        MAX_PIXELS
    )]
    TooManyPixels {
        /// Declared width in pixels.
        width: usize,
        /// Declared height in pixels.
        height: usize,
    },
    /// One declared side is too long.
    #[error(
        "the picture is {width}x{height}, over the limit of {} pixels a side; cut it",
        MAX_SIDE
    )]
    TooLongSide {
        /// Declared width in pixels.
        width: usize,
        /// Declared height in pixels.
        height: usize,
    },
    /// A side is zero.
    #[error("the picture is {width}x{height}, it must have at least 1 pixel a side")]
    NoPixels {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
    },
    /// A buffer does not have three bytes for each pixel.
    #[error("a picture of {width}x{height} needs {expected} bytes of RGB, got {bytes}")]
    WrongLength {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
        /// Bytes needed.
        expected: usize,
        /// Bytes given.
        bytes: usize,
    },
    /// The file ends before the picture does.
    #[error("the picture file is cut short; copy it again")]
    Truncated,
    /// The file breaks the rules of its format.
    #[error("the picture file is damaged; copy it again")]
    Damaged {
        /// What the decoder said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The file uses a part of its format that the decoder does not know.
    #[error("the picture file uses a variant of its format that is not supported; save it as PNG")]
    UnsupportedVariant {
        /// What the decoder said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The colour values are of a number type that has no agreed meaning as 8-bit RGB.
    #[error("the picture has {samples} samples; save it with 8 or 16 bits a channel")]
    UnsupportedSamples {
        /// Name of the sample type.
        samples: String,
    },
}

impl ImageError {
    fn from_decoder(error: ::image::ImageError) -> ImageError {
        use ::image::ImageError as Decoder;
        match error {
            Decoder::Unsupported(e) => ImageError::UnsupportedVariant { source: e.into() },
            Decoder::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                ImageError::Truncated
            }
            e => ImageError::Damaged { source: e.into() },
        }
    }
}

/// An 8-bit RGB picture: rows from top to bottom, pixels from left to right, red first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgb8 {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Rgb8 {
    /// Takes a buffer of `height` rows of `width` pixels of 3 bytes.
    ///
    /// # Errors
    /// [`ImageError`] if a side is zero or over [`MAX_SIDE`], if there are more than [`MAX_PIXELS`]
    /// pixels, or if the buffer has another length.
    pub fn new(width: usize, height: usize, pixels: Vec<u8>) -> Result<Rgb8, ImageError> {
        check_size(width, height)?;
        let expected = width * height * 3;
        if pixels.len() != expected {
            return Err(ImageError::WrongLength {
                width,
                height,
                expected,
                bytes: pixels.len(),
            });
        }
        Ok(Rgb8 {
            width,
            height,
            pixels,
        })
    }

    /// Width in pixels, 1 to [`MAX_SIDE`].
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels, 1 to [`MAX_SIDE`].
    pub fn height(&self) -> usize {
        self.height
    }

    /// The values, `[height, width, 3]`.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The picture resized to `width` × `height` as Pillow's `resize(size, LANCZOS)` does it.
    ///
    /// # Errors
    /// [`ImageError`] if the new size breaks the limits of [`Rgb8::new`].
    pub fn resized(&self, width: usize, height: usize) -> Result<Rgb8, ImageError> {
        check_size(width, height)?;
        Ok(self.resized_to((width, height)))
    }

    /// [`Rgb8::resized`] to a size that is known to be within the limits.
    fn resized_to(&self, size: (usize, usize)) -> Rgb8 {
        let pixels = resample::resize(&self.pixels, (self.width, self.height), size);
        Rgb8 {
            width: size.0,
            height: size.1,
            pixels,
        }
    }

    /// The `side` × `side` pixels whose top left corner is at (`left`, `top`), `[side, side, 3]`.
    fn crop(&self, left: usize, top: usize, side: usize) -> Vec<u8> {
        let rows = self
            .pixels
            .chunks_exact(self.width * 3)
            .skip(top)
            .take(side);
        rows.flat_map(|row| &row[left * 3..(left + side) * 3])
            .copied()
            .collect()
    }
}

fn check_size(width: usize, height: usize) -> Result<(), ImageError> {
    if width == 0 || height == 0 {
        return Err(ImageError::NoPixels { width, height });
    }
    if width.checked_mul(height).is_none_or(|n| n > MAX_PIXELS) {
        return Err(ImageError::TooManyPixels { width, height });
    }
    if width.max(height) > MAX_SIDE {
        return Err(ImageError::TooLongSide { width, height });
    }
    Ok(())
}

/// How a picture is cut: `rows` × `cols` image tiles and a global view, or a global view alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TileLayout {
    /// Rows of image tiles; 0 exactly if `cols` is 0.
    pub rows: usize,
    /// Image tiles of a row.
    pub cols: usize,
}

impl TileLayout {
    /// No image tiles, only the global view.
    pub const GLOBAL_ONLY: TileLayout = TileLayout { rows: 0, cols: 0 };

    /// The layout of a picture of `width` × `height` pixels, both at least 1; see [`preprocess`].
    pub fn of(
        width: usize,
        height: usize,
        config: &PreprocessConfig,
        max_tiles: Option<usize>,
    ) -> TileLayout {
        Plan::new((width, height), config, max_tiles).layout
    }

    /// Number of frames the vision encoder sees: the image tiles and the global view.
    pub fn n_frames(&self) -> usize {
        self.rows * self.cols + 1
    }
}

/// The frames of one picture, ready for the vision encoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tiles {
    /// Side of a frame in pixels, T.
    pub tile_size: usize,
    /// Rows of image tiles, 0 if there is only the global view.
    pub rows: usize,
    /// Image tiles of a row, 0 if there is only the global view.
    pub cols: usize,
    /// The image tiles row by row, then the global view; each `[T, T, 3]`.
    pub frames: Vec<Vec<u8>>,
}

impl Tiles {
    /// The layout, as the prompt needs it.
    pub fn layout(&self) -> TileLayout {
        TileLayout {
            rows: self.rows,
            cols: self.cols,
        }
    }

    /// Number of frames: the image tiles and the global view.
    pub fn n_frames(&self) -> usize {
        self.frames.len()
    }
}

/// Sizes on the way from a picture to its frames.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    /// After the first resize, (width, height).
    scaled: (usize, usize),
    /// After the second resize, multiples of the tile size; T × T without splitting.
    grid: (usize, usize),
    layout: TileLayout,
}

impl Plan {
    fn new(size: (usize, usize), config: &PreprocessConfig, max_tiles: Option<usize>) -> Plan {
        let tile = config.tile_size;
        let global_only = Plan {
            scaled: scaled_size(size, config.longest_edge),
            grid: (tile, tile),
            layout: TileLayout::GLOBAL_ONLY,
        };
        if !config.do_image_splitting || max_tiles == Some(0) {
            return global_only;
        }
        let mut plan = Plan::split(size, config.longest_edge, tile);
        if let Some(max_tiles) = max_tiles {
            let fits = |plan: &Plan| plan.layout.rows * plan.layout.cols <= max_tiles;
            let mut edges = (2..config.longest_edge.div_ceil(tile)).rev();
            while !fits(&plan) {
                match edges.next() {
                    Some(n) => plan = Plan::split(size, n * tile, tile),
                    None => return global_only,
                }
            }
        }
        plan
    }

    /// The plan for `longest_edge` with splitting.
    fn split(size: (usize, usize), longest_edge: usize, tile: usize) -> Plan {
        let scaled = scaled_size(size, longest_edge);
        let grid = grid_size(scaled, tile);
        let (cols, rows) = (grid.0 / tile, grid.1 / tile);
        let layout = match (rows, cols) {
            (1, 1) => TileLayout::GLOBAL_ONLY,
            _ => TileLayout { rows, cols },
        };
        Plan {
            scaled,
            grid,
            layout,
        }
    }
}

/// The size with the longest edge at `longest_edge` (up or down), the other edge even or 1.
fn scaled_size((width, height): (usize, usize), longest_edge: usize) -> (usize, usize) {
    let aspect = width as f64 / height as f64;
    let even = |edge: f64| (edge as usize).next_multiple_of(2).max(1);
    let (width, height) = if width >= height {
        (longest_edge, even(longest_edge as f64 / aspect))
    } else {
        (even(longest_edge as f64 * aspect), longest_edge)
    };
    if width.max(height) <= LONGEST_EDGE_CAP {
        return (width, height);
    }
    let aspect = width as f64 / height as f64;
    if width >= height {
        (
            LONGEST_EDGE_CAP,
            ((LONGEST_EDGE_CAP as f64 / aspect) as usize).max(1),
        )
    } else {
        (
            ((LONGEST_EDGE_CAP as f64 * aspect) as usize).max(1),
            LONGEST_EDGE_CAP,
        )
    }
}

/// Both edges rounded up to multiples of `tile`, the shorter one after following the longer.
fn grid_size((width, height): (usize, usize), tile: usize) -> (usize, usize) {
    let aspect = width as f64 / height as f64;
    // An edge of one pixel may have come out a little smaller.
    let whole = |edge: f64| (edge as usize).max(1).next_multiple_of(tile);
    if width >= height {
        let width = width.next_multiple_of(tile);
        (width, whole(width as f64 / aspect))
    } else {
        let height = height.next_multiple_of(tile);
        (whole(height as f64 * aspect), height)
    }
}

/// Cuts `image` into the frames the vision encoder sees.
///
/// Without splitting (`do_image_splitting` false, or `max_tiles` 0) there is one frame, the global
/// view. Otherwise the layout follows from the picture's size and the configuration alone.
/// `max_tiles` bounds `rows * cols`, for boards that cannot afford more: if the layout has more image
/// tiles, the longest edge is lowered to the largest multiple of the tile size (two tiles or more)
/// whose layout fits, by the same rules; if none fits, only the global view is left. The global view
/// is not counted.
pub fn preprocess(image: &Rgb8, config: &PreprocessConfig, max_tiles: Option<usize>) -> Tiles {
    let tile = config.tile_size;
    let plan = Plan::new((image.width, image.height), config, max_tiles);
    let grid = image.resized_to(plan.scaled).resized_to(plan.grid);
    let TileLayout { rows, cols } = plan.layout;
    let mut frames = Vec::with_capacity(plan.layout.n_frames());
    for row in 0..rows {
        for col in 0..cols {
            frames.push(grid.crop(col * tile, row * tile, tile));
        }
    }
    frames.push(grid.resized_to((tile, tile)).pixels);
    Tiles {
        tile_size: tile,
        rows,
        cols,
        frames,
    }
}

/// The pixel value of each 8-bit value, for each colour channel.
///
/// `(f32(x · rescale_factor) − mean) / std` with the product in f64 and the rest in f32. For mean
/// and deviation ½ and factor 1/255 this is exactly `f32(x) / 127.5 − 1`.
#[derive(Clone, Debug, PartialEq)]
pub struct PixelValues {
    table: [[f32; 256]; 3],
}

impl PixelValues {
    /// Computes the table for `config`.
    pub fn new(config: &PreprocessConfig) -> PixelValues {
        let mut table = [[0.0; 256]; 3];
        for (channel, values) in table.iter_mut().enumerate() {
            for (x, value) in values.iter_mut().enumerate() {
                let rescaled = (x as f64 * config.rescale_factor) as f32;
                *value = (rescaled - config.mean[channel]) / config.std[channel];
            }
        }
        PixelValues { table }
    }

    /// The pixel value of `x` in `channel` (0 red, 1 green, 2 blue).
    ///
    /// # Panics
    /// If `channel` is 3 or more.
    pub fn of(&self, x: u8, channel: usize) -> f32 {
        self.table[channel][usize::from(x)]
    }

    /// The pixel values `[3, T, T]` of a frame `[T, T, 3]`.
    pub fn to_chw(&self, frame: &[u8]) -> Vec<f32> {
        let mut out = Vec::with_capacity(frame.len());
        for (channel, table) in self.table.iter().enumerate() {
            out.extend(
                frame
                    .iter()
                    .skip(channel)
                    .step_by(3)
                    .map(|&x| table[usize::from(x)]),
            );
        }
        out
    }
}
