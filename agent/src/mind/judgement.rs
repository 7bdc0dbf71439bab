//! [`Judgement`]: from scores of choices to probabilities, or no answer.

use ocelli_runtime::image::{ImageError, Rgb8};

/// Side of the picture without content, in pixels, and its grey.
const BLANK: (usize, u8) = (64, 128);

/// How scores of closed answers become probabilities. What the defaults were chosen by stands in
/// `docs/agent.md`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judgement {
    /// How much of the score on a picture without content is taken off (contextual calibration,
    /// Zhao et al. 2021): 0 nothing, 1 all. Where it is not 0, every new question is asked once
    /// more.
    pub prior_weight: f64,
    /// Scores are divided by it: above 1 the model is taken to be too sure of itself.
    pub temperature: f64,
    /// An answer less probable than this is none.
    pub floor: f64,
    /// Neither is one whose probability is not this much above that of the next.
    pub margin: f64,
}

impl Default for Judgement {
    fn default() -> Judgement {
        Judgement {
            prior_weight: 0.0,
            temperature: 1.0,
            floor: 0.0,
            margin: 0.1,
        }
    }
}

/// Choices as judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// Of each choice; they sum to 1.
    pub probabilities: Vec<f64>,
    /// The likeliest, the first of equals.
    pub best: usize,
    /// Whether that is no answer.
    pub unsure: bool,
}

impl Judgement {
    /// Judges log probabilities of choices; `prior` are those on a picture without content.
    pub fn judge(&self, scores: &[f64], prior: Option<&[f64]>) -> Judged {
        let prior = prior.filter(|prior| prior.len() == scores.len());
        let corrected: Vec<f64> = scores
            .iter()
            .enumerate()
            .map(|(choice, score)| {
                let before = prior.map_or(0.0, |prior| prior[choice]);
                (score - self.prior_weight * before) / self.temperature
            })
            .collect();
        let most = corrected.iter().fold(f64::NEG_INFINITY, |m, s| m.max(*s));
        let shares: Vec<f64> = corrected.iter().map(|s| (s - most).exp()).collect();
        let total: f64 = shares.iter().sum();
        let probabilities: Vec<f64> = match total.is_finite() && total > 0.0 {
            true => shares.iter().map(|share| share / total).collect(),
            false => vec![1.0 / scores.len().max(1) as f64; scores.len()],
        };
        let best = (0..probabilities.len())
            .rev()
            .max_by(|a, b| probabilities[*a].total_cmp(&probabilities[*b]))
            .unwrap_or(0);
        let others = (0..probabilities.len()).filter(|choice| *choice != best);
        let next = others
            .map(|choice| probabilities[choice])
            .fold(0.0, f64::max);
        let own = probabilities.get(best).copied().unwrap_or(0.0);
        Judged {
            unsure: self.is_unsure(own) || own - next < self.margin,
            probabilities,
            best,
        }
    }

    /// Whether a probability is below the floor.
    pub fn is_unsure(&self, probability: f64) -> bool {
        probability < self.floor
    }
}

/// A picture without content.
///
/// # Errors
///
/// None; the size is within the limits of [`Rgb8`].
pub fn blank_picture() -> Result<Rgb8, ImageError> {
    let (side, grey) = BLANK;
    Rgb8::new(side, side, vec![grey; side * side * 3])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_shares_and_the_first_of_equals_wins() {
        let judged = Judgement::default().judge(&[2f64.ln(), 6f64.ln(), 6f64.ln()], None);
        assert_eq!(judged.best, 1);
        assert!((judged.probabilities[0] - 1.0 / 7.0).abs() < 1e-12);
        assert!((judged.probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn an_answer_is_none_below_the_floor_and_beside_an_equal_one() {
        let judgement = Judgement {
            floor: 0.6,
            margin: 0.3,
            ..Judgement::default()
        };
        let unsure = |share: f64| {
            judgement
                .judge(&[share.ln(), (1.0 - share).ln()], None)
                .unsure
        };
        assert!(unsure(0.59) && unsure(0.64) && !unsure(0.66));
        let three = judgement.judge(&[0.59f64.ln(), 0.21f64.ln(), 0.2f64.ln()], None);
        assert!(three.unsure);
        assert!(
            Judgement::default()
                .judge(&[0.5f64.ln(), 0.5f64.ln()], None)
                .unsure
        );
    }

    #[test]
    fn a_prior_takes_off_what_the_model_says_anyway() {
        let judgement = Judgement {
            prior_weight: 1.0,
            ..Judgement::default()
        };
        let prior = [0.2f64.ln(), 0.8f64.ln()];
        assert_eq!(
            judgement
                .judge(&[0.4f64.ln(), 0.6f64.ln()], Some(&prior))
                .best,
            0
        );
        assert_eq!(judgement.judge(&[0.4f64.ln(), 0.6f64.ln()], None).best, 1);
        // A prior of another question is none.
        assert_eq!(
            judgement
                .judge(&[0.4f64.ln(), 0.6f64.ln()], Some(&prior[..1]))
                .best,
            1
        );
    }

    #[test]
    fn a_temperature_changes_the_probability_and_not_the_choice() {
        let judgement = Judgement {
            temperature: 2.0,
            ..Judgement::default()
        };
        let judged = judgement.judge(&[0.9f64.ln(), 0.1f64.ln()], None);
        assert_eq!(judged.best, 0);
        assert!((judged.probabilities[0] - 0.75).abs() < 1e-12);
    }

    #[test]
    fn scores_that_are_no_numbers_give_an_unsure_answer() {
        for scores in [&[f64::NEG_INFINITY; 2][..], &[f64::NAN, 0.0], &[]] {
            let judged = Judgement::default().judge(scores, None);
            assert!(judged.unsure, "{scores:?} {judged:?}");
        }
    }
}
