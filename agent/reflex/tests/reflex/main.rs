//! Tests of rules, permissions and the step, through the public interface.

mod command;
mod example_files;
mod gate;
mod permission;
mod rule_file;
mod run;
mod safety;
mod scene;
mod switch;
