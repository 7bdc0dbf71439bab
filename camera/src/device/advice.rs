//! What is in the way of using a device, and what helps.

use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use v4l::v4l_sys as sys;

use crate::pixel_format::PixelFormat;
use crate::v4l2::Capability;

/// What is known of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The node, for example `/dev/video0`.
    pub path: PathBuf,
    /// What the driver says; only the name if the node cannot be opened.
    pub capability: Capability,
    /// Four-character codes of the formats on offer.
    pub formats: Vec<[u8; 4]>,
    /// What happened when it was opened or asked to stream.
    pub obstacle: Option<Obstacle>,
    /// The program that has it open, if the system tells.
    pub holder: Option<String>,
}

impl Facts {
    pub(super) fn new(path: &Path) -> Facts {
        Facts {
            path: path.to_owned(),
            ..Facts::default()
        }
    }
}

/// Why a node cannot be opened or does not stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// There is no such node, or no device behind it.
    Missing,
    /// The user may not open it.
    Forbidden,
    /// Another program streams from it.
    Busy,
    /// It is no video device.
    Foreign,
    /// Something else, in the system's words.
    Other(String),
}

impl Obstacle {
    pub(super) fn of(error: &io::Error) -> Obstacle {
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => Obstacle::Missing,
            Some(Errno::EACCES | Errno::EPERM) => Obstacle::Forbidden,
            Some(Errno::EBUSY) => Obstacle::Busy,
            Some(Errno::ENOTTY | Errno::EINVAL) => Obstacle::Foreign,
            _ => Obstacle::Other(error.to_string()),
        }
    }
}

/// What to tell the owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// Frames can be had from it by its path.
    pub usable: bool,
    /// What it is, or what is in the way.
    pub what: String,
    /// What to do.
    pub advice: String,
}

/// A driver of raw sensors: the picture is made elsewhere.
struct Sensor {
    driver: &'static str,
    board: &'static str,
    source: &'static str,
}

const RASPBERRY: &str = "Raspberry Pi";
const RPICAM: &str = "pipe:rpicam?width=640&height=480";
const JETSON: &str = "pipe:jetson?sensor=0&width=1280&height=720";

/// Drivers of CSI sockets, by the name the driver gives itself or its card.
static SENSORS: &[Sensor] = &[
    Sensor {
        driver: "unicam",
        board: RASPBERRY,
        source: RPICAM,
    },
    Sensor {
        driver: "rp1-cfe",
        board: RASPBERRY,
        source: RPICAM,
    },
    Sensor {
        driver: "tegra-video",
        board: "Jetson",
        source: JETSON,
    },
    Sensor {
        driver: "tegra-camrtc",
        board: "Jetson",
        source: JETSON,
    },
];

/// Says whether a device can be used, and what to do if not.
pub fn advise(facts: &Facts) -> Advice {
    let node = facts.path.display();
    let refuse = |what: String, advice: String| Advice {
        usable: false,
        what,
        advice,
    };
    if let Some(sensor) = sensor(&facts.capability) {
        return refuse(
            format!(
                "{node} is the CSI sensor of a {} ({}): it gives raw sensor data",
                sensor.board, sensor.driver
            ),
            format!("use the source {}", sensor.source),
        );
    }
    if let Some(obstacle) = &facts.obstacle {
        let (what, advice) = blocked(facts, obstacle);
        return refuse(what, advice);
    }
    match unfit(facts) {
        Some((what, advice)) => refuse(what, advice),
        None => Advice {
            usable: true,
            what: format!("{} ({})", facts.capability.card, facts.capability.driver),
            advice: format!("use the source v4l2:{node}"),
        },
    }
}

fn sensor(capability: &Capability) -> Option<&'static Sensor> {
    let named = |name: &str| {
        let name = name.to_ascii_lowercase();
        SENSORS
            .iter()
            .find(|sensor| name.starts_with(sensor.driver))
    };
    named(&capability.driver).or_else(|| named(&capability.card))
}

fn blocked(facts: &Facts, obstacle: &Obstacle) -> (String, String) {
    let node = facts.path.display();
    match obstacle {
        Obstacle::Missing => (
            format!("{node} is not there"),
            "plug the camera in, or see with `ocelli doctor` which cameras there are".into(),
        ),
        Obstacle::Forbidden => (
            format!("this user may not open {node}"),
            "add the user to the group video: sudo usermod -aG video $USER, then log in again"
                .into(),
        ),
        Obstacle::Busy => (
            match &facts.holder {
                Some(holder) => format!("{node} is in use by {holder}"),
                None => format!("{node} is in use by another program"),
            },
            format!("end that program (fuser {node} finds it); a camera streams to one at a time"),
        ),
        Obstacle::Foreign => (
            format!("{node} is no video device"),
            "name a node like /dev/video0".into(),
        ),
        Obstacle::Other(reason) => (
            format!("{node}: {reason}"),
            "see dmesg for what the driver says".into(),
        ),
    }
}

/// Why a node that opens gives no frames.
fn unfit(facts: &Facts) -> Option<(String, String)> {
    let node = facts.path.display();
    let can = |ability| facts.capability.abilities & ability != 0;
    let other = "use the other node of this camera: one usually lower in number".to_owned();
    if !can(sys::V4L2_CAP_VIDEO_CAPTURE) {
        let codec = can(sys::V4L2_CAP_VIDEO_M2M) || can(sys::V4L2_CAP_VIDEO_M2M_MPLANE);
        let output = can(sys::V4L2_CAP_VIDEO_OUTPUT) || can(sys::V4L2_CAP_VIDEO_OUTPUT_MPLANE);
        let planes = can(sys::V4L2_CAP_VIDEO_CAPTURE_MPLANE);
        let kind = match () {
            () if codec => "a codec or scaler, no camera",
            () if can(sys::V4L2_CAP_META_CAPTURE) => "the metadata node of a camera",
            () if planes => "a camera with separate buffers a plane, which is not supported",
            () if output => "an output, no camera",
            () => "no camera",
        };
        let advice = match () {
            () if planes => "use a pipe: source with gst-launch-1.0 v4l2src".into(),
            () if codec || output => "use a camera; `ocelli doctor` lists them".into(),
            () => other,
        };
        return Some((format!("{node} is {kind}"), advice));
    }
    if !can(sys::V4L2_CAP_STREAMING) {
        let advice = "use a pipe: source with a program that reads from it".into();
        return Some((
            format!("{node} cannot stream through shared buffers"),
            advice,
        ));
    }
    let readable = |code: &[u8; 4]| PixelFormat::from_fourcc(*code).is_some();
    if facts.formats.is_empty() || facts.formats.iter().any(readable) {
        return None;
    }
    let offered = facts
        .formats
        .iter()
        .map(|code| String::from_utf8_lossy(code).into_owned());
    let offered: Vec<String> = offered.collect();
    let what = format!(
        "{node} offers only formats this program does not read: {}",
        offered.join(" ")
    );
    Some((
        what,
        "use a pipe: source with ffmpeg or gst-launch-1.0 to convert them".into(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAMERA: u32 = sys::V4L2_CAP_VIDEO_CAPTURE | sys::V4L2_CAP_STREAMING;

    fn facts(driver: &str, abilities: u32, formats: &[&[u8; 4]]) -> Facts {
        let capability = Capability {
            driver: driver.into(),
            card: "Eye".into(),
            bus: "usb-1".into(),
            abilities,
        };
        let formats = formats.iter().map(|code| **code).collect();
        Facts {
            capability,
            formats,
            ..Facts::new(Path::new("/dev/video0"))
        }
    }

    fn obstructed(obstacle: Obstacle, holder: Option<&str>) -> Facts {
        let holder = holder.map(str::to_owned);
        Facts {
            obstacle: Some(obstacle),
            holder,
            ..facts("", 0, &[])
        }
    }

    #[test]
    fn each_obstacle_is_named_with_what_helps() {
        let cases = [
            (
                facts("unicam", CAMERA, &[b"RG10"]),
                "CSI sensor of a Raspberry Pi",
                "pipe:rpicam?",
            ),
            (
                facts("rp1-cfe", CAMERA, &[b"RG16"]),
                "CSI sensor of a Raspberry Pi",
                "pipe:rpicam?",
            ),
            (
                facts("tegra-video", CAMERA, &[b"RG10"]),
                "CSI sensor of a Jetson",
                "pipe:jetson?sensor=0",
            ),
            (
                facts("tegra-camrtc-ca", CAMERA, &[]),
                "CSI sensor of a Jetson",
                "pipe:jetson?",
            ),
            (
                facts("uvcvideo", sys::V4L2_CAP_META_CAPTURE, &[]),
                "metadata node",
                "lower in number",
            ),
            (
                facts("vivid", sys::V4L2_CAP_VIDEO_OUTPUT, &[]),
                "an output",
                "ocelli doctor",
            ),
            (
                facts("codec", sys::V4L2_CAP_VIDEO_M2M_MPLANE, &[]),
                "codec",
                "ocelli doctor",
            ),
            (
                facts("isp", sys::V4L2_CAP_VIDEO_CAPTURE_MPLANE, &[]),
                "a plane",
                "v4l2src",
            ),
            (
                facts("old", sys::V4L2_CAP_VIDEO_CAPTURE, &[]),
                "cannot stream",
                "pipe:",
            ),
            (
                facts("dv", CAMERA, &[b"H264", b"dvsd"]),
                "H264 dvsd",
                "ffmpeg",
            ),
            (facts("none", 0, &[]), "no camera", "lower in number"),
            (obstructed(Obstacle::Missing, None), "is not there", "plug"),
            (
                obstructed(Obstacle::Forbidden, None),
                "may not open",
                "group video",
            ),
            (
                obstructed(Obstacle::Busy, Some("cheese (process 12)")),
                "in use by cheese (process 12)",
                "fuser",
            ),
            (
                obstructed(Obstacle::Busy, None),
                "in use by another program",
                "fuser",
            ),
            (
                obstructed(Obstacle::Foreign, None),
                "no video device",
                "/dev/video0",
            ),
            (
                obstructed(Obstacle::Other("on fire".into()), None),
                "on fire",
                "dmesg",
            ),
        ];
        for (facts, what, help) in cases {
            let advice = advise(&facts);
            assert!(!advice.usable, "{advice:?}");
            assert!(advice.what.contains(what), "{advice:?} should say {what}");
            assert!(
                advice.advice.contains(help),
                "{advice:?} should advise {help}"
            );
        }
    }

    #[test]
    fn a_webcam_is_usable_by_its_path() {
        let advice = advise(&facts("uvcvideo", CAMERA, &[b"H264", b"YUYV"]));
        assert!(advice.usable);
        assert_eq!(advice.advice, "use the source v4l2:/dev/video0");
    }

    #[test]
    fn errors_of_the_system_are_told_apart() {
        let cases = [
            (Errno::ENOENT, Obstacle::Missing),
            (Errno::ENODEV, Obstacle::Missing),
            (Errno::EACCES, Obstacle::Forbidden),
            (Errno::EBUSY, Obstacle::Busy),
            (Errno::ENOTTY, Obstacle::Foreign),
        ];
        for (errno, expected) in cases {
            assert_eq!(Obstacle::of(&errno.into()), expected);
        }
        assert!(matches!(
            Obstacle::of(&Errno::EIO.into()),
            Obstacle::Other(_)
        ));
    }
}
