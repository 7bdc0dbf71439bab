//! Tests of rules, permissions and the step, through the public interface.

mod example_files;
mod gate;
mod permission;
mod rule_file;
mod run;
mod safety;
mod scene;
