//! One file a verb.

pub mod ask;
pub mod bench;
pub mod caption;
pub mod describe;
pub mod doctor;
pub mod journal;
pub mod models;
pub mod pack;
pub mod pull;
pub mod replay;
pub mod rules;
pub mod run;
pub mod service;
pub mod watch;
