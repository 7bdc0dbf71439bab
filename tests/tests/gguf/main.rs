//! GGUF: block formats, whole models against the directories they came from, lying files.

mod blocks;
mod lies;
mod models;
mod vocabulary;

use std::path::Path;

use ocelli_runtime::import::gguf::{GgufError, GgufFile, GgufModel};
use ocelli_runtime::import::safetensors::Checkpoint;
use ocelli_runtime::weights::Region;
use ocelli_tests::gguf::GgufBuilder;
use ocelli_tests::gguf::convert::{Source, Storage};

/// A file that lies in memory, named after what it is.
fn open(builder: &GgufBuilder) -> Result<GgufFile, GgufError> {
    GgufFile::from_region(Region::from_vec(builder.build()), Path::new("test.gguf"))
}

/// A text model and its projector, if there is one.
fn model(text: &GgufBuilder, projector: Option<&GgufBuilder>) -> Result<GgufModel, GgufError> {
    GgufModel::new(open(text)?, projector.map(open).transpose()?)
}

/// Text model and projector of a model directory.
fn converted(dir: &Path, storage: Storage) -> (GgufBuilder, GgufBuilder) {
    let checkpoint = Checkpoint::open(dir).expect("a good checkpoint");
    let read = |name: &str, shape: &[usize]| {
        checkpoint
            .read(name, shape)
            .unwrap_or_else(|error| panic!("{error}"))
    };
    let source = Source::new(dir, &read, storage);
    (source.text(), source.projector())
}

/// Both files of the `tiny` checkpoint.
fn tiny() -> (GgufBuilder, GgufBuilder) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    ocelli_tests::checkpoint::Checkpoint::of_fixture("tiny")
        .write(dir.path())
        .expect("the folder can be written");
    converted(dir.path(), Storage::F32)
}
