//! Tests of tokenizing.

use serde_json::Value;

use super::*;
use crate::config::tests::{cases, fixture, fixture_bytes, numbers, reference_json, small_model};
use crate::pack::Blob;

/// The fixture tokenizer `name`, checked against a model it belongs to.
pub(crate) fn small(name: &str) -> Tokenizer {
    let json: Value = fixture(name);
    let added = cases(&json["added_tokens"]);
    let id = |content: &str| {
        let token = added
            .iter()
            .find(|token| token["content"] == content)
            .expect("an added token");
        token["id"].as_u64().expect("an id") as u32
    };
    let (image, end) = (id(IMAGE_TOKEN), id("<end_of_utterance>"));
    let (config, generation) = small_model(end as usize + 1, image, end);
    Tokenizer::from_bytes(&fixture_bytes(name), &config, &generation).expect("a good tokenizer")
}

/// The fixture tokenizer `name` as the packer prepares it.
fn prepared(name: &str) -> Tokenizer {
    let tables = build_tables(&fixture_bytes(name)).expect("tables can be made");
    Tokenizer(Form::Tables(
        Tables::open(Blob::from(tables)).expect("they open"),
    ))
}

fn library(tokenizer: &Tokenizer) -> &tokenizers::Tokenizer {
    match &tokenizer.0 {
        Form::Library(library) => &library.inner,
        Form::Tables(_) => panic!("these are tables"),
    }
}

fn from_json(json: &Value, config: &ModelConfig) -> Result<Tokenizer, TokenizerError> {
    let generation = small_model(1, 0, 2).1;
    Tokenizer::from_bytes(json.to_string().as_bytes(), config, &generation)
}

/// Pushes `ids` one by one; every piece of text must be whole.
fn streamed(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let (mut stream, mut text) = (TextStream::new(), String::new());
    for &id in ids {
        stream.push(tokenizer, id, &mut text);
    }
    stream.finish(&mut text);
    text
}

#[test]
fn ids_and_texts_equal_the_reference_tokenizer() {
    for name in ["tokenizer.json", "tokenizer_v1.json"] {
        let both = [small(name), prepared(name)];
        let fixture = fixture(&format!("prompts_{name}"));
        let cases = cases(&fixture["texts"]);
        for (case, tokenizer) in cases
            .iter()
            .flat_map(|case| both.each_ref().map(|t| (case, t)))
        {
            let text = case["text"].as_str().expect("a text");
            let ids: Vec<u32> = numbers(&case["ids"]);
            assert_eq!(
                tokenizer.encode(text).expect("encodes"),
                ids,
                "{name}: {text:?}"
            );
            assert_eq!(
                tokenizer.decode(&ids, false),
                case["decoded"],
                "{name}: {text:?}"
            );
            let plain = &case["without_special"];
            assert_eq!(tokenizer.decode(&ids, true), *plain, "{name}: {text:?}");
            assert_eq!(streamed(tokenizer, &ids), *plain, "{name}: {text:?}");
        }
        assert_eq!(cases.len(), 24);
    }
}

#[test]
fn the_two_generations_differ_in_their_markers() {
    let (new, first) = (small("tokenizer.json"), small("tokenizer_v1.json"));
    for marker in ["<global-img>", "<row_1_col_1>", "<row_6_col_6>"] {
        assert_eq!(
            new.encode(marker).expect("encodes"),
            [new.token_id(marker).expect("a token")]
        );
        assert!(
            first.encode(marker).expect("encodes").len() > 3,
            "{marker} is plain text"
        );
        assert_eq!(first.token_id(marker), None);
        assert_eq!(new.added_token_in(&format!("a{marker}b")), Some(marker));
        assert_eq!(first.added_token_in(marker), None);
    }
    assert_eq!(new.added_token_in("<imag e> < image>"), None);
    assert_eq!(first.added_token_in("a <image> b"), Some("<image>"));
    let longest = "<fake_token_around_image>";
    assert_eq!(
        first.added_token_in(&format!("<image>{longest}")),
        Some(longest)
    );
}

#[test]
fn pieces_are_bytes() {
    let tokenizer = small("tokenizer.json");
    let every: Vec<u8> = (0..=255).collect();
    for byte in every {
        let found = (0..tokenizer.n_tokens() as u32)
            .filter(|&id| tokenizer.token_bytes(id) == Some(&[byte]))
            .count();
        assert_eq!(found, 1, "byte {byte} has one token");
    }
    let space = tokenizer.token_id("Ġ").expect("a token");
    assert_eq!(tokenizer.token_bytes(space), Some(&b" "[..]));
    let image = tokenizer.token_id(IMAGE_TOKEN).expect("a token");
    assert_eq!(tokenizer.token_bytes(image), Some(IMAGE_TOKEN.as_bytes()));
    assert!(tokenizer.is_special(image) && !tokenizer.is_special(space));
    for id in [tokenizer.n_tokens() as u32, u32::MAX] {
        assert_eq!(
            (tokenizer.token_bytes(id), tokenizer.is_special(id)),
            (None, false)
        );
        assert_eq!(tokenizer.decode(&[id], false), "");
    }
}

#[test]
fn a_stream_holds_back_what_is_not_a_character_yet() {
    let tokenizer = small("tokenizer_v1.json");
    let byte = |byte: u8| {
        let ids = 0..tokenizer.n_tokens() as u32;
        ids.into_iter()
            .find(|&id| tokenizer.token_bytes(id) == Some(&[byte]))
            .expect("a token")
    };
    let push = |stream: &mut TextStream, id: u32| {
        let mut text = String::new();
        stream.push(&tokenizer, id, &mut text);
        text
    };
    let finish = |mut stream: TextStream| {
        let mut text = String::new();
        stream.finish(&mut text);
        text
    };
    let mut stream = TextStream::new();
    let pushed: Vec<String> = "é🙂!".bytes().map(|b| push(&mut stream, byte(b))).collect();
    assert_eq!(pushed, ["", "é", "", "", "", "🙂", "!"]);
    assert_eq!(finish(stream), "");

    // Bytes that cannot become a character do not hold anything up.
    let mut stream = TextStream::new();
    let pushed: Vec<String> = b"\xf0\x9fab\xff\x80"
        .iter()
        .map(|&b| push(&mut stream, byte(b)))
        .collect();
    assert_eq!(pushed, ["", "", "\u{fffd}a", "b", "\u{fffd}", "\u{fffd}"]);
    push(&mut stream, byte(0xe6));
    let end = tokenizer.token_id("<end_of_utterance>").expect("a token");
    assert_eq!(push(&mut stream, end), "");
    assert_eq!(finish(stream), "\u{fffd}");
}

#[test]
fn any_bytes_stream_as_they_decode() {
    let tokenizer = small("tokenizer_v1.json");
    let mut state = 1u64;
    for _ in 0..500 {
        let ids: Vec<u32> = (0..12)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                ((state >> 33) % tokenizer.n_tokens() as u64) as u32
            })
            .collect();
        assert_eq!(
            streamed(&tokenizer, &ids),
            tokenizer.decode(&ids, true),
            "{ids:?}"
        );
        let reference = library(&tokenizer).decode(&ids, false).expect("decodes");
        assert_eq!(tokenizer.decode(&ids, false), reference, "{ids:?}");
    }
}

#[test]
fn truncation_and_padding_rules_are_ignored() {
    let mut json = fixture("tokenizer_v1.json");
    let tokens = small("tokenizer_v1.json");
    let (image, end) = (tokens.n_tokens() as u32 - 2, tokens.n_tokens() as u32 - 1);
    json["truncation"] = serde_json::json!({
        "direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0
    });
    json["padding"] = serde_json::json!({
        "strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 2, "pad_type_id": 0, "pad_token": "<|im_end|>"
    });
    let (config, _) = small_model(end as usize + 1, image, end);
    let ids = from_json(&json, &config)
        .expect("a good tokenizer")
        .encode("one two three four");
    assert_eq!(
        ids.expect("encodes"),
        tokens.encode("one two three four").expect("encodes")
    );
}

#[test]
fn tokenizers_of_another_model_are_refused() {
    let json = fixture("tokenizer.json");
    let good = small("tokenizer.json");
    let n = good.n_tokens();
    let image = good.token_id(IMAGE_TOKEN).expect("a token");
    let (config, _) = small_model(n, image, 2);
    assert!(from_json(&json, &config).is_ok());

    let refused = |json: &Value, config: &ModelConfig| -> String {
        from_json(json, config)
            .expect_err("a wrong tokenizer")
            .to_string()
    };
    let mut other = config.clone();
    if let Some(vision) = &mut other.vision {
        vision.image_token_id = image - 1;
    }
    assert_eq!(
        refused(&json, &other),
        format!(
            "tokenizer.json: token \"<image>\" has id {image}, config.json says {}; \
             take both files from the same model's repository",
            image - 1
        )
    );
    let mut smaller = config.clone();
    smaller.text.vocab_size = n - 1;
    assert!(refused(&json, &smaller).contains(&format!("must be below vocab_size {}", n - 1)));
    for token in [FAKE_TOKEN_AROUND_IMAGE, IMAGE_TOKEN] {
        let mut without = json.clone();
        let added = without["added_tokens"].as_array_mut().expect("a list");
        added.retain(|entry| entry["content"] != token);
        let message = refused(&without, &config);
        assert_eq!(
            message,
            format!(
                "tokenizer.json: token {token:?} is missing; \
                 take all files from the same model's repository"
            )
        );
    }
    let mut decoder = json.clone();
    decoder["decoder"] = serde_json::json!({
        "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true
    });
    assert!(refused(&decoder, &config).contains("only a ByteLevel decoder"));
    decoder["decoder"] = Value::Null;
    assert!(refused(&decoder, &config).contains("decoder is None"));

    let generation = small_model(n, image, n as u32 + 5).1;
    let unknown = Tokenizer::from_bytes(json.to_string().as_bytes(), &config, &generation);
    assert!(matches!(
        unknown,
        Err(TokenizerError::UnknownStopToken { .. })
    ));
}

#[test]
fn broken_tokenizer_files_are_refused() {
    let bytes = fixture_bytes("tokenizer_v1.json");
    let (config, generation) = small_model(1000, 0, 2);
    let read = |bytes: &[u8]| Tokenizer::from_bytes(bytes, &config, &generation);
    for bytes in [
        &b""[..],
        b"{}",
        b"[]",
        b"null",
        b"\xff",
        &bytes[..bytes.len() / 2],
    ] {
        assert!(matches!(read(bytes), Err(TokenizerError::Syntax { .. })));
    }
    let error = read(b"{}").expect_err("no tokenizer");
    assert_eq!(
        error.to_string(),
        "tokenizer.json: not a tokenizer file; copy it again from the model's repository"
    );
    assert!(std::error::Error::source(&error).is_some());
}

#[test]
fn what_the_library_panics_on_is_refused() {
    let bytes = fixture_bytes("tokenizer_v1.json");
    let (config, generation) = small_model(1000, 0, 2);
    let read = |bytes: &[u8]| Tokenizer::from_bytes(bytes, &config, &generation);
    let json = std::str::from_utf8(&bytes).expect("JSON");
    let decoder = json.find(r#""decoder""#).expect("a decoder");
    for length in [12, 20, 40] {
        let cut = read(&bytes[..decoder + length]);
        assert!(matches!(cut, Err(TokenizerError::Syntax { .. })), "{cut:?}");
    }
    let huge = json.replacen(r#""decoder":"#, r#""decoder":1e999,"other":"#, 1);
    let huge = read(huge.as_bytes());
    assert!(
        matches!(huge, Err(TokenizerError::Syntax { .. })),
        "{huge:?}"
    );
    let table = serde_json::json!({ "type": "Precompiled", "precompiled_charsmap": "AAAA" });
    let bare = serde_json::json!({ "precompiled_charsmap": "AAAA" });
    for normalizer in [
        table.clone(),
        bare,
        serde_json::json!({ "type": "Precompiled" }),
        serde_json::json!({ "type": "Sequence", "normalizers": [{ "type": "NFC" }, table] }),
    ] {
        let mut file: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
        file["normalizer"] = normalizer;
        let found = read(file.to_string().as_bytes());
        assert!(
            matches!(found, Err(TokenizerError::Normalizer)),
            "{found:?}"
        );
    }
}

#[test]
fn the_published_tokenizer_gives_the_golden_ids() {
    let Some(golden) = reference_json("golden/tokenizer_cases.json", 50) else {
        return;
    };
    let Some(tokenizer) = crate::prompt::tests::published("256M") else {
        return;
    };
    let cases = cases(&golden["cases"]);
    for case in cases {
        let text = case["text"].as_str().expect("a text");
        let ids: Vec<u32> = numbers(&case["ids"]);
        assert_eq!(tokenizer.encode(text).expect("encodes"), ids, "{text:?}");
        assert_eq!(tokenizer.decode(&ids, false), case["decoded"], "{text:?}");
    }
    assert_eq!(cases.len(), 50);
    assert_eq!(tokenizer.n_tokens(), 49_280);
}
