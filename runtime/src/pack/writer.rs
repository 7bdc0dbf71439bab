//! Writing a pack: tensors streamed in table order, header last, renamed into place.

use super::{FORMAT_VERSION, Header, Layout, MAGIC, MAX_HEADER_BYTES, PREFIX_BYTES, data_start};
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
        let header_len = postcard::to_stdvec(&header)?.len();
        if header_len > MAX_HEADER_BYTES {
            return Err(PackError::HeaderTooLong(header_len));
        }
        let data_start = data_start(header_len);
        let mut writer = PackWriter {
            out,
            header,
            data_start,
            next: 0,
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
        let entry = &mut self.header.tensors[self.next];
        assert_eq!(
            entry.name, name,
            "tensors are written in the order of the plan"
        );
        assert_eq!(
            entry.len,
            bytes.len() as u64,
            "tensor {name} has the planned length"
        );
        entry.crc32 = crc32fast::hash(bytes).to_le_bytes();
        self.out.write_all(bytes)?;
        let padding = bytes.len().next_multiple_of(ALIGNMENT) - bytes.len();
        self.out.write_all(&[0; ALIGNMENT][..padding])?;
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
        let header = postcard::to_stdvec(&self.header)?;
        assert_eq!(
            data_start(header.len()),
            self.data_start,
            "checksums have a fixed width, so the header keeps its length"
        );
        let mut prefix = [0u8; PREFIX_BYTES];
        prefix[..8].copy_from_slice(&MAGIC);
        prefix[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        // The length was checked against MAX_HEADER_BYTES.
        prefix[12..16].copy_from_slice(&(header.len() as u32).to_le_bytes());
        prefix[16..20].copy_from_slice(&crc32fast::hash(&header).to_le_bytes());
        self.out.seek(SeekFrom::Start(0))?;
        self.out.write_all(&prefix)?;
        self.out.write_all(&header)?;
        let padding = self.data_start - PREFIX_BYTES - header.len();
        self.out.write_all(&[0; ALIGNMENT][..padding])?;
        self.out.flush()?;
        Ok(self.out)
    }
}
