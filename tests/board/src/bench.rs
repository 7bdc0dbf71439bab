//! Guests for tests.

use std::fs;
use std::ops::Deref;
use std::sync::Arc;
use std::thread;

use ocelli_board::{BlockLog, Board, Disk, Error, Image, Options};

use crate::program::Program;

/// What all tests share: the image and the disk with the programs under test.
pub struct Bench {
    image: Image,
    hand_in: Arc<Disk>,
}

/// A guest of one test. When the test fails, its console is printed.
pub struct Guest {
    board: Option<Board>,
}

const PRESENT: &str = "a guest has its board until its power is cut";

impl Bench {
    /// Prepares image and programs.
    ///
    /// # Errors
    ///
    /// Why no test can run here, in words.
    pub fn prepare() -> Result<Bench, String> {
        let prepare = || -> Result<Bench, Error> {
            Ok(Bench {
                image: Image::prepare()?,
                hand_in: Arc::new(hand_in()?),
            })
        };
        prepare().map_err(|error| error.to_string())
    }

    /// Options with the programs handed in.
    pub fn options(&self) -> Options {
        Options {
            hand_in: Some(Arc::clone(&self.hand_in)),
            ..Options::default()
        }
    }

    /// A guest from the snapshot, its camera plugged in.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn guest(&self) -> Guest {
        self.guest_with(&self.options())
    }

    /// A guest from the snapshot with other options.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn guest_with(&self, options: &Options) -> Guest {
        Guest::of(Board::restore(&self.image, options))
    }

    /// A guest that went through a boot.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub fn booted(&self, options: &Options) -> Guest {
        Guest::of(Board::boot(&self.image, options))
    }
}

impl Guest {
    fn of(board: Result<Board, Error>) -> Guest {
        match board {
            Ok(board) => Guest { board: Some(board) },
            Err(error) => panic!("{error}"),
        }
    }

    /// Pulls the plug and returns the data disk.
    pub fn cut_power(mut self) -> Arc<Disk> {
        self.board.take().expect(PRESENT).cut_power()
    }

    /// Pulls the plug and returns every write the data disk saw.
    ///
    /// # Panics
    ///
    /// When the writes were not logged.
    pub fn cut_power_and_read_log(mut self) -> BlockLog {
        let log = self.board.take().expect(PRESENT).cut_power_and_read_log();
        log.unwrap_or_else(|error| panic!("{error}"))
    }
}

impl Deref for Guest {
    type Target = Board;

    fn deref(&self) -> &Board {
        self.board.as_ref().expect(PRESENT)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let (true, Some(board)) = (thread::panicking(), &self.board) {
            eprintln!(
                "last lines of the guest's console:\n{}",
                board.console_tail()
            );
        }
    }
}

fn hand_in() -> Result<Disk, Error> {
    let unusable = |error: std::io::Error| Error::Io {
        what: "collecting the programs under test".to_owned(),
        source: error,
    };
    let folder = tempfile::tempdir().map_err(unusable)?;
    for program in Program::HANDED_IN {
        if let Some(file) = program.file() {
            fs::copy(file, folder.path().join(program.name())).map_err(unusable)?;
        }
    }
    Disk::of_folder(folder.path())
}
