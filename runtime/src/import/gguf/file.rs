//! The GGUF container: header, metadata, tensor table.
//!
//! Format (`docs/gguf.md` of the ggml project), little endian: magic, version (u32), number of
//! tensors (u64), number of keys (u64); for each key its name, a type (u32) and a value; for each
//! tensor its name, the number of dimensions (u32), the dimensions innermost first (u64), a block
//! format (u32) and an offset (u64) from the data, which begins at the next multiple of
//! `general.alignment`.

use super::MAGIC;
use super::blocks::Format;
use super::error::GgufError;
use super::value::{Cursor, Value, ValueType};
use crate::import::row_bytes;
use crate::weights::Region;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Most dimensions of a tensor.
const MAX_DIMENSIONS: u32 = 4;
/// Alignment of the data and of every tensor where the file says nothing, in bytes.
const DEFAULT_ALIGNMENT: usize = 32;
/// Largest alignment, in bytes.
const MAX_ALIGNMENT: usize = 1 << 20;
/// Longest name of a key, in bytes.
const MAX_KEY_BYTES: usize = 65_535;
/// Longest name of a tensor, in bytes.
const MAX_NAME_BYTES: usize = 1024;
/// Fewest bytes of a key with its value: an empty name, a type, one byte.
const LEAST_KEY_BYTES: usize = 8 + 4 + 1;
/// Fewest bytes of a line of the tensor table: an empty name and no dimension.
const LEAST_TENSOR_BYTES: usize = 8 + 4 + 4 + 8;

/// Where a tensor lies and what it looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Dimensions, outermost first: row-major as everywhere else in this crate.
    pub shape: Vec<usize>,
    /// How its numbers are stored.
    pub format: Format,
    at: Range<usize>,
}

impl TensorInfo {
    /// Number of elements.
    pub fn n_elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// An opened GGUF file: its bytes and a checked table of contents.
#[derive(Debug)]
pub struct GgufFile {
    path: PathBuf,
    region: Region,
    metadata: BTreeMap<String, Value>,
    tensors: BTreeMap<String, TensorInfo>,
}

impl GgufFile {
    /// Maps a file and checks its header, metadata and tensor table.
    ///
    /// # Errors
    ///
    /// [`GgufError::Io`], [`GgufError::Malformed`].
    pub fn open(path: &Path) -> Result<GgufFile, GgufError> {
        let region = Region::map(path).map_err(|source| GgufError::Io {
            path: path.to_owned(),
            source,
        })?;
        GgufFile::from_region(region, path)
    }

    /// Checks a file that lies in memory; `path` names it in errors.
    ///
    /// # Errors
    ///
    /// [`GgufError::Malformed`].
    pub fn from_region(region: Region, path: &Path) -> Result<GgufFile, GgufError> {
        let contents = read_contents(&region).map_err(|what| GgufError::Malformed {
            path: path.to_owned(),
            what,
        })?;
        if let Some((name, format)) = contents.unsupported {
            return Err(GgufError::Format {
                path: path.to_owned(),
                name,
                found: Format::name_of_id(format),
                supported: Format::supported(),
            });
        }
        Ok(GgufFile {
            path: path.to_owned(),
            region,
            metadata: contents.metadata,
            tensors: contents.tensors,
        })
    }

    /// The file's name, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        &self.region
    }

    /// The value of a key.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }

    /// The keys, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.metadata.keys().map(String::as_str)
    }

    /// A tensor's line of the table.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    /// Names and lines of all tensors, sorted by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &TensorInfo)> {
        self.tensors
            .iter()
            .map(|(name, info)| (name.as_str(), info))
    }

    /// Reads a tensor as f32, row-major, after checking its shape. Memory: four bytes an element.
    ///
    /// # Errors
    ///
    /// Missing tensor, other shape, a value that is not finite.
    pub fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, GgufError> {
        let rows = shape.first().copied().unwrap_or(1);
        self.read_rows(name, shape, 0..rows)
    }

    /// Reads some rows of a tensor, as [`GgufFile::read`] reads all; a row is everything behind the
    /// outermost dimension.
    ///
    /// # Errors
    ///
    /// As for the whole tensor, but only values in these rows are looked at.
    ///
    /// # Panics
    ///
    /// When the rows go beyond the outermost dimension.
    pub fn read_rows(
        &self,
        name: &str,
        shape: &[usize],
        rows: Range<usize>,
    ) -> Result<Vec<f32>, GgufError> {
        let info = self.shaped(name, shape)?;
        let row: usize = shape.iter().skip(1).product();
        let first = rows.start;
        let mut values = Vec::with_capacity(rows.len() * row);
        let bytes = &self.region[info.at.clone()];
        // A vector's blocks hold several rows of one value.
        if shape.len() > 1 {
            info.format
                .dequantize(row_bytes(bytes, shape, rows), &mut values);
        } else {
            info.format.dequantize(bytes, &mut values);
            values.truncate(rows.end);
            values.drain(..rows.start);
        }
        match values.iter().enumerate().find(|(_, v)| !v.is_finite()) {
            None => Ok(values),
            Some((index, value)) => Err(GgufError::NotFinite {
                path: self.path.clone(),
                name: name.to_owned(),
                index: first * row + index,
                value: *value,
            }),
        }
    }

    /// Format and bytes of a tensor of this shape.
    ///
    /// # Errors
    ///
    /// Missing tensor, other shape.
    pub(super) fn stored(&self, name: &str, shape: &[usize]) -> Result<(Format, &[u8]), GgufError> {
        let info = self.shaped(name, shape)?;
        Ok((info.format, &self.region[info.at.clone()]))
    }

    fn shaped(&self, name: &str, shape: &[usize]) -> Result<&TensorInfo, GgufError> {
        let info = self.tensor(name).ok_or_else(|| self.missing(name))?;
        match info.shape == shape {
            true => Ok(info),
            false => Err(GgufError::Shape {
                path: self.path.clone(),
                name: name.to_owned(),
                found: info.shape.clone(),
                expected: shape.to_vec(),
            }),
        }
    }

    /// A tensor that is not there.
    pub(super) fn missing(&self, name: &str) -> GgufError {
        GgufError::Missing {
            path: self.path.clone(),
            name: name.to_owned(),
        }
    }
}

struct Contents {
    metadata: BTreeMap<String, Value>,
    tensors: BTreeMap<String, TensorInfo>,
    /// The first tensor of a format this program does not read, and the format's number.
    unsupported: Option<(String, u32)>,
}

/// Parses and checks everything in front of the data. The error is the broken rule.
fn read_contents(bytes: &[u8]) -> Result<Contents, String> {
    let mut cursor = Cursor { bytes, at: 0 };
    let magic = cursor.take(4, "the magic")?;
    if bytes[magic] != MAGIC {
        return Err("it does not begin with GGUF".to_owned());
    }
    match cursor.u32("the version")? {
        2 | 3 => {}
        version if matches!(version.swap_bytes(), 1..=3) => {
            return Err("it is written for a big-endian machine".to_owned());
        }
        version => {
            return Err(format!(
                "it has version {version}, versions 2 and 3 can be read"
            ));
        }
    }
    // The keys come first, but their number comes second.
    let n_tensors = cursor.count(LEAST_TENSOR_BYTES, "the number of tensors")?;
    let n_keys = cursor.count(LEAST_KEY_BYTES, "the number of keys")?;
    let mut metadata = BTreeMap::new();
    for index in 0..n_keys {
        let key = cursor.utf8(&format!("key {index}"))?;
        if key.len() > MAX_KEY_BYTES {
            return Err(format!(
                "key {index} has {} bytes, the limit is {MAX_KEY_BYTES}",
                key.len()
            ));
        }
        let what = format!("key {key}");
        let kind = cursor.value_type(&what)?;
        let value = cursor.value(kind, &what)?;
        if metadata.insert(key.to_owned(), value).is_some() {
            return Err(format!("key {key} is there twice"));
        }
    }
    let alignment = alignment(bytes, &metadata)?;
    let mut lines = Vec::new();
    for index in 0..n_tensors {
        lines.push(Line::read(&mut cursor, index)?);
    }
    let start = cursor.at.next_multiple_of(alignment).min(bytes.len());
    let data = Data {
        start,
        len: bytes.len() - start,
        alignment,
    };
    let mut tensors = BTreeMap::new();
    let mut unsupported = None;
    for line in lines {
        let name = line.name.to_owned();
        let Some(format) = Format::from_id(line.format) else {
            unsupported.get_or_insert((name, line.format));
            continue;
        };
        let info = line.check(format, &data)?;
        if tensors.insert(name, info).is_some() {
            return Err(format!("tensor {} is there twice", line.name));
        }
    }
    refuse_overlap(&tensors)?;
    Ok(Contents {
        metadata,
        tensors,
        unsupported,
    })
}

fn alignment(bytes: &[u8], metadata: &BTreeMap<String, Value>) -> Result<usize, String> {
    let (kind, at) = match metadata.get("general.alignment") {
        None => return Ok(DEFAULT_ALIGNMENT),
        Some(Value::Plain(kind, at)) => (*kind, at.clone()),
        Some(_) => return Err("key general.alignment is no number".to_owned()),
    };
    let found = match bytes[at].first_chunk::<4>() {
        Some(bytes) if kind == ValueType::U32 => u32::from_le_bytes(*bytes) as usize,
        _ => {
            return Err(format!(
                "key general.alignment is of type {kind:?}, not U32"
            ));
        }
    };
    if found.is_multiple_of(8) && found.is_power_of_two() && found <= MAX_ALIGNMENT {
        return Ok(found);
    }
    Err(format!(
        "key general.alignment is {found}, it must be a power of two from 8 to {MAX_ALIGNMENT}"
    ))
}

/// The data behind the tensor table.
struct Data {
    start: usize,
    len: usize,
    alignment: usize,
}

/// A line of the tensor table as it is in the file.
struct Line<'a> {
    name: &'a str,
    /// Innermost first.
    dimensions: Vec<u64>,
    format: u32,
    offset: u64,
}

impl<'a> Line<'a> {
    fn read(cursor: &mut Cursor<'a>, index: usize) -> Result<Line<'a>, String> {
        let name = cursor.utf8(&format!("the name of tensor {index}"))?;
        if name.len() > MAX_NAME_BYTES {
            return Err(format!(
                "the name of tensor {index} has {} bytes, the limit is {MAX_NAME_BYTES}",
                name.len()
            ));
        }
        let what = format!("tensor {name}");
        let n_dimensions = cursor.u32(&what)?;
        if !(1..=MAX_DIMENSIONS).contains(&n_dimensions) {
            return Err(format!(
                "{what} has {n_dimensions} dimensions, allowed are 1 to {MAX_DIMENSIONS}"
            ));
        }
        let mut dimensions = Vec::new();
        for _ in 0..n_dimensions {
            dimensions.push(cursor.u64(&what)?);
        }
        Ok(Line {
            name,
            dimensions,
            format: cursor.u32(&what)?,
            offset: cursor.u64(&what)?,
        })
    }

    fn check(&self, format: Format, data: &Data) -> Result<TensorInfo, String> {
        let Line {
            name, dimensions, ..
        } = self;
        let row = dimensions[0];
        if dimensions.contains(&0) || !row.is_multiple_of(format.block_len() as u64) {
            return Err(format!(
                "tensor {name} has dimensions {dimensions:?}; none may be 0, and {} wants rows of a multiple of {}",
                format.name(),
                format.block_len()
            ));
        }
        let blocks = dimensions[1..]
            .iter()
            .try_fold(row / format.block_len() as u64, |product, d| {
                product.checked_mul(*d)
            });
        let len = blocks.and_then(|blocks| blocks.checked_mul(format.block_bytes() as u64));
        let end = len.and_then(|len| self.offset.checked_add(len));
        let (Some(len), Some(_)) = (len, end.filter(|end| *end <= data.len as u64)) else {
            return Err(format!(
                "tensor {name} of {} with dimensions {dimensions:?} at offset {} goes beyond the {} bytes of data; the file is cut short or its table is wrong",
                format.name(),
                self.offset,
                data.len
            ));
        };
        if !self.offset.is_multiple_of(data.alignment as u64) {
            return Err(format!(
                "tensor {name} has offset {}, which is no multiple of the alignment {}",
                self.offset, data.alignment
            ));
        }
        // Both are bounded by the length of the data; so is every dimension, none of which is 0.
        let start = data.start + self.offset as usize;
        Ok(TensorInfo {
            shape: dimensions.iter().rev().map(|d| *d as usize).collect(),
            format,
            at: start..start + len as usize,
        })
    }
}

fn refuse_overlap(tensors: &BTreeMap<String, TensorInfo>) -> Result<(), String> {
    let mut spans: Vec<(&Range<usize>, &str)> = tensors
        .iter()
        .map(|(name, info)| (&info.at, name.as_str()))
        .collect();
    spans.sort_unstable_by_key(|(at, _)| (at.start, at.end));
    match spans
        .windows(2)
        .find(|pair| pair[1].0.start < pair[0].0.end)
    {
        None => Ok(()),
        Some(pair) => Err(format!("tensors {} and {} overlap", pair[0].1, pair[1].1)),
    }
}
