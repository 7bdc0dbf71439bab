//! `ocelli completions` and `ocelli man`: the command line describes itself.

use crate::cli::Cli;
use crate::fault::Fault;
use clap::CommandFactory;
use std::io::{self, Write};

/// Prints a shell's completion script.
///
/// # Errors
///
/// An output that cannot be written.
pub fn completions(shell: clap_complete::Shell) -> Result<(), Fault> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "ocelli", &mut script);
    io::stdout().write_all(&script)?;
    Ok(())
}

/// Prints the man page with a section for every verb.
///
/// # Errors
///
/// An output that cannot be written.
pub fn man() -> Result<(), Fault> {
    let mut command = Cli::command();
    command.build();
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    for verb in command
        .get_subcommands()
        .filter(|verb| verb.get_name() != "help")
    {
        writeln!(page, ".SH \"OCELLI {}\"", verb.get_name().to_uppercase())?;
        let verb = clap_mangen::Man::new(verb.clone());
        verb.render_description_section(&mut page)?;
        verb.render_synopsis_section(&mut page)?;
        verb.render_options_section(&mut page)?;
    }
    io::stdout().write_all(&page)?;
    Ok(())
}
