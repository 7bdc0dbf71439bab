//! Odd and damaged pictures on their whole way: file, image tiles, prompt, answer.

use std::fs;
use std::time::{Duration, Instant};

use ocelli_runtime::image::{ImageError, Rgb8};
use ocelli_runtime::prompt::Message;
use ocelli_runtime::{Precision, PromptRequest};
use ocelli_tests::fixture::folder;
use serde_json::Value;

use crate::ruin::{load, sound_directory};

/// A picture file of `fixtures/preprocess/files.json`.
pub(crate) fn file(name: &str) -> Vec<u8> {
    let text = fs::read(folder().join("preprocess/files.json")).expect("the fixture is there");
    let json: Value = serde_json::from_slice(&text).expect("the fixture is JSON");
    let files = json["files"].as_array().expect("a list of files");
    let found = files
        .iter()
        .find(|file| file["name"] == name)
        .unwrap_or_else(|| panic!("no {name}"));
    let hex = found["hex"].as_str().expect("hex digits");
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex digits");
    (0..hex.len()).step_by(2).map(byte).collect()
}

/// A PNG of one colour.
pub(crate) fn png(width: u32, height: u32) -> Vec<u8> {
    let picture = image::RgbImage::from_pixel(width, height, image::Rgb([200, 30, 90]));
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture
        .write_to(&mut bytes, image::ImageFormat::Png)
        .expect("a PNG can be written");
    bytes.into_inner()
}

/// Files that say they hold 40000 × 40000 pixels, or nearly, and hold next to none.
pub(crate) fn declared_40000() -> Vec<(&'static str, Vec<u8>)> {
    let mut png = file("rgb.png");
    png[16..20].copy_from_slice(&40_000u32.to_be_bytes());
    png[20..24].copy_from_slice(&40_000u32.to_be_bytes());
    let checksum = crc32fast::hash(&png[12..29]);
    png[29..33].copy_from_slice(&checksum.to_be_bytes());

    let mut bmp = file("rgb.bmp");
    bmp[18..22].copy_from_slice(&40_000u32.to_le_bytes());
    bmp[22..26].copy_from_slice(&40_000u32.to_le_bytes());

    let mut gif = file("palette.gif");
    gif[6..10].copy_from_slice(&[0x40, 0x9C, 0x40, 0x9C]);

    let mut jpeg = file("soft.jpg");
    let frame = jpeg
        .windows(2)
        .position(|pair| pair == [0xFF, 0xC0])
        .expect("a frame header");
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0x9C, 0x40, 0x9C, 0x40]);

    // VP8X: three bytes for each side less one.
    let mut webp = file("animated.webp");
    webp[24..30].copy_from_slice(&[0x3F, 0x9C, 0, 0x3F, 0x9C, 0]);

    let mut tiff = file("rgb.tiff");
    for at in [18, 30] {
        tiff[at..at + 4].copy_from_slice(&40_000u32.to_le_bytes());
    }

    let pnm = b"P6 40000 40000 255\n\x01\x02\x03".to_vec();
    vec![
        ("png", png),
        ("bmp", bmp),
        ("gif", gif),
        ("jpg", jpeg),
        ("webp", webp),
        ("tiff", tiff),
        ("ppm", pnm),
    ]
}

/// The most memory this process has had, in kB.
fn peak_kilobytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .expect("the peak is told");
    line.split_whitespace()
        .nth(1)
        .and_then(|kb| kb.parse().ok())
        .expect("a number of kB")
}

#[test]
fn declared_sizes_are_refused_before_memory_is_taken() {
    for (format, bytes) in declared_40000() {
        let (start, before) = (Instant::now(), peak_kilobytes());
        let error = Rgb8::decode(&bytes).expect_err("1.6 gigapixels");
        let (took, grew) = (start.elapsed(), peak_kilobytes() - before);
        assert!(took < Duration::from_secs(2), "{format}: {took:?}");
        // Tests run side by side and share the peak; the picture would take 4.8 GB.
        assert!(grew < 1 << 20, "{format}: {grew} kB");
        println!("{format}: {error}");
        if let ImageError::TooManyPixels { .. } | ImageError::TooLongSide { .. } = error {
            assert!(error.to_string().contains("40000"), "{format}: {error}");
        }
    }
}

/// Every odd but sound picture gets an answer.
#[test]
fn odd_pictures_are_answered() {
    let pictures = [
        ("1 x 1", png(1, 1)),
        ("1 x 5000", png(1, 5000)),
        ("5000 x 1", png(5000, 1)),
        ("2 x 3", png(2, 3)),
        ("65 x 63", png(65, 63)),
        ("16-bit", file("rgb_16_bit.png")),
        ("16-bit grey", file("grey_16_bit.png")),
        ("CMYK", file("cmyk.jpg")),
        ("animated GIF", file("animated.gif")),
        ("animated WebP", file("animated.webp")),
        ("turned by EXIF", file("orientation_6.jpg")),
        ("1 bit", file("black_and_white.png")),
    ];
    let model = load(sound_directory().path(), Precision::Int8).expect("the sound directory loads");
    let mut session = model.session().expect("a session starts");
    for (what, bytes) in pictures {
        let picture = Rgb8::decode(&bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
        let messages = [Message::image_and_text("Can you describe this image?")];
        for max_tiles in [None, Some(0), Some(1)] {
            let request = PromptRequest {
                messages: &messages,
                images: std::slice::from_ref(&picture),
                max_tiles,
                answer_tokens: 3,
                keep_stages: true,
            };
            let stats = session
                .prompt(&request, &mut |_| {})
                .unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(stats.image_tokens, 4 * stats.frames, "{what}");
            let stages = session.stages().expect("stages were kept");
            assert!(stages.logits.iter().all(|v| v.is_finite()), "{what}");
            assert!(
                stages.image_features.iter().all(|v| v.is_finite()),
                "{what}"
            );
        }
    }
}

/// A picture turned by EXIF and the same picture turned by hand give the same features.
#[test]
fn exif_rotation_reaches_the_model() {
    let features = |name: &str| {
        let picture = Rgb8::decode(&file(name)).expect("a picture");
        let model =
            load(sound_directory().path(), Precision::Int8).expect("the sound directory loads");
        let mut session = model.session().expect("a session starts");
        let request = PromptRequest {
            messages: &[Message::image_and_text("x")],
            images: &[picture],
            max_tiles: Some(0),
            answer_tokens: 1,
            keep_stages: true,
        };
        session
            .prompt(&request, &mut |_| {})
            .expect("the prompt runs");
        session
            .stages()
            .expect("stages were kept")
            .image_features
            .clone()
    };
    assert_ne!(features("orientation_1.jpg"), features("orientation_3.jpg"));
    assert_ne!(features("orientation_1.jpg"), features("orientation_6.jpg"));
    assert_eq!(features("orientation_1.jpg"), features("soft.jpg"));
}

#[test]
fn truncated_pictures_are_refused() {
    for name in [
        "rgb.png",
        "soft.jpg",
        "progressive.jpg",
        "cmyk.jpg",
        "palette.gif",
        "soft.webp",
        "rgb.bmp",
        "rgb.tiff",
        "rgb.ppm",
    ] {
        let bytes = file(name);
        for length in [
            0,
            1,
            2,
            10,
            bytes.len() / 4,
            bytes.len() / 2,
            bytes.len() - 40,
        ] {
            let error = Rgb8::decode(&bytes[..length]).map(|_| ()).expect_err(name);
            assert!(!error.to_string().is_empty(), "{name} at {length}");
        }
    }
}
