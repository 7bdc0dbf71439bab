//! What a program said on its standard output, and what its end means.

use super::MAX_OUTPUT_BYTES;
use ocelli_reflex::observation::{HookVerdict, Outcome};
use serde::Deserialize;

/// Longest remark, in characters.
pub const MAX_REMARK_CHARS: usize = 200;

/// What a program said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// No objection.
    pub pass: bool,
    /// Why; one line, at most [`MAX_REMARK_CHARS`].
    pub reason: String,
}

/// Why an output is no verdict.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerdictError {
    /// Too long.
    #[error("its output is longer than {MAX_OUTPUT_BYTES} bytes")]
    TooLong,
    /// Nothing.
    #[error("it printed nothing; print {{\"verdict\":\"pass\"}} or {{\"verdict\":\"veto\"}}")]
    Empty,
    /// Not a JSON object.
    #[error(
        "its output does not begin with {{; print {{\"verdict\":\"pass\"}} or {{\"verdict\":\"veto\"}} and nothing else"
    )]
    NoObject,
    /// Another word.
    #[error("its verdict is {0:?}; it may be \"pass\" or \"veto\"")]
    Word(String),
    /// Not the object that is expected.
    #[error("its output is no verdict: {0}")]
    Json(#[from] serde_json::Error),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Output {
    // Not an enum: serde reads one from {"pass":null}, too.
    verdict: String,
    reason: Option<String>,
}

/// Reads a verdict: one JSON object `{"verdict":"pass"|"veto","reason":"…"}`, `reason` optional,
/// white space around it allowed, nothing else.
///
/// # Errors
///
/// [`VerdictError`]; it counts as a veto.
pub fn parse(output: &[u8]) -> Result<Said, VerdictError> {
    if output.len() > MAX_OUTPUT_BYTES {
        return Err(VerdictError::TooLong);
    }
    // A struct would also be read from a JSON list.
    match output.trim_ascii().first() {
        None => return Err(VerdictError::Empty),
        Some(b'{') => {}
        Some(_) => return Err(VerdictError::NoObject),
    }
    let output: Output = serde_json::from_slice(output)?;
    let pass = match output.verdict.as_str() {
        "pass" => true,
        "veto" => false,
        other => return Err(VerdictError::Word(one_line(other))),
    };
    Ok(Said {
        pass,
        reason: one_line(&output.reason.unwrap_or_default()),
    })
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By itself, with this code.
    Exited(i32),
    /// By a signal that was not ours.
    Signalled(i32),
    /// Its time was over.
    TimedOut,
    /// It printed more than it may.
    TooLong,
    /// It could not be started or watched.
    Broken(String),
}

/// What an end means: verdict, outcome and remark.
pub(super) fn conclude(
    end: &End,
    output: &[u8],
    complaint: &[u8],
    wants_verdict: bool,
) -> (HookVerdict, Outcome, String) {
    let complaint = one_line(&String::from_utf8_lossy(complaint));
    let failed = |text: String, outcome| {
        let remark = if complaint.is_empty() {
            text
        } else {
            format!("{text}: {complaint}")
        };
        (HookVerdict::Failed, outcome, one_line(&remark))
    };
    match end {
        End::Exited(0) if !wants_verdict => (HookVerdict::Pass, Outcome::Done, complaint),
        End::Exited(0) => match parse(output) {
            Ok(said) if said.pass => (HookVerdict::Pass, Outcome::Done, said.reason),
            Ok(said) => (HookVerdict::Veto, Outcome::Done, said.reason),
            Err(error) => failed(error.to_string(), Outcome::Failed),
        },
        End::Exited(code) => failed(format!("it ended with exit code {code}"), Outcome::Failed),
        End::Signalled(signal) => {
            failed(format!("it was ended by signal {signal}"), Outcome::Failed)
        }
        End::TimedOut => failed("it was not done in time".to_owned(), Outcome::TimedOut),
        End::TooLong => failed(VerdictError::TooLong.to_string(), Outcome::Failed),
        End::Broken(reason) => failed(reason.clone(), Outcome::Failed),
    }
}

/// The first line of a text, without control characters and not too long.
pub(super) fn one_line(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or("");
    let mut chars = line.chars();
    let mut short: String = chars
        .by_ref()
        .take(MAX_REMARK_CHARS)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if chars.next().is_some() {
        short.pop();
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn said(pass: bool, reason: &str) -> Option<Said> {
        Some(Said {
            pass,
            reason: reason.to_owned(),
        })
    }

    #[test]
    fn only_one_sound_object_is_a_verdict() {
        let long = format!("{{\"verdict\":\"pass\"}}{}", " ".repeat(MAX_OUTPUT_BYTES));
        for (output, want) in [
            (r#"{"verdict":"pass"}"#, said(true, "")),
            (" {\"verdict\":\"pass\"}\n", said(true, "")),
            (
                r#"{"reason":"night","verdict":"veto"}"#,
                said(false, "night"),
            ),
            (r#"{"verdict":"veto","reason":"a\nb"}"#, said(false, "a")),
            (
                r#"{"verdict":"veto","reason":"a\u001bb"}"#,
                said(false, "a b"),
            ),
            (r#"{"verdict":"pass","reason":null}"#, said(true, "")),
            ("", None),
            ("pass", None),
            (r#""pass""#, None),
            (r#"["pass",null]"#, None),
            (r#"{"verdict":"PASS"}"#, None),
            (r#"{"verdict":true}"#, None),
            (r#"{"verdict":{"pass":null}}"#, None),
            (r#"{"reason":"x"}"#, None),
            (r#"{"verdict":"pass","force":true}"#, None),
            (r#"{"verdict":"veto","verdict":"pass"}"#, None),
            (r#"{"verdict":"pass"}{"verdict":"veto"}"#, None),
            (r#"{"verdict":"pass"} yes"#, None),
            (r#"{"verdict":"pass""#, None),
            (long.as_str(), None),
        ] {
            assert_eq!(parse(output.as_bytes()).ok(), want, "{output:.60}");
        }
        assert!(parse(b"{\"verdict\":\"pass\",\"reason\":\"\xff\"}").is_err());
    }

    #[test]
    fn only_exit_code_0_with_a_pass_passes() {
        let pass = br#"{"verdict":"pass","reason":"fine"}"#;
        for (end, output, wants, verdict, outcome, remark) in [
            (
                End::Exited(0),
                &pass[..],
                true,
                HookVerdict::Pass,
                Outcome::Done,
                "fine",
            ),
            (
                End::Exited(0),
                br#"{"verdict":"veto","reason":"no"}"#,
                true,
                HookVerdict::Veto,
                Outcome::Done,
                "no",
            ),
            (
                End::Exited(3),
                pass,
                true,
                HookVerdict::Failed,
                Outcome::Failed,
                "it ended with exit code 3: oh",
            ),
            (
                End::Signalled(11),
                pass,
                true,
                HookVerdict::Failed,
                Outcome::Failed,
                "it was ended by signal 11: oh",
            ),
            (
                End::TimedOut,
                pass,
                true,
                HookVerdict::Failed,
                Outcome::TimedOut,
                "it was not done in time: oh",
            ),
            (
                End::TooLong,
                pass,
                true,
                HookVerdict::Failed,
                Outcome::Failed,
                "its output is longer than 65536 bytes: oh",
            ),
            (
                End::Exited(0),
                b"",
                false,
                HookVerdict::Pass,
                Outcome::Done,
                "oh",
            ),
            (
                End::Exited(1),
                pass,
                false,
                HookVerdict::Failed,
                Outcome::Failed,
                "it ended with exit code 1: oh",
            ),
        ] {
            let got = conclude(&end, output, b"oh\nsecond line", wants);
            assert_eq!(got, (verdict, outcome, remark.to_owned()), "{end:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_printed_a_reason_stays_one_short_line(text in ".{0,400}") {
            let line = one_line(&text);
            prop_assert!(line.chars().count() <= MAX_REMARK_CHARS);
            prop_assert!(!line.chars().any(char::is_control));
        }
    }
}
