//! Makes the tables out of a `tokenizer.json`.

use super::super::classes::{CLASS_BITS, DIGIT, LETTER, NUMBER, SPACE};
use super::super::{byte_level_alphabet, library};
use super::{ADDED, COUNTS, Counts, FORM, NO_TOKEN, SPECIAL, SPLIT_DIGITS, Tables, WHOLE_WORDS};
use crate::pack::Blob;
use serde::Deserialize;
use serde_json::Value;
use std::cmp::Reverse;
use std::collections::HashMap;

/// Most tokens that tables are made for.
const MAX_TOKENS: usize = 1 << 22;

/// Why there are no tables: the file is read at every start instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no tables are made of this tokenizer: {0}")]
pub struct Refusal(String);

fn refuse<T>(what: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal(what.into()))
}

/// A tokenizer as the library writes it, whatever form it read.
#[derive(Deserialize)]
struct File {
    normalizer: Value,
    pre_tokenizer: Value,
    post_processor: Value,
    decoder: Value,
    added_tokens: Vec<Added>,
    model: Value,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
    special: bool,
}

#[derive(Deserialize)]
struct Bpe {
    dropout: Option<f32>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    byte_fallback: bool,
    ignore_merges: bool,
    unk_token: Option<String>,
    vocab: HashMap<String, u32>,
    merges: Vec<(String, String)>,
}

/// The tables of a `tokenizer.json`, compared with the library on every token and every class of
/// characters.
///
/// # Errors
///
/// [`Refusal`] for anything but byte-level BPE with or without split digits.
pub fn build(json: &[u8]) -> Result<Vec<u8>, Refusal> {
    let tokenizer = library::read(json).map_err(|error| Refusal(error.to_string()))?;
    let text = serde_json::to_string(&tokenizer).map_err(|error| Refusal(error.to_string()))?;
    let file: File = serde_json::from_str(&text).map_err(|error| Refusal(error.to_string()))?;
    let flags = splits(&file)?;
    if file.model.get("type").and_then(Value::as_str) != Some("BPE") {
        return refuse("its model is no BPE");
    }
    let model: Bpe =
        serde_json::from_value(file.model).map_err(|error| Refusal(error.to_string()))?;
    check_model(&model)?;
    let vocabulary = Vocabulary::new(&model, &file.added_tokens)?;
    let flags = flags | if model.ignore_merges { WHOLE_WORDS } else { 0 };
    let tables = vocabulary.tables(flags, merges(&model)?);
    compare(&tables, &tokenizer)?;
    Ok(tables)
}

/// The flag of the pre-tokenizer.
fn splits(file: &File) -> Result<u32, Refusal> {
    if !file.normalizer.is_null() || !file.post_processor.is_null() {
        return refuse("it has a normalizer or a post-processor");
    }
    let kind = |value: &Value| value["type"].as_str().unwrap_or("none").to_owned();
    if kind(&file.decoder) != "ByteLevel" {
        return refuse(format!("its decoder is {}", kind(&file.decoder)));
    }
    let is_bytes = |value: &Value| {
        kind(value) == "ByteLevel"
            && value["add_prefix_space"] == false
            && value["use_regex"] == true
    };
    let before = &file.pre_tokenizer;
    if is_bytes(before) {
        return Ok(0);
    }
    match before["pretokenizers"].as_array().map(Vec::as_slice) {
        Some([bytes]) if is_bytes(bytes) => Ok(0),
        Some([digits, bytes])
            if is_bytes(bytes)
                && kind(digits) == "Digits"
                && digits["individual_digits"] == true =>
        {
            Ok(SPLIT_DIGITS)
        }
        _ => refuse(format!(
            "its pre-tokenizer is {}, not byte-level with or without single digits",
            kind(before)
        )),
    }
}

fn check_model(model: &Bpe) -> Result<(), Refusal> {
    let affixes = [&model.continuing_subword_prefix, &model.end_of_word_suffix];
    let has_affix = affixes.iter().any(|affix| {
        affix
            .as_deref()
            .is_some_and(|affix: &str| !affix.is_empty())
    });
    if has_affix || model.byte_fallback || model.dropout.is_some_and(|p| p != 0.0) {
        return refuse("its BPE has affixes, byte fallback or dropout");
    }
    Ok(())
}

/// The merges as left, right, rank, merged token, ascending.
fn merges(model: &Bpe) -> Result<Vec<[u32; 4]>, Refusal> {
    let id = |token: &str| {
        let unknown = || Refusal(format!("a merge names {token:?}, which is no token"));
        model.vocab.get(token).copied().ok_or_else(unknown)
    };
    let mut merges = Vec::with_capacity(model.merges.len());
    for (rank, (left, right)) in (0..).zip(&model.merges) {
        merges.push([id(left)?, id(right)?, rank, id(&format!("{left}{right}"))?]);
    }
    merges.sort_unstable();
    Ok(merges)
}

/// What the tokens are, by id.
#[derive(Default)]
struct Vocabulary {
    bytes: Vec<Vec<u8>>,
    kinds: Vec<u32>,
    /// The model's own tokens, by bytes.
    words: Vec<u32>,
    added: Vec<u32>,
    of_byte: Vec<u32>,
}

impl Vocabulary {
    fn new(model: &Bpe, added: &[Added]) -> Result<Vocabulary, Refusal> {
        let alphabet: HashMap<char, u8> = byte_level_alphabet().collect();
        let mut all = Vocabulary::default();
        for (token, id) in &model.vocab {
            let bytes: Option<Vec<u8>> = token.chars().map(|c| alphabet.get(&c).copied()).collect();
            match bytes {
                Some(bytes) if !bytes.is_empty() => all.put(*id, bytes, 0)?,
                _ => return refuse(format!("its token {token:?} is no bytes")),
            }
            all.words.push(*id);
        }
        all.words
            .sort_unstable_by(|a, b| all.bytes[*a as usize].cmp(&all.bytes[*b as usize]));
        for byte in 0..=u8::MAX {
            let found = all
                .words
                .binary_search_by(|id| all.bytes[*id as usize].as_slice().cmp(&[byte]));
            match (found, &model.unk_token) {
                (Ok(at), _) => all.of_byte.push(all.words[at]),
                (Err(_), None) => all.of_byte.push(NO_TOKEN),
                (Err(_), Some(unknown)) => {
                    return refuse(format!("it writes {unknown:?} for byte {byte}"));
                }
            }
        }
        for token in added {
            all.add(token)?;
        }
        let Vocabulary { added, bytes, .. } = &mut all;
        added.sort_by_key(|id| {
            let bytes = &bytes[*id as usize];
            (Reverse(bytes.len()), bytes.clone())
        });
        Ok(all)
    }

    fn put(&mut self, id: u32, bytes: Vec<u8>, kind: u32) -> Result<(), Refusal> {
        let at = id as usize;
        if at >= MAX_TOKENS {
            return refuse(format!("token id {id}, the limit is {MAX_TOKENS}"));
        }
        if self.bytes.len() <= at {
            self.bytes.resize(at + 1, Vec::new());
            self.kinds.resize(at + 1, 0);
        }
        if !self.bytes[at].is_empty() && self.bytes[at] != bytes {
            return refuse(format!("two tokens have the id {id}"));
        }
        self.bytes[at] = bytes;
        self.kinds[at] = kind;
        Ok(())
    }

    fn add(&mut self, token: &Added) -> Result<(), Refusal> {
        let Added { id, content, .. } = token;
        if token.single_word || token.lstrip || token.rstrip || token.normalized {
            return refuse(format!(
                "its added token {content:?} is not matched as it is"
            ));
        }
        let kind = ADDED | if token.special { SPECIAL } else { 0 };
        let twice = |other: &u32| self.bytes[*other as usize] == content.as_bytes();
        if content.is_empty() || self.added.iter().any(twice) {
            return refuse(format!(
                "its added token {content:?} is empty or there twice"
            ));
        }
        self.put(*id, content.clone().into_bytes(), kind)?;
        self.added.push(*id);
        Ok(())
    }

    fn tables(&self, flags: u32, merges: Vec<[u32; 4]>) -> Vec<u8> {
        let classes = classes();
        let counts = Counts {
            flags,
            tokens: self.bytes.len(),
            words: self.words.len(),
            merges: merges.len(),
            added: self.added.len(),
            classes: classes.len(),
            text: self.bytes.iter().map(Vec::len).sum(),
        };
        let lengths = [
            counts.tokens,
            counts.words,
            counts.merges,
            counts.added,
            counts.classes,
            counts.text,
        ];
        let mut numbers = vec![FORM, flags];
        numbers.extend(lengths.map(|n| n as u32));
        debug_assert_eq!(numbers.len(), COUNTS);
        numbers.extend(ends(self.bytes.iter().map(Vec::len)));
        numbers.extend(&self.kinds);
        numbers.extend(&self.words);
        let mut of_left = vec![0; counts.tokens];
        merges
            .iter()
            .for_each(|merge| of_left[merge[0] as usize] += 1);
        numbers.extend(ends(of_left.into_iter()));
        numbers.extend(merges.iter().flat_map(|merge| &merge[1..]));
        numbers.extend(&self.added);
        numbers.extend(classes);
        numbers.extend(&self.of_byte);
        let mut bytes: Vec<u8> = numbers.into_iter().flat_map(u32::to_le_bytes).collect();
        bytes.extend(self.bytes.iter().flatten());
        bytes
    }
}

/// Where parts of these lengths begin and the last one ends.
fn ends(lengths: impl Iterator<Item = usize>) -> impl Iterator<Item = u32> {
    let sums = lengths.scan(0, |sum, len| {
        *sum += len;
        Some(*sum as u32)
    });
    std::iter::once(0).chain(sums)
}

/// The ranges of characters, with the classes the library's regular expressions give them.
fn classes() -> Vec<u32> {
    let ranges = |pattern: &str| -> Vec<(u32, u32)> {
        let parsed = regex_syntax::parse(pattern).expect("the patterns are constants");
        match parsed.kind() {
            regex_syntax::hir::HirKind::Class(regex_syntax::hir::Class::Unicode(class)) => class
                .ranges()
                .iter()
                .map(|range| (u32::from(range.start()), u32::from(range.end())))
                .collect(),
            other => unreachable!("{pattern} is a class of characters, not {other:?}"),
        }
    };
    let mut of: Vec<u8> = (0..=u32::from(char::MAX))
        .map(|code| match char::from_u32(code) {
            // The library splits digits by this one.
            Some(c) if c.is_numeric() => DIGIT as u8,
            _ => 0,
        })
        .collect();
    for (pattern, class) in [(r"\p{L}", LETTER), (r"\p{N}", NUMBER), (r"\s", SPACE)] {
        for (first, last) in ranges(pattern) {
            of[first as usize..=last as usize]
                .iter_mut()
                .for_each(|bits| *bits |= class as u8);
        }
    }
    let mut words = Vec::new();
    let mut last = None;
    for (code, bits) in (0u32..).zip(of) {
        if last != Some(bits) {
            words.push(code << CLASS_BITS | u32::from(bits));
            last = Some(bits);
        }
    }
    words
}

/// Encodes every token's text and the ends of every range of characters both ways.
fn compare(tables: &[u8], library: &tokenizers::Tokenizer) -> Result<(), Refusal> {
    let tables =
        Tables::open(Blob::from(tables.to_vec())).map_err(|error| Refusal(error.to_string()))?;
    let mut texts: Vec<String> = Vec::new();
    for chunk in (0..tables.n_tokens() as u32)
        .collect::<Vec<u32>>()
        .chunks(64)
    {
        let words: Vec<_> = chunk
            .iter()
            .map(|id| String::from_utf8_lossy(tables.token_bytes(*id)))
            .collect();
        texts.push(words.concat());
        texts.push(words.join(" "));
    }
    for chunk in classes().chunks(64) {
        let characters = chunk.iter().filter_map(|word| {
            let code = word >> CLASS_BITS;
            Some([
                char::from_u32(code.saturating_sub(1))?,
                char::from_u32(code)?,
            ])
        });
        let characters: Vec<char> = characters.flatten().collect();
        texts.push(characters.iter().flat_map(|c| ['a', *c, ' ', *c]).collect());
        texts.push(
            characters
                .iter()
                .flat_map(|c| [*c, '1', '\n', *c])
                .collect(),
        );
    }
    for text in texts {
        let encoded = library.encode_fast(text.as_str(), false);
        let encoded = encoded.map_err(|error| Refusal(error.to_string()))?;
        if encoded.get_ids() != tables.encode(&text) {
            let begin: String = text.chars().take(40).collect();
            return refuse(format!("tables and library differ on {begin:?}"));
        }
    }
    Ok(())
}
