//! Picture files: whatever the bytes, decoding is an error or gives a picture that can be cut into
//! frames.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ocelli_runtime::config::{PreprocessConfig, ResampleFilter};
use ocelli_runtime::image::{Rgb8, TileLayout, preprocess};

fuzz_target!(|input: &[u8]| {
    let Ok(picture) = Rgb8::decode(input) else { return };
    assert_eq!(picture.pixels().len(), picture.width() * picture.height() * 3);
    // Resizing a large picture is slow and tells nothing new.
    if picture.width() * picture.height() > 1 << 16 {
        return;
    }
    let config = PreprocessConfig {
        tile_size: 32,
        longest_edge: 128,
        do_image_splitting: true,
        mean: [0.5; 3],
        std: [0.5; 3],
        rescale_factor: 1.0 / 255.0,
        filter: ResampleFilter::Lanczos,
    };
    let layout = TileLayout::of(picture.width(), picture.height(), &config, None);
    let tiles = preprocess(&picture, &config, None);
    assert_eq!(tiles.frames.len(), layout.n_frames());
    assert!(tiles.frames.iter().all(|frame| frame.len() == 32 * 32 * 3));
});
