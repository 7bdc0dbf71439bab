//! The same pictures must give the same tokens.

use super::Reasker;
use crate::entry::{Answered, Answerer};
use crate::mind::picture_sha256;
use ocelli_runtime::image::Rgb8;
use serde::Serialize;
use std::path::{Component, Path};

/// What became of an answer that was asked for again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reasked {
    /// The same, bit for bit.
    Same,
    /// Something else; in words.
    Differs(String),
    /// Another model or kernel: its bits need not be the same.
    OtherKernel {
        /// Model and kernel of the journal.
        recorded: String,
        /// Model and kernel now.
        now: String,
    },
    /// The picture was not kept, is gone, or is another one.
    NoPicture(String),
    /// A remote model answered.
    Remote,
    /// The model could not answer.
    Failed(String),
}

/// Asks again for an answer whose picture is kept in a folder.
pub fn reask(answered: &Answered, pictures: &Path, reasker: &mut impl Reasker) -> Reasked {
    let Answerer::Local(recorded) = &answered.by else {
        return Reasked::Remote;
    };
    let picture = match picture(answered, pictures) {
        Ok(picture) => picture,
        Err(why) => return Reasked::NoPicture(why),
    };
    let again = match reasker.answer(answered, &picture) {
        Ok(again) => again,
        Err(why) => return Reasked::Failed(why),
    };
    match &again.by {
        Answerer::Local(now) if now.sha256 == recorded.sha256 && now.kernel == recorded.kernel => {
            match difference(answered, &again) {
                Some(what) => Reasked::Differs(what),
                None => Reasked::Same,
            }
        }
        now => Reasked::OtherKernel {
            recorded: format!("{} on {}", recorded.name, recorded.kernel),
            now: match now {
                Answerer::Local(now) => format!("{} on {}", now.name, now.kernel),
                Answerer::Remote { model, .. } => format!("{model}, remote"),
            },
        },
    }
}

fn picture(answered: &Answered, pictures: &Path) -> Result<Rgb8, String> {
    let name = answered.picture.as_deref().ok_or("none was kept")?;
    let mut parts = Path::new(name).components();
    // The journal may be foreign: its names must not lead out of the folder.
    let (Some(Component::Normal(file)), None) = (parts.next(), parts.next()) else {
        return Err(format!("{name:?} is no file name"));
    };
    let picture = Rgb8::open(&pictures.join(file)).map_err(|error| error.to_string())?;
    if picture_sha256(&picture) != answered.frame_sha256 {
        return Err(format!("{name:?} does not hold what the model saw"));
    }
    Ok(picture)
}

/// The first thing that is not the same, in words.
fn difference(old: &Answered, new: &Answered) -> Option<String> {
    if let Some(what) = first("token", &old.tokens, &new.tokens, |token| *token) {
        return Some(what);
    }
    let probabilities = (&old.token_probabilities, &new.token_probabilities);
    let choices = (&old.choice_probabilities, &new.choice_probabilities);
    first(
        "token probability",
        probabilities.0,
        probabilities.1,
        |of| of.to_bits(),
    )
    .or_else(|| {
        first(
            "choice score",
            &old.choice_scores,
            &new.choice_scores,
            |of| of.to_bits(),
        )
    })
    .or_else(|| {
        first("choice probability", choices.0, choices.1, |of| {
            of.to_bits()
        })
    })
    .or_else(|| {
        let is = old.text == new.text && old.unsure == new.unsure;
        let is = is && old.probability.to_bits() == new.probability.to_bits();
        let words =
            |of: &Answered| format!("{:?} {} (unsure: {})", of.text, of.probability, of.unsure);
        (!is).then(|| format!("the answer was {}, is {}", words(old), words(new)))
    })
}

fn first<T: std::fmt::Debug, B: PartialEq>(
    what: &str,
    old: &[T],
    new: &[T],
    bits: impl Fn(&T) -> B,
) -> Option<String> {
    if let Some(at) = (0..old.len().min(new.len())).find(|at| bits(&old[*at]) != bits(&new[*at])) {
        return Some(format!("{what} {at} was {:?}, is {:?}", old[at], new[at]));
    }
    (old.len() != new.len())
        .then(|| format!("there were {} of {what}, are {}", old.len(), new.len()))
}
