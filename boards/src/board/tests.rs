use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::checks::CHECKS;
use super::{Board, BoardError, BoardSource};

fn parse(text: &str) -> Result<Board, BoardError> {
    Board::parse(BoardSource::File(PathBuf::from("my.toml")), text)
}

#[test]
fn every_shipped_definition_passes_its_checks() {
    for name in Board::names() {
        let board = Board::by_name(name).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(board.name, name, "a file is called like its board");
    }
    assert_eq!(Board::built_in().len(), Board::names().count());
}

#[test]
fn every_definition_file_is_shipped() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("definitions");
    let files = std::fs::read_dir(&folder)
        .unwrap()
        .chain(std::fs::read_dir(folder.join("headers")).unwrap());
    let stems = files
        .map(|file| file.unwrap().path())
        .filter(|path| path.is_file());
    for path in stems {
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let known = Board::names().any(|name| name == stem) || super::header_pins(stem).is_some();
        assert!(known, "{} is not in the list", path.display());
    }
}

#[test]
fn no_two_boards_claim_one_device_tree() {
    let mut seen = std::collections::HashSet::new();
    for board in Board::built_in() {
        for entry in board.compatible.clone() {
            assert!(
                seen.insert(entry.clone()),
                "{entry} again in {}",
                board.name
            );
        }
    }
}

#[test]
fn pins_answer_to_names_aliases_and_positions() {
    let pi = Board::by_name("raspberry-pi-5").unwrap();
    assert_eq!(pi.gpio.pins.len(), 28);
    for name in ["GPIO17", "gpio17", "BCM17", "pin11"] {
        assert_eq!(pi.pin(name).map(|pin| pin.line), Some(17), "{name}");
    }
    assert!(pi.pin("SDA1").unwrap().reserved.is_some());
    assert!(pi.pin("pin6").is_none(), "ground is no pin");
    let orin = Board::by_name("jetson-orin-nano").unwrap();
    assert_eq!(
        orin.pin("PAC.06").map(|pin| (pin.line, pin.header)),
        Some((144, Some(7)))
    );
    assert_eq!(
        Board::by_name("jetson-nano")
            .unwrap()
            .pin("pin7")
            .map(|pin| pin.line),
        Some(216)
    );
    assert_eq!(
        (
            pi.cores(),
            Board::by_name("jetson-orin-nx").unwrap().cores()
        ),
        (4, 8)
    );
}

#[test]
fn an_unknown_board_gets_a_suggestion() {
    let error = Board::by_name("raspbery-pi-5").unwrap_err().to_string();
    assert!(
        error.contains("did you mean \"raspberry-pi-5\"?"),
        "{error}"
    );
    let error = Board::by_name("toaster").unwrap_err().to_string();
    assert!(error.contains("known: generic, jetson-nano"), "{error}");
}

/// A change of the text of a shipped board, and the check and the words of the error it makes.
const BROKEN: &[(&str, &str, &str, &[&str])] = &[
    (
        "name = \"raspberry-pi-5\"",
        "name = \"Pi 5\"",
        "the name is plain",
        &["name = Pi 5", "small letters"],
    ),
    (
        "count = 4",
        "count = 0",
        "clusters have cores",
        &["cpu.clusters.cortex-a76.count = 0", "1 to 256"],
    ),
    (
        "max_mhz = 2400",
        "max_mhz = 24",
        "clusters have cores",
        &["max_mhz = 24"],
    ),
    (
        "ram_mb = [1024,",
        "ram_mb = [1,",
        "RAM sizes are sizes",
        &["ram_mb = 1:"],
    ),
    (
        "chips = [\"pinctrl-rp1\"]",
        "chips = []",
        "pins have a chip",
        &["gpio.chips", "gpiodetect"],
    ),
    (
        "header = \"raspberry-pi-40\"",
        "header = \"raspberry-pi-40\"\npins = [{ name = \"X\", line = 5000 }]",
        "pins have a chip",
        &["gpio.pins.X.line = 5000"],
    ),
    (
        "header = \"raspberry-pi-40\"",
        "header = \"raspberry-pi-40\"\npins = [{ name = \"bcm4\", line = 40 }]",
        "pin names are unique",
        &["bcm4"],
    ),
    (
        "header = \"raspberry-pi-40\"",
        "header = \"raspberry-pi-40\"\npins = [{ name = \"a b\", line = 40 }]",
        "pin names are unique",
        &["white space"],
    ),
    (
        "header = \"raspberry-pi-40\"",
        "header = \"raspberry-pi-40\"\npins = [{ name = \"X\", line = 4 }]",
        "no line is listed twice",
        &["gpio.pins.X.line = 4, as of GPIO4"],
    ),
    (
        "header = \"raspberry-pi-40\"",
        "header = \"raspberry-pi-40\"\npins = [{ name = \"X\", line = 40, header = 11 }]",
        "no header position is taken twice",
        &["11, as of GPIO17"],
    ),
    (
        "path = \"/dev/ttyAMA0\"",
        "path = \"/etc/passwd\"",
        "devices are in /dev",
        &["serial.path = /etc/passwd"],
    ),
    (
        "path = \"/dev/i2c-1\"",
        "path = \"/dev/../etc/x\"",
        "devices are in /dev",
        &["i2c.path"],
    ),
    (
        "[throttle]",
        "[throttle]\nfirmware_flags = [\"/proc/x\"]",
        "files are in /sys",
        &["throttle.firmware_flags = /proc/x"],
    ),
    (
        "warm_c = 70",
        "warm_c = nan",
        "temperatures are in order",
        &["thermal.warm_c = NaN"],
    ),
    (
        "hot_c = 80",
        "hot_c = 60",
        "temperatures are in order",
        &["thermal.hot_c = 60", "above warm_c"],
    ),
    (
        "hot_c = 80",
        "hot_c = 80\nhysteresis_c = -1",
        "temperatures are in order",
        &["hysteresis_c = -1"],
    ),
    (
        "low_mb = 256",
        "low_mb = 100",
        "memory limits are in order",
        &["memory.low_mb = 100"],
    ),
    (
        "critical_mb = 128",
        "critical_mb = 0",
        "memory limits are in order",
        &["memory.critical_mb = 0"],
    ),
    (
        "idle_watts = 3.0",
        "idle_watts = inf",
        "the power estimate is possible",
        &["idle_watts = inf"],
    ),
    (
        "load_watts = 8.8",
        "load_watts = 1",
        "the power estimate is possible",
        &["load_watts = 1"],
    ),
    (
        "source = \"raspberry.tips: idle about 3 W, four busy cores 8.8 W\"",
        "source = \" \"",
        "the power estimate is possible",
        &["who measured"],
    ),
    (
        "max_timeout_s = 15",
        "max_timeout_s = 0",
        "the watchdog can wait",
        &["watchdog.max_timeout_s = 0"],
    ),
];

#[test]
fn a_broken_value_names_file_key_value_limit_and_check() {
    let good = Board::text("raspberry-pi-5").unwrap();
    for (from, to, check, words) in BROKEN {
        assert_eq!(good.matches(from).count(), 1, "{from}");
        let error = parse(&good.replace(from, to)).expect_err(to);
        let message = error.to_string();
        assert!(
            matches!(error, BoardError::Invalid { check: failed, .. } if failed == *check),
            "{to}: {message}"
        );
        for word in words.iter().chain(&["my.toml: ", "must be "]) {
            assert!(message.contains(word), "{to}: {message:?} lacks {word:?}");
        }
    }
}

#[test]
fn every_check_is_seen_to_fail() {
    for (name, _) in CHECKS {
        let covered =
            BROKEN.iter().any(|(_, _, check, _)| check == name) || *name == "lists are short";
        assert!(covered, "{name}");
    }
    let many = format!("compatible = [{}]", "\"x\",".repeat(257));
    let text = Board::text("generic")
        .unwrap()
        .replace("compatible = []", &many);
    assert!(
        parse(&text)
            .unwrap_err()
            .to_string()
            .contains("compatible = 257 entries")
    );
}

#[test]
fn an_unknown_key_names_its_line() {
    let text = Board::text("generic")
        .unwrap()
        .replace("chips = []", "chip = []");
    let message = parse(&text).unwrap_err().to_string();
    for word in ["my.toml", "line", "unknown field `chip`", "`chips`"] {
        assert!(message.contains(word), "{message:?} lacks {word:?}");
    }
    assert_eq!(message.lines().count(), 1, "{message:?}");
}

#[test]
fn an_unknown_header_names_the_known_ones() {
    let text = Board::text("generic")
        .unwrap()
        .replace("chips = []", "chips = []\nheader = \"arduino\"");
    let message = parse(&text).unwrap_err().to_string();
    assert!(
        message.contains("\"arduino\"") && message.contains("raspberry-pi-40"),
        "{message}"
    );
}

#[test]
fn a_file_is_loaded_and_named_in_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.toml");
    let missing = Board::load(&path).unwrap_err();
    assert!(
        matches!(missing, BoardError::Read { .. }) && missing.to_string().contains("mine.toml")
    );
    std::fs::write(&path, Board::text("virt").unwrap()).unwrap();
    let board = Board::load(&path).unwrap();
    assert_eq!(
        (board.name.as_str(), board.source()),
        ("virt", &BoardSource::File(path.clone()))
    );
    std::fs::write(&path, "#".repeat(300_000)).unwrap();
    assert!(matches!(
        Board::load(&path).unwrap_err(),
        BoardError::TooLarge { .. }
    ));
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in ".{0,400}") {
        let _ = parse(&text);
    }

    #[test]
    fn no_spoiled_definition_makes_it_panic(at in 0usize..2000, with in "[ -~\n]{0,6}", cut in 0usize..12) {
        let mut text = Board::text("raspberry-pi-5").unwrap().to_owned();
        let from = at % text.len();
        let to = (from + cut).min(text.len());
        if text.is_char_boundary(from) && text.is_char_boundary(to) {
            text.replace_range(from..to, &with);
        }
        let _ = parse(&text);
    }
}
