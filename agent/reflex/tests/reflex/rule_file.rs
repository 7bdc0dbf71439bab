//! Mistakes in rule files: what is said about them, and where.

use crate::scene::file;
use ocelli_reflex::diagnostic::Rejected;
use ocelli_reflex::{Inventory, load};

fn mistakes(rest: &str) -> Rejected {
    match load(&file("", rest), &Inventory::default()) {
        Err(rejected) => rejected,
        Ok(_) => panic!("loads:\n{rest}"),
    }
}

/// A rule with some of its text.
fn rule(text: &str) -> String {
    format!("[[rules]]\nid = \"r\"\n{text}\n")
}

#[test]
fn every_mistake_is_named_with_what_to_do() {
    let go = "when = { topic = \"go\" }\n";
    let ask = |text: &str| {
        rule(&format!(
            "{go}then = [{{ publish = \"say\" }}]\nask = {{ question = \"?\", {text} }}"
        ))
    };
    let then = |text: &str| rule(&format!("{go}then = [{text}]"));
    let when = |text: &str| rule(&format!("when = {text}\nthen = [{{ publish = \"say\" }}]"));
    let cases = [
        (rule(&format!("{go}pritority = 3")), "unknown key `pritority`", "did you mean `priority`?"),
        (ask("chioces = [\"a\", \"b\"]"), "unknown key `chioces`", "did you mean `choices`?"),
        (rule(&format!("{go}priority = \"high\"")), "`priority` is a string, it must be a whole number", "whole number"),
        (rule(&format!("{go}priority = 10")), "`priority` is `10`", "from 0 to 9"),
        (rule(&format!("{go}cooldown = \"5 minutes\"")), "`cooldown` is `5 minutes`", "\"5 min\""),
        (rule(&format!("{go}cooldown = \"99999999999999999999 s\"")), "`cooldown`", "31 days"),
        (rule(&format!("{go}cooldown = \"32 days\"")), "`cooldown`", "31 days"),
        (rule(&format!("{go}cooldown = 5")), "`cooldown` is a integer", "text in quotes"),
        (rule(""), "rule `r` needs `when`", "add `when"),
        ("[[rules]]\nwhen = { topic = \"go\" }\n".to_owned(), "the rule needs `id`", "add `id"),
        (when("{ topic = \"goo\" }"), "there is no topic named `goo`", "did you mean `go`?"),
        (when("{ change = \"portch\" }"), "there is no zone named `portch`", "did you mean `porch`?"),
        (when("{ pin = \"dor\" }"), "there is no pin named `dor`", "did you mean `door`?"),
        (when("{ rule = \"q\" }"), "there is no rule named `q`", "there are: r"),
        (when("{ packet = \"x\" }"), "there is no packet named `x`", "the file defines no packet"),
        (when("{ pin = \"lamp\" }"), "`pin` is `lamp`", "direction = \"in\""),
        (when("{ topic = \"say\" }"), "`topic` is `say`", "direction = \"in\""),
        (when("{ topic = \"go\", pin = \"door\" }"), "exactly one of", "one thing"),
        (when("{ command = \"lmap\" }"), "there is no pin named `lmap`", "did you mean `lamp`?"),
        (when("{ command = \"door\" }"), "`command` is `door`", "direction = \"out\""),
        (when("{ command = \"lamp\", is = \"active\" }"), "`is` is `active`", "one of on, off"),
        (when("{ command = \"lamp\", from = \"mqqt\" }"), "`from` is `mqqt`", "did you mean `mqtt`?"),
        (when("{ command = \"lamp\", from = [] }"), "`from` names no link", "name mqtt"),
        (when("{ command = \"lamp\", edge = \"both\" }"), "`edge` does not belong to `command`", "remove the key"),
        (when("{ topic = \"go\", is = \"on\" }"), "`is` does not belong to `topic`", "remove the key"),
        (rule(&format!("{go}switchable = 1")), "`switchable` is a integer", "true or false"),
        ("[pins.x]\nline = \"serial:x\"\ndirection = \"in\"\n".to_owned(), "`serial:x` is a pin of a microcontroller", "configure [serial]"),
        ("[pins.x]\nline = \"serial:\"\ndirection = \"in\"\n".to_owned(), "`line` is `serial:`", "the name of a pin"),
        ("[pins.x]\nline = \"GPIO4\"\ndirection = \"out\"\nsafe = 0\nvalues = [0, 2]\n".to_owned(), "takes 0 and 1, not values = [0, 2]", "serial:NAME"),
        ("[pins.x]\nline = \"GPIO4\"\ndirection = \"out\"\nsafe = 0\nvalues = [-1, 1]\n".to_owned(), "takes 0 and 1, not values = [-1, 1]", "[0, 1]"),
        (when("{ topic = \"go\", edge = \"both\" }"), "`edge` does not belong to `topic`", "remove the key"),
        (when("{ change = [] }"), "a change in no zone can never happen", "name a zone"),
        (when("{ change = \"porch\", fraction = 1.5 }"), "`fraction` is `1.5`", "from 0 to 1"),
        (when("{ at = \"24:00\" }"), "`at` is `24:00`", "07:30"),
        (when("{ at = \"07:30\", days = [] }"), "`days` can never happen", "name a day"),
        (when("{ at = \"07:30\", days = [\"monday\"] }"), "`days` is `monday`", "one of mon"),
        (when("[{ every = \"1 s\" }, { at = \"07:30\" }]"), "a rule can have one schedule", "second rule"),
        (when("{ at = \"07:30\" }\nduring = { from = \"08:00\", to = \"09:00\" }"), "this time of day can never happen", "move one"),
        (when("{ topic = \"go\" }\nduring = { from = \"08:00\", to = \"08:00\" }"), "`during` can never happen", "whole day"),
        (when("[]"), "`when` is `a array`", "a trigger"),
        (then("{ set = \"lmap\", value = 1 }"), "there is no pin named `lmap`", "did you mean `lamp`?"),
        (then("{ set = \"door\", value = 1 }"), "`set` is `door`", "direction = \"out\""),
        (then("{ set = \"lamp\", value = \"bright\" }"), "`value` is `bright`", "there are: on, off, answer"),
        (then("{ set = \"lamp\", value = 3000000000 }"), "`value` is `3000000000`", "2147483647"),
        (then("{ set = \"lamp\", value = \"answer\" }"), "value = \"answer\" can never happen", "`count`"),
        (then("{ publish = \"say\", payload = \"{anwser}\" }"), "`payload`", "{answer}"),
        (then("{ publish = \"go\" }"), "`publish` is `go`", "direction = \"out\""),
        (then("{ publish = \"say\", hold = \"1 s\" }"), "`hold` does not belong to `publish`", "remove"),
        (then("{ snapshot = false }"), "`snapshot` is `false`", "true"),
        (then("{ event = \"Somebody There\" }"), "`event` is `Somebody There`", "small letters"),
        (then("{}"), "exactly one of", "one thing"),
        (ask("choices = [\"a\"], expect = \"a\""), "`choices`", "at least two"),
        (ask("choices = [\"a\", \"A \"], expect = \"a\""), "`choices` is `A `", "differs"),
        (ask("choices = [\"a\", \"b\"], expect = \"c\""), "there is no choice named `c`", "there are: a, b"),
        (ask("choices = [\"a\", \"b\"], expect = []"), "`then` of rule `r` can never happen", "`expect`"),
        (ask("count = [0, 5], expect = [6, 9]"), "the expected count 6 to 9 can never happen", "answered with"),
        (ask("count = [0, 5000], expect = [6, 9]"), "`count` is `5000`", "1000"),
        (ask("caption = true, agree = { need = 4, of = 3 }"), "agreement of 4 looks can never happen", "at most as many"),
        (ask("schema = \"note\""), "there is no schema named `note`", "defines no schema"),
        (ask("caption = true, second_opinion = true"), "which [remote] does not permit", "images = true"),
        (format!("{}else = [{{ publish = \"say\" }}]\n", ask("caption = true")), "`else` of rule `r` can never happen", "remove the branch"),
        (rule(&format!("{go}else = [{{ publish = \"say\" }}]")), "`else` needs a question", "add `ask`"),
        (rule(go).repeat(2), "the rule `r` is defined twice, first in line", "rename"),
        (format!("{}{}", ask("caption = true"), "[[rules]]\nid = \"s\"\nwhen = { rule = \"r\", answer = \"yes\" }\nthen = [{ publish = \"say\" }]\n"), "the answer `yes` can never happen", "`ends`"),
        (format!("{}{}", ask("choices = [\"a\", \"b\"], expect = \"a\""), "[[rules]]\nid = \"s\"\nwhen = { rule = \"r\", answer = \"c\" }\nthen = [{ publish = \"say\" }]\n"), "rule `r` cannot give it", "there are: a, b"),
        (format!("{}{}", then(""), "[[rules]]\nid = \"s\"\nwhen = { rule = \"r\", ends = \"unsure\" }\nthen = [{ publish = \"say\" }]\n"), "the end `unsure` of rule `r` can never happen", "an end"),
        ("[[rules]]\nid = \"a\"\nwhen = { rule = \"c\" }\n[[rules]]\nid = \"b\"\nwhen = { rule = \"a\" }\n[[rules]]\nid = \"c\"\nwhen = { rule = \"b\" }\n".to_owned(), "in a circle", "something else"),
        (rule("when = { rule = \"r\" }"), "in a circle: r → r", "something else"),
        ("[pins.x]\nline = \"GPIO1\"\ndirection = \"in\"\nmax_on = \"1 s\"\n".to_owned(), "`max_on` is for outputs", "direction = \"out\""),
        ("[pins.x]\nline = \"GPIO1\"\ndirection = \"out\"\n".to_owned(), "[pins.x] needs `safe`", "add `safe"),
        ("[pins.x]\nline = \"GPIO1\"\ndirection = \"out\"\nsafe = \"off\"\ninterlocks = [{ pin = \"x\", is = \"active\" }]\n".to_owned(), "cannot interlock itself", "another pin"),
        ("[topics.x]\npath = \"a/#\"\ndirection = \"in\"\n".to_owned(), "`path` is `a/#`", "wildcards"),
        ("[topics.x]\npath = \"a\"\ndirection = \"in\"\nretain = true\n".to_owned(), "a retained command acts again", "remove"),
        ("[topics.x]\npath = \"in/go\"\ndirection = \"in\"\n".to_owned(), "`in/go` is defined twice", "rename"),
        ("[[permissions]]\neffect = \"alow\"\n".to_owned(), "`effect` is `alow`", "did you mean `allow`?"),
        ("[[permissions]]\neffect = \"deny\"\nrate = { count = 1, per = \"1 s\" }\n".to_owned(), "`rate` has no meaning here", "remove"),
        ("[[permissions]]\neffect = \"ask\"\naction = \"set\"\n".to_owned(), "needs `via`", "add `via"),
        ("[[permissions]]\neffect = \"deny\"\ntarget = \"lamp\"\n".to_owned(), "`target` needs one action", "name the action"),
        ("[[permissions]]\neffect = \"deny\"\nvalues = [0, 1]\n".to_owned(), "`values` belongs to", "action = \"set\""),
        ("[[permissions]]\neffect = \"allow\"\naction = \"set\"\nrate = { count = 33, per = \"1 s\" }\n".to_owned(), "`count` is `33`", "1 to 32"),
    ];
    for (text, problem, help) in &cases {
        let rejected = mistakes(text);
        let found = rejected.diagnostics.iter().any(|diagnostic| {
            let whole = format!("{} {}", diagnostic.problem, diagnostic.help);
            diagnostic.problem.to_string().contains(problem) && whole.contains(help)
        });
        assert!(
            found,
            "{text}\nshould say {problem:?} and {help:?}, says\n{rejected}"
        );
    }
}

#[test]
fn all_mistakes_are_reported_with_line_column_and_text() {
    let text = "format = 1\nzones = [\"porch\"]\n\n[[rules]]\nid = \"r\"\nprority = 1\nwhen = { change = \"ümlaut\", fracton = 1 }\n";
    let rejected = load(text, &Inventory::default()).unwrap_err();
    let places: Vec<(u32, u32)> = rejected
        .diagnostics
        .iter()
        .map(|diagnostic| (diagnostic.line, diagnostic.column))
        .collect();
    assert_eq!(places, [(6, 1), (7, 19), (7, 29)]);
    let shown = rejected.to_string();
    assert!(shown.contains(
        "6:1: error: unknown key `prority` in the rule\n    6 | prority = 1\n      | ^^^^^^^\n      = did you mean `priority`?"
    ), "{shown}");
    assert!(shown.ends_with("the rule file has 3 errors"), "{shown}");
}

#[test]
fn what_is_no_toml_is_reported_where_it_is() {
    let rejected = load("format = 1\nzones = [\n", &Inventory::default()).unwrap_err();
    assert!(rejected.to_string().contains("not TOML"), "{rejected}");
}

#[test]
fn another_format_is_refused() {
    for text in ["", "format = 2", "format = \"1\"", "format = -1"] {
        assert!(load(text, &Inventory::default()).is_err(), "{text}");
    }
    assert!(load("format = 1", &Inventory::default()).is_ok());
}

#[test]
fn a_file_beyond_a_limit_is_refused() {
    let long = format!(
        "format = 1\n# {}",
        "x".repeat(ocelli_reflex::limit::MAX_FILE_BYTES)
    );
    assert!(
        load(&long, &Inventory::default())
            .unwrap_err()
            .to_string()
            .contains("the limit is")
    );
    let rules: String = (0..33)
        .map(|at| format!("[[rules]]\nid = \"r{at}\"\nwhen = {{ topic = \"go\" }}\nthen = [{{ publish = \"say\" }}]\n"))
        .collect();
    assert!(
        mistakes(&rules)
            .to_string()
            .contains("`rules` has 33 rules, the limit is 32")
    );
}

#[test]
fn the_device_is_held_against_the_inventory() {
    let inventory = Inventory {
        zones: Some(vec!["porch".to_owned(), "ramp".to_owned()]),
        lines: Some(vec![ocelli_reflex::load::BoardLine {
            name: "GPIO17".to_owned(),
            aliases: vec!["PIN11".to_owned()],
        }]),
        schemas: Some(vec![]),
        serial: false,
    };
    let pins = "[pins.a]\nline = \"pin11\"\ndirection = \"in\"\n";
    let loaded = load(
        &format!("format = 1\nzones = [\"ramp\"]\n{pins}"),
        &inventory,
    )
    .unwrap();
    assert_eq!(loaded.policy.pins[0].line, "GPIO17");
    for (text, words) in [
        ("zones = [\"rampe\"]".to_owned(), "did you mean `ramp`?"),
        (
            format!("{pins}[pins.b]\nline = \"GPIO17\"\ndirection = \"in\"\n"),
            "are both on line GPIO17",
        ),
        (
            format!("{pins}[pins.b]\nline = \"GPIO18\"\ndirection = \"in\"\n"),
            "did you mean `GPIO17`?",
        ),
        (
            "schemas = [\"x\"]".to_owned(),
            "there is no schema named `x`",
        ),
    ] {
        let rejected = load(&format!("format = 1\n{text}"), &inventory).unwrap_err();
        assert!(rejected.to_string().contains(words), "{rejected}");
    }
}

#[test]
fn pins_of_the_microcontroller_and_of_other_chips_are_taken_as_written() {
    let inventory = Inventory {
        lines: Some(Vec::new()),
        serial: true,
        ..Inventory::default()
    };
    let pin = |name: &str, line: &str, rest: &str| {
        format!("[pins.{name}]\nline = \"{line}\"\ndirection = {rest}\n")
    };
    let out = "\"out\"\nsafe = 90\nvalues = [0, 180]";
    let limited = format!("{out}\nmax_on = \"5 s\"");
    let text = [
        "format = 1\n".to_owned(),
        pin("servo", "serial:servo_1", &limited),
        pin("other", "serial:servo1", &limited),
        pin("button", "serial:1", "\"in\""),
        pin("line", "9030000.pl061/1", "\"out\"\nsafe = \"off\""),
        pin("second", "other/1", "\"in\""),
    ];
    let policy = load(&text.concat(), &inventory).unwrap().policy;
    let names: Vec<_> = policy.pins.iter().map(|pin| pin.serial_name()).collect();
    assert_eq!(
        names,
        [Some("servo_1"), Some("servo1"), Some("1"), None, None]
    );
    assert_eq!(policy.pins[3].line, "9030000.pl061/1");

    let same = [
        pin("a", "chip/1", "\"in\""),
        pin("b", "Chip/gpio01", "\"in\""),
    ]
    .concat();
    let twice = [
        pin("a", "serial:x", "\"in\""),
        pin("b", "serial:x", "\"in\""),
    ]
    .concat();
    for (pins, words) in [
        (pin("servo", "serial:servo", out), "needs `max_on`"),
        (
            pin("lamp", "GPIO17", "\"in\""),
            "there is no line of the board",
        ),
        (same, "are both on line"),
        (twice, "are both on line serial:x"),
    ] {
        let rejected = load(&format!("format = 1\n{pins}"), &inventory).unwrap_err();
        assert!(rejected.to_string().contains(words), "{rejected}");
    }
}

#[test]
fn surprising_files_load_with_warnings() {
    let text = file(
        "evidence = \"5 s\"",
        "[[rules]]\nid = \"idle\"\nwhen = { topic = \"go\" }\n",
    );
    let loaded = load(&text, &Inventory::default()).unwrap();
    assert!(
        loaded.warnings[0]
            .to_string()
            .contains("rule `idle` does nothing")
    );
}
