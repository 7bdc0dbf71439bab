//! A conversation with pictures as the token ids of a prompt.
//!
//! The model's own chat template writes the conversation with one `<image>` for each picture. Each
//! of these becomes, for a layout of R × C image tiles and S image tokens a frame:
//!
//! ```text
//! for each row:  for each col:  <fake_token_around_image><row_R_col_C><image>×S
//!                "\n"
//! "\n"<fake_token_around_image><global-img><image>×S<fake_token_around_image>
//! ```
//!
//! or, without image tiles, only the last line without its `"\n"`. Then the whole text is encoded.
//! Which of these markers are single tokens is the tokenizer's business: the first 2.2B model spells
//! `<row_R_col_C>` and `<global-img>` in ordinary text.
//!
//! # Text from outside
//! A message must not contain the text of an added token of the tokenizer (`<image>`,
//! `<end_of_utterance>`, `<|im_start|>`, …), neither in one part nor across parts: it would move
//! images or end turns. Such a prompt is refused, never altered; [`Tokenizer::added_token_in`] tells
//! beforehand.
//!
//! # Further turns
//! The published templates write a finished turn as they open it (`Assistant:` and then the text), so
//! the prompt of a longer conversation begins with all ids of the shorter one's prompt. What follows
//! may differ from the ids the model generated, since an answer has more than one spelling in tokens.
//! [`Prompt::shared_prefix`] tells how many cached positions can be kept.

#[cfg(test)]
pub(crate) mod tests;

use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value, context};
use serde::{Deserialize, Serialize};
use std::io;

use crate::image::TileLayout;
use crate::tokenizer::{FAKE_TOKEN_AROUND_IMAGE, IMAGE_TOKEN, Tokenizer, TokenizerError};

/// Name of the template in errors.
const TEMPLATE_NAME: &str = "chat template";
/// A text no template writes by itself.
const PROBE: &str = "fqzjv 7 xkwpm";
/// Most instructions a template may take, without messages and for each part of one. The published
/// ones take under a hundred for a message.
const STEPS: u64 = 1_000_000;
const STEPS_A_PART: u64 = 10_000;
/// Most bytes it may write, without texts and for each byte of them.
const MAX_WRITTEN: usize = 1 << 20;
const WRITTEN_A_BYTE: usize = 8;

/// Why a prompt cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PromptError {
    /// The chat template is wrong or fails on this conversation.
    #[error("the chat template cannot be used: {source}")]
    Template {
        /// Line and reason.
        source: minijinja::Error,
    },
    /// The chat template goes on and on.
    #[error(
        "the chat template has not ended after {steps} steps or {bytes} bytes of text; \
         take the template of the model's own repository"
    )]
    EndlessTemplate {
        /// Most instructions it may take.
        steps: u64,
        /// Most bytes it may write.
        bytes: usize,
    },
    /// There is nothing to say.
    #[error("the conversation has no messages, at least 1 is needed")]
    NoMessages,
    /// A message has no parts.
    #[error("message {message} has no parts, at least 1 text or image is needed")]
    EmptyMessage {
        /// Index of the message, from 0.
        message: usize,
    },
    /// The number of pictures differs from the number of places for them.
    #[error(
        "the messages have {parts} image parts for {pictures} pictures; give one picture for each"
    )]
    PictureCount {
        /// Image parts in all messages.
        parts: usize,
        /// Layouts given.
        pictures: usize,
    },
    /// A text would inject a special token.
    #[error(
        "the text of message {message} contains {token:?}, which is a special token of this model; \
         remove it or write it differently"
    )]
    SpecialToken {
        /// Index of the message, from 0.
        message: usize,
        /// The token.
        token: String,
    },
    /// Texts that are harmless alone make a special token together.
    #[error(
        "the texts of the conversation together spell a special token of this model; \
         join the text parts of a message and remove it"
    )]
    SpelledSpecialToken,
    /// The chat template leaves pictures out, or names them more than once.
    #[error(
        "the chat template wrote {found} image placeholders for {expected} pictures; \
         use the template from the model's repository"
    )]
    Placeholders {
        /// Placeholders written.
        found: usize,
        /// Pictures given.
        expected: usize,
    },
    /// The tokenizer does not keep image tokens apart.
    #[error(
        "the prompt has {found} image tokens, the pictures need {expected}; \
         use the tokenizer.json from the model's repository"
    )]
    ImageTokens {
        /// Image tokens encoded.
        found: usize,
        /// Image tokens a frame times frames of all pictures.
        expected: usize,
    },
    /// The text could not be encoded.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions for the whole conversation.
    System,
    /// The person, or the agent's question.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// The name chat templates know.
    pub fn name(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        }
    }
}

/// A piece of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Text, without special tokens.
    Text(String),
    /// The next picture of the conversation.
    Image,
}

/// What one side says in a turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// Texts and pictures in order; at least one.
    pub parts: Vec<Part>,
}

impl Message {
    /// A message of one text.
    pub fn text(role: Role, text: impl Into<String>) -> Message {
        Message {
            role,
            parts: vec![Part::Text(text.into())],
        }
    }

    /// The message of a user who shows one picture and says something about it.
    pub fn image_and_text(text: impl Into<String>) -> Message {
        Message {
            role: Role::User,
            parts: vec![Part::Image, Part::Text(text.into())],
        }
    }

    fn to_template_value(&self, form: ContentForm) -> Value {
        let content: Value = match form {
            ContentForm::Parts => {
                let part = |part: &Part| match part {
                    Part::Text(text) => context! { type => "text", text => text },
                    Part::Image => context! { type => "image" },
                };
                self.parts.iter().map(part).collect()
            }
            ContentForm::Text => {
                let text = |part: &Part| match part {
                    Part::Text(text) => text.clone(),
                    Part::Image => IMAGE_TOKEN.to_owned(),
                };
                self.parts.iter().map(text).collect::<String>().into()
            }
        };
        context! { role => self.role.name(), content => content }
    }

    /// The same message with every text replaced by one that no special token can come from.
    fn with_neutral_text(&self) -> Message {
        let neutral = |part: &Part| match part {
            Part::Text(text) if !text.is_empty() => Part::Text("x".to_owned()),
            other => other.clone(),
        };
        Message {
            role: self.role,
            parts: self.parts.iter().map(neutral).collect(),
        }
    }
}

/// A chat template in Jinja, known to parse.
///
/// It sees `messages` (each with `role` and `content`: a list of `{type: "text", text}` and
/// `{type: "image"}`, or one text if it cannot read a list) and `add_generation_prompt`, which is true, and may call
/// `raise_exception(text)`. As in `transformers`, blocks take their own lines out (`trim_blocks`,
/// `lstrip_blocks`). Writing an undefined variable is an error instead of nothing, because
/// `transformers` defines more of them (`bos_token` and others) than are known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatTemplate {
    source: String,
    form: ContentForm,
}

/// What a template expects as the content of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ContentForm {
    /// A list of parts: templates of models that see.
    Parts,
    /// One text, with `<image>` for a picture: templates of models that only read.
    Text,
}

impl ChatTemplate {
    /// Takes the Jinja source of a template.
    ///
    /// # Errors
    /// [`PromptError::Template`] if it does not parse.
    pub fn new(source: impl Into<String>) -> Result<ChatTemplate, PromptError> {
        let mut template = ChatTemplate {
            source: source.into(),
            form: ContentForm::Parts,
        };
        template.environment()?;
        if !template.writes(PROBE) {
            template.form = ContentForm::Text;
            if !template.writes(PROBE) {
                // It fails on either; the first conversation will say how.
                template.form = ContentForm::Parts;
            }
        }
        Ok(template)
    }

    /// Whether the text of a user's message comes out as it went in. A list that is written as a
    /// whole comes out as a list, its texts in quotation marks.
    fn writes(&self, text: &str) -> bool {
        let rendered = self.render(&[Message::text(Role::User, text)]);
        rendered.is_ok_and(|rendered| {
            let Some((before, after)) = rendered.split_once(text) else {
                return false;
            };
            let quoted = |c: char| c == '"' || c == '\'';
            !(before.ends_with(quoted) && after.starts_with(quoted))
        })
    }

    /// The Jinja source.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The conversation as text, with one `<image>` for each picture and the opening of the
    /// model's turn at the end.
    fn render(&self, messages: &[Message]) -> Result<String, PromptError> {
        let mut environment = self.environment()?;
        let parts = || messages.iter().flat_map(|message| &message.parts);
        environment.set_fuel(Some(STEPS + STEPS_A_PART * parts().count() as u64));
        let texts = parts().map(|part| match part {
            Part::Text(text) => text.len(),
            Part::Image => 0,
        });
        let mut written = Bounded {
            bytes: Vec::new(),
            left: MAX_WRITTEN + WRITTEN_A_BYTE * texts.sum::<usize>(),
        };
        let value = |message: &Message| message.to_template_value(self.form);
        let messages: Vec<Value> = messages.iter().map(value).collect();
        let rendered = environment
            .get_template(TEMPLATE_NAME)
            .and_then(|template| {
                let context = context! { messages, add_generation_prompt => true };
                template.render_captured_to(context, &mut written).map(drop)
            });
        match rendered {
            Ok(()) => Ok(String::from_utf8_lossy(&written.bytes).into_owned()),
            Err(error) => Err(match error.kind() {
                ErrorKind::OutOfFuel | ErrorKind::WriteFailure => PromptError::EndlessTemplate {
                    steps: environment.fuel().unwrap_or(STEPS),
                    bytes: written.bytes.len() + written.left,
                },
                _ => PromptError::Template { source: error },
            }),
        }
    }

    fn environment(&self) -> Result<Environment<'_>, PromptError> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        environment.add_function("raise_exception", |text: String| -> Result<(), _> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, text))
        });
        environment
            .add_template(TEMPLATE_NAME, &self.source)
            .map_err(|source| PromptError::Template { source })?;
        Ok(environment)
    }
}

/// Text that may not grow without end.
struct Bounded {
    bytes: Vec<u8>,
    left: usize,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = self.left.checked_sub(bytes.len());
        self.left = left.ok_or(io::ErrorKind::FileTooLarge)?;
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A prompt, ready for prefill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Token ids.
    pub ids: Vec<u32>,
    /// How many of them are image tokens: image tokens a frame times frames of all pictures.
    pub n_image_tokens: usize,
    /// The text that was encoded.
    pub text: String,
}

impl Prompt {
    /// How many ids at the front equal those of `cached`.
    ///
    /// Equal ids are the same positions in a KV cache only if the pictures are the same too.
    pub fn shared_prefix(&self, cached: &[u32]) -> usize {
        self.ids
            .iter()
            .zip(cached)
            .take_while(|(a, b)| a == b)
            .count()
    }
}

/// Builds the prompt of a conversation, up to and with the opening of the model's turn.
///
/// `layouts` has one entry for each [`Part::Image`], in order of the messages; `image_seq_len` is the
/// number of image tokens a frame.
///
/// # Errors
/// [`PromptError`] if the template fails, if pictures and image parts do not match, or if a text
/// would be encoded to a special token.
pub fn build_prompt(
    template: &ChatTemplate,
    tokenizer: &Tokenizer,
    messages: &[Message],
    layouts: &[TileLayout],
    image_seq_len: usize,
) -> Result<Prompt, PromptError> {
    check_messages(tokenizer, messages, layouts.len())?;
    let chat = template.render(messages)?;
    check_special_tokens(template, tokenizer, messages, &chat)?;
    // Without pictures and without the token, `<image>` is text like any other.
    let text = if layouts.is_empty() && tokenizer.token_id(IMAGE_TOKEN).is_none() {
        chat
    } else {
        expand_images(&chat, layouts, image_seq_len)?
    };
    let ids = tokenizer.encode(&text)?;
    let n_image_tokens = layouts.iter().map(TileLayout::n_frames).sum::<usize>() * image_seq_len;
    let image_token = tokenizer.token_id(IMAGE_TOKEN);
    let found = ids.iter().filter(|&&id| Some(id) == image_token).count();
    if found != n_image_tokens {
        return Err(PromptError::ImageTokens {
            found,
            expected: n_image_tokens,
        });
    }
    Ok(Prompt {
        ids,
        n_image_tokens,
        text,
    })
}

fn check_messages(
    tokenizer: &Tokenizer,
    messages: &[Message],
    pictures: usize,
) -> Result<(), PromptError> {
    if messages.is_empty() {
        return Err(PromptError::NoMessages);
    }
    let mut image_parts = 0;
    for (message, Message { parts, .. }) in messages.iter().enumerate() {
        if parts.is_empty() {
            return Err(PromptError::EmptyMessage { message });
        }
        for part in parts {
            match part {
                Part::Image => image_parts += 1,
                Part::Text(text) => {
                    if let Some(token) = tokenizer.added_token_in(text) {
                        return Err(PromptError::SpecialToken {
                            message,
                            token: token.to_owned(),
                        });
                    }
                }
            }
        }
    }
    if image_parts != pictures {
        return Err(PromptError::PictureCount {
            parts: image_parts,
            pictures,
        });
    }
    Ok(())
}

/// Checks that all special tokens in `chat` come from the template.
///
/// The template may trim and join texts as it likes, so the result is compared with that for texts
/// that are harmless.
fn check_special_tokens(
    template: &ChatTemplate,
    tokenizer: &Tokenizer,
    messages: &[Message],
    chat: &str,
) -> Result<(), PromptError> {
    let special = |text: &str| -> Result<Vec<u32>, TokenizerError> {
        let mut ids = tokenizer.encode(text)?;
        ids.retain(|&id| tokenizer.is_special(id));
        Ok(ids)
    };
    let neutral: Vec<Message> = messages.iter().map(Message::with_neutral_text).collect();
    if special(chat)? != special(&template.render(&neutral)?)? {
        return Err(PromptError::SpelledSpecialToken);
    }
    Ok(())
}

/// Replaces each `<image>` in `chat` by the markers and image tokens of its picture.
fn expand_images(
    chat: &str,
    layouts: &[TileLayout],
    image_seq_len: usize,
) -> Result<String, PromptError> {
    let found = chat.matches(IMAGE_TOKEN).count();
    if found != layouts.len() {
        return Err(PromptError::Placeholders {
            found,
            expected: layouts.len(),
        });
    }
    let image_tokens = IMAGE_TOKEN.repeat(image_seq_len);
    let mut pieces = chat.split(IMAGE_TOKEN);
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for (layout, piece) in layouts.iter().zip(pieces) {
        push_picture(&mut text, *layout, &image_tokens);
        text.push_str(piece);
    }
    Ok(text)
}

fn push_picture(text: &mut String, layout: TileLayout, image_tokens: &str) {
    for row in 1..=layout.rows {
        for col in 1..=layout.cols {
            text.push_str(FAKE_TOKEN_AROUND_IMAGE);
            text.push_str(&format!("<row_{row}_col_{col}>"));
            text.push_str(image_tokens);
        }
        text.push('\n');
    }
    if layout != TileLayout::GLOBAL_ONLY {
        text.push('\n');
    }
    text.push_str(FAKE_TOKEN_AROUND_IMAGE);
    text.push_str("<global-img>");
    text.push_str(image_tokens);
    text.push_str(FAKE_TOKEN_AROUND_IMAGE);
}
