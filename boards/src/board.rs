//! A board: a definition that was checked, and where it came from.

pub(crate) mod checks;
pub(crate) mod schema;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::Read;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use self::checks::CHECKS;
use self::schema::{Definition, PinDefinition};

/// Largest definition file, in bytes.
pub const MAX_DEFINITION_BYTES: u64 = 256 * 1024;

macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../definitions/", $name, ".toml")))),*]
    };
}

/// The definitions in the program, by name.
const BUILT_IN: &[(&str, &str)] = shipped![
    "generic",
    "jetson-nano",
    "jetson-orin-nano",
    "jetson-orin-nx",
    "raspberry-pi-3b-plus",
    "raspberry-pi-4",
    "raspberry-pi-5",
    "raspberry-pi-zero-2-w",
    "virt",
];

/// Pin headers that several boards have, by name.
const HEADERS: &[(&str, &str)] = shipped![
    "headers/jetson-nano-40",
    "headers/jetson-orin-40",
    "headers/raspberry-pi-40",
];

/// Where a definition came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BoardSource {
    /// It is part of the program.
    BuiltIn,
    /// A file.
    File(PathBuf),
}

impl fmt::Display for BoardSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BoardSource::BuiltIn => f.write_str("built-in definition"),
            BoardSource::File(path) => path.display().fmt(f),
        }
    }
}

/// Why there is no board.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BoardError {
    /// No definition has this name.
    #[error("no board is called {name:?}; {}", crate::suggestion::Hint(.suggestion, .known))]
    Unknown {
        /// The name.
        name: String,
        /// The nearest name, if one is near.
        suggestion: Option<String>,
        /// All names.
        known: String,
    },
    /// The file could not be read.
    #[error("{}: the board definition cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is too large.
    #[error("{}: the board definition has more than {} bytes; is this the right file?", path.display(), MAX_DEFINITION_BYTES)]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file is not TOML, or has a key or a type that no definition has.
    #[error("{from}: {message}")]
    Syntax {
        /// Where it came from.
        from: BoardSource,
        /// Line, key and what was expected.
        message: String,
    },
    /// The file names a header that is not built in.
    #[error(
        "{from}: gpio.header = {name:?}: no built-in header has this name; use one of {known}, or list the pins in gpio.pins"
    )]
    UnknownHeader {
        /// Where it came from.
        from: BoardSource,
        /// The name.
        name: String,
        /// All names.
        known: String,
    },
    /// A value breaks a promise.
    #[error("{from}: {key} = {value}: must be {limit} (check: {check})")]
    Invalid {
        /// Where it came from.
        from: BoardSource,
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// What it should be.
        limit: &'static str,
        /// The check that failed.
        check: &'static str,
    },
}

/// A checked definition. Reading a key cannot fail and needs no further checks.
#[derive(Clone, Debug, PartialEq)]
pub struct Board {
    source: BoardSource,
    definition: Definition,
}

impl Deref for Board {
    type Target = Definition;

    fn deref(&self) -> &Definition {
        &self.definition
    }
}

/// Pins of a header file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    pins: Vec<PinDefinition>,
}

impl Board {
    /// Names of the built-in boards.
    pub fn names() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    /// Text of a built-in definition, as a start for one's own.
    pub fn text(name: &str) -> Option<&'static str> {
        BUILT_IN
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, text)| *text)
    }

    /// The built-in board `name`.
    ///
    /// # Errors
    /// [`BoardError::Unknown`] with the nearest name.
    pub fn by_name(name: &str) -> Result<Board, BoardError> {
        let text = Board::text(name).ok_or_else(|| BoardError::Unknown {
            name: name.to_owned(),
            suggestion: crate::suggestion::nearest(name, Board::names()),
            known: Board::names().collect::<Vec<_>>().join(", "),
        })?;
        Board::parse(BoardSource::BuiltIn, text)
    }

    /// All built-in boards.
    pub fn built_in() -> Vec<Board> {
        let boards = Board::names().map(Board::by_name);
        boards
            .collect::<Result<_, _>>()
            .expect("every shipped definition passes its checks")
    }

    /// The board of a file.
    ///
    /// # Errors
    /// [`BoardError`] if the file cannot be read, is no definition or breaks a check.
    pub fn load(path: &Path) -> Result<Board, BoardError> {
        let mut text = String::new();
        std::fs::File::open(path)
            .and_then(|file| {
                file.take(MAX_DEFINITION_BYTES + 1)
                    .read_to_string(&mut text)
            })
            .map_err(|source| BoardError::Read {
                path: path.to_owned(),
                source,
            })?;
        if text.len() as u64 > MAX_DEFINITION_BYTES {
            return Err(BoardError::TooLarge {
                path: path.to_owned(),
            });
        }
        Board::parse(BoardSource::File(path.to_owned()), &text)
    }

    /// The board of a text; `source` is where it came from.
    ///
    /// # Errors
    /// [`BoardError`] if the text is no definition or breaks a check.
    pub fn parse(source: BoardSource, text: &str) -> Result<Board, BoardError> {
        let mut definition: Definition =
            toml::from_str(text).map_err(|error| BoardError::Syntax {
                from: source.clone(),
                message: in_one_line(&error.to_string()),
            })?;
        if let Some(name) = &definition.gpio.header {
            let mut pins = header_pins(name).ok_or_else(|| BoardError::UnknownHeader {
                from: source.clone(),
                name: name.clone(),
                known: HEADERS
                    .iter()
                    .map(|(name, _)| header_name(name))
                    .collect::<Vec<_>>()
                    .join(", "),
            })?;
            pins.append(&mut definition.gpio.pins);
            definition.gpio.pins = pins;
        }
        for (check, holds) in CHECKS {
            holds(&definition).map_err(|fault| BoardError::Invalid {
                from: source.clone(),
                key: fault.key,
                value: fault.value,
                limit: fault.limit,
                check,
            })?;
        }
        Ok(Board { source, definition })
    }

    /// Where the definition came from.
    pub fn source(&self) -> &BoardSource {
        &self.source
    }

    /// The pin with this name, alias or header position (`pin11`); letter case does not matter.
    pub fn pin(&self, name: &str) -> Option<&PinDefinition> {
        let named = |pin: &&PinDefinition| {
            std::iter::once(&pin.name)
                .chain(&pin.aliases)
                .any(|known| known.eq_ignore_ascii_case(name))
        };
        let pins = &self.gpio.pins;
        pins.iter().find(named).or_else(|| {
            let position: u32 = name
                .strip_prefix("pin")
                .or(name.strip_prefix("PIN"))?
                .parse()
                .ok()?;
            pins.iter().find(|pin| pin.header == Some(position))
        })
    }

    /// Number of cores of all clusters; 0 if the definition does not say.
    pub fn cores(&self) -> u32 {
        self.cpu.clusters.iter().map(|cluster| cluster.count).sum()
    }
}

fn header_name(file: &str) -> &str {
    file.strip_prefix("headers/").unwrap_or(file)
}

fn header_pins(name: &str) -> Option<Vec<PinDefinition>> {
    let (_, text) = HEADERS.iter().find(|(file, _)| header_name(file) == name)?;
    let header: Header = toml::from_str(text).expect("shipped headers parse");
    Some(header.pins)
}

/// The message of the TOML reader without its picture of the line.
fn in_one_line(message: &str) -> String {
    let mut lines = message
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty());
    let place = lines.next().unwrap_or_default().to_owned();
    match lines.rfind(|line| !line.starts_with('|') && !line.contains(" | ")) {
        Some(reason) => format!("{place}: {reason}"),
        None => place,
    }
}
