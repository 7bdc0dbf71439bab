//! The picture as it stands in the world.

use crate::convert::RgbRows;
use crate::convert::packed_rgb::PackedRgbRows;
use crate::mask::Mask;
use crate::rgb::Rgb;
use crate::view::{Axes, Orientation};

/// The upright picture of a sensor's rows of `size`.
pub(super) fn picture(
    rows: &mut (impl RgbRows + ?Sized),
    size: (u32, u32),
    orientation: Orientation,
) -> Rgb {
    let (width, height) = orientation.turned_size(size.0, size.1);
    let mut rgb = Rgb {
        width,
        height,
        pixels: vec![0; width as usize * height as usize * 3],
    };
    let axes = orientation.axes();
    let (sensor_width, sensor_height) = (size.0 as usize, size.1 as usize);
    if axes.swap {
        let mut row = vec![0; sensor_width * 3];
        for y in 0..sensor_height {
            rows.rgb_row(y, &mut row);
            write_column(&mut rgb, y, row.as_chunks().0, axes);
        }
        return rgb;
    }
    for y in 0..sensor_height {
        let to = if axes.reverse_y {
            sensor_height - 1 - y
        } else {
            y
        };
        let row = &mut rgb.pixels[to * sensor_width * 3..][..sensor_width * 3];
        rows.rgb_row(y, row);
        if axes.reverse_x {
            row.as_chunks_mut::<3>().0.reverse();
        }
    }
    rgb
}

/// Row `y` of the sensor becomes a column.
fn write_column(rgb: &mut Rgb, y: usize, row: &[[u8; 3]], axes: Axes) {
    let width = rgb.width as usize;
    let column = if axes.reverse_x { width - 1 - y } else { y };
    let out = rgb
        .pixels
        .as_chunks_mut::<3>()
        .0
        .iter_mut()
        .skip(column)
        .step_by(width);
    if axes.reverse_y {
        out.zip(row.iter().rev()).for_each(|(to, from)| *to = *from);
    } else {
        out.zip(row).for_each(|(to, from)| *to = *from);
    }
}

/// A decoded picture, upright.
pub(super) fn turn(picture: Rgb, orientation: Orientation) -> Rgb {
    if orientation.axes() == Orientation::default().axes() {
        return picture;
    }
    let size = (picture.width, picture.height);
    self::picture(&mut PackedRgbRows::decoded(&picture), size, orientation)
}

/// Blackens what the mask covers.
pub(super) fn blacken(rgb: &mut Rgb, mask: &Mask) {
    let row_bytes = rgb.width as usize * 3;
    let cover = mask.cover(rgb.width, rgb.height);
    for (y, row) in (0..).zip(rgb.pixels.chunks_mut(row_bytes.max(1))) {
        for span in cover.row(y) {
            let (start, end) = (span.start as usize * 3, span.end as usize * 3);
            row[start.min(row_bytes)..end.min(row_bytes)].fill(0);
        }
    }
}
