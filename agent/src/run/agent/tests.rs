//! The loop with a recorded camera, pins without hardware and a model that says what it is told.

use super::*;
use crate::entry::Answered;
use crate::journal::storage::Disk;
use crate::journal::{Reader, verify};
use crate::mind::{Brain, Conclusion, Failure, Job, Thought};
use crate::run::hands::fixture::{self, LAMP, PIR};
use crate::run::open::rules_of;
use crate::run::recorder::JOURNAL;
use ocelli_boards::{FakeControl, Tree};
use ocelli_camera::source::monotonic_now;
use ocelli_reflex::Inventory;
use ocelli_reflex::observation::{Stage, Value};
use ocelli_reflex::output::Deed;
use ocelli_runtime::CancelFlag;
use std::path::Path;

const RULES: &str = r#"
format = 1
zones = ["picture"]

[pins.pir]
line = "GPIO4"
direction = "in"

[pins.lamp]
line = "GPIO17"
direction = "out"
safe = "off"
reversible = true
evidence = "30 s"

[[rules]]
id = "person"
when = { pin = "pir", edge = "rising" }
ask = { question = "Is there a person?", choices = ["yes", "no"], expect = "yes", threshold = 0.8, deadline = "20 s" }
then = [{ event = "person", hold = "1 h" }, { snapshot = true }, { set = "lamp", value = "on", for = "30 s" }]

[[permissions]]
effect = "allow"
action = "set"
target = "lamp"
"#;

/// What the model is to say.
#[derive(Clone)]
enum Script {
    Choice(u8, f32),
    Broken,
}

struct Actor(Script);

impl Brain for Actor {
    fn think(&mut self, job: &Job, stage: Stage, _: &CancelFlag) -> Option<Thought> {
        let result = match &self.0 {
            Script::Broken => Err(Failure::Engine("a fault of the test".to_owned())),
            Script::Choice(choice, probability) => Ok(Box::new(Conclusion {
                answered: answered(job, stage, *probability),
                value: Value::Choice(*choice),
                fields: Vec::new(),
            })),
        };
        let question = job.question;
        Some(Thought { question, result })
    }
}

fn answered(job: &Job, stage: Stage, probability: f32) -> Answered {
    Answered {
        prompt_tokens: 84,
        tokens: vec![1, 2],
        token_probabilities: vec![0.5, 0.5],
        text: "yes".to_owned(),
        probability,
        ..job.answered(stage)
    }
}

struct Scene {
    agent: Agent,
    pins: FakeControl,
    folder: tempfile::TempDir,
}

/// A picture of stripes: bright, sharp, good.
fn picture_in(folder: &Path) {
    let picture = image::RgbImage::from_fn(96, 64, |x, y| match (x / 8 + y / 8) % 2 {
        0 => image::Rgb([230, 200, 180]),
        _ => image::Rgb([30, 40, 60]),
    });
    picture.save(folder.join("a.png")).unwrap();
}

fn settings(folder: &Path) -> Settings {
    let pictures = folder.join("pictures");
    std::fs::create_dir_all(&pictures).unwrap();
    picture_in(&pictures);
    let text = format!(
        "format = 1\nrules = \"rules.toml\"\n[device]\nname = \"porch\"\nboard = \"generic\"\n\
         [camera]\nsource = \"replay:{}?repeat=true&rate=20\"\nrate = 20.0\nany_quality = true\n",
        pictures.display()
    );
    Settings::parse(&text, &folder.join("ocelli.toml")).unwrap()
}

fn scene(script: &Script) -> Scene {
    scene_in(script, tempfile::tempdir().unwrap())
}

fn scene_in(script: &Script, folder: tempfile::TempDir) -> Scene {
    let settings = settings(folder.path());
    let clock = Clock::new(false);
    let progress = Arc::new(AtomicU64::new(0));
    let patience = Duration::from_secs(3600);
    let (hands, control) = fixture::hands(&progress, patience);
    let names = [("lamp".to_owned(), LAMP), ("pir".to_owned(), PIR)].into();
    let (recorder, _) = Recorder::open(&settings, folder.path(), clock.clone()).unwrap();
    let script = script.clone();
    let make = move || Ok(Box::new(Actor(script.clone())) as Box<dyn Brain>);
    let board = Board::by_name("generic").unwrap();
    let (state, _) = recorder.read_state();
    let parts = Parts {
        lookout: settings
            .camera
            .as_ref()
            .map(|camera| Lookout::start(camera).unwrap()),
        vitals: Vitals::new(
            Tree::new(folder.path()),
            board.clone(),
            folder.path().into(),
        ),
        settings,
        sections: Sections::default(),
        fingerprint: [0; 32],
        clock,
        board,
        rules: rules_of(RULES, &Inventory::default()),
        recorder,
        thinker: Some((
            Thinker::start(Box::new(make), 8).unwrap(),
            ModelIdentity::default(),
        )),
        hands: Some((hands, names)),
        broker: None,
        line: None,
        pins: fixture::plans(),
        hooks: Hooks::start().unwrap(),
        remote: None,
        page: None,
        notify: Notify::default(),
        watchdog: None,
        progress,
    };
    Scene {
        agent: Agent::new(parts, state, String::new(), false),
        pins: control,
        folder,
    }
}

impl Scene {
    /// Lets the loop work until something holds.
    fn until(&mut self, holds: impl Fn(&Scene) -> bool) {
        for _ in 0..2_000 {
            if holds(self) {
                return;
            }
            self.agent.turn();
        }
        panic!("it never came to hold: {:?}", self.entries());
    }

    fn move_before_the_sensor(&self) {
        self.pins.inject(PIR, true, monotonic_now()).unwrap();
    }

    fn entries(&self) -> Vec<Entry> {
        let disk = Disk::open(&self.folder.path().join(JOURNAL)).unwrap();
        let reader = Reader::new(&disk).unwrap();
        reader
            .filter_map(|record| Some(record.ok()?.body))
            .collect()
    }

    fn end(self) -> (tempfile::TempDir, FakeControl) {
        self.agent.end();
        (self.folder, self.pins)
    }
}

fn steps(entries: &[Entry]) -> impl Iterator<Item = &Step> {
    entries.iter().filter_map(|entry| match entry {
        Entry::Step(step) => Some(&**step),
        _ => None,
    })
}

#[test]
fn an_edge_leads_over_picture_and_answer_to_the_lamp_and_all_of_it_is_written_down() {
    let mut scene = scene(&Script::Choice(0, 0.97));
    scene.move_before_the_sensor();
    scene.until(|scene| scene.pins.is_active(LAMP));
    let is_set = |output: &Output| matches!(output, Output::Act(act) if matches!(act.deed, Deed::Set { value: 1, .. }));
    // It was on the disk before the lamp was on.
    let entries = scene.entries();
    assert!(steps(&entries).any(|step| step.outputs.list.iter().any(is_set)));
    scene.until(|scene| {
        let entries = scene.entries();
        steps(&entries).any(|step| matches!(step.observation, Observation::Outcome { .. }))
    });
    let (folder, pins) = scene.end();
    assert!(!pins.is_active(LAMP), "safe at the end");
    let disk = Disk::open(&folder.path().join(JOURNAL)).unwrap();
    let summary = verify(&disk).unwrap();
    assert_eq!(summary.n_damages, 0);
    let entries: Vec<Entry> = Reader::new(&disk)
        .unwrap()
        .map(|r| r.unwrap().body)
        .collect();
    let kinds: Vec<u8> = entries.iter().map(Entry::kind).collect();
    assert_eq!((kinds[0], kinds[1]), (2, 1), "rules, then the begin");
    for kind in [3, 4, 5, 7] {
        assert!(kinds.contains(&kind), "kind {kind} in {kinds:?}");
    }
    assert_eq!(
        std::fs::read_dir(folder.path().join("snapshots"))
            .unwrap()
            .count(),
        1
    );
}

#[test]
fn what_was_written_down_gives_the_same_outputs_again() {
    let mut scene = scene(&Script::Choice(0, 0.97));
    scene.move_before_the_sensor();
    scene.until(|scene| scene.pins.is_active(LAMP));
    let (folder, _) = scene.end();
    let disk = Disk::open(&folder.path().join(JOURNAL)).unwrap();
    let entries: Vec<Entry> = Reader::new(&disk)
        .unwrap()
        .map(|r| r.unwrap().body)
        .collect();
    let policy = rules_of(RULES, &Inventory::default()).policy;
    let mut state = State::new();
    let mut n_steps = 0;
    for done in steps(&entries) {
        let outputs = step(&policy, &mut state, &done.observation, done.now);
        assert_eq!(outputs, done.outputs);
        n_steps += 1;
    }
    assert!(n_steps > 5);
}

#[test]
fn a_model_that_fails_leaves_the_lamp_off_and_is_told() {
    let mut scene = scene(&Script::Broken);
    scene.move_before_the_sensor();
    scene.until(|scene| scene.agent.faults.contains(&DeviceFault::ModelRefused));
    scene.until(|scene| {
        let entries = scene.entries();
        entries
            .iter()
            .any(|entry| matches!(entry, Entry::Remark(remark) if remark.about == "model"))
    });
    assert!(!scene.pins.is_active(LAMP));
    // The next edge ends unsure at once, without the model.
    scene.pins.inject(PIR, false, monotonic_now()).unwrap();
    scene.agent.turn();
    scene.move_before_the_sensor();
    for _ in 0..20 {
        scene.agent.turn();
    }
    assert!(!scene.pins.is_active(LAMP));
}

#[test]
fn a_person_who_asked_a_camera_that_is_let_go_is_told() {
    let mut scene = scene(&Script::Choice(0, 0.97));
    let errand = crate::run::desk::Errand {
        receipt: Receipt::None,
        question: None,
        choices: Vec::new(),
        rule: None,
        max_tokens: None,
    };
    scene.agent.errand(errand);
    assert_eq!(scene.agent.asked.len(), 1);
    scene.agent.forget_looks();
    assert!(scene.agent.asked.is_empty());
}

#[test]
fn a_no_moves_nothing() {
    let mut scene = scene(&Script::Choice(1, 0.99));
    scene.move_before_the_sensor();
    scene.until(|scene| scene.agent.counts.answers == 1);
    for _ in 0..5 {
        scene.agent.turn();
    }
    let (_, pins) = scene.end();
    assert!(
        pins.changes()
            .iter()
            .all(|change| !change.active || change.pin != LAMP)
    );
}

#[test]
fn off_times_outlive_a_crash() {
    let mut scene = scene(&Script::Choice(0, 0.97));
    scene.move_before_the_sensor();
    scene.until(|scene| scene.pins.is_active(LAMP));
    scene.until(|scene| scene.folder.path().join("state.bin").exists());
    // Dropped without an end, as a crash would.
    let Scene { agent, folder, .. } = scene;
    drop(agent);
    let again = scene_in(&Script::Choice(0, 0.97), folder);
    let entries = again.entries();
    let began = entries.iter().filter_map(|entry| match entry {
        Entry::Began(began) => Some(postcard::from_bytes::<State>(&began.state).unwrap()),
        _ => None,
    });
    let states: Vec<State> = began.collect();
    assert_eq!(states[0], State::new());
    assert_ne!(states[1], State::new(), "the second run knows of the first");
}
