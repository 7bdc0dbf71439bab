//! What finding the allowed tokens costs, step by step, on a model's own vocabulary.
//!
//! `cargo run --release --workspace --example mask_cost -- DIR`, where DIR has the small files of a
//! published model (`config.json`, `tokenizer.json`, …); its weights are not needed.

use ocelli_runtime::Grammar;
use ocelli_runtime::config::ModelFiles;
use ocelli_runtime::constrain::{Guide, Step, TokenTrie};
use ocelli_runtime::tokenizer::Tokenizer;
use std::error::Error;
use std::path::Path;
use std::time::Instant;

const SCHEMA: &str = r#"{"type":"object","properties":{
    "supplier":{"type":"string","maxLength":60},
    "number":{"type":"integer","minimum":0,"maximum":999999},
    "items":{"type":"array","maxItems":6,"items":{"type":"object","properties":{
        "name":{"type":"string","maxLength":40},
        "count":{"type":"integer","minimum":1,"maximum":999}},"required":["name","count"]}},
    "damaged":{"type":"boolean"}},"required":["supplier","number","items","damaged"]}"#;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args().nth(1).ok_or("usage: mask_cost DIR")?;
    let files = ModelFiles::read(Path::new(&dir))?;
    let tokenizer = Tokenizer::from_bytes(&files.tokenizer_json, &files.config, &files.generation)?;
    let start = Instant::now();
    let trie = TokenTrie::new(tokenizer.text_tokens());
    println!(
        "{} tokens ordered in {:.1} ms",
        tokenizer.n_tokens(),
        ms(start)
    );
    let grammar = Grammar::json(SCHEMA)?;
    let (mut all, mut choosing) = (Vec::new(), Vec::new());
    let mut noise = 1u64;
    for _ in 0..8 {
        let mut guide = Guide::new(&grammar, &trie, 160)?;
        loop {
            let logits: Vec<f32> = (0..tokenizer.n_tokens())
                .map(|_| {
                    // A multiplicative generator (Steele and Vigna 2021) is noise enough.
                    noise = noise.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(1);
                    (noise >> 40) as f32 / 1e6
                })
                .collect();
            let start = Instant::now();
            guide.allowed();
            all.push(ms(start));
            let start = Instant::now();
            let step = guide.next(&logits);
            choosing.push(ms(start));
            if step == Step::End {
                break;
            }
        }
    }
    report("allowed tokens", &mut all);
    report("and the choice", &mut choosing);
    Ok(())
}

fn ms(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

fn report(what: &str, times: &mut [f64]) {
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!(
        "{what}: {} steps, median {:.3} ms, 95 of 100 within {:.3} ms, most {:.3} ms",
        times.len(),
        at(0.5),
        at(0.95),
        at(1.0)
    );
}
