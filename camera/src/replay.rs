//! Frames from files: a folder of pictures, one picture, Y4M, or JPEGs one behind the other.
//!
//! Time stamps are those of the recording, from its begin. In a folder they stand in `frames.csv` (lines of
//! `name,seconds`), or in the names (`porch-1250ms.png`, `1.25s.png`), or follow from the rate wanted. With
//! `speed=1` frames come when they are due, and those that nobody asked for in time are left out, as with a
//! camera; with `speed=0` each comes as soon as it is asked for.

mod folder;
mod recording;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::frame::{Frame, FrameFormat};
use crate::source::{Drops, Opened, Source, SourceError, SourceOptions, monotonic_now};
use recording::Recording;

/// Rate of recordings that do not tell theirs, in frames a second.
const USUAL_RATE: f64 = 5.0;

/// Opens a recording.
pub(crate) fn open(address: &str, options: &SourceOptions) -> Opened {
    let path = PathBuf::from(address);
    let mut recording = recording::open(&path, options)?;
    let mut damaged = 0;
    let Some(first) = next_sound(recording.as_mut(), &path, &mut damaged)? else {
        return Err(unusable(&path, "there is no readable frame in it".into()));
    };
    Ok(Box::new(Replay {
        format: first.format(),
        begun: monotonic_now(),
        pending: Some(first),
        recording,
        path,
        options: options.clone(),
        offset: Duration::ZERO,
        length: Duration::ZERO,
        sequence: 0,
        drops: Drops {
            damaged,
            ..Drops::default()
        },
    }))
}

fn unusable(path: &Path, what: String) -> SourceError {
    SourceError::Unusable {
        address: format!("replay:{}", path.display()),
        what,
        advice: "give a folder of pictures, a picture, a .y4m or an .mjpeg file".into(),
    }
}

/// Most damaged frames in a row before a recording is given up.
const MAX_DAMAGED: u64 = 10_000;

/// The next frame that can be read; damaged ones are counted and passed over.
fn next_sound(
    recording: &mut dyn Recording,
    path: &Path,
    damaged: &mut u64,
) -> Result<Option<Frame>, SourceError> {
    for _ in 0..MAX_DAMAGED {
        match recording.next() {
            Some(Ok(frame)) => return Ok(Some(frame)),
            Some(Err(_)) => *damaged += 1,
            None => return Ok(None),
        }
    }
    Err(unusable(
        path,
        format!("more than {MAX_DAMAGED} damaged frames in a row"),
    ))
}

struct Replay {
    path: PathBuf,
    options: SourceOptions,
    recording: Box<dyn Recording>,
    format: FrameFormat,
    /// The next frame to deliver, stamped by the recording.
    pending: Option<Frame>,
    /// When the first frame was due.
    begun: Duration,
    /// Added to the recording's stamps: the length of all repetitions so far.
    offset: Duration,
    /// Length of the recording as far as it was read.
    length: Duration,
    sequence: u64,
    drops: Drops,
}

impl Replay {
    /// When a frame is due.
    fn due(&self, frame: &Frame) -> Duration {
        match self.options.speed {
            speed if speed > 0.0 => {
                let passed = self.offset.saturating_add(frame.timestamp()).as_secs_f64() / speed;
                let passed = Duration::try_from_secs_f64(passed).unwrap_or(Duration::MAX);
                self.begun.saturating_add(passed)
            }
            _ => self.begun,
        }
    }

    /// Reads the frame after the pending one, from the begin again if so wanted.
    fn advance(&mut self) -> Result<Option<Frame>, SourceError> {
        if let Some(frame) = self.read()? {
            return Ok(Some(frame));
        }
        if !self.options.repeat {
            return Ok(None);
        }
        self.recording = recording::open(&self.path, &self.options)?;
        self.offset = self.offset.saturating_add(self.length);
        self.length = Duration::ZERO;
        self.read()
    }

    fn read(&mut self) -> Result<Option<Frame>, SourceError> {
        let next = next_sound(self.recording.as_mut(), &self.path, &mut self.drops.damaged)?;
        if let Some(frame) = &next {
            self.length = frame.timestamp().saturating_add(self.recording.period());
        }
        Ok(next)
    }

    /// Delivers the pending frame and lines up the next that is not late already.
    fn deliver(&mut self, frame: Frame) -> Result<Frame, SourceError> {
        let (mut frame, mut stamp) = (frame.clone(), self.offset.saturating_add(frame.timestamp()));
        let now = monotonic_now();
        while let Some(next) = self.advance()? {
            if self.options.speed <= 0.0 || self.due(&next) > now {
                self.pending = Some(next);
                break;
            }
            self.drops.stale += 1;
            self.sequence += 1;
            stamp = self.offset.saturating_add(next.timestamp());
            frame = next;
        }
        self.format = frame.format();
        let frame = frame.stamped(self.sequence, stamp);
        self.sequence += 1;
        Ok(frame.with_view(Arc::clone(&self.options.view)))
    }
}

impl Source for Replay {
    fn next_frame(&mut self, wait: Duration) -> Result<Frame, SourceError> {
        let Some(frame) = self.pending.take() else {
            return Err(SourceError::Ended {
                address: self.address(),
            });
        };
        let left = self.due(&frame).saturating_sub(monotonic_now());
        std::thread::sleep(left.min(wait));
        if left > wait {
            self.pending = Some(frame);
            return Err(SourceError::Late {
                address: self.address(),
                wait,
            });
        }
        self.deliver(frame)
    }

    fn format(&self) -> FrameFormat {
        self.format
    }

    fn describe(&self) -> String {
        format!("the recording {}", self.path.display())
    }

    fn address(&self) -> String {
        format!("replay:{}", self.path.display())
    }

    fn is_live(&self) -> bool {
        false
    }

    fn drops(&self) -> Drops {
        self.drops
    }
}
