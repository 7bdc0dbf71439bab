use super::*;
use crate::source::Fault;
use std::fs;

const LONG: Duration = Duration::from_secs(60);

fn open_pipe(command: &str, query: &str) -> Box<dyn Source> {
    let options = SourceOptions {
        max_age: LONG,
        ..SourceOptions::default()
    };
    open(command, &options.with_query(query).unwrap()).unwrap()
}

fn pixels(frame: &Frame) -> Vec<u8> {
    frame.to_rgb().unwrap().pixels
}

fn is_running(process: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[test]
fn raw_frames_are_read_with_their_stride() {
    // Two rows of two grey pixels, each row padded to three bytes.
    let mut source = open_pipe("printf 'ab-cd-'", "pixel=GREY&size=2x2&stride=3");
    let frame = source.next_frame(LONG).unwrap();
    assert_eq!(pixels(&frame), b"aaabbbcccddd");
    let ended = source.next_frame(LONG).unwrap_err();
    assert_eq!(ended.fault(), Fault::Device);
}

#[test]
fn y4m_tells_itself() {
    let y4m = "YUV4MPEG2 W2 H2 Cmono XCOLORRANGE=FULL\\nFRAME\\n0123FRAME\\n4567";
    let mut source = open_pipe(&format!("sh -c \"printf '{y4m}'; exec sleep 1000\""), "");
    let mut last = Vec::new();
    // Either frame may be seen first; the second is the last.
    while last != b"444555666777" {
        last = pixels(&source.next_frame(LONG).unwrap());
    }
    assert_eq!((source.format().width, source.format().height), (2, 2));
}

#[test]
fn the_end_tells_exit_code_and_last_words() {
    let mut source = open_pipe("sh -c 'echo no camera >&2; echo at all >&2; exit 3'", "");
    let error = source.next_frame(LONG).unwrap_err().to_string();
    // The program may still be ending when its output is closed already.
    assert!(error.contains("it said: no camera / at all"), "{error}");
}

#[test]
fn a_truncated_frame_is_counted_and_not_delivered() {
    let mut source = open_pipe("printf abc", "pixel=GREY&size=2x2");
    let ended = source.next_frame(LONG);
    assert!(matches!(ended, Err(SourceError::Lost { .. })), "{ended:?}");
    assert_eq!(source.drops().damaged, 1);
}

#[test]
fn no_shell_sees_the_command() {
    let mut source = open_pipe("printf %s $HOME;a", "pixel=GREY&size=7x1");
    let frame = source.next_frame(LONG).unwrap();
    let grey: Vec<u8> = pixels(&frame).chunks(3).map(|pixel| pixel[0]).collect();
    assert_eq!(grey, b"$HOME;a");
}

#[test]
fn the_program_and_what_it_started_end_with_the_source() {
    let folder = tempfile::tempdir().unwrap();
    let numbers = folder.path().join("numbers");
    let script = format!(
        "sleep 1000 & echo $! $$ > {}; printf abcd; wait",
        numbers.display()
    );
    let mut source = open_pipe(&format!("sh -c '{script}'"), "pixel=GREY&size=2x2");
    source.next_frame(LONG).unwrap();
    let written = fs::read_to_string(&numbers).unwrap();
    let processes: Vec<u32> = written
        .split_whitespace()
        .map(|number| number.parse().unwrap())
        .collect();
    assert_eq!(processes.len(), 2);
    assert!(processes.iter().all(|process| is_running(*process)));
    drop(source);
    assert!(!is_running(processes[1]), "the program is reaped");
    // Its child has its signal and ends in its own time; it sleeps for far longer than this test waits.
    let begun = std::time::Instant::now();
    while is_running(processes[0]) {
        assert!(begun.elapsed() < LONG, "{processes:?}");
        thread::yield_now();
    }
}

#[test]
fn a_program_that_ignores_the_request_to_end_is_ended_by_force() {
    let script = "trap \"\" TERM; printf abcd; while :; do sleep 1000; done";
    let mut source = open_pipe(&format!("sh -c '{script}'"), "pixel=GREY&size=2x2");
    source.next_frame(LONG).unwrap();
    drop(source);
}

#[test]
fn presets_stand_for_the_known_commands() {
    let options = SourceOptions::default()
        .with_query("size=800x601&rate=5&sensor=1")
        .unwrap();
    let all = |_: &str| true;
    let command = preset::named("rpicam").unwrap()(&options, &all);
    assert_eq!(
        command.arguments.join(" "),
        "rpicam-vid --timeout 0 --nopreview --codec yuv420 --width 832 --height 602 \
         --framerate 5 --camera 1 --flush --output -"
    );
    assert_eq!(command.options.size, Some((832, 602)));
    assert_eq!(command.options.pixel, Some(PixelFormat::Yu12));
    let old = |program: &str| program == "libcamera-vid";
    let command = preset::named("rpicam").unwrap()(&options, &old);
    assert_eq!(command.arguments[0], "libcamera-vid");

    let command = preset::named("jetson").unwrap()(&options, &all);
    let line = command.arguments.join(" ");
    assert!(line.contains("nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM),width=832,height=602,framerate=5/1"), "{line}");
    assert_eq!(command.options.pixel, Some(PixelFormat::Nv12));
}

#[test]
fn rtsp_takes_the_program_that_is_installed() {
    let url = "rtsp://user:word@host/1";
    let options = SourceOptions::default()
        .with_query("size=640x480&rate=2")
        .unwrap();
    for (program, part) in [
        ("ffmpeg", "-rtsp_transport tcp"),
        ("gst-launch-1.0", "rtspsrc protocols=tcp"),
    ] {
        let only = |name: &str| name == program;
        let command = preset::rtsp(url, &options, &only).unwrap();
        let line = command.arguments.join(" ");
        assert!(
            line.starts_with(program) && line.contains(part) && line.contains(url),
            "{line}"
        );
    }
    assert!(preset::rtsp(url, &options, &|_| false).is_none());
}

#[test]
fn passwords_are_not_told() {
    let cases = [
        ("rtsp://user:word@host:554/a@b", "rtsp://***@host:554/a@b"),
        ("http://host/a@b", "http://host/a@b"),
        ("pipe:cat x", "pipe:cat x"),
        ("http://u@h", "http://***@h"),
    ];
    for (url, expected) in cases {
        assert_eq!(redacted(url), expected);
    }
}
