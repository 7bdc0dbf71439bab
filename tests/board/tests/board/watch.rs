//! The program watches through the board's camera and says what it sees.

use std::path::{Path, PathBuf};
use std::time::Duration;

use image::imageops::FilterType;
use image::{Rgb, RgbImage};
use ocelli_board::{Board, Job, Picture};
use ocelli_board_tests::bench::Bench;
use ocelli_board_tests::program::Program;
use ocelli_board_tests::suite::Test;
use ocelli_board_tests::tests;
use ocelli_camera::{Color, Frame, FrameFormat, Matrix, PixelFormat, Range};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);
pub(crate) const SIZE: (u32, u32) = (640, 480);

pub(crate) const TESTS: &[Test] = tests![&[Program::Ocelli];
    a_watched_picture_gets_the_tokens_of_its_file,
    a_camera_that_is_unplugged_is_told_and_watched_again,
    a_board_without_camera_is_told_so,
];

fn a_watched_picture_gets_the_tokens_of_its_file(bench: &Bench) {
    let guest = bench.guest();
    for (sample, code) in [("bells-hats.jpg", b"YUYV"), ("sign-office.jpg", b"NV12")] {
        let picture = Picture::from_rgb(SIZE.0, SIZE.1, &scaled(sample), *code).unwrap();
        let _showing = guest.camera().show(&picture).unwrap();
        let name = String::from_utf8_lossy(code);
        let source = format!("{}?pixel={name}", guest.camera().device());
        let watch = watch(
            &guest,
            &format!("--source '{source}' --size 640x480 --count 1"),
        );
        let seen = await_line(&watch, |line| line["kind"] == "caption");
        // The same bytes, converted on the host, as a file.
        guest.put("/tmp/same.ppm", &ppm(&picture, *code)).unwrap();
        let told = guest
            .sh("/board/in/ocelli caption --json /tmp/same.ppm")
            .unwrap();
        let told: Value = serde_json::from_str(told.trim()).unwrap();
        assert_eq!(
            seen["token_ids"], told["token_ids"],
            "{name}: {seen} {told}"
        );
        assert!(
            seen["text"].as_str().is_some_and(|text| text.len() > 3),
            "{seen}"
        );
    }
}

fn a_camera_that_is_unplugged_is_told_and_watched_again(bench: &Bench) {
    let guest = bench.guest();
    let source = format!("{}?size=320x180", guest.camera().device());
    let watch = watch(
        &guest,
        &format!("--source '{source}' --every 1 --any-quality"),
    );
    let captioned = |line: &Value| line["kind"] == "caption";
    await_line(&watch, captioned);
    guest.camera().unplug().unwrap();
    let told = await_line(&watch, |line| line["state"] == "recovering");
    assert!(
        told["reason"]
            .as_str()
            .is_some_and(|reason| !reason.is_empty()),
        "{told}"
    );
    guest.camera().replug().unwrap();
    let told = await_line(&watch, |line| line["state"] == "streaming");
    assert!(
        told["away_s"].as_f64().is_some_and(|away| away > 0.0),
        "{told}"
    );
    await_line(&watch, captioned);
}

fn a_board_without_camera_is_told_so(bench: &Bench) {
    let guest = bench.guest();
    guest.camera().unplug().unwrap();
    let output = guest.run("/board/in/ocelli watch 2>&1", LIMIT).unwrap();
    assert_eq!(output.status, 4, "{}", output.stdout);
    assert!(
        output.stdout.contains("no camera was found"),
        "{}",
        output.stdout
    );
    let output = guest.run("/board/in/ocelli doctor --json", LIMIT).unwrap();
    assert_eq!(output.status, 0, "{}", output.stdout);
    let told: Value = serde_json::from_str(output.stdout.trim()).unwrap();
    assert_eq!(told["board"], "virt", "{told}");
    assert_eq!(told["cameras"], serde_json::json!([]), "{told}");
    guest.camera().replug().unwrap();
    let told = guest.sh("/board/in/ocelli doctor --json").unwrap();
    let told: Value = serde_json::from_str(told.trim()).unwrap();
    let usable = |camera: &Value| camera["usable"] == true;
    assert!(
        told["cameras"].as_array().unwrap().iter().any(usable),
        "{told}"
    );
}

fn watch<'a>(guest: &'a Board, arguments: &str) -> Job<'a> {
    let command = format!("exec /board/in/ocelli watch --json --quiet {arguments}");
    guest.spawn(&command).unwrap()
}

fn await_line(job: &Job<'_>, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut story = Vec::new();
    while let Some(text) = job
        .line(LIMIT)
        .unwrap_or_else(|error| panic!("{error}: {story:?}"))
    {
        let line: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        if wanted(&line) {
            return line;
        }
        story.push(line);
    }
    panic!("the program ended: {story:?}");
}

/// A sample picture with its aspect, in the middle of a grey one of the camera's size; `[height, width, 3]`.
pub(crate) fn scaled(sample: &str) -> Vec<u8> {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/samples");
    let picture = image::open(path.join(sample)).unwrap();
    let picture = picture
        .resize(SIZE.0, SIZE.1, FilterType::Triangle)
        .to_rgb8();
    let mut canvas = RgbImage::from_pixel(SIZE.0, SIZE.1, Rgb([128; 3]));
    let left = (SIZE.0 - picture.width()) / 2;
    let top = (SIZE.1 - picture.height()) / 2;
    image::imageops::replace(&mut canvas, &picture, left.into(), top.into());
    canvas.into_raw()
}

/// What the crate makes of the picture's bytes, as a file.
fn ppm(picture: &Picture, code: [u8; 4]) -> Vec<u8> {
    let format = FrameFormat {
        pixel: PixelFormat::from_fourcc(code).unwrap(),
        width: SIZE.0,
        height: SIZE.1,
        stride: 0,
        // What vivid says of its HDMI input at this size.
        color: Color {
            matrix: Matrix::Bt601,
            range: Range::Limited,
        },
    };
    let frame = Frame::new(format, picture.bytes.clone(), 0, Duration::ZERO).unwrap();
    let mut file = format!("P6\n{} {}\n255\n", SIZE.0, SIZE.1).into_bytes();
    file.extend(frame.to_rgb().unwrap().pixels);
    file
}
