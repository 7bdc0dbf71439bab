//! Damaged and lying files: whatever they claim, reading them takes no more than a small multiple
//! of their size.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use ocelli_runtime::config::{GenerationConfig, ModelConfig};
use ocelli_runtime::import::Published;
use ocelli_runtime::import::gguf::{GgufFile, GgufModel};
use ocelli_runtime::import::safetensors;
use ocelli_runtime::pack::{FORMAT_VERSION, MAGIC, PREFIX_BYTES, Pack};
use ocelli_runtime::packer::{self, CalibrationText, PackOptions};
use ocelli_runtime::tokenizer::Tokenizer;
use ocelli_runtime::weights::Region;
use ocelli_tests::checkpoint::Checkpoint;
use ocelli_tests::gguf::GgufBuilder;
use ocelli_tests::gguf::convert::{Source, Storage};
use tempfile::TempDir;

use crate::{alone, peak_of};

/// Damaged files of each kind.
const DAMAGES: u64 = 400;
/// What a reader may take whatever the size: buffers, tables of its libraries.
const SPARE: usize = 1 << 20;

/// What packing a model of this size may take: tables of characters and of tokens.
const PACKING: usize = 8 << 20;

/// Bytes of a sound file with some changed, or cut short, or both; mostly in its first `front`.
fn damaged(sound: &[u8], front: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % below.max(1)
    };
    let mut bytes = sound.to_vec();
    if next(8) == 0 {
        bytes.truncate(next(sound.len()));
    }
    for _ in 0..1 + next(4) {
        let reach = if next(4) == 0 { bytes.len() } else { front };
        let at = next(reach.min(bytes.len()));
        let Some(byte) = bytes.get_mut(at) else { break };
        *byte = match next(4) {
            0 => 0xFF,
            1 => byte.wrapping_add(1),
            2 => b'9',
            _ => next(256) as u8,
        };
    }
    bytes
}

/// Reads every damaged form of a file and demands that none takes more than `limit` bytes.
fn assert_bounded(
    what: &str,
    sound: &[u8],
    front: usize,
    limit: usize,
    mut read: impl FnMut(&[u8]),
) {
    let mut worst = 0;
    for seed in 0..=DAMAGES {
        let bytes = match seed {
            0 => sound.to_vec(),
            seed => damaged(sound, front, seed),
        };
        let ((), peak) = peak_of(|| read(&bytes));
        worst = worst.max(peak);
        assert!(
            peak <= limit,
            "{what}, damage {seed}: {peak} bytes for a file of {}",
            bytes.len()
        );
    }
    eprintln!(
        "{what}: at most {worst} bytes for a file of {}",
        sound.len()
    );
}

fn tiny() -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = Checkpoint::of_fixture("tiny");
    checkpoint.write(dir.path()).expect("a checkpoint");
    dir
}

#[test]
fn a_damaged_safetensors_file_takes_a_small_multiple_of_its_size() {
    let _alone = alone();
    let dir = tiny();
    let path = dir.path().join("model.safetensors");
    let sound = fs::read(&path).expect("weights");
    let header = u64::from_le_bytes(sound[..8].try_into().expect("eight bytes"));
    let tensors = Checkpoint::of_fixture("tiny").tensors();
    assert_bounded(
        "safetensors",
        &sound,
        8 + header as usize,
        2 * sound.len() + SPARE,
        |bytes| {
            fs::write(&path, bytes).expect("the folder can be written");
            let Ok(checkpoint) = safetensors::Checkpoint::open(dir.path()) else {
                return;
            };
            for tensor in &tensors {
                let _ = checkpoint.read(&tensor.name, &tensor.shape);
            }
        },
    );
}

#[test]
fn a_damaged_index_of_shards_takes_a_small_multiple_of_its_size() {
    let _alone = alone();
    let dir = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = Checkpoint::of_fixture("tiny").with_max_shard_bytes(Some(500_000));
    checkpoint.write(dir.path()).expect("a checkpoint");
    let path = dir.path().join("model.safetensors.index.json");
    let sound = fs::read(&path).expect("an index");
    assert_bounded(
        "index",
        &sound,
        sound.len(),
        8 * sound.len() + SPARE,
        |bytes| {
            fs::write(&path, bytes).expect("the folder can be written");
            let _ = safetensors::Checkpoint::open(dir.path());
        },
    );
}

#[test]
fn damaged_configuration_files_take_a_small_multiple_of_their_size() {
    let _alone = alone();
    let dir = tiny();
    let uncalibrated = PackOptions {
        calibration: CalibrationText::None,
        ..PackOptions::default()
    };
    for file in [
        "config.json",
        "preprocessor_config.json",
        "generation_config.json",
        "processor_config.json",
    ] {
        let path = dir.path().join(file);
        let Ok(sound) = fs::read(&path) else { continue };
        assert_bounded(file, &sound, sound.len(), PACKING, |bytes| {
            fs::write(&path, bytes).expect("the folder can be written");
            let Ok(model) = Published::open(dir.path(), None, None) else {
                return;
            };
            let out = Cursor::new(Vec::new());
            let weights = &*model.weights;
            let _ = packer::pack_model(
                "m",
                &model.files,
                weights,
                &uncalibrated,
                out,
                &mut |_, _| {},
            );
        });
        fs::write(&path, &sound).expect("the folder can be written");
    }
}

#[test]
fn a_damaged_gguf_file_takes_a_small_multiple_of_its_size() {
    let _alone = alone();
    let dir = tiny();
    let checkpoint = safetensors::Checkpoint::open(dir.path()).expect("a good checkpoint");
    let read = |name: &str, shape: &[usize]| {
        checkpoint
            .read(name, shape)
            .unwrap_or_else(|error| panic!("{error}"))
    };
    let source = Source::new(dir.path(), &read, Storage::F32);
    let open = |bytes: &[u8]| {
        GgufFile::from_region(Region::from_vec(bytes.to_vec()), Path::new("a.gguf")).ok()
    };
    let whole = |builder: &GgufBuilder| builder.build();
    let (text, projector) = (whole(&source.text()), whole(&source.projector()));
    let read_all = |file: &GgufFile| {
        for (name, info) in file.tensors() {
            let _ = file.read(name, &info.shape);
        }
        for key in file.keys() {
            let _ = (file.texts(key), file.floats(key), file.integers(key));
        }
    };
    assert_bounded(
        "text model",
        &text,
        text.len() / 8,
        8 * text.len() + SPARE,
        |bytes| {
            let Some(file) = open(bytes) else { return };
            read_all(&file);
            if let Ok(model) = GgufModel::new(file, open(&projector)) {
                let _ = model.model_files();
            }
        },
    );
    assert_bounded(
        "projector",
        &projector,
        projector.len() / 8,
        8 * projector.len() + SPARE,
        |bytes| {
            let Some(file) = open(bytes) else { return };
            read_all(&file);
        },
    );
}

fn sound_pack() -> Vec<u8> {
    let dir = tiny();
    let packed = packer::pack_directory(
        dir.path(),
        &PackOptions::default(),
        Cursor::new(Vec::new()),
        &mut |_, _| {},
    );
    packed.expect("a sound directory").into_inner()
}

/// A pack whose header has the right length and checksum, whatever it says.
fn with_header(header: &[u8], data: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes.extend_from_slice(&(header.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(header).to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(header);
    bytes.resize(bytes.len().next_multiple_of(64), 0);
    bytes.extend_from_slice(data);
    bytes
}

#[test]
fn a_damaged_pack_takes_a_small_multiple_of_its_size() {
    let _alone = alone();
    let sound = sound_pack();
    let read = |bytes: Vec<u8>| {
        let Ok(pack) = Pack::from_region(Region::from_vec(bytes), "test") else {
            return;
        };
        let _ = pack.verify();
        for entry in &pack.header().tensors {
            let _ = pack.find(&entry.name, entry.layout, entry.shape);
        }
    };
    assert_bounded(
        "pack",
        &sound,
        PREFIX_BYTES,
        3 * sound.len() + SPARE,
        |bytes| read(bytes.to_vec()),
    );
    let length = u32::from_le_bytes(sound[12..16].try_into().expect("four bytes")) as usize;
    let (header, rest) = sound[PREFIX_BYTES..].split_at(length);
    assert_bounded(
        "header of a pack",
        header,
        header.len(),
        16 * header.len() + SPARE,
        |header| {
            read(with_header(header, &rest[..1024]));
        },
    );
}

#[test]
fn a_damaged_tokenizer_takes_a_small_multiple_of_its_size() {
    let _alone = alone();
    let dir = tiny();
    let model = Published::open(dir.path(), None, None).expect("a sound checkpoint");
    let config: &ModelConfig = &model.files.config;
    let generation: &GenerationConfig = &model.files.generation;
    let sound = &model.files.tokenizer_json;
    assert_bounded(
        "tokenizer",
        sound,
        sound.len(),
        40 * sound.len() + SPARE,
        |bytes| {
            let _ = Tokenizer::from_bytes(bytes, config, generation);
        },
    );
    let text = String::from_utf8(sound.clone()).expect("JSON");
    for (what, from, to) in [
        (
            "high id",
            "\"Assistant\":",
            "\"Assistant\":4294967295,\"x\":",
        ),
        (
            "long padding",
            "\"padding\":null",
            "\"padding\":{\"strategy\":{\"Fixed\":1099511627776},\"direction\":\"Right\",\
             \"pad_to_multiple_of\":null,\"pad_id\":0,\"pad_type_id\":0,\"pad_token\":\"a\"}",
        ),
        (
            "long truncation",
            "\"truncation\":null",
            "\"truncation\":{\"direction\":\"Right\",\"max_length\":1099511627776,\
             \"strategy\":\"LongestFirst\",\"stride\":1099511627775}",
        ),
    ] {
        let lie = text.replacen(from, to, 1);
        assert_ne!(lie, text, "{what} changes the file");
        let (_, peak) =
            peak_of(|| Tokenizer::from_bytes(lie.as_bytes(), config, generation).is_ok());
        assert!(peak <= 40 * lie.len() + SPARE, "{what}: {peak} bytes");
    }
}
