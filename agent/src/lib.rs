//! The `ocelli` program as a library: its command line and its verbs.
//!
//! | file | defines |
//! |---|---|
//! | [`catalogue`] | models known by name, and what fits which board |
//! | [`cli`] | every flag and verb, once |
//! | [`verbs`] | what each verb does |
//! | [`model`] | which model a name means |
//! | [`answer`] | one question, about a picture or without one, and its report |
//! | [`watch`] | from a camera to pictures worth a question |
//! | [`run`] | the agent: the loop that joins all of it |
//! | [`link`] | serial lines and MQTT |
//! | [`mind`] | the model's part of the agent |
//! | [`entry`] | what the agent writes into its journal |
//! | [`journal`] | what happened, kept on disk |
//! | [`hook`] | programs of the owner that may object, or act |
//! | [`remote`] | a second opinion from another machine |
//! | [`page`] | the page for a person at the device |
//! | [`notify`] | what systemd hears |
//! | [`authorities`] | certificates |
//! | [`mailbox`], [`secret`] | a queue a loop can sleep on, a text that does not show itself |
//! | [`hub`] | published models, fetched |
//! | [`install`], [`room`], [`signature`] | packs put in place: whole, with room, from whom |
//! | [`inventory`] | what a rule file is held against |
//! | [`replay`] | a journal done again: bit for bit, under other rules, answers by the model |
//! | `leftover` | what a signal must not leave behind |
//! | [`fault`] | what ends a verb early, and the exit code it means |
//! | [`wall_clock`] | wall clock readings as text |
//! | [`progress`], `remark` | the line on stderr that is rewritten, lines that stay |
//! | `remedy` | what to do about a file that cannot be written |
//! | [`npy`] | arrays on disk |

#![forbid(unsafe_code)]
// They panic where nothing can be written.
#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]

pub mod answer;
pub mod authorities;
pub mod catalogue;
pub mod cli;
pub mod entry;
pub mod fault;
pub mod gate;
pub mod hook;
pub mod hub;
pub mod install;
pub mod inventory;
pub mod journal;
mod leftover;
pub mod link;
pub mod mailbox;
pub mod mind;
pub mod model;
pub mod notify;
pub mod npy;
pub mod page;
pub mod progress;
pub mod refusal;
mod remark;
mod remedy;
pub mod remote;
pub mod replay;
pub mod room;
pub mod run;
pub mod secret;
pub mod signature;
pub mod threads;
pub mod user_cache;
pub mod verbs;
pub mod wall_clock;
pub mod watch;
