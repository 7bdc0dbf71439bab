//! The timed stages: one image tile, a prefill, some decode steps.

use crate::fault::Fault;
use clap::ValueEnum;
use ocelli_kernels::limits::mark;
use ocelli_runtime::{RunError, Session, Vlm};
use std::time::Instant;

/// A stage that the cycle model asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Once {
    /// One image tile.
    Tile,
    /// A prefill and decode steps.
    Text,
}

/// How many tokens a round takes, and what it wants after each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lengths {
    pub(super) prefill: usize,
    pub(super) decode: usize,
    /// All logits instead of the likeliest token.
    pub(super) all_logits: bool,
}

/// What one round took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    /// Seconds of an image tile; `None` for a model that reads text only.
    pub(super) encode: Option<f64>,
    /// Seconds of the prefill, the choice of the first token included.
    pub(super) prefill: f64,
    /// Decode steps a second.
    pub(super) decode_rate: f64,
}

/// The values of one figure, sorted.
#[derive(Clone, Debug)]
pub(super) struct Series(Vec<f64>);

impl Series {
    /// At least one value.
    pub(super) fn new(mut values: Vec<f64>) -> Series {
        assert!(!values.is_empty(), "there is at least one run");
        values.sort_by(f64::total_cmp);
        Series(values)
    }

    pub(super) fn of(rounds: &[Round], figure: impl Fn(&Round) -> f64) -> Series {
        Series::new(rounds.iter().map(figure).collect())
    }

    /// The middle value; of an even number the higher of the two.
    pub(super) fn median(&self) -> f64 {
        self.0[self.0.len() / 2]
    }

    /// Smallest and largest value.
    pub(super) fn range(&self) -> [f64; 2] {
        [self.0[0], self.0[self.0.len() - 1]]
    }
}

/// Runs every stage the model has.
pub(super) fn round(vlm: &Vlm, session: &mut Session, lengths: Lengths) -> Result<Round, Fault> {
    let sees = vlm.config().vision.is_some();
    let encode = sees.then(|| tile(vlm, session)).transpose()?;
    let (prefill, decode_rate) = text(vlm, session, lengths)?;
    Ok(Round {
        encode,
        prefill,
        decode_rate,
    })
}

/// Seconds of one image tile. Its marks are phases 0 (before) and 1.
pub(super) fn tile(vlm: &Vlm, session: &mut Session) -> Result<f64, Fault> {
    let vision = vlm.config().vision.as_ref().ok_or(RunError::NoVision)?;
    let frame = pattern(vision.image_size);
    mark::<0>();
    let start = Instant::now();
    session.encode(&frame)?;
    let elapsed = start.elapsed();
    mark::<1>();
    Ok(elapsed.as_secs_f64())
}

/// Seconds of the prefill, and decode steps a second after it. The marks are phases 0 (before),
/// 1 (prefill), 2 (the first decode step) and 3 (the others).
pub(super) fn text(
    vlm: &Vlm,
    session: &mut Session,
    lengths: Lengths,
) -> Result<(f64, f64), Fault> {
    // Any id but the image token, which would want an image feature.
    let plain = u32::from(vlm.config().image_token_id() == Some(0));
    let prompt = vec![plain; lengths.prefill];
    session.truncate(0);
    let mut room = Vec::with_capacity(vlm.config().text.vocab_size);
    let mut choose = |session: &mut Session| match lengths.all_logits {
        true => session.write_logits(&mut room),
        false => session.likeliest(&mut room).map(drop),
    };

    mark::<0>();
    let start = Instant::now();
    session.extend(&prompt)?;
    choose(session)?;
    let prefill = start.elapsed();
    mark::<1>();
    let start = Instant::now();
    session.reserve(lengths.decode);
    for step in 0..lengths.decode {
        // A fixed token, so that no stop token ends the run.
        session.extend(&[plain])?;
        choose(session)?;
        if step == 0 {
            mark::<2>();
        }
    }
    let decode = start.elapsed();
    mark::<3>();
    let rate = lengths.decode as f64 / decode.as_secs_f64();
    Ok((prefill.as_secs_f64(), rate))
}

/// A frame without flat areas. `[side, side, 3]`
fn pattern(side: usize) -> Vec<u8> {
    (0..side * side * 3)
        .map(|i| {
            let (pixel, channel) = (i / 3, i % 3);
            let (x, y) = (pixel % side, pixel / side);
            ((7 * x + 3 * y + 85 * channel) % 256) as u8
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_gives_its_median_and_its_ends() {
        for (values, median, range) in [
            (vec![3.0], 3.0, [3.0, 3.0]),
            (vec![5.0, 1.0, 2.0], 2.0, [1.0, 5.0]),
            (vec![4.0, 1.0, 2.0, 3.0], 3.0, [1.0, 4.0]),
        ] {
            let series = Series::new(values);
            assert_eq!((series.median(), series.range()), (median, range));
        }
    }
}
