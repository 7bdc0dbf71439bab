//! [`Reply`]: what is said back.

use super::command::{COMMANDS, CommandError};

/// Longest text of one line in bytes; what is longer is cut at a character.
pub const MAX_SAID_BYTES: usize = 480;
/// Most lines of one reply before its last.
pub const MAX_LINES: usize = 64;

/// Text for one line: no control characters, not too long. Whatever a model or a settings file
/// says stays inside its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said(String);

impl Said {
    /// Makes every run of blanks and control characters one blank, and cuts.
    pub fn new(text: &str) -> Said {
        let mut said = String::new();
        for word in text.split(|c: char| c.is_control() || c.is_whitespace()) {
            if word.is_empty() {
                continue;
            }
            if !said.is_empty() {
                said.push(' ');
            }
            said.push_str(word);
            if said.len() > MAX_SAID_BYTES {
                break;
            }
        }
        said.truncate(said.floor_char_boundary(MAX_SAID_BYTES));
        Said(said)
    }

    /// An event: `id,phase,"rule","choice",probability` with the probability in `0..=1` to three
    /// places, given in steps of 1/65535.
    pub fn event(id: u32, phase: &str, rule: &str, choice: &str, probability: u16) -> Said {
        Said::new(&format!(
            "{id},{phase},{},{},{}",
            in_quotes(rule),
            in_quotes(choice),
            share(probability)
        ))
    }

    /// A packet: `name,"body"`. One that is cut has no closing quote.
    pub fn packet(name: &str, body: &str) -> Said {
        Said::new(&format!("{name},{}", in_quotes(body)))
    }

    /// A choice with its probability, `unsure` before it if it does not reach the threshold.
    pub fn choice(choice: &str, probability: u16, is_sure: bool) -> Said {
        let unsure = if is_sure { "" } else { "unsure," };
        Said::new(&format!(
            "{unsure}{},{}",
            in_quotes(choice),
            share(probability)
        ))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn in_quotes(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn share(probability: u16) -> String {
    let mille = (u32::from(probability) * 1000 + 32_767) / 65_535;
    format!("{}.{:03}", mille / 1000, mille % 1000)
}

/// What went wrong, as a number for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ErrorCode {
    /// No such command.
    Unknown = 1,
    /// The line is too long.
    TooLong = 2,
    /// The line is not text.
    NotText = 3,
    /// The arguments are wrong.
    Arguments = 4,
    /// There was no answer in time.
    TimedOut = 5,
    /// A permission denies it.
    Denied = 6,
    /// It was tried and failed.
    Failed = 7,
}

/// The lines that answer one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    lines: Vec<(&'static str, Said)>,
    error: Option<(ErrorCode, Said)>,
}

impl Reply {
    /// Just `OK`.
    pub fn done() -> Reply {
        Reply {
            lines: Vec::new(),
            error: None,
        }
    }

    /// Just `ERROR: code text`.
    pub fn error(code: ErrorCode, text: &str) -> Reply {
        Reply {
            lines: Vec::new(),
            error: Some((code, Said::new(text))),
        }
    }

    /// One line for each text, `+NAME: text`, then `OK`. Beyond [`MAX_LINES`] texts are left out.
    pub fn lines(name: &'static str, texts: impl IntoIterator<Item = Said>) -> Reply {
        Reply {
            lines: texts
                .into_iter()
                .take(MAX_LINES)
                .map(|text| (name, text))
                .collect(),
            error: None,
        }
    }

    /// The list of commands.
    pub fn help() -> Reply {
        let line = |(form, does): &(&str, &str)| Said::new(&format!("{form} {does}"));
        Reply::lines("HELP", COMMANDS.iter().map(line))
    }

    /// Adds the lines, each with its end.
    pub fn write(&self, out: &mut String) {
        for (name, said) in &self.lines {
            push_line(out, &["+", name, ": ", said.as_str()]);
        }
        match &self.error {
            None => push_line(out, &["OK"]),
            Some((code, text)) => {
                push_line(
                    out,
                    &["ERROR: ", &(*code as u8).to_string(), " ", text.as_str()],
                );
            }
        }
    }
}

fn push_line(out: &mut String, parts: &[&str]) {
    parts.iter().for_each(|part| out.push_str(part));
    out.push_str("\r\n");
}

impl From<&CommandError> for Reply {
    fn from(error: &CommandError) -> Reply {
        let code = match error {
            CommandError::TooLong => ErrorCode::TooLong,
            CommandError::NotText => ErrorCode::NotText,
            CommandError::Unknown => ErrorCode::Unknown,
            CommandError::Arguments { .. } => ErrorCode::Arguments,
        };
        Reply::error(code, &error.to_string())
    }
}
