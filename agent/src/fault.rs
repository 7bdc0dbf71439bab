//! What ends a verb early, and the exit code it means.

use crate::hub::HubError;
use crate::link::mqtt::MqttError;
use crate::remark::remark;
use crate::remedy::remedy;
use crate::room::RoomError;
use crate::run::recorder::RecorderError;
use crate::run::settings::SettingsError;
use crate::signature::SignatureError;
use ocelli_boards::PinError;
use ocelli_camera::source::{self, SourceError};
use ocelli_reflex::diagnostic::Rejected;
use ocelli_runtime::image::ImageError;
use ocelli_runtime::import::ImportError;
use ocelli_runtime::pack::PackError;
use ocelli_runtime::packer::PackModelError;
use ocelli_runtime::probe::ProbeError;
use ocelli_runtime::{LoadError, RunError};
use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

/// Why a verb ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// An argument cannot be used together with another, or has a value out of range.
    #[error("{0}")]
    Argument(String),
    /// A picture cannot be used.
    #[error("{}", image_message(path, source))]
    Image {
        /// The picture's file.
        path: PathBuf,
        /// What is wrong with it.
        source: ImageError,
    },
    /// Some of several pictures could not be used; each was reported on its own.
    #[error("{failed} of {total} pictures could not be used")]
    SomeImages {
        /// How many failed.
        failed: usize,
        /// How many were given.
        total: usize,
    },
    /// No model of that name.
    #[error(
        "there is no model {name}: it is neither \"default\" nor a pack, nor a model directory, nor a GGUF file, nor installed in {} ({installed})",
        dir.display()
    )]
    NoModel {
        /// What was asked for.
        name: String,
        /// Where installed models are looked for.
        dir: PathBuf,
        /// What is installed there, in words.
        installed: String,
    },
    /// The model cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The model cannot be fetched.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// There is not enough room.
    #[error(transparent)]
    Room(#[from] RoomError),
    /// A pack is not trusted, or the keys cannot be read.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// The question cannot be answered.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The model cannot be packed.
    #[error(transparent)]
    Packer(#[from] PackModelError),
    /// The kernels of this CPU do not compute what the model's probes say.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// The camera cannot be opened.
    #[error(transparent)]
    Camera(#[from] SourceError),
    /// There is no camera to look through.
    #[error(
        "no camera was found ({seen}); plug one in or name a source with --source, and see `ocelli doctor`"
    )]
    NoCamera {
        /// What was found instead, in words.
        seen: String,
    },
    /// The detector cannot be used.
    #[cfg(feature = "onnx")]
    #[error(transparent)]
    Detector(#[from] ocelli_runtime::detector::DetectorError),
    /// A file cannot be read or written.
    #[error("{}: {source}{}", path.display(), remedy(source, "instead"))]
    File {
        /// The file.
        path: PathBuf,
        /// What the system reported.
        source: io::Error,
    },
    /// A file or folder that was named cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Input {
        /// The file or folder.
        path: PathBuf,
        /// What the system reported.
        source: io::Error,
    },
    /// The configuration of the agent cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The rule file of the agent cannot be used.
    #[error("{}\n{rejected}", path.display())]
    Rules {
        /// The file.
        path: PathBuf,
        /// Its mistakes.
        rejected: Rejected,
    },
    /// Nothing can be kept.
    #[error(transparent)]
    Recorder(#[from] RecorderError),
    /// The broker's settings or the event queue cannot be used.
    #[error(transparent)]
    Mqtt(#[from] MqttError),
    /// A pin cannot be used.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// Some rule files cannot be used; their mistakes were printed.
    #[error("{failed} of {total} rule files cannot be used")]
    RuleFiles {
        /// How many cannot.
        failed: usize,
        /// How many were given.
        total: usize,
    },
    /// A journal is damaged; where was printed.
    #[error("the journal in {} is damaged in {damages} places", path.display())]
    Journal {
        /// Its folder.
        path: PathBuf,
        /// How much damage there is.
        damages: u64,
    },
    /// A journal cannot be done again, or comes out otherwise; why was printed.
    #[error("the replay of {} failed: {what}", path.display())]
    Replay {
        /// Folder of the journal.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Something cannot be measured.
    #[error("the measurement failed: {0}")]
    Measurement(String),
    /// Standard output cannot be written.
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
}

impl Fault {
    /// 1 a fault while running, 2 bad arguments or input, 3 model missing or unusable, 4 device missing.
    pub fn exit_code(&self) -> u8 {
        match self {
            Fault::Argument(_) | Fault::Image { .. } | Fault::SomeImages { .. } => 2,
            Fault::Input { .. } | Fault::RuleFiles { .. } => 2,
            Fault::Settings(_) | Fault::Rules { .. } => 2,
            Fault::Mqtt(MqttError::Queue(_) | MqttError::Start { .. }) => 1,
            Fault::Mqtt(_) => 2,
            Fault::Recorder(_) => 1,
            Fault::Pin(PinError::NoChip { .. } | PinError::Permission { .. }) => 4,
            Fault::Pin(PinError::Busy { .. } | PinError::Refused { .. }) => 4,
            Fault::Pin(_) => 2,
            Fault::Journal { .. } | Fault::Replay { .. } => 1,
            Fault::NoModel { .. } => 3,
            Fault::Hub(error) => error.exit_code(),
            Fault::Room(_) => 1,
            Fault::Signature(SignatureError::Key { .. } | SignatureError::Settings { .. }) => 2,
            Fault::Signature(SignatureError::File { .. }) => 1,
            Fault::Signature(_) => 3,
            Fault::Load(
                LoadError::Compute(_)
                | LoadError::NoFloatWeights { .. }
                | LoadError::OtherWeights { .. }
                | LoadError::Import(
                    ImportError::LoneProjector { .. } | ImportError::LoneVariant { .. },
                ),
            ) => 2,
            Fault::Load(_) => 3,
            Fault::Packer(PackModelError::Write(PackError::Io(_))) => 1,
            Fault::Packer(
                PackModelError::SpareOnGrid { .. } | PackModelError::SpareTooLittle { .. },
            ) => 2,
            Fault::Packer(PackModelError::Import(
                ImportError::LoneProjector { .. } | ImportError::LoneVariant { .. },
            )) => 2,
            Fault::Packer(_) => 3,
            Fault::Probe(ProbeError::Write(_)) => 1,
            Fault::Probe(_) => 3,
            Fault::Run(RunError::Engine { .. } | RunError::Cancelled) => 1,
            Fault::Run(RunError::NotFinite) => 3,
            Fault::Run(_) => 2,
            Fault::Camera(error) => match error.fault() {
                source::Fault::Request => 2,
                _ => 4,
            },
            Fault::NoCamera { .. } => 4,
            #[cfg(feature = "onnx")]
            Fault::Detector(_) => 2,
            Fault::File { .. } | Fault::Output(_) | Fault::Measurement(_) => 1,
        }
    }

    /// Writes the message and its causes to stderr.
    pub fn report(&self) {
        remark!("ocelli: {}", with_causes(self));
    }
}

/// The message of a picture's error, with its path in front unless it says it itself.
fn image_message(path: &Path, source: &ImageError) -> String {
    let (path, message) = (path.display().to_string(), source.to_string());
    if message.starts_with(&path) {
        message
    } else {
        format!("{path}: {message}")
    }
}

/// The message of an error and of what caused it, each said once.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        cause = error.source();
    }
    text
}
