//! Commands: payloads that others publish, checked and turned into [`Command`]s.

#[cfg(test)]
mod tests;

use super::payload::{Code, MAX_QUESTION_BYTES, MAX_WORD_BYTES, Reply};
use super::topics::{Heard, Kind, MAX_NAME_BYTES, is_name};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Most choices of a question.
pub const MAX_CHOICES: usize = 16;
/// Most tokens an answer may be asked to have.
pub const MAX_TOKENS: u16 = 512;
/// Longest correlation data that is given back, in bytes.
pub const MAX_CORRELATION_BYTES: usize = 128;

/// What a pin is to be set to.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum PinValue {
    /// High or low.
    Level(bool),
    /// A number in the unit of the pin (duty, angle, …), finite.
    Number(f64),
}

/// What somebody wants. Nothing is permitted yet.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Look now.
    Look {
        /// Only this rule.
        rule: Option<String>,
    },
    /// Ask about the next picture.
    Ask {
        /// The question.
        question: String,
        /// Closed answers to score; none for free text.
        choices: Vec<String>,
        /// The camera that looks.
        camera: Option<String>,
        /// Most tokens of the answer.
        max_tokens: Option<u16>,
    },
    /// Approve or deny a pending action.
    Decide {
        /// The action's id.
        action: String,
        /// The action's nonce.
        nonce: String,
        /// Whether it may happen.
        approve: bool,
    },
    /// Enable or disable a rule.
    SetRule {
        /// The rule.
        rule: String,
        /// Whether it is enabled.
        on: bool,
    },
    /// Set a pin, if the permission gate allows.
    SetPin {
        /// The pin.
        pin: String,
        /// The value.
        value: PinValue,
    },
    /// Change a feature.
    SetFeature {
        /// The feature.
        feature: String,
        /// The value.
        value: String,
    },
    /// Read settings and rules again.
    Reload,
}

/// A command and what it calls itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// The command.
    pub command: Command,
    /// Field `id` of the payload.
    pub id: Option<String>,
}

/// Why a payload is no command; a [`Reply`] says it to the sender.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// Longer than the table of topics allows.
    #[error("the payload has {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Not JSON, or not the object the schema wants.
    #[error("the payload does not fit the schema `{schema}`: {problem}")]
    Malformed {
        /// Name of the schema.
        schema: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// A field outside its bounds.
    #[error("`{field}` {rule}")]
    Field {
        /// The field.
        field: &'static str,
        /// What it must be.
        rule: &'static str,
    },
    /// The topic names something no name can be.
    #[error(
        "the topic names no rule, pin or feature: a name has 1 to {MAX_NAME_BYTES} of A-Z a-z 0-9 _ -"
    )]
    Name,
    /// The topic carries no commands.
    #[error("this topic carries no commands")]
    NoCommand,
}

impl From<&CommandError> for Reply {
    fn from(error: &CommandError) -> Reply {
        let code = match error {
            CommandError::TooLarge { .. } => Code::TooLarge,
            CommandError::Name => Code::Unknown,
            _ => Code::Malformed,
        };
        Reply::because(code, error.to_string())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LookPayload {
    id: Option<String>,
    rule: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AskPayload {
    id: Option<String>,
    question: String,
    choices: Option<Vec<String>>,
    camera: Option<String>,
    max_tokens: Option<u16>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DecidePayload {
    id: Option<String>,
    action: String,
    nonce: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleSetPayload {
    id: Option<String>,
    on: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PinSetPayload {
    id: Option<String>,
    value: PinValue,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FeatureSetPayload {
    id: Option<String>,
    value: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReloadPayload {
    id: Option<String>,
}

/// The command that `payload` is on the topic that was `heard`.
///
/// # Errors
///
/// [`CommandError`], one variant for each way a payload can be wrong.
pub fn parse(heard: &Heard<'_>, payload: &[u8]) -> Result<Parsed, CommandError> {
    let limit = heard.topic.max_bytes;
    if payload.len() > limit {
        return Err(CommandError::TooLarge {
            bytes: payload.len(),
            limit,
        });
    }
    let parsed = match heard.topic.kind {
        Kind::Look => look(from_json(heard, or_empty_object(payload))?),
        Kind::Ask => ask(from_json(heard, payload)?),
        Kind::Approve => decide(from_json(heard, payload)?, true),
        Kind::Deny => decide(from_json(heard, payload)?, false),
        Kind::Reload => {
            let ReloadPayload { id } = from_json(heard, or_empty_object(payload))?;
            Ok((id, Command::Reload))
        }
        Kind::RuleSet => set_rule(heard, payload),
        Kind::PinSet => set_pin(heard, payload),
        Kind::FeatureSet => set_feature(heard, payload),
        _ => Err(CommandError::NoCommand),
    };
    let (id, command) = parsed?;
    check_words("id", id.iter())?;
    Ok(Parsed { command, id })
}

/// The `id` of a payload that may be no command, so that its sender knows the answer.
pub fn id_of(payload: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Id {
        id: String,
    }
    let Id { id } = serde_json::from_slice(payload).ok()?;
    check_words("id", [&id]).ok().map(|()| id)
}

fn from_json<T: DeserializeOwned>(heard: &Heard<'_>, payload: &[u8]) -> Result<T, CommandError> {
    let malformed = |problem: String| CommandError::Malformed {
        schema: heard.topic.content.schema().unwrap_or_default(),
        problem,
    };
    // A struct may also be written as a list of its fields; the schemas know objects only.
    if payload.trim_ascii_start().first() != Some(&b'{') {
        return Err(malformed("it is no JSON object".to_owned()));
    }
    serde_json::from_slice(payload).map_err(|fault| malformed(fault.to_string()))
}

/// Buttons publish nothing.
fn or_empty_object(payload: &[u8]) -> &[u8] {
    if payload.is_empty() { b"{}" } else { payload }
}

fn look(payload: LookPayload) -> Result<(Option<String>, Command), CommandError> {
    let LookPayload { id, rule } = payload;
    check_name("rule", rule.as_deref())?;
    Ok((id, Command::Look { rule }))
}

fn ask(payload: AskPayload) -> Result<(Option<String>, Command), CommandError> {
    let choices = payload.choices.unwrap_or_default();
    check_len(
        "question",
        &payload.question,
        MAX_QUESTION_BYTES,
        "must have 1 to 1024 bytes",
    )?;
    if choices.len() == 1 || choices.len() > MAX_CHOICES {
        return Err(CommandError::Field {
            field: "choices",
            rule: "must be none, or 2 to 16 texts",
        });
    }
    check_words("choices", &choices)?;
    let twice = |(at, choice)| choices[..at].contains(choice);
    if choices.iter().enumerate().any(twice) {
        return Err(CommandError::Field {
            field: "choices",
            rule: "must all differ",
        });
    }
    check_words("camera", payload.camera.iter())?;
    if payload
        .max_tokens
        .is_some_and(|n| !(1..=MAX_TOKENS).contains(&n))
    {
        return Err(CommandError::Field {
            field: "max_tokens",
            rule: "must be 1 to 512",
        });
    }
    let command = Command::Ask {
        question: payload.question,
        choices,
        camera: payload.camera,
        max_tokens: payload.max_tokens,
    };
    Ok((payload.id, command))
}

fn decide(
    payload: DecidePayload,
    approve: bool,
) -> Result<(Option<String>, Command), CommandError> {
    let DecidePayload { id, action, nonce } = payload;
    check_words("action", [&action])?;
    check_words("nonce", [&nonce])?;
    let command = Command::Decide {
        action,
        nonce,
        approve,
    };
    Ok((id, command))
}

fn set_rule(heard: &Heard<'_>, payload: &[u8]) -> Result<(Option<String>, Command), CommandError> {
    let rule = named(heard)?;
    let (id, on) = match on_off(payload) {
        Some(on) => (None, on),
        None => {
            let RuleSetPayload { id, on } = from_json(heard, payload)?;
            (id, on)
        }
    };
    Ok((id, Command::SetRule { rule, on }))
}

fn set_pin(heard: &Heard<'_>, payload: &[u8]) -> Result<(Option<String>, Command), CommandError> {
    let pin = named(heard)?;
    let (id, value) = match (on_off(payload), plain_number(payload)) {
        (Some(on), _) => (None, PinValue::Level(on)),
        (None, Some(number)) => (None, PinValue::Number(number)),
        (None, None) => {
            let PinSetPayload { id, value } = from_json(heard, payload)?;
            (id, value)
        }
    };
    if matches!(value, PinValue::Number(number) if !number.is_finite()) {
        return Err(CommandError::Field {
            field: "value",
            rule: "must be a finite number",
        });
    }
    Ok((id, Command::SetPin { pin, value }))
}

fn set_feature(
    heard: &Heard<'_>,
    payload: &[u8],
) -> Result<(Option<String>, Command), CommandError> {
    let feature = named(heard)?;
    let (id, value) = if payload.first() == Some(&b'{') {
        let FeatureSetPayload { id, value } = from_json(heard, payload)?;
        (id, value)
    } else {
        let text = std::str::from_utf8(payload).map_err(|_| CommandError::Field {
            field: "value",
            rule: "must be UTF-8",
        })?;
        (None, text.to_owned())
    };
    check_len("value", &value, MAX_NAME_BYTES, "must have 1 to 64 bytes")?;
    Ok((id, Command::SetFeature { feature, value }))
}

fn named(heard: &Heard<'_>) -> Result<String, CommandError> {
    heard
        .name
        .filter(|name| is_name(name))
        .map(str::to_owned)
        .ok_or(CommandError::Name)
}

fn on_off(payload: &[u8]) -> Option<bool> {
    match payload {
        b"ON" => Some(true),
        b"OFF" => Some(false),
        _ => None,
    }
}

/// A decimal number as JSON writes it: no sign of plus, no `inf`.
fn plain_number(payload: &[u8]) -> Option<f64> {
    let starts = |byte: &u8| byte.is_ascii_digit() || *byte == b'-';
    payload
        .first()
        .filter(|first| starts(first))
        .and_then(|_| serde_json::from_slice(payload).ok())
}

fn check_name(field: &'static str, name: Option<&str>) -> Result<(), CommandError> {
    if name.is_none_or(is_name) {
        return Ok(());
    }
    Err(CommandError::Field {
        field,
        rule: "must be a name: 1 to 64 of A-Z a-z 0-9 _ -",
    })
}

fn check_words<'a>(
    field: &'static str,
    words: impl IntoIterator<Item = &'a String>,
) -> Result<(), CommandError> {
    words
        .into_iter()
        .try_for_each(|word| check_len(field, word, MAX_WORD_BYTES, "must have 1 to 128 bytes"))
}

fn check_len(
    field: &'static str,
    text: &str,
    most: usize,
    rule: &'static str,
) -> Result<(), CommandError> {
    if (1..=most).contains(&text.len()) {
        Ok(())
    } else {
        Err(CommandError::Field { field, rule })
    }
}
