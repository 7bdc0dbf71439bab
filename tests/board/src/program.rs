//! Programs under test, built for the board beforehand.

use std::env;
use std::path::{Path, PathBuf};

/// A program that is handed in to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The product.
    Ocelli,
    /// The camera probe of `ocelli-camera`.
    Probe,
}

impl Program {
    /// All of them.
    pub const ALL: [Program; 2] = [Program::Ocelli, Program::Probe];

    /// Its name in the guest, below `/board/in`.
    pub fn name(self) -> &'static str {
        match self {
            Program::Ocelli => "ocelli",
            Program::Probe => "probe",
        }
    }

    /// Its file on the host, if it was built.
    pub fn file(self) -> Option<PathBuf> {
        let (variable, built) = match self {
            Program::Ocelli => ("OCELLI_BOARD_BIN", "ocelli"),
            Program::Probe => ("OCELLI_BOARD_PROBE", "examples/probe"),
        };
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
        let standard = || {
            target
                .join("aarch64-unknown-linux-musl/release")
                .join(built)
        };
        let file = env::var_os(variable).map_or_else(standard, PathBuf::from);
        file.is_file().then_some(file)
    }

    /// The command that builds it.
    pub fn build_command(self) -> &'static str {
        match self {
            Program::Ocelli => "cargo build --release --target aarch64-unknown-linux-musl",
            Program::Probe => {
                "cargo build --release -p ocelli-camera --example probe --target aarch64-unknown-linux-musl"
            }
        }
    }
}
