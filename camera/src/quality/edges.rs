//! How sharp the strongest edges are.
//!
//! Where an edge is blurred with deviation s, the sum of squared slopes over that of squared second differences
//! (the variance of the Laplacian, one way at a time) is 2·s², whatever the contrast. Noise adds 2·σ² to one and
//! 6·σ² to the other; both are taken off first. σ comes from a mask that neither slopes nor even curves excite
//! (J. Immerkær, "Fast noise variance estimation", 1996), at a low quantile that edges hardly reach.

use super::measures::Small;

/// Side of a block in pixels.
const BLOCK: usize = 16;
/// Share of the blocks, those of the strongest slopes, that count: one in six, and four at least.
const STRONGEST: usize = 6;
const LEAST_BLOCKS: usize = 4;
/// Slope of a block, as the mean square of a pixel, from which it has an edge at all.
const LEAST_SLOPE: i64 = 4;
/// Quantile of the mask's answer, in percent, and that quantile of a normal deviation of 1, in 1/1000.
const QUANTILE: usize = 30;
const NORMAL: u32 = 385;
/// Largest answer of the mask: eight times the largest level.
const MOST_ANSWER: usize = 255 * 8;

/// Width of the strongest edges: deviation of their blur in tenths of a pixel; 5 is as sharp as can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edges {
    /// In the sharper half of the blocks with the strongest edges.
    pub width: u32,
    /// From left to right.
    pub across: u32,
    /// From above to below.
    pub down: u32,
}

/// Sums of squares over a block, without noise: slopes and second differences.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    slope: i64,
    bend: i64,
}

impl Sums {
    fn add(&mut self, [before, at, after]: [u8; 3]) {
        let [before, at, after] = [before, at, after].map(i64::from);
        self.slope += (after - at) * (after - at);
        self.bend += (before - 2 * at + after) * (before - 2 * at + after);
    }

    fn without_noise(self, pixels: i64, variance: i64) -> Sums {
        // `variance` is in 1/256 square levels.
        Sums {
            slope: (self.slope - ((2 * pixels * variance) >> 8)).max(0),
            bend: (self.bend - ((6 * pixels * variance) >> 8)).max(0),
        }
    }

    fn plus(self, other: Sums) -> Sums {
        Sums {
            slope: self.slope + other.slope,
            bend: self.bend + other.bend,
        }
    }

    /// Deviation of the blur in tenths of a pixel.
    fn width(self) -> u32 {
        ((100 * self.slope / (2 * self.bend).max(1)).min(1 << 20) as u64).isqrt() as u32
    }
}

/// Noise in 1/16 levels, and the edges.
pub(super) fn measure_edges(picture: &Small) -> (u32, Option<Edges>) {
    let noise = noise(picture);
    let variance = i64::from(noise) * i64::from(noise);
    let mut blocks = Vec::new();
    for top in (1..picture.height.saturating_sub(BLOCK)).step_by(BLOCK) {
        for left in (1..picture.width.saturating_sub(BLOCK)).step_by(BLOCK) {
            blocks.push(block(picture, left, top, variance));
        }
    }
    (noise, edges(blocks, variance))
}

fn edges(blocks: Vec<[Sums; 2]>, variance: i64) -> Option<Edges> {
    let both = blocks.iter().map(|block| block[0].plus(block[1])).collect();
    let mut widths: Vec<u32> = strongest(both, variance)?
        .into_iter()
        .map(Sums::width)
        .collect();
    widths.sort_unstable();
    let width = widths[widths.len() / 2];
    // Each way has its own strongest blocks; a way without edges is taken to be as sharp as the other.
    let way = |way: usize| {
        let sums = strongest(blocks.iter().map(|block| block[way]).collect(), variance)?;
        Some(sums.into_iter().fold(Sums::default(), Sums::plus).width())
    };
    Some(Edges {
        width,
        across: way(0).unwrap_or(width),
        down: way(1).unwrap_or(width),
    })
}

/// The sums with the largest slopes, if enough of them have an edge at all.
fn strongest(mut sums: Vec<Sums>, variance: i64) -> Option<Vec<Sums>> {
    // What is left of the noise itself must not pass for edges.
    let least = (BLOCK * BLOCK) as i64 * (LEAST_SLOPE + (variance >> 8));
    sums.retain(|sum| sum.slope >= least);
    sums.sort_by_key(|sum| std::cmp::Reverse(sum.slope));
    sums.truncate((sums.len() / STRONGEST).max(LEAST_BLOCKS));
    (sums.len() >= LEAST_BLOCKS).then_some(sums)
}

/// Sums of a block across and down.
fn block(picture: &Small, left: usize, top: usize, variance: i64) -> [Sums; 2] {
    let (width, luma) = (picture.width, &picture.luma);
    let mut sums = [Sums::default(); 2];
    for y in top..top + BLOCK {
        for x in left..left + BLOCK {
            let at = y * width + x;
            sums[0].add([luma[at - 1], luma[at], luma[at + 1]]);
            sums[1].add([luma[at - width], luma[at], luma[at + width]]);
        }
    }
    sums.map(|sum| sum.without_noise((BLOCK * BLOCK) as i64, variance))
}

/// Deviation of the noise in 1/16 levels.
fn noise(picture: &Small) -> u32 {
    let (width, luma) = (picture.width, &picture.luma);
    let mut counts = vec![0usize; MOST_ANSWER + 1];
    let mut total = 0;
    for y in 1..picture.height.saturating_sub(1) {
        for x in 1..width - 1 {
            let line = |y: usize| {
                let at = y * width + x;
                [luma[at - 1], luma[at], luma[at + 1]].map(i32::from)
            };
            let [above, here, below] = [line(y - 1), line(y), line(y + 1)];
            let ends = |line: [i32; 3]| line[0] - 2 * line[1] + line[2];
            let answer = (ends(above) - 2 * ends(here) + ends(below)).unsigned_abs() as usize;
            counts[answer.min(MOST_ANSWER)] += 1;
            total += 1;
        }
    }
    let mut left = total * QUANTILE / 100;
    for (answer, count) in counts.iter().enumerate() {
        if left < *count {
            // The mask's answer has six times the deviation of the noise.
            return answer as u32 * 16 * 1000 / NORMAL / 6;
        }
        left -= count;
    }
    0
}
