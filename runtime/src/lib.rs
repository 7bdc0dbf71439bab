//! Loads models of the SmolVLM family and answers questions about pictures with them.
//!
//! The way of a picture, one file a stage:
//!
//! | file | stage |
//! |---|---|
//! | [`image`] | decode, resize, split into image tiles and the global view |
//! | [`prompt`], [`tokenizer`] | messages → chat template → `<image>` expansion → token ids |
//! | [`engine`] | frames → image features → merge → decoder → logits, int8 through tract |
//! | [`reference`] | the same in plain f32, to check against |
//! | [`kv_cache`] | keys and values of the conversation |
//! | [`sampler`], [`generate`] | logits → tokens → text, stop conditions |
//! | [`constrain`] | answers that follow a form: texts, numbers, JSON |
//! | [`session`], [`vlm`] | a conversation, a loaded model |
//!
//! The way of a model: [`config`] and [`import`] read published files, [`packer`]
//! folds, rotates and quantises, [`pack`] writes and maps the result, [`weights`]
//! holds its bytes; [`probe`] finds out whether this CPU computes them rightly, [`memory`] whether
//! they fit, [`threads`] how many cores each phase gets.
//!
//! Beside the model, `detector` runs ordinary ONNX files (feature `onnx`).
//!
//! Tract's names stay inside [`engine`]; `unsafe` stays inside the one mmap call.

#![deny(unsafe_code)]

pub mod config;
pub mod constrain;
#[cfg(feature = "onnx")]
pub mod detector;
pub mod engine;
pub mod error;
pub mod file;
pub mod generate;
pub mod image;
pub mod import;
pub mod kv_cache;
pub mod memory;
pub mod pack;
pub mod packer;
pub mod probe;
pub mod prompt;
mod random;
pub mod reference;
pub mod rotation;
pub mod sampler;
pub mod session;
pub mod threads;
pub mod tokenizer;
pub mod vlm;
pub mod weights;

pub use constrain::{Grammar, GrammarError};
pub use error::{LoadError, RunError};
pub use generate::{CancelFlag, FinishReason, GenerateOptions, Generation, Piece};
pub use sampler::Sampling;
pub use session::{
    ChoiceScore, PictureRequest, PromptProgress, PromptRequest, PromptStats, Session, Stages,
    Written,
};
pub use vlm::{LoadOptions, ModelSource, Precision, Vlm};
