//! A tokenizer of the published size: as many words and merges, so that reading it takes as long.

use std::fmt::Write as _;

/// The image token stands this many ids before the end of the vocabulary.
pub(super) const IMAGE_TOKEN_FROM_END: usize = 90;
/// Special tokens at the end of the vocabulary.
const N_SPECIAL: usize = 128;
/// Their places among them.
const FAKE_TOKEN: usize = N_SPECIAL - IMAGE_TOKEN_FROM_END - 1;
const IMAGE_TOKEN: usize = FAKE_TOKEN + 1;

/// `tokenizer.json` of a byte-level BPE with `vocab_size` tokens, the last 128 of them special.
///
/// # Panics
///
/// When `vocab_size` is below 800: bytes, some words and the special tokens need their places.
pub(super) fn tokenizer_json(vocab_size: usize) -> String {
    assert!(
        vocab_size >= 800,
        "a vocabulary of {vocab_size} is too small"
    );
    let bytes = byte_characters();
    let merges = merges(vocab_size - N_SPECIAL - bytes.len());
    let words = bytes
        .iter()
        .map(char::to_string)
        .chain(merges.iter().map(|(left, right)| format!("{left}{right}")));
    let vocab = joined(words.enumerate().map(|(id, word)| match word.as_str() {
        "\"" | "\\" => format!("\"\\{word}\":{id}"),
        _ => format!("\"{word}\":{id}"),
    }));
    let special = joined((0..N_SPECIAL).map(|i| {
        let content = match i {
            FAKE_TOKEN => "<fake_token_around_image>".to_owned(),
            IMAGE_TOKEN => "<image>".to_owned(),
            _ => format!("<|special_{i}|>"),
        };
        let id = vocab_size - N_SPECIAL + i;
        format!(
            r#"{{"id":{id},"content":"{content}","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}}"#
        )
    }));
    let merges = joined(
        merges
            .iter()
            .map(|(left, right)| format!(r#"["{left}","{right}"]"#)),
    );
    format!(
        concat!(
            r#"{{"version":"1.0","truncation":null,"padding":null,"added_tokens":[{special}],"normalizer":null,"#,
            r#""pre_tokenizer":{{"type":"Sequence","pretokenizers":[{{"type":"Digits","individual_digits":true}},"#,
            r#"{{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true}}]}},"#,
            r#""post_processor":null,"#,
            r#""decoder":{{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true}},"#,
            r#""model":{{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,"#,
            r#""end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":false,"ignore_merges":false,"#,
            r#""vocab":{{{vocab}}},"merges":[{merges}]}}}}"#,
        ),
        special = special,
        vocab = vocab,
        merges = merges,
    )
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.fold(String::new(), |mut all, part| {
        let comma = if all.is_empty() { "" } else { "," };
        // Writing to a string cannot fail.
        let _ = write!(all, "{comma}{part}");
        all
    })
}

/// The printable stand-in of each byte in byte-level BPE.
fn byte_characters() -> Vec<char> {
    let printable = |byte: u8| matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut next = 0x100;
    (0..=u8::MAX)
        .map(|byte| match printable(byte) {
            true => char::from(byte),
            false => {
                next += 1;
                char::from_u32(next - 1).expect("U+0100 onwards are characters")
            }
        })
        .collect()
}

/// `count` pairs that grow words of two, then three, then four letters.
fn merges(count: usize) -> Vec<(String, String)> {
    let letters: Vec<String> = ('a'..='z').map(String::from).collect();
    let two: Vec<String> = letters
        .iter()
        .flat_map(|a| letters.iter().map(move |b| format!("{a}{b}")))
        .collect();
    let pairs = |left: &[String], right: &[String]| -> Vec<(String, String)> {
        let pair = |a: &String| {
            right
                .iter()
                .map(|b| (a.clone(), b.clone()))
                .collect::<Vec<_>>()
        };
        left.iter().flat_map(pair).take(count).collect()
    };
    let mut merges = pairs(&letters, &letters);
    merges.extend(pairs(&two, &letters));
    merges.extend(pairs(&two, &two));
    merges.truncate(count);
    merges
}
