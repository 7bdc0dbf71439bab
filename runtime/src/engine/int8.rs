//! The int8 engine: tract plans of fused ops over the weights of a pack, and decode steps beside
//! them.
//!
//! A decode step is the same for every token, and a plan allocates for each of its nodes, so a
//! token alone goes through [`DecodeStep`], which allocates nothing.

use super::Engine;
use super::decoder::step::DecodeStep;
use super::decoder::{DecoderModel, SharedKv, lock};
use super::ops::vision::VisionModel;
use crate::config::VisionConfig;
use crate::error::{LoadError, RunError};
use crate::kv_cache::KvCache;
use crate::memory::Shortage;
use crate::pack::Pack;
use crate::sampler::Filter;
use crate::threads::{Crew, Phase};
use ocelli_kernels::Compute;
use std::sync::{Arc, Mutex};
use tract_core::internal::*;

/// The plans of one model; conversations share them.
#[derive(Debug)]
pub struct Int8Model {
    /// `None` for a model that reads text only.
    vision: Option<Vision>,
    decoder: Arc<TypedSimplePlan>,
    model: Arc<DecoderModel>,
    /// What conversations that start from now on work with.
    pub(crate) crew: Crew,
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
        let crew = Crew::new(compute.clone());
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
            model,
            crew,
        })
    }

    /// Starts a conversation.
    ///
    /// # Errors
    ///
    /// A plan tract cannot start.
    pub fn start(&self) -> Result<Int8Engine, LoadError> {
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
            kv,
            step: DecodeStep::new(&self.model),
            appended: false,
            model: self.model.clone(),
            crew: self.crew.clone(),
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
    Ok(encode_frame(&mut spawn(stage, &plan)?, side, &bytes))
}

fn plan(
    stage: &'static str,
    model: TractResult<TypedModel>,
) -> Result<Arc<TypedSimplePlan>, LoadError> {
    let plan = model.and_then(TypedSimplePlan::new);
    plan.map_err(|error| plan_error(stage, &error))
}

fn spawn(stage: &'static str, plan: &Arc<TypedSimplePlan>) -> Result<TypedSimpleState, LoadError> {
    plan.spawn().map_err(|error| plan_error(stage, &error))
}

fn plan_error(stage: &'static str, error: &TractError) -> LoadError {
    LoadError::Plan {
        stage,
        message: format!("{error:#}"),
    }
}

/// One conversation on an [`Int8Model`].
#[derive(Debug)]
pub struct Int8Engine {
    /// State of the vision plan and the side of a frame, with a vision side.
    vision: Option<(TypedSimpleState, usize)>,
    decoder: TypedSimpleState,
    kv: SharedKv,
    step: DecodeStep,
    /// Whether `step` holds the hidden state of the last position.
    appended: bool,
    model: Arc<DecoderModel>,
    crew: Crew,
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

/// Image features of a frame by a vision plan. `frame`: `[side, side, 3]`
fn encode_frame(
    vision: &mut TypedSimpleState,
    side: usize,
    frame: &[u8],
) -> Result<Vec<f32>, RunError> {
    let stage = "vision";
    let frame =
        Tensor::from_shape(&[side, side, 3], frame).map_err(|error| engine_error(stage, &error))?;
    let features = run(stage, vision, tvec!(frame.into_tvalue()))?;
    values(stage, &features).map(<[f32]>::to_vec)
}

/// The values of an f32 output.
fn values<'t>(stage: &'static str, output: &'t Tensor) -> Result<&'t [f32], RunError> {
    output
        .try_as_plain_ram()
        .and_then(|view| view.as_slice::<f32>())
        .map_err(|error| engine_error(stage, &error))
}

impl Int8Engine {
    /// One token through the decoder.
    fn append_one(&mut self, id: u32) -> Result<(), RunError> {
        let (step, model) = (&mut self.step, &self.model);
        let kv = &mut lock(&self.kv);
        let stepped = self.crew.work(Phase::Decode, || step.run(model, id, kv));
        stepped.map_err(|error| RunError::Engine {
            stage: "decoder",
            message: error.to_string(),
        })
    }

    /// What `compute` makes of the last token's hidden state and room for its logits. `room`: as long
    /// as the vocabulary from then on
    fn after_last<R>(
        &mut self,
        room: &mut Vec<f32>,
        compute: impl FnOnce(&mut DecodeStep, &DecoderModel, &mut [f32]) -> R,
    ) -> Result<R, RunError> {
        if !self.appended {
            return Err(RunError::NothingAppended);
        }
        room.resize(self.model.config().vocab_size, 0.0);
        let (step, model) = (&mut self.step, &self.model);
        Ok(self.crew.work(Phase::Decode, || compute(step, model, room)))
    }

    /// Tokens of a prompt through the decoder's plan.
    fn append_many(&mut self, ids: &[u32], image_rows: &[f32]) -> Result<(), RunError> {
        let stage = "decoder";
        let fault = |error: TractError| engine_error(stage, &error);
        let hidden_size = self.model.config().hidden_size;
        let wide: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
        let ids = Tensor::from_shape(&[ids.len()], &wide).map_err(fault)?;
        let shape = [image_rows.len() / hidden_size, hidden_size];
        let rows = Tensor::from_shape(&shape, image_rows).map_err(fault)?;
        let inputs = tvec!(ids.into_tvalue(), rows.into_tvalue());
        let decoder = &mut self.decoder;
        let hidden = self
            .crew
            .work(Phase::Prefill, || run(stage, decoder, inputs))?;
        let hidden = values(stage, &hidden)?;
        self.step.set_hidden(&hidden[hidden.len() - hidden_size..]);
        Ok(())
    }
}

impl Engine for Int8Engine {
    fn encode(&mut self, frame: &[u8]) -> Result<Vec<f32>, RunError> {
        let (state, side) = self.vision.as_mut().ok_or(RunError::NoVision)?;
        let side = *side;
        self.crew
            .work(Phase::Encode, || encode_frame(state, side, frame))
    }

    fn append(&mut self, ids: &[u32], image_rows: &[f32]) -> Result<(), RunError> {
        if ids.is_empty() {
            return Ok(());
        }
        {
            let mut kv = lock(&self.kv);
            if !kv.reserve(ids.len()) {
                return Err(RunError::ContextFull {
                    position: kv.len(),
                    additional: ids.len(),
                    limit: self.model.config().max_positions,
                });
            }
        }
        self.appended = false;
        match ids {
            [id] if image_rows.is_empty() && !self.model.is_image_token(i64::from(*id)) => {
                self.append_one(*id)?;
            }
            _ => self.append_many(ids, image_rows)?,
        }
        self.appended = true;
        lock(&self.kv).advance(ids.len());
        Ok(())
    }

    fn logits(&mut self, out: &mut Vec<f32>) -> Result<(), RunError> {
        self.after_last(out, |step, model, out| step.logits(model, out))
    }

    fn logits_of(&mut self, ids: &[u32], out: &mut Vec<f32>) -> Result<(), RunError> {
        self.after_last(out, |step, model, out| step.logits_of(model, ids, out))
    }

    fn likeliest(
        &mut self,
        room: &mut Vec<f32>,
        filter: &mut Filter<'_>,
    ) -> Result<Option<u32>, RunError> {
        self.after_last(room, |step, model, room| {
            step.likeliest(model, room, filter)
        })
    }

    fn reserve(&mut self, additional: usize) {
        let mut kv = lock(&self.kv);
        let free = self.model.config().max_positions - kv.len();
        // What fits is never refused.
        let _ = kv.reserve(additional.min(free));
    }

    fn position(&self) -> usize {
        lock(&self.kv).len()
    }

    fn truncate(&mut self, len: usize) {
        self.appended = false;
        lock(&self.kv).truncate(len);
    }

    fn to_model_basis(&self, image_rows: &mut [f32]) {
        self.model.to_model_basis(image_rows);
    }

    fn kv_bytes(&self) -> usize {
        lock(&self.kv).byte_len()
    }

    fn scratch_bytes(&self) -> usize {
        self.step.byte_len()
    }
}
