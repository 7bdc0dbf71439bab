//! From exceeding cells to "something entered": a running sum that forgets.

/// What one area saw in this step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AreaChange {
    /// Something is there, or moved less than a second ago.
    pub active: bool,
    /// `active` began with this step.
    pub entered: bool,
    /// `active` ended with this step.
    pub left: bool,
    /// Cells that moved in this step.
    pub cells: u32,
}

/// Sum at which an area becomes active, in 1/16 of a cell at its threshold.
const ENTERS: i32 = 120;
/// What is forgotten in [`STEP`].
const FORGOTTEN: i32 = 36;
const DISTURBED_TIMES: i32 = 3;
/// The step that sums are for, in milliseconds.
const STEP: i32 = 200;

/// The running sum of one area.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Evidence {
    sum: i32,
    /// Median strength of a step, times 256: what never rests must not trigger for ever.
    usual: i32,
    active: bool,
    strength: i32,
    cells: u32,
}

impl Evidence {
    /// Adds a cell; `score` is 16 at the threshold.
    pub(super) fn add(&mut self, score: i32) {
        self.strength += score.min(64);
        self.cells += 1;
    }

    /// Ends a step of `elapsed` milliseconds; `disturbed` while light or camera are not at rest: that needs more.
    pub(super) fn close(&mut self, elapsed: i32, disturbed: bool) -> AreaChange {
        let elapsed = elapsed.clamp(STEP / 4, STEP * 2);
        let forgotten = FORGOTTEN * if disturbed { DISTURBED_TIMES } else { 1 } + self.usual / 160;
        let change = (self.strength - forgotten).clamp(-ENTERS, ENTERS) * elapsed / STEP;
        let pace = self.usual / 128 + 256;
        self.usual += if self.strength << 8 > self.usual {
            pace
        } else {
            -pace
        };
        self.usual = self.usual.max(0);
        self.sum = (self.sum + change).clamp(0, 2 * ENTERS);
        let was = self.active;
        self.active = self.sum >= ENTERS || was && self.sum > 0;
        let told = AreaChange {
            active: self.active,
            entered: self.active && !was,
            left: was && !self.active,
            cells: self.cells,
        };
        (self.strength, self.cells) = (0, 0);
        told
    }
}
