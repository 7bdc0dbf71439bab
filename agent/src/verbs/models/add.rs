//! `ocelli models add`: a pack, a model directory or a GGUF file that somebody carried in.

use crate::cli::{AddArgs, Global};
use crate::fault::Fault;
use crate::install::{Record, Slot};
use crate::model::EXTENSION;
use crate::progress::Progress;
use crate::room::check_disks;
use crate::signature::{self, Keys, SignatureError};
use crate::verbs::pack;
use ocelli_runtime::import::Published;
use ocelli_runtime::packer::PackModelError;
use serde_json::json;
use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Runs the verb.
///
/// # Errors
///
/// See [`Fault`]. Nothing is installed then.
pub fn run(global: &Global, args: &AddArgs) -> Result<(), Fault> {
    let path = &found(&args.path)?;
    let is_pack = path.is_file() && path.extension().is_some_and(|e| e == EXTENSION);
    if !is_pack && !Published::is_at(path) {
        return Err(Fault::Argument(format!(
            "{} is neither a pack (*.{EXTENSION}) nor a model directory nor a GGUF file",
            path.display()
        )));
    }
    if is_pack && global.mmproj.is_some() {
        return Err(Fault::Argument(
            "--mmproj goes with the GGUF file of a text model; a pack has its vision side in it"
                .into(),
        ));
    }
    let mut keys = Keys::configured(&args.keys.key, |name| env::var_os(name))?;
    if args.keys.allow_unsigned {
        keys = Keys::default();
    }
    let signature = match is_pack {
        true => signature::read(&signature::beside(path))?,
        false => None,
    };
    if !keys.is_empty() && signature.is_none() {
        return Err(SignatureError::Missing {
            pack: path.clone(),
            from: keys.origin().to_owned(),
            wanted: keys.ids(),
        }
        .into());
    }
    let name = match &args.name {
        Some(name) => name.clone(),
        None => name_of(path),
    };
    let slot = Slot::open(global, &name)?;
    if slot.target().exists() && !args.force {
        return Err(Fault::Argument(format!(
            "{name} is installed; give --force to replace it, or --name to install under another name"
        )));
    }
    check_disks(&[(slot.dir(), most_bytes(path, is_pack))])?;
    let mut progress = Progress::new(global);
    let mut record = Record::now(path.display().to_string());
    record.signature = signature;
    if is_pack {
        slot.copy(path, &mut progress)?;
    } else {
        let model = Published::open(path, global.mmproj.as_deref(), global.variant)
            .map_err(PackModelError::from)?;
        slot.pack(&model, &pack::options(global), &mut progress)?;
    }
    let installed = slot.install(&record, &keys)?;
    if global.json {
        let event = json!({ "event": "installed", "name": installed.name,
            "path": installed.path.display().to_string(), "bytes": installed.bytes });
        writeln!(io::stdout(), "{event}")?;
        return Ok(());
    }
    writeln!(io::stdout(), "{}", installed.name)?;
    if !global.quiet {
        eprintln!(
            "ocelli: {name} installed ({:.1} MB)",
            installed.bytes as f64 / 1e6
        );
    }
    Ok(())
}

/// The path itself, or the one pack in a folder that is no model directory.
fn found(path: &Path) -> Result<PathBuf, Fault> {
    if !path.is_dir() || path.join("config.json").exists() {
        return Ok(path.to_owned());
    }
    let entries = fs::read_dir(path).map_err(|source| Fault::Input {
        path: path.to_owned(),
        source,
    })?;
    let mut packs: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_file() && path.extension().is_some_and(|e| e == EXTENSION))
        .collect();
    packs.sort();
    match packs.len() {
        0 => Ok(path.to_owned()),
        1 => Ok(packs.remove(0)),
        n => {
            let names: Vec<_> = packs
                .iter()
                .map(|path| path.display().to_string())
                .collect();
            Err(Fault::Argument(format!(
                "{} holds {n} packs; name one: {}",
                path.display(),
                names.join(", ")
            )))
        }
    }
}

/// Name of the file without extension, or of the folder, links resolved.
fn name_of(path: &Path) -> String {
    let full = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let part = match full.is_dir() {
        true => full.file_name(),
        false => full.file_stem(),
    };
    part.unwrap_or_default().to_string_lossy().into_owned()
}

/// Most bytes that the pack will have.
fn most_bytes(path: &Path, is_pack: bool) -> u64 {
    let len = |path: &Path| fs::metadata(path).map_or(0, |meta| meta.len());
    if path.is_dir() {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        let weights = entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|e| e == "safetensors"));
        return weights.map(|path| len(&path)).sum();
    }
    match is_pack {
        true => len(path),
        // Of four bits each become eight.
        false => len(path).saturating_mul(2),
    }
}
