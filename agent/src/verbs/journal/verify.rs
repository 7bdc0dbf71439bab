//! `ocelli journal verify`: checksums and chain.

use crate::cli::Global;
use crate::entry::Entry;
use crate::fault::Fault;
use crate::journal::{Damage, Flaw, Reader, Summary, verify};
use serde_json::json;
use std::io::{self, Write};
use std::path::Path;

pub(super) fn run(global: &Global, folder: &Path) -> Result<(), Fault> {
    let disk = super::open(folder)?;
    let summary = verify(&disk)?;
    // Whole records may still be of no kind this program knows.
    let foreign = Reader::<_, Entry>::new(&disk)?
        .filter_map(Result::err)
        .filter(|damage| damage.flaw == Flaw::Body);
    let mut foreign: Vec<Damage> = foreign.collect();
    let n_foreign = foreign.len() as u64;
    foreign.truncate(crate::journal::reader::MAX_DAMAGES);
    print(global, &summary, &foreign, n_foreign)?;
    match summary.n_damages + n_foreign {
        0 => Ok(()),
        damages => Err(Fault::Journal {
            path: folder.to_owned(),
            damages,
        }),
    }
}

fn print(global: &Global, summary: &Summary, foreign: &[Damage], n_foreign: u64) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let head: String = summary
        .head
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let damages = summary.damages.iter().chain(foreign);
    if global.json {
        let damages = damages.map(|damage| {
            json!({
                "segment": damage.segment,
                "offset": damage.offset,
                "what": damage.flaw.to_string(),
                "good_again": damage.good_again,
            })
        });
        let fields = json!({
            "records": summary.n_records,
            "first": summary.range.map(|range| range.0),
            "last": summary.range.map(|range| range.1),
            "head": head,
            "unfinished_bytes": summary.n_unfinished_bytes,
            "n_damages": summary.n_damages + n_foreign,
            "damages": damages.collect::<Vec<_>>(),
        });
        return writeln!(out, "{fields}");
    }
    let records = summary.n_records;
    match summary.range {
        Some((first, last)) => writeln!(out, "records     {first} to {last}, {records} sound")?,
        None => writeln!(out, "records     none")?,
    }
    writeln!(out, "head        {head}")?;
    if summary.n_unfinished_bytes > 0 {
        let bytes = summary.n_unfinished_bytes;
        writeln!(
            out,
            "unfinished  {bytes} bytes at the end that were never acknowledged"
        )?;
    }
    for damage in damages {
        writeln!(out, "damage      {damage}")?;
    }
    Ok(())
}
