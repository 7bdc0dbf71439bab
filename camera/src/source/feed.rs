//! Frames that come in on a thread of their own: the newest waits, older ones are left out.

use std::io::Read;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::frame::{Color, Frame, FrameFormat, Matrix, Range};
use crate::jpeg;
use crate::pixel_format::PixelFormat;
use crate::raw;
use crate::source::{Drops, SourceOptions, monotonic_now};
use crate::y4m;

/// Longest JPEG that is believed.
pub(crate) const MAX_JPEG_BYTES: usize = 32 << 20;
/// Bytes read at a time.
const PIECE: usize = 64 << 10;
/// Colour of JPEG pictures (JFIF).
pub(crate) const JPEG_COLOR: Color = Color {
    matrix: Matrix::Bt601,
    range: Range::Full,
};

/// A frame of one JPEG, as large as its header says.
pub(crate) fn jpeg_frame(bytes: Vec<u8>, sequence: u64, stamp: Duration) -> Result<Frame, String> {
    let (width, height) = jpeg::size(&bytes).map_err(|error| error.to_string())?;
    let pixel = PixelFormat::Mjpg;
    let format = FrameFormat {
        pixel,
        width,
        height,
        stride: 0,
        color: JPEG_COLOR,
    };
    Frame::new(format, bytes, sequence, stamp).map_err(|error| error.to_string())
}

#[derive(Default)]
struct Slot {
    newest: Option<Frame>,
    format: Option<FrameFormat>,
    /// Why no more will come.
    ended: Option<String>,
    sequence: u64,
    drops: Drops,
}

/// Where a reading thread leaves frames. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Feed(Arc<(Mutex<Slot>, Condvar)>);

/// What a feed had.
pub(crate) enum Taken {
    /// The newest frame.
    Frame(Frame),
    /// Nothing yet.
    Late,
    /// Nothing any more, and why.
    Ended(String),
}

impl Feed {
    fn slot(&self) -> MutexGuard<'_, Slot> {
        // Nothing panics while it holds the lock.
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a frame; one that nobody took is left out.
    pub(crate) fn put(&self, frame: Frame) {
        let mut slot = self.slot();
        let sequence = slot.sequence;
        slot.sequence += 1;
        slot.format = Some(frame.format());
        let older = slot
            .newest
            .replace(frame.stamped(sequence, monotonic_now()));
        slot.drops.stale += u64::from(older.is_some());
        self.0.1.notify_all();
    }

    /// Counts a frame that could not be used.
    pub(crate) fn damaged(&self) {
        self.slot().drops.damaged += 1;
    }

    /// Says that no more will come. The first reason stays.
    pub(crate) fn end(&self, reason: String) {
        self.slot().ended.get_or_insert(reason);
        self.0.1.notify_all();
    }

    /// Takes the newest frame, at most `wait` from now. Frames older than `max_age` are left out.
    pub(crate) fn take(&self, wait: Duration, max_age: Duration) -> Taken {
        let deadline = monotonic_now().saturating_add(wait);
        let mut slot = self.slot();
        loop {
            let now = monotonic_now();
            if let Some(frame) = slot.newest.take() {
                if now.saturating_sub(frame.timestamp()) <= max_age {
                    return Taken::Frame(frame);
                }
                slot.drops.stale += 1;
            }
            if let Some(reason) = &slot.ended {
                return Taken::Ended(reason.clone());
            }
            let left = deadline.saturating_sub(now);
            if left.is_zero() {
                return Taken::Late;
            }
            let waited = self.0.1.wait_timeout(slot, left);
            slot = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What the last frame looked like.
    pub(crate) fn format(&self) -> Option<FrameFormat> {
        self.slot().format
    }

    pub(crate) fn drops(&self) -> Drops {
        self.slot().drops
    }
}

/// How frames stand in a stream of bytes.
pub(crate) enum Framing {
    /// Raw frames of one format.
    Raw(FrameFormat),
    /// JPEGs, or Y4M: the first bytes tell.
    Tagged,
}

impl Framing {
    /// What the options say of a stream.
    ///
    /// # Errors
    ///
    /// A raw format without a size, in words.
    pub(crate) fn of(options: &SourceOptions) -> Result<Framing, String> {
        let Some(pixel) = options.pixel.filter(|pixel| *pixel != PixelFormat::Mjpg) else {
            return Ok(Framing::Tagged);
        };
        let sides = options
            .size
            .filter(|(width, height)| *width > 0 && *height > 0);
        let (width, height) = sides.ok_or(format!("{pixel} needs size=WIDTHxHEIGHT"))?;
        let stride = options.stride.unwrap_or(0);
        let color = options.color(Color {
            matrix: Matrix::Bt601,
            range: Range::Limited,
        });
        let format = FrameFormat {
            pixel,
            width,
            height,
            stride,
            color,
        };
        format.frame_bytes().map_err(|error| error.to_string())?;
        Ok(Framing::Raw(format))
    }

    /// Cuts the stream into frames until it ends; why it did, in words.
    pub(crate) fn cut(&self, mut input: impl Read, feed: &Feed) -> String {
        match self {
            Framing::Raw(format) => cut_raw(*format, input, feed),
            Framing::Tagged => {
                let mut head = Vec::new();
                let read = (&mut input)
                    .take(Y4M_MAGIC.len() as u64)
                    .read_to_end(&mut head);
                match (read, head.as_slice()) {
                    (Err(error), _) => error.to_string(),
                    (_, []) => "it ended without a frame".into(),
                    (_, Y4M_MAGIC) => cut_y4m(head.as_slice().chain(input), feed),
                    _ => cut_jpegs(head.as_slice().chain(input), feed),
                }
            }
        }
    }
}

const Y4M_MAGIC: &[u8] = b"YUV4MPEG2 ";
/// Bytes without a picture after which a stream is given up as something else.
const MAX_RUBBISH: u64 = 2 * MAX_JPEG_BYTES as u64;
const ENDED: &str = "it ended";

fn cut_raw(format: FrameFormat, mut input: impl Read, feed: &Feed) -> String {
    let mut splitter = match raw::Splitter::new(&format) {
        Ok(splitter) => splitter,
        Err(error) => return error.to_string(),
    };
    let end = each_piece(&mut input, |mut bytes| {
        while let Some(bytes) = splitter.next_frame(&mut bytes) {
            match Frame::new(format, bytes, 0, Duration::ZERO) {
                Ok(frame) => feed.put(frame),
                Err(_) => feed.damaged(),
            }
        }
        None
    });
    if splitter.partial_bytes() > 0 {
        feed.damaged();
    }
    end
}

fn cut_jpegs(mut input: impl Read, feed: &Feed) -> String {
    let mut splitter = jpeg::Splitter::new(MAX_JPEG_BYTES);
    let mut frames = false;
    each_piece(&mut input, |bytes| {
        splitter.push(bytes);
        while let Some(bytes) = splitter.next_frame() {
            frames = true;
            match jpeg_frame(bytes, 0, Duration::ZERO) {
                Ok(frame) => feed.put(frame),
                Err(_) => feed.damaged(),
            }
        }
        let rubbish = !frames && splitter.dropped_bytes() > MAX_RUBBISH;
        rubbish.then(|| "it is neither JPEG nor Y4M; say what it is with pixel=… and size=…".into())
    })
}

fn cut_y4m(input: impl Read, feed: &Feed) -> String {
    let mut reader = match y4m::Reader::new(input) {
        Ok(reader) => reader,
        Err(error) => return error.to_string(),
    };
    loop {
        match reader.next_frame() {
            Ok(Some(frame)) => feed.put(frame),
            Ok(None) => return ENDED.into(),
            Err(error) => return error.to_string(),
        }
    }
}

/// Hands on what comes in until the end, or until `take` says why to stop.
fn each_piece(input: &mut impl Read, mut take: impl FnMut(&[u8]) -> Option<String>) -> String {
    let mut piece = vec![0; PIECE];
    loop {
        match input.read(&mut piece) {
            Ok(0) => return ENDED.into(),
            Ok(count) => {
                if let Some(reason) = take(&piece[..count]) {
                    return reason;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return error.to_string(),
        }
    }
}
