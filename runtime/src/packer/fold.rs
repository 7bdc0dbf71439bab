//! A float linear and the rewritings that leave the network's result unchanged.

use crate::config::PreprocessConfig;
use crate::rotation::Rotation;

/// `y = W·x + b` before quantisation.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Linear {
    /// `[n, k]` row-major.
    pub(super) weight: Vec<f32>,
    /// `[n]`
    pub(super) bias: Option<Vec<f32>>,
    pub(super) n: usize,
    pub(super) k: usize,
}

impl Linear {
    /// Stacks linears that read the same input.
    pub(super) fn stack(parts: &[Linear]) -> Linear {
        let k = parts[0].k;
        let has_bias = parts.iter().any(|part| part.bias.is_some());
        Linear {
            weight: parts
                .iter()
                .flat_map(|part| part.weight.iter().copied())
                .collect(),
            bias: has_bias.then(|| {
                parts
                    .iter()
                    .flat_map(|p| p.bias.clone().unwrap_or_else(|| vec![0.0; p.n]))
                    .collect()
            }),
            n: parts.iter().map(|part| part.n).sum(),
            k,
        }
    }

    /// Alternates two linears of equal shape by runs of `run` rows.
    pub(super) fn alternate(first: &Linear, second: &Linear, run: usize) -> Linear {
        let chunk = run * first.k;
        let weight = first
            .weight
            .chunks(chunk)
            .zip(second.weight.chunks(chunk))
            .flat_map(|(a, b)| a.iter().chain(b).copied())
            .collect();
        Linear {
            weight,
            bias: None,
            n: 2 * first.n,
            k: first.k,
        }
    }

    /// Folds `x ← x ⊙ scale` in front: `W[:, j] ← W[:, j]·scale[j mod len]`.
    pub(super) fn fold_input_scale(&mut self, scale: &[f32]) {
        for row in self.weight.chunks_exact_mut(self.k) {
            for run in row.chunks_exact_mut(scale.len()) {
                for (weight, scale) in run.iter_mut().zip(scale) {
                    *weight *= scale;
                }
            }
        }
    }

    /// Folds `x ← x + bias` in front: `b ← b + W·bias` (repeated over k).
    pub(super) fn fold_input_bias(&mut self, input: &[f32]) {
        let mut bias = self.bias.take().unwrap_or_else(|| vec![0.0; self.n]);
        for (out, row) in bias.iter_mut().zip(self.weight.chunks_exact(self.k)) {
            let sum: f64 = row
                .chunks_exact(input.len())
                .flat_map(|run| run.iter().zip(input))
                .map(|(w, b)| f64::from(*w) * f64::from(*b))
                .sum();
            *out += sum as f32;
        }
        self.bias = Some(bias);
    }

    /// `W ← W·Q` (each run of the rotation's width on its own), for a rotated input.
    pub(super) fn rotate_input(&mut self, rotation: &Rotation) {
        for run in self.weight.chunks_exact_mut(rotation.width()) {
            rotation.rotate(run);
        }
    }

    /// `W ← Qᵀ·W`, `b ← b·Q`: the output comes out rotated.
    pub(super) fn rotate_output(&mut self, rotation: &Rotation) {
        self.for_each_column(|column| rotation.rotate(column));
    }

    /// Subtracts the mean over outputs from every output.
    pub(super) fn centre_output(&mut self) {
        self.for_each_column(centre);
    }

    fn for_each_column(&mut self, mut f: impl FnMut(&mut [f32])) {
        let mut column = vec![0f32; self.n];
        for j in 0..self.k {
            for (i, value) in column.iter_mut().enumerate() {
                *value = self.weight[i * self.k + j];
            }
            f(&mut column);
            for (i, value) in column.iter().enumerate() {
                self.weight[i * self.k + j] = *value;
            }
        }
        if let Some(bias) = &mut self.bias {
            f(bias);
        }
    }

    /// Turns a patch embedding over pixel values into one over bytes `p − 128`.
    ///
    /// `x = (p·rescale − mean_c)/std_c`, so with `a_c = rescale/std_c`:
    /// `W_c ← a_c·W_c` and `b ← b + Σ W_c·(128·rescale − mean_c)/std_c`.
    pub(super) fn fold_image_normalisation(&mut self, preprocess: &PreprocessConfig) {
        let per_channel = self.k / 3;
        let mut bias = self.bias.take().unwrap_or_else(|| vec![0.0; self.n]);
        for (out, row) in bias.iter_mut().zip(self.weight.chunks_exact_mut(self.k)) {
            let mut shift = 0f64;
            for (channel, run) in row.chunks_exact_mut(per_channel).enumerate() {
                let mean = f64::from(preprocess.mean[channel]);
                let std = f64::from(preprocess.std[channel]);
                let scale = preprocess.rescale_factor / std;
                let centre = (128.0 * preprocess.rescale_factor - mean) / std;
                for weight in run {
                    shift += f64::from(*weight) * centre;
                    *weight = (f64::from(*weight) * scale) as f32;
                }
            }
            *out += shift as f32;
        }
        self.bias = Some(bias);
    }
}

/// Subtracts the mean from every value.
pub(super) fn centre(values: &mut [f32]) {
    let sum: f64 = values.iter().map(|v| f64::from(*v)).sum();
    let mean = (sum / values.len() as f64) as f32;
    for value in values {
        *value -= mean;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix;

    fn random(n: usize, seed: u64) -> Vec<f32> {
        let mut random = SplitMix(seed);
        (0..n)
            .map(|_| (random.uniform() * 2.0 - 1.0) as f32)
            .collect()
    }

    fn linear(n: usize, k: usize) -> Linear {
        Linear {
            weight: random(n * k, 1),
            bias: Some(random(n, 2)),
            n,
            k,
        }
    }

    fn apply(linear: &Linear, x: &[f32]) -> Vec<f32> {
        (0..linear.n)
            .map(|i| {
                let row = &linear.weight[i * linear.k..][..linear.k];
                row.iter().zip(x).map(|(w, x)| w * x).sum::<f32>()
                    + linear.bias.as_ref().map_or(0.0, |b| b[i])
            })
            .collect()
    }

    fn assert_close(a: &[f32], b: &[f32]) {
        assert_eq!(a.len(), b.len());
        for (a, b) in a.iter().zip(b) {
            assert!((a - b).abs() < 1e-4, "{a} and {b}");
        }
    }

    #[test]
    fn rotating_both_sides_changes_only_the_basis() {
        let (n, k) = (24, 48);
        let (q_in, q_out) = (Rotation::new(k, 3), Rotation::new(n, 4));
        let plain = linear(n, k);
        let mut rotated = plain.clone();
        rotated.rotate_input(&q_in);
        rotated.rotate_output(&q_out);
        let x = random(k, 5);
        let mut x_rotated = x.clone();
        q_in.rotate(&mut x_rotated);
        let mut y = apply(&rotated, &x_rotated);
        q_out.unrotate(&mut y);
        assert_close(&y, &apply(&plain, &x));
    }

    #[test]
    fn folded_norm_parameters_act_on_every_run_of_the_input() {
        let plain = linear(8, 32);
        let (scale, shift) = (random(16, 6), random(16, 7));
        let x = random(32, 8);
        let normed: Vec<f32> = x
            .iter()
            .enumerate()
            .map(|(i, x)| x * scale[i % 16] + shift[i % 16])
            .collect();
        let mut folded = plain.clone();
        folded.fold_input_bias(&shift);
        folded.fold_input_scale(&scale);
        assert_close(&apply(&folded, &x), &apply(&plain, &normed));
    }

    #[test]
    fn patch_embedding_reads_bytes_instead_of_pixel_values() {
        use crate::config::ResampleFilter;
        let preprocess = PreprocessConfig {
            tile_size: 4,
            longest_edge: 4,
            do_image_splitting: false,
            mean: [0.5, 0.4, 0.3],
            std: [0.5, 0.25, 0.2],
            rescale_factor: 1.0 / 255.0,
            filter: ResampleFilter::Lanczos,
        };
        let plain = linear(8, 12);
        let mut folded = plain.clone();
        folded.fold_image_normalisation(&preprocess);
        let bytes: Vec<u8> = (0..12).map(|i| (i * 23) as u8).collect();
        let pixels: Vec<f32> = bytes
            .iter()
            .enumerate()
            .map(|(i, p)| (f32::from(*p) / 255.0 - preprocess.mean[i / 4]) / preprocess.std[i / 4])
            .collect();
        let centred: Vec<f32> = bytes.iter().map(|p| f32::from(*p) - 128.0).collect();
        assert_close(&apply(&folded, &centred), &apply(&plain, &pixels));
    }

    #[test]
    fn gate_and_up_alternate_by_eight_rows() {
        let gate = Linear {
            weight: (0..32).map(|i| i as f32).collect(),
            bias: None,
            n: 16,
            k: 2,
        };
        let up = Linear {
            weight: (100..132).map(|i| i as f32).collect(),
            ..gate.clone()
        };
        let both = Linear::alternate(&gate, &up, 8);
        assert_eq!(both.weight[15], 15.0);
        assert_eq!(both.weight[16], 100.0);
        assert_eq!(both.weight[32], 16.0);
    }
}
