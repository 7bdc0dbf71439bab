//! GGUF files: whatever the bytes, opening, reading the keys and turning tensors to f32 is an error
//! or gives finite numbers, and never takes more memory than a small multiple of the file.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use ocelli_runtime::import::gguf::{GgufFile, GgufModel};
use ocelli_runtime::weights::Region;

fn open(bytes: &[u8]) -> Option<GgufFile> {
    GgufFile::from_region(Region::from_vec(bytes.to_vec()), Path::new("fuzz.gguf")).ok()
}

fuzz_target!(|input: &[u8]| {
    let Some(file) = open(input) else { return };
    for (name, info) in file.tensors() {
        // The densest format has 4.5 bits an element.
        assert!(info.n_elements() <= 2 * input.len());
        if let Ok(values) = file.read(name, &info.shape) {
            assert_eq!(values.len(), info.n_elements());
            assert!(values.iter().all(|value| value.is_finite()));
        }
    }
    for key in file.keys() {
        let _ = (file.text(key), file.size(key), file.float(key), file.flag(key));
        let _ = (file.texts(key), file.floats(key), file.integers(key));
    }
    // The same file as both halves: either is wrong as the other, and must only say so.
    if let Ok(model) = GgufModel::new(file, None) {
        let _ = model.model_files();
    }
    if let (Some(text), Some(projector)) = (open(input), open(input)) {
        let _ = GgufModel::new(text, Some(projector));
    }
});
