//! How the owner wants the camera's picture: which way up, and what nobody may see.

use std::sync::Arc;

use crate::mask::Mask;

/// A turn and flips, applied in this order: turn clockwise, then flip.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orientation {
    /// Quarter turns clockwise; four of them are none.
    pub quarter_turns: u8,
    /// Left and right change places.
    pub mirror: bool,
    /// Top and bottom change places.
    pub flip: bool,
}

/// Everything between the sensor's picture and the one the rest of the program sees.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Which way up the camera hangs.
    pub orientation: Orientation,
    /// What nobody may see, in coordinates of the upright picture.
    pub mask: Option<Arc<Mask>>,
}

/// An [`Orientation`] in its simplest form: swap the axes, then reverse each of them or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Axes {
    /// Rows become columns.
    pub(crate) swap: bool,
    /// Columns are counted from the right afterwards.
    pub(crate) reverse_x: bool,
    /// Rows are counted from the bottom afterwards.
    pub(crate) reverse_y: bool,
}

impl Orientation {
    /// Width and height of the upright picture of a sensor of `width` × `height`.
    pub fn turned_size(&self, width: u32, height: u32) -> (u32, u32) {
        if self.axes().swap {
            (height, width)
        } else {
            (width, height)
        }
    }

    pub(crate) fn axes(&self) -> Axes {
        let (swap, x, y) = match self.quarter_turns % 4 {
            0 => (false, false, false),
            1 => (true, true, false),
            2 => (false, true, true),
            _ => (true, false, true),
        };
        Axes {
            swap,
            reverse_x: x != self.mirror,
            reverse_y: y != self.flip,
        }
    }
}
