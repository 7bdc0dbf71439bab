//! Closeness: how far two rows of numbers lie apart.
//!
//! Every measure turns NaN into the worst value, so that no comparison passes by accident.

/// Largest |a − b|; infinite if any pair has a NaN or the lengths differ.
pub fn max_abs_diff(a: &[f32], b: &[f32]) -> f64 {
    if a.len() != b.len() {
        return f64::INFINITY;
    }
    let pairs = a.iter().zip(b);
    pairs.map(|(&a, &b)| diff(a, b)).fold(0.0, f64::max)
}

/// Largest |values[i] − expected| over (i, expected); infinite on NaN or an index outside.
pub fn max_sample_diff(values: &[f32], samples: &[(usize, f32)]) -> f64 {
    let of = |&(index, expected): &(usize, f32)| {
        values
            .get(index)
            .map_or(f64::INFINITY, |&v| diff(v, expected))
    };
    samples.iter().map(of).fold(0.0, f64::max)
}

fn diff(a: f32, b: f32) -> f64 {
    let d = (f64::from(a) - f64::from(b)).abs();
    if d.is_nan() { f64::INFINITY } else { d }
}

/// Cosine of the angle between two rows; −1 on NaN, different lengths or a row of zeros.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    if a.len() != b.len() {
        return -1.0;
    }
    let dot = |a: &[f32], b: &[f32]| {
        a.iter()
            .zip(b)
            .map(|(&a, &b)| f64::from(a) * f64::from(b))
            .sum::<f64>()
    };
    let cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
    if cosine.is_nan() { -1.0 } else { cosine }
}

/// Smallest [`cosine`] over rows of `width`; −1 without rows or if the lengths do not fit.
pub fn worst_row_cosine(a: &[f32], b: &[f32], width: usize) -> f64 {
    if a.len() != b.len() || a.is_empty() || width == 0 || !a.len().is_multiple_of(width) {
        return -1.0;
    }
    a.chunks(width)
        .zip(b.chunks(width))
        .map(|(a, b)| cosine(a, b))
        .fold(1.0, f64::min)
}

/// Checks that every kernel, on one thread and on two, gives the tokens that the one named `first`
/// gives on one thread, and nearly its logits. `run`: kernel and threads to logits and tokens
///
/// # Panics
///
/// Where one does not; where there is nothing to compare.
pub fn assert_alike<'k>(
    first: &str,
    kernels: impl IntoIterator<Item = &'k str>,
    run: impl Fn(&str, usize) -> (Vec<f32>, Vec<u32>),
) {
    let (expected, tokens) = run(first, 1);
    assert!(expected.iter().any(|logit| *logit != 0.0) && !tokens.is_empty());
    for name in kernels {
        for threads in [1, 2] {
            let (logits, found) = run(name, threads);
            assert_eq!(found, tokens, "{name}, {threads} threads");
            let closeness = cosine(&logits, &expected);
            assert!(closeness > 0.9999, "{name}, {threads} threads: {closeness}");
        }
    }
}

/// Population standard deviation.
pub fn std(values: &[f32]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    (values
        .iter()
        .map(|&v| (f64::from(v) - mean).powi(2))
        .sum::<f64>()
        / n)
        .sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_found() {
        assert_eq!(max_abs_diff(&[1.0, 2.0, 3.0], &[1.0, 2.5, 3.0]), 0.5);
        assert_eq!(max_abs_diff(&[0.0], &[1000.0]), 1000.0);
        assert_eq!(max_sample_diff(&[1.0, 2.0], &[(1, 4.0)]), 2.0);
    }

    #[test]
    fn nothing_passes_by_accident() {
        assert_eq!(max_abs_diff(&[f32::NAN, 0.0], &[0.0, 0.0]), f64::INFINITY);
        assert_eq!(max_abs_diff(&[0.0], &[0.0, 0.0]), f64::INFINITY);
        assert_eq!(max_sample_diff(&[0.0], &[(1, 0.0)]), f64::INFINITY);
        assert_eq!(cosine(&[f32::NAN, 1.0], &[1.0, 1.0]), -1.0);
        assert_eq!(cosine(&[0.0, 0.0], &[1.0, 1.0]), -1.0);
        assert_eq!(
            worst_row_cosine(&[1.0, 0.0, 1.0, f32::NAN], &[1.0, 0.0, 1.0, 0.0], 2),
            -1.0
        );
        assert_eq!(worst_row_cosine(&[], &[], 2), -1.0);
        assert_eq!(
            worst_row_cosine(&[1.0, 1.0, 1.0], &[1.0, 1.0, 1.0], 2),
            -1.0
        );
    }

    #[test]
    fn a_kernel_that_says_something_else_is_found() {
        let all = ["scalar", "fast"];
        assert_alike("scalar", all, |_, _| (vec![1.0, 2.0], vec![1]));
        type Answer = (Vec<f32>, Vec<u32>);
        let other = |answer: Answer| {
            let run = move |name: &str, threads| match (name, threads) {
                ("fast", 2) => answer.clone(),
                _ => (vec![1.0, 2.0], vec![1]),
            };
            std::panic::catch_unwind(|| assert_alike("scalar", all, run))
        };
        assert!(other((vec![1.0, 2.0], vec![1])).is_ok());
        assert!(other((vec![1.0, 2.0], vec![2])).is_err());
        assert!(other((vec![1.0, 2.1], vec![1])).is_err());
        let nothing = || assert_alike("scalar", all, |_, _| (vec![0.0], vec![1]));
        assert!(std::panic::catch_unwind(nothing).is_err());
    }

    #[test]
    fn one_bad_row_shows_among_many() {
        let good = [1.0, 0.0].repeat(1000);
        let mut bad = good.clone();
        bad[..2].copy_from_slice(&[0.0, 1.0]);
        assert!(cosine(&good, &bad) > 0.998);
        assert_eq!(worst_row_cosine(&good, &bad, 2), 0.0);
    }
}
