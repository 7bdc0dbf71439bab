//! Tests of the program on the emulated board.
//!
//! [`mod@suite`] runs a list of tests and says which were skipped and why; [`mod@bench`] gives each its
//! guest; [`mod@probe`] follows the camera probe in a guest; [`mod@agent`] runs the agent there, between a
//! [`mod@broker`] and a [`mod@peer`]. `OCELLI_BOARD_LONG=1` makes long what has a long version: 30 power cuts,
//! a cable out for two minutes.

#![forbid(unsafe_code)]

pub mod agent;
pub mod bench;
pub mod broker;
pub mod peer;
pub mod probe;
pub mod program;
pub mod suite;
