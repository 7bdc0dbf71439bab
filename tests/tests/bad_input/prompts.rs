//! Prompts that do not fit.

use ocelli_runtime::image::Rgb8;
use ocelli_runtime::prompt::{Message, Part, Role};
use ocelli_runtime::{Precision, PromptRequest, RunError, Session, Vlm};

use crate::ruin::{load, sound_directory};

/// Positions of the `tiny` checkpoint.
const CONTEXT: usize = 512;

fn model(precision: Precision) -> Vlm {
    load(sound_directory().path(), precision).expect("the sound directory loads")
}

fn ask(
    session: &mut Session,
    messages: &[Message],
    images: &[Rgb8],
    answer_tokens: usize,
) -> Result<(), RunError> {
    let request = PromptRequest {
        messages,
        images,
        max_tiles: None,
        answer_tokens,
        keep_stages: false,
    };
    session
        .prompt(&request, &mut |_| {
            panic!("work began before the prompt was checked")
        })
        .map(drop)
}

fn picture(width: usize, height: usize) -> Rgb8 {
    Rgb8::new(width, height, vec![90; width * height * 3]).expect("a picture")
}

#[test]
fn a_prompt_longer_than_the_context_is_refused_before_work() {
    for precision in [Precision::Int8, Precision::F32] {
        let model = model(precision);
        let mut session = model.session().expect("a session starts");
        let long = [Message::text(Role::User, "x ".repeat(CONTEXT))];
        let error = ask(&mut session, &long, &[], 1)
            .expect_err("it is too long")
            .to_string();
        assert!(
            error.contains("512") && error.contains("context"),
            "{error}"
        );

        let short = [Message::text(Role::User, "x")];
        for answer in [CONTEXT, usize::MAX] {
            let error = ask(&mut session, &short, &[], answer).expect_err("no room for the answer");
            assert!(error.to_string().contains("512"), "{error}");
        }

        let images: Vec<Rgb8> = (0..8).map(|_| picture(256, 256)).collect();
        let parts = vec![Part::Image; 8];
        let many = [Message {
            role: Role::User,
            parts,
        }];
        let error = ask(&mut session, &many, &images, 1).expect_err("8 x 17 frames are too many");
        let text = error.to_string();
        assert!(
            text.contains("512") && text.contains("544"),
            "the image tokens are counted: {text}"
        );
        assert_eq!(session.ids(), [0u32; 0], "nothing was run");
    }
}

#[test]
fn pictures_and_placeholders_must_match() {
    let model = model(Precision::Int8);
    let mut session = model.session().expect("a session starts");
    let with = [Message::image_and_text("x")];
    let without = [Message::text(Role::User, "x")];
    assert!(ask(&mut session, &with, &[], 1).is_err());
    assert!(ask(&mut session, &without, &[picture(64, 64)], 1).is_err());
    assert!(ask(&mut session, &[], &[], 1).is_err());
    let empty = [Message {
        role: Role::User,
        parts: Vec::new(),
    }];
    assert!(ask(&mut session, &empty, &[], 1).is_err());
}

/// A text cannot smuggle in an image placeholder or the end of a turn.
#[test]
fn special_tokens_in_a_text_are_refused() {
    let model = model(Precision::Int8);
    let mut session = model.session().expect("a session starts");
    for token in [
        "<image>",
        "<end_of_utterance>",
        "<fake_token_around_image>",
        "<|im_start|>",
    ] {
        let messages = [Message::text(Role::User, format!("a {token} b"))];
        let error = ask(&mut session, &messages, &[], 1)
            .expect_err("a special token")
            .to_string();
        assert!(error.contains(token), "{error}");
    }
}

#[test]
fn ids_and_rows_that_do_not_fit_are_errors() {
    for precision in [Precision::Int8, Precision::F32] {
        let model = model(precision);
        let mut session = model.session().expect("a session starts");
        let frame = || vec![90; 64 * 64 * 3];
        let image = 398;
        assert!(
            session.prompt_ids(&[400], &[]).is_err(),
            "{precision:?}: a token beyond the vocabulary"
        );
        assert!(
            session.prompt_ids(&[u32::MAX], &[]).is_err(),
            "{precision:?}: the largest id"
        );
        assert!(
            session.prompt_ids(&[1, image], &[]).is_err(),
            "{precision:?}: no features"
        );
        assert!(
            session.prompt_ids(&[1, image, 5], &[frame()]).is_err(),
            "{precision:?}: 4 features for 1 token"
        );
        assert!(
            session.prompt_ids(&[1; CONTEXT + 1], &[]).is_err(),
            "{precision:?}: over the context"
        );
        assert!(
            session.prompt_ids(&[], &[]).is_err(),
            "{precision:?}: no tokens, no logits"
        );
        session
            .prompt_ids(&[1, 5], &[])
            .expect("the session still works");
    }
}

/// A full context ends the answer; it is no error.
#[test]
fn an_answer_ends_where_the_context_ends() {
    for precision in [Precision::Int8, Precision::F32] {
        let model = model(precision);
        let mut session = model.session().expect("a session starts");
        session
            .prompt_ids(&[5; CONTEXT - 3], &[])
            .expect("the prompt fits");
        let mut generation = session
            .generate(Default::default())
            .expect("greedy settings are in range");
        generation.rest().expect("no error at the end");
        let n_tokens = generation.tokens().len();
        assert!(
            n_tokens <= 4,
            "{precision:?}: {n_tokens} tokens in 3 free positions"
        );
    }
}
