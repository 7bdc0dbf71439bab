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
use crate::inventory::{board, board_lines, schema_names};
use ocelli_reflex::Inventory;

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

fn inventory(args: &InventoryArgs) -> Result<Inventory, Fault> {
    let lines = args.board.as_deref().map(board);
    let lines = lines
        .transpose()
        .map_err(|error| Fault::Argument(format!("--board: {error}")))?;
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
