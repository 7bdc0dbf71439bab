//! A short measurement of each phase's own kernels on the model's own weights.
//!
//! The work is the same whatever the machine: about [`MACS`] products of the first matrix of a vision
//! layer's MLP, as many of a decoder layer's, and [`BYTES`] of weights read for one token. The weights
//! of the last change from run to run, as they do from layer to layer, so that caches hold no more
//! of them than in a decode step.

use super::products::linear;
use crate::error::LoadError;
use crate::pack::{Matrix, OpenError, Pack};
use crate::threads::{Trial, Trials};
use ocelli_kernels::{Compute, Int8RowsBuf, Store};
use std::time::Instant;

/// Multiply-accumulates of one run of the encoder's and of the prefill's piece.
const MACS: usize = 128 << 20;
/// Fewest and most tokens of these.
const ROWS: (usize, usize) = (32, 128);
/// Bytes of weights that one run of the decode piece reads.
const BYTES: usize = 16 << 20;
/// Timed runs on each number of threads.
const RUNS: usize = 7;

/// Measures the phases of a pack on these numbers of threads.
pub(crate) fn trials(
    pack: &Pack,
    compute: &Compute,
    candidates: &[usize],
) -> Result<Trials, LoadError> {
    let config = &pack.header().config;
    let text = &config.text;
    let encode = match &config.vision {
        Some(vision) => {
            let (inter, hidden) = (vision.intermediate_size, vision.hidden_size);
            let fc1 = pack.matrix("vision.0.fc1", inter, hidden)?;
            many_tokens(pack, compute, fc1, candidates)
        }
        None => Vec::new(),
    };
    let gate_up = |layer| {
        let rows = 2 * text.intermediate_size;
        pack.matrix(&format!("text.{layer}.gate_up"), rows, text.hidden_size)
    };
    let gate_ups = (0..text.n_layers).map(gate_up);
    let gate_ups = gate_ups.collect::<Result<Vec<Matrix>, OpenError>>()?;
    let first = gate_ups.first();
    let prefill = first.map(|first| many_tokens(pack, compute, *first, candidates));
    Ok(Trials {
        encode,
        prefill: prefill.unwrap_or_default(),
        decode: one_token(pack, compute, &gate_ups, candidates),
    })
}

fn many_tokens(pack: &Pack, compute: &Compute, matrix: Matrix, candidates: &[usize]) -> Vec<Trial> {
    let m = (MACS / (matrix.n * matrix.k).max(1)).clamp(ROWS.0, ROWS.1);
    let rows = tokens(m, &matrix);
    let mut out = vec![0.0; m * matrix.n];
    timed(compute, candidates, || {
        let panels = pack.panels(&matrix);
        linear(compute, rows.rows(), panels, &mut out, Store::Overwrite);
    })
}

fn one_token(
    pack: &Pack,
    compute: &Compute,
    matrices: &[Matrix],
    candidates: &[usize],
) -> Vec<Trial> {
    let Some(first) = matrices.first() else {
        return Vec::new();
    };
    let rows = tokens(1, first);
    let mut out = vec![0.0; first.n];
    let n_products = BYTES.div_ceil(first.byte_len().max(1));
    let mut layers = matrices.iter().cycle();
    timed(compute, candidates, || {
        for matrix in layers.by_ref().take(n_products) {
            let panels = pack.panels(matrix);
            linear(compute, rows.rows(), panels, &mut out, Store::Overwrite);
        }
    })
}

/// Tokens for a matrix; what they say is of no matter to the time.
fn tokens(m: usize, matrix: &Matrix) -> Int8RowsBuf {
    let mut buffer = Int8RowsBuf::new();
    let mut rows = buffer.reshape(m, matrix.k, matrix.group);
    rows.scales_mut().fill(1e-3);
    for (i, value) in rows.data_mut().iter_mut().enumerate() {
        *value = ((i % 255) as i16 - 127) as i8;
    }
    buffer
}

/// The shortest time of `work` on each number of threads: what else the machine does only adds to it.
/// They take turns, so that a clock that changes in between changes for all.
fn timed(compute: &Compute, candidates: &[usize], mut work: impl FnMut()) -> Vec<Trial> {
    let pool = compute.pool();
    // Pages and caches are filled.
    work();
    let mut times = vec![f64::INFINITY; candidates.len()];
    for _ in 0..RUNS {
        for (threads, shortest) in candidates.iter().zip(&mut times) {
            pool.limited(*threads, || {
                // Workers that sleep are woken: between the loops of a phase they do not.
                pool.run(*threads, &|_| {});
                let start = Instant::now();
                work();
                *shortest = start.elapsed().as_secs_f64().min(*shortest);
            });
        }
    }
    let trials = candidates.iter().zip(times);
    trials
        .map(|(&threads, seconds)| Trial { threads, seconds })
        .collect()
}
