//! How much brighter or darker each part of the picture has become.
//!
//! Light multiplies: where only the light changed, `picture + P = gain × (background + P)` with one gain for a
//! whole neighbourhood. Gains are medians over blocks of cells, so that an object that covers less than half of a
//! neighbourhood does not pass for light, and a block's gain counts only when most of its cells agree with it:
//! an object has another texture than what it hides.

/// Gain 1.
pub(super) const ONE: i32 = 1024;

/// Cells of a block's side.
const BLOCK: usize = 5;
/// What is added to both luma values, in 1/256 levels: dark cells would have wild ratios.
const PEDESTAL: i32 = 8 << 8;
/// Luma below and above which a cell says nothing of the light, in 1/256 levels: clipped.
const DARKEST: i32 = 6 << 8;
const BRIGHTEST: i32 = 245 << 8;
/// Deviation from a block's gain that every cell may have, in 1/256 levels.
const AGREES: i32 = 3 << 8;
/// A change of gain from which the light counts as changing.
const LIT: i32 = ONE / 24;
/// Share of the gain by which it changes from one picture to the next only when a lamp is switched.
const JUMP: i32 = 10;
const FOLLOWS: i32 = 32;
/// How long the light is not trusted after a change, in milliseconds.
const UNSETTLED: i32 = 5_000;

/// Gains a cell may have had without anything moving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gains {
    pub(super) low: i32,
    pub(super) high: i32,
    /// The likeliest.
    pub(super) middle: i32,
}

impl Gains {
    /// Whether the light differs from the background's.
    pub(super) fn is_lit(self) -> bool {
        (self.middle - ONE).abs() > LIT
    }
}

const STEADY: Gains = Gains {
    low: ONE,
    high: ONE,
    middle: ONE,
};

/// Gains of all blocks.
#[derive(Clone, Debug, Default)]
pub(super) struct Light {
    columns: usize,
    rows: usize,
    blocks: (usize, usize),
    /// Gain of each block by itself; 0 where its cells do not agree.
    own: Vec<i32>,
    /// Median of the neighbourhood.
    smooth: Vec<i32>,
    gains: Vec<Gains>,
    sorted: Vec<i32>,
    /// Median of all blocks, and the gains that a fifth of them lie beyond.
    overall: i32,
    dark_fifth: i32,
    bright_fifth: i32,
    /// The last picture's median, and how far it is from this one's.
    last: i32,
    step: i32,
    /// How long ago any part was lit otherwise, in milliseconds.
    steady: i32,
}

impl Light {
    pub(super) fn new(columns: usize, rows: usize) -> Light {
        let blocks = (columns.div_ceil(BLOCK), rows.div_ceil(BLOCK));
        let count = blocks.0 * blocks.1;
        Light {
            columns,
            rows,
            blocks,
            own: vec![0; count],
            smooth: vec![ONE; count],
            gains: vec![STEADY; count],
            sorted: Vec::with_capacity(count.max(BLOCK * BLOCK)),
            overall: ONE,
            dark_fifth: ONE,
            bright_fifth: ONE,
            last: ONE,
            step: 0,
            steady: UNSETTLED,
        }
    }

    /// Whether the light of the whole picture changed at once: a switch.
    pub(super) fn jumped(&self) -> bool {
        self.step > self.overall / JUMP
    }

    /// Whether exposure still follows the light.
    pub(super) fn follows(&self) -> bool {
        self.step > self.overall / FOLLOWS
    }

    /// The gain of most of the picture.
    pub(super) fn overall(&self) -> i32 {
        self.overall
    }

    /// Whether any part of the picture is lit otherwise than the background.
    pub(super) fn is_lit(&self) -> bool {
        self.gains.iter().any(|gains| gains.is_lit())
    }

    /// Whether the light changed within the last seconds.
    pub(super) fn is_unsettled(&self) -> bool {
        self.steady < UNSETTLED
    }

    /// Measures a new picture and compares its light with the last one's; `elapsed` in milliseconds.
    pub(super) fn follow(
        &mut self,
        picture: &[i32],
        background: &[i32],
        noise: &[i32],
        elapsed: i32,
    ) {
        self.measure(picture, background, noise);
        self.step = (self.overall - self.last).abs();
        self.last = self.overall;
        self.steady = if self.is_lit() {
            0
        } else {
            (self.steady + elapsed).min(UNSETTLED)
        };
    }

    /// Forgets the light of the last background.
    pub(super) fn restart(&mut self) {
        (self.last, self.steady) = (ONE, 0);
    }

    /// Measures the gains from `background` to `picture` (1/256 levels); `noise` is each cell's usual deviation.
    pub(super) fn measure(&mut self, picture: &[i32], background: &[i32], noise: &[i32]) {
        for block in 0..self.own.len() {
            self.own[block] = self.agreed(block, picture, background, noise);
        }
        let overall = self.median(0..self.own.len()).unwrap_or(ONE);
        let fifth = self.sorted.len() / 5;
        self.dark_fifth = self.sorted.get(fifth).copied().unwrap_or(ONE);
        self.bright_fifth = self.sorted.iter().nth_back(fifth).copied().unwrap_or(ONE);
        for block in 0..self.smooth.len() {
            let median = self.median(neighbours(block, self.blocks));
            self.smooth[block] = median.unwrap_or(overall);
        }
        for block in 0..self.gains.len() {
            self.gains[block] = self.range(block);
        }
        self.overall = overall;
    }

    /// The part of a cell's difference that light does not explain, in 1/256 levels.
    pub(super) fn unexplained(
        &self,
        column: usize,
        row: usize,
        picture: i32,
        background: i32,
    ) -> i32 {
        let gains = self.at(column, row);
        let low = relit(background, gains.low).clamp(0, BRIGHTEST);
        let mut high = relit(background, gains.high);
        // What was or becomes clipped may be brighter than it reads.
        if background.max(high) >= BRIGHTEST {
            high = high.max(255 << 8);
        }
        picture - picture.clamp(low, high)
    }

    /// The gains of a cell's block.
    pub(super) fn at(&self, column: usize, row: usize) -> Gains {
        self.gains[row / BLOCK * self.blocks.0 + column / BLOCK]
    }

    /// The gain most cells of a block agree on, or 0.
    fn agreed(&self, block: usize, picture: &[i32], background: &[i32], noise: &[i32]) -> i32 {
        let mut gains = [0; BLOCK * BLOCK];
        let mut count = 0;
        for cell in self.cells(block) {
            let (value, usual) = (picture[cell], background[cell]);
            if value.min(usual) >= DARKEST && value.max(usual) <= BRIGHTEST {
                gains[count] = (value + PEDESTAL) * ONE / (usual + PEDESTAL);
                count += 1;
            }
        }
        if count < BLOCK {
            return 0;
        }
        gains[..count].sort_unstable();
        let median = gains[count / 2];
        let fits = |cell: &usize| {
            let away = (picture[*cell] - relit(background[*cell], median)).abs();
            away <= AGREES + 3 * noise[*cell]
        };
        let agreeing = self.cells(block).filter(fits).count();
        if agreeing * 5 >= count * 3 { median } else { 0 }
    }

    /// The cells of a block, by index.
    fn cells(&self, block: usize) -> impl Iterator<Item = usize> + use<> {
        let columns = self.columns;
        let left = block % self.blocks.0 * BLOCK;
        let top = block / self.blocks.0 * BLOCK;
        let (right, bottom) = ((left + BLOCK).min(columns), (top + BLOCK).min(self.rows));
        (top..bottom).flat_map(move |row| (left..right).map(move |column| row * columns + column))
    }

    /// Median of the blocks' own gains, of those that have one.
    fn median(&mut self, blocks: impl Iterator<Item = usize>) -> Option<i32> {
        self.sorted.clear();
        let own = &self.own;
        self.sorted
            .extend(blocks.map(|block| own[block]).filter(|gain| *gain != 0));
        self.sorted.sort_unstable();
        self.sorted.get(self.sorted.len() / 2).copied()
    }

    /// Smallest, largest and likeliest gain around a block.
    fn range(&self, block: usize) -> Gains {
        // An object is small: gains that a fifth of the picture has are light, sun or shade, wherever they are.
        let mut low = self.dark_fifth;
        let mut high = self.bright_fifth;
        let changing = high - low > LIT || (self.overall - ONE).abs() > LIT;
        for other in neighbours(block, self.blocks) {
            low = low.min(self.smooth[other]);
            high = high.max(self.smooth[other]);
            // Borders of shadows need the gains of single blocks, and no gain at all.
            if changing {
                let own = if self.own[other] == 0 {
                    ONE
                } else {
                    self.own[other]
                };
                low = low.min(own);
                high = high.max(own);
            }
        }
        let middle = self.smooth[block];
        // The more the light changed, the less exactly its gains are known.
        let room = (high - low) / 4 + (middle - ONE).abs() / 8;
        Gains {
            low: low - room,
            high: high + room,
            middle,
        }
    }
}

/// A block and the blocks around it.
fn neighbours(block: usize, (columns, rows): (usize, usize)) -> impl Iterator<Item = usize> {
    let (column, row) = (block % columns, block / columns);
    let across = column.saturating_sub(1)..(column + 2).min(columns);
    (row.saturating_sub(1)..(row + 2).min(rows))
        .flat_map(move |row| across.clone().map(move |column| row * columns + column))
}

/// A value of the background under another light.
pub(super) fn relit(background: i32, gain: i32) -> i32 {
    (((background + PEDESTAL) * gain) >> 10) - PEDESTAL
}
