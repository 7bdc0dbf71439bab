//! [`PageState`]: what the page shows. The loop fills it in; the page knows nothing else.

use serde::Serialize;
use std::path::PathBuf;

/// Everything that is shown. Texts may hold anything; the page escapes them.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PageState {
    /// Name of the device.
    pub device: String,
    /// How it is, in one sentence.
    pub status: String,
    /// What is wrong with it, a sentence each.
    pub faults: Vec<String>,
    /// Lines of a table: board, model, links, temperature and so on.
    pub facts: Vec<Fact>,
    /// The last answers, newest first.
    pub answers: Vec<AnswerShown>,
    /// What waits for a person, oldest first.
    pub pending: Vec<PendingAction>,
    /// Pictures that may be fetched; others do not exist for the page.
    #[serde(skip)]
    pub pictures: Vec<Picture>,
    /// Figures for `/metrics`.
    #[serde(skip)]
    pub metrics: Vec<Family>,
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fact {
    /// What.
    pub name: String,
    /// How it is.
    pub value: String,
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct AnswerShown {
    /// When, as it is to be read.
    pub time: String,
    /// The rule that asked.
    pub rule: String,
    /// What was asked.
    pub question: String,
    /// What was answered.
    pub answer: String,
    /// Its probability, 0 to 1.
    pub probability: Option<f32>,
    /// Name of its picture among [`PageState::pictures`].
    pub picture: Option<String>,
}

/// An action that waits for a person.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PendingAction {
    /// Its id. A text in JSON: browsers' numbers have 53 bits.
    #[serde(serialize_with = "as_text")]
    pub request: u64,
    /// The number that must come back with the decision. A text in JSON.
    #[serde(serialize_with = "as_text")]
    pub nonce: u64,
    /// What would be done.
    pub what: String,
    /// The rule that wants it.
    pub rule: String,
    /// Why a person is asked.
    pub why: String,
    /// Until when, as it is to be read.
    pub until: String,
    /// Name of its picture among [`PageState::pictures`].
    pub picture: Option<String>,
    /// Whether this page may decide it; else it is only shown.
    pub may_decide: bool,
}

/// A picture that may be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Its name in addresses; ends in `.jpg`.
    pub name: String,
    /// Its JPEG file.
    pub path: PathBuf,
}

/// Figures of one name.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// Name, e.g. `ocelli_answers_total`.
    pub name: &'static str,
    /// What it counts, with its unit.
    pub help: &'static str,
    /// Kind.
    pub kind: FamilyKind,
    /// The figures.
    pub samples: Vec<Sample>,
}

/// Kind of figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FamilyKind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// One figure.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Labels and their values.
    pub labels: Vec<(&'static str, String)>,
    /// The figure.
    pub value: f64,
}

fn as_text<S: serde::Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(number)
}
