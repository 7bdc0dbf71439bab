//! Bounded text and names.

use crate::limit::{MAX_NAME, MAX_TEXT};
use serde::{Deserialize, Serialize};

/// Name of a zone, pin, topic, packet, hook, line or rule.
pub type Name = heapless::String<MAX_NAME>;

/// Makes a name; `None` if it is longer than [`MAX_NAME`] bytes.
pub fn name(text: &str) -> Option<Name> {
    Name::try_from(text).ok()
}

/// Text from outside, at most [`MAX_TEXT`] bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    text: heapless::String<MAX_TEXT>,
    cut: bool,
}

impl Text {
    /// Takes text, cut at a character if it is too long.
    pub fn new(text: &str) -> Text {
        let mut kept = heapless::String::new();
        let fits = text.chars().all(|character| kept.push(character).is_ok());
        Text {
            text: kept,
            cut: !fits,
        }
    }

    /// Nothing, marked as cut: for text whose beginning is of no use.
    pub fn left_out() -> Text {
        Text {
            text: heapless::String::new(),
            cut: true,
        }
    }

    /// The text, or its beginning if it was cut.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether something is missing at the end.
    pub fn is_cut(&self) -> bool {
        self.cut
    }
}
