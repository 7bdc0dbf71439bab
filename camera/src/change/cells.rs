//! A set of cells of a grid.

use crate::luma::Luma;

/// Which cells of a grid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cells {
    columns: u32,
    rows: u32,
    /// Bit `row * columns + column`.
    words: Vec<u64>,
}

/// How a picture is cut into tiles: `columns` × `rows` tiles that share the width and height evenly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TileLayout {
    /// Tiles of a row.
    pub columns: u32,
    /// Rows of tiles.
    pub rows: u32,
    /// Width of the picture in pixels.
    pub width: u32,
    /// Height of the picture in pixels.
    pub height: u32,
}

/// One tile of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Its column.
    pub column: u32,
    /// Its row.
    pub row: u32,
    /// Left edge in pixels.
    pub x: u32,
    /// Upper edge in pixels.
    pub y: u32,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

impl Cells {
    /// An empty set of a grid of `columns` × `rows`.
    pub fn new(columns: u32, rows: u32) -> Cells {
        let count = columns as usize * rows as usize;
        Cells {
            columns,
            rows,
            words: vec![0; count.div_ceil(64)],
        }
    }

    /// Cells of a row of the grid.
    pub fn columns(&self) -> u32 {
        self.columns
    }

    /// Rows of the grid.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// How many cells are in the set.
    pub fn count(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Whether a cell is in the set; cells outside the grid never are.
    pub fn contains(&self, column: u32, row: u32) -> bool {
        column < self.columns && row < self.rows && self.has(self.index(column, row))
    }

    /// Adds a cell; one outside the grid is ignored.
    pub fn insert(&mut self, column: u32, row: u32) {
        if column < self.columns && row < self.rows {
            self.add(self.index(column, row));
        }
    }

    /// Removes every cell.
    pub fn clear(&mut self) {
        self.words.fill(0);
    }

    /// Adds the cells of another set; the set becomes that one if the grids differ.
    ///
    /// Collect the changes since a picture was encoded with this.
    pub fn merge(&mut self, other: &Cells) {
        if (self.columns, self.rows) != (other.columns, other.rows) {
            self.clone_from(other);
            return;
        }
        for (word, more) in self.words.iter_mut().zip(&other.words) {
            *word |= more;
        }
    }

    /// Column and row of every cell, row by row.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32)> {
        self.indices()
            .map(|index| (index as u32 % self.columns, index as u32 / self.columns))
    }

    /// The tiles that hold at least a part of a cell of the set, row by row.
    pub fn tiles(&self, layout: TileLayout) -> impl Iterator<Item = Tile> {
        let tiles = (0..layout.rows)
            .flat_map(move |row| (0..layout.columns).map(move |column| (column, row)));
        tiles
            .filter(move |(column, row)| self.touches(layout, *column, *row))
            .map(move |(column, row)| layout.tile(column, row))
    }

    /// The cells in which two grids differ by more than `levels`; all of `after` if the sizes differ.
    pub fn that_differ(before: &Luma, after: &Luma, levels: u8) -> Cells {
        let mut cells = Cells::new(after.columns, after.rows);
        let same_size = (before.columns, before.rows) == (after.columns, after.rows);
        let count = after.columns as usize * after.rows as usize;
        for index in 0..count {
            let pair = before.values.get(index).zip(after.values.get(index));
            if !same_size || pair.is_none_or(|(a, b)| a.abs_diff(*b) > levels) {
                cells.add(index);
            }
        }
        cells
    }

    fn touches(&self, layout: TileLayout, column: u32, row: u32) -> bool {
        let columns = overlap(column, layout.columns, self.columns);
        overlap(row, layout.rows, self.rows).any(|y| columns.clone().any(|x| self.contains(x, y)))
    }

    fn index(&self, column: u32, row: u32) -> usize {
        row as usize * self.columns as usize + column as usize
    }

    pub(super) fn has(&self, index: usize) -> bool {
        self.words[index / 64] >> (index % 64) & 1 == 1
    }

    pub(super) fn add(&mut self, index: usize) {
        self.words[index / 64] |= 1 << (index % 64);
    }

    pub(super) fn remove(&mut self, index: usize) {
        self.words[index / 64] &= !(1 << (index % 64));
    }

    pub(super) fn indices(&self) -> impl Iterator<Item = usize> {
        self.words.iter().enumerate().flat_map(|(at, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros() as usize)?;
                left &= left - 1;
                Some(at * 64 + bit)
            })
        })
    }
}

impl TileLayout {
    fn tile(self, column: u32, row: u32) -> Tile {
        let x = part_edge(column, self.columns, self.width);
        let y = part_edge(row, self.rows, self.height);
        Tile {
            column,
            row,
            x,
            y,
            width: part_edge(column + 1, self.columns, self.width) - x,
            height: part_edge(row + 1, self.rows, self.height) - y,
        }
    }
}

/// Where part `index` of `parts` equal parts of a length begins.
pub(super) fn part_edge(index: u32, parts: u32, length: u32) -> u32 {
    (u64::from(index.min(parts)) * u64::from(length) / u64::from(parts.max(1))) as u32
}

/// Which of `cells` equal parts of a length share more than a border with part `index` of `parts`.
fn overlap(index: u32, parts: u32, cells: u32) -> std::ops::Range<u32> {
    let (index, parts, cells) = (u64::from(index), u64::from(parts), u64::from(cells));
    let first = index * cells / parts;
    let end = ((index + 1) * cells).div_ceil(parts);
    first as u32..end as u32
}
