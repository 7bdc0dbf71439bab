//! An area of the upright picture, and the pixels it touches.

use std::ops::Range;

use serde::Deserialize;

/// Most corners of an area.
pub const MAX_CORNERS: usize = 64;

/// Widens every crossing of an edge with a row, in pixels, so that rounding never uncovers a pixel.
const MARGIN: f64 = 1e-6;

/// Why an area cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PolygonError {
    /// Too few or too many corners.
    #[error(
        "an area has {count} corners; give 2 (opposite corners of a rectangle) or 3 to {MAX_CORNERS}"
    )]
    Corners {
        /// Corners given.
        count: usize,
    },
    /// A coordinate outside the picture, or not a number.
    #[error(
        "corner {corner}: {axis} is {value}, outside 0 to 1 (0 is the left or upper edge of the picture, 1 the right or lower)"
    )]
    Coordinate {
        /// Which corner, from 1.
        corner: usize,
        /// `x` or `y`.
        axis: char,
        /// What was given.
        value: f64,
    },
    /// A corner whose text is not two numbers.
    #[error("corner {corner} is `{text}`; write two numbers and a comma, as in 0.25,0.5")]
    Text {
        /// Which corner, from 1.
        corner: usize,
        /// What was given.
        text: String,
    },
}

/// A closed area in coordinates 0 to 1 of the upright picture; (0, 0) is the upper left corner.
///
/// Edges may cross each other: a point is inside when the outline winds around it (non-zero rule), so that a
/// carelessly drawn area covers more, not less.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Corners")]
pub struct Polygon {
    corners: Vec<[f64; 2]>,
}

/// The two ways settings write an area.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "a list of corners such as [[0.1, 0.2], [0.5, 0.9]], or the text \"0.1,0.2 0.5,0.9\""
)]
pub(crate) enum Corners {
    /// Corners in order.
    List(Vec<[f64; 2]>),
    /// As on the command line.
    Text(String),
}

impl TryFrom<Corners> for Polygon {
    type Error = PolygonError;

    fn try_from(corners: Corners) -> Result<Polygon, PolygonError> {
        match corners {
            Corners::List(corners) => Polygon::new(corners),
            Corners::Text(text) => text.parse(),
        }
    }
}

impl std::str::FromStr for Polygon {
    type Err = PolygonError;

    /// Reads `x,y x,y …`: two corners are a rectangle, more are a polygon.
    fn from_str(text: &str) -> Result<Polygon, PolygonError> {
        let corners: Result<Vec<_>, _> = text
            .split_whitespace()
            .take(MAX_CORNERS + 1)
            .enumerate()
            .map(|(index, corner)| parse_corner(index + 1, corner))
            .collect();
        Polygon::new(corners?)
    }
}

fn parse_corner(corner: usize, text: &str) -> Result<[f64; 2], PolygonError> {
    let numbers = text
        .split_once(',')
        .and_then(|(x, y)| Some([x.parse().ok()?, y.parse().ok()?]));
    numbers.ok_or_else(|| PolygonError::Text {
        corner,
        text: text.chars().take(40).collect(),
    })
}

impl Polygon {
    /// An area from its corners in order; two corners are opposite corners of a rectangle.
    pub fn new(mut corners: Vec<[f64; 2]>) -> Result<Polygon, PolygonError> {
        if !(2..=MAX_CORNERS).contains(&corners.len()) {
            return Err(PolygonError::Corners {
                count: corners.len(),
            });
        }
        for (index, point) in corners.iter().enumerate() {
            for (axis, value) in ['x', 'y'].into_iter().zip(*point) {
                if !(0.0..=1.0).contains(&value) {
                    return Err(PolygonError::Coordinate {
                        corner: index + 1,
                        axis,
                        value,
                    });
                }
            }
        }
        if let [[x0, y0], [x1, y1]] = corners[..] {
            corners = vec![[x0, y0], [x1, y0], [x1, y1], [x0, y1]];
        }
        Ok(Polygon { corners })
    }

    /// The corners in order.
    pub fn corners(&self) -> &[[f64; 2]] {
        &self.corners
    }

    /// Adds the pixels of row `row` that the area touches, in a picture of `width` × `height`, to `spans`,
    /// in no order and overlapping.
    pub(crate) fn touch(&self, row: u32, width: u32, height: u32, spans: &mut Vec<Range<u32>>) {
        let (top, bottom) = (f64::from(row) - MARGIN, f64::from(row) + 1.0 + MARGIN);
        let middle = f64::from(row) + 0.5;
        let mut crossings = Vec::new();
        for ([x0, y0], [x1, y1]) in self.edges(width, height) {
            if let Some((left, right)) = within_rows([x0, y0], [x1, y1], top, bottom) {
                spans.extend(pixels(left, right, width));
            }
            // A pixel no edge enters is inside or outside as a whole, so its middle row decides.
            if (y0 <= middle) != (y1 <= middle) {
                let x = x0 + (middle - y0) / (y1 - y0) * (x1 - x0);
                crossings.push((x, if y1 > y0 { 1 } else { -1 }));
            }
        }
        crossings.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut winding = 0;
        for pair in crossings.windows(2) {
            winding += pair[0].1;
            if winding != 0 {
                spans.extend(pixels(pair[0].0, pair[1].0, width));
            }
        }
    }

    /// The edges in pixels.
    fn edges(&self, width: u32, height: u32) -> impl Iterator<Item = ([f64; 2], [f64; 2])> {
        let scaled = move |[x, y]: [f64; 2]| [x * f64::from(width), y * f64::from(height)];
        let next = self.corners.iter().cycle().skip(1);
        self.corners
            .iter()
            .zip(next)
            .map(move |(from, to)| (scaled(*from), scaled(*to)))
    }
}

/// The x extent of the part of an edge between `top` and `bottom`.
fn within_rows(
    [x0, y0]: [f64; 2],
    [x1, y1]: [f64; 2],
    top: f64,
    bottom: f64,
) -> Option<(f64, f64)> {
    if y0.max(y1) < top || y0.min(y1) > bottom {
        return None;
    }
    let at = |y: f64| {
        if y0 == y1 {
            return x0;
        }
        x0 + ((y - y0) / (y1 - y0)).clamp(0.0, 1.0) * (x1 - x0)
    };
    let ends = if y0 == y1 {
        (x0, x1)
    } else {
        (at(top), at(bottom))
    };
    Some((ends.0.min(ends.1), ends.0.max(ends.1)))
}

/// The pixels of a row that the closed interval touches, if any.
fn pixels(left: f64, right: f64, width: u32) -> Option<Range<u32>> {
    let first = (left - MARGIN).floor().max(0.0) as u32;
    let end = ((right + MARGIN).floor() + 1.0).clamp(0.0, f64::from(width)) as u32;
    (first < end).then_some(first..end)
}

/// Sorts spans and joins those that overlap or touch.
pub(crate) fn join(spans: &mut Vec<Range<u32>>) {
    spans.sort_by_key(|span| span.start);
    spans.dedup_by(|next, last| {
        let joins = next.start <= last.end;
        if joins {
            last.end = last.end.max(next.end);
        }
        joins
    });
}
