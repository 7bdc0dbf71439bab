//! What a detector finds in a picture, as one line of JSON.
//!
//! ```sh
//! cargo run --release -p ocelli-runtime --example detect -- MODEL.onnx PICTURE
//! ```
//!
//! `MODEL.json` beside the model says what its outputs mean, see `ocelli_runtime::detector`.

use ocelli_runtime::detector::Detector;
use ocelli_runtime::image::Rgb8;
use std::error::Error;
use std::path::Path;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, picture] = arguments.as_slice() else {
        return Err("usage: detect MODEL.onnx PICTURE".into());
    };
    let start = Instant::now();
    let detector = Detector::open(Path::new(model))?;
    let load = start.elapsed();
    let picture = Rgb8::open(Path::new(picture))?;
    let start = Instant::now();
    let found = detector.detect(&picture)?;
    let line = serde_json::json!({
        "found": found,
        "load_ms": load.as_millis() as u64,
        "detect_ms": start.elapsed().as_millis() as u64,
    });
    println!("{line}");
    Ok(())
}
