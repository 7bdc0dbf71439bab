//! The frame header: size, components, coding process.

use crate::jpeg::segment::{self, APP14, DAC, EOI, SOI, SOS, Segment};
use crate::jpeg::{JpegError, is_allowed};

/// One colour component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Component {
    pub(super) id: u8,
    /// Samples across in a unit, 1 to 4.
    pub(super) across: usize,
    /// Samples down in a unit, 1 to 4.
    pub(super) down: usize,
    /// Quantisation table.
    pub(super) quantizer: usize,
}

/// What the frame header says, with the hints of the application segments before it.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(super) components: Vec<Component>,
    /// Sequential Huffman coding, which the walk follows block by block.
    pub(super) is_sequential: bool,
    /// Most samples across and down of all components.
    pub(super) most: (usize, usize),
}

/// What the Adobe segment says about the meaning of the components.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ColorHints {
    adobe_transform: Option<u8>,
}

impl ColorHints {
    pub(super) fn are_in(segment: &Segment<'_>) -> bool {
        segment.marker == APP14 && segment.body.starts_with(b"Adobe")
    }

    pub(super) fn note(&mut self, segment: &Segment<'_>) {
        if ColorHints::are_in(segment) {
            self.adobe_transform = segment.body.get(11).copied();
        }
    }

    /// Whether the first component is luma.
    pub(super) fn has_luma(&self, components: &[Component]) -> bool {
        match components {
            [_] => true,
            [red, green, blue] => {
                self.adobe_transform != Some(0) && [red.id, green.id, blue.id] != *b"RGB"
            }
            _ => false,
        }
    }
}

impl Header {
    /// The header of the first picture in the bytes.
    pub(super) fn find(bytes: &[u8]) -> Result<Header, JpegError> {
        let none = JpegError::NoStart { bytes: bytes.len() };
        let mut at = segment::find_start(bytes).ok_or(none)? + 2;
        loop {
            let segment = segment::next_segment(bytes, at)?;
            match segment.marker {
                SOI | EOI | SOS => return Err(segment.damaged()),
                _ if segment.is_frame() => return Header::parse(&segment),
                _ => at = segment.end(),
            }
        }
    }

    /// Reads a frame segment (T.81 B.2.2).
    pub(super) fn parse(segment: &Segment<'_>) -> Result<Header, JpegError> {
        let is_sequential = match segment.marker {
            0xC0 | 0xC1 => true,
            0xC2 => false,
            0xC3 => return Err(JpegError::Unsupported { kind: "lossless" }),
            0xC9..DAC => {
                return Err(JpegError::Unsupported {
                    kind: "arithmetically coded",
                });
            }
            _ => {
                return Err(JpegError::Unsupported {
                    kind: "hierarchical",
                });
            }
        };
        let Some((&[bits, h0, h1, w0, w1, count], rest)) = segment.body.split_first_chunk() else {
            return Err(segment.damaged());
        };
        if bits != 8 {
            return Err(JpegError::Unsupported {
                kind: "not of 8 bits",
            });
        }
        let (width, height) = (
            u16::from_be_bytes([w0, w1]).into(),
            u16::from_be_bytes([h0, h1]).into(),
        );
        if !is_allowed(width, height) {
            return Err(JpegError::Size { width, height });
        }
        let specifications = rest.as_chunks::<3>().0;
        if !matches!(count, 1 | 3 | 4) || specifications.len() != usize::from(count) {
            return Err(segment.damaged());
        }
        let components: Vec<Component> = specifications.iter().map(component).collect();
        if components
            .iter()
            .any(|c| !(1..=4).contains(&c.across) || !(1..=4).contains(&c.down))
        {
            return Err(segment.damaged());
        }
        let across = components.iter().map(|c| c.across).max().unwrap_or(1);
        let down = components.iter().map(|c| c.down).max().unwrap_or(1);
        Ok(Header {
            width,
            height,
            components,
            is_sequential,
            most: (across, down),
        })
    }

    /// Blocks across and down that hold samples of a component.
    pub(super) fn blocks(&self, component: &Component) -> (usize, usize) {
        let count = |side: u32, samples: usize, most: usize| {
            (side as usize * samples).div_ceil(most).div_ceil(8)
        };
        (
            count(self.width, component.across, self.most.0),
            count(self.height, component.down, self.most.1),
        )
    }

    /// Units across and down of a scan of several components.
    pub(super) fn units(&self) -> (usize, usize) {
        let (across, down) = self.most;
        (
            (self.width as usize).div_ceil(8 * across),
            (self.height as usize).div_ceil(8 * down),
        )
    }
}

fn component(&[id, sampling, quantizer]: &[u8; 3]) -> Component {
    Component {
        id,
        across: usize::from(sampling >> 4),
        down: usize::from(sampling & 15),
        quantizer: usize::from(quantizer),
    }
}
