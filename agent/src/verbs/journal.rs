//! `ocelli journal`: what happened, whether it is whole, and all of it for other programs.
//!
//! | file | defines |
//! |---|---|
//! | `show` | the entries asked for, in words |
//! | `teller` | an entry in words, with the rules the journal keeps |
//! | `verify` | checksums and chain |
//! | `export` | JSON lines, CSV |

mod export;
mod show;
mod teller;
mod verify;

use crate::cli::{Global, JournalArgs, JournalVerb};
use crate::fault::Fault;
use crate::journal::Disk;
use std::io;
use std::path::Path;

/// Runs the verb.
///
/// # Errors
///
/// See [`Fault`].
pub fn run(global: &Global, args: &JournalArgs) -> Result<(), Fault> {
    match &args.verb {
        JournalVerb::Show(args) => show::run(global, args),
        JournalVerb::Verify { folder } => verify::run(global, folder),
        JournalVerb::Export { folder, format } => export::run(folder, *format),
    }
}

/// Opens the folder of a journal, which must be there.
///
/// # Errors
///
/// It is no folder, or holds no journal.
pub fn open(folder: &Path) -> Result<Disk, Fault> {
    let unreadable = |source| Fault::Input {
        path: folder.to_owned(),
        source,
    };
    let names = std::fs::read_dir(folder).map_err(unreadable)?;
    let is_segment = |name: &str| crate::journal::segment::first_of(name).is_some();
    let has_segments = names
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .any(|name| is_segment(&name));
    if !has_segments {
        let what = "it holds no journal: no file is named like 00000000000000000001.journal";
        return Err(unreadable(io::Error::new(io::ErrorKind::NotFound, what)));
    }
    Disk::open(folder).map_err(unreadable)
}

/// Text from a journal without control characters, which a terminal would obey.
pub fn harmless(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            let plain = escaped.is_none().then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}
