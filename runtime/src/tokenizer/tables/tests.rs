//! Tests of the prepared tables against the library.

use super::super::library::Library;
use super::build::build;
use super::*;
use crate::config::tests::{fixture, fixture_bytes, reference};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::LazyLock;

const FIXTURES: [&str; 2] = ["tokenizer.json", "tokenizer_v1.json"];

struct Both {
    tables: Tables,
    library: Library,
}

fn open(bytes: Vec<u8>) -> Result<Tables, TokenizerError> {
    Tables::open(Blob::from(bytes))
}

impl Both {
    fn new(json: &[u8]) -> Both {
        Both {
            tables: open(build(json).expect("tables can be made")).expect("they open"),
            library: Library::new(json, usize::MAX).expect("a good tokenizer"),
        }
    }

    fn check(&self, text: &str) {
        let expected = self.library.encode(text).expect("encodes");
        assert_eq!(self.tables.encode(text), expected, "{text:?}");
    }
}

/// A fixture without tokens for two bytes: a control character, and the second of two in "é".
fn without_bytes() -> Value {
    let mut json = fixture(FIXTURES[0]);
    let gone = ["Ć", "©"];
    let words = json["model"]["vocab"].as_object_mut().expect("a map");
    for byte in gone {
        // The library numbers added tokens by the count of words, so there is one in its place.
        let id = words.remove(byte).expect("a token for every byte");
        words.insert(byte.repeat(9), id);
    }
    let merges = json["model"]["merges"].as_array_mut().expect("a list");
    let sides = |merge: &Value| match merge {
        Value::String(sides) => sides.split(' ').map(str::to_owned).collect(),
        sides => serde_json::from_value::<Vec<String>>(sides.clone()).expect("two words"),
    };
    merges.retain(|merge| {
        !sides(merge)
            .iter()
            .any(|side| gone.contains(&side.as_str()))
    });
    json
}

/// The fixtures, without split digits and without some bytes too, and the embedded model's, which
/// looks words up whole.
fn all() -> &'static [Both] {
    static ALL: LazyLock<Vec<Both>> = LazyLock::new(|| {
        let mut gpt2 = fixture(FIXTURES[0]);
        gpt2["pre_tokenizer"] = gpt2["pre_tokenizer"]["pretokenizers"][1].clone();
        let mut default = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        default.push("../models/default/tokenizer.json");
        let default = std::fs::read(default).expect("the default model is there");
        let mut files: Vec<Vec<u8>> = FIXTURES.map(fixture_bytes).into();
        files.extend([gpt2, without_bytes()].map(|json| json.to_string().into_bytes()));
        files.push(default);
        if let Some(published) = published() {
            files.push(published);
        }
        files.iter().map(|json| Both::new(json)).collect()
    });
    &ALL
}

/// The published tokenizer, where the reference files are at hand.
fn published() -> Option<Vec<u8>> {
    let path = reference("SmolVLM-256M-Instruct/tokenizer.json", 1)?;
    Some(std::fs::read(path).expect("a readable reference file"))
}

#[test]
fn every_token_is_what_the_library_says() {
    for Both { tables, library } in all() {
        assert_eq!(tables.n_tokens(), library.n_tokens());
        for id in 0..tables.n_tokens() as u32 + 2 {
            assert_eq!(tables.token_bytes(id), library.token_bytes(id), "{id}");
            assert_eq!(tables.is_special(id), library.is_special(id), "{id}");
            assert_eq!(tables.is_added(id), library.is_added(id), "{id}");
        }
        let added = |tokens: &mut dyn Iterator<Item = (u32, &str)>| -> Vec<(u32, String)> {
            tokens.map(|(id, text)| (id, text.to_owned())).collect()
        };
        assert_eq!(added(&mut tables.added()), added(&mut library.added()));
    }
}

/// Every character between letters, behind a space and alone, in front of a digit and of spaces;
/// in the planes without characters, and for private use, between letters alone.
fn check_classes(both: &Both) {
    let every: Vec<char> = ('\0'..=char::MAX).collect();
    for some in every.chunks(2048) {
        let is_empty = matches!(some[0], '\u{40000}'..'\u{e0000}' | '\u{f0000}'..);
        let text: String = some
            .iter()
            .flat_map(|c| ['a', *c, 'b', ' ', *c, '1', *c, ' ', '\n'])
            .enumerate()
            .filter_map(|(at, c)| (!is_empty || at % 9 < 3).then_some(c))
            .collect();
        both.check(&text);
    }
}

// One test each: they take the longest of this crate and run side by side.

#[test]
fn every_character_is_of_the_class_the_library_gives_it() {
    check_classes(&all()[0]);
}

#[test]
fn every_character_is_of_the_class_the_library_gives_it_in_the_older_form() {
    check_classes(&all()[1]);
}

#[test]
fn every_character_is_of_the_class_the_library_gives_it_where_digits_stay_together() {
    check_classes(&all()[2]);
}

#[test]
fn bytes_without_a_token_are_dropped_and_their_neighbours_merge() {
    for both in all() {
        both.check("a\u{4}b the\u{6} -\u{6}- i\u{4}n \u{4}\u{4} caf\u{e9}s \u{13}he\u{16}llo");
    }
    let tables = open(build(without_bytes().to_string().as_bytes()).expect("tables"));
    let tables = tables.expect("they open");
    assert_eq!(tables.encode(".\u{6}.\u{6}."), tables.encode("..."));
    assert_eq!(tables.encode("\u{6}"), [0; 0]);
}

#[test]
fn a_long_text_is_encoded_as_the_library_does() {
    let mut text = String::new();
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    for file in [
        "README.md",
        "CHANGELOG.md",
        "docs/agent.md",
        "docs/wire.md",
        "runtime/src/prompt.rs",
    ] {
        text.push_str(&std::fs::read_to_string(root.join(file)).expect("a document"));
    }
    for both in all() {
        both.check(&text);
        both.check(&text.to_uppercase());
        both.check(&"a".repeat(5000));
        both.check(&" \n".repeat(2000));
    }
}

/// Texts of what matters to a tokenizer: spaces, contractions, digits, tokens, any character.
fn texts() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        any::<char>().prop_map(String::from),
        prop::sample::select(vec![
            " ",
            "  ",
            "\n",
            "\t ",
            "'s",
            "'ll",
            "'",
            "the",
            " the",
            " in",
            "hello",
            "12",
            "٣",
            "Ⅻ",
            "½",
            "é",
            "e\u{301}",
            "日本",
            "🙂",
            "\u{a0}",
            "\u{2028}",
            "<image>",
            "<",
            "<|im_end|>",
            "<row_1_col_1>",
            "<fake_token_around_image",
            "|>",
            "_",
            "...",
        ])
        .prop_map(str::to_owned),
        "[a-zA-Z ]{1,12}",
    ];
    prop::collection::vec(part, 0..24).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn any_text_is_encoded_as_the_library_does(text in texts()) {
        all().iter().for_each(|both| both.check(&text));
    }

    #[test]
    fn damaged_tables_are_refused_or_give_tokens_of_the_vocabulary(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
        text in texts(),
    ) {
        static SOUND: LazyLock<Vec<u8>> =
            LazyLock::new(|| build(&fixture_bytes(FIXTURES[1])).expect("tables"));
        let mut bytes = SOUND.clone();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(tables) = open(bytes) {
            let limit = tables.n_tokens() as u32;
            prop_assert!(tables.encode(&text).iter().all(|id| *id < limit));
            tables.added().for_each(drop);
            (0..limit.min(1000)).for_each(|id| drop(tables.token_bytes(id).to_vec()));
        }
    }
}

#[test]
fn tables_of_another_length_or_form_are_refused() {
    let sound = build(&fixture_bytes(FIXTURES[0])).expect("tables");
    assert!(open(sound.clone()).is_ok());
    for (what, bytes) in [
        ("are too few", sound[..20].to_vec()),
        ("do not hold", sound[..sound.len() - 1].to_vec()),
        ("do not hold", [sound.as_slice(), &[0]].concat()),
        (
            "do not hold",
            [&sound[..8], &[0xff; 24], &sound[32..]].concat(),
        ),
        ("form 9", [&[9, 0, 0, 0], &sound[4..]].concat()),
    ] {
        let message = open(bytes).expect_err("not sound").to_string();
        assert!(message.contains(what), "{message}");
    }
}

#[test]
fn tables_that_would_grow_in_use_are_refused() {
    let sound = build(&fixture_bytes(FIXTURES[0])).expect("tables");
    let counts = open(sound.clone()).expect("they open").counts;
    let with = |from: usize, numbers: &[u32]| {
        let mut bytes = sound.clone();
        for (i, number) in numbers.iter().enumerate() {
            bytes[4 * (from + i)..][..4].copy_from_slice(&number.to_le_bytes());
        }
        open(bytes)
    };
    let sections = counts.sections().expect("no overflow");
    let added_at = COUNTS + sections[..5].iter().sum::<usize>();
    // Every other token has the text of all.
    let ends: Vec<u32> = (0..=counts.tokens)
        .map(|i| (i % 2 * counts.text) as u32)
        .collect();
    let one = vec![5; counts.added];
    for (what, opened) in [
        ("two tokens share their text", with(COUNTS, &ends)),
        ("added tokens are not in order", with(added_at, &one)),
    ] {
        let message = opened.expect_err(what).to_string();
        assert!(message.contains(what), "{message}");
    }
}

#[test]
fn what_the_tables_cannot_say_is_refused() {
    let refused = |change: &dyn Fn(&mut Value)| {
        let mut json = fixture(FIXTURES[0]);
        change(&mut json);
        let refusal = build(json.to_string().as_bytes()).expect_err("no tables");
        refusal.to_string()
    };
    for (reason, change) in [
        (
            "normalizer",
            &(|json: &mut Value| json["normalizer"] = json!({ "type": "NFC" }))
                as &dyn Fn(&mut Value),
        ),
        ("post-processor", &|json| {
            json["post_processor"] = json!({ "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true });
        }),
        ("decoder is Fuse", &|json| {
            json["decoder"] = json!({ "type": "Fuse" })
        }),
        ("pre-tokenizer", &|json| {
            json["pre_tokenizer"]["pretokenizers"][0]["individual_digits"] = false.into();
        }),
        ("pre-tokenizer", &|json| {
            json["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"] = true.into();
        }),
        ("byte fallback", &|json| {
            json["model"]["byte_fallback"] = true.into()
        }),
        ("matched as it is", &|json| {
            json["added_tokens"][3]["lstrip"] = true.into()
        }),
        ("\"<unk>\" for byte 6", &|json| {
            *json = without_bytes();
            json["model"]["unk_token"] = "<unk>".into();
        }),
        ("is no bytes", &|json| {
            json["model"]["vocab"]["日"] = 9999.into()
        }),
    ] {
        let message = refused(change);
        assert!(message.contains(reason), "{reason}: {message}");
    }
    assert!(build(b"{}").is_err());
}
