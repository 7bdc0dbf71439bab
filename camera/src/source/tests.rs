use super::*;
use crate::frame::{Color, Matrix, Range};
use crate::pixel_format::PixelFormat;
use proptest::prelude::*;

fn error(uri: &str) -> String {
    match open(uri, &SourceOptions::default()) {
        Ok(source) => panic!("{uri} opened {}", source.describe()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn an_error_says_what_is_wrong_and_what_to_write() {
    let cases = [
        (
            "",
            "begins with none of v4l2: pipe: replay: http: https: rtsp:",
        ),
        ("video0", "write for example v4l2:/dev/video0"),
        (
            "v4l2:/dev/video0?size=0x480",
            "option size=0x480: it is WIDTHxHEIGHT",
        ),
        (
            "/dev/video0?pixel=H264",
            "option pixel=H264: it is one of YUYV UYVY",
        ),
        (
            "v4l2:/dev/video0?rate=fast",
            "option rate=fast: it is a number from",
        ),
        (
            "v4l2:/dev/video0?colour=red",
            "option colour=red: no such option",
        ),
        (
            "v4l2:/dev/video0?turn=45",
            "option turn=45: it is one of 0 90 180 270",
        ),
        (
            "/dev/no-such-node",
            "/dev/no-such-node is not there; plug the camera in",
        ),
        (
            "/dev/null",
            "/dev/null is no video device; name a node like /dev/video0",
        ),
        (
            "v4l2:?card=Nobody%20has%20this",
            "no camera with card \"Nobody has this\"",
        ),
        ("replay:/no/such/file.png", "No such file"),
        ("pipe:", "it is pipe:COMMAND ARGUMENTS"),
        ("pipe:say 'hello", "with quotes in pairs"),
        ("pipe:/no/such/program -x", "cannot run /no/such/program"),
        ("pipe:true#pixel=NV12", "NV12 needs size=WIDTHxHEIGHT"),
        ("pipe:rpicam?size=1", "option size=1"),
        (
            "https://user:secret@host/x",
            "https://***@host/x: https is not supported",
        ),
    ];
    for (uri, expected) in cases {
        let found = error(uri);
        assert!(found.contains(expected), "{uri}: {found}");
        assert!(!found.contains("secret"), "{found}");
    }
}

#[test]
fn options_in_the_uri_override_those_of_the_caller() {
    let caller = SourceOptions {
        size: Some((1, 1)),
        rate: Some(9.0),
        ..SourceOptions::default()
    };
    let query =
        "size=640x480&pixel=GREY&control.focus_absolute=3&mirror&turn=90&card=A%26B&matrix=bt709";
    let (address, options) = split(&format!("/dev/video1?{query}"), &caller).unwrap();
    assert_eq!(address, "v4l2:/dev/video1");
    assert_eq!(options.size, Some((640, 480)));
    assert_eq!(options.rate, Some(9.0));
    assert_eq!(options.pixel, Some(PixelFormat::Grey));
    assert_eq!(
        options.controls.get("focus_absolute").map(String::as_str),
        Some("3")
    );
    assert_eq!(options.card.as_deref(), Some("A&B"));
    let orientation = options.view.orientation;
    assert_eq!(
        (
            orientation.quarter_turns,
            orientation.mirror,
            orientation.flip
        ),
        (1, true, false)
    );
    let found = options.color(Color {
        matrix: Matrix::Bt601,
        range: Range::Full,
    });
    assert_eq!(
        found,
        Color {
            matrix: Matrix::Bt709,
            range: Range::Full
        }
    );
}

#[test]
fn a_question_mark_belongs_to_addresses_that_may_hold_one() {
    let none = SourceOptions::default();
    let cases = [
        (
            "http://h/snap.jpg?user=1#rate=2",
            "http://h/snap.jpg?user=1",
            Some(2.0),
        ),
        ("rtsp://h/1?channel=2", "rtsp://h/1?channel=2", None),
        ("pipe:say what?#rate=5", "pipe:say what?", Some(5.0)),
        ("replay:a/b?rate=3", "replay:a/b", Some(3.0)),
    ];
    for (uri, address, rate) in cases {
        let (found, options) = split(uri, &none).unwrap();
        assert_eq!((found.as_str(), options.rate), (address, rate), "{uri}");
    }
}

proptest! {
    #[test]
    fn no_uri_panics(uri in ".{0,80}", kind in 0usize..4) {
        let prefix = ["", "v4l2:?", "replay:?", "http:#"][kind];
        let _ = split(&format!("{prefix}{uri}"), &SourceOptions::default());
    }
}
