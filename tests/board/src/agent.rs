//! The agent as it runs in a guest: its files, its process, what it kept.

use std::thread;
use std::time::Duration;

use ocelli_board::{Board, Job};
use serde_json::Value;

use crate::program::Program;

/// How long a test waits for something that should come.
const LIMIT: Duration = Duration::from_secs(60);
/// How long an agent may be silent before a failed test has read all it said.
const QUIET: Duration = Duration::from_millis(100);
/// Folder of the configuration in the guest, on the data disk.
const FOLDER: &str = "/data/porch";
/// Folder of everything kept.
pub const STATE: &str = "/data/state";

/// What every configuration of the tests begins with.
const DEVICE: &str = r#"format = 1
rules = "rules.toml"
state = "/data/state"
[device]
name = "porch"
board = "virt"
[clock]
trusted = true
"#;

/// The serial line of the board.
pub const SERIAL: &str = "[serial]\ndevice = \"/dev/ttyS0\"\n";
/// The camera of the board.
pub const CAMERA: &str = "[camera]\nsource = \"v4l2:/dev/video0\"\nany_quality = true\n";

/// An agent that runs. Dropping it kills it, and says what it said if the test fails.
pub struct Agent<'a> {
    board: &'a Board,
    /// Present until the agent is abandoned.
    job: Option<Job<'a>>,
}

/// Writes rules and configuration; `tables` are added to what all have.
///
/// # Panics
///
/// When the guest does not take them.
pub fn configure(board: &Board, tables: &[&str], rules: &str) {
    board.sh(&format!("mkdir -p {FOLDER}")).unwrap();
    let configuration = format!("{DEVICE}{}", tables.join("\n"));
    let file = format!("{FOLDER}/ocelli.toml");
    board.put(&file, configuration.as_bytes()).unwrap();
    write_rules(board, rules);
    board.sh("sync").unwrap();
}

/// Writes other rules; a running agent has to be told.
///
/// # Panics
///
/// When the guest does not take them.
pub fn write_rules(board: &Board, rules: &str) {
    let file = format!("{FOLDER}/rules.toml");
    board.put(&file, rules.as_bytes()).unwrap();
}

/// The command that runs the agent with more arguments.
pub fn command(arguments: &str) -> String {
    let program = Program::Ocelli.name();
    format!("/board/in/{program} run --config {FOLDER}/ocelli.toml {arguments}")
}

impl<'a> Agent<'a> {
    /// Starts it.
    ///
    /// # Panics
    ///
    /// When the guest cannot.
    pub fn start(board: &'a Board) -> Agent<'a> {
        let job = board
            .spawn(&format!("exec {} 2>&1", command("")))
            .unwrap_or_else(|error| panic!("{error}"));
        let job = Some(job);
        Agent { board, job }
    }

    /// Waits for a line on its standard error.
    ///
    /// # Panics
    ///
    /// When it does not come, with those that came.
    pub fn await_line(&self, word: &str) -> String {
        let lines = self.job().lines_until(LIMIT, |line| line.contains(word));
        let mut lines = lines.unwrap_or_else(|error| panic!("no {word:?}: {error}"));
        lines.pop().unwrap_or_default()
    }

    /// Sends a signal, such as `HUP`.
    ///
    /// # Panics
    ///
    /// When the guest cannot.
    pub fn signal(&self, name: &str) {
        self.job().signal(name).unwrap();
    }

    /// Waits for its end; the exit code.
    ///
    /// # Panics
    ///
    /// When it does not end.
    pub fn wait(&self) -> i32 {
        self.job()
            .wait(LIMIT)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Leaves it alone, because its board is about to lose its power.
    pub fn abandon(mut self) {
        std::mem::forget(self.job.take());
    }

    /// Ends it in order.
    ///
    /// # Panics
    ///
    /// When it does not end so.
    pub fn stop(self) {
        self.signal("TERM");
        assert_eq!(self.wait(), 0, "{}", self.board.console_tail());
    }

    fn job(&self) -> &Job<'a> {
        self.job.as_ref().expect("present until it is abandoned")
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        if let (true, Some(job)) = (thread::panicking(), &self.job) {
            eprintln!("what the agent said and nobody read:");
            while let Ok(Some(line)) = job.line(QUIET) {
                eprintln!("{line}");
            }
        }
    }
}

/// Every record of the journal, oldest first.
///
/// # Panics
///
/// When the journal is damaged.
pub fn journal(board: &Board) -> Vec<Value> {
    let program = Program::Ocelli.name();
    let output = board
        .run(
            &format!("/board/in/{program} journal export {STATE}/journal"),
            LIMIT,
        )
        .unwrap();
    assert_eq!(output.status, 0, "{}", board.console_tail());
    let lines = output.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Checks checksums and chain of the journal.
///
/// # Panics
///
/// When anything is damaged.
pub fn verify_journal(board: &Board) {
    let program = Program::Ocelli.name();
    let output = board
        .run(
            &format!("/board/in/{program} journal verify {STATE}/journal 2>&1"),
            LIMIT,
        )
        .unwrap();
    assert_eq!(output.status, 0, "{}", output.stdout);
}

/// Pictures that are kept.
///
/// # Panics
///
/// When the guest dies.
pub fn n_pictures(board: &Board) -> usize {
    let names = board.sh(&format!("ls {STATE}/snapshots")).unwrap();
    names.lines().filter(|name| name.ends_with(".jpg")).count()
}

/// Waits until exactly so many pictures are kept.
///
/// # Panics
///
/// When they are not in time.
pub fn await_pictures(board: &Board, n: usize) {
    let test = format!("[ $(ls {STATE}/snapshots | grep -c jpg) = {n} ]");
    board.await_true(&test, LIMIT).unwrap();
}
