//! A checkpoint in safetensors files: one file, or shards named by an index.
//!
//! Format: 8-byte little-endian header length, a JSON object of tensor name to
//! `{dtype, shape, data_offsets}`, then the data. Offsets are relative to the data.

use super::gguf::names::is_published;
use crate::file::open_regular;
use crate::weights::Region;
use ocelli_kernels::half;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Longest header that is read, in bytes. The largest published one of the family
/// (657 tensors) has under 100 kB.
pub const MAX_HEADER_BYTES: u64 = 64 << 20;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// How a file begins that stands for another one in a repository that was cloned without its large
/// files.
const POINTER: &[u8] = b"version https://git-lfs";

/// What is wrong with a checkpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system reported.
        source: io::Error,
    },
    /// Neither a single file nor an index is there.
    #[error(
        "{dir} holds neither model.safetensors nor model.safetensors.index.json, nor ONNX files \
         (onnx/decoder_model_merged.onnx); download the weights into this folder"
    )]
    NoWeights {
        /// The model directory.
        dir: PathBuf,
    },
    /// A file does not keep to the format.
    #[error("{path} is not a valid safetensors file: {what}; download it again")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The broken rule, with offending value and limit.
        what: String,
    },
    /// A tensor the model needs is in no file.
    #[error(
        "tensor {name} is missing in {dir}, which has {there}; \
         the checkpoint is incomplete or of another model"
    )]
    Missing {
        /// Name of the tensor.
        name: String,
        /// The model directory.
        dir: PathBuf,
        /// How many tensors there are, and the first of them.
        there: String,
    },
    /// A layer holds a tensor that the model does not read.
    #[error(
        "tensor {name} in {dir} is not part of a model that config.json describes, and without it the \
         answers would be other ones; supported are {n_text} decoder layers without biases and \
         {n_vision} vision layers: take config.json and weights of one model, adapters merged"
    )]
    Unread {
        /// Name of the tensor.
        name: String,
        /// The model directory.
        dir: PathBuf,
        /// Decoder layers of the configuration.
        n_text: usize,
        /// Vision layers of the configuration.
        n_vision: usize,
    },
    /// A tensor has another shape than the configuration says.
    #[error("tensor {name} has shape {found:?}, config.json asks for {expected:?}")]
    Shape {
        /// Name of the tensor.
        name: String,
        /// Shape in the file.
        found: Vec<usize>,
        /// Shape the configuration implies.
        expected: Vec<usize>,
    },
    /// A tensor is stored in a type that holds no plain float weights.
    #[error("tensor {name} has dtype {dtype}; supported are BF16, F16 and F32")]
    Dtype {
        /// Name of the tensor.
        name: String,
        /// The dtype as the file spells it.
        dtype: String,
    },
    /// A weight is NaN or infinite.
    #[error(
        "tensor {name} holds {value} at index {index}; the weights are damaged, download them again"
    )]
    NotFinite {
        /// Name of the tensor.
        name: String,
        /// Flat index of the first such value.
        index: usize,
        /// The value.
        value: f32,
    },
}

/// Where a tensor lies.
#[derive(Clone, Debug)]
struct Entry {
    file: usize,
    dtype: String,
    shape: Vec<usize>,
    start: usize,
    end: usize,
}

/// All tensors of a model directory, mapped, converted to f32 on request.
#[derive(Debug)]
pub struct Checkpoint {
    dir: PathBuf,
    files: Vec<(PathBuf, Region)>,
    entries: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct RawEntry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// The members of a JSON object in file order, repeated names kept.
struct Members(Vec<(String, serde_json::Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members, D::Error> {
        struct MembersVisitor;

        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(MembersVisitor)
    }
}

#[derive(Deserialize)]
struct RawIndex {
    weight_map: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Whether the directory holds a file that [`Checkpoint::open`] would read.
    pub fn is_in(dir: &Path) -> bool {
        [SINGLE, INDEX].iter().any(|name| dir.join(name).exists())
    }

    /// Opens `model.safetensors`, or the shards of `model.safetensors.index.json`.
    ///
    /// # Errors
    ///
    /// Unreadable or malformed files, an index that names files outside the
    /// directory, a tensor in two shards.
    pub fn open(dir: &Path) -> Result<Checkpoint, CheckpointError> {
        let single = dir.join(SINGLE);
        let index = dir.join(INDEX);
        let paths = if single.exists() {
            vec![single]
        } else if index.exists() {
            shard_paths(dir, &index)?
        } else {
            return Err(CheckpointError::NoWeights {
                dir: dir.to_path_buf(),
            });
        };
        let mut checkpoint = Checkpoint {
            dir: dir.to_path_buf(),
            files: Vec::new(),
            entries: BTreeMap::new(),
        };
        for path in paths {
            checkpoint.add_file(path)?;
        }
        Ok(checkpoint)
    }

    fn add_file(&mut self, path: PathBuf) -> Result<(), CheckpointError> {
        let region = Region::map(&path).map_err(|source| CheckpointError::Io {
            path: path.clone(),
            source,
        })?;
        let file = self.files.len();
        let malformed = |what: String| CheckpointError::Malformed {
            path: path.clone(),
            what,
        };
        for (name, entry) in read_header(&region, file).map_err(malformed)? {
            if self.entries.contains_key(&name) {
                return Err(malformed(format!("tensor {name} is also in another shard")));
            }
            self.entries.insert(name, entry);
        }
        self.files.push((path, region));
        Ok(())
    }

    /// The files, with their bytes, in the order they were read.
    pub fn files(&self) -> impl Iterator<Item = (&Path, &[u8])> {
        self.files
            .iter()
            .map(|(path, region)| (path.as_path(), &region[..]))
    }

    /// Refuses a checkpoint whose layers hold more than the model reads.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Unread`].
    pub fn check_layers(&self, n_text: usize, n_vision: usize) -> Result<(), CheckpointError> {
        let odd = |name: &&String| !is_read(name, n_text, n_vision);
        match self.entries.keys().find(odd) {
            None => Ok(()),
            Some(name) => Err(CheckpointError::Unread {
                name: name.clone(),
                dir: self.dir.clone(),
                n_text,
                n_vision,
            }),
        }
    }

    /// Whether a tensor of this name exists.
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Reads a tensor as f32, row-major, after checking its shape.
    ///
    /// # Errors
    ///
    /// Missing tensor, other shape, a dtype that is no float, a value that is not finite.
    pub fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, CheckpointError> {
        let rows = shape.first().copied().unwrap_or(1);
        self.read_rows(name, shape, 0..rows)
    }

    /// Reads some rows of a tensor, as [`Checkpoint::read`] reads all; a row is everything behind
    /// the first dimension.
    ///
    /// # Errors
    ///
    /// As for the whole tensor, but only values in these rows are looked at.
    ///
    /// # Panics
    ///
    /// When the rows go beyond the first dimension.
    pub fn read_rows(
        &self,
        name: &str,
        shape: &[usize],
        rows: Range<usize>,
    ) -> Result<Vec<f32>, CheckpointError> {
        let entry = self
            .entries
            .get(name)
            .ok_or_else(|| CheckpointError::Missing {
                name: name.to_owned(),
                dir: self.dir.clone(),
                there: match self.entries.keys().next() {
                    None => "no tensors".to_owned(),
                    Some(first) => {
                        format!("{} tensors such as {first}", self.entries.len())
                    }
                },
            })?;
        if entry.shape != shape {
            return Err(CheckpointError::Shape {
                name: name.to_owned(),
                found: entry.shape.clone(),
                expected: shape.to_vec(),
            });
        }
        let first = rows.start;
        let bytes = &self.files[entry.file].1[entry.start..entry.end];
        let bytes = super::row_bytes(bytes, shape, rows);
        let values = floats(&entry.dtype, bytes).ok_or_else(|| CheckpointError::Dtype {
            name: name.to_owned(),
            dtype: entry.dtype.clone(),
        })?;
        if let Some((index, value)) = values.iter().enumerate().find(|(_, v)| !v.is_finite()) {
            let row: usize = shape.iter().skip(1).product();
            return Err(CheckpointError::NotFinite {
                name: name.to_owned(),
                index: first * row + index,
                value: *value,
            });
        }
        Ok(values)
    }
}

/// Whether a tensor is read, or says nothing about the model's answers. Names outside the model's own
/// are left alone: some checkpoints carry what only training needs.
fn is_read(name: &str, n_text: usize, n_vision: usize) -> bool {
    let short = name.strip_prefix("model.").unwrap_or(name);
    let published = match short.split('.').next() {
        Some("text_model" | "vision_model" | "connector") => format!("model.{short}"),
        Some("layers" | "norm") => format!("model.text_model.{short}"),
        _ => short.to_owned(),
    };
    let Some((before, rest)) = published.split_once(".layers.") else {
        // Biases of what has none.
        let stem = published.strip_suffix(".bias");
        return !stem.is_some_and(|stem| {
            is_published(&format!("{stem}.weight")) && !is_published(&published)
        });
    };
    let n = match before {
        "model.text_model" => n_text,
        // A text model may lie in the files of one that sees.
        "model.vision_model.encoder" if n_vision > 0 => n_vision,
        _ => return true,
    };
    let Some((number, tensor)) = rest.split_once('.') else {
        return false;
    };
    // Frequencies of the rotary positions, which follow from the configuration.
    let is_known = is_published(&published) || tensor == "self_attn.rotary_emb.inv_freq";
    is_known && number.parse().is_ok_and(|number: usize| number < n)
}

/// Bytes of a dtype as f32; `None` if it is no float.
fn floats(dtype: &str, bytes: &[u8]) -> Option<Vec<f32>> {
    let halves = || {
        bytes
            .chunks_exact(2)
            .map(|b| u16::from_le_bytes([b[0], b[1]]))
    };
    Some(match dtype {
        "F32" => bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect(),
        "BF16" => halves().map(half::bf16_bits_to_f32).collect(),
        "F16" => halves().map(half::f16_bits_to_f32).collect(),
        _ => return None,
    })
}

/// Files an index names, each once, in name order.
fn shard_paths(dir: &Path, index: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    let read = || {
        let mut text = Vec::new();
        let file = open_regular(index)?;
        file.take(MAX_HEADER_BYTES + 1).read_to_end(&mut text)?;
        Ok(text)
    };
    let text = read().map_err(|source| CheckpointError::Io {
        path: index.to_path_buf(),
        source,
    })?;
    let malformed = |what: String| CheckpointError::Malformed {
        path: index.to_path_buf(),
        what,
    };
    if text.len() as u64 > MAX_HEADER_BYTES {
        return Err(malformed(format!(
            "it is longer than {MAX_HEADER_BYTES} bytes"
        )));
    }
    let raw: RawIndex = serde_json::from_slice(&text).map_err(|e| malformed(e.to_string()))?;
    let mut names: Vec<&String> = raw.weight_map.values().collect();
    names.sort();
    names.dedup();
    if names.is_empty() {
        return Err(malformed("weight_map is empty".to_owned()));
    }
    names
        .into_iter()
        .map(|name| {
            let plain = Path::new(name)
                .file_name()
                .is_some_and(|f| f.to_str() == Some(name));
            if plain {
                Ok(dir.join(name))
            } else {
                Err(malformed(format!(
                    "shard {name:?} is not a plain file name"
                )))
            }
        })
        .collect()
}

/// Parses and checks one file's header. The error is the broken rule.
fn read_header(bytes: &[u8], file: usize) -> Result<Vec<(String, Entry)>, String> {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(format!("{} bytes are too few for a header", bytes.len()));
    };
    if bytes.starts_with(POINTER) {
        return Err(
            "it is the pointer that Git LFS leaves in place of the file (git lfs pull fetches it)"
                .to_owned(),
        );
    }
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER_BYTES {
        return Err(format!(
            "header length {length} is over the limit of {MAX_HEADER_BYTES}"
        ));
    }
    let length = usize::try_from(length).map_err(|e| e.to_string())?;
    if length > rest.len() {
        return Err(format!(
            "header length {length} is beyond the end of the file ({} bytes left)",
            rest.len()
        ));
    }
    let (header, data) = rest.split_at(length);
    let raw: Members =
        serde_json::from_slice(header).map_err(|e| format!("header is not JSON: {e}"))?;
    let mut names = BTreeSet::new();
    let mut entries = Vec::with_capacity(raw.0.len());
    for (name, value) in raw.0 {
        if !names.insert(name.clone()) {
            return Err(format!("tensor {name} is listed twice"));
        }
        if name == "__metadata__" {
            continue;
        }
        let raw: RawEntry =
            serde_json::from_value(value).map_err(|e| format!("tensor {name}: {e}"))?;
        let entry = check_entry(&name, raw, data.len(), file)?;
        let base = 8 + length;
        entries.push((
            name,
            Entry {
                start: base + entry.start,
                end: base + entry.end,
                ..entry
            },
        ));
    }
    let mut spans: Vec<(usize, usize, &str)> = entries
        .iter()
        .map(|(name, e)| (e.start, e.end, name.as_str()))
        .collect();
    spans.sort_unstable();
    for pair in spans.windows(2) {
        if pair[1].0 < pair[0].1 {
            return Err(format!("tensors {} and {} overlap", pair[0].2, pair[1].2));
        }
    }
    Ok(entries)
}

fn check_entry(name: &str, raw: RawEntry, data: usize, file: usize) -> Result<Entry, String> {
    let [start, end] = raw.data_offsets;
    if start > end || end > data as u64 {
        return Err(format!(
            "tensor {name} claims bytes {start}..{end}, the file has {data} bytes of data"
        ));
    }
    let bits = match raw.dtype.as_str() {
        "F64" | "I64" | "U64" | "C64" => 64u64,
        "F32" | "I32" | "U32" => 32,
        "BF16" | "F16" | "I16" | "U16" => 16,
        "I8" | "U8" | "BOOL" => 8,
        eight if eight.starts_with("F8_") => 8,
        "F6_E2M3" | "F6_E3M2" => 6,
        "F4" => 4,
        other => return Err(format!("tensor {name} has unknown dtype {other:?}")),
    };
    let bits = raw
        .shape
        .iter()
        .try_fold(bits, |product, d| product.checked_mul(*d));
    let bytes = bits
        .filter(|bits| bits.is_multiple_of(8))
        .map(|bits| bits / 8);
    if bytes != Some(end - start) {
        return Err(format!(
            "tensor {name} of shape {:?} and dtype {} does not fill its {} bytes",
            raw.shape,
            raw.dtype,
            end - start
        ));
    }
    // `end <= data` bounds both offsets; a zero-sized shape can hold any other factor.
    let shape = raw
        .shape
        .iter()
        .map(|d| usize::try_from(*d).map_err(|_| format!("tensor {name} has dimension {d}")))
        .collect::<Result<Vec<usize>, String>>()?;
    Ok(Entry {
        file,
        dtype: raw.dtype,
        shape,
        start: start as usize,
        end: end as usize,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    }

    /// A file with one tensor `a` and this many bytes of data.
    fn one(dtype: &str, shape: &str, offsets: &str, data: usize) -> Vec<u8> {
        let header = format!(
            r#"{{"a":{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[{offsets}]}}}}"#
        );
        file(&header, data)
    }

    #[test]
    fn every_lie_in_a_header_is_named() {
        let two = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#;
        let cases = [
            (Vec::new(), "too few"),
            (vec![1; 7], "too few"),
            (u64::MAX.to_le_bytes().to_vec(), "over the limit"),
            (1000u64.to_le_bytes().to_vec(), "beyond the end"),
            (file("{", 0), "not JSON"),
            (one("F32", "2", "0,8", 7), "0..8"),
            (one("F32", "2", "8,0", 8), "8..0"),
            (one("F32", "3", "0,8", 8), "does not fill"),
            (one("Q7", "2", "0,8", 8), "unknown dtype"),
            (
                one("F32", "4611686018427387904,4", "0,0", 0),
                "does not fill",
            ),
            (file(two, 12), "overlap"),
            (file(&two.replace("\"b\"", "\"a\""), 12), "listed twice"),
        ];
        for (bytes, expected) in cases {
            let error = read_header(&bytes, 0).unwrap_err();
            assert!(
                error.contains(expected),
                "{error:?} should contain {expected:?}"
            );
        }
    }

    /// A sound file is not called damaged because its numbers are of a kind that is not read.
    #[test]
    fn every_dtype_of_the_format_is_told_apart_from_damage() {
        let dir = tempfile::tempdir().unwrap();
        for (dtype, bytes) in [
            ("F8_E4M3", 4),
            ("F8_E8M0", 4),
            ("F8_E5M2FNUZ", 4),
            ("F6_E2M3", 3),
            ("F4", 2),
        ] {
            let offsets = format!("0,{bytes}");
            let path = dir.path().join("model.safetensors");
            std::fs::write(path, one(dtype, "2,2", &offsets, bytes)).unwrap();
            let checkpoint = Checkpoint::open(dir.path()).unwrap();
            let error = checkpoint.read("a", &[2, 2]).unwrap_err().to_string();
            assert!(error.contains("supported are BF16"), "{error}");
        }
        // Four bits of three values fill no bytes.
        let error = read_header(&one("F4", "3", "0,1", 1), 0).unwrap_err();
        assert!(error.contains("does not fill"), "{error}");
    }

    #[test]
    fn floats_of_every_width_read_alike() {
        let dir = tempfile::tempdir().unwrap();
        let header = r#"{"a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},"b":{"dtype":"BF16","shape":[2],"data_offsets":[8,12]},"c":{"dtype":"F16","shape":[2],"data_offsets":[12,16]},"d":{"dtype":"I16","shape":[2],"data_offsets":[16,20]},"e":{"dtype":"F16","shape":[1],"data_offsets":[20,22]}}"#;
        let mut bytes = file(header, 0);
        bytes.extend_from_slice(&1.5f32.to_le_bytes());
        bytes.extend_from_slice(&(-2f32).to_le_bytes());
        for bits in [0x3FC0u16, 0xC000, 0x3E00, 0xC000, 1, 2, 0x7E00] {
            bytes.extend_from_slice(&bits.to_le_bytes());
        }
        std::fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        assert_eq!(checkpoint.read("a", &[1, 2]).unwrap(), [1.5, -2.0]);
        assert_eq!(checkpoint.read("b", &[2]).unwrap(), [1.5, -2.0]);
        assert_eq!(checkpoint.read("c", &[2]).unwrap(), [1.5, -2.0]);
        for (name, shape, expected) in [
            ("a", &[2usize][..], "config.json asks for [2]"),
            ("d", &[2], "dtype I16"),
            ("e", &[1], "NaN"),
            ("f", &[1], "missing"),
        ] {
            let error = checkpoint.read(name, shape).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn an_index_cannot_reach_outside_its_directory() {
        let dir = tempfile::tempdir().unwrap();
        let index = dir.path().join("model.safetensors.index.json");
        std::fs::write(&index, r#"{"weight_map":{"a":"../secret"}}"#).unwrap();
        let error = Checkpoint::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("not a plain file name"), "{error}");
    }
}
