//! `ocelli journal export`: JSON lines, CSV.

use super::teller::Teller;
use crate::cli::ExportFormat;
use crate::entry::{Answered, Answerer, Entry};
use crate::fault::Fault;
use crate::journal::{Disk, Reader, export};
use ocelli_reflex::observation::Stage;
use std::io::{self, BufWriter, Write};
use std::path::Path;

pub(super) fn run(folder: &Path, format: ExportFormat) -> Result<(), Fault> {
    let disk = super::open(folder)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let damages = match format {
        ExportFormat::Jsonl => export::<Entry>(&disk, &mut out)?.1,
        ExportFormat::Csv => answers(&disk, &mut out)?,
    };
    out.flush()?;
    match damages {
        0 => Ok(()),
        damages => Err(Fault::Journal {
            path: folder.to_owned(),
            damages,
        }),
    }
}

const COLUMNS: &str = "sequence,time,wall_ms,rule,stage,question,frame,picture,by,prompt,answer,probability,unsure,prompt_tokens,tokens,encode_ms,prefill_ms,decode_ms,joules,joules_measured";

/// Writes the answers, a line each; returns how much damage was passed over.
fn answers(disk: &Disk, out: &mut impl Write) -> io::Result<u64> {
    let mut teller = Teller::default();
    let mut n_damages = 0;
    writeln!(out, "{COLUMNS}")?;
    for found in Reader::<_, Entry>::new(disk)? {
        let Ok(record) = found else {
            n_damages += 1;
            continue;
        };
        let told = teller.tell(&record);
        if let Entry::Answered(answered) = &record.body {
            let wall_ms = record.at.wall_ms.map_or(String::new(), |ms| ms.to_string());
            let when = [record.sequence.to_string(), told.time, wall_ms];
            let fields = when.into_iter().chain(fields(answered));
            let line: Vec<String> = fields.map(|field| quoted(&field)).collect();
            writeln!(out, "{}", line.join(","))?;
        }
    }
    Ok(n_damages)
}

fn fields(answered: &Answered) -> [String; 17] {
    let by = match &answered.by {
        Answerer::Local(model) => format!("{} on {}", model.name, model.kernel),
        Answerer::Remote { url, model } => format!("{model} at {url}"),
    };
    let stage = match answered.stage {
        Stage::Early => "early",
        Stage::Refined => "refined",
    };
    let [encode, prefill, decode] = answered.time_ms;
    let (joules, measured) = answered.joules.unzip();
    let of = |value: Option<String>| value.unwrap_or_default();
    [
        answered.rule.clone(),
        stage.to_owned(),
        answered.question.0.to_string(),
        answered.frame.to_string(),
        of(answered.picture.clone()),
        by,
        answered.prompt.clone(),
        answered.text.clone(),
        answered.probability.to_string(),
        answered.unsure.to_string(),
        answered.prompt_tokens.to_string(),
        answered.tokens.len().to_string(),
        encode.to_string(),
        prefill.to_string(),
        decode.to_string(),
        of(joules.map(|joules| joules.to_string())),
        of(measured.map(|measured| measured.to_string())),
    ]
}

/// A field as RFC 4180 has it. Text that a spreadsheet would take for a formula is marked as text.
fn quoted(field: &str) -> String {
    let is_number = field.parse::<f64>().is_ok();
    let mark = match field.chars().next() {
        Some('=' | '+' | '-' | '@') if !is_number => "'",
        _ => "",
    };
    if mark.is_empty() && !field.contains([',', '"', '\n', '\r']) {
        return field.to_owned();
    }
    format!("\"{mark}{}\"", field.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_field_is_quoted_when_it_must_be() {
        let cases = [
            ("plain", "plain"),
            ("a,b", "\"a,b\""),
            ("say \"no\"", "\"say \"\"no\"\"\""),
            ("two\nlines", "\"two\nlines\""),
            ("=1+1", "\"'=1+1\""),
            ("-0.5", "-0.5"),
            ("", ""),
        ];
        for (field, wanted) in cases {
            assert_eq!(quoted(field), wanted, "{field:?}");
        }
    }
}
