//! `ocelli models add`: a pack, a model directory or a GGUF file that somebody carried in.

use crate::cli::{AddArgs, Global};
use crate::fault::Fault;
use crate::install::{Record, Slot};
use crate::model::{self, EXTENSION};
use crate::progress::Progress;
use crate::remark::remark;
use crate::room::check_disks;
use crate::signature;
use crate::verbs::pack;
use ocelli_runtime::import::Published;
use ocelli_runtime::packer::PackModelError;
use serde_json::json;
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
    let is_pack = model::is_pack(path);
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
    let keys = args.keys.keys()?;
    let signature = match is_pack {
        true => signature::read(&signature::beside(path))?,
        false => None,
    };
    if !keys.is_empty() && signature.is_none() {
        return Err(keys.missing(path).into());
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
    let mut progress = Progress::new(global);
    let mut record = Record::now(path.display().to_string());
    record.signature = signature;
    if is_pack {
        let bytes = fs::metadata(path).map_or(0, |meta| meta.len());
        check_disks(&[(slot.dir(), bytes)])?;
        slot.copy(path, &mut progress)?;
    } else {
        let model = Published::open(path, global.mmproj.as_deref(), global.variant)
            .map_err(PackModelError::from)?;
        check_disks(&[(slot.dir(), pack::bytes(global, &model.files))])?;
        slot.pack(global, &model, &mut progress)?;
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
        remark!(
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
        .filter(|path| model::is_pack(path))
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
