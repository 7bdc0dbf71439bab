//! `ocelli models remove`: installed models are taken away.

use crate::cli::Global;
use crate::fault::Fault;
use crate::install;
use crate::model::{self, DEFAULT};
use crate::remark::{self, remark};
use serde_json::json;
use std::io::{self, BufRead, IsTerminal, Write};

/// Runs the verb: all names are checked before one is removed, a name given twice counts once.
///
/// # Errors
///
/// A name that is not installed, the built-in model, an answer that is no yes.
pub fn run(global: &Global, names: &[String], yes: bool) -> Result<(), Fault> {
    let installed = model::installed_names();
    let mut once: Vec<&str> = Vec::with_capacity(names.len());
    for name in names {
        if name == DEFAULT {
            return Err(Fault::Argument(format!(
                "{DEFAULT} is built into the program and cannot be removed"
            )));
        }
        if !installed.contains(name) {
            return Err(Fault::Argument(format!(
                "{name} is not installed in {} ({}); packs elsewhere are removed as any file",
                model::installed_dir().display(),
                model::installed_in_words(&installed)
            )));
        }
        if !once.contains(&name.as_str()) {
            once.push(name);
        }
    }
    if !yes && !confirmed(&once)? {
        return Err(Fault::Argument("nothing was removed".to_owned()));
    }
    for name in once {
        install::remove(global, name)?;
        if global.json {
            writeln!(
                io::stdout(),
                "{}",
                json!({ "event": "removed", "name": name })
            )?;
        } else if !global.quiet {
            remark!("ocelli: {name} removed");
        }
    }
    Ok(())
}

/// Asks a person; without one the answer has to stand on the command line.
fn confirmed(names: &[&str]) -> Result<bool, Fault> {
    let input = io::stdin();
    if !input.is_terminal() {
        return Err(Fault::Argument(
            "there is nobody to ask; give --yes to remove without asking".to_owned(),
        ));
    }
    remark::write(format_args!("remove {}? [y/N] ", names.join(", ")));
    let mut answer = String::new();
    input.lock().read_line(&mut answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}
