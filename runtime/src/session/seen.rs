//! Looking at a picture once, and asking about it often.
//!
//! The prompt of a question about one picture is the same up to the last image token, whatever is
//! asked. [`Session::see`] runs that part, [`Session::question`] goes back to its end and runs the
//! rest. Both parts are cut into the same chunks every time, so that an answer is the same bit for
//! bit whatever was asked before.

use super::{PromptProgress, PromptStats, Session};
use crate::error::RunError;
use crate::image::{Rgb8, TileLayout, preprocess};
use crate::prompt::{Message, Role};
use std::time::Instant;

/// Two questions that have nothing in common, to find out what their prompts share.
const PROBES: [&str; 2] = ["x", "Y 1"];

/// A picture to be looked at.
#[derive(Debug)]
pub struct PictureRequest<'a> {
    /// Instructions before the picture.
    pub system: Option<&'a str>,
    /// The picture.
    pub image: &'a Rgb8,
    /// Most image tiles; `None` = as the model asks, 0 = global view only.
    pub max_tiles: Option<usize>,
}

/// The picture a session was shown.
#[derive(Debug)]
pub(super) struct Seen {
    system: Option<String>,
    layout: TileLayout,
    /// Tokens of every prompt about it up to the last image token; empty if the template writes
    /// the question before the picture.
    prefix: Vec<u32>,
    /// Image features in the engine's basis.
    rows: Vec<f32>,
    /// Whether the engine holds the prefix.
    held: bool,
}

impl Seen {
    /// The engine forgets every position from `len` on.
    pub(super) fn keep(&mut self, len: usize) {
        self.held &= len >= self.prefix.len();
    }

    fn messages(&self, question: &str) -> Vec<Message> {
        messages(self.system.as_deref(), question)
    }
}

fn messages(system: Option<&str>, question: &str) -> Vec<Message> {
    let system = system.map(|text| Message::text(Role::System, text));
    system
        .into_iter()
        .chain([Message::image_and_text(question)])
        .collect()
}

impl Session {
    /// Looks at a picture: encodes it and runs the decoder over everything of a prompt up to the
    /// last image token. Afterwards [`Session::question`] asks about it, as often as wanted.
    /// Frames that were encoded lately are not encoded again.
    ///
    /// With a template that writes the question before the picture only the encoding is done here.
    ///
    /// # Errors
    ///
    /// As for [`Session::prompt`]. The picture before is forgotten in any case.
    pub fn see(
        &mut self,
        request: &PictureRequest<'_>,
        progress: &mut dyn FnMut(PromptProgress),
    ) -> Result<PromptStats, RunError> {
        self.seen = None;
        self.stages = None;
        self.truncate(0);
        let layout = self.layout(request.image, request.max_tiles)?;
        let prefix = self.shared_prefix(request.system, layout)?;
        self.cancel.check()?;
        let start = Instant::now();
        let tiles = preprocess(request.image, self.preprocessing()?, request.max_tiles);
        let mut stats = PromptStats {
            prompt_tokens: prefix.len(),
            image_tokens: tiles.frames.len() * self.model.config.image_tokens_per_tile(),
            frames: tiles.frames.len(),
            preprocess: start.elapsed(),
            ..PromptStats::default()
        };
        let start = Instant::now();
        let mut rows = Vec::new();
        for (done, frame) in tiles.frames.iter().enumerate() {
            self.cancel.check()?;
            progress(PromptProgress::Encode(done, tiles.frames.len()));
            let engine = &mut self.engine;
            rows.extend_from_slice(&self.frames.get(frame, |frame| engine.encode(frame))?);
        }
        stats.encode = start.elapsed();
        let start = Instant::now();
        let mut seen = Seen {
            system: request.system.map(str::to_owned),
            layout,
            prefix,
            rows,
            held: false,
        };
        self.hold(&mut seen, progress)?;
        self.seen = Some(seen);
        stats.prefill = start.elapsed();
        Ok(stats)
    }

    /// Asks about the picture that was seen last. Afterwards [`Session::generate`],
    /// [`Session::score`], [`Session::weigh`] or [`Session::write`] answer. The tokens are those of
    /// [`Session::prompt`].
    ///
    /// # Errors
    ///
    /// [`RunError::NoPicture`] before a picture; a text that makes no prompt or is too long;
    /// cancellation and engine faults, after which the question can be asked again.
    pub fn question(
        &mut self,
        text: &str,
        answer_tokens: usize,
        progress: &mut dyn FnMut(PromptProgress),
    ) -> Result<PromptStats, RunError> {
        let mut seen = self.seen.take().ok_or(RunError::NoPicture)?;
        let outcome = self.question_about(&mut seen, text, answer_tokens, progress);
        self.seen = Some(seen);
        outcome
    }

    fn question_about(
        &mut self,
        seen: &mut Seen,
        text: &str,
        answer_tokens: usize,
        progress: &mut dyn FnMut(PromptProgress),
    ) -> Result<PromptStats, RunError> {
        let prompt = self.plan(&seen.messages(text), &[seen.layout], answer_tokens)?;
        let start = Instant::now();
        self.stages = None;
        if !seen.prefix.is_empty() && prompt.ids.starts_with(&seen.prefix) {
            self.hold(seen, progress)?;
            self.truncate(seen.prefix.len());
            self.prefill(&prompt.ids[seen.prefix.len()..], &[], progress)?;
        } else {
            seen.held = false;
            self.truncate(0);
            self.prefill(&prompt.ids, &seen.rows, progress)?;
        }
        Ok(PromptStats {
            prompt_tokens: prompt.ids.len(),
            image_tokens: prompt.n_image_tokens,
            prefill: start.elapsed(),
            ..PromptStats::default()
        })
    }

    /// Makes the engine hold the prefix, unless it does.
    fn hold(
        &mut self,
        seen: &mut Seen,
        progress: &mut dyn FnMut(PromptProgress),
    ) -> Result<(), RunError> {
        if seen.held || seen.prefix.is_empty() {
            return Ok(());
        }
        self.truncate(0);
        self.prefill(&seen.prefix, &seen.rows, progress)?;
        seen.held = true;
        Ok(())
    }

    /// What the prompts of all questions about a picture of this layout share, up to the last
    /// image token; empty if that is not all of the picture.
    fn shared_prefix(
        &self,
        system: Option<&str>,
        layout: TileLayout,
    ) -> Result<Vec<u32>, RunError> {
        let [first, second] = PROBES.map(|probe| self.plan(&messages(system, probe), &[layout], 1));
        let (mut ids, second) = (first?.ids, second?.ids);
        let image_token = self.image_token();
        let end = ids
            .iter()
            .rposition(|id| Some(*id) == image_token)
            .map_or(0, |at| at + 1);
        ids.truncate(end);
        if !second.starts_with(&ids) {
            ids.clear();
        }
        Ok(ids)
    }
}
