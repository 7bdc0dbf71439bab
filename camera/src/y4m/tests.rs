use std::time::Duration;

use crate::frame::{FrameError, Range};
use crate::pixel_format::PixelFormat;
use crate::y4m::{MAX_LINE_BYTES, Reader, Y4mError};

fn stream(header: &str, frames: &[&[u8]]) -> Vec<u8> {
    let mut bytes = header.as_bytes().to_vec();
    for frame in frames {
        bytes.extend_from_slice(b"FRAME Ip XSOMETHING\n");
        bytes.extend_from_slice(frame);
    }
    bytes
}

fn open(header: &str) -> Result<Reader<std::io::Cursor<Vec<u8>>>, Y4mError> {
    Reader::new(std::io::Cursor::new(stream(header, &[])))
}

#[test]
fn headers_of_ffmpeg_and_mjpegtools_are_understood() {
    use PixelFormat::{Grey, I444, P422, Yu12};
    let cases = [
        (
            "YUV4MPEG2 W6 H4 F30:1 Ip A1:1 C420jpeg XYSCSS=420JPEG\n",
            Yu12,
            Range::Limited,
        ),
        (
            "YUV4MPEG2 W6 H4 F25:1 It A0:0 C420mpeg2 XYSCSS=420MPEG2 XCOLORRANGE=LIMITED\n",
            Yu12,
            Range::Limited,
        ),
        (
            "YUV4MPEG2 H4 W6 C420paldv XCOLORRANGE=FULL\n",
            Yu12,
            Range::Full,
        ),
        ("YUV4MPEG2 W6 H4\n", Yu12, Range::Limited),
        ("YUV4MPEG2 W6  H4 C420 \n", Yu12, Range::Limited),
        (
            "YUV4MPEG2 W6 H4 C422 XCOLORRANGE=FULL XYSCSS=422\n",
            P422,
            Range::Full,
        ),
        ("YUV4MPEG2 W6 H4 C444\n", I444, Range::Limited),
        ("YUV4MPEG2 W6 H4 Cmono\n", Grey, Range::Limited),
    ];
    for (header, pixel, range) in cases {
        let format = open(header).unwrap().format();
        assert_eq!(
            (format.pixel, format.width, format.height),
            (pixel, 6, 4),
            "{header}"
        );
        assert_eq!(format.color.range, range, "{header}");
    }
}

#[test]
fn headers_that_cannot_be_used_are_errors() {
    let error = |header: &str| open(header).unwrap_err();
    assert!(matches!(error(""), Y4mError::Empty));
    assert!(matches!(error("RIFF W6 H4\n"), Y4mError::NotY4m));
    assert!(matches!(error("YUV4MPEG2 W6 H4"), Y4mError::CutLine));
    assert!(matches!(
        error("YUV4MPEG2 H4\n"),
        Y4mError::Missing { parameter: 'W' }
    ));
    assert!(matches!(
        error("YUV4MPEG2 W6\n"),
        Y4mError::Missing { parameter: 'H' }
    ));
    assert!(matches!(
        error("YUV4MPEG2 W-6 H4\n"),
        Y4mError::Parameter { .. }
    ));
    assert!(matches!(
        error("YUV4MPEG2 W6 H4 F25:0\n"),
        Y4mError::Parameter { .. }
    ));
    assert!(matches!(
        error("YUV4MPEG2 W6 H4 C420p10\n"),
        Y4mError::ColorSpace { .. }
    ));
    assert!(matches!(
        error("YUV4MPEG2 W0 H4\n"),
        Y4mError::Frame(FrameError::NoPixels { .. })
    ));
    let huge = "YUV4MPEG2 W99999 H99999\n";
    assert!(matches!(
        error(huge),
        Y4mError::Frame(FrameError::TooLongSide { .. })
    ));
    let long = format!("YUV4MPEG2 W6 H4 X{}\n", "x".repeat(MAX_LINE_BYTES));
    assert!(matches!(error(&long), Y4mError::LongLine));
}

#[test]
fn frames_come_with_their_times() {
    let header = "YUV4MPEG2 W2 H2 F30000:1001 Cmono\n";
    let bytes = stream(header, &[&[1, 2, 3, 4], &[5, 6, 7, 8], &[9; 4]]);
    let mut reader = Reader::new(bytes.as_slice()).unwrap();
    let times = [0, 33_366_666, 66_733_333].map(Duration::from_nanos);
    for (number, time) in (0..).zip(times) {
        let frame = reader.next_frame().unwrap().unwrap();
        assert_eq!((frame.sequence(), frame.timestamp()), (number, time));
        let first = [1, 5, 9][number as usize];
        assert_eq!(frame.to_rgb().unwrap().pixels[0], first);
    }
    assert!(reader.next_frame().unwrap().is_none());
    assert_eq!(
        reader.timestamp(u64::MAX).as_secs(),
        615_506_360_592_775_372
    );
}

#[test]
fn the_rate_is_25_where_the_stream_does_not_know_it() {
    for header in ["YUV4MPEG2 W2 H2\n", "YUV4MPEG2 W2 H2 F0:0\n"] {
        assert_eq!(
            open(header).unwrap().timestamp(1),
            Duration::from_millis(40)
        );
    }
}

#[test]
fn planes_stand_one_behind_the_other() {
    // 2 x 2 luma, then chroma; red is Y 76, U 85, V 255 in full range.
    let cases: [(&str, Vec<u8>); 3] = [
        ("C420jpeg", vec![76, 76, 76, 76, 85, 255]),
        ("C422", vec![76, 76, 76, 76, 85, 85, 255, 255]),
        ("C444", [[76; 4], [85; 4], [255; 4]].concat()),
    ];
    for (name, frame) in cases {
        let header = format!("YUV4MPEG2 W2 H2 {name} XCOLORRANGE=FULL\n");
        let bytes = stream(&header, &[&frame]);
        let frame = Reader::new(bytes.as_slice())
            .unwrap()
            .next_frame()
            .unwrap()
            .unwrap();
        assert_eq!(
            frame.to_rgb().unwrap().pixels,
            [254, 0, 0].repeat(4),
            "{name}"
        );
    }
}

#[test]
fn limited_grey_is_stretched() {
    let bytes = stream(
        "YUV4MPEG2 W4 H1 Cmono XCOLORRANGE=LIMITED\n",
        &[&[0, 16, 126, 235]],
    );
    let frame = Reader::new(bytes.as_slice())
        .unwrap()
        .next_frame()
        .unwrap()
        .unwrap();
    assert_eq!(frame.luma(4, 1).unwrap().values, [0, 0, 128, 255]);
}

#[test]
fn a_cut_stream_says_in_which_frame() {
    let bytes = stream("YUV4MPEG2 W2 H2 Cmono\n", &[&[1, 2, 3, 4], &[5, 6]]);
    let mut reader = Reader::new(bytes.as_slice()).unwrap();
    assert!(reader.next_frame().unwrap().is_some());
    let error = reader.next_frame().unwrap_err();
    assert!(matches!(
        error,
        Y4mError::CutFrame {
            frame: 1,
            have: 2,
            need: 4
        }
    ));
}

#[test]
fn something_else_between_frames_is_an_error() {
    let bytes = [
        stream("YUV4MPEG2 W2 H2 Cmono\n", &[&[1, 2, 3, 4]]),
        b"FRAMES\nabcd".to_vec(),
    ]
    .concat();
    let mut reader = Reader::new(bytes.as_slice()).unwrap();
    reader.next_frame().unwrap();
    assert!(matches!(
        reader.next_frame(),
        Err(Y4mError::NoFrameLine { frame: 1 })
    ));
}
