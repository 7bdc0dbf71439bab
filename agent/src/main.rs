//! The `ocelli` program: reads the command line, runs one verb, sets the exit code.
//!
//! Answers go to stdout, everything else to stderr. Exit codes: 0 done, 1 a fault
//! while running, 2 bad arguments or input, 3 model missing or unusable, 4 device missing.

#![forbid(unsafe_code)]

use clap::Parser;
use ocelli_agent::cli::{Cli, Verb};
use ocelli_agent::fault::Fault;
use ocelli_agent::verbs;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match &cli.verb {
        Verb::Caption(args) => verbs::caption::run(&cli.global, args),
        Verb::Ask(args) => verbs::ask::run(&cli.global, args),
        Verb::Watch(args) => verbs::watch::run(&cli.global, args),
        Verb::Run(args) => verbs::run::run(&cli.global, args),
        Verb::Rules(args) => verbs::rules::run(&cli.global, args),
        Verb::Journal(args) => verbs::journal::run(&cli.global, args),
        Verb::Replay(args) => verbs::replay::run(&cli.global, args),
        Verb::Pack(args) => verbs::pack::run(&cli.global, args),
        Verb::Pull(args) => verbs::pull::run(&cli.global, args),
        Verb::Models(args) => verbs::models::run(&cli.global, args),
        Verb::Bench(args) => verbs::bench::run(&cli.global, args),
        Verb::Doctor => verbs::doctor::run(&cli.global),
        Verb::Service(args) => verbs::service::run(args),
        Verb::Completions { shell } => verbs::describe::completions(*shell),
        Verb::Man => verbs::describe::man(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our answers has gone; there is nobody left to tell.
        Err(Fault::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(fault) => {
            fault.report();
            ExitCode::from(fault.exit_code())
        }
    }
}
