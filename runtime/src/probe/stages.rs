//! Probes of whole stages: the decoder on a short text, the vision tower on a small frame.

use super::{ProbeError, TOLERANCE, first_far, root_mean_square};
use crate::engine::Engine;
use crate::engine::int8::{Int8Engine, Int8Model, encode_small};
use crate::error::{LoadError, RunError};
use crate::pack::{OpenError, Pack};
use crate::random::SplitMix;
use crate::sampler::Filter;
use crate::tokenizer::Tokenizer;
use ocelli_kernels::Compute;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What the decoder reads.
const TEXT: &str = "What is 12 and 30? The dog is in the picture, and then it";
/// Most tokens of it; few, because the scalar kernels run them when a pack is made.
const MAX_IDS: usize = 12;
/// Most greedy tokens.
const MAX_TOKENS: usize = 4;
/// Numbers kept of a row of logits or image features.
const VALUES: usize = 16;
/// Seed of the frame.
const FRAME_SEED: u64 = 0x0CE1_1102;

/// What the decoder makes of a text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TextProbe {
    /// The text.
    pub text: String,
    /// Its first token ids, which go through the decoder.
    pub ids: Vec<u32>,
    /// Ids and their logits after the text.
    pub logits: Vec<(u32, f32)>,
    /// Root mean square of all logits.
    pub rms: f32,
    /// Greedy tokens, as far as the best is ahead of the second by more than the tolerance.
    pub tokens: Vec<u32>,
}

/// What the vision tower makes of a frame that is as wide as one image token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VisionProbe {
    /// Seed of the frame's bytes.
    pub seed: u64,
    /// Evenly spaced image features.
    pub features: Vec<f32>,
    /// Root mean square of all image features.
    pub rms: f32,
}

/// The first token ids of a text.
fn first_ids(pack: &Arc<Pack>, text: &str) -> Result<Vec<u32>, ProbeError> {
    let ids = Tokenizer::from_pack(pack).and_then(|tokenizer| tokenizer.encode(text));
    let mut ids = ids.map_err(LoadError::from)?;
    ids.truncate(MAX_IDS);
    Ok(ids)
}

/// A conversation on the pack that has read `ids`, and the logits after them.
fn read(
    pack: &Arc<Pack>,
    compute: &Arc<Compute>,
    ids: &[u32],
) -> Result<(Int8Engine, Vec<f32>), ProbeError> {
    let mut engine = Int8Model::new(pack.clone(), compute.clone())?.start()?;
    let logits = next(pack, &mut engine, ids)?;
    Ok((engine, logits))
}

/// Logits after some more tokens.
fn next(pack: &Pack, engine: &mut Int8Engine, ids: &[u32]) -> Result<Vec<f32>, ProbeError> {
    let mut logits = Vec::new();
    let run = engine.append(ids, &[]);
    let run = run.and_then(|()| engine.logits(&mut logits));
    run.map(|()| logits).map_err(|source| fault(pack, source))
}

/// The greedy token behind what the engine has read.
fn greedy(pack: &Pack, engine: &mut Int8Engine) -> Result<u32, ProbeError> {
    let found = engine.likeliest(&mut Vec::new(), &mut Filter::none());
    let found = found.and_then(|found| found.ok_or(RunError::NotFinite));
    found.map_err(|source| fault(pack, source))
}

fn fault(pack: &Pack, source: RunError) -> ProbeError {
    ProbeError::Run {
        origin: pack.origin().to_owned(),
        probe: "the decoder".to_owned(),
        source: Box::new(source),
    }
}

/// Indices of [`VALUES`] of `len` numbers, evenly spaced.
fn spread(len: usize) -> impl Iterator<Item = usize> {
    let n = VALUES.min(len);
    (0..n).map(move |i| i * len / n)
}

impl TextProbe {
    pub(super) fn make(pack: &Arc<Pack>, compute: &Arc<Compute>) -> Result<TextProbe, ProbeError> {
        let image_token = pack.header().config.image_token_id();
        let ids: Vec<u32> = first_ids(pack, TEXT)?
            .into_iter()
            .filter(|id| Some(*id) != image_token)
            .collect();
        let (mut engine, mut logits) = read(pack, compute, &ids)?;
        let rms = root_mean_square(&logits);
        let best = greedy(pack, &mut engine)?;
        let chosen = spread(logits.len()).filter_map(|id| u32::try_from(id).ok());
        let chosen = chosen.chain([best]).map(|id| (id, logits[id as usize]));
        let chosen = chosen.collect();
        let mut tokens = Vec::new();
        while tokens.len() < MAX_TOKENS {
            let best = greedy(pack, &mut engine)?;
            let top = logits[best as usize];
            let is_clear = |(id, logit): (usize, &f32)| {
                id == best as usize || top - logit > 2.0 * TOLERANCE * rms
            };
            if Some(best) == image_token || !logits.iter().enumerate().all(is_clear) {
                break;
            }
            tokens.push(best);
            logits = next(pack, &mut engine, &[best])?;
        }
        Ok(TextProbe {
            text: TEXT.to_owned(),
            ids,
            logits: chosen,
            rms,
            tokens,
        })
    }

    /// Refuses ids that are no tokens of the model, and more of them than a probe has.
    pub(super) fn check_ids(&self, pack: &Pack) -> Result<(), OpenError> {
        let text = &pack.header().config.text;
        let image_token = pack.header().config.image_token_id();
        let logits = self.logits.iter().map(|(id, _)| *id);
        if let Some(id) = logits
            .chain(self.ids.iter().chain(&self.tokens).copied())
            .find(|id| *id as usize >= text.vocab_size)
        {
            return Err(pack.damaged(format!(
                "a probe has token {id}, the vocabulary has {}",
                text.vocab_size
            )));
        }
        let all = self.ids.iter().chain(&self.tokens);
        if self.ids.is_empty() || all.clone().any(|id| Some(*id) == image_token) {
            return Err(pack.damaged("a probe has no text tokens, or image tokens".to_owned()));
        }
        if all.count() > (MAX_IDS + MAX_TOKENS).min(text.max_positions) {
            return Err(pack.damaged(format!(
                "a probe has {} tokens, the limit is {MAX_IDS} and {MAX_TOKENS}",
                self.ids.len() + self.tokens.len()
            )));
        }
        Ok(())
    }

    pub(super) fn difference(
        &self,
        pack: &Arc<Pack>,
        compute: &Arc<Compute>,
    ) -> Result<Option<String>, ProbeError> {
        let ids = first_ids(pack, &self.text)?;
        if ids != self.ids {
            return Ok(Some(format!(
                "the tokenizer gives {ids:?} for {:?}, it must be {:?}",
                self.text, self.ids
            )));
        }
        let (mut engine, logits) = read(pack, compute, &ids)?;
        let pairs = self.logits.iter().map(|(id, wanted)| {
            let id = *id as usize;
            (id, wanted, logits[id])
        });
        if let Some(difference) = first_far("logit", pairs, self.rms) {
            return Ok(Some(difference));
        }
        for (index, wanted) in self.tokens.iter().enumerate() {
            let found = greedy(pack, &mut engine)?;
            if found != *wanted {
                return Ok(Some(format!(
                    "greedy token {index} is {found}, it must be {wanted}"
                )));
            }
            let appended = engine.append(&[found], &[]);
            appended.map_err(|source| fault(pack, source))?;
        }
        Ok(None)
    }
}

impl VisionProbe {
    pub(super) fn make(
        pack: &Arc<Pack>,
        compute: &Arc<Compute>,
    ) -> Result<Option<VisionProbe>, ProbeError> {
        if pack.header().config.vision.is_none() {
            return Ok(None);
        }
        let features = features(pack, compute, FRAME_SEED)?;
        Ok(Some(VisionProbe {
            seed: FRAME_SEED,
            rms: root_mean_square(&features),
            features: spread(features.len()).map(|at| features[at]).collect(),
        }))
    }

    pub(super) fn difference(
        &self,
        pack: &Arc<Pack>,
        compute: &Arc<Compute>,
    ) -> Result<Option<String>, ProbeError> {
        let features = features(pack, compute, self.seed)?;
        let pairs = spread(features.len()).zip(&self.features);
        let pairs = pairs.map(|(at, wanted)| (at, wanted, features[at]));
        Ok(first_far("image feature", pairs, self.rms))
    }
}

/// Image features of a seeded frame.
fn features(pack: &Arc<Pack>, compute: &Arc<Compute>, seed: u64) -> Result<Vec<f32>, ProbeError> {
    let run = |source| ProbeError::Run {
        origin: pack.origin().to_owned(),
        probe: "the vision tower".to_owned(),
        source: Box::new(source),
    };
    let mut random = SplitMix(seed);
    let byte = || (random.next() >> 56) as u8;
    encode_small(pack, compute, byte)?.map_err(run)
}
