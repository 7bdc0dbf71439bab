//! [`Diagnostic`]: a mistake in a rule file, where it is and what to do.

use crate::limit::{MAX_DIAGNOSTICS, MAX_FILE_BYTES};
use std::cell::RefCell;
use std::fmt;

/// A stretch of the file, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// Byte after the last.
    pub end: usize,
}

impl From<std::ops::Range<usize>> for Span {
    fn from(range: std::ops::Range<usize>) -> Span {
        Span {
            start: range.start,
            end: range.end,
        }
    }
}

/// Whether a file with the mistake can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can, but does something unexpected.
    Warning,
}

/// The broken rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The file is too long.
    #[error("the file has {bytes} bytes, the limit is {MAX_FILE_BYTES}")]
    FileTooLong {
        /// Its length.
        bytes: usize,
    },
    /// Not TOML.
    #[error("not TOML: {message}")]
    Syntax {
        /// What the parser says.
        message: String,
    },
    /// The format is of another program version.
    #[error("`format` is {found}, this program reads 1")]
    Format {
        /// The number found.
        found: i64,
    },
    /// A key nothing reads.
    #[error("unknown key `{key}` in {section}")]
    UnknownKey {
        /// The key.
        key: String,
        /// Where.
        section: String,
    },
    /// A key is missing.
    #[error("{section} needs `{key}`")]
    MissingKey {
        /// The key.
        key: String,
        /// Where.
        section: String,
    },
    /// A value of another type.
    #[error("`{key}` is {found}, it must be {wanted}")]
    WrongType {
        /// The key.
        key: String,
        /// Type found.
        found: String,
        /// Type wanted.
        wanted: &'static str,
    },
    /// A value that cannot be read or is out of range.
    #[error("`{key}` is {found}; it must be {wanted}")]
    BadValue {
        /// The key.
        key: String,
        /// The value.
        found: String,
        /// What is allowed.
        wanted: String,
    },
    /// A name nobody defined.
    #[error("there is no {kind} named `{name}`")]
    UnknownName {
        /// Kind of thing.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// The same name twice.
    #[error("the {kind} `{name}` is defined twice, first in line {first}")]
    Duplicate {
        /// Kind of thing.
        kind: &'static str,
        /// The name.
        name: String,
        /// Line of the first.
        first: u32,
    },
    /// Two names for one board line.
    #[error("the pins `{first}` and `{second}` are both on line {line} of the board")]
    SameLine {
        /// First pin.
        first: String,
        /// Second pin.
        second: String,
        /// The line.
        line: String,
    },
    /// More than there may be.
    #[error("{section} has {found} {kind}, the limit is {limit}")]
    TooMany {
        /// Where.
        section: String,
        /// Kind of thing.
        kind: &'static str,
        /// How many there are.
        found: usize,
        /// How many there may be.
        limit: usize,
    },
    /// Two keys that exclude each other, or keys that need another.
    #[error("{section}: {what}")]
    Contradiction {
        /// Where.
        section: String,
        /// What does not fit.
        what: String,
    },
    /// The rule or trigger can never take effect.
    #[error("{what} can never happen: {why}")]
    Unreachable {
        /// Rule, trigger or condition.
        what: String,
        /// Why not.
        why: String,
    },
    /// Rules start each other in a circle.
    #[error("rules start each other in a circle: {path}")]
    Cycle {
        /// Names, joined by arrows.
        path: String,
    },
    /// An action that a line denies.
    #[error("rule `{rule}` can reach {action}, which line {line} denies")]
    ReachesDenied {
        /// The rule.
        rule: String,
        /// The action in words.
        action: String,
        /// The line of the permission.
        line: u32,
    },
    /// An actuation that no line allows.
    #[error("rule `{rule}` can reach {action}, which no permission line allows")]
    ReachesUnpermitted {
        /// The rule.
        rule: String,
        /// The action in words.
        action: String,
    },
    /// An action above the highest level.
    #[error("rule `{rule}` can reach {action} of level {level}, above `highest` = {highest}")]
    ReachesTooHigh {
        /// The rule.
        rule: String,
        /// The action in words.
        action: String,
        /// Its level.
        level: &'static str,
        /// The highest level.
        highest: &'static str,
    },
    /// An action outside the envelope of its pin.
    #[error("rule `{rule}` can reach {action}, outside what pin `{pin}` permits: {limit}")]
    ReachesOutside {
        /// The rule.
        rule: String,
        /// The action in words.
        action: String,
        /// The pin.
        pin: String,
        /// The limit.
        limit: String,
    },
    /// Allowed but surprising.
    #[error("{what}")]
    Suspicious {
        /// What is surprising.
        what: String,
    },
}

/// A mistake, where it is and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether the file can be used.
    pub severity: Severity,
    /// The broken rule.
    pub problem: Problem,
    /// What to do.
    pub help: String,
    /// Where, in bytes.
    pub span: Span,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// The text of the line.
    pub excerpt: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        writeln!(
            f,
            "{}:{}: {severity}: {}",
            self.line, self.column, self.problem
        )?;
        let indent = (self.column as usize).saturating_sub(1);
        let room = self.excerpt.chars().count().saturating_sub(indent);
        let marked = self
            .span
            .end
            .saturating_sub(self.span.start)
            .clamp(1, room.max(1));
        writeln!(f, "{:>5} | {}", self.line, self.excerpt)?;
        writeln!(f, "      | {}{}", " ".repeat(indent), "^".repeat(marked))?;
        write!(f, "      = {}", self.help)
    }
}

/// Why a rule file cannot be used: all its mistakes, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Errors and warnings.
    pub diagnostics: Vec<Diagnostic>,
    /// Mistakes beyond [`MAX_DIAGNOSTICS`] that are not listed.
    pub more: usize,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in &self.diagnostics {
            writeln!(f, "{diagnostic}")?;
        }
        if self.more > 0 {
            writeln!(f, "and {} more", self.more)?;
        }
        let errors = self
            .diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.severity == Severity::Error)
            .count();
        write!(f, "the rule file has {} errors", errors + self.more)
    }
}

impl std::error::Error for Rejected {}

/// Collects the mistakes of a file.
pub(crate) struct Report<'a> {
    text: &'a str,
    found: RefCell<Vec<Diagnostic>>,
    more: RefCell<usize>,
}

impl<'a> Report<'a> {
    pub(crate) fn new(text: &'a str) -> Report<'a> {
        Report {
            text,
            found: RefCell::new(Vec::new()),
            more: RefCell::new(0),
        }
    }

    pub(crate) fn error(&self, span: Span, problem: Problem, help: impl Into<String>) {
        self.add(Severity::Error, span, problem, help.into());
    }

    pub(crate) fn warning(&self, span: Span, problem: Problem, help: impl Into<String>) {
        self.add(Severity::Warning, span, problem, help.into());
    }

    fn add(&self, severity: Severity, span: Span, problem: Problem, help: String) {
        let mut found = self.found.borrow_mut();
        if found.len() >= MAX_DIAGNOSTICS {
            *self.more.borrow_mut() += 1;
            return;
        }
        let (line, column, excerpt) = self.place(span.start);
        found.push(Diagnostic {
            severity,
            problem,
            help,
            span,
            line,
            column,
            excerpt,
        });
    }

    /// Line from 1.
    pub(crate) fn line(&self, at: Span) -> u32 {
        self.place(at.start).0
    }

    fn place(&self, byte: usize) -> (u32, u32, String) {
        let mut byte = byte.min(self.text.len());
        while !self.text.is_char_boundary(byte) {
            byte -= 1;
        }
        let before = &self.text[..byte];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let rest = &self.text[line_start..];
        let excerpt: String = rest
            .lines()
            .next()
            .unwrap_or_default()
            .chars()
            .take(160)
            .collect();
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let column = before[line_start..].chars().count() + 1;
        let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        (small(line), small(column), excerpt)
    }

    pub(crate) fn has_errors(&self) -> bool {
        let errors = |found: &[Diagnostic]| {
            found
                .iter()
                .any(|diagnostic| diagnostic.severity == Severity::Error)
        };
        *self.more.borrow() > 0 || errors(&self.found.borrow())
    }

    pub(crate) fn finish(self) -> Rejected {
        let mut diagnostics = self.found.into_inner();
        diagnostics.sort_by_key(|diagnostic| (diagnostic.span, diagnostic.severity));
        diagnostics.dedup();
        Rejected {
            diagnostics,
            more: self.more.into_inner(),
        }
    }
}

/// "did you mean …", or the list of what there is.
pub fn suggestion<'n>(name: &str, known: impl IntoIterator<Item = &'n str>, kind: &str) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let folded = name.trim().to_lowercase();
    let nearest = known
        .iter()
        .map(|candidate| {
            (
                strsim::osa_distance(&folded, &candidate.to_lowercase()),
                *candidate,
            )
        })
        .min();
    match nearest {
        Some((distance, near))
            if distance <= (near.len() / 3).max(1) && distance * 2 <= near.len() =>
        {
            format!("did you mean `{near}`?")
        }
        _ if known.is_empty() => format!("the file defines no {kind}"),
        _ => format!("there are: {}", known.join(", ")),
    }
}
