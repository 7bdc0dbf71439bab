//! Text to token ids and back, by the model's own tokenizer.
//!
//! | file | defines |
//! |---|---|
//! | `tables` | the tokenizer the packer prepared: tables used as they are mapped |
//! | `tables/build` | how it is made of a `tokenizer.json`, and compared with the library |
//! | `classes` | classes of characters, and words |
//! | `merging` | byte-pair encoding of a word |
//! | `library` | every other tokenizer, read by the library `tokenizers` |

mod classes;
mod library;
mod merging;
mod tables;
#[cfg(test)]
pub(crate) mod tests;

pub use tables::build::{Refusal, build as build_tables};

use crate::config::{GenerationConfig, ModelConfig};
use crate::pack::{OpenError, Pack};
use library::Library;
use std::sync::Arc;
use tables::Tables;

/// Name of the published file in a pack.
pub const JSON_BLOB: &str = "tokenizer.json";
/// Name of the prepared tables in a pack.
pub const TABLES_BLOB: &str = "tokenizer.tables";

/// Placeholder of one row of image features.
pub const IMAGE_TOKEN: &str = "<image>";
/// Stands before every image tile and around the global view.
pub const FAKE_TOKEN_AROUND_IMAGE: &str = "<fake_token_around_image>";

/// Why a `tokenizer.json` cannot be used, or a text not be encoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The bytes are not a tokenizer.
    #[error("tokenizer.json: not a tokenizer file; copy it again from the model's repository")]
    Syntax {
        /// Where and why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Text is changed by a table before it is split.
    #[error(
        "tokenizer.json: normalizer is or holds a Precompiled one, which is not supported; \
         take the file from the model's repository"
    )]
    Normalizer,
    /// Token ids do not stand for bytes.
    #[error(
        "tokenizer.json: decoder is {found}, only a ByteLevel decoder is supported; \
         take the file from the model's repository"
    )]
    Decoder {
        /// The decoder found.
        found: String,
    },
    /// A token the model cannot do without is not in the file.
    #[error(
        "tokenizer.json: token {token:?} is missing; take all files from the same model's repository"
    )]
    MissingToken {
        /// The token.
        token: String,
    },
    /// A token has another id than the model expects.
    #[error(
        "tokenizer.json: token {token:?} has id {found}, config.json says {expected}; \
         take both files from the same model's repository"
    )]
    WrongId {
        /// The token.
        token: String,
        /// Id in `tokenizer.json`.
        found: u32,
        /// Id in `config.json`.
        expected: u32,
    },
    /// A token has no row in the embedding table.
    #[error(
        "tokenizer.json: token {token:?} has id {id}, it must be below vocab_size {vocab_size} of \
         config.json; take both files from the same model's repository"
    )]
    IdOutOfRange {
        /// The token.
        token: String,
        /// Its id.
        id: u32,
        /// Size of the model's vocabulary.
        vocab_size: usize,
    },
    /// A stop token does not exist, so that answers would not end there.
    #[error(
        "generation_config.json: eos_token_id {id} is no token of tokenizer.json; \
         take both files from the same model's repository"
    )]
    UnknownStopToken {
        /// The id.
        id: u32,
    },
    /// The tables in the pack are damaged.
    #[error("tokenizer.tables: {what}; pack or copy the model again")]
    Tables {
        /// The broken rule.
        what: String,
    },
    /// The pack holds no tokenizer.
    #[error(transparent)]
    Pack(#[from] OpenError),
    /// The text cannot be encoded.
    #[error("the text cannot be encoded with this tokenizer")]
    Encode {
        /// What the tokenizer said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The tokenizer of one model, checked against its configuration.
///
/// Encoding never adds tokens: the chat template writes every special token itself, and the
/// published files have no post-processor.
#[derive(Clone, Debug)]
pub struct Tokenizer(Form);

/// The two forms of a tokenizer.
#[derive(Clone, Debug)]
enum Form {
    Tables(Tables),
    Library(Box<Library>),
}

/// Calls a method that both forms have.
macro_rules! either {
    ($self:ident.$method:ident($($argument:expr),*)) => {
        match &$self.0 {
            Form::Tables(tables) => tables.$method($($argument),*),
            Form::Library(library) => library.$method($($argument),*),
        }
    };
}

impl Tokenizer {
    /// Reads the bytes of a `tokenizer.json` and checks that it belongs to the model.
    ///
    /// Truncation and padding rules of the file are ignored.
    ///
    /// # Errors
    /// [`TokenizerError`] if the file is broken, if a stop token is not the model's, if an id is
    /// outside the vocabulary, or, for a model with a vision side, if `<image>` is not the model's
    /// or `<fake_token_around_image>` is missing.
    pub fn from_bytes(
        json: &[u8],
        config: &ModelConfig,
        generation: &GenerationConfig,
    ) -> Result<Tokenizer, TokenizerError> {
        let library = Library::new(json, config.text.vocab_size)?;
        Tokenizer(Form::Library(Box::new(library))).checked(config, generation)
    }

    /// Takes the tokenizer of a pack: its tables where it has them, else its `tokenizer.json`.
    ///
    /// # Errors
    /// As [`Tokenizer::from_bytes`], and [`TokenizerError::Tables`] for damaged tables.
    pub fn from_pack(pack: &Arc<Pack>) -> Result<Tokenizer, TokenizerError> {
        let (config, generation) = (&pack.header().config, &pack.header().generation);
        match pack.shared_blob(TABLES_BLOB) {
            Ok(blob) => Tokenizer(Form::Tables(Tables::open(blob)?)).checked(config, generation),
            Err(_) => Tokenizer::from_bytes(pack.blob(JSON_BLOB)?, config, generation),
        }
    }

    fn checked(
        self,
        config: &ModelConfig,
        generation: &GenerationConfig,
    ) -> Result<Tokenizer, TokenizerError> {
        let vocab_size = config.text.vocab_size;
        if let Some(id) = (vocab_size..self.n_tokens()).next_back() {
            let id = id as u32;
            let token = String::from_utf8_lossy(self.token_bytes(id).unwrap_or_default());
            return Err(TokenizerError::IdOutOfRange {
                token: token.into_owned(),
                id,
                vocab_size,
            });
        }
        if let Some(expected) = config.image_token_id() {
            self.added_token(FAKE_TOKEN_AROUND_IMAGE)?;
            let found = self.added_token(IMAGE_TOKEN)?;
            if found != expected {
                return Err(TokenizerError::WrongId {
                    token: IMAGE_TOKEN.to_owned(),
                    found,
                    expected,
                });
            }
        }
        for &id in &generation.stop_token_ids {
            if self.token_bytes(id).is_none() {
                return Err(TokenizerError::UnknownStopToken { id });
            }
        }
        Ok(self)
    }

    /// Whether it is used as the packer prepared it; if not, it was parsed at this start.
    pub fn is_prepared(&self) -> bool {
        matches!(self.0, Form::Tables(_))
    }

    /// Id of the token written exactly `token`. Ordinary tokens are written in the byte-level
    /// alphabet, with `Ġ` for a leading space.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        let tables = match &self.0 {
            Form::Tables(tables) => tables,
            Form::Library(library) => return library.inner.token_to_id(token),
        };
        let added = self.added().find(|(_, added)| *added == token);
        added.map(|(id, _)| id).or_else(|| {
            let byte = |c: char| byte_level_alphabet().find(|(own, _)| *own == c);
            let bytes = token.chars().map(|c| byte(c).map(|(_, byte)| byte));
            tables.word(&bytes.collect::<Option<Vec<u8>>>()?)
        })
    }

    /// The bytes `id` stands for: UTF-8 text, or a part of a character. `None` if there is no such
    /// token.
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        let bytes = either!(self.token_bytes(id));
        (!bytes.is_empty()).then_some(bytes)
    }

    /// Whether `id` is a special token, which is no part of an answer's text.
    pub fn is_special(&self, id: u32) -> bool {
        either!(self.is_special(id))
    }

    /// The tokens that ordinary text is made of, with their bytes, by id.
    pub fn text_tokens(&self) -> impl Iterator<Item = (u32, &[u8])> {
        (0..self.n_tokens() as u32)
            .filter(|id| !either!(self.is_added(*id)))
            .filter_map(|id| Some((id, self.token_bytes(id)?)))
    }

    /// One more than the highest token id.
    pub fn n_tokens(&self) -> usize {
        either!(self.n_tokens())
    }

    /// The first special (or otherwise added) token that `text` would be encoded to.
    ///
    /// Text from outside must have none: it could place images or end turns.
    pub fn added_token_in<'a>(&'a self, text: &str) -> Option<&'a str> {
        self.added()
            .map(|(_, token)| token)
            .find(|token| text.contains(token))
    }

    /// Id and text of the added tokens, longest first.
    fn added(&self) -> Box<dyn Iterator<Item = (u32, &str)> + '_> {
        match &self.0 {
            Form::Tables(tables) => Box::new(tables.added()),
            Form::Library(library) => Box::new(library.added()),
        }
    }

    /// Token ids of `text`; special tokens written in it become their ids.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] if the tokenizer's own rules fail on the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        match &self.0 {
            Form::Tables(tables) => Ok(tables.encode(text)),
            Form::Library(library) => library.encode(text),
        }
    }

    /// Text of `ids`. Ids without a token are left out; bytes that are no UTF-8 become `U+FFFD`.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let kept = ids
            .iter()
            .filter(|&&id| !(skip_special && self.is_special(id)));
        let bytes: Vec<u8> = kept
            .flat_map(|&id| self.token_bytes(id).unwrap_or_default())
            .copied()
            .collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Id of a token that must be matched as a whole wherever it is written.
    fn added_token(&self, token: &str) -> Result<u32, TokenizerError> {
        let found = self.added().find(|(_, added)| *added == token);
        let missing = || TokenizerError::MissingToken {
            token: token.to_owned(),
        };
        found.map(|(id, _)| id).ok_or_else(missing)
    }
}

/// The alphabet of byte-level BPE: printable Latin-1 characters stand for their own byte, the other
/// bytes take the characters from U+0100 on in order.
fn byte_level_alphabet() -> impl Iterator<Item = (char, u8)> {
    let printable = |byte: &u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let own = (0..=255u8)
        .filter(printable)
        .map(|byte| (char::from(byte), byte));
    let moved = (0..=255u8).filter(move |byte| !printable(byte));
    own.chain(('\u{100}'..).zip(moved))
}

/// Text that arrives token by token, given out as whole characters.
///
/// Bytes of a character that is not complete yet are held back. Special tokens are left out.
#[derive(Clone, Debug)]
pub struct TextStream {
    held: Vec<u8>,
}

/// Longest token, in bytes, that a [`TextStream`] takes without allocating.
pub const TOKEN_ROOM: usize = 256;

impl Default for TextStream {
    fn default() -> TextStream {
        TextStream::new()
    }
}

impl TextStream {
    /// A stream without text.
    pub fn new() -> TextStream {
        TextStream {
            // The begin of a character may be held.
            held: Vec::with_capacity(TOKEN_ROOM + char::MAX_LEN_UTF8),
        }
    }

    /// Takes the next token and adds the text that is complete now, maybe none, to `text`.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32, text: &mut String) {
        if !tokenizer.is_special(id) {
            self.held
                .extend_from_slice(tokenizer.token_bytes(id).unwrap_or_default());
        }
        let whole = whole_characters(&self.held);
        push_lossy(&self.held[..whole], text);
        self.held.drain(..whole);
    }

    /// Ends the stream and adds what was held back to `text`, as `U+FFFD` if it never became a
    /// character.
    pub fn finish(&mut self, text: &mut String) {
        push_lossy(&self.held, text);
        self.held.clear();
    }
}

/// Adds bytes to a text, `U+FFFD` for those that are no UTF-8.
fn push_lossy(bytes: &[u8], text: &mut String) {
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

/// Length of `bytes` without an unfinished character at the end.
fn whole_characters(bytes: &[u8]) -> usize {
    let mut start = 0;
    loop {
        match std::str::from_utf8(&bytes[start..]) {
            Ok(_) => return bytes.len(),
            Err(e) => match e.error_len() {
                Some(wrong) => start += e.valid_up_to() + wrong,
                None => return start + e.valid_up_to(),
            },
        }
    }
}
