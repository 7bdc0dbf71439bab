//! Bands of lamps that flicker with the mains: a rolling shutter sees each line at another moment.

use super::MAX_SIDE;

/// Learned strength below which there is no flicker, 1/4096 of the luma.
const FAINT: i32 = 4096 / 160;
/// Deviation of one cell that counts at most, in 1/256 levels.
const CLIP: i32 = 24 << 8;
/// Time constant of the learned strength in milliseconds.
const SLOW: i32 = 10_000;

/// Which lines of the grid a band may follow.
#[derive(Clone, Copy, Debug)]
pub(super) enum Along {
    Rows,
    Columns,
}

/// Usual strength of bands, and what they are now.
#[derive(Clone, Debug)]
pub(super) struct Bands {
    along: Along,
    /// Mean deviation of a line, 1/4096 of its luma, times 256.
    strength: i32,
}

impl Bands {
    pub(super) fn new(along: Along) -> Bands {
        Bands { along, strength: 0 }
    }

    /// Takes the bands out of `rest`, no more than twice their usual strength: in steady light nothing.
    /// `elapsed` in milliseconds.
    pub(super) fn take_out(
        &mut self,
        background: &[i32],
        columns: usize,
        elapsed: i32,
        rest: &mut [i32],
    ) {
        let rows = background.len() / columns;
        let lines = match self.along {
            Along::Rows => rows,
            Along::Columns => columns,
        };
        let (step, length) = match self.along {
            Along::Rows => (1, columns),
            Along::Columns => (columns, rows),
        };
        let usual = self.strength >> 8;
        let limit = if usual < FAINT { 0 } else { 3 * usual };
        let cells = |line: usize| {
            let start = if step == 1 { line * columns } else { line };
            (0..length).map(move |at| start + at * step)
        };
        let mut gains = [0; MAX_SIDE as usize];
        for (line, gain) in gains[..lines].iter_mut().enumerate() {
            *gain = line_gain(cells(line), background, rest);
        }
        let overall = gains[..lines].iter().sum::<i32>() / lines as i32;
        let mut total = 0;
        for (line, gain) in gains[..lines].iter().enumerate() {
            let gain = gain - overall;
            total += gain.abs().min(1024);
            let taken = gain.clamp(-limit, limit);
            if taken != 0 {
                for cell in cells(line) {
                    rest[cell] -= (background[cell] * taken) >> 12;
                }
            }
        }
        let mean = (total << 8) / lines as i32;
        self.strength += (mean - self.strength) / (SLOW / elapsed).max(1);
    }
}

/// How much brighter a line is than it should be, 1/4096.
fn line_gain(cells: impl Iterator<Item = usize>, background: &[i32], rest: &[i32]) -> i32 {
    // A line has at most 256 cells of 16 bits.
    let (mut over, mut luma) = (0, 0);
    for cell in cells {
        over += rest[cell].clamp(-CLIP, CLIP);
        luma += background[cell];
    }
    ((i64::from(over) << 12) / i64::from(luma.max(1 << 10))).clamp(-4096, 4096) as i32
}
