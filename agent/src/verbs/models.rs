//! `ocelli models`: what is at hand, and whether it is whole.

use crate::cli::{Global, ModelsArgs};
use crate::fault::Fault;
use crate::model::{self, DEFAULT};
use ocelli_runtime::import::Published;
use ocelli_runtime::pack::Pack;
use ocelli_runtime::weights::Region;
use ocelli_runtime::{LoadError, ModelSource};
use serde_json::json;
use std::io::{self, Write};

/// Runs the verb.
///
/// # Errors
///
/// See [`Fault`]. While listing all models a damaged one is reported in its line.
pub fn run(global: &Global, args: &ModelsArgs) -> Result<(), Fault> {
    if !args.names.is_empty() {
        for name in &args.names {
            print(global, name, &open(name, args.verify)?, args.verify)?;
        }
        return Ok(());
    }
    let mut first_fault = None;
    for name in std::iter::once(DEFAULT.to_owned()).chain(model::installed_names()) {
        match open(&name, args.verify) {
            Ok(pack) => print(global, &name, &pack, args.verify)?,
            Err(fault) => {
                fault.report();
                first_fault.get_or_insert(fault);
            }
        }
    }
    first_fault.map_or(Ok(()), Err)
}

fn open(name: &str, verify: bool) -> Result<Pack, Fault> {
    let pack = match model::resolve(name)? {
        ModelSource::Embedded(name, bytes) => Pack::from_region(
            Region::from_static(bytes),
            &format!("the embedded model {name}"),
        ),
        ModelSource::Path(path)
        | ModelSource::WithProjector(path, _)
        | ModelSource::WithVariant(path, _)
            if Published::is_at(&path) =>
        {
            return Err(Fault::Argument(format!(
                "{} is a published model; `ocelli pack` makes a pack of it",
                path.display()
            )));
        }
        ModelSource::Path(path)
        | ModelSource::WithProjector(path, _)
        | ModelSource::WithVariant(path, _) => Pack::open(&path),
    };
    let pack = pack.map_err(LoadError::from)?;
    if verify {
        pack.verify().map_err(LoadError::from)?;
    }
    Ok(pack)
}

fn print(global: &Global, name: &str, pack: &Pack, verified: bool) -> io::Result<()> {
    let header = pack.header();
    let config = &header.config;
    let mut out = io::stdout();
    if global.json {
        let sources: Vec<_> = header
            .sources
            .iter()
            .map(|source| {
                let sha256: String = source.sha256.iter().map(|b| format!("{b:02x}")).collect();
                json!({ "name": source.name, "bytes": source.len, "sha256": sha256 })
            })
            .collect();
        let report = json!({
            "name": name,
            "model": header.name,
            "bytes": pack.len(),
            "packer": header.packer,
            "weights": pack.weights().name(),
            "verified": verified,
            "tile_size": header.preprocess.as_ref().map(|p| p.tile_size),
            "image_tokens_per_tile": config.image_tokens_per_tile(),
            "context": config.text.max_positions,
            "vocab_size": config.text.vocab_size,
            "vision": config.vision.as_ref().map(|vision| {
                json!({ "hidden": vision.hidden_size, "layers": vision.n_layers })
            }),
            "text": { "hidden": config.text.hidden_size, "layers": config.text.n_layers },
            "sources": sources,
        });
        return writeln!(out, "{report}");
    }
    let vision = match &config.vision {
        None => "text only".to_owned(),
        Some(vision) => format!(
            "{} px tiles, {} tokens each, vision {}x{}",
            vision.image_size,
            vision.image_tokens(),
            vision.hidden_size,
            vision.n_layers
        ),
    };
    writeln!(
        out,
        "{name:24} {:8.1} MB  {} weights, {vision}, text {}x{}, context {}{}",
        pack.len() as f64 / 1e6,
        pack.weights().name(),
        config.text.hidden_size,
        config.text.n_layers,
        config.text.max_positions,
        if verified { ", checksums good" } else { "" }
    )
}
