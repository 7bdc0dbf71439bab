//! The kinds of recordings.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use super::{USUAL_RATE, unusable};
use crate::frame::{Frame, FrameFormat, MAX_SIDE};
use crate::jpeg;
use crate::pixel_format::PixelFormat;
use crate::replay::folder;
use crate::source::feed::{JPEG_COLOR, MAX_JPEG_BYTES, jpeg_frame};
use crate::source::{SourceError, SourceOptions};
use crate::y4m;

/// Frames in order, each stamped with its time since the begin.
pub(super) trait Recording: Send {
    /// The next frame; an error for one that is damaged, none at the end.
    fn next(&mut self) -> Option<Result<Frame, String>>;

    /// Time from the last frame to the first of a repetition.
    fn period(&self) -> Duration;
}

/// Opens what is at a path.
pub(super) fn open(
    path: &Path,
    options: &SourceOptions,
) -> Result<Box<dyn Recording>, SourceError> {
    let rate = options.rate.unwrap_or(USUAL_RATE);
    let period = Duration::try_from_secs_f64(1.0 / rate).unwrap_or(Duration::MAX);
    if path.is_dir() {
        return Ok(Box::new(folder::open(path, period)?));
    }
    let file = File::open(path).map_err(|error| unusable(path, error.to_string()))?;
    let suffix = path
        .extension()
        .map(|suffix| suffix.to_string_lossy().to_ascii_lowercase());
    match suffix.as_deref() {
        Some("y4m") => {
            let reader = y4m::Reader::new(file);
            let reader = reader.map_err(|error| unusable(path, error.to_string()))?;
            Ok(Box::new(Y4m {
                reader,
                ended: false,
            }))
        }
        Some("mjpeg" | "mjpg") => Ok(Box::new(Jpegs {
            file,
            splitter: jpeg::Splitter::new(MAX_JPEG_BYTES),
            period,
            frames: 0,
        })),
        _ => Ok(Box::new(folder::picture(path, period))),
    }
}

struct Y4m {
    reader: y4m::Reader<File>,
    ended: bool,
}

impl Recording for Y4m {
    fn next(&mut self) -> Option<Result<Frame, String>> {
        if self.ended {
            return None;
        }
        let next = self.reader.next_frame();
        // Behind a damaged frame nobody knows where the next begins.
        self.ended = !matches!(next, Ok(Some(_)));
        next.map_err(|error| error.to_string()).transpose()
    }

    fn period(&self) -> Duration {
        self.reader.timestamp(1)
    }
}

/// Bytes read at a time.
const PIECE: usize = 64 << 10;

struct Jpegs {
    file: File,
    splitter: jpeg::Splitter,
    period: Duration,
    frames: u32,
}

impl Recording for Jpegs {
    fn next(&mut self) -> Option<Result<Frame, String>> {
        let mut piece = vec![0; PIECE];
        let bytes = loop {
            if let Some(bytes) = self.splitter.next_frame() {
                break bytes;
            }
            match self.file.read(&mut piece) {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.splitter.push(&piece[..count]),
            }
        };
        let stamp = self.period.saturating_mul(self.frames);
        self.frames = self.frames.saturating_add(1);
        Some(jpeg_frame(bytes, 0, stamp))
    }

    fn period(&self) -> Duration {
        self.period
    }
}

/// A frame of a picture file in any format the `image` crate reads.
pub(super) fn picture_frame(path: &Path, stamp: Duration) -> Result<Frame, String> {
    let mut reader = image::ImageReader::open(path).map_err(|error| error.to_string())?;
    let mut limits = image::Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    reader.limits(limits);
    let reader = reader
        .with_guessed_format()
        .map_err(|error| error.to_string())?;
    let picture = reader
        .decode()
        .map_err(|error| error.to_string())?
        .into_rgb8();
    let (width, height) = picture.dimensions();
    let format = FrameFormat {
        pixel: PixelFormat::Rgb3,
        width,
        height,
        stride: 0,
        color: JPEG_COLOR,
    };
    Frame::new(format, picture.into_raw(), 0, stamp).map_err(|error| error.to_string())
}
