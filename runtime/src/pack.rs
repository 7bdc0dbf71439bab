//! The pack: one file that holds everything a model needs, ready to be mapped.
//!
//! ```text
//! 0   8  magic "OCELLIPK"
//! 8   4  format version, u32 little endian
//! 12  4  header length in bytes, u32
//! 16  4  CRC-32 of the header, u32
//! 20  4  zero
//! 24  .  header (postcard)
//! .   .  zeros up to the next multiple of 64: the data section begins
//! .   .  tensors, each at a multiple of 64 from the data section's begin
//! ```
//!
//! Opening checks magic, version, header checksum, every bound and the model
//! configuration; tensor checksums are checked by [`Pack::verify`].

mod layout;
mod matrix;
#[cfg(test)]
mod tests;
mod writer;

pub use layout::{Layout, WeightScheme};
pub(crate) use layout::{splits, unfit_for_kernels};
pub use matrix::{Matrix, WeightPanels};
pub use writer::{PackError, PackWriter, PlannedTensor, replace_blob};

use crate::config::{ConfigError, GenerationConfig, ModelConfig, PreprocessConfig};
use crate::rotation::Rotation;
use crate::weights::{ALIGNMENT, Region};
use ocelli_kernels::{int4_panels, panels};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// First bytes of a pack.
pub const MAGIC: [u8; 8] = *b"OCELLIPK";
/// The format this program writes, if it can say what a pack is.
pub const FORMAT_VERSION: u32 = 4;
/// The format of packs whose residual stream has another basis than [`StreamBasis::Rotated`].
pub const BASIS_VERSION: u32 = 5;
/// Name of the decoder's head.
pub(crate) const HEAD: &str = "text.head";
/// The oldest format that is read: it has no tensor in two planes, and differs from
/// [`FORMAT_VERSION`] in nothing else.
const OLDEST_VERSION: u32 = 3;
/// Bytes before the header.
pub const PREFIX_BYTES: usize = 24;
/// Longest header that is read, in bytes.
pub const MAX_HEADER_BYTES: usize = 16 << 20;

/// One line of the tensor table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TensorEntry {
    /// Name, e.g. `text.3.down`.
    pub name: String,
    /// Layout of the bytes.
    pub layout: Layout,
    /// Rows and columns.
    pub shape: [usize; 2],
    /// For panels: how many activations along k share a scale; 0 = the whole row.
    pub group: usize,
    /// Begin, in bytes from the begin of the data section.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// CRC-32 of the bytes, little endian; four bytes whatever the value.
    pub crc32: [u8; 4],
}

/// Where a pack came from: one input file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceFile {
    /// File name without directory.
    pub name: String,
    /// Size in bytes.
    pub len: u64,
    /// SHA-256 of the content.
    pub sha256: [u8; 32],
}

/// Everything a pack says about its model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Name of the model, e.g. the directory it was packed from.
    pub name: String,
    /// Program and version that wrote the pack.
    pub packer: String,
    /// Panel layout; see [`ocelli_kernels::panels::LAYOUT_ID`].
    pub panel_layout: String,
    /// Layout of int4 panels; see [`ocelli_kernels::int4_panels::LAYOUT_ID`].
    pub int4_panel_layout: String,
    /// Model shapes.
    pub config: ModelConfig,
    /// Picture preprocessing; `None` exactly where the configuration has no vision side.
    pub preprocess: Option<PreprocessConfig>,
    /// Stop tokens and sampling defaults.
    pub generation: GenerationConfig,
    /// Image tokens a frame expands to in the prompt.
    pub image_seq_len: usize,
    /// Jinja chat template.
    pub chat_template: String,
    /// Rotation folded into the decoder's residual stream, or into the head alone.
    pub text_rotation: Rotation,
    /// Files the pack was made from.
    pub sources: Vec<SourceFile>,
    /// The tensor table.
    pub tensors: Vec<TensorEntry>,
    /// Basis of the decoder's residual stream. Stands behind everything else, in packs of
    /// [`BASIS_VERSION`] alone.
    #[serde(skip)]
    pub basis: StreamBasis,
}

/// Basis of the decoder's residual stream between its layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamBasis {
    /// That of [`Header::text_rotation`]; the norms are folded into the matrices behind them.
    #[default]
    Rotated,
    /// That of the published model: the layers' matrices keep the numbers of their file, norms have
    /// weights (`text.{i}.qkv_norm` and `.gate_up_norm`). The head is rotated, its norm folded.
    Published,
}

impl Header {
    /// The format that says what this header says, and the header's bytes in it.
    ///
    /// # Errors
    ///
    /// What cannot be encoded.
    pub fn encode(&self) -> Result<(u32, Vec<u8>), postcard::Error> {
        let bytes = postcard::to_stdvec(self)?;
        match self.basis {
            StreamBasis::Rotated => Ok((FORMAT_VERSION, bytes)),
            basis => Ok((BASIS_VERSION, postcard::to_extend(&basis, bytes)?)),
        }
    }

    /// Reads a header of either format.
    fn decode(version: u32, bytes: &[u8]) -> Result<Header, String> {
        let said = |error: postcard::Error| error.to_string();
        let (mut header, rest) = postcard::take_from_bytes::<Header>(bytes).map_err(said)?;
        let mut behind = rest.len();
        if version == BASIS_VERSION {
            let (basis, rest) = postcard::take_from_bytes(rest).map_err(said)?;
            (header.basis, behind) = (basis, rest.len());
        }
        match behind {
            0 => Ok(header),
            _ => Err(format!("{behind} bytes are left behind it")),
        }
    }
}

/// Why a pack cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file could not be read or mapped.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system reported.
        source: io::Error,
    },
    /// The bytes are no pack, or a damaged one.
    #[error("{origin} is not a usable pack: {what}; pack or copy the model again")]
    Damaged {
        /// File or other origin.
        origin: String,
        /// The broken rule, with offending value and limit.
        what: String,
    },
    /// Another program version wrote the pack.
    #[error(
        "{origin} has pack format {found}, this program reads formats {OLDEST_VERSION} to {BASIS_VERSION}; \
         pack the model again with this version of ocelli"
    )]
    Version {
        /// File or other origin.
        origin: String,
        /// The version found.
        found: u32,
    },
    /// The configuration in the header breaks a rule.
    #[error("{origin}: {source}")]
    Config {
        /// File or other origin.
        origin: String,
        /// The broken rule.
        source: Box<ConfigError>,
    },
}

/// An opened pack: the region and its checked table of contents.
#[derive(Debug)]
pub struct Pack {
    region: Region,
    header: Header,
    data_start: usize,
    origin: String,
    index: HashMap<String, usize>,
}

impl Pack {
    /// Maps a pack file and checks it.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub fn open(path: &Path) -> Result<Pack, OpenError> {
        let region = Region::map(path).map_err(|source| OpenError::Io {
            path: path.to_path_buf(),
            source,
        })?;
        Pack::from_region(region, &path.display().to_string())
    }

    /// Checks a pack that lies in memory; `origin` names it in errors.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub fn from_region(region: Region, origin: &str) -> Result<Pack, OpenError> {
        let (header, data_start) = read_prefix(&region, origin)?;
        let pack = Pack {
            index: header
                .tensors
                .iter()
                .enumerate()
                .map(|(at, entry)| (entry.name.clone(), at))
                .collect(),
            region,
            header,
            data_start,
            origin: origin.to_owned(),
        };
        pack.check()?;
        Ok(pack)
    }

    /// The checked header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// SHA-256 of everything before the weights: configuration, tensor table with the checksum of
    /// every tensor, hashes of the files the pack was made from.
    pub fn header_sha256(&self) -> [u8; 32] {
        Sha256::digest(&self.region[..self.data_start]).into()
    }

    /// Where the data section begins, in bytes from the begin of the pack.
    pub fn data_start(&self) -> usize {
        self.data_start
    }

    /// Size of the whole pack in bytes.
    pub fn len(&self) -> usize {
        self.region.len()
    }

    /// Whether the pack has no bytes; never true for an opened one.
    pub fn is_empty(&self) -> bool {
        self.region.is_empty()
    }

    /// File or other origin, for messages.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Whether the bytes are pages of a file rather than anonymous memory.
    pub fn is_file_backed(&self) -> bool {
        self.region.is_file_backed()
    }

    pub(crate) fn damaged(&self, what: String) -> OpenError {
        OpenError::Damaged {
            origin: self.origin.clone(),
            what,
        }
    }

    fn check(&self) -> Result<(), OpenError> {
        let header = &self.header;
        let invalid = |source| OpenError::Config {
            origin: self.origin.clone(),
            source: Box::new(source),
        };
        header.config.validate("pack header").map_err(invalid)?;
        if let Some((field, value, multiple)) = unfit_for_kernels(&header.config) {
            return Err(self.damaged(format!(
                "{field} is {value}, the kernels need a multiple of {multiple}"
            )));
        }
        match (&header.preprocess, &header.config.vision) {
            (Some(preprocess), Some(vision)) => preprocess
                .validate("pack header", vision)
                .map_err(invalid)?,
            (None, None) => {}
            _ => {
                return Err(self.damaged(
                    "a vision side and picture preprocessing come together or not at all"
                        .to_owned(),
                ));
            }
        }
        header
            .generation
            .validate("pack header", header.config.text.vocab_size)
            .map_err(invalid)?;
        for (what, found, known) in [
            ("panel layout", &header.panel_layout, panels::LAYOUT_ID),
            (
                "int4 panel layout",
                &header.int4_panel_layout,
                int4_panels::LAYOUT_ID,
            ),
        ] {
            if found != known {
                return Err(self.damaged(format!("{what} {found:?}, this program reads {known:?}")));
            }
        }
        if header.image_seq_len != header.config.image_tokens_per_tile() {
            return Err(self.damaged(format!(
                "image_seq_len {} does not match the {} image tokens of the shapes",
                header.image_seq_len,
                header.config.image_tokens_per_tile()
            )));
        }
        let rotation = &header.text_rotation;
        if !rotation.is_consistent() || rotation.width() != header.config.text.hidden_size {
            return Err(self.damaged("the rotation does not fit the hidden size".to_owned()));
        }
        if self.index.len() != header.tensors.len() {
            return Err(self.damaged("a tensor name occurs twice".to_owned()));
        }
        header
            .tensors
            .iter()
            .try_for_each(|entry| self.check_entry(entry))?;
        let mut spans: Vec<&TensorEntry> = header.tensors.iter().collect();
        spans.sort_by_key(|entry| (entry.offset, entry.len));
        match spans
            .windows(2)
            .find(|pair| pair[0].offset + pair[0].len > pair[1].offset)
        {
            Some(pair) => Err(self.damaged(format!(
                "tensors {} and {} overlap",
                pair[0].name, pair[1].name
            ))),
            None => Ok(()),
        }
    }

    fn check_entry(&self, entry: &TensorEntry) -> Result<(), OpenError> {
        let data = (self.region.len() - self.data_start) as u64;
        let end = entry.offset.checked_add(entry.len);
        if !entry.offset.is_multiple_of(ALIGNMENT as u64) || end.is_none_or(|end| end > data) {
            return Err(self.damaged(format!(
                "tensor {} claims {} bytes at {}, the data section has {data}; the file is cut short or its header is wrong",
                entry.name, entry.len, entry.offset
            )));
        }
        match entry.layout.byte_len(entry.shape) {
            Some(expected) if expected == entry.len => {}
            Some(expected) => {
                return Err(self.damaged(format!(
                    "tensor {} of shape {:?} has {} bytes, {:?} of that shape has {expected}",
                    entry.name, entry.shape, entry.len, entry.layout
                )));
            }
            None => {
                return Err(self.damaged(format!(
                    "tensor {} has shape {:?}, which {:?} cannot hold",
                    entry.name, entry.shape, entry.layout
                )));
            }
        }
        if entry.layout == Layout::NibblePanels && (entry.name != HEAD || entry.group != 0) {
            return Err(self.damaged(format!(
                "tensor {} with groups of {} cannot be {:?}, only {HEAD} without groups",
                entry.name, entry.group, entry.layout
            )));
        }
        let multiple = entry.layout.group_multiple();
        let group_fits = entry.group == 0
            || (entry.group.is_multiple_of(multiple) && entry.shape[1].is_multiple_of(entry.group));
        if !group_fits {
            return Err(self.damaged(format!(
                "tensor {} of shape {:?} cannot have groups of {}, only multiples of {multiple} that divide its width",
                entry.name, entry.shape, entry.group
            )));
        }
        Ok(())
    }

    /// Checks every tensor's checksum. Reads the whole file once.
    ///
    /// # Errors
    ///
    /// [`OpenError::Damaged`] naming the first tensor that differs.
    pub fn verify(&self) -> Result<(), OpenError> {
        for entry in &self.header.tensors {
            let found = crc32fast::hash(self.bytes_of(entry));
            let expected = u32::from_le_bytes(entry.crc32);
            if found != expected {
                return Err(self.damaged(format!(
                    "tensor {} has checksum {found:08x}, the header says {expected:08x}",
                    entry.name
                )));
            }
        }
        Ok(())
    }

    fn bytes_of(&self, entry: &TensorEntry) -> &[u8] {
        // Bounds were checked against the region on open.
        let start = self.data_start + entry.offset as usize;
        &self.region[start..start + entry.len as usize]
    }

    fn entry(&self, name: &str) -> Result<&TensorEntry, OpenError> {
        let at = self.index.get(name);
        at.map(|at| &self.header.tensors[*at])
            .ok_or_else(|| self.damaged(format!("tensor {name} is missing")))
    }

    /// How the decoder's matrices are stored: int4 if any of them is.
    pub fn weights(&self) -> WeightScheme {
        let tensors = &self.header.tensors;
        match tensors.iter().any(|t| t.layout == Layout::Int4Panels) {
            true => WeightScheme::Int4,
            false => WeightScheme::Int8,
        }
    }

    /// Whether there is a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    /// Finds a tensor and checks layout and shape.
    ///
    /// # Errors
    ///
    /// [`OpenError::Damaged`] when it is missing or of another layout or shape.
    pub fn find(
        &self,
        name: &str,
        layout: Layout,
        shape: [usize; 2],
    ) -> Result<&TensorEntry, OpenError> {
        let entry = self.entry(name)?;
        if entry.layout != layout || entry.shape != shape {
            return Err(self.damaged(format!(
                "tensor {name} is {:?} {:?}, the configuration asks for {layout:?} {shape:?}",
                entry.layout, entry.shape
            )));
        }
        Ok(entry)
    }

    /// Maps everything from the first to the second matrix in one go, where it is a mapped file.
    pub fn populate(&self, first: &Matrix, last: &Matrix) {
        self.region.populate(first.start..last.start + last.len);
    }

    /// The bytes of a tensor of the given layout and shape.
    ///
    /// # Errors
    ///
    /// [`OpenError::Damaged`] when it is missing or of another layout or shape.
    pub fn tensor(
        &self,
        name: &str,
        layout: Layout,
        shape: [usize; 2],
    ) -> Result<&[u8], OpenError> {
        Ok(self.bytes_of(self.find(name, layout, shape)?))
    }

    /// The bytes of a named blob.
    ///
    /// # Errors
    ///
    /// [`OpenError::Damaged`] when it is missing.
    pub fn blob(&self, name: &str) -> Result<&[u8], OpenError> {
        match self.index.get(name).map(|at| &self.header.tensors[*at]) {
            Some(entry) if entry.layout == Layout::Bytes => Ok(self.bytes_of(entry)),
            _ => Err(self.damaged(format!("blob {name} is missing"))),
        }
    }

    /// The bytes of a named blob, which keep the pack open.
    ///
    /// # Errors
    ///
    /// [`OpenError::Damaged`] when it is missing.
    pub fn shared_blob(self: &Arc<Self>, name: &str) -> Result<Blob, OpenError> {
        let bytes = self.blob(name)?;
        let start = bytes.as_ptr().addr() - self.region.as_ptr().addr();
        Ok(Blob(Holder::Pack(self.clone(), start..start + bytes.len())))
    }
}

/// Bytes of a pack, or bytes like those.
#[derive(Clone, Debug)]
pub struct Blob(Holder);

#[derive(Clone, Debug)]
enum Holder {
    /// A range of the pack's region.
    Pack(Arc<Pack>, Range<usize>),
    Memory(Arc<[u8]>),
}

impl Deref for Blob {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Holder::Pack(pack, range) => &pack.region[range.clone()],
            Holder::Memory(bytes) => bytes,
        }
    }
}

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Blob {
        Blob(Holder::Memory(bytes.into()))
    }
}

/// Offset of the data section for a header of this length.
fn data_start(header_len: usize) -> usize {
    (PREFIX_BYTES + header_len).next_multiple_of(ALIGNMENT)
}

fn read_prefix(bytes: &[u8], origin: &str) -> Result<(Header, usize), OpenError> {
    let damaged = |what: String| OpenError::Damaged {
        origin: origin.to_owned(),
        what,
    };
    if bytes.len() < PREFIX_BYTES {
        return Err(damaged(format!("{} bytes are too few", bytes.len())));
    }
    let word =
        |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    if bytes[..8] != MAGIC {
        return Err(damaged("it does not begin with OCELLIPK".to_owned()));
    }
    let version = word(8);
    if !(OLDEST_VERSION..=BASIS_VERSION).contains(&version) {
        return Err(OpenError::Version {
            origin: origin.to_owned(),
            found: version,
        });
    }
    let len = word(12) as usize;
    if len > MAX_HEADER_BYTES {
        return Err(damaged(format!(
            "header of {len} bytes, the limit is {MAX_HEADER_BYTES}"
        )));
    }
    let start = data_start(len);
    if start > bytes.len() {
        return Err(damaged(format!(
            "header of {len} bytes in a file of {}; the file is cut short",
            bytes.len()
        )));
    }
    let padding = &bytes[PREFIX_BYTES + len..start];
    if word(20) != 0 || padding.iter().any(|byte| *byte != 0) {
        return Err(damaged(
            "reserved bytes around the header are not zero".to_owned(),
        ));
    }
    let header = &bytes[PREFIX_BYTES..PREFIX_BYTES + len];
    let found = crc32fast::hash(header);
    if found != word(16) {
        return Err(damaged(format!(
            "the header has checksum {found:08x}, expected {:08x}",
            word(16)
        )));
    }
    let header = Header::decode(version, header)
        .map_err(|what| damaged(format!("the header cannot be read: {what}")))?;
    Ok((header, start))
}
