//! Which of the published files to take.

use super::error::OnnxError;
use super::{Part, UNMERGED};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// What the names of a variant's files end with, most exact first.
const SUFFIXES: [(&str, &str); 8] = [
    ("fp32", ""),
    ("fp16", "_fp16"),
    ("int8", "_int8"),
    ("uint8", "_uint8"),
    ("quantized", "_quantized"),
    ("q4", "_q4"),
    ("q4f16", "_q4f16"),
    ("bnb4", "_bnb4"),
];

/// Folders of a model directory that may hold the files.
const FOLDERS: [&str; 2] = ["onnx", ""];

/// A published way to store the weights of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Variant(usize);

impl Variant {
    /// All of them, most exact first.
    pub fn all() -> impl Iterator<Item = Variant> {
        (0..SUFFIXES.len()).map(Variant)
    }

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        SUFFIXES[self.0].0
    }

    pub(super) fn file_name(self, stem: &str) -> String {
        format!("{stem}{}.onnx", SUFFIXES[self.0].1)
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name of a variant that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name:?} is no variant; choose one of fp32, fp16, int8, uint8, quantized, q4, q4f16, bnb4"
)]
pub struct UnknownVariant {
    name: String,
}

impl FromStr for Variant {
    type Err = UnknownVariant;

    fn from_str(name: &str) -> Result<Variant, UnknownVariant> {
        let found = SUFFIXES.iter().position(|(known, _)| *known == name);
        found.map(Variant).ok_or_else(|| UnknownVariant {
            name: name.to_owned(),
        })
    }
}

/// One of the three files, in the variant that is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) stem: &'static str,
    pub(super) path: PathBuf,
    pub(super) variant: Variant,
}

/// Whether the directory holds the decoder of an export, in one file or two, or a text model in one
/// file.
pub fn is_export(dir: &Path) -> bool {
    let [first, later] = UNMERGED;
    choose(
        dir,
        &[Part::Decoder.stem(), Part::Text.stem(), first, later],
        None,
    )
    .is_ok()
}

/// The file of one of these names in the variant asked for, otherwise in the most exact one there
/// is.
pub(super) fn choose(
    dir: &Path,
    stems: &[&'static str],
    variant: Option<Variant>,
) -> Result<Chosen, OnnxError> {
    let candidates = Variant::all().filter(|candidate| variant.is_none_or(|v| v == *candidate));
    for variant in candidates {
        for (stem, folder) in stems
            .iter()
            .flat_map(|stem| FOLDERS.map(|folder| (stem, folder)))
        {
            let path = dir.join(folder).join(variant.file_name(stem));
            if path.is_file() {
                return Ok(Chosen {
                    stem,
                    path,
                    variant,
                });
            }
        }
    }
    Err(OnnxError::NoFile {
        dir: dir.to_owned(),
        wanted: {
            let names = stems.iter().map(|stem| match variant {
                Some(variant) => format!("onnx/{}", variant.file_name(stem)),
                None => format!("onnx/{stem}.onnx"),
            });
            let names = names.collect::<Vec<_>>().join(" or ");
            match variant {
                Some(_) => names,
                None => format!("{names}, nor one of its variants"),
            }
        },
        present: present(dir),
    })
}

/// The ONNX files of a directory, for a message.
fn present(dir: &Path) -> String {
    let files = FOLDERS
        .iter()
        .filter_map(|folder| std::fs::read_dir(dir.join(folder)).ok());
    let mut names: Vec<String> = files
        .flatten()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let name = path.file_name()?.to_string_lossy().into_owned();
            name.ends_with(".onnx").then_some(name)
        })
        .collect();
    names.sort();
    names.truncate(24);
    match names.is_empty() {
        true => "no ONNX files".to_owned(),
        false => names.join(", "),
    }
}
