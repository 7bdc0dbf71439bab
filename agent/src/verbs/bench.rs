//! `ocelli bench`: how long each stage takes on this machine, and what memory it takes.

use crate::answer::peak_rss_bytes;
use crate::cli::{BenchArgs, Global};
use crate::fault::Fault;
use crate::model;
use crate::progress::Progress;
use ocelli_runtime::Session;
use serde_json::{Map, json};
use std::io::{self, Write};
use std::time::Instant;

/// Runs the verb.
///
/// # Errors
///
/// See [`Fault`].
pub fn run(global: &Global, args: &BenchArgs) -> Result<(), Fault> {
    let mut progress = Progress::new(global);
    let (vlm, load) = model::load(global, &mut progress)?;
    let config = vlm.config();
    let (prefill, decode) = (args.prefill.get(), args.decode.get());
    if prefill + decode > config.text.max_positions {
        return Err(Fault::Argument(format!(
            "--prefill {prefill} and --decode {decode} are together over the model's context of {}",
            config.text.max_positions
        )));
    }
    let side = config.vision.as_ref().map_or(0, |vision| vision.image_size);
    let frame: Vec<u8> = (0..side * side * 3)
        .map(|i| {
            let (pixel, channel) = (i / 3, i % 3);
            let (x, y) = (pixel % side, pixel / side);
            ((7 * x + 3 * y + 85 * channel) % 256) as u8
        })
        .collect();
    // Any id but the image token, which would want an image feature.
    let plain = u32::from(config.image_token_id() == Some(0));
    let mut session = vlm.session()?;
    let mut times: Vec<[f64; 3]> = Vec::new();
    // The first round touches every page and is not counted.
    for round in 0..=args.runs.get() {
        progress.show(&format!("bench {round}/{}", args.runs));
        let start = Instant::now();
        if side > 0 {
            session.encode(&frame)?;
        }
        let encode = start.elapsed().as_secs_f64();
        session.truncate(0);
        let start = Instant::now();
        session.extend(&vec![plain; prefill])?;
        session.logits()?;
        let prefill = start.elapsed().as_secs_f64();
        let rate = decode_rate(&mut session, decode, plain)?;
        if round > 0 {
            times.push([encode, prefill, rate]);
        }
    }
    progress.clear();
    let median = |at: usize| {
        let mut values: Vec<f64> = times.iter().map(|t| t[at]).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let (encode_ms, prefill_ms, rate) = (median(0) * 1e3, median(1) * 1e3, median(2));
    let file = vlm
        .pack()
        .filter(|pack| pack.is_file_backed())
        .map_or(0, |pack| pack.len());
    let mut report = Map::new();
    report.insert("model".into(), json!(vlm.name()));
    report.insert("kernel".into(), json!(vlm.kernel_name()));
    report.insert("threads".into(), json!(vlm.n_threads()));
    report.insert("load_ms".into(), json!(load.as_secs_f64() * 1e3));
    let encode_tile_ms = (side > 0).then_some(encode_ms);
    report.insert("encode_tile_ms".into(), json!(encode_tile_ms));
    report.insert("prefill_tokens".into(), json!(prefill));
    report.insert("prefill_ms".into(), json!(prefill_ms));
    report.insert("decode_tokens_per_second".into(), json!(rate));
    report.insert("kv_bytes".into(), json!(session.kv_bytes()));
    report.insert("pack_bytes".into(), json!(file));
    report.insert("peak_rss_bytes".into(), json!(peak_rss_bytes()));
    let mut out = io::stdout();
    if global.json {
        writeln!(out, "{}", serde_json::Value::Object(report))?;
        return Ok(());
    }
    writeln!(
        out,
        "model    {}, kernel {}, {} threads",
        vlm.name(),
        vlm.kernel_name(),
        vlm.n_threads()
    )?;
    writeln!(out, "load     {:9.1} ms", load.as_secs_f64() * 1e3)?;
    if side > 0 {
        writeln!(out, "encode   {encode_ms:9.1} ms a tile of {side} px")?;
    }
    writeln!(out, "prefill  {prefill_ms:9.1} ms for {prefill} tokens")?;
    writeln!(
        out,
        "decode   {rate:9.1} tokens a second over {decode} tokens"
    )?;
    writeln!(
        out,
        "memory   {:9.1} MB at most, mapped pack of {:.1} MB included",
        peak_rss_bytes() as f64 / 1e6,
        file as f64 / 1e6
    )?;
    Ok(())
}

/// Decode steps a second with a fixed token, so that no stop token ends the run.
fn decode_rate(session: &mut Session, steps: usize, token: u32) -> Result<f64, Fault> {
    let start = Instant::now();
    for _ in 0..steps {
        session.extend(&[token])?;
        session.logits()?;
    }
    Ok(steps as f64 / start.elapsed().as_secs_f64())
}
