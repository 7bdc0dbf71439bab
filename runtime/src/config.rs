//! The hyper-parameters of a model, read from a Hugging Face style directory and checked once.
//!
//! Everything else in this crate trusts a value of these types: after [`ModelFiles::read`] or
//! [`ModelConfig::validate`] no division is by zero, no product of two sizes overflows `usize` on a
//! 64-bit machine, and every shape fits the next one.
//!
//! Defaults for absent keys are those of the classes in `transformers` 5.23 that read the same
//! files (`Idefics3Config`, `Idefics3VisionConfig`, their SmolVLM twins, and `LlamaConfig`),
//! because those libraries leave a key out when it equals the default.

mod error;
mod fields;
mod files;
mod read;
#[cfg(test)]
pub(crate) mod tests;

use serde::{Deserialize, Serialize};

pub use error::ConfigError;
pub use files::ModelFiles;

/// Largest hidden size of either tower.
pub const MAX_HIDDEN_SIZE: usize = 16_384;
/// Largest width of a feed-forward layer.
pub const MAX_INTERMEDIATE_SIZE: usize = 65_536;
/// Largest number of layers of either tower.
pub const MAX_LAYERS: usize = 256;
/// Largest number of attention heads of a layer.
pub const MAX_HEADS: usize = 256;
/// Largest vocabulary, in tokens.
pub const MAX_VOCAB_SIZE: usize = 1 << 20;
/// Longest context, in tokens.
pub const MAX_POSITIONS: usize = 1 << 20;
/// Largest side of an image tile, in pixels.
pub const MAX_TILE_SIZE: usize = 2048;
/// Largest number of patches along one side of an image tile.
pub const MAX_PATCHES_PER_SIDE: usize = 128;
/// Largest pixel shuffle factor.
pub const MAX_SCALE_FACTOR: usize = 16;
/// Largest `size.longest_edge`, in pixels.
pub const MAX_LONGEST_EDGE: usize = 16_384;
/// Most image tiles along one side of a split picture.
pub const MAX_TILES_PER_SIDE: usize = 32;
/// Most stop tokens of a model.
pub const MAX_STOP_TOKENS: usize = 64;

/// The vision side: a SigLIP style transformer over square patches, and how its patches become
/// image tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VisionConfig {
    /// Width of a patch embedding.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Number of transformer layers.
    pub n_layers: usize,
    /// Attention heads of a layer; divides `hidden_size`.
    pub n_heads: usize,
    /// Side of an image tile in pixels.
    pub image_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Added to the variance in every layer norm.
    pub layer_norm_eps: f32,
    /// Pixel shuffle factor: this many patches a side become one image token.
    pub scale_factor: usize,
    /// Id of the `<image>` placeholder whose embedding is replaced by image features.
    pub image_token_id: u32,
}

impl VisionConfig {
    /// Patches along one side of an image tile. Pixels left over at the right and the bottom
    /// (6 of 384 with patches of 14) are not used.
    pub fn patches_per_side(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Patches of one image tile.
    pub fn n_patches(&self) -> usize {
        self.patches_per_side() * self.patches_per_side()
    }

    /// Width of one attention head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.n_heads
    }

    /// Image tokens that one image tile or the global view takes in the prompt.
    pub fn image_tokens(&self) -> usize {
        let side = self.patches_per_side() / self.scale_factor;
        side * side
    }
}

/// The decoder: a Llama style transformer with grouped-query attention.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TextConfig {
    /// Width of the residual stream; equals `n_heads * head_dim`.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Number of transformer layers.
    pub n_layers: usize,
    /// Query heads of a layer.
    pub n_heads: usize,
    /// Key and value heads of a layer; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Width of one attention head; even.
    pub head_dim: usize,
    /// Rows of the embedding table and of the output head.
    pub vocab_size: usize,
    /// Base of the rotary position embedding.
    pub rope_theta: f32,
    /// Added to the mean square in every RMS norm.
    pub rms_norm_eps: f32,
    /// Longest context the model was made for, in tokens.
    pub max_positions: usize,
}

/// The whole model: vision encoder with connector, and decoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// The vision side; `None` for a model that reads text only.
    pub vision: Option<VisionConfig>,
    /// The decoder.
    pub text: TextConfig,
    /// Whether the output head is the embedding table.
    pub tie_word_embeddings: bool,
}

impl ModelConfig {
    /// Image tokens that one image tile or the global view takes in the prompt; 0 without a
    /// vision side.
    pub fn image_tokens_per_tile(&self) -> usize {
        self.vision.as_ref().map_or(0, VisionConfig::image_tokens)
    }

    /// Id of the `<image>` placeholder; `None` without a vision side.
    pub fn image_token_id(&self) -> Option<u32> {
        self.vision.as_ref().map(|vision| vision.image_token_id)
    }

    /// Checks every limit and every relation between the sizes.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] for the first broken rule; `file` names the place in the message.
    pub fn validate(&self, file: &str) -> Result<(), ConfigError> {
        let check = Check { file };
        if let Some(vision) = &self.vision {
            vision.validate(&check)?;
        }
        self.text.validate(&check)?;
        match self.image_token_id() {
            Some(id) => check.token("image_token_id", id, self.text.vocab_size),
            None => Ok(()),
        }
    }
}

impl VisionConfig {
    fn validate(&self, check: &Check<'_>) -> Result<(), ConfigError> {
        for (field, value, most) in [
            ("hidden_size", self.hidden_size, MAX_HIDDEN_SIZE),
            (
                "intermediate_size",
                self.intermediate_size,
                MAX_INTERMEDIATE_SIZE,
            ),
            ("num_hidden_layers", self.n_layers, MAX_LAYERS),
            ("num_attention_heads", self.n_heads, MAX_HEADS),
            ("image_size", self.image_size, MAX_TILE_SIZE),
            ("patch_size", self.patch_size, self.image_size),
        ] {
            check.range(&format!("vision_config.{field}"), value, 1, most)?;
        }
        check.epsilon("vision_config.layer_norm_eps", self.layer_norm_eps)?;
        check.divides(
            "vision_config.num_attention_heads",
            self.n_heads,
            "vision_config.hidden_size",
            self.hidden_size,
        )?;
        if self.patches_per_side() > MAX_PATCHES_PER_SIDE {
            return Err(check.invalid(
                "vision_config.patch_size",
                self.patch_size,
                format!(
                    "gives {} patches along a side of image_size {}, the limit is {MAX_PATCHES_PER_SIDE}",
                    self.patches_per_side(),
                    self.image_size
                ),
            ));
        }
        check.range("scale_factor", self.scale_factor, 1, MAX_SCALE_FACTOR)?;
        check.divides(
            "scale_factor",
            self.scale_factor,
            "the number of patches along a side (image_size / patch_size)",
            self.patches_per_side(),
        )
    }
}

impl TextConfig {
    fn validate(&self, check: &Check<'_>) -> Result<(), ConfigError> {
        for (field, value, most) in [
            ("hidden_size", self.hidden_size, MAX_HIDDEN_SIZE),
            (
                "intermediate_size",
                self.intermediate_size,
                MAX_INTERMEDIATE_SIZE,
            ),
            ("num_hidden_layers", self.n_layers, MAX_LAYERS),
            ("num_attention_heads", self.n_heads, MAX_HEADS),
            ("num_key_value_heads", self.n_kv_heads, self.n_heads),
            ("vocab_size", self.vocab_size, MAX_VOCAB_SIZE),
            ("max_position_embeddings", self.max_positions, MAX_POSITIONS),
        ] {
            check.range(&format!("text_config.{field}"), value, 1, most)?;
        }
        check.epsilon("text_config.rms_norm_eps", self.rms_norm_eps)?;
        if !(self.rope_theta.is_finite() && self.rope_theta >= 1.0) {
            return Err(check.invalid(
                "text_config.rope_theta",
                self.rope_theta,
                "must be a finite number of at least 1".to_owned(),
            ));
        }
        check.divides(
            "text_config.num_attention_heads",
            self.n_heads,
            "text_config.hidden_size",
            self.hidden_size,
        )?;
        check.divides(
            "text_config.num_key_value_heads",
            self.n_kv_heads,
            "text_config.num_attention_heads",
            self.n_heads,
        )?;
        if self.head_dim.checked_mul(self.n_heads) != Some(self.hidden_size) {
            return Err(check.invalid(
                "text_config.head_dim",
                self.head_dim,
                format!(
                    "times num_attention_heads {} must be hidden_size {}",
                    self.n_heads, self.hidden_size
                ),
            ));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(check.invalid(
                "text_config.head_dim",
                self.head_dim,
                "must be even, rotary embedding turns pairs of values".to_owned(),
            ));
        }
        Ok(())
    }
}

/// Filter used by every resize.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResampleFilter {
    /// Windowed sinc of three lobes, Pillow's `LANCZOS`.
    Lanczos,
}

/// How a picture becomes image tiles and pixel values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PreprocessConfig {
    /// Side of an image tile in pixels (`max_image_size.longest_edge`).
    pub tile_size: usize,
    /// Longest edge of the picture after the first resize, in pixels (`size.longest_edge`).
    pub longest_edge: usize,
    /// Whether a picture is cut into image tiles besides its global view.
    pub do_image_splitting: bool,
    /// Subtracted from each colour channel after rescaling; 0 if normalising is switched off.
    pub mean: [f32; 3],
    /// Divides each colour channel at the end; 1 if normalising is switched off.
    pub std: [f32; 3],
    /// Multiplies the 8-bit values first; 1/255 in the published models.
    pub rescale_factor: f64,
    /// Filter of every resize.
    pub filter: ResampleFilter,
}

impl PreprocessConfig {
    /// Checks every limit, and that the image tiles fit the vision encoder.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] for the first broken rule; `file` names the place in the message.
    pub fn validate(&self, file: &str, vision: &VisionConfig) -> Result<(), ConfigError> {
        let check = Check { file };
        check.range(
            "max_image_size.longest_edge",
            self.tile_size,
            1,
            MAX_TILE_SIZE,
        )?;
        if self.tile_size != vision.image_size {
            return Err(check.invalid(
                "max_image_size.longest_edge",
                self.tile_size,
                format!(
                    "must equal vision_config.image_size {}; take both files from the same model",
                    vision.image_size
                ),
            ));
        }
        check.range("size.longest_edge", self.longest_edge, 1, MAX_LONGEST_EDGE)?;
        if self.longest_edge.div_ceil(self.tile_size) > MAX_TILES_PER_SIDE {
            return Err(check.invalid(
                "size.longest_edge",
                self.longest_edge,
                format!(
                    "cuts into more than {MAX_TILES_PER_SIDE} image tiles of {} along a side; \
                     lower it or switch do_image_splitting off",
                    self.tile_size
                ),
            ));
        }
        if !(self.rescale_factor.is_finite() && self.rescale_factor > 0.0) {
            return Err(check.invalid(
                "rescale_factor",
                self.rescale_factor,
                "must be a finite number above 0, usually 1/255".to_owned(),
            ));
        }
        for (mean, std) in self.mean.into_iter().zip(self.std) {
            if !mean.is_finite() {
                return Err(check.invalid(
                    "image_mean",
                    mean,
                    "must be a finite number".to_owned(),
                ));
            }
            if !(std.is_normal() && std > 0.0) {
                return Err(check.invalid(
                    "image_std",
                    std,
                    "must be a finite number above 0".to_owned(),
                ));
            }
        }
        Ok(())
    }
}

/// Sampling settings a model asks for; `None` where it says nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SamplingDefaults {
    /// Whether to sample at all; `false` is greedy.
    pub do_sample: bool,
    /// Divides the logits; above 0.
    pub temperature: Option<f32>,
    /// Keeps this many of the most likely tokens; 0 keeps all.
    pub top_k: Option<usize>,
    /// Keeps the most likely tokens up to this probability; 0 to 1.
    pub top_p: Option<f32>,
    /// Divides (or multiplies, if negative) the logits of tokens seen before; above 0.
    pub repetition_penalty: Option<f32>,
}

/// When generation stops, and how it samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GenerationConfig {
    /// Tokens that end an answer; never empty.
    ///
    /// They come from `generation_config.json`. `text_config.eos_token_id` is 2 in the published
    /// configurations, a token these models do not emit at the end of an answer.
    pub stop_token_ids: Vec<u32>,
    /// Token that fills a batch; in the vocabulary.
    pub pad_token_id: u32,
    /// The "beginning of sequence" token, which encoding never adds.
    pub bos_token_id: Option<u32>,
    /// Sampling settings of the model.
    pub sampling: SamplingDefaults,
}

impl GenerationConfig {
    /// Checks every limit; `vocab_size` is that of the decoder.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] for the first broken rule; `file` names the place in the message.
    pub fn validate(&self, file: &str, vocab_size: usize) -> Result<(), ConfigError> {
        let check = Check { file };
        check.range(
            "eos_token_id (number of ids)",
            self.stop_token_ids.len(),
            1,
            MAX_STOP_TOKENS,
        )?;
        for &id in &self.stop_token_ids {
            check.token("eos_token_id", id, vocab_size)?;
        }
        check.token("pad_token_id", self.pad_token_id, vocab_size)?;
        if let Some(id) = self.bos_token_id {
            check.token("bos_token_id", id, vocab_size)?;
        }
        let sampling = &self.sampling;
        for (field, value) in [
            ("temperature", sampling.temperature),
            ("repetition_penalty", sampling.repetition_penalty),
        ] {
            if let Some(v) = value.filter(|v| !(v.is_finite() && *v > 0.0)) {
                return Err(check.invalid(field, v, "must be a finite number above 0".to_owned()));
            }
        }
        if let Some(v) = sampling.top_p.filter(|v| !(0.0..=1.0).contains(v)) {
            return Err(check.invalid("top_p", v, "must be a probability, 0 to 1".to_owned()));
        }
        Ok(())
    }
}

/// Small named rules, so that `validate` reads as a list.
struct Check<'a> {
    file: &'a str,
}

impl Check<'_> {
    fn invalid(&self, field: &str, value: impl ToString, rule: String) -> ConfigError {
        ConfigError::Invalid {
            file: self.file.to_owned(),
            field: field.to_owned(),
            value: value.to_string(),
            rule,
        }
    }

    fn range(&self, field: &str, value: usize, min: usize, max: usize) -> Result<(), ConfigError> {
        if (min..=max).contains(&value) {
            return Ok(());
        }
        Err(self.invalid(
            field,
            value,
            format!("must be {min} to {max}; check the file"),
        ))
    }

    fn divides(
        &self,
        field: &str,
        value: usize,
        whole_field: &str,
        whole: usize,
    ) -> Result<(), ConfigError> {
        if whole.is_multiple_of(value) {
            return Ok(());
        }
        Err(self.invalid(
            field,
            value,
            format!("must divide {whole_field}, which is {whole}; check the file"),
        ))
    }

    fn epsilon(&self, field: &str, value: f32) -> Result<(), ConfigError> {
        if value.is_normal() && value > 0.0 && value <= 0.1 {
            return Ok(());
        }
        Err(self.invalid(field, value, "must be above 0 and at most 0.1".to_owned()))
    }

    fn token(&self, field: &str, id: u32, vocab_size: usize) -> Result<(), ConfigError> {
        if (id as usize) < vocab_size {
            return Ok(());
        }
        Err(self.invalid(
            field,
            id,
            format!("must be below vocab_size {vocab_size}; take all files from the same model"),
        ))
    }
}
