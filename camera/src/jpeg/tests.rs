mod splitter;

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use crate::frame::{Color, Frame, FrameError, FrameFormat, Matrix, Range};
use crate::jpeg::segment::{EOI, RST0, find_marker, next_segment};
use crate::jpeg::{JpegError, decode, luma_blocks, size};
use crate::luma::Luma;
use crate::pixel_format::PixelFormat;
use crate::rgb::Rgb;

const WIDTH: u32 = 45;
const HEIGHT: u32 = 35;

/// Every sequential fixture.
const SEQUENTIAL: [&str; 8] = [
    "420",
    "422",
    "444",
    "420_restart",
    "422_optimized",
    "422_without_tables",
    "grey",
    "rgb",
];

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fixtures/camera")
        .join(name)
}

fn jpeg(name: &str) -> Vec<u8> {
    std::fs::read(fixture(&format!("{name}.jpg"))).unwrap()
}

/// What libjpeg-turbo makes of a fixture.
fn reference(name: &str) -> Rgb {
    let picture = image::open(fixture(&format!("{name}.png")))
        .unwrap()
        .to_rgb8();
    Rgb {
        width: picture.width(),
        height: picture.height(),
        pixels: picture.into_raw(),
    }
}

fn frame(bytes: Vec<u8>) -> Result<Frame, FrameError> {
    let color = Color {
        matrix: Matrix::Bt709,
        range: Range::Limited,
    };
    let format = FrameFormat {
        pixel: PixelFormat::Mjpg,
        width: WIDTH,
        height: HEIGHT,
        stride: 0,
        color,
    };
    Frame::new(format, bytes, 0, Duration::ZERO)
}

fn furthest(a: &Rgb, b: &Rgb) -> u8 {
    assert_eq!((a.width, a.height), (b.width, b.height));
    a.pixels
        .iter()
        .zip(&b.pixels)
        .map(|(a, b)| a.abs_diff(*b))
        .max()
        .unwrap()
}

/// Where the data of the first scan begins.
fn scan_start(bytes: &[u8]) -> usize {
    let mut at = 2;
    loop {
        let segment = next_segment(bytes, at).unwrap();
        at = segment.end();
        if segment.marker == 0xDA {
            return at;
        }
    }
}

fn insert(bytes: &[u8], at: usize, inserted: &[u8]) -> Vec<u8> {
    [&bytes[..at], inserted, &bytes[at..]].concat()
}

#[test]
fn whole_pictures_equal_libjpeg_turbo_within_a_few_levels() {
    for name in SEQUENTIAL.into_iter().chain(["420_progressive"]) {
        let decoded = decode(&jpeg(name)).unwrap();
        let off = furthest(&decoded, &reference(name));
        assert!(off <= 3, "{name} is off by {off}");
        assert_eq!(size(&jpeg(name)).unwrap(), (WIDTH, HEIGHT));
    }
}

#[test]
fn rubbish_around_and_inside_changes_nothing() {
    for name in SEQUENTIAL {
        let whole = jpeg(name);
        let expected = decode(&whole).unwrap();
        let end = whole.len() - 2;
        let data = scan_start(&whole);
        let header = next_segment(&whole, 2).unwrap().end();
        let mut broken = vec![
            (
                "rubbish before",
                insert(&whole, 0, b"--boundary\r\n\xFF\xD8\r\n"),
            ),
            ("zeros behind", [whole.as_slice(), &[0; 999]].concat()),
            (
                "another picture behind",
                [whole.as_slice(), &whole].concat(),
            ),
            ("no end", whole[..end].to_vec()),
            ("no end and zeros", [&whole[..end], &[0; 99]].concat()),
            (
                "bytes before the end",
                insert(&whole, end, b"\x12\x34\x56\xFF\x00"),
            ),
            ("fill bytes before the end", insert(&whole, end, &[0xFF; 7])),
            (
                "bytes before a segment",
                insert(&whole, header, b"\x00\x11\x22"),
            ),
            (
                "fill bytes before a segment",
                insert(&whole, header, &[0xFF; 3]),
            ),
            (
                "an empty comment",
                insert(&whole, header, b"\xFF\xFE\x00\x02"),
            ),
        ];
        if let Some((RST0, at)) = find_marker(&whole, data, true) {
            broken.push(("bytes before a restart", insert(&whole, at, b"\x77\x88")));
            broken.push((
                "fill bytes before a restart",
                insert(&whole, at, &[0xFF; 2]),
            ));
        }
        if let Some(at) = whole[data..]
            .array_windows()
            .position(|pair| *pair == [0xFF, 0])
        {
            broken.push((
                "a fill byte in the data",
                insert(&whole, data + at, &[0xFF]),
            ));
        }
        for (what, bytes) in broken {
            let decoded = decode(&bytes).unwrap_or_else(|e| panic!("{name}, {what}: {e}"));
            assert!(decoded == expected, "{name}: {what} changed the picture");
            let blocks = luma_blocks(&bytes).unwrap();
            assert!(blocks == luma_blocks(&whole).unwrap(), "{name}: {what}");
        }
    }
}

#[test]
fn a_picture_cut_anywhere_is_dropped() {
    for name in SEQUENTIAL.into_iter().chain(["420_progressive"]) {
        let whole = jpeg(name);
        // Without its end marker a sequential picture is whole, a progressive one is not known to be.
        let behind = if name == "420_progressive" {
            whole.len() - 1
        } else {
            whole.len() - 2
        };
        for end in 0..behind {
            let cut = &whole[..end];
            assert!(
                decode(cut).is_err(),
                "{name} cut at {end} of {}",
                whole.len()
            );
            assert!(
                luma_blocks(cut).is_err(),
                "{name} cut at {end} of {}",
                whole.len()
            );
            let ended = [cut, &[0xFF, EOI]].concat();
            let start = scan_start(&whole);
            if name != "420_progressive" || end < start {
                assert!(decode(&ended).is_err(), "{name} cut at {end} and ended");
                assert!(
                    luma_blocks(&ended).is_err(),
                    "{name} cut at {end} and ended"
                );
            }
            if name != "420_progressive" {
                let filled = [cut, &[0; 3000]].concat();
                let is_dropped = decode(&filled).is_err();
                // Zeros in the place of the last bytes may decode to blocks, as nothing tells them from data.
                assert!(
                    is_dropped || end + 24 > whole.len(),
                    "{name} cut at {end}, zeros behind"
                );
            }
        }
    }
}

#[test]
fn restarts_out_of_turn_or_missing_are_damage() {
    let whole = jpeg("420_restart");
    let (marker, at) = find_marker(&whole, scan_start(&whole), true).unwrap();
    assert_eq!(marker, RST0);
    let mut swapped = whole.clone();
    swapped[at + 1] = RST0 + 3;
    assert!(matches!(decode(&swapped), Err(JpegError::Damaged { .. })));
    let missing = [&whole[..at], &whole[at + 2..]].concat();
    assert!(decode(&missing).is_err());
}

#[test]
fn most_lost_stretches_are_noticed() {
    let (mut noticed, mut too_bright, mut too_many, mut of) = (0, 0, 0, 0);
    for name in SEQUENTIAL {
        let whole = jpeg(name);
        for start in scan_start(&whole)..whole.len() - 42 {
            let lost = [&whole[..start], &whole[start + 40..]].concat();
            let error = decode(&lost).err();
            let problem = error.as_ref().map(JpegError::to_string).unwrap_or_default();
            noticed += usize::from(error.is_some());
            too_many += usize::from(problem.contains("too many coefficients"));
            too_bright += usize::from(problem.contains("brightness beyond white"));
            of += 1;
        }
    }
    assert!(noticed * 10 >= of * 8, "{noticed} of {of}");
    assert!(
        too_bright * 20 >= of && too_many > 0,
        "{too_bright} and {too_many} of {of}"
    );
}

#[test]
fn the_tables_that_motion_jpeg_leaves_out_are_put_in() {
    let without = jpeg("422_without_tables");
    assert!(!without.array_windows().any(|pair| *pair == [0xFF, 0xC4]));
    assert!(decode(&without).unwrap() == decode(&jpeg("422")).unwrap());
}

fn means_of(rgb: &Rgb, grid: (u32, u32)) -> Vec<f64> {
    let (columns, rows) = grid;
    let mut sums = vec![(0.0, 0.0); (columns * rows) as usize];
    for (i, [r, g, b]) in (0..).zip(rgb.pixels.as_chunks::<3>().0) {
        let (x, y) = (i % rgb.width, i / rgb.width);
        // The cell whose pixels are column * width / columns and on.
        let column = ((x + 1) * columns - 1) / rgb.width;
        let row = ((y + 1) * rows - 1) / rgb.height;
        let sum = &mut sums[(row * columns + column) as usize];
        sum.0 += 0.299 * f64::from(*r) + 0.587 * f64::from(*g) + 0.114 * f64::from(*b);
        sum.1 += 1.0;
    }
    sums.into_iter().map(|(sum, count)| sum / count).collect()
}

fn furthest_mean(luma: &Luma, rgb: &Rgb) -> f64 {
    let means = means_of(rgb, (luma.columns, luma.rows));
    luma.values
        .iter()
        .zip(means)
        .map(|(a, b)| (f64::from(*a) - b).abs())
        .fold(0.0, f64::max)
}

#[test]
fn the_grid_from_dc_coefficients_holds_the_means_of_the_decoded_picture() {
    for name in SEQUENTIAL.into_iter().chain(["420_progressive"]) {
        let frame = frame(jpeg(name)).unwrap();
        let off = furthest_mean(&frame.luma(1, 1).unwrap(), &frame.to_rgb().unwrap());
        assert!(off <= 2.0, "{name} is off by {off}");
    }
    // The first 40 x 32 pixels are whole blocks.
    let blocks = luma_blocks(&jpeg("444")).unwrap().unwrap();
    let decoded = decode(&jpeg("444")).unwrap();
    for row in 0..4 {
        for column in 0..5 {
            let block = Rgb {
                width: 8,
                height: 8,
                pixels: (0..8)
                    .flat_map(|y| {
                        let start = (((row * 8 + y) * 45 + column * 8) * 3) as usize;
                        decoded.pixels[start..start + 24].to_vec()
                    })
                    .collect(),
            };
            let mean = means_of(&block, (1, 1))[0];
            let got = f64::from(blocks.row(row as usize)[column as usize]);
            assert!(
                (got - mean).abs() <= 1.5,
                "{row} {column}: {got}, not {mean}"
            );
        }
    }
}

#[test]
fn only_pictures_whose_first_component_is_luma_are_read_from_dc_coefficients() {
    for name in SEQUENTIAL {
        assert_eq!(
            luma_blocks(&jpeg(name)).unwrap().is_some(),
            name != "rgb",
            "{name}"
        );
    }
    assert!(luma_blocks(&jpeg("420_progressive")).unwrap().is_none());

    // Without its telling names, only the Adobe segment says that it is RGB.
    let mut unnamed = jpeg("rgb");
    for (marker, first, step) in [(0xC0, 10, 3), (0xDA, 5, 2)] {
        let at = find_marker_of(&unnamed, marker) + first;
        for (i, name) in (0..).zip(b"RGB") {
            assert_eq!(
                std::mem::replace(&mut unnamed[at + i * step], i as u8 + 1),
                *name
            );
        }
    }
    assert!(luma_blocks(&unnamed).unwrap().is_none());
}

#[test]
fn a_jpeg_of_another_size_than_negotiated_is_refused() {
    let mut other = jpeg("420");
    let frame_header = find_marker_of(&other, 0xC0);
    other[frame_header + 8] = 46;
    assert!(matches!(
        frame(other),
        Err(FrameError::OtherSize {
            width: 46,
            height: 35,
            ..
        })
    ));
}

fn find_marker_of(bytes: &[u8], marker: u8) -> usize {
    bytes
        .array_windows()
        .position(|pair| *pair == [0xFF, marker])
        .unwrap()
}

#[test]
fn lying_headers_are_errors() {
    let whole = jpeg("420");
    let at = find_marker_of(&whole, 0xC0);
    let changed = |offset: usize, values: &[u8]| {
        let mut bytes = whole.clone();
        bytes[at + offset..at + offset + values.len()].copy_from_slice(values);
        decode(&bytes)
    };
    assert!(matches!(
        changed(1, &[0xC9]),
        Err(JpegError::Unsupported { .. })
    ));
    assert!(matches!(
        changed(1, &[0xC3]),
        Err(JpegError::Unsupported { .. })
    ));
    assert!(matches!(
        changed(4, &[12]),
        Err(JpegError::Unsupported { .. })
    ));
    assert!(matches!(
        changed(5, &[0, 0]),
        Err(JpegError::Size { height: 0, .. })
    ));
    assert!(matches!(
        changed(5, &[0xFF, 0xFF, 0xFF, 0xFF]),
        Err(JpegError::Size { .. })
    ));
    assert!(matches!(
        changed(5, &[0x20, 0, 0x20, 0]),
        Err(JpegError::Truncated { .. })
    ));
    assert!(matches!(
        changed(9, &[2]),
        Err(JpegError::Segment { marker: 0xC0, .. })
    ));
    assert!(matches!(
        changed(11, &[0x02]),
        Err(JpegError::Segment { .. })
    ));
    assert!(matches!(changed(12, &[3]), Err(JpegError::NoTable { .. })));
    assert!(matches!(
        changed(2, &[0, 1]),
        Err(JpegError::Segment { .. })
    ));
    assert!(matches!(decode(b""), Err(JpegError::NoStart { .. })));
    assert!(matches!(
        decode(&whole[..at]),
        Err(JpegError::CutHeader { .. })
    ));
}

proptest! {
    #[test]
    fn changed_bytes_never_panic_and_leave_grid_and_picture_of_one_size(
        index in 0..SEQUENTIAL.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let mut bytes = jpeg(SEQUENTIAL[index]);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if is_cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let Ok(frame) = frame(bytes) else { return Ok(()) };
        let (rgb, luma) = (frame.to_rgb(), frame.luma(5, 4));
        if let Ok(rgb) = &rgb {
            prop_assert_eq!(rgb.pixels.len(), (WIDTH * HEIGHT * 3) as usize);
            prop_assert!(luma.is_ok());
        }
    }
}
