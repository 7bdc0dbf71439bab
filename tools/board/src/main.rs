//! The board for a person: prepares the image, or boots into a shell.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use ocelli_board::{Board, Disk, Error, Image, Options, boot_for_a_person};

#[derive(Parser)]
#[command(about = "An emulated arm64 board with a camera")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Fetches packages and builds the guest, unless it is in the cache.
    Image,
    /// Boots the guest into a shell with the camera at /dev/video0.
    Boot {
        /// A folder the guest finds at /board/in.
        #[arg(long, value_name = "DIR")]
        hand_in: Option<PathBuf>,
    },
    /// Runs one shell command in a fresh guest and prints what it prints.
    Run {
        /// The command.
        command: String,
        /// A folder the guest finds at /board/in.
        #[arg(long, value_name = "DIR")]
        hand_in: Option<PathBuf>,
        /// Seconds until the command is given up.
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        limit: u64,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().verb) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("board: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Does what is asked and returns the exit status.
fn run(verb: Verb) -> Result<u8, Error> {
    let image = Image::prepare()?;
    match verb {
        Verb::Image => {
            println!("{}", image.folder().display());
            Ok(0)
        }
        Verb::Boot { hand_in } => boot_for_a_person(&image, hand_in.as_deref()).map(|()| 0),
        Verb::Run {
            command,
            hand_in,
            limit,
        } => {
            let options = Options {
                hand_in: hand_in
                    .as_deref()
                    .map(Disk::of_folder)
                    .transpose()?
                    .map(Arc::new),
                data: Some(Arc::new(Disk::for_data()?)),
                ..Options::default()
            };
            let board = Board::restore(&image, &options)?;
            let output = board.run(&command, Duration::from_secs(limit))?;
            print!("{}", output.stdout);
            eprint!("{}", board.console_tail());
            Ok(u8::try_from(output.status).unwrap_or(1))
        }
    }
}
