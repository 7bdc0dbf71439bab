//! Network cameras: an MJPEG stream (`multipart/x-mixed-replace`), or a snapshot URL asked again and again.
//!
//! Which of the two it is, the answer tells. The pictures of a stream are found by their own marks: cameras that
//! send wrong lengths or boundaries do no harm. Name and password stand in the URL. Every step has a time limit,
//! [`SourceOptions::stall`], and no picture may be longer than 32 MiB.

#[cfg(test)]
mod tests;

use std::io::Read;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use ureq::Agent;
use ureq::http::Response;

use crate::frame::{Frame, FrameFormat};
use crate::pipe::redacted;
use crate::pixel_format::PixelFormat;
use crate::source::feed::{Feed, Framing, JPEG_COLOR, MAX_JPEG_BYTES, Taken, jpeg_frame};
use crate::source::{Drops, Opened, Source, SourceError, SourceOptions, monotonic_now};

/// Snapshots a second where no rate is asked for.
const USUAL_RATE: f64 = 1.0;
/// Redirections that are followed.
const MAX_REDIRECTS: u32 = 3;

/// Opens a camera by its URL.
pub(crate) fn open(address: &str, options: &SourceOptions) -> Opened {
    let (url, authorization) = credentials(&format!("http:{address}"));
    let limit = Some(options.stall);
    let config = Agent::config_builder()
        .timeout_resolve(limit)
        .timeout_connect(limit)
        .timeout_send_request(limit)
        .timeout_recv_response(limit)
        .timeout_per_read(limit)
        .max_redirects(MAX_REDIRECTS)
        .http_status_as_error(false)
        .build();
    let camera = Remote {
        agent: Agent::new_with_config(config),
        url: url.clone(),
        authorization,
        period: Duration::try_from_secs_f64(1.0 / options.rate.unwrap_or(USUAL_RATE))
            .unwrap_or(Duration::MAX),
        stall: options.stall,
    };
    let feed = Feed::default();
    let (stop, stopped) = mpsc::channel();
    let (agent, filled) = (camera.agent.clone(), feed.clone());
    let reader = thread::spawn(move || {
        let reason = camera.follow(&filled, &stopped);
        filled.end(reason);
    });
    Ok(Box::new(Http {
        uri: format!("http:{address}"),
        name: redacted(&format!("http:{address}")),
        options: options.clone(),
        feed,
        agent: Some(agent),
        stop: Some(stop),
        reader: Some(reader),
    }))
}

/// Says that there is no TLS here.
pub(crate) fn open_tls(address: &str, _: &SourceOptions) -> Opened {
    let address = redacted(&format!("https:{address}"));
    Err(SourceError::Unusable {
        what: "https is not supported".into(),
        advice: format!(
            "use http, or the source pipe:ffmpeg -loglevel error -i {address} -f yuv4mpegpipe -"
        ),
        address,
    })
}

/// The URL without name and password, and these as the header `Authorization` (RFC 7617).
fn credentials(url: &str) -> (String, Option<String>) {
    let parts = url.split_once("://").and_then(|(scheme, rest)| {
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (user, host) = rest[..end].rsplit_once('@')?;
        Some((format!("{scheme}://{host}{}", &rest[end..]), user))
    });
    match parts {
        None => (url.to_owned(), None),
        Some((url, user)) => {
            let user: Vec<u8> = percent_decode_str(user).collect();
            (url, Some(format!("Basic {}", STANDARD.encode(user))))
        }
    }
}

/// A camera at a URL.
struct Remote {
    agent: Agent,
    url: String,
    authorization: Option<String>,
    period: Duration,
    stall: Duration,
}

impl Remote {
    /// Reads until the camera fails or `stopped` is closed; why, in words.
    fn follow(&self, feed: &Feed, stopped: &mpsc::Receiver<()>) -> String {
        loop {
            let begun = monotonic_now();
            let mut answer = match self.ask() {
                Ok(answer) => answer,
                Err(reason) => return reason,
            };
            let kind = content_type(&answer);
            if kind.starts_with("multipart/") {
                return Framing::Tagged.cut(answer.body_mut().as_reader(), feed);
            }
            match snapshot(&mut answer) {
                Ok(frame) => feed.put(frame),
                Err(reason) => return format!("it sent {kind}, no JPEG: {reason}"),
            }
            let rest = self
                .period
                .saturating_sub(monotonic_now().saturating_sub(begun));
            if stopped.recv_timeout(rest) != Err(RecvTimeoutError::Timeout) {
                return "it was stopped".into();
            }
        }
    }

    fn ask(&self) -> Result<Response<ureq::Body>, String> {
        let mut request = self.agent.get(&self.url);
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        let answer = request.call().map_err(|error| match error {
            ureq::Error::Timeout(_) => format!("no answer within {} ms", self.stall.as_millis()),
            error => error.to_string(),
        })?;
        match answer.status().as_u16() {
            200..=299 => Ok(answer),
            401 => Err("it wants a password (401): write http://USER:PASSWORD@HOST/…".into()),
            404 => Err("it knows no such page (404): see the camera's manual for its MJPEG or snapshot URL".into()),
            status => Err(format!("it answered with status {status}")),
        }
    }
}

fn content_type(answer: &Response<ureq::Body>) -> String {
    let header = answer
        .headers()
        .get("content-type")
        .and_then(|value| value.to_str().ok());
    header
        .unwrap_or("something without a type")
        .to_ascii_lowercase()
}

fn snapshot(answer: &mut Response<ureq::Body>) -> Result<Frame, String> {
    let mut bytes = Vec::new();
    let limit = MAX_JPEG_BYTES as u64 + 1;
    let read = answer
        .body_mut()
        .as_reader()
        .take(limit)
        .read_to_end(&mut bytes);
    read.map_err(|error| error.to_string())?;
    if bytes.len() > MAX_JPEG_BYTES {
        return Err(format!("it is longer than {MAX_JPEG_BYTES} bytes"));
    }
    jpeg_frame(bytes, 0, Duration::ZERO)
}

/// A camera that is being read.
struct Http {
    uri: String,
    /// The URI without a password, for messages.
    name: String,
    options: SourceOptions,
    feed: Feed,
    agent: Option<Agent>,
    stop: Option<Sender<()>>,
    reader: Option<JoinHandle<()>>,
}

impl Source for Http {
    fn next_frame(&mut self, wait: Duration) -> Result<Frame, SourceError> {
        let address = self.name.clone();
        match self.feed.take(wait, self.options.max_age) {
            Taken::Frame(frame) => Ok(frame.with_view(Arc::clone(&self.options.view))),
            Taken::Late => Err(SourceError::Late { address, wait }),
            Taken::Ended(what) => Err(SourceError::Lost { address, what }),
        }
    }

    fn format(&self) -> FrameFormat {
        let (pixel, color) = (PixelFormat::Mjpg, JPEG_COLOR);
        let unknown = FrameFormat {
            pixel,
            width: 0,
            height: 0,
            stride: 0,
            color,
        };
        self.feed.format().unwrap_or(unknown)
    }

    fn describe(&self) -> String {
        self.name.clone()
    }

    fn address(&self) -> String {
        // The mark ends the address.
        format!("{}#", self.uri)
    }

    fn drops(&self) -> Drops {
        self.feed.drops()
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        self.stop = None;
        // Ends a read that is under way.
        if let Some(agent) = self.agent.take() {
            agent.shutdown();
        }
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}
