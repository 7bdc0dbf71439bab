//! The `ocelli` program as a library: its command line and its verbs.
//!
//! | file | defines |
//! |---|---|
//! | [`cli`] | every flag and verb, once |
//! | [`verbs`] | what each verb does |
//! | [`model`] | which model a name means |
//! | [`answer`] | one question about one picture, and its report |
//! | [`watch`] | from a camera to pictures worth a question |
//! | [`link`] | serial lines and MQTT; not yet part of a verb |
//! | [`entry`] | what the agent writes into its journal |
//! | [`inventory`] | what a rule file is held against |
//! | [`journal`] | what happened, kept on disk |
//! | [`replay`] | a journal done again: bit for bit, under other rules, answers by the model |
//! | [`fault`] | what ends a verb early, and the exit code it means |
//! | [`wall_clock`] | wall clock readings as text |
//! | [`progress`], [`npy`] | the line on stderr, arrays on disk |

#![forbid(unsafe_code)]

pub mod answer;
pub mod cli;
pub mod entry;
pub mod fault;
pub mod inventory;
pub mod journal;
pub mod link;
pub mod model;
pub mod npy;
pub mod progress;
pub mod replay;
pub mod verbs;
pub mod wall_clock;
pub mod watch;
