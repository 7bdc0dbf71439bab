//! A journal done again: bit for bit, under other rules, and the answers by the model.
//!
//! | file | defines |
//! |---|---|
//! | [`rule_book`] | [`RuleBook`]: the rule files that a journal keeps |
//! | [`words`] | observations and outputs in words |
//! | [`issued`] | [`Issued`]: which rule an id was given out for |
//! | [`exact`] | [`Exact`]: the same observations must give the same outputs |
//! | [`under`] | [`Under`]: the same observations under other rules |
//! | [`open`] | [`Open`]: what the other rules wait for, by rule and order |
//! | [`tally`] | [`Tally`]: what a rule did, in numbers |
//! | [`answers`] | the same pictures must give the same tokens |

pub mod answers;
pub mod exact;
pub mod issued;
pub mod open;
pub mod rule_book;
pub mod tally;
pub mod under;
pub mod words;

pub use answers::{Reasked, reask};
pub use exact::{Difference, Exact};
pub use issued::Issued;
pub use open::Open;
pub use rule_book::{RuleBook, RuleFault};
pub use tally::Tally;
pub use under::{Changed, Under};

use crate::entry::Answered;
use ocelli_runtime::image::Rgb8;

/// A model that answers again what it was once asked.
pub trait Reasker {
    /// Answers the question of an entry about its picture: the same prompt, form and tiles.
    ///
    /// # Errors
    ///
    /// Why it cannot, in words.
    fn answer(&mut self, answered: &Answered, picture: &Rgb8) -> Result<Answered, String>;
}
