//! What whole-system tests share: random checkpoints, stage fixtures, measures of closeness.
//!
//! # Layout
//!
//! [`checkpoint`] writes model directories whose weights are a function of (name, index, seed);
//! [`fixture`] reads what `tools/reference/stages.py` recorded on them; [`closeness`] judges two
//! rows of numbers; [`command`] runs the `ocelli` binary; [`gguf`] and [`onnx`] write files of those
//! formats.
//!
//! Functions here panic on a broken fixture or a full disk: both are faults of the test set-up.

#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod closeness;
pub mod command;
pub mod fixture;
pub mod gguf;
pub mod onnx;
