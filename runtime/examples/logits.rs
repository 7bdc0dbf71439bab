//! Logits of a model for other programs to compare: `tools/reference/gguf_peer.py`.
//!
//!     logits MODEL int8|f32
//!
//! Reads lines from stdin and answers each on stdout:
//!
//! | line | answer |
//! |---|---|
//! | `ids TEXT` (a JSON string) | one line: the token ids of the text |
//! | `score ID ID ...` | for each id the logits after it, `[ids, vocab]` f32 little endian |
//! | `greedy N ID ID ...` | the logits before each of N greedy tokens, `[N, vocab]` f32 little endian |

use ocelli_runtime::{LoadOptions, ModelSource, Precision, Session, Vlm};
use std::error::Error;
use std::io::{self, BufRead, Write};
use std::path::PathBuf;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, precision] = &arguments[..] else {
        return Err("usage: logits MODEL int8|f32".into());
    };
    let options = LoadOptions {
        threads: 2,
        precision: match precision.as_str() {
            "int8" => Precision::Int8,
            "f32" => Precision::F32,
            other => return Err(format!("precision {other}, known are int8 and f32").into()),
        },
        verify: false,
    };
    let source = ModelSource::Path(PathBuf::from(model));
    let vlm = Vlm::load(&source, &options, &mut |_, _| {})?;
    let mut session = vlm.session()?;
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        answer(&vlm, &mut session, &line?, &mut out)?;
        out.flush()?;
    }
    Ok(())
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
