//! Opening and closing sources for ever takes nothing from the system.
//!
//! One test in a program of its own: it counts what the whole process holds.

use std::fs;
use std::time::Duration;

use ocelli_camera::camera::{Camera, CameraOptions, Settle};

/// Open files, threads, and kilobytes in memory of this process.
fn held() -> (usize, usize, usize) {
    let files = fs::read_dir("/proc/self/fd").unwrap().count();
    let threads = fs::read_dir("/proc/self/task").unwrap().count();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let kilobytes = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    (files, threads, kilobytes)
}

fn children() -> String {
    let read = fs::read_to_string("/proc/self/task/self/children");
    read.or_else(|_| fs::read_to_string(format!("/proc/self/task/{}/children", std::process::id())))
        .unwrap_or_default()
}

fn cycle(uri: &str) {
    // A clip of three frames is too short for exposure to settle.
    let settle = Settle {
        frames: 0,
        ..Settle::default()
    };
    let options = CameraOptions {
        settle,
        ..CameraOptions::default()
    };
    let mut camera = Camera::open(uri, options).unwrap();
    camera.frame(Duration::from_secs(60)).unwrap();
}

#[test]
fn a_thousand_cycles_leak_no_file_no_thread_no_child_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("a.png");
    image::RgbImage::from_pixel(320, 240, image::Rgb([1, 2, 3]))
        .save(&picture)
        .unwrap();
    let clip = folder.path().join("clip.y4m");
    let frames = [b"FRAME\n".as_slice(), &[9; 320 * 240]].concat().repeat(3);
    let header = b"YUV4MPEG2 W320 H240 Cmono\n".as_slice();
    fs::write(&clip, [header, &frames].concat()).unwrap();
    let sources = [
        (1000, format!("replay:{}", picture.display())),
        (1000, format!("replay:{}?speed=0", clip.display())),
        (
            60,
            format!(
                "pipe:sh -c 'cat {}; exec sleep 1000'#max_age_ms=60000",
                clip.display()
            ),
        ),
    ];
    for (cycles, uri) in sources {
        // The first ones fill caches that stay.
        (0..10).for_each(|_| cycle(&uri));
        let before = held();
        (0..cycles).for_each(|_| cycle(&uri));
        let after = held();
        assert_eq!(
            (before.0, before.1),
            (after.0, after.1),
            "files and threads, {uri}"
        );
        // A kilobyte a cycle would be a megabyte.
        assert!(
            after.2 < before.2 + 900,
            "{} to {} kB, {uri}",
            before.2,
            after.2
        );
        assert_eq!(children(), "", "{uri}");
    }
}
