//! Readers of published model files.

pub mod safetensors;
