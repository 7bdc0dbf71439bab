use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value;

use crate::frame::{Color, Frame, FrameFormat, Layout, Matrix, Range};
use crate::luma::Luma;
use crate::mask::Mask;
use crate::pixel_format::{BayerOrder, PixelFormat};
use crate::polygon::Polygon;
use crate::rgb::Rgb;
use crate::view::{Orientation, View};

const FIXTURES: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../tests/fixtures/camera/conversions.json"
);

const DEFAULT_COLOR: Color = Color {
    matrix: Matrix::Bt601,
    range: Range::Limited,
};

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().as_chunks::<2>().0;
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.iter().map(byte).collect()
}

fn format_of(case: &Value) -> FrameFormat {
    let text = |key: &str| case[key].as_str().unwrap();
    let number = |key: &str| case[key].as_u64().unwrap() as u32;
    let matrix = match text("matrix") {
        "Bt601" => Matrix::Bt601,
        "Bt709" => Matrix::Bt709,
        _ => Matrix::Bt2020,
    };
    let range = if text("range") == "Full" {
        Range::Full
    } else {
        Range::Limited
    };
    FrameFormat {
        pixel: PixelFormat::from_fourcc(text("fourcc").as_bytes().try_into().unwrap()).unwrap(),
        width: number("width"),
        height: number("height"),
        stride: number("stride"),
        color: Color { matrix, range },
    }
}

fn frame(format: FrameFormat, bytes: Vec<u8>) -> Frame {
    Frame::new(format, bytes, 0, Duration::ZERO).unwrap()
}

fn of(pixel: PixelFormat, width: u32, height: u32) -> FrameFormat {
    FrameFormat {
        pixel,
        width,
        height,
        stride: 0,
        color: DEFAULT_COLOR,
    }
}

/// Frames of noise in any raw format.
fn any_frame(pixel: PixelFormat, width: u32, height: u32, seed: u32) -> Frame {
    let format = of(pixel, width, height);
    let noise = |i: usize| (((i as u32 + seed).wrapping_mul(2_654_435_761)) >> 13) as u8;
    frame(
        format,
        (0..format.frame_bytes().unwrap()).map(noise).collect(),
    )
}

fn raw_formats() -> impl Iterator<Item = PixelFormat> {
    PixelFormat::all().filter(|pixel| *pixel != PixelFormat::Mjpg)
}

fn pixel(rgb: &Rgb, x: u32, y: u32) -> [u8; 3] {
    let at = (y * rgb.width + x) as usize;
    rgb.pixels.as_chunks().0[at]
}

fn view(orientation: Orientation) -> Arc<View> {
    Arc::new(View {
        orientation,
        mask: None,
    })
}

fn orientations() -> impl Iterator<Item = Orientation> {
    (0..16).map(|i| Orientation {
        quarter_turns: i / 4,
        mirror: i & 1 != 0,
        flip: i & 2 != 0,
    })
}

#[test]
fn conversions_equal_libswscale_and_opencv_within_a_level() {
    let text = std::fs::read_to_string(FIXTURES).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(cases.len(), 26);
    for case in &cases {
        let format = format_of(case);
        let rgb = frame(format, unhex(case["frame"].as_str().unwrap()))
            .to_rgb()
            .unwrap();
        let expected = unhex(case["rgb"].as_str().unwrap());
        assert_eq!(rgb.pixels.len(), expected.len());
        let is_bayer = matches!(format.pixel, PixelFormat::Bayer { .. });
        for y in 0..format.height {
            for x in 0..format.width {
                let is_edge = x == 0 || y == 0 || x == format.width - 1 || y == format.height - 1;
                if is_bayer && is_edge {
                    continue;
                }
                let at = (y * format.width + x) as usize;
                let expected: [u8; 3] = expected.as_chunks().0[at];
                let off = pixel(&rgb, x, y)
                    .iter()
                    .zip(expected)
                    .map(|(a, b)| a.abs_diff(b))
                    .max();
                let by = &case["reference"];
                assert!(
                    off <= Some(1),
                    "{format:?} at {x}, {y} is off {by} by {off:?}"
                );
            }
        }
    }
}

/// The definition of YUV in floating point (ITU-R BT.601-7 §2.5.1), rounded.
fn exact(y: u8, u: u8, v: u8, color: Color) -> [u8; 3] {
    let (kr, kb) = match color.matrix {
        Matrix::Bt601 => (0.299, 0.114),
        Matrix::Bt709 => (0.2126, 0.0722),
        Matrix::Bt2020 => (0.2627, 0.0593),
    };
    let [y, u, v] = [y, u, v].map(f64::from);
    let (y, u, v) = match color.range {
        Range::Limited => ((y - 16.0) / 219.0, (u - 128.0) / 224.0, (v - 128.0) / 224.0),
        Range::Full => (y / 255.0, (u - 128.0) / 255.0, (v - 128.0) / 255.0),
    };
    let red = y + 2.0 * (1.0 - kr) * v;
    let blue = y + 2.0 * (1.0 - kb) * u;
    let green = (y - kr * red - kb * blue) / (1.0 - kr - kb);
    [red, green, blue].map(|c| (c * 255.0).round().clamp(0.0, 255.0) as u8)
}

#[test]
fn every_yuv_triple_of_a_grid_is_within_a_level_of_the_formula() {
    let levels: Vec<u8> = (0..=255).step_by(5).collect();
    for matrix in [Matrix::Bt601, Matrix::Bt709, Matrix::Bt2020] {
        for range in [Range::Limited, Range::Full] {
            let color = Color { matrix, range };
            for &u in &levels {
                let planes = [levels.clone(), vec![u; levels.len()]].concat();
                for &v in &levels {
                    let format = FrameFormat {
                        color,
                        ..of(PixelFormat::I444, levels.len() as u32, 1)
                    };
                    let bytes = [planes.as_slice(), &vec![v; levels.len()]].concat();
                    let rgb = frame(format, bytes).to_rgb().unwrap();
                    for (got, &y) in rgb.pixels.as_chunks::<3>().0.iter().zip(&levels) {
                        let expected = exact(y, u, v, color);
                        let is_near = got.iter().zip(expected).all(|(a, b)| a.abs_diff(b) <= 1);
                        assert!(is_near, "{y} {u} {v} {color:?}: {got:?}, not {expected:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn packed_and_grey_formats_keep_their_samples() {
    let cases: [(PixelFormat, Vec<u8>, [[u8; 3]; 2]); 6] = [
        (
            PixelFormat::Rgb3,
            vec![1, 2, 3, 4, 5, 6],
            [[1, 2, 3], [4, 5, 6]],
        ),
        (
            PixelFormat::Bgr3,
            vec![1, 2, 3, 4, 5, 6],
            [[3, 2, 1], [6, 5, 4]],
        ),
        (PixelFormat::Grey, vec![7, 250], [[7; 3], [250; 3]]),
        (
            PixelFormat::Grey16 { bits: 10 },
            vec![0xFF, 0x03, 0x08, 0x00],
            [[255; 3], [2; 3]],
        ),
        (
            PixelFormat::Grey16 { bits: 12 },
            vec![0xFF, 0xFF, 0x35, 0x08],
            [[255; 3], [0x83; 3]],
        ),
        (
            PixelFormat::Grey16 { bits: 16 },
            vec![0xFF, 0x7F, 0x00, 0xFE],
            [[0x7F; 3], [0xFE; 3]],
        ),
    ];
    for (pixel, bytes, expected) in cases {
        let rgb = frame(of(pixel, 2, 1), bytes).to_rgb().unwrap();
        assert_eq!(rgb.pixels.as_chunks().0, expected, "{pixel}");
    }
}

#[test]
fn a_bayer_picture_of_one_colour_is_of_that_colour_up_to_its_edges() {
    let color = [200, 100, 50];
    let sites = [
        (BayerOrder::Rggb, [0, 1, 1, 2]),
        (BayerOrder::Grbg, [1, 0, 2, 1]),
        (BayerOrder::Gbrg, [1, 2, 0, 1]),
        (BayerOrder::Bggr, [2, 1, 1, 0]),
    ];
    for (order, site) in sites {
        for (bits, width, height) in [
            (8, 2, 2),
            (8, 5, 3),
            (10, 4, 5),
            (12, 3, 2),
            (14, 2, 7),
            (16, 3, 3),
        ] {
            let format = of(PixelFormat::Bayer { order, bits }, width, height);
            let sample =
                |i: u32| u16::from(color[site[(i / width % 2 * 2 + i % width % 2) as usize]]);
            let samples = (0..width * height).map(sample);
            let bytes: Vec<u8> = match bits {
                8 => samples.map(|s| s as u8).collect(),
                _ => samples
                    .flat_map(|s| (s << (bits - 8)).to_le_bytes())
                    .collect(),
            };
            let frame = frame(format, bytes);
            let rgb = frame.to_rgb().unwrap();
            assert!(
                rgb.pixels.as_chunks::<3>().0.iter().all(|p| *p == color),
                "{order:?} {bits}"
            );
            // 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2
            assert_eq!(frame.luma(1, 1).unwrap().values, [124]);
        }
    }
}

#[test]
fn a_turn_moves_the_top_left_pixel_clockwise() {
    let source = frame(of(PixelFormat::Grey, 3, 2), vec![1, 2, 3, 4, 5, 6]);
    let turned = |quarter_turns, mirror, flip| {
        let orientation = Orientation {
            quarter_turns,
            mirror,
            flip,
        };
        let rgb = source
            .clone()
            .with_view(view(orientation))
            .to_rgb()
            .unwrap();
        let grey: Vec<u8> = rgb.pixels.iter().step_by(3).copied().collect();
        (rgb.width, grey)
    };
    assert_eq!(turned(0, false, false), (3, vec![1, 2, 3, 4, 5, 6]));
    assert_eq!(turned(1, false, false), (2, vec![4, 1, 5, 2, 6, 3]));
    assert_eq!(turned(2, false, false), (3, vec![6, 5, 4, 3, 2, 1]));
    assert_eq!(turned(3, false, false), (2, vec![3, 6, 2, 5, 1, 4]));
    assert_eq!(turned(0, true, false), (3, vec![3, 2, 1, 6, 5, 4]));
    assert_eq!(turned(0, false, true), (3, vec![4, 5, 6, 1, 2, 3]));
    assert_eq!(turned(1, true, false), (2, vec![1, 4, 2, 5, 3, 6]));
    assert_eq!(turned(4, false, false), turned(0, false, false));
}

/// Means of the cells of the upright picture, by definition.
fn means_of(rgb: &Rgb, columns: u32, rows: u32) -> Vec<f64> {
    let luma =
        |[r, g, b]: [u8; 3]| 0.299 * f64::from(r) + 0.587 * f64::from(g) + 0.114 * f64::from(b);
    let mut means = Vec::new();
    for row in 0..rows {
        for column in 0..columns {
            let x = column * rgb.width / columns..(column + 1) * rgb.width / columns;
            let y = row * rgb.height / rows..(row + 1) * rgb.height / rows;
            let pixels = (x.len() * y.len()) as f64;
            let sum: f64 = y
                .flat_map(|y| x.clone().map(move |x| luma(pixel(rgb, x, y))))
                .sum();
            means.push(sum / pixels);
        }
    }
    means
}

fn assert_means_are_of(luma: &Luma, rgb: &Rgb, bound: f64) {
    for (got, expected) in luma
        .values
        .iter()
        .zip(means_of(rgb, luma.columns, luma.rows))
    {
        assert!(
            (f64::from(*got) - expected).abs() <= bound,
            "{got}, not {expected}"
        );
    }
}

/// A picture whose colours all exist in RGB: noise in luma, no colour.
fn colorless(pixel: PixelFormat, width: u32, height: u32) -> Frame {
    let format = of(pixel, width, height);
    let luma = |x: usize| 16 + (x.wrapping_mul(2_654_435_761) >> 13) % 220;
    let is_chroma = |i: usize| match pixel {
        PixelFormat::Yuyv => i % 2 == 1,
        PixelFormat::Uyvy => i.is_multiple_of(2),
        PixelFormat::Rgb3 | PixelFormat::Bgr3 | PixelFormat::Grey => false,
        _ => i >= (width * height) as usize,
    };
    let bytes =
        (0..format.frame_bytes().unwrap()).map(|i| if is_chroma(i) { 128 } else { luma(i) as u8 });
    frame(format, bytes.collect())
}

#[test]
fn the_grid_of_every_layout_and_way_up_holds_the_means_of_the_picture() {
    use PixelFormat::*;
    for pixel in [
        Yuyv, Uyvy, Nv12, Nv21, Yu12, Yv12, P422, I444, Rgb3, Bgr3, Grey,
    ] {
        for orientation in orientations() {
            let frame = colorless(pixel, 23, 17).with_view(view(orientation));
            let rgb = frame.to_rgb().unwrap();
            for (columns, rows) in [(1, 1), (5, 4), (rgb.width, rgb.height), (7, 16)] {
                let luma = frame.luma(columns, rows).unwrap();
                assert_eq!((luma.columns, luma.rows), (columns, rows));
                assert_eq!(luma.values.len() as u32, columns * rows);
                assert_means_are_of(&luma, &rgb, 1.0);
            }
        }
    }
}

#[test]
fn sixteen_bit_and_bayer_grids_hold_the_means_of_the_picture() {
    for pixel in raw_formats() {
        if matches!(
            pixel,
            PixelFormat::Grey16 { .. } | PixelFormat::Bayer { .. }
        ) {
            let frame = any_frame(pixel, 22, 15, 1);
            let rgb = frame.to_rgb().unwrap();
            assert_means_are_of(&frame.luma(4, 3).unwrap(), &rgb, 1.0);
        }
    }
}

#[test]
fn a_tall_cell_does_not_overflow() {
    let white = frame(of(PixelFormat::Grey, 3, 2000), vec![255; 6000]);
    assert_eq!(white.luma(1, 1).unwrap().values, [255]);
    let white = frame(of(PixelFormat::Nv12, 2, 1000), vec![235; 3000]);
    assert_eq!(white.luma(2, 2).unwrap().values, [255; 4]);
}

fn rectangle(left: f64, top: f64, right: f64, bottom: f64) -> Polygon {
    Polygon::new(vec![
        [left, top],
        [right, top],
        [right, bottom],
        [left, bottom],
    ])
    .unwrap()
}

fn masked(orientation: Orientation, area: Polygon) -> Arc<View> {
    Arc::new(View {
        orientation,
        mask: Some(Arc::new(Mask::new(vec![area]))),
    })
}

#[test]
fn what_the_mask_covers_is_black_whichever_way_up_the_camera_hangs() {
    for orientation in orientations() {
        let view = masked(orientation, rectangle(0.0, 0.0, 0.4, 0.3));
        let white = frame(of(PixelFormat::Grey, 20, 10), vec![255; 200]).with_view(view);
        let rgb = white.to_rgb().unwrap();
        assert_eq!(pixel(&rgb, 0, 0), [0; 3]);
        assert_eq!(pixel(&rgb, rgb.width - 1, 0), [255; 3]);
        assert_eq!(pixel(&rgb, 0, rgb.height - 1), [255; 3]);
        let luma = white.luma(5, 5).unwrap();
        let black = |column: usize, row: usize| luma.values[row * 5 + column] == 0;
        assert!(black(0, 0) && black(1, 1) && !black(4, 0) && !black(0, 4));
    }
}

#[test]
fn a_view_hides_the_same_pixels_in_every_format() {
    let view = masked(
        Orientation {
            quarter_turns: 1,
            mirror: true,
            flip: false,
        },
        rectangle(0.3, 0.2, 0.6, 0.7),
    );
    for format in raw_formats() {
        let bright = of(format, 16, 12);
        let bytes = vec![0xC8; bright.frame_bytes().unwrap()];
        let frame = frame(bright, bytes).with_view(Arc::clone(&view));
        let rgb = frame.to_rgb().unwrap();
        let cover = view.mask.as_ref().unwrap().cover(12, 16);
        for y in 0..16 {
            for x in 0..12 {
                let is_black = pixel(&rgb, x, y) == [0; 3];
                assert_eq!(is_black, cover.covers(x, y), "{format} at {x}, {y}");
            }
        }
        let luma = frame.luma(12, 16).unwrap();
        for (i, level) in (0..).zip(&luma.values) {
            assert_eq!(
                *level == 0,
                cover.covers(i % 12, i / 12),
                "{format} cell {i}"
            );
        }
    }
}

#[test]
fn a_cell_that_the_mask_touches_at_all_is_black() {
    // The area lies in the first pixel column of the second cell.
    let view = masked(Orientation::default(), rectangle(0.41, 0.41, 0.42, 0.42));
    let white = frame(of(PixelFormat::Grey, 10, 10), vec![255; 100]).with_view(view);
    // Cells of 10 pixels in 3: 0..3, 3..6, 6..10.
    assert_eq!(
        white.luma(3, 3).unwrap().values,
        [255, 255, 255, 255, 0, 255, 255, 255, 255]
    );
}

proptest! {
    #[test]
    fn any_raw_frame_converts_whatever_its_size_and_stride(
        index in 0..raw_formats().count(),
        width in 2u32..40,
        height in 2u32..20,
        gap in 0u32..9,
        seed in any::<u32>(),
        turns in 0u8..4,
    ) {
        let pixel = raw_formats().nth(index).unwrap();
        let tight = any_frame(pixel, width, height, seed);
        let orientation = Orientation { quarter_turns: turns, ..Orientation::default() };
        let tight = tight.with_view(view(orientation));
        let rgb = tight.to_rgb().unwrap();
        prop_assert_eq!((rgb.width, rgb.height), tight.upright_size());
        prop_assert_eq!(rgb.pixels.len(), 3 * (width * height) as usize);
        let whole = tight.luma(2, 2).unwrap();
        prop_assert_eq!(whole.values.len(), 4);

        // The same rows further apart are the same picture.
        let wide_format = FrameFormat { stride: row_bytes(pixel, width) + 2 * gap, ..tight.format() };
        let noise = any_frame(pixel, width, height, seed);
        let wide = widen(&noise, wide_format).with_view(view(orientation));
        prop_assert_eq!(wide.to_rgb().unwrap(), rgb);
        prop_assert_eq!(wide.luma(2, 2).unwrap(), whole);
    }
}

fn row_bytes(pixel: PixelFormat, width: u32) -> u32 {
    Layout::of(&of(pixel, width, 2)).unwrap().planes[0].row_bytes as u32
}

/// The planes of a frame in a format of another stride, with noise between the rows.
fn widen(tight: &Frame, format: FrameFormat) -> Frame {
    let mut bytes = vec![0xA5; format.frame_bytes().unwrap()];
    let from = Layout::of(&tight.format()).unwrap().planes;
    let to = Layout::of(&format).unwrap().planes;
    for (from, to) in from.iter().zip(to) {
        for y in 0..from.rows {
            let start = to.offset + y * to.stride;
            bytes[start..start + from.row_bytes]
                .copy_from_slice(from.row(tight.picture_bytes(), y));
        }
    }
    frame(format, bytes)
}
