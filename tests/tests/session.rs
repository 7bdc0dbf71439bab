//! Conversations on a small random model: turns, limits, stops, scoring, cancellation.

use ocelli_runtime::constrain::Grammar;
use ocelli_runtime::image::Rgb8;
use ocelli_runtime::prompt::{Message, Part, Role};
use ocelli_runtime::threads::{PhaseThreads, ThreadLimit, ThreadOrigin, ThreadPlan};
use ocelli_runtime::{
    CancelFlag, FinishReason, GenerateOptions, LoadOptions, ModelSource, Precision, PromptRequest,
    RunError, Sampling, Session, Vlm,
};
use ocelli_tests::checkpoint::Checkpoint;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

fn model() -> &'static Vlm {
    static MODEL: OnceLock<Vlm> = OnceLock::new();
    MODEL.get_or_init(|| load("tiny", Precision::Int8))
}

fn load(fixture: &str, precision: Precision) -> Vlm {
    let dir = tempfile::tempdir().unwrap();
    Checkpoint::of_fixture(fixture).write(dir.path()).unwrap();
    let source = ModelSource::Path(dir.path().to_path_buf());
    let options = LoadOptions {
        threads: 2,
        precision,
        verify: true,
        ..LoadOptions::default()
    };
    Vlm::load(&source, &options, &mut |_, _| {}).unwrap()
}

fn picture(width: usize, height: usize) -> Rgb8 {
    let pixels = (0..width * height * 3)
        .map(|i| (i * 31 % 253) as u8)
        .collect();
    Rgb8::new(width, height, pixels).unwrap()
}

fn request<'a>(messages: &'a [Message], images: &'a [Rgb8]) -> PromptRequest<'a> {
    PromptRequest {
        messages,
        images,
        max_tiles: Some(0),
        answer_tokens: 8,
        keep_stages: true,
    }
}

/// Starts the session over with one question about one picture.
fn ask_picture(session: &mut Session, question: &str) -> Result<(), RunError> {
    let messages = [Message::image_and_text(question)];
    let images = [picture(64, 48)];
    session
        .prompt(&request(&messages, &images), &mut |_| {})
        .map(drop)
}

fn answer(session: &mut Session, options: GenerateOptions) -> (Vec<u32>, String, FinishReason) {
    let mut generation = session.generate(options).unwrap();
    let text = generation.rest().unwrap();
    (
        generation.tokens().to_vec(),
        text,
        generation.finish_reason().unwrap(),
    )
}

fn greedy(max_tokens: usize) -> GenerateOptions {
    GenerateOptions {
        max_tokens,
        ..GenerateOptions::default()
    }
}

#[test]
fn several_pictures_a_system_message_and_several_turns_make_one_prompt() {
    let messages = [
        Message::text(Role::System, "Be brief."),
        Message {
            role: Role::User,
            parts: vec![
                Part::Text("Compare ".into()),
                Part::Image,
                Part::Text(" and ".into()),
                Part::Image,
            ],
        },
        Message::text(Role::Assistant, "They differ."),
        Message::text(Role::User, "How?"),
    ];
    let images = [picture(40, 30), picture(17, 64)];
    let mut session = model().session().unwrap();
    let stats = session
        .prompt(&request(&messages, &images), &mut |_| {})
        .unwrap();
    assert_eq!(stats.frames, 2);
    assert_eq!(
        stats.image_tokens,
        2 * model().config().image_tokens_per_tile()
    );
    let stages = session.stages().unwrap();
    let image_id = model().config().image_token_id().expect("a vision side");
    assert_eq!(
        stages
            .input_ids
            .iter()
            .filter(|id| **id == image_id)
            .count(),
        stats.image_tokens
    );
    assert_eq!(stages.input_ids, session.ids());
    assert!(stages.logits.iter().all(|logit| logit.is_finite()));
}

#[test]
fn the_same_question_gives_the_same_answer_again() {
    let mut session = model().session().unwrap();
    let mut answers = (0..2).map(|_| {
        ask_picture(&mut session, "What is this?").unwrap();
        answer(&mut session, greedy(8))
    });
    assert_eq!(answers.next(), answers.next());
}

#[test]
fn prompt_chunks_do_not_change_the_logits() {
    // Longer than one chunk of the decoder, against a single pass over the same ids.
    let long = "a word and ".repeat(60);
    let messages = [Message::text(Role::User, long)];
    let mut session = model().session().unwrap();
    session
        .prompt(&request(&messages, &[]), &mut |_| {})
        .unwrap();
    let stages = session.stages().unwrap().clone();
    assert!(stages.input_ids.len() > 2 * ocelli_runtime::session::PREFILL_CHUNK);
    let mut token_by_token = model().session().unwrap();
    for id in &stages.input_ids {
        token_by_token.extend(&[*id]).unwrap();
    }
    let logits = token_by_token.logits().unwrap();
    let worst = logits
        .iter()
        .zip(&stages.logits)
        .map(|(a, b)| (a - b).abs())
        .fold(0f32, f32::max);
    let spread = stages.logits.iter().fold(0f32, |m, l| m.max(l.abs()));
    assert!(worst <= 1e-2 * spread, "{worst} of {spread}");
}

#[test]
fn a_prompt_that_does_not_fit_is_refused_before_any_work() {
    let limit = model().config().text.max_positions;
    let messages = [Message::text(Role::User, "word ".repeat(limit))];
    let mut session = model().session().unwrap();
    let mut progressed = false;
    let error = session
        .prompt(&request(&messages, &[]), &mut |_| progressed = true)
        .unwrap_err();
    let RunError::PromptTooLong {
        prompt,
        limit: reported,
        ..
    } = error
    else {
        panic!("expected a prompt that is too long, got {error}");
    };
    assert!(prompt > limit && reported == limit && !progressed);
    let text = error.to_string();
    assert!(
        text.contains(&limit.to_string()) && text.contains("--max-tokens"),
        "{text}"
    );
}

#[test]
fn the_answer_ends_at_the_context_and_says_so() {
    let limit = model().config().text.max_positions;
    let mut session = model().session().unwrap();
    session.extend(&vec![40; limit - 3]).unwrap();
    // Three positions are free: three decode steps, whose last gives a fourth token.
    let sampling = Sampling {
        temperature: 5.0,
        seed: 1,
        ..Sampling::default()
    };
    let options = GenerateOptions {
        max_tokens: 50,
        sampling,
        stop: Vec::new(),
    };
    let (tokens, _, finish) = answer(&mut session, options);
    assert_eq!((tokens.len(), finish), (4, FinishReason::Length));
    assert!(matches!(
        session.extend(&[1]),
        Err(RunError::ContextFull { additional: 1, .. })
    ));
}

#[test]
fn a_stop_text_ends_the_answer_in_front_of_it() {
    let mut session = model().session().unwrap();
    ask_picture(&mut session, "What is this?").unwrap();
    let (_, whole, _) = answer(&mut session, greedy(8));
    let stop: String = whole.chars().skip(3).take(2).collect();
    let expected = whole.split(&stop).next().unwrap().to_owned();
    ask_picture(&mut session, "What is this?").unwrap();
    let options = GenerateOptions {
        stop: vec![stop],
        ..greedy(8)
    };
    let (_, text, finish) = answer(&mut session, options);
    assert_eq!((text, finish), (expected, FinishReason::Stop));
}

#[test]
fn text_that_might_have_become_a_stop_text_is_given_out_at_the_end() {
    let mut session = model().session().unwrap();
    ask_picture(&mut session, "What is this?").unwrap();
    let (_, whole, _) = answer(&mut session, greedy(8));
    let last = whole.chars().next_back().unwrap();
    ask_picture(&mut session, "What is this?").unwrap();
    let options = GenerateOptions {
        stop: vec![format!("{last} and more")],
        ..greedy(8)
    };
    let (_, text, finish) = answer(&mut session, options);
    assert_eq!((text, finish), (whole, FinishReason::Length));
}

/// The head is read by one of its planes; what comes of it must be what all logits say.
#[test]
fn the_likeliest_token_is_that_of_all_logits() {
    let default = Vlm::load(
        &ModelSource::Path(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/default.ocelli").into()),
        &LoadOptions::default(),
        &mut |_, _| {},
    );
    let default = default.unwrap();
    for vlm in [&default, model(), &load("tiny", Precision::F32)] {
        let mut session = vlm.session().unwrap();
        ask_picture(&mut session, "What is this?").unwrap();
        let image_token = vlm.config().image_token_id().unwrap() as usize;
        let mut room = Vec::new();
        for step in 0..40 {
            let mut logits = session.logits().unwrap();
            logits[image_token] = f32::NEG_INFINITY;
            let best = (0..logits.len()).rev();
            let best = best.max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
            let found = session.likeliest(&mut room).unwrap();
            assert_eq!(Some(found as usize), best, "step {step}");
            session.extend(&[found]).unwrap();
        }
    }
}

/// The flag is looked at once for each question to the model, and once before its answer goes through
/// the decoder.
#[test]
fn what_a_form_leaves_no_choice_about_is_not_asked_of_the_model() {
    let schema = r#"{"type":"object","properties":{"kind_of_thing":{"type":"boolean"},"how_many_there_are":{"type":"integer","minimum":1,"maximum":9}},"required":["kind_of_thing","how_many_there_are"]}"#;
    let grammar = Grammar::json(schema).unwrap();
    let mut session = model().session().unwrap();
    ask_picture(&mut session, "What is this?").unwrap();
    let looks = Arc::new(AtomicU64::new(0));
    session.set_cancel_flag(CancelFlag::new().with_pulse(looks.clone()));
    let written = session.write(&grammar, 100).unwrap();
    let certain = written.probabilities.iter().filter(|p| **p == 1.0).count();
    let asked = 1 + looks.load(Ordering::Relaxed) as usize / 2;
    assert!(certain > 8, "{written:?}");
    assert!(asked + 8 < written.tokens.len(), "{asked}: {written:?}");
    assert!(
        asked + certain >= written.tokens.len(),
        "{asked}: {written:?}"
    );
    // What was taken unasked went through the decoder like the rest.
    let n_tokens = written.tokens.len() - 1;
    assert!(session.ids().ends_with(&written.tokens[..n_tokens]));
}

/// A repetition penalty moves logits on their way to the choice.
#[test]
fn a_penalised_greedy_answer_is_that_of_all_logits() {
    for penalty in [0.8, 1.3] {
        let options = || GenerateOptions {
            max_tokens: 24,
            sampling: Sampling {
                repetition_penalty: penalty,
                ..Sampling::default()
            },
            ..GenerateOptions::default()
        };
        let mut session = model().session().unwrap();
        ask_picture(&mut session, "What is this?").unwrap();
        let (tokens, ..) = answer(&mut session, options());
        ask_picture(&mut session, "What is this?").unwrap();
        // Probabilities ask for all logits.
        let mut whole = session.generate(options()).unwrap().with_probabilities();
        whole.rest().unwrap();
        assert_eq!(whole.tokens(), tokens, "{penalty}");
        assert!(tokens.len() > 4, "{tokens:?}");
    }
}

#[test]
fn a_raised_flag_ends_prompt_and_answer() {
    let mut session = model().session().unwrap();
    ask_picture(&mut session, "What is this?").unwrap();
    let flag = session.cancel_flag().clone();
    let mut generation = session.generate(greedy(8)).unwrap();
    assert!(generation.next_piece().unwrap().is_some());
    flag.cancel();
    let cancelled = generation.next_piece();
    assert!(matches!(cancelled, Err(RunError::Cancelled)));
    assert!(matches!(generation.next_piece(), Ok(None)));
    let error = ask_picture(&mut session, "What is this?").unwrap_err();
    assert!(matches!(error, RunError::Cancelled));
}

#[test]
fn scores_of_choices_follow_the_model_and_leave_the_prompt_as_it_was() {
    let mut session = model().session().unwrap();
    ask_picture(&mut session, "Which?").unwrap();
    let before = session.ids().to_vec();
    let choices: Vec<String> = ["yes", "no", "maybe"].map(String::from).to_vec();
    let scores = session.score(&choices).unwrap();
    let total: f64 = scores.iter().map(|s| s.probability).sum();
    assert!((total - 1.0).abs() < 1e-9);
    assert_eq!(session.ids(), before);
    assert_eq!(session.score(&choices).unwrap(), scores);

    // By hand: the first choice token by token.
    let mut by_hand = 0.0;
    ask_picture(&mut session, "Which?").unwrap();
    let ids = model().tokenizer().encode(" yes").unwrap();
    for id in ids.iter().chain([&model().generation().stop_token_ids[0]]) {
        let logits = session.logits().unwrap();
        let max = logits.iter().fold(f32::MIN, |m, l| m.max(*l));
        let sum: f64 = logits.iter().map(|l| f64::from(l - max).exp()).sum();
        by_hand += f64::from(logits[*id as usize] - max) - sum.ln();
        session.extend(&[*id]).unwrap();
    }
    assert!(
        (scores[0].log_probability - by_hand).abs() < 1e-3,
        "{by_hand} {scores:?}"
    );

    ask_picture(&mut session, "Which?").unwrap();
    let error = session
        .score(&["yes".into(), " ".into()])
        .unwrap_err()
        .to_string();
    assert!(error.contains("choice 2"), "{error}");
    let error = session
        .score(&["a <image>".into(), "b".into()])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("choice 1") && error.contains("<image>"),
        "{error}"
    );
}

#[test]
fn an_image_token_is_never_generated() {
    // Nearly even odds for every token: without the rule it comes up within these draws.
    let image_token = model().config().image_token_id().expect("a vision side");
    let mut session = model().session().unwrap();
    for seed in 0..20 {
        session.truncate(0);
        session.extend(&[40]).unwrap();
        let sampling = Sampling {
            temperature: 100.0,
            seed,
            ..Sampling::default()
        };
        let options = GenerateOptions {
            max_tokens: 200,
            sampling,
            stop: Vec::new(),
        };
        let (tokens, _, _) = answer(&mut session, options);
        assert!(!tokens.contains(&image_token));
    }
}

#[test]
fn threads_do_not_change_a_single_bit() {
    let dir = tempfile::tempdir().unwrap();
    Checkpoint::of_fixture("tiny").write(dir.path()).unwrap();
    let logits = [1, 2, 3].map(|threads| {
        let source = ModelSource::Path(dir.path().to_path_buf());
        let options = LoadOptions {
            threads,
            precision: Precision::Int8,
            ..LoadOptions::default()
        };
        let vlm = Vlm::load(&source, &options, &mut |_, _| {}).unwrap();
        let mut session = vlm.session().unwrap();
        let messages = [Message::image_and_text("What is this?")];
        session
            .prompt(&request(&messages, &[picture(100, 70)]), &mut |_| {})
            .unwrap();
        session.logits().unwrap()
    });
    assert_eq!(logits[0], logits[1]);
    assert_eq!(logits[0], logits[2]);
}

#[test]
fn threads_of_a_phase_and_a_limit_between_tokens_do_not_change_a_single_bit() {
    let dir = tempfile::tempdir().unwrap();
    Checkpoint::of_fixture("tiny").write(dir.path()).unwrap();
    let source = ModelSource::Path(dir.path().to_path_buf());
    let options = LoadOptions {
        threads: 4,
        ..LoadOptions::default()
    };
    let mut vlm = Vlm::load(&source, &options, &mut |_, _| {}).unwrap();
    let answer = |vlm: &Vlm| {
        let mut session = vlm.session().unwrap();
        let messages = [Message::image_and_text("What is this?")];
        session
            .prompt(&request(&messages, &[picture(100, 70)]), &mut |_| {})
            .unwrap();
        let mut logits = session.logits().unwrap();
        for token in [5, 6, 7] {
            session.extend(&[token]).unwrap();
            logits.extend(session.logits().unwrap());
        }
        logits
    };
    let expected = answer(&vlm);
    for [encode, prefill, decode] in [[1, 1, 1], [4, 2, 1], [1, 3, 4], [3, 1, 2]] {
        let threads = PhaseThreads {
            encode,
            prefill,
            decode,
        };
        vlm.set_thread_plan(ThreadPlan {
            threads,
            origin: ThreadOrigin::Given,
        });
        assert_eq!(vlm.thread_plan().threads, threads);
        assert_eq!(answer(&vlm), expected, "{threads:?}");
    }
    // Every question is answered with another number.
    vlm.set_thread_plan(ThreadPlan::given(4));
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let limit = ThreadLimit::new(move || count.fetch_add(1, Ordering::Relaxed) % 5);
    vlm.set_thread_limit(Some(limit));
    assert_eq!(answer(&vlm), expected);
    let frames_and_tokens = asked.swap(0, Ordering::Relaxed);
    assert!(
        frames_and_tokens >= 9,
        "it was asked {frames_and_tokens} times"
    );
    vlm.set_thread_limit(None);
    assert_eq!(answer(&vlm), expected);
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}

#[test]
fn a_trial_has_a_time_for_each_phase_and_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    Checkpoint::of_fixture("tiny").write(dir.path()).unwrap();
    let source = ModelSource::Path(dir.path().to_path_buf());
    for (precision, candidates) in [
        (Precision::Int8, &[1, 2, 3][..]),
        (Precision::Int8, &[2]),
        (Precision::F32, &[1, 2]),
    ] {
        let options = LoadOptions {
            threads: 3,
            precision,
            ..LoadOptions::default()
        };
        let vlm = Vlm::load(&source, &options, &mut |_, _| {}).unwrap();
        let trials = vlm.try_threads(candidates).unwrap();
        assert_eq!(trials.is_some(), precision == Precision::Int8);
        assert!(trials.is_none_or(|trials| trials.are_of(candidates, true)));
    }
}
