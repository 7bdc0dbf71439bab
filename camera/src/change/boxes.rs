//! Boxes around connected cells.

use super::cells::{Cells, part_edge};

/// Most boxes told of one step; the largest are kept.
pub const MAX_BOXES: usize = 16;

/// The smallest rectangle around a group of cells that touch each other, corners included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CellBox {
    /// First column.
    pub left: u32,
    /// First row.
    pub top: u32,
    /// One past the last column.
    pub right: u32,
    /// One past the last row.
    pub bottom: u32,
    /// Cells of the group.
    pub cells: u32,
}

/// A rectangle of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PixelBox {
    /// Left edge in pixels.
    pub x: u32,
    /// Upper edge in pixels.
    pub y: u32,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

impl CellBox {
    /// The pixels of the box's cells, when the grid of `cells` lies over a picture of `width` × `height`.
    pub fn in_picture(&self, cells: &Cells, width: u32, height: u32) -> PixelBox {
        let x = part_edge(self.left, cells.columns(), width);
        let y = part_edge(self.top, cells.rows(), height);
        PixelBox {
            x,
            y,
            width: part_edge(self.right, cells.columns(), width) - x,
            height: part_edge(self.bottom, cells.rows(), height) - y,
        }
    }
}

/// Finds boxes without allocating after the first time.
#[derive(Clone, Debug, Default)]
pub(super) struct Boxes {
    open: Cells,
    stack: Vec<(u32, u32)>,
}

impl Boxes {
    pub(super) fn new(columns: u32, rows: u32) -> Boxes {
        Boxes {
            open: Cells::new(columns, rows),
            stack: Vec::with_capacity(columns as usize * rows as usize),
        }
    }

    /// Writes the boxes of `cells` to `found`, largest first.
    pub(super) fn find(&mut self, cells: &Cells, found: &mut Vec<CellBox>) {
        found.clear();
        self.open.clone_from(cells);
        for (column, row) in cells.iter() {
            if !self.take(column, row) {
                continue;
            }
            let group = self.group(column, row);
            let place = found.partition_point(|known| known.cells >= group.cells);
            if place < MAX_BOXES {
                found.truncate(MAX_BOXES - 1);
                found.insert(place, group);
            }
        }
    }

    /// The group that a cell just taken belongs to; takes all its cells.
    fn group(&mut self, column: u32, row: u32) -> CellBox {
        let mut group = CellBox {
            left: column,
            top: row,
            right: column + 1,
            bottom: row + 1,
            cells: 0,
        };
        self.stack.push((column, row));
        while let Some((x, y)) = self.stack.pop() {
            group.left = group.left.min(x);
            group.top = group.top.min(y);
            group.right = group.right.max(x + 1);
            group.bottom = group.bottom.max(y + 1);
            group.cells += 1;
            for next_y in y.saturating_sub(1)..=y + 1 {
                for next_x in x.saturating_sub(1)..=x + 1 {
                    if self.take(next_x, next_y) {
                        self.stack.push((next_x, next_y));
                    }
                }
            }
        }
        group
    }

    fn take(&mut self, column: u32, row: u32) -> bool {
        let there = self.open.contains(column, row);
        if there {
            self.open
                .remove(row as usize * self.open.columns() as usize + column as usize);
        }
        there
    }
}
