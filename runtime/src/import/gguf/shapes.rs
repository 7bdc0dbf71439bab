//! The keys of a text model and of a projector as a checked configuration.

use super::error::GgufError;
use super::file::GgufFile;
use crate::config::{
    ConfigError, GenerationConfig, ModelConfig, PreprocessConfig, ResampleFilter, SamplingDefaults,
    TextConfig, VisionConfig,
};
use crate::tokenizer::IMAGE_TOKEN;

/// The key of the vocabulary.
pub(super) const TOKENS: &str = "tokenizer.ggml.tokens";
const TEMPLATE: &str = "tokenizer.chat_template";
const PROJECTOR: &str = "clip.projector_type";
/// Longest edge of a picture in image tiles, for projector files from before the key was written:
/// every published model of the family has four.
const TILES_A_SIDE: usize = 4;

/// Which key a field of the configuration comes from, for messages.
const KEYS: [(&str, &str); 18] = [
    ("vision_config.hidden_size", "clip.vision.embedding_length"),
    (
        "vision_config.intermediate_size",
        "clip.vision.feed_forward_length",
    ),
    ("vision_config.num_hidden_layers", "clip.vision.block_count"),
    (
        "vision_config.num_attention_heads",
        "clip.vision.attention.head_count",
    ),
    ("vision_config.image_size", "clip.vision.image_size"),
    ("vision_config.patch_size", "clip.vision.patch_size"),
    (
        "vision_config.layer_norm_eps",
        "clip.vision.attention.layer_norm_epsilon",
    ),
    ("scale_factor", "clip.vision.projector.scale_factor"),
    ("size.longest_edge", "clip.vision.preproc_image_size"),
    ("text_config.hidden_size", "llama.embedding_length"),
    ("text_config.intermediate_size", "llama.feed_forward_length"),
    ("text_config.num_hidden_layers", "llama.block_count"),
    (
        "text_config.num_attention_heads",
        "llama.attention.head_count",
    ),
    (
        "text_config.num_key_value_heads",
        "llama.attention.head_count_kv",
    ),
    ("text_config.vocab_size", "llama.vocab_size"),
    (
        "text_config.max_position_embeddings",
        "llama.context_length",
    ),
    (
        "text_config.rms_norm_eps",
        "llama.attention.layer_norm_rms_epsilon",
    ),
    ("text_config.rope_theta", "llama.rope.freq_base"),
];

/// Says the key instead of the field in the message of a broken rule.
fn by_key(error: ConfigError) -> ConfigError {
    match error {
        ConfigError::Invalid {
            file,
            field,
            value,
            rule,
        } => {
            let key = KEYS.iter().find(|(name, _)| *name == field);
            ConfigError::Invalid {
                file,
                field: key.map_or(field, |(_, key)| format!("key {key}")),
                value,
                rule,
            }
        }
        other => other,
    }
}

/// The shapes of a text model and, if there is a projector, of its vision side.
pub(super) fn model(
    text: &GgufFile,
    projector: Option<&GgufFile>,
) -> Result<ModelConfig, GgufError> {
    let config = ModelConfig {
        vision: projector.map(|file| vision(file, text)).transpose()?,
        text: decoder(text)?,
        tie_word_embeddings: text.tensor("output.weight").is_none(),
    };
    let both = match projector {
        None => text.path().display().to_string(),
        Some(file) => format!("{} and {}", text.path().display(), file.path().display()),
    };
    config.validate(&both).map_err(by_key)?;
    for key in ["llama.attention.value_length", "llama.rope.dimension_count"] {
        let head_dim = config.text.head_dim;
        only(text, key, head_dim, "it is the width of an attention head")?;
    }
    if let Some(file) = projector {
        let key = "clip.vision.projection_dim";
        let width = config.text.hidden_size;
        if let Some(found) = file.size(key)?.filter(|found| *found != width) {
            let rule = format!(
                "llama.embedding_length of {} is {width}; take both files from the same model",
                text.path().display()
            );
            return Err(file.wrong(key, &found.to_string(), &rule));
        }
    }
    Ok(config)
}

fn required_text<'a>(file: &'a GgufFile, key: &str) -> Result<&'a str, GgufError> {
    file.text(key)?.ok_or_else(|| file.missing_key(key))
}

/// Refuses a size that is there and is not `wanted`.
fn only(file: &GgufFile, key: &str, wanted: usize, why: &str) -> Result<(), GgufError> {
    match file.size(key)? {
        Some(found) if found != wanted => Err(file.wrong(
            key,
            &found.to_string(),
            &format!("only {wanted} is supported: {why}"),
        )),
        _ => Ok(()),
    }
}

fn decoder(file: &GgufFile) -> Result<TextConfig, GgufError> {
    let key = "general.architecture";
    match required_text(file, key)? {
        "llama" => {}
        "clip" => {
            let rule = "this is a projector file; name the text model and give this with --mmproj";
            return Err(file.wrong(key, "clip", rule));
        }
        other => return Err(file.wrong(key, other, "only llama is supported")),
    }
    only(
        file,
        "split.count",
        1,
        "join the parts with llama-gguf-split --merge",
    )?;
    only(
        file,
        "llama.expert_count",
        0,
        "there is one feed-forward layer for all tokens",
    )?;
    refuse_scaled_positions(file)?;
    let hidden_size = file.required_size("llama.embedding_length")?;
    let n_heads = file.required_size("llama.attention.head_count")?;
    let head_dim = match file.size("llama.attention.key_length")? {
        Some(head_dim) => head_dim,
        // A count of zero is refused by `validate`.
        None => hidden_size.checked_div(n_heads).unwrap_or(0),
    };
    refuse_another_decoder(file, head_dim)?;
    let vocab_size = match file.size("llama.vocab_size")? {
        Some(size) => size,
        None => tokens(file)?.len(),
    };
    let eps = "llama.attention.layer_norm_rms_epsilon";
    Ok(TextConfig {
        hidden_size,
        intermediate_size: file.required_size("llama.feed_forward_length")?,
        n_layers: file.required_size("llama.block_count")?,
        n_heads,
        n_kv_heads: file
            .size("llama.attention.head_count_kv")?
            .unwrap_or(n_heads),
        head_dim,
        vocab_size,
        rope_theta: file.float("llama.rope.freq_base")?.unwrap_or(10_000.0) as f32,
        rms_norm_eps: file.float(eps)?.ok_or_else(|| file.missing_key(eps))? as f32,
        max_positions: file.required_size("llama.context_length")?,
    })
}

/// Refuses rotary positions that are scaled. A factor without a type scales them too; 0 and 1 are no
/// factor.
fn refuse_scaled_positions(file: &GgufFile) -> Result<(), GgufError> {
    let rule = "positions are not scaled here";
    let key = "llama.rope.scaling.type";
    match file.text(key)? {
        Some("none") => return Ok(()),
        Some(kind) => return Err(file.wrong(key, kind, rule)),
        None => {}
    }
    for key in ["llama.rope.scaling.factor", "llama.rope.scale_linear"] {
        let factor = file.float(key)?;
        if let Some(factor) = factor.filter(|factor| ![0.0, 1.0].contains(factor)) {
            return Err(file.wrong(key, &factor.to_string(), rule));
        }
    }
    Ok(())
}

/// Refuses keys that other models under this architecture use and that change what is computed: what
/// is converted without a word would answer with nonsense.
fn refuse_another_decoder(file: &GgufFile, head_dim: usize) -> Result<(), GgufError> {
    let key = "llama.attention.causal";
    if file.flag(key)? == Some(false) {
        let rule = "a token looks back only; this model makes embeddings, not text";
        return Err(file.wrong(key, "false", rule));
    }
    // A window of all positions is none.
    let positions = file.required_size("llama.context_length")?;
    let key = "llama.attention.sliding_window";
    if let Some(window) = file
        .size(key)?
        .filter(|window| (1..positions).contains(window))
    {
        let rule = format!(
            "a token looks back at all of them here, and llama.context_length is {positions}"
        );
        return Err(file.wrong(key, &window.to_string(), &rule));
    }
    // The value beside 0 that means "none": a factor of 1.
    for (key, idle) in [
        ("llama.logit_scale", 1.0),
        ("llama.embedding_scale", 1.0),
        ("llama.residual_scale", 1.0),
        ("llama.attn_logit_softcapping", 0.0),
        ("llama.final_logit_softcapping", 0.0),
        ("llama.attention.clamp_kqv", 0.0),
        ("llama.attention.max_alibi_bias", 0.0),
    ] {
        let found = file.float(key)?;
        if let Some(found) = found.filter(|found| ![0.0, idle].contains(found)) {
            let rule = "nothing is scaled, capped or shifted in the text models supported here";
            return Err(file.wrong(key, &found.to_string(), rule));
        }
    }
    // Scores are divided by the root of a head's width; some files say so.
    let key = "llama.attention.scale";
    if let Some(found) = file.float(key)?.filter(|found| *found != 0.0) {
        let root = (head_dim as f64).sqrt();
        if (found * root - 1.0).abs() > 1e-3 {
            let rule = format!("only 1/√{head_dim} is supported");
            return Err(file.wrong(key, &found.to_string(), &rule));
        }
    }
    Ok(())
}

/// The texts of all tokens, in order of their ids.
pub(super) fn tokens(file: &GgufFile) -> Result<Vec<&str>, GgufError> {
    file.texts(TOKENS)?.ok_or_else(|| file.missing_key(TOKENS))
}

fn vision(file: &GgufFile, text: &GgufFile) -> Result<VisionConfig, GgufError> {
    let key = "general.architecture";
    let architecture = required_text(file, key)?;
    if architecture != "clip" {
        let rule = "a projector file has clip; exchange the two files or leave --mmproj out";
        return Err(file.wrong(key, architecture, rule));
    }
    let key = match file.value(PROJECTOR) {
        Some(_) => PROJECTOR,
        None => "clip.vision.projector_type",
    };
    let kind = required_text(file, key)?;
    if kind != "idefics3" {
        return Err(file.wrong(key, kind, "only idefics3 is supported"));
    }
    for (key, wanted) in [
        ("clip.has_vision_encoder", true),
        ("clip.use_gelu", true),
        ("clip.use_silu", false),
    ] {
        if file.flag(key)? == Some(!wanted) {
            let rule = format!("only {wanted} is supported");
            return Err(file.wrong(key, &(!wanted).to_string(), &rule));
        }
    }
    let image_token = tokens(text)?.iter().position(|token| *token == IMAGE_TOKEN);
    let image_token_id = image_token.and_then(|id| u32::try_from(id).ok());
    let eps = "clip.vision.attention.layer_norm_epsilon";
    let size = |key: &str| file.required_size(&format!("clip.vision.{key}"));
    Ok(VisionConfig {
        hidden_size: size("embedding_length")?,
        intermediate_size: size("feed_forward_length")?,
        n_layers: size("block_count")?,
        n_heads: size("attention.head_count")?,
        image_size: size("image_size")?,
        patch_size: size("patch_size")?,
        layer_norm_eps: file.float(eps)?.ok_or_else(|| file.missing_key(eps))? as f32,
        scale_factor: size("projector.scale_factor")?,
        image_token_id: image_token_id.ok_or_else(|| {
            let rule = "it has no token <image>; take both files from the same model";
            text.wrong(TOKENS, "a vocabulary of another model", rule)
        })?,
    })
}

/// How pictures are prepared.
pub(super) fn preprocess(
    file: &GgufFile,
    vision: &VisionConfig,
) -> Result<PreprocessConfig, GgufError> {
    let channels = |key: &str| {
        let found = file.floats(key)?.ok_or_else(|| file.missing_key(key))?;
        match found[..] {
            [r, g, b] => Ok([r as f32, g as f32, b as f32]),
            _ => Err(file.wrong(
                key,
                &format!("{} numbers", found.len()),
                "it must be one number for each of 3 colour channels",
            )),
        }
    };
    let longest_edge = match file.size("clip.vision.preproc_image_size")? {
        Some(edge) => edge,
        None => TILES_A_SIDE * vision.image_size,
    };
    let preprocess = PreprocessConfig {
        tile_size: vision.image_size,
        longest_edge,
        do_image_splitting: longest_edge > vision.image_size,
        mean: channels("clip.vision.image_mean")?,
        std: channels("clip.vision.image_std")?,
        rescale_factor: 1.0 / 255.0,
        filter: ResampleFilter::Lanczos,
    };
    let place = file.path().display().to_string();
    preprocess.validate(&place, vision).map_err(by_key)?;
    Ok(preprocess)
}

/// Tokens that end a turn where the chat template writes them.
const TURN_ENDS: [&str; 3] = ["<end_of_utterance>", "<|im_end|>", "<|eot_id|>"];

/// Templates for files without one, by the token that ends their turns. The first is the family's
/// own form, the second what ChatML asks for.
const TEMPLATES: [(&str, &str); 2] = [
    (
        "<end_of_utterance>",
        "<|im_start|>{% for message in messages %}\
         {{ message['role'] | capitalize }}\
         {% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}\
         {% for part in message['content'] %}\
         {% if part['type'] == 'image' %}{{ '<image>' }}{% else %}{{ part['text'] }}{% endif %}\
         {% endfor %}{{ '<end_of_utterance>\\n' }}{% endfor %}\
         {% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}",
    ),
    (
        "<|im_end|>",
        "{% for message in messages %}\
         {{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}\
         {% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    ),
];

/// Stop tokens and chat template.
pub(super) fn conversation(
    file: &GgufFile,
    config: &ModelConfig,
) -> Result<(GenerationConfig, String), GgufError> {
    let tokens = tokens(file)?;
    let id_of = |text: &str| {
        let at = tokens.iter().position(|token| *token == text);
        at.and_then(|id| u32::try_from(id).ok())
    };
    let id_at = |name: &str| -> Result<Option<u32>, GgufError> {
        let key = format!("tokenizer.ggml.{name}_token_id");
        let id = file.size(&key)?;
        // Some files write -1 or 2³² − 1 for "none".
        Ok(id
            .filter(|id| *id < tokens.len())
            .and_then(|id| u32::try_from(id).ok()))
    };
    let template = match file.text(TEMPLATE)? {
        Some(template) => template,
        None => {
            let known = TEMPLATES.iter().find(|(end, _)| id_of(end).is_some());
            known.ok_or_else(|| file.missing_key(TEMPLATE))?.1
        }
    };
    let mut stops = Vec::new();
    for name in ["eos", "eot", "eom"] {
        stops.extend(id_at(name)?);
    }
    let written = TURN_ENDS.iter().filter(|end| template.contains(**end));
    stops.extend(written.filter_map(|end| id_of(end)));
    stops.sort_unstable();
    stops.dedup();
    let Some(first) = stops.first().copied() else {
        return Err(file.missing_key("tokenizer.ggml.eos_token_id"));
    };
    let generation = GenerationConfig {
        pad_token_id: id_at("padding")?.unwrap_or(first),
        bos_token_id: id_at("bos")?,
        stop_token_ids: stops,
        sampling: SamplingDefaults::default(),
    };
    let place = file.path().display().to_string();
    generation.validate(&place, config.text.vocab_size)?;
    // Templates may write these by name, as `transformers` lets them.
    let mut known = String::new();
    for (variable, key) in [("bos_token", "bos"), ("eos_token", "eos")] {
        if let Some(id) = id_at(key)?.filter(|_| template.contains(variable)) {
            let text = serde_json::Value::from(tokens[id as usize]);
            known.push_str(&format!("{{%- set {variable} = {text} -%}}"));
        }
    }
    Ok((generation, known + template))
}
