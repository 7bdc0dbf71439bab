//! Runs: looks, votes, early answers, events, faults, capacities.

use crate::scene::{Scene, file};
use ocelli_reflex::limit::MAX_EVENTS;
use ocelli_reflex::observation::{Fault, Frame, HookVerdict, Outcome, Quality, Stage, Value};
use ocelli_reflex::output::{EventPhase, Moment};
use ocelli_reflex::pin::Role;
use ocelli_reflex::{Observation, Output, Policy, explain};

const TELL: &str = r#"
[[rules]]
id = "tell"
priority = 6
when = [{ topic = "go" }, { change = "porch", once = true }]
ask = { question = "Person?", choices = ["yes", "no"], expect = "yes", threshold = 0.8, EXTRA }
then = [{ publish = "say", payload = "then {answer} {probability}" }, { event = "person", hold = "10 s" }]
else = [{ publish = "say", payload = "else" }]
unsure = [{ publish = "say", payload = "unsure" }]
"#;

fn tell(extra: &str) -> Scene {
    let rule = TELL.replace("EXTRA", extra).replace(", }", " }");
    Scene::started(&file("", &rule))
}

/// Payloads of all publications.
fn said(scene: &Scene) -> Vec<String> {
    let payload = |policy: &Policy, output: &Output| match output {
        Output::Act(act) => policy.payload(act),
        _ => None,
    };
    scene
        .trace
        .iter()
        .filter_map(|output| payload(&scene.policy, output))
        .collect()
}

fn events(scene: &Scene) -> Vec<(u64, EventPhase)> {
    let event = |output: &Output| match output {
        Output::Event(notice) => Some((notice.id.0, notice.phase)),
        _ => None,
    };
    scene.trace.iter().filter_map(event).collect()
}

#[test]
fn an_answer_takes_its_branch() {
    for (choice, share, words) in [
        (0, 0.9, "then yes 0.900"),
        (1, 0.9, "else"),
        (0, 0.7, "unsure"),
        (1, 0.7, "unsure"),
        (9, 0.9, "unsure"),
    ] {
        let mut scene = tell("");
        scene.message("go", "");
        scene.show();
        scene.answer(Value::Choice(choice), share);
        assert_eq!(said(&scene), [words], "{choice} {share}");
    }
}

#[test]
fn two_of_three_looks_must_agree() {
    for (answers, words) in [
        (&[0, 0][..], "then yes 0.990"),
        (&[0, 1, 0], "then yes 0.990"),
        (&[1, 0, 1], "else"),
        (&[1, 1], "else"),
    ] {
        let mut scene = tell("agree = { need = 2, of = 3, gap = \"100 ms\" }");
        scene.message("go", "");
        for (at, choice) in answers.iter().enumerate() {
            if at > 0 {
                scene.wait(100);
            }
            assert!(said(&scene).is_empty(), "{answers:?}");
            scene.show();
            scene.answer(Value::Choice(*choice), 0.99);
        }
        assert_eq!(said(&scene), [words], "{answers:?}");
    }
}

#[test]
fn looks_that_cannot_agree_any_more_are_unsure_at_once() {
    let mut scene = tell("agree = { need = 2, of = 2, gap = \"100 ms\" }");
    scene.message("go", "");
    scene.show();
    scene.answer(Value::Choice(0), 0.5);
    assert_eq!(said(&scene), ["unsure"]);
}

#[test]
fn two_rules_that_start_together_share_one_look() {
    let second = TELL.replace("\"tell\"", "\"second\"");
    let text = file(
        "",
        &format!("{TELL}{second}").replace("EXTRA", "max_tokens = 8"),
    );
    let mut scene = Scene::started(&text);
    let outputs = scene.message("go", "");
    let looks = outputs
        .iter()
        .filter(|output| matches!(output, Output::Look(_)));
    assert_eq!(looks.count(), 1);
    let outputs = scene.show();
    let frames: Vec<u64> = outputs
        .iter()
        .filter_map(|output| match output {
            Output::Ask(ask) => Some(ask.frame),
            _ => None,
        })
        .collect();
    assert_eq!(frames, [1, 1]);
}

#[test]
fn a_change_in_the_same_stretch_starts_the_rule_once() {
    let mut scene = tell("picture = \"trigger\"");
    let frame = scene.frame();
    scene.change("porch", frame, 5);
    assert_eq!(scene.ask().frame, frame.id);
    scene.answer(Value::Choice(1), 0.9);
    let frame = scene.frame();
    scene.change("porch", frame, 5);
    assert!(scene.says("in this stretch of change already"));
    scene.change("porch", frame, 6);
    assert_eq!(scene.ask().frame, frame.id);
}

#[test]
fn a_poor_or_missing_or_future_picture_is_unsure() {
    let mut pictures: Vec<Option<Frame>> = vec![None];
    for quality in [
        Quality::Dark,
        Quality::Bright,
        Quality::Blurred,
        Quality::Covered,
    ] {
        pictures.push(Some(Frame {
            id: 1,
            time: 1_000_000,
            quality,
        }));
    }
    pictures.push(Some(Frame {
        id: 1,
        time: 1_000_001,
        quality: Quality::Good,
    }));
    for frame in pictures {
        let mut scene = tell("");
        scene.message("go", "");
        let look = scene.look().id;
        scene.see(Observation::Looked { look, frame });
        assert_eq!(said(&scene), ["unsure"], "{frame:?}");
    }
}

#[test]
fn a_question_without_answer_is_unsure_at_its_deadline() {
    let mut scene = tell("deadline = \"3 s\"");
    scene.message("go", "");
    scene.show();
    scene.wait(2_999);
    assert!(said(&scene).is_empty());
    scene.wait(1);
    assert_eq!(said(&scene), ["unsure"]);
    assert!(scene.says("the answer is no longer wanted"));
    scene.answer(Value::Choice(0), 1.0);
    assert_eq!(said(&scene), ["unsure"]);
}

#[test]
fn an_early_answer_tells_and_the_refined_one_updates_the_same_event() {
    let mut scene = tell("early = true");
    scene.message("go", "");
    scene.show();
    let time = scene.ms;
    scene.answer_of(Value::Choice(0), 0.9, time, Stage::Early);
    assert_eq!(said(&scene), ["then yes 0.900"]);
    scene.answer(Value::Choice(0), 0.95);
    assert_eq!(said(&scene).len(), 1);
    let all = events(&scene);
    assert_eq!(
        all,
        [(all[0].0, EventPhase::New), (all[0].0, EventPhase::Update)]
    );
}

#[test]
fn a_refined_answer_that_differs_ends_the_early_event() {
    let mut scene = tell("early = true");
    scene.message("go", "");
    scene.show();
    let time = scene.ms;
    scene.answer_of(Value::Choice(0), 0.9, time, Stage::Early);
    scene.answer(Value::Choice(1), 0.95);
    let all = events(&scene);
    assert_eq!(
        all,
        [(all[0].0, EventPhase::New), (all[0].0, EventPhase::End)]
    );
    assert_eq!(said(&scene), ["then yes 0.900", "else"]);
}

#[test]
fn an_event_keeps_its_id_until_it_is_over() {
    let mut scene = tell("");
    for _ in 0..2 {
        scene.message("go", "");
        scene.show();
        scene.answer(Value::Choice(0), 0.9);
        scene.wait(9_000);
    }
    scene.wait(1_000);
    scene.wait(20_000);
    let all = events(&scene);
    let id = all[0].0;
    let phases = [EventPhase::New, EventPhase::Update, EventPhase::End];
    assert_eq!(all, phases.map(|phase| (id, phase)));
}

#[test]
fn a_cooldown_counts_from_the_start() {
    let mut scene = Scene::started(&file(
        "",
        "[[rules]]\nid = \"tell\"\ncooldown = \"5 s\"\nwhen = { topic = \"go\" }\nthen = [{ publish = \"say\", payload = \"x\" }]\n",
    ));
    for (pause, number) in [(0, 1), (4_999, 1), (1, 2)] {
        scene.wait(pause);
        scene.message("go", "");
        assert_eq!(said(&scene).len(), number, "{pause}");
    }
    assert!(scene.says("cooldown, 1 ms left"));
}

#[test]
fn schedules_fire_when_due() {
    let rules = r#"
[[rules]]
id = "often"
when = { every = "10 s" }
then = [{ publish = "say", payload = "often" }]
[[rules]]
id = "daily"
when = { at = "12:00", days = ["tue"] }
then = [{ publish = "say", payload = "daily" }]
"#;
    let mut scene = Scene::started(&file("", rules));
    scene.wait(9_999);
    assert!(said(&scene).is_empty());
    scene.wait(1);
    scene.wait(60_000);
    assert_eq!(
        said(&scene),
        ["often", "often"],
        "missed periods are not made up for"
    );
    for (day, second) in [
        (5, 43_199),
        (5, 43_200),
        (5, 43_201),
        (5, 43_199),
        (5, 43_200),
        (12, 43_261),
    ] {
        scene.local = Some(ocelli_reflex::LocalTime { day, second });
        scene.see(Observation::Tick);
    }
    assert_eq!(said(&scene), ["often", "often", "daily"]);
}

#[test]
fn a_lost_camera_or_model_ends_questions_unsure() {
    for fault in [Fault::CameraGone, Fault::ModelRefused] {
        let mut scene = tell("");
        scene.message("go", "");
        scene.fault(fault, true);
        scene.message("go", "");
        assert_eq!(said(&scene), ["unsure", "unsure"], "{fault:?}");
        scene.fault(fault, false);
        scene.message("go", "");
        scene.show();
        scene.answer(Value::Choice(0), 0.9);
        assert_eq!(said(&scene).len(), 3);
    }
}

#[test]
fn heat_and_short_memory_shed_what_is_less_important() {
    for fault in [Fault::Hot, Fault::LowMemory] {
        let low = TELL
            .replace("\"tell\"", "\"low\"")
            .replace("priority = 6", "priority = 2");
        let text = file(
            "",
            &format!("{TELL}{low}").replace("EXTRA", "max_tokens = 8"),
        );
        let mut scene = Scene::started(&text);
        scene.message("go", "");
        assert_eq!(scene.state.runs(), 2);
        scene.fault(fault, true);
        assert_eq!(scene.state.runs(), 1);
        assert!(scene.says("rule low is given up: its priority is too low"));
        scene.message("go", "");
        assert!(scene.says("rule low does not start: its priority is too low"));
    }
}

#[test]
fn a_full_disk_stops_pictures_and_nothing_else() {
    let rule = "[[rules]]\nid = \"keep\"\nwhen = { topic = \"go\" }\nthen = [{ snapshot = true }, { publish = \"say\", payload = \"x\" }]\n";
    let mut scene = Scene::started(&file("", rule));
    scene.fault(Fault::DiskFull, true);
    scene.message("go", "");
    assert_eq!(said(&scene), ["x"]);
    assert!(scene.says("save the picture of rule keep is refused: the disk is full"));
}

#[test]
fn a_more_important_rule_takes_the_place_of_a_less_important_one() {
    let mut rules = String::new();
    for number in 0..17 {
        let priority = if number == 16 { 9 } else { 1 + number % 3 };
        let topic = if number == 16 { "stop" } else { "go" };
        rules.push_str(&format!(
            "[[rules]]\nid = \"r{number}\"\npriority = {priority}\nwhen = {{ topic = \"{topic}\" }}\nask = {{ question = \"?\", caption = true }}\nthen = [{{ publish = \"say\" }}]\n"
        ));
    }
    let mut scene = Scene::started(&file("", &rules));
    scene.message("go", "");
    assert_eq!(scene.state.runs(), 16);
    scene.message("stop", "");
    assert_eq!(scene.state.runs(), 16);
    assert!(scene.says("rule r0 is given up: a more important rule needs the place"));
    assert_eq!(scene.state.drops().runs, 1);
    scene.message("stop", "");
    assert!(scene.says("rule r16 does not start: it is running"));
}

#[test]
fn too_many_events_end_the_oldest() {
    let actions = |from: usize| {
        let list: Vec<String> = (from..from + 8)
            .map(|at| format!("{{ event = \"e{at}\", hold = \"1 h\" }}"))
            .collect();
        list.join(", ")
    };
    let mut rules = String::new();
    for rule in 0..3 {
        rules.push_str(&format!(
            "[[rules]]\nid = \"r{rule}\"\nwhen = {{ topic = \"go\" }}\nthen = [{}]\n",
            actions(rule * 8)
        ));
    }
    let mut scene = Scene::started(&file("", &rules));
    scene.message("go", "");
    let ended = events(&scene)
        .iter()
        .filter(|(_, phase)| *phase == EventPhase::End)
        .count();
    assert_eq!(ended, 24 - MAX_EVENTS);
    assert_eq!(scene.state.drops().events, 8);
}

#[test]
fn notes_that_find_no_place_are_counted_and_pins_made_safe_always_find_one() {
    let mut text = String::from("format = 1\n[topics.go]\npath = \"go\"\ndirection = \"in\"\n");
    for pin in 0..16 {
        text.push_str(&format!("[pins.p{pin}]\nline = \"L{pin}\"\ndirection = \"out\"\nsafe = \"off\"\nmax_on = \"1 s\"\n"));
    }
    for rule in 0..32 {
        text.push_str(&format!(
            "[[rules]]\nid = \"r{rule}\"\nwhen = {{ topic = \"go\" }}\nthen = ["
        ));
        for at in 0..8 {
            text.push_str(&format!(
                "{{ set = \"p{}\", value = \"on\" }},",
                (rule + at) % 16
            ));
        }
        text.push_str("]\n");
    }
    text.push_str("[[permissions]]\neffect = \"allow\"\naction = \"set\"\n");
    let mut scene = Scene::started(&text);
    scene.wait(1_000);
    scene.message("go", "");
    assert!(scene.state.drops().notes > 0);
    assert!(scene.says("notes are missing"));
    let on = |scene: &Scene| {
        let pins = (0..16).filter(|pin| scene.state.pin_value(&format!("p{pin}")) == Some(1));
        pins.count()
    };
    let switched = on(&scene);
    assert!(switched > 0);
    scene.wait(1_000);
    assert_eq!(on(&scene), 0);
    assert_eq!(scene.safe().len(), switched);
}

#[test]
fn interlocks_hold_for_unknown_inputs_and_act_at_once() {
    let lamp = "interlocks = [{ pin = \"door\", is = \"active\" }]";
    let rules = "[[rules]]\nid = \"on\"\nwhen = { topic = \"go\" }\nthen = [{ set = \"lamp\", value = \"on\" }]\n[[permissions]]\neffect = \"allow\"\naction = \"set\"\n";
    let mut scene = Scene::started(&file(lamp, rules));
    scene.message("go", "");
    assert!(scene.lamp().is_empty(), "the door is not known");
    scene.read_pin("door", false);
    scene.message("go", "");
    assert_eq!(scene.lamp(), [1]);
    let outputs = scene.pin("door", true);
    assert!(matches!(outputs[0], Output::PinSafe(_)));
}

#[test]
fn a_value_outside_the_range_is_refused_even_if_the_file_let_it_through() {
    let rules = "[[rules]]\nid = \"on\"\nwhen = { topic = \"go\" }\nthen = [{ set = \"lamp\", value = \"on\" }]\n[[permissions]]\neffect = \"allow\"\naction = \"set\"\n";
    let mut scene = Scene::started(&file("", rules));
    if let Role::Output(envelope) = &mut scene.policy.pins[0].role {
        envelope.range = (0, 0);
    }
    scene.message("go", "");
    assert!(scene.lamp().is_empty());
    assert!(scene.says("the value is outside the pin's range"));
}

#[test]
fn hooks_hear_of_what_was_done() {
    let rules = "[hooks.log]\ncommand = [\"log\"]\nafter = \"publish\"\n[[rules]]\nid = \"tell\"\nwhen = { topic = \"go\" }\nthen = [{ publish = \"say\" }]\n";
    let mut scene = Scene::started(&file("", rules));
    scene.message("go", "");
    scene.finish(Outcome::TimedOut);
    let moment = scene.last(|output| match output {
        Output::CallHook(call) => Some(call.moment),
        _ => None,
    });
    assert!(matches!(moment, Moment::After(_, Outcome::TimedOut)));
    scene.hook(HookVerdict::Veto);
    assert!(scene.says("no longer awaited"));
}

#[test]
fn an_unsure_answer_goes_to_the_remote_model_as_often_as_allowed() {
    let rest = format!(
        "[remote]\nimages = true\nrate = {{ count = 1, per = \"1 h\" }}\n{}",
        TELL.replace("EXTRA", "second_opinion = true")
    );
    let mut scene = Scene::started(&file("", &rest));
    scene.message("go", "");
    scene.show();
    scene.answer(Value::Choice(0), 0.5);
    assert!(scene.says("ask the remote model about picture 1"));
    scene.answer(Value::Choice(1), 0.9);
    assert_eq!(said(&scene), ["else"]);
    scene.message("go", "");
    scene.show();
    scene.answer(Value::Choice(0), 0.5);
    assert_eq!(said(&scene), ["else", "unsure"]);
}

#[test]
fn explain_says_what_every_answer_would_lead_to() {
    let text = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/examples/pir_lamp.toml"
    ));
    let mut scene = Scene::started(&text.unwrap());
    scene.wait(10_000);
    scene.read_pin("pir", false);
    let before = scene.state.clone();
    let rising = Observation::Pin {
        pin: ocelli_reflex::text::name("pir").unwrap(),
        level: true,
        initial: false,
    };
    let lines = explain(&scene.policy, &scene.state, &rising, scene.now());
    assert_eq!(scene.state, before);
    assert_eq!(
        lines,
        [
            "rule porch_person starts by its pin trigger",
            "take a picture within 8 s",
            "if the answer is yes with at least 0.800, 2 of 3 looks agreeing:",
            "  announce event person: allowed, no line is against it",
            "  publish person: allowed, no line is against it",
            "  send packet person: allowed, no line is against it",
            "  save the picture: allowed, no line is against it",
            "  set lamp = 1 for 30 s: allowed by line 53 (light at the door)",
            "if there is no certain answer:",
            "  publish person: allowed, no line is against it",
        ]
    );
}
