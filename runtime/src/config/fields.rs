//! One JSON object of a configuration file, read field by field with errors that name the place.

use serde_json::{Map, Value};

use super::ConfigError;

/// Longest piece of an offending value that is quoted in an error.
const MAX_QUOTED_CHARS: usize = 80;

/// A JSON object together with the file it came from and its path inside that file.
///
/// A field that is `null` counts as absent, as it does in `transformers`.
#[derive(Clone)]
pub(super) struct Fields<'a> {
    file: &'a str,
    /// `""` at the top, `"text_config."` one level down.
    prefix: String,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// Wraps the top of `file`, which must be an object.
    pub(super) fn top(file: &'a str, value: &'a Value) -> Result<Self, ConfigError> {
        match value {
            Value::Object(map) => Ok(Fields {
                file,
                prefix: String::new(),
                map,
            }),
            other => Err(ConfigError::Invalid {
                file: file.to_owned(),
                field: "the top level".to_owned(),
                value: quoted(other),
                rule: "must be a JSON object; copy the file again from the model's repository"
                    .to_owned(),
            }),
        }
    }

    /// The value of `name`, if present and not `null`.
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// The object at `name`.
    pub(super) fn object(&self, name: &str) -> Result<Option<Fields<'a>>, ConfigError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Fields {
                file: self.file,
                prefix: format!("{}{name}.", self.prefix),
                map,
            })),
            Some(_) => Err(self.invalid(name, "must be a JSON object")),
        }
    }

    /// A count or size.
    pub(super) fn size(&self, name: &str) -> Result<Option<usize>, ConfigError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match value.as_u64().and_then(|v| usize::try_from(v).ok()) {
            Some(v) => Ok(Some(v)),
            None => Err(self.invalid(name, "must be a whole number, zero or more")),
        }
    }

    /// A count or size that has no default.
    pub(super) fn required_size(&self, name: &str) -> Result<usize, ConfigError> {
        self.size(name)?.ok_or_else(|| self.missing(name))
    }

    /// A size that may be written `n` or `[n, n]`.
    pub(super) fn square_size(&self, name: &str) -> Result<Option<usize>, ConfigError> {
        match self.get(name) {
            Some(Value::Array(sides)) => {
                let side = sides.first().and_then(Value::as_u64);
                let same = sides.len() == 2 && sides.iter().all(|s| s.as_u64() == side);
                match side.and_then(|v| usize::try_from(v).ok()) {
                    Some(v) if same => Ok(Some(v)),
                    _ => Err(self.invalid(name, "must be one whole number, or two equal ones")),
                }
            }
            _ => self.size(name),
        }
    }

    /// A token id.
    pub(super) fn token_id(&self, name: &str) -> Result<Option<u32>, ConfigError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match as_token_id(value) {
            Some(id) => Ok(Some(id)),
            None => Err(self.invalid(name, "must be a token id, 0 to 4294967295")),
        }
    }

    /// Token ids written as one number or as a list.
    pub(super) fn token_ids(&self, name: &str) -> Result<Option<Vec<u32>>, ConfigError> {
        let ids = match self.get(name) {
            None => return Ok(None),
            Some(Value::Array(items)) => items.iter().map(as_token_id).collect(),
            Some(value) => as_token_id(value).map(|id| vec![id]),
        };
        match ids {
            Some(ids) => Ok(Some(ids)),
            None => Err(self.invalid(name, "must be a token id or a list of token ids")),
        }
    }

    /// A number.
    pub(super) fn float(&self, name: &str) -> Result<Option<f64>, ConfigError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match value.as_f64() {
            Some(v) => Ok(Some(v)),
            None => Err(self.invalid(name, "must be a number")),
        }
    }

    /// Three numbers, one a colour channel, or one number for all three.
    pub(super) fn per_channel(&self, name: &str) -> Result<Option<[f32; 3]>, ConfigError> {
        let values: Option<Vec<f64>> = match self.get(name) {
            None => return Ok(None),
            Some(Value::Array(items)) => items.iter().map(Value::as_f64).collect(),
            Some(value) => value.as_f64().map(|v| vec![v; 3]),
        };
        match values.as_deref() {
            Some(&[r, g, b]) => Ok(Some([r as f32, g as f32, b as f32])),
            _ => Err(self.invalid(name, "must be three numbers, one for red, green and blue")),
        }
    }

    /// A flag.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, ConfigError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match value.as_bool() {
            Some(v) => Ok(Some(v)),
            None => Err(self.invalid(name, "must be true or false")),
        }
    }

    /// A string.
    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, ConfigError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match value.as_str() {
            Some(v) => Ok(Some(v)),
            None => Err(self.invalid(name, "must be a string")),
        }
    }

    /// Fails if `name` is set to true: `reason` says what this would ask of the runtime.
    pub(super) fn refuse_flag(&self, name: &str, reason: &str) -> Result<(), ConfigError> {
        match self.flag(name)? {
            Some(true) => Err(self.unsupported(name, reason)),
            _ => Ok(()),
        }
    }

    /// Fails unless `name` is absent or equals `only`.
    pub(super) fn only_text(&self, name: &str, only: &str) -> Result<(), ConfigError> {
        match self.text(name)? {
            Some(v) if v != only => {
                let rule = format!("only {only:?} is supported; use a model with it");
                Err(self.unsupported(name, &rule))
            }
            _ => Ok(()),
        }
    }

    /// An error for a required field that is absent.
    pub(super) fn missing(&self, name: &str) -> ConfigError {
        ConfigError::MissingField {
            file: self.file.to_owned(),
            field: format!("{}{name}", self.prefix),
        }
    }

    /// An error for a value that no model can have.
    pub(super) fn invalid(&self, name: &str, rule: &str) -> ConfigError {
        ConfigError::Invalid {
            file: self.file.to_owned(),
            field: format!("{}{name}", self.prefix),
            value: self
                .map
                .get(name)
                .map_or_else(|| "absent".to_owned(), quoted),
            rule: rule.to_owned(),
        }
    }

    /// An error for a value that some model has, but none that this runtime can run.
    pub(super) fn unsupported(&self, name: &str, reason: &str) -> ConfigError {
        ConfigError::Unsupported {
            file: self.file.to_owned(),
            field: format!("{}{name}", self.prefix),
            value: self
                .map
                .get(name)
                .map_or_else(|| "absent".to_owned(), quoted),
            reason: reason.to_owned(),
        }
    }
}

fn as_token_id(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|v| u32::try_from(v).ok())
}

/// `value` as compact JSON, cut to [`MAX_QUOTED_CHARS`].
fn quoted(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(MAX_QUOTED_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
