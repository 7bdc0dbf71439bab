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
//! | [`hook`] | programs of the owner that may object, or act |
//! | [`remote`] | a second opinion from another machine |
//! | [`page`] | the page for a person at the device |
//! | [`notify`] | what systemd hears |
//! | [`entry`] | what the agent writes into its journal |
//! | [`journal`] | what happened, kept on disk; not yet part of a verb |
//! | [`authorities`] | certificates |
//! | [`mailbox`], [`secret`] | a queue a loop can sleep on, a text that does not show itself |
//! | [`fault`] | what ends a verb early, and the exit code it means |
//! | [`progress`], [`npy`] | the line on stderr, arrays on disk |

#![forbid(unsafe_code)]

pub mod answer;
pub mod authorities;
pub mod cli;
pub mod entry;
pub mod fault;
pub mod hook;
pub mod journal;
pub mod link;
pub mod mailbox;
pub mod model;
pub mod notify;
pub mod npy;
pub mod page;
pub mod progress;
pub mod remote;
pub mod secret;
pub mod verbs;
pub mod watch;
