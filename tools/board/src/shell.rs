//! Commands in the guest: one at a time in the foreground, a few more in the background.
//!
//! The guest's shell reads from a port of its own. After each command it prints byte 0x1e, the
//! command's number and its status; no command of ours prints that byte. Standard error goes to
//! the console.

use std::time::Duration;

use crate::channel::{Channel, Silence};

const END: u8 = 0x1e;

/// What a command printed and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Exit status as the shell gives it: 128 and the signal for a killed process.
    pub status: i32,
    /// Standard output; bytes that are no UTF-8 are replaced.
    pub stdout: String,
}

/// The line the guest's shell gets for a command. The whole command is one quoted word, so that
/// whatever it holds cannot upset the shell that stays.
pub(crate) fn foreground(command: &str, number: u64) -> String {
    let word = quoted(command);
    format!("(eval {word}) </dev/null 2>/dev/console; printf '\\036%s %s\\n' {number} $?\n")
}

/// The line that starts a command with its output (and input) on a port of its own.
pub(crate) fn background(command: &str, port: usize, number: u64) -> String {
    let word = quoted(command);
    let group = format!("/run/job{port}");
    // The shell answers when the number of the process group is known, so that it can be killed.
    // A port can be open once only.
    format!(
        "rm -f {group}; \
         (setsid sh -c 'echo $$ >{group}; eval \"$1\"' job {word}; printf '\\036%s %s\\n' {number} $?) \
         <>/dev/board{port} >&0 2>/dev/console & \
         while [ ! -s {group} ]; do usleep 2000; done; printf '\\036%s %s\\n' {number} 0\n"
    )
}

/// A text as one word of the shell.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Takes the output of the command with this number, and its status.
pub(crate) fn output(channel: &Channel, number: u64, limit: Duration) -> Result<Output, Silence> {
    loop {
        let mut stdout = channel.take_through(END, limit)?;
        stdout.pop();
        let end = channel.take_through(b'\n', limit)?;
        // What a command left behind that took too long belongs to nobody.
        if let Some(status) = status(&end, number) {
            return Ok(Output {
                status,
                stdout: String::from_utf8_lossy(&stdout).into_owned(),
            });
        }
    }
}

/// One line of a background command, or its end.
pub(crate) enum Line {
    Text(String),
    End { status: i32 },
}

/// Takes the next line of the background command with this number.
pub(crate) fn line(channel: &Channel, number: u64, limit: Duration) -> Result<Line, Silence> {
    loop {
        let bytes = channel.take_through(b'\n', limit)?;
        let (text, end) = match bytes.iter().position(|byte| *byte == END) {
            Some(at) => (&bytes[..at], Some(&bytes[at + 1..])),
            None => (&bytes[..bytes.len() - 1], None),
        };
        match end.map(|end| status(end, number)) {
            None => return Ok(Line::Text(String::from_utf8_lossy(text).into_owned())),
            Some(Some(status)) => return Ok(Line::End { status }),
            Some(None) => {}
        }
    }
}

/// Reads `NUMBER STATUS`, if the number is the right one.
fn status(end: &[u8], number: u64) -> Option<i32> {
    let text = String::from_utf8_lossy(end);
    let (found, status) = text.trim().split_once(' ')?;
    if found.parse() == Ok(number) {
        status.parse().ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_of_another_command_is_not_ours() {
        assert_eq!(status(b"7 0\n", 7), Some(0));
        assert_eq!(status(b"6 0\n", 7), None);
        assert_eq!(status(b"ready\n", 7), None);
    }

    #[test]
    fn a_quote_inside_a_word_stays_inside() {
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
