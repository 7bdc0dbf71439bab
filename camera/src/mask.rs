//! Parts of the picture that nobody may see.

#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;

use crate::polygon::{Polygon, join};

/// Picture sizes whose covered pixels are kept: sensor, model and grid, and one to spare.
const SIZES: usize = 4;

/// Privacy mask of the upright picture: the union of its areas.
#[derive(Debug, Default, Deserialize)]
#[serde(from = "Vec<Polygon>")]
pub struct Mask {
    areas: Vec<Polygon>,
    /// The most recently computed size last.
    covers: Mutex<Vec<Arc<Cover>>>,
}

/// The covered pixels of a picture of one size.
#[derive(Debug)]
pub struct Cover {
    width: u32,
    height: u32,
    /// Spans of all rows, one row after the other.
    spans: Vec<Range<u32>>,
    /// `starts[row]..starts[row + 1]` are the spans of a row.
    starts: Vec<usize>,
}

impl From<Vec<Polygon>> for Mask {
    fn from(areas: Vec<Polygon>) -> Mask {
        Mask::new(areas)
    }
}

impl Clone for Mask {
    fn clone(&self) -> Mask {
        Mask::new(self.areas.clone())
    }
}

impl PartialEq for Mask {
    fn eq(&self, other: &Mask) -> bool {
        self.areas == other.areas
    }
}

impl Mask {
    /// A mask that covers the areas.
    pub fn new(areas: Vec<Polygon>) -> Mask {
        Mask {
            areas,
            covers: Mutex::default(),
        }
    }

    /// The areas.
    pub fn areas(&self) -> &[Polygon] {
        &self.areas
    }

    /// Covered pixels of row `row` of a picture of `width` × `height`: ascending, disjoint.
    /// A pixel that an area touches at all is covered. For a whole picture, [`Mask::cover`] is cheaper.
    pub fn spans(&self, row: u32, width: u32, height: u32) -> Vec<Range<u32>> {
        self.cover(width, height).row(row).to_vec()
    }

    /// Covered pixels of a picture of `width` × `height`; computed once a size.
    pub fn cover(&self, width: u32, height: u32) -> Arc<Cover> {
        let mut covers = self.covers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = covers.iter().find(|cover| cover.is_of(width, height)) {
            return Arc::clone(known);
        }
        let cover = Arc::new(Cover::of(&self.areas, width, height));
        if covers.len() == SIZES {
            covers.remove(0);
        }
        covers.push(Arc::clone(&cover));
        cover
    }
}

impl Cover {
    /// The pixels of a picture of `width` × `height` that any of `areas` touches.
    pub(crate) fn of(areas: &[Polygon], width: u32, height: u32) -> Cover {
        let mut spans = Vec::new();
        let mut starts = vec![0];
        let mut of_row = Vec::new();
        for row in 0..height {
            of_row.clear();
            for area in areas {
                area.touch(row, width, height, &mut of_row);
            }
            join(&mut of_row);
            spans.append(&mut of_row);
            starts.push(spans.len());
        }
        Cover {
            width,
            height,
            spans,
            starts,
        }
    }

    /// Covered pixels of a row: ascending, disjoint; none for a row outside the picture.
    pub fn row(&self, row: u32) -> &[Range<u32>] {
        let row = row as usize;
        match self.starts.get(row..row + 2) {
            Some(&[start, end]) => &self.spans[start..end],
            _ => &[],
        }
    }

    /// Whether a pixel is covered.
    pub fn covers(&self, x: u32, y: u32) -> bool {
        self.row(y).iter().any(|span| span.contains(&x))
    }

    fn is_of(&self, width: u32, height: u32) -> bool {
        (self.width, self.height) == (width, height)
    }
}
