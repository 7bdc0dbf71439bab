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
//! | [`mind`] | the model's part of the agent; not yet part of a verb |
//! | [`entry`] | what the agent writes into its journal |
//! | [`journal`] | what happened, kept on disk; not yet part of a verb |
//! | [`fault`] | what ends a verb early, and the exit code it means |
//! | [`progress`], [`npy`] | the line on stderr, arrays on disk |

#![forbid(unsafe_code)]

pub mod answer;
pub mod cli;
pub mod entry;
pub mod fault;
pub mod journal;
pub mod link;
pub mod mind;
pub mod model;
pub mod npy;
pub mod progress;
pub mod verbs;
pub mod watch;
