//! Whatever the model would like to say, answers follow their form and end in time.

use super::*;
use crate::error::RunError;
use proptest::prelude::*;
use serde_json::{Value, json};

/// A vocabulary of all bytes and some longer pieces: half characters, pieces of two values.
const PIECES: [&[u8]; 43] = [
    b"{\"",
    b"\":",
    b"\":\"",
    b"\",\"",
    b"\"}",
    b"},{",
    b"]}",
    b"[]",
    b"[\"",
    b"\"]",
    b",\"",
    b" {",
    b"true",
    b"false",
    b"tr",
    b"nul",
    b"null,",
    b"10",
    b"100",
    b"00",
    b"-1",
    b"0.",
    b"12.5",
    b"name",
    b"\"a\":",
    b"a\":\"b",
    b"the ",
    b" the",
    b"cat",
    b"cats",
    b"ab",
    b"\\n",
    b"\\\"",
    b"\\\\\"",
    "é".as_bytes(),
    "日本".as_bytes(),
    b"\xe6\x97",
    b"a\xc3",
    b"\xf0\x9f",
    b"\x98\x80\"",
    b"\n\n",
    b"   ",
    b"x\"}",
];

fn trie() -> TokenTrie {
    let bytes: Vec<[u8; 1]> = (0..=255).map(|byte| [byte]).collect();
    let all: Vec<&[u8]> = bytes.iter().map(|byte| &byte[..]).chain(PIECES).collect();
    TokenTrie::new((0..).zip(all))
}

const VOCABULARY: usize = 256 + PIECES.len();

/// Logits that look random; one in sixteen steps has broken ones.
fn logits(seed: u64, step: u64) -> Vec<f32> {
    let mut random = crate::random::SplitMix(seed ^ step.wrapping_mul(0x9E37_79B9));
    let broken = random.next() % 16;
    (0..VOCABULARY)
        .map(|_| match broken {
            0 => f32::NAN,
            1 => f32::NEG_INFINITY,
            _ => (random.gaussian() * 6.0) as f32,
        })
        .collect()
}

fn answer(grammar: &Grammar, budget: usize, seed: u64) -> Result<crate::Written, RunError> {
    let trie = trie();
    let mut guide = Guide::new(grammar, &trie, budget)?;
    let mut step = 0;
    loop {
        guide.take_certain(|text| encode(&trie, text, seed ^ step));
        let mut logits = logits(seed, step);
        if let Some(wanted) = guide.few_wanted() {
            let is_wanted = |id: &usize| wanted.contains(&(*id as u32));
            let others = (0..VOCABULARY).filter(|id| !is_wanted(id));
            // Whatever stands there must not matter.
            others.for_each(|id| logits[id] = 1e9);
        }
        if guide.next(&logits) == Step::End {
            return Ok(guide.finish());
        }
        step += 1;
        assert!(step <= budget as u64);
    }
}

/// Tokens of a text: the longest each time, single bytes, or anything at all.
fn encode(trie: &TokenTrie, text: &str, seed: u64) -> Vec<u32> {
    let mut random = crate::random::SplitMix(seed);
    match random.next() % 3 {
        0 => {
            let mut rest = text.as_bytes();
            let next = || {
                let (token, length) = trie.first_token(rest)?;
                rest = &rest[length..];
                Some(token)
            };
            std::iter::from_fn(next).collect()
        }
        1 => text.bytes().map(u32::from).collect(),
        _ => (0..random.next() % 9)
            .map(|_| (random.next() % (VOCABULARY as u64 + 3)) as u32)
            .collect(),
    }
}

/// The smallest budget.
fn least(grammar: &Grammar) -> usize {
    match Guide::new(grammar, &trie(), 0) {
        Err(RunError::AnswerBudget { needed, .. }) => needed,
        other => panic!("{other:?}"),
    }
}

fn bound() -> impl Strategy<Value = (i64, i64)> {
    (-2000i64..2000, 0i64..3000).prop_map(|(low, width)| (low, low + width))
}

fn leaf() -> impl Strategy<Value = Value> {
    let text = (0u32..12).prop_map(|most| json!({"type": "string", "maxLength": most}));
    let texts = proptest::collection::btree_set("[a-c\"é ]{0,4}", 1..5)
        .prop_map(|texts| json!({"type": "string", "enum": texts}));
    let whole =
        bound().prop_map(|(low, high)| json!({"type": "integer", "minimum": low, "maximum": high}));
    let number = bound().prop_map(
        |(low, high)| json!({"type": "number", "minimum": low as f64 / 8.0, "maximum": high as f64 / 8.0}),
    );
    let or_null = Just(json!({"type": ["integer", "null"], "minimum": 3, "maximum": 40}));
    prop_oneof![
        text,
        texts,
        whole,
        number,
        or_null,
        Just(json!({"type": "boolean"}))
    ]
}

fn schema() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(3, 24, 5, |inner| {
        let array = (inner.clone(), 0u32..5)
            .prop_map(|(items, most)| json!({"type": "array", "items": items, "maxItems": most}));
        let object = proptest::collection::btree_map("[a-d]{1,3}", (inner, any::<bool>()), 1..6)
            .prop_map(|properties| {
                let required: Vec<&String> = properties
                    .iter()
                    .filter(|(_, (_, required))| *required)
                    .map(|(name, _)| name)
                    .collect();
                let required = json!(required);
                let properties: serde_json::Map<String, Value> = properties
                    .iter()
                    .map(|(name, (schema, _))| (name.clone(), schema.clone()))
                    .collect();
                json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
            });
        prop_oneof![array, object]
    })
}

proptest! {
    #[test]
    fn any_document_follows_its_schema_within_its_tokens(
        schema in schema(), seed in any::<u64>(), more in prop_oneof![0usize..6, 0usize..120],
    ) {
        let grammar = Grammar::json(&schema.to_string()).unwrap();
        let budget = least(&grammar) + more;
        let written = answer(&grammar, budget, seed).unwrap();
        prop_assert!(written.tokens.len() <= budget);
        let value: Value = serde_json::from_str(&written.text)
            .map_err(|error| TestCaseError::fail(format!("{error}: {}", written.text)))?;
        let validator = jsonschema::validator_for(&schema).unwrap();
        prop_assert!(validator.is_valid(&value), "{} against {}", written.text, schema);
        for field in &written.fields {
            prop_assert!(serde_json::from_str::<Value>(&field.text).is_ok(), "{field:?}");
            prop_assert!((0.0..=1.0).contains(&field.probability), "{field:?}");
        }
    }

    #[test]
    fn any_whole_number_is_in_its_range((low, high) in bound(), seed in any::<u64>(), more in 0usize..8) {
        let grammar = Grammar::integer(low, high).unwrap();
        let budget = least(&grammar) + more;
        let written = answer(&grammar, budget, seed).unwrap();
        let number: i64 = written.text.parse().unwrap();
        prop_assert!((low..=high).contains(&number));
        prop_assert_eq!(number.to_string(), written.text);
        prop_assert!(written.tokens.len() <= budget);
    }

    #[test]
    fn any_choice_is_one_of_the_texts(
        texts in proptest::collection::btree_set("[ab日 ]{0,3}[ab]", 1..8), seed in any::<u64>(), more in 0usize..8,
    ) {
        let texts: std::collections::BTreeSet<String> = texts.iter().map(|text| text.trim().to_owned()).collect();
        let texts: Vec<String> = texts.into_iter().collect();
        let grammar = Grammar::one_of(&texts).unwrap();
        let written = answer(&grammar, least(&grammar) + more, seed).unwrap();
        prop_assert!(texts.contains(&written.text), "{written:?}");
    }

    #[test]
    fn the_masks_of_all_steps_agree_with_the_grammar(schema in schema(), seed in any::<u64>()) {
        // What the memory of masks gives is what asking anew gives.
        let grammar = Grammar::json(&schema.to_string()).unwrap();
        let trie = trie();
        let budget = least(&grammar) + 40;
        let mut guide = Guide::new(&grammar, &trie, budget).unwrap();
        let mut state = grammar.start();
        for step in 0..40 {
            let allowed = guide.allowed();
            for token in 0..VOCABULARY as u32 {
                let end = trie.bytes_of(token).iter().try_fold(state, |state, byte| grammar.step(&state, *byte));
                if allowed.contains(&token) {
                    prop_assert!(end.is_some());
                }
                // In bytes the way out is never shorter than in tokens.
                let in_time = |end| grammar.way_out(&end).len() < budget - step as usize;
                if !trie.bytes_of(token).is_empty() && end.is_some_and(in_time) {
                    prop_assert!(allowed.contains(&token));
                }
            }
            match guide.next(&logits(seed, step)) {
                Step::Token(token) => {
                    for byte in trie.bytes_of(token) {
                        state = grammar.step(&state, *byte).unwrap();
                    }
                }
                Step::End => break,
            }
        }
    }
}

#[test]
fn properties_come_in_the_order_they_are_written_in_and_fields_have_paths() {
    let schema = r#"{"type": "object", "title": "note", "properties": {
        "z": {"type": "integer", "minimum": 1, "maximum": 9},
        "a": {"type": "array", "maxItems": 3, "items": {"type": "object", "properties": {"n": {"type": "boolean"}}, "required": ["n"]}},
        "m": {"type": "string", "enum": ["x y", "q\"r"]}
    }, "required": ["z", "a", "m"]}"#;
    let grammar = Grammar::json(schema).unwrap();
    let take = |text: &str| {
        let end = text
            .bytes()
            .try_fold(grammar.start(), |state, byte| grammar.step(&state, byte));
        end.is_some_and(|state| grammar.may_end(&state))
    };
    for text in [
        r#"{"z":3,"a":[],"m":"x y"}"#,
        r#" {"z":3,"a":[{"n":true},{"n":false}],"m":"q\"r"}"#,
    ] {
        assert!(take(text), "{text}");
    }
    for text in [
        r#"{"a":[],"z":3,"m":"x y"}"#,
        r#"{"z":3,"a":[],"m":"x"}"#,
        r#"{"z": 3,"a":[],"m":"x y"}"#,
        r#"{"z":3,"a":[]}"#,
        r#"{"z":3,"a":[{"n":true},{"n":true},{"n":true},{"n":true}],"m":"x y"}"#,
        r#"{"z":3,"a":[{"n":true},],"m":"x y"}"#,
        r#"{"z":3,"a":[{}],"m":"x y"}"#,
        r#"  {"z":3,"a":[],"m":"x y"}"#,
    ] {
        assert!(!take(text), "{text}");
    }
    let paths = (0..200).find_map(|seed| {
        let written = answer(&grammar, 120, seed).unwrap();
        let paths: Vec<String> = written
            .fields
            .iter()
            .map(|field| field.path.clone())
            .collect();
        (paths.len() > 3).then_some(paths)
    });
    assert_eq!(paths.unwrap()[..3], ["z", "a[].n", "a[].n"]);
}

#[test]
fn a_string_is_valid_utf8_without_control_characters() {
    let grammar = Grammar::json(r#"{"type": "string", "maxLength": 3}"#).unwrap();
    let ends = |text: &[u8]| {
        let end = text
            .iter()
            .try_fold(grammar.start(), |state, byte| grammar.step(&state, *byte));
        end.is_some_and(|state| grammar.may_end(&state))
    };
    for text in ["\"\"", "\"abc\"", "\"日本語\"", "\"\\n\\\"\\\\\"", "\"😀\""] {
        assert!(ends(text.as_bytes()), "{text}");
    }
    let wrong: [&[u8]; 8] = [
        b"\"abcd\"",
        b"\"a\nb\"",
        b"\"\xc3\"",
        b"\"\xc0\x80\"",
        b"\"\xed\xa0\x80\"",
        b"\"\xf4\x90\x80\x80\"",
        b"\"\\u0041\"",
        b"\"\x7f\"",
    ];
    for text in wrong {
        assert!(!ends(text), "{text:?}");
    }
}

#[test]
fn what_a_model_says_instead_of_going_on_counts_for_the_end() {
    // "1" could become "10"; the model would rather say "." than either "0" or a stop token.
    let grammar = Grammar::integer(0, 20).unwrap();
    let trie = trie();
    let mut guide = Guide::new(&grammar, &trie, 4).unwrap();
    let mut logits = vec![0.0; VOCABULARY];
    logits[usize::from(b'1')] = 20.0;
    assert_eq!(guide.next(&logits), Step::Token(u32::from(b'1')));
    logits[usize::from(b'1')] = 0.0;
    logits[usize::from(b'0')] = 8.0;
    logits[usize::from(b'.')] = 9.0;
    assert_eq!(guide.next(&logits), Step::End);
    let written = guide.finish();
    assert_eq!(written.text, "1");
    // Less than it would be without the "0" that was nearly as likely.
    assert!((0.6..0.8).contains(&written.probability()), "{written:?}");
}

#[test]
fn text_without_an_alternative_is_taken_but_for_its_last_token_and_fields() {
    let grammar = Grammar::json(
        r#"{"type":"object","properties":{"name":{"type":"string","enum":["cat","cab"]},"at":{"type":"integer","minimum":10,"maximum":19}},"required":["name","at"]}"#,
    )
    .unwrap();
    let trie = trie();
    let bytes = |text: &str| -> Vec<u32> { text.bytes().map(u32::from).collect() };
    let mut guide = Guide::new(&grammar, &trie, 60).unwrap();
    // A space may come first.
    assert!(guide.take_certain(bytes).is_empty());
    let favourite = |guide: &mut Guide<'_>, byte: u8| {
        let mut logits = vec![0.0; VOCABULARY];
        logits[usize::from(byte)] = 9.0;
        assert_eq!(guide.next(&logits), Step::Token(u32::from(byte)));
    };
    favourite(&mut guide, b'{');
    // The quote of the value is its field's already, the colon before it the last token.
    assert_eq!(guide.take_certain(bytes), bytes(r#""name""#));
    favourite(&mut guide, b':');
    assert!(guide.take_certain(bytes).is_empty());
    for byte in *b"\"cab\"" {
        favourite(&mut guide, byte);
    }
    assert_eq!(guide.take_certain(bytes), bytes(r#","at""#));
    favourite(&mut guide, b':');
    // The first digit of a number is part of it, however certain.
    assert!(guide.take_certain(bytes).is_empty());
    for byte in *b"15}" {
        favourite(&mut guide, byte);
    }
    assert!(guide.take_certain(bytes).is_empty());
    let written = guide.finish();
    assert_eq!(written.text, r#"{"name":"cab","at":15}"#);
    assert_eq!(written.tokens.len(), written.probabilities.len());
    assert_eq!(written.probabilities[1..7], [1.0; 6]);
}

#[test]
fn too_few_tokens_are_refused_before_the_begin() {
    let grammar = Grammar::json(
        r#"{"type":"object","properties":{"name":{"type":"string"}},"required":["name"]}"#,
    )
    .unwrap();
    let needed = least(&grammar);
    assert!(answer(&grammar, needed, 1).is_ok());
    let error = answer(&grammar, needed - 1, 1).unwrap_err().to_string();
    assert!(error.contains(&needed.to_string()), "{error}");
    let letters = TokenTrie::new((0..).zip([&b"a"[..], b"b"]));
    let error = Guide::new(&grammar, &letters, 99).unwrap_err().to_string();
    assert!(error.contains("name"), "{error}");
}

#[test]
fn mistakes_in_a_schema_are_named_with_their_place() {
    let deep = (0..MAX_DEPTH).fold(r#"{"type":"boolean"}"#.to_owned(), |inner, _| {
        format!(r#"{{"type":"array","items":{inner}}}"#)
    });
    for (schema, words) in [
        (r#"{"type": "object""#, &["no JSON"][..]),
        (r#"[]"#, &["the top", "a list of 0"]),
        (r#"{}"#, &["the top", "no type"]),
        (r#"{"type":"strnig"}"#, &["type", "strnig"]),
        (r#"{"type":["object","null"]}"#, &["type", "a list of 2"]),
        (
            r#"{"type":"string","pattern":"a+"}"#,
            &["the top", "pattern", "maxLength"],
        ),
        (
            r#"{"type":"object","properties":{"a":{"type":"integer","multipleOf":2}}}"#,
            &["properties.a", "multipleOf"],
        ),
        (
            r#"{"type":"object","properties":{"a":{"type":"array","items":{"type":"text"}}}}"#,
            &["properties.a.items.type", "text"],
        ),
        (
            r#"{"type":"object","properties":{"a":{"type":"boolean"}},"required":["b"]}"#,
            &["required", "\"b\""],
        ),
        (
            r#"{"type":"object","properties":{"a":{"type":"boolean"},"a":{"type":"boolean"}}}"#,
            &["twice"],
        ),
        (r#"{"type":"object"}"#, &["the top", "properties"]),
        (r#"{"type":"array"}"#, &["the top", "items"]),
        (
            r#"{"type":"array","items":{"type":"boolean"},"maxItems":-1}"#,
            &["maxItems", "-1"],
        ),
        (
            r#"{"type":"string","enum":["a","a"]}"#,
            &["enum", "different"],
        ),
        (
            r#"{"type":"string","enum":["a"],"maxLength":3}"#,
            &["maxLength", "enum"],
        ),
        (
            r#"{"type":"integer","minimum":5,"maximum":4}"#,
            &["the top", "5", "4"],
        ),
        (
            r#"{"type":"integer","minimum":1e12}"#,
            &["minimum", "1000000000000"],
        ),
        (deep.as_str(), &["inside each other", "8"]),
    ] {
        let error = Grammar::json(schema).unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "{schema}: {error}");
        }
    }
    assert!(Grammar::one_of(&["a", "a "]).is_err());
    assert!(Grammar::one_of::<&str>(&[]).is_err());
    assert!(Grammar::one_of(&["x".repeat(MAX_TEXT + 1)]).is_err());
}
