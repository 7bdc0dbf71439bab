//! The supervised camera recovers by itself from everything cameras do.

use std::time::Duration;

use ocelli_board::{Board, Fault, Picture, Signal};
use ocelli_board_tests::bench::Bench;
use ocelli_board_tests::probe::{Probe, is_frame};
use ocelli_board_tests::program::Program;
use ocelli_board_tests::suite::Test;
use ocelli_board_tests::tests;
use ocelli_camera::{Color, Frame, FrameFormat, Matrix, PixelFormat, Range};

const LIMIT: Duration = Duration::from_secs(20);
/// A small fast picture; waits short enough for a test.
const STREAM: &str = "?size=320x180&rate=30&pixel=YUYV' --frames 100000 --settle 0 --stuck-ms 1500";

pub(crate) const TESTS: &[Test] = tests![&[Program::Probe];
    a_picture_is_converted_in_the_guest_as_on_the_host,
    a_damaged_frame_is_left_out,
    a_refused_buffer_restarts_the_stream,
    a_broken_stream_is_mended,
    a_stream_that_is_refused_once_is_tried_again,
    lost_frames_are_counted_and_the_rest_delivered,
    a_stuck_camera_is_noticed_and_comes_back,
    a_disconnected_camera_is_opened_again,
    an_unplugged_camera_is_waited_for,
    a_camera_that_comes_back_under_another_number_is_found,
    timestamps_of_the_future_do_not_make_frames_stale,
    numbers_and_times_that_wrap_are_followed,
    a_picture_of_another_size_is_followed,
    a_lost_signal_is_told_and_the_next_one_followed,
    opening_and_closing_leaves_nothing_behind,
    unplugging_and_replugging_leaves_nothing_behind,
];

fn a_picture_is_converted_in_the_guest_as_on_the_host(bench: &Bench) {
    let guest = bench.guest();
    for code in [
        b"YUYV", b"UYVY", b"NV12", b"YU12", b"RGB3", b"BGR3", b"GREY",
    ] {
        let picture = Picture::test_card(640, 480, *code).unwrap();
        let _showing = guest.camera().show(&picture).unwrap();
        let name = String::from_utf8_lossy(code);
        let device = guest.camera().device();
        let probe = Probe::start(
            &guest,
            &format!("'v4l2:{device}?size=640x480&pixel={name}' --settle 0 --frames 8"),
        );
        let frame = probe.frames(8);
        assert_eq!(frame["format"], *name, "{frame}");
        let expected = converted(&picture, color(&frame["matrix"], &frame["range"]));
        assert_eq!(frame["rgb_crc"], expected, "{name}: {frame}");
    }
}

fn a_damaged_frame_is_left_out(bench: &Bench) {
    let guest = bench.guest();
    let probe = streaming(&guest);
    guest.camera().inject(Fault::DamagedFrame).unwrap();
    let after = probe.await_counter("damaged", 1);
    assert_eq!(after["counters"]["restarts"], 0, "{after}");
    assert_eq!(after["counters"]["reopens"], 0, "{after}");
    probe.frames(3);
}

fn a_refused_buffer_restarts_the_stream(bench: &Bench) {
    let guest = bench.guest();
    let probe = streaming(&guest);
    guest.camera().inject(Fault::RefusedBuffer).unwrap();
    probe.await_counter("faults", 1);
    mended(&probe, 1);
}

fn a_broken_stream_is_mended(bench: &Bench) {
    let guest = bench.guest();
    let probe = streaming(&guest);
    for round in 1..=2 {
        guest.camera().inject(Fault::BrokenStream).unwrap();
        probe.await_counter("faults", round);
        mended(&probe, round);
    }
}

fn a_stream_that_is_refused_once_is_tried_again(bench: &Bench) {
    let guest = bench.guest();
    for refusal in [Fault::RefusedBuffers, Fault::RefusedStart] {
        let probe = streaming(&guest);
        guest.camera().inject(refusal).unwrap();
        guest.camera().inject(Fault::BrokenStream).unwrap();
        // The break and the refusal.
        probe.await_counter("faults", 2);
        mended(&probe, 2);
    }
}

fn lost_frames_are_counted_and_the_rest_delivered(bench: &Bench) {
    let guest = bench.guest();
    let probe = streaming(&guest);
    guest.camera().inject(Fault::LostFrames(50)).unwrap();
    let after = probe.await_counter("missed", 10);
    assert_eq!(after["counters"]["faults"], 0, "{after}");
    probe.frames(3);
}

fn a_stuck_camera_is_noticed_and_comes_back(bench: &Bench) {
    let guest = bench.guest();
    let probe = streaming(&guest);
    guest.camera().inject(Fault::LostFrames(100)).unwrap();
    let state = probe.await_state("recovering");
    assert!(reason(&state).contains("no frame"), "{state}");
    guest.camera().inject(Fault::LostFrames(0)).unwrap();
    probe.await_state("streaming");
    probe.frames(3);
}

fn a_disconnected_camera_is_opened_again(bench: &Bench) {
    let guest = bench.guest();
    let probe = streaming(&guest);
    guest.camera().inject(Fault::Disconnected).unwrap();
    probe.await_counter("reopens", 1);
    probe.frames(3);
}

fn an_unplugged_camera_is_waited_for(bench: &Bench) {
    let guest = bench.guest();
    let probe = streaming(&guest);
    guest.camera().unplug().unwrap();
    let state = probe.await_state("recovering");
    assert!(!reason(&state).is_empty(), "{state}");
    guest.camera().replug().unwrap();
    probe.await_state("streaming");
    probe.frames(3);
}

fn a_camera_that_comes_back_under_another_number_is_found(bench: &Bench) {
    let guest = bench.guest();
    let probe = streaming(&guest);
    guest.camera().renumber(3).unwrap();
    assert_eq!(guest.run("ls /dev/video0", LIMIT).unwrap().status, 1);
    probe.await_counter("reopens", 1);
    probe.frames(3);
}

fn timestamps_of_the_future_do_not_make_frames_stale(bench: &Bench) {
    let guest = bench.guest();
    // vivid's own stamps are those of the end of the frame and lie ahead.
    let probe = streaming(&guest);
    let ahead = probe.frames(10);
    assert!(
        ahead["age_ms"]
            .as_f64()
            .is_some_and(|age| (0.0..1000.0).contains(&age)),
        "{ahead}"
    );
    drop(probe);
    guest.camera().inject(Fault::TimeOfExposure).unwrap();
    let probe = streaming(&guest);
    let exposed = probe.frames(10);
    assert!(
        exposed["age_ms"]
            .as_f64()
            .is_some_and(|age| (0.0..1000.0).contains(&age)),
        "{exposed}"
    );
}

fn numbers_and_times_that_wrap_are_followed(bench: &Bench) {
    let guest = bench.guest();
    for fault in [Fault::WrappingSequence, Fault::WrappingTime] {
        guest.camera().inject(fault).unwrap();
        let options = STREAM.replace("rate=30", "rate=60");
        let probe = Probe::start(
            &guest,
            &format!("'v4l2:{}{options}", guest.camera().device()),
        );
        // The driver's counter starts 128 before its end.
        probe.await_line("frame 150", |line| {
            line["sequence"].as_u64().is_some_and(|n| n >= 150)
        });
        let lines = probe.lines();
        let frames: Vec<u64> = lines
            .iter()
            .filter_map(|line| line["sequence"].as_u64())
            .collect();
        assert!(frames.is_sorted_by(|a, b| a < b), "{fault:?}: {frames:?}");
        let last = lines.iter().rfind(|line| is_frame(line)).unwrap();
        assert_eq!(last["counters"]["faults"], 0, "{fault:?}: {last}");
        assert!(
            last["counters"]["frames"].as_u64() > Some(40),
            "{fault:?}: {last}"
        );
    }
}

fn a_picture_of_another_size_is_followed(bench: &Bench) {
    let guest = bench.guest();
    let small = Picture::test_card(640, 480, *b"YUYV").unwrap();
    let _showing = guest.camera().show(&small).unwrap();
    let probe = hdmi(&guest);
    guest.camera().set_signal(Signal::OtherSize).unwrap();
    // The driver scales, so frames tell nothing: the socket must have been set to the new signal.
    let adopted = format!(
        "v4l2-ctl -d {} --get-dv-timings | grep -q 'Active width: 720'",
        guest.camera().device()
    );
    guest.await_true(&adopted, LIMIT).unwrap();
    let later = probe.await_line("later", |line| line["timestamp_s"].is_number());
    probe.frames(3);
    assert_eq!(later["counters"]["reopens"], 0, "{later}");
}

fn a_lost_signal_is_told_and_the_next_one_followed(bench: &Bench) {
    let guest = bench.guest();
    let picture = Picture::test_card(640, 480, *b"YUYV").unwrap();
    let _showing = guest.camera().show(&picture).unwrap();
    let probe = hdmi(&guest);
    for signal in [Signal::None, Signal::NoLock, Signal::OutOfRange] {
        guest.camera().set_signal(signal).unwrap();
        let state = probe.await_state("recovering");
        assert!(!reason(&state).is_empty(), "{signal:?}: {state}");
        guest.camera().set_signal(Signal::Good).unwrap();
        probe.await_state("streaming");
        probe.frames(3);
    }
}

fn opening_and_closing_leaves_nothing_behind(bench: &Bench) {
    let guest = bench.guest();
    let cycles = cycles(150);
    let device = guest.camera().device();
    let options =
        format!("?size=320x180&rate=60&pixel=YUYV' --frames 1 --settle 0 --cycles {cycles}");
    let probe = Probe::start(&guest, &format!("'v4l2:{device}{options}"));
    let before =
        probe.await_line("count before", |line| line.get("before").is_some())["before"].clone();
    let after = probe.await_line("count after", |line| line.get("after").is_some());
    assert_eq!(after["failed"], 0, "{after}");
    same(&before, &after["after"]);
}

fn unplugging_and_replugging_leaves_nothing_behind(bench: &Bench) {
    let guest = bench.guest();
    let probe = streaming(&guest);
    let cycle = || {
        guest.camera().unplug().unwrap();
        probe.await_state("recovering");
        guest.camera().replug().unwrap();
        probe.await_state("streaming");
        probe.frames(2);
    };
    // The first rounds fill caches that stay.
    (0..3).for_each(|_| cycle());
    let before = usage(&guest);
    (0..cycles(15)).for_each(|_| cycle());
    same(&before, &usage(&guest));
}

/// A probe that has delivered its first frames, by the name that stays.
fn streaming(guest: &Board) -> Probe<'_> {
    let probe = Probe::start(
        guest,
        &format!("'v4l2:{}{STREAM}", guest.camera().stable_device()),
    );
    probe.frames(3);
    probe
}

/// The same on the HDMI socket, in the format that is set.
fn hdmi(guest: &Board) -> Probe<'_> {
    let device = guest.camera().device();
    let options = "--frames 100000 --settle 0 --stuck-ms 1500";
    let probe = Probe::start(guest, &format!("'v4l2:{device}' {options}"));
    probe.frames(3);
    probe
}

/// Waits until so many faults were answered by restarts or reopens, and frames come again.
fn mended(probe: &Probe<'_>, faults: u64) {
    let answers = |line: &serde_json::Value| {
        let counter = |name: &str| line["counters"][name].as_u64().unwrap_or(0);
        counter("restarts") + counter("reopens")
    };
    let after = probe.await_line("restart or reopen", |line| {
        is_frame(line) && answers(line) >= 1
    });
    assert!(
        after["counters"]["faults"].as_u64() >= Some(faults),
        "{after}"
    );
    probe.frames(3);
}

fn reason(state: &serde_json::Value) -> &str {
    state["reason"].as_str().unwrap_or_default()
}

/// How often a test of leaks goes round: `OCELLI_BOARD_CYCLES`, or few for every day.
fn cycles(few: u32) -> u32 {
    let wanted = std::env::var("OCELLI_BOARD_CYCLES").ok();
    wanted.and_then(|text| text.parse().ok()).unwrap_or(few)
}

/// Open files, threads and resident kB of the probe that runs in the guest.
fn usage(guest: &Board) -> serde_json::Value {
    let numbers = guest
        .sh("cd /proc/$(pidof probe); ls fd | wc -l; sed -n 's/^\\(Threads\\|VmRSS\\):[^0-9]*\\([0-9]*\\).*/\\2/p' status")
        .unwrap();
    let numbers: Vec<u64> = numbers
        .lines()
        .filter_map(|line| line.trim().parse().ok())
        .collect();
    let [files, rss_kb, threads] = numbers[..] else {
        panic!("files, kB and threads: {numbers:?}");
    };
    serde_json::json!({"files": files, "threads": threads, "rss_kb": rss_kb})
}

/// Memory may grow by less than a picture in all, and not with each round.
fn same(before: &serde_json::Value, after: &serde_json::Value) {
    assert_eq!(before["files"], after["files"], "{before} {after}");
    assert_eq!(before["threads"], after["threads"], "{before} {after}");
    let kb = |usage: &serde_json::Value| usage["rss_kb"].as_u64().expect("a number");
    assert!(kb(after) <= kb(before) + 100, "{before} {after}");
}

fn converted(picture: &Picture, color: Color) -> u32 {
    let pixel = PixelFormat::from_fourcc(picture.format).unwrap();
    let (width, height) = (picture.width, picture.height);
    let format = FrameFormat {
        pixel,
        width,
        height,
        stride: 0,
        color,
    };
    let frame = Frame::new(format, picture.bytes.clone(), 0, Duration::ZERO).unwrap();
    crc32fast::hash(&frame.to_rgb().unwrap().pixels)
}

fn color(matrix: &serde_json::Value, range: &serde_json::Value) -> Color {
    let matrix = match matrix.as_str() {
        Some("Bt601") => Matrix::Bt601,
        Some("Bt709") => Matrix::Bt709,
        other => panic!("matrix {other:?}"),
    };
    let range = match range.as_str() {
        Some("Limited") => Range::Limited,
        Some("Full") => Range::Full,
        other => panic!("range {other:?}"),
    };
    Color { matrix, range }
}
