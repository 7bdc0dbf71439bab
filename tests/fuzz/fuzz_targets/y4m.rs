//! Y4M streams: whatever the bytes, reading is an error or gives frames of the size that the header says.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ocelli_camera::y4m::Reader;

/// Converting larger pictures is slow and tells nothing new.
const MAX_PIXELS: u32 = 1 << 16;

fuzz_target!(|input: &[u8]| {
    let Ok(mut reader) = Reader::new(input) else {
        return;
    };
    let format = reader.format();
    let mut frames = 0;
    while let Ok(Some(frame)) = reader.next_frame() {
        assert_eq!(
            (frame.sequence(), frame.timestamp()),
            (frames, reader.timestamp(frames))
        );
        frames += 1;
        if format.width * format.height > MAX_PIXELS || frames > 3 {
            continue;
        }
        let rgb = frame.to_rgb().unwrap();
        assert_eq!((rgb.width, rgb.height), (format.width, format.height));
        let luma = frame
            .luma(format.width.min(8), format.height.min(6))
            .unwrap();
        assert!(!luma.values.is_empty());
    }
});
