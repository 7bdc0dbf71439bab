//! The small shift of the whole picture when the camera trembles.

/// Shift of the picture against the background, in 1/256 cells; zero when no shift explains what is seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shift {
    pub(super) x: i32,
    pub(super) y: i32,
}

/// Largest shift that the slope of the background can explain, in 1/256 cells.
const FARTHEST: i32 = 384;
/// Smallest shift worth a word.
const LEAST: i32 = 6;
/// Change of a cell that is more than rounding, in 1/256 levels.
const PLAIN: i32 = 1 << 8;
/// A single cell's weight is bounded: an object must not pass for a shift.
const CLIP: i32 = 40 << 8;

/// Slopes of the background in 1/256 levels a cell.
#[derive(Clone, Debug, Default)]
pub(super) struct Shake {
    slopes: Vec<[i32; 2]>,
    left: Vec<i32>,
}

impl Shake {
    pub(super) fn new(count: usize) -> Shake {
        Shake {
            slopes: vec![[0; 2]; count],
            left: Vec::with_capacity(count),
        }
    }

    /// The shift that explains `rest` best (least squares), taken out of `rest`; zero, and nothing taken out,
    /// unless it explains enough of it.
    pub(super) fn take_out(
        &mut self,
        background: &[i32],
        columns: usize,
        rest: &mut [i32],
    ) -> Shift {
        self.slope(background, columns);
        let shift = self.fit(rest);
        if shift.x.abs().max(shift.y.abs()) < LEAST {
            return Shift::default();
        }
        if !self.explains(shift, rest) {
            return Shift::default();
        }
        let reach = Reach::new(shift, columns, rest.len());
        self.left.clear();
        self.left
            .extend(rest.iter().enumerate().map(|(cell, value)| {
                let (low, high) = reach.range(background, cell);
                let moved = background[cell] + value;
                if reach.is_new(cell) {
                    0
                } else {
                    moved - moved.clamp(low, high)
                }
            }));
        rest.copy_from_slice(&self.left);
        shift
    }

    /// Whether the shift takes a fifth out of the squares of the cells it should change; out of noise it would take
    /// nothing.
    fn explains(&self, shift: Shift, rest: &[i32]) -> bool {
        let (mut before, mut after) = (0, 0);
        for (value, [x, y]) in rest.iter().zip(&self.slopes) {
            let explained = -((shift.x * x + shift.y * y) >> 8);
            if explained.abs() >= PLAIN {
                before += i64::from(*value).pow(2);
                after += i64::from(value - explained).pow(2);
            }
        }
        after * 5 < before * 4
    }

    fn slope(&mut self, background: &[i32], columns: usize) {
        let rows = background.len() / columns;
        for row in 0..rows {
            let line = &background[row * columns..][..columns];
            let above = &background[row.saturating_sub(1) * columns..][..columns];
            let below = &background[(row + 1).min(rows - 1) * columns..][..columns];
            let slopes = &mut self.slopes[row * columns..][..columns];
            for column in 0..columns {
                let (left, right) = (column.saturating_sub(1), (column + 1).min(columns - 1));
                slopes[column] = [
                    (line[right] - line[left]) / 2,
                    (below[column] - above[column]) / 2,
                ];
            }
        }
    }

    fn fit(&self, rest: &[i32]) -> Shift {
        let [mut xx, mut xy, mut yy, mut xr, mut yr] = [0i64; 5];
        for ([x, y], value) in self.slopes.iter().zip(rest) {
            let value = i64::from((*value).clamp(-CLIP, CLIP));
            let (x, y) = (i64::from(*x), i64::from(*y));
            xx += x * x;
            xy += x * y;
            yy += y * y;
            xr += x * value;
            yr += y * value;
        }
        // The least squares equations by Cramer's rule, scaled down so that products fit 64 bits.
        let [xx, xy, yy, xr, yr] = [xx, xy, yy, xr, yr].map(|sum| sum >> 16);
        let scale = i128::from(xx * yy - xy * xy);
        if scale <= i128::from(xx + yy) * 16 {
            return Shift::default();
        }
        let far = i128::from(FARTHEST);
        let solve = |top: i64| (i128::from(top) * -256 / scale).clamp(-far, far) as i32;
        Shift {
            x: solve(xr * yy - yr * xy),
            y: solve(yr * xx - xr * xy),
        }
    }
}

/// Which cells a shift of less than a cell and a half can mix into each cell.
struct Reach {
    columns: usize,
    rows: usize,
    x: isize,
    y: isize,
}

impl Reach {
    fn new(shift: Shift, columns: usize, count: usize) -> Reach {
        let side = |shift: i32| {
            if shift.abs() < LEAST {
                0
            } else {
                -shift.signum() as isize
            }
        };
        Reach {
            columns,
            rows: count / columns,
            x: side(shift.x),
            y: side(shift.y),
        }
    }

    /// Whether a cell at the border shows what was outside the picture before.
    fn is_new(&self, cell: usize) -> bool {
        let beyond = |at: usize, side: isize, count: usize| match side {
            0 => false,
            ..0 => at == 0,
            1.. => at + 1 == count,
        };
        beyond(cell % self.columns, self.x, self.columns)
            || beyond(cell / self.columns, self.y, self.rows)
    }

    /// Smallest and largest background of the cells that may be mixed, with a little room: cells are not flat.
    fn range(&self, background: &[i32], cell: usize) -> (i32, i32) {
        let (column, row) = (cell % self.columns, cell / self.columns);
        let across = column.saturating_add_signed(self.x).min(self.columns - 1);
        let down = row.saturating_add_signed(self.y).min(self.rows - 1);
        let mixed = [(column, row), (across, row), (column, down), (across, down)];
        let values = mixed.map(|(x, y)| background[y * self.columns + x]);
        let low = values.into_iter().fold(i32::MAX, i32::min);
        let high = values.into_iter().fold(0, i32::max);
        let room = (high - low) / 2;
        (low - room, high + room)
    }
}
