//! Logits of a model for other programs to compare: `tools/reference/gguf_peer.py` and `truth.py`.
//!
//!     logits MODEL int8|int4|f32
//!     logits MODEL int4:EXCEPTION,...
//!
//! An exception is stored in the other of the two ways (int8 instead of int4, for `head` and `v` int4 instead of int8):
//! a part of every layer (`down`), every part of a layer (`0`), a part of one (`0.down`) or `head`.
//! A directory or GGUF file is packed as `ocelli pack` does by default; with the word `nearest`
//! among the exceptions, also after `int8:`, without calibration; with the word `again` a file whose layers
//! lie on a 4-bit grid is rotated and rounded again; `int4:10%` is `ocelli pack --weights int4 --spare 10`.
//!
//! Reads lines from stdin and answers each on stdout:
//!
//! | line | answer |
//! |---|---|
//! | `ids TEXT` (a JSON string) | one line: the token ids of the text |
//! | `score ID ID ...` | for each id the logits after it, `[ids, vocab]` f32 little endian |
//! | `greedy N ID ID ...` | the logits before each of N greedy tokens, `[N, vocab]` f32 little endian |

use ocelli_kernels::Compute;
use ocelli_runtime::import::Published;
use ocelli_runtime::pack::{Pack, WeightScheme};
use ocelli_runtime::packer::{self, CalibrationText, PackOptions};
use ocelli_runtime::weights::Region;
use ocelli_runtime::{LoadOptions, ModelSource, Precision, Session, Vlm};
use std::error::Error;
use std::io::{self, BufRead, Cursor, Write};
use std::path::PathBuf;
use std::sync::Arc;

/// One token at a time gains little from more.
const THREADS: usize = 1;
/// The exception that leaves calibration out.
const NEAREST: &str = "nearest";
/// The exception that rounds again what lies on a 4-bit grid in its file.
const AGAIN: &str = "again";

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, precision] = &arguments[..] else {
        return Err("usage: logits MODEL int8|int4|f32".into());
    };
    let vlm = load(model, precision)?;
    let mut session = vlm.session()?;
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        answer(&vlm, &mut session, &line?, &mut out)?;
        out.flush()?;
    }
    Ok(())
}

/// Loads the model in an arithmetic, or packs it in memory to chosen weights.
fn load(model: &str, arithmetic: &str) -> Outcome<Vlm> {
    let (scheme, exceptions) = arithmetic.split_once(':').unwrap_or((arithmetic, ""));
    let (precision, weights) = match scheme {
        "int8" => (Precision::Int8, WeightScheme::Int8),
        "int4" => (Precision::Int8, WeightScheme::Int4),
        "f32" => (Precision::F32, WeightScheme::Int8),
        other => return Err(format!("{other} is not known; known are int8, int4 and f32").into()),
    };
    let path = PathBuf::from(model);
    if precision == Precision::F32 || !Published::is_at(&path) {
        let options = LoadOptions {
            threads: THREADS,
            precision,
            weights: (precision == Precision::Int8).then_some(weights),
            ..LoadOptions::default()
        };
        return Ok(Vlm::load(
            &ModelSource::Path(path),
            &options,
            &mut |_, _| {},
        )?);
    }
    let model = Published::open(&path, None, None)?;
    let layers = model.files.config.text.n_layers;
    let has = |wanted: &str| exceptions.split(',').any(|word| word == wanted);
    let options = PackOptions {
        weights: Some(weights),
        rounds_again: has(AGAIN),
        spare_percent: exceptions
            .split(',')
            .find_map(|word| word.strip_suffix('%'))
            .map_or(Ok(0), str::parse)?,
        exceptions: exceptions
            .split(',')
            .filter(|word| !["", NEAREST, AGAIN].contains(word) && !word.ends_with('%'))
            .flat_map(|word| matrices(word, weights, layers))
            .collect(),
        calibration: match has(NEAREST) {
            true => CalibrationText::None,
            false => CalibrationText::BuiltIn,
        },
    };
    let out = Cursor::new(Vec::new());
    let (files, floats) = (&model.files, &*model.weights);
    let packed = packer::pack_model(&model.name, files, floats, &options, out, &mut |_, _| {})?;
    let pack = Pack::from_region(Region::from_vec(packed.out.into_inner()), &model.name)?;
    Ok(Vlm::from_pack(
        Arc::new(pack),
        Arc::new(Compute::new(THREADS)?),
    )?)
}

/// The matrices an exception means.
fn matrices(word: &str, weights: WeightScheme, layers: usize) -> Vec<String> {
    let parts = match weights {
        WeightScheme::Int8 => &["qkv", "out", "gate_up", "down"][..],
        WeightScheme::Int4 => &["qk", "v", "out", "gate_up", "down"],
    };
    if word.parse::<usize>().is_ok() {
        return parts
            .iter()
            .map(|part| format!("text.{word}.{part}"))
            .collect();
    }
    match parts.contains(&word) {
        true => (0..layers)
            .map(|layer| format!("text.{layer}.{word}"))
            .collect(),
        false => vec![format!("text.{word}")],
    }
}

fn answer(vlm: &Vlm, session: &mut Session, line: &str, out: &mut dyn Write) -> Outcome<()> {
    let (verb, rest) = line
        .split_once(' ')
        .ok_or("a line is a verb and its words")?;
    if verb == "ids" {
        let text: String = serde_json::from_str(rest)?;
        let ids = vlm.tokenizer().encode(&text)?;
        let words: Vec<String> = ids.iter().map(u32::to_string).collect();
        writeln!(out, "{}", words.join(" "))?;
        return Ok(());
    }
    let numbers: Vec<u32> = rest.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    session.truncate(0);
    match verb {
        "score" => {
            for id in numbers {
                session.extend(&[id])?;
                write_row(&session.logits()?, out)?;
            }
        }
        "greedy" => {
            let (n, ids) = numbers.split_first().ok_or("how many tokens?")?;
            session.extend(ids)?;
            for _ in 0..*n {
                let row = session.logits()?;
                write_row(&row, out)?;
                let best = (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b]));
                session.extend(&[best.ok_or("no logits")? as u32])?;
            }
        }
        other => return Err(format!("verb {other}, known are ids, score and greedy").into()),
    }
    Ok(())
}

fn write_row(row: &[f32], out: &mut dyn Write) -> io::Result<()> {
    let bytes: Vec<u8> = row.iter().flat_map(|value| value.to_le_bytes()).collect();
    out.write_all(&bytes)
}
