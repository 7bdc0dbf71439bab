//! What a rule file is held against: lines of the board, zones, schemas.

use crate::fault::Fault;
use ocelli_boards::{Board, BoardError};
use ocelli_reflex::limit::MAX_FILE_BYTES;
use ocelli_reflex::load::BoardLine;
use ocelli_runtime::file::open_regular;
use std::io::{self, Read};
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

/// The board of a name: built in, or a definition file, whose name has a `/` or a `.`.
///
/// # Errors
///
/// There is no such board, or the file cannot be used.
pub fn board(name: &str) -> Result<Board, BoardError> {
    match name.contains(['/', '.']) {
        true => Board::load(Path::new(name)),
        false => Board::by_name(name),
    }
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

/// Reads a rule file; of one that is too long just enough to see that.
///
/// # Errors
///
/// The file cannot be read or is not UTF-8.
pub fn read(path: &Path) -> Result<String, Fault> {
    let mut bytes = Vec::new();
    let unreadable = |source| Fault::Input {
        path: path.to_owned(),
        source,
    };
    open_regular(path)
        .and_then(|file| file.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    let is_too_long = bytes.len() > MAX_FILE_BYTES;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        // It may have been cut within a character, and is refused for its length.
        Err(error) if is_too_long => Ok(String::from_utf8_lossy(error.as_bytes()).into_owned()),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let what = format!("byte {at} is not UTF-8; save the file as UTF-8");
            Err(unreadable(io::Error::new(io::ErrorKind::InvalidData, what)))
        }
    }
}
