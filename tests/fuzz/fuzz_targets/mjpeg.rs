//! JPEG frames: whatever the bytes, a frame is an error or gives a picture of the size it said, and then the grid
//! from its DC coefficients too. The same bytes as a stream come out as frames that begin where pictures begin.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use ocelli_camera::{Color, Frame, FrameFormat, Matrix, PixelFormat, Range, jpeg};

/// Larger pictures are slow to decode and tell nothing new.
const MAX_PIXELS: u32 = 1 << 16;
/// Longest frame of the stream.
const MAX_FRAME_BYTES: usize = 2048;

fn decode(bytes: &[u8]) {
    let Ok((width, height)) = jpeg::size(bytes) else {
        return;
    };
    if width * height > MAX_PIXELS {
        return;
    }
    let color = Color {
        matrix: Matrix::Bt601,
        range: Range::Full,
    };
    let format = FrameFormat {
        pixel: PixelFormat::Mjpg,
        width,
        height,
        stride: 0,
        color,
    };
    let frame = Frame::new(format, bytes.to_vec(), 0, Duration::ZERO).unwrap();
    let (columns, rows) = (width.min(40), height.min(30));
    let luma = frame.luma(columns, rows);
    if let Ok(luma) = &luma {
        assert_eq!(luma.values.len(), (columns * rows) as usize);
    }
    if let Ok(rgb) = frame.to_rgb() {
        assert_eq!((rgb.width, rgb.height), (width, height));
        assert_eq!(rgb.pixels.len(), (width * height * 3) as usize);
        assert!(luma.is_ok(), "{luma:?}");
    }
}

fn split(bytes: &[u8]) {
    let mut splitter = jpeg::Splitter::new(MAX_FRAME_BYTES);
    let mut frame_bytes = 0;
    for piece in bytes.chunks(97) {
        splitter.push(piece);
        while let Some(frame) = splitter.next_frame() {
            assert!(frame.starts_with(&[0xFF, 0xD8, 0xFF]) && frame.len() <= MAX_FRAME_BYTES);
            frame_bytes += frame.len();
        }
        assert!(splitter.held_bytes() <= 2 * MAX_FRAME_BYTES);
    }
    let dropped = usize::try_from(splitter.dropped_bytes()).unwrap();
    assert_eq!(frame_bytes + dropped + splitter.held_bytes(), bytes.len());
}

fuzz_target!(|input: &[u8]| {
    decode(input);
    split(input);
});
