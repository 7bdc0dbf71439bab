//! The int8 engine: tract plans of fused ops over the weights of a pack.

use super::Engine;
use super::ops::decoder::{DecoderModel, SharedKv, lock};
use super::ops::vision::VisionModel;
use crate::config::VisionConfig;
use crate::error::{LoadError, RunError};
use crate::kv_cache::KvCache;
use crate::memory::Shortage;
use crate::pack::Pack;
use crate::rotation::Rotation;
use ocelli_kernels::Compute;
use std::sync::{Arc, Mutex};
use tract_core::internal::*;

/// The plans of one model; conversations share them.
#[derive(Debug)]
pub struct Int8Model {
    /// `None` for a model that reads text only.
    vision: Option<Vision>,
    decoder: Arc<TypedSimplePlan>,
    head: Arc<TypedSimplePlan>,
    model: Arc<DecoderModel>,
    rotation: Rotation,
}

/// Plan of the vision side, and the side of a frame in pixels.
#[derive(Debug)]
struct Vision {
    plan: Arc<TypedSimplePlan>,
    frame_side: usize,
}

impl Int8Model {
    /// Builds the plans. Weights stay where the pack has them.
    ///
    /// # Errors
    ///
    /// A tensor that is missing or of another shape; a graph tract refuses.
    pub fn new(pack: Arc<Pack>, compute: Arc<Compute>) -> Result<Int8Model, LoadError> {
        let rotation = pack.header().text_rotation.clone();
        let vision = match pack.header().config.vision.clone() {
            Some(config) => {
                let frame_side = config.image_size;
                let model = VisionModel::new(config, pack.clone(), compute.clone())?;
                let plan = plan("vision", Arc::new(model).typed_model())?;
                Some(Vision { plan, frame_side })
            }
            None => None,
        };
        let fits = Shortage::of(pack.len()).is_none();
        let model = Arc::new(DecoderModel::new(pack, compute)?);
        if fits {
            model.populate();
        }
        Ok(Int8Model {
            vision,
            decoder: plan("decoder", model.typed_model())?,
            head: plan("head", model.typed_head())?,
            model,
            rotation,
        })
    }

    /// Starts a conversation.
    ///
    /// # Errors
    ///
    /// A plan tract cannot start.
    pub fn start(&self) -> Result<Int8Engine, LoadError> {
        let spawn = |stage: &'static str, plan: &Arc<TypedSimplePlan>| {
            plan.spawn().map_err(|error| LoadError::Plan {
                stage,
                message: format!("{error:#}"),
            })
        };
        let kv: SharedKv = Arc::new(Mutex::new(KvCache::new(self.model.config())));
        let mut decoder = spawn("decoder", &self.decoder)?;
        // A cloned state starts with an empty shared map, so every state gets its cache here.
        decoder.turn_state.shared.insert(kv.clone());
        let vision = match &self.vision {
            Some(vision) => Some((spawn("vision", &vision.plan)?, vision.frame_side)),
            None => None,
        };
        Ok(Int8Engine {
            vision,
            decoder,
            head: spawn("head", &self.head)?,
            kv,
            last_hidden: None,
            hidden_size: self.model.config().hidden_size,
            context: self.model.config().max_positions,
            rotation: self.rotation.clone(),
        })
    }
}

/// Image features of the smallest frame a vision side can read: as wide as one image token, its
/// bytes from `byte`. The patches take the first position embeddings. `[1, hidden]`
///
/// # Errors
///
/// A tensor that is missing, a graph tract refuses; [`RunError::NoVision`], a fault of the engine.
pub fn encode_small(
    pack: &Arc<Pack>,
    compute: &Arc<Compute>,
    byte: impl FnMut() -> u8,
) -> Result<Result<Vec<f32>, RunError>, LoadError> {
    let stage = "vision";
    let Some(config) = &pack.header().config.vision else {
        return Ok(Err(RunError::NoVision));
    };
    let side = config.patch_size * config.scale_factor;
    let config = VisionConfig {
        image_size: side,
        ..config.clone()
    };
    let model = VisionModel::new(config, pack.clone(), compute.clone())?;
    let plan = plan(stage, Arc::new(model).typed_model())?;
    let mut bytes = vec![0u8; 3 * side * side];
    bytes.fill_with(byte);
    let encode = || {
        let frame = Tensor::from_shape(&[side, side, 3], &bytes);
        let output = frame
            .and_then(|frame| plan.run(tvec!(frame.into_tvalue())))
            .and_then(|mut outputs| outputs.pop().context("the plan has one output"))
            .map_err(|error| engine_error(stage, &error))?;
        values(stage, &output)
    };
    Ok(encode())
}

fn plan(
    stage: &'static str,
    model: TractResult<TypedModel>,
) -> Result<Arc<TypedSimplePlan>, LoadError> {
    model
        .and_then(TypedSimplePlan::new)
        .map_err(|error| LoadError::Plan {
            stage,
            message: format!("{error:#}"),
        })
}

/// One conversation on an [`Int8Model`].
#[derive(Debug)]
pub struct Int8Engine {
    /// State of the vision plan and the side of a frame, with a vision side.
    vision: Option<(TypedSimpleState, usize)>,
    decoder: TypedSimpleState,
    head: TypedSimpleState,
    kv: SharedKv,
    /// Hidden state of the last appended token. `[1, hidden]`
    last_hidden: Option<Tensor>,
    hidden_size: usize,
    context: usize,
    rotation: Rotation,
}

/// Runs a plan that has one output.
fn run(
    stage: &'static str,
    state: &mut TypedSimpleState,
    inputs: TVec<TValue>,
) -> Result<TValue, RunError> {
    let outcome = state
        .run(inputs)
        .and_then(|mut outputs| outputs.pop().context("the plan has one output"));
    outcome.map_err(|error| {
        // A failed turn leaves its symbols bound; without this the next one would clash with them.
        if let Err(reset) = state.reset_turn() {
            return engine_error(stage, &reset);
        }
        engine_error(stage, &error)
    })
}

fn engine_error(stage: &'static str, error: &TractError) -> RunError {
    RunError::Engine {
        stage,
        message: format!("{error:#}"),
    }
}

/// The values of an f32 output.
fn values(stage: &'static str, output: &Tensor) -> Result<Vec<f32>, RunError> {
    output
        .try_as_plain_ram()
        .and_then(|view| view.as_slice::<f32>().map(<[f32]>::to_vec))
        .map_err(|error| engine_error(stage, &error))
}

impl Engine for Int8Engine {
    fn encode(&mut self, frame: &[u8]) -> Result<Vec<f32>, RunError> {
        let stage = "vision";
        let (state, side) = self.vision.as_mut().ok_or(RunError::NoVision)?;
        let side = *side;
        let frame = Tensor::from_shape(&[side, side, 3], frame)
            .map_err(|error| engine_error(stage, &error))?;
        let features = run(stage, state, tvec!(frame.into_tvalue()))?;
        values(stage, &features)
    }

    fn append(&mut self, ids: &[u32], image_rows: &[f32]) -> Result<(), RunError> {
        if ids.is_empty() {
            return Ok(());
        }
        let stage = "decoder";
        {
            let mut kv = lock(&self.kv);
            if !kv.reserve(ids.len()) {
                return Err(RunError::ContextFull {
                    position: kv.len(),
                    additional: ids.len(),
                    limit: self.context,
                });
            }
        }
        let wide: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
        let n_rows = image_rows.len() / self.hidden_size;
        let tensors = Tensor::from_shape(&[ids.len()], &wide).and_then(|ids| {
            Ok((
                ids,
                Tensor::from_shape(&[n_rows, self.hidden_size], image_rows)?,
            ))
        });
        let (ids_in, rows_in) = tensors.map_err(|error| engine_error(stage, &error))?;
        let inputs = tvec!(ids_in.into_tvalue(), rows_in.into_tvalue());
        self.last_hidden = None;
        let hidden = run(stage, &mut self.decoder, inputs)?;
        let last = hidden
            .slice(0, ids.len() - 1, ids.len())
            .map_err(|error| engine_error(stage, &error))?;
        self.last_hidden = Some(last);
        lock(&self.kv).advance(ids.len());
        Ok(())
    }

    fn logits(&mut self) -> Result<Vec<f32>, RunError> {
        let hidden = self.last_hidden.clone().ok_or(RunError::NothingAppended)?;
        let logits = run("head", &mut self.head, tvec!(hidden.into_tvalue()))?;
        values("head", &logits)
    }

    fn position(&self) -> usize {
        lock(&self.kv).len()
    }

    fn truncate(&mut self, len: usize) {
        self.last_hidden = None;
        lock(&self.kv).truncate(len);
    }

    fn to_model_basis(&self, image_rows: &mut [f32]) {
        for row in image_rows.chunks_exact_mut(self.hidden_size) {
            self.rotation.unrotate(row);
        }
    }

    fn kv_bytes(&self) -> usize {
        lock(&self.kv).byte_len()
    }
}
