//! Where frames come from: one trait, one list of kinds, chosen by URI.
//!
//! | URI | kind |
//! |---|---|
//! | `v4l2:/dev/v4l/by-id/…`, `/dev/video0`, `v4l2:?card=NAME`, `v4l2:?bus=BUS` | a camera of the kernel |
//! | `pipe:COMMAND ARGUMENTS`, `pipe:rpicam?…`, `pipe:jetson?…` | a program that writes frames to its standard output |
//! | `replay:PATH` | pictures, Y4M or MJPEG from files |
//! | `http://…` | an MJPEG stream, or a snapshot asked for again and again |
//! | `rtsp://…` | RTSP through ffmpeg or GStreamer |
//!
//! Options follow as `key=value&key=value`: after `?` for `v4l2:`, `replay:` and the presets of
//! `pipe:`, after `#` for addresses that may hold a `?` of their own. [`SourceOptions::set`] lists
//! the keys.

pub(crate) mod feed;
mod options;
#[cfg(test)]
mod tests;

pub use options::{OptionError, SourceOptions};

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::frame::{Frame, FrameFormat};
use crate::v4l2::ControlError;
use crate::{http, pipe, replay, v4l2};

/// Something that delivers frames, one after the other, the newest first served.
pub trait Source: Send {
    /// The newest frame, at most `wait` from now.
    ///
    /// # Errors
    ///
    /// See [`SourceError`]; [`SourceError::fault`] says what may help.
    fn next_frame(&mut self, wait: Duration) -> Result<Frame, SourceError>;

    /// What the next frame will look like, as far as known.
    fn format(&self) -> FrameFormat;

    /// What and where this is, in words.
    fn describe(&self) -> String;

    /// A URI that finds this very source again, also after the system gave it another number.
    fn address(&self) -> String;

    /// Whether pictures are of this moment: such sources need their exposure to settle.
    fn is_live(&self) -> bool {
        true
    }

    /// Frames lost or left out since the source was opened.
    fn drops(&self) -> Drops {
        Drops::default()
    }

    /// Stops and starts the stream without opening the device again.
    ///
    /// # Errors
    ///
    /// When the source cannot do that or it failed: open it again.
    fn restart(&mut self) -> Result<(), SourceError> {
        Err(SourceError::Broken {
            address: self.address(),
            what: "it cannot be restarted, only opened again".into(),
        })
    }
}

/// Frames that did not get through, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// The driver flagged them as damaged, or they were cut short.
    pub damaged: u64,
    /// Newer ones were there, or they were too old.
    pub stale: u64,
    /// Their numbers never turned up.
    pub missed: u64,
    /// Exposure had not settled.
    pub unsettled: u64,
}

impl Drops {
    /// The sum of both, cause by cause.
    #[must_use]
    pub fn plus(self, other: Drops) -> Drops {
        Drops {
            damaged: self.damaged.saturating_add(other.damaged),
            stale: self.stale.saturating_add(other.stale),
            missed: self.missed.saturating_add(other.missed),
            unsettled: self.unsettled.saturating_add(other.unsettled),
        }
    }
}

/// How bad an error is, which decides what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The request is wrong; trying again gives the same.
    Request,
    /// Nothing came in time.
    Late,
    /// May pass by itself: read again.
    Hiccup,
    /// The stream is broken: restart it, then open the device again.
    Stream,
    /// The device or program is away: open it again when it is back.
    Device,
    /// There is no more, by nature.
    End,
}

/// Why there is no frame, or no source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The URI names no source.
    #[error("source {uri:?}: {what}")]
    Uri {
        /// The URI.
        uri: String,
        /// The broken rule, and what to write.
        what: String,
    },
    /// An option has an impossible key or value.
    #[error("source {uri:?}: {source}")]
    Option {
        /// The URI.
        uri: String,
        /// Which option, and its limit.
        source: OptionError,
    },
    /// A control is unknown or its value impossible.
    #[error("{address}: {source}")]
    Control {
        /// The source.
        address: String,
        /// Control, value and range.
        source: ControlError,
    },
    /// The source exists and cannot be used as asked.
    #[error("{address}: {what}; {advice}")]
    Unusable {
        /// The source.
        address: String,
        /// What stands in the way.
        what: String,
        /// What to do.
        advice: String,
    },
    /// The source could not be opened now; later it may.
    #[error("{address}: {what}; {advice}")]
    Unavailable {
        /// The source.
        address: String,
        /// What stands in the way.
        what: String,
        /// What to do.
        advice: String,
    },
    /// No frame in time.
    #[error("{address}: no frame within {} ms", wait.as_millis())]
    Late {
        /// The source.
        address: String,
        /// How long it was waited for.
        wait: Duration,
    },
    /// A read failed in a way that may pass.
    #[error("{address}: {what}")]
    Hiccup {
        /// The source.
        address: String,
        /// What happened.
        what: String,
    },
    /// The stream broke.
    #[error("{address}: {what}")]
    Broken {
        /// The source.
        address: String,
        /// What happened.
        what: String,
    },
    /// The device was unplugged or the program ended.
    #[error("{address} went away: {what}")]
    Lost {
        /// The source.
        address: String,
        /// What happened.
        what: String,
    },
    /// The last frame was delivered before.
    #[error("{address} has ended")]
    Ended {
        /// The source.
        address: String,
    },
}

impl SourceError {
    /// What kind of trouble it is.
    pub fn fault(&self) -> Fault {
        match self {
            SourceError::Uri { .. }
            | SourceError::Option { .. }
            | SourceError::Control { .. }
            | SourceError::Unusable { .. } => Fault::Request,
            SourceError::Late { .. } => Fault::Late,
            SourceError::Hiccup { .. } => Fault::Hiccup,
            SourceError::Broken { .. } => Fault::Stream,
            SourceError::Unavailable { .. } | SourceError::Lost { .. } => Fault::Device,
            SourceError::Ended { .. } => Fault::End,
        }
    }
}

/// A source, or why there is none.
pub type Opened = Result<Box<dyn Source>, SourceError>;

/// One kind of source.
struct Kind {
    /// How its URIs begin.
    prefix: &'static str,
    /// What separates the options from the address.
    separator: char,
    /// Opens the address: the URI without prefix and options.
    open: fn(&str, &SourceOptions) -> Opened,
}

/// Every kind; the first whose prefix fits is taken.
static KINDS: &[Kind] = &[
    Kind {
        prefix: "v4l2:",
        separator: '?',
        open: v4l2::open,
    },
    Kind {
        prefix: "pipe:",
        separator: '#',
        open: pipe::open,
    },
    Kind {
        prefix: "replay:",
        separator: '?',
        open: replay::open,
    },
    Kind {
        prefix: "http:",
        separator: '#',
        open: http::open,
    },
    Kind {
        prefix: "https:",
        separator: '#',
        open: http::open_tls,
    },
    Kind {
        prefix: "rtsp:",
        separator: '#',
        open: pipe::open_rtsp,
    },
];

/// Opens the source of a URI; options in the URI override `options`.
///
/// # Errors
///
/// See [`SourceError`].
pub fn open(uri: &str, options: &SourceOptions) -> Opened {
    let uri = full_uri(uri);
    let kind = kind(&uri)?;
    let (address, options) = split_as(kind, &uri, options)?;
    (kind.open)(&address[kind.prefix.len()..], &options)
}

/// Separates the options in a URI from the address, and merges them into `options`.
///
/// # Errors
///
/// No such kind of source, or an option that is wrong.
pub fn split(uri: &str, options: &SourceOptions) -> Result<(String, SourceOptions), SourceError> {
    let uri = full_uri(uri);
    let (address, options) = split_as(kind(&uri)?, &uri, options)?;
    Ok((address.to_owned(), options))
}

fn kind(uri: &str) -> Result<&'static Kind, SourceError> {
    let kind = KINDS.iter().find(|kind| uri.starts_with(kind.prefix));
    kind.ok_or_else(|| SourceError::Uri {
        uri: uri.to_owned(),
        what: no_such_kind(),
    })
}

fn split_as<'a>(
    kind: &Kind,
    uri: &'a str,
    options: &SourceOptions,
) -> Result<(&'a str, SourceOptions), SourceError> {
    let (address, query) = uri.rsplit_once(kind.separator).unwrap_or((uri, ""));
    let options = options.with_query(query);
    let options = options.map_err(|source| SourceError::Option {
        uri: uri.to_owned(),
        source,
    })?;
    Ok((address, options))
}

/// A bare device node is short for its `v4l2:` URI.
fn full_uri(uri: &str) -> String {
    match uri.starts_with("/dev/") {
        true => format!("v4l2:{uri}"),
        false => uri.to_owned(),
    }
}

fn no_such_kind() -> String {
    let known: Vec<&str> = KINDS.iter().map(|kind| kind.prefix).collect();
    format!(
        "it begins with none of {}; write for example v4l2:/dev/video0 or replay:pictures/",
        known.join(" ")
    )
}

/// Time since the system started, not counting sleep: the clock of frames (`CLOCK_MONOTONIC`).
pub fn monotonic_now() -> Duration {
    match clock_gettime(ClockId::CLOCK_MONOTONIC) {
        Ok(time) => Duration::from(time),
        // Linux has had this clock since 2.6.
        Err(_) => Duration::ZERO,
    }
}
