//! Means over the cells of a grid.

use std::ops::Range;

use crate::convert::LumaRows;
use crate::luma::Luma;
use crate::mask::Mask;
use crate::view::View;

/// Rows that fit the 16-bit sums of their columns.
const ROWS_A_SUM: usize = 257;

/// The upright grid of `columns` × `rows` means of a sensor picture of `size`.
pub(super) fn means(
    picture: &mut dyn LumaRows,
    size: (u32, u32),
    view: &View,
    (columns, rows): (u32, u32),
) -> Luma {
    let axes = view.orientation.axes();
    let (width, height) = view.orientation.turned_size(size.0, size.1);
    let upright = Edges {
        x: edges(width, columns),
        y: edges(height, rows),
    };
    let x = reversed_if(axes.reverse_x, upright.x.clone());
    let y = reversed_if(axes.reverse_y, upright.y.clone());
    let sensor = if axes.swap {
        Edges { x: y, y: x }
    } else {
        Edges { x, y }
    };

    let cells = sensor.means(picture);
    let sensor_columns = sensor.x.len() - 1;
    let mut values = Vec::with_capacity(cells.len());
    for row in 0..rows as usize {
        let row = if axes.reverse_y {
            rows as usize - 1 - row
        } else {
            row
        };
        for column in 0..columns as usize {
            let column = if axes.reverse_x {
                columns as usize - 1 - column
            } else {
                column
            };
            let (x, y) = if axes.swap {
                (row, column)
            } else {
                (column, row)
            };
            values.push(cells[y * sensor_columns + x]);
        }
    }
    if let Some(mask) = &view.mask {
        upright.blacken(&mut values, mask);
    }
    Luma {
        columns,
        rows,
        values,
    }
}

/// First pixels of the cells along both sides, and the ends of the last.
struct Edges {
    x: Vec<usize>,
    y: Vec<usize>,
}

fn edges(side: u32, cells: u32) -> Vec<usize> {
    let edge = |i| u64::from(side) * u64::from(i) / u64::from(cells);
    (0..=cells).map(|i| edge(i) as usize).collect()
}

/// The same cells counted from the other end.
fn reversed_if(reverse: bool, edges: Vec<usize>) -> Vec<usize> {
    let side = edges.last().copied().unwrap_or(0);
    if reverse {
        edges.iter().rev().map(|edge| side - edge).collect()
    } else {
        edges
    }
}

fn cells(edges: &[usize]) -> impl Iterator<Item = Range<usize>> {
    edges.array_windows().map(|[start, end]| *start..*end)
}

impl Edges {
    fn means(&self, picture: &mut dyn LumaRows) -> Vec<u8> {
        let (black, span) = picture.black_and_span();
        let columns = self.x.len() - 1;
        let mut values = Vec::with_capacity(columns * (self.y.len() - 1));
        let mut column_sums = vec![0u16; self.x.last().copied().unwrap_or(0)];
        let mut cell_sums = vec![0u64; columns];
        for band in cells(&self.y) {
            cell_sums.fill(0);
            for start in band.clone().step_by(ROWS_A_SUM) {
                column_sums.fill(0);
                for y in start..band.end.min(start + ROWS_A_SUM) {
                    picture.add_luma_row(y, &mut column_sums);
                }
                for (sum, cell) in cell_sums.iter_mut().zip(cells(&self.x)) {
                    let pixels = &column_sums[cell];
                    *sum += pixels.iter().map(|sum| u64::from(*sum)).sum::<u64>();
                }
            }
            for (sum, cell) in cell_sums.iter().zip(cells(&self.x)) {
                let pixels = (cell.len() * band.len()) as i64;
                values.push(full_range_mean(*sum as i64, pixels, black, span));
            }
        }
        values
    }

    /// Sets the cells of an upright grid to 0 that the mask touches.
    fn blacken(&self, values: &mut [u8], mask: &Mask) {
        let [.., width] = *self.x else { return };
        let [.., height] = *self.y else { return };
        let cover = mask.cover(width as u32, height as u32);
        let columns = self.x.len() - 1;
        for (row, band) in values.chunks_mut(columns).zip(cells(&self.y)) {
            for y in band {
                for span in cover.row(y as u32) {
                    let (start, end) = (span.start as usize, span.end as usize);
                    let first = self
                        .x
                        .partition_point(|edge| *edge <= start)
                        .saturating_sub(1);
                    let behind = self.x.partition_point(|edge| *edge < end).min(columns);
                    if first < behind {
                        row[first..behind].fill(0);
                    }
                }
            }
        }
    }
}

/// `sum / pixels` stretched from `black..=black + span` to `0..=255`, rounded.
fn full_range_mean(sum: i64, pixels: i64, black: i64, span: i64) -> u8 {
    let scaled = (sum - black * pixels) * 255;
    let unit = span * pixels;
    (scaled + unit / 2).div_euclid(unit).clamp(0, 255) as u8
}
