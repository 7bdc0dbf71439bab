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

/// Draws tokens by one [`Sampling`], in buffers that are as large as it takes from the start.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    random: SplitMix,
    candidates: Vec<u32>,
    /// Of the candidates, likeliest first.
    weights: Vec<f64>,
    /// Tokens seen before, a bit each.
    seen: Vec<u64>,
}

impl Sampler {
    /// Starts a draw at the sampling's seed, from a vocabulary of this size.
    ///
    /// # Errors
    ///
    /// [`RunError::Sampling`] for a setting out of range.
    pub fn new(sampling: Sampling, vocab: usize) -> Result<Sampler, RunError> {
        sampling.validate()?;
        let n_candidates = match sampling.temperature {
            0.0 => 0,
            _ => vocab,
        };
        let n_weights = match sampling.top_k {
            0 => n_candidates,
            k => n_candidates.min(k),
        };
        let n_seen = match sampling.repetition_penalty {
            1.0 => 0,
            _ => vocab.div_ceil(u64::BITS as usize),
        };
        Ok(Sampler {
            random: SplitMix(sampling.seed),
            sampling,
            candidates: Vec::with_capacity(n_candidates),
            weights: Vec::with_capacity(n_weights),
            seen: vec![0; n_seen],
        })
    }

    /// Whether the likeliest token is chosen, always.
    pub fn is_greedy(&self) -> bool {
        self.sampling.temperature == 0.0
    }

    /// The filters of this sampling. `seen`: tokens of prompt and answer so far
    pub fn filter<'a>(&'a mut self, banned: Option<u32>, seen: &'a [u32]) -> Filter<'a> {
        Filter {
            banned,
            penalty: self.sampling.repetition_penalty,
            seen,
            marks: &mut self.seen,
        }
    }

    /// Chooses the next token. `logits`: `[vocab]`, changed by the filters;
    /// `seen`: tokens of prompt and answer so far.
    pub fn sample(&mut self, logits: &mut [f32], seen: &[u32]) -> u32 {
        self.filter(None, seen).apply(logits);
        let temperature = self.sampling.temperature;
        if temperature == 0.0 {
            return arg_max(logits).unwrap_or(0);
        }
        let candidates = &mut self.candidates;
        candidates.clear();
        candidates.extend(0..logits.len() as u32);
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
        let kept = candidates.iter().map(|id| logits[*id as usize]);
        let weights = &mut self.weights;
        softmax(kept, temperature, weights);
        let kept = nucleus(weights, f64::from(self.sampling.top_p));
        weights.truncate(kept);
        let total: f64 = weights.iter().sum();
        let mut point = self.random.uniform() * total;
        for (id, weight) in candidates.iter().zip(weights) {
            if point < *weight {
                return *id;
            }
            point -= *weight;
        }
        candidates[kept - 1]
    }
}

/// What is done to logits before a token is chosen. It never changes the order of two logits of one
/// token: what bounds a logit before, bounds it behind the filters, too.
#[derive(Debug)]
pub struct Filter<'a> {
    /// A token that is never chosen.
    banned: Option<u32>,
    penalty: f32,
    seen: &'a [u32],
    /// The seen tokens, a bit each, once the filters were applied.
    marks: &'a mut [u64],
}

impl Filter<'_> {
    /// The filter that changes nothing.
    pub fn none() -> Filter<'static> {
        Filter {
            banned: None,
            penalty: 1.0,
            seen: &[],
            marks: &mut [],
        }
    }

    /// Changes all logits. `logits`: `[vocab]`
    pub fn apply(&mut self, logits: &mut [f32]) {
        if self.penalty != 1.0 {
            penalise(logits, self.seen, self.penalty, self.marks);
        }
        ban(logits, self.banned);
    }

    /// What a logit becomes, once [`Filter::apply`] has been called.
    pub fn of_one(&self, id: usize, logit: f32) -> f32 {
        let word = self.marks.get(id / u64::BITS as usize).copied();
        let is_seen = word.unwrap_or(0) & mark_bit(id) != 0;
        match () {
            () if self.banned.is_some_and(|banned| banned as usize == id) => f32::NEG_INFINITY,
            () if is_seen => penalised(logit, self.penalty),
            () => logit,
        }
    }
}

/// Takes a token out of the choice.
pub(crate) fn ban(logits: &mut [f32], token: Option<u32>) {
    if let Some(logit) = token.and_then(|id| logits.get_mut(id as usize)) {
        *logit = f32::NEG_INFINITY;
    }
}

/// The largest logit's index, the first of equals; `None` if none is a finite number.
pub fn arg_max(logits: &[f32]) -> Option<u32> {
    let mut best = (None, f32::NEG_INFINITY);
    for (id, logit) in (0..).zip(logits) {
        if *logit > best.1 {
            best = (Some(id), *logit);
        }
    }
    best.0.filter(|_| best.1.is_finite())
}

/// `exp(x_i/t)/Σ exp(x_j/t)`, in f64, in place of what `out` holds. The largest logit is taken away
/// before the division, or a very small temperature would make it infinite.
fn softmax(logits: impl Iterator<Item = f32> + Clone, temperature: f32, out: &mut Vec<f64>) {
    let max = logits.clone().fold(f32::NEG_INFINITY, f32::max);
    out.clear();
    out.extend(logits.map(|v| (f64::from(v - max) / f64::from(temperature)).exp()));
    let sum: f64 = out.iter().sum();
    out.iter_mut().for_each(|v| *v /= sum);
}

/// `ln(exp(x_id)/Σ exp(x_j))`, in f64.
pub fn log_probability(logits: &[f32], id: u32) -> f64 {
    let max = logits.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
    let sum: f64 = logits.iter().map(|v| f64::from(*v - max).exp()).sum();
    f64::from(logits[id as usize] - max) - sum.ln()
}

/// Lowers the logits of tokens seen before, each once. `marks`: a bit for each logit
fn penalise(logits: &mut [f32], seen: &[u32], penalty: f32, marks: &mut [u64]) {
    marks.fill(0);
    for id in seen.iter().map(|id| *id as usize) {
        let bit = mark_bit(id);
        let mark = marks.get_mut(id / u64::BITS as usize);
        let (Some(mark), Some(logit)) = (mark, logits.get_mut(id)) else {
            continue;
        };
        if *mark & bit == 0 {
            *mark |= bit;
            *logit = penalised(*logit, penalty);
        }
    }
}

/// Bit of a token in its word of marks.
fn mark_bit(id: usize) -> u64 {
    1 << (id % u64::BITS as usize)
}

/// Logit of a token that was seen before.
fn penalised(logit: f32, penalty: f32) -> f32 {
    match logit > 0.0 {
        true => logit / penalty,
        false => logit * penalty,
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
        let mut sampler = Sampler::new(sampling, logits.len()).unwrap();
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
        let mut weights = Vec::new();
        softmax(logits.into_iter(), 1.0, &mut weights);
        for (count, expected) in counts.iter().zip(weights) {
            assert!(
                (*count as f64 / 20_000.0 - expected).abs() < 0.015,
                "{count} {expected}"
            );
        }
    }

    #[test]
    fn the_smallest_temperatures_choose_the_likeliest_token() {
        for temperature in [1e-3, 1e-37, f32::MIN_POSITIVE, f32::from_bits(1)] {
            let sampling = Sampling {
                temperature,
                ..Sampling::default()
            };
            let counts = draw(sampling, &[1.0, 40.0, -30.0, 39.0], 20);
            assert_eq!(counts, [0, 20, 0, 0], "{temperature}");
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
            let mut sampler = Sampler::new(sampling, logits.len()).unwrap();
            (0..30)
                .map(|_| sampler.sample(&mut logits.clone(), &[]))
                .collect::<Vec<u32>>()
        };
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
    }

    #[test]
    fn greedy_takes_the_first_maximum_and_ignores_nan() {
        assert_eq!(arg_max(&[f32::NAN, 1.0, 3.0, 3.0]), Some(2));
        assert_eq!(arg_max(&[f32::NAN]), None);
        assert_eq!(arg_max(&[f32::INFINITY, 1.0]), None);
    }

    #[test]
    fn the_penalty_lowers_seen_tokens_whatever_their_sign() {
        let mut logits = [2.0, -2.0, 1.0];
        // 5 is beyond the logits, but not beyond the marks' word; 77 is beyond both.
        let mut marks = [0];
        penalise(&mut logits, &[0, 1, 0, 5, 77], 2.0, &mut marks);
        assert_eq!(logits, [1.0, -4.0, 1.0]);
        // What was seen for one token does not count for the next.
        penalise(&mut logits, &[0, 2], 2.0, &mut marks);
        assert_eq!(logits, [0.5, -4.0, 0.5]);
    }

    #[test]
    fn one_logit_is_filtered_as_all_are() {
        let logits = [2.0, -2.0, 1.0, -0.5, 3.0];
        for penalty in [1.0, 0.5, 2.0] {
            let sampling = Sampling {
                repetition_penalty: penalty,
                ..Sampling::default()
            };
            let mut sampler = Sampler::new(sampling, logits.len()).unwrap();
            let mut filter = sampler.filter(Some(4), &[0, 1, 0, 77]);
            let mut all = logits;
            filter.apply(&mut all);
            assert_eq!(all[4], f32::NEG_INFINITY);
            for (id, logit) in logits.into_iter().enumerate() {
                assert_eq!(filter.of_one(id, logit), all[id], "{id} at {penalty}");
            }
        }
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
            let error = Sampler::new(sampling, 1).unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
    }
}
