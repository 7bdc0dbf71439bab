//! Programs under test, built for the board beforehand.

use std::env;
use std::path::{Path, PathBuf};

/// A program under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The product.
    Ocelli,
    /// The camera probe, `ocelli-board-probe`.
    Probe,
    /// The product for this machine, which stays outside.
    Host,
}

impl Program {
    /// Those that go into the guest.
    pub const HANDED_IN: [Program; 2] = [Program::Ocelli, Program::Probe];

    /// Its name; in the guest below `/board/in`.
    pub fn name(self) -> &'static str {
        match self {
            Program::Ocelli | Program::Host => "ocelli",
            Program::Probe => "probe",
        }
    }

    /// Its file on the host, if it was built.
    pub fn file(self) -> Option<PathBuf> {
        let (variable, built) = match self {
            Program::Ocelli => (
                "OCELLI_BOARD_BIN",
                "aarch64-unknown-linux-musl/release/ocelli",
            ),
            Program::Probe => (
                "OCELLI_BOARD_PROBE",
                "aarch64-unknown-linux-musl/release/probe",
            ),
            Program::Host => ("OCELLI_BOARD_HOST_BIN", "debug/ocelli"),
        };
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
        let standard = || target.join(built);
        let file = env::var_os(variable).map_or_else(standard, PathBuf::from);
        file.is_file().then_some(file)
    }

    /// The command that builds it.
    pub fn build_command(self) -> &'static str {
        match self {
            Program::Host => "cargo build --workspace --bin ocelli",
            Program::Ocelli => "cargo build --release --target aarch64-unknown-linux-musl",
            Program::Probe => {
                "cargo build --release -p ocelli-agent -p ocelli-board-probe --target aarch64-unknown-linux-musl"
            }
        }
    }
}
