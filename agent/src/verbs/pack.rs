//! `ocelli pack`: a model directory or a GGUF file becomes a pack, written aside and renamed.

use crate::cli::{Global, PackArgs};
use crate::fault::Fault;
use crate::gate;
use crate::leftover::Leftover;
use crate::model;
use crate::progress::Progress;
use crate::remark::remark;
use crate::threads;
use ocelli_kernels::Compute;
use ocelli_runtime::config::ModelFiles;
use ocelli_runtime::import::Published;
use ocelli_runtime::pack::{PackError, WeightScheme};
use ocelli_runtime::packer::{self, CalibrationText, OnGrid, PackModelError, PackOptions, Packed};
use ocelli_runtime::probe;
use serde_json::json;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::NamedTempFile;

/// Runs the verb.
///
/// # Errors
///
/// See [`Fault`]. Whatever goes wrong, no partial file is left and an existing
/// output stays as it was.
pub fn run(global: &Global, args: &PackArgs) -> Result<(), Fault> {
    run_on(global, args, &gate::kernels()?)
}

/// [`run`], the new pack's probes on these kernels.
///
/// # Errors
///
/// As there.
pub fn run_on(global: &Global, args: &PackArgs, kernels: &Arc<Compute>) -> Result<(), Fault> {
    refuse_existing(&args.output, args.force)?;
    if !Published::is_at(&args.source) {
        return Err(Fault::Argument(format!(
            "{} is neither a directory nor a GGUF file; give the folder that holds config.json and \
             model.safetensors or the ONNX files, or the GGUF file of a text model",
            args.source.display()
        )));
    }
    refuse_folder(&args.output)?;
    if args.spare > 0 && options(global).weights != Some(WeightScheme::Int4) {
        return Err(Fault::Argument(format!(
            "--spare {} says how much larger int4 weights may be; give --weights int4 with it",
            args.spare
        )));
    }
    let calibration = calibration(args)?;
    let mut progress = Progress::new(global);
    progress.show(&format!("reading {}", args.source.display()));
    let model = Published::open(&args.source, global.mmproj.as_deref(), global.variant)
        .map_err(PackModelError::from)?;
    refuse_inputs(args, &model)?;
    let name = args.name.clone().unwrap_or_else(|| model.name.clone());
    if let (Some(taken), false) = (model.weights.description(), global.quiet) {
        progress.clear();
        remark!("ocelli: weights from {taken}");
    }
    let aside = Aside::of(&args.output)?;
    let options = PackOptions {
        calibration,
        spare_percent: args.spare,
        ..options(global)
    };
    let packed = write(
        global,
        &name,
        &model,
        &options,
        (aside.file(), &args.output),
        &mut progress,
    )?;
    gate::check_written(aside.file(), &args.output, kernels)?;
    aside.take_place()?;
    progress.clear();
    if global.json {
        let report = json!({
            "pack": args.output.display().to_string(), "name": name, "bytes": packed.out,
            "weights": packed.weights.name(),
            "kept_matrices": packed.on_grid.map_or(0, |on_grid| on_grid.kept),
        });
        writeln!(io::stdout(), "{report}")?;
    } else if !global.quiet {
        remark!(
            "ocelli: wrote {} ({:.1} MB, {} weights)",
            args.output.display(),
            packed.out as f64 / 1e6,
            packed.weights.name()
        );
    }
    Ok(())
}

/// A file that is written beside the one it becomes. Until then, whatever ends the program but a kill
/// removes it.
#[derive(Debug)]
pub(crate) struct Aside {
    partial: NamedTempFile,
    output: PathBuf,
    _leftover: Leftover,
}

impl Aside {
    /// Makes an empty file beside `output`.
    ///
    /// # Errors
    ///
    /// A folder that cannot be written.
    pub(crate) fn of(output: &Path) -> Result<Aside, Fault> {
        let fault = |source| Fault::File {
            path: output.to_owned(),
            source,
        };
        let partial = tempfile::Builder::new()
            .prefix(".ocelli-")
            .suffix(".partial")
            .permissions(fs::Permissions::from_mode(0o644))
            .tempfile_in(folder_of(output))
            .map_err(fault)?;
        Ok(Aside {
            _leftover: Leftover::guard(partial.path()).map_err(fault)?,
            partial,
            output: output.to_owned(),
        })
    }

    /// The file.
    pub(crate) fn file(&self) -> &File {
        self.partial.as_file()
    }

    /// Gives the file, which must be synced, its name.
    ///
    /// # Errors
    ///
    /// Whatever renaming reports.
    pub(crate) fn take_place(self) -> Result<(), Fault> {
        let Aside {
            partial, output, ..
        } = self;
        let fault = |source| Fault::File {
            path: output.clone(),
            source,
        };
        let persisted = partial.persist(&output);
        persisted.map_err(|error| fault(error.error))?;
        File::open(folder_of(&output))
            .and_then(|dir| dir.sync_all())
            .map_err(fault)
    }
}

fn folder_of(output: &Path) -> &Path {
    let parent = output.parent();
    parent
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Refuses to replace what nobody said may be replaced.
pub fn refuse_existing(output: &Path, force: bool) -> Result<(), Fault> {
    match output.exists() && !force {
        true => Err(Fault::Argument(format!(
            "{} exists; give --force to replace it",
            output.display()
        ))),
        false => Ok(()),
    }
}

/// Refuses a folder as the pack's file.
pub fn refuse_folder(output: &Path) -> Result<(), Fault> {
    match output.is_dir() {
        true => Err(Fault::Argument(format!(
            "{} is a folder; name the pack's file in it",
            output.display()
        ))),
        false => Ok(()),
    }
}

/// Refuses to replace a file that the pack is made of.
fn refuse_inputs(args: &PackArgs, model: &Published) -> Result<(), Fault> {
    let identity = |meta: fs::Metadata| (meta.dev(), meta.ino());
    // A link is replaced, not what it leads to.
    let Ok(output) = fs::symlink_metadata(&args.output).map(identity) else {
        return Ok(());
    };
    let beside = fs::read_dir(&args.source).into_iter().flatten();
    let beside = beside.filter_map(|entry| Some(entry.ok()?.path()));
    let weights = model.weights.files();
    let mut inputs = (weights.iter().map(|(path, _)| path.to_path_buf()))
        .chain(beside.filter(|path| !model::is_pack(path)))
        .chain(args.calibration.clone());
    let is_output = |path: &PathBuf| {
        let found = [fs::metadata(path), fs::symlink_metadata(path)];
        found
            .into_iter()
            .flatten()
            .any(|meta| identity(meta) == output)
    };
    match inputs.find(is_output) {
        None => Ok(()),
        Some(input) => Err(Fault::Argument(format!(
            "{} is what the pack is made of ({}) and is not replaced; name another file with -o",
            args.output.display(),
            input.display()
        ))),
    }
}

/// The text of `--calibration`.
fn calibration(args: &PackArgs) -> Result<CalibrationText, Fault> {
    match &args.calibration {
        None => Ok(CalibrationText::BuiltIn),
        Some(path) if path.as_os_str() == "none" => Ok(CalibrationText::None),
        Some(path) => {
            let bytes = fs::read(path).map_err(|source| Fault::Input {
                path: path.clone(),
                source,
            })?;
            let text = String::from_utf8(bytes).map_err(|_| {
                Fault::Argument(format!(
                    "{} is not UTF-8 text; give --calibration a text file or `none`",
                    path.display()
                ))
            })?;
            if text.trim().is_empty() {
                return Err(Fault::Argument(format!(
                    "{} holds no text; give --calibration a text file or `none`",
                    path.display()
                )));
            }
            Ok(CalibrationText::Own(text))
        }
    }
}

/// How `--weights` wants the decoder's weights to be stored.
pub fn options(global: &Global) -> PackOptions {
    PackOptions {
        weights: global.weights.map(WeightScheme::from),
        ..PackOptions::default()
    }
}

/// Bytes that the pack of a published model takes.
pub fn bytes(global: &Global, files: &ModelFiles) -> u64 {
    packer::pack_bytes(&files.config, files.tokenizer_json.len(), &options(global))
}

/// Packs a model into an empty file and syncs it; `path` names the file in errors. Says what the
/// pack does without, and what it keeps. Returns its length in bytes as what it was written into.
///
/// # Errors
///
/// Weights that cannot be read or packed, a file that cannot be written.
pub fn write(
    global: &Global,
    name: &str,
    model: &Published,
    options: &PackOptions,
    (file, path): (&File, &Path),
    progress: &mut Progress,
) -> Result<Packed<u64>, Fault> {
    let file_fault = |source| Fault::File {
        path: path.to_owned(),
        source,
    };
    let (files, weights) = (&model.files, &*model.weights);
    let packed = packer::pack_model(
        name,
        files,
        weights,
        options,
        BufWriter::new(file),
        &mut |done, total| {
            progress.show(&format!("quantising {done}/{total} tensors"));
        },
    );
    let packed = packed.map_err(|error| match error {
        PackModelError::Write(PackError::Io(source)) => file_fault(source),
        error => error.into(),
    })?;
    if !global.quiet {
        progress.clear();
        remark(&packed);
    }
    let flushed = packed.out.into_inner();
    flushed.map_err(|error| file_fault(error.into_error()))?;
    progress.show("making probes");
    let wanted = threads::available();
    let granted = probe::put_into(file, &path.display().to_string(), wanted)?;
    if let Some(text) = model::refused_threads(wanted, granted.min(packed.threads))
        && !global.quiet
    {
        progress.clear();
        remark!("ocelli: {text}");
    }
    file.sync_all().map_err(file_fault)?;
    Ok(Packed {
        out: file.metadata().map_err(file_fault)?.len(),
        refusal: packed.refusal,
        weights: packed.weights,
        on_grid: packed.on_grid,
        threads: packed.threads,
    })
}

/// Says what is not to be expected of a pack.
fn remark<W>(packed: &Packed<W>) {
    if let Some(refusal) = &packed.refusal {
        remark!("ocelli: {refusal}; tokenizer.json is parsed at every start");
    }
    if let Some(OnGrid { kept, matrices }) = packed.on_grid {
        let rest = if kept < matrices {
            ", the others are in int8"
        } else {
            ""
        };
        remark!(
            "ocelli: {kept} of {matrices} matrices of the decoder's layers keep the 4-bit grid of their \
             file{rest}; --weights int8 packs all to int8"
        );
    }
}
