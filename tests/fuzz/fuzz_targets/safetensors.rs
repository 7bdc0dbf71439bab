//! Safetensors files: whatever the bytes, opening and reading is an error or gives finite numbers.

#![no_main]

use std::cell::OnceCell;
use std::fs;

use libfuzzer_sys::fuzz_target;
use ocelli_runtime::import::safetensors::Checkpoint;
use tempfile::TempDir;

/// Names and shapes that the corpus uses.
const TENSORS: [(&str, &[usize]); 4] = [("a", &[2, 3]), ("b", &[4]), ("c", &[0]), ("d", &[])];

thread_local! {
    static DIR: OnceCell<TempDir> = const { OnceCell::new() };
}

fuzz_target!(|input: &[u8]| {
    DIR.with(|dir| {
        let dir = dir.get_or_init(|| tempfile::tempdir().expect("a temporary folder")).path();
        fs::write(dir.join("model.safetensors"), input).expect("the folder can be written");
        let Ok(checkpoint) = Checkpoint::open(dir) else { return };
        for (name, shape) in TENSORS {
            if let Ok(values) = checkpoint.read(name, shape) {
                assert_eq!(values.len(), shape.iter().product::<usize>());
                assert!(values.iter().all(|value| value.is_finite()));
            }
        }
    });
});
