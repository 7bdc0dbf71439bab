//! Writing a pack: tensors streamed in table order, header last, renamed into place.

use super::{Header, Layout, MAGIC, MAX_HEADER_BYTES, PREFIX_BYTES, data_start};
use crate::weights::ALIGNMENT;
use std::io::{self, Seek, SeekFrom, Write};

/// Why a pack could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// The output could not be written.
    #[error("cannot write the pack: {0}; is the disk full?")]
    Io(#[from] io::Error),
    /// The header could not be encoded.
    #[error("cannot encode the pack header: {0}")]
    Header(#[from] postcard::Error),
    /// The header is longer than a reader accepts.
    #[error("the pack header has {0} bytes, the limit is {MAX_HEADER_BYTES}")]
    HeaderTooLong(usize),
}

/// A tensor that will be written: everything but its bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedTensor {
    /// Name, e.g. `text.3.down`.
    pub name: String,
    /// Layout of the bytes.
    pub layout: Layout,
    /// Rows and columns.
    pub shape: [usize; 2],
    /// For panels: activations along k that share a scale; 0 = the whole row.
    pub group: usize,
}

/// Writes the tensors of one pack in the order of its plan.
#[derive(Debug)]
pub struct PackWriter<W> {
    out: W,
    header: Header,
    data_start: usize,
    /// Next tensor to be written.
    next: usize,
    /// What was written of it.
    part: Part,
}

/// The written part of a tensor.
#[derive(Debug, Default)]
struct Part {
    len: u64,
    crc32: crc32fast::Hasher,
}

impl<W: Write + Seek> PackWriter<W> {
    /// Lays out the plan's tensors and reserves room for the header.
    /// `header.tensors` is filled in here.
    ///
    /// # Errors
    ///
    /// See [`PackError`].
    ///
    /// # Panics
    ///
    /// When a planned shape overflows or does not suit its layout; shapes come from a checked
    /// configuration.
    pub fn new(out: W, mut header: Header, plan: &[PlannedTensor]) -> Result<Self, PackError> {
        let mut offset = 0u64;
        header.tensors = plan
            .iter()
            .map(|tensor| {
                let len = tensor
                    .layout
                    .byte_len(tensor.shape)
                    .expect("the shapes of a checked configuration do not overflow");
                let entry = super::TensorEntry {
                    name: tensor.name.clone(),
                    layout: tensor.layout,
                    shape: tensor.shape,
                    group: tensor.group,
                    offset,
                    len,
                    crc32: [0; 4],
                };
                offset += len.next_multiple_of(ALIGNMENT as u64);
                entry
            })
            .collect();
        let header_len = header.encode()?.1.len();
        if header_len > MAX_HEADER_BYTES {
            return Err(PackError::HeaderTooLong(header_len));
        }
        let data_start = data_start(header_len);
        let mut writer = PackWriter {
            out,
            header,
            data_start,
            next: 0,
            part: Part::default(),
        };
        writer.out.seek(SeekFrom::Start(data_start as u64))?;
        Ok(writer)
    }

    /// Writes the next tensor of the plan.
    ///
    /// # Errors
    ///
    /// Whatever writing reports.
    ///
    /// # Panics
    ///
    /// When name or length are not those of the plan's next tensor.
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), PackError> {
        self.append(name, bytes)?;
        self.end(name)
    }

    /// Writes some more bytes of the plan's next tensor, which [`PackWriter::end`] ends: a tensor
    /// written in parts takes no more memory than its largest part.
    ///
    /// # Errors
    ///
    /// Whatever writing reports.
    ///
    /// # Panics
    ///
    /// When the name is not that of the plan's next tensor.
    pub fn append(&mut self, name: &str, bytes: &[u8]) -> Result<(), PackError> {
        assert_eq!(
            self.header.tensors[self.next].name, name,
            "tensors are written in the order of the plan"
        );
        self.part.crc32.update(bytes);
        self.part.len += bytes.len() as u64;
        self.out.write_all(bytes)?;
        Ok(())
    }

    /// Ends the plan's next tensor, all of whose bytes were appended.
    ///
    /// # Errors
    ///
    /// Whatever writing reports.
    ///
    /// # Panics
    ///
    /// When name or length are not those of the plan's next tensor.
    pub fn end(&mut self, name: &str) -> Result<(), PackError> {
        let part = std::mem::take(&mut self.part);
        let entry = &mut self.header.tensors[self.next];
        assert_eq!(
            (entry.name.as_str(), entry.len),
            (name, part.len),
            "a tensor has the planned name and length"
        );
        entry.crc32 = part.crc32.finalize().to_le_bytes();
        let padding = part.len.next_multiple_of(ALIGNMENT as u64) - part.len;
        // Less than ALIGNMENT.
        self.out.write_all(&[0; ALIGNMENT][..padding as usize])?;
        self.next += 1;
        Ok(())
    }

    /// Writes the header over its reserved room and hands the output back.
    ///
    /// # Errors
    ///
    /// Whatever writing reports.
    ///
    /// # Panics
    ///
    /// When a planned tensor was not written.
    pub fn finish(mut self) -> Result<W, PackError> {
        assert_eq!(
            self.next,
            self.header.tensors.len(),
            "every planned tensor was written"
        );
        write_front(&mut self.out, &self.header, self.data_start)?;
        Ok(self.out)
    }
}

/// Writes prefix and header into the room in front of the data.
fn write_front<W: Write + Seek>(
    out: &mut W,
    header: &Header,
    start: usize,
) -> Result<(), PackError> {
    let (version, header) = header.encode()?;
    assert_eq!(
        data_start(header.len()),
        start,
        "checksums have a fixed width, so the header keeps its length"
    );
    let mut prefix = [0u8; PREFIX_BYTES];
    prefix[..8].copy_from_slice(&MAGIC);
    prefix[8..12].copy_from_slice(&version.to_le_bytes());
    // The length was checked against MAX_HEADER_BYTES.
    prefix[12..16].copy_from_slice(&(header.len() as u32).to_le_bytes());
    prefix[16..20].copy_from_slice(&crc32fast::hash(&header).to_le_bytes());
    out.seek(SeekFrom::Start(0))?;
    out.write_all(&prefix)?;
    out.write_all(&header)?;
    let padding = start - PREFIX_BYTES - header.len();
    out.write_all(&[0; ALIGNMENT][..padding])?;
    out.flush()?;
    Ok(())
}

/// Replaces the bytes of a blob in a written pack by others of the same length. `header` and
/// `data_start` are those of the pack that `out` holds.
///
/// # Errors
///
/// Whatever writing reports.
///
/// # Panics
///
/// When the pack has no such blob, or one of another length.
pub fn replace_blob<W: Write + Seek>(
    out: &mut W,
    mut header: Header,
    data_start: usize,
    name: &str,
    bytes: &[u8],
) -> Result<(), PackError> {
    let entry = header.tensors.iter_mut().find(|entry| entry.name == name);
    let entry = entry.expect("the pack was written with the blob");
    assert_eq!(
        (entry.layout, entry.len),
        (Layout::Bytes, bytes.len() as u64),
        "the blob {name} keeps its length"
    );
    entry.crc32 = crc32fast::hash(bytes).to_le_bytes();
    out.seek(SeekFrom::Start(data_start as u64 + entry.offset))?;
    out.write_all(bytes)?;
    write_front(out, &header, data_start)
}
