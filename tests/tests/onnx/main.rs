//! ONNX exports: every committed way of writing and number format against what onnxruntime and the
//! reference computed, directories on the command line, and files that lie.

mod excess;
mod lies;
mod models;
mod published;
mod text;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ocelli_runtime::import::onnx::Part;
use ocelli_tests::fixture;
use serde::Deserialize;
use tempfile::TempDir;

/// A decoder in two files: without a cache in front, and behind one.
const UNMERGED: [&str; 2] = ["decoder_model", "decoder_with_past_model"];

fn folder() -> PathBuf {
    fixture::folder().join("onnx")
}

/// What was computed: every eighth image feature, and every twelfth logit after the prompt and
/// after each step.
#[derive(Debug, PartialEq, Deserialize)]
struct Answer {
    features: Vec<f32>,
    logits: Vec<Vec<f32>>,
}

/// One way of writing in one number format.
#[derive(Debug, Deserialize)]
struct Case {
    scheme: String,
    arithmetic: String,
    files: BTreeMap<String, String>,
    onnxruntime: Answer,
    lifted: Answer,
}

impl Case {
    /// The file of a part; of a decoder in two, the first.
    fn path(&self, part: Part) -> PathBuf {
        let file = self.files.get(part.stem());
        folder().join(file.unwrap_or_else(|| &self.files[UNMERGED[0]]))
    }

    /// The file of the decoder behind a cache.
    fn behind_cache(&self) -> PathBuf {
        match self.files.get(UNMERGED[1]) {
            Some(file) => folder().join(file),
            None => self.path(Part::Decoder),
        }
    }
}

/// `expected.json`.
#[derive(Debug, Deserialize)]
struct Expected {
    checkpoint: String,
    frames: usize,
    input_ids: Vec<u32>,
    steps: Vec<u32>,
    reference: Answer,
    cases: BTreeMap<String, Case>,
}

impl Expected {
    fn load() -> Expected {
        let text =
            fs::read_to_string(folder().join("expected.json")).expect("the fixture is there");
        serde_json::from_str(&text).expect("the fixture has its fields")
    }

    fn case(&self, name: &str) -> &Case {
        &self.cases[name]
    }
}

/// A model directory of the fixtures' checkpoint, with its safetensors file.
fn checkpoint() -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    ocelli_tests::checkpoint::Checkpoint::of_fixture(&Expected::load().checkpoint)
        .write(dir.path())
        .expect("the folder can be written");
    dir
}

/// The same with the files of a case instead, under the names of a published variant.
fn export(case: &Case, suffix: &str) -> TempDir {
    let dir = checkpoint();
    fs::remove_file(dir.path().join("model.safetensors")).expect("it was written");
    add(case, suffix, dir.path());
    dir
}

/// Adds the files of a case to a model directory.
fn add(case: &Case, suffix: &str, dir: &Path) {
    let onnx = dir.join("onnx");
    fs::create_dir_all(&onnx).expect("the folder can be written");
    for (stem, file) in &case.files {
        let from = folder().join(file);
        fs::copy(&from, onnx.join(format!("{stem}{suffix}.onnx"))).expect("the fixture is there");
        let data = from.with_extension("onnx_data");
        if data.exists() {
            let name = data.file_name().expect("a name");
            fs::copy(&data, onnx.join(name)).expect("the folder can be written");
        }
    }
}
