//! How far the kernels of this CPU are from the scalar ones on a pack's probes, as parts of the root
//! mean square of all logits and image features:
//!
//! ```sh
//! cargo run --release -p ocelli-tests --example probe_distance -- PACK
//! ```

use std::env;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use ocelli_kernels::{Compute, int8_gemm};
use ocelli_runtime::pack::Pack;
use ocelli_runtime::probe::Probes;

fn main() -> Result<(), Box<dyn Error>> {
    let path = env::args().nth(1).ok_or("usage: probe_distance PACK")?;
    let pack = Arc::new(Pack::open(Path::new(&path))?);
    let scalar = Probes::make(&pack, 1)?;
    println!("{} greedy tokens are clear", scalar.text.tokens.len());
    for kernels in int8_gemm::available() {
        let name = kernels.gemm.name();
        let start = Instant::now();
        let own = Probes::computed_by(&pack, &Arc::new(Compute::with_kernel(1, name)?))?;
        let (logits, features) = own.distance(&scalar);
        println!(
            "{name:36} logits {logits:.4}, image features {features:.4}, products {}, {:.2} s",
            if own.products == scalar.products {
                "equal"
            } else {
                "differ"
            },
            start.elapsed().as_secs_f64(),
        );
    }
    Ok(())
}
