//! Which board this is.

use crate::board::Board;
use crate::facts::Facts;

/// A board and why it was chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Detection {
    /// The board; `generic` if nothing fits.
    pub board: Board,
    /// Why, in one sentence without full stop.
    pub why: String,
}

/// The board that `facts` describe.
///
/// The device tree lists what a machine is compatible with, the most exact first: the first entry
/// that a board names decides. Of two boards that name it the earlier in `boards` wins, so a user's
/// own definitions come first. Without a match it is the `generic` board.
pub fn detect(facts: &Facts, boards: &[Board]) -> Detection {
    for entry in &facts.compatible {
        if let Some(board) = boards.iter().find(|board| board.compatible.contains(entry)) {
            return Detection {
                board: board.clone(),
                why: format!("the device tree says {entry:?}"),
            };
        }
    }
    let why = match facts.compatible.as_slice() {
        [] => "this machine shows no device tree (/proc/device-tree/compatible)".to_owned(),
        entries => format!(
            "no definition names {}; name one in your own definition",
            entries.join(", ")
        ),
    };
    let own = boards.iter().find(|board| board.name == "generic").cloned();
    let board = own.unwrap_or_else(|| {
        Board::by_name("generic").expect("every shipped definition passes its checks")
    });
    Detection { board, why }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::SystemTime;

    use super::detect;
    use crate::board::{Board, BoardSource};
    use crate::facts::Facts;
    use crate::fixture::Fixture;

    fn facts(compatible: &str) -> Facts {
        let fixture = Fixture::new(&[("proc/device-tree/compatible", compatible)]);
        Facts::read(&fixture.tree(), SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn real_device_trees_are_recognised() {
        for (compatible, name) in [
            (
                "raspberrypi,3-model-b-plus\0brcm,bcm2837\0",
                "raspberry-pi-3b-plus",
            ),
            ("raspberrypi,4-model-b\0brcm,bcm2711\0", "raspberry-pi-4"),
            ("raspberrypi,5-model-b\0brcm,bcm2712\0", "raspberry-pi-5"),
            (
                "raspberrypi,model-zero-2-w\0brcm,bcm2837\0",
                "raspberry-pi-zero-2-w",
            ),
            (
                "nvidia,p3449-0000-b00+p3448-0000-b00\0nvidia,jetson-nano\0nvidia,tegra210\0",
                "jetson-nano",
            ),
            (
                "nvidia,p3768-0000+p3767-0005-super\0nvidia,p3767-0005\0nvidia,tegra234\0",
                "jetson-orin-nano",
            ),
            (
                "nvidia,p3768-0000+p3767-0000\0nvidia,p3767-0000\0nvidia,tegra234\0",
                "jetson-orin-nx",
            ),
            ("linux,dummy-virt\0", "virt"),
        ] {
            let found = detect(&facts(compatible), &Board::built_in());
            assert_eq!(found.board.name, name);
            assert!(
                found.why.starts_with("the device tree says"),
                "{}",
                found.why
            );
        }
    }

    #[test]
    fn the_generic_board_says_why() {
        let unknown = detect(&facts("acme,board\0acme,chip\0"), &Board::built_in());
        assert_eq!(unknown.board.name, "generic");
        assert!(
            unknown.why.contains("acme,board, acme,chip"),
            "{}",
            unknown.why
        );
        let none = detect(&facts(""), &[]);
        assert_eq!(none.board.name, "generic");
        assert!(none.why.contains("no device tree"), "{}", none.why);
    }

    #[test]
    fn a_definition_of_ones_own_comes_first() {
        let file = BoardSource::File(PathBuf::from("my.toml"));
        let text = Board::text("raspberry-pi-5")
            .unwrap()
            .replace("name = \"raspberry-pi-5\"", "name = \"mine\"");
        let mut boards = vec![Board::parse(file.clone(), &text).unwrap()];
        boards.extend(Board::built_in());
        let found = detect(&facts("raspberrypi,5-model-b\0"), &boards);
        assert_eq!(
            (found.board.name.as_str(), found.board.source()),
            ("mine", &file)
        );
    }
}
