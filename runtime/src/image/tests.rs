//! Tests of decoding, resizing and tiling.

use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::*;
use crate::config::ResampleFilter;
use crate::config::tests::{cases, fixture, number, numbers, reference_json};

fn config(tile_size: usize, longest_edge: usize, do_image_splitting: bool) -> PreprocessConfig {
    PreprocessConfig {
        tile_size,
        longest_edge,
        do_image_splitting,
        mean: [0.5; 3],
        std: [0.5; 3],
        rescale_factor: 1.0 / 255.0,
        filter: ResampleFilter::Lanczos,
    }
}

fn picture(width: usize, height: usize, value: impl Fn(usize, usize) -> [u8; 3]) -> Rgb8 {
    let rows = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let pixels = rows.flat_map(|(x, y)| value(x, y)).collect();
    Rgb8::new(width, height, pixels).expect("a picture within the limits")
}

/// The smooth picture of the fixtures and of the golden reference.
fn gradient(width: usize, height: usize) -> Rgb8 {
    picture(width, height, |x, y| {
        let odd = (x / 16 + y / 16) % 2 == 1;
        let blue = if odd {
            255
        } else {
            255 * y / (height - 1).max(1)
        };
        [
            (7 * x + 3 * y) as u8,
            (255 * x / (width - 1).max(1)) as u8,
            blue as u8,
        ]
    })
}

/// The rough picture of the fixtures.
fn noise(width: usize, height: usize) -> Rgb8 {
    picture(width, height, |x, y| {
        std::array::from_fn(|c| {
            let [x, y, c] = [x, y, c].map(|v| v as u32);
            let v = x
                .wrapping_mul(2_654_435_761)
                .wrapping_add(y.wrapping_mul(2_246_822_519))
                .wrapping_add(c.wrapping_mul(3_266_489_917));
            let v = (v ^ (v >> 15)).wrapping_mul(2_654_435_761) >> 16;
            match (v & 0x100, v & 0x200) {
                (0, _) => v as u8,
                (_, 0) => 0,
                _ => 255,
            }
        })
    })
}

fn formula(name: &Value) -> fn(usize, usize) -> Rgb8 {
    match name.as_str() {
        Some("gradient") => gradient,
        Some("noise") => noise,
        _ => panic!("no formula {name}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &Value) -> Vec<u8> {
    let text = text.as_str().expect("hex digits");
    let digits = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hex digits");
    (0..text.len()).step_by(2).map(digits).collect()
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Hash of all frames as 8-bit values and as pixel values, both `[frames, 3, T, T]`.
fn hashes(tiles: &Tiles, config: &PreprocessConfig) -> (String, String) {
    let pixel_values = PixelValues::new(config);
    let (mut u8_hash, mut f32_hash) = (Sha256::new(), Sha256::new());
    for frame in &tiles.frames {
        let planes = (0..3).flat_map(|c| frame.iter().skip(c).step_by(3));
        u8_hash.update(planes.copied().collect::<Vec<u8>>());
        let values = pixel_values.to_chw(frame);
        f32_hash.update(
            values
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect::<Vec<u8>>(),
        );
    }
    (hex(&u8_hash.finalize()), hex(&f32_hash.finalize()))
}

/// What differs between `image` preprocessed and the fixture or golden `case`.
fn difference(
    image: &Rgb8,
    config: &PreprocessConfig,
    max_tiles: Option<usize>,
    case: &Value,
) -> Option<String> {
    let tiles = preprocess(image, config, max_tiles);
    let layout = TileLayout {
        rows: number(&case["rows"]),
        cols: number(&case["cols"]),
    };
    let (u8_hash, f32_hash) = hashes(&tiles, config);
    let (width, height) = (image.width(), image.height());
    let name = format!("{width}x{height} {config:?} max_tiles {max_tiles:?}");
    if tiles.layout() != layout || tiles.n_frames() != layout.n_frames() {
        return Some(format!(
            "{name}: layout {:?}, expected {layout:?}",
            tiles.layout()
        ));
    }
    if TileLayout::of(width, height, config, max_tiles) != layout {
        return Some(format!("{name}: the layout without pixels differs"));
    }
    if case["u8_sha256"] != u8_hash.as_str() {
        return Some(format!("{name}: other pixels"));
    }
    if case["pixel_values_sha256"] != f32_hash.as_str() {
        return Some(format!("{name}: the same pixels, other pixel values"));
    }
    None
}

#[track_caller]
fn assert_none(failures: Vec<String>, n_cases: usize) {
    let shown = failures
        .iter()
        .take(3)
        .cloned()
        .collect::<Vec<_>>()
        .join("\n");
    assert!(
        failures.is_empty(),
        "{} of {n_cases} cases differ:\n{shown}",
        failures.len()
    );
}

#[test]
fn resizing_equals_pillow_bit_for_bit() {
    let fixture = fixture("resize.json");
    let cases = cases(&fixture["cases"]);
    let mut failures = Vec::new();
    for case in cases {
        let size: Vec<usize> = numbers(&case["size"]);
        let new_size: Vec<usize> = numbers(&case["new_size"]);
        let image = formula(&case["formula"])(size[0], size[1]);
        assert_eq!(
            case["input_sha256"],
            sha256(image.pixels()).as_str(),
            "formula of {case}"
        );
        let resized = image
            .resized(new_size[0], new_size[1])
            .expect("a size within the limits");
        assert_eq!(
            (resized.width(), resized.height()),
            (new_size[0], new_size[1])
        );
        if case["sha256"] != sha256(resized.pixels()).as_str() {
            failures.push(format!("{} {size:?} -> {new_size:?}", case["formula"]));
        }
    }
    assert_none(failures, cases.len());
    assert_eq!(cases.len(), 52);
}

#[test]
fn weights_of_a_window_sum_to_one() {
    for (n_in, n_out) in [
        (1, 9),
        (9, 1),
        (2, 300),
        (512, 511),
        (511, 512),
        (65_535, 2048),
    ] {
        for (i, sum) in resample::window_sums(n_in, n_out).into_iter().enumerate() {
            // Each of the weights is off by half a last bit at most.
            let off = (sum - (1 << 22)).unsigned_abs() as usize;
            assert!(
                off <= 3 * n_in.div_ceil(n_out) + 4,
                "{n_in} -> {n_out}, window {i}: {sum}"
            );
        }
    }
}

#[test]
fn one_colour_stays_one_colour() {
    for value in [0, 1, 127, 254, 255] {
        let image = picture(37, 23, |_, _| [value, 255 - value, 128]);
        for (width, height) in [(1, 1), (500, 3), (36, 24), (37, 100)] {
            let resized = image
                .resized(width, height)
                .expect("a size within the limits");
            let same = |pixel: &[u8; 3]| *pixel == [value, 255 - value, 128];
            assert!(
                resized.pixels().as_chunks().0.iter().all(same),
                "{value} {width}x{height}"
            );
        }
    }
}

#[test]
fn image_tiles_equal_the_published_processor() {
    let fixture = fixture("tiles.json");
    let cases = cases(&fixture["cases"]);
    let mut failures = Vec::new();
    for case in cases {
        let size: Vec<usize> = numbers(&case["size"]);
        let split = case["do_image_splitting"].as_bool().expect("a flag");
        let config = config(
            number(&case["tile_size"]),
            number(&case["longest_edge"]),
            split,
        );
        failures.extend(difference(&gradient(size[0], size[1]), &config, None, case));
    }
    assert_none(failures, cases.len());
    assert_eq!(cases.len(), 51);
}

#[test]
fn max_tiles_lowers_the_longest_edge() {
    let fixture = fixture("tiles.json");
    let cases = cases(&fixture["max_tiles"]);
    let mut failures = Vec::new();
    for case in cases {
        let size: Vec<usize> = numbers(&case["size"]);
        let config = config(
            number(&case["tile_size"]),
            number(&case["longest_edge"]),
            true,
        );
        let max_tiles = number(&case["max_tiles"]);
        let image = gradient(size[0], size[1]);
        failures.extend(difference(&image, &config, Some(max_tiles), case));
        let layout = TileLayout::of(size[0], size[1], &config, Some(max_tiles));
        assert!(layout.rows * layout.cols <= max_tiles, "{case}");
    }
    assert_none(failures, cases.len());
    assert_eq!(cases.len(), 84);
}

#[test]
fn layouts_hold_for_extreme_sizes() {
    let sides = [1, 2, 3, 63, 64, 65, 500, 4095, 4096, 4097, MAX_SIDE];
    for (tile, longest_edge) in [
        (64, 256),
        (512, 2048),
        (96, 300),
        (64, 64),
        (100, 7),
        (512, 16_384),
        // 1568 · (1/1568) is less than 1 in f64.
        (224, 1568),
    ] {
        for (width, height) in sides.iter().flat_map(|&w| sides.map(|h| (w, h))) {
            let config = config(tile, longest_edge, true);
            let plan = Plan::new((width, height), &config, None);
            let name = format!("{width}x{height} tile {tile} edge {longest_edge}: {plan:?}");
            let TileLayout { rows, cols } = plan.layout;
            // The shorter edge becomes even, which can make it the longer one.
            let longest = plan.scaled.0.max(plan.scaled.1);
            assert!(
                (longest_edge.min(4096)..=longest_edge.next_multiple_of(2).min(4096))
                    .contains(&longest),
                "{name}"
            );
            assert!(plan.scaled.0 >= 1 && plan.scaled.1 >= 1, "{name}");
            assert_eq!(rows == 0, cols == 0, "{name}");
            let grid = (cols.max(1) * tile, rows.max(1) * tile);
            assert_eq!(plan.grid, grid, "{name}");
            assert!(rows.max(cols) <= longest.div_ceil(tile), "{name}");
        }
    }
}

#[test]
fn pixel_values_equal_the_published_processor() {
    let fixture = fixture("tiles.json");
    for case in cases(&fixture["pixel_values"]) {
        let channels = |name: &str| -> [f32; 3] {
            std::array::from_fn(|c| case[name][c].as_f64().expect("a number") as f32)
        };
        let config = PreprocessConfig {
            mean: channels("mean"),
            std: channels("std"),
            rescale_factor: case["rescale_factor"].as_f64().expect("a number"),
            ..config(64, 64, true)
        };
        let ramp: Vec<u8> = (0..=255).flat_map(|x| [x; 3]).collect();
        let values = PixelValues::new(&config).to_chw(&ramp);
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(case["sha256"], sha256(&bytes).as_str(), "{config:?}");
    }
    let published = PixelValues::new(&config(512, 2048, true));
    for x in 0..=255u8 {
        assert_eq!(published.of(x, 1), f32::from(x) / 127.5 - 1.0, "{x}");
    }
}

#[test]
fn pixels_and_values_equal_the_golden_reference() {
    let files = [
        ("golden/golden_preprocess_smolvlm_256m_500m.json", 512, 2048),
        ("golden/golden_preprocess_smolvlm_2.2b.json", 384, 1536),
    ];
    for (name, tile, longest_edge) in files {
        let Some(golden) = reference_json(name, 12) else {
            continue;
        };
        let cases = cases(&golden["cases"]);
        let mut failures = Vec::new();
        for case in cases {
            let image = gradient(number(&case["width"]), number(&case["height"]));
            if let Some(hash) = case["input_rgb_sha256"].as_str() {
                assert_eq!(hash, sha256(image.pixels()));
            }
            let split = case["do_image_splitting"].as_bool().expect("a flag");
            let config = config(tile, longest_edge, split);
            let plan = Plan::new((image.width(), image.height()), &config, None);
            let size = |step: &str| (number(&case[step]["width"]), number(&case[step]["height"]));
            assert_eq!(
                plan.scaled,
                size("after_step1_longest_edge"),
                "{}",
                case["name"]
            );
            assert_eq!(plan.grid, size("after_step2"), "{}", case["name"]);
            failures.extend(difference(&image, &config, None, case));
        }
        assert_none(failures, cases.len());
        assert_eq!(cases.len(), 12);
    }
}

#[test]
fn picture_files_decode_as_pillow_decodes_them() {
    let fixture = fixture("files.json");
    let files = cases(&fixture["files"]);
    let mut failures = Vec::new();
    for file in files {
        let name = file["name"].as_str().expect("a name");
        let image = match Rgb8::decode(&from_hex(&file["hex"])) {
            Ok(image) => image,
            Err(e) => {
                failures.push(format!("{name}: {e:?}"));
                continue;
            }
        };
        let size = (number(&file["width"]), number(&file["height"]));
        if (image.width(), image.height()) != size {
            failures.push(format!("{name}: {}x{}", image.width(), image.height()));
            continue;
        }
        let expected = from_hex(&file["rgb_hex"]);
        let pairs = image.pixels().iter().zip(&expected);
        let worst = pairs.map(|(a, b)| a.abs_diff(*b)).max().expect("pixels");
        if usize::from(worst) > number(&file["max_difference"]) {
            failures.push(format!("{name}: off by {worst}"));
        }
    }
    assert_none(failures, files.len());
    assert_eq!(files.len(), 35);
}

/// The bytes of a picture file of the fixtures.
fn file(name: &str) -> Vec<u8> {
    let fixture = fixture("files.json");
    let found = cases(&fixture["files"])
        .iter()
        .find(|file| file["name"] == name);
    from_hex(&found.unwrap_or_else(|| panic!("no {name}"))["hex"])
}

#[test]
fn files_cut_short_anywhere_are_refused() {
    let fixture = fixture("files.json");
    let mut failures = Vec::new();
    for file in cases(&fixture["files"]) {
        let (name, bytes) = (&file["name"], from_hex(&file["hex"]));
        if name
            .as_str()
            .is_some_and(|name| name.starts_with("animated"))
        {
            // Only the first picture must be whole.
            continue;
        }
        // GIF and PNG end in marks that hold no picture, WebP and the plain formats in padding.
        let tail = 24;
        for len in 0..bytes.len() - tail {
            if Rgb8::decode(&bytes[..len]).is_ok() {
                failures.push(format!("{name}: {len} of {} bytes accepted", bytes.len()));
                break;
            }
        }
    }
    assert_none(failures, 35);
}

#[test]
fn a_cut_jpeg_is_not_filled_with_grey() {
    let bytes = file("soft.jpg");
    assert!(Rgb8::decode(&bytes).is_ok());
    for len in 0..bytes.len() {
        assert!(
            Rgb8::decode(&bytes[..len]).is_err(),
            "{len} of {} bytes accepted",
            bytes.len()
        );
    }
    let mut padded = bytes;
    padded.extend([0; 40]);
    assert!(Rgb8::decode(&padded).is_ok(), "cameras pad their frames");
}

#[test]
fn damaged_bytes_never_panic() {
    let fixture = fixture("files.json");
    for file in cases(&fixture["files"]) {
        let bytes = from_hex(&file["hex"]);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0xff;
            let _ = Rgb8::decode(&damaged);
        }
    }
}

#[test]
fn declared_sizes_are_refused_before_memory_is_taken() {
    let mut huge = file("rgb.png");
    // Width and height of a PNG stand at 16 and 20, the checksum of its header at 29.
    huge[16..20].copy_from_slice(&40_000u32.to_be_bytes());
    huge[20..24].copy_from_slice(&40_000u32.to_be_bytes());
    let checksum = crc32(&huge[12..29]);
    huge[29..33].copy_from_slice(&checksum.to_be_bytes());
    let start = Instant::now();
    let error = Rgb8::decode(&huge).expect_err("1.6 gigapixels");
    assert!(start.elapsed() < Duration::from_secs(1));
    assert!(matches!(
        error,
        ImageError::TooManyPixels {
            width: 40_000,
            height: 40_000
        }
    ));
    assert_eq!(
        error.to_string(),
        "the picture is 40000x40000, over the limit of 67108864 pixels; scale it down first"
    );

    let long = Rgb8::decode(b"P6 70000 1 255\n");
    assert!(matches!(
        long,
        Err(ImageError::TooLongSide {
            width: 70_000,
            height: 1
        })
    ));
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            if crc & 1 == 1 {
                (crc >> 1) ^ 0xedb8_8320
            } else {
                crc >> 1
            }
        })
    })
}

#[test]
fn what_is_no_picture_is_refused() {
    assert!(matches!(Rgb8::decode(b""), Err(ImageError::Empty)));
    assert!(matches!(
        Rgb8::decode(b"plain text"),
        Err(ImageError::UnknownFormat)
    ));
    assert!(matches!(
        Rgb8::decode(b"%PDF-1.7\n"),
        Err(ImageError::UnknownFormat)
    ));
    let nowhere = std::path::Path::new("no/such/picture.png");
    let error = Rgb8::open(nowhere).expect_err("no such file");
    assert_eq!(error.to_string(), "no/such/picture.png: cannot be read");
    let dir = tempfile::tempdir().expect("a temporary directory");
    assert!(matches!(Rgb8::open(dir.path()), Err(ImageError::Io { .. })));
    let path = dir.path().join("picture");
    std::fs::write(&path, file("rgb.png")).expect("written");
    let image = Rgb8::open(&path).expect("a picture, whatever its name");
    assert_eq!(image, gradient(11, 6));
}

#[test]
fn buffers_of_the_wrong_size_are_refused() {
    assert!(Rgb8::new(2, 3, vec![0; 18]).is_ok());
    assert!(matches!(
        Rgb8::new(0, 3, vec![]),
        Err(ImageError::NoPixels { .. })
    ));
    assert!(matches!(
        Rgb8::new(2, 3, vec![0; 17]),
        Err(ImageError::WrongLength { .. })
    ));
    assert!(matches!(
        Rgb8::new(usize::MAX, 2, vec![]),
        Err(ImageError::TooManyPixels { .. })
    ));
    assert!(matches!(
        Rgb8::new(MAX_SIDE + 1, 1, vec![]),
        Err(ImageError::TooLongSide { .. })
    ));
    let image = gradient(4, 4);
    assert!(image.resized(0, 4).is_err());
    assert!(image.resized(1 << 20, 1 << 20).is_err());
}
