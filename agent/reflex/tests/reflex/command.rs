//! Commands of people: rules are written for them, and the gate stands before their actions.

use crate::scene::{Scene, file};
use ocelli_reflex::observation::Link;
use ocelli_reflex::{Inventory, Observation, Output, explain, load, text};

const LAMP: &str = r#"
[[rules]]
id = "on"
when = { command = "lamp", is = "on" }
then = [{ set = "lamp", value = "on" }]
[[rules]]
id = "off"
when = { command = "lamp", is = "off", from = ["serial", "http"] }
then = [{ set = "lamp", value = "off" }]
"#;
const ALLOW: &str = r#"
[[permissions]]
effect = "allow"
action = "set"
"#;

fn command(link: Link, pin: &str, on: bool) -> Observation {
    let pin = text::name(pin).unwrap();
    Observation::Command { link, pin, on }
}

#[test]
fn only_rules_written_for_a_command_start() {
    for (link, on, expected) in [
        (Link::Mqtt, true, &[1][..]),
        (Link::Button, true, &[1]),
        (Link::Serial, false, &[0]),
        (Link::Http, false, &[0]),
        (Link::Mqtt, false, &[]),
    ] {
        let mut scene = Scene::started(&file("", &[LAMP, ALLOW].concat()));
        scene.see(command(link, "lamp", on));
        assert_eq!(scene.lamp(), expected, "{link:?} {on}");
        assert_eq!(
            scene.says("not used: no rule waits for it"),
            expected.is_empty()
        );
    }
}

#[test]
fn a_trigger_without_is_takes_both() {
    let both = LAMP.replace(", is = \"on\"", "");
    let mut scene = Scene::started(&file("", &[&both, ALLOW].concat()));
    scene.see(command(Link::Mqtt, "lamp", false));
    assert_eq!(scene.lamp(), [1]);
}

#[test]
fn a_command_no_rule_takes_is_noted() {
    let mut scene = Scene::started(&file("", ""));
    scene.see(command(Link::Mqtt, "lamp", true));
    assert!(scene.says("not used: no rule waits for it"));
    for pin in ["door", "nothing"] {
        scene.trace.clear();
        scene.see(command(Link::Mqtt, pin, true));
        assert!(
            scene.says("not used: its name is not in the rule file"),
            "{pin}"
        );
    }
    assert!(scene.lamp().is_empty());
}

#[test]
fn a_command_cannot_bypass_the_gate() {
    let deny = "[[permissions]]\neffect = \"deny\"\naction = \"set\"\n\
                during = { from = \"08:00\", to = \"20:00\" }\n";
    let rated = "[[permissions]]\neffect = \"allow\"\naction = \"set\"\n\
                 rate = { count = 1, per = \"1 h\" }\n";
    let guard = "[hooks.guard]\ncommand = [\"guard\"]\nbefore = \"set\"\n";
    let person = "[[permissions]]\neffect = \"ask\"\naction = \"set\"\n\
                  via = \"mqtt\"\nexpires = \"10 s\"\n";
    for (name, lamp, rest, expected) in [
        ("deny", "", vec![ALLOW, deny], &[][..]),
        ("rate", "", vec![rated], &[1]),
        ("hook", "", vec![ALLOW, guard], &[]),
        ("approval", "", vec![ALLOW, person], &[]),
        (
            "interlock",
            "interlocks = [{ pin = \"door\", is = \"active\" }]",
            vec![ALLOW],
            &[],
        ),
        ("minimum off", "max_on = \"1 s\"", vec![ALLOW], &[]),
        ("link", "needs_link = \"mqtt\"", vec![ALLOW], &[]),
    ] {
        let text = file(lamp, &[LAMP, &rest.concat()].concat());
        let mut scene = Scene::new(&text);
        scene.start();
        for _ in 0..2 {
            scene.see(command(Link::Mqtt, "lamp", true));
        }
        assert_eq!(
            scene.lamp(),
            expected,
            "{name}:\n{}",
            scene.log().join("\n")
        );
    }
    let never = file(
        "",
        &[LAMP, ALLOW, "[[permissions]]\neffect = \"deny\"\n"].concat(),
    );
    let rejected = load(&never, &Inventory::default()).unwrap_err().to_string();
    assert!(rejected.contains("which line"), "{rejected}");
    let unpermitted = load(&file("", LAMP), &Inventory::default()).unwrap_err();
    assert!(
        unpermitted
            .to_string()
            .contains("no permission line allows")
    );
    let blind = file("evidence = \"5 s\"", &[LAMP, ALLOW].concat());
    let rejected = load(&blind, &Inventory::default()).unwrap_err().to_string();
    assert!(rejected.contains("needs a picture"), "{rejected}");
}

#[test]
fn a_command_before_the_start_or_after_the_stop_does_nothing() {
    let mut scene = Scene::new(&file("", &[LAMP, ALLOW].concat()));
    scene.see(command(Link::Mqtt, "lamp", true));
    scene.start();
    scene.see(Observation::Stop);
    scene.see(command(Link::Mqtt, "lamp", true));
    assert!(scene.lamp().is_empty());
}

#[test]
fn a_command_may_ask_first() {
    let asks = r#"
[[rules]]
id = "on"
when = { command = "lamp", is = "on" }
evidence = "5 s"
ask = { question = "Is the room empty?", choices = ["yes", "no"], expect = "yes" }
then = [{ set = "lamp", value = "on" }]
"#;
    let mut scene = Scene::started(&file("", &[asks, ALLOW].concat()));
    let outputs = scene.see(command(Link::Http, "lamp", true));
    assert!(
        outputs
            .iter()
            .any(|output| matches!(output, Output::Look(_)))
    );
    assert!(scene.lamp().is_empty());
}

#[test]
fn the_policy_tells_which_pins_take_commands_and_explain_says_why() {
    let scene = Scene::started(&file("", &[LAMP, ALLOW].concat()));
    let takes = |pin| scene.policy.takes_commands(&text::name(pin).unwrap());
    assert_eq!(["lamp", "door", "nothing"].map(takes), [true, false, false]);
    let wish = command(Link::Mqtt, "lamp", true);
    let lines = explain(&scene.policy, &scene.state, &wish, scene.now());
    assert_eq!(lines[0], "rule on starts by its command trigger");
}
