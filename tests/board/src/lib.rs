//! Tests of the program on the emulated board.
//!
//! [`mod@suite`] runs a list of tests and says which were skipped and why; [`mod@bench`] gives each its
//! guest; [`mod@probe`] follows the camera probe in a guest.

#![forbid(unsafe_code)]

pub mod bench;
pub mod probe;
pub mod program;
pub mod suite;
