//! A chosen picture reaches whoever captures, byte for byte.

use ocelli_board::Picture;
use ocelli_board_tests::bench::Bench;
use ocelli_board_tests::suite::Test;
use ocelli_board_tests::tests;

pub(crate) const TESTS: &[Test] = tests![&[];
    a_picture_goes_through_the_camera_unchanged_in_each_format,
    a_picture_may_have_the_sizes_of_television,
    a_second_picture_takes_the_place_of_the_first,
];

fn a_picture_goes_through_the_camera_unchanged_in_each_format(bench: &Bench) {
    let guest = bench.guest();
    for format in [
        b"YUYV", b"UYVY", b"NV12", b"YU12", b"RGB3", b"BGR3", b"GREY",
    ] {
        let picture = Picture::test_card(640, 480, *format).unwrap();
        let showing = guest.camera().show(&picture).unwrap();
        assert!(
            capture(&guest) == picture.bytes,
            "{}",
            String::from_utf8_lossy(format)
        );
        drop(showing);
    }
}

fn a_picture_may_have_the_sizes_of_television(bench: &Bench) {
    let guest = bench.guest();
    for (width, height) in [(800, 600), (1280, 720)] {
        let picture = Picture::test_card(width, height, *b"YUYV").unwrap();
        let _showing = guest.camera().show(&picture).unwrap();
        assert!(capture(&guest) == picture.bytes, "{width}x{height}");
    }
}

fn a_second_picture_takes_the_place_of_the_first(bench: &Bench) {
    let guest = bench.guest();
    let grey = |level: u8| Picture::from_rgb(640, 480, &[level; 640 * 480 * 3], *b"RGB3").unwrap();
    let first = guest.camera().show(&grey(10)).unwrap();
    assert!(capture(&guest) == grey(10).bytes);
    drop(first);
    let _second = guest.camera().show(&grey(200)).unwrap();
    assert!(capture(&guest) == grey(200).bytes);
}

/// A frame as the camera is set up now.
fn capture(guest: &ocelli_board::Board) -> Vec<u8> {
    let device = guest.camera().device();
    let file = "/tmp/captured";
    let command = format!(
        "v4l2-ctl -d {device} --stream-mmap=4 --stream-skip=6 --stream-count=1 --stream-to={file}"
    );
    guest.sh(&command).unwrap();
    guest.fetch(file).unwrap()
}
