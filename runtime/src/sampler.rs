//! From logits to the next token: logits filters and the draw.

use crate::error::RunError;
use crate::random::SplitMix;

/// How tokens are chosen. The default is greedy.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 = always the likeliest token; otherwise logits are divided by it. `[0, 100]`
    pub temperature: f32,
    /// Keep only the `top_k` likeliest tokens; 0 = all.
    pub top_k: usize,
    /// Keep the smallest set of likeliest tokens whose probabilities reach it; 1 = all. `(0, 1]`
    pub top_p: f32,
    /// Logits of tokens seen before are divided (if positive) or multiplied (if
    /// negative) by it; 1 = off (CTRL, arXiv 1909.05858). `(0, 100]`
    pub repetition_penalty: f32,
    /// Seed of the draw; equal seeds give equal answers on the same kernel path.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Sampling {
        Sampling {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            repetition_penalty: 1.0,
            seed: 0,
        }
    }
}

impl Sampling {
    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// [`RunError::Sampling`] naming the first setting out of range.
    pub fn validate(&self) -> Result<(), RunError> {
        let check = |field, value: f32, ok: bool, allowed| match ok {
            true => Ok(()),
            false => Err(RunError::Sampling {
                field,
                value: f64::from(value),
                allowed,
            }),
        };
        let t = self.temperature;
        check("temperature", t, (0.0..=100.0).contains(&t), "0 to 100")?;
        let p = self.top_p;
        check("top_p", p, p > 0.0 && p <= 1.0, "more than 0, at most 1")?;
        let r = self.repetition_penalty;
        check(
            "repetition_penalty",
            r,
            r > 0.0 && r <= 100.0,
            "more than 0, at most 100",
        )
    }
}

/// Draws tokens by one [`Sampling`].
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    random: SplitMix,
}

impl Sampler {
    /// Starts a draw at the sampling's seed.
    ///
    /// # Errors
    ///
    /// [`RunError::Sampling`] for a setting out of range.
    pub fn new(sampling: Sampling) -> Result<Sampler, RunError> {
        sampling.validate()?;
        Ok(Sampler {
            random: SplitMix(sampling.seed),
            sampling,
        })
    }

    /// Chooses the next token. `logits`: `[vocab]`, changed by the filters;
    /// `seen`: tokens of prompt and answer so far.
    pub fn sample(&mut self, logits: &mut [f32], seen: &[u32]) -> u32 {
        penalise(logits, seen, self.sampling.repetition_penalty);
        if self.sampling.temperature == 0.0 {
            return arg_max(logits);
        }
        let mut candidates: Vec<u32> = (0..logits.len() as u32).collect();
        let likelier = |a: &u32, b: &u32| {
            logits[*b as usize]
                .total_cmp(&logits[*a as usize])
                .then(a.cmp(b))
        };
        let k = self.sampling.top_k;
        if k > 0 && k < candidates.len() {
            candidates.select_nth_unstable_by(k - 1, likelier);
            candidates.truncate(k);
        }
        candidates.sort_unstable_by(likelier);
        let scaled: Vec<f32> = candidates
            .iter()
            .map(|id| logits[*id as usize] / self.sampling.temperature)
            .collect();
        let mut weights = softmax(&scaled);
        let kept = nucleus(&weights, f64::from(self.sampling.top_p));
        weights.truncate(kept);
        let total: f64 = weights.iter().sum();
        let mut point = self.random.uniform() * total;
        for (id, weight) in candidates.iter().zip(&weights) {
            if point < *weight {
                return *id;
            }
            point -= weight;
        }
        candidates[kept - 1]
    }
}

/// The largest logit's index; the first of equals. NaN never wins.
pub fn arg_max(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (id, logit) in logits.iter().enumerate() {
        if *logit > best.1 {
            best = (id, *logit);
        }
    }
    best.0 as u32
}

/// `exp(x_i)/Σ exp(x_j)`, in f64.
pub fn softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
    let exp: Vec<f64> = logits.iter().map(|v| f64::from(*v - max).exp()).collect();
    let sum: f64 = exp.iter().sum();
    exp.into_iter().map(|v| v / sum).collect()
}

/// `ln(exp(x_id)/Σ exp(x_j))`, in f64.
pub fn log_probability(logits: &[f32], id: u32) -> f64 {
    let max = logits.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
    let sum: f64 = logits.iter().map(|v| f64::from(*v - max).exp()).sum();
    f64::from(logits[id as usize] - max) - sum.ln()
}

fn penalise(logits: &mut [f32], seen: &[u32], penalty: f32) {
    if penalty == 1.0 {
        return;
    }
    let mut ids: Vec<usize> = seen.iter().map(|id| *id as usize).collect();
    ids.sort_unstable();
    ids.dedup();
    for id in ids {
        if let Some(logit) = logits.get_mut(id) {
            *logit = if *logit > 0.0 {
                *logit / penalty
            } else {
                *logit * penalty
            };
        }
    }
}

/// How many of the descending weights reach a total of `top_p`; at least one.
fn nucleus(weights: &[f64], top_p: f64) -> usize {
    let mut sum = 0.0;
    for (i, weight) in weights.iter().enumerate() {
        sum += weight;
        if sum >= top_p {
            return i + 1;
        }
    }
    weights.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(sampling: Sampling, logits: &[f32], times: usize) -> Vec<usize> {
        let mut sampler = Sampler::new(sampling).unwrap();
        let mut counts = vec![0; logits.len()];
        for _ in 0..times {
            counts[sampler.sample(&mut logits.to_vec(), &[]) as usize] += 1;
        }
        counts
    }

    #[test]
    fn frequencies_follow_the_softmax() {
        let logits = [1.0, 0.0, -1.0, 2.0];
        let sampling = Sampling {
            temperature: 1.0,
            seed: 3,
            ..Sampling::default()
        };
        let counts = draw(sampling, &logits, 20_000);
        for (count, expected) in counts.iter().zip(softmax(&logits)) {
            assert!(
                (*count as f64 / 20_000.0 - expected).abs() < 0.015,
                "{count} {expected}"
            );
        }
    }

    #[test]
    fn top_k_and_top_p_cut_the_tail() {
        let logits = [1.0, 0.0, -1.0, 2.0];
        let base = Sampling {
            temperature: 1.0,
            ..Sampling::default()
        };
        let k = draw(
            Sampling {
                top_k: 2,
                ..base.clone()
            },
            &logits,
            2000,
        );
        assert!(k[1] == 0 && k[2] == 0 && k[0] > 0 && k[3] > 0);
        let p = draw(Sampling { top_p: 0.6, ..base }, &logits, 2000);
        assert_eq!(p, [0, 0, 0, 2000]);
    }

    #[test]
    fn equal_seeds_draw_equal_tokens_and_others_do_not() {
        let logits: Vec<f32> = (0..50).map(|i| (i as f32 * 0.37).sin()).collect();
        let draws = |seed| {
            let sampling = Sampling {
                temperature: 1.0,
                seed,
                ..Sampling::default()
            };
            let mut sampler = Sampler::new(sampling).unwrap();
            (0..30)
                .map(|_| sampler.sample(&mut logits.clone(), &[]))
                .collect::<Vec<u32>>()
        };
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
    }

    #[test]
    fn greedy_takes_the_first_maximum_and_ignores_nan() {
        assert_eq!(arg_max(&[f32::NAN, 1.0, 3.0, 3.0]), 2);
        assert_eq!(arg_max(&[f32::NAN]), 0);
    }

    #[test]
    fn the_penalty_lowers_seen_tokens_whatever_their_sign() {
        let mut logits = [2.0, -2.0, 1.0];
        penalise(&mut logits, &[0, 1, 0, 77], 2.0);
        assert_eq!(logits, [1.0, -4.0, 1.0]);
    }

    #[test]
    fn settings_out_of_range_are_named() {
        for (sampling, field) in [
            (
                Sampling {
                    temperature: -1.0,
                    ..Sampling::default()
                },
                "temperature",
            ),
            (
                Sampling {
                    temperature: f32::NAN,
                    ..Sampling::default()
                },
                "temperature",
            ),
            (
                Sampling {
                    top_p: 0.0,
                    ..Sampling::default()
                },
                "top_p",
            ),
            (
                Sampling {
                    repetition_penalty: 0.0,
                    ..Sampling::default()
                },
                "repetition_penalty",
            ),
        ] {
            let error = Sampler::new(sampling).unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
    }
}
