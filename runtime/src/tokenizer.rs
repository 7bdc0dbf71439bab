//! Text to token ids and back, by the model's own `tokenizer.json`.

#[cfg(test)]
pub(crate) mod tests;

use std::collections::HashMap;

use tokenizers::DecoderWrapper;

use crate::config::{GenerationConfig, ModelConfig};

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
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    pieces: Vec<Piece>,
    /// Contents of the added tokens, longest first.
    added: Vec<String>,
}

/// What one token id stands for.
#[derive(Clone, Debug, Default)]
struct Piece {
    bytes: Box<[u8]>,
    special: bool,
    /// Written exactly like this in the file's list of added tokens.
    added: bool,
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
        let mut inner = tokenizers::Tokenizer::from_bytes(json)
            .map_err(|source| TokenizerError::Syntax { source })?;
        inner
            .with_truncation(None)
            .map_err(|source| TokenizerError::Syntax { source })?;
        inner.with_padding(None);
        match inner.get_decoder() {
            Some(DecoderWrapper::ByteLevel(_)) => {}
            other => {
                let found = format!("{other:?}");
                let found = found
                    .split(['(', ' '])
                    .next()
                    .unwrap_or_default()
                    .to_owned();
                return Err(TokenizerError::Decoder { found });
            }
        }
        let vocab_size = config.text.vocab_size;
        let pieces = pieces(&inner, vocab_size)?;
        let mut added: Vec<String> = inner
            .get_added_tokens_decoder()
            .into_values()
            .map(|token| token.content)
            .collect();
        added.sort_by_key(|content| (std::cmp::Reverse(content.len()), content.clone()));
        let tokenizer = Tokenizer {
            inner,
            pieces,
            added,
        };

        if let Some(expected) = config.image_token_id() {
            tokenizer.added_token(FAKE_TOKEN_AROUND_IMAGE)?;
            let found = tokenizer.added_token(IMAGE_TOKEN)?;
            if found != expected {
                return Err(TokenizerError::WrongId {
                    token: IMAGE_TOKEN.to_owned(),
                    found,
                    expected,
                });
            }
        }
        for &id in &generation.stop_token_ids {
            if tokenizer.token_bytes(id).is_none() {
                return Err(TokenizerError::UnknownStopToken { id });
            }
        }
        Ok(tokenizer)
    }

    /// Id of the token written exactly `token`. Ordinary tokens are written in the byte-level
    /// alphabet, with `Ġ` for a leading space.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The bytes `id` stands for: UTF-8 text, or a part of a character. `None` if there is no such
    /// token.
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        let piece = self.pieces.get(usize::try_from(id).ok()?)?;
        (!piece.bytes.is_empty()).then_some(&*piece.bytes)
    }

    /// Whether `id` is a special token, which is no part of an answer's text.
    pub fn is_special(&self, id: u32) -> bool {
        usize::try_from(id)
            .ok()
            .and_then(|id| self.pieces.get(id))
            .is_some_and(|piece| piece.special)
    }

    /// The tokens that ordinary text is made of, with their bytes, by id.
    pub fn text_tokens(&self) -> impl Iterator<Item = (u32, &[u8])> {
        (0u32..)
            .zip(&self.pieces)
            .filter(|(_, piece)| !piece.added && !piece.bytes.is_empty())
            .map(|(id, piece)| (id, &*piece.bytes))
    }

    /// One more than the highest token id.
    pub fn n_tokens(&self) -> usize {
        self.pieces.len()
    }

    /// The first special (or otherwise added) token that `text` would be encoded to.
    ///
    /// Text from outside must have none: it could place images or end turns.
    pub fn added_token_in<'a>(&'a self, text: &str) -> Option<&'a str> {
        self.added
            .iter()
            .find(|token| text.contains(token.as_str()))
            .map(String::as_str)
    }

    /// Token ids of `text`; special tokens written in it become their ids.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] if the tokenizer's own rules fail on the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self
            .inner
            .encode_fast(text, false)
            .map_err(|source| TokenizerError::Encode { source })?;
        Ok(encoding.get_ids().to_vec())
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
        let missing = || TokenizerError::MissingToken {
            token: token.to_owned(),
        };
        let vocabulary = self.inner.get_added_vocabulary().get_vocab();
        vocabulary.get(token).copied().ok_or_else(missing)
    }
}

/// The table of [`Piece`]s by id; fails if an id is not below `vocab_size`.
fn pieces(inner: &tokenizers::Tokenizer, vocab_size: usize) -> Result<Vec<Piece>, TokenizerError> {
    let alphabet: HashMap<char, u8> = byte_level_alphabet().collect();
    let added = inner.get_added_tokens_decoder();
    let mut pieces = Vec::new();
    for (token, id) in inner.get_vocab(true) {
        let index = id as usize;
        if index >= vocab_size {
            return Err(TokenizerError::IdOutOfRange {
                token,
                id,
                vocab_size,
            });
        }
        if pieces.len() <= index {
            pieces.resize_with(index + 1, Piece::default);
        }
        pieces[index] = match added.get(&id) {
            Some(added) => Piece {
                bytes: added.content.as_bytes().into(),
                special: added.special,
                added: true,
            },
            None => {
                let mapped: Option<Box<[u8]>> =
                    token.chars().map(|c| alphabet.get(&c).copied()).collect();
                // A token outside the alphabet stands for its own text.
                Piece {
                    bytes: mapped.unwrap_or_else(|| token.as_bytes().into()),
                    special: false,
                    added: false,
                }
            }
        };
    }
    Ok(pieces)
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
#[derive(Clone, Debug, Default)]
pub struct TextStream {
    held: Vec<u8>,
}

impl TextStream {
    /// A stream without text.
    pub fn new() -> TextStream {
        TextStream::default()
    }

    /// Takes the next token and returns the text that is complete now, maybe none.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> String {
        if !tokenizer.is_special(id) {
            self.held
                .extend_from_slice(tokenizer.token_bytes(id).unwrap_or_default());
        }
        let whole = whole_characters(&self.held);
        let text = String::from_utf8_lossy(&self.held[..whole]).into_owned();
        self.held.drain(..whole);
        text
    }

    /// Ends the stream and returns what was held back, as `U+FFFD` if it never became a character.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.held).into_owned()
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
