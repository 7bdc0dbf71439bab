//! The line that a stream begins with.

use crate::frame::{Color, FrameFormat, Matrix, Range};
use crate::pixel_format::PixelFormat;
use crate::y4m::Y4mError;

/// Frames a second of streams that do not say.
const USUAL_RATE: (u32, u32) = (25, 1);

#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) format: FrameFormat,
    /// So many frames in so many seconds.
    pub(super) rate: (u32, u32),
    /// Grey of 16 to 235.
    pub(super) is_limited_grey: bool,
}

impl Header {
    pub(super) fn parse(line: &[u8]) -> Result<Header, Y4mError> {
        let line = String::from_utf8_lossy(line);
        let mut parameters = line.split(' ').filter(|parameter| !parameter.is_empty());
        if parameters.next() != Some("YUV4MPEG2") {
            return Err(Y4mError::NotY4m);
        }
        let (mut width, mut height) = (None, None);
        let mut pixel = PixelFormat::Yu12;
        let mut rate = USUAL_RATE;
        let mut range = None;
        for parameter in parameters {
            let damaged = || Y4mError::Parameter {
                parameter: parameter.to_string(),
            };
            let mut letters = parameter.chars();
            let tag = letters.next();
            let value = letters.as_str();
            match tag {
                Some('W') => width = Some(value.parse().map_err(|_| damaged())?),
                Some('H') => height = Some(value.parse().map_err(|_| damaged())?),
                Some('F') => rate = ratio(value).ok_or_else(damaged)?,
                Some('C') => pixel = layout(value)?,
                Some('X') => range = named_range(value).or(range),
                // Interlacing, pixel aspect, and whatever is added later.
                _ => {}
            }
        }
        let is_grey = pixel == PixelFormat::Grey;
        let format = FrameFormat {
            pixel,
            width: width.ok_or(Y4mError::Missing { parameter: 'W' })?,
            height: height.ok_or(Y4mError::Missing { parameter: 'H' })?,
            stride: 0,
            color: Color {
                matrix: Matrix::Bt601,
                range: range.unwrap_or(Range::Limited),
            },
        };
        let is_limited_grey = is_grey && range == Some(Range::Limited);
        Ok(Header {
            format,
            rate,
            is_limited_grey,
        })
    }
}

/// A rate of frames; 0:0 stands for an unknown one.
fn ratio(value: &str) -> Option<(u32, u32)> {
    let (frames, seconds) = value.split_once(':')?;
    match (frames.parse().ok()?, seconds.parse().ok()?) {
        (0, 0) => Some(USUAL_RATE),
        (0, _) | (_, 0) => None,
        rate => Some(rate),
    }
}

/// 4:2:0 has three names for where chroma is taken, which makes no difference to nearest samples.
fn layout(name: &str) -> Result<PixelFormat, Y4mError> {
    match name {
        "420" | "420jpeg" | "420mpeg2" | "420paldv" => Ok(PixelFormat::Yu12),
        "422" => Ok(PixelFormat::P422),
        "444" => Ok(PixelFormat::I444),
        "mono" => Ok(PixelFormat::Grey),
        _ => Err(Y4mError::ColorSpace {
            name: name.to_string(),
        }),
    }
}

fn named_range(value: &str) -> Option<Range> {
    match value.strip_prefix("COLORRANGE=")? {
        "FULL" => Some(Range::Full),
        "LIMITED" => Some(Range::Limited),
        _ => None,
    }
}
