//! Rules that people switch on and off.

use crate::scene::{Scene, file};
use ocelli_reflex::observation::Value;
use ocelli_reflex::{Inventory, Observation, State, load, text};

const RULES: &str = r#"
[[rules]]
id = "tell"
when = { topic = "go" }
then = [{ publish = "say" }]
[[rules]]
id = "after"
when = { rule = "tell" }
then = [{ publish = "say" }]
[[rules]]
id = "off"
enabled = false
when = { topic = "stop" }
then = [{ publish = "say" }]
[[rules]]
id = "fixed"
switchable = false
when = { topic = "stop" }
then = [{ publish = "say" }]
"#;

fn switch(scene: &mut Scene, rule: &str, on: bool) {
    scene.see(Observation::Switch {
        rule: text::name(rule).unwrap(),
        on,
    });
}

fn enabled(scene: &Scene) -> [Option<bool>; 5] {
    ["tell", "after", "off", "fixed", "nobody"]
        .map(|rule| scene.state.is_enabled(&scene.policy, rule))
}

/// Rules that start when a topic speaks.
fn starts(scene: &mut Scene, topic: &str) -> usize {
    scene.trace.clear();
    scene.message(topic, "");
    let log = scene.log();
    log.iter()
        .filter(|line| line.contains(" starts by "))
        .count()
}

#[test]
fn a_rule_that_is_switched_off_does_not_start() {
    let mut scene = Scene::started(&file("", RULES));
    assert_eq!(starts(&mut scene, "go"), 2);
    switch(&mut scene, "after", false);
    assert!(scene.says("rule after is switched off"));
    assert_eq!(starts(&mut scene, "go"), 1, "nor by another rule");
    assert!(scene.says("rule after does not start: it is not enabled"));
    switch(&mut scene, "tell", false);
    assert_eq!(starts(&mut scene, "go"), 0);
    for rule in ["tell", "after"] {
        switch(&mut scene, rule, true);
    }
    assert_eq!(starts(&mut scene, "go"), 2);
}

#[test]
fn the_file_says_who_may_be_switched() {
    let mut scene = Scene::started(&file("", RULES));
    let file_says = [Some(true), Some(true), Some(false), Some(true), None];
    assert_eq!(enabled(&scene), file_says);
    assert_eq!(starts(&mut scene, "stop"), 1);
    switch(&mut scene, "off", true);
    switch(&mut scene, "fixed", false);
    assert!(scene.says("not used: the rule file keeps it as it is"));
    assert_eq!(
        enabled(&scene),
        [Some(true), Some(true), Some(true), Some(true), None]
    );
    assert_eq!(starts(&mut scene, "stop"), 2);
    switch(&mut scene, "nobody", true);
    assert!(scene.says("not used: its name is not in the rule file"));
}

#[test]
fn a_run_under_way_goes_on() {
    let mut scene = Scene::started(&file(
        "",
        r#"
[[rules]]
id = "look"
when = { topic = "go" }
ask = { question = "?", choices = ["yes", "no"], expect = "yes" }
then = [{ publish = "say" }]
"#,
    ));
    scene.message("go", "");
    scene.show();
    switch(&mut scene, "look", false);
    scene.answer(Value::Choice(0), 0.99);
    assert!(scene.says("do: publish say"));
    assert_eq!(starts(&mut scene, "go"), 0);
}

#[test]
fn what_was_switched_stays_so_under_new_rules_and_through_restarts() {
    let mut scene = Scene::started(&file("", RULES));
    switch(&mut scene, "tell", false);
    switch(&mut scene, "off", true);
    let rules = RULES.replace("id = \"after\"", "id = \"other\"");
    let reloaded = load(&file("", &rules), &Inventory::default()).unwrap();
    scene.see(Observation::Reload);
    scene.policy = reloaded.policy;
    scene.wait(1);
    scene.start();
    let kept = [Some(false), None, Some(true), Some(true), None];
    assert_eq!(enabled(&scene), kept);

    let fixed = rules.replace("enabled = false", "enabled = false\nswitchable = false");
    scene.policy = load(&file("", &fixed), &Inventory::default())
        .unwrap()
        .policy;
    scene.wait(1);
    assert_eq!(
        scene.state.is_enabled(&scene.policy, "off"),
        Some(false),
        "the file has the last word about what may not be switched"
    );
    let unseen = State::new();
    assert_eq!(unseen.is_enabled(&scene.policy, "tell"), Some(true));
}
