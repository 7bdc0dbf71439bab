//! A conversation: pictures and messages in, prefill done, answers out.

mod frames;
mod scoring;
mod seen;
mod writing;

pub use scoring::ChoiceScore;
pub use seen::PictureRequest;
pub use writing::Written;

use crate::config::PreprocessConfig;
use crate::engine::Engine;
use crate::error::RunError;
use crate::generate::{CancelFlag, GenerateOptions, Generation};
use crate::image::{Rgb8, TileLayout, Tiles, preprocess};
use crate::prompt::{Message, Prompt, build_prompt};
use crate::sampler::{Sampler, Sampling, arg_max, ban};
use crate::tokenizer::Tokenizer;
use crate::vlm::Model;
use frames::FrameCache;
use seen::Seen;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Tokens that go through the decoder together; bounds its scratch memory.
pub const PREFILL_CHUNK: usize = 128;

/// What a prompt cost.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PromptStats {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Image tokens among them.
    pub image_tokens: usize,
    /// Frames encoded: image tiles and global views.
    pub frames: usize,
    /// Time of splitting and resizing.
    pub preprocess: Duration,
    /// Time of the vision encoder and connector.
    pub encode: Duration,
    /// Time of the decoder over the prompt.
    pub prefill: Duration,
}

/// The stages of one prompt, kept for inspection.
#[derive(Clone, Debug, Default)]
pub struct Stages {
    /// Token ids of the prompt.
    pub input_ids: Vec<u32>,
    /// Bytes of every frame, `[T, T, 3]`, in the order of the prompt.
    pub frames: Vec<Vec<u8>>,
    /// Side of a frame in pixels; 0 for a model that reads text only.
    pub tile_size: usize,
    /// Image features in the published model's basis. `[image tokens, hidden]`
    pub image_features: Vec<f32>,
    /// Logits after the prompt. `[vocab]`
    pub logits: Vec<f32>,
}

/// How far a prompt is, for a progress line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptProgress {
    /// Frames encoded, of how many.
    Encode(usize, usize),
    /// Tokens run through the decoder, of how many.
    Prefill(usize, usize),
}

/// What a prompt is made of.
#[derive(Debug)]
pub struct PromptRequest<'a> {
    /// The conversation.
    pub messages: &'a [Message],
    /// The pictures of its image parts, in order.
    pub images: &'a [Rgb8],
    /// Most image tiles of a picture; `None` = as the model asks, 0 = global view only.
    pub max_tiles: Option<usize>,
    /// Tokens the answer will want; checked with the prompt against the context.
    pub answer_tokens: usize,
    /// Whether [`Session::stages`] is kept.
    pub keep_stages: bool,
}

/// One conversation with a model.
#[derive(Debug)]
pub struct Session {
    model: Arc<Model>,
    engine: Box<dyn EngineDebug>,
    ids: Vec<u32>,
    cancel: CancelFlag,
    stages: Option<Stages>,
    /// Logits after the last token, where scoring moved the engine away and back.
    known_logits: Option<Vec<f32>>,
    frames: FrameCache,
    seen: Option<Seen>,
}

/// An engine that can be printed.
pub(crate) trait EngineDebug: Engine + std::fmt::Debug {}
impl<E: Engine + std::fmt::Debug> EngineDebug for E {}

impl Session {
    pub(crate) fn new(model: Arc<Model>, engine: Box<dyn EngineDebug>) -> Session {
        Session {
            model,
            engine,
            ids: Vec::new(),
            cancel: CancelFlag::new(),
            stages: None,
            known_logits: None,
            frames: FrameCache::default(),
            seen: None,
        }
    }

    /// The flag that ends this conversation's work early.
    pub fn cancel_flag(&self) -> &CancelFlag {
        &self.cancel
    }

    /// Replaces the flag, e.g. for the next piece of work.
    pub fn set_cancel_flag(&mut self, flag: CancelFlag) {
        self.cancel = flag;
    }

    /// Tokens that went through the decoder.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Positions that are still free.
    pub fn room(&self) -> usize {
        self.model.config.text.max_positions - self.engine.position()
    }

    /// Bytes of keys and values held.
    pub fn kv_bytes(&self) -> usize {
        self.engine.kv_bytes()
    }

    /// Bytes of buffers that were made when the conversation began and wait for its next token. The
    /// kernels hold more on every thread: [`ocelli_kernels::scratch_bytes`].
    pub fn scratch_bytes(&self) -> usize {
        self.engine.scratch_bytes()
    }

    /// Makes room for so many more tokens, as far as the context reaches: until they are there,
    /// [`Session::extend`] by one token and [`Session::write_logits`] allocate nothing.
    pub fn reserve(&mut self, additional: usize) {
        let additional = additional.min(self.room());
        self.ids.reserve(additional);
        self.engine.reserve(additional);
    }

    /// The stages of the last prompt that asked to keep them.
    pub fn stages(&self) -> Option<&Stages> {
        self.stages.as_ref()
    }

    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.model.tokenizer
    }

    pub(crate) fn vocab_size(&self) -> usize {
        self.model.config.text.vocab_size
    }

    pub(crate) fn image_token(&self) -> Option<u32> {
        self.model.config.image_token_id()
    }

    pub(crate) fn is_stop_token(&self, token: u32) -> bool {
        self.model.generation.stop_token_ids.contains(&token)
    }

    /// Builds the prompt of a conversation without running anything, and checks that
    /// it fits the context together with the answer.
    ///
    /// # Errors
    ///
    /// Messages that make no prompt; [`RunError::PromptTooLong`]; [`RunError::NoVision`].
    pub fn plan_prompt(&self, request: &PromptRequest<'_>) -> Result<Prompt, RunError> {
        let layouts = request
            .images
            .iter()
            .map(|image| self.layout(image, request.max_tiles))
            .collect::<Result<Vec<TileLayout>, RunError>>()?;
        self.plan(request.messages, &layouts, request.answer_tokens)
    }

    /// How pictures are preprocessed.
    fn preprocessing(&self) -> Result<&PreprocessConfig, RunError> {
        self.model.preprocess.as_ref().ok_or(RunError::NoVision)
    }

    fn layout(&self, image: &Rgb8, max_tiles: Option<usize>) -> Result<TileLayout, RunError> {
        let (width, height) = (image.width(), image.height());
        let config = self.preprocessing()?;
        Ok(TileLayout::of(width, height, config, max_tiles))
    }

    /// The prompt of messages with pictures of these layouts, checked against the context.
    fn plan(
        &self,
        messages: &[Message],
        layouts: &[TileLayout],
        answer_tokens: usize,
    ) -> Result<Prompt, RunError> {
        let model = &self.model;
        let prompt = build_prompt(
            &model.template,
            &model.tokenizer,
            messages,
            layouts,
            model.config.image_tokens_per_tile(),
        )?;
        let limit = model.config.text.max_positions;
        if prompt.ids.len().saturating_add(answer_tokens) > limit {
            return Err(RunError::PromptTooLong {
                prompt: prompt.ids.len(),
                image: prompt.n_image_tokens,
                answer: answer_tokens,
                limit,
            });
        }
        Ok(prompt)
    }

    /// Starts over with a conversation: preprocesses and encodes its pictures and runs
    /// the decoder over its prompt. Afterwards [`Session::generate`] or
    /// [`Session::score`] answer.
    ///
    /// # Errors
    ///
    /// Everything is checked before work starts; afterwards only cancellation and
    /// engine faults remain.
    pub fn prompt(
        &mut self,
        request: &PromptRequest<'_>,
        progress: &mut dyn FnMut(PromptProgress),
    ) -> Result<PromptStats, RunError> {
        let prompt = self.plan_prompt(request)?;
        self.truncate(0);
        self.stages = None;
        let mut stats = PromptStats {
            prompt_tokens: prompt.ids.len(),
            image_tokens: prompt.n_image_tokens,
            ..PromptStats::default()
        };
        let start = Instant::now();
        let mut frames = Vec::new();
        for image in request.images {
            self.cancel.check()?;
            let tiles: Tiles = preprocess(image, self.preprocessing()?, request.max_tiles);
            frames.extend(tiles.frames);
        }
        stats.frames = frames.len();
        stats.preprocess = start.elapsed();

        let start = Instant::now();
        let image_rows = self.encode_frames(&frames, progress)?;
        stats.encode = start.elapsed();

        let start = Instant::now();
        self.prefill(&prompt.ids, &image_rows, progress)?;
        stats.prefill = start.elapsed();
        if request.keep_stages {
            self.stages = Some(self.stages_of(prompt.ids, frames, image_rows)?);
        }
        Ok(stats)
    }

    /// Runs the decoder over more tokens by chunks. `image_rows` in the engine's basis.
    fn prefill(
        &mut self,
        ids: &[u32],
        image_rows: &[f32],
        progress: &mut dyn FnMut(PromptProgress),
    ) -> Result<(), RunError> {
        let hidden = self.model.config.text.hidden_size;
        let image_token = self.model.config.image_token_id();
        let image_tokens = |ids: &[u32]| ids.iter().filter(|id| Some(**id) == image_token).count();
        let n_tokens = image_tokens(ids);
        if image_rows.len() != n_tokens * hidden {
            return Err(RunError::ImageRows {
                rows: image_rows.len() / hidden,
                tokens: n_tokens,
            });
        }
        let mut rows = image_rows;
        for (i, chunk) in ids.chunks(PREFILL_CHUNK).enumerate() {
            self.cancel.check()?;
            progress(PromptProgress::Prefill(i * PREFILL_CHUNK, ids.len()));
            let (now, later) = rows.split_at(image_tokens(chunk) * hidden);
            rows = later;
            self.append(chunk, now)?;
        }
        Ok(())
    }

    /// Image features of all frames in the engine's basis. `[image tokens, hidden]`
    fn encode_frames(
        &mut self,
        frames: &[Vec<u8>],
        progress: &mut dyn FnMut(PromptProgress),
    ) -> Result<Vec<f32>, RunError> {
        let mut image_rows = Vec::new();
        for (done, frame) in frames.iter().enumerate() {
            self.cancel.check()?;
            progress(PromptProgress::Encode(done, frames.len()));
            image_rows.extend(self.engine.encode(frame)?);
        }
        Ok(image_rows)
    }

    /// The stages of a prompt that was just run; turns `image_rows` to the model's basis.
    fn stages_of(
        &mut self,
        input_ids: Vec<u32>,
        frames: Vec<Vec<u8>>,
        mut image_rows: Vec<f32>,
    ) -> Result<Stages, RunError> {
        self.engine.to_model_basis(&mut image_rows);
        Ok(Stages {
            input_ids,
            frames,
            tile_size: self.model.preprocess.as_ref().map_or(0, |p| p.tile_size),
            image_features: image_rows,
            logits: self.logits()?,
        })
    }

    /// Starts over with given tokens and frames (`[T, T, 3]` bytes each): the entry for
    /// checks that bring their own inputs.
    ///
    /// # Errors
    ///
    /// Too many tokens, other numbers of rows than image tokens, cancellation, engine faults.
    pub fn prompt_ids(&mut self, ids: &[u32], frames: &[Vec<u8>]) -> Result<Stages, RunError> {
        self.truncate(0);
        let image_rows = self.encode_frames(frames, &mut |_| {})?;
        self.prefill(ids, &image_rows, &mut |_| {})?;
        self.stages_of(ids.to_vec(), frames.to_vec(), image_rows)
    }

    /// Image features of one frame (`[T, T, 3]` bytes) in the engine's basis, which
    /// are not kept. `[image tokens, hidden]`
    ///
    /// # Errors
    ///
    /// Engine faults, among them a frame of another size.
    pub fn encode(&mut self, frame: &[u8]) -> Result<Vec<f32>, RunError> {
        self.engine.encode(frame)
    }

    /// Runs the decoder over more text tokens.
    ///
    /// # Errors
    ///
    /// [`RunError::ContextFull`]; an image token, whose features are not given here.
    pub fn extend(&mut self, ids: &[u32]) -> Result<(), RunError> {
        self.prefill(ids, &[], &mut |_| {})
    }

    pub(crate) fn append(&mut self, ids: &[u32], image_rows: &[f32]) -> Result<(), RunError> {
        self.known_logits = None;
        self.engine.append(ids, image_rows)?;
        self.ids.extend_from_slice(ids);
        Ok(())
    }

    /// Logits `[vocab]` after the last token.
    ///
    /// # Errors
    ///
    /// [`RunError::NothingAppended`] before any prompt; [`RunError::NotFinite`] when
    /// damaged weights left no usable number.
    pub fn logits(&mut self) -> Result<Vec<f32>, RunError> {
        let mut logits = Vec::new();
        self.write_logits(&mut logits)?;
        Ok(logits)
    }

    /// [`Session::logits`] in place of what `out` holds.
    ///
    /// # Errors
    ///
    /// As [`Session::logits`].
    pub fn write_logits(&mut self, out: &mut Vec<f32>) -> Result<(), RunError> {
        if let Some(logits) = &self.known_logits {
            out.clone_from(logits);
            return Ok(());
        }
        self.engine.logits(out)?;
        if out.iter().any(|logit| logit.is_finite()) {
            Ok(())
        } else {
            Err(RunError::NotFinite)
        }
    }

    /// [`Session::write_logits`] for some tokens of the vocabulary; what stands elsewhere in `out` means
    /// nothing.
    pub(crate) fn write_logits_of(
        &mut self,
        ids: &[u32],
        out: &mut Vec<f32>,
    ) -> Result<(), RunError> {
        if self.known_logits.is_some() {
            return self.write_logits(out);
        }
        self.engine.logits_of(ids, out)?;
        let mut logits = ids.iter().filter_map(|id| out.get(*id as usize));
        match logits.any(|logit| logit.is_finite()) {
            true => Ok(()),
            false => Err(RunError::NotFinite),
        }
    }

    /// The token with the largest logit after the last token, the first of equals, but no image token.
    /// The same as that of [`Session::write_logits`], often by reading less of the model. `room` is
    /// overwritten.
    ///
    /// # Errors
    ///
    /// As [`Session::logits`].
    pub fn likeliest(&mut self, room: &mut Vec<f32>) -> Result<u32, RunError> {
        let mut greedy = Sampler::new(Sampling::default(), self.vocab_size())?;
        self.choose(&mut greedy, room, None)
    }

    /// The next token by a sampler. `room` is overwritten; `known`, where given, takes the logits the
    /// choice is among before the sampler changes them, and has all of them computed. `[vocab]`
    pub(crate) fn choose(
        &mut self,
        sampler: &mut Sampler,
        room: &mut Vec<f32>,
        known: Option<&mut Vec<f32>>,
    ) -> Result<u32, RunError> {
        // An image token asks for image features, which only a prompt can bring.
        let banned = self.image_token();
        if !sampler.is_greedy() || known.is_some() {
            self.write_logits(room)?;
            ban(room, banned);
            if let Some(known) = known {
                known.clone_from(room);
            }
            return Ok(sampler.sample(room, &self.ids));
        }
        let mut filter = sampler.filter(banned, &self.ids);
        let found = match &self.known_logits {
            Some(logits) => {
                room.clone_from(logits);
                filter.apply(room);
                arg_max(room)
            }
            None => self.engine.likeliest(room, &mut filter)?,
        };
        found.ok_or(RunError::NotFinite)
    }

    /// Forgets every token from position `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.known_logits = None;
        if let Some(seen) = &mut self.seen {
            seen.keep(len);
        }
        self.engine.truncate(len);
        self.ids.truncate(len);
    }

    /// Answers the prompt token by token.
    ///
    /// # Errors
    ///
    /// A sampling setting out of range.
    pub fn generate(&mut self, options: GenerateOptions) -> Result<Generation<'_>, RunError> {
        Generation::new(self, options)
    }
}
