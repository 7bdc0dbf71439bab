//! The model as part of the agent: shared work on a picture, forms of answers, stages.

use ocelli_agent::entry::AnswerForm;
use ocelli_agent::mind::{
    Conclusion, Failure, Job, Judgement, Mind, MindSettings, Thinker, Thought,
};
use ocelli_agent::model;
use ocelli_reflex::QuestionId;
use ocelli_reflex::observation::{Stage, Value};
use ocelli_runtime::config::ModelFiles;
use ocelli_runtime::image::Rgb8;
use ocelli_runtime::import::safetensors;
use ocelli_runtime::packer::{self, PackOptions};
use ocelli_runtime::prompt::Message;
use ocelli_runtime::{
    GenerateOptions, Grammar, LoadOptions, ModelSource, PictureRequest, Precision, PromptRequest,
    RunError, Session, Vlm,
};
use ocelli_tests::checkpoint::Checkpoint;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

const QUESTIONS: [&str; 3] = [
    "Is there a dog?",
    "How many trees are there?",
    "What do you see?",
];

fn load(source: &ModelSource) -> Arc<Vlm> {
    let options = LoadOptions {
        threads: 2,
        precision: Precision::Int8,
        ..LoadOptions::default()
    };
    Arc::new(Vlm::load(source, &options, &mut |_, _| {}).unwrap())
}

/// The embedded model.
fn default_model() -> Arc<Vlm> {
    static MODEL: OnceLock<Arc<Vlm>> = OnceLock::new();
    let make = || load(&model::resolve(model::DEFAULT).unwrap());
    MODEL.get_or_init(make).clone()
}

/// A small random model that splits pictures; `change` may change its files first.
fn tiny(change: impl FnOnce(&Path)) -> Arc<Vlm> {
    let dir = tempfile::tempdir().unwrap();
    Checkpoint::of_fixture("tiny").write(dir.path()).unwrap();
    change(dir.path());
    load(&ModelSource::Path(dir.path().to_path_buf()))
}

/// The small random model without its vision side.
fn tiny_reader() -> Arc<Vlm> {
    let dir = tempfile::tempdir().unwrap();
    Checkpoint::of_fixture("tiny").write(dir.path()).unwrap();
    let mut files = ModelFiles::read(dir.path()).unwrap();
    (files.config.vision, files.preprocess) = (None, None);
    files.image_seq_len = 0;
    let weights = safetensors::Checkpoint::open(dir.path()).unwrap();
    let pack = dir.path().join("reader.ocelli");
    let out = File::create(&pack).unwrap();
    packer::pack_model(
        "reader",
        &files,
        &weights,
        &PackOptions::default(),
        out,
        &mut |_, _| {},
    )
    .unwrap();
    load(&ModelSource::Path(pack))
}

fn sample(name: &str) -> Rgb8 {
    let samples = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models/samples");
    Rgb8::open(&samples.join(name)).unwrap()
}

fn picture(width: usize, height: usize) -> Rgb8 {
    let pixels = (0..width * height * 3).map(|i| (i * 31 % 253) as u8);
    Rgb8::new(width, height, pixels.collect()).unwrap()
}

fn see(session: &mut Session, image: &Rgb8, max_tiles: Option<usize>) {
    let request = PictureRequest {
        system: None,
        image,
        max_tiles,
    };
    session.see(&request, &mut |_| {}).unwrap();
}

/// Tokens of the prompt, bits of the logits behind it, tokens of an answer.
type Trace = (Vec<u32>, Vec<u32>, Vec<u32>);

fn trace(session: &mut Session, question: &str) -> Trace {
    session.question(question, 8, &mut |_| {}).unwrap();
    let ids = session.ids().to_vec();
    let logits = session.logits().unwrap();
    let options = GenerateOptions {
        max_tokens: 8,
        ..GenerateOptions::default()
    };
    let mut generation = session.generate(options).unwrap();
    generation.rest().unwrap();
    let tokens = generation.tokens().to_vec();
    (
        ids,
        logits.iter().map(|logit| logit.to_bits()).collect(),
        tokens,
    )
}

/// Asks in several orders, with scoring and writing between; every question must always give
/// the same.
fn assert_same_in_every_order(vlm: &Vlm, image: &Rgb8, max_tiles: Option<usize>) -> Vec<Trace> {
    let alone: Vec<Trace> = QUESTIONS
        .iter()
        .map(|question| {
            let mut session = vlm.session().unwrap();
            see(&mut session, image, max_tiles);
            trace(&mut session, question)
        })
        .collect();
    let choices = ["yes", "no"].map(|text| vec![text.to_owned()]);
    for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
        let mut session = vlm.session().unwrap();
        see(&mut session, image, max_tiles);
        for question in order {
            assert_eq!(
                trace(&mut session, QUESTIONS[question]),
                alone[question],
                "{order:?}"
            );
            session.question("Is it?", 8, &mut |_| {}).unwrap();
            session.weigh(&choices).unwrap();
            session.write(&Grammar::integer(0, 99).unwrap(), 4).unwrap();
        }
        // Another picture and back, and a conversation that has nothing to do with it.
        see(&mut session, &picture(30, 50), Some(0));
        session.extend(&[40, 41, 42]).unwrap();
        see(&mut session, image, max_tiles);
        assert_eq!(trace(&mut session, QUESTIONS[order[0]]), alone[order[0]]);
        session.prompt_ids(&[40, 41], &[]).unwrap();
        assert_eq!(trace(&mut session, QUESTIONS[order[1]]), alone[order[1]]);
    }
    alone
}

/// The prompt in one piece has the same tokens, and nearly the same logits.
fn assert_like_one_piece(vlm: &Vlm, image: &Rgb8, max_tiles: Option<usize>, traces: &[Trace]) {
    for (question, (ids, logits, _)) in QUESTIONS.iter().zip(traces) {
        let mut session = vlm.session().unwrap();
        let request = PromptRequest {
            messages: &[Message::image_and_text(*question)],
            images: std::slice::from_ref(image),
            max_tiles,
            answer_tokens: 8,
            keep_stages: false,
        };
        session.prompt(&request, &mut |_| {}).unwrap();
        assert_eq!(session.ids(), ids);
        let whole = session.logits().unwrap();
        let spread = whole.iter().fold(0f32, |m, l| m.max(l.abs()));
        let apart = whole
            .iter()
            .zip(logits)
            .map(|(a, b)| (a - f32::from_bits(*b)).abs())
            .fold(0f32, f32::max);
        assert!(apart <= 1e-2 * spread, "{question}: {apart} of {spread}");
    }
}

#[test]
fn an_answer_is_the_same_whatever_was_asked_before() {
    let vlm = default_model();
    let image = sample("trees.jpg");
    let traces = assert_same_in_every_order(&vlm, &image, None);
    assert_like_one_piece(&vlm, &image, None, &traces);
    assert_ne!(traces[0].1, traces[1].1);
}

#[test]
fn a_picture_of_many_tiles_is_shared_as_well() {
    let vlm = tiny(|_| {});
    let image = picture(200, 140);
    let traces = assert_same_in_every_order(&vlm, &image, None);
    assert_like_one_piece(&vlm, &image, None, &traces);
}

#[test]
fn a_template_with_the_question_before_the_picture_is_run_whole() {
    let vlm = tiny(|dir| {
        let path = dir.join("chat_template.json");
        let template = "{% for message in messages %}{% for part in message['content'] %}\
            {% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}\
            {% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% endif %}\
            {% endfor %}{% endfor %}";
        assert!(path.exists());
        let json = serde_json::json!({ "chat_template": template });
        std::fs::write(path, json.to_string()).unwrap();
    });
    let image = picture(64, 48);
    let traces = assert_same_in_every_order(&vlm, &image, Some(0));
    assert_like_one_piece(&vlm, &image, Some(0), &traces);
    assert_eq!(traces[0].0.last(), traces[1].0.last());
    assert_ne!(traces[0].0[0], traces[1].0[0]);
}

#[test]
fn a_question_needs_a_picture_and_room() {
    let mut session = default_model().session().unwrap();
    let ask = |session: &mut Session, text: &str| session.question(text, 8, &mut |_| {}).map(drop);
    assert!(matches!(
        ask(&mut session, "What?"),
        Err(RunError::NoPicture)
    ));
    see(&mut session, &picture(40, 40), None);
    let long = "word ".repeat(600);
    assert!(matches!(
        ask(&mut session, &long),
        Err(RunError::PromptTooLong { .. })
    ));
    assert!(matches!(
        ask(&mut session, "a <image>"),
        Err(RunError::Prompt(_))
    ));
    assert!(ask(&mut session, "What?").is_ok());
}

#[test]
fn spellings_share_their_weight_and_leave_the_prompt_as_it_was() {
    let mut session = default_model().session().unwrap();
    see(&mut session, &sample("trees.jpg"), None);
    session
        .question("Is there a tree?", 8, &mut |_| {})
        .unwrap();
    let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    let before = session.logits().unwrap();
    let one = session.weigh(&[words(&["Yes"]), words(&["No"])]).unwrap();
    let more = session
        .weigh(&[words(&["yes", "Yes"]), words(&["no", "No"])])
        .unwrap();
    assert!(more[0] >= one[0] && more[1] >= one[1]);
    assert!(one[0] > one[1] && one[0] > 0.5f64.ln(), "{one:?}");
    assert!(more.iter().map(|p| p.exp()).sum::<f64>() <= 1.0 + 1e-9);
    // "No" and what goes on from it are told apart.
    let nested = session
        .weigh(&[words(&["Yes"]), words(&["No"]), words(&["No dogs"])])
        .unwrap();
    assert!((nested[1].exp() + nested[2].exp() - one[1].exp()).abs() < 1e-9);
    assert_eq!(session.logits().unwrap(), before);
    session
        .question("What do you see?", 8, &mut |_| {})
        .unwrap();
    let caption = std::fs::read_to_string(
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models/samples/trees.txt"),
    );
    let caption = caption.unwrap();
    let whole = caption.trim().trim_end_matches('.');
    let first = whole.split(' ').next().unwrap();
    let parts = session.weigh(&[words(&[first]), words(&[whole])]).unwrap();
    assert!(
        parts[0] < parts[1] && parts[0].exp() + parts[1].exp() <= 1.0 + 1e-9,
        "{parts:?}"
    );
    let error = session
        .weigh(&[words(&["Yes"]), words(&["a", "b"]), words(&[" Yes "])])
        .unwrap_err();
    assert!(
        matches!(
            error,
            RunError::SameChoice {
                first: 1,
                second: 3,
                ..
            }
        ),
        "{error}"
    );
    assert!(matches!(
        session.weigh(&[words(&[])]),
        Err(RunError::EmptyChoice { index: 1 })
    ));
}

fn job(image: Rgb8, prompt: &str, form: AnswerForm) -> Job {
    Job {
        question: QuestionId(7),
        rule: "porch".into(),
        frame: 3,
        picture: Arc::new(image),
        prompt: prompt.into(),
        form,
        max_tiles: None,
        early: false,
        priority: 5,
        deadline: Instant::now() + Duration::from_secs(3600),
    }
}

fn answers(mind: &mut Mind, job: &Job) -> Vec<Thought> {
    let mut thoughts = Vec::new();
    mind.answer(job, &mut |thought| thoughts.push(thought));
    thoughts
}

/// The one answer to a job.
fn concluded(mind: &mut Mind, job: &Job) -> Conclusion {
    let mut thoughts = answers(mind, job);
    assert_eq!(thoughts.len(), 1, "{thoughts:?}");
    *thoughts.pop().unwrap().result.unwrap()
}

/// Why the one job cannot be asked.
fn refusal(mind: &mut Mind, job: &Job) -> String {
    let mut thoughts = answers(mind, job);
    assert_eq!(thoughts.len(), 1, "{thoughts:?}");
    match thoughts.pop().unwrap().result {
        Err(Failure::Question(why)) => why,
        other => panic!("{other:?}"),
    }
}

fn mind() -> Mind {
    Mind::new(default_model(), MindSettings::default()).unwrap()
}

fn choices(texts: &[&str]) -> AnswerForm {
    AnswerForm::Choices(texts.iter().map(|text| (*text).to_owned()).collect())
}

#[test]
fn closed_questions_about_the_samples_are_answered() {
    let mut mind = mind();
    for (name, prompt, form, expected) in [
        (
            "dog-person.jpg",
            "Is there a dog?",
            choices(&["no", "yes"]),
            Value::Choice(1),
        ),
        (
            "trees.jpg",
            "Is there a dog?",
            choices(&["no", "yes"]),
            Value::Choice(0),
        ),
        (
            "dog-person.jpg",
            "How many dogs?",
            AnswerForm::Count(0, 20),
            Value::Count(1),
        ),
        (
            "trees.jpg",
            "How many dogs?",
            AnswerForm::Count(0, 20),
            Value::Count(0),
        ),
    ] {
        let conclusion = concluded(&mut mind, &job(sample(name), prompt, form));
        assert_eq!(conclusion.value, expected, "{name} {prompt} {conclusion:?}");
        let answered = &conclusion.answered;
        assert!(
            answered.probability > 0.5 && !answered.unsure,
            "{answered:?}"
        );
        let sum: f32 = answered.choice_probabilities.iter().sum();
        assert!((sum - 1.0).abs() < 1e-5);
        assert_eq!(
            answered.choice_scores.len(),
            answered.choice_probabilities.len()
        );
        assert_eq!((answered.stage, answered.frame), (Stage::Refined, 3));
    }
}

#[test]
fn documents_numbers_and_captions_follow_their_form() {
    let schema = r#"{"type":"object","properties":{
        "kind":{"type":"string","enum":["tree","dog"]},
        "count":{"type":"integer","minimum":0,"maximum":9},
        "note":{"type":"string","maxLength":20},
        "seen":{"type":"boolean"}},"required":["kind","count","note","seen"]}"#;
    let mut mind = mind();
    let validator = jsonschema::validator_for(&serde_json::from_str(schema).unwrap()).unwrap();
    for tokens in [48, 64, 128] {
        let form = AnswerForm::Schema(schema.into(), tokens);
        let conclusion = concluded(&mut mind, &job(sample("trees.jpg"), "What is this?", form));
        let Value::Fields { json, missing } = &conclusion.value else {
            panic!("{conclusion:?}");
        };
        assert_eq!(json.as_str(), conclusion.answered.text);
        let value = serde_json::from_str(json.as_str()).unwrap();
        assert!(validator.is_valid(&value), "{value}");
        assert!(conclusion.answered.tokens.len() <= usize::from(tokens));
        let paths: Vec<&str> = conclusion.fields.iter().map(|f| f.path.as_str()).collect();
        assert_eq!(paths, ["kind", "count", "note", "seen"]);
        let weakest = conclusion
            .fields
            .iter()
            .map(|f| f.probability)
            .fold(1.0, f64::min);
        assert_eq!(conclusion.answered.probability, weakest as f32);
        assert_eq!(*missing, u8::from(conclusion.fields[2].json == "\"\""));
    }
    let wide = concluded(
        &mut mind,
        &job(
            sample("trees.jpg"),
            "How many?",
            AnswerForm::Count(100, 900),
        ),
    );
    assert!(matches!(wide.value, Value::Count(100..=900)), "{wide:?}");
    assert_eq!(
        wide.answered.tokens.len(),
        wide.answered.token_probabilities.len()
    );
    let caption = concluded(
        &mut mind,
        &job(
            sample("trees.jpg"),
            "What do you see?",
            AnswerForm::Caption(32),
        ),
    );
    let expected = std::fs::read_to_string(
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models/samples/trees.txt"),
    );
    assert_eq!(caption.answered.text, expected.unwrap().trim());
    assert_eq!(
        caption.answered.tokens.len(),
        caption.answered.token_probabilities.len()
    );
    assert!((0.0..=1.0).contains(&caption.answered.probability));
}

#[test]
fn a_question_that_cannot_be_asked_says_why_and_the_next_one_is_answered() {
    let mut mind = mind();
    let bad = r#"{"type":"object","properties":{"a":{"type":"sting"}}}"#;
    for (form, prompt, word) in [
        (AnswerForm::Schema(bad.into(), 99), "?", "properties.a.type"),
        (
            AnswerForm::Schema(r#"{"type":"boolean"}"#.into(), 1),
            "?",
            "tokens",
        ),
        (choices(&["yes", "yes"]), "?", "same"),
        (choices(&["yes", "no"]), "a <image>", "<image>"),
        (AnswerForm::Count(9, 3), "?", "no number"),
        (AnswerForm::Caption(5000), "?", "context"),
    ] {
        let why = refusal(&mut mind, &job(sample("trees.jpg"), prompt, form));
        assert!(why.contains(word), "{why}");
        let good = job(
            sample("trees.jpg"),
            "Is there a dog?",
            choices(&["yes", "no"]),
        );
        assert_eq!(concluded(&mut mind, &good).value, Value::Choice(1));
    }
}

#[test]
fn a_model_that_reads_text_only_refuses_every_question_about_a_picture() {
    let vlm = tiny_reader();
    let image = picture(200, 140);
    let mut session = vlm.session().unwrap();
    let request = PictureRequest {
        system: None,
        image: &image,
        max_tiles: None,
    };
    let seen = session.see(&request, &mut |_| {});
    assert!(matches!(seen, Err(RunError::NoVision)), "{seen:?}");
    let asked = session.question("What?", 8, &mut |_| {});
    assert!(matches!(asked, Err(RunError::NoPicture)), "{asked:?}");

    let mut mind = Mind::new(vlm, MindSettings::default()).unwrap();
    for early in [false, true] {
        for form in [
            choices(&["yes", "no"]),
            AnswerForm::Count(0, 9),
            AnswerForm::Caption(8),
            AnswerForm::Schema(r#"{"type":"boolean"}"#.into(), 8),
        ] {
            let asked = Job {
                early,
                ..job(image.clone(), "What?", form)
            };
            let why = refusal(&mut mind, &asked);
            assert!(why.contains("reads text only"), "{why}");
        }
    }
}

#[test]
fn an_early_answer_comes_before_the_refined_one_and_only_if_it_sees_less() {
    let vlm = tiny(|_| {});
    let mut mind = Mind::new(vlm, MindSettings::default()).unwrap();
    let asked = |max_tiles| Job {
        early: true,
        max_tiles,
        ..job(picture(200, 140), "What?", choices(&["yes", "no"]))
    };
    let stages = |thoughts: &[Thought]| -> Vec<(Stage, Option<u32>)> {
        let answered = thoughts
            .iter()
            .map(|t| &t.result.as_ref().unwrap().answered);
        answered.map(|a| (a.stage, a.max_tiles)).collect()
    };
    let both = answers(&mut mind, &asked(None));
    assert_eq!(
        stages(&both),
        [(Stage::Early, Some(0)), (Stage::Refined, None)]
    );
    let tokens = |t: &Thought| t.result.as_ref().unwrap().answered.prompt_tokens;
    assert!(tokens(&both[0]) < tokens(&both[1]));
    let one = answers(&mut mind, &asked(Some(0)));
    assert_eq!(stages(&one), [(Stage::Refined, Some(0))]);
}

#[test]
fn a_job_gives_the_same_again_in_another_mind() {
    let jobs = [
        job(
            sample("trees.jpg"),
            "Is there a dog?",
            choices(&["yes", "no"]),
        ),
        job(
            sample("dog-person.jpg"),
            "How many dogs?",
            AnswerForm::Count(0, 20),
        ),
        job(
            sample("trees.jpg"),
            "What do you see?",
            AnswerForm::Caption(16),
        ),
    ];
    let run = |order: [usize; 3]| {
        let mut mind = mind();
        let mut found: Vec<(usize, Conclusion)> = order
            .iter()
            .map(|at| (*at, concluded(&mut mind, &jobs[*at])))
            .map(|(at, mut conclusion)| {
                conclusion.answered.time_ms = [0.0; 3];
                (at, conclusion)
            })
            .collect();
        found.sort_by_key(|(at, _)| *at);
        found
    };
    assert_eq!(run([0, 1, 2]), run([2, 1, 0]));
}

#[test]
fn a_prior_is_taken_off_once_it_is_wanted() {
    let asked = job(
        sample("dog-person.jpg"),
        "Is there a dog?",
        choices(&["yes", "no"]),
    );
    let with = |prior_weight| {
        let settings = MindSettings {
            judgement: Judgement {
                prior_weight,
                ..Judgement::default()
            },
            ..MindSettings::default()
        };
        let mut mind = Mind::new(default_model(), settings).unwrap();
        let first = concluded(&mut mind, &asked).answered;
        let second = concluded(&mut mind, &asked).answered;
        assert_eq!(first.choice_probabilities, second.choice_probabilities);
        first
    };
    let (without, with) = (with(0.0), with(1.0));
    assert_eq!(without.choice_scores, with.choice_scores);
    assert_ne!(without.choice_probabilities, with.choice_probabilities);
}

#[test]
fn a_deadline_and_a_cancelled_job_leave_the_mind_usable() {
    let mut mind = mind();
    let late = Job {
        deadline: Instant::now(),
        ..job(
            sample("trees.jpg"),
            "Is there a dog?",
            choices(&["yes", "no"]),
        )
    };
    let thoughts = answers(&mut mind, &late);
    assert_eq!(thoughts[0].result, Err(Failure::Deadline));
    let good = job(
        sample("trees.jpg"),
        "Is there a dog?",
        choices(&["yes", "no"]),
    );
    assert_eq!(concluded(&mut mind, &good).value, Value::Choice(1));
}

#[test]
fn the_thread_answers_and_counts_its_progress() {
    let thinker = Thinker::with_model(default_model(), MindSettings::default(), 4).unwrap();
    thinker.submit(job(
        sample("trees.jpg"),
        "Is there a dog?",
        choices(&["yes", "no"]),
    ));
    let until = Instant::now() + Duration::from_secs(120);
    let thought = loop {
        if let Some(thought) = thinker.try_next() {
            break thought;
        }
        assert!(Instant::now() < until, "no answer");
        std::thread::yield_now();
    };
    assert_eq!(thought.result.unwrap().value, Value::Choice(1));
    assert!(thinker.progress() > 0);
}

#[test]
fn a_model_is_named_by_what_its_pack_says() {
    let default = default_model();
    let identity = ocelli_agent::mind::identity(&default);
    assert_eq!(identity.name, "default");
    assert_ne!(identity.sha256, [0; 32]);
    assert_eq!(identity, ocelli_agent::mind::identity(&default_model()));
    assert_ne!(tiny(|_| {}).sha256(), default.sha256());
}
