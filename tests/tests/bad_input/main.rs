//! Bad input: damaged models, damaged pictures, wrong arguments.
//!
//! Whatever is wrong, there is an error that names the file or field, the value and the limit; no
//! panic, no partial file, and the command's exit code says whose fault it is: 2 for arguments and
//! pictures, 3 for models.

mod command;
mod directories;
mod packs;
mod pictures;
mod prompts;
mod ruin;
