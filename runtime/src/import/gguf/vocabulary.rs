//! The vocabulary in `tokenizer.ggml.*` as the `tokenizer.json` it once was.

use super::error::GgufError;
use super::file::GgufFile;
use super::shapes::{TOKENS, tokens};
use serde_json::{Map, Value, json};

const TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";

/// What a token is, by its number in the file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal,
    /// A token that is no part of a text: `<|im_start|>`, `<image>`.
    Control,
    /// Text that is always kept in one piece.
    UserDefined,
    /// Room in the table that stands for nothing.
    Unused,
}

impl Kind {
    fn from_number(number: i64) -> Option<Kind> {
        match number {
            1 | 6 => Some(Kind::Normal),
            2 | 3 => Some(Kind::Control),
            4 => Some(Kind::UserDefined),
            5 => Some(Kind::Unused),
            _ => None,
        }
    }
}

/// The splits in front of byte-level BPE that a pre-tokenizer's name stands for.
fn splits(file: &GgufFile) -> Result<Value, GgufError> {
    let key = "tokenizer.ggml.pre";
    let name = file.text(key)?.ok_or_else(|| file.missing_key(key))?;
    let space = file
        .flag("tokenizer.ggml.add_space_prefix")?
        .unwrap_or(false);
    let bytes = json!({
        "type": "ByteLevel", "add_prefix_space": space, "trim_offsets": true, "use_regex": true,
    });
    match name {
        "gpt-2" => Ok(bytes),
        "smollm" => Ok(json!({
            "type": "Sequence",
            "pretokenizers": [{ "type": "Digits", "individual_digits": true }, bytes],
        })),
        other => Err(file.wrong(key, other, "smollm and gpt-2 are supported")),
    }
}

/// The bytes of a `tokenizer.json` with the tokens, merges and special tokens of the file.
pub(super) fn tokenizer_json(file: &GgufFile, vocab_size: usize) -> Result<Vec<u8>, GgufError> {
    let key = "tokenizer.ggml.model";
    match file.text(key)? {
        Some("gpt2") => {}
        Some(other) => {
            return Err(file.wrong(key, other, "only gpt2 (byte-level BPE) is supported"));
        }
        None => return Err(file.missing_key(key)),
    }
    let tokens = tokens(file)?;
    if tokens.len() > vocab_size {
        let rule = format!("the model has embeddings for {vocab_size}");
        return Err(file.wrong(TOKENS, &format!("{} tokens", tokens.len()), &rule));
    }
    let kinds = kinds(file, tokens.len())?;
    let mut vocabulary = Map::new();
    let mut added = Vec::new();
    for (id, (token, kind)) in tokens.iter().zip(kinds).enumerate() {
        if kind == Kind::Unused {
            continue;
        }
        if vocabulary.insert((*token).to_owned(), id.into()).is_some() {
            return Err(file.wrong(TOKENS, token, &format!("token {id} is there twice")));
        }
        if kind != Kind::Normal {
            added.push(json!({
                "id": id,
                "content": token,
                "single_word": false,
                "lstrip": false,
                "rstrip": false,
                "normalized": false,
                "special": kind == Kind::Control,
            }));
        }
    }
    let merges = file.texts(MERGES)?.unwrap_or_default();
    for merge in &merges {
        let joined = match merge.split_once(' ') {
            Some((a, b)) => [a, b, &format!("{a}{b}")].map(|part| vocabulary.contains_key(part)),
            None => [false; 3],
        };
        if joined != [true; 3] {
            let rule = "a merge names two tokens, and together they are a third";
            return Err(file.wrong(MERGES, merge, rule));
        }
    }
    // Converters take it from tokenizer_config.json; byte-level BPE itself has none.
    let unknown = file.size("tokenizer.ggml.unknown_token_id")?;
    let unknown = unknown.filter(|_| merges.is_empty());
    let unknown = unknown.and_then(|id| tokens.get(id));
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": splits(file)?,
        "post_processor": null,
        "decoder": {
            "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true,
        },
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": unknown,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            // Without merges nothing could put a token together: words are looked up whole.
            "ignore_merges": merges.is_empty(),
            "vocab": vocabulary,
            "merges": merges,
        },
    });
    Ok(tokenizer.to_string().into_bytes())
}

fn kinds(file: &GgufFile, n_tokens: usize) -> Result<Vec<Kind>, GgufError> {
    let numbers = file
        .integers(TYPES)?
        .ok_or_else(|| file.missing_key(TYPES))?;
    if numbers.len() != n_tokens {
        let rule = format!("{TOKENS} has {n_tokens}");
        return Err(file.wrong(TYPES, &format!("{} types", numbers.len()), &rule));
    }
    let kind = |number: i64| {
        Kind::from_number(number)
            .ok_or_else(|| file.wrong(TYPES, &number.to_string(), "types are 1 to 6"))
    };
    numbers.into_iter().map(kind).collect()
}
