//! Commands for cameras that only other programs can read.

use std::path::Path;

use crate::frame::{Matrix, Range};
use crate::pixel_format::PixelFormat;
use crate::source::SourceOptions;

/// A command and what it writes.
#[derive(Clone, Debug)]
pub(super) struct Command {
    pub(super) arguments: Vec<String>,
    pub(super) options: SourceOptions,
}

/// Tells whether a program is there.
pub(super) type Installed<'a> = &'a dyn Fn(&str) -> bool;
type Preset = fn(&SourceOptions, Installed<'_>) -> Command;

/// The preset of a name.
pub(super) fn named(name: &str) -> Option<Preset> {
    match name {
        "rpicam" => Some(rpicam),
        "jetson" => Some(jetson),
        _ => None,
    }
}

/// Size where none is asked for.
const USUAL_SIZE: (u32, u32) = (640, 480);
/// Rate where none is asked for, in frames a second.
const USUAL_RATE: f64 = 10.0;
/// Rows of such widths have no padding on any of the boards, whichever way their drivers align.
const ALIGNMENT: u32 = 64;

/// Size and rate as they are asked of the program.
fn asked(options: &SourceOptions) -> (u32, u32, f64) {
    let (width, height) = options.size.unwrap_or(USUAL_SIZE);
    let width = width.max(1).next_multiple_of(ALIGNMENT);
    // Chroma has half the rows.
    let height = height.max(2).next_multiple_of(2);
    (width, height, options.rate.unwrap_or(USUAL_RATE))
}

/// A program's frames: what was asked for, in the format and colour it is known to write.
fn writes(
    options: &SourceOptions,
    (width, height): (u32, u32),
    pixel: PixelFormat,
    range: Range,
) -> SourceOptions {
    SourceOptions {
        size: Some((width, height)),
        pixel: Some(pixel),
        matrix: options.matrix.or(Some(Matrix::Bt601)),
        range: options.range.or(Some(range)),
        ..options.clone()
    }
}

/// rpicam-vid (libcamera-vid on older systems): yuv420 in JPEG's colours, which is what it sets for this codec.
fn rpicam(options: &SourceOptions, installed: Installed<'_>) -> Command {
    let (width, height, rate) = asked(options);
    let old = !installed("rpicam-vid") && installed("libcamera-vid");
    let program = if old { "libcamera-vid" } else { "rpicam-vid" };
    let arguments = format!(
        "{program} --timeout 0 --nopreview --codec yuv420 --width {width} --height {height} \
         --framerate {rate} --camera {} --flush --output -",
        options.sensor
    );
    Command {
        arguments: words(&arguments),
        options: writes(options, (width, height), PixelFormat::Yu12, Range::Full),
    }
}

/// NVIDIA's camera service through GStreamer.
fn jetson(options: &SourceOptions, _: Installed<'_>) -> Command {
    let (width, height, rate) = asked(options);
    let arguments = format!(
        "gst-launch-1.0 -q nvarguscamerasrc sensor-id={} ! \
         video/x-raw(memory:NVMM),width={width},height={height},framerate={}/1,format=NV12 ! \
         nvvidconv ! video/x-raw,format=NV12,width={width},height={height} ! \
         queue max-size-buffers=1 leaky=downstream ! fdsink fd=1 sync=false",
        options.sensor,
        rate.ceil()
    );
    Command {
        arguments: words(&arguments),
        options: writes(options, (width, height), PixelFormat::Nv12, Range::Limited),
    }
}

/// ffmpeg or GStreamer on an RTSP address, writing Y4M; none if neither is installed.
///
/// Over TCP, as lost packets of H.264 smear pictures for seconds, and with the least buffering they offer.
pub(super) fn rtsp(
    url: &str,
    options: &SourceOptions,
    installed: Installed<'_>,
) -> Option<Command> {
    let arguments = match () {
        () if installed("ffmpeg") => ffmpeg(url, options),
        () if installed("gst-launch-1.0") => gstreamer(url, options),
        () => return None,
    };
    // Y4M says what it is.
    Some(Command {
        arguments,
        options: SourceOptions {
            pixel: None,
            ..options.clone()
        },
    })
}

fn ffmpeg(url: &str, options: &SourceOptions) -> Vec<String> {
    let mut arguments = words(
        "ffmpeg -nostdin -hide_banner -loglevel error -rtsp_transport tcp \
         -fflags nobuffer -flags low_delay -i",
    );
    arguments.push(url.to_owned());
    if let Some((width, height)) = options.size {
        // Never larger than it comes.
        arguments.push("-vf".into());
        arguments.push(format!("scale='min({width},iw)':'min({height},ih)'"));
    }
    if let Some(rate) = options.rate {
        arguments.extend(["-r".into(), rate.to_string()]);
    }
    arguments.extend(words("-an -pix_fmt yuv420p -f yuv4mpegpipe -"));
    arguments
}

fn gstreamer(url: &str, options: &SourceOptions) -> Vec<String> {
    let mut arguments =
        words("gst-launch-1.0 -q rtspsrc protocols=tcp latency=100 drop-on-latency=true");
    arguments.push(format!("location={url}"));
    let size = options
        .size
        .map(|(width, height)| format!(",width={width},height={height}"));
    arguments.extend(words(&format!(
        "! decodebin ! videoconvert ! videoscale ! video/x-raw,format=I420{} ! \
         queue max-size-buffers=1 leaky=downstream ! y4menc ! fdsink fd=1 sync=false",
        size.unwrap_or_default()
    )));
    arguments
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Whether a program is in one of the folders of `PATH`.
pub(super) fn is_installed(program: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).any(|folder| Path::new(&folder).join(program).is_file())
}
