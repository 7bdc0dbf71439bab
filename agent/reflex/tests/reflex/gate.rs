//! Corners of the gate and of pins that the table of permissions does not reach.

use crate::scene::{Scene, file};
use ocelli_reflex::explain::outline;
use ocelli_reflex::observation::{Link, Outcome, Value};
use ocelli_reflex::output::Cancelled;
use ocelli_reflex::permission::Level;
use ocelli_reflex::{ActId, Inventory, Observation, Output, load};

const ALLOW_SET: &str = "[[permissions]]\neffect = \"allow\"\naction = \"set\"\n";
const ASK_SET: &str =
    "[[permissions]]\neffect = \"ask\"\naction = \"set\"\nvia = [\"mqtt\"]\nexpires = \"30 s\"\n";

/// A rule that a message on `go` or `stop` starts.
fn rule(id: &str, topic: &str, actions: &str) -> String {
    format!("[[rules]]\nid = \"{id}\"\nwhen = {{ topic = \"{topic}\" }}\nthen = [{actions}]\n")
}

fn set(pin: &str, value: &str) -> String {
    format!("{{ set = \"{pin}\", value = \"{value}\" }}")
}

/// The device with a fan, whose limits are given, and rules: `go` switches the lamp, `stop` the fan.
fn two_pins(lamp: &str, fan: &str) -> Scene {
    let pin = format!(
        "[pins.fan]\nline = \"GPIO18\"\ndirection = \"out\"\nsafe = \"off\"\nreversible = true\n{fan}\n"
    );
    let rules = rule("lamp", "go", &set("lamp", "on")) + &rule("fan", "stop", &set("fan", "on"));
    let text = file(lamp, &(pin + &rules + ALLOW_SET));
    let mut scene = Scene::started(&text);
    scene.read_pin("door", false);
    scene.wait(60_000);
    scene
}

#[test]
fn the_age_of_the_picture_counts_when_the_person_decides() {
    let on = "[[rules]]\nid = \"on\"\nevidence = \"10 s\"\nwhen = { topic = \"go\" }\n\
        ask = { question = \"Person?\", choices = [\"yes\", \"no\"], expect = \"yes\" }\n\
        then = [{ set = \"lamp\", value = \"on\" }]\n";
    for (wait, lamp) in [(10_000, &[1][..]), (10_001, &[])] {
        let mut scene = Scene::started(&file("", &format!("{on}{ASK_SET}")));
        scene.message("go", "");
        scene.show();
        let shown = scene.ms;
        scene.answer(Value::Choice(0), 0.99);
        let request = scene.request();
        scene.ms = shown + wait;
        scene.approve(&request, true);
        assert_eq!(scene.lamp(), lamp, "after {wait} ms");
        assert_eq!(scene.says("the picture is 10001 ms old"), lamp.is_empty());
    }
}

#[test]
fn a_pin_may_always_be_made_safe() {
    let rules = rule("on", "go", &set("lamp", "on")) + &rule("off", "stop", &set("lamp", "off"));
    let lamp = "dwell = \"10 s\"\nmin_off = \"10 s\"\nrate = { count = 1, per = \"1 h\" }";
    let mut scene = Scene::started(&file(lamp, &(rules + ALLOW_SET)));
    scene.wait(10_000);
    scene.message("go", "");
    scene.wait(1);
    scene.message("stop", "");
    assert_eq!(scene.lamp(), [1, 0]);
    scene.message("stop", "");
    assert_eq!(scene.lamp(), [1, 0, 0]);
}

#[test]
fn a_pin_that_another_needs_takes_it_along() {
    let off = rule("off", "stop", &set("lamp", "off"));
    let on = rule(
        "on",
        "go",
        &format!("{}, {}", set("lamp", "on"), set("fan", "on")),
    );
    let fan = "[pins.fan]\nline = \"GPIO18\"\ndirection = \"out\"\nsafe = \"off\"\nreversible = true\n\
        interlocks = [{ pin = \"lamp\", is = \"inactive\" }]\n";
    let mut scene = Scene::started(&file("", &format!("{fan}{on}{off}{ALLOW_SET}")));
    scene.wait(60_000);
    scene.message("go", "");
    assert_eq!(scene.state.pin_value("fan"), Some(1));
    scene.message("stop", "");
    assert_eq!(scene.state.pin_value("fan"), Some(0));
    assert_eq!(scene.safe().len(), 1);
}

#[test]
fn a_pin_is_not_switched_on_where_that_breaks_the_interlock_of_another() {
    for (interlock, lamp) in [
        ("[{ pin = \"lamp\", is = \"active\" }]", &[][..]),
        ("[{ pin = \"door\", is = \"active\" }]", &[1]),
    ] {
        let mut scene = two_pins("", &format!("interlocks = {interlock}"));
        scene.message("stop", "");
        assert_eq!(scene.state.pin_value("fan"), Some(1), "{interlock}");
        scene.message("go", "");
        assert_eq!(scene.lamp(), lamp, "{interlock}");
        assert_eq!(scene.says("interlock with fan"), lamp.is_empty());
    }
    // The fan needs the lamp on; setting the lamp again breaks nothing.
    let mut scene = two_pins("", "interlocks = [{ pin = \"lamp\", is = \"inactive\" }]");
    scene.message("go", "");
    scene.message("stop", "");
    scene.message("go", "");
    assert_eq!(scene.lamp(), [1, 1]);
}

#[test]
fn only_the_link_a_pin_needs_makes_it_safe() {
    let mut scene = two_pins("needs_link = \"serial\"", "");
    scene.message("go", "");
    scene.message("stop", "");
    let down = |link| Observation::Link { link, up: false };
    scene.see(down(Link::Http));
    assert!(scene.safe().is_empty());
    scene.see(down(Link::Serial));
    assert_eq!(scene.safe().len(), 1);
    assert_eq!(scene.state.pin_value("fan"), Some(1));
}

#[test]
fn the_highest_level_holds_even_if_the_file_was_checked_under_another() {
    let mut scene = two_pins("", "");
    scene.policy.highest = Level::Notify;
    scene.message("go", "");
    assert!(scene.lamp().is_empty());
    assert!(scene.says("its level is above the highest"));
}

#[test]
fn the_oldest_of_too_many_actions_is_forgotten() {
    let publish = "{ publish = \"say\" }, ".repeat(8);
    let mut scene = Scene::started(&file("", &rule("tell", "go", &publish)));
    (0..5).for_each(|_| drop(scene.message("go", "")));
    let acts: Vec<ActId> = scene
        .trace
        .iter()
        .filter_map(|output| match output {
            Output::Act(act) => Some(act.id),
            _ => None,
        })
        .collect();
    assert_eq!(acts.len(), 40);
    assert_eq!(scene.state.drops().acts, 8);
    assert!(scene.says("an outcome is no longer awaited"));
    for (at, words) in [
        (0, "no longer awaited"),
        (8, "came back: Done"),
        (39, "came back: Done"),
    ] {
        let begin = scene.log().len();
        scene.see(Observation::Outcome {
            act: acts[at],
            outcome: Outcome::Done,
        });
        let log = scene.log().split_off(begin);
        assert!(log.iter().any(|line| line.contains(words)), "{at}: {log:?}");
    }
}

#[test]
fn what_finds_no_place_to_wait_is_refused_and_says_so() {
    let publish = "{ publish = \"say\" }, ".repeat(5);
    let rules = rule("one", "go", &publish) + &rule("two", "go", &publish);
    let ask = "[[permissions]]\neffect = \"ask\"\naction = \"publish\"\nvia = [\"mqtt\"]\n";
    let mut scene = Scene::started(&file("", &(rules + ask)));
    scene.message("go", "");
    assert_eq!(scene.state.pending(), 8);
    let full = scene
        .log()
        .into_iter()
        .filter(|line| line.contains("refused: too much waits"));
    assert_eq!(full.count(), 2);
}

#[test]
fn an_action_that_finds_no_place_in_the_outputs_does_not_happen() {
    let publish = "{ publish = \"say\" }, ".repeat(8);
    let mut rules = String::new();
    for number in 0..20 {
        rules.push_str(&rule(&format!("r{number}"), "go", &publish));
    }
    rules.push_str(&rule("last", "go", &set("lamp", "on")).replace("when", "priority = 0\nwhen"));
    let mut scene = Scene::started(&file("", &(rules + ALLOW_SET)));
    scene.wait(1_000);
    scene.message("go", "");
    assert!(scene.lamp().is_empty());
    assert_eq!(scene.state.pin_value("lamp"), Some(0));
    assert_eq!(scene.state.drops().outputs, 0);
}

#[test]
fn a_picture_is_saved_unless_the_disk_is_full() {
    let mut scene = Scene::started(&file("", &rule("keep", "go", "{ snapshot = true }")));
    scene.message("go", "");
    assert!(scene.says("do: save the picture"));
}

#[test]
fn a_stop_withdraws_what_waits_and_tells_whom_it_concerns() {
    let text = file("", &(rule("on", "go", &set("lamp", "on")) + ASK_SET));
    let mut scene = Scene::started(&text);
    scene.message("go", "");
    let id = scene.request().id;
    let outputs = scene.see(Observation::Stop);
    assert!(outputs.contains(&Output::Cancel(Cancelled::Request(id))));
    assert!(scene.says("is refused: the rules changed, the clock went back, or the agent stopped"));
}

#[test]
fn what_a_hook_says_is_noted() {
    let hook = "[hooks.guard]\ncommand = [\"/bin/guard\"]\nbefore = \"set\"\n";
    let text = file(
        "",
        &format!("{hook}{}{ALLOW_SET}", rule("on", "go", &set("lamp", "on"))),
    );
    let mut scene = Scene::started(&text);
    scene.message("go", "");
    scene.hook(ocelli_reflex::observation::HookVerdict::Pass);
    assert!(scene.says("hook guard says Pass"));
}

#[test]
fn of_two_lines_that_ask_the_shorter_time_counts() {
    for [first, second] in [["30 s", "10 s"], ["10 s", "30 s"]] {
        let ask = |expires| ASK_SET.replace("30 s", expires);
        let rules = rule("on", "go", &set("lamp", "on")) + &ask(first) + &ask(second);
        let mut scene = Scene::started(&file("", &rules));
        scene.message("go", "");
        assert_eq!(scene.request().within, 10_000);
    }
}

#[test]
fn a_value_that_is_not_known_yet_is_told_with_care() {
    let servo = "[pins.servo]\nline = \"pwm/18\"\ndirection = \"out\"\nvalues = [0, 180]\nsafe = 0\nreversible = true\n";
    let count = "[[rules]]\nid = \"count\"\nwhen = { topic = \"go\" }\n\
        ask = { question = \"How many?\", count = [0, 20], expect = [0, 20] }\n\
        then = [{ set = \"servo\", value = \"answer\" }]\n";
    let verdict = |lines: &str| {
        let mut scene = Scene::started(&file("", &format!("{servo}{count}{lines}")));
        scene.wait(60_000);
        let local = scene.now().local;
        outline(&scene.policy, &scene.state, local)[0].may[0]
            .verdict
            .clone()
    };
    let day = "values = [10, 20]\nduring = { from = \"08:00\", to = \"20:00\" }\n";
    assert!(verdict(ALLOW_SET).starts_with("allowed by line"));
    let deny = format!("{ALLOW_SET}[[permissions]]\neffect = \"deny\"\naction = \"set\"\n{day}");
    assert!(verdict(&deny).contains("denies it"), "{}", verdict(&deny));
    let allow = format!("{ALLOW_SET}values = [0, 20]\n");
    assert!(
        verdict(&allow).contains("no line allows it"),
        "{}",
        verdict(&allow)
    );
}

#[test]
fn in_a_dry_run_pins_made_safe_are_only_noted() {
    let hold = "{ set = \"lamp\", value = \"on\", for = \"5 s\" }";
    let text = file("", &(rule("on", "go", hold) + ALLOW_SET));
    let mut scene = Scene::started(&text.replace("format = 1", "format = 1\ndry_run = true"));
    scene.wait(60_000);
    scene.message("go", "");
    scene.wait(5_000);
    assert!(scene.lamp().is_empty() && scene.safe().is_empty());
    assert!(scene.says("pin lamp would be made safe: its time is over"));
}

#[test]
fn a_pin_that_new_rules_bring_counts_as_just_switched_off() {
    let text = file(
        "min_off = \"10 s\"",
        &(rule("on", "go", &set("lamp", "on")) + ALLOW_SET),
    );
    let load = |text: &str| load(text, &Inventory::default()).unwrap().policy;
    let with = load(&text);
    let without = load("format = 1\n[topics.go]\npath = \"in/go\"\ndirection = \"in\"\n");
    let mut scene = Scene::started(&text);
    scene.wait(10_000);
    // Away and back again: what was known of the pin is lost.
    for policy in [without, with] {
        scene.see(Observation::Reload);
        scene.policy = policy;
        scene.wait(0);
    }
    scene.wait(9_999);
    scene.message("go", "");
    assert!(scene.lamp().is_empty());
    assert!(scene.says("too soon after the last time on"));
    scene.wait(1);
    scene.message("go", "");
    assert_eq!(scene.lamp(), [1]);
}
