//! What packing takes beyond the mapped files, counted by the allocator:
//!
//! ```sh
//! cargo run --release -p ocelli-tests --example packing_memory -- MODEL OUT.ocelli [int4]
//! ```

use std::env;
use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use ocelli_runtime::import::Published;
use ocelli_runtime::pack::WeightScheme;
use ocelli_runtime::packer::{self, PackOptions};
use ocelli_runtime::probe;
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Prints the peak since the last call.
fn report(stage: &str) {
    println!("{stage:8} {:6.1} MB", ALLOCATOR.peak_usage() as f64 / 1e6);
    ALLOCATOR.reset_peak_usage();
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let (dir, out, weights) = match args.as_slice() {
        [dir, out] => (dir, out, WeightScheme::Int8),
        [dir, out, weights] if weights == "int4" => (dir, out, WeightScheme::Int4),
        _ => return Err("usage: packing_memory MODEL OUT.ocelli [int4]".into()),
    };
    let text = |files: &ocelli_runtime::config::ModelFiles| {
        let text = &files.config.text;
        text.vocab_size * text.hidden_size
    };
    let model = Published::open(Path::new(dir), None, None)?;
    let table = text(&model.files);
    println!(
        "embedding {table} values, {:.1} MB as bf16",
        2e-6 * table as f64
    );
    report("open");
    let mut options = File::options();
    let file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(out)?;
    packer::pack_model(
        &model.name,
        &model.files,
        &*model.weights,
        &PackOptions {
            weights: Some(weights),
            ..PackOptions::default()
        },
        BufWriter::new(&file),
        &mut |_, _| {},
    )?;
    report("pack");
    drop(model);
    probe::put_into(&file, out, 1)?;
    report("probes");
    Ok(())
}
