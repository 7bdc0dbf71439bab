//! Which model a name means: built in, installed, a pack, a directory or a GGUF file.

use crate::cli::Global;
use crate::fault::Fault;
use crate::gate;
use crate::progress::Progress;
use crate::remark::remark;
use crate::threads::{self, ThreadSettings, heat};
use ocelli_runtime::pack::WeightScheme;
use ocelli_runtime::{LoadOptions, ModelSource, Vlm};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes with the alignment a pack needs, so that the built-in model is not copied.
#[repr(C, align(64))]
struct Aligned<B: ?Sized>(B);

static DEFAULT_PACK: &Aligned<[u8]> = &Aligned(*include_bytes!("../../models/default.ocelli"));

/// Name of the built-in model.
pub const DEFAULT: &str = "default";

/// Memory a model needs beyond its file, in bytes: scratch and the KV cache of one conversation.
pub const WORKING_BYTES: u64 = 64 << 20;

/// Extension of installed packs.
pub const EXTENSION: &str = "ocelli";

/// The folder of installed models: `$OCELLI_MODELS`, or `ocelli/models` in the
/// user's data folder.
pub fn installed_dir() -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(dir) = variable("OCELLI_MODELS") {
        return PathBuf::from(dir);
    }
    let data = match (variable("XDG_DATA_HOME"), variable("HOME")) {
        (Some(data), _) => PathBuf::from(data),
        (None, Some(home)) => Path::new(&home).join(".local/share"),
        (None, None) => PathBuf::from("/usr/local/share"),
    };
    data.join("ocelli/models")
}

/// Where the pack of a name lies in the folder of installed models.
pub fn installed_path(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.{EXTENSION}"))
}

/// Whether a path is that of a pack, by its name.
pub fn is_pack(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == EXTENSION) && path.is_file()
}

/// Names of installed packs, in words.
pub fn installed_in_words(names: &[String]) -> String {
    match names.is_empty() {
        true => "nothing is installed".to_owned(),
        false => format!("installed: {}", names.join(", ")),
    }
}

/// Names of installed packs, sorted.
pub fn installed_names() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(installed_dir()) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| {
            let path = entry.ok().map(|entry| entry.path());
            let path = path.filter(|path| is_pack(path))?;
            Some(path.file_stem()?.to_string_lossy().into_owned())
        })
        .collect();
    names.sort();
    names
}

/// Finds the model a name means.
///
/// # Errors
///
/// [`Fault::NoModel`] listing what is installed.
pub fn resolve(name: &str) -> Result<ModelSource, Fault> {
    if name == DEFAULT {
        return Ok(ModelSource::Embedded(DEFAULT, &DEFAULT_PACK.0));
    }
    let path = PathBuf::from(name);
    if path.exists() {
        return Ok(ModelSource::Path(path));
    }
    let plain = path.components().count() == 1;
    let dir = installed_dir();
    let installed = installed_path(&dir, name);
    if plain && installed.is_file() {
        return Ok(ModelSource::Path(installed));
    }
    Err(Fault::NoModel {
        name: name.to_owned(),
        dir,
        installed: installed_in_words(&installed_names()),
    })
}

/// Adds the projector file that `--mmproj` names, or the ONNX files that `--variant` chooses.
fn with_files(source: ModelSource, global: &Global) -> Result<ModelSource, Fault> {
    match (source, &global.mmproj, global.variant) {
        (source, None, None) => Ok(source),
        (ModelSource::Path(model), Some(mmproj), None) => {
            Ok(ModelSource::WithProjector(model, mmproj.clone()))
        }
        (ModelSource::Path(model), None, Some(variant)) => {
            Ok(ModelSource::WithVariant(model, variant))
        }
        (_, Some(mmproj), _) => Err(Fault::Argument(format!(
            "--mmproj {} needs the GGUF file of its text model as --model, and no --variant",
            mmproj.display()
        ))),
        (_, None, Some(variant)) => Err(Fault::Argument(format!(
            "--variant {variant} needs a directory with ONNX files as --model"
        ))),
    }
}

/// Loads the model the flags name.
///
/// # Errors
///
/// No such model, or one that cannot be used.
pub fn load(global: &Global, progress: &mut Progress) -> Result<(Vlm, Duration), Fault> {
    load_with(global, &ThreadSettings::default(), progress)
}

/// What to say where the system granted fewer threads than were asked for.
pub(crate) fn refused_threads(wanted: usize, granted: usize) -> Option<String> {
    (granted < wanted).then(|| {
        format!(
            "the system granted {granted} of {wanted} threads, work goes on with them; raise the limit of \
             processes (`ulimit -u`, pids.max of the control group)"
        )
    })
}

/// As [`load`], with an agent's settings about threads.
///
/// # Errors
///
/// No such model, or one that cannot be used.
pub fn load_with(
    global: &Global,
    settings: &ThreadSettings,
    progress: &mut Progress,
) -> Result<(Vlm, Duration), Fault> {
    let source = with_files(resolve(&global.model)?, global)?;
    let options = LoadOptions {
        threads: threads::most(global),
        precision: global.precision.into(),
        weights: global.weights.map(WeightScheme::from),
        verify: false,
    };
    let start = Instant::now();
    progress.show(&format!("loading {}", global.model));
    let mut vlm = Vlm::load(&source, &options, &mut |done, total| {
        progress.show(&format!(
            "quantising {}: {done}/{total} tensors",
            global.model
        ));
    })?;
    gate::at_start(&vlm)?;
    let elapsed = start.elapsed();
    progress.clear();
    if !global.quiet
        && let Some(text) = refused_threads(options.threads, vlm.n_threads())
    {
        remark!("ocelli: {text}, or give --threads {}", vlm.n_threads());
    }
    let shortage = vlm.shortage();
    if shortage.is_none() {
        threads::arrange(global, settings, &mut vlm)?;
    }
    let limit = heat::limit(settings.board.clone(), settings.hot_c, vlm.n_threads());
    vlm.set_thread_limit(Some(limit));
    if !global.quiet
        && let Some(shortage) = shortage
    {
        remark!(
            "ocelli: the model has {:.0} MB and {:.0} MB of memory are free: its pages are read \
             from storage again and again, which is slow; end other programs or take a smaller model",
            shortage.pack as f64 / 1e6,
            shortage.available as f64 / 1e6
        );
    }
    if global.verbose && !vlm.tokenizer().is_prepared() {
        remark!("ocelli: the model holds no prepared tokenizer, tokenizer.json was parsed");
    }
    if global.verbose {
        remark!(
            "ocelli: model {}, {} weights, kernel {}, {} threads, loaded in {:.0} ms",
            vlm.name(),
            vlm.weights_name(),
            vlm.kernel_name(),
            vlm.n_threads(),
            elapsed.as_secs_f64() * 1e3
        );
        remark!("ocelli: threads: {}", vlm.thread_plan());
    }
    Ok((vlm, elapsed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_the_system_refuses_are_told() {
        assert_eq!(refused_threads(4, 4), None);
        let told = refused_threads(4, 1).unwrap();
        for part in ["1 of 4 threads", "ulimit -u", "pids.max"] {
            assert!(told.contains(part), "{told}");
        }
    }
}
