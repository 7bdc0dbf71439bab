//! Lets a model that reads text fill in a form, and says how long that took.
//!
//! ```text
//! cargo run --release -p ocelli-runtime --example form -- MODEL SCHEMA.json TEXT [MAX_TOKENS]
//! ```
//!
//! MODEL is a pack, a model directory or a GGUF file; TEXT goes before the document as it is. One
//! thread, three times.

use ocelli_runtime::constrain::Grammar;
use ocelli_runtime::{LoadOptions, ModelSource, Vlm};
use std::error::Error;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(model), Some(schema), Some(text)) = (args.next(), args.next(), args.next()) else {
        return Err("MODEL SCHEMA.json TEXT [MAX_TOKENS]".into());
    };
    let max_tokens = args.next().map_or(Ok(200), |number| number.parse())?;
    let grammar = Grammar::json(&std::fs::read_to_string(schema)?)?;
    let source = ModelSource::Path(model.into());
    let vlm = Vlm::load(&source, &LoadOptions::default(), &mut |_, _| {})?;
    for _ in 0..3 {
        let mut session = vlm.session()?;
        session.extend(&vlm.tokenizer().encode(&text)?)?;
        let start = Instant::now();
        let written = session.write(&grammar, max_tokens)?;
        let milliseconds = start.elapsed().as_secs_f64() * 1e3;
        let tokens = written.tokens.len();
        println!("{milliseconds:.1} ms, {tokens} tokens: {}", written.text);
    }
    Ok(())
}
