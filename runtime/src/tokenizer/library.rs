//! Tokenizers the packer makes no tables of: read from `tokenizer.json` at every start.

use super::{TokenizerError, byte_level_alphabet};
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;
use tokenizers::DecoderWrapper;

/// A tokenizer of the library, and what its tokens stand for.
#[derive(Clone, Debug)]
pub(super) struct Library {
    pub(super) inner: tokenizers::Tokenizer,
    pieces: Vec<Piece>,
    /// Id and text of the added tokens, longest first.
    added: Vec<(u32, String)>,
}

/// What one token id stands for.
#[derive(Clone, Debug, Default)]
struct Piece {
    bytes: Box<[u8]>,
    special: bool,
    /// Written exactly like this in the file's list of added tokens.
    added: bool,
}

/// What the library does not read safely by itself: on bad syntax in a decoder and on a bad table of
/// characters in a normalizer it panics.
#[derive(Deserialize)]
struct Outline {
    #[serde(default)]
    normalizer: Value,
    #[serde(default, rename = "decoder")]
    _decoder: Value,
}

/// Whether a normalizer, or one in it, has a table of characters.
fn has_table(normalizer: &Value) -> bool {
    match normalizer {
        Value::Array(parts) => parts.iter().any(has_table),
        Value::Object(fields) => fields.iter().any(|(field, value)| {
            field == "precompiled_charsmap" || value == "Precompiled" || has_table(value)
        }),
        _ => false,
    }
}

/// The library's tokenizer; truncation and padding rules of the file are ignored.
pub(super) fn read(json: &[u8]) -> Result<tokenizers::Tokenizer, TokenizerError> {
    let syntax = |source| TokenizerError::Syntax { source };
    let outline: Outline = serde_json::from_slice(json).map_err(|error| syntax(error.into()))?;
    if has_table(&outline.normalizer) {
        return Err(TokenizerError::Normalizer);
    }
    let mut inner = tokenizers::Tokenizer::from_bytes(json).map_err(syntax)?;
    inner.with_truncation(None).map_err(syntax)?;
    inner.with_padding(None);
    Ok(inner)
}

impl Library {
    pub(super) fn new(json: &[u8], vocab_size: usize) -> Result<Library, TokenizerError> {
        let inner = read(json)?;
        match inner.get_decoder() {
            Some(DecoderWrapper::ByteLevel(_)) => {}
            other => {
                let found = format!("{other:?}");
                let found = found.split(['(', ' ']).next().unwrap_or_default();
                return Err(TokenizerError::Decoder {
                    found: found.to_owned(),
                });
            }
        }
        let pieces = pieces(&inner, vocab_size)?;
        let mut added: Vec<(u32, String)> = inner
            .get_added_vocabulary()
            .get_vocab()
            .iter()
            .map(|(content, id)| (*id, content.clone()))
            .collect();
        added.sort_by_key(|(_, content)| (std::cmp::Reverse(content.len()), content.clone()));
        Ok(Library {
            inner,
            pieces,
            added,
        })
    }

    fn piece(&self, id: u32) -> Option<&Piece> {
        self.pieces.get(usize::try_from(id).ok()?)
    }

    pub(super) fn n_tokens(&self) -> usize {
        self.pieces.len()
    }

    pub(super) fn token_bytes(&self, id: u32) -> &[u8] {
        self.piece(id).map_or(&[], |piece| &piece.bytes)
    }

    pub(super) fn is_special(&self, id: u32) -> bool {
        self.piece(id).is_some_and(|piece| piece.special)
    }

    pub(super) fn is_added(&self, id: u32) -> bool {
        self.piece(id).is_some_and(|piece| piece.added)
    }

    pub(super) fn added(&self) -> impl Iterator<Item = (u32, &str)> {
        self.added.iter().map(|(id, text)| (*id, text.as_str()))
    }

    pub(super) fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self.inner.encode_fast(text, false);
        let encoding = encoding.map_err(|source| TokenizerError::Encode { source })?;
        Ok(encoding.get_ids().to_vec())
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
