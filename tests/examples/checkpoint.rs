//! Writes the random checkpoint of a stage fixture, on request with another depth:
//!
//! ```sh
//! cargo run -p ocelli-tests --example checkpoint -- smolvlm_256m_cut OUT 12 30
//! ```
//!
//! gives SmolVLM-256M's true shape (12 vision layers, 30 decoder layers) without Python.

use std::env;
use std::path::Path;
use std::process::ExitCode;

use ocelli_tests::checkpoint::Checkpoint;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let layers: Vec<usize> = args
        .iter()
        .skip(2)
        .filter_map(|count| count.parse().ok())
        .collect();
    let (name, out, layers) = match (args.as_slice(), layers.as_slice()) {
        ([name, out], []) => (name, out, None),
        ([name, out, _, _], &[vision, decoder]) => (name, out, Some((vision, decoder))),
        _ => {
            eprintln!("usage: checkpoint FIXTURE OUT [VISION_LAYERS DECODER_LAYERS]");
            return ExitCode::from(2);
        }
    };
    let checkpoint = Checkpoint::of_fixture(name);
    let checkpoint = match layers {
        Some((vision, decoder)) => checkpoint.with_layers(vision, decoder),
        None => checkpoint,
    };
    match checkpoint.write(Path::new(out)) {
        Ok(hashes) => {
            for (file, hash) in hashes {
                println!("{hash}  {file}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{out}: {error}");
            ExitCode::FAILURE
        }
    }
}
