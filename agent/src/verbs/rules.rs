//! `ocelli rules`: whether rule files can be used, and what they would do.
//!
//! | file | defines |
//! |---|---|
//! | `check` | every mistake of a file |
//! | `explain` | what one observation would do, or what every rule may do |
//! | [`sentence`] | an observation in words |
//! | [`rehearsal`] | a device in invented time that follows a policy |

mod check;
mod explain;
pub mod rehearsal;
pub mod sentence;

use crate::cli::{Global, InventoryArgs, RulesArgs, RulesVerb};
use crate::fault::Fault;
use crate::inventory::{board_lines, schema_names};
use ocelli_boards::Board;
use ocelli_reflex::Inventory;
use ocelli_reflex::limit::MAX_FILE_BYTES;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Runs the verb.
///
/// # Errors
///
/// See [`Fault`].
pub fn run(global: &Global, args: &RulesArgs) -> Result<(), Fault> {
    match &args.verb {
        RulesVerb::Check(args) => check::run(global, args),
        RulesVerb::Explain(args) => explain::run(global, args),
    }
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
    File::open(path)
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

fn inventory(args: &InventoryArgs) -> Result<Inventory, Fault> {
    let lines = args.board.as_deref().map(board).transpose()?;
    let schemas = args.schemas.as_deref().map(|folder| {
        schema_names(folder).map_err(|source| Fault::Input {
            path: folder.to_owned(),
            source,
        })
    });
    Ok(Inventory {
        zones: args.zones.clone(),
        lines: lines.as_ref().map(board_lines),
        schemas: schemas.transpose()?,
        // The configuration says; here a pin of the microcontroller is taken as it is.
        serial: true,
    })
}

fn board(name: &str) -> Result<Board, Fault> {
    let is_file = name.contains('/') || name.ends_with(".toml");
    let board = if is_file {
        Board::load(Path::new(name))
    } else {
        Board::by_name(name)
    };
    board.map_err(|error| Fault::Argument(format!("--board: {error}")))
}
