//! The seam between the model's stages and what computes them.
//!
//! [`int8`] runs packs: frames and prompts through tract plans of fused int8 ops, a token alone
//! through the functions those ops are made of, into buffers that wait for it.
//! [`crate::reference`] is the slow f32 path that checks the structure. Everything above this file sees
//! only [`Engine`].

mod decoder;
#[cfg(feature = "onnx")]
pub mod export;
pub mod int8;
mod ops;
#[cfg(feature = "onnx")]
pub mod plain;
pub(crate) mod products;
pub(crate) mod trial;

use crate::error::RunError;
use crate::sampler::{Filter, arg_max};

/// Computes the stages of one conversation.
pub trait Engine: Send {
    /// Encodes one frame: `[T, T, 3]` bytes (row-major RGB) → image features
    /// `[image tokens, hidden]` in the basis [`Engine::append`] takes.
    ///
    /// # Errors
    ///
    /// [`RunError::NoVision`] if the model reads text only; a fault of the engine. The frame's size
    /// is the caller's promise.
    fn encode(&mut self, frame: &[u8]) -> Result<Vec<f32>, RunError>;

    /// Runs the decoder over `ids` and keeps their keys and values. Rows of
    /// `image_rows` (`[image tokens in ids, hidden]`) replace the embeddings at the
    /// image tokens, in order.
    ///
    /// # Errors
    ///
    /// [`RunError::ContextFull`] before any work when the positions do not fit.
    fn append(&mut self, ids: &[u32], image_rows: &[f32]) -> Result<(), RunError>;

    /// Logits `[vocab]` after the last appended token, in place of what `out` holds.
    ///
    /// # Errors
    ///
    /// [`RunError::NothingAppended`] when there is none.
    fn logits(&mut self, out: &mut Vec<f32>) -> Result<(), RunError>;

    /// The logits of some tokens after the last appended token, at their places in `out`, which is as
    /// long as the vocabulary then; what stands elsewhere means nothing.
    ///
    /// # Errors
    ///
    /// As [`Engine::logits`].
    fn logits_of(&mut self, _ids: &[u32], out: &mut Vec<f32>) -> Result<(), RunError> {
        self.logits(out)
    }

    /// The token whose logit after the last appended token is largest behind the filters, the first
    /// of equals; `None` if no logit is a finite number. What `room` holds is overwritten.
    ///
    /// # Errors
    ///
    /// As [`Engine::logits`].
    fn likeliest(
        &mut self,
        room: &mut Vec<f32>,
        filter: &mut Filter<'_>,
    ) -> Result<Option<u32>, RunError> {
        self.logits(room)?;
        filter.apply(room);
        Ok(arg_max(room))
    }

    /// Makes room for so many more positions at once. What of it does not fit the context is left
    /// out; appending says so.
    fn reserve(&mut self, additional: usize);

    /// Positions filled so far.
    fn position(&self) -> usize;

    /// Forgets every position from `len` on; [`Engine::logits`] needs a new token then.
    fn truncate(&mut self, len: usize);

    /// Turns image features into the basis of the published model, in place.
    fn to_model_basis(&self, image_rows: &mut [f32]);

    /// Bytes of keys and values held.
    fn kv_bytes(&self) -> usize;

    /// Bytes of buffers that wait for the next token.
    fn scratch_bytes(&self) -> usize;
}
