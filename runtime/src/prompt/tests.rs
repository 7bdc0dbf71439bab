//! Tests of prompt building.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::*;
use crate::config::ModelFiles;
use crate::config::tests::{cases, fixture, number, numbers, reference, reference_json};
use crate::tokenizer::tests::small;

/// The tokenizer of a published model, if the reference files are there.
pub(crate) fn published(model: &str) -> Option<Tokenizer> {
    let dir = reference("SmolVLM-256M-Instruct", 1)?;
    let files = ModelFiles::read(&dir).expect("the published files");
    let (mut config, mut generation) = (files.config, files.generation);
    let json = match model {
        "SmolVLM-Instruct" => {
            config.text.vocab_size = 49_155;
            let vision = config.vision.as_mut().expect("a vision side");
            vision.image_token_id = 49_153;
            generation.stop_token_ids = vec![49_154];
            let path = reference("SmolVLM-Instruct/tokenizer.RECONSTRUCTED.json", 1)?;
            std::fs::read(path).expect("a readable reference file")
        }
        _ => files.tokenizer_json,
    };
    Some(Tokenizer::from_bytes(&json, &config, &generation).expect("a good tokenizer"))
}

fn template() -> ChatTemplate {
    let json = fixture("chat_template.json");
    ChatTemplate::new(json["chat_template"].as_str().expect("a text")).expect("a good template")
}

fn messages(json: &Value) -> Vec<Message> {
    let part = |part: &Value| match part["type"].as_str() {
        Some("image") => Part::Image,
        _ => Part::Text(part["text"].as_str().expect("a text").to_owned()),
    };
    let message = |message: &Value| Message {
        role: serde_json::from_value(message["role"].clone()).expect("a role"),
        parts: cases(&message["content"]).iter().map(part).collect(),
    };
    cases(json).iter().map(message).collect()
}

fn layouts(json: &Value) -> Vec<TileLayout> {
    let layout = |pair: &Value| TileLayout {
        rows: number(&pair[0]),
        cols: number(&pair[1]),
    };
    cases(json).iter().map(layout).collect()
}

fn sha256(text: &str) -> String {
    Sha256::digest(text)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn user(parts: &[&str]) -> Message {
    let part = |text: &&str| match *text {
        "@" => Part::Image,
        text => Part::Text(text.to_owned()),
    };
    Message {
        role: Role::User,
        parts: parts.iter().map(part).collect(),
    }
}

#[test]
fn prompts_equal_the_published_processor() {
    for name in ["tokenizer.json", "tokenizer_v1.json"] {
        let tokenizer = small(name);
        let fixture = fixture(&format!("prompts_{name}"));
        let image_seq_len = number(&fixture["image_seq_len"]);
        let cases = cases(&fixture["prompts"]);
        let mut failures = Vec::new();
        for case in cases {
            let (messages, layouts) = (messages(&case["messages"]), layouts(&case["layouts"]));
            let prompt = build_prompt(&template(), &tokenizer, &messages, &layouts, image_seq_len);
            let prompt = prompt.unwrap_or_else(|e| panic!("{name} {}: {e}", case["name"]));
            let chat = template().render(&messages).expect("renders");
            let image = tokenizer.token_id(IMAGE_TOKEN).expect("a token");
            let n_image_tokens = prompt.ids.iter().filter(|&&id| id == image).count();
            if chat != case["chat"]
                || sha256(&prompt.text) != case["text_sha256"]
                || prompt.ids != numbers::<u32>(&case["ids"])
                || prompt.n_image_tokens != n_image_tokens
            {
                failures.push(format!("{name} {}: {:?}", case["name"], prompt.text));
            }
        }
        assert!(
            failures.is_empty(),
            "{} differ: {:#?}",
            failures.len(),
            failures
        );
        assert_eq!(cases.len(), 28);
    }
}

#[test]
fn blocks_of_a_split_picture_are_written_row_by_row() {
    let layouts = [TileLayout { rows: 2, cols: 1 }, TileLayout::GLOBAL_ONLY];
    let messages = [user(&["@", "@", "Which?"])];
    let prompt = build_prompt(
        &template(),
        &small("tokenizer.json"),
        &messages,
        &layouts,
        2,
    );
    let prompt = prompt.expect("a good conversation");
    assert_eq!(
        prompt.text,
        "<|im_start|>User:\
         <fake_token_around_image><row_1_col_1><image><image>\n\
         <fake_token_around_image><row_2_col_1><image><image>\n\
         \n<fake_token_around_image><global-img><image><image><fake_token_around_image>\
         <fake_token_around_image><global-img><image><image><fake_token_around_image>\
         Which?<end_of_utterance>\nAssistant:"
    );
    assert_eq!(prompt.n_image_tokens, 8);
}

#[test]
fn a_longer_conversation_begins_with_the_shorter_one() {
    for name in ["tokenizer.json", "tokenizer_v1.json"] {
        let tokenizer = small(name);
        let fixture = fixture(&format!("prompts_{name}"));
        let prompts = cases(&fixture["prompts"]);
        let mut seen = 0;
        for split in [true, false] {
            let prompt = |turns: &str| {
                let mut named = prompts.iter().filter(|case| case["name"] == turns);
                let case = named
                    .find(|case| case["do_image_splitting"] == split)
                    .expect("a case");
                let (messages, layouts) = (messages(&case["messages"]), layouts(&case["layouts"]));
                build_prompt(&template(), &tokenizer, &messages, &layouts, 4).expect("a prompt")
            };
            for (shorter, longer) in [("turns_1", "turns_2"), ("turns_2", "turns_3")] {
                let (shorter, longer) = (prompt(shorter), prompt(longer));
                assert_eq!(longer.shared_prefix(&shorter.ids), shorter.ids.len());
                assert!(longer.text.starts_with(&shorter.text));
                seen += 1;
            }
        }
        assert_eq!(seen, 4);
    }
    let prompt = Prompt {
        ids: vec![1, 2, 3],
        n_image_tokens: 0,
        text: String::new(),
    };
    assert_eq!(prompt.shared_prefix(&[1, 2, 4, 3]), 2);
    assert_eq!(prompt.shared_prefix(&[]), 0);
    assert_eq!(prompt.shared_prefix(&[1, 2, 3, 4]), 3);
}

/// Answers that begin in awkward ways must not merge with the colon before them.
#[test]
fn no_answer_changes_the_ids_before_it() {
    let mut tokenizers = vec![small("tokenizer.json"), small("tokenizer_v1.json")];
    tokenizers.extend(published("256M"));
    for tokenizer in tokenizers {
        let question = user(&["@", "Is it open?"]);
        let layouts = [TileLayout::GLOBAL_ONLY];
        let ask = |messages: &[Message]| {
            build_prompt(&template(), &tokenizer, messages, &layouts, 4)
                .expect("a prompt")
                .ids
        };
        let before = ask(std::slice::from_ref(&question));
        for answer in [
            "Yes.", " yes", "", "  ", ":", ": :", "\n", "\n\n", "'s", "9", "<", "é", "(",
        ] {
            let answer = Message::text(Role::Assistant, answer);
            let ids = ask(&[question.clone(), answer.clone(), user(&["Why?"])]);
            assert!(ids.starts_with(&before), "{answer:?}");
        }
    }
}

#[test]
fn special_tokens_in_texts_are_refused() {
    let tokenizer = small("tokenizer.json");
    let build = |messages: &[Message], n_pictures: usize| {
        let layouts = vec![TileLayout::GLOBAL_ONLY; n_pictures];
        build_prompt(&template(), &tokenizer, messages, &layouts, 4)
    };
    for token in [
        "<image>",
        "<fake_token_around_image>",
        "<end_of_utterance>",
        "<|im_start|>",
        "<|im_end|>",
        "<|endoftext|>",
        "<global-img>",
        "<row_1_col_1>",
        "<filename>",
    ] {
        let text = format!("see{token}this");
        let error = build(&[user(&["@", "fine"]), user(&[&text])], 1).expect_err("an injection");
        assert_eq!(
            error.to_string(),
            format!(
                "the text of message 1 contains {token:?}, which is a special token of this \
                 model; remove it or write it differently"
            )
        );
    }
    // Harmless parts must not make a token together.
    for parts in [
        &["<ima", "ge>"][..],
        &["<", "image", ">"],
        &["@", "<end_of_", "utterance>"],
    ] {
        let n_pictures = parts.iter().filter(|part| **part == "@").count();
        let error = build(&[user(parts)], n_pictures).expect_err("an injection");
        assert!(
            matches!(error, PromptError::SpelledSpecialToken),
            "{parts:?}: {error}"
        );
    }
    // What only looks like one is text.
    for text in [
        "<imag e>",
        "&lt;image&gt;",
        "<row_7_col_1>",
        "{{ '<ima' }}",
        "<",
        "<image",
    ] {
        let prompt = build(&[user(&["@", text])], 1).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert!(prompt.text.contains(text));
    }
    // The first 2.2B model knows no rows and columns: there this is text.
    let first = small("tokenizer_v1.json");
    let rows = [user(&["<row_1_col_1>"])];
    assert!(build_prompt(&template(), &first, &rows, &[], 4).is_ok());
}

#[test]
fn a_template_that_trims_cannot_be_used_to_spell_a_token() {
    let trimming = ChatTemplate::new(
        "{% for m in messages %}{% for p in m.content %}{{ p.text | trim }}{% endfor %}{% endfor %}",
    );
    let messages = [user(&["<image ", " >"])];
    let tokenizer = small("tokenizer.json");
    let error = build_prompt(&trimming.expect("parses"), &tokenizer, &messages, &[], 4);
    assert!(
        matches!(error, Err(PromptError::SpelledSpecialToken)),
        "{error:?}"
    );
}

#[test]
fn pictures_and_places_must_match() {
    let tokenizer = small("tokenizer.json");
    let one = TileLayout::GLOBAL_ONLY;
    let build = |messages: &[Message], layouts: &[TileLayout]| {
        build_prompt(&template(), &tokenizer, messages, layouts, 4).expect_err("a mismatch")
    };
    let error = build(&[user(&["@", "What?"])], &[]);
    assert_eq!(
        error.to_string(),
        "the messages have 1 image parts for 0 pictures; give one picture for each"
    );
    assert!(matches!(
        build(&[user(&["What?"])], &[one]),
        PromptError::PictureCount {
            parts: 0,
            pictures: 1
        }
    ));
    assert!(matches!(build(&[], &[]), PromptError::NoMessages));
    let empty = Message {
        role: Role::User,
        parts: vec![],
    };
    assert!(matches!(
        build(&[user(&["a"]), empty], &[]),
        PromptError::EmptyMessage { message: 1 }
    ));

    let forgetful = ChatTemplate::new("no pictures here").expect("parses");
    let error = build_prompt(&forgetful, &tokenizer, &[user(&["@"])], &[one], 4);
    assert!(matches!(
        error,
        Err(PromptError::Placeholders {
            found: 0,
            expected: 1
        })
    ));
}

#[test]
fn template_errors_are_named() {
    let error = ChatTemplate::new("{% for m in %}")
        .expect_err("a syntax error")
        .to_string();
    assert!(
        error.starts_with("the chat template cannot be used: syntax error"),
        "{error}"
    );
    assert!(error.contains("chat template:1"), "{error}");

    let tokenizer = small("tokenizer.json");
    for (source, reason) in [
        ("{{ bos_token }}", "undefined"),
        (
            "{{ raise_exception('roles must alternate') }}",
            "roles must alternate",
        ),
        (
            "{{ messages[0].content | no_such_filter }}",
            "no_such_filter",
        ),
        ("{{ messages[0]['content'][5]['type'] }}", "undefined"),
    ] {
        let error = ChatTemplate::new(source)
            .and_then(|template| build_prompt(&template, &tokenizer, &[user(&["a"])], &[], 4));
        let error = error.expect_err("a failing template").to_string();
        assert!(
            error.contains(reason) && error.contains("chat template"),
            "{source}: {error}"
        );
    }
    let tolerant = ChatTemplate::new(
        "{% if tools %}tools{% endif %}{% if messages[0].name is defined %}name{% endif %}ok\n",
    );
    let prompt = build_prompt(
        &tolerant.expect("parses"),
        &tokenizer,
        &[user(&["a"])],
        &[],
        4,
    );
    assert_eq!(prompt.expect("optional variables may be absent").text, "ok");
}

#[test]
fn prompts_equal_the_golden_reference() {
    let files = [
        (
            "golden/golden_preprocess_smolvlm_256m_500m.json",
            "input_ids",
            "256M",
            64,
        ),
        (
            "golden/golden_preprocess_smolvlm_2.2b.json",
            "input_ids SmolVLM-Instruct",
            "SmolVLM-Instruct",
            81,
        ),
        (
            "golden/golden_preprocess_smolvlm_2.2b.json",
            "input_ids SmolVLM2-2.2B-Instruct",
            "SmolVLM2-2.2B-Instruct",
            81,
        ),
    ];
    for (name, ids, model, image_seq_len) in files {
        let Some(golden) = reference_json(name, 12) else {
            continue;
        };
        let Some(dir) = reference("SmolVLM-256M-Instruct", 12) else {
            continue;
        };
        let Some(tokenizer) = published(model) else {
            continue;
        };
        let source = ModelFiles::read(&dir)
            .expect("the published files")
            .chat_template;
        let template = ChatTemplate::new(source).expect("a good template");
        let messages = [Message::image_and_text("Can you describe this image?")];
        let cases = cases(&golden["cases"]);
        for case in cases {
            let layout = TileLayout {
                rows: number(&case["rows"]),
                cols: number(&case["cols"]),
            };
            let prompt = build_prompt(&template, &tokenizer, &messages, &[layout], image_seq_len);
            let prompt = prompt.expect("a good conversation");
            let name = format!("{model} {}", case["name"]);
            assert_eq!(case["full_prompt"], prompt.text.as_str(), "{name}");
            assert_eq!(prompt.ids, numbers::<u32>(&case[ids]), "{name}");
            if let Some(chat) = case["chat_prompt"].as_str() {
                assert_eq!(template.render(&messages).expect("renders"), chat, "{name}");
            }
            assert_eq!(
                prompt.n_image_tokens,
                layout.n_frames() * image_seq_len,
                "{name}"
            );
        }
        assert_eq!(cases.len(), 12);
    }
}

/// Templates come out of model files.
#[test]
fn templates_without_end_are_refused() {
    let many = "{% for a in range(100000) %}{% for b in range(100000) %}";
    for (what, source) in [
        ("steps", format!("{many}{{% endfor %}}{{% endfor %}}")),
        (
            "text",
            "{% for a in range(100) %}{{ 'x' * 1000000 }}{% endfor %}".to_owned(),
        ),
    ] {
        let template = ChatTemplate::new(source).expect("it parses");
        let error = template
            .render(&[Message::text(Role::User, "a")])
            .unwrap_err();
        assert!(
            matches!(error, PromptError::EndlessTemplate { .. }),
            "{what}: {error}"
        );
        assert!(error.to_string().contains("has not ended"), "{error}");
    }
}

#[test]
fn a_long_conversation_is_within_the_steps_of_its_template() {
    let messages: Vec<_> = (0..2000)
        .map(|_| Message::text(Role::User, "x".repeat(1000)))
        .collect();
    let text = template().render(&messages).expect("a good template");
    assert!(text.len() > 2_000_000);
}
