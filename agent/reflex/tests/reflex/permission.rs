//! Permissions: a table of what is let through and what is not, and why.

use crate::scene::{Scene, file};
use ocelli_reflex::observation::{Approval, HookVerdict, Link, Outcome, Stage, Value};
use ocelli_reflex::{Inventory, Observation, load};

/// What a case expects.
enum Expect {
    /// The lamp is set to these values.
    Lamp(&'static [i32]),
    /// As `Lamp`, and the log says so.
    LampSays(&'static [i32], &'static str),
    /// The file is rejected with this mistake.
    Rejected(&'static str),
}
use Expect::{Lamp, LampSays, Rejected};

struct Case {
    name: &'static str,
    /// Limits of the lamp.
    lamp: &'static str,
    /// Rules and permission lines.
    rest: &'static str,
    script: fn(&mut Scene),
    expect: Expect,
}

const ON: &str = r#"
[[rules]]
id = "on"
when = { topic = "go" }
then = [{ set = "lamp", value = "on" }]
"#;
const ON_BY_MODEL: &str = r#"
[[rules]]
id = "on"
when = { topic = "go" }
choose = { question = "What now?", steps = 2, actions = [{ set = "lamp", value = "on", says = "light" }] }
"#;
const ON_BY_PICTURE: &str = r#"
[[rules]]
id = "on"
when = { topic = "go" }
ask = { question = "Person?", choices = ["yes", "no"], expect = "yes", deadline = "10 min" }
then = [{ set = "lamp", value = "on" }]
"#;
const ALLOW: &str = r#"
[[permissions]]
effect = "allow"
action = "set"
target = "lamp"
"#;
const ASK: &str = r#"
[[permissions]]
effect = "ask"
action = "set"
target = "lamp"
via = ["mqtt", "button"]
expires = "30 s"
"#;
const DENY: &str = r#"
[[permissions]]
effect = "deny"
action = "set"
target = "lamp"
"#;
/// Noon, where the scene begins, is inside.
const DENY_BY_DAY: &str = r#"
[[permissions]]
effect = "deny"
action = "set"
target = "lamp"
during = { from = "08:00", to = "20:00" }
"#;
const GUARD: &str = r#"
[hooks.guard]
command = ["/bin/guard"]
before = "set"
timeout = "2 s"
"#;

fn go(scene: &mut Scene) {
    scene.message("go", "");
}

fn go_twice(scene: &mut Scene) {
    go(scene);
    scene.wait(10);
    go(scene);
}

fn show_and_answer(scene: &mut Scene) {
    go(scene);
    scene.show();
    scene.answer(Value::Choice(0), 0.99);
}

fn cases() -> Vec<Case> {
    macro_rules! case {
        ($name:literal, $lamp:expr, [$($rest:expr),*], $script:expr, $expect:expr) => {
            Case {
                name: $name,
                lamp: $lamp,
                rest: Box::leak([$($rest),*].concat().into_boxed_str()),
                script: $script,
                expect: $expect,
            }
        };
    }
    vec![
        // Defaults.
        case!(
            "an allowed pin is set",
            "",
            [ON, ALLOW],
            go,
            LampSays(&[1], "allowed by line")
        ),
        case!(
            "a pin without a line is an error at load",
            "",
            [ON],
            go,
            Rejected("no permission line allows")
        ),
        case!(
            "a line for another rule allows nothing",
            "",
            [
                ON,
                "[[rules]]\nid = \"other\"\nwhen = { topic = \"stop\" }\nthen = [{ publish = \"say\" }]\n",
                ALLOW,
                "rules = [\"other\"]"
            ],
            go,
            Rejected("no permission line allows")
        ),
        case!(
            "telling needs no line",
            "",
            ["[[rules]]\nid = \"on\"\nwhen = { topic = \"go\" }\nthen = [{ publish = \"say\" }]\n"],
            go,
            LampSays(&[], "no line is against it")
        ),
        // Deny wins.
        case!(
            "deny after allow is an error at load",
            "",
            [ON, ALLOW, DENY],
            go,
            Rejected("which line")
        ),
        case!(
            "deny before allow is an error at load",
            "",
            [ON, DENY, ALLOW],
            go,
            Rejected("which line")
        ),
        case!(
            "deny in a window wins before allow",
            "",
            [ON, DENY_BY_DAY, ALLOW],
            go,
            LampSays(&[], "denies it")
        ),
        case!(
            "deny in a window wins after allow",
            "",
            [ON, ALLOW, DENY_BY_DAY],
            go,
            LampSays(&[], "denies it")
        ),
        case!(
            "deny wins over ask",
            "",
            [ON, ASK, DENY_BY_DAY],
            |scene| {
                go(scene);
                assert!(!scene.says("ask a person"));
            },
            LampSays(&[], "denies it")
        ),
        case!(
            "a broad deny wins over a narrow allow",
            "",
            [
                ON,
                ALLOW,
                "[[permissions]]\neffect = \"deny\"\nduring = { from = \"08:00\", to = \"20:00\" }\n"
            ],
            go,
            LampSays(&[], "denies it")
        ),
        case!(
            "a deny with a prefix wins over an allow by name",
            "",
            [
                ON,
                ALLOW,
                "[[permissions]]\neffect = \"deny\"\naction = \"set\"\ntarget = \"la*\"\n"
            ],
            go,
            Rejected("which line")
        ),
        case!(
            "a deny of the level wins",
            "",
            [
                ON,
                ALLOW,
                "[[permissions]]\neffect = \"deny\"\nlevel = \"actuate-reversible\"\n"
            ],
            go,
            Rejected("which line")
        ),
        case!(
            "a deny of another level does not match",
            "",
            [
                ON,
                ALLOW,
                "[[permissions]]\neffect = \"deny\"\nlevel = \"actuate-irreversible\"\n"
            ],
            go,
            Lamp(&[1])
        ),
        case!(
            "a deny in a list of targets wins",
            "",
            [
                ON,
                ALLOW,
                "[[permissions]]\neffect = \"deny\"\naction = \"set\"\ntarget = [\"lamp\", \"door\"]\n"
            ],
            go,
            Rejected("which line")
        ),
        case!(
            "a deny of the answer's branch reaches other rules too",
            "",
            [
                ON,
                ON_BY_MODEL_TWO,
                ALLOW,
                "[[permissions]]\neffect = \"deny\"\naction = \"set\"\nrules = \"two\"\n"
            ],
            go,
            Rejected("rule `two` can reach")
        ),
        // Names that look alike.
        case!(
            "a capital letter is another name",
            "",
            [
                ON,
                ALLOW,
                "[[permissions]]\neffect = \"deny\"\naction = \"set\"\ntarget = \"Lamp\"\n"
            ],
            go,
            Rejected("no target named `Lamp`")
        ),
        case!(
            "a trailing space is another name",
            "",
            [
                ON,
                ALLOW,
                "[[permissions]]\neffect = \"deny\"\naction = \"set\"\ntarget = \"lamp \"\n"
            ],
            go,
            Rejected("no target named `lamp `")
        ),
        case!(
            "a Cyrillic letter is another name",
            "",
            [
                ON,
                ALLOW,
                "[[permissions]]\neffect = \"deny\"\naction = \"set\"\ntarget = \"l\u{430}mp\"\n"
            ],
            go,
            Rejected("no target named")
        ),
        case!(
            "a pin cannot have a Cyrillic name",
            "",
            [
                ON,
                ALLOW,
                "[pins.l\u{430}mp]\nline = \"GPIO20\"\ndirection = \"in\"\n"
            ],
            go,
            Rejected("")
        ),
        case!(
            "a quoted pin with a Cyrillic name is refused",
            "",
            [
                ON,
                ALLOW,
                "[pins.\"l\u{430}mp\"]\nline = \"GPIO20\"\ndirection = \"in\"\n"
            ],
            go,
            Rejected("a name of 1 to 32 small letters")
        ),
        case!(
            "a second name for the same line is an error",
            "",
            [ON, ALLOW, SECOND, "line = \"GPIO17\"\n"],
            go,
            Rejected("are both on line")
        ),
        case!(
            "a second name in other spelling is an error",
            "",
            [ON, ALLOW, SECOND, "line = \"gpio_17\"\n"],
            go,
            Rejected("are both on line")
        ),
        case!(
            "a second name as a bare number is an error",
            "",
            [ON, ALLOW, SECOND, "line = \"017\"\n"],
            go,
            Rejected("are both on line")
        ),
        case!(
            "a deny whose pattern matches nothing is an error",
            "",
            [
                ON,
                ALLOW,
                "[[permissions]]\neffect = \"deny\"\naction = \"set\"\ntarget = \"lok*\"\n"
            ],
            go,
            Rejected("no target named `lok*`")
        ),
        // Values.
        case!(
            "a value inside the allowed range passes",
            "values = [0, 100]",
            [SET_100, ALLOW, "values = [0, 100]"],
            go,
            Lamp(&[100])
        ),
        case!(
            "a value just above the allowed range is an error",
            "values = [0, 100]",
            [SET_100, ALLOW, "values = [0, 99]"],
            go,
            Rejected("no permission line allows")
        ),
        case!(
            "a value just below a denied range passes",
            "values = [0, 200]",
            [
                SET_100,
                ALLOW,
                "[[permissions]]\neffect = \"deny\"\naction = \"set\"\nvalues = [101, 200]\n"
            ],
            go,
            Lamp(&[100])
        ),
        case!(
            "a value at the edge of a denied range is an error",
            "values = [0, 200]",
            [
                SET_100,
                ALLOW,
                "[[permissions]]\neffect = \"deny\"\naction = \"set\"\nvalues = [100, 200]\n"
            ],
            go,
            Rejected("which line")
        ),
        case!(
            "a value outside the pin's range is an error",
            "values = [0, 99]",
            [SET_100, ALLOW],
            go,
            Rejected("outside what pin `lamp` permits")
        ),
        case!(
            "a counted value that could leave the range is an error",
            "values = [0, 100]",
            [
                COUNT,
                "{ set = \"lamp\", value = \"answer\", times = 6 }]\n",
                ALLOW
            ],
            go,
            Rejected("outside what pin `lamp` permits")
        ),
        case!(
            "a counted value that could be denied is an error",
            "values = [0, 200]",
            [
                COUNT,
                "{ set = \"lamp\", value = \"answer\", times = 5 }]\n",
                ALLOW,
                "[[permissions]]\neffect = \"deny\"\naction = \"set\"\nvalues = [100, 100]\n"
            ],
            go,
            Rejected("which line")
        ),
        case!(
            "a counted value that overflows is an error",
            "values = [0, 2000000000]",
            [
                COUNT,
                "{ set = \"lamp\", value = \"answer\", times = 2000000000 }]\n",
                ALLOW
            ],
            go,
            Rejected("a number of 32 bits")
        ),
        case!(
            "a count above the question's range sets nothing",
            "values = [0, 100]",
            [
                COUNT,
                "{ set = \"lamp\", value = \"answer\", times = 5 }]\n",
                ALLOW
            ],
            |scene| {
                go(scene);
                scene.show();
                scene.answer(Value::Count(u32::MAX), 0.99);
            },
            LampSays(&[], "incomplete or not of the form")
        ),
        case!(
            "a text where a count was asked sets nothing",
            "values = [0, 100]",
            [
                COUNT,
                "{ set = \"lamp\", value = \"answer\", times = 5 }]\n",
                ALLOW
            ],
            |scene| {
                go(scene);
                scene.show();
                scene.answer(Value::Choice(3), 0.99);
            },
            Lamp(&[])
        ),
        // Rates and windows.
        case!(
            "a line's rate limits its actions",
            "",
            [ON, ALLOW, "rate = { count = 1, per = \"1 min\" }"],
            go_twice,
            LampSays(&[1], "does not allow it so often")
        ),
        case!(
            "a rate ends exactly after its time",
            "",
            [ON, ALLOW, "rate = { count = 1, per = \"1 min\" }"],
            |scene| {
                go(scene);
                scene.wait(59_999);
                go(scene);
                scene.wait(1);
                go(scene);
            },
            Lamp(&[1, 1])
        ),
        case!(
            "a second allow does not lift the rate of the first",
            "",
            [ON, ALLOW, "rate = { count = 1, per = \"1 min\" }", ALLOW],
            go_twice,
            Lamp(&[1])
        ),
        case!(
            "two rules share the rate of a pin",
            "rate = { count = 1, per = \"1 min\" }",
            [ON, OTHER_ON, ALLOW],
            |scene| {
                go(scene);
                scene.message("stop", "");
            },
            LampSays(&[1], "the pin may not be set so often")
        ),
        case!(
            "an allow in its window passes at the begin",
            "",
            [ON, ALLOW, "during = { from = \"12:00\", to = \"13:00\" }"],
            go,
            Lamp(&[1])
        ),
        case!(
            "an allow in a window ends before its end",
            "",
            [ON, ALLOW, "during = { from = \"12:00\", to = \"13:00\" }"],
            |scene| {
                scene.clock(12, 59, 59);
                go(scene);
                scene.clock(13, 0, 0);
                go(scene);
            },
            LampSays(&[1], "no line allows it")
        ),
        case!(
            "an allow in a window needs a known time",
            "",
            [ON, ALLOW, "during = { from = \"00:00\", to = \"23:59\" }"],
            |scene| {
                scene.local = None;
                go(scene);
            },
            LampSays(&[], "no line allows it")
        ),
        case!(
            "a deny in a window holds when the time is not known",
            "",
            [
                ON,
                ALLOW,
                "[[permissions]]\neffect = \"deny\"\naction = \"set\"\nduring = { from = \"03:00\", to = \"04:00\" }\n"
            ],
            |scene| {
                go(scene);
                scene.local = None;
                go(scene);
            },
            LampSays(&[1], "denies it")
        ),
        case!(
            "a deny over midnight holds after midnight",
            "",
            [
                ON,
                ALLOW,
                "[[permissions]]\neffect = \"deny\"\naction = \"set\"\nduring = { from = \"22:00\", to = \"06:00\" }\n"
            ],
            |scene| {
                scene.clock(5, 59, 59);
                go(scene);
                scene.clock(6, 0, 0);
                go(scene);
            },
            Lamp(&[1])
        ),
        case!(
            "a clock that goes back frees no rate",
            "",
            [ON, ALLOW, "rate = { count = 1, per = \"1 min\" }"],
            |scene| {
                go(scene);
                scene.ms -= 500_000;
                go(scene);
                scene.wait(59_000);
                go(scene);
            },
            LampSays(&[1], "the clock went back")
        ),
        case!(
            "a clock that goes back makes pins safe",
            "",
            [ON, ALLOW],
            |scene| {
                go(scene);
                scene.ms -= 1;
                scene.see(Observation::Tick);
                assert_eq!(scene.state.pin_value("lamp"), Some(0));
            },
            LampSays(&[1], "make all pins safe: the clock went back")
        ),
        case!(
            "a new file does not reset the rate of a pin",
            "rate = { count = 1, per = \"1 min\" }",
            [ON, ALLOW],
            |scene| {
                go(scene);
                scene.see(Observation::Reload);
                scene.policy.fingerprint += 1;
                go(scene);
            },
            LampSays(&[1], "the pin may not be set so often")
        ),
        case!(
            "a new file does not reset the rate of a line",
            "",
            [ON, ALLOW, "rate = { count = 1, per = \"1 min\" }"],
            |scene| {
                go(scene);
                scene.see(Observation::Reload);
                scene.policy.fingerprint += 1;
                go(scene);
            },
            LampSays(&[1], "does not allow it so often")
        ),
        case!(
            "a restart does not reset the rate of a pin",
            "rate = { count = 1, per = \"1 min\" }",
            [ON, ALLOW],
            |scene| {
                go(scene);
                scene.ms = 5;
                scene.start();
                go(scene);
            },
            Lamp(&[1])
        ),
        // People.
        case!(
            "an action that asks waits for a person",
            "",
            [ON, ASK],
            go,
            LampSays(&[], "ask a person about")
        ),
        case!(
            "a person may say yes",
            "",
            [ON, ASK],
            |scene| {
                go(scene);
                let request = scene.request();
                scene.approve(&request, true);
            },
            LampSays(&[1], "allowed by a person")
        ),
        case!(
            "a person may say no",
            "",
            [ON, ASK],
            |scene| {
                go(scene);
                let request = scene.request();
                scene.approve(&request, false);
                scene.approve(&request, true);
            },
            LampSays(&[], "a person said no")
        ),
        case!("ask wins over allow", "", [ON, ALLOW, ASK], go, Lamp(&[])),
        case!(
            "no answer is a no",
            "",
            [ON, ASK],
            |scene| {
                go(scene);
                scene.wait(30_000);
            },
            LampSays(&[], "nobody answered in time")
        ),
        case!(
            "a yes that comes too late is refused",
            "",
            [ON, ASK],
            |scene| {
                go(scene);
                let request = scene.request();
                scene.ms += 30_000;
                scene.approve(&request, true);
            },
            LampSays(&[], "decided or expired already")
        ),
        case!(
            "a yes counts once",
            "",
            [ON, ASK],
            |scene| {
                go(scene);
                let request = scene.request();
                scene.approve(&request, true);
                scene.approve(&request, true);
            },
            LampSays(&[1], "decided or expired already")
        ),
        case!(
            "a yes to one request is none to the next",
            "",
            [ON, ASK],
            |scene| {
                go(scene);
                let first = scene.request();
                scene.approve(&first, false);
                go(scene);
                scene.approve(&first, true);
            },
            Lamp(&[])
        ),
        case!(
            "the number of one request does not fit another",
            "",
            [ON, ASK],
            |scene| {
                go(scene);
                let first = scene.request();
                scene.approve(&first, false);
                go(scene);
                let mut second = scene.request();
                second.nonce = first.nonce;
                scene.approve(&second, true);
            },
            LampSays(&[], "its number does not fit")
        ),
        case!(
            "a made-up number is refused and the right one still counts",
            "",
            [ON, ASK],
            |scene| {
                go(scene);
                let request = scene.request();
                let mut forged = request.clone();
                forged.nonce ^= 1;
                scene.approve(&forged, true);
                assert!(scene.lamp().is_empty());
                scene.approve(&request, true);
            },
            LampSays(&[1], "its number does not fit")
        ),
        case!(
            "a yes over a link that may not decide is refused",
            "",
            [ON, ASK],
            |scene| {
                go(scene);
                let request = scene.request();
                scene.approve_over(&request, true, Link::Http);
            },
            LampSays(&[], "a link that may not decide")
        ),
        case!(
            "two lines that ask let only their common link decide",
            "",
            [
                ON,
                ASK,
                "[[permissions]]\neffect = \"ask\"\naction = \"set\"\nvia = \"button\"\n"
            ],
            |scene| {
                go(scene);
                let request = scene.request();
                scene.approve_over(&request, true, Link::Mqtt);
                assert!(scene.lamp().is_empty());
                scene.approve_over(&request, true, Link::Button);
            },
            Lamp(&[1])
        ),
        case!(
            "a yes the broker had kept is refused",
            "",
            [ON, ASK],
            |scene| {
                go(scene);
                let request = scene.request();
                scene.see(Observation::Approval(Approval {
                    request: request.id,
                    nonce: request.nonce,
                    granted: true,
                    link: Link::Mqtt,
                    retained: true,
                }));
            },
            LampSays(&[], "the broker had kept it")
        ),
        case!(
            "a deny that begins while a person thinks wins",
            "",
            [
                ON,
                ASK,
                "[[permissions]]\neffect = \"deny\"\naction = \"set\"\nduring = { from = \"12:01\", to = \"13:00\" }\n"
            ],
            |scene| {
                go(scene);
                let request = scene.request();
                scene.clock(12, 1, 0);
                scene.approve(&request, true);
            },
            LampSays(&[], "denies it")
        ),
        case!(
            "a new file takes back what waits",
            "",
            [ON, ASK],
            |scene| {
                go(scene);
                let request = scene.request();
                scene.see(Observation::Reload);
                scene.policy.fingerprint += 1;
                scene.approve(&request, true);
            },
            LampSays(&[], "decided or expired already")
        ),
        case!(
            "a new file that comes unannounced takes back what waits",
            "",
            [ON, ASK],
            |scene| {
                go(scene);
                let request = scene.request();
                scene.policy.fingerprint += 1;
                scene.approve(&request, true);
            },
            LampSays(&[], "decided or expired already")
        ),
        case!(
            "a stop takes back what waits",
            "",
            [ON, ASK],
            |scene| {
                go(scene);
                let request = scene.request();
                scene.see(Observation::Stop);
                scene.approve(&request, true);
                scene.start();
                scene.approve(&request, true);
            },
            Lamp(&[])
        ),
        case!(
            "the same action waits once only",
            "",
            [ON, ASK],
            |scene| {
                go_twice(scene);
                let request = scene.request();
                scene.approve(&request, true);
            },
            LampSays(&[1], "the same action waits already")
        ),
        case!(
            "the picture of an approved action may not be too old",
            "evidence = \"5 s\"",
            [ON_BY_PICTURE, ASK],
            |scene| {
                show_and_answer(scene);
                let request = scene.request();
                scene.wait(5_001);
                scene.approve(&request, true);
            },
            LampSays(&[], "the picture is 5001 ms old")
        ),
        // Hooks.
        case!(
            "a hook without objection lets pass",
            "",
            [GUARD, ON, ALLOW],
            |scene| {
                go(scene);
                assert!(scene.lamp().is_empty());
                scene.hook(HookVerdict::Pass);
            },
            Lamp(&[1])
        ),
        case!(
            "a hook may veto",
            "",
            [GUARD, ON, ALLOW],
            |scene| {
                go(scene);
                scene.hook(HookVerdict::Veto);
                scene.hook(HookVerdict::Pass);
            },
            LampSays(&[], "hook guard objects")
        ),
        case!(
            "a hook that fails is a veto",
            "",
            [GUARD, ON, ALLOW],
            |scene| {
                go(scene);
                scene.hook(HookVerdict::Failed);
            },
            LampSays(&[], "hook guard failed or was too slow")
        ),
        case!(
            "a hook that is too slow is a veto",
            "",
            [GUARD, ON, ALLOW],
            |scene| {
                go(scene);
                scene.ms += 2000;
                scene.hook(HookVerdict::Pass);
            },
            LampSays(&[], "hook guard failed or was too slow")
        ),
        case!(
            "a hook is not even asked about what is denied",
            "",
            [GUARD, ON, ALLOW, DENY_BY_DAY],
            |scene| {
                go(scene);
                assert!(!scene.says("ask hook"));
            },
            LampSays(&[], "denies it")
        ),
        case!(
            "a hook's pass does not lift a deny that began meanwhile",
            "",
            [
                GUARD,
                ON,
                ALLOW,
                "[[permissions]]\neffect = \"deny\"\naction = \"set\"\nduring = { from = \"12:01\", to = \"13:00\" }\n"
            ],
            |scene| {
                go(scene);
                scene.clock(12, 1, 0);
                scene.hook(HookVerdict::Pass);
            },
            LampSays(&[], "denies it")
        ),
        case!(
            "a hook's pass does not replace a person",
            "",
            [GUARD, ON, ASK],
            |scene| {
                go(scene);
                scene.hook(HookVerdict::Pass);
            },
            LampSays(&[], "ask a person")
        ),
        case!(
            "every hook must pass",
            "",
            [
                GUARD,
                "[hooks.second]\ncommand = [\"/bin/second\"]\nbefore = \"set\"\n",
                ON,
                ALLOW
            ],
            |scene| {
                go(scene);
                scene.hook(HookVerdict::Pass);
                scene.hook(HookVerdict::Veto);
            },
            LampSays(&[], "hook second objects")
        ),
        // Models and chains.
        case!(
            "a model's choice passes the same gate",
            "",
            [ON_BY_MODEL, ALLOW, DENY_BY_DAY],
            show_and_answer,
            LampSays(&[], "denies it")
        ),
        case!(
            "a model's choice that is allowed is done",
            "",
            [ON_BY_MODEL, ALLOW],
            show_and_answer,
            Lamp(&[1])
        ),
        case!(
            "a model's choice of a denied pin is an error at load",
            "",
            [ON_BY_MODEL, ALLOW, DENY],
            go,
            Rejected("which line")
        ),
        case!(
            "a model cannot choose beyond its list",
            "",
            [ON_BY_MODEL, ALLOW],
            |scene| {
                go(scene);
                scene.show();
                scene.answer(Value::Choice(200), 1.0);
            },
            Lamp(&[])
        ),
        case!(
            "a model may choose nothing",
            "",
            [ON_BY_MODEL, ALLOW],
            |scene| {
                go(scene);
                scene.show();
                scene.answer(Value::Choice(1), 1.0);
            },
            Lamp(&[])
        ),
        case!(
            "a model's steps are capped",
            "",
            [ON_BY_MODEL, ALLOW],
            |scene| {
                go(scene);
                for _ in 0..2 {
                    scene.show();
                    scene.answer(Value::Choice(0), 1.0);
                }
                let look = scene.look();
                let frame = scene.frame();
                scene.see(Observation::Looked {
                    look: look.id,
                    frame: Some(frame),
                });
            },
            LampSays(&[1, 1], "the model picks nothing more")
        ),
        case!(
            "a rule started by a rule passes the same gate",
            "",
            [CHAIN, ALLOW, DENY_BY_DAY],
            go,
            LampSays(&[], "denies it")
        ),
        case!(
            "a rule started by a rule cannot reach a denied pin",
            "",
            [CHAIN, ALLOW, DENY],
            go,
            Rejected("rule `second` can reach")
        ),
        case!(
            "an early answer moves nothing",
            "",
            [EARLY, ALLOW],
            |scene| {
                go(scene);
                scene.show();
                let time = scene.ms;
                scene.answer_of(Value::Choice(0), 1.0, time, Stage::Early);
            },
            LampSays(&[], "do: publish say")
        ),
        // Ways in.
        case!(
            "a message the broker had kept starts nothing",
            "",
            [ON, ALLOW],
            |scene| {
                scene.message_over(Link::Mqtt, "go", "", true);
            },
            LampSays(&[], "the broker had kept it")
        ),
        case!(
            "a message over the wrong link starts nothing",
            "",
            [ON, ALLOW],
            |scene| {
                scene.message_over(Link::Serial, "go", "", false);
                scene.message_over(Link::Http, "go", "", false);
            },
            LampSays(&[], "it came over Serial")
        ),
        case!(
            "a message on an outgoing topic starts nothing",
            "",
            [ON, ALLOW],
            |scene| {
                scene.message("say", "");
            },
            LampSays(&[], "its name is not in the rule file")
        ),
        case!(
            "a text that was cut equals nothing",
            "",
            [ON_BY_WORD, ALLOW],
            |scene| {
                let mut long = "x".repeat(256);
                long.push('y');
                scene.message("go", &long);
                scene.message("go", "X");
                scene.message("go", " ON");
            },
            Lamp(&[])
        ),
        case!(
            "nothing acts before the start",
            "",
            [ON, ALLOW],
            |scene| {
                scene.see(Observation::Stop);
                go(scene);
            },
            LampSays(&[], "the agent is not running")
        ),
        case!(
            "a dry run hands out no action",
            "",
            ["", ON, ALLOW],
            |scene| {
                scene.policy.dry_run = true;
                go(scene);
                scene.message("go", "");
            },
            LampSays(&[], "dry run, would do: set lamp = 1")
        ),
        case!(
            "a failed action leaves the pin safe",
            "",
            [ON, ALLOW],
            |scene| {
                go(scene);
                scene.finish(Outcome::Failed);
                assert_eq!(scene.state.pin_value("lamp"), Some(0));
            },
            LampSays(&[1], "make pin lamp safe: setting it failed")
        ),
    ]
}

const ON_BY_MODEL_TWO: &str = r#"
[[rules]]
id = "two"
when = { topic = "stop" }
then = [{ set = "lamp", value = "on" }]
"#;
const OTHER_ON: &str = ON_BY_MODEL_TWO;
const SECOND: &str = r#"
[pins.second]
direction = "out"
safe = "off"
"#;
const SET_100: &str = r#"
[[rules]]
id = "on"
when = { topic = "go" }
then = [{ set = "lamp", value = 100 }]
"#;
const COUNT: &str = r#"
[[rules]]
id = "on"
when = { topic = "go" }
ask = { question = "How many?", count = [0, 20], expect = [0, 20] }
then = ["#;
const CHAIN: &str = r#"
[[rules]]
id = "first"
when = { topic = "go" }
then = [{ publish = "say" }]
[[rules]]
id = "second"
when = { rule = "first" }
then = [{ set = "lamp", value = "on" }]
"#;
const EARLY: &str = r#"
[[rules]]
id = "on"
when = { topic = "go" }
ask = { question = "Person?", choices = ["yes", "no"], expect = "yes", early = true }
then = [{ publish = "say" }, { set = "lamp", value = "on" }]
"#;
const ON_BY_WORD: &str = r#"
[[rules]]
id = "on"
when = { topic = "go", equals = "ON" }
then = [{ set = "lamp", value = "on" }]
"#;

#[test]
fn actions_pass_only_where_lines_and_limits_let_them() {
    let cases = cases();
    assert!(cases.len() >= 40);
    let mut wrong = Vec::new();
    for case in &cases {
        if let Err(what) = run(case) {
            wrong.push(format!("{}: {what}", case.name));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

fn run(case: &Case) -> Result<(), String> {
    let text = file(case.lamp, case.rest);
    let loaded = load(&text, &Inventory::default());
    let (lamp, says) = match (&case.expect, loaded) {
        (Rejected(words), Err(rejected)) => {
            let shown = rejected.to_string();
            let found = shown.contains(words);
            return if found {
                Ok(())
            } else {
                Err(format!("rejected with\n{shown}"))
            };
        }
        (Rejected(_), Ok(_)) => return Err("loaded".to_owned()),
        (_, Err(rejected)) => return Err(format!("rejected with\n{rejected}")),
        (Lamp(lamp), Ok(_)) => (*lamp, ""),
        (LampSays(lamp, says), Ok(_)) => (*lamp, *says),
    };
    let mut scene = Scene::started(&text);
    (case.script)(&mut scene);
    if scene.lamp() != lamp {
        return Err(format!(
            "lamp {:?}\n{}",
            scene.lamp(),
            scene.log().join("\n")
        ));
    }
    if !scene.says(says) {
        return Err(format!("does not say {says:?}\n{}", scene.log().join("\n")));
    }
    Ok(())
}

#[test]
fn actions_above_the_highest_level_are_errors_at_load() {
    for (highest, reversible, is_good) in [
        ("actuate-irreversible", false, true),
        ("actuate-reversible", true, true),
        ("actuate-reversible", false, false),
        ("notify", true, false),
        ("observe", true, false),
    ] {
        let text = file("", &[ON, ALLOW].concat())
            .replace(
                "format = 1",
                &format!("format = 1\nhighest = \"{highest}\""),
            )
            .replace("reversible = true", &format!("reversible = {reversible}"));
        let loaded = load(&text, &Inventory::default());
        assert_eq!(loaded.is_ok(), is_good, "{highest} {reversible}");
    }
}
