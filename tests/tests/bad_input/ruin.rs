//! Things to ruin: a sound model directory, a sound pack, and ways to load what became of them.

use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::sync::OnceLock;

use ocelli_runtime::import::Published;
use ocelli_runtime::pack::WeightScheme;
use ocelli_runtime::packer::PackOptions;
use ocelli_runtime::{LoadError, LoadOptions, ModelSource, Precision, Vlm, packer};
use ocelli_tests::checkpoint::Checkpoint;
use ocelli_tests::gguf::convert::{Storage, write_fixture};
use serde_json::Value;
use tempfile::TempDir;

/// The weights of a directory written by [`sound_directory`].
pub(crate) const WEIGHTS: &str = "model.safetensors";

/// A model directory that works: the `tiny` checkpoint.
pub(crate) fn sound_directory() -> TempDir {
    directory_of(&Checkpoint::of_fixture("tiny"))
}

/// A checkpoint written out.
pub(crate) fn directory_of(checkpoint: &Checkpoint) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    checkpoint
        .write(dir.path())
        .expect("the folder can be written");
    dir
}

/// The pack of [`sound_directory`].
pub(crate) fn sound_pack() -> &'static [u8] {
    static PACK: OnceLock<Vec<u8>> = OnceLock::new();
    PACK.get_or_init(|| packed(WeightScheme::Int8))
}

/// The same with int4 weights.
pub(crate) fn sound_int4_pack() -> &'static [u8] {
    static PACK: OnceLock<Vec<u8>> = OnceLock::new();
    PACK.get_or_init(|| packed(WeightScheme::Int4))
}

/// The same from files whose layers lie on a 4-bit grid.
pub(crate) fn sound_grid_pack() -> &'static [u8] {
    static PACK: OnceLock<Vec<u8>> = OnceLock::new();
    PACK.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let files = write_fixture("tiny", Storage::Q4_0, dir.path());
        let [text, projector] = files.expect("the folder can be written");
        let model = Published::open(&text, Some(&projector), None).expect("sound files");
        let (options, out) = (PackOptions::default(), Cursor::new(Vec::new()));
        let (files, weights) = (&model.files, &*model.weights);
        let pack = packer::pack_model("x", files, weights, &options, out, &mut |_, _| {});
        pack.expect("the sound files can be packed")
            .out
            .into_inner()
    })
}

fn packed(weights: WeightScheme) -> Vec<u8> {
    let dir = sound_directory();
    let options = PackOptions::from(weights);
    let out = Cursor::new(Vec::new());
    let pack = packer::pack_directory(dir.path(), &options, out, &mut |_, _| {});
    pack.expect("the sound directory can be packed")
        .into_inner()
}

/// Loads a pack or directory.
pub(crate) fn load(path: &Path, precision: Precision) -> Result<Vlm, LoadError> {
    let options = LoadOptions {
        threads: 1,
        precision,
        ..LoadOptions::default()
    };
    Vlm::load(
        &ModelSource::Path(path.to_path_buf()),
        &options,
        &mut |_, _| {},
    )
}

/// The message of an error and of all its causes, as the command prints it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Asserts that neither path loads the directory and that both say every one of `wanted`.
pub(crate) fn assert_refused(dir: &Path, what: &str, wanted: &[&str]) {
    for precision in [Precision::Int8, Precision::F32] {
        let Err(error) = load(dir, precision) else {
            panic!("{what}: {precision:?} loads it")
        };
        let text = chain(&error);
        for part in wanted {
            assert!(
                text.contains(part),
                "{what}, {precision:?}: {part:?} is not in {text:?}"
            );
        }
    }
}

/// Changes one JSON file of a directory.
pub(crate) fn edit_json(dir: &Path, file: &str, edit: impl FnOnce(&mut Value)) {
    let path = dir.join(file);
    let bytes = fs::read(&path).expect("the file is there");
    let mut json = serde_json::from_slice(&bytes).expect("the file is JSON");
    edit(&mut json);
    fs::write(&path, json.to_string()).expect("the folder can be written");
}

/// A safetensors file taken apart: JSON header and data.
pub(crate) struct Safetensors {
    /// Tensor name to dtype, shape and offsets.
    pub(crate) header: Value,
    /// Tensor bytes.
    pub(crate) data: Vec<u8>,
}

impl Safetensors {
    /// Takes the weights of `dir` apart.
    pub(crate) fn read(dir: &Path) -> Safetensors {
        let bytes = fs::read(dir.join(WEIGHTS)).expect("the file is there");
        let length = header_length(&bytes);
        let header = serde_json::from_slice(&bytes[8..8 + length]).expect("the header is JSON");
        Safetensors {
            header,
            data: bytes[8 + length..].to_vec(),
        }
    }

    /// Puts the weights of `dir` together again.
    pub(crate) fn write(&self, dir: &Path) {
        self.write_with_header(dir, &self.header.to_string());
    }

    /// The same with a header of one's own.
    pub(crate) fn write_with_header(&self, dir: &Path, header: &str) {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(&self.data);
        fs::write(dir.join(WEIGHTS), bytes).expect("the folder can be written");
    }

    /// Begin and end of a tensor in the data.
    pub(crate) fn span(&self, name: &str) -> [usize; 2] {
        [0, 1].map(|at| {
            self.header[name]["data_offsets"][at]
                .as_u64()
                .expect("an offset") as usize
        })
    }
}

/// The header length a safetensors file states.
pub(crate) fn header_length(bytes: &[u8]) -> usize {
    u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize
}
