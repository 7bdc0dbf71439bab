//! [`Command`]: what a line asks.

/// Longest line in bytes, without its end.
pub const MAX_LINE_BYTES: usize = 256;
/// Most answers to choose from.
pub const MAX_CHOICES: usize = 16;

/// What a line asks of the agent. Case of the command does not matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `AT`: is anybody there?
    Attention,
    /// `AT+LOOK?`: what is to be seen?
    Look,
    /// `AT+ASK="question"` or `AT+ASK="question","a,b"`.
    Ask {
        /// The question.
        question: String,
        /// Answers to choose from; none for free text.
        choices: Vec<String>,
    },
    /// `AT+STATE?`: how is the agent?
    State,
    /// `AT+PIN=name,0` or `AT+PIN=name,1`.
    Pin {
        /// The pin's name in the settings.
        name: String,
        /// On, or off.
        on: bool,
    },
    /// `AT+PACKET=name` or `AT+PACKET=name,"body"`.
    Packet {
        /// The packet's name in the rule file.
        name: String,
        /// Its body; empty if none is given.
        body: String,
    },
    /// `AT+RULES?`: which rules are there?
    Rules,
    /// `AT+VER?`: which version runs?
    Version,
    /// `AT+HELP?`: which commands are there?
    Help,
}

/// The commands and what they do, as [`Command::Help`] lists them.
pub const COMMANDS: [(&str, &str); 9] = [
    ("AT", "is anybody there?"),
    ("AT+LOOK?", "describe what is to be seen"),
    (
        "AT+ASK=\"question\"[,\"a,b\"]",
        "answer, or choose an answer",
    ),
    ("AT+STATE?", "how the agent is"),
    ("AT+PIN=name,0|1", "switch an output, if rules permit"),
    ("AT+PACKET=name[,\"body\"]", "a packet for the rules"),
    ("AT+RULES?", "list the rules"),
    ("AT+VER?", "program and version"),
    ("AT+HELP?", "this list"),
];

/// Why a line is no command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// It has more bytes than are kept.
    #[error("line longer than {MAX_LINE_BYTES} bytes")]
    TooLong,
    /// It is not UTF-8, or has control characters.
    #[error("line is not plain UTF-8 text")]
    NotText,
    /// No command has that name and form.
    #[error("unknown command; AT+HELP? lists them")]
    Unknown,
    /// What follows `=` is not what the command takes.
    #[error("expected {form}")]
    Arguments {
        /// The form.
        form: &'static str,
    },
}

const ASK_FORM: &str = "AT+ASK=\"question\" or AT+ASK=\"question\",\"a,b\" with 2 to 16 choices";
const PIN_FORM: &str = "AT+PIN=name,0 or AT+PIN=name,1";
const PACKET_FORM: &str = "AT+PACKET=name or AT+PACKET=name,\"body\"";

/// Whether a line begins with `AT`, so that it is answered.
pub fn is_addressed(line: &[u8]) -> bool {
    line.get(..2)
        .is_some_and(|begin| begin.eq_ignore_ascii_case(b"AT"))
}

impl Command {
    /// Reads a line without its end. Blanks around it do not matter.
    ///
    /// # Errors
    ///
    /// See [`CommandError`].
    pub fn parse(line: &[u8]) -> Result<Command, CommandError> {
        if line.len() > MAX_LINE_BYTES {
            return Err(CommandError::TooLong);
        }
        let line = std::str::from_utf8(line).map_err(|_| CommandError::NotText)?;
        let line = line.trim_matches([' ', '\t']);
        if line.chars().any(char::is_control) {
            return Err(CommandError::NotText);
        }
        let (name, arguments) = match line.split_once('=') {
            Some((name, arguments)) => (name, Some(arguments)),
            None => (line, None),
        };
        match (name.to_ascii_uppercase().as_str(), arguments) {
            ("AT", None) => Ok(Command::Attention),
            ("AT+LOOK?", None) => Ok(Command::Look),
            ("AT+STATE?", None) => Ok(Command::State),
            ("AT+RULES?", None) => Ok(Command::Rules),
            ("AT+VER?", None) => Ok(Command::Version),
            ("AT+HELP?", None) => Ok(Command::Help),
            ("AT+ASK", Some(arguments)) => {
                ask(arguments).ok_or(CommandError::Arguments { form: ASK_FORM })
            }
            ("AT+PIN", Some(arguments)) => {
                pin(arguments).ok_or(CommandError::Arguments { form: PIN_FORM })
            }
            ("AT+PACKET", Some(arguments)) => {
                packet(arguments).ok_or(CommandError::Arguments { form: PACKET_FORM })
            }
            _ => Err(CommandError::Unknown),
        }
    }
}

fn ask(arguments: &str) -> Option<Command> {
    let (question, rest) = quoted(arguments)?;
    if question.trim().is_empty() {
        return None;
    }
    let choices = match rest {
        "" => Vec::new(),
        _ => match quoted(rest.strip_prefix(',')?)? {
            (list, "") => choices(&list)?,
            _ => return None,
        },
    };
    Some(Command::Ask { question, choices })
}

fn choices(list: &str) -> Option<Vec<String>> {
    let choices: Vec<String> = list
        .split(',')
        .map(|choice| choice.trim().to_owned())
        .collect();
    let is_sound = (2..=MAX_CHOICES).contains(&choices.len())
        && choices.iter().all(|choice| !choice.is_empty())
        && choices
            .iter()
            .enumerate()
            .all(|(at, choice)| !choices[..at].contains(choice));
    is_sound.then_some(choices)
}

fn pin(arguments: &str) -> Option<Command> {
    let (name, value) = arguments.split_once(',')?;
    let on = match value {
        "0" => false,
        "1" => true,
        _ => return None,
    };
    is_name(name).then(|| Command::Pin {
        name: name.to_owned(),
        on,
    })
}

fn packet(arguments: &str) -> Option<Command> {
    let (name, body) = match arguments.split_once(',') {
        None => (arguments, String::new()),
        Some((name, body)) => match quoted(body)? {
            (body, "") => (name, body),
            _ => return None,
        },
    };
    is_name(name).then(|| Command::Packet {
        name: name.to_owned(),
        body,
    })
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

/// Text between quotes, with `\"` and `\\` for a quote and a backslash, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut rest = text.strip_prefix('"')?.chars();
    let mut inside = String::new();
    loop {
        match rest.next()? {
            '"' => return Some((inside, rest.as_str())),
            '\\' => match rest.next()? {
                escaped @ ('"' | '\\') => inside.push(escaped),
                _ => return None,
            },
            character => inside.push(character),
        }
    }
}
