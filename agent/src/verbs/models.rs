//! `ocelli models`: what is at hand, whether it is whole and from whom, what comes and goes.
//!
//! | file | defines |
//! |---|---|
//! | [`add`], [`remove`] | what comes and goes |
//! | [`catalogue`] | what could be pulled |

pub mod add;
pub mod catalogue;
pub mod remove;

use crate::cli::{Global, ModelsArgs, ModelsVerb};
use crate::fault::Fault;
use crate::gate::{self, Verdict};
use crate::hub::digest::ContentId;
use crate::install::{Record, check_signature};
use crate::model::{self, DEFAULT};
use crate::signature::{Keys, Signed};
use crate::wall_clock;
use ocelli_runtime::import::Published;
use ocelli_runtime::pack::Pack;
use ocelli_runtime::weights::Region;
use ocelli_runtime::{LoadError, ModelSource};
use serde_json::json;
use std::env;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

/// What is looked for.
struct Look {
    /// Whether checksums, probes and signatures are compared.
    verify: bool,
    keys: Keys,
}

/// A model that was looked at.
struct Found {
    pack: Arc<Pack>,
    /// What its probes say, if it was verified.
    verdict: Option<Verdict>,
    record: Option<Record>,
    signed: Option<Signed>,
}

/// Runs the verb.
///
/// # Errors
///
/// See [`Fault`]. While listing all models a damaged one is reported in its line.
pub fn run(global: &Global, args: &ModelsArgs) -> Result<(), Fault> {
    match &args.verb {
        None if args.catalogue => catalogue::run(global),
        None => list(global, &args.names, args.verify, &[]),
        Some(ModelsVerb::Verify { names, key }) => list(global, names, true, key),
        Some(ModelsVerb::Remove { names, yes }) => remove::run(global, names, *yes),
        Some(ModelsVerb::Add(args)) => add::run(global, args),
    }
}

fn list(global: &Global, names: &[String], verify: bool, key: &[String]) -> Result<(), Fault> {
    let keys = match verify {
        true => Keys::configured(key, |name| env::var_os(name))?,
        false => Keys::default(),
    };
    let look = Look { verify, keys };
    if !names.is_empty() {
        for name in names {
            print(global, name, &open(name, &look)?)?;
        }
        return Ok(());
    }
    let mut first_fault = None;
    for name in std::iter::once(DEFAULT.to_owned()).chain(model::installed_names()) {
        match open(&name, &look) {
            Ok(found) => print(global, &name, &found)?,
            Err(fault) => {
                fault.report();
                first_fault.get_or_insert(fault);
            }
        }
    }
    first_fault.map_or(Ok(()), Err)
}

fn open(name: &str, look: &Look) -> Result<Found, Fault> {
    let (pack, path): (_, Option<PathBuf>) = match model::resolve(name)? {
        ModelSource::Embedded(name, bytes) => (
            Pack::from_region(
                Region::from_static(bytes),
                &format!("the embedded model {name}"),
            ),
            None,
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
        | ModelSource::WithVariant(path, _) => (Pack::open(&path), Some(path)),
    };
    let pack = Arc::new(pack.map_err(LoadError::from)?);
    let verdict = match look.verify {
        true => {
            pack.verify().map_err(LoadError::from)?;
            Some(gate::check(&pack, &gate::kernels()?)?)
        }
        false => None,
    };
    let Some(path) = path else {
        return Ok(Found {
            pack,
            verdict,
            record: None,
            signed: None,
        });
    };
    let record = Record::of(&model::installed_dir(), &pack);
    let signed = check_signature(&path, record.as_ref(), &look.keys)?;
    Ok(Found {
        pack,
        verdict,
        record,
        signed,
    })
}

/// When it was installed, in UTC.
fn installed_at(record: &Record) -> Option<String> {
    wall_clock::of_seconds(record.installed_at).map(wall_clock::text)
}

fn print(global: &Global, name: &str, found: &Found) -> io::Result<()> {
    let Found {
        pack,
        verdict,
        record,
        signed,
    } = found;
    let header = pack.header();
    let config = &header.config;
    let mut out = io::stdout();
    if global.json {
        let sources: Vec<_> = header
            .sources
            .iter()
            .map(|source| {
                let id = ContentId::Sha256(source.sha256);
                json!({ "name": source.name, "bytes": source.len, "sha256": id.to_string() })
            })
            .collect();
        let report = json!({
            "name": name,
            "model": header.name,
            "bytes": pack.len(),
            "packer": header.packer,
            "weights": pack.weights().name(),
            "verified": verdict.is_some(),
            "probes_hold": *verdict == Some(Verdict::Holds),
            "tile_size": header.preprocess.as_ref().map(|p| p.tile_size),
            "image_tokens_per_tile": config.image_tokens_per_tile(),
            "context": config.text.max_positions,
            "vocab_size": config.text.vocab_size,
            "vision": config.vision.as_ref().map(|vision| {
                json!({ "hidden": vision.hidden_size, "layers": vision.n_layers })
            }),
            "text": { "hidden": config.text.hidden_size, "layers": config.text.n_layers },
            "sources": sources,
            "source": record.as_ref().map(|record| &record.source),
            "commit": record.as_ref().and_then(|record| record.commit.as_ref()),
            "format": record.as_ref().and_then(|record| record.format.as_ref()),
            "licence": record.as_ref().and_then(|record| record.licence.as_ref()),
            "installed_at": record.as_ref().and_then(installed_at),
            "signed_by": signed.as_ref().map(|signed| &signed.key),
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
    write!(
        out,
        "{name:24} {:8.1} MB  {} weights, {vision}, text {}x{}, context {}{}",
        pack.len() as f64 / 1e6,
        pack.weights().name(),
        config.text.hidden_size,
        config.text.n_layers,
        config.text.max_positions,
        match verdict {
            None => "",
            Some(Verdict::Holds) => ", checksums good, probes hold",
            Some(Verdict::NoProbes) => ", checksums good, no probes",
        }
    )?;
    if let Some(signed) = signed {
        write!(out, ", signed by key {}", signed.key)?;
    }
    if let Some(record) = record {
        let commit = record.commit.as_deref().unwrap_or_default();
        let at = if commit.is_empty() { "" } else { "@" };
        write!(out, "; {}{at}{:.7}", record.source, commit)?;
        for part in [record.licence.clone(), installed_at(record)] {
            write!(
                out,
                "{}",
                part.map_or(String::new(), |part| format!(", {part}"))
            )?;
        }
    }
    writeln!(out)
}
