//! The fields of `config.json` and `preprocessor_config.json` as checked types.

use super::fields::Fields;
use super::{ConfigError, ModelConfig, PreprocessConfig, ResampleFilter, TextConfig, VisionConfig};

/// Reads `config.json`.
pub(super) fn read_model(file: &Fields<'_>) -> Result<ModelConfig, ConfigError> {
    match file.text("model_type")? {
        Some("idefics3" | "smolvlm" | "llama") => {}
        Some(_) => {
            return Err(file.unsupported(
                "model_type",
                "models of type \"idefics3\" and \"smolvlm\", and \"llama\" for text only, can be run",
            ));
        }
        None => return Err(file.missing("model_type")),
    }
    if file.get("quantization_config").is_some() {
        return Err(file.unsupported(
            "quantization_config",
            "start from the unquantised weights; the packer does its own quantisation",
        ));
    }
    if file.text("model_type")? == Some("llama") {
        return Ok(ModelConfig {
            vision: None,
            text: read_text(file)?,
            tie_word_embeddings: file.flag("tie_word_embeddings")?.unwrap_or(false),
        });
    }
    let vision = file
        .object("vision_config")?
        .ok_or_else(|| file.missing("vision_config"))?;
    let text = file
        .object("text_config")?
        .ok_or_else(|| file.missing("text_config"))?;
    let perceiver = "image features go through pixel shuffle and one projection only";
    for place in [file, &text] {
        place.refuse_flag("use_resampler", perceiver)?;
    }
    let tied = match file.flag("tie_word_embeddings")? {
        Some(tied) => tied,
        None => text.flag("tie_word_embeddings")?.unwrap_or(false),
    };
    Ok(ModelConfig {
        vision: Some(read_vision(file, &vision)?),
        text: read_text(&text)?,
        tie_word_embeddings: tied,
    })
}

/// The vision side: `fields` of its own, and what the top level of `file` says about image tokens.
fn read_vision(file: &Fields<'_>, fields: &Fields<'_>) -> Result<VisionConfig, ConfigError> {
    fields.only_text("hidden_act", "gelu_pytorch_tanh")?;
    if fields.size("num_channels")?.unwrap_or(3) != 3 {
        return Err(fields.unsupported("num_channels", "pictures have 3 colour channels here"));
    }
    Ok(VisionConfig {
        hidden_size: fields.size("hidden_size")?.unwrap_or(1152),
        intermediate_size: fields.size("intermediate_size")?.unwrap_or(3072),
        n_layers: fields.size("num_hidden_layers")?.unwrap_or(12),
        n_heads: fields.size("num_attention_heads")?.unwrap_or(16),
        image_size: fields.square_size("image_size")?.unwrap_or(224),
        patch_size: fields.square_size("patch_size")?.unwrap_or(32),
        layer_norm_eps: fields.float("layer_norm_eps")?.unwrap_or(1e-6) as f32,
        scale_factor: file.size("scale_factor")?.unwrap_or(2),
        image_token_id: file
            .token_id("image_token_id")?
            .ok_or_else(|| file.missing("image_token_id"))?,
    })
}

fn read_text(fields: &Fields<'_>) -> Result<TextConfig, ConfigError> {
    fields.only_text("model_type", "llama")?;
    fields.only_text("hidden_act", "silu")?;
    fields.refuse_flag("attention_bias", "the decoder's projections have no bias")?;
    fields.refuse_flag("mlp_bias", "the decoder's feed-forward layers have no bias")?;
    fields.refuse_flag(
        "rope_interleaved",
        "rotary embedding turns halves, not neighbours",
    )?;
    fields.refuse_flag("qk_layer_norms", "queries and keys are not normalised")?;
    let rope_theta = read_rope_theta(fields)?;

    let hidden_size = fields.required_size("hidden_size")?;
    let head_dim = fields.size("head_dim")?;
    let n_heads = match (fields.size("num_attention_heads")?, head_dim) {
        (Some(n_heads), _) => n_heads,
        // Left out by some SmolVLM2 files; equal to the class default of 32 where both are known.
        (None, Some(head_dim)) if head_dim > 0 => hidden_size / head_dim,
        (None, _) => 32,
    };
    Ok(TextConfig {
        hidden_size,
        intermediate_size: fields.required_size("intermediate_size")?,
        n_layers: fields.required_size("num_hidden_layers")?,
        n_heads,
        n_kv_heads: fields.size("num_key_value_heads")?.unwrap_or(n_heads),
        // A count of zero is refused by `validate`.
        head_dim: head_dim.unwrap_or_else(|| hidden_size.checked_div(n_heads).unwrap_or(0)),
        vocab_size: fields.required_size("vocab_size")?,
        rope_theta: rope_theta as f32,
        rms_norm_eps: fields.float("rms_norm_eps")?.unwrap_or(1e-6) as f32,
        max_positions: fields.size("max_position_embeddings")?.unwrap_or(2048),
    })
}

/// The rotary base, which newer files keep in `rope_parameters`; refuses every kind of scaling.
fn read_rope_theta(fields: &Fields<'_>) -> Result<f64, ConfigError> {
    let mut theta = None;
    for name in ["rope_parameters", "rope_scaling"] {
        let Some(rope) = fields.object(name)? else {
            continue;
        };
        for key in ["rope_type", "type"] {
            if rope.text(key)?.is_some_and(|kind| kind != "default") {
                return Err(rope.unsupported(key, "positions are not scaled here"));
            }
        }
        if rope.float("partial_rotary_factor")?.unwrap_or(1.0) != 1.0 {
            return Err(rope.unsupported("partial_rotary_factor", "whole heads are rotated"));
        }
        if rope.get("factor").is_some() {
            return Err(rope.unsupported("factor", "positions are not scaled here"));
        }
        theta = theta.or(rope.float("rope_theta")?);
    }
    Ok(match theta {
        Some(theta) => theta,
        None => fields.float("rope_theta")?.unwrap_or(10_000.0),
    })
}

/// Reads `preprocessor_config.json`.
pub(super) fn read_preprocess(file: &Fields<'_>) -> Result<PreprocessConfig, ConfigError> {
    for name in ["do_resize", "do_rescale"] {
        if file.flag(name)? == Some(false) {
            return Err(file.unsupported(name, "pictures are always resized and rescaled"));
        }
    }
    let longest_edge = |name: &str| match file.object(name)? {
        Some(size) => size.required_size("longest_edge"),
        None => Err(file.missing(name)),
    };
    // Pillow's numbers: 0 nearest, 1 lanczos, 2 bilinear, 3 bicubic, 4 box, 5 hamming.
    if file.size("resample")?.unwrap_or(1) != 1 {
        return Err(file.unsupported(
            "resample",
            "only 1 (Lanczos) is; every published model has it",
        ));
    }
    let normalize = file.flag("do_normalize")?.unwrap_or(true);
    let (mean, std) = if normalize {
        (
            file.per_channel("image_mean")?.unwrap_or([0.5; 3]),
            file.per_channel("image_std")?.unwrap_or([0.5; 3]),
        )
    } else {
        ([0.0; 3], [1.0; 3])
    };
    Ok(PreprocessConfig {
        tile_size: longest_edge("max_image_size")?,
        longest_edge: longest_edge("size")?,
        do_image_splitting: file.flag("do_image_splitting")?.unwrap_or(true),
        mean,
        std,
        rescale_factor: file.float("rescale_factor")?.unwrap_or(1.0 / 255.0),
        filter: ResampleFilter::Lanczos,
    })
}
