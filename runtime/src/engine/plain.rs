//! Ordinary ONNX models through plain tract: load, check the shapes, run on a picture.
//!
//! Nothing of the SmolVLM family comes this way; it is for small models beside it, such as a
//! detector that decides whether a picture is worth a question.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::file::open_regular;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::DimLike;
use tract_onnx::tract_hir::infer::Factoid;

/// Largest model file, in bytes.
pub const MAX_MODEL_BYTES: u64 = 512 << 20;
/// Longest side of an input picture, in pixels.
pub const MAX_INPUT_SIDE: usize = 4096;

/// Why an ONNX model cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlainModelError {
    /// The file could not be read.
    #[error("{}: cannot be read", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is larger than any side model should be.
    #[error("{}: {bytes} bytes, the limit is {MAX_MODEL_BYTES}; use a smaller model", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// tract cannot read or type the graph.
    #[error("{}: not an ONNX model this program can run: {message}", path.display())]
    Graph {
        /// The file.
        path: PathBuf,
        /// What tract said.
        message: String,
    },
    /// The model does not take one picture.
    #[error(
        "{}: input {found}; wanted is one input of f32 or u8, [1, 3, height, width] or [1, height, width, 3], \
         sides up to {MAX_INPUT_SIDE}", path.display()
    )]
    Input {
        /// The file.
        path: PathBuf,
        /// What the model takes instead.
        found: String,
    },
    /// The size of the picture is left open by the model and by the caller.
    #[error(
        "{}: the model leaves its input size open ({found}); say it as \"input\": [width, height] in {}",
        path.display(), settings.display()
    )]
    SizeUnknown {
        /// The file.
        path: PathBuf,
        /// The open shape.
        found: String,
        /// Where to say it.
        settings: PathBuf,
    },
    /// The model failed on a picture.
    #[error("{}: failed on a picture: {message}", path.display())]
    Run {
        /// The file.
        path: PathBuf,
        /// What tract said.
        message: String,
    },
}

/// Where the channels of the input stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelAxis {
    /// `[1, 3, height, width]`.
    First,
    /// `[1, height, width, 3]`.
    Last,
}

/// The one input of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureInput {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Where the channels stand.
    pub channels: ChannelAxis,
    /// Whether the model takes bytes; else it takes f32.
    pub bytes: bool,
}

impl PictureInput {
    /// Length of every axis of the input.
    fn shape(&self) -> [usize; 4] {
        match self.channels {
            ChannelAxis::First => [1, 3, self.height, self.width],
            ChannelAxis::Last => [1, self.height, self.width, 3],
        }
    }
}

/// One output, as f32.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Length of every axis.
    pub shape: Vec<usize>,
    /// Values, last axis fastest.
    pub values: Vec<f32>,
}

/// An ONNX model that takes one picture.
#[derive(Debug)]
pub struct PlainModel {
    path: PathBuf,
    input: PictureInput,
    plan: Arc<TypedRunnableModel>,
}

impl PlainModel {
    /// Loads a model. `size` (width, height) is used where the model leaves its input size open.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, a graph tract cannot run, an input that is not one picture.
    pub fn load(path: &Path, size: Option<(usize, usize)>) -> Result<PlainModel, PlainModelError> {
        let io = |source| PlainModelError::Io {
            path: path.to_path_buf(),
            source,
        };
        // Opened, for nothing is waited for then: a pipe in its place is refused here.
        let opened = open_regular(path).and_then(|file| file.metadata());
        let bytes = opened.map_err(io)?.len();
        if bytes > MAX_MODEL_BYTES {
            return Err(PlainModelError::TooLarge {
                path: path.to_path_buf(),
                bytes,
            });
        }
        let graph = |message| PlainModelError::Graph {
            path: path.to_path_buf(),
            message,
        };
        // Shapes a file declares between its nodes and at its outputs have the names of the lengths
        // its input leaves open, which the input's size would contradict; they follow from the input.
        let onnx = tract_onnx::onnx()
            .with_ignore_value_info(true)
            .with_ignore_output_shapes(true);
        let mut model = guarded(|| onnx.model_for_path(path)).map_err(graph)?;
        let input = picture_input(&model, path, size)?;
        let datum = if input.bytes {
            u8::datum_type()
        } else {
            f32::datum_type()
        };
        let plan = guarded(move || {
            model.set_input_fact(0, InferenceFact::dt_shape(datum, input.shape()))?;
            model.into_optimized()?.into_runnable()
        })
        .map_err(graph)?;
        Ok(PlainModel {
            path: path.to_path_buf(),
            input,
            plan,
        })
    }

    /// What the model takes.
    pub fn input(&self) -> PictureInput {
        self.input
    }

    /// Number of outputs.
    pub fn n_outputs(&self) -> usize {
        self.plan.model().outputs.len()
    }

    /// Runs the model on values in the order of its input, `height × width × 3` of them.
    ///
    /// # Errors
    ///
    /// [`PlainModelError::Run`], also when the number of values is another.
    pub fn run(&self, values: &[f32]) -> Result<Vec<Array>, PlainModelError> {
        let outputs = guarded(|| {
            let shape = self.input.shape();
            let tensor = if self.input.bytes {
                let bytes: Vec<u8> = values.iter().map(|v| v.round() as u8).collect();
                Tensor::from_shape(&shape, &bytes)?
            } else {
                Tensor::from_shape(&shape, values)?
            };
            let outputs = self.plan.run(tvec!(tensor.into_tvalue()))?;
            outputs.iter().map(|output| array(output)).collect()
        });
        outputs.map_err(|message| PlainModelError::Run {
            path: self.path.clone(),
            message,
        })
    }
}

pub(super) fn array(output: &Tensor) -> TractResult<Array> {
    Ok(Array {
        shape: output.shape().to_vec(),
        values: floats(output)?,
    })
}

/// The values of a tensor as f32.
pub(super) fn floats(tensor: &Tensor) -> TractResult<Vec<f32>> {
    let values = tensor.cast_to::<f32>()?;
    Ok(values.try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
}

/// Runs `work`; tract panics on some graphs it should refuse.
pub(super) fn guarded<T>(work: impl FnOnce() -> TractResult<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(format!("{error:#}")),
        Err(_) => Err("the graph breaks an assumption of the engine".to_owned()),
    }
}

fn picture_input(
    model: &InferenceModel,
    path: &Path,
    size: Option<(usize, usize)>,
) -> Result<PictureInput, PlainModelError> {
    let wrong = |found: String| PlainModelError::Input {
        path: path.to_path_buf(),
        found,
    };
    if model.inputs.len() != 1 {
        return Err(wrong(format!("count is {}", model.inputs.len())));
    }
    let fact = model
        .input_fact(0)
        .map_err(|error| wrong(format!("{error:#}")))?;
    let shown = format!("{fact:?}");
    let datum = fact.datum_type.concretize();
    let bytes = match datum {
        Some(DatumType::U8) => true,
        Some(DatumType::F32) | None => false,
        Some(_) => return Err(wrong(shown)),
    };
    let dims: Vec<Option<usize>> = fact
        .shape
        .dims()
        .map(|dim| dim.concretize().and_then(|dim| dim.to_usize().ok()))
        .collect();
    let (channels, height, width) = match dims.as_slice() {
        [_, Some(3), height, width] => (ChannelAxis::First, *height, *width),
        [_, height, width, Some(3)] => (ChannelAxis::Last, *height, *width),
        [_, None, height, width] => (ChannelAxis::First, *height, *width),
        _ => return Err(wrong(shown)),
    };
    let (Some(width), Some(height)) = (
        width.or(size.map(|(width, _)| width)),
        height.or(size.map(|(_, height)| height)),
    ) else {
        return Err(PlainModelError::SizeUnknown {
            path: path.to_path_buf(),
            found: shown,
            settings: path.with_extension("json"),
        });
    };
    if !(1..=MAX_INPUT_SIDE).contains(&width) || !(1..=MAX_INPUT_SIDE).contains(&height) {
        return Err(wrong(format!("is {width}x{height}")));
    }
    Ok(PictureInput {
        width,
        height,
        channels,
        bytes,
    })
}
