//! What a rule file is held against: lines of the board, zones, schemas.

use ocelli_boards::Board;
use ocelli_reflex::load::BoardLine;
use std::io;
use std::path::Path;

/// Lines of a board with every name they go by: aliases and header positions (`pin11`).
pub fn board_lines(board: &Board) -> Vec<BoardLine> {
    let line = |pin: &ocelli_boards::PinDefinition| BoardLine {
        name: pin.name.clone(),
        aliases: pin
            .aliases
            .iter()
            .cloned()
            .chain(pin.header.map(|position| format!("pin{position}")))
            .collect(),
    };
    board.gpio.pins.iter().map(line).collect()
}

/// Names of the schemas in a folder: its `.json` files.
///
/// # Errors
///
/// The folder cannot be listed.
pub fn schema_names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let is_schema = path
            .extension()
            .is_some_and(|extension| extension == "json");
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        names.extend(stem.filter(|_| is_schema).map(str::to_owned));
    }
    names.sort_unstable();
    Ok(names)
}
