//! The files of a model directory, all but the weights.

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::file::open_regular;

use super::fields::Fields;
use super::read::{read_model, read_preprocess};
use super::{
    ConfigError, GenerationConfig, ModelConfig, PreprocessConfig, SamplingDefaults, VisionConfig,
};

/// Largest configuration file that is read, in bytes.
const MAX_CONFIG_BYTES: u64 = 4 << 20;
/// Largest `tokenizer.json` that is read, in bytes.
const MAX_TOKENIZER_BYTES: u64 = 64 << 20;

const CONFIG: &str = "config.json";
const PREPROCESSOR: &str = "preprocessor_config.json";
const PROCESSOR: &str = "processor_config.json";
const GENERATION: &str = "generation_config.json";
const TEMPLATE_JINJA: &str = "chat_template.jinja";
const TEMPLATE_JSON: &str = "chat_template.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const TOKENIZER: &str = "tokenizer.json";

/// Pad token of the published models, used when the configured one is outside the vocabulary.
const FALLBACK_PAD_TOKEN_ID: u32 = 2;

/// Token that ends a turn in this family, used when no file names a stop token.
const END_OF_UTTERANCE: &str = "<end_of_utterance>";

/// What a model directory, or the metadata of a GGUF file, says about a model, checked as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelFiles {
    /// From `config.json`.
    pub config: ModelConfig,
    /// From `preprocessor_config.json`, or from the `image_processor` part of
    /// `processor_config.json`; `None` exactly where the configuration has no vision side.
    pub preprocess: Option<PreprocessConfig>,
    /// From `generation_config.json`; without that file the stop token is `<end_of_utterance>`.
    pub generation: GenerationConfig,
    /// Image tokens an image tile takes, from `processor_config.json`; equals
    /// [`ModelConfig::image_tokens_per_tile`], 0 for a model that reads text only.
    pub image_seq_len: usize,
    /// Jinja source of the chat template, from `chat_template.jinja`, `chat_template.json`,
    /// `processor_config.json` or `tokenizer_config.json`, the first that has one.
    pub chat_template: String,
    /// The bytes of `tokenizer.json`, or the same made from a GGUF vocabulary.
    pub tokenizer_json: Vec<u8>,
    /// `model_type` of `config.json`: `idefics3` or `smolvlm`, `llama` for a text model; that of a
    /// text-only GGUF file too.
    pub model_type: String,
    /// Number type the weights were saved in, as `bfloat16`, if the file says so. The weights
    /// themselves decide.
    pub dtype: Option<String>,
}

impl ModelFiles {
    /// Reads and checks the files in `dir`.
    ///
    /// # Errors
    /// The first file that is absent or unreadable, or the first field that breaks a rule.
    pub fn read(dir: &Path) -> Result<ModelFiles, ConfigError> {
        let config_json = read_json(dir, CONFIG)?.ok_or_else(|| missing(dir, CONFIG))?;
        let config_fields = Fields::top(CONFIG, &config_json)?;
        let config = read_model(&config_fields)?;
        config.validate(CONFIG)?;

        let processor_json = read_json(dir, PROCESSOR)?;
        let processor = processor_json
            .as_ref()
            .map(|json| Fields::top(PROCESSOR, json));
        let processor = processor.transpose()?;
        let (preprocess, image_seq_len) = match &config.vision {
            Some(vision) => (
                Some(preprocess(dir, processor.as_ref(), vision)?),
                image_seq_len(processor.as_ref(), vision)?,
            ),
            None => (None, 0),
        };
        let chat_template = chat_template(dir, processor.as_ref())?;

        let tokenizer_json = read_bytes(&dir.join(TOKENIZER), MAX_TOKENIZER_BYTES)?
            .ok_or_else(|| missing(dir, TOKENIZER))?;
        let generation = generation(dir, &config_fields, &config, &tokenizer_json)?;

        let dtype = match config_fields.text("dtype")? {
            Some(dtype) => Some(dtype),
            None => config_fields.text("torch_dtype")?,
        };
        Ok(ModelFiles {
            preprocess,
            generation,
            image_seq_len,
            chat_template,
            tokenizer_json,
            model_type: config_fields
                .text("model_type")?
                .unwrap_or_default()
                .to_owned(),
            dtype: dtype.map(str::to_owned),
            config,
        })
    }
}

fn preprocess(
    dir: &Path,
    processor: Option<&Fields<'_>>,
    vision: &VisionConfig,
) -> Result<PreprocessConfig, ConfigError> {
    if let Some(json) = read_json(dir, PREPROCESSOR)? {
        let preprocess = read_preprocess(&Fields::top(PREPROCESSOR, &json)?)?;
        preprocess.validate(PREPROCESSOR, vision)?;
        return Ok(preprocess);
    }
    let nested = processor
        .map(|fields| fields.object("image_processor"))
        .transpose()?;
    let Some(fields) = nested.flatten() else {
        return Err(missing(dir, PREPROCESSOR));
    };
    let preprocess = read_preprocess(&fields)?;
    preprocess.validate("processor_config.json: image_processor", vision)?;
    Ok(preprocess)
}

fn image_seq_len(
    processor: Option<&Fields<'_>>,
    vision: &VisionConfig,
) -> Result<usize, ConfigError> {
    let from_shapes = vision.image_tokens();
    let Some(fields) = processor else {
        return Ok(from_shapes);
    };
    match fields.size("image_seq_len")? {
        None => Ok(from_shapes),
        Some(n) if n == from_shapes => Ok(n),
        Some(_) => Err(fields.invalid(
            "image_seq_len",
            &format!(
                "must be {from_shapes}, from image_size {}, patch_size {} and scale_factor {} of \
                 config.json; take both files from the same model",
                vision.image_size, vision.patch_size, vision.scale_factor
            ),
        )),
    }
}

fn chat_template(dir: &Path, processor: Option<&Fields<'_>>) -> Result<String, ConfigError> {
    let jinja = dir.join(TEMPLATE_JINJA);
    if let Some(bytes) = read_bytes(&jinja, MAX_CONFIG_BYTES)? {
        return String::from_utf8(bytes).map_err(|source| ConfigError::Syntax {
            path: jinja,
            expected: "UTF-8 text",
            source: source.into(),
        });
    }
    if let Some(json) = read_json(dir, TEMPLATE_JSON)? {
        let fields = Fields::top(TEMPLATE_JSON, &json)?;
        let text = fields
            .text("chat_template")?
            .ok_or_else(|| fields.missing("chat_template"))?;
        return Ok(text.to_owned());
    }
    if let Some(text) = processor
        .map(|fields| fields.text("chat_template"))
        .transpose()?
        .flatten()
    {
        return Ok(text.to_owned());
    }
    if let Some(json) = read_json(dir, TOKENIZER_CONFIG)? {
        let fields = Fields::top(TOKENIZER_CONFIG, &json)?;
        if let Some(Value::Array(named)) = fields.get("chat_template") {
            let default = named.iter().find(|entry| entry["name"] == "default");
            return match default.and_then(|entry| entry["template"].as_str()) {
                Some(text) => Ok(text.to_owned()),
                None => Err(fields.invalid("chat_template", "must have one named \"default\"")),
            };
        }
        if let Some(text) = fields.text("chat_template")? {
            return Ok(text.to_owned());
        }
    }
    Err(missing(
        dir,
        "chat_template.jinja, chat_template.json, nor tokenizer_config.json with a chat_template",
    ))
}

fn generation(
    dir: &Path,
    config_fields: &Fields<'_>,
    config: &ModelConfig,
    tokenizer_json: &[u8],
) -> Result<GenerationConfig, ConfigError> {
    let empty = Value::Object(serde_json::Map::new());
    let json = read_json(dir, GENERATION)?.unwrap_or(empty);
    let fields = Fields::top(GENERATION, &json)?;
    let text_fields = config_fields.object("text_config")?;

    let mut stop_token_ids = fields.token_ids("eos_token_id")?.unwrap_or_default();
    if stop_token_ids.is_empty() && config.vision.is_none() {
        stop_token_ids = config_fields.token_ids("eos_token_id")?.unwrap_or_default();
    }
    stop_token_ids.sort_unstable();
    stop_token_ids.dedup();
    if stop_token_ids.is_empty() {
        let end = added_token_id(&dir.join(TOKENIZER), tokenizer_json, END_OF_UTTERANCE)?;
        stop_token_ids.push(end.ok_or_else(|| fields.missing("eos_token_id"))?);
    }

    let vocab_size = config.text.vocab_size;
    let mut pad = fields.token_id("pad_token_id")?;
    if let (None, Some(text)) = (pad, &text_fields) {
        pad = text.token_id("pad_token_id").ok().flatten();
    }
    // SmolVLM2 writes 128002, a token of another family.
    let pad_token_id = pad
        .filter(|&id| (id as usize) < vocab_size)
        .unwrap_or(FALLBACK_PAD_TOKEN_ID)
        .min(u32::try_from(vocab_size - 1).unwrap_or(u32::MAX));

    let float = |name| fields.float(name).map(|value| value.map(|v| v as f32));
    let generation = GenerationConfig {
        stop_token_ids,
        pad_token_id,
        bos_token_id: fields.token_id("bos_token_id")?,
        sampling: SamplingDefaults {
            do_sample: fields.flag("do_sample")?.unwrap_or(false),
            temperature: float("temperature")?,
            top_k: fields.size("top_k")?,
            top_p: float("top_p")?,
            repetition_penalty: float("repetition_penalty")?,
        },
    };
    generation.validate(GENERATION, vocab_size)?;
    Ok(generation)
}

/// Id of the added token `content` in `tokenizer.json`.
fn added_token_id(path: &Path, json: &[u8], content: &str) -> Result<Option<u32>, ConfigError> {
    #[derive(Deserialize)]
    struct Added {
        id: u32,
        content: String,
    }
    #[derive(Deserialize)]
    struct Tokenizer {
        #[serde(default)]
        added_tokens: Vec<Added>,
    }
    let tokenizer: Tokenizer = serde_json::from_slice(json).map_err(|e| not_json(path, e))?;
    Ok(tokenizer
        .added_tokens
        .iter()
        .find(|token| token.content == content)
        .map(|token| token.id))
}

/// The JSON in `dir/name`, or `None` if there is no such file.
fn read_json(dir: &Path, name: &str) -> Result<Option<Value>, ConfigError> {
    let path = dir.join(name);
    match read_bytes(&path, MAX_CONFIG_BYTES)? {
        None => Ok(None),
        Some(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| not_json(&path, e)),
    }
}

/// The bytes of `path`, at most `limit`, or `None` if there is no such file.
fn read_bytes(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, ConfigError> {
    let io = |source| ConfigError::Io {
        path: path.to_owned(),
        source,
    };
    let file = match open_regular(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io(e)),
    };
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > limit {
        return Err(ConfigError::TooLarge {
            path: path.to_owned(),
            limit,
        });
    }
    Ok(Some(bytes))
}

fn missing(dir: &Path, wanted: &str) -> ConfigError {
    ConfigError::MissingFile {
        dir: dir.to_owned(),
        wanted: wanted.to_owned(),
    }
}

fn not_json(path: &Path, source: serde_json::Error) -> ConfigError {
    ConfigError::Syntax {
        path: PathBuf::from(path),
        expected: "JSON",
        source: source.into(),
    }
}
