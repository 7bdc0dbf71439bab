//! A list of tests, run one after the other: none is lost in silence.

use std::collections::BTreeMap;
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::bench::Bench;
use crate::program::Program;

/// A test that takes longer is stopped, and with it the whole run.
const LIMIT: Duration = Duration::from_secs(240);
/// The same for long tests.
const LONG_LIMIT: Duration = Duration::from_secs(1200);

/// One test.
#[derive(Clone, Copy)]
pub struct Test {
    /// A sentence.
    pub name: &'static str,
    /// What must have been built for it.
    pub needs: &'static [Program],
    /// The test; it panics when it fails.
    pub run: fn(&Bench),
}

/// Makes a [`Test`] of each function, named after it.
#[macro_export]
macro_rules! tests {
    ($needs:expr; $($name:ident),* $(,)?) => {
        &[$($crate::suite::Test { name: stringify!($name), needs: $needs, run: $name }),*]
    };
}

/// What the command line asks for; other options of `cargo test` are accepted and ignored.
struct Request {
    list: bool,
    exact: bool,
    filters: Vec<String>,
}

/// How the tests ended.
#[derive(Default)]
struct Tally {
    passed: usize,
    failed: Vec<&'static str>,
    /// Number of tests by reason.
    skipped: BTreeMap<String, usize>,
}

/// Runs the tests the command line asks for. `OCELLI_BOARD=required` makes a skipped test a
/// failure.
pub fn main(tests: &[Test]) -> ExitCode {
    let request = Request::parse(env::args().skip(1));
    let chosen: Vec<&Test> = tests
        .iter()
        .filter(|test| request.wants(test.name))
        .collect();
    if request.list {
        chosen
            .iter()
            .for_each(|test| println!("{}: test", test.name));
        return ExitCode::SUCCESS;
    }
    let start = Instant::now();
    let bench = if chosen.is_empty() {
        Err(String::new())
    } else {
        Bench::prepare()
    };
    let bench = bench.map(Arc::new);
    let mut tally = Tally::default();
    for test in chosen {
        match &bench {
            Ok(bench) => tally.take(test, bench),
            Err(reason) => tally.skip(test, reason.clone()),
        }
    }
    tally.close(start.elapsed())
}

impl Request {
    fn parse(arguments: impl Iterator<Item = String>) -> Request {
        let mut request = Request {
            list: false,
            exact: false,
            filters: Vec::new(),
        };
        let mut takes_value = false;
        for argument in arguments {
            match argument.as_str() {
                _ if takes_value => takes_value = false,
                "--list" => request.list = true,
                "--exact" => request.exact = true,
                "--format" | "--test-threads" | "--color" | "--skip" | "--logfile" => {
                    takes_value = true
                }
                option if option.starts_with('-') => {}
                _ => request.filters.push(argument),
            }
        }
        request
    }

    fn wants(&self, name: &str) -> bool {
        let fits = |filter: &String| {
            if self.exact {
                name == filter
            } else {
                name.contains(filter)
            }
        };
        self.filters.is_empty() || self.filters.iter().any(fits)
    }
}

impl Tally {
    fn take(&mut self, test: &Test, bench: &Arc<Bench>) {
        let absent = test.needs.iter().find(|program| program.file().is_none());
        if let Some(program) = absent {
            let reason = format!(
                "{} is not built; {}",
                program.name(),
                program.build_command()
            );
            return self.skip(test, reason);
        }
        let start = Instant::now();
        let passed = run(test, Arc::clone(bench));
        let word = if passed { "ok" } else { "FAILED" };
        println!(
            "test {} ... {word} ({:.1} s)",
            test.name,
            start.elapsed().as_secs_f64()
        );
        if passed {
            self.passed += 1;
        } else {
            self.failed.push(test.name);
        }
    }

    fn skip(&mut self, test: &Test, reason: String) {
        println!("test {} ... skipped: {reason}", test.name);
        *self.skipped.entry(reason).or_default() += 1;
    }

    fn close(self, took: Duration) -> ExitCode {
        let run = self.passed + self.failed.len();
        let n_skipped: usize = self.skipped.values().sum();
        let reasons: Vec<_> = self.skipped.into_keys().collect();
        let reasons = if n_skipped == 0 {
            String::new()
        } else {
            format!(": {}", reasons.join("; "))
        };
        println!(
            "board tests: {run} run, {n_skipped} skipped{reasons} ({:.1} s)",
            took.as_secs_f64()
        );
        for name in &self.failed {
            println!("board tests: FAILED: {name}");
        }
        let required = env::var("OCELLI_BOARD").is_ok_and(|value| value == "required");
        if !self.failed.is_empty() || (required && n_skipped > 0) {
            return ExitCode::FAILURE;
        }
        ExitCode::SUCCESS
    }
}

/// Whether tests that have a long version run it: `OCELLI_BOARD_LONG=1`.
pub fn is_long() -> bool {
    env::var("OCELLI_BOARD_LONG").is_ok_and(|value| value == "1")
}

/// Runs one test on a thread of its own; a hang ends the process, and guests die with it.
fn run(test: &Test, bench: Arc<Bench>) -> bool {
    let (done, end) = mpsc::channel();
    let body = test.run;
    thread::spawn(move || {
        let outcome = catch_unwind(AssertUnwindSafe(|| body(&bench)));
        let _ = done.send(outcome.is_ok());
    });
    let limit = if is_long() { LONG_LIMIT } else { LIMIT };
    match end.recv_timeout(limit) {
        Ok(passed) => passed,
        Err(_) => {
            println!("test {} ... FAILED: not done within {limit:?}", test.name);
            std::process::exit(1);
        }
    }
}
