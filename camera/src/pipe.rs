//! Programs that write frames to their standard output: raw, JPEGs, or Y4M.
//!
//! The command is split as a shell splits words, and no shell runs. `pixel=`, `size=` and `stride=` say what
//! raw output is; JPEG and Y4M tell themselves. `pipe:rpicam?…` and `pipe:jetson?…` stand for the commands
//! that serve the CSI sockets of these boards.

mod child;
mod preset;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::frame::{Frame, FrameFormat};
use crate::pixel_format::PixelFormat;
use crate::source::feed::{Feed, Framing, JPEG_COLOR, Taken};
use crate::source::{Drops, Opened, Source, SourceError, SourceOptions};
use child::{Child, Output};
use preset::Command;

/// Opens a command, or a preset.
pub(crate) fn open(address: &str, options: &SourceOptions) -> Opened {
    let (name, query) = address.split_once('?').unwrap_or((address, ""));
    let uri = format!("pipe:{address}");
    if let Some(preset) = preset::named(name) {
        let options = options.with_query(query);
        let options = options.map_err(|source| SourceError::Option {
            uri: uri.clone(),
            source,
        })?;
        return start(uri, preset(&options, &preset::is_installed));
    }
    let arguments = shell_words::split(address).unwrap_or_default();
    if arguments.is_empty() {
        let what = "it is pipe:COMMAND ARGUMENTS, with quotes in pairs".into();
        return Err(SourceError::Uri { uri, what });
    }
    start(
        uri,
        Command {
            arguments,
            options: options.clone(),
        },
    )
}

/// Opens an RTSP camera through a program that speaks RTSP.
pub(crate) fn open_rtsp(address: &str, options: &SourceOptions) -> Opened {
    let url = format!("rtsp:{address}");
    match preset::rtsp(&url, options, &preset::is_installed) {
        Some(command) => start(url, command),
        None => Err(SourceError::Unusable {
            address: redacted(&url),
            what: "neither ffmpeg nor gst-launch-1.0 is installed".into(),
            advice: "install one: sudo apt install ffmpeg".into(),
        }),
    }
}

fn start(uri: String, command: Command) -> Opened {
    let Command { arguments, options } = command;
    let name = redacted(&uri);
    let framing = Framing::of(&options);
    let framing = framing.map_err(|what| SourceError::Uri {
        uri: name.clone(),
        what,
    })?;
    let (child, output) = Child::spawn(&arguments).map_err(|error| SourceError::Unusable {
        address: name.clone(),
        what: format!("cannot run {}: {error}", arguments[0]),
        advice: "install it, or name it with its folder".into(),
    })?;
    let feed = Feed::default();
    let reader = read(framing, output, feed.clone());
    Ok(Box::new(Pipe {
        uri,
        name,
        options,
        feed,
        child,
        reader: Some(reader),
    }))
}

fn read(framing: Framing, output: Output, feed: Feed) -> JoinHandle<()> {
    thread::spawn(move || {
        let stderr = output.stderr();
        let reason = framing.cut(output, &feed);
        let said = stderr.said();
        feed.end(if said.is_empty() {
            reason
        } else {
            format!("{reason}; it said: {said}")
        });
    })
}

/// A running program and the thread that reads it.
struct Pipe {
    uri: String,
    /// The URI without a password, for messages.
    name: String,
    options: SourceOptions,
    feed: Feed,
    child: Child,
    reader: Option<JoinHandle<()>>,
}

impl Source for Pipe {
    fn next_frame(&mut self, wait: Duration) -> Result<Frame, SourceError> {
        match self.feed.take(wait, self.options.max_age) {
            Taken::Frame(frame) => Ok(frame.with_view(Arc::clone(&self.options.view))),
            Taken::Late => Err(SourceError::Late {
                address: self.name.clone(),
                wait,
            }),
            Taken::Ended(reason) => {
                let status = self.child.exit_status();
                let what = status.map_or(reason.clone(), |status| format!("{status}; {reason}"));
                Err(SourceError::Lost {
                    address: self.name.clone(),
                    what,
                })
            }
        }
    }

    fn format(&self) -> FrameFormat {
        let (width, height) = self.options.size.unwrap_or((0, 0));
        let pixel = self.options.pixel.unwrap_or(PixelFormat::Mjpg);
        let stride = self.options.stride.unwrap_or(0);
        let expected = FrameFormat {
            pixel,
            width,
            height,
            stride,
            color: JPEG_COLOR,
        };
        self.feed.format().unwrap_or(expected)
    }

    fn describe(&self) -> String {
        format!("{} (process {})", self.name, self.child.id())
    }

    fn address(&self) -> String {
        // The mark ends the address: a command may hold one of its own.
        format!("{}#", self.uri)
    }

    fn drops(&self) -> Drops {
        self.feed.drops()
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.child.stop();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// A URL whose password is not told.
pub(crate) fn redacted(url: &str) -> String {
    let hidden = |(scheme, rest): (&str, &str)| {
        let end = rest.find('/').unwrap_or(rest.len());
        let (_, host) = rest[..end].rsplit_once('@')?;
        Some(format!("{scheme}://***@{host}{}", &rest[end..]))
    };
    url.split_once("://")
        .and_then(hidden)
        .unwrap_or_else(|| url.to_owned())
}
