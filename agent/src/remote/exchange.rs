//! The request, and what an answer means.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::json;

/// What a question is to be answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// One of these.
    Choices(Vec<String>),
    /// A whole number from the first to the second.
    Count(u32, u32),
    /// Free text.
    Text,
}

/// What an answer means.
#[derive(Clone, Debug, PartialEq)]
pub struct Heard {
    /// The answer; `None`: it is none of those that may be, so the model is unsure.
    pub finding: Option<Finding>,
    /// What was said, whole.
    pub text: String,
    /// Probability of exactly these words, if the server tells.
    pub probability: Option<f64>,
}

/// An answer that is as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Index of the choice.
    Choice(usize),
    /// The number.
    Count(u32),
    /// The text stands in [`Heard::text`].
    Text,
}

/// The body of the request.
pub(super) fn body(model: &str, logprobs: bool, question: &super::RemoteQuestion) -> Vec<u8> {
    let picture = format!("data:image/jpeg;base64,{}", STANDARD.encode(&question.jpeg));
    let mut body = json!({
        "model": model,
        "temperature": 0,
        "max_tokens": question.max_tokens,
        "messages": [{
            "role": "user",
            "content": [
                { "type": "image_url", "image_url": { "url": picture } },
                { "type": "text", "text": prompt(&question.prompt, &question.form) },
            ],
        }],
    });
    if logprobs {
        body["logprobs"] = true.into();
    }
    body.to_string().into_bytes()
}

/// Words that the request adds to the prompt are in English, as are the forms of the answers.
fn prompt(prompt: &str, form: &Form) -> String {
    match form {
        Form::Choices(choices) => format!(
            "{prompt}\nAnswer with exactly one of these and nothing else: {}",
            choices.join("; ")
        ),
        Form::Count(low, high) => format!(
            "{prompt}\nAnswer with a whole number from {low} to {high} in digits and nothing else."
        ),
        Form::Text => prompt.to_owned(),
    }
}

#[derive(Deserialize)]
struct Completion {
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
    logprobs: Option<Logprobs>,
}

#[derive(Deserialize)]
struct Message {
    content: Option<String>,
}

#[derive(Deserialize)]
struct Logprobs {
    content: Option<Vec<Token>>,
}

#[derive(Deserialize)]
struct Token {
    logprob: f64,
}

/// Reads the body of an answer.
///
/// # Errors
///
/// What is wrong with it. Words that are no answer to the question are no error.
pub fn read(body: &[u8], form: &Form) -> Result<Heard, String> {
    let completion: Completion = serde_json::from_slice(body).map_err(|fault| fault.to_string())?;
    let Some(choice) = completion.choices.into_iter().next() else {
        return Err("`choices` is empty".to_owned());
    };
    let Some(text) = choice.message.content else {
        return Err("`choices[0].message.content` is missing".to_owned());
    };
    let tokens = choice.logprobs.and_then(|logprobs| logprobs.content);
    Ok(Heard {
        finding: finding(&text, form),
        probability: tokens.and_then(|tokens| probability(&tokens)),
        text,
    })
}

/// The probability of all tokens together.
fn probability(tokens: &[Token]) -> Option<f64> {
    let sum: f64 = tokens.iter().map(|token| token.logprob).sum();
    let sound = !tokens.is_empty() && tokens.iter().all(|token| token.logprob <= 0.0);
    sound.then(|| sum.exp())
}

/// What words mean: exactly one choice or number, case and a final full stop aside.
pub fn finding(text: &str, form: &Form) -> Option<Finding> {
    let plain = plain(text);
    match form {
        Form::Choices(choices) => {
            let mut same = (0..choices.len()).filter(|&n| self::plain(&choices[n]) == plain);
            match (same.next(), same.next()) {
                (Some(n), None) => Some(Finding::Choice(n)),
                _ => None,
            }
        }
        Form::Count(low, high) => {
            let digits = !plain.is_empty() && plain.bytes().all(|b| b.is_ascii_digit());
            let number = plain.parse().ok().filter(|_| digits)?;
            (*low..=*high)
                .contains(&number)
                .then_some(Finding::Count(number))
        }
        Form::Text => (!plain.is_empty()).then_some(Finding::Text),
    }
}

fn plain(text: &str) -> String {
    let text = text.trim();
    let text = text.strip_suffix('.').unwrap_or(text);
    text.trim_end().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_exactly_one_choice_or_unsure() {
        let form = Form::Choices(["yes", "no", "not visible"].map(str::to_owned).to_vec());
        for (text, want) in [
            ("yes", Some(0)),
            ("Yes.", Some(0)),
            (" NO\n", Some(1)),
            ("Not visible.", Some(2)),
            ("yes, there is", None),
            ("yes no", None),
            ("not", None),
            ("visible", None),
            ("\"yes\"", None),
            ("yes..", None),
            ("", None),
            (".", None),
        ] {
            let want = want.map(Finding::Choice);
            assert_eq!(finding(text, &form), want, "{text:?}");
        }
        let twins = Form::Choices(vec!["Yes".to_owned(), "yes".to_owned()]);
        assert_eq!(finding("yes", &twins), None);
    }

    #[test]
    fn a_count_is_a_whole_number_in_its_range() {
        for (text, want) in [
            ("3", Some(3)),
            ("3.", Some(3)),
            ("20", Some(20)),
            ("0", None),
            ("21", None),
            ("+3", None),
            ("-3", None),
            ("3.0", None),
            ("three", None),
            ("3 people", None),
            ("", None),
            ("99999999999999999999", None),
        ] {
            let want = want.map(Finding::Count);
            assert_eq!(finding(text, &Form::Count(1, 20)), want, "{text:?}");
        }
    }

    #[test]
    fn the_probability_is_that_of_all_tokens() {
        let answer = |logprobs: &str| {
            let body = format!(
                r#"{{"id":"x","choices":[{{"message":{{"role":"assistant","content":"Yes."}},"logprobs":{logprobs}}}]}}"#
            );
            read(body.as_bytes(), &Form::Text).unwrap().probability
        };
        let two = answer(r#"{"content":[{"logprob":-0.5,"token":"Yes"},{"logprob":-0.25}]}"#);
        assert!((two.unwrap() - (-0.75f64).exp()).abs() < 1e-12);
        assert_eq!(answer("null"), None);
        assert_eq!(answer(r#"{"content":null}"#), None);
        assert_eq!(answer(r#"{"content":[]}"#), None);
        assert_eq!(answer(r#"{"content":[{"logprob":0.5}]}"#), None);
    }

    #[test]
    fn what_is_no_completion_is_said_so() {
        for body in [
            "",
            "[]",
            "{}",
            r#"{"choices":[]}"#,
            r#"{"choices":[{"message":{"content":null}}]}"#,
            r#"{"choices":[{"message":{"content":7}}]}"#,
            r#"{"error":{"message":"no"}}"#,
        ] {
            assert!(read(body.as_bytes(), &Form::Text).is_err(), "{body}");
        }
    }
}
