use std::time::Duration;

use crate::frame::{Buffers, Color, Frame, FrameError, FrameFormat, MAX_SIDE, Matrix, Range};
use crate::pixel_format::{BayerOrder, PixelFormat};
use crate::raw;

fn of(pixel: PixelFormat, width: u32, height: u32, stride: u32) -> FrameFormat {
    let color = Color {
        matrix: Matrix::Bt601,
        range: Range::Full,
    };
    FrameFormat {
        pixel,
        width,
        height,
        stride,
        color,
    }
}

#[test]
fn the_size_of_a_frame_follows_format_stride_and_odd_sides() {
    use PixelFormat::*;
    let cases = [
        (of(Yuyv, 4, 2, 0), 16),
        (of(Yuyv, 5, 2, 0), 24),
        (of(Uyvy, 5, 2, 20), 40),
        (of(Nv12, 4, 4, 0), 24),
        (of(Nv12, 5, 3, 0), 15 + 2 * 6),
        (of(Nv21, 5, 3, 8), 24 + 2 * 8),
        (of(Yu12, 5, 3, 0), 15 + 2 * (2 * 3)),
        (of(Yv12, 5, 3, 64), 192 + 2 * (2 * 32)),
        (of(Yu12, 5, 3, 9), 27 + 2 * (2 * 5)),
        (of(P422, 5, 3, 0), 15 + 2 * (3 * 3)),
        (of(I444, 5, 3, 6), 3 * 18),
        (of(Rgb3, 5, 3, 0), 45),
        (of(Bgr3, 5, 3, 16), 48),
        (of(Grey, 5, 3, 0), 15),
        (of(Grey16 { bits: 10 }, 5, 3, 0), 30),
        (
            of(
                Bayer {
                    order: BayerOrder::Rggb,
                    bits: 8,
                },
                5,
                3,
                0,
            ),
            15,
        ),
        (
            of(
                Bayer {
                    order: BayerOrder::Rggb,
                    bits: 12,
                },
                5,
                3,
                32,
            ),
            96,
        ),
    ];
    for (format, bytes) in cases {
        assert_eq!(format.frame_bytes().unwrap(), bytes, "{format:?}");
    }
}

#[test]
fn sizes_and_strides_out_of_bounds_are_refused() {
    use PixelFormat::{Bayer, Grey, Mjpg, Yuyv};
    let error = |format: FrameFormat| format.frame_bytes().unwrap_err();
    assert!(matches!(
        error(of(Grey, 0, 5, 0)),
        FrameError::NoPixels { .. }
    ));
    assert!(matches!(
        error(of(Grey, 5, 0, 0)),
        FrameError::NoPixels { .. }
    ));
    assert!(matches!(
        error(of(Grey, MAX_SIDE + 1, 1, 0)),
        FrameError::TooLongSide { .. }
    ));
    assert!(matches!(
        error(of(Grey, 1, u32::MAX, 0)),
        FrameError::TooLongSide { .. }
    ));
    assert!(matches!(
        error(of(Grey, MAX_SIDE, MAX_SIDE, 0)),
        FrameError::TooManyPixels { .. }
    ));
    assert!(matches!(
        error(of(Yuyv, 4, 1, 7)),
        FrameError::Stride { row_bytes: 8, .. }
    ));
    assert!(matches!(
        error(of(Grey, 4, 1, u32::MAX)),
        FrameError::StrideTooLong { .. }
    ));
    assert!(matches!(
        error(of(Mjpg, 4, 1, 0)),
        FrameError::NoFixedSize { .. }
    ));
    let bayer = Bayer {
        order: BayerOrder::Bggr,
        bits: 8,
    };
    assert!(matches!(
        error(of(bayer, 1, 2, 0)),
        FrameError::TooSmallForBayer { .. }
    ));
}

#[test]
fn a_short_buffer_is_refused_and_a_long_one_taken() {
    let format = of(PixelFormat::Yuyv, 4, 2, 0);
    let new = |length: usize| Frame::new(format, vec![7; length], 0, Duration::ZERO);
    assert!(matches!(
        new(15),
        Err(FrameError::Short {
            have: 15,
            need: 16,
            ..
        })
    ));
    let (exact, long) = (new(16).unwrap(), new(4096).unwrap());
    assert_eq!(exact.fingerprint(), long.fingerprint());
    assert_eq!(exact.to_rgb().unwrap(), long.to_rgb().unwrap());
}

#[test]
fn the_fingerprint_tells_frames_apart() {
    let frame = |last: u8| {
        let bytes = vec![1, 2, 3, last];
        Frame::new(of(PixelFormat::Grey, 2, 2, 0), bytes, 0, Duration::ZERO).unwrap()
    };
    assert_eq!(frame(4).fingerprint(), frame(4).fingerprint());
    assert_ne!(frame(4).fingerprint(), frame(5).fingerprint());
}

#[test]
fn nobody_reads_the_picture_in_debug_output() {
    let bytes = b"the bytes of a frame".to_vec();
    let frame = Frame::new(of(PixelFormat::Grey, 20, 1, 0), bytes, 3, Duration::ZERO).unwrap();
    let text = format!("{frame:?}");
    assert!(
        text.contains("sequence: 3") && !text.contains("116, 104"),
        "{text}"
    );
}

#[test]
fn a_grid_finer_than_the_picture_is_refused() {
    let frame = Frame::new(
        of(PixelFormat::Grey, 3, 2, 0),
        vec![9; 6],
        0,
        Duration::ZERO,
    )
    .unwrap();
    for (columns, rows) in [(0, 1), (1, 0), (4, 1), (1, 3)] {
        assert!(matches!(
            frame.luma(columns, rows),
            Err(FrameError::Grid { .. })
        ));
    }
    assert_eq!(frame.luma(3, 2).unwrap().values, [9; 6]);
}

#[test]
fn a_buffer_comes_back_when_the_last_clone_of_its_frame_goes() {
    let buffers = Buffers::default();
    let mut buffer = buffers.take();
    assert_eq!(buffer.capacity(), 0);
    buffer.resize(100, 1);
    let place = buffer.as_ptr();
    let format = of(PixelFormat::Grey, 10, 10, 0);
    let frame = Frame::pooled(&buffers, format, buffer, 0, Duration::ZERO).unwrap();
    let clone = frame.clone();
    drop(frame);
    assert_eq!(buffers.take().capacity(), 0);
    drop(clone);
    let again = buffers.take();
    assert_eq!((again.as_ptr(), again.len()), (place, 0));

    let refused = Frame::pooled(
        &buffers,
        of(PixelFormat::Grey, 99, 99, 0),
        again,
        0,
        Duration::ZERO,
    );
    assert!(refused.is_err());
    let back = buffers.take();
    assert_eq!(back.as_ptr(), place);
}

#[test]
fn a_stream_of_raw_frames_is_cut_wherever_its_pieces_end() {
    let format = of(PixelFormat::Grey, 3, 2, 0);
    let stream: Vec<u8> = (0..20).collect();
    for piece in 1..=20 {
        let mut splitter = raw::Splitter::new(&format).unwrap();
        let mut frames = Vec::new();
        for mut piece in stream.chunks(piece) {
            while let Some(frame) = splitter.next_frame(&mut piece) {
                frames.push(frame);
            }
            assert!(piece.is_empty());
        }
        assert_eq!(frames.concat(), stream[..18]);
        assert_eq!(splitter.partial_bytes(), 2);
    }
    assert!(raw::Splitter::new(&of(PixelFormat::Mjpg, 3, 2, 0)).is_err());
}
