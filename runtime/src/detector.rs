//! Detectors and classifiers beside the model: an ordinary ONNX file and a few words about it.
//!
//! `person.onnx` is described by `person.json` next to it:
//!
//! ```json
//! {"output": "yolo-v8", "labels": ["person", "bicycle"], "wanted": ["person"], "threshold": 0.5}
//! ```
//!
//! Every key but `output` has a default; see [`DetectorSettings`].

mod detection;
#[cfg(test)]
mod tests;

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::engine::plain::{Array, ChannelAxis, PlainModel, PlainModelError};
use crate::file::open_regular;
use crate::image::{ImageError, Rgb8};

pub use detection::{Area, Detection};

/// Grey of the bars of a letterboxed picture, as the YOLO family pads.
const LETTERBOX_GREY: u8 = 114;
/// Largest settings file, in bytes.
const MAX_SETTINGS_BYTES: u64 = 1 << 20;

/// How the numbers of the outputs are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutputForm {
    /// `[1, 4 + classes, n]`: centre x, y, width, height in input pixels, then scores.
    YoloV8,
    /// `[1, n, 5 + classes]`: the same box, objectness, then scores that it multiplies.
    YoloV5,
    /// Two outputs, `[1, n, 4]` corners in 0..1 and `[1, n, classes]` scores, in any order; class 0 is the background.
    Ssd,
    /// `[1, classes]` logits of the whole picture.
    Classes,
    /// `[1, 1, h, w]`: how likely each place belongs to the one class.
    Mask,
}

/// How the picture gets the size of the input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fit {
    /// Scaled with its aspect, centred, grey bars.
    #[default]
    Letterbox,
    /// Scaled in each direction on its own.
    Stretch,
}

/// Order of the colours of the input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChannelOrder {
    /// Red first.
    #[default]
    Rgb,
    /// Blue first.
    Bgr,
}

/// What `NAME.json` says about `NAME.onnx`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetectorSettings {
    /// How the outputs are meant.
    pub output: OutputForm,
    /// Width and height in pixels, where the model leaves them open.
    #[serde(default)]
    pub input: Option<(usize, usize)>,
    /// How the picture gets that size.
    #[serde(default)]
    pub fit: Fit,
    /// Order of the colours.
    #[serde(default)]
    pub channels: ChannelOrder,
    /// Input value = (byte × `scale` − `mean`) ÷ `std`; 1/255 by default, and 1 for models that take bytes.
    #[serde(default)]
    pub scale: Option<f32>,
    /// Subtracted from each channel.
    #[serde(default)]
    pub mean: [f32; 3],
    /// Each channel is divided by it.
    #[serde(default = "ones")]
    pub std: [f32; 3],
    /// Names of the classes, in the order of the outputs.
    #[serde(default)]
    pub labels: Vec<String>,
    /// The classes that count; all of them when empty.
    #[serde(default)]
    pub wanted: Vec<String>,
    /// Least score that counts, 0 to 1.
    #[serde(default = "half")]
    pub threshold: f32,
    /// Boxes of one class that overlap more than this (intersection over union) are one.
    #[serde(default = "half")]
    pub overlap: f32,
}

fn ones() -> [f32; 3] {
    [1.0; 3]
}

fn half() -> f32 {
    0.5
}

/// Why a detector cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DetectorError {
    /// The ONNX model.
    #[error(transparent)]
    Model(#[from] PlainModelError),
    /// The settings file is missing or unreadable.
    #[error("{}: cannot be read; a detector is described by a JSON file beside it", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The settings file is not what it should be.
    #[error("{}: {source}", path.display())]
    Settings {
        /// The file.
        path: PathBuf,
        /// Where it breaks.
        source: serde_json::Error,
    },
    /// A setting has a value out of its range.
    #[error("{}: {field} is {value}, allowed is {allowed}", path.display())]
    Range {
        /// The file.
        path: PathBuf,
        /// The key.
        field: &'static str,
        /// Its value.
        value: String,
        /// What would be right.
        allowed: String,
    },
    /// The outputs do not have the shape the settings say.
    #[error("{}: the outputs are {found}, but {form:?} means {wanted}; correct \"output\" in the JSON file", path.display())]
    Output {
        /// The model file.
        path: PathBuf,
        /// Shapes of the outputs.
        found: String,
        /// What the settings say.
        form: OutputForm,
        /// Shapes that fit it.
        wanted: &'static str,
    },
    /// The picture cannot be resized.
    #[error(transparent)]
    Image(#[from] ImageError),
}

/// An ONNX model with what its outputs mean.
#[derive(Debug)]
pub struct Detector {
    path: PathBuf,
    model: PlainModel,
    settings: DetectorSettings,
}

/// Where the picture lies in the input, in input pixels.
#[derive(Clone, Copy, Debug)]
struct Placement {
    left: usize,
    top: usize,
    width: usize,
    height: usize,
}

impl Detector {
    /// Loads `NAME.onnx` and the `NAME.json` beside it.
    ///
    /// # Errors
    ///
    /// Either file missing, damaged or at odds with the other.
    pub fn open(path: &Path) -> Result<Detector, DetectorError> {
        let settings = read_settings(&path.with_extension("json"))?;
        let model = PlainModel::load(path, settings.input)?;
        Ok(Detector {
            path: path.to_path_buf(),
            model,
            settings,
        })
    }

    /// What the settings file says.
    pub fn settings(&self) -> &DetectorSettings {
        &self.settings
    }

    /// What is in the picture: wanted classes at or over the threshold, likeliest first.
    ///
    /// # Errors
    ///
    /// A model that fails, outputs of another shape than the settings say.
    pub fn detect(&self, picture: &Rgb8) -> Result<Vec<Detection>, DetectorError> {
        let (values, placement) = self.input_values(picture)?;
        let outputs = self.model.run(&values)?;
        let input = self.model.input();
        let found = detection::decode(&self.settings, &outputs, (input.width, input.height))
            .ok_or_else(|| self.output_error(&outputs))?;
        let across = |x: f32| place(x * input.width as f32, placement.left, placement.width);
        let down = |y: f32| place(y * input.height as f32, placement.top, placement.height);
        let onto_picture = |mut detection: Detection| {
            detection.area = detection.area.map(|area| Area {
                left: across(area.left),
                top: down(area.top),
                right: across(area.right),
                bottom: down(area.bottom),
            });
            detection
        };
        Ok(found.into_iter().map(onto_picture).collect())
    }

    fn output_error(&self, outputs: &[Array]) -> DetectorError {
        let shapes: Vec<&[usize]> = outputs.iter().map(|o| o.shape.as_slice()).collect();
        DetectorError::Output {
            path: self.path.clone(),
            found: format!("{shapes:?}"),
            form: self.settings.output,
            wanted: detection::wanted_shapes(self.settings.output),
        }
    }

    /// The picture as the model takes it, and where it lies there.
    fn input_values(&self, picture: &Rgb8) -> Result<(Vec<f32>, Placement), DetectorError> {
        let input = self.model.input();
        let placement = match self.settings.fit {
            Fit::Stretch => Placement {
                left: 0,
                top: 0,
                width: input.width,
                height: input.height,
            },
            Fit::Letterbox => letterbox(
                (picture.width(), picture.height()),
                (input.width, input.height),
            ),
        };
        let resized = picture.resized(placement.width, placement.height)?;
        let plane = input.width * input.height;
        let scale = self
            .settings
            .scale
            .unwrap_or(if input.bytes { 1.0 } else { 1.0 / 255.0 });
        let source = |channel: usize| match self.settings.channels {
            ChannelOrder::Rgb => channel,
            ChannelOrder::Bgr => 2 - channel,
        };
        let value = |byte: u8, channel: usize| {
            (f32::from(byte) * scale - self.settings.mean[channel]) / self.settings.std[channel]
        };
        let at = |pixel: usize, channel: usize| match input.channels {
            ChannelAxis::First => channel * plane + pixel,
            ChannelAxis::Last => pixel * 3 + channel,
        };
        let mut values = vec![0.0; plane * 3];
        for channel in 0..3 {
            for pixel in 0..plane {
                values[at(pixel, channel)] = value(LETTERBOX_GREY, channel);
            }
        }
        for (row, pixels) in resized
            .pixels()
            .chunks_exact(placement.width * 3)
            .enumerate()
        {
            let start = (placement.top + row) * input.width + placement.left;
            for (column, pixel) in pixels.chunks_exact(3).enumerate() {
                for channel in 0..3 {
                    values[at(start + column, channel)] = value(pixel[source(channel)], channel);
                }
            }
        }
        Ok((values, placement))
    }
}

/// From input pixels to 0..1 of the picture that was placed there.
fn place(value: f32, start: usize, length: usize) -> f32 {
    ((value - start as f32) / length as f32).clamp(0.0, 1.0)
}

fn letterbox(picture: (usize, usize), input: (usize, usize)) -> Placement {
    let ratio = (input.0 as f64 / picture.0 as f64).min(input.1 as f64 / picture.1 as f64);
    let side =
        |length: usize, most: usize| ((length as f64 * ratio).round() as usize).clamp(1, most);
    let (width, height) = (side(picture.0, input.0), side(picture.1, input.1));
    Placement {
        left: (input.0 - width) / 2,
        top: (input.1 - height) / 2,
        width,
        height,
    }
}

fn read_settings(path: &Path) -> Result<DetectorSettings, DetectorError> {
    let io = |source| DetectorError::Io {
        path: path.to_path_buf(),
        source,
    };
    let range = |field, value: String, allowed: &str| DetectorError::Range {
        path: path.to_path_buf(),
        field,
        value,
        allowed: allowed.to_owned(),
    };
    let file = open_regular(path).map_err(io)?;
    let bytes = file.metadata().map_err(io)?.len();
    if bytes > MAX_SETTINGS_BYTES {
        return Err(range("file size", format!("{bytes} bytes"), "up to 1 MiB"));
    }
    let mut text = Vec::new();
    file.take(MAX_SETTINGS_BYTES)
        .read_to_end(&mut text)
        .map_err(io)?;
    let settings: DetectorSettings =
        serde_json::from_slice(&text).map_err(|source| DetectorError::Settings {
            path: path.to_path_buf(),
            source,
        })?;
    for (field, value) in [
        ("threshold", settings.threshold),
        ("overlap", settings.overlap),
    ] {
        if !(0.0..=1.0).contains(&value) {
            return Err(range(field, value.to_string(), "0 to 1"));
        }
    }
    if settings
        .std
        .iter()
        .any(|std| !std.is_finite() || *std == 0.0)
    {
        return Err(range(
            "std",
            format!("{:?}", settings.std),
            "three numbers, none of them 0",
        ));
    }
    if let Some(unknown) = settings
        .wanted
        .iter()
        .find(|w| !settings.labels.contains(w))
    {
        let known = settings.labels.join(", ");
        return Err(range(
            "wanted",
            unknown.clone(),
            &format!("one of the labels: {known}"),
        ));
    }
    Ok(settings)
}
