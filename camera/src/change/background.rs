//! What each cell usually shows, and how far it usually strays from that.

use super::light::relit;

/// All values in 1/256 levels of luma.
#[derive(Clone, Debug, Default)]
pub(super) struct Background {
    /// The usual value.
    pub(super) usual: Vec<i32>,
    /// Median deviation from it.
    pub(super) noise: Vec<i32>,
    /// Deviation that is rarely exceeded: what keeps moving, such as leaves, raises it.
    pub(super) busy: Vec<i32>,
    /// How long a cell has shown something else that stands still, in milliseconds.
    held: Vec<i32>,
    /// The last picture.
    last: Vec<i32>,
}

/// How one cell of a step is to be learned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lesson {
    pub(super) value: i32,
    /// Deviation that nothing explains.
    pub(super) rest: i32,
    /// The gain of the light around it.
    pub(super) gain: i32,
    /// The light differs from the background's.
    pub(super) lit: bool,
    /// The light changed within the last seconds.
    pub(super) unsettled: bool,
    /// The camera shakes.
    pub(super) shaken: bool,
    /// The cell shows something that is not the background.
    pub(super) strange: bool,
}

/// How much one step changes, worked out once for all cells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    elapsed: i32,
    absorb: i32,
    /// Shares of a difference, in 1/65536.
    adapt: i32,
    adapt_lit: i32,
    busy_rise: i32,
    busy_fall: i32,
}

impl Pace {
    /// For a step of `elapsed` milliseconds; strange cells are accepted after `absorb`.
    pub(super) fn new(elapsed: i32, absorb: i32) -> Pace {
        let share = |pace: i32| (elapsed.min(pace) << 16) / pace;
        Pace {
            elapsed,
            absorb,
            adapt: share(ADAPT),
            adapt_lit: share(ADAPT_LIT),
            busy_rise: BUSY_RISE * elapsed / 1000,
            busy_fall: (BUSY_RISE * elapsed / 1000 / BUSY_FALL).max(1),
        }
    }
}

/// Time constants in milliseconds.
const ADAPT: i32 = 8_000;
const ADAPT_LIT: i32 = 1_500;
/// How many times sooner than usual a strange cell is accepted after a change of light.
const UNSETTLED_TIMES: i32 = 10;
/// How many times faster cells become busy while the camera shakes.
const SHAKEN_TIMES: i32 = 4;
/// Steps of about the noise itself that its median takes.
const NOISE_PACE: i32 = 32;
/// Noise every cell has: rounding to whole levels.
const LEAST_NOISE: i32 = 64;
const MOST_NOISE: i32 = 40 << 8;
/// Rise of `busy` in 1/256 levels a second, and how many times slower it falls.
const BUSY_RISE: i32 = 400;
const BUSY_FALL: i32 = 40;
const MOST_BUSY: i32 = 70 << 8;
/// Deviation below which a cell is never busy.
const BUSY_FROM: i32 = 2 << 8;
/// Threshold of a quiet cell, and how many times the noise it is otherwise.
const LEAST_FLOOR: i32 = 4 << 8;
const NOISE_TIMES: i32 = 4;

impl Background {
    pub(super) fn new(count: usize) -> Background {
        Background {
            usual: vec![0; count],
            noise: vec![LEAST_NOISE; count],
            busy: vec![0; count],
            held: vec![0; count],
            last: vec![0; count],
        }
    }

    /// Deviation from which a cell shows something else, at the usual sensitivity.
    pub(super) fn floor(&self, cell: usize) -> i32 {
        let noise = NOISE_TIMES * self.noise[cell];
        let busy = self.busy[cell] + self.busy[cell] / 4;
        LEAST_FLOOR.max(noise).max(busy)
    }

    /// Whether a good part of a cell's deviation came with this picture.
    pub(super) fn steps(&self, cell: usize, value: i32, rest: i32) -> bool {
        (value - self.last[cell]).abs() * 4 > rest.abs()
    }

    /// Takes over a whole picture; what was learned about noise stays.
    pub(super) fn replace(&mut self, picture: &[i32]) {
        self.usual.copy_from_slice(picture);
        self.last.copy_from_slice(picture);
        self.held.fill(0);
    }

    /// Learns a picture in which nothing is known yet, the `nth` from 1.
    pub(super) fn average(&mut self, picture: &[i32], nth: i32) {
        for (cell, value) in picture.iter().enumerate() {
            let away = value - self.usual[cell];
            if nth == 1 {
                self.usual[cell] = *value;
            } else {
                self.usual[cell] += away / nth;
                self.noise[cell] += (away.abs() - self.noise[cell]) / nth;
                self.noise[cell] = self.noise[cell].max(LEAST_NOISE);
            }
        }
        self.last.copy_from_slice(picture);
    }

    /// Learns one cell, and tells whether it stood still since the last picture.
    // Once a cell: out of line, the lesson goes through memory and costs as much as the learning.
    #[inline(always)]
    pub(super) fn learn(&mut self, cell: usize, lesson: Lesson, pace: Pace) -> bool {
        let away = lesson.rest.abs();
        let step = (lesson.value - self.last[cell]).abs();
        let steady = step <= (2 << 8) + 4 * self.noise[cell];
        self.last[cell] = lesson.value;
        if lesson.strange {
            self.hold(cell, lesson, steady, pace);
        } else {
            self.held[cell] = (self.held[cell] - pace.elapsed).max(0);
            let adapt = if lesson.lit {
                pace.adapt_lit
            } else {
                pace.adapt
            };
            self.usual[cell] += share(lesson.value - self.usual[cell], adapt);
            self.learn_noise(cell, away);
        }
        // What stands still is not busy, however strange.
        let times = if lesson.shaken { SHAKEN_TIMES } else { 1 };
        self.learn_busy(cell, if step * 2 > away { away } else { 0 }, times, pace);
        steady
    }

    /// A strange cell keeps its background, under the present light, until it has stood still for `absorb`.
    fn hold(&mut self, cell: usize, lesson: Lesson, steady: bool, pace: Pace) {
        let times = if lesson.unsettled { UNSETTLED_TIMES } else { 1 };
        let change = if steady {
            pace.elapsed * times
        } else {
            -pace.elapsed
        };
        self.held[cell] = (self.held[cell] + change).max(0);
        if self.held[cell] >= pace.absorb {
            self.usual[cell] = lesson.value;
            self.held[cell] = 0;
        } else if lesson.lit {
            self.usual[cell] += share(
                relit(self.usual[cell], lesson.gain) - self.usual[cell],
                pace.adapt_lit,
            );
        }
    }

    /// A running median: equal steps up and down, in proportion to the noise.
    fn learn_noise(&mut self, cell: usize, away: i32) {
        let noise = &mut self.noise[cell];
        let step = *noise / NOISE_PACE + 2;
        *noise += if away > *noise { step } else { -step };
        *noise = (*noise).clamp(LEAST_NOISE, MOST_NOISE);
    }

    fn learn_busy(&mut self, cell: usize, away: i32, times: i32, pace: Pace) {
        let busy = &mut self.busy[cell];
        if away > (*busy).max(BUSY_FROM) {
            *busy += pace.busy_rise * times;
        } else {
            *busy -= pace.busy_fall * times;
        }
        *busy = (*busy).clamp(0, MOST_BUSY);
    }
}

/// A share, in 1/65536, of a difference.
fn share(difference: i32, share: i32) -> i32 {
    ((i64::from(difference) * i64::from(share)) >> 16) as i32
}
